"""One case of a derivative check: a scalar loss of named arrays, and the gradients that a backward pass claims.

`check_gradients` and `diagnose` look at the same cases. A case is made from a cell, from a model and a batch, from
a pair of functions (forward, backward), or from one function that returns its loss and its gradients.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rnnlab.batch import Batch
from rnnlab.cells.arrays import alive_steps
from rnnlab.cells.base import Cell, Gradients, Tape, read_only
from rnnlab.model import SequenceModel
from rnnlab.ops import Array
from rnnlab.validate import describe

Arrays = dict[str, Array]
LOSS = "the loss itself"
COMPLEX, CENTRAL = "complex step", "central differences"
COMPLEX_STEP = 1e-30  # Im f(x + ih) / h subtracts nothing, so h can be as small as one likes
CENTRAL_STEPS = (1e-3, 1e-5, 1e-7)  # a kink between the points spoils one difference: smaller ones are tried


@dataclass
class Case:
    """What is compared.

    inputs   the arrays with respect to which gradients are claimed
    loss     (name, value) -> the loss, with that one input replaced by the value
    record   () -> what the forward pass leaves for the backward pass
    back     (record, scale) -> the claimed gradients, for `scale` times the loss
    blocks   names of the blocks along an input's first axis, for tables
    linear   whether `back` takes another scale than 1
    remake   (rng, short) -> the same with fresh numbers and, where possible, other sizes; with one time step if short
    """

    target: str
    inputs: Arrays
    loss: Callable[[str, Array], Any]
    record: Callable[[], Any]
    back: Callable[[Any, float], Arrays]
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    linear: bool = True
    remake: Callable[[np.random.Generator, bool], Case] | None = None
    steps: int = 1  # where `remake` can make it shorter

    def claims(self, scale: float = 1.0) -> Arrays:
        """The gradients that the backward pass claims, as copies."""
        return {name: np.array(g) for name, g in self.back(self.record(), scale).items()}


# ---- exact derivatives ------------------------------------------------------------------------


def derivative(loss: Callable[[Array], Any], at: Array, direction: Array, method: str) -> float:
    """d/de loss(at + e direction) at e = 0: by complex step (Squire & Trapp 1998), or by four-point differences."""
    if method == COMPLEX:
        return float(np.imag(loss(np.asarray(at + 1j * COMPLEX_STEP * direction))) / COMPLEX_STEP)
    found: list[float] = []
    for h in CENTRAL_STEPS:
        near, far = (
            float(np.real(loss(np.asarray(at + k * h * direction))) - np.real(loss(np.asarray(at - k * h * direction))))
            / (2 * k * h)
            for k in (1, 2)
        )
        found.append((4 * near - far) / 3)
        if abs(near - far) <= 1e-4 * max(abs(near), 1e-3):  # smooth between the points
            return found[-1]
    return found[1]


def gradient(loss: Callable[[Array], Any], at: Array, method: str) -> Array:
    """Every entry of dL/dat, one derivative each."""
    exact = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        unit = np.zeros(at.shape)
        unit[index] = 1
        exact[index] = derivative(loss, at, unit, method)
    return exact


def best_method(case: Case, rng: np.random.Generator) -> str:
    """Complex step, where the forward pass takes complex numbers and the answer agrees with central differences.

    abs, norms and real-typed buffers silently lose the imaginary part. Whether they stand in the code does not
    depend on the place, so a place nearby is asked, where no input sits exactly on a kink.
    """
    return COMPLEX if all(_takes_complex(case, name, rng) for name in case.inputs) else CENTRAL


def _takes_complex(case: Case, name: str, rng: np.random.Generator) -> bool:
    value = case.inputs[name]
    near, direction = value + 1e-3 * rng.normal(size=value.shape), rng.normal(size=value.shape)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            exact = derivative(lambda v: case.loss(name, v), near, direction, COMPLEX)
        for scale in (1.0, 1e-2, 1e-4):
            central = derivative(lambda v: case.loss(name, v), near, scale * direction, CENTRAL) / scale
            if abs(exact - central) <= 1e-5 * max(1.0, abs(central)):
                return True
    except Exception:  # refused, by whatever line of the code
        return False
    return False


# ---- a cell -----------------------------------------------------------------------------------


def cell_case(cell: Any, T: int, B: int, rng: np.random.Generator, lengths: Array | None = None) -> Case:
    """Random biases and input, a non-zero initial state, and a random loss over all outputs and the final state.

    The inputs are every parameter, x, and the state at every t, by restarting the network there.
    """
    cell = copy.deepcopy(cell)
    S, H = len(cell.state_names), cell.hidden_size
    drawn = cell.with_params({name: random_bias(name, p, rng) for name, p in cell.params.items()})
    x, state = rng.normal(size=(T, B, cell.input_size)), rng.normal(size=(S, B, H))
    with contextlib.suppress(FloatingPointError):  # a parameter may have to be positive, say: then the cell's own
        drawn.forward(x.copy(), state.copy())
        cell = drawn
    d_h, d_state = rng.normal(size=(T, B, H)), rng.normal(size=(S, B, H))
    takes = inspect.signature(cell.backward).parameters
    reads_final = "d_state" in takes or any(p.kind is p.VAR_POSITIONAL for p in takes.values())
    if not reads_final:
        d_state = np.zeros_like(d_state)
    alive = None if lengths is None else alive_steps(lengths, T, B)
    if alive is not None:
        d_h[~alive] = 0  # no state is read there
    starts = range(T + 1) if isinstance(cell, Cell) else range(1)  # where one pass over time can start again
    fresh = copy.deepcopy(cell)  # what a forward pass may keep on the cell stays apart
    for p in cell.params.values():
        p.flags.writeable = False

    def loss(name: str, value: Array) -> Any:
        """What is read from step t on, when the network starts there."""
        t = int(name[7:-1]) if name.startswith("states[") else 0
        start = value if name.startswith("states[") else state.astype(value.dtype)
        params = dict(fresh.params) | ({name: value} if name in fresh.params else {})
        total = (d_h[t - 1] * start[0]).sum() if t else 0
        if t == T:
            return total + (d_state * start).sum()
        if np.iscomplexobj(value):
            params = {key: p.astype(complex) for key, p in params.items()}
        rest = () if alive is None else (alive[t:],)
        tape = fresh.with_params(params).forward(value if name == "x" else x[t:], start, *rest)
        return total + (d_h[t:] * tape.h).sum() + (d_state * tape.states[-1]).sum()

    def record() -> Any:
        tape = cell.forward(read_only(x), read_only(state), *(() if alive is None else (alive,)))
        return freeze(tape) if isinstance(tape, Tape) else tape

    def back(tape: Tape, scale: float) -> Arrays:
        final = (read_only(scale * d_state),) if reads_final else ()
        grads = cell.backward(tape, read_only(scale * d_h), *final)
        if not isinstance(grads, Gradients):
            raise TypeError(f"backward: expected it to return Gradients(params, x, states), got {describe(grads)}")
        claims = dict(grads.params)
        if grads.x is not None:
            claims["x"] = grads.x
        if grads.states is not None:
            claims |= {f"states[{t}]": d for t, d in enumerate(grads.states) if t in starts}
        return claims

    states = record().states
    inputs = dict(cell.params) | {"x": x} | {f"states[{t}]": states[t] for t in starts}
    K, blocks = len(cell.gate_names), {name: cell.state_names for name in inputs if name.startswith("states")}
    blocks |= {name: cell.gate_names for name, p in cell.params.items() if p.ndim == 3 and len(p) == K}

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        return cell_case(resized(cell, 3, cell.hidden_size + 1), 1 if short else T + 2, B + 1, rng)

    return Case(repr(cell), inputs, loss, record, back, blocks, remake=remake, steps=T)


def resized(cell: Cell, D: int, H: int) -> Cell:
    """The same kind of cell with other sizes, where its class takes them; the cell itself where not."""
    rng = np.random.default_rng(0)
    try:
        other = type(cell)(D, H, rng=rng)
        plain = {k: v for k, v in vars(cell).items() if isinstance(v, str | float | bool)}
        vars(other).update({k: v for k, v in plain.items() if k in vars(other)})
        with np.errstate(all="ignore"):
            other.forward(rng.normal(size=(2, 2, D)))
        return other.astype(np.float64)
    except Exception:  # a constructor of the learner's own may want anything
        return cell


def random_bias(name: str, p: Array, rng: np.random.Generator) -> Array:
    """Zero biases hide a bias used in another's place; arrays (K, 1, H), (1, H) and (H,) are taken for biases."""
    return np.asarray(rng.normal(size=p.shape)) if p.ndim < 2 or p.shape[-2] == 1 else p


