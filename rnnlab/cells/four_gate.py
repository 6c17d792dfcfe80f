"""The lesson's memory cell: learn, forget, remember, use."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnlab.cells.base import Arrays, Tape, column_sums, outer_products
from rnnlab.cells.lstm import _LSTM
from rnnlab.ops import Array
from rnnlab.ops import logistic as sigmoid


class FourGateLSTMCell(_LSTM):
    """The LSTM of the learn / forget / remember / use lessons, with STM = h, LTM = c, event = x:

        Learn     N = tanh(...)   i = sigmoid(...)          learned = i N
        Forget    f = sigmoid(...)                          kept = f LTM_{t-1}
        Remember  LTM_t = kept + learned
        Use       U = tanh(kept W_u + b_u)  V = sigmoid(...)  STM_t = U V

    where "..." is x_t W_x[k] + STM_{t-1} W_h[k] + b[k]; W_u is (H, H), b_u (1, H). It differs from
    `LSTMCell` in Use alone: the memory is read before this step's writing, and mixed by W_u first.
    So what is learned at t is seen at t + 1. `forget_bias` and `input_bias` as in `LSTMCell`.
    """

    extra_names = ("kept", "use")
    W_u: Array
    b_u: Array

    def __init__(self, input_size: int, hidden_size: int, **arguments: Any) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        H = self.hidden_size
        self.add_param("W_u", arguments.get("recurrent_init", "uniform"), (H, H))
        self.add_param("b_u", "uniform", (1, H))

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        stm, ltm = prev
        i, f, N, V = a + stm @ self.W_h  # 1
        i, f, N, V = sigmoid(i), sigmoid(f), np.tanh(N), sigmoid(V)  # 2
        kept = f * ltm  # 3: Forget
        ltm = kept + i * N  # 4: Learn and Remember
        U = np.tanh(kept @ self.W_u + self.b_u)  # 5: Use
        stm = U * V  # 6
        return (i, f, N, V), (stm, ltm), (kept, U)

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        (d_stm, d_ltm), (stm, ltm), (i, f, N, V), (kept, U) = d_next, prev, gates, extras
        d_V = d_stm * U * V * (1 - V)  # 6, 2
        d_u = d_stm * V * (1 - U**2)  # 6, 5: before the tanh of Use
        d_kept = d_ltm + d_u @ self.W_u.T  # 4, 5
        d_i = d_ltm * N * i * (1 - i)  # 4, 2
        d_N = d_ltm * i * (1 - N**2)  # 4, 2
        d_f = d_kept * ltm * f * (1 - f)  # 3, 2
        d_a = (d_i, d_f, d_N, d_V)
        return d_a, (self.back(d_a), d_kept * f), (d_u,)  # 1, 3

    def recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        (W_u,) = outer_products(tape.extras[0], d_extras)
        return super().recurrent_grads(tape, d_a, d_extras) | {"W_u": W_u, "b_u": column_sums(d_extras)}
