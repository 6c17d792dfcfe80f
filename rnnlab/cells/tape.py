"""What a pass over time leaves behind: plain arrays, from which every other part of the library reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rnnlab.ops import Array
from rnnlab.validate import entry_of


class Record:
    """Base of the frozen dataclasses of arrays: equal to itself alone, and shown by the arrays' shapes."""

    def __repr__(self) -> str:
        shown = (f"{name}={_short(value)}" for name, value in vars(self).items())
        return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return f"{value.dtype}{value.shape}"
    if isinstance(value, dict):
        return f"{{{', '.join(value)}}}"
    if isinstance(value, tuple) and not all(isinstance(entry, str) for entry in value):
        return f"({len(value)} of {type(value[0]).__name__})"
    return str(value)


@dataclass(frozen=True, eq=False, repr=False)
class Tape(Record):
    """What the forward pass recorded: plain arrays, and all that the backward pass reads.

    x        as given, (T, B, D) floats or (T, B) integers
    states   (T+1, S, B, H); states[t] enters step t, states[T] is the final state
    gates    (K, T, B, H), activated
    extras   (E, T, B, H), other values that the backward pass needs
    alive    (T, B) booleans, the steps that each sequence takes part in, None for all; at the others its state stays
             as it was, and its gates, extras and output are 0
    """

    x: Array
    states: Array
    gates: Array
    extras: Array
    gate_names: tuple[str, ...]
    alive: Array | None = None

    @property
    def h(self) -> Array:
        """The outputs h_1 .. h_T, (T, B, H): the first state part after each step; 0 where a sequence rests."""
        h: Array = self.states[1:, 0]
        return h if self.alive is None else np.where(self.alive[..., None], h, 0)

    def gate(self, name: str) -> Array:
        """One gate's activations, (T, B, H). Raises KeyError for a name the cell does not have."""
        return entry_of("name", dict(zip(self.gate_names, self.gates, strict=True)), name)


@dataclass(frozen=True, eq=False, repr=False)
class Gradients(Record):
    """What the backward pass returned: plain arrays.

    params   dL/dparameter, named and shaped like `cell.params`
    x        dL/dx (T, B, D); None for integer input, or where it was left out
    states   (T+1, S, B, H), dL/dstate_t for every t, including what is read from h_t; [0] is the
             initial state's. dL/dc_t is the partial derivative, with h_t held fixed.
    """

    params: dict[str, Array]
    x: Array | None
    states: Array
