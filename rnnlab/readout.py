"""The readout: one affine map, applied at every step that the loss reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rnnlab.ops import Array
from rnnlab.params import Layer
from rnnlab.validate import (
    Axis,
    check_finite,
    float_array,
    float_dtype,
    generator,
    positive_int,
    to_array,
)

AXES = tuple(f"axis {n}" for n in range(64))  # names of the axes before the last


class Dense(Layer):
    """y = h W + b, with W (H, O) and b (1, O) drawn from U(-1/sqrt(H), 1/sqrt(H)).

    `input_size` H, `output_size` O, `rng` a seed or generator, `dtype` float64 or float32. W and b are the live
    parameters, `params` a live view of them. Raises TypeError or ValueError for an invalid size, seed or dtype.
    """

    W: Array
    b: Array

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        rng: int | np.random.Generator | None = None,
        dtype: npt.DTypeLike = np.float64,
    ) -> None:
        H = self.input_size = positive_int("input_size", input_size)
        O = self.output_size = positive_int("output_size", output_size)  # noqa: E741 - O is the shape letter
        self.rng, self._dtype, bound = generator(rng), float_dtype(dtype), 1 / np.sqrt(H)
        for name, shape in {"W": (H, O), "b": (1, O)}.items():
            self.add_param(name, lambda shape, rng: rng.uniform(-bound, bound, shape), shape)

    def __repr__(self) -> str:
        return f"Dense({self.input_size}, {self.output_size}, dtype={self.dtype})"

    def forward(self, h: Array) -> Array:
        """y = h W + b for h (..., H). Raises TypeError or ValueError for what is not that, FloatingPointError
        where y is not finite."""
        h = self._check("h", h, to_array("h", h).shape[:-1], ("H", self.input_size))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported below
            y = h @ self.W + self.b
        if not np.isfinite(y).all():
            for name, p in self.params.items():
                check_finite(f"params[{name!r}]", p)
            raise FloatingPointError("Dense: y is not finite")
        return np.asarray(y)

    def backward(self, h: Array, d_y: Array) -> tuple[dict[str, Array], Array]:
        """(gradients like `params`, dL/dh) from the h of the forward pass and dL/dy (..., O); raises as `forward`."""
        h = self._check("h", h, to_array("h", h).shape[:-1], ("H", self.input_size))
        d_y = self._check("d_y", d_y, h.shape[:-1], ("O", self.output_size))
        rows, d_rows = h.reshape(-1, self.input_size), d_y.reshape(-1, self.output_size)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported below
            grads = {"W": rows.T @ d_rows, "b": d_rows.sum(axis=0, keepdims=True)}
            d_h = d_y @ self.W.T
        for name, grad in (grads | {"h": d_h}).items():
            if not np.isfinite(grad).all():
                raise FloatingPointError(f"Dense: dL/d{name} is not finite")
        return grads, d_h

    def _check(self, name: str, value: object, lead: tuple[int, ...], last: Axis) -> Array:
        return float_array(name, value, [*zip(AXES, lead, strict=False), last], self.dtype)
