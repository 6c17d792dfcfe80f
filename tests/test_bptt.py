"""Backpropagation through time: dL/dstate_t at every t, the memory's gradient, and limits known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnnlab as rl
from tests import reference
from tests.cases import each_cell, random_case, random_cell, relative_error


@each_cell
def test_states_holds_the_derivative_of_the_network_restarted_at_each_t(cell_class: type[rl.Cell]) -> None:
    """By the scalar reference: L(state_t) = what is read from h_t and all that follows, one state part at a time."""
    T, B = 4, 2
    cell = random_cell(cell_class, D=2, H=3)
    x, state, d_h, d_state = random_case(cell, T, B)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    params = {name: p.tolist() for name, p in cell.params.items()}
    for t in range(T + 1):

        def loss(start: Any, t: int = t) -> Any:
            read = sum(d_h[t - 1, b, j] * start[0][b][j] for b in range(B) for j in range(3)) if t else 0
            after = reference.loss(
                cell_class.__name__, params, x[t:].tolist(), start, d_h[t:].tolist(), d_state.tolist()
            )
            return read + after

        exact = np.array(reference.gradient(loss, tape.states[t].tolist()))
        for s, name in enumerate(cell.state_names):
            assert relative_error(grads.states[t, s], exact[s]) <= 1e-12, (t, name)


@each_cell
def test_the_last_state_receives_d_state_and_what_is_read_from_the_last_output(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, 3, 2)
    expected = d_state.copy()
    expected[0] += d_h[-1]
    np.testing.assert_array_equal(cell.backward(cell.forward(x, state), d_h, d_state).states[-1], expected)


@each_cell
def test_d_state_defaults_to_zeros(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, 3, 2)
    tape = cell.forward(x, state)
    left_out, zeros = cell.backward(tape, d_h), cell.backward(tape, d_h, np.zeros_like(d_state))
    np.testing.assert_array_equal(left_out.states, zeros.states)
    for name, g in zeros.params.items():
        np.testing.assert_array_equal(left_out.params[name], g)


# ---- the gradient of the memory ---------------------------------------------------------------


def test_memory_gradient_of_an_lstm_counts_the_path_through_h() -> None:
    """Delta c_t by its definition: nudge c_t where it is formed, so that h_t = o_t tanh(c_t) moves with it."""
    T, B = 5, 2
    cell = random_cell(rl.LSTMCell, D=2, H=3)
    x, state, d_h, d_state = random_case(cell, T, B)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    found = cell.memory_gradient(tape, grads)
    params = {name: p.tolist() for name, p in cell.params.items()}
    output_gate = tape.gate("output").tolist()
    for t in range(1, T + 1):

        def loss(c: Any, t: int = t) -> Any:
            h = [[output_gate[t - 1][b][j] * reference.tanh(c[b][j]) for j in range(3)] for b in range(B)]
            read = sum(d_h[t - 1, b, j] * h[b][j] for b in range(B) for j in range(3))
            return read + reference.loss("LSTMCell", params, x[t:].tolist(), [h, c], d_h[t:].tolist(), d_state.tolist())

        assert relative_error(found[t], reference.gradient(loss, tape.states[t, 1].tolist())) <= 1e-12
    np.testing.assert_array_equal(found[0], grads.states[0, 1])


def test_the_two_gradients_of_an_lstm_memory_differ_as_documented() -> None:
    """For a loss read from h_T the coordinate is 0 at T, and elsewhere f_{t+1} times the textbook's delta c_{t+1}."""
    cell = random_cell(rl.LSTMCell)
    x, state, d_h, _ = random_case(cell, 5, 2)
    d_h[:-1] = 0
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h)
    delta = cell.memory_gradient(tape, grads)
    np.testing.assert_array_equal(grads.states[-1, 1], np.zeros((2, 4)))
    assert (delta[-1] != 0).all()
    assert relative_error(grads.states[:-1, 1], tape.gate("forget") * delta[1:]) <= 1e-14


@each_cell
def test_memory_gradient_is_the_coordinate_where_the_memory_has_no_second_path(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, 3, 2)
    tape = cell.forward(x, state)
    grads = cell.backward(tape, d_h, d_state)
    before = grads.states.copy()
    same = (cell.memory_gradient(tape, grads) == grads.states[:, -1]).all()
    assert same == (cell_class is not rl.LSTMCell)
    np.testing.assert_array_equal(grads.states, before)


# ---- exact limits -----------------------------------------------------------------------------
