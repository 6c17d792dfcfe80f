"""The gradient laboratory, against complex steps, closed forms and sums that must come out."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import lab
from tests.cases import CELLS, MinimalGatedUnit, random_case, random_cell, refuses, relative_error

STEP = 1e-30


class LeakyMemory(rl.Cell):
    """A learner's cell with two states that both leak: h = h/2 + tanh(c), c = f c + (1 - f) tanh(x W + h W_h)."""

    gate_names = ("forget", "candidate")
    state_names = ("h", "c")

    def step(self, a: Any, prev: Any) -> Any:
        h, c = prev
        f, n = a + h @ self.W_h
        f, n = rl.ops.sigmoid(f), np.tanh(n)
        c = f * c + (1 - f) * n
        return (f, n), (h / 2 + np.tanh(c), c), ()

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h, d_c), (h, c), (f, n) = d_next, prev, gates
        d_c = d_c + d_h * (1 - np.tanh(f * c + (1 - f) * n) ** 2)
        d_a = (d_c * (c - n) * f * (1 - f), d_c * (1 - f) * (1 - n**2))
        return d_a, (d_h / 2 + self.back(d_a), d_c * f), ()


every_cell = pytest.mark.parametrize("cell_class", [*CELLS, MinimalGatedUnit, LeakyMemory], ids=lambda c: c.__name__)


@pytest.fixture(params=(*CELLS, MinimalGatedUnit, LeakyMemory), ids=lambda c: c.__name__)
def case(request: pytest.FixtureRequest) -> tuple[rl.Cell, rl.Tape, Any, Any]:
    """(cell, tape, d_h, d_state) of each cell: T = 6, B = 2, H = 3, all random."""
    cell = random_cell(request.param, D=2, H=3)
    x, state, d_h, d_state = random_case(cell, T=6, B=2)
    return cell, cell.forward(x, state), d_h, d_state


@pytest.mark.parametrize("cell_class", [MinimalGatedUnit, LeakyMemory], ids=lambda c: c.__name__)
def test_the_learners_cells_are_themselves_right(cell_class: type[rl.Cell]) -> None:
    assert rl.check_gradients(random_cell(cell_class)).max_error < 1e-9


