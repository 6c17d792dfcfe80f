"""Functions that may be read, in the styles of courses, gists and libraries: buffers, columns, layers, closures."""

from . import Base

BUFFERS = r"""
import numpy as np


def forward(X, W, h0, c0):  # W: bias row, D input rows, H state rows; gates i f o g side by side
    T, N, D = X.shape
    H = W.shape[1] // 4
    Hin = np.zeros((T, N, W.shape[0]))
    Hout = np.zeros((T, N, H))
    A = np.zeros((T, N, 4 * H))
    G = np.zeros((T, N, 4 * H))
    C = np.zeros((T, N, H))
    Ct = np.zeros((T, N, H))
    for t in range(T):
        prev_h = Hout[t - 1] if t > 0 else h0
        prev_c = C[t - 1] if t > 0 else c0
        Hin[t, :, 0] = 1
        Hin[t, :, 1:1 + D] = X[t]
        Hin[t, :, 1 + D:] = prev_h
        A[t] = Hin[t].dot(W)
        G[t, :, :3 * H] = 1.0 / (1.0 + np.exp(-A[t, :, :3 * H]))
        G[t, :, 3 * H:] = np.tanh(A[t, :, 3 * H:])
        C[t] = G[t, :, :H] * G[t, :, 3 * H:] + G[t, :, H:2 * H] * prev_c
        Ct[t] = np.tanh(C[t])
        Hout[t] = G[t, :, 2 * H:3 * H] * Ct[t]
    cache = dict(W=W, Hin=Hin, Hout=Hout, G=G, C=C, Ct=Ct, c0=c0, D=D, H=H)
    return Hout, cache


def backward(dHout_in, cache):
    W, Hin, Hout, G, C, Ct, c0 = [cache[k] for k in ("W", "Hin", "Hout", "G", "C", "Ct", "c0")]
    D, H = cache["D"], cache["H"]
    T, N, _ = Hout.shape
    dA = np.zeros(G.shape)
    dG = np.zeros(G.shape)
    dW = np.zeros(W.shape)
    dHin = np.zeros(Hin.shape)
    dC = np.zeros(C.shape)
    dX = np.zeros((T, N, D))
    dh0 = np.zeros((N, H))
    dc0 = np.zeros((N, H))
    dHout = dHout_in.copy()
    for t in reversed(range(T)):
        dG[t, :, 2 * H:3 * H] = Ct[t] * dHout[t]
        dC[t] += (1 - Ct[t] ** 2) * (G[t, :, 2 * H:3 * H] * dHout[t])
        if t > 0:
            dG[t, :, H:2 * H] = C[t - 1] * dC[t]
            dC[t - 1] += G[t, :, H:2 * H] * dC[t]
        else:
            dG[t, :, H:2 * H] = c0 * dC[t]
            dc0 = G[t, :, H:2 * H] * dC[t]
        dG[t, :, :H] = G[t, :, 3 * H:] * dC[t]
        dG[t, :, 3 * H:] = G[t, :, :H] * dC[t]
        dA[t, :, 3 * H:] = (1 - G[t, :, 3 * H:] ** 2) * dG[t, :, 3 * H:]
        y = G[t, :, :3 * H]
        dA[t, :, :3 * H] = (y * (1.0 - y)) * dG[t, :, :3 * H]
        dW += np.dot(Hin[t].T, dA[t])
        dHin[t] = dA[t].dot(W.T)
        dX[t] = dHin[t, :, 1:1 + D]
        if t > 0:
            dHout[t - 1, :] += dHin[t, :, 1 + D:]
        else:
            dh0 += dHin[t, :, 1 + D:]
    return dX, dW, dh0, dc0
"""

