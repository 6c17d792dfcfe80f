"""The training loop: loss and gradients, clip, update, callbacks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

from rnnlab.batch import Batch, BatchStream
from rnnlab.checkpoint import load_trainer, save_trainer
from rnnlab.model import LossAndGrads, SequenceModel, check_model
from rnnlab.ops import Array
from rnnlab.optim import Optimizer, clip_by_global_norm, global_norm, uninterrupted
from rnnlab.saving import first_difference, outline
from rnnlab.tables import html_table
from rnnlab.validate import describe, has_entries, positive_float, positive_int

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass
class History:
    """One entry for each training step: the loss on its batch (before the update) and the global norm
    of its gradient (before clipping). `len(history)` is the number of steps."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.loss)

    def _repr_html_(self) -> str:
        """A table for notebooks: the first, the lowest and the last step."""
        if not self.loss:
            return "<p>no training step yet</p>"
        lowest = min(range(len(self)), key=self.loss.__getitem__)
        steps = {"first": 0, "lowest": lowest, "last": len(self) - 1}
        rows = [(name, n + 1, f"{self.loss[n]:.4g}", f"{self.gradient_norm[n]:.3g}") for name, n in steps.items()]
        return html_table(("", "step", "loss", "gradient norm"), rows)


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
        if not has_entries(callbacks) or not all(map(callable, callbacks := tuple(callbacks))):
            raise TypeError(f"callbacks: expected a list of functions of the trainer, got {describe(callbacks)}")
        self.callbacks, self.carry_state = callbacks, carry_state
        self.history, self.step = History(), 0
        self.state: tuple[Array, ...] | None = None
        self.last: LossAndGrads | None = None
        self.task: Any = None  # the outline of the task that `fit` was last called with
        self.expected_task: Any = None  # that of a loaded file
        owner = _TRAINED.setdefault(optimizer, ref(model))
        if owner() is not model:
            raise ValueError(
                "optimizer: expected one of its own for each model, got one that trains another model, "
                "whose steps and moments it holds; make a new one"
            )

    def save(self, path: str | Path) -> None:
        """Save the run as it is now: weights, optimizer, step, history, carried state, and which task it reads.

        The file, .npz or .safetensors, is written whole or not at all, and holds no tapes. `rl.load` reads the model
        alone from it. Raises OSError where it cannot be written, ValueError for a model that could not be rebuilt.
        """
        save_trainer(self, path)

    def load(self, path: str | Path) -> None:
        """Put this trainer, which was built in the same way, back to the moment of a `save`; `fit` then trains on
        exactly as if it had not stopped.

        The task follows by its batch number; of other iterables hand over what is left. Raises ValueError, and changes
        nothing, for a file that is damaged or comes from another model, optimizer or setting, which it names; `fit`
        raises it for another task.
        """
        load_trainer(self, path)

    def fit(self, batches: Iterable[Batch], steps: int, *, progress: str | None = None) -> History:
        """Train for `steps` more steps and return the history of all.

        `batches` is a task, which goes on at the batch of this trainer's step number, or any other
        iterable of `Batch`. `progress` is a label for a progress bar (needs tqdm: the extra
        "lesson"). Raises ValueError where the batches end too soon, and as `loss_and_grads` does;
        the parameters are then those of the last complete step. TypeError for a label that is no string.
        """
        steps = positive_int("steps", steps)
        if not has_entries(batches):
            raise TypeError(f"batches: expected a task or an iterable of Batch, got {describe(batches)}")
        source = batches.stream(self.step) if isinstance(batches, BatchStream) else iter(batches)
        self.task, done = outline(batches) if isinstance(batches, BatchStream) else None, 0
        if self.task is not None and self.expected_task is not None:
            first_difference(self.expected_task, self.task, "batches")
        self.model.vocabulary = getattr(batches, "characters", self.model.vocabulary)
        with one_blas_thread():
            for batch in progress_bar(self._noted(islice(source, steps)), steps, progress):
                self.train_step(batch)
                done += 1
        if done < steps:
            raise ValueError(f"batches: expected {steps} of them, got {done}")
        return self.history

    def _noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; an error of theirs says after which step it was raised."""
        try:
            yield from batches
        except Exception as error:
            error.add_note(f"raised by the batches after training step {self.step}, which is complete")
            raise

    def train_step(self, batch: Batch) -> float:
        """One update on one batch; returns the loss before it.

        All is computed first; then parameters, optimizer, step, state and history change together, also when Ctrl-C is
        pressed. Raises FloatingPointError for a loss or gradient that is not finite, before anything has changed.
        """
        try:
            result = self.model.loss_and_grads(batch, self.state)
            if self.clip_norm is None:
                grads, norm = result.grads, global_norm(result.grads)
            else:
                grads, norm = clip_by_global_norm(result.grads, self.clip_norm)
            loss, state = float(result.loss), result.state if self.carry_state else None
            with uninterrupted():
                self.optimizer.step(self.model.params, grads)
                self.step += 1
                self.last, self.state = result, state
                self.history.loss.append(loss)
                self.history.gradient_norm.append(norm)
        except (FloatingPointError, ValueError, TypeError) as error:
            raise self._explained(error) from error
        for callback in self.callbacks:
            try:
                callback(self)
            except Exception as error:
                error.add_note(
                    f"raised by the callback {callback!r} after training step {self.step}, which is complete"
                )
                raise
        return loss

    def _explained(self, error: Exception) -> Exception:
        """The error with the training step, the gradient norm before it, and what usually helps."""
        if type(error) not in (FloatingPointError, ValueError, TypeError):  # a subclass may want other arguments
            error.add_note(f"at training step {self.step + 1}")
            return error
        text = f"{error}; at training step {self.step + 1}, the parameters are those of step {self.step}"
        if isinstance(error, FloatingPointError):
            norm = f"{self.history.gradient_norm[-1]:.3g} at the step before" if self.step else "not known yet"
            clip = "a smaller clip_norm" if self.clip_norm else "clip_norm=1.0"
            text += f"; the gradient norm was {norm}: a lower learning rate or {clip} usually helps"
        return type(error)(text)


_TRAINED: WeakKeyDictionary[Optimizer, Any] = WeakKeyDictionary()  # which model each optimizer trains
_limiting = Lock()  # held by the `fit` that limits the threads


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """One BLAS thread within, for products this small lose time to more: a lot of it on a busy machine.

    What counts is the number that the BLAS has now; where the environment asked for it, it stands. Of several `fit`s
    at once the first one sets the limit, and lifts it (another thread could not). Without threadpoolctl (in the extra
    "lesson") nothing changes.
    """
    first, limit = False, None
    try:
        with uninterrupted():
            first = find_spec("threadpoolctl") is not None and _limiting.acquire(blocking=False)
            limit = _limit() if first else None
        yield
    finally:
        with uninterrupted():
            if limit is not None:
                limit.restore_original_limits()
            if first:
                _limiting.release()


def _limit() -> Any:
    """threadpoolctl's limit to one BLAS thread; None where there is one already or the environment's number is used."""
    controller = import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    asked = {os.environ.get(name) for name in BLAS_THREADS}
    now = {library.num_threads for library in controller.lib_controllers}
    return None if now <= {1} or {str(n) for n in now} <= asked else controller.limit(limits=1)


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
