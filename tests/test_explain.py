"""One step explained: the numbers are those of the cell, of a scalar reference and of differences, line by line."""

import math
import re
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import rnnlab as rl
from tests.cases import each_cell

X, STATE = [0.7, -1.2], [[0.4, -0.3], [0.9, -0.8]]


def explained(cell: rl.Cell, d_next: Any = None) -> Any:
    return rl.explain_step(cell, X, STATE[: len(cell.state_names)], d_next)


def test_every_number_of_an_lstm_step_equals_the_scalar_arithmetic() -> None:
    cell = rl.LSTMCell(2, 2, rng=3)
    values = explained(cell).values
    (h, c), sigmoid = STATE, lambda a: 1 / (1 + math.exp(-a))
    for j in range(2):
        a = [
            sum(X[d] * cell.W_x[k, d, j] for d in range(2)) + sum(h[m] * cell.W_h[k, m, j] for m in range(2))
            + cell.b[k, 0, j] for k in range(4)
        ]  # fmt: skip
        i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), math.tanh(a[2]), sigmoid(a[3])
        c_t = f * c[j] + i * g
        expected = {"i": i, "f": f, "g": g, "o": o, "c_t": c_t, "h_t": o * math.tanh(c_t)}
        for name, value in expected.items():
            assert values[name][j] == pytest.approx(value, rel=1e-13)


@each_cell
def test_backward_agrees_with_central_differences_of_the_forward_lines(cell_class: Any) -> None:
    cell, S = cell_class(2, 2, rng=1), len(cell_class.state_names)
    d_next = np.array([[1.0, -2.0], [0.5, 3.0]])[:S]
    values = explained(cell, d_next).values

    def loss(x: Any, state: Any) -> float:
        found = rl.explain_step(cell, x, state).values
        return float((np.array([found[f"{name}_t"] for name in cell.state_names]) * d_next).sum())

    x, state, step = np.array(X), np.array(STATE[:S]), 1e-6
    for j in range(2):
        e = np.eye(2)[j] * step
        assert values["dL/dx_t"][j] == pytest.approx((loss(x + e, state) - loss(x - e, state)) / (2 * step), rel=1e-6)
        for s, name in enumerate(cell.state_names):
            moved = np.zeros((S, 2))
            moved[s] = e
            slope = (loss(x, state + moved) - loss(x, state - moved)) / (2 * step)
            assert values[f"dL/d{name}_{{t-1}}"][j] == pytest.approx(slope, rel=1e-6, abs=1e-9)


def arithmetic(text: str) -> Any:
    """Work out a printed line of numbers, as somebody with a calculator would."""

    def array(found: re.Match[str]) -> str:
        return f"np.array({[[float(v) for v in row.split()] for row in found[1].split(';')]})"

    rows = re.sub(r"\[([^\]]*)\]", array, text)
    names = {"np": np, "tanh": np.tanh, "σ": lambda a: 1 / (1 + np.exp(-a))}  # noqa: RUF001
    return eval(rows, names)


@each_cell
def test_the_printed_numbers_give_the_printed_result(cell_class: Any) -> None:
    cell = cell_class(2, 2, rng=1)
    text = str(explained(cell, np.ones((len(cell_class.state_names), 2))))
    lines = [line.strip() for line in text.splitlines()]
    checked = 0
    for before, after in pairwise(lines):
        if before.startswith("= ") and after.startswith("= ") and before.count("["):
            assert arithmetic(before[2:]) == pytest.approx(arithmetic(after[2:]), abs=0.02), (before, after)
            checked += 1
    assert checked >= 2 * len(cell.gate_names)


class Leaky(rl.Cell):
    gate_names = ("candidate",)

    def step(self, drive: Any, before: Any) -> Any:
        (s,) = before
        (g,) = np.tanh(drive + s @ self.W_h)
        new = (s + g) / 2
        return (g,), (new,), ()

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_s,), (g,) = d_next, gates
        d_g = d_s / 2 * (1 - g**2)
        return (d_g,), (d_s / 2 + self.back((d_g,)),), ()


def test_a_learners_cell_is_explained_in_the_learners_own_names() -> None:
    text = str(rl.explain_step(Leaky(2, 2, rng=0), X, [[0.2, 0.1]], [[1, 1]]))
    assert "(s_{t-1} + g) / 2" in text
    assert re.search(r"dL/da\[candidate\] = dL/dh_t / 2 \* \(1 - g\*\*2\)", text)
    assert "dL/da[candidate] @ W_h[candidate].T" in text