BUFFERS_EDITS = """
wrong value: dG[t, :, 2 * H:3 * H] = Ct[t] * dHout[t]
  => dG[t, :, 2 * H:3 * H] = C[t] * dHout[t]
= for +=: dC[t] += (1 - Ct[t] ** 2)
  => dC[t] = (1 - Ct[t] ** 2)
index: dG[t, :, H:2 * H] = C[t - 1] * dC[t]
  => dG[t, :, H:2 * H] = C[t] * dC[t]
exchanged: dC[t - 1] += G[t, :, H:2 * H] * dC[t]
  => dC[t - 1] += G[t, :, :H] * dC[t]
exchanged: dG[t, :, :H] = G[t, :, 3 * H:] * dC[t]
  => dG[t, :, :H] = G[t, :, 2 * H:3 * H] * dC[t]
again: dA[t, :, 3 * H:] = (1 - G[t, :, 3 * H:] ** 2)
  => dA[t, :, 3 * H:] = (1 - np.tanh(G[t, :, 3 * H:]) ** 2)
brackets: (y * (1.0 - y)) * dG[t, :, :3 * H]
  => y * 1.0 - y * dG[t, :, :3 * H]
factor: (y * (1.0 - y)) * dG[t, :, :3 * H]
  => (1.0 - y) * dG[t, :, :3 * H]
path: dHout[t - 1, :] += dHin[t, :, 1 + D:]
  => dHout[t - 1, :] += 0
index: dHout[t - 1, :] += dHin[t, :, 1 + D:]
  => dHout[t - 1, :] += dHin[t, :, D:-1]
path: dC[t] += (1 - Ct[t] ** 2) * (G[t, :, 2 * H:3 * H] * dHout[t])
  => dC[t] += G[t, :, 2 * H:3 * H] * dHout[t]
wrong value: dc0 = G[t, :, H:2 * H] * dC[t]
  => dc0 = dC[t]
doubled: dh0 += dHin[t, :, 1 + D:]
  => dh0 += 2 * dHin[t, :, 1 + D:]
right: dh0 += dHin[t, :, 1 + D:]
  => dh0 = dHin[t, :, 1 + D:].copy()
"""

COLUMNS = r"""
import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_cell_forward(xt, a_prev, c_prev, parameters):
    Wf, bf, Wi, bi = parameters["Wf"], parameters["bf"], parameters["Wi"], parameters["bi"]
    Wc, bc, Wo, bo = parameters["Wc"], parameters["bc"], parameters["Wo"], parameters["bo"]
    concat = np.concatenate((a_prev, xt), axis=0)
    ft = sigmoid(Wf @ concat + bf)
    it = sigmoid(Wi @ concat + bi)
    cct = np.tanh(Wc @ concat + bc)
    c_next = ft * c_prev + it * cct
    ot = sigmoid(Wo @ concat + bo)
    a_next = ot * np.tanh(c_next)
    return a_next, c_next, (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters)


def lstm_cell_backward(da_next, dc_next, cache):
    (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters) = cache
    n_x, m = xt.shape
    n_a, m = a_next.shape
    dot = da_next * np.tanh(c_next) * ot * (1 - ot)
    dcct = (dc_next * it + ot * (1 - np.square(np.tanh(c_next))) * it * da_next) * (1 - np.square(cct))
    dit = (dc_next * cct + ot * (1 - np.square(np.tanh(c_next))) * cct * da_next) * it * (1 - it)
    dft = (dc_next * c_prev + ot * (1 - np.square(np.tanh(c_next))) * c_prev * da_next) * ft * (1 - ft)
    concat = np.concatenate((a_prev, xt), axis=0).T
    dWf = np.dot(dft, concat)
    dWi = np.dot(dit, concat)
    dWc = np.dot(dcct, concat)
    dWo = np.dot(dot, concat)
    dbf = np.sum(dft, axis=1, keepdims=True)
    dbi = np.sum(dit, axis=1, keepdims=True)
    dbc = np.sum(dcct, axis=1, keepdims=True)
    dbo = np.sum(dot, axis=1, keepdims=True)
    da_prev = (np.dot(parameters["Wf"][:, :n_a].T, dft) + np.dot(parameters["Wi"][:, :n_a].T, dit)
               + np.dot(parameters["Wc"][:, :n_a].T, dcct) + np.dot(parameters["Wo"][:, :n_a].T, dot))
    dc_prev = dc_next * ft + ot * (1 - np.square(np.tanh(c_next))) * ft * da_next
    dxt = (np.dot(parameters["Wf"][:, n_a:].T, dft) + np.dot(parameters["Wi"][:, n_a:].T, dit)
           + np.dot(parameters["Wc"][:, n_a:].T, dcct) + np.dot(parameters["Wo"][:, n_a:].T, dot))
    return {"dxt": dxt, "da_prev": da_prev, "dc_prev": dc_prev, "dWf": dWf, "dbf": dbf, "dWi": dWi, "dbi": dbi,
            "dWc": dWc, "dbc": dbc, "dWo": dWo, "dbo": dbo}
"""

