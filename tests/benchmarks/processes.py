"""What needs a process of its own: each library alone with its default threads, a busy machine, the import."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rnnlab.process import one_blas_thread

from . import models
from .models import DTYPES, Shape, Work, import_torch, print_table, seconds

ROOT = Path(__file__).resolve().parents[2]
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
KINDS = ("LSTM", "GRU")
LONGEST = 1.0  # seconds for one figure: with many threads on a busy machine a step can take a hundred times longer
IMPORT = """
import sys, time, numpy
start = time.perf_counter(), time.process_time()
import rnnlab
print(time.perf_counter() - start[0], time.process_time() - start[1], int("matplotlib" in sys.modules))
"""


def python(*arguments: str, threads: int | None) -> str:
    """The output of a fresh interpreter; `threads` None leaves every library its default."""
    removed = (*THREAD_VARIABLES, "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    if threads is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout


def median_step(work: Work, runs: int) -> float:
    """Median seconds of a step, of so many runs or of as many (at least 1) as `LONGEST` allows."""
    work()
    times: list[float] = []
    while len(times) < runs and sum(times) < LONGEST:
        times.append(seconds(work))
    return statistics.median(times)


def measure_alone(library: str, quick: str, runs: str) -> None:
    """Print the median step of each cell, dtype and shape as JSON; runs in a process of its own."""
    step = getattr(models, f"{library}_step")
    shapes = step_shapes(quick == "quick")
    with one_blas_thread() if library == "rnnlab" else nullcontext():  # as in `Trainer.fit`
        print(json.dumps([median_step(step(*case), int(runs)) for case in cases(shapes)]))


def step_shapes(quick: bool) -> tuple[Shape, ...]:
    return models.QUICK_STEPS if quick else models.STEPS


def cases(shapes: tuple[Shape, ...]) -> list[tuple[str, Shape, str]]:
    return [(kind, shape, dtype) for kind in KINDS for dtype in DTYPES for shape in shapes]


def alone(library: str, quick: bool, runs: int, threads: int | None) -> list[float]:
    """Median seconds of every case, the library alone in its process."""
    arguments = (library, "quick" if quick else "full", str(runs))
    measured: list[float] = json.loads(python("-m", "tests.benchmarks.processes", *arguments, threads=threads))
    return measured


def print_threads(quick: bool, runs: int) -> None:
    import_torch()
    shapes, cores = step_shapes(quick), os.cpu_count() or 1
    print_alone("One thread, each library alone in its process", shapes, quick, runs, 1)
    print_alone(f"Default threads ({cores} cores), each library alone in its process", shapes, quick, runs, None)
    with ExitStack() as burners:
        for _ in range(cores - 1):
            burner = burners.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            burners.callback(burner.kill)
        busy = f"{cores - 1} of {cores} cores busy with other work"
        print_alone(f"{busy}: one thread", shapes, quick, runs, 1)
        print_alone(f"{busy}: default threads", shapes, quick, runs, None)


def print_alone(title: str, shapes: tuple[Shape, ...], quick: bool, runs: int, threads: int | None) -> None:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    torch, rnnlab = (iter(alone(library, quick, runs, threads)) for library in ("torch", "rnnlab"))
    rows = []
    for kind in KINDS:
        for dtype in DTYPES:
            times = [(next(torch) * 1e3, next(rnnlab) * 1e3) for _ in shapes]
            rows.append([kind, dtype, *(f"{t / r:.2f} ({t:.1f} / {r:.1f})" for t, r in times)])
    print_table(f"{title}: torch / rnnlab (ms / ms); load before {load}", ["cell", "dtype", *map(str, shapes)], rows)


def print_import(runs: int) -> None:
    """Milliseconds that `import rnnlab` adds to `import numpy`, in fresh processes, once its bytecode is there."""
    with TemporaryDirectory() as folder:
        command = ("-X", f"pycache_prefix={folder}", "-c", IMPORT)
        found = [python(*command, threads=1).split() for _ in range(runs + 1)][1:]
    wall, cpu, matplotlib = (np.array(column, float) for column in zip(*found, strict=True))
    print("\n## import rnnlab on top of import numpy\n")
    for clock, ms in (("by the clock", wall * 1e3), ("CPU time", cpu * 1e3)):
        print(f"{clock}: median {np.median(ms):.0f} ms ({ms.min():.0f} - {ms.max():.0f})")
    print(f"matplotlib {'imported' if matplotlib.any() else 'not imported'}\n")


if __name__ == "__main__":
    measure_alone(*sys.argv[1:])
