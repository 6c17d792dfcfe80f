"""A whole model as a torch.nn.Module, to train on in PyTorch, and back."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnnlab.cells import Bidirectional, Cell, GRUCell, RNNCell
from rnnlab.interop import from_pytorch, to_pytorch
from rnnlab.interop.layouts import model_of
from rnnlab.model import Loss, SequenceModel
from rnnlab.validate import describe


class SequenceNet(torch.nn.Module):
    """`y, state = net(x, state, lengths)`: the layers and the readout of a `SequenceModel`, with copies of its weights.

    x is (T, B, D) floats or (T, B) integers that mean one-hot rows, y (T, B, O). Neighbouring cells of one kind and
    size are one torch.nn.RNN, LSTM or GRU with that many layers, in `layers`; `readout` is a torch.nn.Linear. `state`
    holds one state for each entry of `layers`, as these modules take and return it; None means zeros.

    PyTorch adds two biases where we have one, and training both would train it twice as fast. So of `bias_hh`, which
    starts at 0, only the part that is our b_hn is trained (a GRU's; `requires_grad` is False in the others).
    """

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        dtype = getattr(torch, model.readout.dtype.name)
        self.dropout, self.embedding = model.dropout, None
        if (given := model.embedding) is not None:
            self.embedding = torch.nn.Embedding(given.input_size, given.output_size, _weight=_tensor(given.W))
        stacks = [list(stack) for _, stack in groupby(model.cells, _kind)]
        if self.dropout:  # PyTorch's own leaves out the last layer
            stacks = [[cell] for cell in model.cells]
        self.layers = torch.nn.ModuleList()
        for stack in stacks:
            arrays = [item for n, cell in enumerate(stack) for item in to_pytorch(cell, n).items()]
            first = stack[0].forward_cell if isinstance(stack[0], Bidirectional) else stack[0]
            options: dict[str, Any] = {"nonlinearity": first.activation} if isinstance(first, RNNCell) else {}
            options |= {"num_layers": len(stack), "bidirectional": first is not stack[0], "bias": first.bias}
            module = getattr(torch.nn, type(first).__name__.removesuffix("Cell"))
            layer = module(first.input_size, first.hidden_size, dtype=dtype, **options)
            layer.load_state_dict({name: _tensor(array) for name, array in arrays})
            for name, bias in layer.named_parameters():
                if name.startswith("bias_hh"):
                    self._keep_one_bias(bias, first)
            self.layers.append(layer)
        above = model.readout
        self.readout = torch.nn.Linear(above.input_size, above.output_size, above.bias, dtype=dtype)
        bias = {"bias": _tensor(above.b[0])} if above.bias else {}
        self.readout.load_state_dict({"weight": _tensor(above.W.T)} | bias)

    @staticmethod
    def _keep_one_bias(bias: Any, cell: Cell) -> None:
        if not isinstance(cell, GRUCell):
            bias.requires_grad_(False)
            return
        trained = torch.arange(3).repeat_interleave(cell.hidden_size) == 2  # the candidate's
        bias.register_hook(lambda grad: grad * trained.to(grad.device))

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> tuple[Any, list[Any]]:
        """(y (T, B, O), the final state of each entry of `layers`); with `lengths` (B,), y is 0 past each end.

        Parameters
        ----------
        x, state : see above
        lengths : the number of steps of each sequence, None for T

        Returns
        -------
        (y, state)
        """
        if self.embedding is not None:
            x = self.embedding(x.long())
        elif not x.dtype.is_floating_point:
            x = torch.nn.functional.one_hot(x.long(), self.layers[0].input_size).to(self.readout.weight.dtype)
        after = []
        for layer, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            if lengths is None:
                x, final = layer(x, before)
            else:
                packed, final = layer(pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False), before)
                x, _ = pad_packed_sequence(packed, total_length=len(x))
            x = torch.nn.functional.dropout(x, self.dropout, self.training)
            after.append(final)
        y = self.readout(x)
        if lengths is not None:
            y = y * (torch.arange(len(x), device=y.device)[:, None, None] < lengths.to(y.device)[:, None])
        return y, after


def sequence_model(net: object, loss: Loss) -> SequenceModel:
    """The `SequenceModel` of a `SequenceNet`, with copies of its weights as they are now."""
    if not isinstance(net, SequenceNet):
        raise TypeError(f"module: expected a SequenceNet as `to_pytorch(model)` makes it, got {describe(net)}")
    cells = [
        from_pytorch(layer.state_dict(), n, activation=getattr(layer, "nonlinearity", "tanh"))
        for layer in net.layers
        for n in range(layer.num_layers)
    ]
    W, b = _array(net.readout.weight).T, net.readout.bias
    rows = None if net.embedding is None else _array(net.embedding.weight)
    return model_of(cells, loss, W, None if b is None else _array(b), rows, net.dropout)


def _kind(cell: Cell | Bidirectional) -> tuple[object, ...]:
    one = cell.forward_cell if isinstance(cell, Bidirectional) and len(cell.cells) > 1 else cell
    return type(cell), type(one), cell.hidden_size, getattr(one, "activation", None), getattr(one, "bias", None)


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()


def _tensor(array: Any) -> Any:
    return torch.from_numpy(np.array(array))  # a copy, in order


def run_layer(module: Any, x: Any, state: Any = None) -> tuple[Any, Any]:
    """(outputs, final state) of a torch.nn.RNN, LSTM or GRU, computed by our cells.

    Parameters
    ----------
    module : the layer, of any depth, in one direction or two, with or without biases; dropout is not applied
    x, state
        What the module takes: a tensor, batch-first where the module is, or of one sequence (T, D), or a
        PackedSequence; and its initial state.

    Raises as `from_pytorch`; what is returned has the types that the module returns.
    """
    packed, lengths = isinstance(x, PackedSequence), None
    if packed:
        padded, lengths = pad_packed_sequence(x)
    else:
        padded = x[:, None] if x.ndim == 2 else x.transpose(0, 1) if module.batch_first else x
    weights, several = dict(module.named_parameters()), isinstance(module, torch.nn.LSTM)
    given = None if state is None else [part.detach().numpy() for part in (state if several else (state,))]
    if given and given[0].ndim == 2:
        given = [part[:, None] for part in given]
    h, finals, d = padded.detach().numpy(), list[Any](), 1 + module.bidirectional
    for n in range(module.num_layers):
        layer = from_pytorch(weights, n, activation=getattr(module, "nonlinearity", "tanh"))
        initial = None if given is None else np.stack([np.concatenate(part[n * d :][:d], axis=-1) for part in given])
        tape = layer.forward(h, initial, None if lengths is None else lengths.numpy())
        h = tape.h
        finals.append(np.stack(np.split(tape.states[-1], d, axis=-1), axis=1))  # (S, d, B, H)
    ends = tuple(map(_tensor, np.concatenate(finals, axis=1)))
    y = _tensor(h)
    if packed:
        y = pack_padded_sequence(y, lengths, enforce_sorted=False)
    elif x.ndim == 2:
        y, ends = y[:, 0], tuple(part[:, 0] for part in ends)
    elif module.batch_first:
        y = y.transpose(0, 1)
    return y, ends if several else ends[0]
