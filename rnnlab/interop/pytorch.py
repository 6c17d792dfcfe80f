"""A whole model as a torch.nn.Module, to train on in PyTorch, and back."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import torch

from rnnlab.cells import Cell, GRUCell, RNNCell
from rnnlab.interop import from_pytorch, to_pytorch
from rnnlab.model import Loss, SequenceModel
from rnnlab.readout import Dense
from rnnlab.validate import describe


class SequenceNet(torch.nn.Module):
    """`y, state = net(x, state)`: the layers and the readout of a `SequenceModel`, with copies of its weights.

    x is (T, B, D) floats or (T, B) integers that mean one-hot rows, y (T, B, O). Neighbouring cells of one kind and
    size are one torch.nn.RNN, LSTM or GRU with that many layers, in `layers`; `readout` is a torch.nn.Linear. `state`
    holds one state for each entry of `layers`, as these modules take and return it; None means zeros.

    PyTorch adds two biases where we have one, and training both would train it twice as fast. So of `bias_hh`, which
    starts at 0, only the part that is our b_hn is trained (a GRU's; `requires_grad` is False in the others).
    """

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        dtype = getattr(torch, model.readout.dtype.name)
        stacks = [list(stack) for _, stack in groupby(model.cells, _kind)]
        weights = [{k: w for n, cell in enumerate(s) for k, w in to_pytorch(cell, n).items()} for s in stacks]
        self.layers = torch.nn.ModuleList()
        for stack, arrays in zip(stacks, weights, strict=True):
            first = stack[0]
            options = {"nonlinearity": first.activation} if isinstance(first, RNNCell) else {}
            module = getattr(torch.nn, type(first).__name__.removesuffix("Cell"))
            layer = module(first.input_size, first.hidden_size, num_layers=len(stack), dtype=dtype, **options)
            layer.load_state_dict({name: _tensor(array) for name, array in arrays.items()})
            for n, cell in enumerate(stack):
                self._keep_one_bias(getattr(layer, f"bias_hh_l{n}"), cell)
            self.layers.append(layer)
        self.readout = torch.nn.Linear(model.readout.input_size, model.readout.output_size, dtype=dtype)
        W, b = model.readout.params["W"], model.readout.params["b"]
        self.readout.load_state_dict({"weight": _tensor(W.T), "bias": _tensor(b[0])})

    @staticmethod
    def _keep_one_bias(bias: Any, cell: Cell) -> None:
        if not isinstance(cell, GRUCell):
            bias.requires_grad_(False)
            return
        trained = torch.arange(3).repeat_interleave(cell.hidden_size) == 2  # the candidate's
        bias.register_hook(lambda grad: grad * trained.to(grad.device))

    def forward(self, x: Any, state: Any = None) -> tuple[Any, list[Any]]:
        """(y (T, B, O), the final state of each entry of `layers`)."""
        if not x.dtype.is_floating_point:
            x = torch.nn.functional.one_hot(x.long(), self.layers[0].input_size).to(self.readout.weight.dtype)
        after = []
        for layer, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            x, final = layer(x, before)
            after.append(final)
        return self.readout(x), after


def sequence_model(net: object, loss: Loss) -> SequenceModel:
    """The `SequenceModel` of a `SequenceNet`, with copies of its weights as they are now."""
    if not isinstance(net, SequenceNet):
        raise TypeError(f"module: expected a SequenceNet as `to_pytorch(model)` makes it, got {describe(net)}")
    cells = [
        from_pytorch(layer.state_dict(), n, activation=getattr(layer, "nonlinearity", "tanh"))
        for layer in net.layers
        for n in range(layer.num_layers)
    ]
    W, b = (p.detach().cpu().numpy() for p in (net.readout.weight, net.readout.bias))
    readout = Dense(W.shape[1], len(W), rng=0, dtype=W.dtype).with_params({"W": W.T, "b": b[None]})
    return SequenceModel(cells, readout, loss)


def _kind(cell: Cell) -> tuple[object, ...]:
    return type(cell), cell.hidden_size, getattr(cell, "activation", None)


def _tensor(array: Any) -> Any:
    return torch.from_numpy(np.array(array))  # a copy, in order
