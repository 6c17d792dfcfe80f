"""The plain recurrent network (Elman 1990): one state, no gates."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnlab.cells.base import Arrays, Cell
from rnnlab.ops import Array, relu
from rnnlab.validate import one_of


class RNNCell(Cell):
    """h_t = tanh(x_t W_x + h_{t-1} W_h + b)                                       (Elman 1990)

    Parameters
    ----------
    input_size, hidden_size : D and H; further arguments as in `Cell`
    activation
        "tanh", or "relu" for max(., 0) in its place; with `recurrent_init="identity"` and then biases of 0
        (`cell.b[...] = 0`) that is the IRNN (Le, Jaitly & Hinton 2015, who also draw small normal input weights).
    """

    gate_names = ("candidate",)
    state_names = ("h",)

    def __init__(self, input_size: int, hidden_size: int, *, activation: str = "tanh", **arguments: Any) -> None:
        self.activation = one_of("activation", activation, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, **arguments)

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        (h,) = prev
        (a,) = a + h @ self.W_h  # 1
        h = np.tanh(a) if self.activation == "tanh" else relu(a)  # 2
        return (h,), (h,), ()

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        (d_h,), (h,) = d_next, gates
        d_a = d_h * (1 - h**2) if self.activation == "tanh" else d_h * (h > 0)  # 2
        return (d_a,), (self.back((d_a,)),), ()  # 1
