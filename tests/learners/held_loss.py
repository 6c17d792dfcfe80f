"""Functions that are only scored: the loss inside, with nested helpers or an embedding."""

import numpy as np

from . import Base

NESTED = r'''
import numpy as np


def objective(frames, wanted, h0, net):
    """An LSTM that predicts numbers: half the squared error, averaged over the sequences."""
    size, count = h0.shape[1], h0.shape[0]

    def sig(v):
        return 1 / (1 + np.exp(-v))

    def one(x, h, c):
        q = np.concatenate([x, h], axis=1) @ net["W"] + net["b"]
        g, i, f, o = (q[:, k * size:(k + 1) * size] for k in range(4))
        g, i, f, o = np.tanh(g), sig(i), sig(f), sig(o)
        m = i * g + f * c
        return o * np.tanh(m), m, (x, h, c, g, i, f, o, m)

    def one_back(dh, dm, stored):
        x, h, c, g, i, f, o, m = stored
        tm = np.tanh(m)
        dm = dm + dh * o * (1 - tm**2)
        dq = np.concatenate([
            dm * i * (1 - g**2),
            dm * g * i * (1 - i),
            dm * c * f * (1 - f),
            dh * tm * o * (1 - o),
        ], axis=1)
        back = dq @ net["W"].T
        dW = np.concatenate([x, h], axis=1).T @ dq
        return back[:, x.shape[1]:], dm * f, dW, dq.sum(0)

    h, c, loss, stack = h0, np.zeros_like(h0), 0.0, []
    for x, y in zip(frames, wanted):
        h, c, stored = one(x, h, c)
        guess = h @ net["V"] + net["v"]
        diff = guess - y
        loss += 0.5 * np.sum(diff**2) / count
        stack.append((stored, h, diff))
    grads = {"d" + name: 0 for name in net}
    dh = dm = np.zeros_like(h0)
    while stack:
        stored, h_t, diff = stack.pop()
        delta = diff / count
        grads["dV"] = grads["dV"] + h_t.T @ delta
        grads["dv"] = grads["dv"] + delta.sum(0)
        dh = dh + delta @ net["V"].T
        dh, dm, dW, db = one_back(dh, dm, stored)
        grads["dW"] = grads["dW"] + dW
        grads["db"] = grads["db"] + db
    return loss, grads, h
'''

NESTED_EDITS = """
loss: delta = diff / count
  => delta = 2 * diff / count
loss: delta = diff / count
  => delta = diff / (count * len(frames))
loss: delta = diff / count
  => delta = diff
= for +=: grads["dW"] = grads["dW"] + dW
  => grads["dW"] = dW
= for +=: grads["dv"] = grads["dv"] + delta.sum(0)
  => grads["dv"] = delta.sum(0)
bias sum: return back[:, x.shape[1]:], dm * f, dW, dq.sum(0)
  => return back[:, x.shape[1]:], dm * f, dW, dq[0]
index: return back[:, x.shape[1]:], dm * f, dW, dq.sum(0)
  => return back[:, :size], dm * f, dW, dq.sum(0)
again: dh * tm * o * (1 - o),
  => dh * tm * sig(o) * (1 - sig(o)),
brackets: dm = dm + dh * o * (1 - tm**2)
  => dm = (dm + dh * o) * (1 - tm**2)
path: return back[:, x.shape[1]:], dm * f, dW, dq.sum(0)
  => return back[:, x.shape[1]:], dm, dW, dq.sum(0)
order: dW = np.concatenate([x, h], axis=1).T @ dq
  => dW = np.concatenate([h, x], axis=1).T @ dq
path: dh = dh + delta @ net["V"].T
  => dh = delta @ net["V"].T
carry: dh, dm, dW, db = one_back(dh, dm, stored)
  => dh, _, dW, db = one_back(dh, dm, stored)
sign: diff = guess - y
  => diff = y - guess ## delta = diff / count
two: dm * i * (1 - g**2),
  => dm * i * (1 - g),
  && grads["dV"] = grads["dV"] + h_t.T @ delta => grads["dV"] = h_t.T @ delta
right: delta = diff / count
  => delta = np.clip(diff / count, -100, 100)
"""

