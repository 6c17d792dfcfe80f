"""Subclasses of `Cell` that may be read: units of other papers, which share less with the library's."""

from . import cell

MGU = r"""
import numpy as np

import rnnlab as rl
from rnnlab.cells.base import outer_products
from rnnlab.ops import sigmoid


class Minimal(rl.Cell):
    gate_names = ("forget", "candidate")
    extra_names = ("fh",)

    def step(self, a, prev):
        (h,) = prev
        f = sigmoid(a[0] + h @ self.W_h[0])
        s = f * h
        n = np.tanh(a[1] + s @ self.W_h[1])
        return (f, n), ((1 - f) * h + f * n,), (s,)

    def step_backward(self, d_next, prev, gates, extras):
        (dh,), (h,), (f, n) = d_next, prev, gates
        dn = dh * f * (1 - n**2)
        ds = dn @ self.W_h[1].T
        df = (dh * (n - h) + ds * h) * f * (1 - f)
        d_prev = dh * (1 - f) + ds * f + df @ self.W_h[0].T
        return (df, dn), (d_prev,), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        h, s = tape.states[:-1, 0], tape.extras[0]
        return {"W_h": np.concatenate((outer_products(h, d_a[:1]), outer_products(s, d_a[1:])))}
"""

MGU_EDITS = """
path: df = (dh * (n - h) + ds * h) * f * (1 - f)
  => df = dh * (n - h) * f * (1 - f)
term: d_prev = dh * (1 - f) + ds * f + df @ self.W_h[0].T
  => d_prev = ds * f + df @ self.W_h[0].T
wx for wh: d_prev = dh * (1 - f) + ds * f + df @ self.W_h[0].T
  => d_prev = dh * (1 - f) + ds * f + df @ self.W_h[1].T
sign: df = (dh * (n - h) + ds * h) * f * (1 - f)
  => df = (dh * (n + h) + ds * h) * f * (1 - f)
transpose: ds = dn @ self.W_h[1].T
  => ds = dn @ self.W_h[1]
factor: return {"W_h": np.concatenate((outer_products(h, d_a[:1]), outer_products(s, d_a[1:])))}
  => return {"W_h": outer_products(h, d_a)}
d0: dn = dh * f * (1 - n**2)
  => dn = dh * f - n**2
brackets: df = (dh * (n - h) + ds * h) * f * (1 - f)
  => df = dh * (n - h) + ds * h * f * (1 - f)
right: d_prev = dh * (1 - f) + ds * f + df @ self.W_h[0].T
  => d_prev = dh + f * (ds - dh) + np.dot(df, self.W_h[0].transpose())
"""

LAYER_NORM = r"""
import numpy as np

import rnnlab as rl
from rnnlab.cells.base import column_sums


class Normed(rl.Cell):
    gate_names = ("candidate",)
    extra_names = ("y", "s")

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_param("gain", "uniform", (1, self.hidden_size))

    def step(self, a, prev):
        z = a[0] + prev[0] @ self.W_h[0]
        centred = z - z.mean(-1, keepdims=True)
        s = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        y = centred * s
        h = np.tanh(self.gain * y)
        return (h,), (h,), (y, s + 0 * y)

    def step_backward(self, d_next, prev, gates, extras):
        (dh,), (h,), (y, s) = d_next, gates, extras
        dq = dh * (1 - h**2)
        dy = dq * self.gain
        mean, slope = dy.mean(-1, keepdims=True), (dy * y).mean(-1, keepdims=True)
        da = s * (dy - mean - y * slope)
        return (da,), (self.back((da,)),), (dq * y,)

    def recurrent_grads(self, tape, d_a, d_extras):
        return super().recurrent_grads(tape, d_a, d_extras) | {"gain": column_sums(d_extras)}
"""

LAYER_NORM_EDITS = """
mean: da = s * (dy - mean - y * slope)
  => da = s * dy
mean: da = s * (dy - mean - y * slope)
  => da = s * (dy - y * slope)
mean: da = s * (dy - mean - y * slope)
  => da = s * (dy - mean)
factor: da = s * (dy - mean - y * slope)
  => da = dy - mean - y * slope
axis: mean, slope = dy.mean(-1, keepdims=True), (dy * y).mean(-1, keepdims=True)
  => mean, slope = dy.mean(0, keepdims=True), (dy * y).mean(-1, keepdims=True)
factor: dy = dq * self.gain
  => dy = dq
parameter: return (da,), (self.back((da,)),), (dq * y,)
  => return (da,), (self.back((da,)),), (dq,) ## | {"gain"
right: mean, slope = dy.mean(-1, keepdims=True), (dy * y).mean(-1, keepdims=True)
  => mean, slope = (v.sum(-1)[:, None] / v.shape[1] for v in (dy, dy * y))
"""

INDRNN = r"""
import numpy as np

import rnnlab as rl


class Independent(rl.Cell):
    gate_names = ("candidate",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_param("u", "uniform", (1, self.hidden_size))

    def step(self, a, prev):
        h = np.maximum(a[0] + self.u * prev[0], 0)
        return (h,), (h,), ()

    def step_backward(self, d_next, prev, gates, extras):
        da = d_next[0] * (gates[0] > 0)
        return (da,), (da * self.u,), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        du = (d_a[0] * tape.states[:-1, 0]).sum((0, 1))
        return {"W_h": np.zeros_like(self.W_h), "u": du[None]}
"""

INDRNN_EDITS = """
wx for wh: return (da,), (da * self.u,), ()
  => return (da,), (self.back((da,)),), ()
piecewise: da = d_next[0] * (gates[0] > 0)
  => da = d_next[0] * (d_next[0] > 0)
d0: da = d_next[0] * (gates[0] > 0)
  => da = np.where(gates[0] > 0, 1.0, 0.0)
index: du = (d_a[0] * tape.states[:-1, 0]).sum((0, 1))
  => du = (d_a[0] * tape.states[1:, 0]).sum((0, 1))
parameter: "u": du[None]}
  => "u": 0 * du[None]} ## du = (d_a[0]
piecewise: da = d_next[0] * (gates[0] > 0)
  => da = d_next[0] * np.where(gates[0] > 0, 1, 0.01)
right: da = d_next[0] * (gates[0] > 0)
  => da = np.where(gates[0] > 0, d_next[0], 0)
"""

BASES = (
    cell("cell-mgu", "Minimal", MGU, MGU_EDITS),
    cell("cell-layer-norm", "Normed", LAYER_NORM, LAYER_NORM_EDITS),
    cell("cell-indrnn", "Independent", INDRNN, INDRNN_EDITS),
)
