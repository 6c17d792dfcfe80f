"""Functions that may be read: packed gates, step and sequence, and a dict of weights times [h, x]."""

from . import Base

PACKED = r"""
import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step_forward(x, prev_h, prev_c, Wx, Wh, b):
    H = prev_h.shape[1]
    a = x @ Wx + prev_h @ Wh + b
    i, f, o = sigmoid(a[:, :H]), sigmoid(a[:, H:2 * H]), sigmoid(a[:, 2 * H:3 * H])
    g = np.tanh(a[:, 3 * H:])
    next_c = f * prev_c + i * g
    next_h = o * np.tanh(next_c)
    cache = (x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c)
    return next_h, next_c, cache


def lstm_step_backward(dnext_h, dnext_c, cache):
    x, prev_h, prev_c, Wx, Wh, i, f, o, g, next_c = cache
    tanh_c = np.tanh(next_c)
    dc = dnext_c + dnext_h * o * (1 - tanh_c ** 2)
    do = dnext_h * tanh_c
    di = dc * g
    df = dc * prev_c
    dg = dc * i
    da_i = di * i * (1 - i)
    da_f = df * f * (1 - f)
    da_o = do * o * (1 - o)
    da_g = dg * (1 - g ** 2)
    da = np.hstack((da_i, da_f, da_o, da_g))
    dx = da @ Wx.T
    dprev_h = da @ Wh.T
    dprev_c = dc * f
    dWx = x.T @ da
    dWh = prev_h.T @ da
    db = da.sum(axis=0)
    return dx, dprev_h, dprev_c, dWx, dWh, db


def lstm_forward(x, h0, Wx, Wh, b):
    N, T, D = x.shape
    h = np.zeros((N, T, h0.shape[1]))
    prev_h, prev_c, caches = h0, np.zeros_like(h0), []
    for t in range(T):
        prev_h, prev_c, cache = lstm_step_forward(x[:, t], prev_h, prev_c, Wx, Wh, b)
        h[:, t] = prev_h
        caches.append(cache)
    return h, caches


def lstm_backward(dh, caches):
    N, T, H = dh.shape
    x, prev_h, prev_c, Wx, Wh = caches[0][:5]
    dx, dWx, dWh, db = np.zeros((N, T, x.shape[1])), np.zeros_like(Wx), np.zeros_like(Wh), np.zeros(4 * H)
    dnext_h, dnext_c = np.zeros((N, H)), np.zeros((N, H))
    for t in reversed(range(T)):
        step = lstm_step_backward(dh[:, t] + dnext_h, dnext_c, caches[t])
        dx[:, t] = step[0]
        dnext_h = step[1]
        dnext_c = step[2]
        dWx += step[3]
        dWh += step[4]
        db += step[5]
    return dx, dnext_h, dWx, dWh, db
"""

PACKED_STEP = """
again: da_i = di * i * (1 - i)
  => da_i = di * sigmoid(i) * (1 - sigmoid(i))
brackets: dc = dnext_c + dnext_h * o * (1 - tanh_c ** 2)
  => dc = (dnext_c + dnext_h * o) * (1 - tanh_c ** 2)
d0: da_g = dg * (1 - g ** 2)
  => da_g = dg - g ** 2
exchanged: np.hstack((da_i, da_f, da_o, da_g))
  => np.hstack((da_i, da_o, da_f, da_g))
wrong value: tanh_c = np.tanh(next_c)
  => tanh_c = np.tanh(prev_c)
factor: da_o = do * o * (1 - o)
  => da_o = do * o
path: dc = dnext_c + dnext_h * o * (1 - tanh_c ** 2)
  => dc = dnext_h * o * (1 - tanh_c ** 2)
bias sum: db = da.sum(axis=0)
  => db = da.sum()
scaled: db = da.sum(axis=0)
  => db = da.mean(axis=0)
clip: da = np.hstack((da_i, da_f, da_o, da_g))
  => da = np.clip(np.hstack((da_i, da_f, da_o, da_g)), -0.05, 0.05)
two: df = dc * prev_c
  => df = dc * next_c
  && dprev_c = dc * f => dprev_c = dc * i
right: tanh_c = np.tanh(next_c)
  => tanh_c = o * np.tanh(next_c) / o
right: dprev_h = da @ Wh.T
  => dprev_h = sum(block @ W.T for block, W in zip((da_i, da_f, da_o, da_g), np.split(Wh, 4, 1)))
"""

