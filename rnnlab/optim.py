"""Optimizers: `step(params, grads)` changes the parameters in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from rnnlab.ops import Array, norm
from rnnlab.process import uninterrupted
from rnnlab.saving import arguments
from rnnlab.validate import check_finite, check_params, describe, fraction, integer, positive_float

Rate = float | Callable[[int], float]
SMALLEST_SQUARE = 1e-30  # a sum of float32 squares below it has lost some of them


class Optimizer:
    """What the optimizers share: the learning rate, the count of steps, and an update that is done whole or not at all.

    `lr` is a number above 0, or a function of the step number (from 0), such as `linear_decay`. `weight_decay` takes
    lr * weight_decay * weight off each weight besides, not through the gradient (Loshchilov & Hutter 2019). An
    update works on one flat vector of all gradients; `memory` holds what it carries from step to
    step (SGD's velocity, Adam's m and v), vectors of the same length.
    """

    def __init__(self, lr: Rate, weight_decay: float = 0.0) -> None:
        self.lr = lr if callable(lr) else positive_float("lr", lr)
        self.weight_decay = positive_float("weight_decay", weight_decay, zero=True)
        self.steps = 0
        self.memory: tuple[Array, ...] = ()
        self.names: tuple[str, ...] = ()  # the parameters, in the order in which the memory holds them

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in arguments(self))
        return f"{type(self).__name__}({given})"

    def step(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Update every parameter in place. Raises TypeError or ValueError for names, shapes or numbers that do
        not fit, FloatingPointError for an update that is not finite; nothing has changed then."""
        if not hasattr(self, "names"):
            raise TypeError(f"{type(self).__name__}: expected super().__init__(lr) in its __init__, got no such call")
        check_params(params, params)
        check_params(grads, params, "grads")
        if not params:
            raise ValueError("params: expected at least one parameter, got none")
        for name, grad in grads.items():
            if grad.dtype.kind == "c" and params[name].dtype.kind != "c":
                raise TypeError(f"grads[{name!r}]: expected real floats like the parameter, got {describe(grad)}")
            check_finite(f"grads[{name!r}]", grad)
            if not params[name].flags.writeable:
                raise ValueError(f"params[{name!r}]: expected an array that can be written to, got a read-only one")
        owners: dict[int, str] = {}
        for name, p in params.items():
            if (other := owners.setdefault(p.__array_interface__["data"][0], name)) != name:
                raise ValueError(f"params: expected an array of its own for each name, got one for {other} and {name}")
        names = self.names or tuple(params)
        if set(names) != set(params):
            raise ValueError(f"params: expected the names of earlier steps, {list(names)}, got {list(params)}")
        flat = np.concatenate([grads[name].ravel() for name in names])
        if self.memory and self.memory[0].shape != flat.shape:
            raise ValueError(f"params: expected {self.memory[0].size} numbers, as in earlier steps, got {flat.size}")
        rate = positive_float("lr", self.lr(self.steps), zero=True) if callable(self.lr) else self.lr
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported here
            change, memory = self._updated(flat, rate)
            weights = np.concatenate([params[name].ravel() for name in names])
            if self.weight_decay:
                change = change + rate * self.weight_decay * weights
            weights -= change
        if not all(np.isfinite(a).all() for a in (weights, *memory)):
            for name, p in params.items():
                check_finite(f"params[{name!r}]", p)
            raise FloatingPointError(
                f"grads: step {self.steps} overflows, with gradients up to {np.abs(flat).max():.3g}: not finite"
            )
        with uninterrupted():
            self.steps, self.memory, self.names, start = self.steps + 1, memory, names, 0
            for p in map(params.__getitem__, names):
                p[...] = weights[start : start + p.size].reshape(p.shape)
                start += p.size

    def _updated(self, flat: Array, rate: float) -> tuple[Array, tuple[Array, ...]]:
        """What `update` answers; TypeError where that is no change and no memory."""
        memory = self.memory or self.start(flat)
        if not isinstance(memory, tuple):
            raise TypeError(f"start: expected a tuple of arrays, () for no memory, got {describe(memory)}")
        answer = self.update(flat, memory, rate, self.steps + 1)
        whole = isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], tuple)
        if not whole or any(np.shape(a) != flat.shape for a in (answer[0], *answer[1])):
            raise TypeError(
                f"update: expected (change, memory), memory a tuple, every array of shape {flat.shape}, got "
                f"{describe(answer)}"
            )
        return answer

    def start(self, grad: Array) -> tuple[Array, ...]:
        """The memory before the first step: a tuple of arrays like `grad`, () for none."""
        raise NotImplementedError(
            f"{type(self).__name__} has no start: write start(grad), its memory at the first step"
        )

    def update(self, grad: Array, memory: tuple[Array, ...], rate: float, n: int) -> tuple[Array, tuple[Array, ...]]:
        """What one step does.

        Parameters
        ----------
        grad : all gradients as one flat vector
        memory : what `start` or the last update returned
        rate, n : the learning rate, and the number 1, 2, ... of this step

        Returns
        -------
        (what to subtract from the weights, the new memory).
        """
        raise NotImplementedError(f"{type(self).__name__} has no update: write update(grad, memory, rate, n)")


