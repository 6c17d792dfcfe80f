"""The bug zoo: small mutants of right cells, each with one mistake that people really make.

Numbers 1 to 20 are mistakes of published implementations; "own" are further kinds. A mutant is a piece of a
textbook method below, replaced by another (`mutant`), so that what is wrong can be read on one line. What cannot
be distinguished, or is no derivative:

* 4 (dL/dc of the next step dropped) and 5 (overwritten, = for +=) are one function here, since `step_backward`
  gets dL/dc of the next step as an argument: both are the animal "4, 5".
* 11 (right only for a zero initial state) and 8 (first step skipped) are one function for W_h when the initial state
  is what is missing; each has an animal of its own in another place.
* 18 (all gates start with identical weights) is no derivative: no gradient check can see it. `diagnose` looks at the
  initial weights themselves.

`python -m tests.zoo` prints the confusion matrix.
"""

from __future__ import annotations

import ast
import copy
import inspect
import linecache
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import rnnlab as rl
from rnnlab.cells.base import column_sums, outer_products
from rnnlab.ops import sigmoid

# ---- the right cells, written out as a textbook would -----------------------------------------


class RNN(rl.RNNCell):
    def step(self, a, prev):
        h = np.tanh(a[0] + prev[0] @ self.W_h[0])
        return (h,), (h,), ()

    def step_backward(self, d_next, prev, gates, extras):
        (h,) = gates
        d_a = d_next[0] * (1 - h * h)
        return (d_a,), (d_a @ self.W_h[0].T,), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        return {"W_h": outer_products(tape.states[:-1, 0], d_a)}


class LSTM(rl.LSTMCell):
    def step(self, a, prev):
        h, c = prev
        i, f, g, o = a + h @ self.W_h
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c_t = i * g + c * f
        u = np.tanh(c_t)
        return (i, f, g, o), (o * u, c_t), (u,)

    def step_backward(self, d_next, prev, gates, extras):
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        W_i, W_f, W_g, W_o = self.W_h
        d_o = d_h * u * o * (1 - o)
        d_c = d_c + d_h * o * (1 - u**2)
        d_i = d_c * g * i * (1 - i)
        d_f = d_c * c * f * (1 - f)
        d_g = d_c * i * (1 - g**2)
        d_h_prev = d_i @ W_i.T + d_f @ W_f.T + d_g @ W_g.T + d_o @ W_o.T
        d_c_prev = d_c * f
        return (d_i, d_f, d_g, d_o), (d_h_prev, d_c_prev), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        return {"W_h": outer_products(tape.states[:-1, 0], d_a)}


class GRU(rl.GRUCell):
    def step(self, a, prev):
        (h,) = prev
        W_r, W_z, W_n = self.W_h
        r, z, q = sigmoid(a[0] + h @ W_r), sigmoid(a[1] + h @ W_z), h @ W_n + self.b_hn
        n = np.tanh(a[2] + r * q)
        return (r, z, n), (n + z * (h - n),), (q,)

    def step_backward(self, d_next, prev, gates, extras):
        (d_h,), (h,), (r, z, n), (q,) = d_next, prev, gates, extras
        W_r, W_z, W_n = self.W_h
        d_n = d_h * (1 - z) * (1 - n**2)
        d_z = d_h * (h - n) * z * (1 - z)
        d_r = d_n * q * r * (1 - r)
        d_q = d_n * r
        d_h_prev = d_h * z + d_r @ W_r.T + d_z @ W_z.T + d_q @ W_n.T
        return (d_r, d_z, d_n), (d_h_prev,), (d_q,)

    def recurrent_grads(self, tape, d_a, d_extras):
        d_h_side = np.stack((d_a[0], d_a[1], d_extras[0]))
        return {"W_h": outer_products(tape.states[:-1, 0], d_h_side), "b_hn": column_sums(d_extras)}


class GRUResetBefore(rl.GRUResetBeforeCell):
    def step(self, a, prev):
        (h,) = prev
        W_r, W_z, W_n = self.W_h
        r, z = sigmoid(a[0] + h @ W_r), sigmoid(a[1] + h @ W_z)
        s = r * h
        n = np.tanh(a[2] + s @ W_n)
        return (r, z, n), ((1 - z) * n + z * h,), (s,)

    def step_backward(self, d_next, prev, gates, extras):
        (d_h,), (h,), (r, z, n), (s,) = d_next, prev, gates, extras
        W_r, W_z, W_n = self.W_h
        d_n = d_h * (1 - z) * (1 - n**2)
        d_z = d_h * (h - n) * z * (1 - z)
        d_r = (d_n @ W_n.T) * h * r * (1 - r)
        d_h_prev = d_h * z + d_r @ W_r.T + d_z @ W_z.T + (d_n @ W_n.T) * r
        return (d_r, d_z, d_n), (d_h_prev,), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        of_h, of_s = outer_products(tape.states[:-1, 0], d_a[:2]), outer_products(tape.extras[0], d_a[2:])
        return {"W_h": np.concatenate((of_h, of_s))}


