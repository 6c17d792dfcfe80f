"""What the lesson's page is made with: claims that can fail, a knob that works without a kernel, gaps that are seen."""

import base64
import re
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from math_core import LatexError

import rnnlab as rl
from rnnlab.experiments import figure
from rnnlab.lesson import claims, exercises, mathml
from rnnlab.lesson.knob import Knob
from rnnlab.tables import html_table
from tests.cases import each_cell


def test_a_claim_that_does_not_hold_stops_the_page(capsys: Any) -> None:
    claims.claim("two is more than one", True)
    with pytest.raises(AssertionError, match="one is more than two"):
        claims.claim("one is more than two", False)
    assert capsys.readouterr().out == "holds: two is more than one\nDOES NOT HOLD: one is more than two\n"


def test_claims_are_counted_over_seeds(tmp_path: Path) -> None:
    source = (
        "from rnnlab.lesson.claims import SEED, claim\nclaim('always', True)\nclaim('only on small seeds', SEED < 2)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    path = tmp_path / "page.ipynb"
    nbformat.write(notebook, path)
    assert claims.run_on_seeds(path, (2,)) == {"always": {2: True}, "only on small seeds": {2: False}}


def draw(value: float) -> Any:
    ax = plt.subplots(figsize=(2, 1))[1]
    ax.plot([0, value])
    return ax


def test_a_knob_holds_one_picture_for_each_value_and_shows_the_first() -> None:
    knob = Knob(draw, (0, 1, 2.5), "bias", lambda value: f'a line up to "{value:g}"')
    page = knob._repr_html_()
    assert len(set(knob.frames)) == 3
    for frame in knob.frames:
        assert frame.startswith(b"\x89PNG")
        assert base64.b64encode(frame).decode() in page
    assert page.count("display:block") == 1
    assert 'alt="a line up to &quot;2.5&quot;"' in page
    assert not plt.get_fignums()


def test_a_knob_turns_through_words_too() -> None:
    page = Knob(lambda word: draw(len(word)), ("a", "bcd"), "word", str)._repr_html_()
    assert "<output>a</output>" in page
    assert "[&#x27;a&#x27;, &#x27;bcd&#x27;][n]" in page


def test_a_live_knob_draws_the_value_that_it_is_turned_to() -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    knob = Knob(draw, (0, 1, 2), "bias", str)
    slider, picture = knob.live().children
    slider.value = 2
    assert picture.value == knob.frames[2]


def test_the_readme_s_figure_is_drawn_anew(tmp_path: Path) -> None:
    figure.draw(str(tmp_path / "flow.png"))
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")


def test_equations_become_mathml_and_code_stays_as_it_is() -> None:
    text = mathml.mathml(r"so $a_t$ is `$a_t$`:" + "\n\n$$\nb = 2\n$$")
    assert text.count("<math") == 2
    assert text.count('display="block"') == 1
    assert "`$a_t$`" in text
    with pytest.raises(LatexError):
        mathml.mathml(r"$\nosuchcommand$")


class Unfinished(rl.RNNCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_a = ...
        return (d_a,), (d_a,), ()


class Finished(rl.RNNCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h,), (h,) = d_next, gates
        d_a = d_h * (1 - h**2)
        return (d_a,), (self.back((d_a,)),), ()


def test_gaps_are_seen_and_a_finished_cell_is_checked() -> None:
    assert exercises.attempt(Unfinished).right is None
    assert "not done yet" in str(exercises.attempt(Unfinished))
    assert not exercises.attempt(Finished).findings


def test_a_history_shows_its_first_lowest_and_last_step() -> None:
    assert "no training step" in rl.History()._repr_html_()
    page = rl.History([3.0, 0.25, 1.5], [9.0, 8.0, 7.0])._repr_html_()
    for name, step, loss, norm in (("first", 1, "3", "9"), ("lowest", 2, "0.25", "8"), ("last", 3, "1.5", "7")):
        assert columns(page)[name] == [str(step), loss, norm]


def columns(page: str) -> dict[str, list[str]]:
    """The rows of an HTML table by their first column."""
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in page.split("<tr>")[2:]]
    return {first: rest for first, *rest in rows}


def test_a_table_is_safe_and_aligned_and_raises_exponents() -> None:
    page = html_table(["<b>", "n"], [["x < 1", 3.5], ["10^-24.2", "-7"]], "a & b")
    assert '<th scope="col" style="text-align:left">&lt;b&gt;</th>' in page
    assert '<td style="text-align:left">x &lt; 1</td><td style="text-align:right">3.5</td>' in page
    assert '<td style="text-align:right">10<sup>-24.2</sup></td><td style="text-align:right">-7</td>' in page
    assert "a &amp; b</caption>" in page


@each_cell
def test_a_cell_shows_its_parameters_as_a_table(cell_class: Any) -> None:
    cell = cell_class(2, 3, rng=0)
    page = cell._repr_html_()
    assert repr(cell) in page
    shown = columns(page)
    assert shown == {name: [" x ".join(map(str, p.shape)), str(p.size)] for name, p in cell.params.items()}


def test_reports_show_the_table_that_they_print() -> None:
    report = rl.check_gradients(rl.GRUCell(2, 3, rng=0))
    shown = columns(report._repr_html_())
    assert list(shown) == [row.block for row in report.rows]
    for block, values in shown.items():
        assert re.search(rf"^{re.escape(block)} +{' +'.join(map(re.escape, values))}$", str(report), re.MULTILINE)
    statistics = rl.lab.gate_statistics(cell := rl.LSTMCell(2, 3, rng=0), cell.forward(np.ones((4, 2, 2))))
    for gate, values in columns(statistics._repr_html_()).items():
        assert f"{gate} {' '.join(values)}" in re.sub(" +", " ", str(statistics))