COLUMNS_EDITS = """
path: dc_prev = dc_next * ft + ot * (1 - np.square(np.tanh(c_next))) * ft * da_next
  => dc_prev = dc_next * ft
brackets: dcct = (dc_next * it + ot * (1 - np.square(np.tanh(c_next))) * it * da_next) * (1 - np.square(cct))
  => dcct = dc_next * it + ot * (1 - np.square(np.tanh(c_next))) * it * da_next * (1 - np.square(cct))
wrong value: dit = (dc_next * cct + ot * (1 - np.square(np.tanh(c_next))) * cct * da_next)
  => dit = (dc_next * cct + ot * (1 - np.square(c_next)) * cct * da_next)
again: * (1 - np.square(cct))
  => * (1 - np.square(np.tanh(cct)))
term: dft = (dc_next * c_prev + ot * (1 - np.square(np.tanh(c_next))) * c_prev * da_next)
  => dft = (dc_next * c_prev + ot * (1 - np.square(np.tanh(c_next))) * da_next)
wrong value: dot = da_next * np.tanh(c_next)
  => dot = da_next * c_next
exchanged: dWi = np.dot(dit, concat)
  => dWi = np.dot(dft, concat)
axis: dbo = np.sum(dot, axis=1, keepdims=True)
  => dbo = np.sum(dot, keepdims=True)
scaled: dbo = np.sum(dot, axis=1, keepdims=True)
  => dbo = np.mean(dot, axis=1, keepdims=True)
exchanged: np.dot(parameters["Wf"][:, :n_a].T, dft) + np.dot(parameters["Wi"][:, :n_a].T, dit)
  => np.dot(parameters["Wf"][:, :n_a].T, dit) + np.dot(parameters["Wi"][:, :n_a].T, dft)
path: + np.dot(parameters["Wc"][:, n_a:].T, dcct) +
  => + ## dxt = (np.dot
right: dWf = np.dot(dft, concat)
  => dWf = np.einsum("am,mb->ab", dft, concat)
"""

LAYERS = r"""
import numpy as np


class RNN:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.cache = None

    def forward(self, x, h_prev):
        Wx, Wh, b = self.params
        t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b
        h_next = np.tanh(t)
        self.cache = (x, h_prev, h_next)
        return h_next

    def backward(self, dh_next):
        Wx, Wh, b = self.params
        x, h_prev, h_next = self.cache
        dt = dh_next * (1 - h_next ** 2)
        db = np.sum(dt, axis=0)
        dWh = np.dot(h_prev.T, dt)
        dh_prev = np.dot(dt, Wh.T)
        dWx = np.dot(x.T, dt)
        dx = np.dot(dt, Wx.T)
        self.grads[0][...] = dWx
        self.grads[1][...] = dWh
        self.grads[2][...] = db
        return dx, dh_prev


class TimeRNN:
    def __init__(self, Wx, Wh, b):
        self.params = [Wx, Wh, b]
        self.grads = [np.zeros_like(Wx), np.zeros_like(Wh), np.zeros_like(b)]
        self.layers = None

    def forward(self, xs, h):
        N, T, D = xs.shape
        self.layers = []
        hs = np.empty((N, T, h.shape[1]))
        for t in range(T):
            layer = RNN(*self.params)
            h = layer.forward(xs[:, t, :], h)
            hs[:, t, :] = h
            self.layers.append(layer)
        return hs

    def backward(self, dhs):
        Wx, Wh, b = self.params
        N, T, H = dhs.shape
        dxs = np.empty((N, T, Wx.shape[0]))
        dh = 0
        grads = [0, 0, 0]
        for t in reversed(range(T)):
            layer = self.layers[t]
            dx, dh = layer.backward(dhs[:, t, :] + dh)
            dxs[:, t, :] = dx
            for i, grad in enumerate(layer.grads):
                grads[i] += grad
        for i, grad in enumerate(grads):
            self.grads[i][...] = grad
        self.dh = dh
        return dxs


def forward(xs, h0, Wx, Wh, b):
    net = TimeRNN(Wx, Wh, b)
    return net.forward(xs, h0), net


def backward(dhs, net):
    dxs = net.backward(dhs)
    return dxs, net.dh, *net.grads
"""

