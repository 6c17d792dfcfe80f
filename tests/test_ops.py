"""Elementary functions: against the math module, at the ends of the number range, and as complex functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rnnlab import ops

POINTS = np.array([-30.0, -3.7, -1.0, -1e-9, 0.0, 1e-9, 0.4, 2.0, 30.0])


def test_sigmoid_equals_the_scalar_definition() -> None:
    np.testing.assert_allclose(ops.sigmoid(POINTS), [1 / (1 + math.exp(-v)) for v in POINTS], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_at_the_ends_is_zero_or_one_without_warnings(dtype: type) -> None:
    largest = np.finfo(dtype).max
    low, high = ops.sigmoid(np.array([-largest, largest], dtype))
    assert 0 <= low < 2e-38
    assert high == 1
    assert ops.sigmoid(np.array([-1e3, 1e3], dtype)).dtype == dtype


def test_sigmoid_keeps_the_small_probabilities_that_a_half_plus_half_tanh_loses() -> None:
    assert ops.sigmoid(np.array([-40.0]))[0] == pytest.approx(math.exp(-40), rel=1e-12)


@pytest.mark.parametrize("imaginary", [0, 1e-30j])
def test_the_cells_logistic_is_the_sigmoid_and_warns_where_nobody_silenced_it(imaginary: complex) -> None:
    points = POINTS + imaginary
    np.testing.assert_array_equal(ops.logistic(points), ops.sigmoid(points))
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert ops.logistic(np.array([-1e3])) == 0


@pytest.mark.parametrize(
    ("function", "derivative"),
    [(ops.sigmoid, lambda v: math.exp(-v) / (1 + math.exp(-v)) ** 2), (ops.relu, lambda v: float(v > 0))],
)
def test_complex_step_gives_the_derivative(function: object, derivative: object) -> None:
    assert callable(function)
    assert callable(derivative)
    points = POINTS[POINTS != 0]
    step = function(points + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(step, [derivative(v) for v in points], rtol=1e-12, atol=1e-15)


def test_relu_keeps_the_positive_part_and_nan() -> None:
    np.testing.assert_array_equal(ops.relu(np.array([-2.0, 0.0, 3.0, np.nan])), [0, 0, 3, np.nan])
    np.testing.assert_array_equal(ops.relu(np.array([-2 + 1j, 1j, 3 + 1j])), [0, 0, 3 + 1j])


def test_a_complex_sigmoid_is_finite_where_exp_is_not() -> None:
    np.testing.assert_array_equal(ops.sigmoid(np.array([-1e3, 1e3]) + 1e-30j), [0, 1])


def test_softmax_equals_the_scalar_definition_and_adds_to_one() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    for row, found, log_found in zip(
        x.reshape(-1, 5), ops.softmax(x).reshape(-1, 5), ops.log_softmax(x).reshape(-1, 5), strict=True
    ):
        total = math.fsum(math.exp(v) for v in row)
        np.testing.assert_allclose(found, [math.exp(v) / total for v in row], rtol=1e-14)
        np.testing.assert_allclose(log_found, [v - math.log(total) for v in row], rtol=1e-13)


def test_softmax_does_not_overflow_and_ignores_a_common_shift() -> None:
    x = np.array([[1e300, 1e300, -1e300], [1e3, 1e3 - 1, -1e3]])
    p = ops.softmax(x)
    np.testing.assert_allclose(p[0], [0.5, 0.5, 0], atol=1e-15)
    np.testing.assert_allclose(p[1], [1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0], rtol=1e-14)
    assert np.isfinite(ops.log_softmax(x)).all()
    assert ops.log_softmax(np.zeros((2, 3), np.float32)).dtype == np.float32


@pytest.mark.parametrize("function", [ops.sigmoid, ops.relu, ops.softmax, ops.log_softmax])
@pytest.mark.parametrize("value", [[1, -2, 0], [1.0, -2.0, 0.0]])
def test_lists_and_integers_are_read_as_arrays(function: Any, value: list[float]) -> None:
    np.testing.assert_array_equal(function(value), function(np.array(value, float)))


def test_a_number_has_a_sigmoid() -> None:
    number: Any = 0.0
    assert ops.sigmoid(number) == 0.5


def test_integers_are_taken_as_floats_whose_negatives_do_not_wrap() -> None:
    np.testing.assert_allclose(ops.sigmoid(np.array([3], np.uint8)), 1 / (1 + np.exp(-3)))
    np.testing.assert_allclose(ops.softmax(np.array([0, 255], np.uint8)), [np.exp(-255), 1])
    assert ops.norm(np.array([-128], np.int8), (0,)) == 128


def test_infinities_give_the_limit_or_an_error_where_there_is_none() -> None:
    np.testing.assert_array_equal(ops.sigmoid(np.array([-np.inf, np.inf])), [0, 1])
    np.testing.assert_array_equal(ops.softmax(np.array([-np.inf, 0.0])), [0, 1])
    np.testing.assert_array_equal(ops.relu(np.array([np.inf, -np.inf, complex(np.inf, 0)])), [np.inf, 0, np.inf])
    assert ops.norm(np.array([np.inf, 1.0]), (0,)) == np.inf
    for row in ([np.inf, 0.0], [-np.inf, -np.inf], [np.nan, 0.0]):
        with pytest.raises(ValueError, match="x: expected a finite largest entry"):
            ops.softmax(np.array(row))
