"""The readout: an affine map, against loops over plain numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from tests.cases import relative_error


def case() -> tuple[rl.Dense, Any, Any]:
    rng = np.random.default_rng(0)
    return rl.Dense(3, 2, rng=rng), rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 2))


def test_forward_and_backward_equal_the_scalar_sums() -> None:
    dense, h, d_y = case()
    W, b = dense.params["W"], dense.params["b"]
    y = dense.forward(h)
    grads, d_h = dense.backward(h, d_y)
    expected_W, expected_b, expected_h = np.zeros((3, 2)), np.zeros((1, 2)), np.zeros(h.shape)
    for t, row in np.ndindex(4, 5):
        for o in range(2):
            assert y[t, row, o] == pytest.approx(sum(h[t, row, j] * W[j, o] for j in range(3)) + b[0, o], rel=1e-13)
            expected_b[0, o] += d_y[t, row, o]
            for j in range(3):
                expected_W[j, o] += h[t, row, j] * d_y[t, row, o]
                expected_h[t, row, j] += d_y[t, row, o] * W[j, o]
    assert list(grads) == list(dense.params) == ["W", "b"]
    assert relative_error(grads["W"], expected_W) <= 1e-13
    assert relative_error(grads["b"], expected_b) <= 1e-13
    assert relative_error(d_h, expected_h) <= 1e-13


def test_initial_weights_are_uniform_within_one_over_sqrt_h() -> None:
    for p in rl.Dense(25, 40, rng=0).params.values():
        assert 0.8 / 5 < np.abs(p).max() <= 1 / 5
    np.testing.assert_array_equal(rl.Dense(3, 2, rng=4).params["W"], rl.Dense(3, 2, rng=4).params["W"])
    assert (rl.Dense(3, 2, rng=4).params["W"] != rl.Dense(3, 2, rng=5).params["W"]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_a_readout_computes_in_its_own_dtype_alone(dtype: type) -> None:
    dense, h, d_y = case()
    dense = dense.with_params({name: p.astype(dtype) for name, p in dense.params.items()})
    grads, d_h = dense.backward(h.astype(dtype), d_y.astype(dtype))
    assert {a.dtype for a in (dense.forward(h.astype(dtype)), d_h, *grads.values())} == {np.dtype(dtype)}
    assert dense.dtype == dtype
    assert {p.dtype for p in rl.Dense(3, 2, rng=0, dtype=np.float32).params.values()} == {np.dtype(np.float32)}


def test_an_overflow_is_an_error_without_a_warning() -> None:
    dense = rl.Dense(2, 1, rng=0).with_params({"W": np.full((2, 1), 1e300), "b": np.zeros((1, 1))})
    with pytest.raises(FloatingPointError, match=r"Dense: y is not finite$"):
        dense.forward(np.full((1, 1, 2), 1e10))
    for name, h, d_y in (("W", 1e200, 1e200), ("h", 1.0, 1e10)):
        with pytest.raises(FloatingPointError, match=rf"Dense: dL/d{name} is not finite$"):
            dense.backward(np.full((1, 1, 2), h), np.full((1, 1, 1), d_y))
