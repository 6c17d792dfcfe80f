"""The readout: one affine map, applied at every step that the loss reads."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rnnlab.ops import Array
from rnnlab.validate import (
    Axis,
    check_finite,
    check_params,
    float_array,
    float_dtype,
    generator,
    positive_int,
    to_array,
)


class Dense:
    """y = h W + b, with W (H, O) and b (1, O) drawn from U(-1/sqrt(H), 1/sqrt(H)).

    `input_size` H, `output_size` O, `rng` a seed or generator, `dtype` float64 or float32; `params`
    holds the live arrays. Raises TypeError or ValueError for sizes, seeds and dtypes that are none.
    """

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
        rng, bound, dtype = generator(rng), 1 / np.sqrt(H), float_dtype(dtype)
        self.params: dict[str, Array] = {
            "W": rng.uniform(-bound, bound, (H, O)).astype(dtype),
            "b": rng.uniform(-bound, bound, (1, O)).astype(dtype),
        }

    def __repr__(self) -> str:
        return f"Dense({self.input_size}, {self.output_size}, dtype={self.dtype})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The parameters' common dtype."""
        return np.result_type(*self.params.values())

    def with_params(self, params: Mapping[str, Array]) -> Self:
        """A copy with copies of these parameters (all of them, complex included); raises as `Cell.with_params`."""
        check_params(params, self.params)
        twin = copy.copy(self)
        twin.params = {name: np.array(params[name]) for name in self.params}
        return twin

    def forward(self, h: Array) -> Array:
        """y = h W + b for h (..., H). Raises TypeError or ValueError for what is not that, FloatingPointError
        where y is not finite."""
        h = self._check("h", h, to_array("h", h).shape[:-1], ("H", self.input_size))
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # reported below
            y = h @ self.params["W"] + self.params["b"]
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
            d_h = d_y @ self.params["W"].T
        for name, grad in (grads | {"h": d_h}).items():
            if not np.isfinite(grad).all():
                raise FloatingPointError(f"Dense: dL/d{name} is not finite")
        return grads, d_h

    def _check(self, name: str, value: object, lead: tuple[int, ...], last: Axis) -> Array:
        return float_array(name, value, [*((f"axis {n}", m) for n, m in enumerate(lead)), last], self.dtype)
