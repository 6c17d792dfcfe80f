"""Faults on purpose: training runs that are killed and interrupted, files that are damaged, very long runs.

`python -m tests.faults` prints how many were tried, how many survived, and what was lost (a few minutes).
"""

from __future__ import annotations

import argparse
import copy
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import rnnlab as rl
from rnnlab.files import read_arrays

LIBRARY = str(Path(rl.__file__).parent)
TEXT = "the quick brown fox jumps over the lazy dog. " * 20


@dataclass
class Tally:
    """How many faults were tried and survived, and what was lost."""

    what: str
    tried: int = 0
    survived: int = 0
    note: str = ""

    def count(self, survived: bool) -> None:
        self.tried += 1
        self.survived += survived

    def __str__(self) -> str:
        lost = self.tried - self.survived
        return f"| {self.what} | {self.tried:,} | {self.survived:,} | {lost:,} | {self.note} |"


def run(path: Path | None = None, every: int = 2, **sizes: int) -> tuple[rl.Trainer, rl.tasks.CharText]:
    """A trainer with all that a run can carry: two layers, Adam with a schedule, clipping, the state of a text."""
    T, H = sizes.get("T", 6), sizes.get("H", 8)
    text = rl.tasks.char_text(TEXT, T=T, batch_size=3)
    cells = [rl.GRUCell(text.size, H, rng=0), rl.LSTMCell(H, H, rng=1)]
    model = rl.SequenceModel(cells, rl.Dense(H, text.size, rng=2), rl.softmax_cross_entropy)
    callbacks = [] if path is None else [rl.Checkpoint(path, every=every)]
    optimizer = rl.Adam(rl.linear_decay(0.01, 1000))
    return rl.Trainer(model, optimizer, clip_norm=1.0, carry_state=True, callbacks=callbacks), text


def moment(trainer: rl.Trainer) -> dict[str, Any]:
    """All that belongs to one training step, as copies."""
    optimizer = trainer.optimizer
    arrays = [*trainer.model.params.values(), *optimizer.memory, *(trainer.state or ())]
    history = trainer.history.loss + trainer.history.gradient_norm
    return {"arrays": [a.tobytes() for a in arrays], "steps": (trainer.step, optimizer.steps), "history": history}


# ---- killed ---------------------------------------------------------------------------------------

KILLED_STEPS = 120


def child(path: Path) -> None:
    """Train on from the file, if there is one, to the last step; say on stdout what has been saved."""
    trainer, text = run(path)
    if path.exists():
        trainer.load(path)
    trainer.callbacks = (*trainer.callbacks, lambda t: print(t.step, flush=True) if t.step % 2 == 0 else None)
    if trainer.step < KILLED_STEPS:
        trainer.fit(text, KILLED_STEPS - trainer.step, validation=text.batch(1000), every=2)


def start_child(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "import sys; from tests.faults import *; child(Path(sys.argv[1]))", str(path)]
    folder = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kills(n: int, seed: int = 0) -> Tally:
    """Kill -9 at random moments, again and again, until the run has ended; each end must be the uninterrupted one's."""
    rng, tally = np.random.default_rng(seed), Tally("kill -9 during a run with checkpoints, then resumed")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.npz"
        trainer, text = run(whole)
        trainer.fit(text, KILLED_STEPS, validation=text.batch(1000), every=2)
        runs, different = 0, 0
        while tally.tried < n:
            path, runs, done = Path(folder) / f"run{runs}.npz", runs + 1, False
            while not done:
                with start_child(path) as process:
                    assert process.stdout is not None
                    first = process.stdout.readline()  # from here on it trains
                    if tally.tried < n:
                        time.sleep(rng.uniform(0, 0.15))
                        process.kill()
                    said = [int(line) for line in (first, *process.stdout.read().split()) if line.strip()]
                done = process.returncode == 0
                header, _ = read_arrays(path)
                if not done:
                    tally.count(header["run"]["step"] >= max(said, default=0))
            ended, wanted = read_arrays(path)[1], read_arrays(whole)[1]
            different += ended.keys() != wanted.keys() or any(
                array.tobytes() != wanted[key].tobytes() for key, array in ended.items()
            )
        left = [p for p in Path(folder).iterdir() if p.suffix == ".part"]
        tally.note = f"{runs} runs ended, {different} different from the uninterrupted one, {len(left)} files left over"
        tally.survived -= different
    return tally


# ---- interrupted ----------------------------------------------------------------------------------