def freeze(tape: Tape) -> Tape:
    """The same tape, its arrays read-only."""
    x, states, gates, extras = map(read_only, (tape.x, tape.states, tape.gates, tape.extras))
    return replace(tape, x=x, states=states, gates=gates, extras=extras)


# ---- a model ----------------------------------------------------------------------------------


def model_case(model: SequenceModel, batch: Batch, rng: np.random.Generator) -> Case:
    """Every parameter, the input (unless it is integers) and each layer's initial state, on one batch."""
    x = np.asarray(batch.x)
    x = x.astype(np.float64) if x.dtype.kind == "f" else x
    B = x.shape[1] if x.ndim > 1 else 0
    states = {
        f"cells.{n}.states[0]": rng.normal(size=(len(cell.state_names), B, cell.hidden_size))
        for n, cell in enumerate(model.cells)
    }
    held: dict[str, Any] = {"rng": 0} if model.dropout else {}  # the same outputs are dropped each time
    inputs = dict(model.params) | states | ({"x": x} if x.dtype.kind == "f" else {})

    def loss(name: str, value: Array) -> Any:
        now = inputs | {name: value}
        params = {key: now[key] for key in model.params}
        if np.iscomplexobj(value):
            params = {key: p.astype(complex) for key, p in params.items()}
        fresh = model.with_params(params)
        return fresh.mean_loss(replace(batch, x=now.get("x", x)), [now[key] for key in states], **held)

    def back(_: Any, scale: float) -> Arrays:
        start = tuple(map(read_only, states.values()))
        result = model.loss_and_grads(replace(batch, x=read_only(x)), start, input_gradient=True, **held)
        claims = dict(result.grads)
        if "x" in inputs and result.cell_grads[0].x is not None:
            claims["x"] = result.cell_grads[0].x
        return claims | {name: g.states[0] for name, g in zip(states, result.cell_grads, strict=True)}

    blocks: dict[str, tuple[str, ...]] = {}
    for n, cell in enumerate(model.cells):
        K = len(cell.gate_names)
        blocks |= {f"cells.{n}.{key}": cell.gate_names for key, p in cell.params.items() if p.ndim == 3 and len(p) == K}
        blocks[f"cells.{n}.states[0]"] = cell.state_names
    return Case(repr(model), inputs, loss, lambda: None, back, blocks, linear=False)