class FourGate(rl.FourGateLSTMCell):
    def step_backward(self, d_next, prev, gates, extras):
        (d_h, d_c), (h, c), (i, f, g, o), (kept, use) = d_next, prev, gates, extras
        d_u = d_h * o * (1 - use**2)
        d_kept = d_c + d_u @ self.W_u.T
        d_i = d_c * g * i * (1 - i)
        d_f = d_kept * c * f * (1 - f)
        d_g = d_c * i * (1 - g**2)
        d_o = d_h * use * o * (1 - o)
        d_a = (d_i, d_f, d_g, d_o)
        return d_a, (self.back(d_a), d_kept * f), (d_u,)

    def recurrent_grads(self, tape, d_a, d_extras):
        W_u = outer_products(tape.extras[0], d_extras)[0]
        W_h = outer_products(tape.states[:-1, 0], d_a)
        return {"W_h": W_h, "W_u": W_u, "b_u": column_sums(d_extras)}


class CoupledLSTM(rl.Cell):
    """A learner's own: the input gate is 1 - f (Greff et al. 2017, "CIFG")."""

    gate_names = ("forget", "candidate", "output")
    state_names = ("h", "c")
    extra_names = ("tanh_c",)

    def step(self, a, prev):
        h, c = prev
        f, g, o = a + h @ self.W_h
        f, g, o = sigmoid(f), np.tanh(g), sigmoid(o)
        c_t = f * c + (1 - f) * g
        u = np.tanh(c_t)
        return (f, g, o), (o * u, c_t), (u,)

    def step_backward(self, d_next, prev, gates, extras):
        (d_h, d_c), (h, c), (f, g, o), (u,) = d_next, prev, gates, extras
        d_c = d_c + d_h * o * (1 - u**2)
        d_f = d_c * (c - g) * f * (1 - f)
        d_g = d_c * (1 - f) * (1 - g**2)
        d_o = d_h * u * o * (1 - o)
        d_a = (d_f, d_g, d_o)
        return d_a, (self.back(d_a), d_c * f), ()


class PeepholeLSTM(rl.Cell):
    """A learner's own: the gates see the memory (Gers & Schmidhuber 2000), the output gate this step's."""

    gate_names = ("input", "forget", "candidate", "output")
    state_names = ("h", "c")
    extra_names = ("tanh_c",)

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        for name in ("p_i", "p_f", "p_o"):
            self.add_param(name, "uniform", (1, self.hidden_size))

    def step(self, a, prev):
        h, c = prev
        i, f, g, o = a + h @ self.W_h
        i, f, g = sigmoid(i + c * self.p_i), sigmoid(f + c * self.p_f), np.tanh(g)
        c_t = f * c + i * g
        o, u = sigmoid(o + c_t * self.p_o), np.tanh(c_t)
        return (i, f, g, o), (o * u, c_t), (u,)

    def step_backward(self, d_next, prev, gates, extras):
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        d_o = d_h * u * o * (1 - o)
        d_c = d_c + d_h * o * (1 - u**2) + d_o * self.p_o
        d_i = d_c * g * i * (1 - i)
        d_f = d_c * c * f * (1 - f)
        d_g = d_c * i * (1 - g**2)
        d_a = (d_i, d_f, d_g, d_o)
        d_c_prev = d_c * f + d_i * self.p_i + d_f * self.p_f
        return d_a, (self.back(d_a), d_c_prev), ()

    def recurrent_grads(self, tape, d_a, d_extras):
        c_prev, c_t = tape.states[:-1, 1], tape.states[1:, 1]
        p_i, p_f, p_o = d_a[0] * c_prev, d_a[1] * c_prev, d_a[3] * c_t
        peepholes = {"p_i": p_i.sum(axis=(0, 1)), "p_f": p_f.sum(axis=(0, 1)), "p_o": p_o.sum(axis=(0, 1))}
        return {
            "W_h": outer_products(tape.states[:-1, 0], d_a),
            **{name: p[None] for name, p in peepholes.items()},
        }


def lstm_d_a(d_h, d_c, c, i, f, g, o, u):
    d_c = d_c + d_h * o * (1 - u**2)
    return np.stack((d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g**2), d_h * u * o * (1 - o)))


def lstm_gates(cell, tape, t, b):
    """The gates of step t once more, from x_t and h_{t-1}, with these biases."""
    i, f, g, o = tape.x[t] @ cell.W_x + tape.states[t, 0] @ cell.W_h + b
    return sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)


class LSTMByHand(rl.LSTMCell):
    """A `backward` of the learner's own: the time loop with every sum written out."""

    def backward(self, tape, d_h, d_state=None, *, input_gradient=True):
        (T, B), H = tape.x.shape[:2], self.hidden_size
        d_W_x = np.zeros_like(self.W_x)
        d_W_h = np.zeros_like(self.W_h)
        d_b = np.zeros_like(self.b)
        d_x = np.zeros_like(tape.x)
        d_states = np.zeros_like(tape.states)
        d_h_next, d_c_next = np.zeros((2, B, H)) if d_state is None else d_state.copy()
        for t in reversed(range(T)):
            h_prev, c_prev = tape.states[t]
            i, f, g, o = tape.gates[:, t]
            u = np.tanh(tape.states[t + 1, 1])
            d_h_t = d_h[t] + d_h_next
            d_states[t + 1] = d_h_t, d_c_next
            d_c_t = d_c_next + d_h_t * o * (1 - u**2)
            d_a = lstm_d_a(d_h_t, d_c_next, c_prev, i, f, g, o, u)
            for k in range(4):
                d_W_x[k] += tape.x[t].T @ d_a[k]
                d_W_h[k] += h_prev.T @ d_a[k]
                d_b[k] += d_a[k].sum(axis=0)
                d_x[t] += d_a[k] @ self.W_x[k].T
            d_h_next = sum(d_a[k] @ self.W_h[k].T for k in range(4))
            d_c_next = d_c_t * f
        d_states[0] = d_h_next, d_c_next
        return rl.Gradients({"W_x": d_W_x, "W_h": d_W_h, "b": d_b}, d_x, d_states)


