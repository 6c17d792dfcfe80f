"""Layers that read time backwards, and in both directions (Schuster & Paliwal 1997)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from rnnlab.cells.arrays import padded
from rnnlab.cells.base import Cell
from rnnlab.cells.tape import Gradients, Record, Tape
from rnnlab.ops import Array
from rnnlab.params import Layer
from rnnlab.validate import describe, float_array


@dataclass(frozen=True, eq=False, repr=False)
class DirectionsTape(Record):
    """What a `Bidirectional` recorded: each cell's `Tape`, in the order in which that cell read.

    `orders` is 1 for a cell that read forwards and -1 for one that read from the last step to the first.
    """

    tapes: tuple[Tape, ...]
    orders: tuple[int, ...]

    @property
    def x(self) -> Array:
        """The input, time first."""
        x: Array = self.tapes[0].x[:: self.orders[0]]
        return x

    @property
    def h(self) -> Array:
        """The outputs, (T, B, H): those of all cells at the time of their input, side by side."""
        return np.concatenate([t.h[::order] for t, order in zip(self.tapes, self.orders, strict=True)], axis=-1)

    @property
    def states(self) -> Array:
        """(T+1, S, B, H), side by side in the order of reading: [0] are the initial states, [T] the final ones."""
        return np.concatenate([tape.states for tape in self.tapes], axis=-1)


@dataclass(frozen=True, eq=False, repr=False)
class DirectionsGradients(Gradients):
    """As `Gradients`, with `states` side by side as in `DirectionsTape`; `cells` holds each cell's `Gradients`."""

    cells: tuple[Gradients, ...]


class Bidirectional(Layer):
    """A layer of two cells: one reads each sequence from its first step on, the other from its last step back.

    h_t = (h_t of `forward_cell`, h_t of `backward_cell`), so the layer above has as many inputs as they have units
    together. A state is theirs side by side, (S, B, H) with H the sum of their sizes. The parameters are named
    "forward_cell.W_x", ..., "backward_cell.W_x", .... With `lengths` each sequence is read back from its own end.
    Raises TypeError or ValueError unless these are two cells with the same gates, states, inputs and dtype.
    """

    orders: tuple[int, ...] = (1, -1)
    forward_cell: Cell
    backward_cell: Cell

    def __init__(self, forward_cell: Cell, backward_cell: Cell) -> None:
        self.forward_cell, self.backward_cell = forward_cell, backward_cell
        self._join()

    def _join(self) -> None:
        """Check the cells, and take over the names and sizes that they share."""
        for name, cell in self.parts.items():
            if not isinstance(cell, Cell):
                raise TypeError(f"{name}: expected a Cell, got {describe(cell)}")
        first, last = self.cells[0], self.cells[-1]
        if len(self.cells) == 2 and first is last:
            raise ValueError("backward_cell: expected another cell, got the forward one; `with_params` copies it")
        for name in ("input_size", "dtype", "gate_names", "state_names"):
            wanted, got = getattr(first, name), getattr(last, name)
            if wanted != got:
                raise ValueError(f"backward_cell: expected {name} {wanted} like the forward cell's, got {got}")
        self.input_size, self.gate_names, self.state_names = first.input_size, first.gate_names, first.state_names
        self.hidden_size = sum(cell.hidden_size for cell in self.cells)  # what the layer above reads

    @property
    def parts(self) -> dict[str, Any]:
        """The cells by name."""
        return {"forward_cell": self.forward_cell, "backward_cell": self.backward_cell}

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells, the forward one first."""
        return tuple(self.parts.values())

    @property
    def dtype(self) -> np.dtype[Any]:
        """The cells' dtype."""
        return self.cells[0].dtype

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.cells))})"

    def __copy__(self) -> Self:
        return type(self)(*map(copy.copy, self.cells))

    def check_input(self, x: Array) -> Array:
        """As `Cell.check_input`."""
        return self.cells[0].check_input(x)

    def check_tape(self, tape: object) -> None:
        """TypeError or ValueError for anything but the tape of a pass over this layer."""
        if not isinstance(tape, DirectionsTape) or tape.orders != self.orders:
            raise TypeError(
                f"tape: expected the tape of this layer's forward pass, got {describe(tape)}; write layer.forward(x)"
            )
        for cell, part in zip(self.cells, tape.tapes, strict=True):
            cell.check_tape(part)

    def forward(self, x: Array, state: Array | None = None, lengths: Array | None = None) -> DirectionsTape:
        """Every cell over x, in its direction.

        A cell that reads backwards rests in its initial state until it reaches the end of a shorter sequence.

        Parameters
        ----------
        x, state, lengths : as in `Cell.forward`

        Returns
        -------
        `DirectionsTape`. Errors as in `Cell.forward`.
        """
        x, alive = padded(x, lengths)
        x = self.check_input(x)
        states = self._split("state", state, len(self.state_names), x.shape[1])
        tapes = [
            cell.forward(x[::order], part, *(() if alive is None else (alive[::order],)))
            for cell, order, part in zip(self.cells, self.orders, states, strict=True)
        ]
        return DirectionsTape(tuple(tapes), self.orders)

    def backward(
        self, tape: DirectionsTape, d_h: Array, d_state: Array | None = None, *, input_gradient: bool = True
    ) -> DirectionsGradients:
        """Backpropagation through time in every direction.

        Parameters
        ----------
        tape, d_h, d_state, input_gradient : as in `Cell.backward`

        Returns
        -------
        `DirectionsGradients`. Errors as in `Cell.backward`.
        """
        self.check_tape(tape)
        T, B = tape.x.shape[:2]
        d_hs, d_states = self._split("d_h", d_h, T, B), self._split("d_state", d_state, len(self.state_names), B)
        grads: list[Gradients] = []
        for cell, part, order, d, d_s in zip(self.cells, tape.tapes, self.orders, d_hs, d_states, strict=True):
            grads.append(cell.backward(part, d[::order], d_s, input_gradient=input_gradient))
        params = {f"{name}.{k}": p for name, g in zip(self.parts, grads, strict=True) for k, p in g.params.items()}
        d_x = [g.x[::order] for g, order in zip(grads, self.orders, strict=True) if g.x is not None]
        states = np.concatenate([g.states for g in grads], axis=-1)
        # For a type checker this sum of arrays may be the number 0.
        return DirectionsGradients(params, sum(d_x) if d_x else None, states, tuple(grads))  # type: ignore[arg-type]

    def _split(self, name: str, value: object, first: int, B: int) -> list[Any]:
        """Each cell's part of an array that holds all units side by side; None for None, but not for d_h."""
        if value is None and name != "d_h":
            return [None] * len(self.cells)
        axes = ("T" if name == "d_h" else "S", first), ("B", B), ("H", self.hidden_size)
        ends = np.cumsum([cell.hidden_size for cell in self.cells])[:-1]
        return np.split(float_array(name, value, axes, self.dtype), ends, axis=-1)


class Reversed(Bidirectional):
    """A layer of one cell that reads each sequence from its last step back: h_t is the cell's output at x_t.

    The parameters are named "backward_cell.W_x", .... Raises TypeError for what is not a cell.
    """

    orders = (-1,)

    def __init__(self, backward_cell: Cell) -> None:
        self.backward_cell = backward_cell
        self._join()

    @property
    def parts(self) -> dict[str, Any]:
        return {"backward_cell": self.backward_cell}


Recurrent = Cell | Bidirectional  # a layer of a model
Tapes = Tape | DirectionsTape  # and what it records
