"""Sequences of different lengths: each row as if it were alone, and as in PyTorch's packed sequences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnnlab as rl
from rnnlab import lab
from tests.cases import CELLS, MinimalGatedUnit, random_case, random_cell, refuses, relative_error

T, B, D, H, O = 6, 4, 3, 4, 2  # noqa: E741 - O is the shape letter
LENGTHS = np.array([3, 6, 1, 4])
GAPS = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 0]], bool)
EXACT = 1e-13
every_cell = pytest.mark.parametrize("cell_class", [*CELLS, MinimalGatedUnit], ids=lambda c: c.__name__)
every_pattern = pytest.mark.parametrize("lengths", [LENGTHS, GAPS], ids=["lengths", "gaps"])


def alive_of(lengths: Any) -> Any:
    return lengths if lengths.dtype == bool else np.arange(T)[:, None] < lengths


def stack(seed: int = 0, outputs: int = O, loss: Any = rl.mean_squared_error) -> rl.SequenceModel:
    cells = [random_cell(rl.LSTMCell, D, H, seed), random_cell(rl.GRUCell, H, H, seed + 1)]
    return rl.SequenceModel(cells, rl.Dense(H, outputs, rng=seed), loss)


# ---- each row as if it were alone -------------------------------------------------------------------


@every_pattern
@every_cell
def test_each_row_is_what_it_is_alone(cell_class: Any, lengths: Any) -> None:
    cell = random_cell(cell_class, D, H)
    x, state, d_h, d_state = random_case(cell, T, B)
    tape = cell.forward(x, state, lengths)
    grads = cell.backward(tape, d_h, d_state)
    sums = {name: np.zeros_like(p) for name, p in cell.params.items()}
    for b, at in enumerate(alive_of(lengths).T):
        alone = cell.forward(x[at, b : b + 1], state[:, b : b + 1])
        g = cell.backward(alone, d_h[at, b : b + 1], d_state[:, b : b + 1])
        assert relative_error(tape.h[at, b : b + 1], alone.h) < EXACT
        assert relative_error(tape.states[-1, :, b : b + 1], alone.states[-1]) < EXACT
        assert relative_error(tape.gates[:, at, b : b + 1], alone.gates) < EXACT
        assert g.x is not None
        assert grads.x is not None
        assert relative_error(grads.x[at, b : b + 1], g.x) < EXACT
        assert relative_error(grads.states[0, :, b : b + 1], g.states[0]) < EXACT
        sums = {name: sums[name] + g.params[name] for name in sums}
    for name, total in sums.items():
        assert relative_error(grads.params[name], total) < EXACT
    rest = ~alive_of(lengths)
    for array in (tape.h[rest], tape.gates[:, rest], tape.extras[:, rest], grads.x[rest] if grads.x is not None else 1):
        assert not array.any()
    assert (tape.states[1:][rest.nonzero()[0], :, rest.nonzero()[1]] == tape.states[:-1].swapaxes(1, 2)[rest]).all()


@every_pattern
def test_check_gradients_of_a_cell_takes_lengths(lengths: Any) -> None:
    report = rl.check_gradients(random_cell(MinimalGatedUnit, D, H), T=T, B=B, lengths=lengths, entries=True)
    assert report.max_error < 1e-9


@every_pattern
@pytest.mark.parametrize("y", ["each step", "one answer"])
def test_the_gradients_of_a_stack_are_right_under_lengths(lengths: Any, y: str) -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(size=(T, B, O) if y == "each step" else (B, O))
    report = rl.check_gradients(stack(), rl.Batch(rng.normal(size=(T, B, D)), target, lengths=lengths))
    assert report.max_error < 1e-9


def test_a_backward_pass_that_reads_the_padding_is_caught() -> None:
    class Leaks(rl.LSTMCell):
        def backward(self, tape: Any, *arguments: Any, **options: Any) -> Any:
            return super().backward(replace(tape, alive=None), *arguments, **options)

    with pytest.raises(rl.GradientMismatch):
        rl.check_gradients(Leaks(D, H, rng=0), T=T, B=B, lengths=LENGTHS)


# ---- PyTorch's packed sequences ---------------------------------------------------------------------


@pytest.mark.parametrize("what", ["RNN", "LSTM", "GRU"])
def test_a_stack_is_equal_to_pytorchs_packed_sequences(what: str) -> None:
    torch = pytest.importorskip("torch")
    kind = {"RNN": rl.RNNCell, "LSTM": rl.LSTMCell, "GRU": rl.GRUCell}[what]
    cells = [random_cell(kind, D, H, 0), random_cell(kind, H, H, 1)]
    net = getattr(torch.nn, what)(D, H, num_layers=2, dtype=torch.float64)
    weights = rl.interop.to_pytorch(cells[0]) | rl.interop.to_pytorch(cells[1], 1)
    net.load_state_dict({name: torch.tensor(a) for name, a in weights.items()})
    x, _, d_h, _ = random_case(cells[0], T, B)
    inputs = torch.tensor(x, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor(LENGTHS), enforce_sorted=False)
    outputs, final = net(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs)
    finals = final if what == "LSTM" else (final,)
    ((padded * torch.tensor(d_h)).sum() + sum(part.sum() for part in finals)).backward()

    first = cells[0].forward(x, None, LENGTHS)
    second = cells[1].forward(first.h, None, LENGTHS)
    ones = np.ones_like(second.states[-1])
    above = cells[1].backward(second, d_h, ones)
    below = cells[0].backward(first, above.x, ones)
    assert relative_error(second.h, padded.detach().numpy()) < EXACT
    for part, theirs in enumerate(finals):
        ours = np.stack([first.states[-1, part], second.states[-1, part]])
        assert relative_error(ours, theirs.detach().numpy()) < EXACT
    assert relative_error(below.x, inputs.grad.numpy()) < EXACT
    for n, grads in enumerate((below, above)):
        W_x = grads.params["W_x"].mT.reshape(-1, grads.params["W_x"].shape[1])
        assert relative_error(W_x, getattr(net, f"weight_ih_l{n}").grad.numpy()) < EXACT
        W_h = grads.params["W_h"].mT.reshape(-1, H)
        assert relative_error(W_h, getattr(net, f"weight_hh_l{n}").grad.numpy()) < EXACT
        assert relative_error(grads.params["b"].ravel(), getattr(net, f"bias_ih_l{n}").grad.numpy()) < EXACT


# ---- properties -------------------------------------------------------------------------------------


@given(
    which=st.sampled_from(CELLS),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    more=st.integers(0, 3),
    padding=st.sampled_from([0.0, 1e300, np.nan, -np.inf]),
    seed=st.integers(0, 2**16),
)
def test_a_row_depends_neither_on_padding_nor_on_its_company(
    which: Any, lengths: list[int], more: int, padding: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(n, D)) for n in lengths]
    model = rl.SequenceModel(random_cell(which, D, H, seed), rl.Dense(H, O, rng=seed), rl.mean_squared_error)
    x, found = rl.pad(rows)
    assert found.tolist() == lengths
    x = np.concatenate((x, np.zeros((more, *x.shape[1:]))))
    x[np.arange(len(x))[:, None] >= found] = padding
    y = rng.normal(size=(len(rows), O))
    outputs, state = model.predict(x, None, found)
    result = model.loss_and_grads(rl.Batch(x, y, lengths=found), input_gradient=True)
    d_x, losses = result.cell_grads[0].x, []
    assert d_x is not None
    for b, row in enumerate(rows):
        alone, alone_state = model.predict(row[:, None])
        np.testing.assert_allclose(outputs[: len(row), b], alone[:, 0], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state[0][:, b], alone_state[0][:, 0], rtol=1e-12, atol=1e-13)
        assert not outputs[len(row) :, b].any()
        single = model.loss_and_grads(rl.Batch(row[:, None], y[b : b + 1]), input_gradient=True)
        losses.append(single.loss)
        g = single.cell_grads[0].x
        assert g is not None
        np.testing.assert_allclose(d_x[: len(row), b], g[:, 0] / len(rows), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(result.loss, np.mean(losses), rtol=1e-12)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), wrong=st.sampled_from([-1, 99]))
def test_labels_past_the_end_are_not_read(lengths: list[int], wrong: int) -> None:
    rng = np.random.default_rng(0)
    model = rl.SequenceModel(rl.GRUCell(5, H, rng=0), rl.Dense(H, 5, rng=0), rl.softmax_cross_entropy)
    x, found = rl.pad([rng.integers(0, 5, n) for n in lengths])
    spoiled = np.where(np.arange(len(x))[:, None] < found, x, wrong)
    one = model.loss_and_grads(rl.Batch(x, x, lengths=found))
    other = model.loss_and_grads(rl.Batch(spoiled, spoiled, lengths=found))
    assert one.loss == other.loss
    assert all((one.grads[name] == other.grads[name]).all() for name in one.grads)


# ---- models: chunks, carried states, one answer a sequence ------------------------------------------


def test_predict_in_chunks_and_with_a_carried_state() -> None:
    model, rng = stack(), np.random.default_rng(0)
    x, lengths = rng.normal(size=(150, 3, D)), np.array([150, 20, 100])
    outputs, state = model.predict(x, None, lengths)
    tapes = model.unroll(x, None, lengths)
    alive = np.arange(150)[:, None] < lengths
    assert relative_error(outputs[alive], model.readout.forward(tapes[-1].h)[alive]) < EXACT
    assert not outputs[~alive].any()
    for part, tape in zip(state, tapes, strict=True):
        assert relative_error(part, tape.states[-1]) < EXACT
    _, first = model.predict(x[:90], None, np.minimum(lengths, 90))
    _, second = model.predict(x[90:], first, alive[90:])
    for part, other in zip(state, second, strict=True):
        assert relative_error(part, other) < EXACT


@pytest.mark.parametrize("lengths", [None, LENGTHS, GAPS], ids=["whole", "lengths", "gaps"])
@pytest.mark.parametrize("kind", ["labels", "values", "one value", "a loss of mine"])
def test_one_answer_is_read_at_each_rows_own_end(kind: str, lengths: Any) -> None:
    def mine(prediction: Any, target: Any, mask: Any = None) -> Any:
        return rl.mean_squared_error(prediction, target, mask)

    rng, outputs = np.random.default_rng(0), 1 if kind == "one value" else O
    answers = rng.integers(0, O, B) if kind == "labels" else rng.normal(size=(B, outputs))
    loss = {"labels": rl.softmax_cross_entropy, "a loss of mine": mine}.get(kind, rl.mean_squared_error)
    model, x = stack(outputs=outputs, loss=loss), rng.normal(size=(T, B, D))
    last = np.full(B, T - 1) if lengths is None else T - 1 - alive_of(lengths)[::-1].argmax(axis=0)
    y, mask = np.zeros((T, *answers.shape), answers.dtype), np.zeros((T, B), bool)
    y[last, np.arange(B)], mask[last, np.arange(B)] = answers, True
    if lengths is GAPS:
        assert last.tolist() == [5, 5, 3, 4]
    short = model.loss_and_grads(rl.Batch(x, answers[:, 0] if kind == "one value" else answers, lengths=lengths))
    long = model.loss_and_grads(rl.Batch(x, y, mask, lengths))
    assert short.loss == long.loss
    assert all((short.grads[name] == long.grads[name]).all() for name in long.grads)
    kept = np.zeros((T, B), bool)
    kept[last, np.arange(B)] = True
    outputs_, _ = model.predict(x, None, lengths)
    np.testing.assert_allclose(short.loss, loss(outputs_, y, kept)[0], rtol=1e-12)


def test_what_does_not_fit_is_refused_and_says_how_to_turn_it() -> None:
    model, rng = stack(), np.random.default_rng(0)
    x, y = rng.normal(size=(T, B, D)), rng.normal(size=(B, O))
    with refuses(ValueError, "mask"):
        model.mean_loss(rl.Batch(x, y, np.ones((T, B), bool)))
    with refuses(ValueError, "mask"):
        model.mean_loss(rl.Batch(x, np.zeros((T, B, O)), np.arange(T)[:, None] >= LENGTHS, LENGTHS))
    with refuses(ValueError, "lengths"):
        model.mean_loss(rl.Batch(x, y, lengths=GAPS & (np.arange(B) > 0)))
    with pytest.raises(ValueError, match=rf"^y: expected shape \({B}, {O}\) for one answer .*got \({B}, {O + 1}\)$"):
        model.mean_loss(rl.Batch(x, np.zeros((B, O + 1))))
    batch_first = x.swapaxes(0, 1)
    for bad in (
        rl.Batch(batch_first, y),
        rl.Batch(batch_first, y, lengths=LENGTHS),
        rl.Batch(batch_first, np.zeros((T, B, O))),
        rl.Batch(x, np.zeros((B, T, O))),
    ):
        with pytest.raises(ValueError, match=r"swapaxes\(0, 1\)` puts time first"):
            model.mean_loss(bad)
    with pytest.raises(ValueError, match=r"^state: .*swapaxes\(0, 1\)` puts time first"):
        model.predict(batch_first, [np.zeros((2, B, H)), None])
    for error, lengths in (
        (ValueError, [0, 1, 2, 3]),
        (ValueError, [7, 1, 2, 3]),
        (ValueError, [1, 2]),
        (TypeError, [1.0, 2.0, 3.0, 4.0]),
        (ValueError, np.ones((B, T), bool)),
        (TypeError, "abcd"),
    ):
        with refuses(error, "lengths"):
            model.predict(x, None, lengths)  # type: ignore[arg-type]


def test_one_sequence_without_a_batch_is_refused_where_it_can_be_told() -> None:
    cell = rl.GRUCell(D, H, rng=0)
    for error, x in ((TypeError, np.ones((T, D))), (ValueError, np.arange(T * D).reshape(T, D))):
        with pytest.raises(error, match=r"^x: expected .* got .*; one sequence .* x\[:, None\]\.astype\(float\)"):
            cell.forward(x)
    assert cell.forward(np.ones((T, D), int)).x.shape == (T, D)  # labels, of D sequences: the docstring says so


def test_pad_puts_each_sequence_into_its_column_and_refuses_what_does_not_join() -> None:
    x, lengths = rl.pad([np.ones((2, 3)), 2 * np.ones((4, 3)), 3 * np.ones((1, 3))])
    assert x.shape == (4, 3, 3)
    assert lengths.tolist() == [2, 4, 1]
    assert x.sum(axis=(0, 2)).tolist() == [6, 24, 9]
    labels, _ = rl.pad([[1, 2], [3]])  # type: ignore[list-item]
    assert labels.tolist() == [[1, 3], [2, 0]]
    for error, bad in (
        (ValueError, []),
        (TypeError, 3),
    ):
        with refuses(error, "sequences"):
            rl.pad(bad)  # type: ignore[arg-type]
    for bad in (
        [np.ones((2, 3)), np.ones((2, 4))],
        [np.ones(2), np.ones(2, int)],
        [np.ones(2), np.ones(0)],
    ):
        with refuses(ValueError, "sequences[1]"):
            rl.pad(bad)


# ---- training, the logger and the laboratory --------------------------------------------------------


def test_training_and_the_logger_see_no_padding() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(T, B, D)), rng.normal(size=(B, O))
    histories = []
    for padding in (0.0, np.nan):
        spoiled = np.where(alive_of(LENGTHS)[..., None], x, padding)
        logger, model = rl.GradientNormLogger(), stack()
        trainer = rl.Trainer(model, rl.Adam(0.01), callbacks=[logger], carry_state=True)
        trainer.fit([rl.Batch(spoiled, y, lengths=LENGTHS)] * 5, 5)
        norms = [np.array(logger.norms(*which)).tolist() for which in (("c", 0), ("h", 1))]
        histories.append((trainer.history.loss, trainer.history.gradient_norm, norms))
    assert histories[0] == histories[1]


@pytest.mark.parametrize("cell_class", [rl.LSTMCell, rl.GRUCell], ids=lambda c: c.__name__)
def test_the_laboratory_follows_each_row_to_its_end(cell_class: Any) -> None:
    cell = random_cell(cell_class, D, H)
    x, state, d_h, d_state = random_case(cell, T, B)
    tape = cell.forward(x, state, LENGTHS)
    terms = lab.distance_terms(cell, tape, d_h, d_state)
    for name, total in cell.backward(tape, d_h, d_state).params.items():
        assert relative_error(terms.total[name], total) < EXACT
    for final in (None, d_state):  # a final h is handed on past the end, which is a way round W_h
        paths = lab.memory_paths(cell, tape, d_h, final)
        assert ("other" in paths.parts) == (final is not None and len(state) == 2)
        assert relative_error(sum(paths.parts.values()), paths.total) < EXACT
    product = lab.jacobian_product(cell, tape).value()
    norms = lab.connectivity(cell, x, state, LENGTHS)
    for b, n in enumerate(LENGTHS):
        alone = cell.forward(x[:n, b : b + 1], state[:, b : b + 1])
        assert relative_error(product[b], lab.jacobian_product(cell, alone).value()[0]) < 1e-12
        np.testing.assert_allclose(norms[:n, b], lab.connectivity(cell, alone.x, state[:, b : b + 1])[:, 0], rtol=1e-9)
        assert (norms[n:, b] == -np.inf).all()
    statistics, longest = lab.gate_statistics(cell, tape), lab.gate_statistics(cell, cell.forward(x, state))
    assert statistics.mean.shape == longest.mean.shape
    k = cell.gate_names.index(statistics.gate_names[0])
    assert relative_error(statistics.mean[0], tape.gates[k][alive_of(LENGTHS)].mean(axis=0)) < EXACT
