"""Long short-term memory (Hochreiter & Schmidhuber 1997), with the forget gate of Gers et al. 2000."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnlab.cells.base import Arrays, Cell, Gradients, Tape
from rnnlab.ops import Array
from rnnlab.ops import logistic as sigmoid


class _LSTM(Cell):
    """What the LSTMs share: names and initial values."""

    gate_names = ("input", "forget", "candidate", "output")
    state_names = ("h", "c")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        forget_bias: float | Array | None = None,
        input_bias: float | Array | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, **arguments)
        for gate, bias in {"forget": forget_bias, "input": input_bias}.items():
            if bias is not None:
                self.set_bias(gate, bias)


class LSTMCell(_LSTM):
    """Two states, three gates and a candidate; a gate k sees a_k = x_t W_x[k] + h_{t-1} W_h[k] + b[k]:

        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)        g = tanh(a_g)
        c_t = f c_{t-1} + i g                                     h_t = o tanh(c_t)

    Parameters
    ----------
    input_size, hidden_size : D and H; further arguments as in `Cell`
    forget_bias, input_bias
        A number or (H,) numbers for those gates' biases: 1 is the usual forget bias (Jozefowicz et al. 2015);
        `b = init.chrono(T, H)`, `forget_bias=b, input_bias=-b` makes memories that last (Tallec & Ollivier 2018).
    """

    extra_names = ("tanh_c",)

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        h, c = prev
        i, f, g, o = a + h @ self.W_h  # 1
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)  # 2
        c = f * c + i * g  # 3
        u = np.tanh(c)  # 4
        h = o * u  # 5
        return (i, f, g, o), (h, c), (u,)

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        d_o = d_h * u * o * (1 - o)  # 5, 2
        d_c = d_c + d_h * o * (1 - u**2)  # 5, 4: c_t reaches the loss through c_{t+1} and through h_t
        d_i = d_c * g * i * (1 - i)  # 3, 2
        d_f = d_c * c * f * (1 - f)  # 3, 2
        d_g = d_c * i * (1 - g**2)  # 3, 2
        d_a = (d_i, d_f, d_g, d_o)
        return d_a, (self.back(d_a), d_c * f), ()  # 1, 3

    def memory_gradient(self, tape: Tape, grads: Gradients) -> Array:
        """The textbook's delta c_t = dL/dc_t + dL/dh_t o_t (1 - tanh(c_t)^2), (T+1, B, H) (Greff et al. 2017).

        It counts the path through h_t, which the partial derivative dL/dc_t holds fixed; the initial state
        has no output, so at t = 0 the two are the same.
        """
        self.check_grads(tape, grads)
        d_h, d_c = grads.states[:, 0], grads.states[:, 1].copy()
        d_c[1:] += d_h[1:] * tape.gate("output") * (1 - tape.extras[0] ** 2)
        return d_c
