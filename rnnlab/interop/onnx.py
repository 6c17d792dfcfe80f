"""A whole model as an ONNX file, and what a node RNN, LSTM or GRU computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rnnlab.cells import Bidirectional, GRUCell, RNNCell
from rnnlab.files import write_atomically
from rnnlab.interop import from_onnx, to_onnx
from rnnlab.model import SequenceModel

OPSET, IR = 14, 8  # of 2021, which every runtime reads


def write(model: SequenceModel, path: str | Path, labels: bool, carry_state: bool, dtype: Any) -> None:
    """The graph x -> layers -> readout -> y, checked, and written whole or not at all; see `interop.to_onnx`."""
    model = model.astype(dtype)
    dtype = model.readout.dtype
    labels = labels or model.embedding is not None
    weights: dict[str, Any] = {"W": model.readout.W, "b": model.readout.b[0].astype(dtype)}
    inputs: dict[str, tuple[Any, ...]] = {"x": ("T", "B") if labels else ("T", "B", model.input_size)}
    outputs: dict[str, tuple[Any, ...]] = {"y": ("T", "B", model.readout.output_size)}
    nodes, below = [], "x"
    if labels:
        weights["symbols"] = np.eye(model.input_size, dtype=dtype) if model.embedding is None else model.embedding.W
        nodes.append(helper.make_node("Gather", ["symbols", "x"], ["rows"]))
        below = "rows"
    weights["side_by_side"] = np.array([0, 0, -1])  # T, B, and the directions' units
    for n, layer in enumerate(model.cells):
        names = {key: f"{key}.{n}" for key in ("W", "R", "B")}
        given = to_onnx(layer)
        weights |= {names[key]: array for key, array in given.items()}
        cell, count = (layer.cells[0], len(layer.cells)) if isinstance(layer, Bidirectional) else (layer, 1)
        attributes: dict[str, Any] = {"hidden_size": cell.hidden_size}
        if cell is not layer:
            attributes["direction"] = "bidirectional" if count > 1 else "reverse"
        if isinstance(cell, RNNCell):
            attributes["activations"] = [cell.activation.capitalize()] * count
        elif len(cell.gate_names) == 3:
            attributes["linear_before_reset"] = int(isinstance(cell, GRUCell))
        shape = (count, "B", cell.hidden_size)
        initial = {f"initial_{part}.{n}": shape for part in cell.state_names if carry_state}
        final = {f"final_{part}.{n}": shape for part in cell.state_names}
        operator = {1: "RNN", 3: "GRU", 4: "LSTM"}[len(cell.gate_names)]
        arguments = [below, names["W"], names["R"], names["B"] if "B" in given else ""]
        arguments += ["", *initial] if initial else []
        nodes.append(helper.make_node(operator, arguments, [f"directions.{n}", *final], **attributes))
        nodes.append(helper.make_node("Transpose", [f"directions.{n}"], [f"units.{n}"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [f"units.{n}", "side_by_side"], [f"h.{n}"]))
        below = f"h.{n}"
        inputs, outputs = inputs | initial, outputs | final
    nodes += [helper.make_node("MatMul", [below, "W"], ["hW"]), helper.make_node("Add", ["hW", "b"], ["y"])]
    element = helper.np_dtype_to_tensor_dtype(dtype)
    graph = helper.make_graph(
        nodes,
        "rnnlab",
        [_info(k, onnx.TensorProto.INT64 if labels and k == "x" else element, s) for k, s in inputs.items()],
        [_info(k, element, s) for k, s in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(made, full_check=True)
    write_atomically(path, made.SerializeToString())


def _info(name: str, element: int, shape: tuple[Any, ...]) -> Any:
    return helper.make_tensor_value_info(name, element, shape)


def run_node(node: Any, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """(Y, Y_h) of an ONNX node RNN or GRU, (Y, Y_h, Y_c) of an LSTM, computed by our cells in the weights' precision.

    `inputs` are the arrays of the node's inputs, those left out not counted. Raises as `from_onnx`.
    """
    slots = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    filled = [slot for slot, name in zip(slots, node.input, strict=False) if name]
    given = dict(zip(filled, map(np.asarray, inputs), strict=True))
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    attributes |= {k: v.decode() for k, v in attributes.items() if isinstance(v, bytes)}
    batch_first = bool(attributes.get("layout", 0))
    layer = from_onnx({k: a for k, a in given.items() if k in ("W", "R", "B", "P")}, **attributes)
    x = given["X"].swapaxes(0, 1) if batch_first else given["X"]
    B, directions = x.shape[1], len(given["W"])
    state = np.zeros((len(layer.state_names), B, layer.hidden_size), layer.dtype)
    for part, name in zip(state, layer.state_names, strict=True):
        if (initial := given.get(f"initial_{name}")) is not None:
            part[...] = (initial if batch_first else initial.swapaxes(0, 1)).reshape(B, -1)
    tape = layer.forward(x, state, given.get("sequence_lens"))
    y = tape.h.reshape(*x.shape[:2], directions, -1)
    finals = [part.reshape(B, directions, -1) for part in tape.states[-1]]
    if batch_first:
        return y.swapaxes(0, 1), *finals
    return y.swapaxes(1, 2), *(final.swapaxes(0, 1) for final in finals)