def complex_jacobian(cell: rl.Cell, tape: rl.Tape, start: int, end: int) -> Any:
    """d state_end / d state_start of the forward pass, (B, S*H, S*H), column by column."""
    _, S, B, H = tape.states.shape
    J = np.empty((B, S * H, S * H))
    for j in range(S * H):
        state = tape.states[start].astype(complex)
        state[j // H, :, j % H] += 1j * STEP
        final = cell.astype(complex).forward(tape.x[start:end].astype(complex), state).states[-1]
        J[:, :, j] = final.imag.transpose(1, 0, 2).reshape(B, S * H) / STEP
    return J


# ---- Jacobians --------------------------------------------------------------------------------


def test_one_step_jacobians_agree_with_complex_step(case: Any) -> None:
    cell, tape, *_ = case
    J = lab.jacobians(cell, tape)
    for t in range(6):
        assert relative_error(J[t], complex_jacobian(cell, tape, t, t + 1)) <= 1e-12
    np.testing.assert_array_equal(lab.jacobians(cell, tape, [4, 1]), J[[4, 1]])


def test_products_over_a_span_agree_with_complex_step(case: Any) -> None:
    cell, tape, *_ = case
    products = list(lab.jacobian_products(cell, tape, 1, 6))
    assert [(p.start, p.end) for p in products] == [(t, 6) for t in (5, 4, 3, 2, 1)]
    for product in products:
        exact = complex_jacobian(cell, tape, product.start, 6)
        assert relative_error(product.value(), exact) <= 1e-12
        singular = np.linalg.svd(exact, compute_uv=False)
        np.testing.assert_allclose(product.log_norm(), np.log(singular[:, 0]), rtol=0, atol=1e-12)
        radius = np.abs(np.linalg.eigvals(exact)).max(axis=-1)
        np.testing.assert_allclose(product.log_spectral_radius(), np.log(radius), rtol=0, atol=1e-9)
        np.testing.assert_array_equal(np.abs(product.matrix).max(axis=(1, 2)), 1)
    np.testing.assert_array_equal(lab.jacobian_product(cell, tape, 1, 6).matrix, products[-1].matrix)
    assert [(p.start, p.end) for p in lab.jacobian_products(cell, tape)] == [(t, 6) for t in (5, 4, 3, 2, 1, 0)]


def forgetful_lstm(forget_bias: float, T: int) -> tuple[rl.Cell, rl.Tape]:
    """All weights zero: c_t -> c_{t+1} is sigmoid(b_f), exactly, at every step."""
    cell = rl.LSTMCell(1, 2, rng=0)
    cell = cell.with_params({name: np.zeros_like(p) for name, p in cell.params.items()})
    cell.set_bias("forget", forget_bias)
    return cell, cell.forward(np.zeros((T, 1, 1)))


@pytest.mark.parametrize("forget_bias", [-3.0, 0.0, 3.0])
def test_a_thousand_small_factors_do_not_underflow(forget_bias: float) -> None:
    cell, tape = forgetful_lstm(forget_bias, 1000)
    exact = -1000 * np.log1p(np.exp(-forget_bias))  # log of sigmoid(b_f)^1000, down to -3049
    product = lab.jacobian_product(cell, tape)
    np.testing.assert_allclose(product.log_spectral_radius(), exact, rtol=1e-12)
    np.testing.assert_allclose(product.log_scale + np.log(np.diagonal(product.matrix[0])[2:]), exact, rtol=1e-12)
    if exact < -745:
        with pytest.raises(FloatingPointError):
            product.value()


def test_a_thousand_large_factors_do_not_overflow() -> None:
    cell = rl.RNNCell(1, 2, activation="relu", recurrent_init="identity", rng=0)
    cell = cell.with_params({"W_x": cell.W_x, "W_h": 4 * cell.W_h, "b": np.zeros_like(cell.b)})
    tape = cell.forward(np.zeros((1000, 1, 1)), np.full((1, 1, 2), 1e-301))
    product = lab.jacobian_product(cell, tape)
    np.testing.assert_allclose(product.log_singular_values(), np.full((1, 2), 1000 * np.log(4)), rtol=1e-12)
    with pytest.raises(FloatingPointError):  # 4^1000 is 1e602
        product.value()


def test_a_product_that_is_zero_says_so() -> None:
    cell = rl.RNNCell(1, 2, activation="relu", rng=0)
    cell.params["b"][...] = -10
    product = lab.jacobian_product(cell, cell.forward(np.zeros((3, 1, 1))))
    assert (product.log_scale == -np.inf).all()
    assert not product.value().any()
    assert (product.log_norm() == -np.inf).all()


def test_singular_values_that_the_largest_hides_are_nan_and_the_others_right() -> None:
    cell = rl.RNNCell(1, 2, rng=0)
    cell = cell.with_params({"W_x": cell.W_x, "W_h": np.diag([1.0, 0.1])[None], "b": np.zeros_like(cell.b)})
    decay = lab.jacobian_decay(cell, cell.forward(np.zeros((30, 1, 1))))  # at h = 0 the Jacobian is W_h^T
    np.testing.assert_allclose(decay.log_singular_values[:, 0, 0], 0, atol=1e-14)
    small = decay.log_singular_values[:, 0, 1]
    np.testing.assert_allclose(small[:15], -decay.spans[:15] * np.log(10), rtol=1e-12)
    assert np.isnan(small[16:]).all()


def test_measured_decay_stays_below_the_bound_of_a_plain_network() -> None:
    cell = random_cell(rl.RNNCell, H=5)
    x, state, *_ = random_case(cell, T=40, B=3)
    tape = cell.forward(x, state)
    decay = lab.jacobian_decay(cell, tape)
    assert decay.log_bound is not None
    assert decay.log_gate_product is None
    slope = (1 - tape.h**2).max(axis=-1)[::-1]
    exact = (np.log(slope) + np.log(np.linalg.svd(cell.W_h[0], compute_uv=False)[0])).cumsum(axis=0)
    np.testing.assert_allclose(decay.log_bound, exact, rtol=0, atol=1e-12)
    assert (decay.log_norm <= decay.log_bound + 1e-12).all()
    np.testing.assert_array_equal(decay.log_norm, decay.log_memory_norm)


def test_memory_norm_of_an_lstm_without_weights_is_its_gate_product() -> None:
    cell, tape = forgetful_lstm(1.0, 20)
    decay = lab.jacobian_decay(cell, tape, 5)
    assert decay.log_bound is None
    assert decay.log_gate_product is not None
    exact = -decay.spans * np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(decay.log_gate_product[:, 0, 0], exact, rtol=1e-12)
    np.testing.assert_allclose(decay.log_memory_norm[:, 0], exact, rtol=1e-12)


def test_the_memory_norm_is_that_of_the_memorys_corner_of_the_product() -> None:
    cell = random_cell(rl.LSTMCell, H=3)
    tape = cell.forward(*random_case(cell, T=5, B=2)[:2])
    corners = [product.value()[:, -3:, -3:] for product in lab.jacobian_products(cell, tape)]
    exact = np.log(np.linalg.norm(corners, ord=2, axis=(2, 3)))
    np.testing.assert_allclose(lab.jacobian_decay(cell, tape).log_memory_norm, exact, rtol=1e-12, atol=1e-12)


def test_a_plain_cell_with_another_way_past_its_weights_has_no_bound() -> None:
    class LeakyRNN(rl.RNNCell):
        def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
            d_a, (d_h,), _ = super().step_backward(d_next, prev, gates, extras)
            return d_a, (d_h + 0.5 * d_next[0],), ()

    cell = random_cell(LeakyRNN)
    assert lab.jacobian_decay(cell, cell.forward(random_case(cell, 4, 1)[0])).log_bound is None


# ---- paths ------------------------------------------------------------------------------------


def test_parts_add_up_to_the_whole(case: Any) -> None:
    cell, tape, d_h, d_state = case
    paths = lab.memory_paths(cell, tape, d_h, d_state)
    assert relative_error(sum(paths.parts.values()), paths.total) <= 1e-12
    assert relative_error(paths.total, cell.memory_gradient(tape, cell.backward(tape, d_h, d_state))) == 0
    assert ("other" in paths.parts) == isinstance(cell, LeakyMemory)
    assert set(paths.norms()) == {*paths.parts, "total"}


def expected_paths(cell: rl.Cell, tape: rl.Tape, d_h: Any, d_state: Any) -> tuple[Any, dict[str, Any]]:
    """delta of the memory and its parts by the chain rule, written out for each cell, step by step."""
    T, (_, S, B, H) = len(tape.x), tape.states.shape
    names = ("memory", "loss", *cell.gate_names)
    parts = {name: np.zeros((T + 1, B, H)) for name in names}
    d_h_next, delta = {"loss": d_state[0] + d_h[-1]}, np.zeros((B, H))  # dL/dh_t by origin; delta of step t + 1
    through_use = dict.fromkeys(names, 0.0)
    for t in reversed(range(T + 1)):
        now = {name: np.zeros((B, H)) for name in names}
        if S == 1:
            now |= d_h_next
        elif isinstance(cell, rl.LSTMCell):
            if t:
                opens = tape.gate("output")[t - 1] * (1 - np.tanh(tape.states[t, 1]) ** 2)
                now |= {name: d * opens for name, d in d_h_next.items()}
        else:
            now |= through_use
        if S == 2 and t == T:
            now["loss"] = now["loss"] + d_state[1]
        if t < T:
            now["memory"] = now["memory"] + kept(cell, tape, t) * delta
        for name in names:
            parts[name][t] = now[name]
        delta = sum(now.values())
        if t:
            d_out = sum(d_h_next.values())
            if isinstance(cell, rl.FourGateLSTMCell):
                through_use = {
                    name: kept(cell, tape, t - 1)
                    * ((d * tape.gate("output")[t - 1] * (1 - tape.extras[1, t - 1] ** 2)) @ cell.W_u.T)
                    for name, d in d_h_next.items()
                }
            d_h_next = gate_parts(cell, tape, t - 1, d_out, delta)
            d_h_next["loss"] = d_h[t - 2] if t >= 2 else np.zeros((B, H))
    return sum(parts.values()), parts


def kept(cell: rl.Cell, tape: rl.Tape, t: int) -> Any:
    return 0.0 if isinstance(cell, rl.RNNCell) else tape.gate("update" if "update" in cell.gate_names else "forget")[t]


def gate_parts(cell: rl.Cell, tape: rl.Tape, t: int, d_h: Any, delta: Any) -> dict[str, Any]:
    """What each gate of step t (0-based) sends back to h_t."""
    h, W = tape.states[t, 0], dict(zip(cell.gate_names, cell.W_h, strict=True))
    g = {name: tape.gate(name)[t] for name in cell.gate_names}
    if isinstance(cell, rl.RNNCell):
        return {"candidate": (delta * (1 - g["candidate"] ** 2)) @ W["candidate"].T}
    if "update" in g:
        r, z, n = g["reset"], g["update"], g["candidate"]
        d_n, d_z = delta * (1 - z) * (1 - n**2), delta * (h - n) * z * (1 - z)
        if isinstance(cell, rl.GRUCell):
            d_r = d_n * (h @ W["candidate"] + cell.b_hn) * r * (1 - r)
            candidate = (d_n * r) @ W["candidate"].T
        else:
            d_r = (d_n @ W["candidate"].T) * h * r * (1 - r)
            candidate = (d_n @ W["candidate"].T) * r
        return {"reset": d_r @ W["reset"].T, "update": d_z @ W["update"].T, "candidate": candidate}
    i, f, n, o = g.values()
    c = tape.states[t, 1]
    four = isinstance(cell, rl.FourGateLSTMCell)
    out = np.tanh((f * c) @ cell.W_u + cell.b_u) if four else np.tanh(tape.states[t + 1, 1])
    d_kept = delta + (d_h * o * (1 - out**2)) @ cell.W_u.T if four else delta
    d_a = {
        "input": delta * n * i * (1 - i),
        "forget": d_kept * c * f * (1 - f),
        "candidate": delta * i * (1 - n**2),
        "output": d_h * out * o * (1 - o),
    }
    return {name: d @ W[name].T for name, d in d_a.items()}


@pytest.mark.parametrize("cell_class", CELLS, ids=lambda c: c.__name__)
def test_each_part_is_the_chain_rules(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class)
    x, state, d_h, d_state = random_case(cell, T=5, B=2)
    tape = cell.forward(x, state)
    total, parts = expected_paths(cell, tape, d_h, d_state)
    paths = lab.memory_paths(cell, tape, d_h, d_state)
    scale = np.abs(total).max()
    assert set(paths.parts) == set(parts)
    assert np.abs(paths.total - total).max() <= 1e-12 * scale
    for name, part in parts.items():
        assert np.abs(paths.parts[name] - part).max() <= 1e-12 * scale, name


@pytest.mark.parametrize("powers", [np.zeros(6), np.full(6, -200.0), np.linspace(-200, 200, 6)])
def test_shares_are_projections_on_the_whole_and_add_up(powers: Any) -> None:
    """At any size of the gradient, and where it vanishes by 400 powers of ten on its way."""
    scale = 10.0 ** powers[:, None, None]
    cell = random_cell(rl.LSTMCell)
    x, state, d_h, _ = random_case(cell, T=5, B=2)
    d_h[3:] = 0  # nothing is read after t = 3: there the whole is 0
    paths = lab.memory_paths(cell, cell.forward(x, state), d_h)
    scaled = lab.MemoryPaths(paths.total * scale, {name: part * scale for name, part in paths.parts.items()})
    for name, share in scaled.shares().items():
        for t in range(4):
            exact = (paths.parts[name][t] * paths.total[t]).sum() / (paths.total[t] ** 2).sum()
            assert share[t] == pytest.approx(exact, rel=1e-12, abs=1e-15), (name, t)
    np.testing.assert_allclose(sum(scaled.shares().values()), [1, 1, 1, 1, 0, 0], rtol=1e-12)


# ---- terms of the sum -------------------------------------------------------------------------


def test_distances_add_up_to_the_gradient(case: Any) -> None:
    cell, tape, d_h, d_state = case
    grads = cell.backward(tape, d_h, d_state).params
    terms = lab.distance_terms(cell, tape, d_h, d_state)
    assert all(relative_error(terms.total[name], grads[name]) <= 1e-12 for name in grads)
    assert all(norms.shape == (6,) for norms in terms.norms.values())


def test_a_distance_is_the_weights_use_at_that_one_step(case: Any) -> None:
    cell, tape, d_h, _ = case
    d_h = np.concatenate((np.zeros_like(d_h[:-1]), d_h[-1:]))  # the loss is read from h_T alone
    for distance, grads in enumerate(lab.distance_gradients(cell, tape, d_h)):
        t = 5 - distance
        for name, p in cell.params.items():
            exact = np.empty(p.shape)
            for index in np.ndindex(p.shape):
                bumped = {key: value.astype(complex) for key, value in cell.params.items()}
                bumped[name][index] += 1j * STEP
                state = cell.with_params(bumped).forward(tape.x[t : t + 1].astype(complex), tape.states[t] + 0j)
                h = state.h
                if distance:
                    h = cell.astype(complex).forward(tape.x[t + 1 :].astype(complex), state.states[-1]).h
                exact[index] = (d_h[-1] * h[-1]).sum().imag / STEP
            np.testing.assert_allclose(grads[name], exact, rtol=0, atol=1e-12 * max(1, np.abs(exact).max()))
    assert distance == 5


def test_norms_of_distances_stand_gate_by_gate() -> None:
    cell = random_cell(rl.GRUCell)
    x, state, d_h, _ = random_case(cell, T=4, B=2)
    tape = cell.forward(x, state)
    terms = lab.distance_terms(cell, tape, d_h)
    last = list(lab.distance_gradients(cell, tape, d_h))[3]
    assert terms.norms["W_h[update]"][3] == pytest.approx(np.linalg.norm(last["W_h"][1]), rel=1e-12)
    assert terms.norms["b_hn"][3] == pytest.approx(np.linalg.norm(last["b_hn"]), rel=1e-12)
    assert set(terms.norms) == {f"{p}[{g}]" for p in ("W_x", "W_h", "b") for g in cell.gate_names} | {"b_hn"}


def test_distances_beyond_a_loss_read_early_are_zero() -> None:
    cell = random_cell(rl.LSTMCell)
    x, _, d_h, _ = random_case(cell, T=5, B=2)
    d_h[2:] = 0
    norms = lab.distance_terms(cell, cell.forward(x), d_h).norms["W_x[input]"]
    assert (norms[:2] > 0).all()
    assert not norms[2:].any()


# ---- truncation -------------------------------------------------------------------------------


def stacked_model(seed: int = 0) -> rl.SequenceModel:
    cells = [random_cell(rl.GRUCell, D=3, H=4, seed=seed), random_cell(rl.LSTMCell, D=4, H=5, seed=seed + 1)]
    return rl.SequenceModel(cells, rl.Dense(5, 3, rng=seed), rl.softmax_cross_entropy)


def random_batch(T: int, B: int, seed: int = 0) -> rl.Batch:
    rng = np.random.default_rng(seed)
    return rl.Batch(rng.normal(size=(T, B, 3)), rng.integers(0, 3, (T, B)))


def test_truncation_to_the_whole_length_is_no_truncation() -> None:
    result = lab.truncation(stacked_model(), random_batch(7, 2), [2, 7, 50])
    np.testing.assert_array_equal(result.lengths, [2, 7, 50])
    for name in result.cosine:
        np.testing.assert_allclose(result.cosine[name][1:], 1, rtol=1e-14)
        assert (result.relative_error[name][1:] <= 1e-14).all()
        assert result.relative_error[name][0] > 1e-3
    assert result.angle()[0] > 0.1
    assert {"all", "cells.0.W_h", "cells.1.W_h"} <= set(result.cosine)
    assert not any(name.startswith("readout") for name in result.cosine)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_truncation_is_training_on_blocks_with_the_state_carried(k: int) -> None:
    model, batch = stacked_model(), random_batch(6, 2)
    state, total = None, {}
    for start in range(0, 6, k):
        block = rl.Batch(batch.x[start : start + k], batch.y[start : start + k])
        part = model.loss_and_grads(block, state)
        state = part.state
        total = {name: total.get(name, 0) + g * k / 6 for name, g in part.grads.items()}
    full = model.loss_and_grads(batch).grads
    found = lab.truncation(model, batch, [k])
    a, b = (np.concatenate([g[n].ravel() for n in full if n.startswith("cells.")]) for g in (total, full))
    assert found.cosine["all"][0] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-12)
    assert found.relative_error["all"][0] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), abs=1e-12)