class SGD(Optimizer):
    """new weight = weight - lr * gradient; with momentum (Polyak 1964), weight - lr * v, v = momentum v + gradient.

    Parameters
    ----------
    lr : a number above 0, or a function of the step number (from 0), such as `linear_decay`
    momentum : from 0 to below 1
    weight_decay : lr * weight_decay * weight is taken off each weight besides (Loshchilov & Hutter 2019)
    """

    def __init__(self, lr: Rate, momentum: float = 0.0, *, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        self.momentum = fraction("momentum", momentum)

    def start(self, grad: Array) -> tuple[Array, ...]:
        return (np.zeros_like(grad),)

    def update(self, grad: Array, memory: tuple[Array, ...], rate: float, n: int) -> tuple[Array, tuple[Array, ...]]:
        (v,) = memory
        v = self.momentum * v + grad
        return rate * v, (v,)


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and its square (Kingma & Ba 2015):

    m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2
    weight -= lr * m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + epsilon)        n = 1, 2, ...

    Parameters
    ----------
    lr : a number above 0, or a function of the step number (from 0), such as `linear_decay`
    beta1, beta2, epsilon : as above; each beta from 0 to below 1
    weight_decay : as in `SGD`; with it this is AdamW
    """

    def __init__(
        self,
        lr: Rate = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay)
        self.beta1, self.beta2 = fraction("beta1", beta1), fraction("beta2", beta2)
        self.epsilon = positive_float("epsilon", epsilon)

    def start(self, grad: Array) -> tuple[Array, ...]:
        return np.zeros_like(grad), np.zeros_like(grad)

    def update(self, grad: Array, memory: tuple[Array, ...], rate: float, n: int) -> tuple[Array, tuple[Array, ...]]:
        m, v = memory
        m = self.beta1 * m + (1 - self.beta1) * grad
        v = self.beta2 * v + (1 - self.beta2) * grad**2
        m_hat = m / (1 - self.beta1**n)
        v_hat = v / (1 - self.beta2**n)
        return rate * m_hat / (np.sqrt(v_hat) + self.epsilon), (m, v)


class Adagrad(Optimizer):
    """Steps scaled by the sum of all squared gradients so far (Duchi et al. 2011), which starts at `initial_sum`:

    s = s + g^2        weight -= lr * g / (sqrt(s) + epsilon)

    min-char-rnn (Karpathy 2015) has initial_sum = 1e-8 and epsilon = 0.

    Parameters
    ----------
    lr, weight_decay : as in `SGD`
    epsilon, initial_sum : as above
    """

    def __init__(
        self, lr: Rate = 1e-2, epsilon: float = 1e-10, *, initial_sum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.initial_sum = positive_float("initial_sum", initial_sum, zero=True)
        self.epsilon = positive_float("epsilon", epsilon, zero=self.initial_sum > 0)

    def start(self, grad: Array) -> tuple[Array, ...]:
        return (np.full_like(grad, self.initial_sum),)

    def update(self, grad: Array, memory: tuple[Array, ...], rate: float, n: int) -> tuple[Array, tuple[Array, ...]]:
        (s,) = memory
        s = s + grad**2
        return rate * grad / (np.sqrt(s) + self.epsilon), (s,)


class RMSProp(Optimizer):
    """Steps scaled by a running mean of the squared gradient (Tieleman & Hinton 2012):

    s = decay s + (1 - decay) g^2        weight -= lr * g / (sqrt(s) + epsilon)

    Parameters
    ----------
    lr, weight_decay : as in `SGD`
    decay, epsilon : as above, decay from 0 to below 1; it is PyTorch's alpha
    """

    def __init__(
        self, lr: Rate = 1e-2, decay: float = 0.99, epsilon: float = 1e-8, *, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay)
        self.decay, self.epsilon = fraction("decay", decay), positive_float("epsilon", epsilon)

    def start(self, grad: Array) -> tuple[Array, ...]:
        return (np.zeros_like(grad),)

    def update(self, grad: Array, memory: tuple[Array, ...], rate: float, n: int) -> tuple[Array, tuple[Array, ...]]:
        (s,) = memory
        s = self.decay * s + (1 - self.decay) * grad**2
        return rate * grad / (np.sqrt(s) + self.epsilon), (s,)


@dataclass(frozen=True)
class LinearDecay:
    """What `linear_decay` returns: an object, so that it can be pickled and saved."""

    lr: float
    steps: int

    def __call__(self, step: int) -> float:
        return self.lr * max(0.0, 1 - step / self.steps)


def linear_decay(lr: float, steps: int) -> LinearDecay:
    """A learning rate that falls from `lr` at step 0 in a line to 0 at `steps`, for an optimizer's `lr`."""
    return LinearDecay(positive_float("lr", lr), integer("steps", steps))


