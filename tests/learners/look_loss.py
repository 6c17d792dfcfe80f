"""Functions that may be read: one function with the loss inside, and a time loop with lambdas and buffers."""

from . import Base

CHAR_RNN = r"""
import numpy as np

rng = np.random.default_rng(1)
V, H = 5, 4
Wxh, Whh, Why = (rng.normal(0, 0.5, s) for s in ((H, V), (H, H), (V, H)))
bh, by = rng.normal(0, 0.5, (H, 1)), rng.normal(0, 0.5, (V, 1))


def lossFun(inputs, targets, hprev):
    xs, hs, ys, ps = {}, {}, {}, {}
    hs[-1] = np.copy(hprev)
    loss = 0
    for t in range(len(inputs)):
        xs[t] = np.zeros((V, 1))
        xs[t][inputs[t]] = 1
        hs[t] = np.tanh(np.dot(Wxh, xs[t]) + np.dot(Whh, hs[t-1]) + bh)
        ys[t] = np.dot(Why, hs[t]) + by
        ps[t] = np.exp(ys[t]) / np.sum(np.exp(ys[t]))
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
        dWhh += np.dot(dhraw, hs[t-1].T)
        dhnext = np.dot(Whh.T, dhraw)
    for dparam in [dWxh, dWhh, dWhy, dbh, dby]:
        np.clip(dparam, -5, 5, out=dparam)
    return loss, dWxh, dWhh, dWhy, dbh, dby, hs[len(inputs)-1]
"""

CHAR_RNN_EDITS = """
loss: dy[targets[t]] -= 1
  => ## dy = np.copy(ps[t])
loss: dy = np.copy(ps[t])
  => dy = 2 * np.copy(ps[t]) ## dy[targets[t]] -= 1
loss: dy[targets[t]] -= 1
  => dy[targets[t]] -= 1\\ndy /= len(inputs) ## dy[targets[t]] -= 1
transpose: dhnext = np.dot(Whh.T, dhraw)
  => dhnext = np.dot(Whh, dhraw)
index: dWhh += np.dot(dhraw, hs[t-1].T)
  => dWhh += np.dot(dhraw, hs[t].T)
= for +=: dbh += dhraw
  => dbh = dhraw
path: dh = np.dot(Why.T, dy) + dhnext
  => dh = np.dot(Why.T, dy)
brackets: dhraw = (1 - hs[t] * hs[t]) * dh
  => dhraw = 1 - hs[t] * hs[t] * dh
again: dhraw = (1 - hs[t] * hs[t]) * dh
  => dhraw = (1 - np.tanh(hs[t]) ** 2) * dh
clip: np.clip(dparam, -5, 5, out=dparam)
  => np.clip(dparam, -0.1, 0.1, out=dparam)
carry: dhnext = np.dot(Whh.T, dhraw)
  => dhprev = np.dot(Whh.T, dhraw)
order: dbh += dhraw
  => dbh += dh
truncated: dhnext = np.dot(Whh.T, dhraw)
  => dhnext = np.dot(Whh.T, dhraw) * (t > 1)
doubled: dhnext = np.dot(Whh.T, dhraw)
  => dhnext += np.dot(Whh.T, dhraw)
right: dy[targets[t]] -= 1
  => dy = dy - np.eye(V)[:, targets[t]].reshape(-1, 1)
"""

