"""The cell: its parameters, the one time loop forward and the one time loop backward.

Shape letters: T time, B batch, D input, H hidden, K gates, S state parts, E extras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from rnnlab.cells.arrays import (
    Arrays,
    column_sums,
    one_hot_products,
    outer_products,
    padded,
    project,
    quietly,
    read_only,
    stacked_transpose,
    write,
)
from rnnlab.cells.tape import Gradients, Tape
from rnnlab.init import Initializer, initializer
from rnnlab.ops import Array
from rnnlab.params import Layer
from rnnlab.validate import (
    check_finite,
    describe,
    float_array,
    float_dtype,
    generator,
    label_array,
    one_of,
    positive_int,
    to_array,
    true_or_false,
)

__all__ = ["Arrays", "Cell", "Gradients", "Tape", "column_sums", "outer_products", "read_only"]


class Cell(Layer):
    """Base of all cells: h_t, ... = step(x_t W_x + b, h_{t-1}, ...), unrolled over time.

    A cell names its K gates, S states (the first is h, the output) and E extras (what else `step_backward` needs),
    and writes `step` and `step_backward`, which return tuples of (B, H) arrays:

        class Leaky(rl.Cell):  # h_t = (h_{t-1} + g) / 2, g = tanh(x_t W_x + b + h_{t-1} W_h)
            gate_names = ("candidate",)

            def step(self, a, prev):
                (h,) = prev
                (g,) = np.tanh(a + h @ self.W_h)  # a is x_t W_x + b; the recurrent product stands here
                return (g,), ((h + g) / 2,), ()

            def step_backward(self, d_next, prev, gates, extras):
                (d_h,), (g,) = d_next, gates
                d_a = (d_h / 2 * (1 - g**2),)
                return d_a, (d_h / 2 + self.back(d_a),), ()

    Where W_h multiplies something else than h, or `step` uses other parameters, it also writes `recurrent_grads`.

    Parameters
    ----------
    input_size, hidden_size
        D and H.
    rng
        A seed or a `np.random.Generator`.
    dtype
        float64 or float32.
    input_init, recurrent_init
        "uniform", "glorot", "orthogonal", "identity", or a function (shape, rng) -> array. Biases are
        U(-1/sqrt(H), 1/sqrt(H)).
    bias
        False makes every bias a constant 0 that is no parameter.

    Attributes
    ----------
    W_x, W_h, b
        The live parameters, (K, D, H), (K, H, H) and (K, 1, H); `add_param` adds further ones. `params` is a live
        view of all of them by name: `cell.params["W_h"]` is `cell.W_h`.

    Raises TypeError or ValueError for an invalid size, seed, dtype or initializer.
    """

    gate_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    extra_names: ClassVar[tuple[str, ...]] = ()

    W_x: Array
    W_h: Array
    b: Array
    _W_h_transposed: Array | None = None  # (K*H, H): made once for all steps of a backward pass, and dropped after it

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        rng: int | np.random.Generator | None = None,
        dtype: npt.DTypeLike = np.float64,
        input_init: str | Initializer = "uniform",
        recurrent_init: str | Initializer = "uniform",
        bias: bool = True,
    ) -> None:
        if not self.gate_names:
            raise TypeError(f"{type(self).__name__}: expected gate_names, the names of its gates, got none")
        K, self.bias = len(self.gate_names), true_or_false("bias", bias)
        D = self.input_size = positive_int("input_size", input_size)
        H = self.hidden_size = positive_int("hidden_size", hidden_size)
        self.rng, self._dtype = generator(rng), float_dtype(dtype)
        self.add_param("W_x", initializer("input_init", input_init), (K, D, H))
        self.add_param("W_h", initializer("recurrent_init", recurrent_init), (K, H, H))
        self.add_param("b", "uniform", (K, 1, H))

    def set_bias(self, gate: str, value: float | Array) -> None:
        """Set one gate's bias to a number or to (H,) numbers; errors name it "<gate>_bias"."""
        k, name = self.gate_names.index(one_of("gate", gate, self.gate_names)), f"{gate}_bias"
        array = to_array(name, value)
        if not self.bias:
            raise ValueError(f"{name}: expected None for a cell with bias=False, got {describe(value)}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected a number or (H,) floats, got {describe(value)}")
        if array.shape not in ((), (self.hidden_size,)):
            raise ValueError(f"{name}: expected a number or shape (H={self.hidden_size},), got {array.shape}")
        self.b[k] = float_array(name, array.astype(float), [("H", n) for n in array.shape], self.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, dtype={self.dtype})"

    # ---- what a cell writes -------------------------------------------------------------------

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        """One step: (gates, next_state, extras) from a = x_t W_x + b (K, B, H) and prev (S, B, H).

        The time loops, which call it, silence an exp that overflows; called alone it may warn.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        """Its derivatives: (d_a, d_prev, d_extras) from d_next = dL/dnext_state (S, B, H).

        d_a is (K, B, H) and d_prev (S, B, H). d_extras is () for most cells. It carries derivatives from here
        to `recurrent_grads` that d_a does not hold, such as a GRU's dL/dq: any number of (B, H) arrays, which
        need not be the gradients of `extras`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step_backward")

    def recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        """Gradients of the parameters inside `step`: dL/dW_h[k] = sum_t h_{t-1}^T d_a[k]_t.

        d_a (K, T, B, H) and d_extras stack over time what `step_backward` returned. A cell with further
        parameters, or with another recurrent product, extends or replaces this.
        """
        return {"W_h": outer_products(tape.states[:-1, 0], d_a)}

    def memory_gradient(self, tape: Tape, grads: Gradients) -> Array:
        """dL/dm_t through every path, for t = 0 .. T, shape (T+1, B, H), m the last state part.

        Where m_t reaches h_t within the same step (an LSTM's c_t does), this is the textbook's delta
        and larger than the coordinate `grads.states[t, -1]`, which holds h_t fixed.
        """
        self.check_grads(tape, grads)
        return grads.states[:, -1]

    def back(self, d_a: Arrays) -> Array:
        """sum_k d_a[k] W_h[k]^T, (B, H): what the K gates send back to h_{t-1}."""
        transposed = self._W_h_transposed
        if transposed is None:
            transposed = stacked_transpose(self.W_h)
        try:
            if len(d_a) != len(self.gate_names):
                raise ValueError("another number")
            return np.concatenate(tuple(d_a), axis=1) @ transposed
        except (TypeError, ValueError) as error:
            K = len(self.gate_names)
            raise ValueError(f"back: expected a tuple of {K} arrays (B, H), got {describe(d_a)}") from error

    # ---- the two time loops -------------------------------------------------------------------

    @quietly
    def forward(self, x: Array, state: Array | None = None, lengths: Array | None = None) -> Tape:
        """Unroll over time and record everything.

        Parameters
        ----------
        x
            (T, B, D) floats, or (T, B) integers 0 .. D-1 that mean one-hot rows.
        state
            The initial state (S, B, H), or None for zeros.
        lengths
            The number of steps of each sequence, (B,) integers in any order; None for T. Past its end a sequence
            rests: its state stays, its output is 0, and x is not read. Booleans (T, B) say step by step who takes
            part, so a sequence may also begin late or have gaps.

        Raises
        ------
        TypeError, ValueError
            For input that does not fit or is not finite.
        FloatingPointError
            Where a state overflows or turns NaN, naming the step.
        """
        x, alive = padded(x, lengths)
        x = self.check_input(x)
        T, B, S, E, H = *x.shape[:2], len(self.state_names), len(self.extra_names), self.hidden_size
        states, extras = np.empty((S, T + 1, B, H), self.dtype), np.empty((E, T, B, H), self.dtype)
        states[:, 0] = 0 if state is None else self._check_array("state", state, ("S", S), ("B", B), ("H", H))
        # Each step's gates take the place of its a, which is used up.
        gates = project(x, self.W_x.astype(self.dtype, copy=False), self.b)
        a, prev = read_only(gates), read_only(states.swapaxes(0, 1))
        rest = None if alive is None else ~alive
        for t in range(T):
            gates_t, next_state, extras_t = self.step(a[:, t], prev[t])
            write("step: next_state", states, t + 1, next_state)
            write("step: extras", extras, t, extras_t)
            write("step: gates", gates, t, gates_t)
            if rest is not None:
                states[:, t + 1, rest[t]] = states[:, t, rest[t]]
        if rest is not None:
            gates[:, rest] = extras[:, rest] = 0
        self._check_states("state", states)
        return Tape(x, states.swapaxes(0, 1), gates, extras, self.gate_names, alive)

    @quietly
    def backward(
        self, tape: Tape, d_h: Array, d_state: Array | None = None, *, input_gradient: bool = True
    ) -> Gradients:
        """Backpropagation through time (Werbos 1990), over the recorded tape.

        Parameters
        ----------
        tape
            What `forward` returned.
        d_h
            (T, B, H), dL/dh_t as read at each step's output; not read where a sequence rests.
        d_state
            (S, B, H), what reaches the final state from outside this call, besides d_h; None for zeros.
        input_gradient
            False leaves out dL/dx.

        Raises as `forward` does.
        """
        self.check_tape(tape)
        T, B, S, K, H = *tape.x.shape[:2], len(self.state_names), len(self.gate_names), self.hidden_size
        d_h = self._check_array("d_h", d_h, ("T", T), ("B", B), ("H", H))
        rest = None if tape.alive is None else ~tape.alive
        if rest is not None:
            d_h = np.where(rest[..., None], 0, d_h)
        d_states, d_a = np.empty((S, T + 1, B, H), self.dtype), np.empty((K, T, B, H), self.dtype)
        d_states[:, T] = 0 if d_state is None else self._check_array("d_state", d_state, ("S", S), ("B", B), ("H", H))
        d_extras = np.empty((0, T, B, H), self.dtype)
        d_next, prev, gates, extras = map(read_only, (d_states.swapaxes(0, 1), tape.states, tape.gates, tape.extras))
        self._W_h_transposed = stacked_transpose(self.W_h)
        try:
            for t in reversed(range(T)):
                d_states[0, t + 1] += d_h[t]
                d_a_t, d_prev, d_extras_t = self.step_backward(d_next[t + 1], prev[t], gates[:, t], extras[:, t])
                if t == T - 1:
                    d_extras = np.empty((len(d_extras_t), T, B, H), self.dtype)
                write("step_backward: d_a", d_a, t, d_a_t)
                write("step_backward: d_prev", d_states, t, d_prev)
                write("step_backward: d_extras", d_extras, t, d_extras_t)
                if rest is not None:
                    d_states[:, t, rest[t]] = d_states[:, t + 1, rest[t]]
        finally:
            del self._W_h_transposed
        if rest is not None:
            d_a[:, rest] = d_extras[:, rest] = 0
        self._check_states("dL/dstate", d_states)
        params = self._param_grads(tape, d_a, d_extras)
        d_x = None
        if input_gradient and tape.x.ndim == 3:
            d_x = sum(d @ W.T for d, W in zip(d_a, self.W_x, strict=True))
        for name, grad in (params if d_x is None else params | {"x": d_x}).items():
            if not np.isfinite(grad).all():
                raise FloatingPointError(f"{type(self).__name__}: dL/d{name} is not finite")
        return Gradients(params, d_x, d_states.swapaxes(0, 1))

    # ---- beneath the loops --------------------------------------------------------------------

    def _param_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        """Every parameter's gradient; TypeError or ValueError where `recurrent_grads` leaves one out."""
        inside = self.recurrent_grads(tape, d_a, d_extras)
        if not isinstance(inside, Mapping):
            raise TypeError(f"recurrent_grads: expected a dict of gradients, got {describe(inside)}")
        wanted = [name for name in self.params if name not in ("W_x", "b")]
        if missing := [name for name in wanted if inside.get(name) is None]:
            raise ValueError(f"recurrent_grads: expected the gradients of {wanted}, got none of {missing}")
        W_x = outer_products(tape.x, d_a) if tape.x.ndim == 3 else one_hot_products(tape.x, d_a, self.input_size)
        grads = {**inside, "W_x": W_x, "b": column_sums(d_a)[:, None]}
        return {name: np.asarray(grads[name]) for name in self.params}

    def check_input(self, x: Array) -> Array:
        """x as an array of this cell's input; TypeError or ValueError for anything else."""
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
            got = getattr(tape, name).shape
            if got != shape:
                raise ValueError(f"tape: expected {name} {shape} of this cell's forward pass, got {got}")
        if tape.alive is not None and tape.alive.shape != (T, B):
            raise ValueError(f"tape: expected alive {(T, B)} of this cell's forward pass, got {tape.alive.shape}")

    def check_grads(self, tape: Tape, grads: Gradients) -> None:
        """TypeError or ValueError for anything but the gradients of a backward pass over this tape."""
        self.check_tape(tape)
        if not isinstance(grads, Gradients):
            raise TypeError(f"grads: expected the Gradients of this cell's backward pass, got {describe(grads)}")
        if grads.states.shape != tape.states.shape:
            raise ValueError(f"grads: expected states {tape.states.shape} like the tape's, got {grads.states.shape}")

    def _check_array(self, name: str, value: object, *axes: tuple[str, int | None]) -> Array:
        return float_array(name, value, axes, self.dtype)

    def _check_states(self, what: str, states: Array) -> None:
        """FloatingPointError naming the first bad step of a pass; at any t, since max(0, -infinity) is 0 again."""
        if np.isfinite(states).all():
            return
        for name, p in self.params.items():
            check_finite(f"params[{name!r}]", p)
        times = ~np.isfinite(states).all(axis=(2, 3)).T
        t, part = (int(i) for i in np.argwhere(times)[0 if what == "state" else -1])
        raise FloatingPointError(f"{type(self).__name__}: {what} {self.state_names[part]!r} is not finite at t = {t}")
