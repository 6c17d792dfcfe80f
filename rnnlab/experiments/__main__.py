"""Command line: python -m rnnlab.experiments adding --seeds 5 --jobs 2"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from inspect import getdoc, signature
from pathlib import Path
from time import perf_counter

from rnnlab.experiments.catalogue import EXPERIMENTS
from rnnlab.experiments.runner import Runner
from rnnlab.files import write_atomically


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names: 0, or 130 after Ctrl-C. Raises SystemExit for invalid arguments."""
    parser = argparse.ArgumentParser(prog="python -m rnnlab.experiments", description="Experiments of rnnlab.")
    parser.add_argument(
        "experiment", choices=("list", "all", *EXPERIMENTS), metavar="experiment", help="list names them"
    )
    parser.add_argument("--seeds", type=at_least_1, default=5, help="seeds 0 .. SEEDS - 1 (default 5)")
    parser.add_argument("--steps", type=at_least_1, help="step budget of each training run")
    parser.add_argument("--jobs", type=at_least_1, default=1, help="processes, each with one BLAS thread (default 1)")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler, tcp://host:8786, whose workers compute"
    )
    parser.add_argument("--folder", type=Path, default=Path("results"), help="keeps finished runs (default results)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    chosen = parser.parse_args(arguments)
    if chosen.experiment == "list":
        for name, experiment in EXPERIMENTS.items():
            print(f"{name:24}{(getdoc(experiment) or '').splitlines()[0]}")
        return 0
    names = list(EXPERIMENTS) if chosen.experiment == "all" else [chosen.experiment]
    options = {"seeds": chosen.seeds} | ({} if chosen.steps is None else {"steps": chosen.steps})
    for name in names:
        unknown = options.keys() - signature(EXPERIMENTS[name]).parameters.keys()
        if unknown:
            parser.error(f"{name} has no --{', --'.join(sorted(unknown))}")
    try:
        (chosen.folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --folder: expected a folder to write in, got {str(chosen.folder)!r} ({error})")
    runner = Runner(chosen.folder, jobs=chosen.jobs, scheduler=chosen.scheduler, progress=not chosen.quiet)
    try:
        for name in names:
            start = perf_counter()
            table = str(EXPERIMENTS[name](runner=runner, **options))
            print(f"{table}\n", flush=True)
            write_atomically(chosen.folder / f"{name}.txt", f"{table}\n".encode())
            print(f"{name}: {perf_counter() - start:.0f} s, kept in {chosen.folder}", file=sys.stderr)
    except (OSError, ImportError) as error:  # no scheduler answers, a full disk, no joblib
        print(f"stopped by an error; the finished runs are kept in {chosen.folder}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the finished runs are kept in {chosen.folder}, the same command resumes", file=sys.stderr)
        return 130
    return 0


def at_least_1(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
