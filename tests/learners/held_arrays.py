"""Functions that are only scored: packed and split gates, arrays by time and gates in a dict."""

from . import Base

ROWS = r'''
import numpy as np


def squash(v):
    return np.reciprocal(1.0 + np.exp(-v))


def unroll(seq, start, memory, K, R, bias):
    """Time first; the packed gates are out, keep, write, new."""
    steps, batch, _ = seq.shape
    size = start.shape[-1]
    H = np.zeros((steps + 1, batch, size))
    C = np.zeros_like(H)
    A = np.empty((steps, batch, 4 * size))
    H[0], C[0] = start, memory
    for n in range(steps):
        act = A[n]
        np.dot(seq[n], K, out=act)
        act += H[n].dot(R)
        act += bias
        act[:, : 3 * size] = squash(act[:, : 3 * size])
        act[:, 3 * size :] = np.tanh(act[:, 3 * size :])
        out, keep, write, new = np.split(act, 4, axis=1)
        C[n + 1] = keep * C[n] + write * new
        H[n + 1] = out * np.tanh(C[n + 1])
    return H[1:], C[steps], (seq, H, C, A, K, R)


def unroll_grad(gH, gC, saved):
    seq, H, C, A, K, R = saved
    steps, batch, size = gH.shape
    gA = np.zeros_like(A)
    gh = np.zeros((batch, size))
    gc = gC.copy()
    n = steps
    while n > 0:
        n -= 1
        out, keep, write, new = np.split(A[n], 4, axis=1)
        g_out, g_keep, g_write, g_new = np.split(gA[n], 4, axis=1)
        gh = gh + gH[n]
        squashed = np.tanh(C[n + 1])
        gc += gh * out * (1 - squashed * squashed)
        g_out[:] = gh * squashed
        g_keep[:] = gc * C[n]
        g_write[:] = gc * new
        g_new[:] = gc * write * (1 - new * new)
        gates = A[n][:, : 3 * size]
        gA[n][:, : 3 * size] *= gates * (1 - gates)
        gh = np.einsum("bk,hk->bh", gA[n], R)
        gc *= keep
    gK = np.einsum("tbd,tbk->dk", seq, gA)
    gR = np.einsum("tbh,tbk->hk", H[:-1], gA)
    return np.einsum("tbk,dk->tbd", gA, K), gh, gc, gK, gR, np.einsum("tbk->k", gA)
'''

ROWS_EDITS = """
carry: gc *= keep
  => ## gc += gh * out
wrong value: gc *= keep
  => gc *= write
factor: gA[n][:, : 3 * size] *= gates * (1 - gates)
  => gA[n][:, : 3 * size] *= 1 - gates
again: gA[n][:, : 3 * size] *= gates * (1 - gates)
  => gA[n][:, : 3 * size] *= squash(gates) * (1 - squash(gates))
exchanged: g_out, g_keep, g_write, g_new = np.split(gA[n], 4, axis=1)
  => g_keep, g_out, g_write, g_new = np.split(gA[n], 4, axis=1)
index: gR = np.einsum("tbh,tbk->hk", H[:-1], gA)
  => gR = np.einsum("tbh,tbk->hk", H[1:], gA)
index: g_keep[:] = gc * C[n]
  => g_keep[:] = gc * C[n - 1]
index: squashed = np.tanh(C[n + 1])
  => squashed = np.tanh(C[n])
bias sum: np.einsum("tbk->k", gA)
  => np.einsum("bk->k", gA[0])
= for +=: gc += gh * out * (1 - squashed * squashed)
  => gc = gh * out * (1 - squashed * squashed)
path: gh = gh + gH[n]
  => gh = gH[n]
clip: gc *= keep
  => gc *= keep\\nnp.clip(gc, -0.1, 0.1, out=gc)
order: gc += gh * out * (1 - squashed * squashed)
  => gc += gh * (1 - squashed * squashed)\\ngc *= out
brackets: g_new[:] = gc * write * (1 - new * new)
  => g_new[:] = gc * write * 1 - new * new
truncated: while n > 0:
  => while n > 1: ## n = steps ## n -= 1
path: gc = gC.copy()
  => gc = np.zeros_like(gC)
right: gc *= keep
  => gc = keep * gc
right: gA[n][:, : 3 * size] *= gates * (1 - gates)
  => view = gA[n][:, : 3 * size]\\nview *= gates\\nview -= view * gates
scaled: gh = gh + gH[n]
  => gh = gh + gH[n] / steps
"""

ROWS_SQUARE = """
wx for wh: gh = np.einsum("bk,hk->bh", gA[n], R)
  => gh = np.einsum("bk,hk->bh", gA[n], K)
exchanged: return np.einsum("tbk,dk->tbd", gA, K), gh, gc, gK, gR, np.einsum("tbk->k", gA)
  => return np.einsum("tbk,dk->tbd", gA, K), gh, gc, gR, gK, np.einsum("tbk->k", gA)
wx for wh: return np.einsum("tbk,dk->tbd", gA, K), gh
  => return np.einsum("tbk,dk->tbd", gA, R), gh
"""