LAYERS_EDITS = """
factor: dt = dh_next * (1 - h_next ** 2)
  => dt = dh_next * (1 - h_next)
wrong value: dt = dh_next * (1 - h_next ** 2)
  => dt = dh_next * (1 - h_prev ** 2)
path: dx, dh = layer.backward(dhs[:, t, :] + dh)
  => dx, dh = layer.backward(dhs[:, t, :])
= for +=: grads[i] += grad
  => grads[i] = grad
exchanged: dWh = np.dot(h_prev.T, dt)
  => dWh = np.dot(h_next.T, dt)
transpose: dh_prev = np.dot(dt, Wh.T)
  => dh_prev = np.dot(dt, Wh)
scaled: self.grads[i][...] = grad
  => self.grads[i][...] = grad / T
carry: dx, dh = layer.backward(dhs[:, t, :] + dh)
  => dx, dh_prev = layer.backward(dhs[:, t, :] + dh)
index: dxs[:, t, :] = dx
  => dxs[:, t - 1, :] = dx
index: layer = self.layers[t]
  => layer = self.layers[t - 1]
clip: dh_prev = np.dot(dt, Wh.T)
  => dh_prev = np.clip(np.dot(dt, Wh.T), -0.1, 0.1)
right: grads[i] += grad
  => grads[i] = grads[i] + grad
"""

CLOSURES = r"""
import numpy as np


def linear(X, W, b):
    Y = X @ W.T + b

    def backprop(dY):
        return dY @ W, dY.T @ X, dY.sum(axis=0)

    return Y, backprop


def gates(A, H):
    z = 1 / (1 + np.exp(-A[:, :H]))
    n = np.tanh(A[:, H:])

    def backprop(dz, dn):
        return np.concatenate([dz * z * (1 - z), dn * (1 - n * n)], axis=1)

    return (z, n), backprop


def mix(z, n, h):
    new = z * h + (1 - z) * n

    def backprop(d):
        return d * (h - n), d * (1 - z), d * z

    return new, backprop


def forward(X, h0, W, b):
    H = h0.shape[1]
    h, hs, tape = h0, [], []
    for x in X:
        A, back_linear = linear(np.hstack([x, h]), W, b)
        (z, n), back_gates = gates(A, H)
        h, back_mix = mix(z, n, h)
        hs.append(h)
        tape.append((back_linear, back_gates, back_mix))

    def backprop(dhs):
        dW, db, dX = 0, 0, []
        dh = np.zeros_like(h0)
        for d, (back_linear, back_gates, back_mix) in zip(dhs[::-1], tape[::-1]):
            dz, dn, dskip = back_mix(dh + d)
            dA = back_gates(dz, dn)
            dXh, dWt, dbt = back_linear(dA)
            dX.append(dXh[:, :-H])
            dh = dXh[:, -H:] + dskip
            dW, db = dW + dWt, db + dbt
        return np.stack(dX[::-1]), dh, dW, db

    return np.stack(hs), backprop


def backward(dhs, backprop):
    return backprop(dhs)
"""

CLOSURES_EDITS = """
sign: return d * (h - n), d * (1 - z), d * z
  => return d * (n - h), d * (1 - z), d * z
exchanged: return d * (h - n), d * (1 - z), d * z
  => return d * (h - n), d * z, d * (1 - z)
factor: dz * z * (1 - z), dn
  => dz * (1 - z), dn
again: dn * (1 - n * n)
  => dn * (1 - np.tanh(n) ** 2)
transpose: dY.T @ X, dY.sum(axis=0)
  => dY.T @ X, dY.mean(axis=0)
path: dh = dXh[:, -H:] + dskip
  => dh = dXh[:, -H:]
path: dh = dXh[:, -H:] + dskip
  => dh = dskip
order: return np.stack(dX[::-1]), dh, dW, db
  => return np.stack(dX), dh, dW, db
= for +=: dW, db = dW + dWt, db + dbt
  => dW, db = dWt, db + dbt
index: dX.append(dXh[:, :-H])
  => dX.append(dXh[:, H - dXh.shape[1]:][:, :dXh.shape[1] - H]) ## dXh, dWt, dbt
path: dz, dn, dskip = back_mix(dh + d)
  => dz, dn, dskip = back_mix(d)
right: dh = dXh[:, -H:] + dskip
  => dh = np.add(dXh[:, -H:], dskip)
"""

