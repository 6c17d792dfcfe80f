"""Parts of a recorded pass, and how they are taken back once more, always through `Cell.backward`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rnnlab.cells.base import Cell, Gradients, Tape
from rnnlab.cells.bidirectional import Bidirectional, Recurrent, Tapes
from rnnlab.ops import Array
from rnnlab.validate import describe, float_array, integer, is_iterable, label_array, one_of

BLOCK = 4  # steps between which `backward_in_blocks` rescales


def slice_time(tape: Tape, start: int, end: int) -> Tape:
    """Steps start .. end - 1 of a tape, as views."""
    return replace(
        tape,
        x=tape.x[start:end],
        states=tape.states[start : end + 1],
        gates=tape.gates[:, start:end],
        extras=tape.extras[:, start:end],
        alive=None if tape.alive is None else tape.alive[start:end],
    )


def back_one_step(cell: Cell, tape: Tape, times: Array, d_next: Array) -> tuple[Array, dict[str, Array]]:
    """dL/dstate_t (n, S, B, H) and dL/dparameters, from dL/dstate_{t+1} (n, S, B, H), for n chosen steps t at once.

    A step's derivative needs that step's record alone, so the chosen ones stand side by side: one step, n*B sequences.
    """
    n, S, B, H = d_next.shape

    def side_by_side(a: Array) -> Array:
        """(n, S, B, H) to (S, n*B, H)."""
        return a.swapaxes(0, 1).reshape(S, n * B, H)

    step = replace(
        tape,
        x=tape.x[times].reshape(1, n * B, *tape.x.shape[2:]),
        states=np.array([side_by_side(tape.states[times]), side_by_side(tape.states[times + 1])]),
        gates=tape.gates[:, times].reshape(-1, 1, n * B, H),
        extras=tape.extras[:, times].reshape(len(tape.extras), 1, n * B, H),
        alive=None if tape.alive is None else tape.alive[times].reshape(1, n * B),
    )
    nothing_read = np.zeros((1, n * B, H), cell.dtype)
    grads = cell.backward(step, nothing_read, side_by_side(d_next), input_gradient=False)
    return grads.states[0].reshape(S, n, B, H).swapaxes(0, 1), grads.params


def repeated(tape: Tape, R: int) -> Tape:
    """The whole batch R times, in float64: a place for R different gradients of each sequence."""
    rows = np.tile(np.arange(tape.states.shape[2]), R)
    states, gates, extras = (a[:, :, rows].astype(float) for a in (tape.states, tape.gates, tape.extras))
    x = tape.x[:, rows] if tape.x.ndim == 2 else tape.x[:, rows].astype(float)
    alive = None if tape.alive is None else tape.alive[:, rows]
    return replace(tape, x=x, states=states, gates=gates, extras=extras, alive=alive)


def backward_in_blocks(
    cells: Sequence[Cell], tapes: Sequence[Tape], d_final: Array, *, input_gradient: bool = False
) -> Iterator[tuple[int, list[Gradients], Array]]:
    """R gradients of the last layer's final state at once, (S, R, B, H), taken back through time and layers.

    Yields (start, each layer's gradients, log_scale) for blocks of BLOCK steps, the last block first; their batch axis
    has R*B rows, and what they hold is to be multiplied by exp(log_scale), (B,). After each block the largest entry is
    made 1, in float64, so that any number of steps stays within the floats if each changes a gradient by a factor
    between 1e-70 and 1e70.
    """
    _, R, B, _ = d_final.shape
    cells = [cell.astype(np.float64) for cell in cells]
    tapes = [repeated(tape, R) for tape in tapes]
    d_states = [np.zeros((len(cell.state_names), R * B, cell.hidden_size)) for cell in cells]
    d_states[-1] = d_final.astype(float).reshape(len(d_final), R * B, -1)
    log_scale = np.zeros(B)
    for end in range(len(tapes[0].x), 0, -BLOCK):
        start, grads = max(end - BLOCK, 0), list[Gradients]()
        d_h = np.zeros_like(tapes[-1].h[start:end])
        for n in reversed(range(len(cells))):
            block = slice_time(tapes[n], start, end)
            grads.insert(0, cells[n].backward(block, d_h, d_states[n], input_gradient=n > 0 or input_gradient))
            d_h = np.asarray(grads[0].x)
        yield start, grads, log_scale
        largest = np.max([np.abs(g.states[0]).reshape(-1, R, B, g.states.shape[-1]).max((0, 1, 3)) for g in grads], 0)
        divisor = np.tile(np.where(largest > 0, largest, 1), R)[:, None]
        d_states, log_scale = [g.states[0] / divisor for g in grads], log_scale + log(largest)


def log(values: npt.ArrayLike) -> Array:
    """Natural logarithm, -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values))


