"""`check_gradients`: it passes what is right, and every planted error must make it fail and be named."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from cases import CELLS, each_cell, refuses

import rnnlab as rl
from rnnlab.cells.base import outer_products
from rnnlab.ops import sigmoid

PAIRS = [(lower, upper) for lower, upper in zip(CELLS, (*CELLS[1:], CELLS[0]), strict=True)]
each_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda p: "-".join(c.__name__ for c in p))
each_size = pytest.mark.parametrize(("T", "B"), [(T, B) for T in (1, 2, 7) for B in (1, 3)])


def stack(*cell_classes: type[rl.Cell], D: int = 3, H: int = 3, loss: Any = rl.mean_squared_error) -> rl.SequenceModel:
    """A model with N(0, 0.7^2) parameters, H units in each layer and two outputs."""
    cells = [cell_class(D if n == 0 else H, H, rng=n) for n, cell_class in enumerate(cell_classes)]
    model = rl.SequenceModel(cells, rl.Dense(H, 2, rng=9), loss)
    rng = np.random.default_rng(5)
    return model.with_params({name: 0.7 * rng.normal(size=p.shape) for name, p in model.params.items()})


def regression(T: int, B: int, D: int = 3) -> rl.Batch:
    rng = np.random.default_rng(3)
    mask = rng.random((T, B)) < 0.7
    mask[-1, 0] = True
    return rl.Batch(rng.normal(size=(T, B, D)), rng.normal(size=(T, B, 2)), mask)


# ---- right gradients pass ---------------------------------------------------------------------


@each_cell
@each_size
def test_every_cell_is_right(cell_class: type[rl.Cell], T: int, B: int) -> None:
    report = rl.check_gradients(cell_class(3, 4, rng=0), T=T, B=B)
    assert report.method == "complex step"
    assert report.max_error <= 1e-9
    cell = cell_class(3, 4, rng=0)
    blocks = {(name, gate) for name in ("W_x", "W_h", "b") for gate in cell.gate_names} | {("x", "")}
    blocks |= {(name, "") for name in cell.params if name not in ("W_x", "W_h", "b")}
    blocks |= {(f"states[{t}]", part) for t in range(T + 1) for part in cell.state_names}
    assert {(row.array, row.gate) for row in report.rows} == blocks
    assert sum(row.size for row in report.rows) == (
        sum(p.size for p in cell.params.values()) + T * B * 3 + (T + 1) * len(cell.state_names) * B * 4
    )


@each_pair
@each_size
def test_every_stack_of_two_is_right(pair: tuple[type[rl.Cell], type[rl.Cell]], T: int, B: int) -> None:
    model = stack(*pair)
    report = rl.check_gradients(model, regression(T, B))
    assert report.method == "complex step"
    assert report.max_error <= 1e-9
    arrays = {row.array for row in report.rows}
    assert arrays == {*model.params, "x", "cells.0.states[0]", "cells.1.states[0]"}


def test_a_classifier_of_integers_is_right() -> None:
    rng = np.random.default_rng(0)
    batch = rl.Batch(rng.integers(0, 3, (4, 2)), rng.integers(0, 2, (4, 2)))
    report = rl.check_gradients(stack(rl.LSTMCell, rl.GRUCell, loss=rl.softmax_cross_entropy), batch)
    assert report.max_error <= 1e-9
    assert "x" not in {row.array for row in report.rows}  # integers have no derivative


def test_a_float32_cell_is_checked_as_its_float64_copy() -> None:
    assert rl.check_gradients(rl.LSTMCell(3, 4, rng=0, dtype=np.float32)).max_error <= 1e-9


def test_relu_is_right_by_both_methods() -> None:
    cell = rl.RNNCell(3, 4, rng=0, activation="relu")
    for method, bound in (("auto", 1e-9), ("central differences", 1e-6)):
        assert rl.check_gradients(cell, method=method).max_error <= bound


def test_the_target_stays_as_it_was() -> None:
    cell = rl.LSTMCell(3, 4, rng=0)
    before = {name: p.copy() for name, p in cell.params.items()}
    rl.check_gradients(cell)
    for name, p in before.items():
        np.testing.assert_array_equal(cell.params[name], p)


# ---- planted errors ---------------------------------------------------------------------------

Corrupt = Callable[[Any], Any]
CORRUPTIONS: dict[str, Corrupt] = {
    "scaled": lambda block: 1.001 * block,
    "zeroed": lambda block: 0 * block,
    "transposed": lambda block: block.mT,
}
each_corruption = pytest.mark.parametrize("corruption", CORRUPTIONS)
Place = tuple[str, int | None]  # an array, and the index of a block along its first axis or None for all of it


def corrupted(array: Any, block: int | None, corrupt: Corrupt) -> Any:
    wrong = array.copy()
    place = slice(None) if block is None else block
    wrong[place] = corrupt(array[place])
    return wrong


def planted(cell: rl.Cell, place: Place, corrupt: Corrupt) -> rl.Cell:
    """The same cell with a backward pass whose result is wrong in one block."""
    array, block = place

    def backward(self: rl.Cell, *args: Any, **kwargs: Any) -> rl.Gradients:
        grads = type(cell).backward(self, *args, **kwargs)
        if array == "x":
            return grads if grads.x is None else replace(grads, x=corrupted(grads.x, block, corrupt))
        if array.startswith("states"):
            states = grads.states.copy()
            t = int(array.removeprefix("states[").removesuffix("]"))
            states[t] = corrupted(states[t], block, corrupt)
            return replace(grads, states=states)
        return replace(grads, params=grads.params | {array: corrupted(grads.params[array], block, corrupt)})

    twin = copy.copy(cell)
    twin.__class__ = type("Wrong", (type(cell),), {"backward": backward})
    return twin


def parameter_places(cell: rl.Cell) -> Iterator[tuple[Place, str]]:
    """Every block of every parameter, with the gate that owns it."""
    for name, p in cell.params.items():
        if p.ndim == 3:
            yield from (((name, k), gate) for k, gate in enumerate(cell.gate_names))
        else:
            yield (name, None), ""


def state_places(cell: rl.Cell, times: range) -> Iterator[tuple[Place, str]]:
    for t in times:
        yield from (((f"states[{t}]", s), part) for s, part in enumerate(cell.state_names))


def transposable(place: Place, cell: rl.Cell) -> bool:
    """Whether a block is a square matrix; with D = H = B all but the biases are."""
    return place[0] not in cell.params or cell.params[place[0]].shape[-2] != 1


@each_cell
@each_corruption
def test_one_wrong_block_of_a_cell_is_caught_and_named(cell_class: type[rl.Cell], corruption: str) -> None:
    T = N = 3
    cell = cell_class(N, N, rng=0)
    places = [*parameter_places(cell), (("x", None), ""), *state_places(cell, range(T + 1))]
    assert len(places) == len(rl.check_gradients(cell, T=T, B=N).rows)
    for place, gate in places:
        if corruption == "transposed" and not transposable(place, cell):
            continue
        with pytest.raises(rl.GradientMismatch) as caught:
            rl.check_gradients(planted(cell, place, CORRUPTIONS[corruption]), T=T, B=N)
        assert (caught.value.array, caught.value.gate) == (place[0], gate)
        wrong = [(row.array, row.gate) for row in caught.value.report.rows if row.error > 1e-9]
        assert wrong == [(place[0], gate)]


@pytest.mark.parametrize("layer", [0, 1])
@each_corruption
def test_one_wrong_block_of_a_stack_is_caught_and_named(layer: int, corruption: str) -> None:
    N = 2
    model, batch = stack(rl.GRUCell, rl.FourGateLSTMCell, D=N, H=N), regression(2, N, D=N)
    cell = model.cells[layer]
    places = [*parameter_places(cell), *state_places(cell, range(1))]
    places += [(("x", None), "")] if layer == 0 else []
    for place, gate in places:
        if corruption == "transposed" and not transposable(place, cell):
            continue
        cells = list(model.cells)
        cells[layer] = planted(cell, place, CORRUPTIONS[corruption])
        wrong = rl.SequenceModel(cells, model.readout, model.loss)
        with pytest.raises(rl.GradientMismatch) as caught:
            rl.check_gradients(wrong, batch)
        name = place[0] if place[0] == "x" else f"cells.{layer}.{place[0]}"
        assert (caught.value.array, caught.value.gate) == (name, gate)


@each_corruption
def test_a_wrong_input_gradient_between_two_layers_is_caught(corruption: str) -> None:
    """What the upper layer hands down is wrong, so every gradient of the lower one is; those of the upper are right."""
    model = stack(rl.LSTMCell, rl.GRUCell)
    upper = planted(model.cells[1], ("x", None), CORRUPTIONS[corruption])
    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(rl.SequenceModel([model.cells[0], upper], model.readout, model.loss), regression(2, 3))
    wrong = {row.array for row in caught.value.report.rows if row.error > 1e-9}
    assert {name for name in model.params if name.startswith("cells.0")} <= wrong
    assert not any(name.startswith(("cells.1", "readout")) for name in wrong)


@pytest.mark.parametrize("name", ["W", "b"])
def test_a_wrong_readout_is_caught_and_named(name: str) -> None:
    class Wrong(rl.Dense):
        def backward(self, h: Any, d_y: Any) -> Any:
            grads, d_h = super().backward(h, d_y)
            return grads | {name: 1.001 * grads[name]}, d_h

    model = stack(rl.RNNCell)
    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(rl.SequenceModel(model.cells, Wrong(3, 2, rng=0), model.loss), regression(2, 3))
    assert caught.value.array == f"readout.{name}"


def test_a_wrong_loss_is_caught() -> None:
    def wrong(prediction: Any, target: Any, mask: Any = None) -> Any:
        value, d = rl.mean_squared_error(prediction, target, mask)
        return value, d / 2

    with pytest.raises(rl.GradientMismatch):
        rl.check_gradients(stack(rl.RNNCell, loss=wrong), regression(2, 3))


def test_what_zero_biases_would_hide_is_caught() -> None:
    """A cell that came with zero biases, and a bias gradient that is wrong only where biases are not zero."""

    class Wrong(rl.LSTMCell):
        def backward(self, *args: Any, **kwargs: Any) -> rl.Gradients:
            grads = super().backward(*args, **kwargs)
            return replace(grads, params=grads.params | {"b": grads.params["b"] + 0.01 * self.params["b"]})

    cell = Wrong(3, 4, rng=0)
    cell.params["b"][...] = 0
    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(cell)
    assert caught.value.array == "b"


def test_what_a_zero_initial_state_would_hide_is_caught() -> None:
    """The first step left out of dL/dW_h: with h_0 = 0 it would contribute nothing."""

    class Wrong(rl.LSTMCell):
        def recurrent_grads(self, tape: rl.Tape, d_a: Any, d_extras: Any) -> Any:
            states = tape.states.copy()
            states[0] = 0
            return super().recurrent_grads(replace(tape, states=states), d_a, d_extras)

    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(Wrong(3, 4, rng=0))
    assert caught.value.array == "W_h"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_caught(value: float) -> None:
    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(planted(rl.GRUCell(3, 3, rng=0), ("W_h", 1), lambda block: value + block))
    assert (caught.value.array, caught.value.gate) == ("W_h", "update")


def test_the_mismatch_says_what_was_expected_and_where() -> None:
    def one_entry(block: Any) -> Any:
        wrong = block.copy()
        wrong[2, 1] += 0.5
        return wrong

    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(planted(rl.LSTMCell(3, 3, rng=0), ("W_x", 1), one_entry))
    error = caught.value
    assert isinstance(error, AssertionError)
    assert (error.array, error.gate, error.index) == ("W_x", "forget", (1, 2, 1))
    assert error.analytic - error.numeric == pytest.approx(0.5, rel=1e-9)
    message = str(error)
    for words in ("dL/dW_x", "'forget'", "(1, 2, 1)", f"{error.analytic:.12g}", f"{error.numeric:.12g}"):
        assert words in message
    assert str(error.report) in message


def test_a_gradient_of_another_shape_or_missing_is_refused() -> None:
    cell = rl.LSTMCell(3, 4, rng=0)

    class NoInput(rl.LSTMCell):
        def backward(self, *args: Any, **kwargs: Any) -> rl.Gradients:
            return replace(super().backward(*args, **kwargs), x=None)

    class Flat(rl.LSTMCell):
        def backward(self, *args: Any, **kwargs: Any) -> rl.Gradients:
            grads = super().backward(*args, **kwargs)
            return replace(grads, params=grads.params | {"b": grads.params["b"][:, 0]})

    assert rl.check_gradients(cell).max_error <= 1e-9
    assert "x" not in {row.array for row in rl.check_gradients(NoInput(3, 4, rng=0)).rows}  # left out, not wrong
    with refuses(ValueError, "backward"):
        rl.check_gradients(Flat(3, 4, rng=0))


# ---- a step that writes to its arguments ------------------------------------------------------


class WritesToInput(rl.LSTMCell):
    def step(self, a: Any, prev: Any) -> Any:
        a += prev[0] @ self.params["W_h"]  # planted
        return super().step(a, prev)


class WritesToState(rl.GRUCell):
    def step(self, a: Any, prev: Any) -> Any:
        (h,) = prev
        h *= 0.5  # planted
        return super().step(a, prev)


class WritesToGradient(rl.LSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_h, d_c = d_next
        d_c += d_h * gates[3] * (1 - extras[0] ** 2)  # planted
        return super().step_backward(d_next, prev, gates, extras)


class WritesToOldState(rl.RNNCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        prev[0] = 0  # planted
        return super().step_backward(d_next, prev, gates, extras)


class WritesToGates(rl.GRUResetBeforeCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        gates[1] -= 1  # planted
        return super().step_backward(d_next, prev, gates, extras)


class WritesToExtras(rl.FourGateLSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        np.square(extras, out=extras)  # planted
        return super().step_backward(d_next, prev, gates, extras)


@pytest.mark.parametrize(
    "cell_class",
    [WritesToInput, WritesToState, WritesToGradient, WritesToOldState, WritesToGates, WritesToExtras],
)
def test_a_step_that_writes_to_its_arguments_is_stopped_at_the_line(cell_class: type[rl.Cell]) -> None:
    cell = cell_class(3, 4, rng=0)
    x, d_h = np.ones((2, 3, 3)), np.ones((2, 3, 4))
    for run in (lambda: rl.check_gradients(cell), lambda: cell.backward(cell.forward(x), d_h)):
        with pytest.raises(ValueError, match="read-only") as caught:
            run()
        assert "# planted" in str(caught.traceback[-1].statement)


# ---- the method -------------------------------------------------------------------------------


class AbsoluteRNN(rl.RNNCell):
    """h_t = tanh(|a|): right, but |a| of a complex number has no derivative."""

    def step(self, a: Any, prev: Any) -> Any:
        (h,) = prev
        (a,) = a + h @ self.params["W_h"]
        h = np.tanh(np.abs(a))
        return (h,), (h,), (np.sign(a.real),)

    extra_names = ("sign",)

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h,), (h,), (sign,) = d_next, gates, extras
        d_a = d_h * (1 - h**2) * sign
        return (d_a,), (self.back((d_a,)),), ()


class RealBufferRNN(rl.RNNCell):
    """The right equations in a buffer of real numbers, which drops the imaginary part."""

    def step(self, a: Any, prev: Any) -> Any:
        (h,) = prev
        buffer = np.empty(h.shape)
        buffer[...] = np.tanh(a[0] + h @ self.params["W_h"][0])
        return (buffer,), (buffer,), ()


@pytest.mark.parametrize("cell_class", [AbsoluteRNN, RealBufferRNN])
@pytest.mark.parametrize("warning", ["ignore", "error"])
def test_a_forward_pass_that_is_not_analytic_goes_to_central_differences(
    cell_class: type[rl.Cell], warning: Any
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(warning, np.exceptions.ComplexWarning)
        report = rl.check_gradients(cell_class(3, 4, rng=0))
        assert report.method == "central differences"
        assert 1e-13 < report.max_error <= 1e-6  # differences, not exact derivatives
        for place in (("W_x", 0), ("W_h", 0), ("b", 0), ("x", None), ("states[2]", 0)):
            with pytest.raises(rl.GradientMismatch) as caught:
                rl.check_gradients(planted(cell_class(3, 4, rng=0), place, CORRUPTIONS["scaled"]))
            assert caught.value.array == place[0]


def test_trying_complex_numbers_says_nothing_to_the_learner() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        rl.check_gradients(RealBufferRNN(3, 4, rng=0))
    assert not heard


@each_cell
def test_both_methods_agree(cell_class: type[rl.Cell]) -> None:
    cell = cell_class(3, 3, rng=0)
    exact, central = (rl.check_gradients(cell, method=m) for m in ("complex step", "central differences"))
    assert exact.max_error <= 1e-9
    assert central.max_error <= 1e-6
    for one, other in zip(exact.rows, central.rows, strict=True):
        assert (one.block, one.entries) == (other.block, other.entries)


@pytest.mark.parametrize("entries", [False, True])
def test_an_error_in_any_single_entry_is_caught(entries: bool) -> None:
    """By the random direction, and where only one entry of nine is drawn besides."""
    cell = rl.LSTMCell(3, 3, rng=0)
    sampled = rl.check_gradients(cell, entries=entries, max_entries=1)
    assert {(row.entries, row.size) for row in sampled.rows if row.array == "W_h"} == {(int(entries), 9)}
    for entry in range(9):

        def one_entry(block: Any, entry: int = entry) -> Any:
            wrong = block.copy()
            wrong.flat[entry] *= 1.001
            return wrong

        with pytest.raises(rl.GradientMismatch) as caught:
            rl.check_gradients(planted(cell, ("W_h", 2), one_entry), entries=entries, max_entries=1)
        assert (caught.value.array, caught.value.gate) == ("W_h", "candidate")


class OddShapes(rl.LSTMCell):
    """Parameters of its own whose first axis has nothing to do with the number of gates."""

    SHAPES: ClassVar = {"p": (2, 1, 3), "q": (3, 1, 3), "r": (3,), "s": (1,), "w": (1, 3, 3)}

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for name, shape in self.SHAPES.items():
            self.add_param(name, "uniform" if len(shape) > 1 else lambda shape, rng: rng.normal(size=shape), shape)

    def step(self, a: Any, prev: Any) -> Any:
        total = self.p.sum(axis=0) + self.q.sum(axis=0) + self.r + self.s
        return super().step(a + total, (prev[0] @ self.w[0], prev[1]))

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_a, (d_h, d_c), _ = super().step_backward(d_next, (prev[0] @ self.w[0], prev[1]), gates, extras)
        return d_a, (d_h @ self.w[0].T, d_c), (d_h,)

    def recurrent_grads(self, tape: Any, d_a: Any, d_extras: Any) -> Any:
        h = tape.states[:-1, 0]
        total = d_a.sum(axis=(0, 1, 2))
        grads = {"W_h": outer_products(h @ self.w[0], d_a), "w": outer_products(h, d_extras)}
        return grads | {n: np.ones(self.SHAPES[n]) * (total if n != "s" else total.sum()) for n in "pqrs"}


def test_an_error_in_any_entry_of_a_parameter_of_any_shape_is_caught() -> None:
    cell = OddShapes(3, 3, rng=0)
    report = rl.check_gradients(cell)
    sizes = {name: sum(row.size for row in report.rows if row.array == name) for name in cell.params}
    assert sizes == {name: p.size for name, p in cell.params.items()}
    for name in OddShapes.SHAPES:
        for entry in range(cell.params[name].size):

            def one_entry(array: Any, entry: int = entry) -> Any:
                wrong = array.copy()
                wrong.flat[entry] *= 1.001
                return wrong

            with pytest.raises(rl.GradientMismatch) as caught:
                rl.check_gradients(planted(cell, (name, None), one_entry))
            assert caught.value.array == name
            assert np.ravel_multi_index(caught.value.index, cell.params[name].shape) == entry


def test_the_seed_alone_decides_the_case() -> None:
    cell = rl.GRUCell(3, 4, rng=0)
    first, again, other = (rl.check_gradients(cell, rng=seed) for seed in (0, 0, 1))
    assert first.rows == again.rows
    assert first.rows != other.rows


# ---- the report -------------------------------------------------------------------------------


def test_the_report_prints_as_a_table() -> None:
    cell = rl.LSTMCell(2, 3, rng=0)
    report = rl.check_gradients(cell, T=1, B=2)
    title, header, *lines = str(report).splitlines()
    assert repr(cell) in title
    assert "complex step" in title
    assert "1e-09" in title
    assert header.split() == ["gradient", "entries", "relative", "error"]
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows, strict=True):
        assert line.split() == [row.block, str(row.size), f"{row.error:.1e}", "ok"]
        assert len(line.rstrip()) == len(lines[0].rstrip())
    assert "W_h[forget]" in str(report)
    assert "states[1][c]" in str(report)
    assert report.worst.error == report.max_error == max(row.error for row in report.rows)


def test_a_wrong_row_is_marked_in_the_table() -> None:
    with pytest.raises(rl.GradientMismatch) as caught:
        rl.check_gradients(planted(rl.GRUCell(3, 3, rng=0), ("b", 2), CORRUPTIONS["zeroed"]))
    marked = [line for line in str(caught.value.report).splitlines() if line.endswith("WRONG")]
    assert [line.split()[0] for line in marked] == ["b[candidate]"]


def test_the_tolerance_can_be_widened_and_narrowed() -> None:
    wrong = planted(rl.GRUCell(3, 3, rng=0), ("b", 2), CORRUPTIONS["scaled"])
    assert rl.check_gradients(wrong, tolerance=1e-2, entries=True).max_error == pytest.approx(1e-3, rel=1e-6)
    with pytest.raises(rl.GradientMismatch):
        rl.check_gradients(rl.GRUCell(3, 3, rng=0), method="central differences", tolerance=1e-15)


BAD_ARGUMENTS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "target", {"target": rl.Dense(3, 2, rng=0)}),
    (TypeError, "target", {"target": rl.LSTMCell}),
    (TypeError, "batch", {"target": stack(rl.RNNCell)}),
    (TypeError, "batch", {"batch": regression(2, 3)}),
    (ValueError, "method", {"method": "forward differences"}),
    (ValueError, "T", {"T": 0}),
    (TypeError, "B", {"B": 1.5}),
    (ValueError, "tolerance", {"tolerance": 0}),
    (ValueError, "max_entries", {"max_entries": 0}),
    (TypeError, "rng", {"rng": "zero"}),
]


@pytest.mark.parametrize(("error", "name", "arguments"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(error: type[Exception], name: str, arguments: dict[str, Any]) -> None:
    with refuses(error, name):
        rl.check_gradients(**{"target": rl.RNNCell(3, 4, rng=0)} | arguments)


# ---- a gradient is linear in what comes in ----------------------------------------------------


class ClipsState(rl.LSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_a, d_prev, d_extras = super().step_backward(d_next, prev, gates, extras)
        return d_a, tuple(np.clip(d, -5, 5) for d in d_prev), d_extras  # planted


class ClipsInside(rl.FourGateLSTMCell):
    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        d_a, d_prev, d_extras = super().step_backward(d_next, prev, gates, extras)
        return tuple(np.clip(d, -10, 10) for d in d_a), d_prev, d_extras  # planted


class ClipsWeights(rl.GRUResetBeforeCell):
    def recurrent_grads(self, tape: rl.Tape, d_a: Any, d_extras: Any) -> Any:
        grads = super().recurrent_grads(tape, d_a, d_extras)
        return {name: np.clip(g, -50, 50) for name, g in grads.items()}  # planted


class ClipsNorm(rl.GRUCell):
    def backward(self, *args: Any, **kwargs: Any) -> rl.Gradients:
        grads = super().backward(*args, **kwargs)
        return replace(grads, params=rl.clip_by_global_norm(grads.params, 100.0)[0])  # planted


CLIPPING = (ClipsState, ClipsInside, ClipsWeights, ClipsNorm)


@pytest.mark.parametrize("cell_class", CLIPPING)
def test_clipping_inside_the_backward_pass_is_caught_and_named(cell_class: type[rl.Cell]) -> None:
    """None of these clips at the size of the check's own loss."""
    with pytest.raises(rl.GradientMismatch, match=r"(?s)is this one clipped.*incoming x 1024.*WRONG") as caught:
        rl.check_gradients(cell_class(3, 4, rng=0))
    wrong = [row for row in caught.value.report.rows if row.error > caught.value.report.tolerance]
    assert all(row.scale == 1024 for row in wrong)
    (finding,) = rl.diagnose(cell_class(3, 4, rng=0)).findings
    assert "W_h" in finding.outputs
    assert "clipped" in finding.what
    assert finding.repair is not None


