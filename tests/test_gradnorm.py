"""The gradient-norm logger: norms by hand, when it records, parameters, ratios, rates, alarms, and its file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.gradnorm import Alarm, block_norms, log10_rate, log10_ratio, state_norms
from tests.cases import each_cell, random_case, random_cell, refuses


def lstm_without_weights(forget_bias: float, T: int) -> tuple[rl.Cell, rl.Tape, rl.Gradients]:
    """dL/dc_t falls by exactly sigmoid(b_f) with each step back; the loss is read from h_T."""
    cell = rl.LSTMCell(1, 2, rng=0)
    cell = cell.with_params({name: np.zeros_like(p) for name, p in cell.params.items()})
    cell.set_bias("forget", forget_bias)
    tape = cell.forward(np.zeros((T, 1, 1)))
    d_h = np.zeros_like(tape.h)
    d_h[-1] = 1
    return cell, tape, cell.backward(tape, d_h)


def growing_rnn(factor: float, T: int) -> tuple[rl.Cell, rl.Tape, rl.Gradients]:
    """dL/dh_t grows by exactly `factor` with each step back: a ReLU network with W_h = factor I."""
    cell = rl.RNNCell(1, 2, activation="relu", recurrent_init="identity", rng=0)
    cell = cell.with_params({"W_x": 0 * cell.W_x, "W_h": factor * cell.W_h, "b": 0 * cell.b})
    tape = cell.forward(np.zeros((T, 1, 1)), np.ones((1, 1, 2)))
    d_h = np.zeros_like(tape.h)
    d_h[-1] = 1
    return cell, tape, cell.backward(tape, d_h)


def logged(*passes: Any, **arguments: Any) -> rl.GradientNormLogger:
    logger = rl.GradientNormLogger(**arguments)
    for step, (cell, tape, grads) in enumerate(passes, start=1):
        logger.record(step, [cell], [tape], [grads])
    return logger


def trained_logger() -> rl.GradientNormLogger:
    """Four recorded steps of a stack, of two different lengths."""
    cells = [rl.GRUCell(2, 3, rng=0), rl.LSTMCell(3, 4, rng=1)]
    model = rl.SequenceModel(cells, rl.Dense(4, 1, rng=2), rl.mean_squared_error)
    logger = rl.GradientNormLogger(every=2, vanishing=None, exploding=50.0)
    trainer = rl.Trainer(model, rl.SGD(0.1), callbacks=[logger])
    for T in (5, 8):
        trainer.fit(rl.tasks.adding(T, batch_size=3), steps=4)
    return logger


# ---- norms ------------------------------------------------------------------------------------


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


def test_norms_neither_underflow_nor_overflow_on_the_way() -> None:
    """||(3a, 4a)|| is 5a where (3a)^2 is no float any more: a gradient that vanished to 1e-200 is not 0."""
    cell = rl.RNNCell(1, 2, rng=0)
    tape = cell.forward(np.zeros((1, 1, 1)))
    for a in (1e-200, 1.0, 1e200):
        states = np.array([[[[3 * a, 4 * a]]], [[[0.0, 0.0]]]])
        norms = rl.GradientNormLogger().record(1, [cell], [tape], [rl.Gradients({}, None, states)]).norms[0]["h"]
        np.testing.assert_allclose(norms, [5 * a, 0], rtol=1e-14)


@each_cell
def test_parameter_norms_stand_gate_by_gate(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, T=4, B=2)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    logger = logged((cell, tape, grads))
    for k, gate in enumerate(cell.gate_names):
        for name in ("W_x", "W_h", "b"):
            exact = np.sqrt((grads.params[name][k] ** 2).sum())
            assert logger.param_norms(f"{name}[{gate}]")[0] == pytest.approx(exact, rel=1e-14)
    for name in set(cell.params) - {"W_x", "W_h", "b"}:
        assert logger.param_norms(name)[0] == pytest.approx(np.linalg.norm(grads.params[name]), rel=1e-14)
    whole = np.concatenate([g.ravel() for g in grads.params.values()])
    assert logger.layer_norms()[0] == pytest.approx(np.linalg.norm(whole), rel=1e-14)


# ---- ratio and rate ---------------------------------------------------------------------------


def test_ratio_and_rate_of_an_exact_decay() -> None:
    cell, tape, grads = lstm_without_weights(1.0, 1000)
    log_f = -np.log10(1 + np.exp(-1.0))
    logger = logged((cell, tape, grads))
    assert logger.ratios("c")[0] == pytest.approx(999 * log_f, rel=1e-12)
    assert logger.rates("c")[0] == pytest.approx(log_f, rel=1e-12)
    cell, tape, grads = growing_rnn(2.0, 50)
    logger = logged((cell, tape, grads))
    assert logger.ratios()[0] == pytest.approx(49 * np.log10(2), rel=1e-12)
    assert logger.rates()[0] == pytest.approx(np.log10(2), rel=1e-12)


def test_rate_is_the_least_squares_slope() -> None:
    norms = np.random.default_rng(0).random(12) + 0.1
    slope, _ = np.polyfit(np.arange(1, 12), np.log10(norms[1:]), 1)
    assert log10_rate(norms) == pytest.approx(-slope, rel=1e-12)


def test_zeros_have_no_logarithm() -> None:
    assert log10_ratio(np.array([1.0, 0, 1, 1])) == -np.inf
    assert log10_ratio(np.zeros(4)) == -np.inf
    assert log10_ratio(np.array([1.0, 1, 10, 0])) == pytest.approx(-1)  # a memory that is not read at T
    assert log10_ratio(np.array([1.0])) == -np.inf
    assert log10_rate(np.array([1.0, 0, 1, 10, 100])) == pytest.approx(-1)
    assert log10_rate(np.array([1.0, 1, 100])) == pytest.approx(-2)
    assert np.isnan(log10_rate(np.array([1.0, 0, 0, 10])))
    assert np.isnan(log10_rate(np.array([1.0, 10])))


# ---- alarms -----------------------------------------------------------------------------------


def test_alarms_fire_on_either_side_of_their_thresholds_alone() -> None:
    vanishing, exploding = lstm_without_weights(0.0, 41), growing_rnn(2.0, 41)  # 2^-40 and 2^40
    calm = growing_rnn(1.0, 41)
    logger = logged(vanishing, calm, exploding, vanishing=0.6**40, exploding=1.9**40)
    assert [(a.step, a.layer, a.kind) for a in logger.alarms] == [(1, 0, "vanishing"), (3, 0, "exploding")]
    assert logger.alarms[1].log10_ratio == pytest.approx(40 * np.log10(2))
    assert not logged(vanishing, calm, exploding, vanishing=0.4**40, exploding=2.1**40).alarms
    assert not logged(vanishing, calm, exploding, vanishing=None, exploding=None).alarms


def test_one_state_part_that_survives_is_no_vanishing_gradient() -> None:
    cell, tape, grads = lstm_without_weights(0.0, 41)
    h, c = (state_norms(cell, tape, grads)[name] for name in "hc")
    assert log10_ratio(h) == -np.inf  # h reads and feeds nothing: only the memory carries
    logger = logged((cell, tape, grads), vanishing=0.4**40)
    assert log10_ratio(c) > 40 * np.log10(0.4)
    assert not logger.alarms


def test_an_alarm_is_passed_on_at_its_step() -> None:
    heard: list[Alarm] = []
    logged(growing_rnn(2.0, 41), on_alarm=heard.append)
    assert len(heard) == 1
    assert str(heard[0]) == (
        "training step 1, layer 0: exploding gradient, norm at the first time step / at the last = 10^12.0"
    )


# ---- on disk ----------------------------------------------------------------------------------


def test_a_saved_logger_is_loaded_the_same_and_continues(tmp_path: Path) -> None:
    logger, path = trained_logger(), tmp_path / "norms.npz"
    logger.save(path)
    loaded = rl.GradientNormLogger.load(path)
    assert (loaded.every, loaded.vanishing, loaded.exploding) == (2, None, 50.0)
    assert loaded.steps == logger.steps == [2, 4, 6, 8]
    assert [len(n) for n in loaded.norms("c")] == [6, 6, 9, 9]
    for one, other in zip(loaded.records, logger.records, strict=True):
        assert one.params == other.params
        assert [list(layer) for layer in one.norms] == [list(layer) for layer in other.norms]
        for mine, theirs in zip(one.norms, other.norms, strict=True):
            for name in mine:
                np.testing.assert_array_equal(mine[name], theirs[name])
    cell, tape, grads = growing_rnn(2.0, 41)
    loaded.record(9, [cell], [tape], [grads])  # another network, with fewer layers and states
    loaded.save(path)
    again = rl.GradientNormLogger.load(path)
    assert again.steps == [2, 4, 6, 8, 9]
    assert again.alarms == loaded.alarms
    assert len(again.records[-1].norms) == 1


def test_thresholds_and_the_listener_come_back_with_the_file(tmp_path: Path) -> None:
    heard: list[Alarm] = []
    for vanishing, exploding in ((1e-4, None), (None, 30.0)):
        rl.GradientNormLogger(vanishing=vanishing, exploding=exploding).save(tmp_path / "norms.npz")
        loaded = rl.GradientNormLogger.load(tmp_path / "norms.npz", on_alarm=heard.append)
        assert (loaded.vanishing, loaded.exploding) == (vanishing, exploding)
    loaded.record(1, *([one] for one in growing_rnn(2.0, 41)))
    assert heard == loaded.alarms != []


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz: expected a whole file that rnnlab saved"):
        rl.GradientNormLogger.load(tmp_path / "other.npz")
    model = rl.SequenceModel(rl.RNNCell(2, 3, rng=0), rl.Dense(3, 1, rng=0), rl.mean_squared_error)
    model.save(tmp_path / "model.npz")
    with refuses(ValueError, "path"):
        rl.GradientNormLogger.load(tmp_path / "model.npz")
    with pytest.raises(FileNotFoundError):
        rl.GradientNormLogger.load(tmp_path / "none.npz")


def test_blocks_of_a_parameter_that_is_not_gated_stay_whole() -> None:
    assert block_norms({"p": np.ones((3, 2, 2)), "q": np.full((1, 4), 2.0)}, ("a", "b")) == {
        "p": pytest.approx(np.sqrt(12)),
        "q": pytest.approx(4),
    }


def test_what_is_no_tape_of_the_cell_is_refused_and_not_recorded() -> None:
    cell, tape, grads = growing_rnn(2.0, 3)
    logger: Any = rl.GradientNormLogger()
    with refuses(TypeError, "tape"):
        logger.record(1, [cell], [grads], [grads])
    with refuses(ValueError, "tape"):
        logger.record(1, [rl.LSTMCell(3, 4, rng=0)], [tape], [grads])
    assert logger.records == []


def test_names_and_layers_that_were_not_recorded_are_refused_with_a_list_of_what_was() -> None:
    cell = random_cell(rl.GRUCell)
    x, state, d_h, _ = random_case(cell, 3, B=2)
    tape = cell.forward(x, state)
    logger = logged((cell, tape, cell.backward(tape, d_h)))
    with pytest.raises(KeyError, match=r"state: expected one of \('h',\), got 'c'"):
        logger.norms("c")
    with pytest.raises(KeyError, match=r"block: expected one of \(.*'W_h\[reset\]'.*\), got 'W_h'"):
        logger.param_norms("W_h")
    nameless: Any = ["h"]
    with pytest.raises(KeyError, match=r"state: expected one of \('h',\), got \['h'\]"):
        logger.norms(nameless)
    for read in (lambda n: logger.norms("h", n), lambda n: logger.param_norms("b_hn", n), logger.layer_norms):
        read(0)
        read(-1)
        for layer in (1, -2, 0.0, "0"):
            with refuses(IndexError, "layer"):
                read(layer)
