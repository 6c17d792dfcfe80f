"""The lessons: each runs from top to bottom, and stands in the repository with the outputs of such a run."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(/home/|/root/|/tmp/|/Users/|site-packages|[A-Z]:\\)")
NEEDS = {"graduate-to-pytorch": ("torch", "keras", "onnx", "onnxruntime")}  # the extra `interop`
LONG = ("day-9-lstm-gru", "gradient-laboratory")
SECONDS_A_CELL = 600  # a hang, not a slow machine

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[str]:
    """What a cell puts out: the stream's name or the first media type of each output, repetitions once."""
    found = [output.get("name") or min(output.get("data", {"error": 0})) for output in cell.outputs]
    return [kind for n, kind in enumerate(found) if n == 0 or kind != found[n - 1]]


def test_there_is_a_lesson() -> None:
    assert "day-9-lstm-gru" in [path.stem for path in NOTEBOOKS]


@each_notebook
def test_the_committed_outputs_are_those_of_one_run_in_order(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert path.stat().st_size < 5e6
    for cell in code_cells(notebook):
        assert "execution" not in cell.metadata, "run it with ExecutePreprocessor.record_timing=False: no times of day"
        assert not {"stderr", "error"} & set(kinds(cell)), cell.id
        for output in cell.outputs:
            text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            assert not MACHINE_PATH.search(text), f"{cell.id}: {text}"


LESSONS = pytest.mark.parametrize("stem", LONG)


@LESSONS
def test_the_page_folds_plumbing_and_outcomes_and_tells_its_figures_in_words(stem: str) -> None:
    exporter = HTMLExporter(extra_template_basedirs=[str(NOTEBOOKS[0].parent)], template_name="template")
    notebook = read(NOTEBOOKS[0].parent / f"{stem}.ipynb")
    page, _ = exporter.from_notebook_node(notebook)
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", ())]
    for tag in ("plumbing", "outcome"):
        assert page.count(f'<details class="{tag}">') == tags.count(tag) > 3
    assert not re.search(r"<script[^>]+src=|mathjax|[$]{2}", page, re.IGNORECASE), "the page needs the network"
    assert ("<math" in page) == any("$" in cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    images = re.findall(r"<img[^>]+>", page)
    assert len(images) > 10
    assert all(re.search(r'alt="[^"]{40,}"', image) for image in images)


@LESSONS
def test_every_prediction_is_asked_before_its_outcome_and_answered_folded(stem: str) -> None:
    cells = read(NOTEBOOKS[0].parent / f"{stem}.ipynb").cells
    asked = [n for n, cell in enumerate(cells) if "**Predict.**" in cell.source]
    assert len(asked) > 8
    for n in asked:
        assert cells[n].source.rstrip().endswith("</details>")
        assert cells[n].source.index("**Predict.**") < cells[n].source.index(
            "<details><summary>What was found</summary>"
        )
        following = next(cell for cell in cells[n + 1 :] if cell.cell_type == "code" and shows_something(cell))
        assert "outcome" in following.metadata.get("tags", ()), following.source
        assert following.metadata.jupyter.outputs_hidden
        assert following.outputs[0].data["text/html"].startswith("<!-- here a ")  # all that a folded output shows


def shows_something(cell: Any) -> bool:
    """Whether a cell puts out more than progress bars, which JupyterLab cannot fold away from it."""
    return any("html" in kind or kind == "stdout" for kind in kinds(cell))


def test_plumbing_and_outcomes_are_hidden_in_jupyterlab() -> None:
    for path in NOTEBOOKS:
        for cell in code_cells(read(path)):
            hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
            assert hidden == bool({"plumbing", "outcome"} & set(cell.metadata.get("tags", ())))


GUARDS = [code_cells(read(path))[0].source for path in NOTEBOOKS]


def test_the_first_cell_of_every_notebook_looks_for_the_library() -> None:
    assert len(set(GUARDS)) == 1
    assert GUARDS[0].startswith("# The library, where it is missing")


def run_guard(folder: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool) -> list[list[str]]:
    """Run the first cell in a folder: what it would have installed."""
    calls: list[list[str]] = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr("subprocess.run", lambda command, check: calls.append(command))
    if not installed:
        monkeypatch.setitem(sys.modules, "rnnlab", None)
    exec(compile(GUARDS[0], "<first cell>", "exec"), {})
    return calls


def test_the_first_cell_does_nothing_where_the_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_guard(tmp_path, monkeypatch, installed=True) == []


@pytest.mark.parametrize("notebook", ["clone/notebooks", "."])
def test_the_first_cell_installs_a_clone_around_or_beside_the_notebook(
    notebook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clone" / "rnnlab").mkdir(parents=True)
    (tmp_path / "clone" / "rnnlab" / "__init__.py").touch()
    (tmp_path / notebook).mkdir(exist_ok=True)
    ((_, *pip),) = run_guard(tmp_path / notebook, monkeypatch, installed=False)
    assert pip == ["-m", "pip", "install", "-q", str(tmp_path / "clone"), "tqdm"]


def test_the_first_cell_says_what_to_do_without_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match="put a clone of its repository beside this notebook"):
        run_guard(tmp_path, monkeypatch, installed=False)


@each_notebook
def test_links_lead_to_notebooks_and_headings_that_exist(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    anchors = {heading.strip().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("http"):
            assert (path.parent / target.partition("#")[0]).exists(), target


def test_the_knobs_of_the_saved_lesson_hold_their_frames() -> None:
    notebook = read(NOTEBOOKS[0].parent / "day-9-lstm-gru.ipynb")
    pages = [
        o.data["text/html"] for cell in code_cells(notebook) for o in cell.outputs if "text/html" in o.get("data", {})
    ]
    knobs = [page for page in pages if 'type="range"' in page]
    for knob, frames in zip(knobs, (4, 11), strict=True):  # the stages of a cell, the forget bias
        assert knob.count("data:image/png;base64,") == frames
        assert knob.count('alt="') == frames
        assert len(knob) < 1e6


# Training and scoring are most of what the lessons cost. The short run trains on every 50th batch alone, scores on few
# sequences and lets sentences about trained networks pass; `pytest -m whole` runs the lessons as they stand.
SHORTER = """
def shorter():
    import rnnlab as rl
    from rnnlab.lesson import claims

    update, trained = rl.Trainer._update, []

    def every_50th(self, batch):
        trained.append(self)
        if self.step % 50 == 0:
            return update(self, batch)
        self.step += 1
        for history in (self.history.loss, self.history.gradient_norm):
            history.append(history[-1])

    def claim(text, holds):
        print(text)
        assert holds or trained, text

    rl.Trainer._update, claims.claim = every_50th, claim
    evaluation, char_text, reference = rl.tasks.Task.evaluation, rl.tasks.char_text, rl.tasks.python_reference()
    rl.tasks.Task.evaluation = lambda self, size=500: evaluation(self, min(size, 64))
    rl.tasks.char_text = lambda text=reference[:100_000], **options: char_text(text, **options)


shorter()
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("first", [SHORTER, pytest.param("", marks=pytest.mark.whole)], ids=["short", "whole"])
def test_it_runs_from_top_to_bottom_and_puts_out_what_is_committed(path: Path, first: str, tmp_path: Path) -> None:
    for module in NEEDS.get(path.stem, ()):
        if find_spec(module) is None:
            pytest.skip(f"{path.stem} needs {module}, of the extra `interop`")
    if first and path.stem in NEEDS:
        first = ""  # which compares the training of two libraries, step by step
    committed, notebook = read(path), read(path)
    for cell in code_cells(notebook):
        cell.outputs = []
    notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    NotebookClient(
        notebook, timeout=SECONDS_A_CELL, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    for before, after in zip(code_cells(committed), code_cells(notebook)[1:], strict=True):
        assert kinds(after) == kinds(before), after.id
    drawn = {file.name for file in tmp_path.glob("*.png")}
    assert drawn <= {file.name for file in path.parent.glob("*.png")}, (
        "a figure that the notebook saves is not committed"
    )
