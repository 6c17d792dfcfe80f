"""Carries out many runs: here, over processes or over a Dask cluster (joblib), each kept as soon as it is finished."""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from rnnlab.experiments.settings import Outcome, Run
from rnnlab.files import check_writable, write_atomically
from rnnlab.validate import describe, integer, optional


class Runner:
    """`runner(runs)` returns each run's outcome, and computes only what it does not know yet.

    Parameters
    ----------
    folder : where one JSON file keeps each finished run, named by its settings, so that an interrupted set resumes and
        changed settings are other files. None keeps outcomes in memory.
    jobs : number of processes. 1 computes in this process; more need joblib, and have one BLAS thread each.
    scheduler : address of a Dask scheduler, "tcp://host:8786", whose workers compute instead (joblib and distributed).
        Dask runs again what a worker was doing when it died. Files are written here, so no disk is shared.
    progress : shows a bar on stderr (tqdm).

    These libraries come with `pip install rnnlab[experiments]`.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        *,
        jobs: int = 1,
        scheduler: str | None = None,
        progress: bool = False,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.jobs, self.scheduler, self.progress = integer("jobs", jobs), scheduler, progress
        if scheduler is not None and not isinstance(scheduler, str):
            raise TypeError(f"scheduler: expected an address such as 'tcp://host:8786', got {describe(scheduler)}")
        self.finished: dict[str, Outcome] = {}

    def __call__(self, runs: Sequence[Run], label: str = "runs") -> list[Outcome]:
        missing = {run.key: run for run in runs if not self._known(run)}
        if missing and self.folder is not None:
            (self.folder / "runs").mkdir(parents=True, exist_ok=True)
            check_writable(self.path(next(iter(missing))))  # before an hour of computing, not after it
        with self._outcomes(list(missing.values())) as outcomes:
            if self.progress and missing:
                tqdm = optional("tqdm", "experiments", ", or leave out the progress (--quiet)").tqdm
                outcomes = tqdm(outcomes, total=len(missing), desc=label, unit="run", smoothing=0)
            for key, outcome in outcomes:
                if self.folder is not None:
                    content = {"settings": missing[key].settings, "outcome": outcome}
                    write_atomically(self.path(key), json.dumps(content).encode())
                self.finished[key] = outcome
        return [self.finished[run.key] for run in runs]

    def path(self, key: str) -> Path:
        """The file that keeps the run of this key."""
        return (self.folder or Path()) / "runs" / f"{key}.json"

    def _known(self, run: Run) -> bool:
        """Whether this run is finished: in memory, or in a file that is whole."""
        path = self.path(run.key)
        if run.key not in self.finished and self.folder is not None and path.exists():
            try:
                saved = json.loads(path.read_text(encoding="utf-8"))
                if saved["settings"] != json.loads(json.dumps(run.settings)):
                    raise ValueError("it holds other settings")
                if not saved["outcome"]:
                    raise ValueError("its outcome is empty")
                self.finished[run.key] = dict(saved["outcome"])
            except (ValueError, KeyError, TypeError) as error:
                warnings.warn(
                    f"{path} is damaged ({error!r}); the run is computed again and replaces the file", stacklevel=3
                )
        return run.key in self.finished

    @contextmanager
    def _outcomes(self, runs: Sequence[Run]) -> Iterator[Iterator[tuple[str, Outcome]]]:
        """(key, outcome) of each run as it finishes; whatever still computes is stopped at the end."""
        if not runs or (self.jobs == 1 and self.scheduler is None):
            yield map(execute, runs)
            return
        joblib = optional("joblib", "experiments", ", or use jobs=1 without a scheduler")
        with ExitStack() as stack:
            if self.scheduler is None:
                backend = {"backend": "loky", "inner_max_num_threads": 1, "initializer": leave_interrupts}
                at_once = "n_jobs"  # loky's queue must be empty when Ctrl-C ends it
            else:
                client = optional("distributed", "experiments").Client(self.scheduler, set_as_default=False, timeout=10)
                stack.callback(client.close)
                backend, at_once = {"backend": "dask", "client": client}, "all"
            stack.enter_context(joblib.parallel_config(**backend))
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", r"\d+ tasks which were still being processed")  # as Ctrl-C asks
            parallel = joblib.Parallel(self.jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=at_once)
            yield stack.enter_context(closing(parallel(joblib.delayed(execute)(run) for run in runs)))


def execute(run: Run) -> tuple[str, Outcome]:
    """One run, wherever it is computed."""
    return run.key, run.execute()


def leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal: the first one answers it and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