def own_loop(self, tape, d_h, d_state=None, *, input_gradient=True):
    """The same for any cell: a time loop of the learner's own around `step_backward`."""
    T = len(tape.x)
    d_states = np.zeros_like(tape.states)
    d_a = np.zeros_like(tape.gates)
    d_extras = []
    carried = np.zeros_like(d_states[0]) if d_state is None else np.array(d_state)
    for t in reversed(range(T)):
        d_next = carried.copy()
        d_next[0] += d_h[t]
        d_states[t + 1] = d_next
        d_a[:, t], carried, extra = self.step_backward(d_next, tape.states[t], tape.gates[:, t], tape.extras[:, t])
        d_extras.insert(0, extra)
        carried = np.array(carried)
    d_states[0] = carried
    d_extras = np.array(d_extras).reshape(T, -1, *d_h.shape[1:]).swapaxes(0, 1)
    params = {"W_x": outer_products(tape.x, d_a), "b": column_sums(d_a)[:, None]}
    params |= self.recurrent_grads(tape, d_a, d_extras)
    d_x = np.einsum("ktbh,kdh->tbd", d_a, self.W_x)
    return rl.Gradients(params, d_x, d_states)


class FromScratchRNN(rl.Cell):
    """Neither `step` nor `step_backward`: both passes are the learner's own."""

    gate_names = ("candidate",)

    def forward(self, x, state=None):
        T, B, _ = x.shape
        h = np.zeros((B, self.hidden_size)) if state is None else state[0]
        hs = [h]
        for t in range(T):
            h = np.tanh(x[t] @ self.W_x[0] + h @ self.W_h[0] + self.b[0])
            hs.append(h)
        states = np.array(hs)[:, None]
        return rl.Tape(x, states, np.array(hs[1:])[None], np.zeros((0, T, B, self.hidden_size)), self.gate_names)

    def backward(self, tape, d_h, d_state=None, *, input_gradient=True):
        T = len(tape.x)
        d_states, d_a = np.zeros_like(tape.states), np.zeros_like(tape.gates)
        carried = np.zeros_like(d_h[0]) if d_state is None else d_state[0]
        for t in reversed(range(T)):
            d_states[t + 1, 0] = d_h[t] + carried
            d_a[0, t] = d_states[t + 1, 0] * (1 - tape.h[t] ** 2)
            carried = d_a[0, t] @ self.W_h[0].T
        d_states[0, 0] = carried
        W_x, W_h = outer_products(tape.x, d_a), outer_products(tape.states[:-1, 0], d_a)
        return rl.Gradients({"W_x": W_x, "W_h": W_h, "b": column_sums(d_a)[:, None]}, d_a[0] @ self.W_x[0].T, d_states)


class RNNByHand(RNN):
    backward = own_loop


class GRUByHand(GRU):
    backward = own_loop


class PeepholeByHand(PeepholeLSTM):
    backward = own_loop


# ---- right cells in other words: never to be blamed -------------------------------------------


class LSTMRewritten(rl.LSTMCell):
    """Other algebra: 1 - u^2 as sech^2, f(1 - f) as f - f^2, products in another order, c divided out of f c."""

    def step_backward(self, d_next, prev, gates, extras):
        (d_h, d_c), (h, c), (i, f, g, o), (u,) = d_next, prev, gates, extras
        delta = d_c + o * d_h / np.cosh(np.arctanh(u)) ** 2
        d_a = np.empty((4, *d_h.shape))
        d_a[3] = (o - o * o) * (u * d_h)
        d_a[2] = (1 + g) * (1 - g) * delta * i
        d_a[1] = (f - f**2) * (c * delta)
        d_a[0] = i * delta * g - i**2 * delta * g
        return d_a, np.stack((np.einsum("kbh,kjh->bj", d_a, self.W_h), f * delta)), ()


class GRURewritten(rl.GRUCell):
    """h_t = n + z (h - n), its derivative by the product rule one summand at a time."""

    def step_backward(self, d_next, prev, gates, extras):
        (d_h,), (h,), (r, z, n), (q,) = d_next, prev, gates, extras
        d_z = (d_h * h - d_h * n) * (z - z**2)
        d_n = (d_h - d_h * z) - n * n * (d_h - z * d_h)
        d_q = r * d_n
        d_r = q * (d_q - r * d_q)
        return [d_r, d_z, d_n], [z * d_h + np.hstack((d_r, d_z, d_q)) @ np.hstack(list(self.W_h)).T], [d_q]


class ReLURNN(rl.RNNCell):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, activation="relu", **named)


class SoftplusRNN(rl.Cell):
    """Another activation, with a gain of its own for each unit: h = gain * log(1 + exp(a))."""

    gate_names = ("candidate",)
    extra_names = ("slope",)

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.add_param("gain", "uniform", (1, self.hidden_size))

    def step(self, a, prev):
        before = a[0] + prev[0] @ self.W_h[0]
        g = np.log(1 + np.exp(before))
        return (g,), (self.gain * g,), (sigmoid(before),)

    def step_backward(self, d_next, prev, gates, extras):
        d_a = d_next[0] * self.gain * extras[0]
        return (d_a,), (self.back((d_a,)),), (d_next[0] * gates[0],)

    def recurrent_grads(self, tape, d_a, d_extras):
        return super().recurrent_grads(tape, d_a, d_extras) | {"gain": column_sums(d_extras)}


