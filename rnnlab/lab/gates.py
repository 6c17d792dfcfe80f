"""What the gates do most of the time: saturation, and how long each memory lasts (Karpathy et al. 2015, sec. 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.lab.recorded import check_cell, memory_gate
from rnnlab.ops import Array
from rnnlab.tables import html_table
from rnnlab.validate import is_iterable, positive_float


@dataclass(frozen=True)
class GateStatistics:
    """How open the G gates were, over all time steps and sequences.

    left, right, mean   (G, H): the share of time below `low` (shut), above `high` (open), and the mean
    half_life           (H,) steps in which a memory falls to a half when its gate stays at its mean f:
                        ln(1/2) / ln(f); 0 for f = 0, infinite for f = 1
    """

    gate_names: tuple[str, ...]
    left: Array
    right: Array
    mean: Array
    half_life: Array
    low: float
    high: float

    @property
    def order(self) -> Array:
        """The units by half-life, the longest memory first, (H,)."""
        return np.argsort(-self.half_life, kind="stable")

    def _shares(self) -> Iterator[tuple[str, str, str, str]]:
        for name, *values in zip(self.gate_names, self.mean, self.left, self.right, strict=True):
            mean, left, right = (f"{value.mean():.2f}" for value in values)
            yield name, mean, left, right

    def _half_lives(self) -> str:
        shortest, median, longest = np.sort(self.half_life)[[0, len(self.half_life) // 2, -1]]
        return f"half-life in steps: shortest {shortest:.3g}, median {median:.3g}, longest {longest:.3g}"

    def __str__(self) -> str:
        width = max(map(len, self.gate_names))
        lines = [f"{'gate':{width}}  mean  below {self.low:g}  above {self.high:g}  (share of time, all units)"]
        lines += [f"{name:{width}}  {mean:>4}  {left:>9}  {right:>9}" for name, mean, left, right in self._shares()]
        return "\n".join([*lines, self._half_lives()])

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        head = ("gate", "mean", f"share of time below {self.low:g}", f"above {self.high:g}")
        return html_table(head, self._shares(), self._half_lives())


def gate_statistics(
    cell: Cell, tapes: Tape | Sequence[Tape], *, keeps: str | None = None, low: float = 0.1, high: float = 0.9
) -> GateStatistics:
    """Statistics of a cell's sigmoid gates: all that `gate_names` lists but "candidate".

    Parameters
    ----------
    cell : the cell
    tapes : one tape of its forward pass, or several
    keeps : the gate that keeps the memory, where it is neither "forget" nor "update"
    low, high : below `low` a gate counts as shut, above `high` as open

    Returns
    -------
    `GateStatistics`.

    Raises
    ------
    TypeError, ValueError
        For a cell without such a gate, for a gate that leaves [0, 1], and unless 0 < low < high < 1.
    """
    if not positive_float("low", low) < positive_float("high", high) < 1:
        raise ValueError(f"low, high: expected 0 < low < high < 1, got {low} and {high}")
    # What is not iterable is one tape, or refused below.
    recorded: list[Tape] = list(tapes) if is_iterable(tapes) else [tapes]  # type: ignore[list-item]
    if not recorded:
        raise ValueError("tapes: expected at least one tape, got none")
    for tape in recorded:
        check_cell(cell, tape)
    keeper = memory_gate(cell, keeps)
    taking_part = [np.ones(tape.x.shape[:2], bool) if tape.alive is None else tape.alive for tape in recorded]
    gates = np.concatenate([tape.gates[:, at] for tape, at in zip(recorded, taking_part, strict=True)], axis=1)
    chosen = [k for k, name in enumerate(cell.gate_names) if name != "candidate"]
    for k in {*chosen, keeper}:
        least, most = gates[k].min(), gates[k].max()
        if least < 0 or most > 1:
            raise ValueError(
                f"tapes: expected gate {cell.gate_names[k]!r} within [0, 1], got {least:g} to {most:g}; call what is "
                "not a sigmoid gate 'candidate'"
            )
    with np.errstate(divide="ignore"):
        half_life = np.log(0.5) / np.log(gates[keeper].mean(axis=0))
    gates, names = gates[chosen], tuple(cell.gate_names[k] for k in chosen)
    left, right = (gates < low).mean(axis=1), (gates > high).mean(axis=1)
    return GateStatistics(names, left, right, gates.mean(axis=1), np.abs(half_life), float(low), float(high))
