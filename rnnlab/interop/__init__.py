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

from rnnlab.cells import Bidirectional, Cell, GRUCell, GRUResetBeforeCell, LSTMCell, Reversed, RNNCell
from rnnlab.interop.layouts import (
    KERAS,
    ONNX,
    PYTORCH,
    array,
    cell_of,
    check_names,
    gate_rows,
    onnx_attributes,
    pytorch_names,
    stacked,
    two_cells,
)
from rnnlab.model import Loss, SequenceModel
from rnnlab.validate import describe, float_dtype, one_of, optional


def to_pytorch(cell: Cell | Bidirectional | SequenceModel, layer: int = 0) -> Any:
    """A model as a torch.nn.Module, a `SequenceNet` to train on; see `rnnlab.interop.pytorch`.

    A cell as one layer of a torch.nn.RNN, LSTM or GRU, a dict of arrays named as in its `state_dict()`:

        weight_ih_l{layer} (K*H, D)    weight_hh_l{layer} (K*H, H)    bias_ih_l{layer}, bias_hh_l{layer} (K*H,)

    A stack is the union, `to_pytorch(first) | to_pytorch(second, layer=1)`. A `Bidirectional` has both cells', the
    backward one's names ending in "_reverse"; a cell with bias=False has no biases. Raises TypeError for a cell
    that PyTorch does not have: `GRUResetBeforeCell`, `FourGateLSTMCell`, a subclass.
    """
    if isinstance(cell, SequenceModel):
        return _library("torch", "pytorch").SequenceNet(cell)
    if isinstance(cell, Bidirectional):
        one, two = (to_pytorch(part, layer) for part in two_cells(cell))
        return one | {f"{name}_reverse": array for name, array in two.items()}
    return dict(zip(pytorch_names(layer), stacked(cell, PYTORCH, (RNNCell, LSTMCell, GRUCell)), strict=False))


def from_pytorch(weights: Any, layer: int = 0, *, activation: str = "tanh", loss: Loss | None = None) -> Any:
    """The layer of a torch.nn.RNN, LSTM or GRU, or the model of a `SequenceNet`.

    Parameters
    ----------
    weights
        A `state_dict()`, a dict of arrays or `dict(module.named_parameters())`; the names of other layers are left
        alone. The number of gates tells the cell: 1 `RNNCell`, 3 `GRUCell`, 4 `LSTMCell`. With names in "_reverse" it
        is a `Bidirectional`, without biases a cell with bias=False.
    layer : which layer
    activation : of an `RNNCell`
    loss : makes a model of it, with this loss

    Returns
    -------
    A cell, a `Bidirectional` or a `SequenceModel`.

    Raises
    ------
    TypeError, ValueError
        For what is not a dict of floats, a name that is missing, a shape that does not fit, or a projection.
    """
    if loss is not None:
        return _library("torch", "pytorch").sequence_model(weights, loss)
    forward = pytorch_names(layer)
    backward = tuple(f"{name}_reverse" for name in forward)
    both = isinstance(weights, Mapping) and not weights.keys().isdisjoint(backward)
    cells = [_pytorch_cell(weights, names, activation) for names in ((forward, backward) if both else (forward,))]
    return Bidirectional(*cells) if both else cells[0]


def _pytorch_cell(weights: Any, names: tuple[str, ...], activation: str) -> Cell:
    ih, hh, *biases = names
    check_names(weights, (ih, hh))
    if (projection := hh.replace("hh", "hr").removesuffix("_reverse")) in weights:
        raise ValueError(f"weights: expected no projection (proj_size), got {projection!r}; train without it")
    biases = biases if any(name in weights for name in biases) else []
    check_names(weights, (ih, hh, *biases))
    R = array(weights, hh, ("K*H", None), ("H", None))
    rows = gate_rows(hh, *R.shape)
    W = array(weights, ih, rows, ("D", None))
    return cell_of(PYTORCH, [W, R, *(array(weights, name, rows) for name in biases)], activation)


