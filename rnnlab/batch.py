"""Batches, what a pass over one gives, streams of them, and sequences of different lengths in one array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from rnnlab.cells.bidirectional import Tapes
from rnnlab.cells.tape import Gradients, Record
from rnnlab.losses import mask_array
from rnnlab.ops import Array
from rnnlab.validate import describe, integer, is_iterable, to_array, true_or_false


@dataclass(frozen=True, eq=False, repr=False)
class Batch(Record):
    """Sequences side by side, time first.

    x        (T, B, D) floats or (T, B) integers
    y        (T, B) integers or (T, B, O) floats; or one answer a sequence, (B,) integers or (B, O) floats ((B,) where O
             is 1), read at its last step
    mask     (T, B), the steps that the loss reads; None for all
    lengths  (B,) integers, the number of steps of each sequence, in any order; None for T. Nothing past a sequence's
             end is read. Booleans (T, B) say step by step who takes part. `rl.pad` makes x and lengths.
    """

    x: Array
    y: Array
    mask: Array | None = None
    lengths: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class LossAndGrads(Record):
    """What one pass over a batch gives.

    loss        the mean loss
    grads       dL/dparameter, named and shaped like `model.params`
    tapes       what each layer recorded, the first layer first
    cell_grads  each layer's `Gradients`
    state       each layer's final state (S, B, H), to carry on with
    """

    loss: Any
    grads: dict[str, Array]
    tapes: tuple[Tapes, ...]
    cell_grads: tuple[Gradients, ...]
    state: tuple[Array, ...]


class BatchStream(ABC):
    """An endless stream of batches in which batch n depends on (seed, n) alone, so that a run can resume."""

    @abstractmethod
    def batch(self, n: int) -> Batch:
        """Batch number n, the same each time it is asked for."""

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """Batches start, start + 1, ... without end."""
        return map(self.batch, count(integer("start", start, 0)))

    def __iter__(self) -> Iterator[Batch]:
        return self.stream()


def check_batch(name: str, value: object) -> None:
    """TypeError for anything but a `Batch`."""
    if not isinstance(value, Batch):
        raise TypeError(f"{name}: expected a Batch, got {describe(value)}; write rl.Batch(x, y)")


class Rounds(BatchStream):
    """A list of batches, round after round; with `shuffle`, each in an order drawn from (seed, round).

    Raises TypeError for an entry that is not a `Batch`, ValueError for an empty list.
    """

    def __init__(self, batches: Sequence[Batch], shuffle: bool, seed: int) -> None:
        for n, batch in enumerate(batches):
            check_batch(f"batches[{n}]", batch)
        if not batches:
            raise ValueError("batches: expected at least one Batch, got none")
        self.batches, self.shuffle, self.seed = list(batches), true_or_false("shuffle", shuffle), seed

    def batch(self, n: int) -> Batch:
        turn, place = divmod(n, len(self.batches))
        if self.shuffle:
            place = np.random.default_rng((self.seed, turn, 1)).permutation(len(self.batches))[place]
        return self.batches[place]

    def turns(self, n: int) -> bool:
        """Whether batch n begins a round that is not the first."""
        return n > 0 and n % len(self.batches) == 0


def pad(sequences: Iterable[Array]) -> tuple[Array, Array]:
    """(x, lengths) of sequences of different lengths: side by side, time first, with 0 past each end.

    Each is (T_b, ...), such as (T_b, D) floats or (T_b,) integers. x is (T, B, ...), T the largest T_b, and lengths
    (B,). Targets at every step are padded in the same way. Raises TypeError or ValueError, which names the sequence,
    for an empty one, for other axes or another kind of number than in the first, and where there is none.
    """
    if not is_iterable(sequences):
        raise TypeError(f"sequences: expected a list of arrays, got {describe(sequences)}")
    arrays = [to_array(f"sequences[{n}]", sequence) for n, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences: expected at least one, got none")
    first = arrays[0]
    for n, array in enumerate(arrays):
        if array.ndim and not array.size:
            raise ValueError(f"sequences[{n}]: expected at least one step, got an empty sequence; leave it out")
        if not array.ndim or array.shape[1:] != first.shape[1:] or array.dtype != first.dtype:
            like = f" like {describe(first)}, the first" if n else ""
            raise ValueError(f"sequences[{n}]: expected an array of at least one step{like}, got {describe(array)}")
    lengths = np.array([len(array) for array in arrays])
    x = np.zeros((lengths.max(), len(arrays), *first.shape[1:]), first.dtype)
    for b, array in enumerate(arrays):
        x[: len(array), b] = array
    return x, lengths


def targets(batch: Batch, alive: Array | None, shape: tuple[int, int, int], axes: int | None) -> tuple[Array, Array]:
    """(y at every step, the steps (T, B) that the loss reads), for a prediction of `shape` (T, B, O).

    `axes` is the number of axes that the loss wants of y, None for a loss that is not known. Raises ValueError where y
    or the mask does not fit, and says so where one of them looks like (B, T).
    """
    y, (T, B, O) = to_array("y", batch.y), shape  # noqa: E741 - O is the shape letter
    if _one_answer(y, shape, axes):
        if batch.mask is not None:
            raise ValueError(f"mask: expected None, for y {y.shape} is read at the last step, got a mask")
        last = np.full(B, T - 1) if alive is None else T - 1 - alive[::-1].argmax(axis=0)
        mask, rows = np.zeros((T, B), bool), np.arange(B)
        mask[last, rows] = True
        if alive is not None and not alive[last, rows].all():
            raise ValueError("lengths: expected at least one step of each sequence with an answer, got none of one")
        one_number = axes == 3 or (axes is None and O == 1 and y.dtype.kind == "f")  # of an unknown loss, floats are
        answers = y[:, None] if one_number and y.ndim == 1 else y
        if axes == 3 and answers.shape != (B, O):
            raise ValueError(f"y: expected shape {(B, O)} for one answer a sequence, or {shape}, got {y.shape}")
        y = np.zeros((T, *answers.shape), answers.dtype)
        y[last, rows] = answers
        return y, mask
    for name, array in (("y", y), ("mask", y if batch.mask is None else to_array("mask", batch.mask))):
        if array.shape[:2] == (B, T) and T != B:
            raise ValueError(
                f"{name}: expected time first like x, (T={T}, B={B}), got {array.shape}: one of the two looks like "
                f"(B, T); `swapaxes(0, 1)` puts time first"
            )
    mask = mask_array(batch.mask, (T, B))
    if y.shape[:2] != (T, B):
        turn = "; where x is (B, T, ...), `x.swapaxes(0, 1)` puts time first" if y.shape[:1] == (T,) else ""
        raise ValueError(
            f"y: expected shape {(T, B)} or {(T, B, O)}, or for one answer a sequence {(B,)} or {(B, O)}, "
            f"got {y.shape}{turn}"
        )
    if alive is not None:
        mask = mask & alive
        if not mask.any():
            raise ValueError("mask: expected at least one step within the lengths, got a mask of padding alone")
    return y, mask


def _one_answer(y: Array, shape: tuple[int, int, int], axes: int | None) -> bool:
    """Whether y holds one answer a sequence, (B,) or (B, O), rather than one at every step."""
    T, B, O = shape  # noqa: E741 - O is the shape letter
    if axes is None:  # (T, B) where both are possible
        return y.shape == (B,) or (y.shape == (B, O) and (B, O) != (T, B))
    return y.shape[:1] == (B,) and (y.ndim == axes - 1 or (axes == 3 and O == 1 and y.ndim == 1))
