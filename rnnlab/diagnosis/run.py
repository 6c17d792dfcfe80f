"""A sequence to diagnose on, and the ways back through it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.diagnosis.case import CENTRAL, COMPLEX, derivative, step_jacobian, step_values, vector_jacobian
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

    def inputs(self) -> Array:
        """a = x W_x + b, (K, T, B, H)."""
        a: Array = np.einsum("tbd,kdh->ktbh", self.x, self.cell.W_x) + self.cell.b[:, :, None]
        return a

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


def make_run(cell: Cell, T: int, B: int, rng: np.random.Generator, method: str) -> Run:
    S, H = len(cell.state_names), cell.hidden_size
    x, state = rng.normal(size=(T, B, cell.input_size)), rng.normal(size=(S, B, H))
    tape = cell.forward(x.copy(), state.copy())
    return Run(cell, x, tape, rng.normal(size=(T, B, H)), rng.normal(size=(S, B, H)), method)


def go_back(
    run: Run, vjp: Vjp, carried: Array | float = 1.0, d_h: Array | None = None, final: Array | float = 1.0
) -> Loop:
    """Backpropagation through time; of the state's gradient, `carried` (S, 1, 1) is handed on from step to step,
    and `final` (S, 1, 1) of d_state to the last."""
    d_h = run.d_h if d_h is None else d_h
    used = np.zeros_like(run.tape.states)
    recorded, d_a = np.zeros_like(used), np.zeros_like(run.tape.gates)
    back = run.d_state
    for t in reversed(range(run.T)):
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


def taught_vjp(run: Run, tape: Tape | None = None, previous: Array | None = None) -> Vjp:
    """The cell's own `step_backward`, on the recorded values or on changed ones."""
    tape = tape or run.tape
    previous = tape.states[:-1] if previous is None else previous

    def vjp(t: int, d: Array) -> tuple[Array, Array]:
        d_a, d_prev, _ = run.cell.step_backward(
            d.copy(), previous[t].copy(), tape.gates[:, t].copy(), tape.extras[:, t].copy()
        )
        return np.array(d_a), np.array(d_prev)

    return vjp


def forward_method(cell: Cell, T: int, B: int, rng: np.random.Generator) -> str:
    """Complex step, if the forward pass takes complex numbers and one central difference agrees."""
    x, direction = rng.normal(size=(2, T, B, cell.input_size))

    def moved(by: Any) -> Array:
        shifted = x + by * direction
        return np.asarray(_complex_if(cell, shifted).forward(shifted).states)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        central = derivative(moved, CENTRAL)
        try:
            off = np.abs(derivative(moved, COMPLEX) - central).max()
        except Exception:  # whatever a learner's forward raises on complex numbers
            return CENTRAL
    return COMPLEX if off <= 1e-4 * max(1.0, np.abs(central).max()) else CENTRAL


def forward_states(run: Run) -> Array:
    """dL/dstates for every t from the forward pass alone, restarted at t with one entry moved."""
    exact = np.empty_like(run.tape.states)
    for t, state in enumerate(run.tape.states):
        for index in np.ndindex(state.shape):
            one = np.zeros(state.shape)
            one[index] = 1

            def worth(by: Any, t: int = t, state: Array = state, one: Array = one) -> Array:
                return np.asarray(_worth(run, t, state + by * one))

            exact[(t, *index)] = derivative(worth, run.method)
    return exact


def forward_x(run: Run) -> Array:
    """dL/dx from the forward pass alone, one entry moved."""
    exact = np.empty_like(run.x)
    for index in np.ndindex(run.x.shape):
        one = np.zeros(run.x.shape)
        one[index] = 1

        def worth(by: Any, one: Array = one) -> Array:
            x = run.x + by * one
            tape = _complex_if(run.cell, x).forward(x, run.tape.states[0])
            return np.asarray((run.d_h * tape.h).sum() + (run.d_state * tape.states[-1]).sum())

        exact[index] = derivative(worth, run.method)
    return exact


def _worth(run: Run, t: int, state: Array) -> Any:
    """What is read from step t on, when the network starts there with `state`."""
    read = (run.d_h[t - 1] * state[0]).sum() if t else 0
    if t == run.T:
        return read + (run.d_state * state).sum()
    tape = _complex_if(run.cell, state).forward(run.x[t:], state)
    return read + (run.d_h[t:] * tape.h).sum() + (run.d_state * tape.states[-1]).sum()


def _complex_if(cell: Cell, array: Array) -> Cell:
    return cell.astype(np.complex128) if np.iscomplexobj(array) else cell
