"""The cell: its parameters, the one time loop forward and the one time loop backward.

Shape letters: T time, B batch, D input, H hidden, K gates, S state parts, E extras.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from rnnlab.cells.checked import CheckedCell
from rnnlab.cells.tape import Gradients, Tape
from rnnlab.init import Initializer, initializer
from rnnlab.ops import Array
from rnnlab.validate import (
    describe,
    float_dtype,
    generator,
    integer,
    true_or_false,
)

__all__ = ["Arrays", "Cell", "Gradients", "Tape", "column_sums", "outer_products", "read_only"]


class Cell(CheckedCell):
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
        for kind in ("gate_names", "state_names", "extra_names"):
            if isinstance(names := getattr(self, kind), str):
                raise TypeError(f"{kind}: expected a tuple of names, got the string {names!r}; write ({names!r},)")
        K, self.bias = len(self.gate_names), true_or_false("bias", bias)
        D = self.input_size = integer("input_size", input_size)
        H = self.hidden_size = integer("hidden_size", hidden_size)
        self.rng, self._dtype = generator(rng), float_dtype(dtype)
        self.add_param("W_x", initializer("input_init", input_init), (K, D, H))
        self.add_param("W_h", initializer("recurrent_init", recurrent_init), (K, H, H))
        self.add_param("b", "uniform", (K, 1, H))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, dtype={self.dtype})"

    # ---- what a cell writes -------------------------------------------------------------------

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        """One step: (gates, next_state, extras) from a = x_t W_x + b (K, B, H) and prev (S, B, H).

        The time loops, which call it, silence an exp that overflows; called alone it may warn.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def step_backward(self, d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Arrays, Arrays, Arrays]:
        """The derivatives of `step`, by the chain rule.

        Parameters
        ----------
        d_next : dL/dnext_state, (S, B, H)
        prev, gates, extras : what `step` was given, and what it returned

        Returns
        -------
        (d_a, d_prev, d_extras): dL/da (K, B, H); dL/dprev (S, B, H); and what `recurrent_grads` needs besides d_a, such
        as a GRU's dL/dq: any number of (B, H) arrays, () for most cells, which need not be the gradients of `extras`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no step_backward")

    def recurrent_grads(self, tape: Tape, d_a: Array, d_extras: Array) -> dict[str, Array]:
        """Gradients of the parameters inside `step`: dL/dW_h[k] = sum_t h_{t-1}^T d_a[k]_t.

        A cell with further parameters, or with another recurrent product, extends or replaces this.

        Parameters
        ----------
        tape : what `forward` recorded
        d_a, d_extras : what `step_backward` returned, stacked over time: (K, T, B, H) and (any, T, B, H)

        Returns
        -------
        A dict from a parameter's name to its gradient.
        """
        return {"W_h": outer_products(tape.states[:-1, 0], d_a)}

    def memory_gradient(self, tape: Tape, grads: Gradients) -> Array:
        """dL/dm_t through every path, for t = 0 .. T, shape (T+1, B, H), m the last state part.

        Where m_t reaches h_t within the same step (an LSTM's c_t does), this is the textbook's delta
        and larger than the partial derivative `grads.states[t, -1]`, which holds h_t fixed.
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
            (T, B, D) floats, or (T, B) integers 0 .. D-1 that mean one-hot rows. An integer array with
            two axes is always (T, B), never one sequence (T, D).
        state
            The initial state (S, B, H), or None for zeros.
        lengths
            The number of steps of each sequence, (B,) integers in any order; None for T. Past its end a sequence
            rests: its state stays, its output is 0, and x is not read. Booleans (T, B) say step by step who takes
            part, so a sequence may also begin late or have gaps.

        Returns
        -------
        A `Tape`: every state, gate and extra.

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
        states[:, 0] = 0 if state is None else self._check_state(state, T, B)
        # `gates` first holds a = x_t W_x + b of all steps; step t puts its gates in the place of its a.
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

        Returns
        -------
        `Gradients`: of every parameter, of x, and of every state. Raises as `forward` does.
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
        grads = params if d_x is None else params | {"x": d_x}
        self.check_computed({f"dL/d{name}": grad for name, grad in grads.items()})
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
        if unknown := [name for name in inside if name not in self.params and not self.leaves_out(name)]:
            raise ValueError(f"recurrent_grads: expected the gradients of {wanted}, got unknown names {unknown}")
        W_x = outer_products(tape.x, d_a) if tape.x.ndim == 3 else one_hot_products(tape.x, d_a, self.input_size)
        grads = {**inside, "W_x": W_x, "b": column_sums(d_a)[:, None]}
        return {name: np.asarray(grads[name]) for name in self.params}
