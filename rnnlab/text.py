"""Text: characters to predict, sampling, and n-gram models to compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rnnlab.batch import Batch, BatchStream
from rnnlab.losses import softmax_cross_entropy
from rnnlab.model import SequenceModel, check_sizes
from rnnlab.ops import Array
from rnnlab.validate import describe, generator, integer, label_array, positive_float


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
    """A text as characters, made by `char_text`: training batches that continue where the last one stopped.

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
        starts = np.arange(self.batch_size) * (len(self.train) // self.batch_size) + integer("n", n, 0) * self.T
        rows = self.train[(starts + np.arange(self.T + 1)[:, None]) % len(self.train)]
        return Batch(rows[:-1], rows[1:])

    def evaluation(self, size: int = 100) -> Batch:
        """A fixed batch: `size` pieces of the test text, T characters each (or all that there are), evenly spaced."""
        T = min(self.T, len(self.test) - 1)
        starts = np.linspace(0, len(self.test) - 1 - T, integer("size", size)).astype(int)
        rows = self.test[starts + np.arange(T + 1)[:, None]]
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

    def _check(self, model: SequenceModel) -> None:
        """TypeError or ValueError for a model of other characters, or one that sees those that it is to predict."""
        check_sizes(model, self.size, self.size, self.characters)
        if not model.reads_forwards:
            raise ValueError(
                f"model: expected one that does not read what it is to predict, got {model}; take cells that are not "
                "Bidirectional or Reversed"
            )

    def bits_per_character(self, model: SequenceModel) -> float:
        """Mean of -log2 p(next character) over the test text, read once from a zero state."""
        self._check(model)
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
        """Text that the model writes, each character drawn from softmax(outputs / temperature).

        Parameters
        ----------
        model : a model of this alphabet
        length : how many characters
        rng : a seed or a generator
        prompt : the text that it continues
        temperature : below 1 the likelier characters are preferred, above 1 the others come up more often

        Returns
        -------
        The `length` characters after the prompt. Raises TypeError or ValueError for an argument that does not fit.
        """
        temperature, length = positive_float("temperature", temperature), integer("length", length)
        rng = generator(rng)
        self._check(model)
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
    """Any text as a character-prediction task.

    Parameters
    ----------
    text
        The text itself, a `Path` to a .txt file (UTF-8), or None for `python_reference()`. A string that ends in .txt
        on one line is taken for a path too.
    T, batch_size : characters a batch in each of so many rows
    test_share : this share at the text's end is kept for the test

    Returns
    -------
    A `CharText`.

    Raises
    ------
    FileNotFoundError
        For a missing file.
    TypeError, ValueError
        For anything else that is no text, for a file that is not UTF-8, and for a text that is too short to be read by
        `batch_size` rows.
    """
    if text is None:
        text = python_reference()
    if isinstance(text, Path) or (isinstance(text, str) and text.endswith(".txt") and "\n" not in text):
        text = read_text(Path(text))
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string or a path, got {describe(text)}")
    T, batch_size = integer("T", T), integer("batch_size", batch_size)
    if not 0 < positive_float("test_share", test_share) < 1:
        raise ValueError(f"test_share: expected a number between 0 and 1, got {test_share}")
    characters = "".join(sorted(set(text)))
    numbers = numbers_of(text, characters)
    split = len(text) - round(len(text) * test_share)
    if split < max(batch_size, T + 1) or len(text) - split < 2:
        name = "" if "\n" in text else f"; for the file of that name pass Path({text!r:.60})"
        raise ValueError(
            f"text: expected more than {max(batch_size, T + 1)} characters to train on, got {len(text)} in all; take a "
            f"longer text, or a smaller T or batch_size{name}"
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
    """Bits per character of an n-gram model, smoothed as Witten & Bell do, from the uniform distribution upwards:

        p(c | context) = (count(context, c) + distinct(context) p(c | shorter context))
                         / (count(context) + distinct(context))

    Not the strongest: Kneser & Ney (1995) smooth better.

    Parameters
    ----------
    train, test : (N,) integers, a text's two parts
    n : the length of the longest gram

    Returns
    -------
    The mean of -log2 p over `test`. Raises TypeError or ValueError for an argument that does not fit.

    References
    ----------
    Witten & Bell 1991.
    """
    n = integer("n", n)
    train = label_array("train", train, (("N", None),), np.iinfo(np.int64).max).astype(np.int64)
    test = label_array("test", test, (("N", None),), np.iinfo(np.int64).max).astype(np.int64)
    size = int(max(train.max(), test.max())) + 1
    if n > len(train) or size**n > np.iinfo(np.int64).max:
        raise ValueError(f"n: expected {size}^n to fit into 64 bits and n characters to train on, got {n}; take less")
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