def test_truncation_of_a_loss_at_the_end_counts_the_last_steps() -> None:
    cell = random_cell(rl.LSTMCell, D=3, H=4)
    model = rl.SequenceModel(cell, rl.Dense(4, 3, rng=0), rl.softmax_cross_entropy)
    mask = np.zeros((7, 2), bool)
    mask[-1] = True
    batch = replace(random_batch(7, 2), mask=mask)
    result = model.loss_and_grads(batch)
    (d_h,) = lab.output_gradients(model, batch, result)
    terms = [g["W_h"] for g in lab.distance_gradients(cell, result.tapes[0], d_h)]
    full = result.grads["cells.0.W_h"]
    found = lab.truncation(model, batch, [4]).relative_error["cells.0.W_h"][0]
    assert found == pytest.approx(np.linalg.norm(sum(terms[:4]) - full) / np.linalg.norm(full), rel=1e-10)


def test_lengths_are_powers_of_two_up_to_the_whole() -> None:
    for lengths in ([1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 6], [1, 2, 4, 8]):
        found = lab.truncation(stacked_model(), random_batch(lengths[-1], 1)).lengths
        np.testing.assert_array_equal(found, lengths)


def test_output_gradients_give_each_layers_state_gradients_again() -> None:
    model, batch = stacked_model(), random_batch(5, 2)
    result = model.loss_and_grads(batch)
    received = lab.output_gradients(model, batch, result)
    for cell, tape, d_h, grads in zip(model.cells, result.tapes, received, result.cell_grads, strict=True):
        np.testing.assert_allclose(cell.backward(tape, d_h).states, grads.states, rtol=1e-12, atol=1e-16)


