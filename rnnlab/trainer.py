"""The training loop: loss and gradients, clip, update, callbacks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any

from rnnlab.model import Batch, LossAndGrads, SequenceModel, check_model
from rnnlab.ops import Array
from rnnlab.optim import Optimizer, clip_by_global_norm, global_norm
from rnnlab.tasks import BatchStream
from rnnlab.validate import describe, positive_float, positive_int

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass
class History:
    """One entry for each training step: the loss on its batch (before the update) and the global norm
    of its gradient (before clipping). `len(history)` is the number of steps."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)


class Trainer:
    """Trains a model in place.

    `clip_norm` bounds the gradient's global norm, None leaves it; `carry_state` hands the final state
    of each batch to the next (text: truncated BPTT); `callbacks` are called with the trainer after
    each update and find in it `last` (the step's `LossAndGrads`, unclipped), `step` (steps done),
    `history`, `model` and `optimizer`.
    """

    def __init__(
        self,
        model: SequenceModel,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        callbacks: Sequence[Callable[[Trainer], None]] = (),
        carry_state: bool = False,
    ) -> None:
        check_model(model)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer such as SGD or Adam, got {describe(optimizer)}")
        self.model, self.optimizer = model, optimizer
        self.clip_norm = None if clip_norm is None else positive_float("clip_norm", clip_norm)
        if not isinstance(callbacks, Iterable) or not all(map(callable, callbacks := tuple(callbacks))):
            raise TypeError(f"callbacks: expected a list of functions of the trainer, got {describe(callbacks)}")
        self.callbacks, self.carry_state = callbacks, carry_state
        self.history, self.step = History(), 0
        self.state: tuple[Array, ...] | None = None
        self.last: LossAndGrads | None = None

    def fit(self, batches: Iterable[Batch], steps: int, *, progress: str | None = None) -> History:
        """Train for `steps` more steps and return the history of all.

        `batches` is a task, which goes on at the batch of this trainer's step number, or any other
        iterable of `Batch`. `progress` is a label for a progress bar (needs tqdm: the extra
        "lesson"). Raises ValueError where the batches end too soon, and as `loss_and_grads` does;
        the parameters are then those of the last complete step. TypeError for a label that is no string.
        """
        steps = positive_int("steps", steps)
        if not isinstance(batches, Iterable):
            raise TypeError(f"batches: expected a task or an iterable of Batch, got {describe(batches)}")
        source = batches.stream(self.step) if isinstance(batches, BatchStream) else iter(batches)
        done = 0
        with one_blas_thread():
            for batch in progress_bar(islice(source, steps), steps, progress):
                self.train_step(batch)
                done += 1
        if done < steps:
            raise ValueError(f"batches: expected {steps} of them, got {done}")
        return self.history

    def train_step(self, batch: Batch) -> float:
        """One update on one batch; returns the loss before it."""
        result = self.model.loss_and_grads(batch, self.state)
        if self.clip_norm is None:
            grads, norm = result.grads, global_norm(result.grads)
        else:
            grads, norm = clip_by_global_norm(result.grads, self.clip_norm)
        self.optimizer.step(self.model.params, grads)
        self.step += 1
        self.last = result
        self.state = result.state if self.carry_state else None
        self.history.loss.append(float(result.loss))
        self.history.gradient_norm.append(norm)
        for callback in self.callbacks:
            callback(self)
        return self.history.loss[-1]


def one_blas_thread() -> AbstractContextManager[Any]:
    """One BLAS thread within, for products this small lose time to more: a lot of it on a busy machine.

    A number set in the environment stands. Without threadpoolctl (in the extra "lesson") nothing changes.
    """
    if find_spec("threadpoolctl") is None or any(name in os.environ for name in BLAS_THREADS):
        return nullcontext()
    limits: AbstractContextManager[Any] = import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
    return limits


def progress_bar(batches: Iterator[Batch], total: int, label: str | None) -> Iterable[Batch]:
    """The same batches behind a tqdm bar; without a label, the batches alone."""
    if label is None:
        return batches
    if not isinstance(label, str):
        raise TypeError(f"progress: expected a label, got {describe(label)}")
    from tqdm import tqdm  # not a run-time dependency

    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
    bar: Iterable[Batch] = tqdm(batches, total=total, desc=label, file=OutputLine() if in_notebook else None)
    return bar


class OutputLine:
    """A file of one line, the last one written to it: a notebook's progress bar as plain text.

    A saved page keeps the finished bar; of tqdm's widget it would keep nothing, of a stream every state.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self.output = import_module("IPython.display").display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.output.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""
