"""Four independent oracles: PyTorch, Keras, ONNX Runtime and ONNX's reference evaluator.

`python tests/test_oracles.py` prints the table of differences. Each comparison skips by name where its library is not
installed (the extra `interop`). All weights, biases, inputs and initial states are random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import interop
from tests.cases import largest, needs

T, B, D, H = 7, 3, 4, 5
Differences = dict[str, float]  # the largest one, by quantity

EXACT = 1e-12  # both sides in float64
SINGLE = 1e-6  # one side in float32
KERAS_MATMUL = 1e-6  # keras.ops.matmul computes in float32 on the torch backend, whatever it is given (keras #23223)
TORCH_CLIP_EPSILON = 1e-6  # clip_grad_norm_ divides by norm + 1e-6

KIND: dict[str, type[rl.Cell]] = {
    "RNN tanh": rl.RNNCell,
    "RNN relu": rl.RNNCell,
    "LSTM": rl.LSTMCell,
    "GRU": rl.GRUCell,
    "GRU, reset before": rl.GRUResetBeforeCell,
}


def activation_of(what: str) -> str:
    return what.removeprefix("RNN ") if what.startswith("RNN") else "tanh"


def random_weights(like: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {name: 0.6 * rng.normal(size=p.shape).astype(p.dtype) for name, p in like.items()}


def template(what: str) -> rl.Cell:
    """A cell of this kind, to take shapes from."""
    return KIND[what](D, H, rng=0, **({"activation": activation_of(what)} if what.startswith("RNN") else {}))


# ---- PyTorch: values and gradients -----------------------------------------------------------------


def pytorch_cell(what: str, layers: int) -> Differences:
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(layers)
    name, options = what.split()[0], {"nonlinearity": activation_of(what)} if what.startswith("RNN") else {}
    net = getattr(torch.nn, name)(D, H, num_layers=layers, dtype=torch.float64, **options)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.from_numpy(0.6 * rng.normal(size=tuple(p.shape))))
    S = len(KIND[what].state_names)
    x, d_h = rng.normal(size=(T, B, D)), rng.normal(size=(T, B, H))
    state, d_state = rng.normal(size=(2, layers, S, B, H))

    x_, states_ = (
        torch.tensor(x, requires_grad=True),
        [torch.tensor(s, requires_grad=True) for s in state.swapaxes(0, 1)],
    )
    y, final = net(x_, states_[0] if S == 1 else tuple(states_))
    final = [final] if S == 1 else list(final)
    loss = (y * torch.tensor(d_h)).sum()
    for f, d in zip(final, d_state.swapaxes(0, 1), strict=True):
        loss = loss + (f * torch.tensor(d)).sum()
    loss.backward()

    cells = [interop.from_pytorch(net.state_dict(), n, activation=activation_of(what)) for n in range(layers)]
    tapes: list[rl.Tape] = []
    for cell, s in zip(cells, state, strict=True):
        tapes.append(cell.forward(tapes[-1].h if tapes else x, s))
    of_parameters, of_states = 0.0, 0.0
    d = d_h
    for n in reversed(range(layers)):
        grads = cells[n].backward(tapes[n], d, d_state[n])
        assert grads.x is not None
        d = grads.x
        ours = interop.to_pytorch(cells[n].with_params(grads.params), n)
        recurrent_bias = ours[f"bias_ih_l{n}"].copy()  # two biases that are added have the same gradient ...
        if what == "GRU":
            recurrent_bias[2 * H :] = grads.params["b_hn"][0]  # ... but this one is multiplied by r
        ours[f"bias_hh_l{n}"] = recurrent_bias
        for key, g in ours.items():
            of_parameters = max(of_parameters, largest(g, net.get_parameter(key).grad))
        theirs = np.stack([s.grad[n] for s in states_])
        of_states = max(of_states, largest(grads.states[0], theirs))
    return {
        "outputs": largest(tapes[-1].h, y.detach()),
        "final states": largest([tape.states[-1] for tape in tapes], np.stack([f.detach() for f in final], axis=1)),
        "gradients of the parameters": of_parameters,
        "gradient of the input": largest(d, x_.grad),
        "gradients of the initial states": of_states,
    }


# ---- Keras and ONNX: values, with weights that they hold (read) and that we hold (written) ---------


def values(
    what: str, layout: str, dtype: Any, run: Callable[..., tuple[Any, list[Any]]], **options: Any
) -> Differences:
    """`run(weights, x, state)` gives outputs (T, B, H) and the final states; compared both ways round."""
    to, of = getattr(interop, f"to_{layout}"), getattr(interop, f"from_{layout}")
    rng = np.random.default_rng(3)
    x, state = rng.normal(size=(T, B, D)).astype(dtype), rng.normal(size=(len(KIND[what].state_names), B, H))
    state = state.astype(dtype)
    theirs = random_weights(to(template(what).astype(dtype)), rng)
    cell = of(theirs, activation=activation_of(what), **options)
    assert type(cell) is KIND[what]
    tape = cell.astype(np.float64).forward(x, state)
    found = {"outputs": 0.0, "final states": 0.0}
    for weights in (theirs, to(cell)):
        y, final = run(weights, x, state)
        found["outputs"] = max(found["outputs"], largest(tape.h, y))
        found["final states"] = max(found["final states"], largest(tape.states[-1], np.stack(final)))
    return found


def keras_cell(what: str) -> Differences:
    import keras
    import torch

    torch.set_num_threads(1)
    name = "SimpleRNN" if what.startswith("RNN") else what.split(",")[0]
    options: dict[str, Any] = {"activation": activation_of(what)}
    if name == "GRU":
        options["reset_after"] = what == "GRU"

    def run(weights: dict[str, Any], x: Any, state: Any) -> tuple[Any, list[Any]]:
        layer = getattr(keras.layers, name)(H, return_sequences=True, return_state=True, dtype="float64", **options)
        layer.build((B, T, D))
        layer.set_weights(list(weights.values()))
        assert [w.name for w in layer.weights] == list(weights)
        y, *final = layer(torch.tensor(x.swapaxes(0, 1).copy()), initial_state=[torch.tensor(s) for s in state])
        return y.detach().numpy().swapaxes(0, 1), [f.detach().numpy() for f in final]

    return values(what, "keras", np.float64, run)


def onnx_model(what: str, weights: dict[str, Any]) -> Any:
    """A model of one RNN, LSTM or GRU node; inputs X and the initial states, outputs Y and the final ones."""
    import onnx
    from onnx import helper, numpy_helper

    operator, states = what.split()[0].rstrip(","), ["h", "c"] if what == "LSTM" else ["h"]
    attributes: dict[str, Any] = {"hidden_size": H}
    if operator == "GRU":
        attributes["linear_before_reset"] = int(what == "GRU")
    if operator == "RNN":
        attributes["activations"] = [activation_of(what).capitalize()]
    before, after = [f"initial_{s}" for s in states], [f"Y_{s}" for s in states]
    node = helper.make_node(operator, ["X", "W", "R", "B", "", *before], ["Y", *after], **attributes)
    dtype = helper.np_dtype_to_tensor_dtype(weights["W"].dtype)
    sizes = {"X": (T, B, D), "Y": (T, 1, B, H)} | dict.fromkeys((*before, *after), (1, B, H))
    info = {name: helper.make_tensor_value_info(name, dtype, shape) for name, shape in sizes.items()}
    graph = helper.make_graph(
        [node],
        "layer",
        [info[name] for name in ("X", *before)],
        [info[name] for name in ("Y", *after)],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def onnx_cell(what: str, session: Callable[[Any], Callable[..., Sequence[Any]]], dtype: Any) -> Differences:
    def run(weights: dict[str, Any], x: Any, state: Any) -> tuple[Any, list[Any]]:
        initial = {f"initial_{s}": part[None] for s, part in zip("hc", state, strict=False)}
        y, *final = session(onnx_model(what, weights))(None, {"X": x} | initial)
        return y[:, 0], [f[0] for f in final]

    options = {"linear_before_reset": int(what == "GRU")}
    return values(what, "onnx", dtype, run, **options)


def onnxruntime_cell(what: str) -> Differences:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return onnx_cell(what, lambda m: ort.InferenceSession(m.SerializeToString(), options).run, np.float32)


def onnx_reference_cell(what: str) -> Differences:
    from onnx.reference import ReferenceEvaluator

    return onnx_cell(what, lambda m: ReferenceEvaluator(m).run, np.float64)


# ---- PyTorch: losses, optimizers, clipping ---------------------------------------------------------


def pytorch_loss(what: str) -> Differences:
    """The loss and its derivative under a mask, logits of +-900 and sure answers among them."""
    import torch

    rng = np.random.default_rng(4)
    prediction, mask = 3 * rng.normal(size=(T, B, D)), rng.random((T, B)) < 0.6
    mask[0, :2], prediction[0, :2, :2] = True, [[900, -900], [-900, 900]]
    loss, theirs = {
        "cross_entropy": (rl.softmax_cross_entropy, torch.nn.functional.cross_entropy),
        "mse_loss": (rl.mean_squared_error, torch.nn.functional.mse_loss),
        "binary_cross_entropy": (rl.sigmoid_cross_entropy, torch.nn.functional.binary_cross_entropy_with_logits),
    }[what]
    target = rng.integers(D, size=(T, B)) if what == "cross_entropy" else rng.random((T, B, D)).round(1)
    found, d = loss(prediction, target, mask)
    x = torch.tensor(prediction, requires_grad=True)
    expected = theirs(x[torch.tensor(mask)], torch.tensor(target[mask]))
    expected.backward()
    return {"loss": largest(found, expected.detach()), "gradient": largest(d, x.grad)}


def pytorch_optimizer(ours: rl.optim.Optimizer, name: str, **options: float) -> Differences:
    import torch

    rng = np.random.default_rng(6)
    params = {"W": rng.normal(size=(D, H)), "b": rng.normal(size=(1, H))}
    twins = {key: torch.nn.Parameter(torch.tensor(p)) for key, p in params.items()}
    theirs = getattr(torch.optim, name)(twins.values(), **options)
    worst = 0.0
    for _ in range(20):
        grads = {key: rng.normal(size=p.shape) for key, p in params.items()}
        ours.step(params, grads)
        for key, twin in twins.items():
            twin.grad = torch.tensor(grads[key])
        theirs.step()
        worst = max(worst, *(largest(params[key], twins[key].detach()) for key in params))
    return {"parameters over 20 steps": worst}


def pytorch_clip(max_norm: float) -> Differences:
    import torch

    rng = np.random.default_rng(7)
    grads = {"W": rng.normal(size=(D, H)), "b": rng.normal(size=(1, H))}
    twins = {key: torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for key, g in grads.items()}
    for key, twin in twins.items():
        twin.grad = torch.tensor(grads[key])
    clipped, norm = rl.clip_by_global_norm(grads, max_norm)
    theirs = torch.nn.utils.clip_grad_norm_(twins.values(), max_norm)
    share = norm / (norm + TORCH_CLIP_EPSILON) if norm > max_norm else 1.0
    return {
        "norm": largest(norm, theirs),
        "clipped gradients": max(largest(share * clipped[key], twins[key].grad) for key in grads),
    }


# ---- the comparisons -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    oracle: str
    what: str
    bound: float
    measure: Callable[[], Differences]
    modules: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.oracle}: {self.what}"


def comparisons() -> list[Comparison]:
    found = []
    for what in ("RNN tanh", "RNN relu", "LSTM", "GRU"):
        for layers, name in ((1, "one layer"), (2, "two layers")):
            measure = partial(pytorch_cell, what, layers)
            found.append(Comparison("PyTorch", f"{what}, {name}", EXACT, measure, ("torch",)))
    for what, measure in (
        ("cross_entropy, masked", partial(pytorch_loss, "cross_entropy")),
        ("mse_loss, masked", partial(pytorch_loss, "mse_loss")),
        ("binary_cross_entropy_with_logits, masked", partial(pytorch_loss, "binary_cross_entropy")),
        ("SGD", lambda: pytorch_optimizer(rl.SGD(0.1), "SGD", lr=0.1)),
        ("SGD, momentum 0.9", lambda: pytorch_optimizer(rl.SGD(0.1, 0.9), "SGD", lr=0.1, momentum=0.9)),
        ("Adam", lambda: pytorch_optimizer(rl.Adam(0.01), "Adam", lr=0.01)),
        ("AdamW", lambda: pytorch_optimizer(rl.Adam(0.01, weight_decay=0.1), "AdamW", lr=0.01, weight_decay=0.1)),
        ("Adagrad", lambda: pytorch_optimizer(rl.Adagrad(0.1), "Adagrad", lr=0.1)),
        (
            "Adagrad, a first sum",
            lambda: pytorch_optimizer(
                rl.Adagrad(0.1, 1e-3, initial_sum=0.2), "Adagrad", lr=0.1, eps=1e-3, initial_accumulator_value=0.2
            ),
        ),
        ("RMSProp", lambda: pytorch_optimizer(rl.RMSProp(0.01), "RMSprop", lr=0.01)),
        ("RMSProp, alpha", lambda: pytorch_optimizer(rl.RMSProp(0.01, decay=0.5), "RMSprop", lr=0.01, alpha=0.5)),
        ("clip_grad_norm_, above", partial(pytorch_clip, 0.5)),
        ("clip_grad_norm_, below", partial(pytorch_clip, 50.0)),
    ):
        found.append(Comparison("PyTorch", what, EXACT, measure, ("torch",)))
    for what in KIND:
        # LSTM and GRU run in torch's own float64 kernels; the other two call keras.ops.matmul
        bound = EXACT if what in ("LSTM", "GRU") else KERAS_MATMUL
        found.append(Comparison("Keras", what, bound, partial(keras_cell, what), ("torch", "keras")))
    for what in KIND:
        found.append(Comparison("ONNX Runtime", what, SINGLE, partial(onnxruntime_cell, what), ("onnx", "onnxruntime")))
    for what in KIND:
        if what != "RNN relu":  # "Unknown activation function 'Relu'": the reference evaluator has tanh alone
            found.append(Comparison("ONNX reference", what, EXACT, partial(onnx_reference_cell, what), ("onnx",)))
    return found


@pytest.mark.parametrize("comparison", comparisons(), ids=str)
def test_it_agrees_with_the_other_library(comparison: Comparison) -> None:
    needs(*comparison.modules)
    for quantity, difference in comparison.measure().items():
        assert difference <= comparison.bound, quantity


@pytest.mark.parametrize(
    ("order", "measure", "modules"),
    [
        (interop.PYTORCH, partial(pytorch_cell, "LSTM", 1), ("torch",)),
        (interop.KERAS, partial(keras_cell, "LSTM"), ("torch", "keras")),
        (interop.ONNX, partial(onnxruntime_cell, "LSTM"), ("onnx", "onnxruntime")),
        (interop.ONNX, partial(onnx_reference_cell, "LSTM"), ("onnx",)),
    ],
    ids=["PyTorch", "Keras", "ONNX Runtime", "ONNX reference"],
)
def test_exchanged_gates_are_noticed(
    monkeypatch: pytest.MonkeyPatch, order: interop.Order, measure: Callable[[], Differences], modules: tuple[str, ...]
) -> None:
    needs(*modules)
    first, second, *rest = order[4]
    monkeypatch.setitem(order, 4, [second, first, *rest])
    assert all(difference > 1e-3 for difference in measure().values())


def table() -> str:
    """Markdown: the largest difference of every comparison, values and gradients apart."""
    lines = ["| oracle | what | values | gradients | bound |", "|---|---|---|---|---|"]
    for comparison in comparisons():
        columns: dict[bool, list[float]] = {False: [], True: []}
        for quantity, difference in comparison.measure().items():
            columns["gradient" in quantity].append(difference)
        worst = [f"{max(column):.1e}" if column else "" for column in columns.values()]
        lines.append(f"| {' | '.join((comparison.oracle, comparison.what, *worst, f'{comparison.bound:.0e}'))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
