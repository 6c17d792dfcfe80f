"""What tutorials use, each equal to PyTorch's; and the best-known recipe of all, min-char-rnn, with shipped parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import interop
from tests.cases import CELLS, MinimalGatedUnit, needs, random_cell, refuses, relative_error

T, B, D, H, O = 6, 4, 3, 5, 2  # noqa: E741 - O is the shape letter


# ---- min-char-rnn -----------------------------------------------------------------------------------


def min_char_rnn(data: list[int], V: int, H: int, T: int, lr: float, steps: int, start: dict[str, Any]) -> list[float]:
    """Karpathy's min-char-rnn (2015), line by line: the loss of each step."""
    Wxh, Whh, Why = start["Wxh"].copy(), start["Whh"].copy(), start["Why"].copy()
    bh, by = np.zeros((H, 1)), np.zeros((V, 1))
    parameters = [Wxh, Whh, Why, bh, by]
    memories = [np.zeros_like(p) for p in parameters]
    losses, p, hprev = [], 0, np.zeros((H, 1))
    for _ in range(steps):
        if p + T + 1 >= len(data):
            hprev, p = np.zeros((H, 1)), 0
        inputs, targets = data[p : p + T], data[p + 1 : p + T + 1]
        xs, hs, ps, loss = {}, {-1: hprev}, {}, 0.0
        for t in range(T):
            xs[t] = np.zeros((V, 1))
            xs[t][inputs[t]] = 1
            hs[t] = np.tanh(Wxh @ xs[t] + Whh @ hs[t - 1] + bh)
            y = Why @ hs[t] + by
            ps[t] = np.exp(y) / np.sum(np.exp(y))
            loss += -np.log(ps[t][targets[t], 0])
        gradients = dWxh, dWhh, dWhy, dbh, dby = [np.zeros_like(q) for q in parameters]
        dhnext = np.zeros((H, 1))
        for t in reversed(range(T)):
            dy = ps[t].copy()
            dy[targets[t]] -= 1
            dWhy += dy @ hs[t].T
            dby += dy
            dhraw = (1 - hs[t] ** 2) * (Why.T @ dy + dhnext)
            dbh += dhraw
            dWxh += dhraw @ xs[t].T
            dWhh += dhraw @ hs[t - 1].T
            dhnext = Whh.T @ dhraw
        for q, dq, memory in zip(parameters, gradients, memories, strict=True):
            np.clip(dq, -5, 5, out=dq)
            memory += dq * dq
            q += -lr * dq / np.sqrt(memory + 1e-8)
        losses.append(loss)
        hprev, p = hs[T - 1], p + T
    return losses


def test_min_char_rnn_with_shipped_parts_has_the_algorithms_losses() -> None:
    """Its loss is a sum over T steps; ours is a mean, so T times a mean is the loss of the recipe."""
    text = rl.tasks.python_reference()[:900]
    characters = sorted(set(text))
    data, V, H, T = [characters.index(c) for c in text], len(characters), 20, 25
    rng = np.random.default_rng(0)
    start = {"Wxh": rng.normal(size=(H, V)), "Whh": rng.normal(size=(H, H)), "Why": rng.normal(size=(V, H))}
    start = {name: 0.2 * w for name, w in start.items()}
    expected = min_char_rnn(data, V, H, T, 0.1, 100, start)

    def summed(prediction: Any, target: Any, mask: Any = None) -> Any:
        loss, d = rl.softmax_cross_entropy(prediction, target, mask)
        return T * loss, T * d

    cell = rl.RNNCell(V, H, rng=0)
    readout = rl.Dense(H, V, rng=0)
    cell.W_x, cell.W_h, readout.W = start["Wxh"].T[None].copy(), start["Whh"].T[None].copy(), start["Why"].T.copy()
    cell.b[...] = readout.b[...] = 0
    model = rl.SequenceModel(cell, readout, summed)
    x = np.array(data)
    places = range(0, len(data) - T - 1, T)  # round and round, each round from a zero state
    batches = [rl.Batch(x[p : p + T, None], x[p + 1 : p + T + 1, None]) for p in places]
    assert 100 > len(batches) > 30
    optimizer = rl.Adagrad(0.1, epsilon=0.0, initial_sum=1e-8)
    history = rl.Trainer(model, optimizer, clip_value=5.0, carry_state=True).fit(batches, 100)
    np.testing.assert_allclose(history.loss, expected, rtol=1e-9)
    assert expected[-1] < 0.9 * expected[0]
    assert max(history.gradient_norm) > 5  # something was cut


