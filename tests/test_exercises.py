"""The day-9 exercises: blank they say so, solved they pass, and common wrong answers get the right hint."""

import ast
import linecache
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

import rnnlab as rl
from rnnlab.lesson import exercises as check

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LESSON = NOTEBOOKS / "day-9-lstm-gru.ipynb"
NUMBER = count()


def lesson_cell(start: str) -> str:
    """The cell of the lesson that begins so."""
    (found,) = [c.source for c in nbformat.read(LESSON, as_version=4).cells if c.source.startswith(start)]
    return str(found)


def cells(stem: str) -> dict[int, str]:
    """The exercises' code by number."""
    notebook = nbformat.read(NOTEBOOKS / f"{stem}.ipynb", as_version=4)
    found, number = {}, 0
    for cell in notebook.cells:
        heading = re.match(r"## (\d+) ", cell.source)
        number = int(heading[1]) if heading else number
        if cell.cell_type == "code" and number:
            found[number] = cell.source
    return found


SOLUTIONS = cells("day-9-solutions")


def run(source: str) -> Any:
    """Execute as a notebook cell would be: what its last line evaluates to."""
    tree, name = ast.parse(source), f"<exercise {next(NUMBER)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space = {"np": np, "rl": rl, "check": check, "attempt": check.attempt, "__name__": "exercise"}
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    exec(compile(tree, name, "exec"), space)
    return eval(compile(ast.Expression(last.value), name, "eval"), space)


def test_there_are_twelve_in_each_notebook() -> None:
    assert list(SOLUTIONS) == list(cells("day-9-exercises")) == list(range(1, 13))


@pytest.mark.parametrize("number", [n for n in range(1, 13) if n not in (6, 11)])
def test_every_solution_passes(number: int) -> None:
    verdict = run(SOLUTIONS[number])
    assert verdict.right if isinstance(verdict, check.Verdict) else not verdict.findings


WRONG = [
    (1, "np.tanh(a + h @ self.W_h)", "a + h @ self.W_h", "tanh"),
    (1, "np.tanh(a + h @ self.W_h)", "rl.ops.sigmoid(a + h @ self.W_h)", "tanh"),
    (1, "np.tanh(a + h @ self.W_h)", "np.tanh(a)", "self.W_h|W_h.candidate"),
    (1, "h @ self.W_h)", "h @ self.W_h.mT)", "transpose|W_h"),
    (2, "d_h * (1 - h**2)", "d_h", r"1 - h|1 - gates"),
    (2, "d_h * (1 - h**2)", "d_h * (1 - h)", r"1 - h"),
    (2, "self.W_h[0].T", "self.W_h[0]", r"transpos|W_h"),
    (2, "d_h * (1 - h**2)", "d_h * (1 - prev[0] ** 2)", r"h_\{t-1\}|prev|neighbour|step"),
    (2, "d_h * (1 - h**2)", "-d_h * (1 - h**2)", r"sign"),
    (3, "i, f, g, o = a", "f, i, g, o = a", r"forget"),
    (3, "g = np.tanh(g)", "i, f, g, o = rl.ops.sigmoid(a + h @ self.W_h)", "the candidate takes tanh"),
    (3, "f * c + i * g", "f * c + g", r"i g|input|i \* g|g \* i"),
    (4, "d_i = d_c * g * i * (1 - i)", "d_i = d_c * g", r"i\(1 - i\)|i \* \(1 - i\)"),
    (4, "d_o = d_h * u * o", "d_o = d_h * c * o", r"tanh|\bu\b"),
    (5, "W_h[0] + tape", "tape", r"\+=|last|one time step"),
    (5, "tape.states[t, 0]", "tape.states[t + 1, 0]", r"neighbour"),
    (5, "tape.states[t, 0].T @ d_a[0, t]", "d_a[0, t].T @ tape.states[t, 0]", r"line 5 .*\n.*\n +should be +W_h\[0\]"),
    (5, "range(len(tape.x))", "range(1, len(tape.x))", r"first|range\(0"),
    (5, "W_h[0] + tape", "W_h[0] - tape", r"sign"),
    (6, '(A, "d_c")', '(A, "d_f")', r"line of d_f is that of the derivation"),
    (6, '(C, "d_o")', '(C, "d_x")', r"expected the name"),
    (7, "(1 - z) * h + z * n", "(1 - z) * n + z * h", r"exchanged"),
    (7, "d_h * (n - h) * z", "d_h * (h - n) * z", r"sign"),
    (7, "d_h * z * (1 - n**2)", "d_h * (1 - z) * (1 - n**2)", r"exchanged|1 - z"),
    (8, "h = [0.5, 0.0]", "h = [0.0, 0.0]", "0 leaves nothing to reset"),
    (8, "x = [1.0, 0.0]", "x = [0.0, 0.0]", "scales all units alike"),
    (8, "h = [0.5, 0.0]", "h = [5.0, 5.0]", "never leaves"),
    (8, "h = [0.5, 0.0]", "h = [0.5]", "expected two numbers"),
    (8, "h = [0.5, 0.0]", "h = [0.02, 0.01]", "choose an h"),
    (9, " + d_f * self.p[1]", "", r"forget|d_f"),
    (10, "rl.init.chrono(200, 64, rng=0)", "0", "forget gates alone, 0.50"),
    (10, "rl.init.chrono(200, 64, rng=0)", "2", "forget gates alone, 0.88"),
    (10, "rl.init.chrono(200, 64, rng=0)", "4", "it grows"),
    (10, "rl.init.chrono(200, 64, rng=0)", "-3", "negative bias closes"),
    (10, "rl.init.chrono(200, 64, rng=0)", "np.ones(3)", "expected a number or 64"),
    (12, "k = 9", "k = 2", "too short"),
    (12, "k = 9", "k = 30", "fewer do"),
    (12, "k = 9", "k = 90", "from 1 to 60"),
    (12, "k = 9", "k = 9.5", "whole number"),
]


