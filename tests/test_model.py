"""The model: layers joined by hand, masks, state, prediction in chunks, and refusals."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.model import PREDICT_CHUNK
from tests.cases import each_cell, random_case, refuses, relative_error


def stack(
    lower: type[rl.Cell] = rl.LSTMCell,
    upper: type[rl.Cell] = rl.GRUCell,
    loss: Any = rl.mean_squared_error,
    dtype: Any = np.float64,
) -> rl.SequenceModel:
    """3 inputs, 4 and 5 units, 2 outputs."""
    cells = [lower(3, 4, rng=0, dtype=dtype), upper(4, 5, rng=1, dtype=dtype)]
    return rl.SequenceModel(cells, rl.Dense(5, 2, rng=2, dtype=dtype), loss)


def states_for(model: rl.SequenceModel, B: int) -> tuple[Any, ...]:
    return tuple(random_case(cell, 1, B, seed=n)[1] for n, cell in enumerate(model.cells))


def regression(T: int = 6, B: int = 3, seed: int = 0) -> rl.Batch:
    rng = np.random.default_rng(seed)
    return rl.Batch(rng.normal(size=(T, B, 3)), rng.normal(size=(T, B, 2)))


@each_cell
def test_loss_and_grads_join_the_layers_as_by_hand(cell_class: type[rl.Cell]) -> None:
    model, batch = stack(cell_class, rl.LSTMCell), regression()
    state = states_for(model, 3)
    result = model.loss_and_grads(batch, state, input_gradient=True)

    lower, upper = model.cells
    tape_0 = lower.forward(batch.x, state[0])
    tape_1 = upper.forward(tape_0.h, state[1])
    loss, d_y = rl.mean_squared_error(model.readout.forward(tape_1.h), batch.y)
    readout, d_h = model.readout.backward(tape_1.h, d_y)
    grads_1 = upper.backward(tape_1, d_h)
    assert grads_1.x is not None
    grads_0 = lower.backward(tape_0, grads_1.x)

    assert result.loss == pytest.approx(loss, rel=1e-14)
    expected = {f"cells.0.{n}": g for n, g in grads_0.params.items()}
    expected |= {f"cells.1.{n}": g for n, g in grads_1.params.items()}
    expected |= {f"readout.{n}": g for n, g in readout.items()}
    assert list(result.grads) == list(model.params)
    assert set(expected) == set(result.grads)
    for name, g in expected.items():
        assert relative_error(result.grads[name], g) <= 1e-13
    assert relative_error(result.cell_grads[0].x, grads_0.x) <= 1e-13
    for tape, wanted in zip(result.tapes, (tape_0, tape_1), strict=True):
        np.testing.assert_array_equal(tape.states, wanted.states)
    for grads, wanted_grads in zip(result.cell_grads, (grads_0, grads_1), strict=True):
        assert relative_error(grads.states, wanted_grads.states) <= 1e-13
    for found, tape in zip(result.state, (tape_0, tape_1), strict=True):
        np.testing.assert_array_equal(found, tape.states[-1])


def test_the_input_gradient_is_made_on_request_alone() -> None:
    model = stack()
    assert model.loss_and_grads(regression()).cell_grads[0].x is None
    assert model.loss_and_grads(regression()).cell_grads[1].x is not None


@pytest.mark.parametrize("keep", ["last", "some", "first"])
def test_a_mask_is_the_loss_over_the_kept_steps(keep: str) -> None:
    model, batch = stack(), regression()
    mask = np.zeros((6, 3), bool)
    mask[{"last": [-1], "some": [1, 4], "first": [0]}[keep]] = True
    mask[4, 0] = False
    result = model.loss_and_grads(rl.Batch(batch.x, batch.y, mask), input_gradient=True)
    outputs, _ = model.predict(batch.x)
    loss, d_y = rl.mean_squared_error(outputs, batch.y, mask)
    assert result.loss == pytest.approx(loss, rel=1e-13)
    tape = result.tapes[-1]
    readout, d_h = model.readout.backward(tape.h, d_y)
    assert relative_error(result.grads["readout.W"], readout["W"]) <= 1e-13
    assert relative_error(result.cell_grads[-1].states, model.cells[-1].backward(tape, d_h).states) <= 1e-13


def test_readout_and_loss_see_the_kept_steps_alone() -> None:
    seen: list[tuple[int, ...]] = []

    def loss(prediction: Any, target: Any, mask: Any) -> Any:
        seen.extend(a.shape[:2] for a in (prediction, target, mask))
        return rl.mean_squared_error(prediction, target, mask)

    batch, mask = regression(), np.zeros((6, 3), bool)
    mask[[1, 4], 0] = True
    stack(loss=loss).loss_and_grads(rl.Batch(batch.x, batch.y, mask))
    assert seen == [(2, 3)] * 3


@each_cell
@pytest.mark.parametrize("T", [1, PREDICT_CHUNK - 1, PREDICT_CHUNK, PREDICT_CHUNK + 1, 2 * PREDICT_CHUNK + 3])
def test_predict_across_its_chunks_is_one_forward_pass(cell_class: type[rl.Cell], T: int) -> None:
    model = stack(cell_class, rl.GRUResetBeforeCell)
    x, state = regression(T).x, states_for(model, 3)
    outputs, last = model.predict(x, state)
    tape_0 = model.cells[0].forward(x, state[0])
    tape_1 = model.cells[1].forward(tape_0.h, state[1])
    assert relative_error(outputs, model.readout.forward(tape_1.h)) <= 1e-13
    for found, tape in zip(last, (tape_0, tape_1), strict=True):
        assert relative_error(found, tape.states[-1]) <= 1e-13


def test_a_state_may_be_none_for_a_layer() -> None:
    model, x = stack(), regression().x
    state = states_for(model, 3)
    found, _ = model.predict(x, (None, state[1]))
    expected, _ = model.predict(x, (np.zeros_like(state[0]), state[1]))
    np.testing.assert_array_equal(found, expected)


def test_a_state_may_be_one_array_of_all_layers() -> None:
    model = rl.SequenceModel(rl.LSTMCell(3, 4, rng=0), rl.Dense(4, 2, rng=1), rl.mean_squared_error)
    x, (state,) = regression().x, states_for(model, 3)
    np.testing.assert_array_equal(model.predict(x, state[None])[0], model.predict(x, (state,))[0])


def test_predict_and_loss_leave_model_state_and_batch_unchanged() -> None:
    model, batch = stack(), regression()
    state = states_for(model, 3)
    arrays = [*model.params.values(), *state, batch.x, batch.y]
    before = [array.copy() for array in arrays]
    first = model.loss_and_grads(batch, state)
    model.predict(batch.x, state)
    second = model.loss_and_grads(batch, state)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for name, g in first.grads.items():
        np.testing.assert_array_equal(g, second.grads[name])


def test_the_state_outlives_the_tape() -> None:
    result = stack().loss_and_grads(regression())
    for state, tape in zip(result.state, result.tapes, strict=True):
        assert not np.shares_memory(state, tape.states)


@each_cell
@pytest.mark.parametrize("loss", [rl.mean_squared_error, rl.softmax_cross_entropy])
@pytest.mark.parametrize("masked", [False, True])
def test_a_float32_model_computes_nothing_in_float64(cell_class: type[rl.Cell], loss: Any, masked: bool) -> None:
    model, batch = stack(cell_class, cell_class, loss, np.float32), regression()
    y = batch.y if loss is rl.mean_squared_error else np.zeros((6, 3), int)
    mask = np.eye(6, 3, dtype=bool) if masked else None
    result = model.loss_and_grads(rl.Batch(batch.x, y, mask), states_for(model, 3), input_gradient=True)
    outputs, state = model.predict(batch.x)
    arrays = [*model.params.values(), *result.grads.values(), *result.state, outputs, *state]
    for tape, grads in zip(result.tapes, result.cell_grads, strict=True):
        assert grads.x is not None
        arrays += [tape.states, tape.gates, tape.extras, grads.states, grads.x, *grads.params.values()]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_complex_parameters_give_complex_results() -> None:
    model = stack().astype(np.complex128)
    assert model.predict(regression().x)[0].dtype == np.complex128
    assert isinstance(model.loss_and_grads(regression()).loss, complex)


# ---- refusals --------------------------------------------------------------------------------

X, Y = np.zeros((6, 3, 3)), np.zeros((6, 3, 2))


def test_a_bad_state_is_refused() -> None:
    model = stack()
    good = states_for(model, 3)
    for state in (good[:1], (*good, good[0]), good[::-1], (good[0][:, :2], good[1])):
        with refuses(ValueError, "state"):
            model.predict(X, state)
        with refuses(ValueError, "state"):
            model.loss_and_grads(rl.Batch(X, Y), state)


def test_mean_loss_is_the_loss_of_loss_and_grads() -> None:
    model, batch = stack(rl.LSTMCell, rl.GRUCell), regression()
    states = states_for(model, 3)
    assert model.mean_loss(batch, states) == model.loss_and_grads(batch, states).loss
    assert model.mean_loss(batch) != model.mean_loss(batch, states)


def test_floats_without_a_time_axis_are_told_both_forms_of_input() -> None:
    with pytest.raises(TypeError, match=r"^x: expected \(T, B, D=3\) floats or \(T, B\) integers, got"):
        rl.LSTMCell(3, 4, rng=0).forward(np.zeros((5, 3)))


def test_a_layer_has_a_cell_of_its_own() -> None:
    """One cell in two layers would be updated twice, with half of its gradient each time."""
    cell = rl.RNNCell(4, 4, rng=0)
    with refuses(ValueError, "cells"):
        rl.SequenceModel([cell, cell], rl.Dense(4, 2, rng=0), rl.mean_squared_error)
    rl.SequenceModel([cell, cell.with_params(cell.params)], rl.Dense(4, 2, rng=0), rl.mean_squared_error)


def test_outputs_that_overflow_are_an_error_without_a_warning() -> None:
    model = stack()
    model.readout.params["W"][...] = 1.7e308
    model.readout.params["b"][...] = 1.7e308
    with pytest.raises(FloatingPointError, match=r"Dense: y is not finite$"):
        model.predict(X, states_for(model, 3))


def test_predict_counts_steps_from_the_start_of_the_input() -> None:
    model = rl.SequenceModel(rl.RNNCell(1, 1, rng=0, activation="relu"), rl.Dense(1, 1, rng=0), rl.mean_squared_error)
    model = model.with_params({name: np.zeros_like(p) for name, p in model.params.items()})
    x = np.zeros((400, 1, 1))
    x[300] = np.nan
    with pytest.raises(ValueError, match=r"at index \(300, 0, 0\)"):
        model.predict(x)
    x[300] = 1e300
    model.params["cells.0.W_x"][...] = 1e300
    with pytest.raises(FloatingPointError, match=r"at t = 45, counted from step 256$"):
        model.predict(x)  # x[300] enters the 45th step of the 64 from 256 on


def test_predict_holds_its_outputs_once() -> None:
    model = rl.SequenceModel(rl.RNNCell(1, 2, rng=0), rl.Dense(2, 50, rng=0), rl.mean_squared_error)
    x = np.zeros((4000, 2, 1))
    tracemalloc.start()
    try:
        outputs, _ = model.predict(x)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outputs.nbytes < peak < 1.2 * outputs.nbytes


@pytest.mark.parametrize("loss", [rl.mean_squared_error, rl.softmax_cross_entropy])
def test_a_wrong_target_is_named_where_it_stands_in_the_batch(loss: Any) -> None:
    """And not in the steps that the loss reads, which are fewer."""
    T, B, O = 7, 4, 3  # noqa: E741 - O is the shape letter
    model = rl.SequenceModel(rl.RNNCell(2, 5, rng=0), rl.Dense(5, O, rng=1), loss)
    x, mask = np.zeros((T, B, 2)), np.zeros((T, B), bool)
    mask[5:] = True
    y: Any = np.zeros((T, B, O)) if loss is rl.mean_squared_error else np.zeros((T, B), int)
    bad = y.copy()
    bad[6, 2] = np.nan if loss is rl.mean_squared_error else 9
    place = r"\(6, 2, 0\)" if loss is rl.mean_squared_error else r"\(6, 2\)"
    with pytest.raises(ValueError, match=rf"^y: expected .* at index {place}"):
        model.loss_and_grads(rl.Batch(x, bad, mask))
    bad[6, 2], bad[0, 1] = 0, bad[6, 2]
    model.loss_and_grads(rl.Batch(x, bad, mask))  # where nothing is read, nothing is asked


def test_batch_first_beside_time_first_is_called_so() -> None:
    T, B = 7, 4
    model = rl.SequenceModel(rl.RNNCell(2, 5, rng=0), rl.Dense(5, 3, rng=1), rl.softmax_cross_entropy)
    x, y, mask = np.zeros((T, B, 2)), np.zeros((T, B), int), np.ones((T, B), bool)
    for batch, name in (
        (rl.Batch(x.swapaxes(0, 1), y), "y"),
        (rl.Batch(x, y.T), "y"),
        (rl.Batch(x, y, mask.T), "mask"),
        (rl.Batch(x, np.zeros((B, T, 3))), "y"),
    ):
        with pytest.raises(ValueError, match=rf"^{name}: expected time first .*looks like \(B, T\).*swapaxes"):
            model.loss_and_grads(batch)


def test_a_loss_of_ones_own_reads_one_number_a_sequence_as_mean_squared_error_does() -> None:
    def own(prediction: Any, target: Any, mask: Any = None) -> Any:
        return rl.mean_squared_error(prediction, target, mask)

    rng = np.random.default_rng(0)
    batch = rl.Batch(rng.normal(size=(5, 3, 2)), rng.normal(size=3))
    losses = [
        rl.SequenceModel(rl.RNNCell(2, 4, rng=0), rl.Dense(4, 1, rng=1), loss).mean_loss(batch)
        for loss in (own, rl.mean_squared_error)
    ]
    assert losses[0] == losses[1]


class AsksForItsShape(rl.RNNCell):
    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        assert x.shape[-1] == self.input_size
        return super().forward(x, state, lengths)


def test_a_cell_of_ones_own_is_given_arrays_where_lists_came() -> None:
    model = rl.SequenceModel(AsksForItsShape(2, 3, rng=0), rl.Dense(3, 1, rng=1), rl.mean_squared_error)
    assert model.mean_loss(rl.Batch(np.ones((4, 2, 2)).tolist(), np.ones((4, 2, 1)))) > 0  # type: ignore[arg-type]


def test_a_state_of_the_other_axes_is_told_of_them_also_as_a_tuple() -> None:
    with pytest.raises(ValueError, match=r"^state: expected one for each of B=4 sequences, got 5, .*swapaxes"):
        rl.LSTMCell(2, 3).forward(np.ones((5, 4, 2)), (np.zeros((5, 3)), np.zeros((5, 3))))  # type: ignore[arg-type]