class RealStepRNN(RNN):
    """A forward pass that does not take complex numbers: its exact derivatives are central differences."""

    def step(self, a, prev):
        h = np.empty(a[0].shape)
        h[...] = np.tanh(a[0] + prev[0] @ self.W_h[0])
        return (h,), (h,), ()


RIGHT: tuple[type[rl.Cell], ...] = (
    rl.RNNCell, rl.LSTMCell, rl.GRUCell, rl.GRUResetBeforeCell, rl.FourGateLSTMCell,
    RNN, LSTM, GRU, GRUResetBefore, FourGate, CoupledLSTM, PeepholeLSTM,
    LSTMByHand, RNNByHand, GRUByHand, PeepholeByHand, FromScratchRNN,
    LSTMRewritten, GRURewritten, ReLURNN, SoftplusRNN,
)  # fmt: skip


# ---- the mutants ------------------------------------------------------------------------------


def mutant(base: type[rl.Cell], method: str, *changes: tuple[str, str]) -> type[rl.Cell]:
    """`base` with pieces of one method's text replaced; each must stand there exactly once."""
    source = plain = textwrap.dedent(inspect.getsource(getattr(base, method)))
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{base.__name__}.{method}: {old!r} stands {source.count(old)} times, not once")
        source = source.replace(old, new)
    function, changed = written(base, method, source, plain)
    before = getattr(base, "changed", frozenset())
    return type(f"Wrong{base.__name__}", (base,), {method: function, "changed": before | changed})


def written(base: type[rl.Cell], method: str, source: str, plain: str) -> tuple[Any, frozenset[tuple[str, int]]]:
    """A method from its text, which can be read back as from a file, and the lines in which it differs from `plain`."""
    file = f"<zoo {len(linecache.cache)}: {base.__name__}.{method}>"
    lines = source.splitlines(keepends=True)
    linecache.cache[file] = (len(source), None, lines, file)
    space = {**vars(inspect.getmodule(base)), **globals()}
    exec(compile(source, file, "exec"), space)
    function = space[ast.parse(source).body[0].name]
    function.__qualname__ = f"Wrong{base.__name__}.{function.__name__}"
    other = {line.strip() for line in plain.splitlines()}
    changed = {n for n, line in enumerate(lines, 1) if line.strip() not in other}
    return function, frozenset((function.__qualname__, n) for n in changed)


@dataclass(frozen=True)
class Animal:
    """One mutant and what is known of it.

    number    of the published list, or "own"
    gradient  False for a mistake that is no wrong derivative
    """

    number: str
    mistake: str
    cell: type[rl.Cell]
    gradient: bool = True

    def make(self, rng: int = 3) -> rl.Cell:
        return self.cell(3, 4, rng=rng)

    @property
    def name(self) -> str:
        return f"{self.number}: {self.mistake} ({self.cell.__name__.removeprefix('Wrong')})"


