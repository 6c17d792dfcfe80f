"""The report of `check_gradients`: a row for each block of each gradient, and the error that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rnnlab.tables import html_table


@dataclass(frozen=True)
class CheckRow:
    """One block of one array: how far its analytic gradient is from the numeric one, and where.

    `entries` of the block's `size` were compared one by one: 0 where one random direction over all of them agreed.
    `index` is empty for that direction.
    `scale` is 1, or how many times as large the incoming gradient was for a row of the check for linearity.
    """

    array: str
    gate: str
    entries: int
    size: int
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    scale: float = 1.0

    @property
    def block(self) -> str:
        name = f"{self.array}[{self.gate}]" if self.gate else self.array
        return name if self.scale == 1 else f"{name}, incoming x {self.scale:g}"


@dataclass(frozen=True)
class GradientReport:
    """What was checked: prints as a table. `max_error` is the largest relative error of all rows."""

    target: str
    method: str
    tolerance: float
    rows: tuple[CheckRow, ...] = field(repr=False)

    @property
    def max_error(self) -> float:
        return max(row.error for row in self.rows)

    @property
    def worst(self) -> CheckRow:
        return max(self.rows, key=lambda row: row.error)

    def _table(self) -> Iterator[tuple[str, str, str, str]]:
        for row in self.rows:
            entries = f"{row.entries}/{row.size}" if row.entries else f"{row.size}"
            yield row.block, entries, f"{row.error:.1e}", "ok" if row.error <= self.tolerance else "WRONG"

    def __str__(self) -> str:
        width = max(len(row.block) for row in self.rows)
        lines = [f"{self.target}: {self.method}, tolerance {self.tolerance:g}"]
        lines.append(f"{'gradient':{width}}  entries  relative error")
        lines += [
            f"{block:{width}}  {entries:>7}  {error}  {verdict}" for block, entries, error, verdict in self._table()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The same table for notebooks."""
        caption = f"{self.target}: {self.method}, tolerance {self.tolerance:g}"
        return html_table(("gradient", "entries", "relative error", ""), self._table(), caption)


class GradientMismatch(AssertionError):
    """A derivative is wrong. `report` has all rows; `array`, `gate`, `index`, `analytic` and `numeric`
    are those of the row with the largest error."""

    def __init__(self, report: GradientReport) -> None:
        row = report.worst
        super().__init__(report)
        self.report, self.array, self.gate, self.index = report, row.array, row.gate, row.index
        self.analytic, self.numeric = row.analytic, row.numeric
        where = f"dL/d{row.array}" + (f", gate {row.gate!r}" if row.gate else "") + f", index {row.index}"
        claim, other = "the backward pass says", f"{report.method} of the forward pass"
        if row.scale != 1:
            claim = f"a gradient is linear (is this one clipped?): for {row.scale:g} times what comes in {claim}"
            other = f"{row.scale:g} times its other answer is"
        self.message = (
            f"{where}: {claim} {row.analytic:.12g}, {other} {row.numeric:.12g} "
            f"(relative error {row.error:.1e})\n{report}"
        )

    def __str__(self) -> str:
        return self.message
