"""A sequence to diagnose on, and the ways back through it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.diagnosis.case import (
    CENTRAL,
    COMPLEX,
    call_step_backward,
    derivative,
    step_jacobian,
    step_values,
    vector_jacobian,
    with_values,
)
from rnnlab.ops import Array

Vjp = Callable[[int, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Run:
    """A sequence, and what its loss reads: d_h at every step, d_state at the end."""

    cell: Cell
    x: Array
    tape: Tape
    d_h: Array
    d_state: Array
    method: str

    @property
    def T(self) -> int:
        return len(self.x)

    def rows(self, array: Array) -> Array:
        """(..., T, B, H) as (..., T*B, H)."""
        *rest, T, B, N = array.shape
        return array.reshape(*rest, T * B, N)

    def inputs(self, cell: Cell | None = None) -> Array:
        """a = x W_x + b, (K, T, B, H)."""
        cell = cell or self.cell
        a: Array = np.einsum("tbd,kdh->ktbh", self.x, cell.W_x) + cell.b[:, :, None]
        return a

    def loss(self, cell: Cell, x: Array, state: Array, t: int = 0) -> Any:
        """What is read from step t on, when the network starts there with `state`."""
        read = (self.d_h[t - 1] * state[0]).sum() if t else 0
        if t == self.T:
            return read + (self.d_state * state).sum()
        if np.iscomplexobj(x) or np.iscomplexobj(state):
            cell = with_values(cell, {name: p.astype(complex) for name, p in cell.params.items()})
        tape = cell.forward(x[t:], state)
        return read + (self.d_h[t:] * tape.h).sum() + (self.d_state * tape.states[-1]).sum()

    def sums_of(self, loop: Loop) -> dict[str, Array]:
        """The gradients that follow from a loop's d_a alone: W_x, b and x."""
        return {
            "W_x": np.einsum("tbd,ktbh->kdh", self.x, loop.d_a),
            "b": loop.d_a.sum(axis=(1, 2))[:, None],
            "x": np.einsum("ktbh,kdh->tbd", loop.d_a, self.cell.W_x),
        }


@dataclass(frozen=True)
class Loop:
    """What one way of going back through time gives: `used` (T+1, S, B, H) is what entered each step's
    derivative (and came out of the first step), `recorded` what came out, d_h added; d_a (K, T, B, H)."""

    used: Array
    recorded: Array
    d_a: Array


def make_run(cell: Cell, T: int, B: int, rng: np.random.Generator, method: str | None) -> Run:
    """Random input, states and loss; the method is found out where it is not known."""
    S, H = len(cell.state_names), cell.hidden_size
    x, state = rng.normal(size=(T, B, cell.input_size)), rng.normal(size=(S, B, H))
    tape = cell.forward(x.copy(), state.copy())
    run = Run(cell, x, tape, rng.normal(size=(T, B, H)), rng.normal(size=(S, B, H)), method or CENTRAL)
    return run if method else replace(run, method=_method(run, rng))


def _method(run: Run, rng: np.random.Generator) -> str:
    """Complex step, if the forward pass takes complex numbers and one central difference agrees."""
    loss = partial(_moved, lambda x: run.loss(run.cell, x, run.tape.states[0]), run.x, rng.normal(size=run.x.shape))
    central = derivative(loss, CENTRAL)
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            off = abs(derivative(loss, COMPLEX) - central)
        except Exception:  # whatever a learner's forward raises on complex numbers
            return CENTRAL
    return COMPLEX if off <= 1e-4 * max(1.0, float(abs(central))) else CENTRAL


def _moved(f: Callable[[Array], Array], at: Array, direction: Array, by: Any) -> Array:
    return f(at + by * direction)


def go_back(
    run: Run,
    vjp: Vjp,
    carried: Array | float = 1.0,
    d_h: Array | None = None,
    final: Array | float = 1.0,
    steps: Iterable[int] | None = None,
) -> Loop:
    """Backpropagation through time; of the state's gradient, `carried` (S, 1, 1) is handed on from step to step,
    and `final` (S, 1, 1) of d_state to the last. `steps` are T-1 .. 0 where a learner's loop takes no others."""
    d_h = run.d_h if d_h is None else d_h
    used = np.zeros_like(run.tape.states)
    recorded, d_a = np.zeros_like(used), np.zeros_like(run.tape.gates)
    back = run.d_state
    for t in reversed(range(run.T)) if steps is None else steps:
        recorded[t + 1] = back
        recorded[t + 1, 0] += d_h[t]
        used[t + 1] = (final if t == run.T - 1 else carried) * back
        used[t + 1, 0] += d_h[t]
        d_a[:, t], back = vjp(t, used[t + 1])
    used[0] = recorded[0] = back
    return Loop(used, recorded, d_a)


def exact_vjp(run: Run) -> Vjp | None:
    """Each step's exact derivative by the cell's own `step`; None where `forward` is not made of steps."""
    cell, a, states = run.cell, run.inputs(), run.tape.states
    try:
        for t in range(run.T):
            following = step_values(cell, a[:, t], states[t])[1]
            if not np.allclose(following, states[t + 1], rtol=1e-10, atol=1e-12):
                return None
        jacobians = [step_jacobian(cell, a[:, t], states[t], run.method) for t in range(run.T)]
    except Exception:  # a forward pass of the learner's own may leave step as it likes
        return None
    return lambda t, d: vector_jacobian(jacobians[t], d, len(a))


def taught_vjp(run: Run, gates: Array | None = None, previous: Array | None = None) -> Vjp:
    """The cell's own `step_backward`, on the recorded values or on changed ones."""
    gates = run.tape.gates if gates is None else gates
    previous = run.tape.states if previous is None else previous
    return lambda t, d: call_step_backward(run.cell, d, previous[t], gates[:, t], run.tape.extras[:, t])[:2]


def own_extras(run: Run, loop: Loop) -> Array:
    """What step_backward returns for recurrent_grads, at every step of the loop: (n, T, B, H)."""
    tape = run.tape
    steps = [
        call_step_backward(run.cell, loop.used[t + 1], tape.states[t], tape.gates[:, t], tape.extras[:, t])[2]
        for t in range(run.T)
    ]
    return np.stack(steps, axis=1)


def forward_states(run: Run) -> Array:
    """dL/dstates for every t from the forward pass alone, restarted at t with one entry moved."""
    losses = [lambda state, t=t: run.loss(run.cell, run.x, state, t) for t in range(run.T + 1)]
    return np.array([_entries(f, state, run.method) for f, state in zip(losses, run.tape.states, strict=True)])


def forward_x(run: Run) -> Array:
    """dL/dx from the forward pass alone, one entry moved."""
    return _entries(lambda x: run.loss(run.cell, x, run.tape.states[0]), run.x, run.method)


def _entries(f: Callable[[Array], Array], at: Array, method: str) -> Array:
    units = np.eye(at.size).reshape(at.size, *at.shape)
    return np.array([derivative(partial(_moved, f, at, one), method) for one in units]).reshape(at.shape)
