"""One case of a derivative check: a scalar loss of named arrays, and the gradients that a backward pass claims.

`check_gradients` and `diagnose` look at the same cases. A case is made from a cell, from a model and a batch, or
(`functions`) from plain functions.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from rnnlab.batch import Batch
from rnnlab.cells.arrays import alive_steps
from rnnlab.cells.base import Cell, Gradients, Tape, read_only
from rnnlab.cells.bidirectional import Recurrent
from rnnlab.model import SequenceModel
from rnnlab.ops import Array
from rnnlab.proof.exact import derivative
from rnnlab.saving import arguments
from rnnlab.validate import describe

Arrays = dict[str, Array]
LOSS = "the loss itself"
ADVICE = {
    "read-only": "the step changes an array that it was given. Make a new one: d = d + x in place of d += x.",
    "NoneType": "a method returns None. Is its return statement missing?",
    "broadcast": "two arrays do not fit. A gradient has the shape of its array: is an axis or a transpose missing?",
    "matmul": "the two matrices do not fit: is one of them to be transposed, or are the factors in the wrong order?",
    "to unpack": "count what is returned: step returns (gates, next_state, extras) and step_backward "
    "(d_a, d_prev, d_extras), each of them a tuple.",
    "array of size 0": "recurrent_grads reads d_extras, the third tuple that step_backward returns. Is that ()?",
}


class WrongCall(TypeError):
    """What was given is of no form that can be checked; nothing is said of the derivatives."""


def form_of(target: Any, arguments: Sequence[Any]) -> str:
    """Which form a call has: "cell", "model" (and a batch), "pair" (forward, backward, [arguments]) or "loss".

    TypeError for any other.
    """
    if isinstance(target, Recurrent):
        if arguments:
            raise TypeError(
                f"batch: expected None for a cell, which has a case of its own, got {describe(arguments[0])}"
            )
        return "cell"
    if isinstance(target, SequenceModel):
        if len(arguments) != 1 or not isinstance(arguments[0], Batch):
            given = arguments[0] if len(arguments) == 1 else tuple(arguments) or None
            raise TypeError(f"batch: expected a Batch to check the model on, got {describe(given)}")
        return "model"
    if not inspect.isroutine(target) or not hasattr(inspect.unwrap(target), "__code__"):
        made = isinstance(target, type) and issubclass(target, Cell)
        advice = f"; make one: {target.__name__}(3, 4)" if made else ""
        raise TypeError(f"target: expected a Cell, a SequenceModel or a function, got {describe(target)}{advice}")
    if len(arguments) != 2 or not inspect.isroutine(arguments[0]):
        return "loss"
    if not isinstance(arguments[1], tuple | list):
        raise TypeError(
            f"arguments: expected a list, those of the forward pass, got {describe(arguments[1])}; write [x]"
        )
    return "pair"


@dataclass
class Case:
    """What is compared.

    inputs   the arrays with respect to which gradients are claimed
    loss     (name, value) -> the loss, with that one input replaced by the value
    record   () -> what the forward pass leaves for the backward pass
    back     (record, scale) -> the claimed gradients, for `scale` times the loss
    blocks   names of the blocks along an input's first axis, for tables
    takes_scale  whether `back` takes another scale than 1
    remake   (rng, short) -> the same with fresh numbers and, where possible, other sizes; with one time step if short
    """

    target: str
    inputs: Arrays
    loss: Callable[[str, Array], Any]
    record: Callable[[], Any]
    back: Callable[[Any, float], Arrays]
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    takes_scale: bool = True
    remake: Callable[[np.random.Generator, bool], Case] | None = None
    steps: int = 1  # where `remake` can make it shorter
    plain: bool = False  # functions that are no cell and no model
    unclaimed: tuple[str, ...] = ()  # arrays that the functions read, and of which no gradient is returned
    unknown: tuple[str, ...] = ()  # gradients that are returned, of which the names do not say whose they are

    def claims(self, scale: float = 1.0) -> Arrays:
        """The gradients that the backward pass claims, as copies."""
        return {name: np.array(g) for name, g in self.back(self.record(), scale).items()}

    def along(self, name: str, method: str, rng: np.random.Generator) -> tuple[Array, float]:
        """A random direction of one input, and the exact derivative along it."""
        value, direction = self.inputs[name], rng.normal(size=self.inputs[name].shape)
        return direction, derivative(partial(self.loss, name), value, direction, method)


def as_array(value: Any) -> Array:
    """A number, an array or a short list of them as an array; TypeError for anything else.

    What else a name may hold (a long text, an object that can be indexed without end) takes NumPy for ever.
    """
    if isinstance(value, np.ndarray | np.generic | int | float | complex):
        return np.asarray(value)
    if isinstance(value, list | tuple) and len(value) <= 64:
        return np.asarray([as_array(v) for v in value])
    raise TypeError(f"expected numbers, got {describe(value)}")


def advice(error: Exception) -> str:
    """What to do about an error that NumPy or Python raises in a learner's backward pass."""
    text = str(error)
    for sign, what in ADVICE.items():
        if sign in text:
            return what
    return ""