EINSUM = r"""
import numpy as np


def forward(x, h0, Wx, Wh, b):  # batch first; gates (3, ...): r, z, n; h = (1 - z) n + z h
    N, T, D = x.shape
    hs = np.zeros((T + 1,) + h0.shape)
    hs[0] = h0
    R, Z, Nn, Q = (np.zeros((T,) + h0.shape) for _ in range(4))
    ax = np.einsum("ntd,gdh->gtnh", x, Wx) + b[:, None, None]
    for t in range(T):
        ah = np.einsum("nh,ghk->gnk", hs[t], Wh)
        R[t] = 1 / (1 + np.exp(-(ax[0, t] + ah[0])))
        Z[t] = 1 / (1 + np.exp(-(ax[1, t] + ah[1])))
        Q[t] = ah[2]
        Nn[t] = np.tanh(ax[2, t] + R[t] * ah[2])
        hs[t + 1] = (1 - Z[t]) * Nn[t] + Z[t] * hs[t]
    return hs[1:].transpose(1, 0, 2), (x, hs, R, Z, Nn, Q, Wx, Wh)


def backward(dout, cache):
    x, hs, R, Z, Nn, Q, Wx, Wh = cache
    T = len(R)
    d_ax = np.zeros((3,) + R.shape)
    d_ah = np.zeros((3,) + R.shape)
    dh = np.zeros_like(hs[0])
    for t in range(T)[::-1]:
        dh = dh + dout[:, t]
        np.multiply(dh, 1 - Z[t], out=d_ax[2, t])
        d_ax[2, t] *= 1 - Nn[t] ** 2
        d_ax[0, t] = d_ax[2, t] * Q[t] * R[t] * (1 - R[t])
        d_ax[1, t] = dh * (hs[t] - Nn[t]) * Z[t] * (1 - Z[t])
        d_ah[:2, t] = d_ax[:2, t]
        d_ah[2, t] = d_ax[2, t] * R[t]
        dh = dh * Z[t] + np.einsum("gnk,ghk->nh", d_ah[:, t], Wh)
    dWx = np.einsum("ntd,gtnh->gdh", x, d_ax)
    dWh = np.einsum("tnh,gtnk->ghk", hs[:-1], d_ah)
    db = d_ax.sum(axis=(1, 2))
    dx = np.einsum("gtnh,gdh->ntd", d_ax, Wx)
    return dx, dh, dWx, dWh, db
"""

EINSUM_EDITS = """
wrong value: np.multiply(dh, 1 - Z[t], out=d_ax[2, t])
  => np.multiply(dh, Z[t], out=d_ax[2, t])
= for +=: d_ax[2, t] *= 1 - Nn[t] ** 2
  => d_ax[2, t] = 1 - Nn[t] ** 2
brackets: d_ax[2, t] *= 1 - Nn[t] ** 2
  => d_ax[2, t] *= (1 - Nn[t]) ** 2
factor: d_ax[0, t] = d_ax[2, t] * Q[t] * R[t] * (1 - R[t])
  => d_ax[0, t] = d_ax[2, t] * R[t] * (1 - R[t])
index: d_ax[1, t] = dh * (hs[t] - Nn[t])
  => d_ax[1, t] = dh * (hs[t + 1] - Nn[t])
exchanged: d_ah[:2, t] = d_ax[:2, t]
  => d_ah[:2, t] = d_ax[1::-1, t]
factor: d_ah[2, t] = d_ax[2, t] * R[t]
  => d_ah[2, t] = d_ax[2, t]
transpose: np.einsum("gnk,ghk->nh", d_ah[:, t], Wh)
  => np.einsum("gnk,gkh->nh", d_ah[:, t], Wh)
exchanged: np.einsum("gnk,ghk->nh", d_ah[:, t], Wh)
  => np.einsum("gnk,ghk->nh", d_ax[:, t], Wh)
index: dWh = np.einsum("tnh,gtnk->ghk", hs[:-1], d_ah)
  => dWh = np.einsum("tnh,gtnk->ghk", hs[1:], d_ah)
exchanged: dWh = np.einsum("tnh,gtnk->ghk", hs[:-1], d_ah)
  => dWh = np.einsum("tnh,gtnk->ghk", hs[:-1], d_ax)
exchanged: db = d_ax.sum(axis=(1, 2))
  => db = d_ah.sum(axis=(1, 2))
path: dh = dh * Z[t] + np.einsum
  => dh = np.einsum
right: db = d_ax.sum(axis=(1, 2))
  => db = np.add.reduce(d_ax, axis=(1, 2))
"""

