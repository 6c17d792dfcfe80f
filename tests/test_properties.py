"""Properties that hold for every cell and loss, on examples drawn over shapes, dtypes, biases and scales.

Examples follow from each test's own source, as conftest.py sets for all tests that draw them. A failure prints
the smallest example that fails and a `reproduce_failure` line; it then stays as an `@example` or a test of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import rnnlab as rl

KINDS: dict[str, Callable[..., rl.Cell]] = {
    "rnn": rl.RNNCell,
    "relu": partial(rl.RNNCell, activation="relu"),
    "lstm": rl.LSTMCell,
    "gru": rl.GRUCell,
    "gru_before": rl.GRUResetBeforeCell,
    "four_gate": rl.FourGateLSTMCell,
}
# denormal, tiny, ordinary, and gates saturated at +-1e3; float32 has its own denormals
ORDINARY = (0.0, 1e-310, 1e-20, 0.1, 1.0, 2.0)
SATURATED = (30.0, 1e3)


@dataclass(frozen=True)
class Case:
    """A cell and all that its two passes take. Its repr is what hypothesis prints."""

    kind: str
    sizes: tuple[int, int, int, int]  # T, B, D, H
    scale: float  # of the weights
    bias: float
    input_scale: float
    integers: bool
    dtype: str
    seed: int
    cell: rl.Cell = field(init=False, repr=False)
    x: Any = field(init=False, repr=False)
    state: Any = field(init=False, repr=False)
    d_h: Any = field(init=False, repr=False)
    d_state: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        (T, B, D, H), rng = self.sizes, np.random.default_rng(self.seed)
        cell = KINDS[self.kind](D, H, rng=0)
        params = {
            name: rng.normal(size=p.shape) * (self.bias if name.startswith("b") else self.scale)
            for name, p in cell.params.items()
        }
        S = len(cell.state_names)
        x = rng.integers(D, size=(T, B)) if self.integers else self.input_scale * rng.normal(size=(T, B, D))
        arrays = {
            "x": x if self.integers else x.astype(self.dtype),
            "state": rng.normal(size=(S, B, H)).astype(self.dtype),
            "d_h": rng.normal(size=(T, B, H)).astype(self.dtype),
            "d_state": rng.normal(size=(S, B, H)).astype(self.dtype),
            "cell": cell.with_params(params).astype(self.dtype),
        }
        for name, value in arrays.items():
            object.__setattr__(self, name, value)

    def forward(self) -> rl.Tape:
        return self.cell.forward(self.x, self.state)

    def backward(self, tape: rl.Tape) -> rl.Gradients:
        return self.cell.backward(tape, self.d_h, self.d_state)

    @property
    def tolerance(self) -> float:
        """Rounding, where an equal sum may be added in another order. A unit that is not saturated passes its
        rounding on through weights of size s; more than two of them in a row are too rare to meet."""
        s = max(1.0, self.scale, self.bias, self.input_scale)
        return (1e-12 if self.dtype == "float64" else 1e-4) * s**2


@st.composite
def cases(draw: st.DrawFn, *, saturated: bool = True, integers: bool | None = None) -> Case:
    kind = draw(st.sampled_from(list(KINDS)))
    dtype = draw(st.sampled_from(("float64", "float32")))
    # what a relu RNN multiplies grows without bound: `test_a_relu_network_...` is about that
    large = SATURATED if saturated and dtype == "float64" and kind != "relu" else ()
    scales = st.sampled_from(ORDINARY + large)
    return Case(
        kind,
        (draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))),
        draw(scales),
        draw(scales),
        draw(scales),
        draw(st.booleans()) if integers is None else integers,
        dtype,
        draw(st.integers(0, 2**32 - 1)),
    )


def arrays_of(grads: rl.Gradients) -> dict[str, Any]:
    """Every array in the gradients by name; x where there is one."""
    return grads.params | {"states": grads.states} | ({} if grads.x is None else {"x": grads.x})


def tape_arrays(tape: rl.Tape) -> dict[str, Any]:
    return {"x": tape.x, "states": tape.states, "gates": tape.gates, "extras": tape.extras}


def assert_equal(found: dict[str, Any], exact: dict[str, Any]) -> None:
    """The same, bit for bit."""
    assert list(found) == list(exact)
    for name, value in exact.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_close(found: dict[str, Any], exact: dict[str, Any], tolerance: float) -> None:
    """max |difference| of each array against its largest entry, at least a thousandth of the largest of all."""
    assert list(found) == list(exact)
    largest = max(float(np.abs(value).max(initial=0)) for value in exact.values())
    for name, value in exact.items():
        assert found[name].shape == value.shape, name
        scale = max(float(np.abs(value).max(initial=0)), 1e-3 * largest)
        smallest = float(np.finfo(value.dtype).tiny)  # below it numbers lose digits
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * scale + smallest, err_msg=name)


# ---- cells -----------------------------------------------------------------------------------------


@given(case=cases(), cut=st.integers(1, 5))
def test_two_chunks_are_one_sequence(case: Case, cut: int) -> None:
    """The state is carried on, and `d_state` of a chunk is `states[0]` of the next."""
    if case.sizes[0] == 1:
        case = replace(case, sizes=(2, *case.sizes[1:]))
    cut = min(cut, case.sizes[0] - 1)
    whole = case.forward()
    grads = case.backward(whole)
    first = case.cell.forward(case.x[:cut], case.state)
    second = case.cell.forward(case.x[cut:], first.states[-1])
    d_second = case.cell.backward(second, case.d_h[cut:], case.d_state)
    d_first = case.cell.backward(first, case.d_h[:cut], d_second.states[0])
    found = {
        "states": np.concatenate((first.states, second.states[1:])),
        "gates": np.concatenate((first.gates, second.gates), axis=1),
        "extras": np.concatenate((first.extras, second.extras), axis=1),
    }
    assert_close(found, {name: tape_arrays(whole)[name] for name in found}, case.tolerance)
    found = {name: g + d_second.params[name] for name, g in d_first.params.items()}
    found["states"] = np.concatenate((d_first.states, d_second.states[1:]))  # the first knows d_h[cut - 1]
    if d_first.x is not None and d_second.x is not None:
        found["x"] = np.concatenate((d_first.x, d_second.x))
    assert_close(found, arrays_of(grads), 10 * case.tolerance)


@given(case=cases(integers=True))
def test_integers_mean_one_hot_rows(case: Case) -> None:
    tape = case.forward()
    one_hot = np.eye(case.sizes[2], dtype=case.dtype)[case.x]
    found = case.cell.forward(one_hot, case.state)
    for name in ("states", "gates", "extras"):
        assert_close({name: tape_arrays(tape)[name]}, {name: tape_arrays(found)[name]}, case.tolerance)
    grads, found_grads = case.backward(tape), case.backward(found)
    assert grads.x is None
    assert_close(grads.params, found_grads.params, 10 * case.tolerance)
    assert_close({"states": grads.states}, {"states": found_grads.states}, case.tolerance)


@given(case=cases())
def test_nothing_given_is_changed_and_a_second_call_gives_the_same_bits(case: Case) -> None:
    given_arrays = case.cell.params | {name: getattr(case, name) for name in ("x", "state", "d_h", "d_state")}
    before = {name: value.copy() for name, value in given_arrays.items()}
    tape = case.forward()
    recorded = {name: value.copy() for name, value in tape_arrays(tape).items()}
    grads = case.backward(tape)
    assert_equal(tape_arrays(tape), recorded)
    assert_equal(given_arrays, before)
    assert_equal(tape_arrays(case.forward()), recorded)
    assert_equal(arrays_of(case.backward(tape)), arrays_of(grads))
    for result in (*tape_arrays(tape).values(), *arrays_of(grads).values()):
        if result is not tape.x:  # the tape keeps the input itself, as given
            assert not any(np.shares_memory(result, value) for value in given_arrays.values())


# ---- any finite input ------------------------------------------------------------------------------


def any_floats(shape: tuple[int, ...], largest: float | None = None) -> st.SearchStrategy[Any]:
    """Floats up to the largest finite one, zeros of both signs and denormals among them."""
    limits = {} if largest is None else {"min_value": -largest, "max_value": largest}
    return hnp.arrays(np.float64, shape, elements=st.floats(allow_nan=False, allow_infinity=False, **limits))


@st.composite
def extremes(draw: st.DrawFn, largest: float | None = None) -> tuple[rl.Cell, Any, Any, Any, Any]:
    """(cell, x, state, d_h, d_state), every entry of every array drawn by itself."""
    (T, B), D, H = (draw(st.integers(1, 3)), draw(st.integers(1, 2))), 2, 2
    cell = KINDS[draw(st.sampled_from(list(KINDS)))](D, H, rng=0)
    cell = cell.with_params({name: draw(any_floats(p.shape, largest)) for name, p in cell.params.items()})
    state_shape = (len(cell.state_names), B, H)
    x, d_h = draw(any_floats((T, B, D), largest)), draw(any_floats((T, B, H), largest))
    return cell, x, draw(any_floats(state_shape, largest)), d_h, draw(any_floats(state_shape, largest))


def is_finite(*arrays: Any) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def overflow(call: Callable[[], tuple[Any, ...]]) -> str | None:
    """What a call says that overflows; None where it returns numbers, which must be finite."""
    try:
        arrays = call()
    except FloatingPointError as error:
        return str(error)
    assert is_finite(*arrays)
    return None


@given(extreme=extremes(largest=1e3))
def test_up_to_a_thousand_everything_is_finite(extreme: tuple[rl.Cell, Any, Any, Any, Any]) -> None:
    """No NaN, no infinity and no warning, which would be an error here; three steps do not overflow a relu either."""
    cell, x, state, d_h, d_state = extreme
    tape = cell.forward(x, state)
    assert is_finite(*tape_arrays(tape).values())
    assert is_finite(*arrays_of(cell.backward(tape, d_h, d_state)).values())


@given(extreme=extremes())
def test_any_finite_input_gives_finite_numbers_or_an_error_that_says_where(
    extreme: tuple[rl.Cell, Any, Any, Any, Any],
) -> None:
    """Of a tape the states and gates; a GRU's candidate_h may overflow before the tanh brings it back to 1."""
    cell, x, state, d_h, d_state = extreme
    tapes: list[rl.Tape] = []

    def forward() -> tuple[Any, ...]:
        tapes.append(cell.forward(x, state))
        return tapes[0].states, tapes[0].gates

    message = overflow(forward)
    if message is None:
        message = overflow(lambda: tuple(arrays_of(cell.backward(tapes[0], d_h, d_state)).values()))
    assert message is None or re.search(r"is not finite( at t = \d+)?$", message), message