EMBED = r'''
import numpy as np

_r = np.random.RandomState(4)
SYMBOLS, WIDTH, UNITS = 6, 3, 4
E = _r.randn(SYMBOLS, WIDTH) * .6
A, B = _r.randn(WIDTH, 3 * UNITS) * .6, _r.randn(UNITS, 3 * UNITS) * .6
bias, bn = _r.randn(3 * UNITS) * .6, _r.randn(UNITS) * .6
C, d = _r.randn(UNITS, SYMBOLS) * .6, _r.randn(SYMBOLS) * .6


def cost(tokens, nexts, memory):
    """A GRU over tokens (T, N), the reset gate after the product; mean negative log-likelihood of a token."""
    (T, N), k = tokens.shape, UNITS
    S, R, Z, M, Q, P = [memory], [], [], [], [], []
    for row in tokens:
        a, q = E[row] @ A + bias, S[-1] @ B
        r, z = (1 / (1 + np.exp(-(a + q)[:, j * k:(j + 1) * k])) for j in (0, 1))
        q = q[:, 2 * k:] + bn
        m = np.tanh(a[:, 2 * k:] + r * q)
        S.append(z * S[-1] + (1 - z) * m)
        for store, item in zip((R, Z, M, Q), (r, z, m, q)):
            store.append(item)
        y = np.exp(S[-1] @ C + d)
        P.append(y / y.sum(1)[:, None])
    nll = -np.mean([np.log(p[np.arange(N), n]) for p, n in zip(P, nexts)])

    gE, gA, gB, gbias, gbn, gC, gd = map(np.zeros_like, (E, A, B, bias, bn, C, d))
    hot = np.eye(SYMBOLS)
    g = 0
    for t in range(T)[::-1]:
        gy = (P[t] - hot[nexts[t]]) / (T * N)
        gC += S[t + 1].T @ gy
        gd += gy.sum(0)
        g = g + gy @ C.T
        r, z, m, q = R[t], Z[t], M[t], Q[t]
        gm = g * (1 - z) * (1 - m ** 2)
        gr = gm * q * r * (1 - r)
        gz = g * (S[t] - m) * z * (1 - z)
        gq = gm * r
        ga = np.c_[gr, gz, gm]
        gs = np.c_[gr, gz, gq]
        gA += E[tokens[t]].T @ ga
        gB += S[t].T @ gs
        gbias += ga.sum(0)
        gbn += gq.sum(0)
        np.add.at(gE, tokens[t], ga @ A.T)
        g = g * z + gs @ B.T
    return nll, gE, gA, gB, gbias, gbn, gC, gd, S[-1]
'''

EMBED_EDITS = """
= for +=: np.add.at(gE, tokens[t], ga @ A.T)
  => gE[tokens[t]] = ga @ A.T
= for +=: np.add.at(gE, tokens[t], ga @ A.T)
  => gE[tokens[t]] += ga @ A.T
loss: gy = (P[t] - hot[nexts[t]]) / (T * N)
  => gy = P[t] / (T * N)
loss: gy = (P[t] - hot[nexts[t]]) / (T * N)
  => gy = (P[t] - hot[nexts[t]]) / N
loss: gy = (P[t] - hot[nexts[t]]) / (T * N)
  => gy = (P[t] - hot[tokens[t]]) / (T * N)
factor: gs = np.c_[gr, gz, gq]
  => gs = np.c_[gr, gz, gm]
exchanged: gs = np.c_[gr, gz, gq]
  => gs = np.c_[gz, gr, gq]
path: g = g * z + gs @ B.T
  => g = gs @ B.T
wrong value: g = g * z + gs @ B.T
  => g = g * (1 - z) + gs @ B.T
sign: gz = g * (S[t] - m) * z * (1 - z)
  => gz = g * (m - S[t]) * z * (1 - z)
index: gB += S[t].T @ gs
  => gB += S[t - 1].T @ gs
index: gz = g * (S[t] - m) * z * (1 - z)
  => gz = g * (S[t + 1] - m) * z * (1 - z)
bias sum: gbn += gq.sum(0)
  => gbn += gm.sum(0)
brackets: gm = g * (1 - z) * (1 - m ** 2)
  => gm = g * 1 - z * (1 - m ** 2)
parameter: q = q[:, 2 * k:] + bn
  => q = q[:, 2 * k:] ## gbn += gq.sum(0)
right: gbias += ga.sum(0)
  => gbias += np.ones(N) @ ga
"""

NUMBERS = {"W": (7, 16), "b": (16,), "V": (4, 2), "v": (2,)}

BASES = (
    Base(
        "nested",
        "loss",
        lambda m, r: (m.objective, r(4, 3, 3), r(4, 3, 2), r(3, 4), {k: r(*s) for k, s in NUMBERS.items()}),
        NESTED,
        NESTED_EDITS,
    ),
    Base(
        "embed",
        "loss",
        lambda m, r: (
            m.cost,
            np.array(([0, 2], [3, 1], [5, 5], [4, 2])),
            np.array(([3, 1], [5, 5], [4, 2], [0, 3])),
            r(2, 4),
        ),
        EMBED,
        EMBED_EDITS,
        ("E", "A", "B", "bias", "bn", "C", "d"),
    ),
)
