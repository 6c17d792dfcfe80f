"""Losses: against loops over plain numbers, their derivatives by complex step, masks and refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from tests.cases import refuses, relative_error

T, B, O = 4, 3, 5  # noqa: E741 - O is the shape letter
SOME = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
LAST = np.arange(T)[:, None].repeat(B, axis=1) == T - 1
MASKS = {"none": None, "all": np.ones((T, B), bool), "some": SOME, "last": LAST, "numbers": SOME.astype(float)}
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
LOSSES = [rl.softmax_cross_entropy, rl.mean_squared_error, rl.sigmoid_cross_entropy]
each_loss = pytest.mark.parametrize("loss", LOSSES)


def case(loss: Any, seed: int = 0) -> tuple[Any, Any]:
    """(prediction, target) for this loss."""
    rng = np.random.default_rng(seed)
    prediction = rng.normal(size=(T, B, O))
    if loss is rl.softmax_cross_entropy:
        return prediction, rng.integers(0, O, (T, B))
    return prediction, rng.normal(size=(T, B, O)) if loss is rl.mean_squared_error else rng.random((T, B, O))


def kept(mask: Any) -> list[tuple[int, int]]:
    return [(t, b) for t in range(T) for b in range(B) if mask is None or mask[t, b]]


@each_mask
def test_cross_entropy_equals_the_scalar_definition(mask: Any) -> None:
    prediction, target = case(rl.softmax_cross_entropy)
    terms = []
    for t, b in kept(mask):
        row = prediction[t, b].tolist()
        terms.append(math.log(sum(math.exp(v) for v in row)) - row[target[t, b]])
    found, _ = rl.softmax_cross_entropy(prediction, target, mask)
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-13)


@each_mask
def test_mean_squared_error_equals_the_scalar_definition(mask: Any) -> None:
    prediction, target = case(rl.mean_squared_error)
    terms = [(prediction[t, b, o] - target[t, b, o]) ** 2 for t, b in kept(mask) for o in range(O)]
    found, _ = rl.mean_squared_error(prediction, target, mask)
    assert found == pytest.approx(sum(terms) / len(terms), rel=1e-13)


@each_mask
def test_sigmoid_cross_entropy_equals_the_scalar_definition(mask: Any) -> None:
    z, y = case(rl.sigmoid_cross_entropy)
    p = [(y[t, b, o], 1 / (1 + math.exp(-z[t, b, o]))) for t, b in kept(mask) for o in range(O)]
    expected = -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for y, p in p) / len(p)
    assert rl.sigmoid_cross_entropy(z, y, mask)[0] == pytest.approx(expected, rel=1e-13)


@each_loss
@each_mask
def test_the_derivative_is_right_at_every_entry(loss: Any, mask: Any) -> None:
    prediction, target = case(loss)
    _, d = loss(prediction, target, mask)
    exact = np.zeros_like(prediction)
    for index in np.ndindex(prediction.shape):
        nudged = prediction.astype(complex)
        nudged[index] += 1e-30j
        exact[index] = loss(nudged, target, mask)[0].imag / 1e-30
    assert relative_error(d, exact) <= 1e-13
    for t, b in np.ndindex(T, B):
        assert d[t, b].any() == ((t, b) in kept(mask))


def test_labels_count_only_where_the_mask_keeps_them() -> None:
    prediction, target = case(rl.softmax_cross_entropy)
    padded = np.where(SOME, target, -1)
    assert (
        rl.softmax_cross_entropy(prediction, padded, SOME)[0] == rl.softmax_cross_entropy(prediction, target, SOME)[0]
    )
    with refuses(ValueError, "target"):
        rl.softmax_cross_entropy(prediction, padded)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    value, d = rl.softmax_cross_entropy(np.full((2, 3, 8), 700.0), np.zeros((2, 3), int))
    assert value == pytest.approx(math.log(8), rel=1e-14)
    np.testing.assert_allclose(d.sum(axis=-1), 0, atol=1e-16)


def test_huge_logits_give_a_finite_loss() -> None:
    prediction = np.array([[[1e5, -1e5]]])
    assert rl.softmax_cross_entropy(prediction, np.array([[0]]))[0] == 0
    value, d = rl.softmax_cross_entropy(prediction, np.array([[1]]))
    assert value == 2e5
    np.testing.assert_array_equal(d, [[[1, -1]]])


@pytest.mark.parametrize(
    ("loss", "prediction", "target"),
    [
        (rl.mean_squared_error, np.array([[[1e200]]]), np.zeros((1, 1, 1))),
        (rl.softmax_cross_entropy, np.array([[[1e308, -1e308]]]), np.array([[1]])),
    ],
)
def test_a_loss_that_overflows_is_an_error_and_no_warning(loss: Any, prediction: Any, target: Any) -> None:
    with pytest.raises(FloatingPointError, match=r"^loss: expected a finite number, got inf"):
        loss(prediction, target)


def test_a_rare_class_keeps_its_gradient() -> None:
    """softmax - 1 is formed from the picked probability itself, so a sure answer's gradient is no rounding noise."""
    _, d = rl.softmax_cross_entropy(np.array([[[0.0, -30.0]]]), np.array([[0]]))
    assert d[0, 0, 1] == pytest.approx(math.exp(-30), rel=1e-12)


