"""What an experiment found: a table with a number for each seed, and a picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rnnlab.experiments.settings import Outcome
from rnnlab.ops import Array
from rnnlab.validate import describe, entry_of, integer

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Row:
    """One network in an experiment.

    `outcomes` has one entry for each seed; of a network whose learning rate was searched for, those at
    the best rate `lr`, while `tried` has all runs.
    """

    label: str
    outcomes: tuple[Outcome, ...]
    tried: tuple[Outcome, ...] = ()
    lr: float | None = None

    def solved(self) -> list[bool]:
        """Whether each seed solved its task."""
        return [outcome["solved_at"] is not None for outcome in self.outcomes]


@dataclass(frozen=True)
class Result:
    """`print(result)` shows the table, `result.plot(ax)` the picture; `result[label]` is a row with all its numbers.

    `columns` are the table's headings, `cells` its lines, `notes` what stands below it; `points` maps a label
    to what is drawn for it, (value, filled) for each seed, along an axis called `axis`.
    """

    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    notes: Sequence[str]
    rows: Sequence[Row] = field(repr=False)
    points: Mapping[str, Sequence[tuple[float, bool]]] = field(repr=False)
    axis: str

    def __str__(self) -> str:
        lines = [self.columns, *self.cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        table = [" | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self.title, "", *(f"| {line} |" for line in table), "", *self.notes])

    def plot(self, ax: Axes | None = None) -> Axes:
        """One line for each network, one dot for each seed, on `ax` (None makes one); returned, never shown."""
        from rnnlab import plots  # and matplotlib, when a picture is asked for

        ax = plots.axes(ax, height=max(4.0, 1 + 0.28 * len(self.points)))
        for y, (label, dots) in enumerate(self.points.items()):
            network = re.search(r"I?RNN|LSTM|GRU", label)
            colour = plots.colour_of(network[0] if network else label) or plots.BLACK
            for n, (value, filled) in enumerate(dots):
                height = y + ((n + 0.5) / len(dots) - 0.5) / 2  # seeds below one another, so that none hides another
                ax.plot(value, height, "o", color=colour, markerfacecolor=colour if filled else "none", markersize=4)
        ax.set_yticks(range(len(self.points)), list(self.points))
        ax.set_ylim(len(self.points) - 0.5, -0.5)
        ax.grid(axis="y", linewidth=0.4)
        ax.set(xlabel=self.axis)
        return ax

    def __getitem__(self, label: str) -> Row:
        """The row of this label; KeyError that lists the labels for another."""
        return entry_of("label", {row.label: row for row in self.rows}, label)


def number(value: float | None, digits: int = 3) -> str:
    """A number below 1 in few characters: .168, and a dash for none."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return text.replace("0.", ".", 1) if "." in text and abs(value) < 1 else text or "0"


def by_seed(outcomes: Sequence[Outcome]) -> str:
    """Each seed's result: the step at which it solved the task, else the score it ended with in brackets."""

    def one_seed(outcome: Outcome) -> str:
        if outcome["diverged"]:
            return f"(diverged at {outcome['steps']})"
        return str(outcome["solved_at"] or f"({number(outcome['score'])})")

    return " ".join(map(one_seed, outcomes))


def solved(outcomes: Sequence[Outcome]) -> str:
    """How many of the runs solved their task."""
    return f"{sum(outcome['solved_at'] is not None for outcome in outcomes)} of {len(outcomes)}"


def mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f}"


def floats(values: Sequence[float]) -> str:
    """Numbers in one cell of a table."""
    return " ".join(f"{value:.1f}" for value in values)


def spearman(x: object, y: object, rng: np.random.Generator, permutations: int = 10_000) -> tuple[float, float]:
    """Spearman's rank correlation and its two-sided p-value by permutation; ties share the mean of their ranks.

    Parameters
    ----------
    x, y : (N,) numbers each, N at least 3
    rng : draws the permutations of y
    permutations : how many: p = (1 + those with at least this |correlation|) / (1 + permutations)

    Returns
    -------
    (correlation, p); both are NaN where x or y is constant.

    References
    ----------
    Spearman 1904; Phipson & Smyth 2010, for p.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 3:
        raise ValueError(f"x, y: expected two arrays of one length of at least 3, got {describe(a)}, {describe(b)}")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("x, y: expected numbers, got NaN among them; leave those pairs out")
    permutations = integer("permutations", permutations)
    a, b = standardized_ranks(a), standardized_ranks(b)
    if not (a.any() and b.any()):
        return float("nan"), float("nan")
    rho = float(a @ b)
    by_chance = rng.permuted(np.tile(b, (permutations, 1)), axis=1) @ a
    return rho, float((1 + (np.abs(by_chance) >= abs(rho) - 1e-12).sum()) / (1 + permutations))


def standardized_ranks(values: Array) -> Array:
    """Ranks from their mean, scaled to length 1; zeros where all values are the same."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    centred = ranks - ranks.mean()
    length = np.linalg.norm(centred)
    return np.asarray(centred / length if length > 0 else centred * 0)
