"""Subclasses of `Cell` that are only scored: a step with coupled gates, a whole pass with a cache on self."""

from . import cell

COUPLED = r'''
import numpy as np

import rnnlab as rl
from rnnlab.ops import sigmoid


class Coupled(rl.Cell):
    """An LSTM whose input gate is 1 - f, with a step of its own and a scaled recurrent matrix."""

    gate_names = ("forget", "candidate", "output")
    state_names = ("h", "c")
    extra_names = ("squashed",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_param("scale", "uniform", (3, 1, self.hidden_size))

    def step(self, a, prev):
        rec = (prev[0] @ self.W_h) * self.scale
        f, o = sigmoid(a[0] + rec[0]), sigmoid(a[2] + rec[2])
        g = np.tanh(a[1] + rec[1])
        c = g + f * (prev[1] - g)
        return (f, g, o), (o * np.tanh(c), c), (np.tanh(c),)

    def step_backward(self, d_next, prev, gates, extras):
        f, g, o = gates
        (s,) = extras
        d_c = d_next[1] + d_next[0] * o * (1 - s * s)
        grads = [None] * 3
        grads[0] = d_c * (prev[1] - g) * f * (1 - f)
        grads[1] = d_c * (1 - f) * (1 - g * g)
        grads[2] = d_next[0] * s * o * (1 - o)
        rec = prev[0] @ self.W_h
        d_rec = [d * v for d, v in zip(grads, self.scale)]
        d_h = sum(d @ W.T for d, W in zip(d_rec, self.W_h))
        return grads, (d_h, d_c * f), (*d_rec, *(d * r for d, r in zip(grads, rec)))

    def recurrent_grads(self, tape, d_a, d_extras):
        W_h = np.array([np.einsum("tbh,tbk->hk", tape.states[:-1, 0], d) for d in d_extras[:3]])
        return {"W_h": W_h, "scale": d_extras[3:].sum(axis=(1, 2))[:, None]}
'''

COUPLED_EDITS = """
sign: grads[0] = d_c * (prev[1] - g) * f * (1 - f)
  => grads[0] = d_c * (g - prev[1]) * f * (1 - f)
path: grads[0] = d_c * (prev[1] - g) * f * (1 - f)
  => grads[0] = d_c * prev[1] * f * (1 - f)
wrong value: grads[1] = d_c * (1 - f) * (1 - g * g)
  => grads[1] = d_c * f * (1 - g * g)
factor: d_rec = [d * v for d, v in zip(grads, self.scale)]
  => d_rec = [d for d, v in zip(grads, self.scale)]
factor: d_h = sum(d @ W.T for d, W in zip(d_rec, self.W_h))
  => d_h = sum(d @ W.T for d, W in zip(grads, self.W_h))
exchanged: d_h = sum(d @ W.T for d, W in zip(d_rec, self.W_h))
  => d_h = sum(d @ W.T for d, W in zip(d_rec, self.W_h[::-1]))
brackets: d_c = d_next[1] + d_next[0] * o * (1 - s * s)
  => d_c = d_next[1] + d_next[0] * o * 1 - s * s
scaled: "scale": d_extras[3:].sum(axis=(1, 2))[:, None]}
  => "scale": d_extras[3:].mean(axis=(1, 2))[:, None]}
index: W_h = np.array([np.einsum("tbh,tbk->hk", tape.states[:-1, 0], d) for d in d_extras[:3]])
  => W_h = np.array([np.einsum("tbh,tbk->hk", tape.h, d) for d in d_extras[:3]])
right: d_h = sum(d @ W.T for d, W in zip(d_rec, self.W_h))
  => d_h = self.back(tuple(d_rec))
"""

