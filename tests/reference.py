"""The five cells once more, in plain Python numbers and nested loops: an oracle that shares no code with the library.

Parameters, inputs and states are nested lists: W_x[k][d][j], W_h[k][m][j], b[k][0][j], x[t][b][d],
state[s][b][j]. Numbers may be complex, so that Im f(x + i h) / h gives derivatives of this forward pass.
"""

from __future__ import annotations

import cmath
import copy
import math
from collections.abc import Callable
from typing import Any

STEP = 1e-30  # of the complex step

Number = float | complex
Row = list[Number]  # one sequence's (H,) values
Step = Callable[[Any, Row, tuple[Row, ...]], tuple[Row, ...]]


def tanh(a: Number) -> Number:
    return cmath.tanh(a) if isinstance(a, complex) else math.tanh(a)


def sigmoid(a: Number) -> Number:
    return 1 / (1 + cmath.exp(-a)) if isinstance(a, complex) else 1 / (1 + math.exp(-a))


def dot(row: Row, matrix: Any, j: int) -> Number:
    """Entry j of the row vector row @ matrix."""
    total: Number = 0.0
    for m in range(len(row)):
        total += row[m] * matrix[m][j]
    return total


def rnn(p: Any, x: Row, state: tuple[Row, ...]) -> tuple[Row, ...]:
    (h,) = state
    return ([tanh(dot(x, p["W_x"][0], j) + dot(h, p["W_h"][0], j) + p["b"][0][0][j]) for j in range(len(h))],)


def lstm(p: Any, x: Row, state: tuple[Row, ...]) -> tuple[Row, ...]:
    h, c = state
    new_h, new_c = [], []
    for j in range(len(h)):
        a = [dot(x, p["W_x"][k], j) + dot(h, p["W_h"][k], j) + p["b"][k][0][j] for k in range(4)]
        i, f, g, o = sigmoid(a[0]), sigmoid(a[1]), tanh(a[2]), sigmoid(a[3])
        new_c.append(f * c[j] + i * g)
        new_h.append(o * tanh(new_c[j]))
    return new_h, new_c


def four_gate(p: Any, event: Row, state: tuple[Row, ...]) -> tuple[Row, ...]:
    stm, ltm = state
    learned, kept, V = [], [], []
    for j in range(len(stm)):
        a = [dot(event, p["W_x"][k], j) + dot(stm, p["W_h"][k], j) + p["b"][k][0][j] for k in range(4)]
        learned.append(tanh(a[2]) * sigmoid(a[0]))
        kept.append(ltm[j] * sigmoid(a[1]))
        V.append(sigmoid(a[3]))
    U = [tanh(dot(kept, p["W_u"], j) + p["b_u"][0][j]) for j in range(len(stm))]
    return [u * v for u, v in zip(U, V, strict=True)], [k + n for k, n in zip(kept, learned, strict=True)]


def gru_reset_after(p: Any, x: Row, state: tuple[Row, ...]) -> tuple[Row, ...]:
    (h,) = state
    new = []
    for j in range(len(h)):
        r = sigmoid(dot(x, p["W_x"][0], j) + dot(h, p["W_h"][0], j) + p["b"][0][0][j])
        z = sigmoid(dot(x, p["W_x"][1], j) + dot(h, p["W_h"][1], j) + p["b"][1][0][j])
        n = tanh(dot(x, p["W_x"][2], j) + p["b"][2][0][j] + r * (dot(h, p["W_h"][2], j) + p["b_hn"][0][j]))
        new.append((1 - z) * n + z * h[j])
    return (new,)


def gru_reset_before(p: Any, x: Row, state: tuple[Row, ...]) -> tuple[Row, ...]:
    (h,) = state
    H = len(h)
    r = [sigmoid(dot(x, p["W_x"][0], j) + dot(h, p["W_h"][0], j) + p["b"][0][0][j]) for j in range(H)]
    reset_h = [r[j] * h[j] for j in range(H)]
    new = []
    for j in range(H):
        z = sigmoid(dot(x, p["W_x"][1], j) + dot(h, p["W_h"][1], j) + p["b"][1][0][j])
        n = tanh(dot(x, p["W_x"][2], j) + dot(reset_h, p["W_h"][2], j) + p["b"][2][0][j])
        new.append((1 - z) * n + z * h[j])
    return (new,)


STEPS: dict[str, Step] = {
    "RNNCell": rnn,
    "LSTMCell": lstm,
    "GRUCell": gru_reset_after,
    "GRUResetBeforeCell": gru_reset_before,
    "FourGateLSTMCell": four_gate,
}


def unroll(cell: str, params: Any, x: Any, state: Any) -> list[Any]:
    """states[t][s][b][j] for t = 0 .. T: each sequence of the batch on its own."""
    states = [state]
    for x_t in x:
        rows = [STEPS[cell](params, x_t[b], tuple(part[b] for part in states[-1])) for b in range(len(x_t))]
        states.append([[row[s] for row in rows] for s in range(len(state))])
    return states


def loss(cell: str, params: Any, x: Any, state: Any, d_h: Any, d_state: Any) -> Number:
    """sum of d_h[t][b][j] h_{t+1}[b][j], and of d_state[s][b][j] times the final state."""
    states = unroll(cell, params, x, state)
    total: Number = 0.0
    for t in range(len(x)):
        for b in range(len(d_h[t])):
            for j in range(len(d_h[t][b])):
                total += d_h[t][b][j] * states[t + 1][0][b][j]
    for s in range(len(state)):
        for b in range(len(state[s])):
            for j in range(len(state[s][b])):
                total += d_state[s][b][j] * states[-1][s][b][j]
    return total


def gradient(f: Callable[[Any], Number], at: Any) -> Any:
    """df/d(every entry) of a nested list, one complex step at a time, in the same nesting."""

    def partial_derivatives(whole: Any, part: Any) -> Any:
        found = []
        for n in range(len(part)):
            if isinstance(part[n], list):
                found.append(partial_derivatives(whole, part[n]))
            else:
                before = part[n]
                part[n] = complex(before, STEP)
                found.append(complex(f(whole)).imag / STEP)
                part[n] = before
        return found

    at = copy.deepcopy(at)
    return partial_derivatives(at, at)
