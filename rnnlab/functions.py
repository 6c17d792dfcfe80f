"""Plain functions of any layout as a case: what their arguments are called, and which gradient is of what."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnlab.case import LOSS, Arrays, Case, as_array
from rnnlab.ops import Array
from rnnlab.validate import describe

Path = tuple[Any, ...]  # of an array in the arguments: the number of the argument, then keys and positions


def pair_case(
    forward: Callable[..., Any], backward: Callable[..., Any], arguments: Sequence[Any], rng: np.random.Generator
) -> Case:
    """forward(*arguments) -> (outputs..., what backward needs); backward(d_outputs..., that) -> gradients."""
    arguments, names = redrawn(arguments, rng), argument_names(forward, len(arguments))
    paths, inputs = named(arguments, names)

    def run(args: Sequence[Any]) -> tuple[tuple[Any, ...], Any]:
        result = forward(*copy.deepcopy(args))
        if not isinstance(result, tuple) or len(result) < 2:
            raise TypeError(
                f"forward: expected it to return its output(s) and, last, what backward needs, got {describe(result)}. "
                "Return (output, cache)."
            )
        return result[:-1], result[-1]

    outputs, _ = run(arguments)
    which = _outputs_read(forward, backward, len(outputs))
    weights = [mapped(lambda _, a: rng.normal(size=np.shape(a)), outputs[n]) for n in which]

    def loss(name: str, value: Array) -> Any:
        outputs, _ = run(put(arguments, paths[name], value))
        pairs = [zip(arrays(w), arrays(outputs[n]), strict=True) for n, w in zip(which, weights, strict=True)]
        return sum((w * y).sum() for pair in pairs for w, y in pair)

    def back(cache: Any, scale: float) -> Arrays:
        result = backward(*(mapped(lambda _, w: scale * w, tree) for tree in weights), cache)
        return named_gradients(result, backward, arguments, names, inputs)

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        for other in shorter(arguments) if short else other_shapes(arguments):
            try:
                case = pair_case(forward, backward, other, rng)
                if all(case.claims()[name].shape == v.shape for name, v in case.inputs.items()):
                    return case
            except Exception:  # the shapes do not fit together: the next ones
                continue
        return pair_case(forward, backward, arguments, rng)

    title = f"{_name(forward)}, {_name(backward)}"
    return Case(title, inputs, loss, lambda: run(arguments)[1], back, remake=remake, steps=2)


def loss_case(f: Callable[..., Any], arguments: Sequence[Any], rng: np.random.Generator) -> Case:
    """One function with the loss inside: f(*arguments) -> (loss, gradients...); weights may be globals."""
    arguments, names = redrawn(arguments, rng), argument_names(f, len(arguments))
    space = inspect.unwrap(f).__globals__
    with _installed(space, {}):
        first = f(*copy.deepcopy(arguments))
    if not isinstance(first, tuple) or len(first) < 2 or np.size(first[0]) != 1:
        raise TypeError(f"f: expected it to return (loss, gradients ...), got {describe(first)}.")
    read = {name: v for name, v in space.items() if _is_float(v) and name in _names_in(f, space)}
    weights = {name: 0.4 * rng.normal(size=v.shape) for name, v in read.items()}
    paths, known = named(arguments, names)
    known |= weights

    def run(args: Sequence[Any], values: Mapping[str, Any]) -> Any:
        with _installed(space, values):
            return f(*copy.deepcopy(args))

    def back(_: Any, scale: float) -> Arrays:
        result = run(arguments, weights)
        claims = named_gradients(result[1:], f, arguments, names, known, skip=1)
        return claims | {LOSS: np.asarray(result[0])}  # an edit must leave the loss as it is

    inputs = {name: known[name] for name in back(None, 1.0) if name in known}

    def loss(name: str, value: Array) -> Any:
        given = arguments if name in weights else put(arguments, paths[name], value)
        return np.asarray(run(given, weights | ({name: value} if name in weights else {}))[0]).sum()

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        return loss_case(f, first_steps(arguments) if short else arguments, rng)

    steps = max((len(a) for a in arguments if isinstance(a, list | tuple)), default=1)
    return Case(_name(f), inputs, loss, lambda: None, back, linear=False, remake=remake, steps=steps)


# ---- nested arguments -------------------------------------------------------------------------


def mapped(change: Callable[[Path, Any], Any], tree: Any, path: Path = ()) -> Any:
    """The same nested lists, tuples and dicts, each float array replaced by change(its path, it)."""
    if isinstance(tree, Mapping):
        return {key: mapped(change, value, (*path, key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(change, value, (*path, n)) for n, value in enumerate(tree))
    return change(path, tree) if _is_float(tree) else tree


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
    """The same with short lengths, 2, 3, 4 ..., in the same order: a search over large arrays takes long."""
    change = {base: min(base, n + 2) for n, base in enumerate(_lengths(arguments)[1])}
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


# ---- names ------------------------------------------------------------------------------------


def argument_names(function: Callable[..., Any], count: int) -> list[str]:
    """The names of a function's first `count` parameters."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    return [*names, *(f"argument {n + 1}" for n in range(len(names), count))][:count]