# ---- functions of any layout ------------------------------------------------------------------


def pair_case(
    forward: Callable[..., Any], backward: Callable[..., Any], arguments: Sequence[Any], rng: np.random.Generator
) -> Case:
    """forward(*arguments) -> (outputs..., what backward needs); backward(d_outputs..., that) -> gradients."""
    arguments, names = redrawn(arguments, rng), argument_names(forward, len(arguments))
    inputs = named_leaves(arguments, names)

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
    weights = [_map(lambda a: rng.normal(size=np.shape(a)), outputs[n]) for n in which]

    def loss(name: str, value: Array) -> Any:
        outputs, _ = run(_replaced(arguments, names, name, value))
        return sum(
            (w * y).sum()
            for n, tree in zip(which, weights, strict=True)
            for w, y in zip(_leaves(tree), _leaves(outputs[n]), strict=True)
        )

    def back(cache: Any, scale: float) -> Arrays:
        result = backward(*(_map(lambda w: scale * w, tree) for tree in weights), cache)
        return named_gradients(result, backward, arguments, names, inputs)

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        for other in other_shapes(arguments):
            try:
                case = pair_case(forward, backward, other, rng)
                if all(case.claims()[name].shape == v.shape for name, v in case.inputs.items()):
                    return case
            except Exception:  # the shapes do not fit together: the next ones
                continue
        return pair_case(forward, backward, arguments, rng)

    title = f"{_name(forward)}, {_name(backward)}"
    return Case(title, inputs, loss, lambda: run(arguments)[1], back, remake=remake)


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
    known = named_leaves(arguments, names) | weights

    def run(args: Sequence[Any], values: Mapping[str, Any]) -> Any:
        with _installed(space, values):
            return f(*copy.deepcopy(args))

    def back(_: Any, scale: float) -> Arrays:
        result = run(arguments, weights)
        claims = named_gradients(result[1:], f, arguments, names, known, skip=1)
        return claims | {LOSS: np.asarray(result[0])}  # an edit must leave the loss as it is

    inputs = {name: known[name] for name in back(None, 1.0) if name in known}

    def loss(name: str, value: Array) -> Any:
        result = run(_replaced(arguments, names, name, value), weights | ({name: value} if name in weights else {}))
        return np.asarray(result[0]).sum()

    def remake(rng: np.random.Generator, short: bool = False) -> Case:
        return loss_case(f, arguments, rng)

    return Case(_name(f), inputs, loss, lambda: None, back, linear=False, remake=remake)


