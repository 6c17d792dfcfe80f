"""The gradient-norm logger: its norms by hand, when it records, and sequences of different length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import each_cell, random_case, random_cell, refuses

import rnnlab as rl


@each_cell
def test_the_norms_are_those_of_dl_dstate(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, 5, 3)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    record = rl.GradientNormLogger().record(7, [cell], [tape], [grads])
    assert record.step == 7
    assert set(record.norms[0]) == set(cell.state_names)
    shown = list(grads.states.swapaxes(0, 1))
    shown[-1] = cell.memory_gradient(tape, grads)  # for "c" of an LSTM the textbook's delta
    for name, g in zip(cell.state_names, shown, strict=True):
        expected = [math.sqrt(math.fsum(float(v) ** 2 for v in g[t].ravel())) for t in range(6)]
        np.testing.assert_allclose(record.norms[0][name], expected, rtol=1e-12)


def test_c_of_an_lstm_is_not_the_coordinate() -> None:
    """For a loss at T the coordinate dL/dc_T is 0; what is logged is not."""
    cell = random_cell(rl.LSTMCell)
    x, state, d_h, _ = random_case(cell, 5, 3)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h)
    assert not grads.states[-1, 1].any()
    assert rl.GradientNormLogger().record(1, [cell], [tape], [grads]).norms[0]["c"][-1] > 0


def test_as_a_callback_it_records_every_layer_at_every_nth_step() -> None:
    task = rl.tasks.adding(6, batch_size=4)
    model = rl.SequenceModel([rl.LSTMCell(2, 5, rng=0), rl.GRUCell(5, 4, rng=1)], rl.Dense(4, 1, rng=2), task.loss)
    each, third = rl.GradientNormLogger(), rl.GradientNormLogger(every=3)
    trainer = rl.Trainer(model, rl.SGD(0.1), callbacks=[each, third])
    trainer.fit(task, 7)
    assert each.steps == [1, 2, 3, 4, 5, 6, 7]
    assert third.steps == [3, 6]
    for logger in (each, third):
        assert len(logger.norms("h")) == len(logger.norms("c", layer=0)) == len(logger.records)
    np.testing.assert_array_equal(third.norms("h", layer=0)[1], each.norms("h", layer=0)[5])
    assert trainer.last is not None
    expected = np.sqrt((trainer.last.cell_grads[1].states[:, 0] ** 2).sum(axis=(1, 2)))
    np.testing.assert_allclose(each.norms("h")[-1], expected, rtol=1e-12)
    with pytest.raises(KeyError):
        each.norms("c", layer=1)
    with pytest.raises(IndexError):
        each.norms("h", layer=2)


def test_chunks_may_differ_in_length() -> None:
    cell = random_cell(rl.GRUCell)
    logger = rl.GradientNormLogger()
    for T in (2, 5, 1):
        x, state, d_h, _ = random_case(cell, T, 2)
        tape = cell.forward(x, state)
        logger.record(T, [cell], [tape], [cell.backward(tape, d_h)])
    assert [len(norms) for norms in logger.norms("h")] == [3, 6, 2]


def test_recording_changes_nothing() -> None:
    cell = random_cell(rl.LSTMCell)
    x, state, d_h, d_state = random_case(cell, 3, 2)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    before = grads.states.copy()
    rl.GradientNormLogger().record(1, [cell], [tape], [grads])
    np.testing.assert_array_equal(grads.states, before)


def test_norms_neither_underflow_nor_overflow_on_the_way() -> None:
    """||(3a, 4a)|| is 5a where (3a)^2 is no float any more: a gradient that vanished to 1e-200 is not 0."""
    cell = rl.RNNCell(1, 2, rng=0)
    tape = cell.forward(np.zeros((1, 1, 1)))
    for a in (1e-200, 1.0, 1e200):
        states = np.array([[[[3 * a, 4 * a]]], [[[0.0, 0.0]]]])
        norms = rl.GradientNormLogger().record(1, [cell], [tape], [rl.Gradients({}, None, states)]).norms[0]["h"]
        np.testing.assert_allclose(norms, [5 * a, 0], rtol=1e-14)


def test_bad_arguments_are_refused() -> None:
    with refuses(ValueError, "every"):
        rl.GradientNormLogger(0)
    not_an_int: Any = 1.5
    with refuses(TypeError, "every"):
        rl.GradientNormLogger(not_an_int)
