"""Both directions: against two cells with the input turned by hand, PyTorch's packed sequences, and the checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import lab
from tests.cases import each_cell, random_case, random_cell, refuses, relative_error

T, B, D, H, O = 6, 4, 3, 4, 2  # noqa: E741 - O is the shape letter
LENGTHS = np.array([3, 6, 1, 4])
EXACT = 1e-13


def both(kind: Any = rl.LSTMCell, D: int = D, H: int = H, H_back: int = 3, seed: int = 0) -> rl.Bidirectional:
    return rl.Bidirectional(random_cell(kind, D, H, seed), random_cell(kind, D, H_back, seed + 1))


def stack(**options: Any) -> rl.SequenceModel:
    cells = [both(), random_cell(rl.GRUCell, 7, 5), both(rl.RNNCell, 5)]
    return rl.SequenceModel(cells, rl.Dense(7, O, rng=0), rl.mean_squared_error, **options)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@each_cell
def test_it_is_two_cells_one_of_which_reads_each_row_from_its_own_end(cell_class: Any, lengths: Any) -> None:
    layer = both(cell_class)
    x, state, d_h, d_state = random_case(layer, T, B)  # type: ignore[arg-type]
    tape = layer.forward(x, state, lengths)
    grads = layer.backward(tape, d_h, d_state)
    sums = {name: np.zeros_like(p) for name, p in layer.params.items()}
    assert grads.x is not None
    for b in range(B):
        n = T if lengths is None else lengths[b]
        one = np.s_[:n, b : b + 1]
        d_x = np.zeros((n, 1, D))
        for name, cell, order, units in (
            ("forward_cell", layer.forward_cell, 1, np.s_[:H]),
            ("backward_cell", layer.backward_cell, -1, np.s_[H:]),
        ):
            alone = cell.forward(x[one][::order], state[:, b : b + 1, units])
            g = cell.backward(alone, d_h[one][..., units][::order], d_state[:, b : b + 1, units])
            assert relative_error(tape.h[one][..., units], alone.h[::order]) < EXACT
            assert relative_error(tape.states[-1, :, b : b + 1, units], alone.states[-1]) < EXACT
            assert relative_error(grads.states[0, :, b : b + 1, units], g.states[0]) < EXACT
            assert g.x is not None
            d_x += g.x[::order]
            for key, p in g.params.items():
                sums[f"{name}.{key}"] += p
        assert relative_error(grads.x[one], d_x) < EXACT
    for name, total in sums.items():
        assert relative_error(grads.params[name], total) < EXACT


@pytest.mark.parametrize("layer", [both(rl.GRUCell), rl.Reversed(random_cell(rl.GRUCell, D, H))], ids=str)
def test_check_gradients_takes_layers_that_read_backwards(layer: Any) -> None:
    assert rl.check_gradients(layer, T=T, B=B, lengths=LENGTHS, entries=True).max_error < 1e-9


def test_the_gradients_of_a_stack_with_an_embedding_and_dropout_are_right() -> None:
    rng = np.random.default_rng(0)
    batch = rl.Batch(rng.integers(0, 9, (T, B)), rng.normal(size=(B, O)), lengths=LENGTHS)
    model = stack(embedding=rl.Embedding(9, D, rng=0), dropout=0.4)
    report = rl.check_gradients(model, batch, max_entries=9)
    assert report.max_error < 1e-9
    assert "embedding.W" in str(report)
    assert rl.diagnose(model, batch).ok


def test_a_direction_that_is_not_turned_back_is_caught() -> None:
    class Forgets(rl.Reversed):
        def backward(self, tape: Any, d_h: Any, *arguments: Any, **options: Any) -> Any:
            return super().backward(tape, d_h[::-1], *arguments, **options)

    with pytest.raises(rl.GradientMismatch):
        rl.check_gradients(Forgets(rl.GRUCell(D, H, rng=0)))


# ---- in models --------------------------------------------------------------------------------------


def test_a_model_reads_the_whole_sequence_at_once() -> None:
    model, x = stack(), np.random.default_rng(0).normal(size=(150, 2, D))
    outputs, _ = model.predict(x)
    assert relative_error(outputs, model.readout.forward(model.unroll(x)[-1].h)) < EXACT


def test_it_is_trained_logged_saved_and_resumed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    batch = rl.Batch(rng.integers(0, 9, (T, B)), rng.normal(size=(B, O)), lengths=LENGTHS)

    def trainer() -> rl.Trainer:
        model = stack(embedding=rl.Embedding(9, D, rng=0), dropout=0.3)
        return rl.Trainer(model, rl.Adam(0.01), callbacks=[rl.GradientNormLogger()], seed=3)

    whole, first, second = trainer(), trainer(), trainer()
    whole.fit([batch], 6)
    first.fit([batch], 3)
    first.save(tmp_path / "run.npz")
    second.load(tmp_path / "run.npz")
    second.fit([batch], 3)
    assert whole.history.loss == second.history.loss
    assert all((second.model.params[name] == p).all() for name, p in whole.model.params.items())
    logger: Any = whole.callbacks[0]
    assert [n.shape for n in logger.norms("backward_cell.c", 0)] == [(T + 1,)] * 6
    assert "forward_cell.W_h[forget]" in logger.records[0].params[0]
    whole.model.save(tmp_path / "model.safetensors")
    loaded = rl.load(tmp_path / "model.safetensors")
    assert repr(loaded) == repr(whole.model)
    assert loaded.dropout == 0.3
    assert (loaded.predict(batch.x)[0] == whole.model.predict(batch.x)[0]).all()
    with refuses(ValueError, "carry_state"):
        rl.Trainer(stack(), rl.Adam(0.01), carry_state=True)
    text = rl.tasks.char_text("abc\n" * 50, T=4, batch_size=2)
    writer = rl.SequenceModel(both(rl.GRUCell, 4), rl.Dense(7, 4, rng=0), rl.softmax_cross_entropy)
    with refuses(ValueError, "model"):
        text.bits_per_character(writer)
    with refuses(ValueError, "model"):
        text.sample(writer, 3, rng=0)


def test_a_model_that_reads_backwards_as_a_graph(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with the extra `interop`")
    cells = [rl.Reversed(rl.GRUCell(D, H, rng=0)), rl.Bidirectional(rl.LSTMCell(H, 3, rng=1), rl.LSTMCell(H, 3, rng=2))]
    model = rl.SequenceModel(cells, rl.Dense(6, O, rng=3), rl.mean_squared_error)
    rl.interop.to_onnx(model, tmp_path / "model.onnx", carry_state=True)
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    x, state = rng.normal(size=(T, B, D)), [rng.normal(size=(1, B, H)), rng.normal(size=(2, B, 6))]
    given = {"x": x, "initial_h.0": state[0]}
    given |= {f"initial_{part}.1": s.reshape(B, 2, 3).swapaxes(0, 1) for part, s in zip("hc", state[1], strict=True)}
    y, _, h, c = session.run(None, {name: array.astype(np.float32) for name, array in given.items()})
    expected, final = model.predict(x, state)
    assert relative_error(y, expected) < 1e-6
    assert relative_error(np.stack((h, c)).swapaxes(1, 2).reshape(2, B, 6), final[1]) < 1e-6


def test_the_logger_sees_what_each_cell_alone_would_show() -> None:
    layer = both()
    x, state, d_h, d_state = random_case(layer, T, B)  # type: ignore[arg-type]
    tape = layer.forward(x, state)
    grads = layer.backward(tape, d_h, d_state)
    record = rl.GradientNormLogger().record(1, [layer], [tape], [grads])
    alone = rl.GradientNormLogger().record(1, [layer.backward_cell], [tape.tapes[1]], [grads.cells[1]])
    assert (record.norms[0]["backward_cell.c"] == alone.norms[0]["c"]).all()


def test_the_laboratory_says_where_two_directions_have_no_meaning() -> None:
    model, rng = stack(), np.random.default_rng(0)
    batch = rl.Batch(rng.normal(size=(T, B, D)), rng.normal(size=(B, O)))
    tape = model.unroll(batch.x)[0]
    for refused in (
        lambda: lab.truncation(model, batch),
        lambda: lab.connectivity(model, batch.x),
    ):
        with pytest.raises(ValueError, match=r"^model: expected cells that read forwards, got Bidirectional.*`cells`"):
            refused()
    for analysis in (lab.jacobians, lab.gate_statistics, lab.jacobian_product):
        with pytest.raises(TypeError, match=r"^cell: expected a Cell, got Bidirectional.*`cells`"):
            analysis(model.cells[0], tape)  # type: ignore[operator]
    assert lab.input_gradient_norms(model, batch).shape == (T, B)
    words = rl.SequenceModel(
        rl.GRUCell(D, H, rng=0), rl.Dense(H, O, rng=0), model.loss, embedding=rl.Embedding(9, D, rng=0), dropout=0.5
    )
    labels = rng.integers(0, 9, (T, B))
    spoken = rl.Batch(labels, batch.y, lengths=LENGTHS)
    past = np.arange(T)[:, None] >= LENGTHS
    assert (lab.connectivity(words, labels, lengths=LENGTHS) == -np.inf)[past].all()
    assert (lab.input_gradient_norms(words, spoken) == 0)[past].all()
    assert lab.truncation(words, spoken, [T]).relative_error["all"][0] < EXACT
    layer: Any = model.cells[0]
    assert lab.jacobians(layer.backward_cell, tape.tapes[1]).shape[0] == T  # type: ignore[union-attr]
    with refuses(TypeError, "cell"):
        rl.explain_step(layer, batch.x[0, 0])
    assert rl.diagnose(layer).ok


def test_cells_that_do_not_fit_are_refused() -> None:
    cell = random_cell(rl.LSTMCell, D, H)
    for other in (
        cell,
        random_cell(rl.GRUCell, D, H),
        random_cell(rl.LSTMCell, D + 1, H),
        cell.astype(np.float32),
    ):
        with refuses(ValueError, "backward_cell"):
            rl.Bidirectional(cell, other)
    for wrong in (None, rl.Dense(3, 4, rng=0), rl.Reversed(cell)):
        with refuses(TypeError, "backward_cell"):
            rl.Bidirectional(cell, wrong)  # type: ignore[arg-type]
        with refuses(TypeError, "backward_cell"):
            rl.Reversed(wrong)  # type: ignore[arg-type]
    with refuses(ValueError, "cells"):
        rl.SequenceModel([cell, rl.Reversed(cell)], rl.Dense(H, O, rng=0), rl.mean_squared_error)
    layer = rl.Reversed(cell)
    with refuses(TypeError, "tape"):
        layer.backward(both().forward(np.ones((T, B, D))), np.ones((T, B, H)))