# ---- connectivity -----------------------------------------------------------------------------


def complex_connectivity(model: rl.SequenceModel, x: Any, states: Any) -> Any:
    """||d h_T / d x_t||, (T, B), of the forward pass, entry by entry."""
    T, B, D = x.shape
    J = np.zeros((T, B, D, model.cells[-1].hidden_size))
    for t, d in np.ndindex(T, D):
        h = x.astype(complex)
        h[t, :, d] += 1j * STEP
        for cell, state in zip(model.cells, states, strict=True):
            h = cell.astype(complex).forward(h, None if state is None else state + 0j).h
        J[t, :, d] = h[-1].imag / STEP
    return np.sqrt((J**2).sum(axis=(2, 3)))


@every_cell
def test_connectivity_agrees_with_complex_step(cell_class: type[rl.Cell]) -> None:
    cell = random_cell(cell_class, D=3)
    x, state, *_ = random_case(cell, T=6, B=2)
    model = rl.SequenceModel(cell, rl.Dense(4, 1, rng=0), rl.mean_squared_error)
    exact = complex_connectivity(model, x, (state,))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(lab.connectivity(cell, x, state), np.log(exact), rtol=0, atol=1e-12)
        np.testing.assert_allclose(lab.connectivity(model, x, (state,)), np.log(exact), rtol=0, atol=1e-12)