# ---- a cell -----------------------------------------------------------------------------------


def cell_case(cell: Any, T: int, B: int, rng: np.random.Generator, lengths: Array | None = None) -> Case:
    """Random biases and input, a non-zero initial state, and a random loss over all outputs and the final state.

    The inputs are every parameter, x, and the state at every t, by restarting the network there.
    """
    cell = copy.deepcopy(cell)
    S, H = len(cell.state_names), cell.hidden_size
    drawn = cell.with_params({name: random_bias(p, rng) for name, p in cell.params.items()})
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
        if not isinstance(tape, Tape):
            return tape
        views = {name: read_only(getattr(tape, name)) for name in ("x", "states", "gates", "extras")}
        # These four fields are arrays.
        return replace(tape, **views)  # type: ignore[arg-type]

    def back(tape: Tape, scale: float) -> Arrays:
        final = (read_only(scale * d_state),) if reads_final else ()
        grads = cell.backward(tape, read_only(scale * d_h), *final)
        if not isinstance(grads, Gradients):
            raise WrongCall(f"backward: expected it to return Gradients(params, x, states), got {describe(grads)}")
        claims = dict(grads.params)
        if unknown := [name for name in claims if name not in cell.params]:
            raise ValueError(
                f"backward: expected gradients of parameters, {', '.join(cell.params)}, got one of "
                f"{', '.join(unknown)}: correct the name, or make it a parameter with add_param"
            )
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
    """The same kind of cell with other sizes and the same options, where its class takes them; else the cell itself."""
    rng = np.random.default_rng(0)
    try:
        parameters = inspect.signature(type(cell)).parameters
        kept = [name for name in arguments(cell) if name not in list(parameters)[:2]]  # all but the two sizes
        options = {name: copy.deepcopy(getattr(cell, name)) for name in kept}
        other = type(cell)(D, H, rng=rng, **options)
        plain = {k: v for k, v in vars(cell).items() if isinstance(v, str | float | bool) and k not in options}
        vars(other).update({k: v for k, v in plain.items() if k in vars(other)})
        with np.errstate(all="ignore"):
            other.forward(rng.normal(size=(2, 2, D)))
        return other.astype(np.float64)
    except Exception:  # a constructor of the learner's own may want anything
        return cell


def random_bias(p: Array, rng: np.random.Generator) -> Array:
    """Zero biases hide a bias used in another's place; arrays (K, 1, H), (1, H) and (H,) are taken for biases."""
    return np.asarray(rng.normal(size=p.shape)) if p.ndim < 2 or p.shape[-2] == 1 else p


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
    return Case(repr(model), inputs, loss, lambda: None, back, blocks, takes_scale=False)