PACKED_SEQUENCE = """
carry: dnext_c = step[2]
  => ## dnext_h = step[1] ## dx[:, t] = step[0] ## step = lstm_step_backward
= for +=: dWh += step[4]
  => dWh = step[4]
truncated: dnext_h = step[1]
  => dnext_h = step[1] if t % 2 else np.zeros((N, H))
scaled: dWx += step[3]
  => dWx += step[3] / T
index: step = lstm_step_backward(dh[:, t] + dnext_h, dnext_c, caches[t])
  => step = lstm_step_backward(dh[:, t - 1] + dnext_h, dnext_c, caches[t])
other step: dWh = prev_h.T @ da
  => dWh = (o * np.tanh(next_c)).T @ da
path: step = lstm_step_backward(dh[:, t] + dnext_h, dnext_c, caches[t])
  => step = lstm_step_backward(dh[:, t], dnext_c, caches[t])
clip: dnext_h = step[1]
  => dnext_h = np.clip(step[1], -0.02, 0.02)
right: dnext_h = step[1]
  => dnext_h = np.clip(step[1], -5, 5)
right: for t in reversed(range(T)):
  => for t in range(T - 1, -1, -1):
scaled: dnext_h, dnext_c = np.zeros((N, H)), np.zeros((N, H))
  => dnext_h, dnext_c = np.zeros((N, H)), np.zeros((N, H))\\ndh = dh / T
exchanged: return dx, dprev_h, dprev_c, dWx, dWh, db
  => return dx, dprev_c, dprev_h, dWx, dWh, db
"""

PACKED_SQUARE = """
wx for wh: dprev_h = da @ Wh.T
  => dprev_h = da @ Wx.T
wx for wh: dx = da @ Wx.T
  => dx = da @ Wh.T
exchanged: return dx, dprev_h, dprev_c, dWx, dWh, db
  => return dx, dprev_h, dprev_c, dWh, dWx, db
wrong value: dWh = prev_h.T @ da
  => dWh = prev_c.T @ da
"""

DICT = r"""
import numpy as np


def sigmoid(x): return 1 / (1 + np.exp(-x))


def cell_forward(xt, a_prev, c_prev, parameters):
    Wf, bf, Wi, bi = (parameters[k] for k in ("Wf", "bf", "Wi", "bi"))
    Wc, bc, Wo, bo = (parameters[k] for k in ("Wc", "bc", "Wo", "bo"))
    concat = np.concatenate((a_prev, xt), axis=0)
    ft = sigmoid(np.dot(Wf, concat) + bf)
    it = sigmoid(np.dot(Wi, concat) + bi)
    cct = np.tanh(np.dot(Wc, concat) + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(np.dot(Wo, concat) + bo)
    a_next = ot * np.tanh(c_next)
    return a_next, c_next, (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters)


def cell_backward(da_next, dc_next, cache):
    (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters) = cache
    n_a, m = a_next.shape
    dot = da_next * np.tanh(c_next) * ot * (1 - ot)
    dcct = (dc_next * it + ot * (1 - np.square(np.tanh(c_next))) * it * da_next) * (1 - np.square(cct))
    dit = (dc_next * cct + ot * (1 - np.square(np.tanh(c_next))) * cct * da_next) * it * (1 - it)
    dft = (dc_next * c_prev + ot * (1 - np.square(np.tanh(c_next))) * c_prev * da_next) * ft * (1 - ft)
    concat = np.concatenate((a_prev, xt), axis=0)
    grads = {}
    grads["dWf"] = np.dot(dft, concat.T)
    grads["dWi"] = np.dot(dit, concat.T)
    grads["dWc"] = np.dot(dcct, concat.T)
    grads["dWo"] = np.dot(dot, concat.T)
    grads["dbf"] = np.sum(dft, axis=1, keepdims=True)
    grads["dbi"] = np.sum(dit, axis=1, keepdims=True)
    grads["dbc"] = np.sum(dcct, axis=1, keepdims=True)
    grads["dbo"] = np.sum(dot, axis=1, keepdims=True)
    W = parameters
    grads["da_prev"] = (np.dot(W["Wf"][:, :n_a].T, dft) + np.dot(W["Wi"][:, :n_a].T, dit)
                        + np.dot(W["Wc"][:, :n_a].T, dcct) + np.dot(W["Wo"][:, :n_a].T, dot))
    grads["dc_prev"] = dc_next * ft + ot * (1 - np.square(np.tanh(c_next))) * ft * da_next
    grads["dxt"] = (np.dot(W["Wf"][:, n_a:].T, dft) + np.dot(W["Wi"][:, n_a:].T, dit)
                    + np.dot(W["Wc"][:, n_a:].T, dcct) + np.dot(W["Wo"][:, n_a:].T, dot))
    return grads
"""

