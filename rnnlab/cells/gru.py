"""Gated recurrent units (Cho et al. 2014): one state, and a gate that copies it.

Papers and libraries disagree on what z means. Here, as in PyTorch, z = 1 keeps the old state.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnlab.cells.base import Arrays, Cell, Tape, column_sums, outer_products
from rnnlab.ops import Array
from rnnlab.ops import logistic as sigmoid


class _GRU(Cell):
    """What the two GRUs share: names and initial values."""

    gate_names = ("reset", "update", "candidate")
    state_names = ("h",)

    def __init__(
        self, input_size: int, hidden_size: int, *, update_bias: float | Array | None = None, **arguments: Any
    ) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        if update_bias is not None:
            self.set_bias("update", update_bias)


class GRUCell(_GRU):
    """Reset gate after the product, as in PyTorch and cuDNN; it has one bias more, b_hn (1, H):

        r, z = sigmoid(x W_x[r] + h W_h[r] + b[r]),  sigmoid(x W_x[z] + h W_h[z] + b[z])
        n    = tanh(x W_x[n] + b[n] + r (h W_h[n] + b_hn))
        h_t  = (1 - z) n + z h_{t-1}

    Parameters
    ----------
    input_size, hidden_size : D and H; further arguments as in `Cell`
    update_bias
        A number or (H,) numbers for the update gate's bias: `init.chrono(T, H)` for long memories (Tallec & Ollivier
        2018).
    """

    extra_names = ("candidate_h",)  # q = h W_h[n] + b_hn
    b_hn: Array

    def __init__(self, input_size: int, hidden_size: int, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        self.add_param("b_hn", "uniform", (1, self.hidden_size))

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        (h,) = prev
        h_W = h @ self.W_h  # 1
        r, z = sigmoid(a[:2] + h_W[:2])  # 2
        q = h_W[2] + self.b_hn  # 3
        n = np.tanh(a[2] + r * q)  # 4
        h = (1 - z) * n + z * h  # 5
        return (r, z, n), (h,), (q,)

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        (d_h,), (h,), (r, z, n), (q,) = d_next, prev, gates, extras
        d_n = d_h * (1 - z) * (1 - n**2)  # 5, 4
        d_z = d_h * (h - n) * z * (1 - z)  # 5, 2
        d_r = d_n * q * r * (1 - r)  # 4, 2
        d_q = d_n * r  # 4
        return (d_r, d_z, d_n), (d_h * z + self.back((d_r, d_z, d_q)),), (d_q,)  # 5, 1

    def recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        h = tape.states[:-1, 0]
        W_h = np.concatenate((outer_products(h, d_a[:2]), outer_products(h, d_extras)))  # r, z; and n through q
        return {"W_h": W_h, "b_hn": column_sums(d_extras)}


class GRUResetBeforeCell(_GRU):
    """Reset gate before the product, as Cho et al. 2014 wrote it:

        r, z = sigmoid(x W_x[r] + h W_h[r] + b[r]),  sigmoid(x W_x[z] + h W_h[z] + b[z])
        n    = tanh(x W_x[n] + b[n] + (r h) W_h[n])
        h_t  = (1 - z) n + z h_{t-1}

    Parameters
    ----------
    input_size, hidden_size, update_bias : as in `GRUCell`
    """

    extra_names = ("reset_h",)  # s = r h

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        (h,) = prev
        r, z = sigmoid(a[:2] + h @ self.W_h[:2])  # 1
        s = r * h  # 2
        n = np.tanh(a[2] + s @ self.W_h[2])  # 3
        h = (1 - z) * n + z * h  # 4
        return (r, z, n), (h,), (s,)

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        (d_h,), (h,), (r, z, n), _ = d_next, prev, gates, extras
        W_r, W_z, W_n = self.W_h
        d_n = d_h * (1 - z) * (1 - n**2)  # 4, 3
        d_z = d_h * (h - n) * z * (1 - z)  # 4, 1
        d_s = d_n @ W_n.T  # 3
        d_r = d_s * h * r * (1 - r)  # 2, 1
        return (d_r, d_z, d_n), (d_h * z + d_s * r + d_r @ W_r.T + d_z @ W_z.T,), ()  # 4, 2, 1

    def recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        of_h = outer_products(tape.states[:-1, 0], d_a[:2])
        of_s = outer_products(tape.extras[0], d_a[2:])
        return {"W_h": np.concatenate((of_h, of_s))}
