"""Functions that are only scored: peepholes in columns, a class in functions, two layers beside a reversed one."""

from . import Base

COLUMNS = r'''
import numpy as np
from collections import namedtuple

Record = namedtuple("Record", "x h c i f g o s")


def sgm(q):
    return np.where(q >= 0, 1 / (1 + np.exp(-np.abs(q))), 1 - 1 / (1 + np.exp(-np.abs(q))))


def peephole_forward(xs, U, V, P, b):
    """Columns; U (4, H, D), V (4, H, H), P (3, H, 1), b (4, H, 1) for i, f, g, o; peepholes for i, f, o."""
    hidden = V.shape[1]
    h = c = np.zeros((hidden, xs.shape[2]))
    records = []
    for x in xs:
        q = U @ x + V @ h + b
        i, f, g = sgm(q[0] + P[0] * c), sgm(q[1] + P[1] * c), np.tanh(q[2])
        s = f * c + i * g
        o = sgm(q[3] + P[2] * s)
        records.append(Record(x, h, c, i, f, g, o, s))
        h, c = o * np.tanh(s), s
    return np.stack([rec.o * np.tanh(rec.s) for rec in records]), (records, U, V, P, b)


def peephole_backward(dhs, cache):
    records, U, V, P, b = cache
    dU, dV, dP, db = (np.zeros_like(w) for w in (U, V, P, b))
    dxs = []
    h_bar, c_bar = 0, 0
    for rec, dh in zip(reversed(records), dhs[::-1]):
        h_bar = h_bar + dh
        u = np.tanh(rec.s)
        q_o = h_bar * u * rec.o * (1 - rec.o)
        s_bar = c_bar + h_bar * rec.o * (1 - u * u) + P[2] * q_o
        q_i = s_bar * rec.g * rec.i * (1 - rec.i)
        q_f = s_bar * rec.c * rec.f * (1 - rec.f)
        q_g = s_bar * rec.i * (1 - rec.g * rec.g)
        q_bar = np.array([q_i, q_f, q_g, q_o])
        dU += q_bar @ rec.x.T
        dV += q_bar @ rec.h.T
        db += q_bar.sum(axis=-1, keepdims=True)
        for k, (q, m) in enumerate(((q_i, rec.c), (q_f, rec.c), (q_o, rec.s))):
            dP[k] += np.sum(q * m, axis=1, keepdims=True)
        dxs.insert(0, np.einsum("ghd,ghb->db", U, q_bar))
        h_bar = np.einsum("ghk,ghb->kb", V, q_bar)
        c_bar = s_bar * rec.f + P[0] * q_i + P[1] * q_f
    return np.stack(dxs), dU, dV, dP, db
'''

COLUMNS_EDITS = """
path: c_bar = s_bar * rec.f + P[0] * q_i + P[1] * q_f
  => c_bar = s_bar * rec.f + P[0] * q_i
path: s_bar = c_bar + h_bar * rec.o * (1 - u * u) + P[2] * q_o
  => s_bar = c_bar + h_bar * rec.o * (1 - u * u)
exchanged: s_bar = c_bar + h_bar * rec.o * (1 - u * u) + P[2] * q_o
  => s_bar = c_bar + h_bar * rec.o * (1 - u * u) + P[1] * q_o
index: (q_o, rec.s))):
  => (q_o, rec.c))): ## dP[k] +=
= for +=: dP[k] += np.sum(q * m, axis=1, keepdims=True)
  => dP[k] = np.sum(q * m, axis=1, keepdims=True)
transpose: h_bar = np.einsum("ghk,ghb->kb", V, q_bar)
  => h_bar = np.einsum("gkh,ghb->kb", V, q_bar)
index: for rec, dh in zip(reversed(records), dhs[::-1]):
  => for rec, dh in zip(reversed(records), dhs):
exchanged: q_bar = np.array([q_i, q_f, q_g, q_o])
  => q_bar = np.array([q_f, q_i, q_g, q_o])
carry: h_bar = np.einsum("ghk,ghb->kb", V, q_bar)
  => ## h_bar = h_bar + dh
factor: q_f = s_bar * rec.c * rec.f * (1 - rec.f)
  => q_f = s_bar * rec.f * (1 - rec.f)
wrong value: q_g = s_bar * rec.i * (1 - rec.g * rec.g)
  => q_g = s_bar * rec.i * (1 - rec.g)
other step: dU += q_bar @ rec.x.T
  => dU += q_bar @ records[0].x.T
clip: h_bar = h_bar + dh
  => h_bar = h_bar + dh\\nh_bar /= max(1, np.linalg.norm(h_bar))
parameter: i, f, g = sgm(q[0] + P[0] * c), sgm(q[1] + P[1] * c), np.tanh(q[2])
  => i, f, g = sgm(q[0]), sgm(q[1] + P[1] * c), np.tanh(q[2]) ## c_bar = s_bar ## dP[k] += ## enumerate(
right: dxs.insert(0, np.einsum("ghd,ghb->db", U, q_bar))
  => dxs[:0] = [sum(W.T @ q for W, q in zip(U, q_bar))]
right: h_bar = h_bar + dh
  => h_bar = h_bar + dh\\nh_bar = h_bar * min(1, 1e6 / np.linalg.norm(h_bar))
"""