def test_connectivity_of_a_stack_agrees_with_complex_step() -> None:
    model, x = stacked_model(), random_batch(6, 2).x
    exact = complex_connectivity(model, x, (None, None))
    np.testing.assert_allclose(lab.connectivity(model, x), np.log(exact), rtol=0, atol=1e-12)


def test_connectivity_over_a_thousand_steps_is_exact_in_logarithms() -> None:
    cell = rl.RNNCell(2, 2, recurrent_init="identity", input_init="identity", rng=0)
    cell = cell.with_params({"W_x": cell.W_x, "W_h": 0.3 * cell.W_h, "b": np.zeros_like(cell.b)})
    found = lab.connectivity(cell, np.zeros((1000, 1, 2)))  # d h_T / d x_t = 0.3^(T - t) I, down to 1e-522
    exact = np.arange(999, -1, -1) * np.log(0.3) + np.log(2) / 2
    np.testing.assert_allclose(found[:, 0], exact, rtol=1e-12)


def test_steps_that_leave_float32_are_taken_in_float64() -> None:
    cell = rl.RNNCell(2, 2, recurrent_init="identity", input_init="identity", rng=0, dtype=np.float32)
    cell = cell.with_params({"W_x": cell.W_x, "W_h": cell.W_h * np.float32(1e-12), "b": np.zeros_like(cell.b)})
    found = lab.connectivity(cell, np.zeros((40, 1, 2), np.float32))[:, 0]
    np.testing.assert_allclose(found, np.arange(39, -1, -1) * np.log(1e-12) + np.log(2) / 2, rtol=1e-6)


