"""Elementary functions, safe at any input, real or complex."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def floats(x: npt.ArrayLike) -> Array:
    """`x` as an array; integers become float64, since their negatives and absolute values can overflow."""
    array = np.asarray(x)
    return array.astype(float) if array.dtype.kind in "iub" else array


def sigmoid(x: Array) -> Array:
    """The logistic function, elementwise: 1 / (1 + exp(-x)).

    Real or complex, any shape; same shape and precision out. Where exp(-x) overflows, 1 / inf = 0 is
    the right answer. Complex input (a complex-step derivative) takes the form
    (1 + tanh(x / 2)) / 2, the same function, whose complex value cannot overflow.
    """
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(logistic(floats(x)))


def logistic(x: Array) -> Array:
    """`sigmoid` for the cells, whose time loops silence that overflow once for all steps; elsewhere it warns."""
    s: Array = 0.5 + 0.5 * np.tanh(0.5 * x) if x.dtype.kind == "c" else 1 / (1 + np.exp(-x))
    return s


def relu(x: Array) -> Array:
    """max(x, 0), elementwise; for complex input the real part decides (Le et al. 2015 use it in RNNs)."""
    x = np.asarray(x)
    return np.where(x.real <= 0, 0, x) if x.dtype.kind == "c" else np.maximum(x, 0)


def log_softmax(x: Array) -> Array:
    """log(exp(x) / sum(exp(x))) over the last axis, with the largest entry subtracted first.

    That entry's exp is then 1, and log1p of the others' sum keeps it however small it is. An entry of -infinity
    has probability 0. Raises ValueError for a row whose largest entry is NaN or infinite.
    """
    x = floats(x)
    top = x.real.argmax(axis=-1, keepdims=True)
    largest = np.take_along_axis(x, top, axis=-1)
    if not np.isfinite(largest).all():
        raise ValueError(f"x: expected a finite largest entry in each row, got {largest[~np.isfinite(largest)][0]}")
    x = x - largest
    with np.errstate(under="ignore"):
        others = np.exp(x)
        np.put_along_axis(others, top, 0, axis=-1)
        return np.asarray(x - np.log1p(others.sum(axis=-1, keepdims=True)))


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis: probabilities that add to 1."""
    with np.errstate(under="ignore"):
        return np.exp(log_softmax(x))


def norm(a: Array, axis: tuple[int, ...]) -> Array:
    """The Euclidean norm over `axis`, also where the squares of the entries leave the floats."""
    size = np.abs(floats(a))
    largest = size.max(axis=axis, keepdims=True, initial=0)
    with np.errstate(under="ignore"):
        scaled = size / np.where((largest > 0) & (largest < np.inf), largest, 1)
        return np.asarray(largest.squeeze(axis) * np.sqrt((scaled * scaled).sum(axis=axis)))
