"""What the conversions share: each library's order of gates, and the checks of what it hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rnnlab.cells import Bidirectional, Cell, GRUCell, GRUResetBeforeCell, LSTMCell, RNNCell
from rnnlab.model import Loss, SequenceModel
from rnnlab.ops import Array
from rnnlab.readout import Dense, Embedding
from rnnlab.validate import Axis, describe, float_array, float_dtype, integer, is_iterable

Order = dict[int, list[int]]  # where each of the format's gates stands among ours, by the number of gates

PYTORCH: Order = {1: [0], 3: [0, 1, 2], 4: [0, 1, 2, 3]}
KERAS: Order = {1: [0], 3: [1, 0, 2], 4: [0, 1, 2, 3]}
ONNX: Order = {1: [0], 3: [1, 0, 2], 4: [0, 3, 1, 2]}
CANDIDATE = 2  # a GRU's


def onnx_attributes(attributes: Mapping[str, Any], K: int, H: int, n: int) -> list[str]:
    """A plain RNN's activation in each of n directions, where it is given; ValueError for what no cell here has."""
    allowed = {"hidden_size": (H,), "layout": (0, 1), "input_forget": (0,)}
    for name, value in attributes.items():
        wanted = allowed.get(name)
        if wanted is None and name != "activations":
            raise ValueError(f"{name}: expected no such attribute, which no cell here has, got {value!r:.60}")
        if wanted and not (isinstance(value, int | np.integer) and value in wanted):
            raise ValueError(f"{name}: expected {' or '.join(map(str, wanted))}, got {value!r:.60}")
    if (given := attributes.get("activations")) is None:
        return []
    names = [a.decode() if isinstance(a, bytes) else str(a) for a in given] if is_iterable(given) else []
    found = [name.lower() for name in names]
    default = {1: [], 3: ["sigmoid", "tanh"], 4: ["sigmoid", "tanh", "tanh"]}[K] * n
    if (found != default) if K > 1 else (len(found) != n or not {*found} <= {"tanh", "relu"}):
        raise ValueError(f"activations: expected {default or 'Tanh or Relu for each direction'}, got {names or given}")
    return found if K == 1 else []


def two_cells(layer: Bidirectional, same_size: bool = True) -> tuple[Cell, ...]:
    """The two cells of a layer that the other libraries have; TypeError or ValueError for one that they do not."""
    cells = layer.cells
    if len(cells) < 2:
        raise TypeError(f"cell: expected a Cell or a Bidirectional, got {layer}; pass the cell in its `cells`")
    if type(cells[0]) is not type(cells[1]) or cells[0].bias != cells[1].bias:
        raise ValueError(f"cell: expected two cells of one kind, with biases or without, got {layer}; make both alike")
    if same_size and cells[0].hidden_size != cells[1].hidden_size:
        raise ValueError(f"cell: expected two cells of one size, got {layer}; take the same hidden_size")
    if getattr(cells[0], "activation", None) != getattr(cells[1], "activation", None):
        raise ValueError(f"cell: expected one activation in both directions, got {layer}; make both alike")
    return cells


def stacked(cell: Cell, order: Order, kinds: tuple[type[Cell], ...]) -> list[Array]:
    """W (K*H, D), R (K*H, H) and, of a cell with biases, the two (K*H,), the gates in this order."""
    if type(cell) not in kinds:  # a subclass may have equations of its own
        wanted = f"cell: expected one of {', '.join(k.__name__ for k in kinds)} or a SequenceModel of them"
        raise TypeError(f"{wanted}, got {describe(cell)}{instead(cell)}")
    b, b_h = cell.b.astype(cell.dtype), np.zeros(cell.b.shape, cell.dtype)
    if isinstance(cell, GRUCell):
        b_h[CANDIDATE] = cell.b_hn
    gates, H = order[len(cell.gate_names)], cell.hidden_size
    W, R = (p[gates].mT.reshape(len(gates) * H, -1) for p in (cell.W_x, cell.W_h))
    return [W, R, b[gates].ravel(), b_h[gates].ravel()] if cell.bias else [W, R]


