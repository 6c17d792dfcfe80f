"""Tasks that tell plain from gated memory: streams of `Batch`. Text, from `rnnlab.text`, is a task too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from rnnlab.batch import Batch, BatchStream
from rnnlab.losses import mean_squared_error, softmax_cross_entropy
from rnnlab.model import Loss, SequenceModel, check_sizes
from rnnlab.ops import Array
from rnnlab.text import CharText, char_text, ngram_bits, python_reference
from rnnlab.validate import integer, one_of

# fmt: off
__all__ = [
    "BatchStream", "CharText", "Task", "adding", "char_text", "movie", "ngram_bits", "python_reference",
    "temporal_order",
]
# fmt: on

EVALUATION = 2**32  # the number of the evaluation batch, beyond any training batch


@dataclass(frozen=True)
class Task(BatchStream):
    """A synthetic task over T steps, made by `adding`, `movie` or `temporal_order`.

    `input_size` and `output_size` fit a model to it, `loss` is the loss that it is trained with,
    `chance` the score of a model that knows the answers' distribution alone, `solved_at` the score
    from which the task counts as solved.
    """

    name: str
    T: int
    input_size: int
    output_size: int
    draw: Callable[[np.random.Generator, int, int], Batch] = field(repr=False)
    loss: Loss = field(default=softmax_cross_entropy, repr=False)
    chance: float = 0.25
    solved_at: float = 0.99
    batch_size: int = 32
    seed: int = 0

    def batch(self, n: int) -> Batch:
        return self.draw(np.random.default_rng([self.seed, integer("n", n, 0)]), self.T, self.batch_size)

    def evaluation(self, size: int = 500) -> Batch:
        """A fixed batch of `size` sequences that training never sees."""
        return self.draw(np.random.default_rng([self.seed, EVALUATION]), self.T, integer("size", size))

    def score(self, model: SequenceModel, size: int = 500) -> float:
        """On the evaluation batch: mean squared error where the answers are floats (adding), or the share of right
        answers where they are integers (the others), at the last step, whatever the loss.

        Raises ValueError for a model with another number of inputs or outputs than the task's.
        """
        check_sizes(model, self.input_size, self.output_size)
        batch = self.evaluation(size)
        outputs = model.predict(batch.x)[0][-1]  # both kinds of answer stand at the last step
        if batch.y.dtype.kind == "f":
            return float(((outputs - batch.y[-1]) ** 2).mean())
        return float((outputs.argmax(axis=-1) == batch.y[-1]).mean())

    def solved(self, score: float) -> bool:
        """Whether this score counts as solved: an error below, or a share of at least, `solved_at`."""
        an_error = self.evaluation(1).y.dtype.kind == "f"
        return score < self.solved_at if an_error else score >= self.solved_at


def adding(T: int, batch_size: int = 32, seed: int = 0) -> Task:
    """Two of T random numbers are marked; name their sum at the end.

    x (T, B, 2): a number from U(0, 1) and a marker, 1 once in each half of the sequence. y: the sum of the two marked
    numbers, at the last step. Answering 1 always gives an MSE of 1/6; below .01 counts as solved.

    Parameters
    ----------
    T : time steps, at least 2
    batch_size, seed : sequences in a batch; batch n depends on (seed, n) alone

    Returns
    -------
    A `Task`.

    References
    ----------
    After Hochreiter & Schmidhuber 1997, sec. 5.4; this simpler form: Le et al. 2015, Arjovsky et al. 2016.
    """
    return Task(
        "adding",
        input_size=2,
        output_size=1,
        loss=mean_squared_error,
        chance=1 / 6,
        solved_at=0.01,
        draw=_draw_adding,
        **_sizes(T, 2, batch_size, seed),
    )


def _draw_adding(rng: np.random.Generator, T: int, B: int) -> Batch:
    first, second, rows = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B), np.arange(B)
    x = np.stack((rng.random((T, B)), np.zeros((T, B))), axis=-1)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return _answer_at_end(x, (x[first, rows, 0] + x[second, rows, 0])[:, None])


def movie(T: int, batch_size: int = 32, seed: int = 0, *, reveals: int = 1, ask: str = "end") -> Task:
    """The lesson's movie: T scenes of 4 types, some of them reveals; name the type of the last reveal so far.

    x (T, B, 5): the scene's type one-hot, and a flag that is 1 at a reveal. y: the type of the latest revealing scene.
    One reveal lies in the first half; several lie anywhere, and each makes the one before it worthless. Chance is .25,
    a share of .99 at the last step counts as solved.

    Parameters
    ----------
    T : time steps, at least 2 and at least the number of reveals
    batch_size, seed : sequences in a batch; batch n depends on (seed, n) alone
    reveals : how many of the scenes are reveals
    ask : "end" asks at the last step alone, "always" at every scene from the first reveal on

    Returns
    -------
    A `Task`. Raises TypeError or ValueError for an argument that does not fit.
    """
    reveals, ask = integer("reveals", reveals), one_of("ask", ask, ("end", "always"))
    draw = partial(_draw_movie, reveals=reveals, always=ask == "always")
    return Task("movie", input_size=5, output_size=4, draw=draw, **_sizes(T, max(2, reveals), batch_size, seed))


def _draw_movie(rng: np.random.Generator, T: int, B: int, reveals: int, always: bool) -> Batch:
    scenes, rows = rng.integers(0, 4, (T, B)), np.arange(B)
    at = rng.integers(0, T // 2, (1, B)) if reveals == 1 else rng.random((T, B)).argsort(axis=0)[:reveals]
    x = np.eye(5)[scenes]
    x[at, rows, 4] = 1
    latest = np.maximum.accumulate(np.where(x[..., 4] == 1, np.arange(T)[:, None], -1), axis=0)
    if not always:
        return _answer_at_end(x, scenes[latest[-1], rows])
    return Batch(x, np.where(latest < 0, 0, scenes[latest, rows]), latest >= 0)


def temporal_order(T: int, batch_size: int = 32, seed: int = 0) -> Task:
    """In which order came two symbols?

    x (T, B) integers: distractors 2 .. 5, and X = 0 or Y = 1 once in [.1T, .2T] and once in [.4T, .5T]. y at the last
    step: 0 XX, 1 XY, 2 YX, 3 YY. Chance is .25, a share of .99 counts as solved.

    Parameters
    ----------
    T : time steps, at least 10
    batch_size, seed : sequences in a batch; batch n depends on (seed, n) alone

    Returns
    -------
    A `Task`.

    References
    ----------
    After Hochreiter & Schmidhuber 1997, sec. 5.6, task 6a.
    """
    return Task("temporal order", input_size=6, output_size=4, draw=_draw_order, **_sizes(T, 10, batch_size, seed))


def _draw_order(rng: np.random.Generator, T: int, B: int) -> Batch:
    x, rows = rng.integers(2, 6, (T, B)), np.arange(B)
    first, second = rng.integers(0, 2, B), rng.integers(0, 2, B)
    x[rng.integers(T // 10, T // 5 + 1, B), rows] = first
    x[rng.integers(2 * T // 5, T // 2 + 1, B), rows] = second
    return _answer_at_end(x, 2 * first + second)


def _answer_at_end(x: Array, answer: Array) -> Batch:
    """A batch whose target counts at the last step alone."""
    T, B = x.shape[:2]
    y, mask = np.zeros((T, *answer.shape), answer.dtype), np.zeros((T, B), bool)
    y[-1], mask[-1] = answer, True
    return Batch(x, y, mask)


def _sizes(T: int, least_T: int, batch_size: int, seed: int) -> dict[str, Any]:
    """The numbers that every task is made with, checked."""
    return {
        "T": integer("T", T, least_T),
        "batch_size": integer("batch_size", batch_size),
        "seed": integer("seed", seed, 0),
    }
