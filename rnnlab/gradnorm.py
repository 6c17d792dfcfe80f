"""The gradient-norm logger: how much gradient reaches each time step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rnnlab.cells.base import Cell, Gradients, Tape
from rnnlab.ops import Array
from rnnlab.validate import positive_int

if TYPE_CHECKING:
    from rnnlab.trainer import Trainer


def state_norms(cell: Cell, tape: Tape, grads: Gradients) -> dict[str, Array]:
    """||dL/dm_t|| over batch and units for t = 0 .. T, (T+1,), by state name.

    The last state part is the cell's memory and counts every path (`Cell.memory_gradient`): for an
    LSTM, "c" is the textbook's delta c_t.
    """
    gradients = dict(zip(cell.state_names, grads.states.swapaxes(0, 1), strict=True))
    gradients[cell.state_names[-1]] = cell.memory_gradient(tape, grads)
    return {name: np.linalg.norm(g, axis=(1, 2)) for name, g in gradients.items()}


@dataclass(frozen=True)
class NormRecord:
    """The norms of one training step: `norms[layer][state name]` is (T+1,)."""

    step: int
    norms: tuple[dict[str, Array], ...]


class GradientNormLogger:
    """Records `state_norms` of every layer at every `every`-th training step.

    A callback of `Trainer`, or used alone through `record`. `records` holds one `NormRecord` for each
    recorded step; sequences may differ in length from one to the next.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = positive_int("every", every)
        self.records: list[NormRecord] = []

    def __call__(self, trainer: Trainer) -> None:
        if trainer.last is not None and trainer.step % self.every == 0:
            self.record(trainer.step, trainer.model.cells, trainer.last.tapes, trainer.last.cell_grads)

    def record(
        self, step: int, cells: Sequence[Cell], tapes: Sequence[Tape], cell_grads: Sequence[Gradients]
    ) -> NormRecord:
        """Append and return the record of one pass, given each layer's cell, tape and gradients."""
        layers = zip(cells, tapes, cell_grads, strict=True)
        record = NormRecord(step, tuple(state_norms(cell, tape, grads) for cell, tape, grads in layers))
        self.records.append(record)
        return record

    @property
    def steps(self) -> list[int]:
        """The training steps that were recorded."""
        return [record.step for record in self.records]

    def norms(self, state: str = "h", layer: int = -1) -> list[Array]:
        """One (T+1,) array for each recorded step, of one state part of one layer.

        Raises KeyError for a state and IndexError for a layer that was not recorded.
        """
        return [record.norms[layer][state] for record in self.records]
