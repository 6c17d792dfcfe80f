"""Tasks that tell plain from gated memory, and text: streams of `Batch`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from rnnlab.losses import mean_squared_error, softmax_cross_entropy
from rnnlab.model import Batch, Loss, SequenceModel, check_model
from rnnlab.ops import Array
from rnnlab.validate import describe, generator, label_array, one_of, positive_float, positive_int

EVALUATION = 2**32  # the number of the evaluation batch, beyond any training batch


class BatchStream(ABC):
    """An endless stream of batches in which batch n depends on (seed, n) alone, so that a run can resume."""

    @abstractmethod
    def batch(self, n: int) -> Batch:
        """Batch number n, the same each time it is asked for."""

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """Batches start, start + 1, ... without end."""
        return map(self.batch, count(positive_int("start", start, 0)))

    def __iter__(self) -> Iterator[Batch]:
        return self.stream()


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
    loss: Loss = field(repr=False)
    chance: float
    solved_at: float
    draw: Callable[[np.random.Generator, int, int], Batch] = field(repr=False)
    batch_size: int = 32
    seed: int = 0

    def batch(self, n: int) -> Batch:
        return self.draw(np.random.default_rng([self.seed, positive_int("n", n, 0)]), self.T, self.batch_size)

    def evaluation(self, size: int = 500) -> Batch:
        """A fixed batch of `size` sequences that training never sees."""
        return self.draw(np.random.default_rng([self.seed, EVALUATION]), self.T, positive_int("size", size))

    def score(self, model: SequenceModel, size: int = 500) -> float:
        """On the evaluation batch: mean squared error (adding), or the share of right answers (the others).

        Raises ValueError for a model with another number of inputs or outputs than the task's.
        """
        _check_sizes(model, self.input_size, self.output_size)
        batch = self.evaluation(size)
        outputs = model.predict(batch.x)[0][-1]  # both kinds of answer stand at the last step
        if self.loss is mean_squared_error:
            return float(((outputs - batch.y[-1]) ** 2).mean())
        return float((outputs.argmax(axis=-1) == batch.y[-1]).mean())

    def solved(self, score: float) -> bool:
        """Whether this score counts as solved: an error below, or a share of at least, `solved_at`."""
        return score < self.solved_at if self.loss is mean_squared_error else score >= self.solved_at


def _check_sizes(model: SequenceModel, inputs: int, outputs: int, characters: str | None = None) -> None:
    """TypeError for what is no model, ValueError for one of other sizes: one output too many would broadcast."""
    check_model(model)
    if characters is not None and model.vocabulary not in (None, characters):
        raise ValueError(
            f"model: expected one trained on {characters!r:.60}, got the alphabet {model.vocabulary!r:.60}"
        )
    if (model.cells[0].input_size, model.readout.output_size) != (inputs, outputs):
        raise ValueError(f"model: expected {inputs} inputs and {outputs} outputs, got {model}")


def adding(T: int, batch_size: int = 32, seed: int = 0) -> Task:
    """Two of T random numbers are marked; name their sum at the end (after Hochreiter & Schmidhuber 1997, sec. 5.4).

    x (T, B, 2): a number from U(0, 1) and a marker, 1 once in each half of the sequence. y: the sum of
    the two marked numbers, at the last step (this simpler form: Le et al. 2015, Arjovsky et al. 2016).
    Answering 1 always gives an MSE of 1/6; below .01 counts as solved. T is at least 2.
    """
    return _task("adding", T, 2, batch_size, seed, _draw_adding, 2, 1, mean_squared_error, 1 / 6, 0.01)


def _draw_adding(rng: np.random.Generator, T: int, B: int) -> Batch:
    first, second, rows = rng.integers(0, T // 2, B), rng.integers(T // 2, T, B), np.arange(B)
    x = np.stack((rng.random((T, B)), np.zeros((T, B))), axis=-1)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return _answer_at_end(x, (x[first, rows, 0] + x[second, rows, 0])[:, None])


def movie(T: int, batch_size: int = 32, seed: int = 0, *, reveals: int = 1, ask: str = "end") -> Task:
    """The lesson's movie: T scenes of 4 types, some of them reveals; name the type of the last reveal so far.

    x (T, B, 5): the scene's type one-hot, and a flag that is 1 at a reveal. y: the type of the latest
    revealing scene, asked at the last step alone (`ask="end"`) or at every scene from the first reveal on
    (`ask="always"`). One reveal lies in the first half; several lie anywhere, and each makes the one
    before it worthless. Chance is .25, a share of .99 at the last step counts as solved. T is at least 2
    and at least the number of reveals; ValueError otherwise, and for another `ask`.
    """
    reveals, ask = positive_int("reveals", reveals), one_of("ask", ask, ("end", "always"))
    draw = partial(_draw_movie, reveals=reveals, always=ask == "always")
    return _task("movie", T, max(2, reveals), batch_size, seed, draw, 5, 4, softmax_cross_entropy, 0.25, 0.99)


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
    """In which order came two symbols? (after Hochreiter & Schmidhuber 1997, sec. 5.6, task 6a)

    x (T, B) integers: distractors 2 .. 5, and X = 0 or Y = 1 once in [.1T, .2T] and once in [.4T, .5T].
    y at the last step: 0 XX, 1 XY, 2 YX, 3 YY. Chance is .25, a share of .99 counts as solved. T is at
    least 10.
    """
    return _task("temporal order", T, 10, batch_size, seed, _draw_order, 6, 4, softmax_cross_entropy, 0.25, 0.99)


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


def _task(
    name: str,
    T: int,
    least_T: int,
    batch_size: int,
    seed: int,
    draw: Callable[[np.random.Generator, int, int], Batch],
    input_size: int,
    output_size: int,
    loss: Loss,
    chance: float,
    solved_at: float,
) -> Task:
    T, batch_size = positive_int("T", T, least_T), positive_int("batch_size", batch_size)
    seed = positive_int("seed", seed, 0)
    return Task(name, T, input_size, output_size, loss, chance, solved_at, draw, batch_size, seed)


# ---- text -------------------------------------------------------------------------------------


def python_reference() -> str:
    """The Python language reference that ships inside Python (pydoc_data.topics), each paragraph once.

    About a fifth of it is paragraphs that stand in several topics; a test text must not repeat the
    training text, so the first of each is kept. Its length differs between versions of Python.
    """
    from pydoc_data.topics import topics

    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


@dataclass(frozen=True)
class CharText(BatchStream):
    """A text as characters, made by `char_text`: training batches that go on where the last one stopped.

    `characters` is the alphabet; `train` and `test` are the text's two parts as integers. Each of the
    `batch_size` rows reads the training text as a ring from a place of its own, `T` characters a batch,
    so a state carried from batch to batch is always the state of the text so far.
    """

    characters: str
    train: Array = field(repr=False)
    test: Array = field(repr=False)
    T: int = 64
    batch_size: int = 32

    @property
    def size(self) -> int:
        """The number of different characters: the model's D and O."""
        return len(self.characters)

    def batch(self, n: int) -> Batch:
        """x (T, B) and y, each row's next characters."""
        starts = np.arange(self.batch_size) * (len(self.train) // self.batch_size) + positive_int("n", n, 0) * self.T
        rows = self.train[(starts + np.arange(self.T + 1)[:, None]) % len(self.train)]
        return Batch(rows[:-1], rows[1:])

    def encode(self, text: str, name: str = "text") -> Array:
        """The characters' numbers, (T,). Raises ValueError, with this name, for one that is not in the alphabet."""
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected a string, got {describe(text)}")
        unknown = set(text) - set(self.characters)
        if unknown:
            raise ValueError(
                f"{name}: expected characters of the alphabet only, got {''.join(sorted(unknown))!r}; "
                f"the alphabet is {self.characters!r:.100}"
            )
        return numbers_of(text, self.characters)

    def decode(self, numbers: Array) -> str:
        """The text of these numbers, (T,)."""
        numbers = label_array("numbers", numbers, (("T", None),), self.size)
        return "".join(self.characters[n] for n in numbers)

    def bits_per_character(self, model: SequenceModel) -> float:
        """Mean of -log2 p(next character) over the test text, read once from a zero state."""
        _check_sizes(model, self.size, self.size, self.characters)
        outputs, _ = model.predict(self.test[:-1, None])
        loss, _ = softmax_cross_entropy(outputs, self.test[1:, None])
        return float(loss / np.log(2))

    def sample(
        self,
        model: SequenceModel,
        length: int,
        rng: int | np.random.Generator,
        *,
        prompt: str = "\n",
        temperature: float = 1.0,
    ) -> str:
        """`length` characters that the model writes after the prompt, drawn from softmax(outputs / temperature)."""
        temperature, length = positive_float("temperature", temperature), positive_int("length", length)
        rng = generator(rng)
        _check_sizes(model, self.size, self.size, self.characters)
        if not isinstance(prompt, str) or not prompt:
            raise ValueError(f"prompt: expected a text of at least one character, got {describe(prompt)}")
        x, state, written = self.encode(prompt, "prompt")[:, None], None, []
        for _ in range(length):
            outputs, state = model.predict(x, state)
            logits = outputs[-1, 0].astype(float)
            with np.errstate(over="ignore"):  # -infinity, which is never drawn
                logits = (logits - logits.max()) / temperature
            written.append(int(np.argmax(logits + rng.gumbel(size=self.size))))  # the Gumbel-max draw from softmax
            x = np.array([[written[-1]]])
        return self.decode(np.array(written))


def numbers_of(text: str, characters: str) -> Array:
    """Where each character stands in the alphabet, (T,)."""
    place = {c: n for n, c in enumerate(characters)}
    return np.array([place[c] for c in text], int)


def char_text(
    text: str | Path | None = None, *, T: int = 64, batch_size: int = 32, test_share: float = 0.1
) -> CharText:
    """Any text as a character-prediction task: its last `test_share` is kept for the test.

    `text` is the text itself, a `Path` to a .txt file (UTF-8), or None for `python_reference()`. A string
    that ends in .txt on one line is taken for a path too. Raises FileNotFoundError for a missing file,
    TypeError for anything else, ValueError for a file that is not UTF-8 and for a text that is too short to be read
    by `batch_size` rows.
    """
    if text is None:
        text = python_reference()
    if isinstance(text, Path) or (isinstance(text, str) and text.endswith(".txt") and "\n" not in text):
        text = read_text(Path(text))
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string or a path, got {describe(text)}")
    T, batch_size = positive_int("T", T), positive_int("batch_size", batch_size)
    if not 0 < positive_float("test_share", test_share) < 1:
        raise ValueError(f"test_share: expected a number between 0 and 1, got {test_share}")
    characters = "".join(sorted(set(text)))
    numbers = numbers_of(text, characters)
    split = len(text) - round(len(text) * test_share)
    if split < max(batch_size, T + 1) or len(text) - split < 2:
        name = "" if "\n" in text else f"; for the file of that name pass Path({text!r:.60})"
        raise ValueError(
            f"text: expected more than {max(batch_size, T + 1)} characters to train on, got {len(text)} in all{name}"
        )
    return CharText(characters, numbers[:split], numbers[split:], T, batch_size)


def read_text(path: Path) -> str:
    """A file's text, without a byte-order mark; ValueError that names a file that is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte {error.object[error.start]:#x} at {error.start}"
        raise ValueError(
            f"text: expected a file in UTF-8, got {str(path)!r} with {place}: "
            f"save it as UTF-8, or pass Path({path.name!r}).read_text(encoding=...) with the encoding that it has"
        ) from error


def ngram_bits(train: Array, test: Array, n: int) -> float:
    """Bits per character of an n-gram model on `test`, smoothed as Witten & Bell (1991) do:

        p(c | context) = (count(context, c) + distinct(context) p(c | shorter context))
                         / (count(context) + distinct(context))

    from the uniform distribution over all characters upwards. Not the strongest: Kneser & Ney (1995) smooth better.
    """
    n = positive_int("n", n)
    train = label_array("train", train, (("N", None),), np.iinfo(np.int64).max).astype(np.int64)
    test = label_array("test", test, (("N", None),), np.iinfo(np.int64).max).astype(np.int64)
    size = int(max(train.max(), test.max())) + 1
    if n > len(train) or size**n > np.iinfo(np.int64).max:
        raise ValueError(f"n: expected {size}^n to fit into 64 bits and n characters to train on, got {n}")
    p = np.full(len(test), 1 / size)
    for order in range(n):  # the length of the context
        grams, counts = np.unique(_windows(train, order + 1, size), return_counts=True)
        contexts, first = np.unique(grams // size, return_index=True)
        totals, distinct = np.add.reduceat(counts, first), np.diff(np.append(first, len(grams)))
        asked = _windows(np.concatenate((train[-order:] if order else train[:0], test)), order + 1, size)
        of_gram, of_context = _look_up(grams, counts, asked), _look_up(contexts, totals, asked // size)
        kinds = _look_up(contexts, distinct, asked // size)
        p = np.where(of_context > 0, (of_gram + kinds * p) / np.maximum(of_context + kinds, 1), p)
    return float(-np.log2(p).mean())


def _windows(numbers: Array, length: int, size: int) -> Array:
    """Every run of `length` characters as one number in base `size`."""
    return np.lib.stride_tricks.sliding_window_view(numbers, length) @ size ** np.arange(length)[::-1]


def _look_up(keys: Array, values: Array, asked: Array) -> Array:
    """values at the sorted keys, 0 for a key that is not there."""
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, values[at], 0)
