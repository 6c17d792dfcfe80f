"""What stands around the cells: the readout, one affine map at every step that the loss reads, and the embedding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rnnlab.cells.arrays import one_hot_products, quietly
from rnnlab.ops import Array
from rnnlab.params import Layer
from rnnlab.validate import (
    REST,
    Axis,
    float_array,
    float_dtype,
    generator,
    integer,
    label_array,
    true_or_false,
)


class Dense(Layer):
    """y = h W + b, with W (H, O) and b (1, O) drawn from U(-1/sqrt(H), 1/sqrt(H)).

    Parameters
    ----------
    input_size, output_size : H and O
    rng, dtype : a seed or a generator; float64 or float32
    bias : False makes b a constant 0 that is no parameter

    Raises TypeError or ValueError for an invalid size, seed or dtype.
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
        bias: bool = True,
    ) -> None:
        self.bias = true_or_false("bias", bias)
        H = self.input_size = integer("input_size", input_size)
        O = self.output_size = integer("output_size", output_size)  # noqa: E741 - O is the shape letter
        self.rng, self._dtype, bound = generator(rng), float_dtype(dtype), 1 / np.sqrt(H)
        for name, shape in {"W": (H, O), "b": (1, O)}.items():
            self.add_param(name, lambda shape, rng: rng.uniform(-bound, bound, shape), shape)

    def __repr__(self) -> str:
        return f"Dense({self.input_size}, {self.output_size}, dtype={self.dtype})"

    @quietly
    def forward(self, h: Array) -> Array:
        """y = h W + b for h (..., H). Raises TypeError or ValueError for what is not that, FloatingPointError
        where y is not finite."""
        h = self._check("h", h, REST, ("H", self.input_size))
        y = np.asarray(h @ self.W + self.b)
        self.check_computed({"y": y}, {"h": h})
        return y

    @quietly
    def backward(self, h: Array, d_y: Array) -> tuple[dict[str, Array], Array]:
        """(gradients like `params`, dL/dh) from the h of the forward pass and dL/dy (..., O); raises as `forward`."""
        h = self._check("h", h, REST, ("H", self.input_size))
        d_y = self._check("d_y", d_y, *(("", n) for n in h.shape[:-1]), ("O", self.output_size))
        rows, d_rows = h.reshape(-1, self.input_size), d_y.reshape(-1, self.output_size)
        grads, d_h = {"W": rows.T @ d_rows, "b": d_rows.sum(axis=0, keepdims=True)}, d_y @ self.W.T
        grads = {name: grads[name] for name in self.params}
        self.check_computed({f"dL/d{name}": grad for name, grad in (grads | {"h": d_h}).items()}, {"h": h, "d_y": d_y})
        return grads, d_h

    def _check(self, name: str, value: object, *axes: Axis) -> Array:
        return float_array(name, value, axes, self.dtype, finite=False)  # what is computed of it tells


class Embedding(Layer):
    """x_t = W[n_t]: a row of numbers for each integer n; W is drawn from N(0, 1).

    A cell by itself reads an integer as a one-hot row, so its W_x holds H numbers a gate for each of them. With an
    embedding, each integer has `output_size` numbers, and W_x is as wide as that (Bengio et al. 2003).

    Parameters
    ----------
    input_size, output_size : how many integers, and how many numbers for each
    rng, dtype : as in `Dense`, and errors too
    """

    W: Array

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        rng: int | np.random.Generator | None = None,
        dtype: npt.DTypeLike = np.float64,
    ) -> None:
        self.input_size = integer("input_size", input_size)
        self.output_size = integer("output_size", output_size)
        self.rng, self._dtype = generator(rng), float_dtype(dtype)
        self.add_param("W", lambda shape, rng: rng.normal(size=shape), (self.input_size, self.output_size))

    def __repr__(self) -> str:
        return f"Embedding({self.input_size}, {self.output_size}, dtype={self.dtype})"

    def check_input(self, x: Array) -> Array:
        """x as (T, B) integers 0 .. input_size - 1; TypeError or ValueError for anything else."""
        return label_array("x", x, (("T", None), ("B", None)), self.input_size)

    def forward(self, x: Array) -> Array:
        """The rows of W that x names, (T, B, output_size); raises as `check_input`."""
        return np.asarray(self.W[self.check_input(x)])

    def backward(self, x: Array, d_rows: Array) -> dict[str, Array]:
        """The gradient like `params` from dL/drows (T, B, output_size): each row of W sums what reaches its places."""
        x = self.check_input(x)
        d_rows = float_array("d_rows", d_rows, (*zip("TB", x.shape, strict=True), ("O", self.output_size)), self.dtype)
        return {"W": one_hot_products(x, d_rows[None], self.input_size)[0]}