def to_keras(cell: Cell | Bidirectional | SequenceModel) -> Any:
    """A model as a keras.Sequential, which reads batch-major floats (B, T, D).

    A cell as a keras.layers.SimpleRNN, LSTM or GRU, a dict of arrays in the order of its `get_weights()`:

        kernel (D, K*H)    recurrent_kernel (H, K*H)    bias (K*H,), or (2, 3H) of a GRU with reset_after=True

    so that `layer.set_weights(list(to_keras(cell).values()))` sets them. A `GRUCell` is Keras' reset_after=True,
    its default, a `GRUResetBeforeCell` is reset_after=False. Of a `Bidirectional` the names begin with "forward_" and
    "backward_", in the order of keras.layers.Bidirectional; a cell with bias=False has no bias. Raises TypeError for a
    cell that Keras does not have: `FourGateLSTMCell`, a subclass.
    """
    if isinstance(cell, SequenceModel):
        return _library("keras", "keras").sequential(cell)
    if isinstance(cell, Bidirectional):
        parts = zip(("forward", "backward"), two_cells(cell, same_size=False), strict=True)
        return {f"{which}_{name}": array for which, part in parts for name, array in to_keras(part).items()}
    W, R, *biases = stacked(cell, KERAS, (RNNCell, LSTMCell, GRUCell, GRUResetBeforeCell))
    arrays = {"kernel": W.T, "recurrent_kernel": R.T}
    if biases:
        arrays["bias"] = np.stack(biases) if type(cell) is GRUCell else biases[0]
    return arrays


def from_keras(weights: Any, *, activation: str = "tanh", reset_after: bool = True, loss: Loss | None = None) -> Any:
    """The layer of a keras.layers.SimpleRNN, LSTM or GRU, or the model of a keras.Sequential.

    Parameters
    ----------
    weights
        Such as `dict(zip(("kernel", "recurrent_kernel", "bias"), layer.get_weights()))`. The number of gates tells the
        cell: 1 `RNNCell`, 4 `LSTMCell`, 3 `GRUCell` where the bias is (2, 3H), `GRUResetBeforeCell` where it is (3H,).
        With names that begin with "forward_" and "backward_" it is a `Bidirectional`, without a bias a cell with
        bias=False.
    activation : of an `RNNCell`
    reset_after : tells the two GRUs apart where there is no bias
    loss : makes a model of it, with this loss

    Returns
    -------
    A cell, a `Bidirectional` or a `SequenceModel`.

    Raises
    ------
    TypeError, ValueError
        For what is not a dict of floats, a name that is missing or unknown, or a shape that does not fit.
    """
    if loss is not None:
        return _library("keras", "keras").sequence_model(weights, loss)
    if isinstance(weights, Mapping) and "forward_kernel" in weights:
        parts = [
            {str(name).removeprefix(which): a for name, a in weights.items() if str(name).startswith(which)}
            for which in ("forward_", "backward_")
        ]
        return Bidirectional(*(from_keras(part, activation=activation, reset_after=reset_after) for part in parts))
    check_names(weights, ("kernel", "recurrent_kernel"), ("bias",))
    R = array(weights, "recurrent_kernel", ("H", None), ("K*H", None)).T
    rows = gate_rows("recurrent_kernel", *R.shape)
    W = array(weights, "kernel", ("D", None), rows).T
    if "bias" not in weights:
        return cell_of(KERAS, [W, R], activation, reset_after)
    if len(R) == 3 * R.shape[1] and np.ndim(weights["bias"]) == 2:
        return cell_of(KERAS, [W, R, *array(weights, "bias", ("2", 2), rows)], activation, True)
    bias = array(weights, "bias", rows)
    return cell_of(KERAS, [W, R, bias, np.zeros_like(bias)], activation, False)