# ---- stacks, masks and losses ----------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """A model of one to three cells and a batch for it, with a mask that keeps something."""

    kinds: tuple[str, ...]
    sizes: tuple[int, int, int, int]  # T, B, D, O
    scale: float
    regression: bool
    integers: bool
    keep: float
    seed: int
    model: rl.SequenceModel = field(init=False, repr=False)
    batch: rl.Batch = field(init=False, repr=False)
    state: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        (T, B, D, O), rng = self.sizes, np.random.default_rng(self.seed)  # noqa: E741 - O is the shape letter
        widths = (D, *rng.integers(1, 4, len(self.kinds)).tolist())
        cells = [KINDS[k](d, h, rng=rng) for k, d, h in zip(self.kinds, widths[:-1], widths[1:], strict=True)]
        loss = rl.mean_squared_error if self.regression else rl.softmax_cross_entropy
        model = rl.SequenceModel(cells, rl.Dense(widths[-1], O, rng=rng), loss)
        model = model.with_params({name: self.scale * rng.normal(size=p.shape) for name, p in model.params.items()})
        mask = rng.random((T, B)) < self.keep
        mask[rng.integers(T), rng.integers(B)] = True
        batch = rl.Batch(
            rng.integers(D, size=(T, B)) if self.integers else rng.normal(size=(T, B, D)),
            rng.normal(size=(T, B, O)) if self.regression else rng.integers(O, size=(T, B)),
            mask,
        )
        state = tuple(rng.normal(size=(len(c.state_names), B, c.hidden_size)) for c in model.cells)
        for name, value in {"model": model, "batch": batch, "state": state}.items():
            object.__setattr__(self, name, value)