def interrupted_at_line(number: int, call: Callable[[], object]) -> bool:
    """Call it and press Ctrl-C at the `number`-th line that the library executes; whether there was such a line."""
    seen = 0

    def each_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == number:
                signal.raise_signal(signal.SIGINT)
        return each_line

    def each_call(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        return each_line if name.startswith(LIBRARY) or name.endswith("contextlib.py") else None

    before, errors = sys.gettrace(), np.geterr()
    sys.settrace(each_call)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        np.seterr(**errors)  # at the end of a `with np.errstate` Ctrl-C leaves the state within
    return False


def interrupted(trainer: rl.Trainer, text: rl.tasks.CharText, moments: list[dict[str, Any]]) -> bool:
    """Whether this trainer stands at one of these moments, whole, and trains on to the last of them."""
    now = moment(trainer)
    if now != moments[trainer.step]:
        return False
    if trainer.step < len(moments) - 1:
        trainer.fit(text, len(moments) - 1 - trainer.step)
    return moment(trainer) == moments[-1]


def moments_of(steps: int, **sizes: int) -> list[dict[str, Any]]:
    trainer, text = run(**sizes)
    moments = [moment(trainer)]
    for _ in range(steps):
        trainer.fit(text, 1)
        moments.append(moment(trainer))
    return moments


def interrupts_at_lines(every: int = 1) -> Tally:
    """Ctrl-C at every `every`-th line that `fit` executes over one training step."""
    tally = Tally("Ctrl-C at each line that a training step executes")
    sizes = {"T": 2, "H": 2}
    start, text = run(**sizes)
    start.fit(text, 1)
    moments = moments_of(3, **sizes)
    for number in count(1, every):
        trainer = copy.deepcopy(start)
        if not interrupted_at_line(number, lambda trainer=trainer: trainer.fit(text, 1)):  # type: ignore[misc]
            return tally
        tally.count(interrupted(trainer, text, moments))
    return tally


def timed_interrupts(n: int, seed: int = 0) -> Tally:
    """Ctrl-C after a random time, from another thread."""
    rng, tally, errors = np.random.default_rng(seed), Tally("Ctrl-C after a random time"), np.geterr()
    sizes = {"T": 2, "H": 2}
    moments = moments_of(12, **sizes)
    start, text = run(**sizes)
    start.fit(text, 1)
    while tally.tried < n:
        trainer, came = copy.deepcopy(start), False
        timer = threading.Timer(rng.uniform(0, 0.01), signal.raise_signal, [signal.SIGINT])
        try:
            timer.start()
            trainer.fit(text, 11)
            timer.join()
        except KeyboardInterrupt:
            came = True
        timer.join()
        np.seterr(**errors)
        if came:
            tally.count(interrupted(trainer, text, moments))
    return tally


# ---- damaged files --------------------------------------------------------------------------------


def damaged_files(n: int, suffix: str = ".npz", seed: int = 0) -> Tally:
    """A trainer's file cut short or with one flipped bit: loaded as it was saved, or refused with nothing changed."""
    rng, tally = np.random.default_rng(seed), Tally(f"a {suffix} file cut short, or with a flipped bit")
    with tempfile.TemporaryDirectory() as folder:
        path, refused = Path(folder) / f"run{suffix}", 0
        trainer, text = run(T=2, H=2)
        trainer.fit(text, 3)
        trainer.save(path)
        saved, whole = moment(trainer), path.read_bytes()
        trainer.fit(text, 1)
        later = moment(trainer)
        for _ in range(n):
            damaged = bytearray(whole)
            if rng.random() < 0.5:
                del damaged[rng.integers(len(whole)) :]
            else:
                damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            other = copy.deepcopy(trainer)
            try:
                other.load(path)
                tally.count(moment(other) == saved)
            except ValueError as error:
                refused += 1
                tally.count(moment(other) == later and str(error).startswith(str(path)))
        tally.note = f"{refused:,} refused by name"
    return tally


# ---- long runs ------------------------------------------------------------------------------------


def resident() -> float:
    """The memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def long_run(steps: int) -> Tally:
    """Memory over many training steps: what the second half adds beyond the history's own numbers."""
    tally = Tally("training steps at constant memory")
    trainer, text = run(T=2, H=2)
    sizes = []
    for _ in range(4):
        trainer.fit(text, steps // 4)
        sizes.append(resident())
    history = 2 * (24 + 8) * steps / 2 / 1e6  # two floats and two references a step
    grown = sizes[-1] - sizes[1]
    tally.tried = trainer.step
    tally.survived = trainer.step if grown < history + 5 else 0
    tally.note = f"{sizes[1]:.0f} MB at half, {sizes[-1]:.0f} MB at the end, the history's share {history:.0f} MB"
    return tally


def long_predict(T: int) -> Tally:
    """`predict` over many time steps."""
    tally = Tally("time steps in one `predict`")
    trainer, text = run(T=2, H=2)
    x = np.tile(text.train, T // len(text.train) + 1)[:T, None]
    before = resident()
    outputs, state = trainer.model.predict(x)
    grown, own = resident() - before, outputs.nbytes / 1e6
    tally.tried = T
    half, middle = trainer.model.predict(x[: T // 2])
    rest, last = trainer.model.predict(x[T // 2 :], middle)
    same = np.allclose(outputs, np.concatenate((half, rest)), rtol=0, atol=1e-12)
    tally.survived = T if same and grown < own + 50 and all(map(np.allclose, state, last)) else 0
    tally.note = f"{grown:.0f} MB more, the outputs' share {own:.0f} MB"
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a hundredth of each")
    share = 100 if parser.parse_args().quick else 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    print("| fault | tried | survived | lost | |\n|---|---|---|---|---|", flush=True)
    print(kills(200 // share), flush=True)
    print(interrupts_at_lines(share), flush=True)
    print(timed_interrupts(3000 // share), flush=True)
    for suffix in (".npz", ".safetensors"):
        print(damaged_files(5000 // share, suffix), flush=True)
    print(long_run(100_000 // share), flush=True)
    print(long_predict(1_000_000 // share), flush=True)


if __name__ == "__main__":
    main()