def to_onnx(
    cell: Cell | Bidirectional | SequenceModel,
    path: str | Path | None = None,
    *,
    labels: bool = False,
    carry_state: bool = False,
    dtype: npt.DTypeLike = np.float32,
) -> Any:
    """A model as a file, or a cell as the inputs of ONNX's operator RNN, LSTM or GRU.

    The file has the whole graph, checked by onnx.checker; T and B stay open. Inputs: `x` (T, B, D), or (T, B) int64
    with `labels`; with `carry_state` also `initial_h.0` (directions, B, H), ... for each state part and layer. Outputs:
    `y` (T, B, O), `final_h.0`, .... ONNX Runtime computes in float32 alone. A cell becomes a dict of arrays with one
    direction:

        W (1, K*H, D)    R (1, K*H, H)    B (1, 2*K*H), first the input's biases, then the recurrent ones

    The node's attributes: hidden_size = H; for a GRU linear_before_reset = 1 where the cell is a `GRUCell`, 0
    (the default) where it is a `GRUResetBeforeCell`; for an RNN activations = ["Tanh"] or ["Relu"]. A `Bidirectional`
    has two directions (direction = "bidirectional"), a `Reversed` one ("reverse"); with bias=False there is no B.

    Parameters
    ----------
    cell : a cell, a `Bidirectional` or a `SequenceModel`
    path : of a model: the file to write
    labels, carry_state, dtype : of a model: as above

    Returns
    -------
    None for a model, which is in the file; a dict of arrays for a cell.

    Raises
    ------
    TypeError
        For a cell that ONNX does not have: `FourGateLSTMCell`, a subclass.
    """
    if isinstance(cell, SequenceModel):
        if not isinstance(path, str | Path):
            raise TypeError(f"path: expected the name of the file to write, got {describe(path)}")
        _library("onnx", "onnx").write(cell, path, labels, carry_state, float_dtype(dtype))
        return None
    if isinstance(cell, Bidirectional):
        parts = [to_onnx(part) for part in (two_cells(cell) if len(cell.cells) > 1 else cell.cells)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    W, R, *biases = stacked(cell, ONNX, (RNNCell, LSTMCell, GRUCell, GRUResetBeforeCell))
    return {"W": W[None], "R": R[None]} | ({"B": np.concatenate(biases)[None]} if biases else {})


def from_onnx(
    weights: Mapping[str, Any],
    *,
    linear_before_reset: int = 0,
    activation: str = "tanh",
    direction: str = "forward",
    **attributes: Any,
) -> Any:
    """The layer of ONNX's operator RNN, LSTM or GRU.

    Parameters
    ----------
    weights
        Names and shapes as in `to_onnx`. The number of gates tells the cell: 1 `RNNCell`, 4 `LSTMCell`, 3 a GRU;
        without B it has bias=False.
    linear_before_reset : of a GRU: 1 for `GRUCell`, 0 for `GRUResetBeforeCell`; the weights do not show it
    activation : of an `RNNCell`
    direction : "forward" makes a cell, "reverse" a `Reversed`, "bidirectional" a `Bidirectional`
    attributes
        The node's others: hidden_size, layout (of X and Y; our layers read time first) and activations with ONNX's
        default values, or ["Relu"] for an RNN.

    Returns
    -------
    The layer; `rnnlab.interop.onnx.run_node` computes a whole node.

    Raises
    ------
    TypeError, ValueError
        For what is not a dict of floats; by its name for any other attribute, peepholes P, a name that is missing or
        unknown, a shape that does not fit.
    """
    if not isinstance(linear_before_reset, int | np.integer) or linear_before_reset not in (0, 1):
        raise ValueError(f"linear_before_reset: expected 0 or 1, got {linear_before_reset!r}")
    one_of("direction", direction, ("forward", "reverse", "bidirectional"))
    if isinstance(weights, Mapping) and "P" in weights:
        raise ValueError(
            f"P: expected no peepholes, got {describe(weights['P'])}; no cell here has them, so train without P"
        )
    check_names(weights, ("W", "R"), ("B",))
    n = 2 if direction == "bidirectional" else 1
    many = ("directions", n)
    R = array(weights, "R", many, ("K*H", None), ("H", None))
    rows, H = gate_rows("R", *R.shape[1:]), R.shape[2]
    W = array(weights, "W", many, rows, ("D", None))
    arrays = [W, R]  # with the directions first, as in B
    if "B" in weights:
        arrays += np.split(array(weights, "B", many, (f"2*{rows[0]}", 2 * len(R[0]))), 2, axis=1)
    activations = onnx_attributes(attributes, len(R[0]) // H, H, n) or [activation] * n
    of_cells = zip(zip(*arrays, strict=True), activations, strict=True)
    cells = [cell_of(ONNX, of_cell, name, bool(linear_before_reset)) for of_cell, name in of_cells]
    return Bidirectional(*cells) if n == 2 else Reversed(*cells) if direction == "reverse" else cells[0]


def _library(name: str, module: str) -> Any:
    """The part of this package that imports the library; ImportError that says how to install it."""
    if name == "keras" and find_spec("tensorflow") is None:  # its default
        os.environ.setdefault("KERAS_BACKEND", "torch")
    optional(name, "interop")
    return import_module(f"rnnlab.interop.{module}")