stacks = st.builds(
    Stack,
    st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=3).map(tuple),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from((0.1, 0.7, 1.5)),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0.0, 0.3, 1.0)),
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=15)
@given(stack=stacks)
@example(stack=Stack(("relu",), (2, 1, 3, 2), 1.5, False, False, 0.0, 0))  # p(target) = 1 - 4e-13
def test_gradients_of_a_stack_under_a_mask(stack: Stack) -> None:
    rl.check_gradients(stack.model, stack.batch, rng=stack.seed, max_entries=6)


@st.composite
def predictions(draw: st.DrawFn) -> tuple[Any, Any]:
    """(prediction (T, B, O) of any finite numbers, a mask (T, B) that keeps something)."""
    elements = st.floats(allow_nan=False, allow_infinity=False)
    T, B, O = (draw(st.integers(1, n)) for n in (4, 3, 4))  # noqa: E741 - O is the shape letter
    mask = draw(hnp.arrays(bool, (T, B)))
    mask[draw(st.integers(0, T - 1)), draw(st.integers(0, B - 1))] = True
    return draw(hnp.arrays(np.float64, (T, B, O), elements=elements)), mask


LOSSES: dict[str, Any] = {"cross-entropy": rl.softmax_cross_entropy, "squared error": rl.mean_squared_error}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def target_for(loss: Any, prediction: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if loss is rl.softmax_cross_entropy:
        return rng.integers(prediction.shape[-1], size=prediction.shape[:-1])
    return rng.normal(size=prediction.shape)


@each_loss
@given(case=predictions(), seed=st.integers(0, 2**32 - 1))
def test_a_loss_is_finite_at_any_finite_prediction_or_says_that_it_overflows(
    loss: Any, case: tuple[Any, Any], seed: int
) -> None:
    prediction, mask = case
    message = overflow(lambda: loss(prediction, target_for(loss, prediction, seed), mask))
    assert message is None or message.startswith("loss: "), message
