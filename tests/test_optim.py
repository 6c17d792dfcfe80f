"""Optimizers: against sequences computed with plain numbers, and nothing half-done when a step is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.optim import Optimizer
from tests.cases import refuses

GRADIENTS = [0.5, -2.0, 0.25, 0.0, 3.0, 1e-6]
OPTIMIZERS = {
    "SGD": lambda lr=0.1: rl.SGD(lr),
    "momentum": lambda lr=0.1: rl.SGD(lr, momentum=0.9),
    "Adam": lambda lr=0.1: rl.Adam(lr),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def run(optimizer: Any, gradients: list[float], start: float = 1.0) -> list[float]:
    """A parameter of one number, after each of these gradients."""
    params = {"w": np.array([start])}
    found = []
    for g in gradients:
        optimizer.step(params, {"w": np.array([g])})
        found.append(float(params["w"][0]))
    return found


def test_sgd_is_weight_minus_learning_rate_times_gradient() -> None:
    w, expected = 1.0, []
    for g in GRADIENTS:
        w = w - 0.1 * g
        expected.append(w)
    assert run(rl.SGD(0.1), GRADIENTS) == pytest.approx(expected, rel=1e-14)


def test_momentum_adds_the_decayed_velocity() -> None:
    w, v, expected = 1.0, 0.0, []
    for g in GRADIENTS:
        v = 0.9 * v + g
        w = w - 0.1 * v
        expected.append(w)
    assert run(rl.SGD(0.1, momentum=0.9), GRADIENTS) == pytest.approx(expected, rel=1e-13)


def test_adam_is_algorithm_1_of_kingma_and_ba() -> None:
    w, m, v, expected = 1.0, 0.0, 0.0, []
    for n, g in enumerate(GRADIENTS, start=1):
        m = 0.8 * m + (1 - 0.8) * g
        v = 0.95 * v + (1 - 0.95) * g * g
        w = w - 0.01 * (m / (1 - 0.8**n)) / (math.sqrt(v / (1 - 0.95**n)) + 1e-3)
        expected.append(w)
    found = run(rl.Adam(0.01, beta1=0.8, beta2=0.95, epsilon=1e-3), GRADIENTS)
    assert found == pytest.approx(expected, rel=1e-13)


def test_adagrad_divides_by_the_root_of_the_sum_of_squares() -> None:
    w, s, expected = 1.0, 0.2, []
    for g in GRADIENTS:
        s = s + g * g
        w = w - 0.1 * g / (math.sqrt(s) + 1e-3)
        expected.append(w)
    assert run(rl.Adagrad(0.1, epsilon=1e-3, initial_sum=0.2), GRADIENTS) == pytest.approx(expected, rel=1e-13)


def test_rmsprop_divides_by_the_root_of_the_running_mean_of_squares() -> None:
    w, s, expected = 1.0, 0.0, []
    for g in GRADIENTS:
        s = 0.8 * s + (1 - 0.8) * g * g
        w = w - 0.1 * g / (math.sqrt(s) + 1e-3)
        expected.append(w)
    assert run(rl.RMSProp(0.1, decay=0.8, epsilon=1e-3), GRADIENTS) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("kind", [rl.SGD, rl.Adagrad, rl.RMSProp, rl.Adam])
def test_weight_decay_is_taken_from_the_weight_and_stays_out_of_the_memory(kind: Any) -> None:
    (plain,) = run(kind(0.1), [0.5], start=3.0)
    assert run(kind(0.1, weight_decay=0.2), [0.5], start=3.0) == pytest.approx([plain - 0.1 * 0.2 * 3])
    memories = [kind(0.1), kind(0.1, weight_decay=0.2)]
    for optimizer in memories:
        run(optimizer, GRADIENTS)
    assert memories[0].memory == memories[1].memory


def test_adams_defaults_are_those_of_the_paper() -> None:
    expected = run(rl.Adam(0.001, beta1=0.9, beta2=0.999, epsilon=1e-8), GRADIENTS)
    assert run(rl.Adam(), GRADIENTS) == expected


def test_adams_first_step_has_the_length_of_the_learning_rate() -> None:
    for g in (1e-3, 1.0, 1e3):
        assert run(rl.Adam(0.01), [g])[0] == pytest.approx(1 - 0.01, rel=1e-6)


def test_adam_without_memory_steps_by_the_sign() -> None:
    found = run(rl.Adam(0.01, beta1=0, beta2=0), [g for g in GRADIENTS if abs(g) > 0.1], start=0.0)
    assert found == pytest.approx([-0.01, 0.0, -0.01, -0.02], abs=1e-8)


@each_optimizer
def test_parameters_are_updated_in_place_each_with_a_state_of_its_own(make: Any) -> None:
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=(4, 1, 2))}
    held = dict(params)
    both = {name: p.copy() for name, p in params.items()}
    alone = {name: p.copy() for name, p in params.items()}
    optimizer, optimizers = make(), {name: make() for name in params}
    for _ in range(4):
        grads = {name: rng.normal(size=p.shape) for name, p in params.items()}
        before = {name: g.copy() for name, g in grads.items()}
        optimizer.step(params, grads)
        for name in params:
            optimizers[name].step({name: alone[name]}, {name: grads[name]})
            np.testing.assert_array_equal(grads[name], before[name])
    for name, p in params.items():
        assert p is held[name]
        assert (p != both[name]).all()
        np.testing.assert_array_equal(p, alone[name])


def test_adagrad_needs_an_epsilon_or_a_first_sum_to_divide_by() -> None:
    with refuses(ValueError, "epsilon"):
        rl.Adagrad(epsilon=0)


@each_optimizer
def test_reusing_the_gradient_arrays_does_not_change_the_steps(make: Any) -> None:
    """A caller may write the next gradient into the same array."""
    params, buffer, optimizer = {"w": np.array([1.0])}, np.empty(1), make()
    found = []
    for g in GRADIENTS:
        buffer[0] = g
        optimizer.step(params, {"w": buffer})
        found.append(float(params["w"][0]))
    assert found == run(make(), GRADIENTS)


@each_optimizer
def test_an_optimizer_keeps_float32_in_weights_and_memory(make: Any) -> None:
    params = {"w": np.ones((2, 3), np.float32)}
    optimizer = make()
    for _ in range(3):
        optimizer.step(params, {"w": np.full((2, 3), 0.1, np.float32)})

    def arrays(value: Any) -> list[Any]:
        if isinstance(value, np.ndarray):
            return [value]
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return [array for item in inner for array in arrays(item)]

    assert {array.dtype for array in [params["w"], *arrays(vars(optimizer))]} == {np.dtype(np.float32)}


@each_optimizer
def test_the_learning_rate_may_be_a_function_of_the_step(make: Any) -> None:
    asked: list[int] = []

    def rate(step: int) -> float:
        asked.append(step)
        return 0.1

    assert run(make(rate), GRADIENTS) == run(make(0.1), GRADIENTS)
    assert asked == list(range(len(GRADIENTS)))
    assert run(make(lambda step: 0.0), GRADIENTS) == [1.0] * len(GRADIENTS)


def test_linear_decay_is_a_line_from_lr_to_zero() -> None:
    rate = rl.linear_decay(0.5, 10)
    assert [rate(n) for n in (0, 1, 5, 10, 11, 1000)] == pytest.approx([0.5, 0.45, 0.25, 0, 0, 0])
    assert run(rl.SGD(rate), [1.0, 1.0]) == pytest.approx([0.5, 0.05])


@each_optimizer
def test_a_refused_step_changes_nothing(make: Any) -> None:
    """Not the parameters, and not the optimizer: what follows is what would have followed."""
    w, b = np.array([1.0, 2.0]), np.array([3.0])
    good = {"w": np.array([0.1, -0.2]), "b": np.array([0.3])}
    bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, "grads['b']", good | {"b": np.array([np.nan])}),
        (ValueError, "grads['b']", good | {"b": np.array([np.inf])}),
        (TypeError, "grads['b']", good | {"b": np.array([1j])}),
        (TypeError, "grads['b']", good | {"b": np.array([1])}),
        (TypeError, "grads['b']", good | {"b": 0.3}),
        (ValueError, "grads['b']", good | {"b": np.array([0.3, 0.3])}),
        (ValueError, "grads", {"w": good["w"]}),
        (ValueError, "grads", good | {"c": np.array([0.3])}),
    ]
    for error, name, grads in bad:
        params = {"w": w.copy(), "b": b.copy()}
        optimizer = make()
        optimizer.step(params, good)
        undisturbed, before = copy.deepcopy(optimizer), copy.deepcopy(params)
        with refuses(error, name):
            optimizer.step(params, grads)
        for key in params:
            np.testing.assert_array_equal(params[key], before[key])
        optimizer.step(params, good)
        undisturbed.step(before, good)
        for key in params:
            np.testing.assert_array_equal(params[key], before[key])


@each_optimizer
def test_a_refused_learning_rate_changes_nothing(make: Any) -> None:
    rates = iter([0.1, -1.0, 0.1])
    params, optimizer = {"w": np.array([1.0])}, make(lambda step: next(rates))
    optimizer.step(params, {"w": np.array([0.5])})
    before = params["w"].copy()
    with refuses(ValueError, "lr"):
        optimizer.step(params, {"w": np.array([0.5])})
    np.testing.assert_array_equal(params["w"], before)
    optimizer.step(params, {"w": np.array([0.5])})
    assert float(params["w"][0]) == pytest.approx(run(make(), [0.5, 0.5])[-1], rel=1e-14)


# ---- clipping ---------------------------------------------------------------------------------


def test_clipping_scales_all_gradients_by_one_factor() -> None:
    grads = {"a": np.array([[3.0, 0.0]]), "b": np.array([0.0, 4.0]), "c": np.array([12.0])}
    clipped, norm = rl.clip_by_global_norm(grads, 6.5)
    assert norm == pytest.approx(13)
    for name, g in grads.items():
        np.testing.assert_allclose(clipped[name], g / 2, rtol=1e-15)
    assert float(grads["c"][0]) == 12


def test_clipping_leaves_what_is_short_enough() -> None:
    grads = {"a": np.array([3.0]), "b": np.array([4.0])}
    for bound in (5.0, 5.1, 1e9):
        clipped, norm = rl.clip_by_global_norm(grads, bound)
        assert norm == pytest.approx(5)
        for name, g in grads.items():
            np.testing.assert_array_equal(clipped[name], g)
    zeros, norm = rl.clip_by_global_norm({"a": np.zeros(3)}, 1.0)
    assert norm == 0
    np.testing.assert_array_equal(zeros["a"], np.zeros(3))


def test_clipping_keeps_float32() -> None:
    clipped, norm = rl.clip_by_global_norm({"a": np.array([3.0, 4.0], np.float32)}, 1.0)
    assert clipped["a"].dtype == np.float32
    assert isinstance(norm, float)


@pytest.mark.parametrize(("dtype", "size"), [(np.float32, 1e-25), (np.float32, 1e25), (float, 1e-200), (float, 1e200)])
def test_clipping_measures_what_no_square_can_hold(dtype: type, size: float) -> None:
    grads = {"a": np.full((2, 1), 3 * size, dtype), "b": np.array([], dtype), "c": np.zeros(2, dtype)}
    grads["d"] = np.full(2, 4 * size, dtype)
    clipped, norm = rl.clip_by_global_norm(grads, size)
    assert norm == pytest.approx(math.sqrt(50) * size, rel=1e-6)
    np.testing.assert_allclose(clipped["d"], np.full(2, 4 * size / math.sqrt(50)), rtol=1e-6)


@each_optimizer
def test_parameters_that_cannot_be_updated_leave_everything_as_it_was(make: Any) -> None:
    locked = np.ones(2)
    locked.flags.writeable = False
    bad: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "params['b']", {"a": np.ones(2), "b": locked}),
        (TypeError, "params['b']", {"a": np.ones(2), "b": np.ones(2, int)}),
        (ValueError, "params['b']", {"a": np.ones(2), "b": np.full(2, np.nan)}),
        (TypeError, "params", [np.ones(2)]),
    ]
    for error, name, params in bad:
        optimizer = make()
        with refuses(error, name):
            optimizer.step(params, {"a": np.ones(2), "b": np.ones(2)})
        assert optimizer.steps == 0
        assert optimizer.memory == ()
        np.testing.assert_array_equal(params["a"] if isinstance(params, dict) else params[0], np.ones(2))
    with refuses(ValueError, "params"):
        make().step({}, {})


@pytest.mark.parametrize("grad", [np.full(2, -3e38, np.float32), np.full(2, -1e300)])
def test_a_parameter_that_overflows_is_refused_whole(grad: Any) -> None:
    params, optimizer = {"a": np.ones(1, np.float32), "w": np.full(2, 3e38, np.float32)}, rl.SGD(1.0)
    with pytest.raises(FloatingPointError, match="grads: step 0 overflows"):
        optimizer.step(params, {"a": np.ones(1, np.float32), "w": grad})
    assert optimizer.steps == 0
    np.testing.assert_array_equal(params["a"], np.ones(1))


@each_optimizer
def test_an_update_that_overflows_is_refused_whole(make: Any) -> None:
    optimizer, params = make(1e9), {"w": np.ones(3, np.float32), "v": np.ones(2, np.float32)}
    optimizer.step(params, {"w": np.ones(3, np.float32), "v": np.ones(2, np.float32)})
    before, parameters = copy.deepcopy(vars(optimizer)), copy.deepcopy(params)
    with pytest.raises(FloatingPointError, match=r"^grads: step 1 overflows, with gradients up to 1e\+30"):
        optimizer.step(params, {"w": np.ones(3, np.float32), "v": np.full(2, 1e30, np.float32)})
    assert optimizer.steps == before["steps"] == 1
    for kept, was in zip((*optimizer.memory, *params.values()), (*before["memory"], *parameters.values()), strict=True):
        np.testing.assert_array_equal(kept, was)


@each_optimizer
def test_an_optimizer_belongs_to_one_set_of_parameters(make: Any) -> None:
    optimizer = make()
    optimizer.step({"w": np.ones(3)}, {"w": np.ones(3)})
    with refuses(ValueError, "params"):
        optimizer.step({"w": np.ones(4)}, {"w": np.ones(4)})


def test_one_array_under_two_names_is_refused() -> None:
    """Only one of its two gradients would have moved it."""
    lower, upper = rl.RNNCell(3, 3, rng=0), rl.RNNCell(3, 3, rng=1)
    upper.W_h = lower.W_h
    model = rl.SequenceModel([lower, upper], rl.Dense(3, 1, rng=0), rl.mean_squared_error)
    batch = rl.Batch(np.ones((4, 2, 3)), np.ones((4, 2, 1)))
    before = {name: p.copy() for name, p in model.params.items()}
    with pytest.raises(ValueError, match=r"^params: expected an array of its own .* cells.0.W_h and cells.1.W_h"):
        rl.Trainer(model, rl.SGD(0.1)).train_step(batch)
    for name, p in model.params.items():
        np.testing.assert_array_equal(p, before[name])


def test_the_norm_of_float32_gradients_may_leave_float32() -> None:
    clipped, norm = rl.clip_by_global_norm({"a": np.full(4, 2e38, np.float32)}, 1.0)
    assert norm == pytest.approx(4e38)
    np.testing.assert_allclose(clipped["a"], 0.5, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda: rl.SGD(0.1, momentum=0.9), lambda: rl.Adam(0.01)])
def test_the_memory_goes_by_name_and_not_by_the_order_of_a_dict(make: Any) -> None:
    rng = np.random.default_rng(0)
    start = {"a": rng.normal(size=3), "b": rng.normal(size=3)}
    grads = [{"a": rng.normal(size=3), "b": rng.normal(size=3)} for _ in range(3)]
    straight, turned = [{name: p.copy() for name, p in start.items()} for _ in range(2)]
    first, second = make(), make()
    for n, grad in enumerate(grads):
        first.step(straight, grad)
        second.step(dict(reversed(turned.items())) if n == 1 else turned, dict(reversed(grad.items())))
    for name, p in straight.items():
        np.testing.assert_array_equal(turned[name], p)
    with refuses(ValueError, "params"):
        first.step({"a": np.zeros(3), "c": np.zeros(3)}, {"a": np.zeros(3), "c": np.zeros(3)})


class NoMemory(Optimizer):
    def start(self, grad: Any) -> Any:
        return ()

    def update(self, grad: Any, memory: Any, rate: float, n: int) -> Any:
        return rate * grad


class OneArray(NoMemory):
    def update(self, grad: Any, memory: Any, rate: float, n: int) -> Any:
        return rate * grad, grad


class Shorter(NoMemory):
    def update(self, grad: Any, memory: Any, rate: float, n: int) -> Any:
        return rate * grad[:1], ()


class NoStart(Optimizer):
    pass


class NoUpdate(NoMemory):
    update = Optimizer.update


class NoInit(NoMemory):
    def __init__(self) -> None:
        self.lr = 0.1


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (NoMemory(0.1), TypeError, r"update: expected \(change, memory\)"),
        (OneArray(0.1), TypeError, "memory a tuple"),
        (Shorter(0.1), TypeError, r"every array of shape \(4,\)"),
        (NoStart(0.1), NotImplementedError, "NoStart has no start: write"),
        (NoUpdate(0.1), NotImplementedError, "NoUpdate has no update: write"),
        (NoInit(), TypeError, r"NoInit: expected super\(\)\.__init__\(lr\)"),
    ],
)
def test_an_optimizer_of_ones_own_is_told_what_to_write(
    optimizer: Optimizer, error: type[Exception], message: str
) -> None:
    params = {"w": np.ones(4)}
    with pytest.raises(error, match=message):
        optimizer.step(params, {"w": np.ones(4)})
    assert np.array_equal(params["w"], np.ones(4))


def test_an_optimizer_shows_its_settings_and_a_trainer_where_it_stands() -> None:
    optimizer = rl.SGD(0.1, momentum=0.9)
    assert repr(optimizer) == "SGD(lr=0.1, momentum=0.9, weight_decay=0.0)"
    model = rl.SequenceModel(rl.RNNCell(2, 3), rl.Dense(3, 1), rl.mean_squared_error)
    assert repr(rl.Trainer(model, optimizer)) == f"Trainer({model!r}, {optimizer!r}, step=0)"


def test_a_start_that_is_no_tuple_is_named() -> None:
    class Own(Optimizer):
        def start(self, grad: Any) -> Any:
            return np.zeros_like(grad)

    with pytest.raises(TypeError, match=r"^start: expected a tuple of arrays"):
        Own(0.1).step({"W": np.zeros(3)}, {"W": np.ones(3)})
