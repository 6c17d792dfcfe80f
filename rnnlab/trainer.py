"""The training loop: loss and gradients, clip, update, validation, callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from rnnlab.batch import Batch, BatchStream, Rounds
from rnnlab.history import History, progress_line
from rnnlab.model import SequenceModel
from rnnlab.optim import Optimizer, clip_by_global_norm, clip_by_value, global_norm
from rnnlab.process import one_blas_thread, uninterrupted
from rnnlab.run import EarlyStopping, Run
from rnnlab.saving import first_difference, outline
from rnnlab.validate import describe, integer, is_iterable, positive_float, true_or_false


class Trainer(Run):
    """Trains a model in place.

    Parameters
    ----------
    model, optimizer
        A `SequenceModel`, and an optimizer of its own.
    clip_norm
        Bounds the gradient's global norm; None leaves it.
    clip_value
        Cuts each entry of the gradient to lie between -clip_value and clip_value, before `clip_norm`; None leaves it.
    callbacks
        Functions that are called with the trainer after each update. They find in it `last` (the step's `LossAndGrads`,
        unclipped), `step` (steps done), `history`, `model` and `optimizer`. One that returns True ends `fit` there.
    carry_state
        Hands the final state of each batch to the next (text: truncated BPTT).
    seed
        Of what `dropout` drops and of the order of shuffled batches, which depend on (seed, step) alone.
    """

    def __init__(
        self,
        model: SequenceModel,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        callbacks: Sequence[Callable[[Trainer], object]] = (),
        carry_state: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optimizer)
        self.clip_norm = None if clip_norm is None else positive_float("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else positive_float("clip_value", clip_value)
        self.seed = integer("seed", seed, 0)
        if true_or_false("carry_state", carry_state) and not model.reads_forwards:
            raise ValueError(
                "carry_state: expected False for a model with a layer that reads backwards, which would begin the next "
                f"batch with a state from before it, got {carry_state!r}"
            )
        if not is_iterable(callbacks) or not all(map(callable, callbacks := tuple(callbacks))):
            raise TypeError(f"callbacks: expected a list of functions of the trainer, got {describe(callbacks)}")
        self.callbacks, self.carry_state = callbacks, carry_state
        owner = _TRAINED.setdefault(optimizer, ref(model))
        if owner() is not model:
            raise ValueError(
                "optimizer: expected one of its own for each model, got one that trains another model, "
                "whose steps and moments it holds; make a new one"
            )

    def fit(
        self,
        batches: Iterable[Batch],
        steps: int | None = None,
        *,
        epochs: int | None = None,
        shuffle: bool = False,
        validation: Batch | BatchStream | None = None,
        every: int | None = None,
        progress: str | None = None,
    ) -> History:
        """Train for some more steps and return the history of all.

        Parameters
        ----------
        batches
            A task, whose batch n is read when this trainer has done n steps; a list of `Batch`, which goes round, each
            round (after the first) from a zero state, and is read on where the last `fit` with it ended; or any other
            iterable of `Batch`, which is read from its start.
        steps, epochs
            The number of steps; or, of a list, of rounds.
        shuffle
            Read a list in a new order each round, drawn from (seed, round).
        validation
            A `Batch` kept apart, or a task, whose `evaluation()` is taken. Its loss, without dropout and from a zero
            state, goes to `history.validation`; `best_model` is a copy of the model as it was at the lowest.
        every
            Steps between validations; None means a round of a list, 100 steps of anything else.
        progress
            A label for a line that shows loss, gradient norm, validation loss and the time left (needs tqdm: the extra
            "lesson").

        Returns
        -------
        The `History` of all steps so far.

        Raises
        ------
        TypeError, ValueError
            For an argument that does not fit, another task or list than in a loaded file, and batches that end too
            soon. As for errors of `loss_and_grads`, the parameters are then those of the last complete step.
        """
        if not is_iterable(batches):
            advice = "; write [batch]" if isinstance(batches, Batch) else ""
            raise TypeError(f"batches: expected a task or an iterable of Batch, got {describe(batches)}{advice}")
        rounds = Rounds(batches, shuffle, self.seed) if isinstance(batches, list | tuple) else None
        if rounds is None and true_or_false("shuffle", shuffle):
            raise ValueError(f"shuffle: expected False for what is not a list of batches, got {shuffle}")
        if epochs is not None and rounds is None:
            raise ValueError(f"epochs: expected None, for only a list has an end, got {epochs}; give steps=")
        if (steps is None) == (epochs is None):
            raise ValueError(f"steps: expected either steps= or, of a list, epochs=, got {steps} and {epochs}")
        n = 100 if rounds is None else len(rounds.batches)
        steps = integer("steps", steps, 0) if epochs is None else integer("epochs", epochs) * n
        held = self._validation_batch(validation)
        if held is None and (every is not None or any(isinstance(c, EarlyStopping) for c in self.callbacks)):
            raise ValueError(
                "validation: expected a Batch or a task, whose loss EarlyStopping and every= read, got None; "
                "give validation="
            )
        every, done, ended = n if every is None else integer("every", every), 0, False
        source = self._source(rounds or batches)
        with one_blas_thread(), progress_line(steps, progress) as show:
            self._validate(held, every)  # where Ctrl-C came before it
            for batch in self._with_step_noted(islice(source, steps)):
                if not done and not isinstance(batches, BatchStream):
                    _say_precision(batch, self.model)
                if rounds and rounds.turns(self.step - self.begun):
                    self.state = None
                self._update(batch)
                self._validate(held, every)
                done += 1
                show(self.history)
                if ended := self._run_callbacks():
                    break
        if done < steps and not ended:
            raise ValueError(f"batches: expected {steps} of them, got {done}; a list goes round: give list(batches)")
        return self.history

    def _source(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches from where this trainer stands; ValueError where a loaded file has noted others."""
        task = outline(batches) if isinstance(batches, BatchStream) else None
        if task is not None and self.expected_task is not None:
            first_difference(self.expected_task, task, "batches")
        if task != self.task:
            self.begun = self.step if isinstance(batches, Rounds) else 0
        self.task = task
        self.model.vocabulary = getattr(batches, "characters", self.model.vocabulary)
        return batches.stream(self.step - self.begun) if isinstance(batches, BatchStream) else iter(batches)

    def _validation_batch(self, validation: Batch | BatchStream | None) -> Batch | None:
        """The validation batch, checked at once."""
        found: Any = validation
        if isinstance(validation, BatchStream) and hasattr(validation, "evaluation"):
            found = validation.evaluation()
        if found is None:
            return None
        if not isinstance(found, Batch):
            raise TypeError(f"validation: expected a Batch or a task with `evaluation`, got {describe(validation)}")
        try:
            self.model.targets(found)
        except (TypeError, ValueError) as error:
            raise type(error)(f"validation: expected a batch that fits the model, got one whose {error}") from error
        return found

    def _validate(self, held: Batch | None, every: int) -> None:
        """The validation loss where one is due and missing; history and best model change together."""
        history, step = self.history, self.step
        if held is None or not step or (step - self.begun) % every or history.validation_step[-1:] == [step]:
            return
        loss = float(self.model.mean_loss(held))
        best = self.best_model
        if not history.validation or loss < min(history.validation):
            best = self.model.with_params(self.model.params)
        with uninterrupted():
            history.validation.append(loss)
            history.validation_step.append(step)
            self.best_model = best

    def _with_step_noted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; an error of theirs says after which step it was raised."""
        try:
            yield from batches
        except Exception as error:
            error.add_note(f"raised by the batches after training step {self.step}, which is complete")
            raise

    def train_step(self, batch: Batch) -> float:
        """One update on one batch, then the callbacks; returns the loss before it.

        All is computed first; then parameters, optimizer, step, state and history change together, also when Ctrl-C is
        pressed. Raises FloatingPointError for a loss or gradient that is not finite, before anything has changed.
        """
        loss = self._update(batch)
        self._run_callbacks()
        return loss

    def _update(self, batch: Batch) -> float:
        try:
            drawn: Any = {"rng": np.random.default_rng((self.seed, self.step, 0))} if self.model.dropout else {}
            result = self.model.loss_and_grads(batch, self.state, **drawn)
            grads, norm = result.grads, global_norm(result.grads)
            if self.clip_value is not None:
                grads = clip_by_value(grads, self.clip_value)
            if self.clip_norm is not None:
                grads, _ = clip_by_global_norm(grads, self.clip_norm)
            loss, state = float(result.loss), result.state if self.carry_state else None
            with uninterrupted():
                self.optimizer.step(self.model.params, grads)
                self.step += 1
                self.last, self.state = result, state
                self.history.loss.append(loss)
                self.history.gradient_norm.append(norm)
        except (FloatingPointError, ValueError, TypeError) as error:
            raise self._with_context(error) from error
        return loss

    def _run_callbacks(self) -> bool:
        """Call every callback; whether one of them returned True."""
        ended = False
        for callback in self.callbacks:
            try:
                answer = callback(self)
                ended |= isinstance(answer, bool | np.bool_) and bool(answer)
            except Exception as error:
                error.add_note(
                    f"raised by the callback {callback!r} after training step {self.step}, which is complete"
                )
                raise
        return ended

    def _with_context(self, error: Exception) -> Exception:
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


def _say_precision(batch: Batch, model: SequenceModel) -> None:
    """Warn, once, of data in float64 for a model in float32."""
    if model.readout.dtype == np.float32 and getattr(getattr(batch, "x", None), "dtype", None) == np.float64:
        warnings.warn(
            "x: float64 data is converted for this float32 model at every step; x.astype(np.float32) does it once",
            stacklevel=1,
        )