DICT_EDITS = """
brackets: (dc_next * cct + ot * (1 - np.square(np.tanh(c_next))) * cct * da_next) * it * (1 - it)
  => dc_next * cct + ot * (1 - np.square(np.tanh(c_next))) * cct * da_next * it * (1 - it)
again: dot = da_next * np.tanh(c_next) * ot * (1 - ot)
  => dot = da_next * np.tanh(c_next) * sigmoid(ot) * (1 - ot)
again: c_prev * da_next) * ft * (1 - ft)
  => c_prev * da_next) * (1 - np.tanh(ft) ** 2)
exchanged: np.dot(W["Wf"][:, :n_a].T, dft) + np.dot(W["Wi"][:, :n_a].T, dit)
  => np.dot(W["Wi"][:, :n_a].T, dft) + np.dot(W["Wf"][:, :n_a].T, dit)
exchanged: grads["dWi"] = np.dot(dit, concat.T)
  => grads["dWi"] = np.dot(dft, concat.T)
order: concat = np.concatenate((a_prev, xt), axis=0)\n    grads
  => concat = np.concatenate((xt, a_prev), axis=0)\\ngrads
wrong value: concat = np.concatenate((a_prev, xt), axis=0)\n    grads
  => concat = np.concatenate((a_next, xt), axis=0)\\ngrads
term: grads["dc_prev"] = dc_next * ft + ot * (1 - np.square(np.tanh(c_next))) * ft * da_next
  => grads["dc_prev"] = dc_next * ft
sign: * it * da_next) * (1 - np.square(cct))
  => * it * da_next) * (np.square(cct) - 1)
factor: (1 - np.square(np.tanh(c_next))) * c_prev * da_next)
  => (1 - np.tanh(c_next)) * c_prev * da_next)
doubled: grads["dbo"] = np.sum(dot, axis=1, keepdims=True)
  => grads["dbo"] = np.sum(dot + dot, axis=1, keepdims=True)
scaled: grads["dWo"] = np.dot(dot, concat.T)
  => grads["dWo"] = np.dot(dot, concat.T) / m
right: n_a, m = a_next.shape
  => (n_a, m), dc_next = a_next.shape, np.array(dc_next)
right: dot = da_next * np.tanh(c_next) * ot * (1 - ot)
  => dot = a_next * da_next * (1 - ot)
"""

WEIGHTS = {f"W{k}": (4, 7) for k in "fico"} | {f"b{k}": (4, 1) for k in "fico"}

BASES = (
    Base(
        "packed-step",
        "packed",
        lambda m, r: (
            m.lstm_step_forward,
            m.lstm_step_backward,
            [r(*s) for s in ((2, 3), (2, 4), (2, 4), (3, 16), (4, 16), (16,))],
        ),
        PACKED,
        PACKED_STEP,
    ),
    Base(
        "packed-sequence",
        "packed",
        lambda m, r: (m.lstm_forward, m.lstm_backward, [r(*s) for s in ((2, 5, 3), (2, 4), (3, 16), (4, 16), (16,))]),
        PACKED,
        PACKED_SEQUENCE,
    ),
    Base(
        "packed-square",
        "packed",
        lambda m, r: (
            m.lstm_step_forward,
            m.lstm_step_backward,
            [r(*s) for s in (*[(2, 4)] * 3, (4, 16), (4, 16), (16,))],
        ),
        PACKED,
        PACKED_SQUARE,
    ),
    Base(
        "dict-lstm",
        "dict",
        lambda m, r: (
            m.cell_forward,
            m.cell_backward,
            (r(3, 2), r(4, 2), r(4, 2), {k: r(*s) for k, s in WEIGHTS.items()}),
        ),
        DICT,
        DICT_EDITS,
    ),
)
