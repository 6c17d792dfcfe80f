"""Subclasses of `Cell` that are only scored: piecewise gates, products, a mean taken off, a gate of no use."""

from . import cell

HARD = r'''
import numpy as np

import rnnlab as rl


class HardLSTM(rl.LSTMCell):
    """Piecewise linear gates, and a ReLU that stops at 6 in the place of the last tanh."""

    extra_names = ("c_new",)

    @staticmethod
    def hard(v):
        return np.minimum(np.maximum(0.25 * v + 0.5, 0), 1)

    @staticmethod
    def hard_slope(y):
        return 0.25 * (y > 0) * (y < 1)

    def step(self, a, prev):
        h, c = prev
        i, f, g, o = a + h @ self.W_h
        i, f, o, g = self.hard(i), self.hard(f), self.hard(o), np.maximum(g, 0.2 * g)
        c = f * c + i * g
        return (i, f, g, o), (o * np.clip(c, 0, 6), c), (c,)

    def step_backward(self, d_next, prev, gates, extras):
        (dh, dc), (h, c_old), (i, f, g, o), (c,) = d_next, prev, gates, extras
        inside = (c > 0) & (c < 6)
        dc = dc + dh * o * inside
        d_a = np.stack([dc * g, dc * c_old, dc * i, dh * np.clip(c, 0, 6)])
        for k, y in ((0, i), (1, f), (3, o)):
            d_a[k] *= self.hard_slope(y)
        d_a[2] *= np.where(g > 0, 1, 0.2)
        return d_a, (self.back(d_a), dc * f), ()
'''

HARD_EDITS = """
piecewise: inside = (c > 0) & (c < 6)
  => inside = c < 6 ## dc = dc + dh * o * inside
piecewise: d_a[2] *= np.where(g > 0, 1, 0.2)
  => d_a[2] *= np.where(g > 0, 1, 0)
piecewise: d_a[k] *= self.hard_slope(y)
  => d_a[k] *= y * (1 - y)
piecewise: return 0.25 * (y > 0) * (y < 1)
  => return (y > 0) * (y < 1.0) ## d_a[k] *= self.hard_slope(y)
piecewise: d_a[2] *= np.where(g > 0, 1, 0.2)
  => d_a[2] *= np.where(d_a[2] > 0, 1, 0.2)
brackets: dc = dc + dh * o * inside
  => dc = (dc + dh * o) * inside
exchanged: for k, y in ((0, i), (1, f), (3, o)):
  => for k, y in ((0, i), (1, f), (2, o)): ## d_a[2] *= ## d_a[k] *=
wrong value: d_a = np.stack([dc * g, dc * c_old, dc * i, dh * np.clip(c, 0, 6)])
  => d_a = np.stack([dc * g, dc * c, dc * i, dh * np.clip(c, 0, 6)])
factor: return d_a, (self.back(d_a), dc * f), ()
  => return d_a, (self.back(d_a), dc), ()
right: inside = (c > 0) & (c < 6)
  => inside = np.logical_and(c >= 0, c <= 6)
right: d_a[2] *= np.where(g > 0, 1, 0.2)
  => d_a[2, g < 0] *= 0.2
"""

MULTIPLIED = r'''
import numpy as np

import rnnlab as rl
from rnnlab.cells.base import column_sums, outer_products
from rnnlab.ops import sigmoid


class Multiplied(rl.Cell):
    """An update gate over a candidate made of the product of two projections, and a mean taken off."""

    gate_names = ("update", "left")
    extra_names = ("right", "y")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_param("V", "uniform", (self.hidden_size,) * 2)
        self.add_param("shift", "uniform", (1, self.hidden_size))

    def step(self, a, prev):
        (h,) = prev
        u = sigmoid(a[0] + h @ self.W_h[0])
        left = a[1] + h @ self.W_h[1]
        right = h @ self.V + self.shift
        m = left * right
        y = np.tanh(m - m.mean(axis=1, keepdims=True))
        return (u, left), (u * h + (1 - u) * y,), (right, y)

    def step_backward(self, d_next, prev, gates, extras):
        (d,), (h,), (u, left), (right, y) = d_next, prev, gates, extras
        d_u = d * (h - y) * u * (1 - u)
        d_m = d * (1 - u) * (1 - y**2)
        d_m = d_m - d_m.mean(axis=1, keepdims=True)
        d_left, d_right = d_m * right, d_m * left
        d_prev = d * u + d_right @ self.V.T
        for d_gate, W in zip((d_u, d_left), self.W_h):
            d_prev = d_prev + d_gate @ W.T
        return (d_u, d_left), (d_prev,), (d_right,)

    def recurrent_grads(self, tape, d_a, d_extras):
        h = tape.states[:-1, 0]
        return {"W_h": outer_products(h, d_a), "V": outer_products(h, d_extras)[0], "shift": column_sums(d_extras)}
'''