def argument_names(function: Callable[..., Any], count: int) -> list[str]:
    """The names of a function's first `count` parameters."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    return [*names, *(f"argument {n + 1}" for n in range(len(names), count))][:count]


def redrawn(arguments: Sequence[Any], rng: np.random.Generator) -> tuple[Any, ...]:
    """The same arguments with random numbers in their float arrays."""
    return tuple(_map(lambda a: np.asarray(0.5 * rng.normal(size=np.shape(a))), a) for a in arguments)


def named_leaves(arguments: Sequence[Any], names: Sequence[str]) -> Arrays:
    """Every float array among the arguments: by its argument's name, in a dict by its key."""
    found: Arrays = {}
    for name, a in zip(names, arguments, strict=True):
        if _is_float(a):
            found[name] = a
        elif isinstance(a, dict):
            found |= {str(key): v for key, v in a.items() if _is_float(v)}
        elif isinstance(a, list | tuple):
            found |= {f"{name}[{n}]": v for n, v in enumerate(a) if _is_float(v)}
    return found


def named_gradients(
    result: Any,
    function: Callable[..., Any],
    arguments: Sequence[Any],
    names: Sequence[str],
    inputs: Arrays,
    skip: int = 0,
) -> Arrays:
    """What a learner's backward pass returned, by the name of the array whose gradient each is.

    A dict says it by its keys (`dWx` is of `Wx`). A tuple is in the order of the forward pass's arguments; where
    its length is another one, the names in the `return` statement say it.
    """
    if isinstance(result, Mapping):
        return {_variable(str(key), inputs): np.asarray(g) for key, g in result.items()}
    if not isinstance(result, tuple | list):
        result = (result,)
    function = inspect.unwrap(function)
    floats = [n for n, a in enumerate(arguments) if _is_float(a) or isinstance(a, dict | list | tuple)]
    texts = returned_names(function, len(result) + skip)[skip:]
    if len(result) == len(floats) and not skip:
        texts = [names[n] for n in floats]
    found: Arrays = {}
    for text, g in zip(texts, result, strict=True):
        if isinstance(g, Mapping):
            found |= {_variable(str(key), inputs): np.asarray(v) for key, v in g.items()}
        elif isinstance(g, list | tuple):
            found |= {f"{text}[{k}]": np.asarray(v) for k, v in enumerate(g)}
        elif g is not None:  # beside a loss, `hs` is a state that is handed on, and `dhs` its gradient
            name = text if text in inputs and not skip else _variable(text, inputs)
            if not (skip and name == text):
                found.setdefault(name, np.asarray(g))
    return {name: g for name, g in found.items() if name in inputs}


@functools.lru_cache(maxsize=64)
def returned_names(function: Callable[..., Any], count: int) -> list[str]:
    """The texts of a function's last `return` of `count` values; empty ones where there is no source."""
    with contextlib.suppress(OSError, TypeError, SyntaxError):
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        returns = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
        for value in reversed(returns):
            elements = value.elts if isinstance(value, ast.Tuple) else [value] if value else []
            if len(elements) == count:
                return [ast.unparse(e) for e in elements]
    return [""] * count


