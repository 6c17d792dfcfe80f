"""Other people's test cases, run as they are through `interop`: ONNX's nodes and PyTorch's layer samples.

`python -m tests.test_nodes` prints how many of how many agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import interop
from tests.cases import needs, refuses

T, B, D, H = 6, 4, 3, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
SINGLE = 1e-6  # one side in float32


def largest(ours: Any, theirs: Any) -> float:
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(ours, theirs, strict=True))


def node_runner() -> Any:
    needs("onnx")
    from rnnlab.interop.onnx import run_node

    return run_node


# ---- ONNX -------------------------------------------------------------------------------------------


def onnx_cases() -> list[Any]:
    """Those of three operators; `onnx.backend.test.loader` would make those of every operator first."""
    node = needs("onnx.backend.test.case.node")
    for op in GATES:
        import_module(f"onnx.backend.test.case.node.{op.lower()}")
    return [case for case in node._NodeTestCases if case.model.graph.node[0].op_type in GATES]


def test_onnxs_own_node_cases() -> None:
    run_node = node_runner()
    agree, refused = [], []
    for case in onnx_cases():
        (node,), ((inputs, outputs),) = case.model.graph.node, case.data_sets
        try:
            found = run_node(node, inputs)
        except ValueError as error:
            refused.append((case.name, str(error)))
            continue
        ours = [array for array, name in zip(found, node.output, strict=False) if name]
        assert largest(ours, outputs) < SINGLE, case.name
        assert [array.dtype for array in ours] == [array.dtype for array in outputs]
        agree.append(case.name)
    assert len(agree) == 17
    assert [name for name, _ in refused] == ["test_lstm_with_peepholes"]
    assert refused[0][1].startswith("P: expected no peepholes")


def node_of(op: str, direction: str, lengths: Any, bias: bool, seed: int, **attributes: Any) -> tuple[Any, list[Any]]:
    """A node with random weights and initial states, and its inputs; what is left out has no name."""
    onnx = needs("onnx")
    rng, n, K = np.random.default_rng(seed), 2 if direction == "bidirectional" else 1, GATES[op]
    shapes: dict[str, tuple[int, ...]] = {"X": (T, B, D), "W": (n, K * H, D), "R": (n, K * H, H)}
    shapes |= {"B": (n, 2 * K * H)} if bias else {}
    given: dict[str, Any] = {key: 0.6 * rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    given |= {} if lengths is None else {"sequence_lens": np.array(lengths, np.int32)}
    for part in ("initial_h", "initial_c") if op == "LSTM" else ("initial_h",):
        given[part] = rng.normal(size=(n, B, H)).astype(np.float32)
    slots = ("X", "W", "R", "B", "sequence_lens", "initial_h", *(["initial_c"] if op == "LSTM" else []))
    names = [slot if slot in given else "" for slot in slots]
    outputs = ["Y", "Y_h", *(["Y_c"] if op == "LSTM" else [])]
    node = onnx.helper.make_node(op, names, outputs, hidden_size=H, direction=direction, **attributes)
    return node, [given[name] for name in names if name]


def by_onnxruntime(node: Any, inputs: list[Any]) -> list[Any]:
    onnx = needs("onnx")
    runtime = needs("onnxruntime")
    element = onnx.helper.np_dtype_to_tensor_dtype
    names = [name for name in node.input if name]
    infos = [
        onnx.helper.make_tensor_value_info(k, element(a.dtype), a.shape) for k, a in zip(names, inputs, strict=True)
    ]
    results = [onnx.helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, None) for k in node.output]
    graph = onnx.helper.make_graph([node], "one", infos, results)
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


@pytest.mark.parametrize("lengths", [None, [6, 2, 1, 4]], ids=["whole", "lengths"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["RNN", "relu", "GRU", "GRU, reset after", "LSTM"])
def test_random_nodes_are_onnxruntimes(op: str, direction: str, lengths: Any) -> None:
    run_node = node_runner()
    attributes: dict[str, Any] = {}
    if op == "relu":
        attributes["activations"] = ["Relu"] * (2 if direction == "bidirectional" else 1)
    elif op == "GRU, reset after":
        attributes["linear_before_reset"] = 1
    name = {"relu": "RNN", "GRU, reset after": "GRU"}.get(op, op)
    for bias in (True, False):
        node, inputs = node_of(name, direction, lengths, bias, 3, **attributes)
        found, theirs = run_node(node, inputs), by_onnxruntime(node, inputs)
        assert largest(found, theirs) < SINGLE
        if lengths is not None:
            past = np.arange(T)[:, None] >= np.array(lengths)
            assert not found[0].swapaxes(1, 2)[past].any()
            whole, _ = node_of(name, direction, None, bias, 3, **attributes)
            rest = [array for array in inputs if array.dtype.kind == "f"]
            assert largest(run_node(whole, rest)[1:], theirs[1:]) > 1e-3  # the lengths do count


def test_batchwise_nodes_have_their_axes_turned() -> None:
    run_node = node_runner()
    for op in GATES:
        plain, inputs = node_of(op, "bidirectional", [6, 2, 1, 4], True, 0)
        node, _ = node_of(op, "bidirectional", [6, 2, 1, 4], True, 0, layout=1)
        names = [name for name in node.input if name]
        turned = [
            a.swapaxes(0, 1) if k in ("X", "initial_h", "initial_c") else a for k, a in zip(names, inputs, strict=True)
        ]
        expected, found = run_node(plain, inputs), run_node(node, turned)
        assert largest(found[1:], [a.swapaxes(0, 1) for a in expected[1:]]) == 0
        assert largest(found[:1], [expected[0].transpose(2, 0, 1, 3)]) == 0  # (T, n, B, H) to (B, T, n, H)


@pytest.mark.parametrize(
    ("op", "attributes", "named"),
    [
        ("LSTM", {"clip": 3.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, "activations"),
        ("RNN", {"activations": ["Elu"]}, "activations"),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.1]}, "activation"),
    ],
)
def test_what_no_cell_here_has_is_refused_by_name(op: str, attributes: dict[str, Any], named: str) -> None:
    run_node = node_runner()
    node, inputs = node_of(op, "forward", None, True, 0, **attributes)
    with pytest.raises(ValueError, match=rf"^{named}.*: expected .* got "):
        run_node(node, inputs)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", [rl.RNNCell, rl.LSTMCell, rl.GRUCell, rl.GRUResetBeforeCell])
def test_a_layer_written_and_read_again_is_the_same_in_every_format(kind: Any, direction: str) -> None:
    for bias in (True, False):
        cells = [kind(D, H, rng=n, bias=bias) for n in range(2)]
        layer = {"forward": cells[0], "reverse": rl.Reversed(cells[0])}.get(direction) or rl.Bidirectional(*cells)
        reset = {"linear_before_reset": int(kind is rl.GRUCell)}
        again = interop.from_onnx(interop.to_onnx(layer), direction=direction, **reset)
        assert repr(again) == repr(layer)
        assert all((again.params[name] == p).all() for name, p in layer.params.items())
        if direction == "reverse":
            for refused in (interop.to_pytorch, interop.to_keras):
                with refuses(TypeError, "cell"):
                    refused(layer)
            continue
        again = interop.from_keras(interop.to_keras(layer), reset_after=kind is not rl.GRUResetBeforeCell)
        assert repr(again) == repr(layer)
        assert all((again.params[name] == p).all() for name, p in layer.params.items())
        if kind is not rl.GRUResetBeforeCell:
            again = interop.from_pytorch(interop.to_pytorch(layer))
            assert repr(again) == repr(layer)
            assert all((again.params[name] == p).all() for name, p in layer.params.items())


# ---- PyTorch ----------------------------------------------------------------------------------------


def pytorch_samples() -> Iterator[tuple[Any, list[Any]]]:
    """(module, its inputs) of every sample of torch.nn.RNN, GRU and LSTM, with random weights."""
    torch = needs("torch")
    needs("expecttest")  # which torch's samples import
    from torch.testing._internal.common_modules import module_db

    torch.manual_seed(0)
    for info in module_db:
        if info.module_cls not in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM):
            continue
        for training in (True, False):
            options = {"device": "cpu", "dtype": torch.float64, "requires_grad": False, "training": training}
            for sample in info.module_inputs_func(info, **options):
                module = info.module_cls(**sample.constructor_input.kwargs, dtype=torch.float64)
                yield module.train(training), list(sample.forward_input.args)


def counted() -> tuple[int, int, int, float]:
    """(samples, those that agree, those refused for a projection, the largest difference).

    The samples' inputs are single sequences; each module also reads random ones side by side, padded and packed.
    """
    torch = needs("torch")
    from rnnlab.interop.pytorch import run_layer

    total = agree = refused = 0
    worst = 0.0
    for module, inputs in pytorch_samples():
        total += 1
        if getattr(module, "proj_size", 0):
            with pytest.raises(ValueError, match=r"^weights: expected no projection .* got 'weight_hr_l0'"):
                run_layer(module, *inputs)
            refused += 1
            continue
        x = torch.randn(T, B, module.input_size, dtype=torch.float64)
        state = torch.randn(module.num_layers * (1 + module.bidirectional), B, module.hidden_size, dtype=torch.float64)
        states = (state, -state) if isinstance(module, torch.nn.LSTM) else state
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 6, 1, 4]), enforce_sorted=False)
        given = inputs, [x.transpose(0, 1) if module.batch_first else x, states], [packed, states], [packed]
        found = max(difference(module, run_layer, arguments) for arguments in given)
        worst = max(worst, found)
        agree += found < 1e-12
    return total, agree, refused, worst


def difference(module: Any, run_layer: Any, inputs: list[Any]) -> float:
    with np.errstate(all="raise"):
        ours, theirs = run_layer(module, *inputs), module(*inputs)
    assert type(ours[0]) is type(theirs[0])
    y = [
        result[0].data.detach() if hasattr(result[0], "batch_sizes") else result[0].detach()
        for result in (ours, theirs)
    ]
    final = [result[1] if isinstance(result[1], tuple) else (result[1],) for result in (ours, theirs)]
    return largest((y[0], *(part.detach() for part in final[0])), (y[1], *(part.detach() for part in final[1])))


def test_pytorchs_layer_samples_padded_and_packed() -> None:
    total, agree, refused, worst = counted()
    assert total == agree + refused
    assert agree >= 112
    assert worst < 1e-12


def test_from_pytorch_names_the_array_and_takes_parameters() -> None:
    torch = needs("torch")
    module = torch.nn.LSTM(D, H, bidirectional=True, dtype=torch.float64)
    weights = dict(module.named_parameters())
    layer, again = interop.from_pytorch(weights), interop.from_pytorch(module.state_dict())
    assert all((p == again.params[name]).all() for name, p in layer.params.items())
    for name, array in weights.items():
        rest = {key: value for key, value in weights.items() if key != name}
        with pytest.raises(ValueError, match=rf"^weights: expected the names .* without '{name}'$"):
            interop.from_pytorch(rest)
        spoiled = torch.cat((array, array)).detach()
        with pytest.raises((ValueError, TypeError), match=r"^(weight|bias)_[ih]h_l0(_reverse)?: expected .* got "):
            interop.from_pytorch(weights | {name: spoiled})
    with pytest.raises(TypeError, match=r"^weights: expected a dict .* state_dict\(\)"):
        interop.from_pytorch(module)


if __name__ == "__main__":
    found = counted()
    print("PyTorch's layer samples: {1} of {0} agree ({2} are projections), largest difference {3:.1e}".format(*found))