STACK = r"""
import numpy as np


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def step(x, h, p, k):
    return np.tanh(x @ p[f"U{k}"] + h @ p[f"W{k}"] + p[f"b{k}"])


def step_back(d, x, h_prev, h, p, g, k):
    d = d * (1 - h * h)
    g[f"dU{k}"] += x.T @ d
    g[f"dW{k}"] += h_prev.T @ d
    g[f"db{k}"] += d.sum(0)
    return d @ p[f"U{k}"].T, d @ p[f"W{k}"].T


def loss_and_grads(tokens, p):
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    N, T = inputs.shape
    H = len(p["W1"])
    E = p["E"][inputs]
    h1, h2 = [np.zeros((N, H))], [np.zeros((N, H))]
    probs, loss = [], 0.0
    for t in range(T):
        h1.append(step(E[:, t], h1[-1], p, 1))
        h2.append(step(h1[-1], h2[-1], p, 2))
        probs.append(softmax(h2[-1] @ p["V"] + p["c"]))
        loss -= np.log(probs[-1][range(N), targets[:, t]]).mean() / T
    g = {"d" + name: np.zeros_like(value) for name, value in p.items()}
    dE = np.zeros_like(E)
    d1 = d2 = np.zeros((N, H))
    for t in reversed(range(T)):
        ds = probs[t].copy()
        ds[range(N), targets[:, t]] -= 1
        ds = ds / (N * T)
        g["dV"] += h2[t + 1].T @ ds
        g["dc"] += ds.sum(0)
        d2 = d2 + ds @ p["V"].T
        dup, d2 = step_back(d2, h1[t + 1], h2[t], h2[t + 1], p, g, 2)
        d1 = d1 + dup
        dE[:, t], d1 = step_back(d1, E[:, t], h1[t], h1[t + 1], p, g, 1)
    np.add.at(g["dE"], inputs, dE)
    return loss, g
"""

STACK_EDITS = """
brackets: d = d * (1 - h * h)
  => d = d * 1 - h * h
wrong value: d = d * (1 - h * h)
  => d = d * (1 - h_prev * h_prev)
exchanged: return d @ p[f"U{k}"].T, d @ p[f"W{k}"].T
  => return d @ p[f"W{k}"].T, d @ p[f"U{k}"].T
scaled: ds = ds / (N * T)
  => ds = ds / N
= for +=: g[f"dW{k}"] += h_prev.T @ d
  => g[f"dW{k}"] = h_prev.T @ d
index: g["dV"] += h2[t + 1].T @ ds
  => g["dV"] += h2[t].T @ ds
exchanged: g["dV"] += h2[t + 1].T @ ds
  => g["dV"] += h1[t + 1].T @ ds
index: dup, d2 = step_back(d2, h1[t + 1], h2[t], h2[t + 1], p, g, 2)
  => dup, d2 = step_back(d2, h1[t], h2[t], h2[t + 1], p, g, 2)
path: d1 = d1 + dup
  => d1 = dup
path: d2 = d2 + ds @ p["V"].T
  => d2 = ds @ p["V"].T
= for +=: np.add.at(g["dE"], inputs, dE)
  => g["dE"][inputs] += dE
loss: ds[range(N), targets[:, t]] -= 1
  => ds[range(N), inputs[:, t]] -= 1
two: d = d * (1 - h * h)
  => d = d * (1 - h) && g["dc"] += ds.sum(0)
  => g["dc"] += ds.mean(0)
right: d2 = d2 + ds @ p["V"].T
  => d2 = np.dot(ds, p["V"].T) + d2
"""

STACK_WEIGHTS = (("E", (5, 4)), ("U1", (4, 4)), ("W1", (4, 4)), ("b1", (4,)), ("U2", (4, 4)), ("W2", (4, 4)),
                 ("b2", (4,)), ("V", (4, 5)), ("c", (5,)))  # fmt: skip