# ---- optimizers -------------------------------------------------------------------------------------


def test_clipping_by_value_is_pytorchs() -> None:
    torch = needs("torch")
    grads = {"W": 3 * np.random.default_rng(0).normal(size=(3, 4))}
    p = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor(grads["W"])
    torch.nn.utils.clip_grad_value_(p, 1.5)
    assert (rl.clip_by_value(grads, 1.5)["W"] == p.grad.numpy()).all()
    assert np.abs(grads["W"]).max() > 1.5


@pytest.mark.parametrize("make", [lambda: rl.Adagrad(0.1), lambda: rl.RMSProp(0.01), lambda: rl.Adam(weight_decay=0.1)])
def test_a_run_with_each_resumes_bit_for_bit(make: Any, tmp_path: Path) -> None:
    def trainer() -> rl.Trainer:
        model = rl.SequenceModel(rl.GRUCell(2, 4, rng=0), rl.Dense(4, 1, rng=1), rl.mean_squared_error)
        return rl.Trainer(model, make(), clip_value=0.1)

    task = rl.tasks.adding(6, batch_size=4)
    whole, first, second = trainer(), trainer(), trainer()
    whole.fit(task, 8)
    first.fit(task, 3)
    first.save(tmp_path / "run.npz")
    second.load(tmp_path / "run.npz")
    second.fit(task, 5)
    assert second.history.loss == whole.history.loss
    assert all((p == second.model.params[name]).all() for name, p in whole.model.params.items())
    other = rl.Trainer(trainer().model, rl.SGD(0.1), clip_value=0.1)
    with pytest.raises(ValueError, match="optimizer: expected"):
        other.load(tmp_path / "run.npz")


# ---- the loss of yes-or-no questions ----------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, O])
def test_yes_or_no_of_a_whole_sequence(outputs: int) -> None:
    """One question a sequence is y (B,); the derivative holds at 0 too, where the loss is written in two pieces."""
    rng = np.random.default_rng(0)
    model = rl.SequenceModel(rl.LSTMCell(D, H, rng=0), rl.Dense(H, outputs, rng=0), rl.sigmoid_cross_entropy)
    y = rng.integers(0, 2, (B, outputs)).astype(float)
    batch = rl.Batch(rng.normal(size=(T, B, D)), y[:, 0] if outputs == 1 else y, lengths=np.array([3, 6, 1, 2]))
    assert rl.check_gradients(model, batch).max_error < 1e-9
    z, h = np.zeros((1, 1, 1)), 1e-30
    _, d = rl.sigmoid_cross_entropy(z, z + 0.3)
    assert d[0, 0, 0] == pytest.approx(0.2)
    assert np.imag(rl.sigmoid_cross_entropy(z + 1j * h, z + 0.3 + 0j)[0]) / h == pytest.approx(0.2)


# ---- dropout ----------------------------------------------------------------------------------------


def two_layers(**options: Any) -> rl.SequenceModel:
    cells = [random_cell(rl.LSTMCell, D, H), random_cell(rl.GRUCell, H, H)]
    return rl.SequenceModel(cells, rl.Dense(H, O, rng=0), rl.mean_squared_error, **options)


