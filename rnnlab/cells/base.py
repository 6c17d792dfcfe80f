"""The cell: its parameters, the one time loop forward and the one time loop backward.

Shape letters: T time, B batch, D input, H hidden, K gates, S state parts, E extras.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from rnnlab.init import Initializer, initializer
from rnnlab.ops import Array
from rnnlab.validate import (
    check_finite,
    check_params,
    describe,
    float_array,
    float_dtype,
    generator,
    label_array,
    positive_int,
    to_array,
)

Arrays = Sequence[Array] | Array  # one (B, H) array for each gate, state part or extra


@dataclass(frozen=True)
class Tape:
    """What the forward pass recorded: plain arrays, and all that the backward pass reads.

    x        as given, (T, B, D) floats or (T, B) integers
    states   (T+1, S, B, H); states[t] enters step t, states[T] is the final state
    gates    (K, T, B, H), activated
    extras   (E, T, B, H), other values that the backward pass needs
    """

    x: Array
    states: Array
    gates: Array
    extras: Array
    gate_names: tuple[str, ...]

    @property
    def h(self) -> Array:
        """The outputs h_1 .. h_T, (T, B, H): the first state part after each step."""
        h: Array = self.states[1:, 0]
        return h

    def gate(self, name: str) -> Array:
        """One gate's activations, (T, B, H). Raises KeyError for a name the cell does not have."""
        if name not in self.gate_names:
            raise KeyError(f"name: expected one of {self.gate_names}, got {name!r}")
        gate: Array = self.gates[self.gate_names.index(name)]
        return gate


@dataclass(frozen=True)
class Gradients:
    """What the backward pass returned: plain arrays.

    params   dL/dparameter, named and shaped like `cell.params`
    x        dL/dx (T, B, D); None for integer input, or where it was left out
    states   (T+1, S, B, H), dL/dstate_t for every t, including what is read from h_t; [0] is the
             initial state's. The parts of one state are coordinates: dL/dc_t holds h_t fixed.
    """

    params: dict[str, Array]
    x: Array | None
    states: Array


