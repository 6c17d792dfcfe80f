"""Subclasses of `Cell` that may be read: with a step and its derivative, or a whole backward pass."""

from . import cell

RNN = r"""
import numpy as np

import rnnlab as rl


class Own(rl.RNNCell):
    def backward(self, tape, d_h, d_state=None, *, input_gradient=True):
        T, B, _ = tape.x.shape
        Wx, Wh = self.W_x[0], self.W_h[0]
        dWx, dWh, db = np.zeros_like(Wx), np.zeros_like(Wh), np.zeros((1, self.hidden_size))
        dx, dS = np.zeros_like(tape.x), np.zeros_like(tape.states)
        carried = np.zeros_like(d_h[0]) if d_state is None else d_state[0]
        for t in reversed(range(T)):
            dh = d_h[t] + carried
            dS[t + 1, 0] = dh
            da = dh * (1 - tape.h[t] ** 2)
            dWx += tape.x[t].T @ da
            dWh += tape.states[t, 0].T @ da
            db += da.sum(0, keepdims=True)
            dx[t] = da @ Wx.T
            carried = da @ Wh.T
        dS[0, 0] = carried
        return rl.Gradients({"W_x": dWx[None], "W_h": dWh[None], "b": db[None]}, dx, dS)
"""

RNN_EDITS = """
carry: carried = da @ Wh.T
  => carried_prev = da @ Wh.T
  && dS[0, 0] = carried => dS[0, 0] = carried_prev ## carried_prev = da @ Wh.T
index: dWh += tape.states[t, 0].T @ da
  => dWh += tape.states[t - 1, 0].T @ da
truncated: dh = d_h[t] + carried
  => dh = d_h[t] + carried * (t >= T - 2)
scaled: dWx += tape.x[t].T @ da
  => dWx += tape.x[t].T @ da / B
transpose: carried = da @ Wh.T
  => carried = da @ Wh
brackets: da = dh * (1 - tape.h[t] ** 2)
  => da = dh * 1 - tape.h[t] ** 2
again: da = dh * (1 - tape.h[t] ** 2)
  => da = dh * (1 - np.tanh(tape.h[t]) ** 2)
clip: dh = d_h[t] + carried
  => dh = np.clip(d_h[t] + carried, -1, 1)
clip: carried = da @ Wh.T
  => carried = da @ Wh.T\\ncarried = carried * min(1, 0.3 / np.linalg.norm(carried))
right: da = dh * (1 - tape.h[t] ** 2)
  => da = dh - dh * tape.h[t] ** 2
right: dWx += tape.x[t].T @ da
  => dWx += np.tensordot(tape.x[t], da, axes=(0, 0))
"""

LSTM = r"""
import numpy as np

import rnnlab as rl
from rnnlab.ops import sigmoid


class Mine(rl.LSTMCell):
    def step_backward(self, d_next, prev, gates, extras):
        (dh, dc_next), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        do = dh * u * o * (1 - o)
        dc = dc_next + dh * o * (1 - u**2)
        di = dc * g * i * (1 - i)
        df = dc * c * f * (1 - f)
        dg = dc * i * (1 - g**2)
        d_a = (di, df, dg, do)
        return d_a, (self.back(d_a), dc * f), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        h = tape.states[:-1, 0]
        return {"W_h": np.stack([sum(h[t].T @ d[t] for t in range(len(h))) for d in d_a])}
"""

