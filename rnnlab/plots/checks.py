"""Argument checks of the figures, which are all made before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rnnlab.history import History
from rnnlab.ops import Array
from rnnlab.validate import check_finite, check_shape, describe, to_array

Curve = History | Sequence[float] | Array


def curve_arrays(name: str, curves: Mapping[str, Curve], *, positive: bool = False) -> dict[str, Array]:
    """Each curve as a finite float array with at least one entry."""
    check_labels(name, curves, "curve")
    arrays = {}
    for label, curve in curves.items():
        entry = f"{name}[{label!r}]"
        array = to_array(entry, curve.loss if isinstance(curve, History) else curve)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{entry}: expected real numbers, got {describe(curve)}")
        check_shape(entry, array, (("steps", None),))
        check_finite(entry, array)
        if positive and array.min() <= 0:
            raise ValueError(
                f"{entry}: expected numbers above 0 for a logarithmic axis, got {array.min()}; pass log=False"
            )
        arrays[label] = array.astype(float)
    return arrays


def check_kind(name: str, value: object, kind: str) -> None:
    """TypeError unless `value` is of the class of this name; by name, so that a figure imports no laboratory."""
    if kind not in {parent.__name__ for parent in type(value).__mro__}:
        raise TypeError(f"{name}: expected a {kind}, got {describe(value)}")


def check_kinds(name: str, values: Mapping[str, object], kind: str) -> None:
    """TypeError or ValueError unless `values` maps at least one label to a `kind`."""
    check_labels(name, values, kind)
    for label, value in values.items():
        check_kind(f"{name}[{label!r}]", value, kind)


def check_labels(name: str, values: Mapping[str, object], what: str) -> None:
    """TypeError or ValueError unless `values` is a dict with at least one label, all of them strings."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{name}: expected a dict from label to {what}, got {describe(values)}; write {{'LSTM': ...}} around it"
        )
    if not values:
        raise ValueError(f"{name}: expected at least one {what}, got none")
    for label in values:
        if not isinstance(label, str):
            raise TypeError(f"{name}: expected labels that are strings, got {describe(label)}")


def check_index(name: str, value: object, length: int, of: str) -> None:
    """TypeError unless `value` is an integer, IndexError unless it is one of 0 .. length - 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, {of} 0 .. {length - 1}, got {describe(value)}")
    if not 0 <= value < length:
        raise IndexError(f"{name}: expected {of} 0 .. {length - 1}, got {value}")


def check_events(events: Mapping[int, str] | None, T: int) -> None:
    """TypeError unless `events` is None or a dict from integer to string, IndexError for steps outside 0 .. T-1."""
    if events is None:
        return
    if not isinstance(events, Mapping):
        raise TypeError(f"events: expected a dict from time step to text, got {describe(events)}")
    for t, text in events.items():
        check_index("events", t, T, "time steps")
        if not isinstance(text, str):
            raise TypeError(f"events[{t}]: expected a string, got {describe(text)}")
