"""Learners' code at the sizes at which it is trained: token numbers, an embedding, a long sequence."""

from __future__ import annotations

import numpy as np

from . import Base

TOKENS = r"""
import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(tokens, E, Wx, Wh, b, V):
    N, T = tokens.shape
    H = Wh.shape[0]
    h, c = np.zeros((N, H)), np.zeros((N, H))
    x = E[tokens]
    hs, cs, gates, logits = [h], [c], [], []
    for t in range(T):
        a = x[:, t] @ Wx + h @ Wh + b
        i, f, o = (sigmoid(a[:, k * H : (k + 1) * H]) for k in range(3))
        g = np.tanh(a[:, 3 * H :])
        c = f * c + i * g
        h = o * np.tanh(c)
        gates.append((i, f, o, g))
        hs.append(h)
        cs.append(c)
        logits.append(h @ V)
    return np.stack(logits, axis=1), (tokens, x, hs, cs, gates, E, Wx, Wh, V)


def backward(dlogits, cache):
    tokens, x, hs, cs, gates, E, Wx, Wh, V = cache
    dE, dWx, dWh, dV = (np.zeros_like(w) for w in (E, Wx, Wh, V))
    db = np.zeros(Wx.shape[1])
    dh, dc = np.zeros_like(hs[0]), np.zeros_like(cs[0])
    for t in reversed(range(len(gates))):
        i, f, o, g = gates[t]
        dV += hs[t + 1].T @ dlogits[:, t]
        dh = dh + dlogits[:, t] @ V.T
        tc = np.tanh(cs[t + 1])
        dc = dc + dh * o * (1 - tc ** 2)
        da = np.concatenate(
            [dc * g * i * (1 - i), dc * cs[t] * f * (1 - f), dh * tc * o * (1 - o), dc * i * (1 - g ** 2)], axis=1
        )
        dWx += x[:, t].T @ da
        dWh += hs[t].T @ da
        db += da.sum(axis=0)
        np.add.at(dE, tokens[:, t], da @ Wx.T)
        dh, dc = da @ Wh.T, dc * f
    return dE, dWx, dWh, db, dV
"""

TOKENS_EDITS = """
factor: dc * i * (1 - g ** 2)
  => dc * i * (1 - g)
path: dc = dc + dh * o * (1 - tc ** 2)
  => dc = dh * o * (1 - tc ** 2)
index: dWh += hs[t].T @ da
  => dWh += hs[t + 1].T @ da
= for +=: dV += hs[t + 1].T @ dlogits[:, t]
  => dV = hs[t + 1].T @ dlogits[:, t]
= for +=: np.add.at(dE, tokens[:, t], da @ Wx.T)
  => dE[tokens[:, t]] += da @ Wx.T
exchanged: np.add.at(dE, tokens[:, t], da @ Wx.T)
  => np.add.at(dE, tokens[:, t - 1], da @ Wx.T)
bias sum: db += da.sum(axis=0)
  => db += da.sum()
sign: dc = dc + dh * o * (1 - tc ** 2)
  => dc = dc - dh * o * (1 - tc ** 2)
missing line: db += da.sum(axis=0)
  =>
missing line: dh = dh + dlogits[:, t] @ V.T
  => ## dc = dc + dh * o * (1 - tc ** 2)
right: dc = dc + dh * o * (1 - tc ** 2)
  => dc = dc + (1 - tc * tc) * o * dh
"""

LOSS = r"""
import numpy as np

def lossfun(inputs, targets, hprev, Wxh, Whh, Why, bh, by):
    xs, hs, ps = {}, {}, {}
    hs[-1] = np.copy(hprev)
    loss = 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((Wxh.shape[1], 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t - 1]) + bh)
        ys = np.dot(Why, hs[t]) + by
        ps[t] = np.exp(ys) / np.sum(np.exp(ys))
        loss += -np.log(ps[t][targets[t], 0])
    dWxh, dWhh, dWhy = np.zeros_like(Wxh), np.zeros_like(Whh), np.zeros_like(Why)
    dbh, dby = np.zeros_like(bh), np.zeros_like(by)
    dhnext = np.zeros_like(hs[0])
    for t in reversed(range(len(inputs))):
        dy = np.copy(ps[t])
        dy[targets[t]] -= 1
        dWhy += np.dot(dy, hs[t].T)
        dby += dy
        dh = np.dot(Why.T, dy) + dhnext
        dhraw = (1 - hs[t] * hs[t]) * dh
        dbh += dhraw
        dWxh += np.dot(dhraw, xs[t].T)
        dWhh += np.dot(dhraw, hs[t - 1].T)
        dhnext = np.dot(Whh.T, dhraw)
    return loss, dWxh, dWhh, dWhy, dbh, dby
"""

LOSS_EDITS = """
index: dWhh += np.dot(dhraw, hs[t - 1].T)
  => dWhh += np.dot(dhraw, hs[t].T)
path: dh = np.dot(Why.T, dy) + dhnext
  => dh = np.dot(Why.T, dy)
factor: dhraw = (1 - hs[t] * hs[t]) * dh
  => dhraw = hs[t] * dh
loss: dy[targets[t]] -= 1
  => dy[inputs[t]] -= 1
right: dhraw = (1 - hs[t] * hs[t]) * dh
  => dhraw = dh - hs[t] * hs[t] * dh
"""


def tokens(classes: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(classes).integers(0, classes, shape)


BASES = [
    Base(
        "tokens",
        "packed",
        lambda m, r: (
            m.forward,
            m.backward,
            (tokens(40, 6, 10), r(40, 12), r(12, 80), r(20, 80), r(80), r(20, 40)),
        ),
        TOKENS,
        TOKENS_EDITS,
    ),
    Base(
        "chars",
        "loss",
        lambda m, r: (
            m.lossfun,
            tokens(50, 12).tolist(),
            tokens(49, 12).tolist(),
            r(32, 1),
            r(32, 50),
            r(32, 32),
            r(50, 32),
            r(32, 1),
            r(50, 1),
        ),
        LOSS,
        LOSS_EDITS,
        ("Wxh", "Whh", "Why", "bh", "by"),
    ),
]
