"""The README says what is true of the code beside it."""

import inspect
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.experiments import figure

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n((?:(?!```).*\n)+)```\n(?:\n((?:    .*\n)+))?", README)


def test_the_equations_shown_are_those_of_the_lstm():
    shown = [line.strip() for line in BLOCKS[0][0].splitlines() if line.strip() and not line.startswith("def ")]
    source = inspect.getsource(rl.LSTMCell)
    assert len(shown) == 15
    assert [line for line in shown if line not in source] == []


def test_diagnose_prints_the_reports_shown(capsys, tmp_path, monkeypatch):
    blocks = [block for block in BLOCKS if "rl.diagnose(" in block[0]]
    assert len(blocks) == 2
    code = "\n".join(code for code, _ in blocks)
    (tmp_path / "mine.py").write_text(f"import rnnlab as rl\n{code}")  # diagnose reads the source from a file
    monkeypatch.syspath_prepend(tmp_path)
    __import__("mine")
    out = capsys.readouterr().out
    shown = "\n".join(textwrap.dedent(printed).rstrip("\n") for _, printed in blocks)
    assert re.sub(r"line \d+", "line", out).strip() == re.sub(r"line \d+", "line", shown).strip()


def test_real_sequences_run_as_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = next(code for code, _ in BLOCKS if "rl.pad" in code)
    rng = np.random.default_rng(0)
    sentences = [rng.integers(0, 1000, n) for n in (3, 7, 1)]
    others = [rl.Batch(rng.integers(0, 1000, (4, 2)), np.array([1.0, 0.0]))]
    space = {"rl": rl, "sentences": sentences, "y": np.array([1.0, 0.0, 1.0]), "others": others, "held": others[0]}
    exec(code, space)
    assert 4 <= space["trainer"].step <= 40
    assert (tmp_path / "best.npz").exists()


@pytest.mark.parametrize("page", ["README.md", "notebooks/measured.md"])
def test_every_file_named_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(((?!http)[^)]+)\)", text)]
    spans = re.findall(r"`((?:rnnlab|tests|notebooks)/[\w./-]*)`", text)
    paths = [path for path in links + spans if not path.endswith(".html")]  # which the command writes
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_name_of_the_library_in_the_readme_exists():
    names = set(re.findall(r"\brl((?:\.[A-Za-z_]\w*)+)", README))
    assert len(names) > 15
    for name in names:
        thing = rl
        for part in name[1:].split("."):
            thing = getattr(thing, part)


def test_the_table_of_the_house_names_every_file_and_folder():
    table = README[README.index("| file or folder |") : README.index("Imports go one way")]
    files = [path.name for path in (ROOT / "rnnlab").glob("[!_]*.py")]
    folders = [f"{path.parent.name}/" for path in (ROOT / "rnnlab").glob("*/__init__.py")]
    assert [name for name in files + folders if f"{name}`" not in table] == []


def test_the_caption_of_the_figure_says_what_it_shows():
    lost = {}
    for label, cell in figure.starts().items():
        norms = figure.gradient_at_each_step(cell)
        memory = norms.get("c", norms["h"])
        lost[label] = float(np.log10(memory[memory > 0][-1]) - np.log10(memory[1]))
    default = [loss for label, loss in lost.items() if "," not in label]
    assert len(default) == 5
    assert (round(min(default)), round(max(default))) == (19, 24)
    assert "all five cells lose 19 to 24 powers of ten" in README
    assert max(lost["LSTM, chrono"], lost["GRU, chrono"]) < 1
    assert f"for {['seven', 'eight', 'nine'][len(lost) - 7]} networks" in README