class SameSeedLSTM(LSTM):
    """18: the seed is reset inside the initialiser, so all gates start with the same weights."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        for name in ("W_x", "W_h"):
            self.params[name][:] = self.params[name][0]


BACK, GRADS, LOOP = "step_backward", "recurrent_grads", "backward"
# number, mistake, right cell, its method,
#     what stands there and what is written instead
TABLE: tuple[Any, ...] = (
    ("1", "input and forget gate use the output gate's bias backward", LSTMByHand, LOOP,
     ("tape.gates[:, t]", "lstm_gates(self, tape, t, self.b[[3, 3, 2, 3]])")),
    ("1", "forget gate uses the output gate's bias backward", LSTMByHand, LOOP,
     ("tape.gates[:, t]", "lstm_gates(self, tape, t, self.b[[0, 3, 2, 3]])")),
    ("2", "f(1 - f) is missing", LSTM, BACK,
     ("d_f = d_c * c * f * (1 - f)", "d_f = d_c * c")),
    ("2", "f(1 - f) is missing", PeepholeLSTM, BACK,
     ("d_f = d_c * c * f * (1 - f)", "d_f = d_c * c")),
    ("2", "f(1 - f) is missing", FourGate, BACK,
     ("d_f = d_kept * c * f * (1 - f)", "d_f = d_kept * c")),
    ("2", "z(1 - z) is missing", GRU, BACK,
     ("(h - n) * z * (1 - z)", "(h - n)")),
    ("2", "1 - h^2 is missing", RNN, BACK,
     (" * (1 - h * h)", "")),
    ("3", "dL/dh of the next step is never carried back", LSTMByHand, LOOP,
     ("d_h_t = d_h[t] + d_h_next", "d_h_t = d_h[t]")),
    ("3", "nothing of the next step is carried back", RNNByHand, LOOP,
     ("d_next = carried.copy()", "d_next = np.zeros_like(carried)")),
    ("3", "nothing of the next step is carried back", GRUByHand, LOOP,
     ("d_next = carried.copy()", "d_next = np.zeros_like(carried)")),
    ("3", "nothing of the next step is carried back", PeepholeByHand, LOOP,
     ("d_next = carried.copy()", "d_next = np.zeros_like(carried)")),
    ("4, 5", "dL/dc of the next step is dropped or overwritten", LSTM, BACK,
     ("d_c = d_c + d_h * o * (1 - u**2)", "d_c = d_h * o * (1 - u**2)")),
    ("4, 5", "dL/dc of the next step is dropped or overwritten", CoupledLSTM, BACK,
     ("d_c = d_c + d_h * o * (1 - u**2)", "d_c = d_h * o * (1 - u**2)")),
    ("4, 5", "dL/dc of the next step is dropped or overwritten", PeepholeLSTM, BACK,
     ("d_c = d_c + d_h * o * (1 - u**2) + d_o * self.p_o", "d_c = d_h * o * (1 - u**2) + d_o * self.p_o")),
    ("4, 5", "dL/dc of the next step is dropped in the loop", LSTMByHand, LOOP,
     ("d_c_t = d_c_next + d_h_t", "d_c_t = d_h_t"), ("d_h_t, d_c_next, c_prev", "d_h_t, 0, c_prev")),
    ("6", "missing transpose", RNN, BACK,
     ("self.W_h[0].T", "self.W_h[0]")),
    ("6", "missing transpose in one gate", LSTM, BACK,
     ("d_f @ W_f.T", "d_f @ W_f")),
    ("6", "missing transpose in the gated product", GRU, BACK,
     ("d_q @ W_n.T", "d_q @ W_n")),
    ("6", "missing transpose of the memory's own matrix", FourGate, BACK,
     ("self.W_u.T", "self.W_u")),
    ("6", "W_h's gradient transposed", LSTM, GRADS,
     ("outer_products(tape.states[:-1, 0], d_a)",
      "outer_products(tape.states[:-1, 0], d_a).mT")),
    ("7", "c_t where c_{t-1} is meant", LSTM, BACK,
     ("d_f = d_c * c *", "d_f = d_c * (f * c + i * g) *")),
    ("7", "c_t where c_{t-1} is meant", PeepholeLSTM, BACK,
     ("d_f = d_c * c *", "d_f = d_c * (f * c + i * g) *")),
    ("7", "W_h's gradient formed with h_t", RNN, GRADS,
     ("tape.states[:-1, 0]", "tape.states[1:, 0]")),
    ("7", "W_h's gradient formed with h_t", LSTM, GRADS,
     ("tape.states[:-1, 0]", "tape.states[1:, 0]")),
    ("7", "c_t where c_{t-1} is meant, in the loop", LSTMByHand, LOOP,
     ("d_h_t, d_c_next, c_prev", "d_h_t, d_c_next, tape.states[t + 1, 1]")),
    ("7", "an output peephole's gradient formed with c_{t-1}", PeepholeLSTM, GRADS,
     ("d_a[3] * c_t", "d_a[3] * c_prev")),
    ("8", "first time step skipped in W_x's sum", LSTMByHand, LOOP,
     ("d_W_x[k] += tape.x[t].T", "d_W_x[k] += (t > 0) * tape.x[t].T")),
    ("8", "first time step skipped in W_h's sum", RNN, GRADS,
     ("tape.states[:-1, 0], d_a", "tape.states[1:-1, 0], d_a[:, 1:]")),
    ("9", "buffer initialised from the parameter", LSTMByHand, LOOP,
     ("d_b = np.zeros_like(self.b)", "d_b = self.b.copy()")),
    ("9", "buffer initialised from the parameter", LSTMByHand, LOOP,
     ("d_W_h = np.zeros_like(self.W_h)", "d_W_h = self.W_h.copy()")),
    ("10", "W_h's gradient never written", LSTMByHand, LOOP,
     ("d_W_h[k] += h_prev.T @ d_a[k]", "pass")),
    ("10", "one gate's gradient never written", GRU, BACK,
     ("d_r = d_n * q * r * (1 - r)", "d_r = np.zeros_like(d_n)")),
    ("10", "dL/dx never written", LSTMByHand, LOOP,
     ("d_x[t] += d_a[k] @ self.W_x[k].T", "pass")),
    ("11", "W_h's gradient right only for a zero initial state", LSTM, GRADS,
     ("outer_products(tape.states[:-1, 0], d_a)",
      "outer_products(tape.states[:-1, 0] * (np.arange(len(tape.x)) > 0)[:, None, None], d_a)")),
    ("11", "the forget gate's term right only for a zero initial memory", LSTMByHand, LOOP,
     ("d_h_t, d_c_next, c_prev", "d_h_t, d_c_next, c_prev * (t > 0)")),
    ("12", "tanh(c) forgotten forward", LSTM, 'step',
     ("(o * u, c_t)", "(o * c_t, c_t)")),
    ("12", "tanh(c) forgotten backward", LSTM, BACK,
     ("d_o = d_h * u *", "d_o = d_h * (i * g + f * c) *"), ("o * (1 - u**2)", "o")),
    ("13", "z and 1 - z exchanged forward", GRU, 'step',
     ("n + z * (h - n)", "h + z * (n - h)")),
    ("13", "z and 1 - z exchanged backward", GRUResetBefore, BACK,
     ("d_h * (1 - z) *", "d_h * z *"), ("d_h * z +", "d_h * (1 - z) +")),
    ("13", "z and 1 - z exchanged in one term", GRU, BACK,
     ("d_h_prev = d_h * z", "d_h_prev = d_h * (1 - z)")),
    ("14", "reset before the product forward, after it backward", GRUResetBefore, BACK,
     ("(d_n @ W_n.T) * h", "d_n * (h @ W_n)"), ("(d_n @ W_n.T) * r", "(d_n * r) @ W_n.T")),
    ("14", "reset after the product forward, before it backward", GRU, BACK,
     ("d_q @ W_n.T", "(d_n @ W_n.T) * r")),
    ("15", "an argument modified in place", LSTM, BACK,
     ("d_c = d_c + d_h", "d_c += d_h")),
    ("15", "an argument modified in place", CoupledLSTM, BACK,
     ("d_c = d_c + d_h", "d_c += d_h")),
    ("15", "the recorded dL/dc modified in place", LSTMByHand, LOOP,
     ("d_c_t = d_c_next + d_h_t * o * (1 - u**2)", "d_c_t = d_states[t + 1, 1]; d_c_t += d_h_t * o * (1 - u**2)")),
    ("15", "the caller's d_h modified in place", RNNByHand, LOOP,
     ("d_next = carried.copy()\n        d_next[0] += d_h[t]", "d_next = d_h[None, t]; d_next += carried")),
    ("16", "an accumulator is not cleared", LSTMByHand, LOOP,
     ("d_W_h = np.zeros_like(self.W_h)",
      "d_W_h = self.__dict__.setdefault('kept', np.zeros_like(self.W_h))")),
    ("16", "an accumulator is cleared to something unusable", LSTMByHand, LOOP,
     ("d_W_h = np.zeros_like(self.W_h)",
      "d_W_h = self.__dict__.pop('kept', np.zeros_like(self.W_h)); self.kept = None")),
    ("17", "dL/dx ignores the later time steps", LSTMByHand, LOOP,
     ("d_x[t] += d_a[k]", "d_x[t] += lstm_d_a(d_h[t], 0, c_prev, i, f, g, o, u)[k]")),
    ("19", "two gates' bias gradients are copies of a third", LSTMByHand, LOOP,
     ("d_b[k] += d_a[k]", "d_b[k] += d_a[2 if k < 2 else k]")),
    ("20", "float32 buffer in backward", LSTMByHand, LOOP,
     ("np.zeros_like(self.W_h)", "np.zeros_like(self.W_h, dtype=np.float32)")),
    ("20", "float32 in one output", LSTM, BACK,
     ("d_c_prev = d_c * f", "d_c_prev = (d_c * f).astype(np.float32)")),
    ("20", "float32 buffer forward", RNN, 'step',
     ("h = np.tanh(a[0] + prev[0] @ self.W_h[0])", "h = np.tanh(a[0] + prev[0] @ self.W_h[0]).astype(np.float32)")),
    ("own", "the coupled gate's second term forgotten", CoupledLSTM, BACK,
     ("d_c * (c - g)", "d_c * c")),
    ("own", "f where 1 - f is meant", CoupledLSTM, BACK,
     ("d_c * (1 - f) *", "d_c * f *")),
    ("own", "a sign inside a bracket", CoupledLSTM, BACK,
     ("(c - g)", "(c + g)")),
    ("own", "the output peephole's path into c forgotten", PeepholeLSTM, BACK,
     (" + d_o * self.p_o", "")),
    ("own", "the forget peephole's path into c_{t-1} forgotten", PeepholeLSTM, BACK,
     (" + d_f * self.p_f", "")),
    ("own", "another gate's peephole", PeepholeLSTM, BACK,
     ("d_i * self.p_i", "d_i * self.p_f")),
    ("own", "another gate's array", LSTM, BACK,
     ("d_i = d_c * g", "d_i = d_c * f")),
    ("own", "two gates in each other's place", LSTM, BACK,
     ("return (d_i, d_f, d_g, d_o)", "return (d_f, d_i, d_g, d_o)")),
    ("own", "1 - u for 1 - u^2", LSTM, BACK,
     ("o * (1 - u**2)", "o * (1 - u)")),
    ("own", "r missing before W_h[candidate]", GRU, BACK,
     ("d_q @ W_n.T", "d_n @ W_n.T")),
    ("own", "W_u^T missing", FourGate, BACK,
     ("d_u @ self.W_u.T", "d_u")),
    ("own", "a factor missing before W_u^T", FourGate, BACK,
     ("o * (1 - use**2)", "o")),
    ("own", "the direct path of h lost", GRU, BACK,
     ("d_h * z + ", "")),
    ("own", "sign", GRU, BACK,
     ("(h - n)", "(n - h)")),
    ("own", "one gate's way back to h lost", LSTM, BACK,
     (" + d_o @ W_o.T", "")),
    ("own", "another gate's matrix", LSTM, BACK,
     ("d_o @ W_o.T", "d_o @ W_f.T")),
    ("own", "scaled by the batch size", LSTMByHand, LOOP,
     ("rl.Gradients({\"W_x\": d_W_x,", "rl.Gradients({\"W_x\": d_W_x / tape.x.shape[1],")),
    ("own", "= where += is needed in a sum", LSTMByHand, LOOP,
     ("d_b[k] += d_a[k]", "d_b[k] = d_a[k]")),
    ("own", "W_h[candidate] formed with d_n for d_q", GRU, GRADS,
     ("(d_a[0], d_a[1], d_extras[0])", "(d_a[0], d_a[1], d_a[2])")),
    ("own", "W_h[candidate] formed with h for r h", GRUResetBefore, GRADS,
     ("tape.extras[0]", "tape.states[:-1, 0]")),
    ("own", "W_u formed with c_t for what is kept", FourGate, GRADS,
     ("tape.extras[0]", "tape.states[1:, 1]")),
    ("2", "f(1 - f) is missing in the loop", LSTMByHand, LOOP,
     ("        for k in range(4)", "        d_a[1] /= f * (1 - f)\n        for k in range(4)")),
    ("6", "missing transposes in the loop", LSTMByHand, LOOP,
     ("d_a[k] @ self.W_h[k].T", "d_a[k] @ self.W_h[k]")),
    ("own", "another gate's array in the loop", LSTMByHand, LOOP,
     ("d_c_next = d_c_t * f", "d_c_next = d_c_t * i")),
    ("6", "missing transpose, no step to compare with", FromScratchRNN, LOOP,
     ("self.W_h[0].T", "self.W_h[0]")),
    ("10", "all zeros, no step to compare with", FromScratchRNN, LOOP,
     ("tape.states[:-1, 0]", "0 * tape.h")),
    ("own", "one gate not returned", LSTM, BACK,
     ("return (d_i, d_f, d_g, d_o)", "return (d_i, d_f, d_g)")),
    ("own", "raises", LSTM, BACK,
     ("d_f = d_c * c *", "d_f = (d_c * c).sum(axis=1) *")),
    ("own", "no return", LSTM, BACK,
     ("return (d_i", "(d_i")),
    ("own", "NaN", LSTM, BACK,
     ("d_f = d_c * c * f", "d_f = np.log(-abs(d_c)) * f")),
)  # fmt: skip

ANIMALS = (
    *(Animal(number, mistake, mutant(base, method, *changes)) for number, mistake, base, method, *changes in TABLE),
    Animal("18", "all gates start with identical weights", SameSeedLSTM, gradient=False),
)

# two mistakes at once: both must be located
PAIRS: tuple[type[rl.Cell], ...] = (
    mutant(LSTM, "step_backward", ("d_c * c * f * (1 - f)", "d_c * c"), ("d_o = d_h * u *", "d_o = -d_h * u *")),
    mutant(LSTM, "step_backward", ("d_i = d_c * g", "d_i = d_c * f"), ("d_o @ W_o.T", "d_o @ W_o")),
    mutant(GRU, "step_backward", ("(h - n) * z", "(h - n)"), ("d_q @ W_n.T", "d_n @ W_n.T")),
    mutant(GRU, "step_backward", ("(1 - n**2)", "1"), ("d_h * z + ", "")),
    mutant(PeepholeLSTM, "step_backward", ("d_g = d_c * i * (1 - g**2)", "d_g = d_c * i"), ("d_f * self.p_f", "d_f")),
    mutant(mutant(LSTM, "step_backward", ("d_f = d_c * c *", "d_f = d_c *")), "recurrent_grads",
            ("tape.states[:-1, 0]", "tape.states[1:, 0]")),
    mutant(LSTMByHand, "backward", ("d_b[k] += d_a[k]", "d_b[k] += d_a[2 if k < 2 else k]"),
            ("d_W_h[k] += h_prev.T", "d_W_h[k] += tape.states[t + 1, 0].T")),
    mutant(LSTMByHand, "backward", ("d_h_t = d_h[t] + d_h_next", "d_h_t = d_h[t]"),
            ("d_W_h[k] += h_prev.T", "d_W_h[k] += tape.states[t + 1, 0].T")),
)  # fmt: skip


# ---- mechanical mutants -----------------------------------------------------------------------

MECHANICAL = (RNN, LSTM, GRU, GRUResetBefore, FourGate, CoupledLSTM, PeepholeLSTM)
ALIKE = (
    {"i", "f", "g", "o", "u"}, {"h", "c"}, {"r", "z", "n", "q"},
    {"d_i", "d_f", "d_g", "d_o"}, {"d_r", "d_z", "d_n", "d_q"},
    {"d_h", "d_c"}, {"W_i", "W_f", "W_g", "W_o"}, {"W_r", "W_z", "W_n"},
)  # fmt: skip


def mechanical_mutants(base: type[rl.Cell]) -> Iterator[tuple[str, type[rl.Cell]]]:
    """Every single change of `base.step_backward` by rule: an operand dropped, a sign, a power, a transpose lost,
    a name exchanged for a similar one. What is wrong with them nobody chose."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(base.step_backward)))
    plain = ast.unparse(tree)
    seen = {plain}
    for index, node in enumerate(ast.walk(tree)):
        for change in _changes(node):
            twin = copy.deepcopy(tree)
            _put(twin, list(ast.walk(twin))[index], change)
            source = ast.unparse(ast.fix_missing_locations(twin))
            if source not in seen:
                seen.add(source)
                function, changed = written(base, "step_backward", source, plain)
                yield source, type(f"Wrong{base.__name__}", (base,), {"step_backward": function, "changed": changed})


