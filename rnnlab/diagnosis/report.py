"""What a diagnosis says: findings, each with the line, and the report that prints them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """One mistake.

    kind      two or three words: "missing factor", "+= for =", "transpose", ..., "unexplained"
    what      what is wrong, in a sentence
    function  the function in which it stands, and `line`, the number of the line in its file; None without source
    text      the statement as it is written
    repair    the statement as it should be, "" where it should not be there; None where no small edit was found.
              With this text in place every gradient is right, on other numbers too.
    outputs   the gradients that it makes wrong, by the name of the array
    numbers   what the expression is and should have been, where no repair was found
    """

    kind: str
    what: str
    function: str = ""
    line: int | None = None
    text: str = ""
    repair: str | None = None
    outputs: tuple[str, ...] = ()
    numbers: str = ""

    @property
    def explained(self) -> bool:
        return self.kind != "unexplained"

    @property
    def where(self) -> str:
        """ "line 14 of lstm_step_backward", or the gradients that are wrong."""
        return f"line {self.line} of {self.function}" if self.line else ", ".join(self.outputs)


@dataclass(frozen=True)
class Diagnosis:
    """The report of `diagnose`: `findings`, in the order in which they are to be mended, and `notes`.

    Prints as text in a terminal and as a table in a notebook. `ok` where nothing wrong was found.
    """

    target: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return not self.findings

    def _head(self) -> str:
        n = len(self.findings)
        return f"{self.target}: " + ("nothing wrong was found" if not n else f"{n} finding{'s' * (n > 1)}")

    def __str__(self) -> str:
        lines = [self._head()]
        for f in self.findings:
            lines.append(f"  {f.where}: {f.what}")
            if f.text:
                lines.append(f"      is         {f.text}")
            if f.repair:
                lines.append("      should be  " + f.repair.replace("\n", "\n                 "))
            if f.numbers:
                lines.append(f"      {f.numbers}")
            if f.outputs and f.line:
                lines.append(f"      makes wrong: {', '.join(f.outputs)}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self._head())}</p>"]
        for f in self.findings:
            rows = [("where", f.where), ("is", f.text), ("should be", f.repair or ""), ("values", f.numbers)]
            cells = "".join(
                f"<tr><td>{name}</td><td style='text-align:left'><code>{html.escape(text)}</code></td></tr>"
                for name, text in rows
                if text
            )
            parts.append(f"<p>{html.escape(f.what)}</p><table>{cells}</table>")
        return "".join([*parts, *(f"<p>note: {html.escape(note)}</p>" for note in self.notes)])


def listing(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
