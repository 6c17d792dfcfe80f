"""What a training run shows: its history, and one line of progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module

from rnnlab.tables import html_table
from rnnlab.validate import describe, optional


@dataclass
class History:
    """One entry for each training step: the loss on its batch (before the update) and the global norm
    of its gradient (before clipping); `validation` holds the loss on the validation batch after each of the steps in
    `validation_step`. `len(history)` is the number of steps."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    validation_step: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)

    def _repr_html_(self) -> str:
        """A table for notebooks: the first, the lowest and the last step."""
        if not self.loss:
            return "<p>no training step yet</p>"
        lowest = min(range(len(self)), key=self.loss.__getitem__)
        steps = {"first": 0, "lowest": lowest, "last": len(self) - 1}
        rows = [(name, n + 1, f"{self.loss[n]:.4g}", f"{self.gradient_norm[n]:.3g}") for name, n in steps.items()]
        return html_table(("", "step", "loss", "gradient norm"), rows)


@contextmanager
def progress_line(total: int, label: str | None) -> Iterator[Callable[[History], None]]:
    """A function to call with the history after each step: it shows a tqdm line; nothing without a label."""
    if label is None:
        yield lambda history: None
        return
    if not isinstance(label, str):
        raise TypeError(f"progress: expected a label, got {describe(label)}")
    tqdm = optional("tqdm", "lesson").tqdm
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
    with tqdm(total=total, desc=label, file=OutputLine() if in_notebook else None) as bar:

        def show(history: History) -> None:
            text = f"loss {history.loss[-1]:.4g}, norm {history.gradient_norm[-1]:.3g}"
            text += "".join(f", validation {loss:.4g}" for loss in history.validation[-1:])
            bar.set_postfix_str(text, refresh=False)
            bar.update()

        yield show


class OutputLine:
    """A file of one line, the last one written to it: a notebook's progress bar as plain text.

    A saved page keeps the finished bar; it would lose tqdm's widget, and keep every update of a stream.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self.output = import_module("IPython.display").display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.output.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""