def test_dropout_scales_outputs_on_the_way_up_alone() -> None:
    rng = np.random.default_rng(0)
    model, x, y = two_layers(dropout=0.4), rng.normal(size=(T, B, D)), rng.normal(size=(T, B, O))
    batch = rl.Batch(x, y)
    scales = model.dropout_scales(x, 3)
    assert {*np.unique(scales[0])} == {0, 1 / 0.6}
    tapes = model.unroll(x, scales=scales)
    first = model.cells[0].forward(x)
    second = model.cells[1].forward(first.h * scales[0])
    assert (tapes[0].states == first.states).all()
    assert (tapes[1].states == second.states).all()
    prediction = model.readout.forward(second.h * scales[1])
    result = model.loss_and_grads(batch, rng=3)
    assert result.loss == rl.mean_squared_error(prediction, y)[0] == model.mean_loss(batch, rng=3)
    assert result.loss != model.mean_loss(batch)
    plain = two_layers()
    assert (model.predict(x)[0] == plain.predict(x)[0]).all()
    assert model.loss_and_grads(batch).loss == plain.loss_and_grads(batch).loss
    assert model.loss_and_grads(batch, rng=4).loss != result.loss


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    (scales, _) = two_layers(dropout=0.3).dropout_scales(np.zeros((200, 100, D)), 0)
    assert (scales == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert scales.mean() == pytest.approx(1, abs=0.02)
    single = two_layers(dropout=0.3).astype(np.float32)
    assert single.dropout_scales(np.zeros((2, 2, D)), 0)[0].dtype == np.float32


def test_dropout_is_pytorchs_with_the_same_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = needs("torch")
    rng = np.random.default_rng(0)
    model, x, y = two_layers(dropout=0.4), rng.normal(size=(T, B, D)), rng.normal(size=(T, B, O))
    net, scales = interop.to_pytorch(model), list(model.dropout_scales(x, 3))
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda h, p, training: h * torch.tensor(scales.pop(0)))
    prediction, _ = net.train()(torch.tensor(x))
    loss = torch.nn.functional.mse_loss(prediction, torch.tensor(y))
    loss.backward()
    result = model.loss_and_grads(rl.Batch(x, y), rng=3)
    assert relative_error(result.loss, loss.item()) < 1e-14
    W_h = result.grads["cells.0.W_h"].mT.reshape(-1, H)
    assert relative_error(W_h, net.layers[0].weight_hh_l0.grad.numpy()) < 1e-13
    assert interop.from_pytorch(net, loss=rl.mean_squared_error).dropout == 0.4


def test_each_training_step_draws_anew_from_its_seed() -> None:
    rng = np.random.default_rng(0)
    data = [rl.Batch(rng.normal(size=(T, B, D)), rng.normal(size=(T, B, O)))]
    losses = {}
    for seed in (0, 0, 1):
        trainer = rl.Trainer(two_layers(dropout=0.5), rl.SGD(lambda step: 0.0), seed=seed)
        trainer.fit(data, 3)
        assert len({*trainer.history.loss}) == 3
        assert losses.setdefault(seed, trainer.history.loss) == trainer.history.loss
    assert losses[0] != losses[1]
    for wrong in (1.0, -0.1):
        with refuses(ValueError, "dropout"):
            two_layers(dropout=wrong)


# ---- embeddings and layers without biases -----------------------------------------------------------


def test_an_embedding_is_pytorchs() -> None:
    torch = needs("torch")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 7, (T, B)), rng.normal(size=(T, B, O))
    model = two_layers(embedding=rl.Embedding(7, D, rng=0))
    net = interop.to_pytorch(model)
    prediction, _ = net(torch.tensor(x))
    torch.nn.functional.mse_loss(prediction, torch.tensor(y)).backward()
    result = model.loss_and_grads(rl.Batch(x, y))
    assert relative_error(model.predict(x)[0], prediction.detach().numpy()) < 1e-14
    assert relative_error(result.grads["embedding.W"], net.embedding.weight.grad.numpy()) < 1e-13
    assert list(result.grads) == list(model.params)
    with refuses(ValueError, "x"):
        model.predict(x + 1)
    with refuses(TypeError, "x"):
        model.predict(x * 1.0)
    with refuses(ValueError, "cells"):
        two_layers(embedding=rl.Embedding(7, D + 1, rng=0))


