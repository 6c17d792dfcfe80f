"""Initial weights: functions `(shape, rng) -> array`, rng a seed or a generator, and the gate biases of long memories.

A shape is (..., fan_in, fan_out): every matrix of a stack, such as W_h's (K, H, H), is drawn on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from rnnlab.ops import Array
from rnnlab.validate import describe, generator, integer, one_of, sizes

Shape = tuple[int, ...]
Initializer = Callable[[Shape, "np.random.Generator"], Array]


def uniform(shape: Shape, rng: int | np.random.Generator) -> Array:
    """U(-1/sqrt(n), 1/sqrt(n)) with n = fan_out, the hidden size: PyTorch's default for RNNs."""
    shape = sizes("shape", shape)
    bound = 1 / np.sqrt(shape[-1])
    return generator(rng).uniform(-bound, bound, shape)


def glorot(shape: Shape, rng: int | np.random.Generator) -> Array:
    """U(-a, a), a = sqrt(6 / (fan_in + fan_out)): keeps the variance through a layer (Glorot & Bengio 2010)."""
    shape = sizes("shape", shape, 2)
    bound = np.sqrt(6 / (shape[-2] + shape[-1]))
    return generator(rng).uniform(-bound, bound, shape)


def orthogonal(shape: Shape, rng: int | np.random.Generator) -> Array:
    """Random matrices with orthonormal rows or columns, uniform over all of them (Saxe et al. 2014).

    Q of the QR decomposition of a Gaussian matrix, its signs fixed by R's diagonal (Mezzadri 2007).
    """
    *stack, rows, columns = sizes("shape", shape, 2)
    q, r = np.linalg.qr(generator(rng).normal(size=(*stack, max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
    return np.asarray(q if rows >= columns else q.mT)


def identity(shape: Shape, rng: int | np.random.Generator) -> Array:
    """The identity, in every matrix of the stack; no random number is drawn (IRNN: Le et al. 2015)."""
    shape = sizes("shape", shape, 2)
    return np.broadcast_to(np.eye(shape[-2], shape[-1]), shape).copy()


INITIALIZERS: dict[str, Initializer] = {
    "uniform": uniform,
    "glorot": glorot,
    "orthogonal": orthogonal,
    "identity": identity,
}


def initializer(name: str, value: str | Initializer) -> Initializer:
    """The function that `value` names, or `value` itself where it is a function already."""
    if callable(value):
        return value if getattr(value, "func", None) is _draw else partial(_draw, name, value)
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected the name of an initializer or a function, got {describe(value)}")
    return INITIALIZERS[one_of(name, value, INITIALIZERS)]


def _draw(name: str, function: Initializer, shape: Shape, rng: np.random.Generator) -> Array:
    """What a function of the user's draws; TypeError that names the argument where it takes other arguments."""
    try:
        return function(shape, rng)
    except TypeError as error:
        raise TypeError(f"{name}: expected a function of (shape, rng), got {describe(function)}: {error}") from error


def chrono(T: int, hidden_size: int, rng: int | np.random.Generator | None = None) -> Array:
    """Gate biases ln U(1, T - 1) for memories that last up to T steps.

    A forget gate of sigmoid(ln u) = 1 - 1/(u + 1) forgets over about u steps. Use `forget_bias=b, input_bias=-b` in an
    LSTM and `update_bias=b` in a GRU.

    Parameters
    ----------
    T : at least 3
    hidden_size : H
    rng : a seed or a generator

    Returns
    -------
    (H,) biases.

    References
    ----------
    Tallec & Ollivier 2018.
    """
    T = integer("T", T, 3)
    hidden_size = integer("hidden_size", hidden_size)
    return np.log(generator(rng).uniform(1, T - 1, hidden_size))