SCALARS = r"""
import math

import numpy as np


def forward(x, h0, Wx, Wh, b):
    T, D, H = len(x), len(x[0]), len(b)
    hs = [[h0[j] for j in range(H)]]
    for t in range(T):
        row = []
        for j in range(H):
            a = b[j]
            for i in range(D):
                a += x[t][i] * Wx[i][j]
            for i in range(H):
                a += hs[-1][i] * Wh[i][j]
            row.append(math.tanh(a))
        hs.append(row)
    return np.array(hs[1:]), (x, hs, Wx, Wh)


def backward(dout, cache):
    x, hs, Wx, Wh = cache
    T, D, H = len(x), len(x[0]), len(Wh)
    dx, dWx, dWh, db = np.zeros((T, D)), np.zeros((D, H)), np.zeros((H, H)), np.zeros(H)
    dh = [0.0] * H
    for t in range(T - 1, -1, -1):
        da = [0.0] * H
        for j in range(H):
            da[j] = (dout[t][j] + dh[j]) * (1 - hs[t + 1][j] ** 2)
        for j in range(H):
            db[j] += da[j]
            for i in range(D):
                dWx[i][j] += x[t][i] * da[j]
                dx[t][i] += Wx[i][j] * da[j]
        for i in range(H):
            dh[i] = 0.0
            for j in range(H):
                dWh[i][j] += hs[t][i] * da[j]
                dh[i] += Wh[i][j] * da[j]
    return dx, np.array(dh), dWx, dWh, db
"""

SCALARS_EDITS = """
again: (1 - hs[t + 1][j] ** 2)
  => (1 - math.tanh(hs[t + 1][j]) ** 2)
index: dWh[i][j] += hs[t][i]
  => dWh[i][j] += hs[t + 1][i]
transpose: dh[i] += Wh[i][j]
  => dh[i] += Wh[j][i]
= for +=: db[j] += da[j]
  => db[j] = da[j]
path: (dout[t][j] + dh[j])
  => dout[t][j]
doubled: dh[i] = 0.0
  =>
truncated: range(T - 1, -1, -1)
  => range(T - 1, 0, -1)
exchanged: dWx[i][j] += x[t][i] * da[j]
  => dWx[i][j] += x[t][i] * da[i % H]
scaled: dx[t][i] += Wx[i][j] * da[j]
  => dx[t][i] += Wx[i][j] * da[j] / H
right: (1 - hs[t + 1][j] ** 2)
  => (1 - hs[t + 1][j]) * (1 + hs[t + 1][j])
"""

BASES = [
    Base(
        "buffers",
        "packed",
        lambda m, r: (m.forward, m.backward, (r(4, 2, 3), r(8, 16), r(2, 4), r(2, 4))),
        BUFFERS,
        BUFFERS_EDITS,
    ),
    Base(
        "columns",
        "dict",
        lambda m, r: (
            m.lstm_cell_forward,
            m.lstm_cell_backward,
            (
                r(3, 2),
                r(4, 2),
                r(4, 2),
                {f"{kind}{gate}": r(4, 7 if kind == "W" else 1) for gate in "fico" for kind in "Wb"},
            ),
        ),
        COLUMNS,
        COLUMNS_EDITS,
    ),
    Base(
        "layers",
        "other",
        lambda m, r: (m.forward, m.backward, (r(2, 4, 3), r(2, 5), r(3, 5), r(5, 5), r(5))),
        LAYERS,
        LAYERS_EDITS,
    ),
    Base(
        "closures",
        "other",
        lambda m, r: (m.forward, m.backward, (r(4, 2, 3), r(2, 4), r(8, 7), r(8))),
        CLOSURES,
        CLOSURES_EDITS,
    ),
    Base(
        "einsum",
        "other",
        lambda m, r: (m.forward, m.backward, (r(2, 4, 3), r(2, 5), r(3, 3, 5), r(3, 5, 5), r(3, 5))),
        EINSUM,
        EINSUM_EDITS,
    ),
    Base(
        "stack",
        "loss",
        lambda m, r: (
            m.loss_and_grads,
            __import__("numpy").array([[0, 1, 2, 1, 3], [4, 2, 0, 3, 1]]),
            {name: r(*shape) for name, shape in STACK_WEIGHTS},
        ),
        STACK,
        STACK_EDITS,
    ),
    Base(
        "scalars",
        "other",
        lambda m, r: (m.forward, m.backward, (r(3, 2), r(3), r(2, 3), r(3, 3), r(3))),
        SCALARS,
        SCALARS_EDITS,
    ),
]
