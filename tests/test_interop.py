"""The conversions of weights, on plain arrays: layouts, round trips, errors. `test_oracles.py` runs the libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import interop
from tests.cases import random_cell, refuses

D, H = 3, 4
READ: dict[str, Callable[..., rl.Cell]] = {
    "pytorch": interop.from_pytorch,
    "keras": interop.from_keras,
    "onnx": interop.from_onnx,
}
WRITE: dict[str, Callable[..., dict[str, Any]]] = {
    "pytorch": interop.to_pytorch,
    "keras": interop.to_keras,
    "onnx": interop.to_onnx,
}
KINDS: dict[str, tuple[type[rl.Cell], ...]] = {
    "pytorch": (rl.RNNCell, rl.LSTMCell, rl.GRUCell),
    "keras": (rl.RNNCell, rl.LSTMCell, rl.GRUCell, rl.GRUResetBeforeCell),
    "onnx": (rl.RNNCell, rl.LSTMCell, rl.GRUCell, rl.GRUResetBeforeCell),
}
each_format = pytest.mark.parametrize("layout", KINDS)
each_pair = pytest.mark.parametrize(("layout", "kind"), [(f, kind) for f, kinds in KINDS.items() for kind in kinds])

# The gates in the order in which each library documents them.
LSTM_GATES = {
    "pytorch": ("input", "forget", "candidate", "output"),
    "keras": ("input", "forget", "candidate", "output"),
    "onnx": ("input", "output", "forget", "candidate"),
}
GRU_GATES = {
    "pytorch": ("reset", "update", "candidate"),
    "keras": ("update", "reset", "candidate"),
    "onnx": ("update", "reset", "candidate"),
}


def read(layout: str, weights: dict[str, Any], kind: type[rl.Cell]) -> rl.Cell:
    if layout == "onnx":
        return interop.from_onnx(weights, linear_before_reset=int(kind is rl.GRUCell))
    return READ[layout](weights)


def random_weights(layout: str, kind: type[rl.Cell]) -> dict[str, Any]:
    """Weights as a library holds them: every entry random, both biases too."""
    rng = np.random.default_rng(5)
    return {name: rng.normal(size=array.shape) for name, array in WRITE[layout](random_cell(kind, D, H)).items()}


def gates_of(layout: str, kind: type[rl.Cell]) -> tuple[str, ...]:
    if kind is rl.RNNCell:
        return ("candidate",)
    return (LSTM_GATES if kind is rl.LSTMCell else GRU_GATES)[layout]


def assert_same(cell: rl.Cell, other: rl.Cell) -> None:
    assert type(cell) is type(other)
    assert (cell.input_size, cell.hidden_size, cell.dtype) == (other.input_size, other.hidden_size, other.dtype)
    assert list(cell.params) == list(other.params)
    for name, p in cell.params.items():
        np.testing.assert_array_equal(p, other.params[name], err_msg=name)


@each_pair
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact(layout: str, kind: type[rl.Cell], dtype: type) -> None:
    cell = random_cell(kind, D, H).astype(dtype)
    weights = WRITE[layout](cell)
    assert {array.dtype for array in weights.values()} == {np.dtype(dtype)}
    again = read(layout, weights, kind)
    assert_same(again, cell)
    for name, array in WRITE[layout](again).items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)


@each_format
def test_activation_of_a_plain_rnn_is_passed(layout: str) -> None:
    cell = READ[layout](WRITE[layout](rl.RNNCell(D, H, rng=0, activation="relu")), activation="relu")
    assert isinstance(cell, rl.RNNCell)
    assert cell.activation == "relu"
    with refuses(ValueError, "activation"):
        READ[layout](WRITE[layout](cell), activation="sigmoid")


@each_pair
def test_every_weight_is_where_the_library_documents_it(layout: str, kind: type[rl.Cell]) -> None:
    weights = random_weights(layout, kind)
    cell = read(layout, weights, kind)
    for n, gate in enumerate(gates_of(layout, kind)):
        k = cell.gate_names.index(gate)
        for j in range(H):
            row = n * H + j  # of unit j of this gate
            if layout == "pytorch":
                x, h = weights["weight_ih_l0"][row], weights["weight_hh_l0"][row]
                b_x, b_h = weights["bias_ih_l0"][row], weights["bias_hh_l0"][row]
            elif layout == "onnx":
                x, h = weights["W"][0, row], weights["R"][0, row]
                b_x, b_h = weights["B"][0, row], weights["B"][0, len(cell.gate_names) * H + row]
            else:
                x, h = weights["kernel"][:, row], weights["recurrent_kernel"][:, row]
                b_x, b_h = weights["bias"][:, row] if kind is rl.GRUCell else (weights["bias"][row], 0.0)
            np.testing.assert_array_equal(cell.W_x[k, :, j], x)
            np.testing.assert_array_equal(cell.W_h[k, :, j], h)
            if kind is rl.GRUCell and gate == "candidate":
                assert (cell.b[k, 0, j], cell.b_hn[0, j]) == (b_x, b_h)
            else:
                assert cell.b[k, 0, j] == b_x + b_h


def test_pytorch_layers_are_named_and_kept_apart() -> None:
    first, second = random_cell(rl.LSTMCell, D, H, seed=1), random_cell(rl.LSTMCell, H, 2, seed=2)
    weights = interop.to_pytorch(first) | interop.to_pytorch(second, layer=1)
    assert list(weights)[:5] == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l1"]
    assert_same(interop.from_pytorch(weights), first)
    assert_same(interop.from_pytorch(weights, layer=1), second)


@each_pair
def test_nothing_is_shared_between_cell_and_weights(layout: str, kind: type[rl.Cell]) -> None:
    cell = random_cell(kind, D, H)
    weights = WRITE[layout](cell)
    again = read(layout, weights, kind)
    for ours in (cell, again):
        for p in ours.params.values():
            assert not any(np.shares_memory(p, array) for array in weights.values())


def test_no_other_library_is_imported() -> None:
    code = "import sys, rnnlab.interop; assert not {'torch', 'keras', 'onnx', 'onnxruntime'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- errors ------------------------------------------------------------------------------------


class LearnersCell(rl.LSTMCell):
    """A subclass may have another `step`, so its weights mean something else."""


@each_format
@pytest.mark.parametrize("kind", [rl.FourGateLSTMCell, LearnersCell])
def test_cells_that_a_format_does_not_have_are_refused(layout: str, kind: type[rl.Cell]) -> None:
    with refuses(TypeError, "cell"):
        WRITE[layout](random_cell(kind, D, H))


def test_pytorch_has_no_gru_that_resets_before() -> None:
    with refuses(TypeError, "cell"):
        interop.to_pytorch(random_cell(rl.GRUResetBeforeCell))


@each_pair
def test_each_missing_name_and_each_wrong_shape_is_named(layout: str, kind: type[rl.Cell]) -> None:
    weights = random_weights(layout, kind)
    for name, array in weights.items():
        rest = {key: value for key, value in weights.items() if key != name}
        if name in ("B", "bias"):
            assert not read(layout, rest, kind).bias
        else:
            with refuses(ValueError, "weights"):
                read(layout, rest, kind)
        for axis in range(array.ndim):  # one entry more on each axis
            longer = np.concatenate((array, np.take(array, [0], axis)), axis)
            if name in ("weight_ih_l0", "kernel", "W") and axis == (0 if layout == "keras" else array.ndim - 1):
                assert read(layout, weights | {name: longer}, kind).input_size == D + 1
            else:
                with pytest.raises(ValueError, match=r"^\w+: expected .*got "):
                    read(layout, weights | {name: longer}, kind)
        with refuses(ValueError, name):
            read(layout, weights | {name: array[None]}, kind)
        with refuses(TypeError, name):
            read(layout, weights | {name: array.astype(int)}, kind)
        with refuses(ValueError, name):
            read(layout, weights | {name: np.full_like(array, np.nan)}, kind)


@each_format
def test_what_is_not_a_dict_of_arrays_is_refused(layout: str) -> None:
    for nonsense in (None, [np.zeros((4, 4))], np.zeros((4, 4))):
        with refuses(TypeError, "weights"):
            READ[layout](nonsense)


def test_two_gates_are_no_cell() -> None:
    weights = {
        "weight_ih_l0": np.zeros((8, 3)),
        "weight_hh_l0": np.zeros((8, 4)),
        "bias_ih_l0": np.zeros(8),
        "bias_hh_l0": np.zeros(8),
    }
    with pytest.raises(ValueError, match=r"^weight_hh_l0: .*K = 1 \(RNN\), 3 \(GRU\) or 4 \(LSTM\) gates, got 8 by 4"):
        interop.from_pytorch(weights)


@pytest.mark.parametrize("name", ["weight_ih_l0_reverse", "weight_hr_l0"])
def test_half_of_a_pytorch_layer_is_not_read(name: str) -> None:
    weights = interop.to_pytorch(random_cell(rl.LSTMCell))
    with refuses(ValueError, "weights"):
        interop.from_pytorch(weights | {name: weights["weight_ih_l0"]})


@pytest.mark.parametrize(("layout", "name"), [("keras", "gamma"), ("onnx", "S")])
def test_unknown_names_are_refused(layout: str, name: str) -> None:
    weights = WRITE[layout](random_cell(rl.LSTMCell))
    with refuses(ValueError, "weights"):
        READ[layout](weights | {name: np.zeros((1, 12))})