@each_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_the_dtype_of_the_prediction_is_kept(loss: Any, dtype: type) -> None:
    prediction, target = case(loss)
    for mask in (None, SOME):
        value, d = loss(prediction.astype(dtype), target, mask)
        assert value.dtype == d.dtype == dtype
        assert value == pytest.approx(loss(prediction, target, mask)[0], rel=1e-5)


def test_a_target_counts_only_where_the_mask_keeps_it() -> None:
    """A missing value may be NaN, as a missing label may be -1; a kept one may not."""
    rng = np.random.default_rng(0)
    prediction, target, mask = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 4)), np.ones((3, 2), bool)
    mask[1, 0] = False
    missing = np.where(mask[..., None], target, np.nan)
    for found, expected in zip(
        rl.mean_squared_error(prediction, missing, mask), rl.mean_squared_error(prediction, target, mask), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    with refuses(ValueError, "target"):
        rl.mean_squared_error(prediction, missing)


@each_loss
@pytest.mark.parametrize("lead", [(12,), (2, 2, 3)])
def test_any_leading_axes_are_read_like_time_and_batch(loss: Any, lead: tuple[int, ...]) -> None:
    prediction, target = case(loss)
    arrays = prediction, target, SOME
    value, d = loss(*(array.reshape(*lead, *array.shape[2:]) for array in arrays))
    expected, d_expected = loss(*arrays)
    assert value == pytest.approx(expected, rel=1e-14)
    np.testing.assert_array_equal(d.reshape(prediction.shape), d_expected)
    for name, n in (("prediction", 0), ("target", 1), ("mask", 2)):
        bad: list[Any] = [array.reshape(*lead, *array.shape[2:]) for array in arrays]
        bad[n] = bad[n][:0]
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            loss(*bad)


def test_a_loss_that_ignores_its_mask_is_refused() -> None:
    def ignores(prediction: Any, target: Any, mask: Any) -> Any:
        return rl.mean_squared_error(prediction, target)

    def heeds(prediction: Any, target: Any, mask: Any) -> Any:
        return rl.mean_squared_error(prediction, target, mask)

    def model(loss: Any) -> rl.SequenceModel:
        return rl.SequenceModel(rl.RNNCell(2, 3, rng=0), rl.Dense(3, 1, rng=1), loss)

    x, y, mask = np.ones((5, 2, 2)), np.zeros((5, 2, 1)), np.ones((5, 2), bool)
    mask[1] = False  # a step that no sequence keeps, which a loss does not see
    model(ignores).loss_and_grads(rl.Batch(x, y, mask))
    mask[3, 1] = False
    model(heeds).loss_and_grads(rl.Batch(x, y, mask))
    for ask in (model(ignores).loss_and_grads, model(ignores).mean_loss):
        with pytest.raises(
            ValueError, match=r"^loss: .* of 0 where the mask is 0, .* time step 3, sequence 1; .* third"
        ):
            ask(rl.Batch(x, y, mask))