def test_integers_count_as_their_one_hot_rows() -> None:
    model = stacked_model()
    labels = np.array([[0, 2], [1, 1], [2, 0]])
    np.testing.assert_allclose(
        lab.connectivity(model, labels), lab.connectivity(model, np.eye(3)[labels]), rtol=0, atol=1e-13
    )
    y = np.array([[1, 1], [0, 2], [1, 0]])
    one_hot = lab.input_gradient_norms(model, rl.Batch(np.eye(3)[labels], y))
    np.testing.assert_array_equal(lab.input_gradient_norms(model, rl.Batch(labels, y)), one_hot)


def test_input_gradient_norms_agree_with_complex_step() -> None:
    model, batch = stacked_model(), random_batch(4, 2)
    exact = np.zeros((4, 2, 3))
    for index in np.ndindex(exact.shape):
        x = batch.x.astype(complex)
        x[index] += 1j * STEP
        exact[index] = model.astype(complex).loss_and_grads(replace(batch, x=x)).loss.imag / STEP
    assert relative_error(lab.input_gradient_norms(model, batch), np.linalg.norm(exact, axis=-1)) <= 1e-12


# ---- text -------------------------------------------------------------------------------------


def test_shaded_text_is_plain_html_with_one_span_a_character() -> None:
    text = lab.ShadedText("<b>&\nx", np.log(10) * np.array([0.0, -1, -2, -3, -np.inf, -9]), decades=2, caption="<i>")
    np.testing.assert_allclose(text.shades, [1, 0.5, 0, 0, 0, 0], atol=1e-15)
    lower = lab.ShadedText(text.text, text.log_values - 500, decades=2)
    np.testing.assert_allclose(lower.shades, text.shades, atol=1e-12)
    html = text._repr_html_()
    assert html.count("<span") == 6
    assert "&lt;i&gt;" in html
    assert "&amp;" in html
    assert "<b>" not in html
    assert "script" not in html
    assert "rgb(86,180,233)" in html
    assert "rgb(255,255,255)" in html


def test_text_that_depends_on_nothing_is_not_shaded() -> None:
    assert not lab.ShadedText("ab", np.full(2, -np.inf)).shades.any()


# ---- gates ------------------------------------------------------------------------------------


def gated_tape(values: dict[str, Any]) -> rl.Tape:
    gates = np.array(list(values.values()), float)
    return rl.Tape(np.zeros((2, 2, 1)), np.zeros((3, 2, 2, 2)), gates, np.zeros((1, 2, 2, 2)), tuple(values))


