"""Optimizers: `step(params, grads)` changes the parameters in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from rnnlab.ops import Array
from rnnlab.validate import check_finite, check_params, describe, positive_float, positive_int

Rate = float | Callable[[int], float]


class Optimizer:
    """What SGD and Adam share: the learning rate, the count of steps, one update after another.

    `lr` is a number above 0, or a function of the step number (from 0), such as `linear_decay`.
    """

    def __init__(self, lr: Rate) -> None:
        self.lr = lr if callable(lr) else positive_float("lr", lr)
        self.steps = 0

    def step(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Update every parameter in place. Raises before it changes any: for names or shapes that
        differ, and for a gradient that is not finite."""
        check_params(grads, params)
        for name, grad in grads.items():
            if grad.dtype.kind == "c" and params[name].dtype.kind != "c":
                raise TypeError(f"grads[{name!r}]: expected real floats like the parameter, got {describe(grad)}")
            check_finite(f"grads[{name!r}]", grad)
        rate = positive_float("lr", self.lr(self.steps), zero=True) if callable(self.lr) else self.lr
        self.steps += 1
        for name, p in params.items():
            p -= self.update(name, grads[name], rate)

    def update(self, name: str, grad: Array, rate: float) -> Array:
        """What to subtract from the parameter of this name."""
        raise NotImplementedError


class SGD(Optimizer):
    """new weight = weight - lr * gradient; with momentum (Polyak 1964), weight - lr * v, v = momentum v + gradient."""

    def __init__(self, lr: Rate, momentum: float = 0.0) -> None:
        super().__init__(lr)
        self.momentum = positive_float("momentum", momentum, zero=True)
        if self.momentum >= 1:
            raise ValueError(f"momentum: expected a number from 0 to below 1, got {momentum}")
        self.velocity: dict[str, Array] = {}

    def update(self, name: str, grad: Array, rate: float) -> Array:
        if self.momentum:
            grad = self.momentum * self.velocity[name] + grad if name in self.velocity else grad.copy()
            self.velocity[name] = grad
        return rate * grad


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and its square (Kingma & Ba 2015):

    m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
    weight -= lr * m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + epsilon)        n = 1, 2, ...
    """

    def __init__(self, lr: Rate = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        super().__init__(lr)
        for argument, value in (("beta1", beta1), ("beta2", beta2)):
            if positive_float(argument, value, zero=True) >= 1:
                raise ValueError(f"{argument}: expected a number from 0 to below 1, got {value}")
        self.beta1, self.beta2, self.epsilon = beta1, beta2, positive_float("epsilon", epsilon)
        self.moments: dict[str, tuple[Array, Array]] = {}

    def update(self, name: str, grad: Array, rate: float) -> Array:
        if name not in self.moments:
            self.moments[name] = np.zeros_like(grad), np.zeros_like(grad)
        m, v = self.moments[name]
        m += (1 - self.beta1) * (grad - m)
        v += (1 - self.beta2) * (grad**2 - v)
        m_hat = m / (1 - self.beta1**self.steps)
        v_hat = v / (1 - self.beta2**self.steps)
        return rate * m_hat / (np.sqrt(v_hat) + self.epsilon)


def linear_decay(lr: float, steps: int) -> Callable[[int], float]:
    """A learning rate that falls from `lr` at step 0 in a line to 0 at `steps`, for an optimizer's `lr`."""
    lr, steps = positive_float("lr", lr), positive_int("steps", steps)
    return lambda step: lr * max(0.0, 1 - step / steps)


def global_norm(arrays: Mapping[str, Array]) -> float:
    """sqrt of the sum of squares of all entries of all arrays."""
    return float(np.sqrt(sum(float(np.vdot(g, g).real) for g in arrays.values())))


def clip_by_global_norm(grads: Mapping[str, Array], max_norm: float) -> tuple[dict[str, Array], float]:
    """(clipped gradients, norm before): all scaled by max_norm / norm where norm > max_norm (Pascanu et al. 2013).

    The direction stays, the arguments stay as they were. Raises TypeError or ValueError for a
    max_norm that is not above 0, FloatingPointError where the norm is not finite.
    """
    max_norm = positive_float("max_norm", max_norm)
    if not isinstance(grads, Mapping):
        raise TypeError(f"grads: expected a dict of arrays, got {describe(grads)}")
    norm = global_norm(grads)
    if not np.isfinite(norm):
        raise FloatingPointError(f"grads: expected a finite global norm, got {norm}")
    scale = min(1.0, max_norm / norm) if norm else 1.0
    return {name: g if scale == 1 else g * g.real.dtype.type(scale) for name, g in grads.items()}, norm