GATES = r"""
import numpy as np

GATES = ("update", "forget", "output")


def logistic(z):
    return 0.5 * (1 + np.tanh(z / 2))


def advance(x, h, c, weights):
    inp = np.vstack([x, h])
    act = {g: logistic(weights["W_" + g] @ inp + weights["b_" + g]) for g in GATES}
    act["cell"] = np.tanh(weights["W_cell"] @ inp + weights["b_cell"])
    memory = act["update"] * act["cell"] + act["forget"] * c
    return act["output"] * np.tanh(memory), memory, dict(act=act, inp=inp, old=c, memory=memory, weights=weights)


def retreat(d_h, d_memory, kept):
    act, inp, weights = kept["act"], kept["inp"], kept["weights"]
    through = d_h * act["output"] * (1 - np.tanh(kept["memory"]) ** 2)
    d_memory = d_memory + through
    error = {
        "output": d_h * np.tanh(kept["memory"]),
        "update": d_memory * act["cell"],
        "forget": d_memory * kept["old"],
    }
    delta = {g: error[g] * act[g] * (1 - act[g]) for g in GATES}
    delta["cell"] = d_memory * act["update"] * (1 - act["cell"] ** 2)
    d_inp = sum(weights["W_" + g].T @ delta[g] for g in delta)
    grads = {"dW_" + g: delta[g] @ inp.T for g in delta}
    grads.update({"db_" + g: delta[g].sum(axis=1, keepdims=True) for g in delta})
    split = len(inp) - len(d_h)
    grads.update(dx=d_inp[:split], dh=d_inp[split:], dc=d_memory * act["forget"])
    return grads
"""

GATES_EDITS = """
again: delta = {g: error[g] * act[g] * (1 - act[g]) for g in GATES}
  => delta = {g: error[g] * logistic(act[g]) * (1 - logistic(act[g])) for g in GATES}
again: delta["cell"] = d_memory * act["update"] * (1 - act["cell"] ** 2)
  => delta["cell"] = d_memory * act["update"] * (1 - np.tanh(act["cell"]) ** 2)
exchanged: "update": d_memory * act["cell"],
  => "update": d_memory * kept["old"],
path: d_inp = sum(weights["W_" + g].T @ delta[g] for g in delta)
  => d_inp = sum(weights["W_" + g].T @ delta[g] for g in GATES)
order: dx=d_inp[:split], dh=d_inp[split:]
  => dx=d_inp[-split:], dh=d_inp[:-split]
scaled: "db_" + g: delta[g].sum(axis=1, keepdims=True)
  => "db_" + g: delta[g].mean(axis=1, keepdims=True)
path: d_memory = d_memory + through
  => d_memory = through
doubled: d_memory = d_memory + through
  => d_memory = d_memory + through + through
wrong value: dc=d_memory * act["forget"]
  => dc=d_memory * act["update"]
factor: through = d_h * act["output"] * (1 - np.tanh(kept["memory"]) ** 2)
  => through = d_h * (1 - np.tanh(kept["memory"]) ** 2)
wrong value: "output": d_h * np.tanh(kept["memory"]),
  => "output": d_h * kept["memory"],
sign: (1 - act["cell"] ** 2)
  => (1 + act["cell"] ** 2)
two: "forget": d_memory * kept["old"],
  => "forget": d_memory * kept["memory"],
  && grads = {"dW_" + g: delta[g] @ inp.T for g in delta} => grads = {"dW_" + g: 2 * delta[g] @ inp.T for g in delta}
right: d_inp = sum(weights["W_" + g].T @ delta[g] for g in delta)
  => d_inp = np.vstack(list(delta.values())).T @ np.vstack([weights["W_" + g] for g in delta])\\nd_inp = d_inp.T
"""

SHAPES = {f"{w}_{g}": (4, 7) if w == "W" else (4, 1) for g in ("update", "forget", "output", "cell") for w in "Wb"}

BASES = (
    Base(
        "rows",
        "packed",
        lambda m, r: (m.unroll, m.unroll_grad, [r(*s) for s in ((5, 2, 3), (2, 4), (2, 4), (3, 16), (4, 16), (16,))]),
        ROWS,
        ROWS_EDITS,
    ),
    Base(
        "rows-square",
        "packed",
        lambda m, r: (m.unroll, m.unroll_grad, [r(*s) for s in ((5, 2, 4), (2, 4), (2, 4), (4, 16), (4, 16), (16,))]),
        ROWS,
        ROWS_SQUARE,
    ),
    Base(
        "gates",
        "dict",
        lambda m, r: (m.advance, m.retreat, (r(3, 2), r(4, 2), r(4, 2), {k: r(*s) for k, s in SHAPES.items()})),
        GATES,
        GATES_EDITS,
    ),
)