GRU_LOSS = r"""
import numpy as np


def sig(v): return 1 / (1 + np.exp(-v))


def gru_loss(inputs, targets, h_prev, params):
    Wz, Wr, Wn, Uz, Ur, Un, Wy = [params[k] for k in ("Wz", "Wr", "Wn", "Uz", "Ur", "Un", "Wy")]
    h, z, r, n, p = [h_prev], [], [], [], []
    loss = 0.0
    for t, x in enumerate(inputs):
        z.append(sig(x @ Wz + h[t] @ Uz))
        r.append(sig(x @ Wr + h[t] @ Ur))
        n.append(np.tanh(x @ Wn + (r[t] * h[t]) @ Un))
        h.append((1 - z[t]) * h[t] + z[t] * n[t])
        scores = h[-1] @ Wy
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        p.append(e / e.sum(axis=1, keepdims=True))
        loss -= np.log(p[t][np.arange(len(x)), targets[t]]).sum() / len(x)
    grads = {"d" + k: np.zeros_like(v) for k, v in params.items()}
    carry = np.zeros_like(h_prev)
    for t in range(len(inputs) - 1, -1, -1):
        x, rows = inputs[t], np.arange(len(inputs[t]))
        ds = p[t].copy()
        ds[rows, targets[t]] -= 1
        ds /= len(x)
        grads["dWy"] += h[t + 1].T @ ds
        dh = ds @ Wy.T + carry
        dn = dh * z[t] * (1 - n[t] ** 2)
        dz = dh * (n[t] - h[t]) * z[t] * (1 - z[t])
        drh = dn @ Un.T
        dr = drh * h[t] * r[t] * (1 - r[t])
        grads["dWz"] += x.T @ dz
        grads["dWr"] += x.T @ dr
        grads["dWn"] += x.T @ dn
        grads["dUz"] += h[t].T @ dz
        grads["dUr"] += h[t].T @ dr
        grads["dUn"] += (r[t] * h[t]).T @ dn
        carry = dh * (1 - z[t]) + drh * r[t] + dz @ Uz.T + dr @ Ur.T
    return loss, grads, h[-1]
"""

GRU_EDITS = """
sign: dz = dh * (n[t] - h[t]) * z[t] * (1 - z[t])
  => dz = dh * (h[t] - n[t]) * z[t] * (1 - z[t])
path: carry = dh * (1 - z[t]) + drh * r[t] + dz @ Uz.T + dr @ Ur.T
  => carry = dh * (1 - z[t]) + dz @ Uz.T + dr @ Ur.T
factor: grads["dUn"] += (r[t] * h[t]).T @ dn
  => grads["dUn"] += h[t].T @ dn
wrong value: carry = dh * (1 - z[t]) + drh * r[t] + dz @ Uz.T + dr @ Ur.T
  => carry = dh * z[t] + drh * r[t] + dz @ Uz.T + dr @ Ur.T
loss: ds /= len(x)
  => ds /= len(x) * len(inputs)
loss: ds /= len(x)
  => ## ds[rows, targets[t]] -= 1 ## ds = p[t].copy()
index: grads["dWy"] += h[t + 1].T @ ds
  => grads["dWy"] += h[t].T @ ds
index: dr = drh * h[t] * r[t] * (1 - r[t])
  => dr = drh * h[t] * r[t - 1] * (1 - r[t - 1])
exchanged: + dz @ Uz.T + dr @ Ur.T
  => + dz @ Ur.T + dr @ Uz.T
= for +=: grads["dWr"] += x.T @ dr
  => grads["dWr"] = x.T @ dr
d0: dn = dh * z[t] * (1 - n[t] ** 2)
  => dn = dh * z[t] - n[t] ** 2
two: dr = drh * h[t] * r[t] * (1 - r[t])
  => dr = drh * h[t] * r[t]
  && grads["dWn"] += x.T @ dn => grads["dWn"] += x.T @ dz
right: dh = ds @ Wy.T + carry
  => dh = np.add(carry, np.einsum("bv,hv->bh", ds, Wy))
"""

RELU_CALLS = r'''
import numpy as np


def forward(xs, h0, W, U, b):
    """h_t = leaky ReLU of the mean-free pre-activation; time is the first axis."""
    hs, zs = np.empty((len(xs) + 1, *h0.shape)), np.empty((len(xs), *h0.shape))
    hs[0] = h0
    for t in range(len(xs)):
        z = xs[t] @ W + hs[t] @ U + b
        zs[t] = z - z.mean(axis=1, keepdims=True)
        hs[t + 1] = np.where(zs[t] > 0, zs[t], 0.1 * zs[t])
    return hs[1:], (xs, hs, zs, W, U)


def backward(dhs, cache):
    xs, hs, zs, W, U = cache
    slope = lambda z: np.where(z > 0, 1.0, 0.1)
    centre = lambda d: d - d.mean(axis=1, keepdims=True)
    dz, dh = np.zeros_like(zs), np.zeros_like(hs[0])
    for t in range(len(xs))[::-1]:
        dh += dhs[t]
        np.multiply(dh, slope(zs[t]), out=dz[t])
        dz[t] = centre(dz[t])
        dh = dz[t] @ U.T
    dU = sum(hs[t].T @ dz[t] for t in range(len(xs)))
    dW = np.einsum("tbd,tbh->dh", xs, dz)
    return dz @ W.T, dh, dW, dU, dz.sum(axis=(0, 1))
'''

