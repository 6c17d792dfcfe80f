"""Sentences of a lesson that are checked where they stand, and on other seeds than the page's."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

SEED_VARIABLE = "RNNLAB_LESSON_SEED"
SEED = int(os.environ.get(SEED_VARIABLE, "0"))  # 0 is the committed page's
stop = SEED == 0  # whether a sentence that does not hold stops the page
_VERDICT = re.compile(r"^(holds|DOES NOT HOLD): (.*)$", re.MULTILINE)


def claim(text: str, holds: bool) -> None:
    """Print the sentence with its verdict. On the page's own seed one that does not hold stops the page.

    `text` holds no number that depends on the seed, so that the same sentence can be counted over seeds.
    Raises AssertionError where it does not hold, unless `stop` is False, as on another seed.
    """
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")
    if not holds and stop:
        raise AssertionError(f"this page says what its numbers do not show: {text}")


def run_on_seeds(path: Path, seeds: Sequence[int]) -> dict[str, dict[int, bool]]:
    """Run a notebook once for each seed: what each of its claims came out as, by sentence and seed."""
    import nbformat
    from nbclient import NotebookClient

    found: dict[str, dict[int, bool]] = {}
    for seed in seeds:
        notebook = nbformat.read(path, as_version=4)
        client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(path.parent)}})
        client.execute(env=os.environ | {SEED_VARIABLE: str(seed)})
        for cell in notebook.cells:
            for output in cell.get("outputs", ()):
                for verdict, text in _VERDICT.findall(output.get("text", "")):
                    found.setdefault(text, {})[seed] = verdict == "holds"
    return found
