"""Forward: every cell against the scalar reference, its tape, its dtypes and its refusals."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from tests import reference
from tests.cases import each_cell, random_case, random_cell, refuses, relative_error

SIZES = [(1, 1, 1, 1), (1, 3, 2, 4), (5, 1, 3, 3), (7, 3, 4, 2)]
GATES = {
    rl.RNNCell: ("candidate",),
    rl.LSTMCell: ("input", "forget", "candidate", "output"),
    rl.GRUCell: ("reset", "update", "candidate"),
    rl.GRUResetBeforeCell: ("reset", "update", "candidate"),
    rl.FourGateLSTMCell: ("input", "forget", "candidate", "output"),
}


@each_cell
@pytest.mark.parametrize(("T", "B", "D", "H"), SIZES)
def test_forward_equals_the_scalar_reference(cell_class: type[rl.Cell], T: int, B: int, D: int, H: int) -> None:
    cell = random_cell(cell_class, D, H)
    x, state, _, _ = random_case(cell, T, B)
    params = {name: p.tolist() for name, p in cell.params.items()}
    expected = reference.unroll(cell_class.__name__, params, x.tolist(), state.tolist())
    assert relative_error(cell.forward(x, state).states, expected) <= 1e-12


@each_cell
@pytest.mark.parametrize(("T", "B", "D", "H"), [(1, 1, 1, 1), (4, 2, 3, 2), (3, 1, 2, 3)])
def test_backward_equals_the_derivatives_of_the_scalar_reference(
    cell_class: type[rl.Cell], T: int, B: int, D: int, H: int
) -> None:
    cell = random_cell(cell_class, D, H)
    x, state, d_h, d_state = random_case(cell, T, B)
    grads = cell.backward(cell.forward(x, state), d_h, d_state)
    values = {name: p.tolist() for name, p in cell.params.items()} | {"x": x.tolist(), "state": state.tolist()}
    found = grads.params | {"x": grads.x, "state": grads.states[0]}
    assert set(found) == set(values)
    for name in values:

        def loss(value: Any, name: str = name) -> Any:
            given = values | {name: value}
            params = {name: given[name] for name in cell.params}
            return reference.loss(
                cell_class.__name__, params, given["x"], given["state"], d_h.tolist(), d_state.tolist()
            )

        assert relative_error(found[name], reference.gradient(loss, values[name])) <= 1e-12, name


@each_cell
def test_the_state_defaults_to_zeros(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, _, _ = random_case(cell, 4, 2)
    np.testing.assert_array_equal(cell.forward(x).states, cell.forward(x, np.zeros_like(state)).states)


@each_cell
def test_the_tape_has_the_stated_names_and_shapes(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class, D=3, H=4)
    x, state, d_h, d_state = random_case(cell, 5, 2)
    tape = cell.forward(x, state)
    S, K, E = len(cell.state_names), len(cell.gate_names), len(cell.extra_names)
    assert cell.gate_names == GATES[cell_class]
    assert cell.state_names == (("h", "c") if "LSTM" in cell_class.__name__ else ("h",))
    assert tape.states.shape == (6, S, 2, 4)
    assert tape.gates.shape == (K, 5, 2, 4)
    assert tape.extras.shape == (E, 5, 2, 4)
    np.testing.assert_array_equal(tape.x, x)
    np.testing.assert_array_equal(tape.states[0], state)
    np.testing.assert_array_equal(tape.h, tape.states[1:, 0])
    for k, name in enumerate(cell.gate_names):
        np.testing.assert_array_equal(tape.gate(name), tape.gates[k])
        low, high = (-1, 0) if name == "candidate" else (0, 1)
        assert ((tape.gate(name) > low) & (tape.gate(name) < 1)).all()
        assert (tape.gate(name) < high).any()
    with pytest.raises(KeyError, match="memory"):
        tape.gate("memory")
    grads = cell.backward(tape, d_h, d_state)
    assert {name: g.shape for name, g in grads.params.items()} == {name: p.shape for name, p in cell.params.items()}
    assert list(grads.params) == list(cell.params)
    assert grads.x is not None
    assert grads.x.shape == x.shape
    assert grads.states.shape == tape.states.shape
    assert cell.backward(tape, d_h, d_state, input_gradient=False).x is None


@each_cell
def test_parameters_have_the_stated_shapes(cell_class: type[rl.Cell]) -> None:
    K, D, H = len(cell_class.gate_names), 3, 4
    shapes: dict[str, tuple[int, ...]] = {"W_x": (K, D, H), "W_h": (K, H, H), "b": (K, 1, H)}
    if cell_class is rl.GRUCell:
        shapes["b_hn"] = (1, H)
    if cell_class is rl.FourGateLSTMCell:
        shapes |= {"W_u": (H, H), "b_u": (1, H)}
    cell = cell_class(D, H, rng=0)
    assert {name: p.shape for name, p in cell.params.items()} == shapes
    for name, p in cell.params.items():
        assert getattr(cell, name) is p
    with pytest.raises(AttributeError, match="W_missing"):
        cell.W_missing  # noqa: B018 - reading the attribute is the test


@each_cell
def test_the_step_alone_is_one_step_of_the_loop(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, _, _ = random_case(cell, 1, 2)
    tape = cell.forward(x, state)
    a = np.stack([x[0] @ W + b for W, b in zip(cell.params["W_x"], cell.params["b"], strict=True)])
    before = a.copy(), state.copy()
    gates, next_state, extras = cell.step(a, state)
    np.testing.assert_allclose(np.array(gates), tape.gates[:, 0], rtol=1e-14)
    np.testing.assert_allclose(np.array(next_state), tape.states[1], rtol=1e-14)
    np.testing.assert_allclose(np.array(extras).reshape(tape.extras[:, 0].shape), tape.extras[:, 0], rtol=1e-14)
    np.testing.assert_array_equal(a, before[0])
    np.testing.assert_array_equal(state, before[1])


@each_cell
def test_the_passes_keep_nothing_on_the_cell(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, 4, 2)
    before = dict(vars(cell))
    cell.backward(cell.forward(x, state), d_h, d_state)
    assert vars(cell).keys() == before.keys()
    assert all(value is before[name] for name, value in vars(cell).items())


@each_cell
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("integers", [False, True])
def test_a_cell_computes_in_its_own_dtype_alone(cell_class: type[rl.Cell], dtype: type, integers: bool) -> None:
    """float64 input to a float32 cell is taken over in float32; so is all that follows."""
    cell = random_cell(cell_class).astype(dtype)
    x, state, d_h, d_state = random_case(cell, 4, 2)
    x = np.abs(x).astype(int).clip(0, 2)[..., 0] if integers else x
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    arrays = [*cell.params.values(), tape.states, tape.gates, tape.extras, tape.h]
    arrays += [*grads.params.values(), grads.states, cell.memory_gradient(tape, grads)]
    arrays += [] if grads.x is None else [grads.x, tape.x]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}
    assert cell.dtype == dtype


@each_cell
def test_float32_agrees_with_float64_to_its_precision(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, 5, 3)
    single = cell.astype(np.float32)
    exact = cell.backward(cell.forward(x, state), d_h, d_state)
    rough = single.backward(single.forward(x, state), d_h, d_state)
    assert 0 < relative_error(rough.states, exact.states) < 1e-5
    for name, g in exact.params.items():
        assert relative_error(rough.params[name], g) < 1e-5


@each_cell
def test_float32_is_drawn_as_the_rounded_float64(cell_class: type[rl.Cell]) -> None:
    single, double = cell_class(3, 4, rng=0, dtype=np.float32), cell_class(3, 4, rng=0)
    for name, p in double.params.items():
        assert single.params[name].dtype == np.float32
        np.testing.assert_array_equal(single.params[name], p.astype(np.float32))


@each_cell
def test_copies_share_nothing_with_the_original(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, _, _, _ = random_case(cell, 3, 2)
    before = cell.forward(x).states
    given = {name: p.copy() for name, p in cell.params.items()}
    for twin in (cell.with_params(given), cell.astype(np.float64)):
        assert type(twin) is cell_class
        np.testing.assert_array_equal(twin.forward(x).states, before)
        for p in twin.params.values():
            p += 1
    np.testing.assert_array_equal(cell.forward(x).states, before)
    np.testing.assert_array_equal(given["b"], cell.params["b"])


def test_relu_rnn_equals_the_scalar_recurrence() -> None:
    cell = rl.RNNCell(2, 3, rng=0, activation="relu", recurrent_init="identity")
    x, state, _, _ = random_case(cell, 6, 2)
    h = state[0].tolist()
    W_x, W_h, b = (cell.params[name][0].tolist() for name in ("W_x", "W_h", "b"))
    for x_t, found in zip(x.tolist(), cell.forward(x, state).h, strict=True):
        h = [
            [max(0.0, reference.dot(row, W_x, j).real + reference.dot(old, W_h, j).real + b[0][j]) for j in range(3)]
            for row, old in zip(x_t, h, strict=True)
        ]
        np.testing.assert_allclose(found, h, rtol=1e-12, atol=1e-14)


# ---- exact limits of the forward pass ---------------------------------------------------------


# ---- refusals --------------------------------------------------------------------------------

X, STATE = np.zeros((3, 2, 4)), np.zeros((2, 2, 5))


def test_a_nan_is_named_with_its_place() -> None:
    x = X.copy()
    x[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=re.escape("x: expected finite numbers, got nan at index (1, 0, 2)")):
        rl.LSTMCell(4, 5, rng=0).forward(x)


@each_cell
def test_a_nan_in_a_parameter_is_named(cell_class: type[rl.Cell]) -> None:
    for name in cell_class(4, 5, rng=0).params:
        cell = cell_class(4, 5, rng=0)
        cell.params[name][..., -1] = np.nan
        with refuses(ValueError, f"params[{name!r}]"):
            cell.forward(np.ones((3, 2, 4)), np.ones((len(cell.state_names), 2, 5)))


def test_with_params_refuses_what_does_not_fit() -> None:
    cell = rl.GRUCell(3, 4, rng=0)
    with refuses(ValueError, "params"):
        cell.with_params({name: p for name, p in cell.params.items() if name != "b"})
    with refuses(ValueError, "params"):
        cell.with_params(cell.params | {"W_u": np.zeros((4, 4))})
    with refuses(ValueError, "params['b']"):
        cell.with_params(cell.params | {"b": np.zeros((3, 4))})
    with refuses(TypeError, "params['b']"):
        cell.with_params(cell.params | {"b": np.zeros((3, 1, 4), int)})
    with refuses(ValueError, "dtype"):
        cell.astype(np.float16)


def test_an_overflow_of_the_state_is_an_error_that_names_the_step() -> None:
    """h_t = 1e100 h_{t-1} overflows at step 4 from h_0 = 1; no warning on the way, and the cell stays usable."""
    cell = rl.RNNCell(1, 1, rng=0, activation="relu").with_params(
        {"W_x": np.ones((1, 1, 1)), "W_h": np.full((1, 1, 1), 1e100), "b": np.zeros((1, 1, 1))}
    )
    x, one = np.zeros((9, 1, 1)), np.ones((1, 1, 1))
    with pytest.raises(FloatingPointError, match=r"RNNCell: state 'h' is not finite at t = 4$"):
        cell.forward(x, one)
    assert cell.forward(x[:3], one).h[-1, 0, 0] == pytest.approx(1e300)


@pytest.mark.parametrize("W_h", [0.5, -0.5])
def test_an_overflow_of_the_input_product_is_an_error_that_names_the_step(W_h: float) -> None:
    """x W_x is infinite at the second step alone; with W_h below 0 the last state is 0 again, and hides nothing."""
    cell = rl.RNNCell(1, 1, rng=0, activation="relu").with_params(
        {"W_x": np.full((1, 1, 1), 1e10), "W_h": np.full((1, 1, 1), W_h), "b": np.zeros((1, 1, 1))}
    )
    with pytest.raises(FloatingPointError, match=r"RNNCell: state 'h' is not finite at t = 2$"):
        cell.forward(np.array([0.0, 1e300, 0.0]).reshape(3, 1, 1))


@pytest.mark.parametrize(("name", "x", "W_x"), [("W_x", 1e200, 1.0), ("x", 1e-200, 1e200)])
def test_an_overflow_of_a_gradient_after_the_loop_is_an_error_that_names_it(name: str, x: float, W_x: float) -> None:
    """dL/dW_x = x dL/dh, or dL/dx = W_x dL/dh, is 1e400, of a relu unit whose state and other gradients are finite."""
    cell = rl.RNNCell(1, 1, rng=0, activation="relu").with_params(
        {"W_x": np.full((1, 1, 1), W_x), "W_h": np.ones((1, 1, 1)), "b": np.zeros((1, 1, 1))}
    )
    with pytest.raises(FloatingPointError, match=rf"RNNCell: dL/d{name} is not finite$"):
        cell.backward(cell.forward(np.full((1, 1, 1), x)), np.full((1, 1, 1), 1e200))


def test_numbers_too_large_for_float32_are_refused() -> None:
    with refuses(ValueError, "x"):
        rl.LSTMCell(4, 5, rng=0, dtype=np.float32).forward(np.full((3, 2, 4), 1e300))


def test_an_overflow_of_the_gradient_is_an_error_that_names_the_step() -> None:
    """dL/dh_t = 1e100 dL/dh_{t+1} from dL/dh_5 = 1 overflows at t = 1, while h itself grows from 1e-300 to 1e200."""
    cell = rl.RNNCell(1, 1, rng=0, activation="relu").with_params(
        {"W_x": np.ones((1, 1, 1)), "W_h": np.full((1, 1, 1), 1e100), "b": np.zeros((1, 1, 1))}
    )
    tape = cell.forward(np.zeros((5, 1, 1)), np.full((1, 1, 1), 1e-300))
    with pytest.raises(FloatingPointError, match=r"RNNCell: dL/dstate 'h' is not finite at t = 1$"):
        cell.backward(tape, np.zeros((5, 1, 1)), np.ones((1, 1, 1)))


def test_the_base_class_has_no_equations_of_its_own() -> None:
    class Blank(rl.Cell):
        gate_names = ("candidate",)

    cell, a = Blank(3, 4, rng=0), np.zeros((1, 2, 4))
    with pytest.raises(NotImplementedError, match="Blank"):
        cell.step(a, a)
    with pytest.raises(NotImplementedError, match="Blank"):
        cell.step_backward(a, a, a, a)


def test_a_cell_shows_its_class_sizes_and_dtype() -> None:
    assert repr(rl.GRUCell(3, 4, rng=0, dtype=np.float32)) == "GRUCell(3, 4, dtype=float32)"


@each_cell
def test_a_parameter_and_its_attribute_are_one(cell_class: type[rl.Cell]) -> None:
    """Assigned or scaled by its attribute, a parameter changes both passes, and a copy keeps nothing of the old one."""
    for name in cell_class(3, 4, rng=0).params:
        by_attribute, by_entry = random_cell(cell_class), random_cell(cell_class)
        setattr(by_attribute, name, 0.5 * by_attribute.params[name])
        by_entry.params[name] *= 0.5
        scaled = random_cell(cell_class)
        p = getattr(scaled, name)
        p *= 0.5
        setattr(scaled, name, p)  # what `cell.W_h *= 0.5` does
        x, state, d_h, d_state = random_case(by_entry, 3, 2)
        expected = by_entry.backward(by_entry.forward(x, state), d_h, d_state)
        for cell in (by_attribute, scaled):
            grads = cell.backward(cell.forward(x, state), d_h, d_state)
            np.testing.assert_array_equal(grads.states, expected.states)
            np.testing.assert_array_equal(grads.params["W_x"], expected.params["W_x"])
            zeros = cell.with_params({key: np.zeros_like(value) for key, value in cell.params.items()})
            assert not zeros.forward(x).h.any()


@each_cell
def test_one_complex_parameter_makes_all_complex(cell_class: type[rl.Cell]) -> None:
    """Whichever it is, and for integer input too, whose projection reads W_x and b alone."""
    cell = random_cell(cell_class)
    _, state, d_h, d_state = random_case(cell, 4, 2)
    x = np.array([[0, 1], [2, 2], [1, 0], [0, 2]])
    for name in cell.params:
        twin = cell.with_params(cell.params | {name: cell.params[name] + 1e-20j})
        tape, dense = twin.forward(x, state), twin.forward(np.eye(3)[x], state)
        assert tape.gates.dtype == np.complex128
        np.testing.assert_allclose(tape.states.imag, dense.states.imag, rtol=1e-12, atol=1e-34)
        grads = twin.backward(tape, d_h, d_state).params
        for key, expected in twin.backward(dense, d_h, d_state).params.items():
            np.testing.assert_allclose(grads[key].imag, expected.imag, rtol=1e-12, atol=1e-34)


def test_the_tape_of_another_cell_is_refused() -> None:
    lstm, four_gate = rl.LSTMCell(3, 4, rng=0), rl.FourGateLSTMCell(3, 4, rng=0)
    tape, d_h = lstm.forward(np.zeros((5, 2, 3))), np.zeros((5, 2, 4))
    no_tape: Any = tape.states
    for cell in (four_gate, rl.LSTMCell(5, 4, rng=0), rl.LSTMCell(3, 6, rng=0), rl.GRUCell(3, 4, rng=0)):
        with refuses(ValueError, "tape"):
            cell.backward(tape, d_h)
    with refuses(TypeError, "tape"):
        lstm.backward(no_tape, d_h)


def test_a_cell_without_gate_names_is_refused() -> None:
    class Nameless(rl.Cell):
        """A learner's first attempt."""

    with refuses(TypeError, "Nameless"):
        Nameless(2, 3, rng=0)