class ReusesBuffers(rl.RNNCell):
    """Right, and its gradients live in arrays that the next call overwrites."""

    def backward(self, *args: Any, **kwargs: Any) -> rl.Gradients:
        grads = super().backward(*args, **kwargs)
        buffers = self.__dict__.setdefault("buffers", {name: np.empty_like(g) for name, g in grads.params.items()})
        for name, g in grads.params.items():
            buffers[name][...] = g
        return replace(grads, params=dict(buffers))


def test_a_right_cell_that_reuses_its_buffers_is_not_accused() -> None:
    assert rl.check_gradients(ReusesBuffers(3, 4, rng=0)).max_error <= 1e-9


# ---- right cells that are hard on a check -----------------------------------------------------


@pytest.mark.parametrize("seed", [0, 21])
def test_a_kink_between_two_points_does_not_cost_the_exact_method(seed: int) -> None:
    """Of 66 relu units one or another has its kink within one difference of step 1e-5."""
    report = rl.check_gradients(rl.RNNCell(2, 66, rng=seed, activation="relu"), max_entries=20)
    assert report.method == "complex step"


class Scaled(rl.RNNCell):
    """h_t = scale tanh(a), with one number as a parameter that is logged, so that it must be above 0."""

    extra_names = ("g",)

    def __init__(self, *args: Any, shape: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_param("scale", lambda shape, rng: np.full(shape, 2.0), shape)

    def step(self, a: Any, prev: Any) -> Any:
        (g,), _, _ = super().step(a, prev)
        return (g,), (np.log(self.scale) * g,), (g,)

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h,), (g,) = d_next, gates
        d_a = (d_h * np.log(self.scale) * (1 - g**2),)
        return d_a, (self.back(d_a),), (d_h * g / self.scale,)

    def recurrent_grads(self, tape: rl.Tape, d_a: Any, d_extras: Any) -> Any:
        (d,) = d_extras
        scale = d.sum() if self.scale.ndim == 0 else d.sum(axis=(0, 1))[None]
        return super().recurrent_grads(tape, d_a, d_extras) | {"scale": scale}