CLASS = r'''
from dataclasses import dataclass

import numpy as np


@dataclass
class Moment:
    x: np.ndarray
    h: np.ndarray
    r: np.ndarray
    z: np.ndarray
    n: np.ndarray


class Layer:
    """GRU, the reset gate before the product; the weights of a step are those of [x, h]."""

    def __init__(self, Wr, Wz, Wn):
        self.Wr, self.Wz, self.Wn = Wr, Wz, Wn
        self.moments = []

    @staticmethod
    def gate(v):
        return 1 / (1 + np.exp(-v))

    def forward(self, x, h):
        v = np.hstack([x, h])
        r, z = self.gate(v @ self.Wr), self.gate(v @ self.Wz)
        n = np.tanh(np.hstack([x, r * h]) @ self.Wn)
        self.moments.append(Moment(x, h, r, z, n))
        return h + z * (n - h)

    def backward(self, dh, moment):
        x, h, r, z, n = moment.x, moment.h, moment.r, moment.z, moment.n
        D = x.shape[1]
        dn = dh * z * (1 - n**2)
        dz = dh * (n - h) * z * (1 - z)
        dw = dn @ self.Wn.T
        dr = dw[:, D:] * h * r * (1 - r)
        dv = dz @ self.Wz.T + dr @ self.Wr.T
        self.dWn += np.hstack([x, r * h]).T @ dn
        self.dWz += np.hstack([x, h]).T @ dz
        self.dWr += np.hstack([x, h]).T @ dr
        dx = dw[:, :D] + dv[:, :D]
        return dx, dh * (1 - z) + dw[:, D:] * r + dv[:, D:]

    def through_time(self, dhs):
        self.dWr, self.dWz, self.dWn = (np.zeros_like(w) for w in (self.Wr, self.Wz, self.Wn))
        dxs, carried = [], np.zeros_like(dhs[0])
        for dh, moment in reversed(list(zip(dhs, self.moments))):
            dx, carried = self.backward(dh + carried, moment)
            dxs.append(dx)
        return np.array(dxs[::-1]), carried, self.dWr, self.dWz, self.dWn


def run(xs, h0, Wr, Wz, Wn):
    layer, hs = Layer(Wr, Wz, Wn), [h0]
    for x in xs:
        hs.append(layer.forward(x, hs[-1]))
    return np.array(hs[1:]), layer


def run_back(dhs, layer):
    return layer.through_time(dhs)
'''

CLASS_EDITS = """
path: dx = dw[:, :D] + dv[:, :D]
  => dx = dv[:, :D]
path: return dx, dh * (1 - z) + dw[:, D:] * r + dv[:, D:]
  => return dx, dh * (1 - z) + dv[:, D:]
factor: dr = dw[:, D:] * h * r * (1 - r)
  => dr = dw[:, D:] * r * (1 - r)
factor: self.dWn += np.hstack([x, r * h]).T @ dn
  => self.dWn += np.hstack([x, h]).T @ dn
exchanged: dv = dz @ self.Wz.T + dr @ self.Wr.T
  => dv = dz @ self.Wr.T + dr @ self.Wz.T
= for +=: self.dWz += np.hstack([x, h]).T @ dz
  => self.dWz = np.hstack([x, h]).T @ dz
order: return np.array(dxs[::-1]), carried
  => return np.array(dxs), carried
path: dx, carried = self.backward(dh + carried, moment)
  => dx, carried = self.backward(dh, moment)
clip: dx, carried = self.backward(dh + carried, moment)
  => dx, carried = self.backward(np.clip(dh + carried, -0.5, 0.5), moment)
again: dz = dh * (n - h) * z * (1 - z)
  => dz = dh * (n - h) * self.gate(z) * (1 - z)
d0: dn = dh * z * (1 - n**2)
  => dn = z * (1 - n**2)
truncated: for dh, moment in reversed(list(zip(dhs, self.moments))):
  => for dh, moment in reversed(list(zip(dhs, self.moments))[1:]): ## dxs.append(dx)
right: dv = dz @ self.Wz.T + dr @ self.Wr.T
  => dv = np.hstack([dz, dr]) @ np.hstack([self.Wz, self.Wr]).T
"""

