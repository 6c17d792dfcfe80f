"""What every analysis here stands on: a recorded step, taken back once more through the cell's own `step_backward`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.ops import Array
from rnnlab.validate import describe, float_array, label_array, one_of, positive_int


def slice_time(tape: Tape, start: int, end: int) -> Tape:
    """Steps start .. end - 1 of a tape, as views."""
    return replace(
        tape,
        x=tape.x[start:end],
        states=tape.states[start : end + 1],
        gates=tape.gates[:, start:end],
        extras=tape.extras[:, start:end],
    )


def fold_time(tape: Tape, times: Array) -> Tape:
    """The n chosen steps side by side: a tape of one step whose batch has n*B rows, step by step.

    A step's derivative needs that step's record alone, so all of them can be taken at once.
    """
    rows = len(times) * tape.states.shape[2]
    gates, extras = (a[:, times].reshape(len(a), 1, rows, a.shape[-1]) for a in (tape.gates, tape.extras))
    states = np.array([unfolded_to_rows(tape.states[times]), unfolded_to_rows(tape.states[times + 1])])
    return replace(tape, x=tape.x[times].reshape(1, rows, *tape.x.shape[2:]), states=states, gates=gates, extras=extras)


def unfolded_to_rows(a: Array) -> Array:
    """(n, S, B, H) to (S, n*B, H)."""
    return a.swapaxes(0, 1).reshape(a.shape[1], -1, a.shape[-1])


def rows_to_unfolded(a: Array, B: int) -> Array:
    """(S, n*B, H) to (n, S, B, H)."""
    return a.reshape(len(a), -1, B, a.shape[-1]).swapaxes(0, 1)


def step_back(cell: Cell, step: Tape, d_next: Array) -> tuple[Array, Array]:
    """(d_a (K, R, N, H), d_prev (S, R, N, H)) of a one-step tape with N rows, for R different d_next (S, R, N, H).

    The recorded row stands in the batch R times, so that one call does for all R.
    """
    S, R, N, H = d_next.shape
    recorded = (step.states[0], step.gates[:, 0], step.extras[:, 0])
    prev, gates, extras = (np.tile(a, (1, R, 1)) for a in recorded)
    d_a, d_prev, _ = cell.step_backward(d_next.reshape(S, R * N, H), prev, gates, extras)
    return np.stack(list(d_a)).reshape(-1, R, N, H), np.stack(list(d_prev)).reshape(S, R, N, H)


def outside_gradients(cell: Cell, tape: Tape, d_h: Array, d_state: Array | None) -> Array:
    """What reaches each state from outside the recurrence, (T+1, S, B, H): d_h at t = 1 .. T, d_state at T.

    Raises TypeError or ValueError for arrays that do not fit the tape.
    """
    steps, S, B, H = tape.states.shape
    outside = np.zeros(tape.states.shape, cell.dtype)
    outside[1:, 0] = float_array("d_h", d_h, (("T", steps - 1), ("B", B), ("H", H)), cell.dtype)
    if d_state is not None:
        outside[-1] += float_array("d_state", d_state, (("S", S), ("B", B), ("H", H)), cell.dtype)
    return outside


def check_cell(cell: Cell, tape: Tape) -> None:
    """TypeError or ValueError unless `cell` is one and `tape` has its shapes."""
    if not isinstance(cell, Cell):
        raise TypeError(f"cell: expected a Cell, got {describe(cell)}")
    cell.check_tape(tape)


def span(cell: Cell, tape: Tape, start: int, end: int | None) -> tuple[int, int]:
    """(start, end) with 0 <= start < end <= T; TypeError or ValueError otherwise, and as `check_cell`."""
    check_cell(cell, tape)
    T = len(tape.x)
    end = T if end is None else positive_int("end", end)
    if positive_int("start", start, 0) >= end or end > T:
        raise ValueError(f"start, end: expected 0 <= start < end <= T={T}, got {start} and {end}")
    return int(start), end


def step_numbers(cell: Cell, tape: Tape, times: Iterable[int] | None) -> Array:
    """The chosen steps, all of them for None; TypeError or ValueError where they are not steps of this tape."""
    check_cell(cell, tape)
    T = len(tape.x)
    if times is None:
        return np.arange(T)
    chosen = [*times] if isinstance(times, Iterable) else times
    if chosen == []:
        raise ValueError("times: expected at least one step, got none")
    return label_array("times", chosen, (("n", None),), T)


def memory_gate(cell: Cell, name: str | None) -> int:
    """The gate that keeps the memory: the one named, or "forget", or "update"; ValueError where there is none."""
    if name is not None:
        return cell.gate_names.index(one_of("keeps", name, cell.gate_names))
    for gate in ("forget", "update"):
        if gate in cell.gate_names:
            return cell.gate_names.index(gate)
    raise ValueError(f"keeps: expected the gate that keeps the memory, one of {cell.gate_names}, got None")