def outside_gradients(cell: Cell, tape: Tape, d_h: Array, d_state: Array | None) -> Array:
    """What reaches each state from outside the recurrence, (T+1, S, B, H): d_h at t = 1 .. T, d_state at T.

    Raises TypeError or ValueError for arrays that do not fit the tape.
    """
    steps, S, B, H = tape.states.shape
    outside = np.zeros(tape.states.shape, cell.dtype)
    outside[1:, 0] = float_array("d_h", d_h, (("T", steps - 1), ("B", B), ("H", H)), cell.dtype)
    if tape.alive is not None:
        outside[1:, 0][~tape.alive] = 0  # the output is 0 there, whatever the state
    if d_state is not None:
        outside[-1] += float_array("d_state", d_state, (("S", S), ("B", B), ("H", H)), cell.dtype)
    return outside


def one_direction(cells: Iterable[Recurrent], tapes: Iterable[Tapes]) -> tuple[tuple[Cell, ...], tuple[Tape, ...]]:
    """These cells and tapes; ValueError where a layer reads backwards, so a gradient has no one way back in time."""
    if backwards := [cell for cell in cells if not isinstance(cell, Cell)]:
        raise ValueError(
            f"model: expected cells that read forwards, got {backwards[0]}; analyse one of its `cells` by itself, with "
            "its tape from `tape.tapes`"
        )
    return tuple(cell for cell in cells if isinstance(cell, Cell)), tuple(t for t in tapes if isinstance(t, Tape))


def check_cell(cell: Cell, tape: Tape) -> None:
    """TypeError or ValueError unless `cell` is one and `tape` has its shapes."""
    if not isinstance(cell, Cell):
        one = "; analyse one of its `cells`, with its tape from `tape.tapes`" if isinstance(cell, Bidirectional) else ""
        raise TypeError(f"cell: expected a Cell, got {describe(cell)}{one}")
    cell.check_tape(tape)


def span(cell: Cell, tape: Tape, start: int, end: int | None) -> tuple[int, int]:
    """(start, end) with 0 <= start < end <= T; TypeError or ValueError otherwise, and as `check_cell`."""
    check_cell(cell, tape)
    T = len(tape.x)
    start, end = integer("start", start, 0), T if end is None else integer("end", end)
    if not start < end <= T:
        raise ValueError(f"start, end: expected 0 <= start < end <= T={T}, got {start} and {end}")
    return start, end


def step_numbers(cell: Cell, tape: Tape, times: Iterable[int] | None) -> Array:
    """The chosen steps, all of them for None; TypeError or ValueError where they are not steps of this tape."""
    check_cell(cell, tape)
    T = len(tape.x)
    chosen = range(T) if times is None else times
    chosen = [*chosen] if is_iterable(chosen) else chosen
    if isinstance(chosen, list) and not chosen:
        raise ValueError("times: expected at least one step, got none")
    return label_array("times", chosen, (("n", None),), T)


def memory_gate(cell: Cell, name: str | None) -> int:
    """The gate that keeps the memory: the one named, or "forget", or "update"; ValueError where there is none."""
    usual = [gate for gate in ("forget", "update") if gate in cell.gate_names]
    if name is None and not usual:
        raise ValueError(f"keeps: expected the gate that keeps the memory, one of {cell.gate_names}, got None; name it")
    return cell.gate_names.index(usual[0] if name is None else one_of("keeps", name, cell.gate_names))