CACHED = r'''
import numpy as np

import rnnlab as rl


def s(v):
    return 1 / (1 + np.exp(-v))


class CachedGRU(rl.GRUResetBeforeCell):
    """A whole forward and backward pass, with the caches on self one entry a step."""

    def forward(self, x, state=None):
        T, B, _ = x.shape
        H = self.hidden_size
        states, gates, extras = np.zeros((T + 1, 1, B, H)), np.zeros((3, T, B, H)), np.zeros((1, T, B, H))
        if state is not None:
            states[0] = state
        self.cache = []
        for t in range(T):
            h = states[t, 0]
            r = s(x[t] @ self.W_x[0] + h @ self.W_h[0] + self.b[0])
            z = s(x[t] @ self.W_x[1] + h @ self.W_h[1] + self.b[1])
            n = np.tanh(x[t] @ self.W_x[2] + (r * h) @ self.W_h[2] + self.b[2])
            states[t + 1, 0] = z * h + (1 - z) * n
            gates[:, t], extras[0, t] = (r, z, n), r * h
            self.cache.append((x[t], h, r, z, n))
        return rl.Tape(x, states, gates, extras, self.gate_names)

    def backward(self, tape, d_h, d_state=None, *, input_gradient=True):
        T, B, H = d_h.shape
        grads = {name: np.zeros_like(p) for name, p in self.params.items()}
        dx, d_states = np.zeros_like(tape.x), np.zeros_like(tape.states)
        flow = np.zeros((B, H)) if d_state is None else d_state[0].copy()
        for t in range(T - 1, -1, -1):
            x, h, r, z, n = self.cache[t]
            flow += d_h[t]
            d_states[t + 1, 0] = flow
            n_bar = flow * (1 - z) * (1 - n * n)
            z_bar = flow * (h - n) * z * (1 - z)
            w = n_bar @ self.W_h[2].T
            r_bar = w * h * r * (1 - r)
            bars = (r_bar, z_bar, n_bar)
            for k, (bar, left) in enumerate(zip(bars, (h, h, r * h))):
                grads["W_x"][k] += x.T @ bar
                grads["W_h"][k] += left.T @ bar
                grads["b"][k] += bar.sum(axis=0)
                dx[t] += bar @ self.W_x[k].T
            flow = flow * z + w * r + r_bar @ self.W_h[0].T + z_bar @ self.W_h[1].T
        d_states[0, 0] = flow
        return rl.Gradients(grads, dx, d_states)
'''

CACHED_EDITS = """
index: x, h, r, z, n = self.cache[t]
  => x, h, r, z, n = self.cache[t - 1]
path: flow = flow * z + w * r + r_bar @ self.W_h[0].T + z_bar @ self.W_h[1].T
  => flow = flow * z + r_bar @ self.W_h[0].T + z_bar @ self.W_h[1].T
term: flow = flow * z + w * r + r_bar @ self.W_h[0].T + z_bar @ self.W_h[1].T
  => flow = w * r + r_bar @ self.W_h[0].T + z_bar @ self.W_h[1].T
exchanged: flow = flow * z + w * r + r_bar @ self.W_h[0].T + z_bar @ self.W_h[1].T
  => flow = flow * z + w * r + r_bar @ self.W_h[1].T + z_bar @ self.W_h[0].T
factor: for k, (bar, left) in enumerate(zip(bars, (h, h, r * h))):
  => for k, (bar, left) in enumerate(zip(bars, (h, h, h))): ## grads["W_h"][k] +=
= for +=: grads["W_h"][k] += left.T @ bar
  => grads["W_h"][k] = left.T @ bar
= for +=: dx[t] += bar @ self.W_x[k].T
  => dx[t] = bar @ self.W_x[k].T
doubled: w = n_bar @ self.W_h[2].T
  => w = 2 * n_bar @ self.W_h[2].T
transpose: w = n_bar @ self.W_h[2].T
  => w = n_bar @ self.W_h[2]
d0: z_bar = flow * (h - n) * z * (1 - z)
  => z_bar = (h - n) * z * (1 - z)
path: flow = np.zeros((B, H)) if d_state is None else d_state[0].copy()
  => flow = np.zeros((B, H))
clip: flow += d_h[t]
  => flow += d_h[t]\\nnp.clip(flow, -1, 1, out=flow)
bias sum: grads["b"][k] += bar.sum(axis=0)
  => grads["b"][k] += bar[0]
two: r_bar = w * h * r * (1 - r)
  => r_bar = w * h * (1 - r)
  && n_bar = flow * (1 - z) * (1 - n * n) => n_bar = flow * z * (1 - n * n)
right: flow += d_h[t]
  => flow = flow + d_h[t]
right: w = n_bar @ self.W_h[2].T
  => w = np.inner(n_bar, self.W_h[2])
"""

BASES = (
    cell("coupled", "Coupled", COUPLED, COUPLED_EDITS),
    cell("cached", "CachedGRU", CACHED, CACHED_EDITS),
)
