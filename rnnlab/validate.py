"""Argument checks: every message names the argument, what was expected and what was given, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeGuard, TypeVar

import numpy as np

from rnnlab.ops import Array

Entry = TypeVar("Entry")
DTYPES = tuple(map(np.dtype, ("float32", "float64", "complex64", "complex128")))
Axis = tuple[str, int | None]  # the letter of an axis, "" for none, and its length, None for any
REST: Axis = ("...", None)  # as the first one: any axes


def describe(value: object) -> str:
    """What was given, in a few words on one line: type, shape and dtype."""
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{type(value).__name__} {' '.join(map(str.strip, repr(value).splitlines())):.60}"


def to_array(name: str, value: object) -> Array:
    """`np.asarray(value)`; ValueError for rows of different lengths, TypeError for None and for a masked array."""
    if value is None:
        raise TypeError(f"{name}: expected an array, got None")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a plain array, got a masked one, whose mask would be lost; write {name}.filled(0) "
            "and give the steps that count as Batch.mask"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got {describe(value)} ({error})") from error
    if array.dtype.kind in "fc" and array.dtype.char not in "fdFD" and array.dtype.newbyteorder("=") not in DTYPES:
        raise TypeError(f"{name}: expected floats of 32 or 64 bits, got {describe(array)}; write {name}.astype(float)")
    return array


def check_shape(name: str, array: Array, axes: Iterable[Axis]) -> None:
    """Raise ValueError unless `array` has these axes, none of them empty."""
    axes = tuple(axes)
    named, shape = (axes[1:], array.shape[1 - len(axes) :]) if axes[:1] == (REST,) else (axes, array.shape)
    fits = len(shape) == len(named) and all([n is None or n == m for (_, n), m in zip(named, shape, strict=True)])
    if fits and array.size:
        return
    wanted = ", ".join("=".join(str(part) for part in axis if part not in ("", None)) for axis in axes)
    if not fits:
        raise ValueError(f"{name}: expected shape ({wanted}), got {array.shape}")
    raise ValueError(f"{name}: expected at least one entry on each axis of ({wanted}), got shape {array.shape}")


def check_finite(name: str, array: Array) -> None:
    """Raise ValueError naming the first entry that is NaN or infinite."""
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(f"{name}: expected finite numbers, got {array[index]} at index {index}")


def float_array(name: str, value: object, axes: Iterable[Axis], dtype: np.dtype[Any], *, finite: bool = True) -> Array:
    """`value` as a float array of `dtype` with these axes, finite unless the caller finds that out later.

    Raises TypeError for anything but an array of float32 or float64 (complex only where `dtype` is
    complex), ValueError for a wrong shape, an empty axis, NaN or infinity.
    """
    array = to_array(name, value)  # which refuses floats of other precisions
    if array.dtype.kind not in ("fc" if dtype.kind == "c" else "f"):
        advice = (
            f"; write {name}.astype(float), of a list np.array({name}, float)" if array.dtype.kind in "iubf" else ""
        )
        raise TypeError(f"{name}: expected floats ({dtype}), got {describe(value)}{advice}")
    check_shape(name, array, axes)
    if array.dtype != dtype:
        with np.errstate(over="ignore"):  # too large for float32 is infinite, and named as such
            array = array.astype(dtype)
    if finite:
        check_finite(name, array)
    return array


def label_array(name: str, value: object, axes: Iterable[Axis], classes: int) -> Array:
    """`value` as an integer array of labels 0 .. classes - 1, which can index; TypeError or ValueError otherwise."""
    array = to_array(name, value)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers from 0 to {classes - 1}, got {describe(value)}")
    check_shape(name, array, axes)
    if array.min() < 0 or array.max() >= classes:
        outside = (array < 0) | (array >= classes)
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(f"{name}: expected integers from 0 to {classes - 1}, got {array[index]} at index {index}")
    return array if np.can_cast(array.dtype, np.intp) else array.astype(np.intp)  # uint64 does not index everywhere


def integer(name: str, value: object, least: int = 1) -> int:
    """`value` as an int of at least `least`; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, got {describe(value)}")
    if value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value}")
    return int(value)