class Cell:
    """Base of all cells: h_t, ... = step(x_t W_x + b, h_{t-1}, ...), unrolled over time.

    A cell names its K gates, S states (the first is h, the output) and E extras (what else `step_backward` needs),
    and writes `step` and `step_backward`, which return tuples of (B, H) arrays:

        class Leaky(rl.Cell):  # h_t = (h_{t-1} + g) / 2, g = tanh(x_t W_x + b + h_{t-1} W_h)
            gate_names = ("candidate",)

            def step(self, a, prev):
                (h,) = prev
                (g,) = np.tanh(a + h @ self.W_h)  # a is x_t W_x + b; the recurrent product is the cell's own
                return (g,), ((h + g) / 2,), ()

            def step_backward(self, d_next, prev, gates, extras):
                (d_h,), (g,) = d_next, gates
                d_a = (d_h / 2 * (1 - g**2),)
                return d_a, (d_h / 2 + self.back(d_a),), ()

    Where W_h multiplies something else than h, or `step` uses other parameters, it also writes `recurrent_grads`.

    Parameters: `input_size` D, `hidden_size` H; `rng` a seed or a `np.random.Generator`; `dtype`
    float64 or float32; `input_init` and `recurrent_init` one of "uniform", "glorot", "orthogonal",
    "identity", or a function (shape, rng) -> array. Biases are U(-1/sqrt(H), 1/sqrt(H)).

    `params` holds live arrays: W_x (K, D, H), W_h (K, H, H), b (K, 1, H), and what a cell adds of its
    own. Each is an attribute too: `cell.W_h` is `cell.params["W_h"]`.

    Raises TypeError and ValueError for sizes, seeds, dtypes and initializers that are none.
    """

    gate_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    extra_names: ClassVar[tuple[str, ...]] = ()

    W_x: Array
    W_h: Array
    b: Array
    _W_h_transposed: Array | None = None  # (K*H, H), set on the working copy of one backward pass

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: int | np.random.Generator | None = None,
        dtype: npt.DTypeLike = np.float64,
        input_init: str | Initializer = "uniform",
        recurrent_init: str | Initializer = "uniform",
    ) -> None:
        if not self.gate_names:
            raise TypeError(f"{type(self).__name__}: expected gate_names, the names of its gates, got none")
        K = len(self.gate_names)
        D = self.input_size = positive_int("input_size", input_size)
        H = self.hidden_size = positive_int("hidden_size", hidden_size)
        self.rng = generator(rng)
        self._dtype = float_dtype(dtype)
        self.params: dict[str, Array] = {}
        self.add_param("W_x", initializer("input_init", input_init), (K, D, H))
        self.add_param("W_h", initializer("recurrent_init", recurrent_init), (K, H, H))
        self.add_param("b", "uniform", (K, 1, H))

    def add_param(self, name: str, init: str | Initializer, shape: tuple[int, ...]) -> None:
        """Draw a parameter of this cell's own, from the cell's generator, in the cell's dtype."""
        drawn = initializer("init", init)(shape, self.rng)
        axes = [(f"axis {n}", length) for n, length in enumerate(shape)]
        self.params[name] = np.array(float_array(name, drawn, axes, self._dtype))

    def set_bias(self, gate: str, value: float | Array | None, argument: str) -> None:
        """Set one gate's bias to a number or to (H,) numbers; None leaves it as drawn."""
        if value is None:
            return
        array = to_array(argument, value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{argument}: expected a number or (H,) floats, got {describe(value)}")
        if array.shape not in ((), (self.hidden_size,)):
            raise ValueError(f"{argument}: expected a number or shape (H={self.hidden_size},), got {array.shape}")
        with np.errstate(over="ignore"):  # too large for float32 is infinite, and named as such
            array = array.astype(self.dtype)
        check_finite(argument, array)
        self.params["b"][self.gate_names.index(gate)] = array

    def __getattr__(self, name: str) -> Array:
        params = self.__dict__.get("params", {})
        if name in params:
            array: Array = params[name]
            return array
        raise AttributeError(f"{type(self).__name__} has no attribute or parameter {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """`cell.W_h = array` is `cell.params["W_h"] = array`, of the same shape: there is one of each."""
        params = self.__dict__.get("params", {})
        if name in params:
            check_params({name: value}, {name: params[name]})
            params[name] = value
        else:
            super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, dtype={self.dtype})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The parameters' common dtype, in which everything is computed."""
        return np.result_type(*self.params.values())

    def with_params(self, params: Mapping[str, Array]) -> Self:
        """A copy of this cell with copies of these parameters (all of them, complex included).

        Raises ValueError where a name is missing or unknown or a shape differs, TypeError for a
        parameter that is not of floats.
        """
        check_params(params, self.params)
        twin = copy.copy(self)
        twin.params = {name: np.array(params[name]) for name in self.params}
        return twin

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """A copy of this cell computing in `dtype`: float32, float64, or complex for derivative checks."""
        return self.with_params({name: p.astype(float_dtype(dtype)) for name, p in self.params.items()})

    # ---- what a cell writes -------------------------------------------------------------------

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        """One step: (gates, next_state, extras) from a = x_t W_x + b (K, B, H) and prev (S, B, H).

        The time loops, which call it, silence an exp that overflows; called alone it may warn.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        """Its derivatives: (d_a, d_prev, d_extras) from d_next = dL/dnext_state (S, B, H).

        d_extras holds what `recurrent_grads` needs besides d_a, and is () for most cells.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step_backward")

    def recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        """Gradients of the parameters inside `step`: dL/dW_h[k] = sum_t h_{t-1}^T d_a[k]_t.

        d_a is (K, T, B, H), d_extras stacks what `step_backward` returned. A cell with parameters of
        its own, or with another recurrent product, extends or replaces this.
        """
        return {"W_h": outer_products(tape.states[:-1, 0], d_a)}

    def memory_gradient(self, tape: Tape, grads: Gradients) -> Array:
        """dL/dm_t through every path, for t = 0 .. T, shape (T+1, B, H), m the last state part.

        Where m_t reaches h_t within the same step (an LSTM's c_t does), this is the textbook's delta
        and larger than the coordinate `grads.states[t, -1]`, which holds h_t fixed.
        """
        return grads.states[:, -1]

    def back(self, d_a: Arrays) -> Array:
        """sum_k d_a[k] W_h[k]^T, (B, H): what the K gates send back to h_{t-1}."""
        if len(d_a) != len(self.gate_names):
            raise ValueError(f"back: expected a tuple of {len(self.gate_names)} arrays (B, H), got {describe(d_a)}")
        transposed = self._W_h_transposed
        if transposed is None:
            transposed = stacked_transpose(self.W_h)
        return np.concatenate(tuple(d_a), axis=1) @ transposed

    # ---- the two time loops -------------------------------------------------------------------

    def forward(self, x: Array, state: Array | None = None) -> Tape:
        """Unroll over time and record everything.

        x is (T, B, D) floats, or (T, B) integers 0 .. D-1 that mean one-hot rows; state (S, B, H), or
        None for zeros. Raises TypeError or ValueError for input that does not fit or is not finite,
        FloatingPointError where a state overflows or turns NaN, naming the step.
        """
        x = self.check_input(x)
        (T, B), S, E, H = x.shape[:2], len(self.state_names), len(self.extra_names), self.hidden_size
        states, extras = np.empty((S, T + 1, B, H), self.dtype), np.empty((E, T, B, H), self.dtype)
        states[:, 0] = 0 if state is None else self._check_array("state", state, ("S", S), ("B", B), ("H", H))
        prev, cell = read_only(states.swapaxes(0, 1)), self._unrolled()
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported below, with the step
            gates = self._project(x)  # each step's gates take the place of its input, which is used up
            a = read_only(gates)
            for t in range(T):
                gates_t, next_state, extras_t = cell.step(a[:, t], prev[t])
                write("step: next_state", states, t + 1, next_state)
                write("step: extras", extras, t, extras_t)
                write("step: gates", gates, t, gates_t)
        tape = Tape(x, states.swapaxes(0, 1), gates, extras, self.gate_names)
        if not np.isfinite(states).all():  # at any t: max(0, -infinity) is 0 again
            self._report_non_finite("state", tape.states)
        return tape

    def backward(
        self, tape: Tape, d_h: Array, d_state: Array | None = None, *, input_gradient: bool = True
    ) -> Gradients:
        """Backpropagation through time (Werbos 1990), over the recorded tape.

        d_h is (T, B, H), dL/dh_t as read at each step's output; d_state (S, B, H) is what reaches the
        final state from outside this call, besides d_h. Raises like `forward`.
        """
        self.check_tape(tape)
        (T, B), S, K, H = tape.x.shape[:2], len(self.state_names), len(self.gate_names), self.hidden_size
        d_h = self._check_array("d_h", d_h, ("T", T), ("B", B), ("H", H))
        d_states, d_a = np.empty((S, T + 1, B, H), self.dtype), np.empty((K, T, B, H), self.dtype)
        d_states[:, T] = 0 if d_state is None else self._check_array("d_state", d_state, ("S", S), ("B", B), ("H", H))
        d_extras = np.empty((0, T, B, H), self.dtype)
        d_next, prev, gates, extras = map(read_only, (d_states.swapaxes(0, 1), tape.states, tape.gates, tape.extras))
        cell = self._unrolled()
        cell._W_h_transposed = stacked_transpose(self.W_h)  # contiguous, made once for T products
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported below, with the step
            for t in reversed(range(T)):
                d_states[0, t + 1] += d_h[t]
                d_a_t, d_prev, d_extras_t = cell.step_backward(d_next[t + 1], prev[t], gates[:, t], extras[:, t])
                if len(d_extras) < len(d_extras_t):
                    d_extras = np.empty((len(d_extras_t), T, B, H), self.dtype)
                write("step_backward: d_a", d_a, t, d_a_t)
                write("step_backward: d_prev", d_states, t, d_prev)
                write("step_backward: d_extras", d_extras, t, d_extras_t)
            if not np.isfinite(d_next[0]).all():
                self._report_non_finite("dL/dstate", d_next)
            params = {"W_x": self._input_weight_grads(tape.x, d_a), "b": column_sums(d_a)[:, None]}
            params |= self._recurrent_grads(tape, d_a, d_extras)
            d_x = None
            if input_gradient and tape.x.ndim == 3:
                d_x = sum(d @ W.T for d, W in zip(d_a, self.W_x, strict=True))
        for name, grad in (params if d_x is None else params | {"x": d_x}).items():
            if not np.isfinite(grad).all():
                raise FloatingPointError(f"{type(self).__name__}: dL/d{name} is not finite")
        return Gradients({name: params[name] for name in self.params}, d_x, d_states.swapaxes(0, 1))

    # ---- beneath the loops --------------------------------------------------------------------

    def _unrolled(self) -> Self:
        """A working copy for one pass, its parameters plain attributes, which are found faster."""
        cell = copy.copy(self)
        vars(cell).update(self.params)
        return cell

    def check_input(self, x: Array) -> Array:
        """x as an array of this cell's input; TypeError or ValueError for what is none."""
        x = to_array("x", x)
        if x.ndim == 2:
            if x.dtype.kind not in "iu":
                raise TypeError(f"x: expected (T, B, D={self.input_size}) floats or (T, B) integers, got {describe(x)}")
            return label_array("x", x, (("T", None), ("B", None)), self.input_size)
        return self._check_array("x", x, ("T", None), ("B", None), ("D", self.input_size))

    def check_tape(self, tape: Tape) -> None:
        """TypeError or ValueError for anything but a tape of this cell's shapes."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape: expected the Tape of this cell's forward pass, got {describe(tape)}")
        (T, B), S, K, E = tape.x.shape[:2], len(self.state_names), len(self.gate_names), len(self.extra_names)
        H, x = self.hidden_size, (T, B, self.input_size)[: tape.x.ndim]  # integers have no axis D
        for name, shape in {"x": x, "states": (T + 1, S, B, H), "gates": (K, T, B, H), "extras": (E, T, B, H)}.items():
            came = getattr(tape, name).shape
            if came != shape:
                raise ValueError(f"tape: expected {name} {shape} of this cell's forward pass, got {came}")

    def _check_array(self, name: str, value: object, *axes: tuple[str, int | None]) -> Array:
        return float_array(name, value, axes, self.dtype)

    def _project(self, x: Array) -> Array:
        """a[k] = x W_x[k] + b[k] for all T at once, (K, T, B, H); integers pick rows of W_x + b."""
        if x.ndim == 2:
            return np.take((self.W_x + self.b).astype(self.dtype, copy=False), x, axis=1)
        T, B, D = x.shape
        a = x.reshape(T * B, D) @ self.W_x
        a += self.b
        return a.reshape(len(a), T, B, -1)

    def _input_weight_grads(self, x: Array, d_a: Array) -> Array:
        """dL/dW_x[k] = sum_t x_t^T d_a[k]_t; each integer's row is the sum over the places where it stood."""
        if x.ndim == 3:
            return outer_products(x, d_a)
        grads, rows = np.zeros(self.W_x.shape, d_a.dtype), d_a.reshape(len(d_a), -1, self.hidden_size)
        order = np.argsort(x, axis=None, kind="stable")  # each symbol's places side by side
        symbols, starts = np.unique(x.ravel()[order], return_index=True)
        for symbol, places in zip(symbols, np.split(order, starts[1:]), strict=True):
            grads[:, symbol] = rows[:, places].sum(axis=1)
        return grads

    def _recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        """The cell's own `recurrent_grads`; TypeError or ValueError where one of `step`'s parameters has none."""
        grads = self.recurrent_grads(tape, d_a, d_extras)
        if not isinstance(grads, Mapping):
            raise TypeError(f"recurrent_grads: expected a dict of gradients, got {describe(grads)}")
        inside = [name for name in self.params if name not in ("W_x", "b")]
        if missing := [name for name in inside if grads.get(name) is None]:
            raise ValueError(f"recurrent_grads: expected the gradients of {inside}, got none of {missing}")
        return {name: np.asarray(grads[name]) for name in inside}

    def _report_non_finite(self, what: str, states: Array) -> None:
        for name, p in self.params.items():
            check_finite(f"params[{name!r}]", p)
        times = ~np.isfinite(states).all(axis=(2, 3))
        t, part = (int(i) for i in np.argwhere(times)[0 if what == "state" else -1])
        raise FloatingPointError(f"{type(self).__name__}: {what} {self.state_names[part]!r} is not finite at t = {t}")


def write(what: str, slots: Array, t: int, values: Arrays) -> None:
    """Copy step t's (B, H) arrays into their places on the tape."""
    if len(values) != len(slots):
        came = describe(values) if isinstance(values, np.ndarray) else len(values)
        raise ValueError(f"{what}: expected a tuple of {len(slots)} arrays (B, H), got {came}")
    for k, value in enumerate(values):
        slots[k, t] = value


def read_only(array: Array) -> Array:
    """A view that cannot be written to: a step that changes its arguments fails at that line."""
    view = array.view()
    view.flags.writeable = False
    return view


def stacked_transpose(W_h: Array) -> Array:
    """The K transposes W_h[k]^T below one another, contiguous: (K*H, H)."""
    return W_h.mT.reshape(-1, W_h.shape[1])


def outer_products(left: Array, d: Array) -> Array:
    """sum over time and batch of left^T d[k]: (T, B, N) and (K, T, B, H) give (K, N, H) in one product."""
    rows = left.shape[0] * left.shape[1]
    return left.reshape(rows, -1).T @ d.reshape(len(d), rows, -1)


def column_sums(d: Array) -> Array:
    """Sum over time and batch, (K, T, B, H) to (K, H); as a product with ones, which adds fastest."""
    rows = d.reshape(len(d), -1, d.shape[-1])
    return np.ones(rows.shape[1], d.dtype) @ rows