def named_gradients(
    result: Any, function: Any, arguments: Sequence[Any], names: Sequence[str], inputs: Arrays, skip: int = 0
) -> Arrays:
    """What a learner's backward pass returned, by the name of the array whose gradient each is.

    A dict says it by its keys (`dWx` is of `Wx`). A tuple is in the order of the forward pass's arguments; where
    its length is another one, the names in the `return` statement say it.
    """
    if isinstance(result, Mapping):
        return {_variable(str(key), inputs): as_array(g) for key, g in result.items()}
    if not isinstance(result, tuple | list):
        result = (result,)
    floats = [n for n, a in enumerate(arguments) if _is_float(a) or isinstance(a, dict | list | tuple)]
    texts = returned_names(inspect.unwrap(function), len(result) + skip)[skip:]
    if len(result) == len(floats) and not skip:
        texts = [names[n] for n in floats]
    found: Arrays = {}
    for text, g in zip(texts, result, strict=True):
        if isinstance(g, Mapping):
            found |= {_variable(str(key), inputs): as_array(v) for key, v in g.items()}
        elif isinstance(g, list | tuple):
            found |= {f"{text}[{k}]": as_array(v) for k, v in enumerate(g)}
        elif g is not None:  # beside a loss, `hs` is a state that is handed on, and `dhs` its gradient
            name = text if text in inputs and not skip else _variable(text, inputs)
            if not (skip and name == text):
                found.setdefault(name, as_array(g))
    return {name: g for name, g in found.items() if name in inputs}


@functools.lru_cache(maxsize=64)
def returned_names(function: Callable[..., Any], count: int) -> list[str]:
    """The texts of a function's last `return` of `count` values; empty ones where there is no source."""
    with contextlib.suppress(OSError, TypeError, SyntaxError):
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        for value in reversed([node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]):
            elements = value.elts if isinstance(value, ast.Tuple) else [value] if value else []
            if len(elements) == count:
                return [ast.unparse(e) for e in elements]
    return [""] * count


def _variable(text: str, inputs: Mapping[str, Any]) -> str:
    """The input whose gradient a name such as `dWx`, `d_Wx`, `grad_Wx` or `Wx` means; "" if there is none."""
    plain = {name.replace("_", "").lower(): name for name in inputs}
    for prefix in ("grad_", "d_", "d", "g_", "g", "delta_"):
        rest = text[len(prefix) :]
        if text.startswith(prefix) and (rest in inputs or rest.replace("_", "").lower() in plain):
            return rest if rest in inputs else plain[rest.replace("_", "").lower()]
    return text if text in inputs else ""


def _outputs_read(forward: Callable[..., Any], backward: Callable[..., Any], count: int) -> list[int]:
    """Which outputs `backward` takes a gradient of: all, or those that its arguments name, or the first ones."""
    takes = [name for name in argument_names(backward, 99) if not name.startswith("argument ")][:-1]
    if len(takes) >= count:
        return list(range(count))
    names = {name: n for n, name in enumerate(returned_names(inspect.unwrap(forward), count + 1)[:-1]) if name}
    return [names.get(_variable(name, names), k) for k, name in enumerate(takes)]


def _names_in(function: Callable[..., Any], space: Mapping[str, Any]) -> set[str]:
    """The global names that a function reads, and those of the functions among them."""
    seen: set[str] = set()
    todo: list[Any] = [inspect.unwrap(function).__code__]
    while todo:
        code = todo.pop()
        todo += [c for c in code.co_consts if inspect.iscode(c)]
        todo += [space[name].__code__ for name in set(code.co_names) - seen if inspect.isfunction(space.get(name))]
        seen |= set(code.co_names)
    return seen


@contextlib.contextmanager
def _installed(space: dict[str, Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Globals replaced for a while."""
    before = {name: space[name] for name in values}
    space.update({name: np.array(v) for name, v in values.items()})
    try:
        yield
    finally:
        space.update(before)


def _is_float(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fc"


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
