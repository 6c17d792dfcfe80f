"""Run a lesson on other seeds and report which of its claims hold: python -m rnnlab.lesson notebook.ipynb --seeds 4."""

from __future__ import annotations

import argparse
from pathlib import Path

from rnnlab.lesson.claims import run_on_seeds


def main() -> None:
    """Print one line for each claim; exit status 1 where one holds on fewer than all seeds but one."""
    parser = argparse.ArgumentParser(prog="python -m rnnlab.lesson", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--seeds", type=int, default=4, help="how many seeds besides the page's own, 0")
    arguments = parser.parse_args()
    seeds = range(arguments.seeds + 1)
    found = run_on_seeds(arguments.notebook, seeds)
    weak = [text for text, verdicts in found.items() if sum(verdicts.values()) < len(seeds) - 1]
    for text, verdicts in found.items():
        print(f"{sum(verdicts.values())} of {len(seeds)}  {'TOO WEAK  ' if text in weak else ''}{text}")
    raise SystemExit(bool(weak))


if __name__ == "__main__":
    main()