def test_gate_statistics_of_a_tape_written_by_hand() -> None:
    cell = rl.LSTMCell(1, 2, rng=0)
    forget = [[[0.95, 0.5], [0.95, 0.5]], [[0.05, 0.5], [0.05, 0.5]]]
    half = np.full((2, 2, 2), 0.5)
    tape = gated_tape({"input": half, "forget": forget, "candidate": -half, "output": half})
    stats = lab.gate_statistics(cell, tape)
    assert stats.gate_names == ("input", "forget", "output")
    np.testing.assert_array_equal(stats.left, [[0, 0], [0.5, 0], [0, 0]])
    np.testing.assert_array_equal(stats.right, [[0, 0], [0.5, 0], [0, 0]])
    np.testing.assert_allclose(stats.mean[1], [0.5, 0.5])
    np.testing.assert_allclose(stats.half_life, [1, 1])  # a memory halved each step
    assert lab.gate_statistics(cell, [tape, tape]).left[1, 0] == 0.5
    at_the_threshold = lab.gate_statistics(cell, tape, low=0.05, high=0.95)
    assert not at_the_threshold.left.any()
    assert not at_the_threshold.right.any()
    assert str(stats).splitlines() == [
        "gate    mean  below 0.1  above 0.9  (share of time, all units)",
        "input   0.50       0.00       0.00",
        "forget  0.50       0.25       0.25",
        "output  0.50       0.00       0.00",
        "half-life in steps: shortest 1, median 1, longest 1",
    ]


def test_half_lives_order_the_memories() -> None:
    cell = rl.GRUCell(1, 4, rng=0, update_bias=np.array([0.0, 900.0, 3.0, -900.0]))
    cell = cell.with_params(cell.params | {"W_x": 0 * cell.W_x, "W_h": 0 * cell.W_h})
    stats = lab.gate_statistics(cell, cell.forward(np.zeros((3, 1, 1))))
    z = 1 / (1 + np.exp(-3))
    np.testing.assert_allclose(stats.half_life[:3], [1, np.inf, np.log(0.5) / np.log(z)], rtol=1e-12)
    assert stats.half_life[3] < 0.01
    np.testing.assert_array_equal(stats.order, [1, 2, 0, 3])
    assert str(stats).endswith("half-life in steps: shortest 0, median 14.3, longest inf")


# ---- refusals --------------------------------------------------------------------------------


def test_neither_cells_nor_tapes_are_guessed() -> None:
    """Every analysis names what is no cell, no tape, or the tape of another cell, before it computes anything."""
    cell, other = rl.LSTMCell(3, 4, rng=0), rl.GRUCell(3, 4, rng=0)
    tape, d_h = cell.forward(np.zeros((5, 2, 3))), np.ones((5, 2, 4))
    analyses: list[Any] = [
        lab.jacobians,
        lab.jacobian_product,
        lab.jacobian_decay,
        lab.gate_statistics,
        lambda cell, tape: lab.memory_paths(cell, tape, d_h),
        lambda cell, tape: lab.distance_terms(cell, tape, d_h),
        lambda cell, tape: lab.distance_gradients(cell, tape, d_h),  # at the call, before the first term
        lab.jacobian_products,
    ]
    for analyse in analyses:
        analyse(cell, tape)
        with refuses(TypeError, "cell"):
            analyse(None, tape)
        with refuses(TypeError, "tape"):
            analyse(cell, tape.states)
        with refuses(ValueError, "tape"):
            analyse(other, tape)