STACK = r'''
import numpy as np


def stacked(x, W1, U1, W2, U2, Uback):
    """Two tanh layers, the second with a residual connection, and a third that runs from the end to the start."""
    T, N, _ = x.shape
    low, high, rev = [np.zeros((N, len(U1)))], [np.zeros((N, len(U2)))], [np.zeros((N, len(Uback)))]
    for t in range(T):
        low.append(np.tanh(x[t] @ W1 + low[t] @ U1))
        high.append(np.tanh(low[t + 1] @ W2 + high[t] @ U2))
    for s in range(T):
        rev.append(np.tanh(x[T - 1 - s] @ W1 + rev[s] @ Uback))
    out = np.stack([np.hstack([high[t + 1] + low[t + 1], rev[T - t]]) for t in range(T)])
    return out, (x, low, high, rev, W1, U1, W2, U2, Uback)


def stacked_backward(dout, cache):
    x, low, high, rev, W1, U1, W2, U2, Uback = cache
    T, half = len(x), len(U1)
    grads = dict(dx=np.zeros_like(x))
    for key, weight in zip(("dW1", "dU1", "dW2", "dU2", "dUback"), (W1, U1, W2, U2, Uback)):
        grads[key] = np.zeros_like(weight)

    def tanh_back(d, y):
        return d * (1 - y * y)

    from_low, from_high, from_rev = 0.0, 0.0, 0.0
    for t in reversed(range(T)):
        d_top = dout[t, :, :half]
        d2 = tanh_back(d_top + from_high, high[t + 1])
        d1 = tanh_back(d_top + d2 @ W2.T + from_low, low[t + 1])
        grads["dW2"] += low[t + 1].T @ d2
        grads["dU2"] += high[t].T @ d2
        grads["dW1"] += x[t].T @ d1
        grads["dU1"] += low[t].T @ d1
        grads["dx"][t] += d1 @ W1.T
        from_high, from_low = d2 @ U2.T, d1 @ U1.T
    for s in reversed(range(T)):
        d3 = tanh_back(dout[T - 1 - s, :, half:] + from_rev, rev[s + 1])
        grads["dW1"] += x[T - 1 - s].T @ d3
        grads["dUback"] += rev[s].T @ d3
        grads["dx"][T - 1 - s] += d3 @ W1.T
        from_rev = d3 @ Uback.T
    return grads
'''

STACK_EDITS = """
path: d1 = tanh_back(d_top + d2 @ W2.T + from_low, low[t + 1])
  => d1 = tanh_back(d2 @ W2.T + from_low, low[t + 1])
index: grads["dW2"] += low[t + 1].T @ d2
  => grads["dW2"] += low[t].T @ d2
index: d3 = tanh_back(dout[T - 1 - s, :, half:] + from_rev, rev[s + 1])
  => d3 = tanh_back(dout[s, :, half:] + from_rev, rev[s + 1])
index: grads["dW1"] += x[T - 1 - s].T @ d3
  => grads["dW1"] += x[s].T @ d3
= for +=: grads["dx"][T - 1 - s] += d3 @ W1.T
  => grads["dx"][T - 1 - s] = d3 @ W1.T
exchanged: from_high, from_low = d2 @ U2.T, d1 @ U1.T
  => from_high, from_low = d2 @ U1.T, d1 @ U2.T
wx for wh: from_rev = d3 @ Uback.T
  => from_rev = d3 @ U1.T
exchanged: d_top = dout[t, :, :half]
  => d_top = dout[t, :, half:]
again: return d * (1 - y * y)
  => return d * (1 - np.tanh(y) ** 2)
carry: from_rev = d3 @ Uback.T
  => ## d3 = tanh_back(
truncated: from_high, from_low = d2 @ U2.T, d1 @ U1.T
  => from_high, from_low = d2 @ U2.T, (t > 2) * (d1 @ U1.T)
transpose: d1 = tanh_back(d_top + d2 @ W2.T + from_low, low[t + 1])
  => d1 = tanh_back(d_top + d2 @ W2 + from_low, low[t + 1])
scaled: grads["dU2"] += high[t].T @ d2
  => grads["dU2"] += high[t].T @ d2 / len(d2)
term: grads["dW1"] += x[T - 1 - s].T @ d3
  => ## grads["dUback"] += ## d3 = tanh_back( ## grads["dx"][T - 1 - s]
right: from_rev = d3 @ Uback.T
  => from_rev = np.tensordot(d3, Uback, axes=(1, 1))
right: return d * (1 - y * y)
  => return d - d * y * y if d.any() else d
"""

BASES = (
    Base(
        "columns",
        "other",
        lambda m, r: (
            m.peephole_forward,
            m.peephole_backward,
            [r(*s) for s in ((5, 3, 2), (4, 6, 3), (4, 6, 6), (3, 6, 1), (4, 6, 1))],
        ),
        COLUMNS,
        COLUMNS_EDITS,
    ),
    Base(
        "class",
        "other",
        lambda m, r: (m.run, m.run_back, [r(*s) for s in ((4, 2, 3), (2, 5), (8, 5), (8, 5), (8, 5))]),
        CLASS,
        CLASS_EDITS,
    ),
    Base(
        "stack",
        "other",
        lambda m, r: (
            m.stacked,
            m.stacked_backward,
            [r(*s) for s in ((5, 2, 3), (3, 4), (4, 4), (4, 4), (4, 4), (4, 4))],
        ),
        STACK,
        STACK_EDITS,
    ),
)
