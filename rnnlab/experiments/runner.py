"""Runs many runs: over processes, with progress, each saved as it finishes."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from rnnlab.experiments.runs import Outcome, Run
from rnnlab.files import write_atomically
from rnnlab.trainer import BLAS_THREADS
from rnnlab.validate import describe, positive_int

ONE_THREAD = dict.fromkeys(BLAS_THREADS, "1")


class Runner:
    """`runner(runs)` returns each run's outcome, and computes those that were not computed before.

    `folder` keeps one JSON file for each finished run, named by the settings: whoever stops and starts
    again goes on there, and changed settings are other files. None keeps them in memory. `jobs` is the
    number of worker processes, each with one BLAS thread; 0 computes in this process. `progress`
    shows a bar (plain lines without tqdm) on stderr.
    """

    def __init__(self, folder: str | Path | None = None, *, jobs: int = 0, progress: bool = False) -> None:
        self.folder = None if folder is None else Path(folder)
        self.jobs, self.progress = positive_int("jobs", jobs, 0), progress
        self.finished: dict[str, Outcome] = {}

    def __call__(self, runs: Sequence[Run], label: str = "runs") -> list[Outcome]:
        missing = {run.key: run for run in runs if not self._known(run)}
        outcomes = self._compute(list(missing.values()))
        for key, outcome in self._with_progress(outcomes, len(missing), label):
            self.finished[key] = outcome
        return [self.finished[run.key] for run in runs]

    def path(self, run: Run) -> Path | None:
        """The file that keeps this run."""
        return None if self.folder is None else self.folder / "runs" / f"{run.key}.json"

    def _known(self, run: Run) -> bool:
        path = self.path(run)
        if run.key not in self.finished and path is not None and path.exists():
            try:
                saved = json.loads(path.read_text(encoding="utf-8"))
                if saved["settings"] != json.loads(json.dumps(run.settings)):
                    raise ValueError("it holds other settings")
                outcome = dict(saved["outcome"])
                if not outcome:
                    raise ValueError("its outcome is empty")
                self.finished[run.key] = outcome
            except (ValueError, KeyError, TypeError) as error:
                warnings.warn(f"{path} is damaged and is computed again: {error!r}", stacklevel=3)
        return run.key in self.finished

    def _compute(self, runs: Sequence[Run]) -> Iterator[tuple[str, Outcome]]:
        if not self.jobs or not runs:
            for run in runs:
                yield run.key, execute_and_save(run, self.path(run))
            return
        with (
            environment(ONE_THREAD),  # before the workers import NumPy
            ProcessPoolExecutor(self.jobs, get_context("spawn"), end_with_parent) as pool,
        ):
            futures = {pool.submit(execute_and_save, run, self.path(run)): run.key for run in runs}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # those under way end, or die of the same interrupt
                raise

    def _with_progress(self, outcomes: Iterator[Any], total: int, label: str) -> Iterator[Any]:
        if not self.progress or not total:
            yield from outcomes
            return
        try:
            from tqdm import tqdm  # not a run-time dependency
        except ImportError:
            for n, item in enumerate(outcomes, 1):
                print(f"{label}: {n} of {total} runs", file=sys.stderr, flush=True)
                yield item
            return
        yield from tqdm(outcomes, total=total, desc=label, unit="run", smoothing=0)


def execute_and_save(run: Run, path: Path | None) -> Outcome:
    """The run's outcome; saved where it was computed, so that it outlives whoever asked for it."""
    outcome = run.execute()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"settings": run.settings, "outcome": outcome}).encode())
    return outcome


def end_with_parent() -> None:
    """A worker ends without a word when it is interrupted or when nobody waits for it any more."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=exit_after_parent, daemon=True).start()


def exit_after_parent() -> None:
    """Wait for the parent's end, whatever ended it, and end this process."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These environment variables while it lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_runner(runner: object) -> Runner:
    """The runner, or one that computes here and keeps nothing where it is None; TypeError for anything else."""
    if runner is None:
        return Runner()
    if not isinstance(runner, Runner):
        raise TypeError(f"runner: expected a Runner or None, got {describe(runner)}")
    return runner