MULTIPLIED_EDITS = """
mean: d_m = d_m - d_m.mean(axis=1, keepdims=True)
  => ## d_m = d * (1 - u)
axis: d_m = d_m - d_m.mean(axis=1, keepdims=True)
  => d_m = d_m - d_m.mean(axis=0, keepdims=True)
scaled: d_m = d_m - d_m.mean(axis=1, keepdims=True)
  => d_m = d_m - d_m.sum(axis=1, keepdims=True)
exchanged: d_left, d_right = d_m * right, d_m * left
  => d_left, d_right = d_m * left, d_m * right
path: d_prev = d * u + d_right @ self.V.T
  => d_prev = d * u
wx for wh: d_prev = d * u + d_right @ self.V.T
  => d_prev = d * u + d_right @ self.W_h[0].T
again: d_m = d * (1 - u) * (1 - y**2)
  => d_m = d * (1 - u) * (1 - np.tanh(y) ** 2)
path: for d_gate, W in zip((d_u, d_left), self.W_h):
  => for d_gate, W in zip((d_u,), self.W_h): ## d_prev = d_prev + d_gate
parameter: "shift": column_sums(d_extras)}
  => "shift": column_sums(d_a[1:])}
= for +=: d_prev = d_prev + d_gate @ W.T
  => d_prev = d_gate @ W.T
right: d_prev = d_prev + d_gate @ W.T
  => d_prev = np.add(d_prev, (W @ d_gate.T).T)
right: d_m = d_m - d_m.mean(axis=1, keepdims=True)
  => H = self.hidden_size\\nd_m = d_m @ (np.eye(H) - np.full((H, H), 1 / H))
"""

DEAD = r'''
import numpy as np

import rnnlab as rl
from rnnlab.ops import sigmoid


class ResetNowhere(rl.Cell):
    """Right, and of no use: the gate r is computed and reaches nothing; a leak of the state of one half."""

    gate_names = ("reset", "candidate")

    def step(self, a, prev):
        (h,) = prev
        r = sigmoid(a[0] + h @ self.W_h[0])
        n = np.tanh(a[1] + h @ self.W_h[1])
        return (r, n), (0.5 * h + 0.5 * n,), ()

    def step_backward(self, d_next, prev, gates, extras):
        dn = 0.5 * d_next[0] * (1 - gates[1] ** 2)
        dh = 0.5 * d_next[0] + dn @ self.W_h[1].T
        return (np.zeros_like(dn), dn), (dh,), ()
'''

DEAD_EDITS = """
factor: dn = 0.5 * d_next[0] * (1 - gates[1] ** 2)
  => dn = d_next[0] * (1 - gates[1] ** 2)
path: dh = 0.5 * d_next[0] + dn @ self.W_h[1].T
  => dh = dn @ self.W_h[1].T
exchanged: dh = 0.5 * d_next[0] + dn @ self.W_h[1].T
  => dh = 0.5 * d_next[0] + dn @ self.W_h[0].T
"""

BASES = (
    cell("hard", "HardLSTM", HARD, HARD_EDITS),
    cell("multiplied", "Multiplied", MULTIPLIED, MULTIPLIED_EDITS),
    cell("dead", "ResetNowhere", DEAD, DEAD_EDITS),
)