@pytest.mark.parametrize("shape", [(), (1, 4)])
def test_a_parameter_may_be_one_number_and_may_have_to_be_positive(shape: tuple[int, ...]) -> None:
    cell = Scaled(3, 4, rng=0, shape=shape)
    assert rl.check_gradients(cell).max_error <= 1e-9
    assert rl.diagnose(cell).ok, str(rl.diagnose(cell))


def test_a_parameter_without_a_gradient_is_named() -> None:
    class Forgotten(rl.RNNCell):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_param("gain", "uniform", (1, 4))

    class NoAnswer(rl.RNNCell):
        def recurrent_grads(self, tape: rl.Tape, d_a: Any, d_extras: Any) -> Any:
            super().recurrent_grads(tape, d_a, d_extras)  # planted: no return

    with refuses(ValueError, "recurrent_grads"):
        rl.check_gradients(Forgotten(3, 4, rng=0))
    with refuses(TypeError, "recurrent_grads"):
        rl.check_gradients(NoAnswer(3, 4, rng=0))


class Minimal(rl.Cell):
    """A minimal gated unit (Zhou et al., 2016) that says nothing of what the candidate's W_h multiplies."""

    gate_names = ("forget", "candidate")

    def step(self, a: Any, prev: Any) -> Any:
        (h,) = prev
        f = sigmoid(a[0] + h @ self.W_h[0])
        n = np.tanh(a[1] + f * h @ self.W_h[1])
        return (f, n), ((1 - f) * h + f * n,), ()

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d,), (h,), (f, n) = d_next, prev, gates
        d_n = d * f * (1 - n**2)
        s = d_n @ self.W_h[1].T
        d_f = (d * (n - h) + s * h) * f * (1 - f)
        return (d_f, d_n), (d * (1 - f) + s * f + d_f @ self.W_h[0].T,), ()


def test_a_cell_whose_W_h_multiplies_something_else_is_told_to_write_recurrent_grads() -> None:
    with pytest.raises(rl.GradientMismatch) as error:
        rl.check_gradients(Minimal(3, 4, rng=0))
    assert "write recurrent_grads" in error.value.__notes__[0]