def positive_float(name: str, value: object, *, zero: bool = False) -> float:
    """`value` as a finite float above zero (or zero, where allowed); TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: expected a number, got {describe(value)}")
    if not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name}: expected a finite number {'of at least' if zero else 'above'} 0, got {value}")
    return float(value)


def fraction(name: str, value: object) -> float:
    """`value` as a float from 0 to below 1; TypeError or ValueError otherwise."""
    number = positive_float(name, value, zero=True)
    if number >= 1:
        raise ValueError(f"{name}: expected a number from 0 to below 1, got {value}")
    return number


def sizes(name: str, value: object, least: int = 1) -> tuple[int, ...]:
    """`value` as a shape of at least `least` axes; TypeError or ValueError otherwise."""
    if not isinstance(value, list | tuple) or len(value) < least:
        raise TypeError(f"{name}: expected a tuple of at least {least} lengths, got {describe(value)}")
    return tuple(integer(f"{name}[{n}]", length) for n, length in enumerate(value))


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Whether one can iterate over it; an array without axes has `__iter__` all the same, but cannot be iterated."""
    return isinstance(value, Iterable) and not (isinstance(value, np.ndarray) and value.ndim == 0)


def float_dtype(value: Any) -> np.dtype[Any]:
    """float32 or float64 (or their complex pairs, which derivative checks use); ValueError otherwise."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"dtype: expected float32 or float64, got {value!r}") from error
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected float32 or float64 (or complex64, complex128), got {dtype}")
    return dtype


def one_of(name: str, value: object, allowed: Iterable[str]) -> str:
    """`value` if it is one of the allowed names; ValueError that lists them if not."""
    names = sorted(allowed)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, names))}, got {value!r}")
    return value


def entry_of(argument: str, entries: Mapping[str, Entry], name: str) -> Entry:
    """`entries[name]`; KeyError that names the argument and what there is for any other name."""
    if not isinstance(name, str) or name not in entries:
        raise KeyError(f"{argument}: expected one of {tuple(entries)}, got {name!r}")
    return entries[name]


def optional(module: str, extra: str, instead: str = "") -> Any:
    """A library that is no run-time dependency; ImportError that says how to install it."""
    name = module.split(".")[0]
    if find_spec(name) is None:
        raise ImportError(f"{name} is not installed: pip install 'rnnlab[{extra}]'{instead}")
    return import_module(module)


def generator(rng: int | np.random.Generator | None) -> np.random.Generator:
    """A generator from a seed or a generator. None means fresh entropy: another network each time."""
    if rng is None or isinstance(rng, np.random.Generator):
        return np.random.default_rng(rng)
    if isinstance(rng, int | np.integer) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(rng)
    raise TypeError(f"rng: expected a seed (an integer of at least 0) or a np.random.Generator, got {describe(rng)}")


def check_params(params: Mapping[str, Array], like: Mapping[str, Array], argument: str = "params") -> None:
    """Raise unless `params` is a dict with the names and shapes of `like`, in floats (or complex numbers)."""
    if not isinstance(params, Mapping):
        raise TypeError(f"{argument}: expected a dict of arrays, got {describe(params)}")
    if set(params) != set(like):
        raise ValueError(f"{argument}: expected the names {sorted(map(str, like))}, got {sorted(map(str, params))}")
    for name, value in params.items():
        check_param(f"{argument}[{name!r}]", value, like[name])


def check_param(name: str, value: Any, like: Array) -> None:
    """Raise TypeError or ValueError unless `value` is an array of floats (or complex numbers) shaped as `like`."""
    if type(value) not in (np.ndarray, np.memmap) or value.dtype.newbyteorder("=") not in DTYPES:
        raise TypeError(f"{name}: expected an array of float32 or float64, got {describe(value)}")
    if value.shape != like.shape:
        raise ValueError(f"{name}: expected shape {like.shape}, got {value.shape}")


def true_or_false(name: str, value: object) -> bool:
    """`value` as a bool; TypeError otherwise."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, got {describe(value)}")
    return bool(value)