def test_every_bad_argument_is_named() -> None:
    model = rl.SequenceModel(rl.LSTMCell(3, 4, rng=0), rl.Dense(4, 2, rng=0), rl.mean_squared_error)
    batch, cell = rl.Batch(np.zeros((5, 2, 3)), np.zeros((5, 2, 2))), model.cells[0]
    tape, plain, relu = cell.forward(batch.x), random_cell(rl.RNNCell), rl.RNNCell(3, 4, activation="relu", rng=0)
    relu.params["b"][...] = 5
    calls: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "times", lambda: lab.jacobians(cell, tape, [5])),
        (ValueError, "start, end", lambda: lab.jacobian_product(cell, tape, 3, 3)),
        (ValueError, "start, end", lambda: lab.jacobian_product(cell, tape, 0, 6)),
        (ValueError, "keeps", lambda: lab.jacobian_decay(cell, tape, keeps="update")),
        (ValueError, "d_h", lambda: lab.memory_paths(cell, tape, np.zeros((3, 2, 4)))),
        (TypeError, "d_h", lambda: lab.distance_terms(cell, tape, np.zeros((5, 2, 4), int))),
        (ValueError, "lengths", lambda: lab.truncation(model, batch, [0])),
        (TypeError, "target", lambda: lab.connectivity(None, tape.x)),
        (ValueError, "state", lambda: lab.connectivity(stacked_model(), tape.x, (None,))),
        (ValueError, "keeps", lambda: lab.gate_statistics(plain, plain.forward(tape.x))),
        (ValueError, "tapes", lambda: lab.gate_statistics(plain, plain.forward(tape.x + 1), keeps="candidate")),
        (ValueError, "tapes", lambda: lab.gate_statistics(relu, relu.forward(tape.x), keeps="candidate")),
        (ValueError, "tapes", lambda: lab.gate_statistics(cell, [])),
        (ValueError, "low, high", lambda: lab.gate_statistics(cell, tape, low=0.9, high=0.1)),
        (ValueError, "log_values", lambda: lab.ShadedText("abc", np.zeros(2))),
        (TypeError, "text", lambda: lab.ShadedText("", np.zeros(0))),
        (TypeError, "model", lambda: lab.truncation(cell, batch)),
        (TypeError, "model", lambda: lab.input_gradient_norms(cell, batch)),
        (TypeError, "batch", lambda: lab.input_gradient_norms(model, batch.x)),
        (ValueError, "x", lambda: lab.input_gradient_norms(model, replace(batch, x=np.full((5, 2), 3)))),
        (ValueError, "x", lambda: lab.input_gradient_norms(model, replace(batch, x=np.full((5, 2), -1)))),
        (TypeError, "result", lambda: lab.output_gradients(model, batch, batch)),
        (TypeError, "lengths", lambda: lab.truncation(model, batch, 3)),
        (ValueError, "lengths", lambda: lab.truncation(model, batch, [])),
        (ValueError, "times", lambda: lab.jacobians(cell, cell.forward(batch.x), 3)),
        (ValueError, "times", lambda: lab.jacobians(cell, cell.forward(batch.x), [])),
        (TypeError, "state", lambda: lab.connectivity(model, batch.x, 3)),
        (TypeError, "state", lambda: lab.connectivity(cell, batch.x, 3)),
        (TypeError, "log_values", lambda: lab.ShadedText("abc", "abc")),
        (ValueError, "low, high", lambda: lab.gate_statistics(cell, cell.forward(batch.x), low=10, high=90)),
    ]
    for error, name, call in calls:
        with refuses(error, name):
            call()


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e-25), (np.float64, 1e-200), (np.float64, 1e200)])
def test_truncation_is_measured_at_any_size_of_the_gradient(dtype: type, scale: float) -> None:
    """The same loss, scaled: angle and relative error stay, also where squares leave the floats."""

    def scaled(*arguments: Any) -> tuple[Any, Any]:
        loss, d = rl.mean_squared_error(*arguments)
        return loss, d * dtype(scale)

    rng = np.random.default_rng(0)
    cell, readout = rl.RNNCell(3, 4, rng=rng, dtype=dtype), rl.Dense(4, 2, rng=rng, dtype=dtype)
    batch = rl.Batch(rng.normal(size=(6, 2, 3)), rng.normal(size=(6, 2, 2)))
    usual, other = (
        lab.truncation(rl.SequenceModel(cell, readout, loss), batch, [1, 3]) for loss in (rl.mean_squared_error, scaled)
    )
    for name in usual.cosine:
        np.testing.assert_allclose(other.cosine[name], usual.cosine[name], rtol=1e-4)
        np.testing.assert_allclose(other.relative_error[name], usual.relative_error[name], rtol=1e-4)


def test_a_state_that_is_carried_in_counts() -> None:
    model, batch = stacked_model(), random_batch(5, 2)
    rng = np.random.default_rng(3)
    state = rng.normal(size=(1, 2, 4)), rng.normal(size=(2, 2, 5))
    d_x = model.loss_and_grads(batch, state, input_gradient=True).cell_grads[0].x
    np.testing.assert_allclose(lab.input_gradient_norms(model, batch, state), np.linalg.norm(d_x, axis=2), rtol=1e-12)
    found = lab.truncation(model, batch, [1, 5], state=state)
    assert found.relative_error["all"][1] <= 1e-14
    assert found.relative_error["all"][0] != lab.truncation(model, batch, [1]).relative_error["all"][0]


def test_a_decay_may_end_before_the_tape_does() -> None:
    cell = random_cell(rl.LSTMCell)
    x, state, *_ = random_case(cell, T=7, B=2)
    part = lab.jacobian_decay(cell, cell.forward(x, state), 1, 5)
    whole = lab.jacobian_decay(cell, cell.forward(x[:5], state), 1)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(part, name), values, name)


def test_a_record_in_float32_is_taken_back_in_float64() -> None:
    cell = random_cell(rl.LSTMCell).astype(np.float32)
    x, state, _, _ = random_case(cell, 12, B=2)
    tape = cell.forward(x.astype(np.float32), state.astype(np.float32))
    arrays = {name: getattr(tape, name).astype(float) for name in ("x", "states", "gates", "extras")}
    found = lab.jacobian_product(cell, tape)
    wanted = lab.jacobian_product(cell.astype(np.float64), replace(tape, **arrays))
    np.testing.assert_allclose(found.matrix, wanted.matrix, rtol=1e-12)


def test_statistics_of_gates_cannot_be_changed() -> None:
    cell = rl.GRUCell(2, 3, rng=0)
    stats: Any = lab.gate_statistics(cell, cell.forward(np.ones((4, 2, 2))))
    with pytest.raises(FrozenInstanceError):
        stats.low = 0.2
