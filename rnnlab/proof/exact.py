"""Exact derivatives of a forward pass, and how a claimed gradient is compared with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from rnnlab.ops import Array, norm

Loss = Callable[[Array], Any]  # of one array
NamedLoss = Callable[[str, Array], Any]  # of the array of this name, the others as they are

COMPLEX, CENTRAL = "complex step", "central differences"
COMPLEX_STEP = 1e-30  # Im f(x + ih) / h subtracts nothing, so h can be as small as one likes
CENTRAL_STEPS = (1e-3, 1e-5, 1e-7)  # a kink between the points spoils one difference: smaller ones are tried
TOLERANCE = {COMPLEX: 1e-9, CENTRAL: 1e-6}  # of a right gradient, relative to its size
SAME = 1e-6  # how near the numbers of two runs have to be, relative to the largest one compared
FLOOR = 1e-5  # a gradient is measured against at least this share of the largest one
LARGE = 1024.0  # a power of two, so that scaling by it rounds nothing


def derivative(loss: Loss, at: Array, direction: Array, method: str) -> float:
    """d/de loss(at + e direction) at e = 0: by complex step (Squire & Trapp 1998), or by four-point differences."""
    if method == COMPLEX:
        return float(np.imag(loss(np.asarray(at + 1j * COMPLEX_STEP * direction))) / COMPLEX_STEP)
    found: list[float] = []
    for h in CENTRAL_STEPS:
        near, far = (
            float(np.real(loss(np.asarray(at + k * h * direction))) - np.real(loss(np.asarray(at - k * h * direction))))
            / (2 * k * h)
            for k in (1, 2)
        )
        found.append((4 * near - far) / 3)
        if abs(near - far) <= 1e-4 * max(abs(near), 1e-3):  # smooth between the points
            return found[-1]
    return found[1]


def agrees(claimed: Any, direction: Array, exact: float, bound: float) -> bool:
    """Whether a claimed gradient gives this exact derivative along this direction, within `bound` of its size."""
    claimed = np.asarray(claimed)
    if claimed.shape != direction.shape or claimed.dtype.kind not in "fciub" or not np.isfinite(claimed).all():
        return False
    products = np.asarray(claimed * direction)
    size = max(abs(exact), float(norm(products.ravel(), (0,))), 1e-9)
    if not np.isfinite(size):
        return False
    return bool(abs(float(products.sum()) - exact) <= bound * size)


def gradient(loss: Loss, at: Array, method: str) -> Array:
    """Every entry of dL/dat, one derivative each."""
    exact = np.zeros(at.shape)
    for index in np.ndindex(at.shape):
        unit = np.zeros(at.shape)
        unit[index] = 1
        exact[index] = derivative(loss, at, unit, method)
    return exact


def best_method(loss: NamedLoss, inputs: Mapping[str, Array], rng: np.random.Generator) -> str:
    """Complex step, where the forward pass takes complex numbers and the answer agrees with central differences.

    abs, norms and real-typed buffers silently lose the imaginary part. Whether they stand in the code does not
    depend on the place, so a place nearby is asked, where no input sits exactly on a kink.
    """
    asked = [name for name in inputs if not name.startswith("states[") or name == "states[0]"]  # one code
    return COMPLEX if all(_takes_complex(partial(loss, name), inputs[name], rng) for name in asked) else CENTRAL


def _takes_complex(loss: Loss, value: Array, rng: np.random.Generator) -> bool:
    near, direction = value + 1e-3 * rng.normal(size=value.shape), rng.normal(size=value.shape)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            exact = derivative(loss, near, direction, COMPLEX)
        for scale in (1.0, 1e-2, 1e-4):
            central = derivative(loss, near, scale * direction, CENTRAL) / scale
            if abs(exact - central) <= 1e-5 * max(1.0, abs(central)):
                return True
    except Exception:  # refused, by whatever line of the code
        return False
    return False
