"""A whole model as a keras.Sequential, and back."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from rnnlab.cells import Bidirectional, Cell, GRUCell, RNNCell
from rnnlab.interop import from_keras, to_keras
from rnnlab.interop.layouts import model_of
from rnnlab.model import Loss, SequenceModel
from rnnlab.validate import describe

KINDS = {"RNNCell": "SimpleRNN", "LSTMCell": "LSTM", "GRUCell": "GRU", "GRUResetBeforeCell": "GRU"}
NAMES = ("kernel", "recurrent_kernel", "bias")
FIXED = {  # what our equations have in these places
    "recurrent_activation": "sigmoid",
    "return_sequences": True,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
}


def sequential(model: SequenceModel) -> Any:
    """The `keras.Sequential` of this model, with copies of its weights; it reads x batch-major, (B, T, D)."""
    dtype = model.readout.dtype.name
    arrays = [list(to_keras(cell).values()) for cell in model.cells]
    arrays.append([model.readout.W, *([model.readout.b[0]] if model.readout.bias else [])])
    layers = [_layer(cell, dtype) for cell in model.cells]
    layers.append(keras.layers.Dense(model.readout.output_size, use_bias=model.readout.bias, dtype=dtype))
    if model.dropout:
        layers = [layer for one in layers[:-1] for layer in (one, keras.layers.Dropout(model.dropout))] + layers[-1:]
    first = keras.Input((None, model.input_size), dtype=dtype)
    if (given := model.embedding) is not None:
        first = keras.Input((None,), dtype="int64")
        layers.insert(0, keras.layers.Embedding(given.input_size, given.output_size, dtype=dtype))
        arrays.insert(0, [given.W])
    net = keras.Sequential([first, *layers])
    for layer, weights in zip((one for one in net.layers if one.weights), arrays, strict=True):
        layer.set_weights(weights)
    return net


def _layer(cell: Cell | Bidirectional, dtype: str, **more: Any) -> Any:
    if isinstance(cell, Bidirectional):
        one, two = _layer(cell.forward_cell, dtype), _layer(cell.backward_cell, dtype, go_backwards=True)
        return keras.layers.Bidirectional(one, backward_layer=two, dtype=dtype)
    options: dict[str, Any] = {"activation": cell.activation} if isinstance(cell, RNNCell) else {}
    options |= {"use_bias": cell.bias, **more}
    if (name := KINDS[type(cell).__name__]) == "GRU":
        options["reset_after"] = type(cell) is GRUCell
    return getattr(keras.layers, name)(cell.hidden_size, return_sequences=True, dtype=dtype, **options)


def sequence_model(net: object, loss: Loss) -> SequenceModel:
    """The `SequenceModel` of SimpleRNN, LSTM and GRU layers with a linear Dense on top."""
    kinds = tuple(getattr(keras.layers, name) for name in sorted(set(KINDS.values())))
    layers: list[Any] = net.layers if isinstance(net, keras.Sequential) else []
    names = [type(layer).__name__ for layer in layers] if layers else describe(net)
    table = [layer for layer in layers[:1] if isinstance(layer, keras.layers.Embedding)]
    drops = [layer for layer in layers if isinstance(layer, keras.layers.Dropout)]
    core = [layer for layer in layers if layer not in (*table, *drops)]
    below, top = core[:-1], core[-1:]
    recurrent = below and all(isinstance(_directions(layer)[0], kinds) for layer in below)
    if not recurrent or not isinstance(top[0], keras.layers.Dense):
        raise TypeError(f"module: expected a Sequential of SimpleRNN, LSTM or GRU layers and a Dense, got {names}")
    regular = layers[len(table) : -1 : 2] == below and layers[len(table) + 1 : -1 : 2] == drops
    if drops and (not regular or len({layer.rate for layer in drops}) > 1):
        raise ValueError(
            f"module: expected one Dropout of the same rate after each recurrent layer, or none, got {names}"
        )
    for layer in core:
        for n, one in enumerate(_directions(layer)):
            wanted = {"activation": "linear"} if layer is top[0] else FIXED | {"go_backwards": n == 1}
            wanted = wanted | ({"activation": "tanh"} if isinstance(one, kinds[:2]) else {})
            config = {key: value for key, value in one.get_config().items() if key in wanted}
            if wrong := {key: value for key, value in config.items() if value != wanted[key]}:
                raise ValueError(f"module: expected {layer.name} with {wanted}, got {wrong}; make it so")
        if getattr(layer, "merge_mode", "concat") != "concat":
            raise ValueError(f"module: expected {layer.name} with merge_mode 'concat', got {layer.merge_mode!r}")
    cells = [_read(layer) for layer in below]
    W, *b = _arrays(top[0])
    rows = _arrays(table[0])[0] if table else None
    return model_of(cells, loss, W, b[0] if b else None, rows, float(drops[0].rate) if drops else 0.0)


def _directions(layer: Any) -> list[Any]:
    """The layer, or the two of a keras.layers.Bidirectional."""
    both = isinstance(layer, keras.layers.Bidirectional)
    return [layer.forward_layer, layer.backward_layer] if both else [layer]


def _read(layer: Any) -> Any:
    """The cell of a layer, or the `Bidirectional` of two."""
    cells = []
    for one in _directions(layer):
        config = one.get_config()
        activation = config["activation"] if isinstance(one, keras.layers.SimpleRNN) else "tanh"
        weights = dict(zip(NAMES, _arrays(one), strict=False))
        cells.append(from_keras(weights, activation=activation, reset_after=config.get("reset_after", True)))
    return Bidirectional(*cells) if len(cells) == 2 else cells[0]


def _arrays(layer: Any) -> list[Any]:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # keras reads a torch tensor so
        weights: list[Any] = layer.get_weights()
    return weights
