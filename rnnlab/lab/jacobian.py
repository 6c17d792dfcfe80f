"""Jacobians of a step and of many: how fast, and along how many directions, a gradient shrinks or grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.lab.recorded import (
    back_one_step,
    backward_in_blocks,
    log,
    memory_gate,
    slice_time,
    span,
    step_numbers,
)
from rnnlab.ops import Array


def jacobians(cell: Cell, tape: Tape, times: Iterable[int] | None = None) -> Array:
    """d state_{t+1} / d state_t, exactly, for each chosen step t.

    Row i is what the unit vector i becomes one step back; a state's entry stands at part * H + unit. A gradient
    goes back as dL/dstate_t = dL/dstate_{t+1} J_t.

    Parameters
    ----------
    cell, tape : a cell, and the tape of its forward pass
    times : the n chosen steps, None for all

    Returns
    -------
    (n, B, S*H, S*H).

    Raises
    ------
    ValueError
        For steps that the tape does not have.
    """
    steps, units = step_numbers(cell, tape, times), _unit_vectors(cell, tape.states.shape[2])
    n, (S, R, B, H) = len(steps), units.shape
    every_unit = np.tile(units.swapaxes(0, 1), (n, 1, 1, 1))  # (n*R, S, B, H)
    d_prev, _ = back_one_step(cell, tape, np.repeat(steps, R), every_unit)
    return _matrices(d_prev.reshape(n, R, S, B, H).swapaxes(1, 2))


@dataclass(frozen=True)
class JacobianProduct:
    """d state_end / d state_start = exp(log_scale) * matrix, for each sequence of the batch.

    matrix (B, S*H, S*H) has 1 as its largest entry (or is zero, with log_scale -inf) and log_scale (B,) is
    a natural logarithm, so that neither a thousand small nor a thousand large factors leave the floats.
    """

    start: int
    end: int
    matrix: Array
    log_scale: Array

    def value(self) -> Array:
        """The product itself, (B, S*H, S*H). Raises FloatingPointError where a float cannot hold it."""
        with np.errstate(over="raise", under="raise"):
            return np.asarray(self.matrix * np.exp(self.log_scale)[:, None, None])

    def log_singular_values(self) -> Array:
        """Natural logarithms, largest first, (B, S*H); NaN for those that the largest hides, -inf for zeros alone.

        A product of floats holds its singular values to about S*H * eps of the largest.
        """
        sigma = np.linalg.svd(self.matrix, compute_uv=False)
        resolved = sigma >= sigma[:, :1] * sigma.shape[-1] * np.finfo(sigma.dtype).eps
        return log(np.where(resolved, sigma, np.nan)) + self.log_scale[:, None]

    def log_norm(self) -> Array:
        """Natural logarithm of the spectral norm, (B,); -inf for a product that is zero."""
        return np.asarray(self.log_singular_values()[:, 0])

    def log_spectral_radius(self) -> Array:
        """Natural logarithm of the largest |eigenvalue|, (B,); -inf for none but zeros."""
        return log(np.abs(np.linalg.eigvals(self.matrix)).max(axis=-1)) + self.log_scale


def jacobian_products(cell: Cell, tape: Tape, start: int = 0, end: int | None = None) -> Iterator[JacobianProduct]:
    """d state_end / d state_t for t = end - 1 down to start, each made from the one before.

    The rows of the product are gradients of the entries of state_end, taken back by `Cell.backward` in float64.

    Parameters
    ----------
    cell, tape : a cell, and the tape of its forward pass
    start, end : the span of steps, 0 <= start < end <= T; None for T

    Returns
    -------
    An iterator over `JacobianProduct`s. Raises TypeError or ValueError for another span.
    """
    start, end = span(cell, tape, start, end)
    return _products(cell, slice_time(tape, start, end), start)


def _products(cell: Cell, tape: Tape, start: int) -> Iterator[JacobianProduct]:
    units, end = _unit_vectors(cell, tape.states.shape[2]), start + len(tape.x)
    for first, (grads,), log_scale in backward_in_blocks([cell], [tape], units):
        matrices = _matrices(grads.states[:-1].reshape(-1, *units.shape))
        for t, matrix in reversed(list(enumerate(matrices, start + first))):
            largest = np.abs(matrix).max(axis=(1, 2))
            scaled = matrix / np.where(largest > 0, largest, 1)[:, None, None]
            yield JacobianProduct(t, end, scaled, log_scale + log(largest))


def jacobian_product(cell: Cell, tape: Tape, start: int = 0, end: int | None = None) -> JacobianProduct:
    """d state_end / d state_start over any number of steps.

    Parameters
    ----------
    cell, tape, start, end : as in `jacobian_products`

    Returns
    -------
    One `JacobianProduct`.
    """
    *_, product = jacobian_products(cell, tape, start, end)
    return product


@dataclass(frozen=True)
class JacobianDecay:
    """The product of Jacobians against its span, natural logarithms throughout.

    spans                1 .. n: state_end against state_{end - span}
    log_singular_values  (n, B, S*H), NaN for those that the largest hides
    log_norm             (n, B), the spectral norm: what was measured
    log_memory_norm      (n, B), the same of d m_end / d m_t alone, m the last state part
    log_bound            (n, B), sum over the span of log(max|phi'| ||W_h||), for a plain recurrent cell
                         (Pascanu, Mikolov & Bengio 2013, sec. 2.1): the norm cannot be above; else None
    log_gate_product     (n, B, H), sum over the span of log f_t (an update gate's log z_t): what each
                         memory keeps when nothing but its gate acts; None for a cell without such a gate
    """

    spans: Array
    log_singular_values: Array
    log_norm: Array
    log_memory_norm: Array
    log_bound: Array | None
    log_gate_product: Array | None


def jacobian_decay(
    cell: Cell, tape: Tape, start: int = 0, end: int | None = None, *, keeps: str | None = None
) -> JacobianDecay:
    """Measure `jacobian_products` span by span, beside what theory says of them.

    Parameters
    ----------
    cell, tape, start, end : as in `jacobian_products`
    keeps : the gate that keeps the memory, where it is neither "forget" nor "update"

    Returns
    -------
    `JacobianDecay`. Raises as `jacobian_products`, and ValueError for a gate that the cell does not have.
    """
    start, end = span(cell, tape, start, end)
    H, values, memory = cell.hidden_size, [], []
    for product in jacobian_products(cell, tape, start, end):
        values.append(product.log_singular_values())
        memory.append(log(np.linalg.norm(product.matrix[:, -H:, -H:], ord=2, axis=(1, 2))) + product.log_scale)
    backwards = np.arange(end - 1, start - 1, -1)
    gates = None
    if keeps is not None or {"forget", "update"} & set(cell.gate_names):
        gates = log(tape.gates[memory_gate(cell, keeps), backwards]).cumsum(axis=0)
    bound = _plain_bound(cell, tape, backwards)
    log_sigma, spans = np.array(values), np.arange(1, end - start + 1)
    return JacobianDecay(spans, log_sigma, log_sigma[..., 0], np.array(memory), bound, gates)


def _plain_bound(cell: Cell, tape: Tape, times: Array) -> Array | None:
    """Cumulated log(max|phi'| ||W_h||) where h_t = phi(x W_x + h W_h + b), and None for every other cell."""
    if (len(cell.gate_names), len(cell.state_names)) != (1, 1):
        return None
    ones = np.ones_like(tape.states[times])
    none, one = np.zeros_like(cell.W_h), np.eye(cell.hidden_size, dtype=cell.dtype)[None]
    without, slope = (
        back_one_step(cell.with_params(cell.params | {"W_h": W}), tape, times, ones)[0] for W in (none, one)
    )  # through W_h = 1 comes phi' itself
    if without.any():
        return None  # another way from h to h than through W_h
    largest = np.abs(slope).max(axis=(1, 3))
    return (log(largest) + log(np.linalg.norm(cell.W_h[0], ord=2))).cumsum(axis=0)


def _unit_vectors(cell: Cell, B: int) -> Array:
    """The S*H unit vectors for each of B sequences, (S, S*H, B, H)."""
    S, H = len(cell.state_names), cell.hidden_size
    unit = np.eye(S * H, dtype=cell.dtype).reshape(S * H, S, 1, H).swapaxes(0, 1)
    return np.tile(unit, (1, 1, B, 1))


def _matrices(d_states: Array) -> Array:
    """(n, S, R, B, H), R gradients of each sequence, to one matrix a sequence: (n, B, R, S*H)."""
    n, S, R, B, H = d_states.shape
    return d_states.transpose(0, 3, 2, 1, 4).reshape(n, B, R, S * H)
