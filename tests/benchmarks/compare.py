"""rnnlab beside PyTorch, a floor and a plain loop, in one command:

    python -m tests.benchmarks [--only step,floor] [--quick]

Ratios are other time / rnnlab time, above 1 where rnnlab is faster: medians (and range) over pairs of runs
that follow one another, so that both meet the machine in the same state. One thread each and CPU time, except in
`threads` and `import`, which read the clock.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .floor import floor_step, print_exp_and_tanh, print_profiles
from .growth import QUICK_SIZES, SIZES, print_growth
from .models import (
    DTYPES,
    KINDS,
    PASSES,
    QUICK_PASSES,
    QUICK_STEPS,
    SAMPLING,
    STEPS,
    Shape,
    Work,
    import_torch,
    print_table,
    rnnlab_pass,
    rnnlab_sampling,
    rnnlab_step,
    rounds,
    spread,
    torch_pass,
    torch_sampling,
    torch_step,
)
from .peers import check_peers, peers_pass
from .processes import print_import, print_threads

SECTIONS = ("pass", "step", "sample", "floor", "profile", "peers", "growth", "import", "threads")
NEED_TORCH = {"pass", "step", "sample", "floor", "threads"}
PAIRS = 15
FORCING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

Builder = Callable[[str, Shape, str], Work]


def print_ratios(title: str, torch: Builder, rnnlab: Builder, shapes: tuple[Shape, ...], pairs: int) -> None:
    rows = []
    for kind in KINDS:
        for shape in shapes:
            row: list[object] = [kind, shape]
            for dtype in DTYPES:
                times = rounds((torch(kind, shape, dtype), rnnlab(kind, shape, dtype)), pairs)
                a, b = np.median(times, axis=0) * 1e3
                row += [spread(times[:, 0] / times[:, 1]), f"{a:.1f} / {b:.1f}"]
            rows.append(row)
    header = ["cell", "T, B, D, H", *(name for dtype in DTYPES for name in (dtype, "ms / ms"))]
    print_table(f"{title}: torch / rnnlab", header, rows)


def print_floor(shapes: tuple[Shape, ...], pairs: int) -> None:
    print_exp_and_tanh()
    rows = []
    for kind in KINDS:
        for dtype in DTYPES:
            for shape in shapes:
                works = (build(kind, shape, dtype) for build in (torch_step, rnnlab_step, floor_step))
                torch, rnnlab, floor = rounds(tuple(works), pairs).T
                cost = f"{np.median(floor) * 1e3:.2f}"
                rows.append([kind, dtype, shape, cost, f"{np.median(floor / rnnlab):.0%}", spread(torch / floor)])
    header = ["cell", "dtype", "T, B, D, H", "floor ms", "floor / rnnlab", "torch / floor"]
    print_table("Floor of a training step: bare products and one exp for each activation", header, rows)


def print_peers(shapes: tuple[Shape, ...], pairs: int) -> None:
    rows = []
    for shape in shapes:
        row: list[object] = ["LSTM", shape]
        for dtype in DTYPES:
            ways = []
            for way in ("plain", "tuned"):
                check_peers(way, shape, dtype)
                ways.append(peers_pass(way, shape, dtype))
            plain, tuned, rnnlab = rounds((*ways, rnnlab_pass("LSTM", shape, dtype)), pairs).T
            row += [spread(plain / rnnlab), spread(tuned / rnnlab)]
        rows.append(row)
    title = "Forward and backward, a plain per-step loop and one written for speed alone: theirs / rnnlab"
    print_table(
        title, ["cell", "T, B, D, H", *(f"{way} {dtype}" for dtype in DTYPES for way in ("plain", "tuned"))], rows
    )


def print_machine(arguments: Sequence[str]) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    vectors = [flag for flag in ("avx2", "avx512f") if flag in flags]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"# python -m tests.benchmarks {' '.join(arguments)}\n")
    print(f"{model}, {os.cpu_count()} cores, {' '.join(vectors) or 'vector units unknown'}{load}")
    print(f"Python {platform.python_version()}, " + ", ".join(map(version, ("numpy", "torch"))))
    print(f"BLAS kernel: {blas_kernel()}")


def blas_kernel() -> str:
    """Which kernel NumPy's BLAS chose for this CPU, such as "openblas SkylakeX" (AVX-512) or "openblas Haswell"."""
    if importlib.util.find_spec("threadpoolctl") is None:
        return "unknown (threadpoolctl, in the extra lesson, reads it)"
    libraries = importlib.import_module("threadpoolctl").threadpool_info()
    kernels = [f"{b['internal_api']} {b.get('architecture', '')}" for b in libraries if b["user_api"] == "blas"]
    return ", ".join(dict.fromkeys(kernels)) or "unknown"


def refuse_forced_kernels() -> None:
    """SystemExit where the environment forces an older BLAS kernel: every figure would be of another machine."""
    if forced := [name for name in FORCING if name in os.environ]:
        unset = " ".join(f"-u {name}" for name in forced)
        raise SystemExit(
            f"{' and '.join(forced)} is set, which forces another BLAS kernel and can halve NumPy's speed.\n"
            f"Unset it: env {unset} python -m tests.benchmarks"
        )


def version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def parse(arguments: Sequence[str]) -> tuple[list[str], bool, int]:
    """(sections, quick, pairs)."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="tiny shapes and few runs, to see that it works")
    parser.add_argument("--pairs", type=int, default=PAIRS, help=f"pairs for each figure (default {PAIRS})")
    options = parser.parse_args(arguments)
    sections = options.only.split(",")
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"--only: expected some of {','.join(SECTIONS)}, got {','.join(sorted(unknown))}")
    return sections, options.quick, 2 if options.quick else options.pairs


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    sections, quick, pairs = parse(arguments)
    refuse_forced_kernels()
    if NEED_TORCH & set(sections):
        import_torch().set_num_threads(1)
    print_machine(arguments)
    passes, steps = (QUICK_PASSES, QUICK_STEPS) if quick else (PASSES, STEPS)
    texts = QUICK_STEPS[1:] if quick else SAMPLING
    runs: dict[str, Callable[[], None]] = {
        "pass": lambda: print_ratios("Forward and backward, with dL/dx", torch_pass, rnnlab_pass, passes, pairs),
        "step": lambda: print_ratios("Whole training step", torch_step, rnnlab_step, steps, pairs),
        "sample": lambda: print_ratios(
            "Sampling, a character at a time", torch_sampling, rnnlab_sampling, texts, pairs
        ),
        "floor": lambda: print_floor(steps, pairs),
        "profile": lambda: print_profiles(KINDS, steps, pairs),
        "peers": lambda: print_peers(passes, pairs),
        "growth": lambda: print_growth(QUICK_SIZES if quick else SIZES),
        "import": lambda: print_import(pairs),
        "threads": lambda: print_threads(quick, pairs),
    }
    for section in SECTIONS:
        if section in sections:
            runs[section]()
