"""To and from PyTorch, Keras and ONNX: a cell as a dict of plain arrays, a `SequenceModel` as a model of theirs.

A cell needs none of the three; a whole model needs the one that it goes to (the extra `interop`). Each format stacks
the K gates' blocks along one axis. Where they differ:

              gates of an LSTM                   gates of a GRU            weights          biases
    rnnlab    input forget candidate output      reset update candidate    (K, D, H)        one, and the GRU's b_hn
    PyTorch   input forget candidate output      reset update candidate    (K*H, D)         two of (K*H,)
    Keras     input forget candidate output      update reset candidate    (D, K*H)         one; GRU two, (2, 3H)
    ONNX      input output forget candidate      update reset candidate    (1, K*H, D)      two in one, (1, 2*K*H)

All four agree that an update gate of 1 keeps the old state. Of two biases only the sum counts, so reading
adds them, and writing puts `b` in the input's place and zeros in the recurrent one's. A GRU that resets
after the product is the exception: its reset gate multiplies the candidate's recurrent bias, our b_hn.

Sources: the documentation of torch.nn.RNN, LSTM and GRU, of keras.layers.SimpleRNN, LSTM and GRU, and
of ONNX's operators RNN, LSTM and GRU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnlab.cells import Cell, GRUCell, GRUResetBeforeCell, LSTMCell, RNNCell
from rnnlab.model import Loss, SequenceModel
from rnnlab.ops import Array
from rnnlab.validate import Axis, describe, float_array, float_dtype, positive_int

Order = dict[int, list[int]]  # where each of the format's gates stands among ours, by the number of gates

PYTORCH: Order = {1: [0], 3: [0, 1, 2], 4: [0, 1, 2, 3]}
KERAS: Order = {1: [0], 3: [1, 0, 2], 4: [0, 1, 2, 3]}
ONNX: Order = {1: [0], 3: [1, 0, 2], 4: [0, 3, 1, 2]}
CANDIDATE = 2  # a GRU's


def to_pytorch(cell: Cell | SequenceModel, layer: int = 0) -> Any:
    """A model as a torch.nn.Module, a `SequenceNet` to train on; see `rnnlab.interop.pytorch`.

    A cell as one layer of a torch.nn.RNN, LSTM or GRU, a dict of arrays named as in its `state_dict()`:

        weight_ih_l{layer} (K*H, D)    weight_hh_l{layer} (K*H, H)    bias_ih_l{layer}, bias_hh_l{layer} (K*H,)

    A stack is the union, `to_pytorch(first) | to_pytorch(second, layer=1)`. Raises TypeError for a cell
    that PyTorch does not have: `GRUResetBeforeCell`, `FourGateLSTMCell`, a subclass.
    """
    if isinstance(cell, SequenceModel):
        return _library("torch", "pytorch").SequenceNet(cell)
    arrays = _stacked(cell, PYTORCH, (RNNCell, LSTMCell, GRUCell))
    return dict(zip(_pytorch_names(layer), arrays, strict=True))


def from_pytorch(weights: Any, layer: int = 0, *, activation: str = "tanh", loss: Loss | None = None) -> Any:
    """The model of a `SequenceNet`, with this loss, or the cell of one layer of a torch.nn.RNN, LSTM or GRU.

    `weights` is a `state_dict()` or a dict of arrays; the names of other layers are left alone. The number of
    gates tells the cell: 1 `RNNCell` with this `activation`, 3 `GRUCell`, 4 `LSTMCell`. For a network
    without biases, pass zeros. Raises ValueError for a name that is missing, a shape that does not fit, a
    second direction or a projection, TypeError for what is not a dict of floats.
    """
    if loss is not None:
        return _library("torch", "pytorch").sequence_model(weights, loss)
    names = ih, hh, b_ih, b_hh = _pytorch_names(layer)
    _check_names(weights, names, refused=(f"{ih}_reverse", f"weight_hr_l{layer}"))
    R = _array(weights, hh, ("K*H", None), ("H", None))
    rows = _gate_rows(hh, *R.shape)
    W, b_x, b_h = _array(weights, ih, rows, ("D", None)), _array(weights, b_ih, rows), _array(weights, b_hh, rows)
    return _cell(PYTORCH, W, R, b_x, b_h, activation)


def to_keras(cell: Cell | SequenceModel) -> Any:
    """A model as a keras.Sequential, which reads batch-major floats (B, T, D).

    A cell as a keras.layers.SimpleRNN, LSTM or GRU, a dict of arrays in the order of its `get_weights()`:

        kernel (D, K*H)    recurrent_kernel (H, K*H)    bias (K*H,), or (2, 3H) of a GRU with reset_after=True

    so that `layer.set_weights(list(to_keras(cell).values()))` sets them. A `GRUCell` is Keras' reset_after=True,
    its default, a `GRUResetBeforeCell` is reset_after=False. Raises TypeError for a cell that Keras does not
    have: `FourGateLSTMCell`, a subclass.
    """
    if isinstance(cell, SequenceModel):
        return _library("keras", "keras").sequential(cell)
    W, R, b_x, b_h = _stacked(cell, KERAS, (RNNCell, LSTMCell, GRUCell, GRUResetBeforeCell))
    return {"kernel": W.T, "recurrent_kernel": R.T, "bias": np.stack((b_x, b_h)) if type(cell) is GRUCell else b_x}


def from_keras(weights: Any, *, activation: str = "tanh", loss: Loss | None = None) -> Any:
    """The model of a keras.Sequential, with this loss, or the cell of a keras.layers.SimpleRNN, LSTM or GRU.

    `dict(zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights()))` is such a dict. The number of gates
    tells the cell: 1 `RNNCell` with this `activation`, 4 `LSTMCell`, 3 `GRUCell` where the bias is (2, 3H),
    `GRUResetBeforeCell` where it is (3H,). For a layer without biases, pass zeros. Raises ValueError for a
    name that is missing or unknown or a shape that does not fit, TypeError for what is not a dict of floats.
    """
    if loss is not None:
        return _library("keras", "keras").sequence_model(weights, loss)
    _check_names(weights, ("kernel", "recurrent_kernel", "bias"), only=True)
    R = _array(weights, "recurrent_kernel", ("H", None), ("K*H", None)).T
    rows = _gate_rows("recurrent_kernel", *R.shape)
    W = _array(weights, "kernel", ("D", None), rows).T
    reset_after = len(R) == 3 * R.shape[1] and np.ndim(weights["bias"]) == 2
    if reset_after:
        b_x, b_h = _array(weights, "bias", ("2", 2), rows)
    else:
        b_x = _array(weights, "bias", rows)
        b_h = np.zeros_like(b_x)
    return _cell(KERAS, W, R, b_x, b_h, activation, reset_after)


def to_onnx(
    cell: Cell | SequenceModel,
    path: str | Path | None = None,
    *,
    labels: bool = False,
    carry_state: bool = False,
    dtype: npt.DTypeLike = np.float32,
) -> Any:
    """A model as a file, the whole graph checked by onnx.checker; T and B stay open.

    Inputs: `x` (T, B, D), or (T, B) int64 with `labels=True`; with `carry_state` also `initial_h.0` (1, B, H), ... for
    each state part and layer. Outputs: `y` (T, B, O), `final_h.0`, .... ONNX Runtime computes in float32 alone.

    A cell as the inputs W, R and B of ONNX's operator RNN, LSTM or GRU, a dict of arrays with one direction:

        W (1, K*H, D)    R (1, K*H, H)    B (1, 2*K*H), first the input's biases, then the recurrent ones

    The node's attributes: hidden_size = H; for a GRU linear_before_reset = 1 where the cell is a `GRUCell`, 0
    (the default) where it is a `GRUResetBeforeCell`; for an RNN activations = ["Tanh"] or ["Relu"]. Raises
    TypeError for a cell that ONNX does not have: `FourGateLSTMCell`, a subclass.
    """
    if isinstance(cell, SequenceModel):
        if not isinstance(path, str | Path):
            raise TypeError(f"path: expected the name of the file to write, got {describe(path)}")
        _library("onnx", "onnx").write(cell, path, labels, carry_state, float_dtype(dtype))
        return None
    W, R, b_x, b_h = _stacked(cell, ONNX, (RNNCell, LSTMCell, GRUCell, GRUResetBeforeCell))
    return {"W": W[None], "R": R[None], "B": np.concatenate((b_x, b_h))[None]}


def from_onnx(weights: Mapping[str, Any], *, linear_before_reset: int = 0, activation: str = "tanh") -> Cell:
    """The cell of ONNX's operator RNN, LSTM or GRU, from names and shapes as in `to_onnx`.

    The number of gates tells the cell: 1 `RNNCell` with this `activation`, 4 `LSTMCell`, 3 `GRUCell` where the
    node's `linear_before_reset` is 1, `GRUResetBeforeCell` where it is 0; the weights do not show it. For a
    node without B, pass zeros. Raises ValueError for a name that is missing or unknown (such as the peepholes
    P), a shape that does not fit, a second direction, a `linear_before_reset` that is not 0 or 1, TypeError
    for what is not a dict of floats.
    """
    if not isinstance(linear_before_reset, int | np.integer) or linear_before_reset not in (0, 1):
        raise ValueError(f"linear_before_reset: expected 0 or 1, got {linear_before_reset!r}")
    _check_names(weights, ("W", "R", "B"), only=True)
    one = ("directions", 1)
    R = _array(weights, "R", one, ("K*H", None), ("H", None))[0]
    rows = _gate_rows("R", *R.shape)
    W = _array(weights, "W", one, rows, ("D", None))[0]
    b_x, b_h = np.split(_array(weights, "B", one, (f"2*{rows[0]}", 2 * len(R)))[0], 2)
    return _cell(ONNX, W, R, b_x, b_h, activation, reset_after=bool(linear_before_reset))


def _stacked(cell: Cell, order: Order, kinds: tuple[type[Cell], ...]) -> tuple[Array, ...]:
    """W (K*H, D), R (K*H, H) and the two biases (K*H,), the gates in this order."""
    if type(cell) not in kinds:  # a subclass may have equations of its own
        wanted = f"cell: expected one of {', '.join(k.__name__ for k in kinds)} or a SequenceModel of them"
        raise TypeError(f"{wanted}, got {describe(cell)}{_instead(cell)}")
    b_h = np.zeros_like(cell.b)
    if isinstance(cell, GRUCell):
        b_h[CANDIDATE] = cell.b_hn
    gates, H = order[len(cell.gate_names)], cell.hidden_size
    W, R = (p[gates].mT.reshape(len(gates) * H, -1) for p in (cell.W_x, cell.W_h))
    return W, R, cell.b[gates].ravel(), b_h[gates].ravel()


def _instead(cell: object) -> str:
    """What to do about a cell that the other library does not have."""
    if not isinstance(cell, Cell):
        return ""
    if type(cell) is GRUResetBeforeCell:
        return "; PyTorch's GRU resets after the product: train a GRUCell, or use to_keras or to_onnx"
    if type(cell).__module__.startswith("rnnlab."):
        return "; train an LSTMCell or a GRUCell, or write this cell's step there"
    return "; a class of yours may have equations of its own, so write its step there and copy cell.params"


def _library(name: str, module: str) -> Any:
    """The part of this package that imports the library; ImportError that says how to install it."""
    if find_spec(name) is None:
        raise ImportError(f"{name} is not installed: pip install 'rnnlab[interop]'")
    if name == "keras" and find_spec("tensorflow") is None:  # its default
        os.environ.setdefault("KERAS_BACKEND", "torch")
    return import_module(f"rnnlab.interop.{module}")


def _cell(order: Order, W: Array, R: Array, b_x: Array, b_h: Array, activation: str, reset_after: bool = True) -> Cell:
    """The cell of what `_stacked` makes."""
    (rows, H), D = R.shape, W.shape[1]
    K = rows // H
    ours = np.argsort(order[K])
    dtype = float_dtype(np.result_type(W, R, b_x, b_h))
    W_x, W_h, b_x, b_h = (a.reshape(K, H, -1).mT[ours].astype(dtype) for a in (W, R, b_x, b_h))
    params = {"W_x": W_x, "W_h": W_h, "b": b_x + b_h}
    cell: Cell
    if K == 1:
        cell = RNNCell(D, H, rng=0, activation=activation)
    elif K == 4:
        cell = LSTMCell(D, H, rng=0)
    elif reset_after:
        cell = GRUCell(D, H, rng=0)
        params["b"][CANDIDATE] = b_x[CANDIDATE]
        params["b_hn"] = b_h[CANDIDATE]
    else:
        cell = GRUResetBeforeCell(D, H, rng=0)
    return cell.with_params(params)


def _pytorch_names(layer: int) -> tuple[str, str, str, str]:
    n = positive_int("layer", layer, least=0)
    return f"weight_ih_l{n}", f"weight_hh_l{n}", f"bias_ih_l{n}", f"bias_hh_l{n}"


def _check_names(weights: object, names: tuple[str, ...], *, refused: tuple[str, ...] = (), only: bool = False) -> None:
    """Raise unless `weights` has these names, none of the refused ones, and no others where `only` says so."""
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights: expected a dict of arrays, got {describe(weights)}")
    missing, others = set(names) - set(weights), set(weights) - set(names)
    if missing or (only and others):
        raise ValueError(f"weights: expected the names {list(names)}, got {list(weights)}")
    for name in refused:
        if name in others:
            raise ValueError(f"weights: expected one direction and no projection, got the name {name!r}")


def _array(weights: Mapping[str, Any], name: str, *axes: Axis) -> Array:
    array = np.asarray(weights[name])
    return float_array(name, array, axes, array.dtype if array.dtype.kind == "f" else np.dtype(np.float64))


def _gate_rows(name: str, rows: int, H: int) -> Axis:
    """The axis of all gates, such as ("4H", 20), from the recurrent weights' two lengths."""
    for K in (1, 3, 4):
        if rows == K * H:
            return (f"{K}H" if K > 1 else "H", rows)
    raise ValueError(f"{name}: expected K*H by H = {H} with K = 1 (RNN), 3 (GRU) or 4 (LSTM) gates, got {rows} by {H}")
