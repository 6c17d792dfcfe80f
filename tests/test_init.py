"""Initial weights: their distributions, their structure, and that a seed alone decides them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from tests.cases import each_cell, refuses


@pytest.mark.parametrize(("name", "bound"), [("uniform", 1 / math.sqrt(300)), ("glorot", math.sqrt(6 / (200 + 300)))])
def test_uniform_and_glorot_fill_their_interval(name: str, bound: float) -> None:
    draw = getattr(rl.init, name)((2, 200, 300), np.random.default_rng(0))
    assert draw.shape == (2, 200, 300)
    assert -bound <= draw.min() < -0.999 * bound
    assert 0.999 * bound < draw.max() <= bound
    # the standard error of the mean of n uniform numbers is bound / sqrt(3 n), of their variance bound^2 sqrt(4 / 45 n)
    n = draw.size
    assert abs(draw.mean()) < 5 * bound / math.sqrt(3 * n)
    assert abs(draw.var() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / (45 * n))


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 3, 5), (2, 5, 3)])
def test_orthogonal_matrices_are_orthogonal_and_differ(shape: tuple[int, ...]) -> None:
    draw = rl.init.orthogonal(shape, np.random.default_rng(0))
    assert draw.shape == shape
    for matrix in draw:
        gram = matrix.T @ matrix if shape[1] >= shape[2] else matrix @ matrix.T
        np.testing.assert_allclose(gram, np.eye(min(shape[1:])), atol=1e-14)
    assert np.abs(draw[0] - draw[1]).max() > 0.1


def test_orthogonal_is_uniform_over_rotations_and_reflections() -> None:
    """Plain QR gives 2 x 2 reflections alone, with a negative entry first; uniform, both have mean 0."""
    n = 4000
    draw = rl.init.orthogonal((n, 2, 2), np.random.default_rng(0))
    assert abs(np.linalg.det(draw).mean()) < 5 / math.sqrt(n)
    for entry in draw.reshape(n, 4).T:
        assert abs(entry.mean()) < 5 * math.sqrt(0.5 / n)


def test_identity_is_the_identity_and_writeable() -> None:
    draw = rl.init.identity((2, 3, 3), np.random.default_rng(0))
    np.testing.assert_array_equal(draw, np.stack([np.eye(3)] * 2))
    draw[0, 0, 0] = 5
    assert draw[1, 0, 0] == 1


def test_chrono_biases_are_logarithms_of_uniform_lifetimes() -> None:
    lifetimes = np.exp(rl.init.chrono(100, 20000, rng=0))
    assert lifetimes.shape == (20000,)
    assert 1 <= lifetimes.min() < 1.1
    assert 98.9 < lifetimes.max() <= 99
    assert abs(lifetimes.mean() - 50) < 5 * (98 / math.sqrt(12 * 20000))
    np.testing.assert_array_equal(rl.init.chrono(100, 5, rng=3), rl.init.chrono(100, 5, rng=3))


@each_cell
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(cell_class: type[rl.Cell]) -> None:
    first, again, other = (cell_class(3, 4, rng=seed) for seed in (7, 7, 8))
    for name, p in first.params.items():
        np.testing.assert_array_equal(p, again.params[name])
        assert (p != other.params[name]).all()


@each_cell
def test_a_generator_continues_from_cell_to_cell(cell_class: type[rl.Cell]) -> None:
    rng = np.random.default_rng(7)
    first, second = cell_class(3, 4, rng=rng), cell_class(3, 4, rng=rng)
    np.testing.assert_array_equal(first.params["W_h"], cell_class(3, 4, rng=7).params["W_h"])
    assert (first.params["W_h"] != second.params["W_h"]).all()


@each_cell
def test_without_a_seed_each_network_is_another(cell_class: type[rl.Cell]) -> None:
    assert (cell_class(3, 4).params["W_x"] != cell_class(3, 4).params["W_x"]).all()


@each_cell
def test_no_two_gates_start_alike(cell_class: type[rl.Cell]) -> None:
    for p in cell_class(4, 4, rng=0).params.values():
        assert np.unique(p).size == p.size


@each_cell
def test_default_parameters_are_within_one_over_sqrt_h(cell_class: type[rl.Cell]) -> None:
    for p in cell_class(30, 25, rng=0).params.values():
        assert 0.9 / 5 < np.abs(p).max() <= 1 / 5


@each_cell
def test_the_named_initializers_and_a_function_reach_their_matrices(cell_class: type[rl.Cell]) -> None:
    K = len(cell_class.gate_names)
    cell = cell_class(3, 5, rng=0, input_init=lambda shape, rng: np.full(shape, 0.25), recurrent_init="identity")
    np.testing.assert_array_equal(cell.params["W_x"], np.full((K, 3, 5), 0.25))
    np.testing.assert_array_equal(cell.params["W_h"], np.stack([np.eye(5)] * K))


def test_gate_biases_reach_their_gate_alone() -> None:
    f, i = np.arange(4.0), -np.arange(4.0)
    for cell_class in (rl.LSTMCell, rl.FourGateLSTMCell):
        plain = cell_class(3, 4, rng=0)
        cell = cell_class(3, 4, rng=0, forget_bias=f, input_bias=i)
        np.testing.assert_array_equal(cell.params["b"][1, 0], f)
        np.testing.assert_array_equal(cell.params["b"][0, 0], i)
        np.testing.assert_array_equal(cell.params["b"][2:], plain.params["b"][2:])
    for gru_class in (rl.GRUCell, rl.GRUResetBeforeCell):
        gru = gru_class(3, 4, rng=0, update_bias=2)
        np.testing.assert_array_equal(gru.params["b"][1, 0], np.full(4, 2.0))
        np.testing.assert_array_equal(gru.params["b"][[0, 2]], gru_class(3, 4, rng=0).params["b"][[0, 2]])


def test_an_initializer_that_does_not_fit_is_refused() -> None:
    bad: list[tuple[type[Exception], Any]] = [
        (ValueError, lambda shape, rng: np.ones(1)),
        (ValueError, lambda shape, rng: np.ones(shape[1:])),
        (ValueError, lambda shape, rng: np.full(shape, np.nan)),
        (TypeError, lambda shape, rng: None),
    ]
    for error, init in bad:
        with refuses(error, "W_h"):
            rl.LSTMCell(3, 4, rng=0, recurrent_init=init)


def test_numbers_of_numpy_are_numbers() -> None:
    cell = rl.RNNCell(np.int64(3), np.int32(4), rng=np.int64(0))
    np.testing.assert_array_equal(cell.params["W_x"], rl.RNNCell(3, 4, rng=0).params["W_x"])
    rates = rl.SGD(np.float32(0.5), momentum=np.float64(0.25)), rl.SGD(np.int64(1))
    assert [type(n) for n in (cell.input_size, cell.hidden_size)] == [int, int]
    assert [(type(n), n) for sgd in rates for n in (sgd.lr, sgd.momentum)] == [(float, n) for n in (0.5, 0.25, 1, 0)]


def test_an_initializer_may_keep_its_array() -> None:
    drawn = np.ones((1, 4, 4))
    cell = rl.RNNCell(3, 4, rng=0, recurrent_init=lambda shape, rng: drawn)
    cell.params["W_h"][...] = 2
    np.testing.assert_array_equal(drawn, np.ones((1, 4, 4)))


def test_a_bias_too_large_for_float32_is_refused() -> None:
    with refuses(ValueError, "forget_bias"):
        rl.LSTMCell(3, 4, rng=0, dtype=np.float32, forget_bias=1e300)


@pytest.mark.parametrize("init", [rl.init.uniform, rl.init.glorot, rl.init.orthogonal])
def test_an_initializer_takes_a_seed_or_a_generator(init: Any) -> None:
    np.testing.assert_array_equal(init((2, 3, 3), 5), init((2, 3, 3), np.random.default_rng(5)))
    with refuses(TypeError, "rng"):
        init((2, 3, 3), "seed")


def test_a_function_of_other_arguments_is_named_once() -> None:
    with pytest.raises(TypeError) as error:
        rl.RNNCell(3, 4, rng=0, recurrent_init=lambda shape: np.ones(shape))  # type: ignore[arg-type, misc]
    assert str(error.value).count("expected a function") == 1
    assert str(error.value).startswith("recurrent_init: ")
    assert "partial" not in str(error.value)