@pytest.mark.parametrize(("number", "right", "wrong", "hint"), WRONG, ids=lambda v: str(v)[:24])
def test_a_common_wrong_answer_gets_its_hint(number: int, right: str, wrong: str, hint: str, capsys: Any) -> None:
    source = SOLUTIONS[number]
    assert source.count(right) == 1, (right, source)
    asked = re.findall(r"print\(check.guilty_line.*\n?", source)  # three answers, one of which is wrong here
    for answer in asked:
        source = source if right in answer else source.replace(answer, "")
    verdict = run(source.replace(right, wrong))
    print(str(verdict))
    said = capsys.readouterr().out
    assert re.search(hint, said), said
    assert (
        "not yet" in said
        if verdict is None
        else (not verdict.right if isinstance(verdict, check.Verdict) else verdict.findings)
    )


GAPS = {
    "class MyRNN": ("np.tanh(a + h @ self.W_h)", "d_h * (1 - h**2)"),
    "class MyLSTM": ("d_c * g * i * (1 - i)", "d_c * c * f * (1 - f)", "d_c * i * (1 - g**2)", "d_h * u * o * (1 - o)"),
    "class MyGRU": (
        "d_h * (1 - z) * (1 - n**2)",
        "d_h * (h - n) * z * (1 - z)",
        "d_n * q * r * (1 - r)",
        "d_n * r",
        "d_h * z",
    ),
}


@pytest.mark.parametrize("start", GAPS)
def test_the_gaps_of_the_lesson_filled_pass(start: str) -> None:
    assert not run(filled(start, GAPS[start])).findings


@pytest.mark.parametrize(
    ("start", "gap", "wrong", "hint"),
    [
        ("class MyRNN", 0, "a + h @ self.W_h", "np.tanh.* is meant"),
        ("class MyRNN", 0, "rl.ops.sigmoid(a + h @ self.W_h)", "np.tanh.* is meant"),
        ("class MyRNN", 1, "d_h * (1 - h)", r"1 - h"),
        ("class MyLSTM", 1, "d_c * u * f * (1 - f)", "`c` is meant"),
        ("class MyLSTM", 2, "d_c * i * g * (1 - g)", r"g comes out of a tanh.*1 - g\*\*2"),
        ("class MyGRU", 0, "d_h * (1 - z) * n * (1 - n)", "n comes out of a tanh"),
        ("class MyGRU", 0, "d_h * z * (1 - n**2)", "`1 - z` is meant where `z` stands"),
        ("class MyGRU", 4, "d_h * (1 - z)", "`z` is meant where `1 - z` stands"),
    ],
)
def test_a_wrong_line_in_a_gap_of_the_lesson_gets_its_hint(start: str, gap: int, wrong: str, hint: str) -> None:
    lines = list(GAPS[start])
    lines[gap] = wrong
    assert re.search(hint, str(run(filled(start, lines))))


def filled(start: str, lines: Sequence[str]) -> str:
    """A cell of the lesson with these lines in its gaps."""
    source = lesson_cell(start)
    assert source.count(" ...") == len(lines)
    for line in lines:
        source = source.replace(" ...", f" {line}", 1)
    return source


MEASURED = {("forget", 0): 0.3, ("forget", 1): 0.7, ("input", 0): 0.25, ("output", 1): 0.95}
RIGHT = {("forget", 0): "ruins", ("forget", 1): "hurts", ("input", 0): "ruins", ("output", 1): "harmless"}


def test_predictions_of_held_gates_are_compared_with_the_measurement() -> None:
    assert check.held_gates(MEASURED, RIGHT).right
    assert check.held_gates(MEASURED, RIGHT | {("input", 0): ...}).right is None


@pytest.mark.parametrize(
    ("key", "word", "hint"),
    [
        (("forget", 0), "harmless", "at 0 nothing outlives a scene"),
        (("forget", 1), "harmless", "pile up"),
        (("input", 0), "hurts", "when to write"),
        (("output", 1), "ruins", "does not need it to move"),
        (("output", 1), "nothing", "expected one of"),
    ],
)
def test_a_wrong_prediction_is_answered_with_what_was_measured(key: Any, word: str, hint: str) -> None:
    verdict = check.held_gates(MEASURED, RIGHT | {key: word})
    assert not verdict.right
    assert hint in str(verdict)