# ---- a cell of one's own ----------------------------------------------------------------------


def test_the_example_in_the_docstring_of_cell_is_right() -> None:
    _, _, code = (rl.Cell.__doc__ or "").partition("class Leaky")
    code, _, _ = f"class Leaky{code}".partition("\n\n    Where")
    names: dict[str, Any] = {"rl": rl, "np": np}
    exec(textwrap.dedent(f"        {code}"), names)
    cell = names["Leaky"](3, 4, rng=0)
    assert rl.check_gradients(cell).max_error <= 1e-9
    x = np.random.default_rng(1).normal(size=(2, 1, 3))
    h_1 = np.tanh(x[0] @ cell.W_x[0] + cell.b[0]) / 2
    np.testing.assert_allclose(cell.forward(x).h[0], h_1, rtol=1e-14)


class OneGate(rl.RNNCell):
    """Returns what a learner may forget to put into a tuple."""

    def __init__(self, *args: Any, bare: str) -> None:
        super().__init__(*args, rng=0)
        self.bare = bare

    def step(self, a: Any, prev: Any) -> Any:
        gates, following, extras = super().step(a, prev)
        return gates[0] if self.bare == "gates" else gates, following, extras

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_a,), (d_h,), _ = super().step_backward(d_next, prev, gates, extras)
        if self.bare == "back":
            return (d_a,), (self.back(d_a),), ()
        return d_a if self.bare == "d_a" else (d_a,), d_h if self.bare == "d_prev" else (d_h,), ()