@pytest.mark.parametrize("cell_class", [*CELLS, MinimalGatedUnit], ids=lambda c: c.__name__)
def test_without_biases_all_of_them_are_0_and_no_parameter(cell_class: Any) -> None:
    cell = cell_class(D, H, rng=0, bias=False)
    assert not [name for name in cell.params if name.startswith("b")]
    with_zeros = cell_class(D, H, rng=0)
    zeros = {name: np.zeros_like(p) for name, p in with_zeros.params.items() if name.startswith("b")}
    with_zeros = with_zeros.with_params(zeros | dict(cell.params))
    x = np.random.default_rng(0).normal(size=(T, B, D))
    assert (cell.forward(x).states == with_zeros.forward(x).states).all()
    assert rl.check_gradients(cell).max_error < 1e-9
    with refuses(ValueError, f"{cell.gate_names[0]}_bias"):
        cell.set_bias(cell.gate_names[0], 1.0)
    single = cell.astype(np.float32)
    assert single.forward(x).states.dtype == np.float32


def test_a_model_without_biases_is_saved_and_trained(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    readout = rl.Dense(H, O, rng=0, bias=False)
    model = rl.SequenceModel(rl.GRUCell(D, H, rng=0, bias=False), readout, rl.mean_squared_error)
    assert list(model.params) == ["cells.0.W_x", "cells.0.W_h", "readout.W"]
    batch = rl.Batch(rng.normal(size=(T, B, D)), rng.normal(size=(T, B, O)))
    rl.Trainer(model, rl.Adam(0.1)).fit([batch], 3)
    assert rl.check_gradients(model, batch).max_error < 1e-9
    model.save(tmp_path / "model.npz")
    loaded = rl.load(tmp_path / "model.npz")
    assert (loaded.predict(batch.x)[0] == model.predict(batch.x)[0]).all()
    with pytest.raises(ValueError, match="read-only"):
        model.readout.b[...] = 1


# ---- whole models of theirs -------------------------------------------------------------------------


def whole(kind: Any, bias: bool) -> rl.SequenceModel:
    rng = np.random.default_rng(0)
    cells = [
        rl.Bidirectional(kind(D, H, rng=rng, bias=bias), kind(D, H, rng=rng, bias=bias)),
        rl.LSTMCell(2 * H, 4, rng=rng, bias=bias),
    ]
    return rl.SequenceModel(
        cells,
        rl.Dense(4, O, rng=rng, bias=bias),
        rl.mean_squared_error,
        embedding=rl.Embedding(7, D, rng=rng),
        dropout=0.2,
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [rl.RNNCell, rl.LSTMCell, rl.GRUCell, rl.GRUResetBeforeCell])
def test_a_whole_model_in_other_libraries(kind: Any, bias: bool, tmp_path: Path) -> None:
    model, x = whole(kind, bias), np.random.default_rng(0).integers(0, 7, (T, B))
    y, _ = model.predict(x)
    runtime = needs("onnxruntime")
    interop.to_onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert relative_error(session.run(["y"], {"x": x})[0], y) < 1e-5
    torch = needs("torch")
    if kind is not rl.GRUResetBeforeCell:
        net = interop.to_pytorch(model).eval()
        assert relative_error(net(torch.tensor(x))[0].detach().numpy(), y) < 1e-13
        lengths = np.array([3, 5, 1, 4])  # none of which is T
        found, _ = net(torch.tensor(x), None, torch.tensor(lengths))
        assert relative_error(found.detach().numpy(), model.predict(x, None, lengths)[0]) < 1e-13
        again = interop.from_pytorch(net, loss=model.loss)
        assert repr(again) == repr(model)
        assert relative_error(again.predict(x)[0], y) < 1e-13
    needs("keras")
    theirs = interop.to_keras(model)
    found = theirs(torch.tensor(x.T.copy()), training=False)
    assert relative_error(found.detach().numpy().swapaxes(0, 1), y) < 1e-5
    again = interop.from_keras(theirs, loss=model.loss)
    assert repr(again) == repr(model)
    assert again.dropout == 0.2
    assert (again.predict(x)[0] == y).all()


def test_labels_are_dropped_out_as_numbers_are() -> None:
    cell = rl.RNNCell(4, 5, rng=0)
    model = rl.SequenceModel(cell, rl.Dense(5, 4, rng=1), rl.softmax_cross_entropy, dropout=0.5)
    labels = np.random.default_rng(0).integers(0, 4, (6, 3))
    (scales,) = model.dropout_scales(labels, 0)
    assert scales.shape == (6, 3, 5)
    assert set(np.unique(scales)) == {0.0, 2.0}
