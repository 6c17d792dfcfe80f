"""Nested lists, tuples and dicts of arrays: the arguments of a learner's functions, by name, and with other sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnlab.ops import Array
from rnnlab.proof.case import Arrays

Path = tuple[Any, ...]  # of an array in the arguments: the number of the argument, then keys and positions


def mapped(change: Callable[[Path, Any], Any], tree: Any, path: Path = ()) -> Any:
    """The same nested lists, tuples and dicts, each float array replaced by change(its path, it)."""
    if isinstance(tree, Mapping):
        return {key: mapped(change, value, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(change, value, (*path, n)) for n, value in enumerate(tree))
    return change(path, tree) if is_float(tree) else tree


def arrays(tree: Any) -> list[Any]:
    """The float arrays within."""
    found: list[Any] = []
    mapped(lambda _, a: found.append(a), tree)
    return found


def put(arguments: Sequence[Any], path: Path, value: Array) -> Any:
    """The arguments with one array replaced."""
    return mapped(lambda p, a: value if p == path else a, arguments)


def redrawn(arguments: Sequence[Any], rng: np.random.Generator) -> tuple[Any, ...]:
    """The same arguments with random numbers in their float arrays."""
    return tuple(mapped(lambda _, a: np.asarray(0.5 * rng.normal(size=np.shape(a))), list(arguments)))


def named(arguments: Sequence[Any], names: Sequence[str]) -> tuple[dict[str, Path], Arrays]:
    """Where each float array stands, and the array: by its argument's name, in a dict by its key."""
    paths: dict[str, Path] = {}
    values: Arrays = {}

    def note(path: Path, a: Array) -> None:
        name = names[path[0]]
        for key in path[1:]:
            name = f"{name}[{key}]" if isinstance(key, int) else str(key)
        paths[name], values[name] = path, a

    mapped(note, list(arguments))
    return paths, values


def other_shapes(arguments: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The arguments with other lengths: as many of them changed as go together, for whoever tries them in turn.

    With a length L its multiples change (4 L of packed gates), or the sums in which it stands (H + D of [h, x]).
    """
    bases = _lengths(arguments)[1]
    yield _together(arguments, {base: base + 1 + n % 2 for n, base in enumerate(bases)})
    for base in bases:  # one at a time: number of sequences, of steps, of inputs
        yield _resized(arguments, {base: base + 2})


def shorter(arguments: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """One step: the length that stands in fewest arrays is 1."""
    counts = Counter(n for a in arrays(list(arguments)) for n in set(a.shape))
    for base in sorted(_lengths(arguments)[1], key=lambda n: (counts[n], -n)):
        yield _resized(arguments, {base: 1})


def smaller(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The same with short lengths, 3, 4, 5 ..., in the same order: a search over large arrays takes long."""
    change = {base: min(base, n + 3) for n, base in enumerate(_lengths(arguments)[1])}
    small = first_steps(_together(arguments, change), 4)
    return tuple(_whole_numbers(a, change, min(change.values(), default=2)) for a in small)


def _whole_numbers(tree: Any, change: Mapping[int, int], most: int) -> Any:
    """Arrays of whole numbers with short axes, and no number above `most`: they may be positions in another array."""
    if isinstance(tree, list | tuple):
        return type(tree)(v % most if type(v) is int else _whole_numbers(v, change, most) for v in tree)
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "iu":
        return tree[tuple(slice(change.get(n, min(n, axis + 3))) for axis, n in enumerate(tree.shape))] % most
    return tree


def _together(arguments: Sequence[Any], change: dict[int, int]) -> tuple[Any, ...]:
    """These lengths changed, and with them their multiples and sums."""
    bases = list(change)
    for n in _lengths(arguments)[0]:
        for k in (2, 3, 4):
            if n not in change and n % k == 0 and n // k in change:
                change[n] = k * change[n // k]
        for a in bases:
            if n not in change and n - a in change:
                change[n] = change[a] + change[n - a]
    return _resized(arguments, change)


def first_steps(arguments: Sequence[Any], most: int = 1) -> tuple[Any, ...]:
    """The first elements of every list, and of every array that has as many rows and is no matrix."""
    steps = {len(a) for a in arguments if isinstance(a, list | tuple)}
    cut = [isinstance(a, list | tuple) or (np.ndim(a) > 2 and len(a) in steps) for a in arguments]
    return tuple(a[:most] if c else a for a, c in zip(arguments, cut, strict=True))


def _lengths(arguments: Sequence[Any]) -> tuple[list[int], list[int]]:
    """All lengths of arrays, and those that are no multiple and no sum of others."""
    lengths = sorted({n for a in arrays(list(arguments)) for n in a.shape if n > 1})
    bases = [n for n in lengths if not any(n == k * m for m in lengths for k in (2, 3, 4) if m < n)]
    return lengths, [n for n in bases if not any(n == a + b for a in bases for b in bases if a < n and b < n)] or bases


def _resized(arguments: Sequence[Any], change: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple(mapped(lambda _, a: np.zeros([change.get(n, n) for n in np.shape(a)]), list(arguments)))


def is_float(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fc"
