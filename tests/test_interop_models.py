"""Whole models converted: the same outputs there, further training there, and back again bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import interop
from tests.cases import MinimalGatedUnit, largest, needs, random_cell, refuses

T, B, D, O = 7, 3, 4, 2  # noqa: E741 - O is the shape letter
KERAS_MATMUL = 1e-6  # keras.ops.matmul computes in float32 on the torch backend, whatever it is given (keras #23223)


def plain(*kinds: tuple[type[rl.Cell], int], activation: str = "tanh") -> Callable[[], rl.SequenceModel]:
    def make() -> rl.SequenceModel:
        cells: list[rl.Cell] = []
        for n, (kind, H) in enumerate(kinds):
            cell = random_cell(kind, cells[-1].hidden_size if cells else D, H, seed=n)
            if isinstance(cell, rl.RNNCell):
                cell = rl.RNNCell(cell.input_size, H, rng=0, activation=activation).with_params(cell.params)
            cells.append(cell)
        return rl.SequenceModel(cells, rl.Dense(cells[-1].hidden_size, O, rng=9), rl.softmax_cross_entropy)

    return make


MODELS = {
    "RNN": plain((rl.RNNCell, 5)),
    "two ReLU RNNs": plain((rl.RNNCell, 5), (rl.RNNCell, 5), activation="relu"),
    "LSTM": plain((rl.LSTMCell, 5)),
    "three LSTMs of two sizes": plain((rl.LSTMCell, 5), (rl.LSTMCell, 5), (rl.LSTMCell, 3)),
    "LSTM and GRU": plain((rl.LSTMCell, 5), (rl.GRUCell, 5)),
    "GRU, H = 1": plain((rl.GRUCell, 1)),
}
RESET_BEFORE = {"GRU, reset before": plain((rl.GRUResetBeforeCell, 5), (rl.GRUResetBeforeCell, 4))}


def data(model: rl.SequenceModel, labels: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    x = rng.integers(D, size=(T, B)) if labels else rng.normal(size=(T, B, D)).astype(model.readout.dtype)
    return x, rng.integers(O, size=(T, B))


def single(value: Any) -> Any:
    return value if value.dtype == np.int64 else value.astype(np.float32)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-12), (np.float32, 1e-6)])
@pytest.mark.parametrize("labels", [False, True])
def test_a_model_in_pytorch_has_our_outputs_loss_and_gradients_and_comes_back(
    name: str, dtype: Any, bound: float, labels: bool
) -> None:
    torch = needs("torch")
    model = MODELS[name]().astype(dtype)
    x, y = data(model, labels)
    net = interop.to_pytorch(model)
    for layer in net.layers:
        assert type(layer) in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
    found, state = net(torch.tensor(x))
    ours, _ = model.predict(x)
    assert largest(found.detach(), ours) <= bound
    again, _ = net(torch.tensor(x), state)  # the state is carried on
    assert largest(again.detach(), model.predict(np.concatenate((x, x)))[0][T:]) <= bound

    result = model.loss_and_grads(rl.Batch(x, y))
    loss = torch.nn.functional.cross_entropy(found.reshape(-1, O), torch.tensor(y).reshape(-1))
    assert abs(loss.item() - float(result.loss)) <= bound
    loss.backward()  # the readout's and every recurrent weight's gradient is ours
    assert largest(net.readout.weight.grad.T, result.grads["readout.W"]) <= 10 * bound
    back = interop.from_pytorch(net, loss=model.loss)
    assert repr(back) == repr(model)
    for key, p in model.params.items():
        assert not any(np.shares_memory(back.params[key], p.detach().numpy()) for p in net.parameters())
        np.testing.assert_array_equal(back.params[key], p, err_msg=key)


@pytest.mark.parametrize("kind", [rl.RNNCell, rl.LSTMCell, rl.GRUCell])
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_training_continues_in_pytorch_where_it_stood(kind: type[rl.Cell], name: str) -> None:
    """20 steps here and 20 there are the 40 steps here: every loss, and every weight in the end."""
    torch = needs("torch")
    task = rl.tasks.adding(6, batch_size=8)
    model = rl.SequenceModel([kind(2, 5, rng=0), kind(5, 5, rng=2)], rl.Dense(5, 1, rng=1), task.loss)
    rl.Trainer(model, rl.Adam(0.01)).fit(task, 20)
    net = interop.to_pytorch(model)
    theirs, losses = getattr(torch.optim, name)([p for p in net.parameters() if p.requires_grad], lr=0.01), []
    for n in range(20):
        batch = task.batch(n)
        y, _ = net(torch.tensor(batch.x))
        loss = torch.nn.functional.mse_loss(y[-1], torch.tensor(batch.y[-1]))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        losses.append(loss.item())
    history = rl.Trainer(model, getattr(rl, name)(0.01)).fit(task, 20)
    assert losses == pytest.approx(history.loss, rel=1e-9)
    back = interop.from_pytorch(net, loss=task.loss)
    for key, p in model.params.items():
        assert largest(back.params[key], p) <= 1e-9, key


@pytest.mark.parametrize("name", [*MODELS, *RESET_BEFORE])
def test_a_model_in_keras_has_our_outputs_and_comes_back(name: str) -> None:
    torch, _ = needs("torch", "keras")
    model = (MODELS | RESET_BEFORE)[name]()
    x, _ = data(model)
    net = interop.to_keras(model)
    found = net(torch.tensor(x.swapaxes(0, 1).copy())).detach().numpy().swapaxes(0, 1)
    assert largest(found, model.predict(x)[0]) <= KERAS_MATMUL  # its Dense multiplies in float32
    back = interop.from_keras(net, loss=model.loss)
    assert repr(back) == repr(model)
    for key, p in model.params.items():
        np.testing.assert_array_equal(back.params[key], p, err_msg=key)


@pytest.mark.parametrize("name", [*MODELS, *RESET_BEFORE])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("carry_state", [False, True])
def test_a_model_as_a_graph_has_our_outputs_and_final_states(
    tmp_path: Path, name: str, labels: bool, carry_state: bool
) -> None:
    onnx, ort = needs("onnx", "onnxruntime")
    model, path = (MODELS | RESET_BEFORE)[name](), tmp_path / "model.onnx"
    x, _ = data(model, labels)
    rng = np.random.default_rng(2)
    state = [rng.normal(size=(len(cell.state_names), B, cell.hidden_size)) for cell in model.cells]
    ours, _ = model.predict(x, state if carry_state else None)
    single_model = model.astype(np.float32)
    ours_32, final_32 = single_model.predict(single(x), [single(s) for s in state] if carry_state else None)
    feed = {"x": x}
    for n, (cell, parts) in enumerate(zip(model.cells, state, strict=True)):
        if carry_state:
            feed |= {f"initial_{s}.{n}": part[None] for s, part in zip(cell.state_names, parts, strict=True)}

    interop.to_onnx(model, path, labels=labels, carry_state=carry_state)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options)
    found = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {k: single(v) for k, v in feed.items()}),
            strict=True,
        )
    )
    assert largest(found["y"], ours_32) <= 1e-6
    for n, cell in enumerate(model.cells):
        parts = np.concatenate([found[f"final_{s}.{n}"] for s in cell.state_names])
        assert largest(parts, final_32[n]) <= 1e-6
    assert [axis.dim_param for axis in onnx.load(path).graph.input[0].type.tensor_type.shape.dim][:2] == ["T", "B"]
    if "ReLU" not in name:  # the reference evaluator has tanh alone
        from onnx.reference import ReferenceEvaluator

        interop.to_onnx(model, path, labels=labels, carry_state=carry_state, dtype=np.float64)
        evaluator = ReferenceEvaluator(str(path))
        found = dict(zip(evaluator.output_names, evaluator.run(None, feed), strict=True))
        assert largest(found["y"], ours) <= 1e-12


@pytest.mark.parametrize("layout", ["pytorch", "keras", "onnx"])
@pytest.mark.parametrize("kind", [rl.FourGateLSTMCell, MinimalGatedUnit, rl.GRUResetBeforeCell])
def test_what_another_library_does_not_have_is_refused_with_what_to_do(
    tmp_path: Path, layout: str, kind: type[rl.Cell]
) -> None:
    needs({"pytorch": "torch"}.get(layout, layout))
    if kind is rl.GRUResetBeforeCell and layout != "pytorch":
        return  # these two have it
    model = plain((rl.LSTMCell, 5), (kind, 5))()
    arguments = [tmp_path / "model.onnx"] if layout == "onnx" else []
    with pytest.raises(TypeError, match=rf"^cell: expected .*got {kind.__name__}.*; .*(GRU|step there)"):
        getattr(interop, f"to_{layout}")(model, *arguments)
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_of_theirs_is_refused() -> None:
    torch, keras = needs("torch", "keras")
    for module in (torch.nn.LSTM(2, 3), {"W": 1}, None):
        with refuses(TypeError, "module"):
            interop.from_pytorch(module, loss=rl.mean_squared_error)
        with refuses(TypeError, "module"):
            interop.from_keras(module, loss=rl.mean_squared_error)
    layers = keras.layers
    for bad in (
        [layers.LSTM(3), layers.Dense(2)],  # the last step alone
        [layers.LSTM(3, return_sequences=True, go_backwards=True), layers.Dense(2)],
        [layers.GRU(3, return_sequences=True, activation="relu"), layers.Dense(2)],
        [layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="sum"), layers.Dense(2)],
        [layers.GRU(3, return_sequences=True), layers.Dense(2), layers.Dropout(0.5)],
        [layers.LSTM(3, return_sequences=True), layers.Dense(2, activation="softmax")],
    ):
        with refuses(ValueError, "module"):
            interop.from_keras(keras.Sequential([keras.Input((None, 2)), *bad]), loss=rl.mean_squared_error)
    for strange in ([layers.Dense(2)], [layers.LSTM(3), layers.Flatten(), layers.Dense(2)]):
        with refuses(TypeError, "module"):
            interop.from_keras(keras.Sequential([keras.Input((None, 2)), *strange]), loss=rl.mean_squared_error)


def test_a_graph_needs_the_name_of_its_file() -> None:
    for path in (None, 3):
        with refuses(TypeError, "path"):
            interop.to_onnx(MODELS["LSTM"](), path)  # type: ignore[arg-type]