RELU_EDITS = """
piecewise: slope = lambda z: np.where(z > 0, 1.0, 0.1)
  => slope = lambda z: np.where(z > 0, 1.0, 0.0) ## np.multiply(dh, slope(zs[t]), out=dz[t])
piecewise: slope = lambda z: np.where(z > 0, 1.0, 0.1)
  => slope = lambda z: np.where(z < 0, 1.0, 0.1) ## np.multiply(dh, slope(zs[t]), out=dz[t])
piecewise: np.multiply(dh, slope(zs[t]), out=dz[t])
  => np.multiply(dh, slope(dh), out=dz[t])
mean: dz[t] = centre(dz[t])
  => ## np.multiply(dh, slope(zs[t]), out=dz[t])
axis: centre = lambda d: d - d.mean(axis=1, keepdims=True)
  => centre = lambda d: d - d.mean(axis=0, keepdims=True) ## dz[t] = centre(dz[t])
index: dU = sum(hs[t].T @ dz[t] for t in range(len(xs)))
  => dU = sum(hs[t].T @ dz[t] for t in range(1, len(xs)))
index: dU = sum(hs[t].T @ dz[t] for t in range(len(xs)))
  => dU = sum(hs[t + 1].T @ dz[t] for t in range(len(xs)))
other step: dU = sum(hs[t].T @ dz[t] for t in range(len(xs)))
  => dU = sum(hs[t].T @ dz[0] for t in range(len(xs)))
bias sum: return dz @ W.T, dh, dW, dU, dz.sum(axis=(0, 1))
  => return dz @ W.T, dh, dW, dU, dz[0].sum(axis=0)
= for +=: dh += dhs[t]
  => dh = dhs[t]
order: dz[t] = centre(dz[t])
  => dz[t] = centre(dh) * slope(zs[t])
right: dU = sum(hs[t].T @ dz[t] for t in range(len(xs)))
  => dU = sum(hs[t - 1].T @ dz[t - 1] for t in range(1, len(xs) + 1))
right: dh = dz[t] @ U.T
  => norm = np.linalg.norm(dz[t])\\ndh = dz[t] @ U.T * min(1, 100 / norm)
"""

GRU_WEIGHTS = {f"W{k}": (3, 4) for k in "zrn"} | {f"U{k}": (4, 4) for k in "zrn"} | {"Wy": (4, 5)}

BASES = (
    Base(
        "char-rnn",
        "loss",
        lambda m, r: (m.lossFun, [0, 3, 1, 4], [3, 1, 4, 2], r(4, 1)),
        CHAR_RNN,
        CHAR_RNN_EDITS,
        ("Wxh", "Whh", "Why", "bh", "by"),
    ),
    Base(
        "gru-loss",
        "loss",
        lambda m, r: (
            m.gru_loss,
            r(5, 2, 3),
            [[0, 3], [1, 4], [2, 2], [4, 0], [1, 3]],
            r(2, 4),
            {k: r(*s) for k, s in GRU_WEIGHTS.items()},
        ),
        GRU_LOSS,
        GRU_EDITS,
    ),
    Base(
        "relu-calls",
        "other",
        lambda m, r: (m.forward, m.backward, (r(5, 2, 3), r(2, 4), r(3, 4), r(4, 4), r(4))),
        RELU_CALLS,
        RELU_EDITS,
    ),
)
