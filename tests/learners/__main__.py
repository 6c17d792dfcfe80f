"""`python -m tests.learners look|held|all [--case ID]`: what `diagnose` says of learners' code, scored."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from . import Case, Score, cases, judge

COLUMNS = ("found", "line", "explained", "proven", "false")


def totals(title: str, scores: list[Score], key: Callable[[Case], str]) -> None:
    print(f"\n{title:24}{'cases':>6}" + "".join(f"{column:>10}" for column in COLUMNS) + f"{'error':>7}")
    for name in sorted({key(score.case) for score in scores}):
        group = [score for score in scores if key(score.case) == name]
        counts = "".join(f"{sum(getattr(score, column) for score in group):10}" for column in COLUMNS)
        print(f"{name:24}{len(group):6}{counts}{sum(bool(score.failure) for score in group):7}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.learners", description=__doc__)
    parser.add_argument("which", choices=("look", "held", "all"))
    parser.add_argument("--case", metavar="ID", help="print one case's module and the full report")
    parser.add_argument("--totals", action="store_true", help="no line per case")
    options = parser.parse_args()
    chosen = cases(options.which)
    if options.case:
        (case,) = (case for case in chosen if case.id == options.case)
        for n, text in enumerate(case.source.split("\n"), 1):
            print(f"{'>' if any(n in lines for lines in case.accepted) else ' '}{n:4}  {text}")
        score = judge(case)
        print(f"{case.kind}\n\n{score.report or score.failure}\n\n{score}")
        return
    scores = []
    for case in chosen:
        score = judge(case)
        scores.append(score)
        if not options.totals:
            words = " ".join(f"{column if getattr(score, column) else '-':9}" for column in COLUMNS)
            print(f"{case.id:24} {case.kind:18} {words} {score.seconds:6.2f} s  {score.failure[:60]}", flush=True)
    wrong = [score for score in scores if score.case.kind != "right"]
    right = [score for score in scores if score.case.kind == "right"]
    totals("wrong, by kind", wrong, lambda case: case.kind)
    totals("wrong, by layout", wrong, lambda case: case.base.layout)
    totals("right, by layout", right, lambda case: case.base.layout)
    totals("all", scores, lambda case: "right" if case.kind == "right" else "wrong")
    for name, group in (("wrong", wrong), ("right", right)):
        seconds = [score.seconds for score in group]
        slowest = max(group, key=lambda score: score.seconds)
        print(f"{name}: median {np.median(seconds):.2f} s, slowest {slowest.seconds:.2f} s ({slowest.case.id})")


if __name__ == "__main__":
    main()