def test_a_cell_without_readable_source_is_explained_by_its_values() -> None:
    space: dict[str, Any] = {"rl": rl, "np": np}
    exec(  # no file holds this source
        "class Typed(rl.Cell):\n gate_names = ('candidate',)\n def step(self, a, prev):\n"
        "  h = np.tanh(a[0] + prev[0] @ self.W_h[0])\n  return (h,), (h,), ()",
        space,
    )
    cell = space["Typed"](2, 2, rng=0)
    values = rl.explain_step(cell, X, [[0.2, 0.1]]).values
    assert np.array_equal(values["candidate"], values["h_t"])
    assert np.array_equal(values["h_t"], cell.forward(np.array([[X]]), np.array([[[0.2, 0.1]]])).h[0, 0])


def test_a_notebook_gets_latex_with_every_line() -> None:
    step = explained(rl.GRUCell(2, 2, rng=0), [[1, 1]])
    latex = step._repr_latex_()
    assert latex.count("$$") == 4
    assert latex.count(r"\begin{aligned}") == latex.count(r"\end{aligned}") == 2
    assert latex.count("{") == latex.count("}")
    assert r"\frac{\partial L}{\partial h_{t-1}}" in latex
    assert latex.count("\\\\\n") == len(step.forward) + len(step.backward)  # headings, and between lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((rl.RNNCell, X), "cell: expected a Cell"),
        ((rl.RNNCell(2, 2, rng=0), [1, 2, 3]), "x"),
        ((rl.RNNCell(2, 2, rng=0), X, [[1, 2, 3]]), "state"),
        ((rl.LSTMCell(2, 2, rng=0), X, STATE, [[1, 2]]), "d_next"),
    ],
)
def test_wrong_arguments_are_named(arguments: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        rl.explain_step(*arguments)


# ---- the cell drawn ------------------------------------------------------------------------------


class NamesTwice(rl.LSTMCell):
    """Its names stand for the gates' insides first and for the gates afterwards."""

    def step(self, a: Any, prev: Any) -> Any:
        h, c = prev
        i, f, g, o = a + h @ self.W_h
        i, f, g, o = rl.ops.sigmoid(i), rl.ops.sigmoid(f), np.tanh(g), rl.ops.sigmoid(o)
        c = f * c + i * g
        u = np.tanh(c)
        return (i, f, g, o), (o * u, c), (u,)


def test_a_name_used_twice_is_told_apart() -> None:
    step = explained(NamesTwice(2, 2, rng=0))
    assert "= σ(a[forget])" in str(step)  # noqa: RUF001
    arrows = rl.plots.cell_diagram(NamesTwice(2, 2, rng=0)).texts
    plain = rl.plots.cell_diagram(rl.LSTMCell(2, 2, rng=0)).texts
    assert sum(not text.get_text() for text in arrows) == sum(not text.get_text() for text in plain) == 17
    plt.close("all")


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_text()]


@each_cell
def test_a_diagram_shows_each_gate_and_the_numbers_of_the_step(cell_class: Any) -> None:
    cell = cell_class(2, 2, rng=0)
    ax = rl.plots.cell_diagram(cell, X, STATE[: len(cell_class.state_names)])
    step, shown = explained(cell), texts(ax)
    for name in (*step.gates, *(f"{s}_t" for s in cell_class.state_names)):
        assert " ".join(f"{v:z.2f}" for v in step.values[name]) in shown, name
    assert all(text.get_fontsize() >= 11 for text in ax.texts if text.get_text())
    plt.close("all")


@pytest.mark.parametrize(
    ("stage", "lit"),
    [
        ("learn", {"i", "N", "i · N"}), ("forget", {"f", "kept"}), ("remember", {"c$"}), ("use", {"V", "U", "h$"}),
    ],
)  # fmt: skip
def test_a_stage_lights_its_own_boxes(stage: str, lit: set[str]) -> None:
    ax = rl.plots.cell_diagram(rl.FourGateLSTMCell(2, 2, rng=0), stage=stage)
    boxes = [t for t in ax.texts if t.get_bbox_patch() is not None and t.get_bbox_patch().get_edgecolor()[3] > 0]
    found = {
        t.get_text().split(" =")[0].split("_")[0]
        for t in boxes
        if t.get_color() == "#B34700" and t.get_ha() == "center" and t.get_va() == "center"
    }
    assert found == lit
    plt.close("all")


def test_a_stage_that_the_cell_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="stage"):
        rl.plots.cell_diagram(rl.GRUCell(2, 2, rng=0), stage="learn")