def _variable(text: str, inputs: Mapping[str, Any]) -> str:
    """The input whose gradient a name such as `dWx`, `d_Wx`, `grad_Wx` or `Wx` means; "" if there is none."""
    plain = {name.replace("_", "").lower(): name for name in inputs}
    for prefix in ("", "grad_", "d_", "d", "g_", "g", "delta_"):
        if text.startswith(prefix):
            rest = text[len(prefix) :]
            if prefix and rest in inputs:
                return rest
            if prefix and rest.replace("_", "").lower() in plain:
                return plain[rest.replace("_", "").lower()]
    return text if text in inputs else ""


def other_shapes(arguments: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The arguments with other lengths: as many of them changed as go together, for whoever tries them in turn.

    With a length L its multiples change (4 L of packed gates), or the sums in which it stands (H + D of [h, x]).
    """
    arrays = [a for tree in arguments for a in _leaves(tree)]
    lengths = sorted({n for a in arrays for n in a.shape if n > 1})
    with_multiples: dict[int, int] = {}
    bases = [n for n in lengths if not any(n == k * m for m in lengths for k in (2, 3, 4) if m < n)]
    bases = [n for n in bases if not any(n == a + b for a in bases for b in bases if a < n and b < n)] or bases
    for n, base in enumerate(bases):
        with_multiples[base] = base + 1 + n % 2
    for n in lengths:
        for k in (2, 3, 4):
            if n not in with_multiples and n % k == 0 and n // k in with_multiples:
                with_multiples[n] = k * with_multiples[n // k]
        for a in bases:
            if n not in with_multiples and n - a in with_multiples:
                with_multiples[n] = with_multiples[a] + with_multiples[n - a]
    yield _resized(arguments, with_multiples)
    for base in bases:  # one at a time: number of sequences, of steps, of inputs
        yield _resized(arguments, {base: base + 2})


def _resized(arguments: Sequence[Any], change: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple(_map(lambda a: np.zeros([change.get(n, n) for n in np.shape(a)]), a) for a in arguments)


def _outputs_read(forward: Callable[..., Any], backward: Callable[..., Any], count: int) -> list[int]:
    """Which outputs `backward` takes a gradient of: all, or those that its arguments name, or the first ones."""
    takes = argument_names(backward, 99)
    takes = [name for name in takes if not name.startswith("argument ")][:-1]
    if len(takes) >= count:
        return list(range(count))
    names = {name: n for n, name in enumerate(returned_names(inspect.unwrap(forward), count + 1)[:-1]) if name}
    chosen = [names.get(_variable(name, names)) for name in takes]
    return [n if n is not None else k for k, n in enumerate(chosen)]


def _is_float(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _leaves(tree: Any) -> list[Any]:
    """The float arrays and numbers in nested lists, tuples and dicts."""
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, list | tuple):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree] if isinstance(tree, np.ndarray) and tree.dtype.kind in "fc" else []


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    """The same nested lists, tuples and dicts, their float arrays changed."""
    if isinstance(tree, Mapping):
        return {key: _map(change, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map(change, value) for value in tree)
    return change(tree) if _is_float(tree) else tree


def _replaced(arguments: Sequence[Any], names: Sequence[str], name: str, value: Array) -> list[Any]:
    """The arguments, with one float array replaced."""

    def put(key: str, a: Any) -> Any:
        if isinstance(a, dict):
            return {k: value if str(k) == name and _is_float(v) else v for k, v in a.items()}
        if isinstance(a, list | tuple):
            return type(a)(value if f"{key}[{n}]" == name else v for n, v in enumerate(a))
        return value if key == name else a

    return [put(key, a) for key, a in zip(names, arguments, strict=True)]


def _names_in(function: Callable[..., Any], space: Mapping[str, Any]) -> set[str]:
    """The global names that a function reads, and those of the functions among them."""
    seen: set[str] = set()
    todo: list[Any] = [inspect.unwrap(function).__code__]
    while todo:
        code = todo.pop()
        todo += [c for c in code.co_consts if inspect.iscode(c)]
        for name in set(code.co_names) - seen:
            seen.add(name)
            if inspect.isfunction(space.get(name)):
                todo.append(space[name].__code__)
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


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