def _changes(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        if not isinstance(node.op, ast.Pow):
            yield from (node.left, node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield ast.BinOp(node.left, other, node.right)
        if isinstance(node.op, ast.Pow):
            yield node.left
    if isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield from (ast.Name(n, ast.Load()) for s in ALIKE if node.id in s for n in sorted(s - {node.id}))


def _put(tree: ast.AST, old: ast.AST, new: ast.expr) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]


def wrong_outputs(base: type[rl.Cell], wrong: type[rl.Cell]) -> set[str] | None:
    """The outputs of step_backward that a mutant really changes; None where it raises."""
    rng = np.random.default_rng(5)
    cell, K, S = base(3, 4, rng=1), len(base.gate_names), len(base.state_names)
    params = {name: rng.normal(size=p.shape) for name, p in cell.params.items()}
    a, prev, d_next = rng.normal(size=(K, 6, 4)), rng.normal(size=(S, 6, 4)), rng.normal(size=(S, 6, 4))
    gates, _, extras = cell.with_params(params).step(a, prev)
    results = []
    for kind in (base, wrong):
        try:
            d_a, d_prev, d_extras = kind(3, 4, rng=1).with_params(params).step_backward(d_next, prev, gates, extras)
        except Exception:
            return None
        results.append([*map(np.asarray, d_a), *map(np.asarray, d_prev), *map(np.asarray, d_extras)])
    names = [f"d_a[{g}]" for g in base.gate_names] + [f"d_prev[{s}]" for s in base.state_names]
    names += ["params"] * (len(results[0]) - len(names))  # d_extras reach the parameters alone
    pairs = zip(names, *results, strict=True)
    return {name for name, x, y in pairs if x.shape != y.shape or not np.allclose(x, y, rtol=1e-9, atol=1e-12)}


def judge_mechanical(base: type[rl.Cell], every: int = 1) -> tuple[list[int], list[str]]:
    """([mutants, found, explained, elsewhere], reports of what is missed) of every n-th mechanical mutant.

    Explained is one that a repair mends; elsewhere, one whose repair stands at another line than the change."""
    counts, told = [0, 0, 0, 0], []
    for source, wrong in list(mechanical_mutants(base))[::every]:
        if wrong_outputs(base, wrong) == set():
            continue  # another wording of what is right
        report = rl.diagnose(wrong(3, 4, rng=1))
        mended = bool(report.findings) and all(f.repair is not None for f in report.findings)
        here = any((f.function, f.line) in wrong.changed for f in report.findings)
        raises = any(f.kind == "exception" for f in report.findings)
        row = (1, bool(report.findings), mended or raises, bool(report.findings) and not here and not raises)
        counts = [n + k for n, k in zip(counts, row, strict=True)]
        if not (mended or raises):
            told.append(f"{source}\n{report}")
    return counts, told


# ---- the confusion matrix ---------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """caught by `check_gradients`; found at all; the line named; a repair given at it, or what is no line said."""

    caught: bool
    found: bool
    located: bool
    explained: bool
    report: str = ""


def fails_gradient_check(cell: rl.Cell) -> bool:
    try:
        with np.errstate(all="ignore"):
            rl.check_gradients(cell)
    except Exception:  # a mismatch, or whatever the mutant raises
        return True
    return False


NO_LINE = ("identical gates", "state left over", "float32", "exception", "never written")


def judge(animal: Animal) -> Verdict:
    """How the gradient check and the diagnosis do on one mutant."""
    cell = animal.make()
    report = rl.diagnose(cell)
    here = [f for f in report.findings if (f.function, f.line) in getattr(animal.cell, "changed", ())]
    mended = any(f.repair is not None for f in here) and all(f.repair is not None for f in report.findings)
    said = any(f.kind in NO_LINE for f in report.findings)
    caught = fails_gradient_check(cell) if animal.gradient else False
    return Verdict(caught, bool(report.findings), bool(here) or said, mended or said, str(report))


def random_right_case(n: int) -> rl.Cell:
    """A right cell number n: every class in turn, random sizes and initial weights."""
    rng = np.random.default_rng([20, n])
    D, H = (int(size) for size in rng.integers(1, 7, 2))
    init = str(rng.choice(("uniform", "glorot", "orthogonal", "identity")))
    return RIGHT[n % len(RIGHT)](D, H, rng=n, recurrent_init=init)


def confusion_matrix(cases: int = 1000, every: int = 1, show: Callable[[str], None] = print) -> None:
    """Print the matrix, what is not explained, and the false blame on `cases` right cells."""
    rows: dict[str, list[Verdict]] = {}
    for animal in ANIMALS:
        verdict = judge(animal)
        rows.setdefault(animal.number, []).append(verdict)
        if not (verdict.located and verdict.explained) or verdict.caught != animal.gradient:
            show(f"-- {animal.name}\n{verdict.report}")
    show(f"{'mistake':8} mutants  caught  found  line named  explained")
    total = np.zeros(5, int)
    for number, verdicts in rows.items():
        counts = [len(verdicts)]
        counts += [sum(getattr(v, name) for v in verdicts) for name in ("caught", "found", "located", "explained")]
        total += counts
        show(f"{number:8} {counts[0]:7} {counts[1]:7} {counts[2]:6} {counts[3]:11} {counts[4]:10}")
    show(f"{'all':8} {total[0]:7} {total[1]:7} {total[2]:6} {total[3]:11} {total[4]:10}")
    sums = np.zeros(4, int)
    for base in MECHANICAL:
        sums += judge_mechanical(base, every)[0]
    show(
        f"mechanical mutants of step_backward: {sums[0]}, found {sums[1]}, explained {sums[2]}, "
        f"with the repair at another line {sums[3]}"
    )
    pairs = [rl.diagnose(cell(3, 4, rng=3)) for cell in PAIRS]
    both = sum(len(r.findings) > 1 and all(f.repair is not None for f in r.findings) for r in pairs)
    show(f"two mistakes at once: {len(PAIRS)} pairs, {sum(not r.ok for r in pairs)} found, {both} mended line by line")
    false = [n for n in range(cases) if not rl.diagnose(random_right_case(n), rng=n).ok]
    show(f"right cells: {len(false)} of {cases} falsely blamed {false[:10]}")


if __name__ == "__main__":
    confusion_matrix()
