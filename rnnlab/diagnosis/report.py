"""What a diagnosis says: findings, and the report that prints them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One mistake.

    outputs    what is wrong: "d_a[forget]", "d_prev[c]", "params[W_h][input]", "states[c]", "x", "step", ...
    paths      the incoming paths through which it is wrong: "dL/dh", "dL/dc"; empty where no path is meant
    kind       the hypothesis in two or three words: "missing factor", "transpose", ..., or "unexplained"
    sentence   where and what, for a reader
    residual   max|claimed - hypothesis| / max|claimed|: 0 is certainty; None where nothing was fitted
    numbers    the first numbers that differ, as text
    """

    outputs: tuple[str, ...]
    paths: tuple[str, ...]
    kind: str
    sentence: str
    residual: float | None = None
    numbers: str = ""

    @property
    def explained(self) -> bool:
        return self.kind != "unexplained"


@dataclass(frozen=True)
class Diagnosis:
    """The report of `diagnose`: `findings`, the root first, and `notes` on how it was found.

    Prints as a short table in a terminal and as a plain table in a notebook.
    """

    target: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return not self.findings

    def _rows(self) -> list[tuple[str, str, str, str]]:
        rows = [("where", "path", "what", "residual")]
        for f in self.findings:
            residual = "-" if f.residual is None else f"{f.residual:.0e}"
            what = f.sentence + (f" {f.numbers}" if f.numbers else "")
            rows.append((", ".join(f.outputs), ", ".join(f.paths) or "-", what, residual))
        return rows

    def _head(self) -> str:
        n = len(self.findings)
        return f"{self.target}: " + ("nothing wrong was found" if not n else f"{n} finding{'s' * (n > 1)}")

    def __str__(self) -> str:
        lines = [self._head()]
        if self.findings:
            rows = self._rows()
            widths = [max(len(row[i]) for row in rows) for i in (0, 1, 3)]
            for where, path, what, residual in rows:
                lines.append(f"{where:{widths[0]}}  {path:{widths[1]}}  {residual:>{widths[2]}}  {what}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        def cells(tag: str, row: Iterable[str]) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in row) + "</tr>"

        parts = [f"<p>{html.escape(self._head())}</p>"]
        if self.findings:
            head, *rows = self._rows()
            parts.append(f"<table>{cells('th', head)}{''.join(cells('td', row) for row in rows)}</table>")
        parts += [f"<p>note: {html.escape(note)}</p>" for note in self.notes]
        return "".join(parts)


def listing(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    names = list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def raised(what: str, error: Exception) -> Finding:
    """What a learner's code raises, or (a ValueError that says what should be) what does not fit in its answer."""
    told = str(error)
    if isinstance(error, ValueError) and "should be" in told:
        return Finding((told.split()[0].rstrip(":"),), (), "wrong shape", f"{told}.", 0.0)
    message = ": ".join(filter(None, (type(error).__name__, told.rstrip(". "))))
    return Finding((what,), (), "exception", f"{what} raises {message}.", 0.0)


def modified(what: str, names: Sequence[str]) -> Finding:
    """Arrays of the caller's that a learner's code writes to."""
    told = (
        f"{what} changes its argument {listing(names)} in place, so the caller's array is another afterwards "
        "(write x = x + y for x += y)."
    )
    return Finding(tuple(names), (), "argument modified", told, 0.0)


PLURAL = {"is": "are", "has": "have", "lacks": "lack", "holds": "hold"}


def sentence(names: Sequence[str], text: str, through: str = "") -> str:
    """ "d_a[input] and d_a[forget] have the wrong sign."; `text` is in the singular."""
    verb, _, rest = text.partition(" ")
    return f"{listing(names)}{through} {PLURAL.get(verb, verb) if len(names) > 1 else verb} {rest}."
