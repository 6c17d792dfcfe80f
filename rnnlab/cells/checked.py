"""What a cell checks of what it is given and of what it has computed."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rnnlab.cells.tape import Gradients, Tape
from rnnlab.ops import Array
from rnnlab.params import Layer
from rnnlab.validate import check_finite, describe, float_array, label_array, one_of, to_array


class CheckedCell(Layer):
    """The names and sizes of a cell, and the checks that follow from them; base of `Cell`."""

    gate_names: ClassVar[tuple[str, ...]] = ()
    state_names: ClassVar[tuple[str, ...]] = ("h",)
    extra_names: ClassVar[tuple[str, ...]] = ()
    input_size: int
    hidden_size: int
    b: Array

    def set_bias(self, gate: str, value: float | Array) -> None:
        """Set one gate's bias to a number or to (H,) numbers; errors name it "<gate>_bias"."""
        name = f"{gate}_bias"
        if isinstance(gate, str) and gate not in self.gate_names:  # so the argument was `update_bias`, say
            raise ValueError(f"{name}: expected the bias of one of the gates {self.gate_names}, got that of {gate!r}")
        k = self.gate_names.index(one_of("gate", gate, self.gate_names))
        array = to_array(name, value)
        if not self.bias:
            raise ValueError(f"{name}: expected None for a cell with bias=False, got {describe(value)}")
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected a number or (H,) floats, got {describe(value)}")
        if array.shape not in ((), (self.hidden_size,)):
            raise ValueError(f"{name}: expected a number or shape (H={self.hidden_size},), got {array.shape}")
        self.b[k] = float_array(name, array.astype(float), [("H", n) for n in array.shape], self.dtype)

    def check_input(self, x: Array) -> Array:
        """x as an array of this cell's input; TypeError or ValueError for anything else."""
        x, D = to_array("x", x), self.input_size
        if x.ndim == 2:
            one = "; one sequence of numbers (T, D) is x[:, None].astype(float)" if x.shape[1] == D else ""
            if x.dtype.kind not in "iu":
                raise TypeError(f"x: expected (T, B, D={D}) floats or (T, B) integers, got {describe(x)}{one}")
            try:
                return label_array("x", x, (("T", None), ("B", None)), D)
            except ValueError as error:
                raise ValueError(f"{error}{one}") from error
        return self._check_array("x", x, ("T", None), ("B", None), ("D", self.input_size))

    def _check_state(self, state: Array, T: int, B: int) -> Array:
        """The initial state (S, B, H); TypeError or ValueError for anything else."""
        S, H = len(self.state_names), self.hidden_size
        state = to_array("state", state)
        if state.shape == (S, T, H) and T != B:
            raise ValueError(
                f"state: expected one for each of B={B} sequences, got {T}, as many as x has steps; where x is "
                "(B, T, ...), `x.swapaxes(0, 1)` puts time first"
            )
        return self._check_array("state", state, ("S", S), ("B", B), ("H", H))

    def check_tape(self, tape: Tape) -> None:
        """TypeError or ValueError for anything but a tape of this cell's shapes."""
        if not isinstance(tape, Tape):
            raise TypeError(
                f"tape: expected the Tape of this cell's forward pass, got {describe(tape)}; write cell.forward(x)"
            )
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