def instead(cell: object) -> str:
    """What to do about a cell that the other library does not have."""
    if not isinstance(cell, Cell):
        return ""
    if type(cell) is GRUResetBeforeCell:
        return "; PyTorch's GRU resets after the product: train a GRUCell, or use to_keras or to_onnx"
    if type(cell).__module__.startswith("rnnlab."):
        return "; train an LSTMCell or a GRUCell, or write this cell's step there"
    return "; a class of yours may have equations of its own, so write its step there and copy cell.params"


def cell_of(order: Order, arrays: Sequence[Array], activation: str, reset_after: bool = True) -> Cell:
    """The cell of what `stacked` makes."""
    D, (rows, H) = arrays[0].shape[1], arrays[1].shape
    K = rows // H
    ours, dtype = np.argsort(order[K]), float_dtype(np.result_type(*arrays))
    W_x, W_h, *biases = (a.reshape(K, H, -1).mT[ours].astype(dtype) for a in arrays)
    options: dict[str, Any] = {"rng": 0, "dtype": dtype, "bias": bool(biases)}
    if K == 1:
        options["activation"] = activation
    kind: type[Cell] = {1: RNNCell, 4: LSTMCell, 3: GRUCell if reset_after else GRUResetBeforeCell}[K]
    params = {"W_x": W_x, "W_h": W_h}
    if biases:
        params["b"] = biases[0] + biases[1]
        if kind is GRUCell:
            params["b"][CANDIDATE], params["b_hn"] = biases[0][CANDIDATE], biases[1][CANDIDATE]
    return kind(D, H, **options).with_params(params)


def pytorch_names(layer: int) -> tuple[str, str, str, str]:
    n = integer("layer", layer, least=0)
    return f"weight_ih_l{n}", f"weight_hh_l{n}", f"bias_ih_l{n}", f"bias_hh_l{n}"


def check_names(weights: object, names: tuple[str, ...], optional: tuple[str, ...] | None = None) -> None:
    """Raise unless `weights` is a dict with these names and, unless `optional` is None, none but the optional ones."""
    if not isinstance(weights, Mapping):
        state = "; of a module pass its state_dict()" if hasattr(weights, "state_dict") else ""
        raise TypeError(f"weights: expected a dict of arrays, got {describe(weights)}{state}")
    for name in names:
        if name not in weights:
            raise ValueError(f"weights: expected the names {list(names)}, got {list(weights)} without {name!r}")
    for name in weights:
        if optional is not None and name not in names + optional:
            raise ValueError(f"weights: expected the names {list(names + optional)}, got one more: {name!r}")


def model_of(
    cells: list[Any], loss: Loss, W: Array, b: Array | None, rows: Array | None, dropout: float
) -> SequenceModel:
    """The model of these cells, a readout W (H, O) with b (O,) or without, and an embedding of these rows or none."""
    readout = Dense(*W.shape, rng=0, dtype=W.dtype, bias=b is not None)
    readout = readout.with_params({"W": W} if b is None else {"W": W, "b": b[None]})
    embedding = None
    if rows is not None:
        embedding = Embedding(*rows.shape, rng=0, dtype=rows.dtype).with_params({"W": rows})
    return SequenceModel(cells, readout, loss, embedding=embedding, dropout=dropout)


def array(weights: Mapping[str, Any], name: str, *axes: Axis) -> Array:
    value = weights[name]
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)  # a parameter of PyTorch is one
    return float_array(name, array, axes, array.dtype if array.dtype.kind == "f" else np.dtype(np.float64))


def gate_rows(name: str, rows: int, H: int) -> Axis:
    """The axis of all gates, such as ("4H", 20), from the recurrent weights' two lengths."""
    for K in (1, 3, 4):
        if rows == K * H:
            return (f"{K}H" if K > 1 else "H", rows)
    raise ValueError(f"{name}: expected K*H by H = {H} with K = 1 (RNN), 3 (GRU) or 4 (LSTM) gates, got {rows} by {H}")