def global_norm(arrays: Mapping[str, Array]) -> float:
    """sqrt of the sum of squares of all entries of all arrays, also where the squares leave the floats."""
    squares = sum(float(np.vdot(g, g).real) for g in arrays.values())
    if SMALLEST_SQUARE < squares < np.inf:
        return float(np.sqrt(squares))
    with np.errstate(invalid="ignore"):  # infinite entries make it NaN
        norms = [norm(g.ravel().astype(np.result_type(g, np.float64)), (0,)) for g in arrays.values()]
        return float(norm(np.array(norms), (0,)))


def clip_by_global_norm(grads: Mapping[str, Array], max_norm: float) -> tuple[dict[str, Array], float]:
    """(clipped gradients, norm before): all scaled by max_norm / norm where norm > max_norm (Pascanu et al. 2013).

    The direction stays, the arguments stay as they were. Raises TypeError or ValueError for a
    max_norm that is not above 0, FloatingPointError where the norm is not finite.
    """
    max_norm = positive_float("max_norm", max_norm)
    check_params(grads, grads, "grads")
    before = global_norm(grads)
    if not np.isfinite(before):
        raise FloatingPointError(f"grads: expected a finite global norm, got {before}")
    scale = min(1.0, max_norm / before) if before else 1.0
    with np.errstate(under="ignore"):
        return {name: g if scale == 1 else g * g.real.dtype.type(scale) for name, g in grads.items()}, before


def clip_by_value(grads: Mapping[str, Array], limit: float) -> dict[str, Array]:
    """Every entry cut to lie between -limit and limit, as min-char-rnn does; the direction may change.

    The arguments stay as they were. Raises TypeError or ValueError for a limit that is not above 0.
    """
    limit = positive_float("limit", limit)
    check_params(grads, grads, "grads")
    return {name: np.clip(g, -limit, limit) for name, g in grads.items()}