@pytest.mark.parametrize(
    ("bare", "where"),
    [("gates", "step: gates"), ("d_a", "step_backward: d_a"), ("d_prev", "step_backward: d_prev"), ("back", "back")],
)
def test_an_array_in_place_of_a_tuple_of_one_is_named(bare: str, where: str) -> None:
    cell, x = OneGate(2, 4, bare=bare), np.zeros((2, 3, 2))
    with pytest.raises(ValueError, match=rf"^{where}: expected a tuple of 1 arrays \(B, H\), got an array of shape"):
        cell.backward(cell.forward(x), np.ones((2, 3, 4)))


@each_cell
@pytest.mark.parametrize("scale", [1, 1e3, 1e-30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text", [False, True])
def test_underflow_is_no_error_even_where_every_other_one_is_raised(
    cell_class: type[rl.Cell], scale: float, dtype: type, text: bool
) -> None:
    cell, rng = cell_class(5, 6, rng=0, dtype=dtype), np.random.default_rng(0)
    for p in cell.params.values():
        p *= scale
    readout = rl.Dense(6, 5, rng=1, dtype=dtype)
    model = rl.SequenceModel(cell, readout, rl.softmax_cross_entropy if text else rl.mean_squared_error)
    if text:
        batch = rl.Batch(rng.integers(0, 5, (30, 3)), rng.integers(0, 5, (30, 3)))
    else:
        batch = rl.Batch(rng.normal(size=(30, 3, 5)).astype(dtype), rng.normal(size=(30, 3, 5)).astype(dtype))
    with np.errstate(all="raise"):
        rl.Trainer(model, rl.Adam(1e-3), clip_norm=1.0).fit([batch] * 2, 2)
        model.predict(batch.x)


@pytest.mark.parametrize("kind", ["gate_names", "state_names", "extra_names"])
def test_names_that_are_one_string_are_refused(kind: str) -> None:
    named = type("Named", (rl.RNNCell,), {kind: "forget"})
    with pytest.raises(TypeError, match=rf"{kind}: .* write \('forget',\)"):
        named(3, 4, rng=0)
