"""Plain functions of any layout as a case: what their arguments are called, and which gradient is of what."""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnlab.ops import Array
from rnnlab.proof.case import LOSS, Arrays, Case, WrongCall, as_array
from rnnlab.proof.nested import arrays, first_steps, is_float, mapped, named, other_shapes, put, redrawn, shorter
from rnnlab.validate import describe


def pair_case(
    forward: Callable[..., Any], backward: Callable[..., Any], arguments: Sequence[Any], rng: np.random.Generator
) -> Case:
    """forward(*arguments) -> (outputs..., what backward needs); backward(d_outputs..., that) -> gradients."""
    arguments, names = redrawn(arguments, rng), argument_names(forward, len(arguments))
    paths, inputs = named(arguments, names)

    def run(args: Sequence[Any]) -> tuple[tuple[Any, ...], Any]:
        result = forward(*copy.deepcopy(args))
        if not isinstance(result, tuple) or len(result) < 2:
            raise WrongCall(
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

    def returned(cache: Any, scale: float) -> Arrays:
        result = backward(*(mapped(lambda _, w: scale * w, tree) for tree in weights), cache)
        return named_gradients(result, backward, arguments, names, inputs)

    def back(cache: Any, scale: float) -> Arrays:
        return {name: g for name, g in returned(cache, scale).items() if name in inputs}

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        others = shorter(arguments) if short else other_shapes(arguments)
        return _first_that_fits(lambda given: pair_case(forward, backward, given, rng), others, arguments)

    if not inputs:
        raise WrongCall(f"arguments: expected arrays of floats among them, got {describe(arguments)}")
    title, unknown = f"{name_of(forward)}, {name_of(backward)}", tuple[str, ...]()
    with contextlib.suppress(Exception):  # a learner's code may raise anything: diagnose says so
        unknown = _unknown(returned(run(arguments)[1], 1.0), inputs)
    return Case(
        title, inputs, loss, lambda: run(arguments)[1], back, remake=remake, steps=2, unknown=unknown, plain=True
    )


def loss_case(f: Callable[..., Any], arguments: Sequence[Any], rng: np.random.Generator) -> Case:
    """One function with the loss inside: f(*arguments) -> (loss, gradients...); weights may be globals."""
    arguments, names = redrawn(arguments, rng), argument_names(f, len(arguments))
    space = inspect.unwrap(f).__globals__
    with _installed(space, {}):
        first = f(*copy.deepcopy(arguments))
    if not isinstance(first, tuple) or len(first) < 2 or np.size(first[0]) != 1:
        raise WrongCall(
            f"{name_of(f)}: expected it to return (loss, gradients ...), got {describe(first)}. Return loss, dw, ..."
        )
    read = {name: v for name, v in space.items() if is_float(v) and name in _names_in(f, space)}
    weights = {name: 0.4 * rng.normal(size=v.shape) for name, v in read.items()}
    paths, known = named(arguments, names)
    known |= weights

    def run(args: Sequence[Any], values: Mapping[str, Any]) -> Any:
        with _installed(space, values):
            return f(*copy.deepcopy(args))

    def back(_: Any, scale: float) -> Arrays:
        result = run(arguments, weights)
        claims = named_gradients(result[1:], f, arguments, names, known, skip=1)
        claims = {name: g for name, g in claims.items() if name in known}
        return claims | {LOSS: np.asarray(result[0])}  # an edit must leave the loss as it is

    returned = named_gradients(first[1:], f, arguments, names, known, skip=1)
    inputs = {name: known[name] for name in returned if name in known}
    if not inputs:
        got, wanted = ", ".join(map(repr, returned)) or "none", ", ".join(f"d{name}" for name in known)
        raise WrongCall(
            f"{name_of(f)}: expected gradients of arrays of floats, got {got}. Return loss, {wanted} by these names"
        )

    def loss(name: str, value: Array) -> Any:
        given = arguments if name in weights else put(arguments, paths[name], value)
        return np.asarray(run(given, weights | ({name: value} if name in weights else {}))[0]).sum()

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        others = [first_steps(arguments)] if short else other_shapes(arguments)
        return _first_that_fits(lambda given: loss_case(f, given, rng), others, arguments)

    steps = max((len(a) for a in arguments if isinstance(a, list | tuple)), default=1)
    case = Case(name_of(f), inputs, loss, lambda: None, back, takes_scale=False, remake=remake, steps=steps, plain=True)
    case.unclaimed = tuple(name for name in weights if name not in inputs)
    case.unknown = _unknown(returned, known)
    return case


def _first_that_fits(make: Callable[[Any], Case], others: Iterable[Any], arguments: Any) -> Case:
    """The case of the first of other arguments that go together; of the same ones where none do."""
    for other in others:
        try:
            case = make(other)
            if all(case.claims()[name].shape == v.shape for name, v in case.inputs.items()):
                return case
        except Exception:  # the shapes do not fit together: the next ones
            continue
    return make(arguments)


def _unknown(returned: Arrays, inputs: Arrays) -> tuple[str, ...]:
    """The names among these that look like gradients of an array that has none, and do not say of which."""
    open_shapes = {v.shape for name, v in inputs.items() if name not in returned}
    rest = [name for name, g in returned.items() if name not in inputs and g.shape in open_shapes]
    return tuple(name for name in rest if name.startswith(("d", "g")))


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
    its length is another one, the names in the `return` statement say it. What these do not tell keeps its text.
    """
    if not isinstance(result, tuple | list):
        result = (result,)
    floats = [n for n, a in enumerate(arguments) if is_float(a) or isinstance(a, dict | list | tuple)]
    texts = returned_names(inspect.unwrap(function), len(result) + skip)[skip:]
    if len(result) == len(floats) and not skip:
        texts = [names[n] for n in floats]
    found: Arrays = {}
    for text, g in zip(texts, result, strict=True):
        if isinstance(g, Mapping):
            found |= {_variable(str(key), inputs) or f"grads[{key!r}]": as_array(v) for key, v in g.items()}
        elif isinstance(g, list | tuple):
            found |= {f"{text}[{k}]": as_array(v) for k, v in enumerate(g)}
        elif g is not None:  # beside a loss, `hs` is a state that is handed on, and `dhs` its gradient
            name = text if text in inputs and not skip else _variable(text, inputs) or text
            if not (skip and name == text and name in inputs):
                found.setdefault(name, as_array(g))
    return found


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
    plain, text = {name.replace("_", "").lower(): name for name in inputs}, text.removesuffix("_grad")
    for prefix in ("gradient_", "grad_", "grad", "d_", "d", "g_", "g", "delta_"):
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


def name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
