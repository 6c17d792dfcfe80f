"""A whole model as a keras.Sequential, and back."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from rnnlab.cells import Cell, GRUCell, RNNCell
from rnnlab.interop import from_keras, to_keras
from rnnlab.model import Loss, SequenceModel
from rnnlab.readout import Dense
from rnnlab.validate import describe

KINDS = {"RNNCell": "SimpleRNN", "LSTMCell": "LSTM", "GRUCell": "GRU", "GRUResetBeforeCell": "GRU"}
NAMES = ("kernel", "recurrent_kernel", "bias")
FIXED = {  # what our equations have in these places
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "go_backwards": False,
    "return_sequences": True,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
}


def sequential(model: SequenceModel) -> Any:
    """The `keras.Sequential` of this model, with copies of its weights; it reads x batch-major, (B, T, D)."""
    dtype = model.readout.dtype.name
    arrays = [list(to_keras(cell).values()) for cell in model.cells]
    arrays.append([model.readout.params["W"], model.readout.params["b"][0]])
    layers = [_layer(cell, dtype) for cell in model.cells]
    layers.append(keras.layers.Dense(model.readout.output_size, dtype=dtype))
    net = keras.Sequential([keras.Input((None, model.cells[0].input_size), dtype=dtype), *layers])
    for layer, weights in zip(net.layers, arrays, strict=True):
        layer.set_weights(weights)
    return net


def _layer(cell: Cell, dtype: str) -> Any:
    options: dict[str, Any] = {"activation": cell.activation} if isinstance(cell, RNNCell) else {}
    if (name := KINDS[type(cell).__name__]) == "GRU":
        options["reset_after"] = type(cell) is GRUCell
    return getattr(keras.layers, name)(cell.hidden_size, return_sequences=True, dtype=dtype, **options)


def sequence_model(net: object, loss: Loss) -> SequenceModel:
    """The `SequenceModel` of SimpleRNN, LSTM and GRU layers with a linear Dense on top."""
    kinds = tuple(getattr(keras.layers, name) for name in sorted(set(KINDS.values())))
    layers: list[Any] = net.layers if isinstance(net, keras.Sequential) else []
    below, top = layers[:-1], layers[-1:]
    if not below or not all(isinstance(layer, kinds) for layer in below) or not isinstance(top[0], keras.layers.Dense):
        names = [type(layer).__name__ for layer in layers] if layers else describe(net)
        raise TypeError(f"module: expected a Sequential of SimpleRNN, LSTM or GRU layers and a Dense, got {names}")
    for layer in layers:
        wanted = {"activation": "linear", "use_bias": True} if layer is top[0] else FIXED
        wanted = wanted | ({"activation": "tanh"} if isinstance(layer, kinds[:2]) else {})
        config = {key: value for key, value in layer.get_config().items() if key in wanted}
        if wrong := {key: value for key, value in config.items() if value != wanted[key]}:
            raise ValueError(f"module: expected {layer.name} with {wanted}, got {wrong}")
    cells = [
        from_keras(
            dict(zip(NAMES, _arrays(layer), strict=True)),
            activation=layer.get_config()["activation"] if isinstance(layer, kinds[2]) else "tanh",
        )
        for layer in below
    ]
    W, b = _arrays(top[0])
    return SequenceModel(cells, Dense(*W.shape, rng=0, dtype=W.dtype).with_params({"W": W, "b": b[None]}), loss)


def _arrays(layer: Any) -> list[Any]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # keras reads a torch tensor so
        weights: list[Any] = layer.get_weights()
    return weights
