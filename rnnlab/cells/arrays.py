"""Small functions on arrays beneath the two time loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rnnlab.ops import Array
from rnnlab.validate import check_shape, describe, to_array

Arrays = Sequence[Array] | Array  # one (B, H) array for each gate, state part or extra
# A decorator for functions that find and report numbers that are not finite, so NumPy need not warn of them.
quietly = np.errstate(over="ignore", invalid="ignore", under="ignore")


def write(what: str, slots: Array, t: int, values: Arrays) -> None:
    """slots[k, t] = values[k]: copy the (B, H) arrays of step t into their places."""
    if len(values) != len(slots):
        got = describe(values) if isinstance(values, np.ndarray) else len(values)
        raise ValueError(f"{what}: expected a tuple of {len(slots)} arrays (B, H), got {got}")
    for k, value in enumerate(values):
        slots[k, t] = value


def alive_steps(lengths: object, T: int, B: int) -> Array | None:
    """The steps that each sequence takes part in, (T, B) booleans; None where that is all of them.

    `lengths` is (B,) integers from 1 to T, or such an array of booleans. Raises TypeError or ValueError for others.
    """
    array = to_array("lengths", lengths)
    if array.dtype == bool:
        check_shape("lengths", array, (("T", T), ("B", B)))
    elif array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected (B={B},) integers or (T, B) booleans, got {describe(lengths)}")
    elif array.shape == (T,) and T != B:
        raise ValueError(
            f"lengths: expected one for each of B={B} sequences, got {T}, as many as x has steps: where x is "
            "(B, T, ...), `x.swapaxes(0, 1)` puts time first"
        )
    else:
        check_shape("lengths", array, (("B", B),))
        if array.min() < 1 or array.max() > T:
            wrong = array[(array < 1) | (array > T)][0]
            raise ValueError(f"lengths: expected integers from 1 to T={T}, got {wrong}; leave out empty sequences")
        array = np.arange(T)[:, None] < array
    return None if array.all() else array


def padded(x: Any, lengths: object) -> tuple[Any, Array | None]:
    """(x with 0 wherever a sequence rests, whatever stood there; the steps (T, B) where none does, None for all).

    Without lengths x comes back as it is given; the layer that reads it checks it.
    """
    if lengths is None:
        return x, None
    array = to_array("x", x)
    if array.ndim not in (2, 3) or (alive := alive_steps(lengths, *array.shape[:2])) is None:
        return array, None
    return np.where(alive if array.ndim == 2 else alive[..., None], array, array.dtype.type(0)), alive


def read_only(array: Array) -> Array:
    """A view that cannot be written to: a step that changes its arguments fails at that line."""
    view = array.view()
    view.flags.writeable = False
    return view


def stacked_transpose(W_h: Array) -> Array:
    """The K transposes W_h[k]^T below one another, contiguous: (K*H, H)."""
    return W_h.mT.reshape(-1, W_h.shape[1])


def project(x: Array, W_x: Array, b: Array) -> Array:
    """a[k] = x W_x[k] + b[k] for all T at once, (K, T, B, H); integers pick rows of W_x."""
    if x.ndim == 2:
        a = np.take(W_x, x, axis=1)
    else:
        T, B, D = x.shape
        a = (x.reshape(T * B, D) @ W_x).reshape(len(W_x), T, B, -1)
    a += b[:, None]
    return a


def outer_products(left: Array, d: Array) -> Array:
    """sum over time and batch of left^T d[k]: (T, B, N) and (K, T, B, H) give (K, N, H) in one product."""
    rows = left.shape[0] * left.shape[1]
    return left.reshape(rows, -1).T @ d.reshape(len(d), rows, -1)


def column_sums(d: Array) -> Array:
    """Sum over time and batch, (K, T, B, H) to (K, H); as a product with ones, which adds fastest."""
    rows = d.reshape(len(d), -1, d.shape[-1])
    return np.ones(rows.shape[1], d.dtype) @ rows


def one_hot_products(labels: Array, d: Array, classes: int) -> Array:
    """`outer_products` of one-hot rows, whose integers are given, (T, B): a sum of d over each integer's places."""
    sums, rows = np.zeros((len(d), classes, d.shape[-1]), d.dtype), d.reshape(len(d), -1, d.shape[-1])
    order = np.argsort(labels, axis=None, kind="stable")  # each integer's places side by side
    symbols, starts = np.unique(labels.ravel()[order], return_index=True)
    for symbol, places in zip(symbols, np.split(order, starts[1:]), strict=True):
        sums[:, symbol] = rows[:, places].sum(axis=1)
    return sums
