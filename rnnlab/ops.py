"""Elementary functions, safe at any input, real or complex."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def sigmoid(x: Array) -> Array:
    """The logistic function, elementwise: 1 / (1 + exp(-x)).

    Real or complex, any shape; same shape and precision out. It never overflows: a float32 below
    -87 and a float64 below -708 give the value there, which is below 2e-38 and 4e-308. Complex input
    (a complex-step derivative) takes the form (1 + tanh(x / 2)) / 2, which is the same function.
    """
    if np.iscomplexobj(x):
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
    largest = 87.0 if x.dtype == np.float32 else 708.0  # exp of it is still finite
    return np.asarray(1 / (1 + np.exp(np.minimum(-x, largest))))


def relu(x: Array) -> Array:
    """max(x, 0), elementwise; for complex input the real part decides (Le et al. 2015 use it in RNNs)."""
    return np.asarray(x * (x.real > 0)) if np.iscomplexobj(x) else np.maximum(x, 0)


def log_softmax(x: Array) -> Array:
    """log(exp(x) / sum(exp(x))) over the last axis, with the largest entry subtracted first."""
    x = x - x.real.max(axis=-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis: probabilities that add to 1."""
    return np.exp(log_softmax(x))
