"""A whole model as an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from rnnlab.cells import GRUCell, RNNCell
from rnnlab.files import write_atomically
from rnnlab.interop import to_onnx
from rnnlab.model import SequenceModel

OPSET, IR = 14, 8  # of 2021, which every runtime reads


def write(model: SequenceModel, path: str | Path, labels: bool, carry_state: bool, dtype: Any) -> None:
    """The graph x -> layers -> readout -> y, checked, and written whole or not at all; see `interop.to_onnx`."""
    model = model.astype(dtype)
    dtype = model.readout.dtype
    weights: dict[str, Any] = {"W": model.readout.params["W"], "b": model.readout.params["b"][0]}
    inputs: dict[str, tuple[Any, ...]] = {"x": ("T", "B") if labels else ("T", "B", model.cells[0].input_size)}
    outputs: dict[str, tuple[Any, ...]] = {"y": ("T", "B", model.readout.output_size)}
    nodes, below = [], "x"
    if labels:
        weights["one_hot"] = np.eye(model.cells[0].input_size, dtype=dtype)
        nodes.append(helper.make_node("Gather", ["one_hot", "x"], ["rows"]))
        below = "rows"
    weights["direction"] = np.array([1])  # the axis of the directions, of which there is one
    for n, cell in enumerate(model.cells):
        names = {key: f"{key}.{n}" for key in ("W", "R", "B")}
        weights |= {names[key]: array for key, array in to_onnx(cell).items()}
        attributes: dict[str, Any] = {"hidden_size": cell.hidden_size}
        if isinstance(cell, RNNCell):
            attributes["activations"] = [cell.activation.capitalize()]
        elif len(cell.gate_names) == 3:
            attributes["linear_before_reset"] = int(isinstance(cell, GRUCell))
        shape = (1, "B", cell.hidden_size)
        initial = {f"initial_{part}.{n}": shape for part in cell.state_names if carry_state}
        final = {f"final_{part}.{n}": shape for part in cell.state_names}
        operator = {1: "RNN", 3: "GRU", 4: "LSTM"}[len(cell.gate_names)]
        arguments = [below, *names.values(), *(["", *initial] if initial else [])]
        nodes.append(helper.make_node(operator, arguments, [f"directions.{n}", *final], **attributes))
        nodes.append(helper.make_node("Squeeze", [f"directions.{n}", "direction"], [f"h.{n}"]))
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