LSTM_EDITS = """
again: df = dc * c * f * (1 - f)
  => df = dc * c * sigmoid(f) * (1 - sigmoid(f))
brackets: dc = dc_next + dh * o * (1 - u**2)
  => dc = (dc_next + dh * o) * (1 - u**2)
doubled: dc = dc_next + dh * o * (1 - u**2)
  => dc = dc_next + dh * o * (1 - u**2)\\ndc += dc
path: return d_a, (self.back(d_a), dc * f), ()
  => return d_a, (self.back(d_a), dc_next * f), ()
exchanged: d_a = (di, df, dg, do)
  => d_a = (df, di, dg, do)
exchanged: return d_a, (self.back(d_a), dc * f), ()
  => return d_a, (self.back((di, df, do, dg)), dc * f), ()
exchanged: return d_a, (self.back(d_a), dc * f), ()
  => return d_a, (sum(d @ W.T for d, W in zip(d_a, self.W_h[[1, 0, 2, 3]])), dc * f), ()
factor: dg = dc * i * (1 - g**2)
  => dg = dc * (1 - g**2)
wrong value: do = dh * u * o * (1 - o)
  => do = dh * c * o * (1 - o)
path: return d_a, (self.back(d_a), dc * f), ()
  => return d_a, (sum(d @ W.T for d, W in zip(d_a[:3], self.W_h)), dc * f), ()
other step: sum(h[t].T @ d[t] for t in range(len(h)))
  => sum(h[t].T @ d[-1] for t in range(len(h)))
index: h = tape.states[:-1, 0]
  => h = tape.states[1:, 0] ## np.stack
right: dc = dc_next + dh * o * (1 - u**2)
  => dc = dh * o\\ndc *= 1 - u**2\\ndc += dc_next
right: h = tape.states[:-1, 0]
  => h = np.roll(tape.states, 1, axis=0)[1:, 0]
"""

PEEPHOLE = r"""
import numpy as np

import rnnlab as rl
from rnnlab.ops import sigmoid


class Peephole(rl.Cell):
    gate_names = ("input", "forget", "candidate", "output")
    state_names = ("h", "c")
    extra_names = ("tanh_c",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in ("p_i", "p_f", "p_o"):
            self.add_param(name, "uniform", (1, self.hidden_size))

    def step(self, a, prev):
        h, c = prev
        a = a + h @ self.W_h
        i = sigmoid(a[0] + self.p_i * c)
        f = sigmoid(a[1] + self.p_f * c)
        g = np.tanh(a[2])
        new = f * c + i * g
        o = sigmoid(a[3] + self.p_o * new)
        u = np.tanh(new)
        return (i, f, g, o), (o * u, new), (u,)

    def step_backward(self, d_next, prev, gates, extras):
        (dh, dc), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        do = dh * u * o * (1 - o)
        dnew = dc + dh * o * (1 - u**2) + do * self.p_o
        di = dnew * g * i * (1 - i)
        df = dnew * c * f * (1 - f)
        dg = dnew * i * (1 - g**2)
        dc = dnew * f + di * self.p_i + df * self.p_f
        return (di, df, dg, do), (self.back((di, df, dg, do)), dc), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        c, new = tape.states[:-1, 1], tape.states[1:, 1]
        out = super().recurrent_grads(tape, d_a, d_extras)
        out["p_i"] = (d_a[0] * c).sum((0, 1))[None]
        out["p_f"] = (d_a[1] * c).sum((0, 1))[None]
        out["p_o"] = (d_a[3] * new).sum((0, 1))[None]
        return out
"""

PEEPHOLE_EDITS = """
path: dnew = dc + dh * o * (1 - u**2) + do * self.p_o
  => dnew = dc + dh * o * (1 - u**2)
path: dc = dnew * f + di * self.p_i + df * self.p_f
  => dc = dnew * f
exchanged: dc = dnew * f + di * self.p_i + df * self.p_f
  => dc = dnew * f + di * self.p_f + df * self.p_i
index: out["p_o"] = (d_a[3] * new).sum((0, 1))[None]
  => out["p_o"] = (d_a[3] * c).sum((0, 1))[None]
parameter: o = sigmoid(a[3] + self.p_o * new)
  => o = sigmoid(a[3]) ## dnew = dc ## out["p_o"]
scaled: out["p_i"] = (d_a[0] * c).sum((0, 1))[None]
  => out["p_i"] = (d_a[0] * c).mean((0, 1))[None]
exchanged: out["p_f"] = (d_a[1] * c).sum((0, 1))[None]
  => out["p_f"] = (d_a[0] * c).sum((0, 1))[None]
right: dnew = dc + dh * o * (1 - u**2) + do * self.p_o
  => dnew = do * self.p_o + dc + dh * (o - o * u**2)
"""

BASES = (
    cell("cell-rnn", "Own", RNN, RNN_EDITS),
    cell("cell-lstm", "Mine", LSTM, LSTM_EDITS),
    cell("cell-peephole", "Peephole", PEEPHOLE, PEEPHOLE_EDITS),
)
