"""Parameters are plain attributes, and `params` is a live, checked view of them."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl


def make_model() -> rl.SequenceModel:
    cells = (rl.GRUCell(2, 3, rng=0), rl.LSTMCell(3, 4, rng=1))
    return rl.SequenceModel(cells, rl.Dense(4, 1, rng=2), rl.mean_squared_error)


def test_the_view_is_of_the_live_arrays_in_the_order_of_declaration() -> None:
    cell = rl.GRUCell(2, 3, rng=0)
    assert list(cell.params) == ["W_x", "W_h", "b", "b_hn"]
    assert all(cell.params[name] is getattr(cell, name) for name in cell.params)
    model = make_model()
    assert list(model.params)[3:5] == ["cells.0.b_hn", "cells.1.W_x"]
    assert list(model.params)[-2:] == ["readout.W", "readout.b"]
    assert model.params["cells.1.W_h"] is model.cells[1].W_h


def test_assigning_to_the_view_or_to_the_attribute_is_one_thing() -> None:
    model = make_model()
    cell, view = model.cells[1], model.params
    first, second = np.ones((4, 4, 4)), np.zeros((4, 4, 4))
    cell.W_h = first
    assert view["cells.1.W_h"] is first
    view["cells.1.W_h"] = second
    assert cell.W_h is second
    assert cell.params["W_h"] is second


@pytest.mark.parametrize("owner", [rl.LSTMCell(2, 3, rng=0), rl.Dense(2, 3, rng=0)])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: a[..., :1], ValueError),
        (lambda a: a.astype(int), TypeError),
        (lambda a: a.astype(np.float16), TypeError),
        (lambda a: a.tolist(), TypeError),
        (lambda a: 3, TypeError),
    ],
)
def test_another_shape_or_dtype_is_refused_and_nothing_changes(owner: Any, change: Any, error: type) -> None:
    for name in owner.params:
        before = owner.params[name]
        with pytest.raises(error, match=name):
            setattr(owner, name, change(before))
        with pytest.raises(error, match=name):
            owner.params[name] = change(before)
        assert getattr(owner, name) is before


def test_names_are_neither_added_nor_deleted() -> None:
    view = rl.LSTMCell(2, 3, rng=0).params
    with pytest.raises(ValueError, match="W_z"):
        view["W_z"] = np.ones(3)
    with pytest.raises(TypeError, match="W_h"):
        del view["W_h"]
    with pytest.raises(KeyError):
        view["W_z"]
    with pytest.raises(TypeError):
        view.clear()
    assert len(view) == 3


def test_update_takes_a_file_of_arrays_and_is_whole_or_nothing(tmp_path: Path) -> None:
    source, target = make_model(), make_model().with_params({n: p + 1 for n, p in make_model().params.items()})
    np.savez(tmp_path / "weights.npz", **source.params)
    with np.load(tmp_path / "weights.npz") as saved:
        target.params.update(saved)
    assert all(np.array_equal(target.params[name], p) for name, p in source.params.items())
    cell = rl.LSTMCell(2, 3, rng=0)
    before = cell.W_x
    with pytest.raises(ValueError, match="W_h"):
        cell.params.update({"W_x": before + 1, "W_h": np.ones(2)})
    assert cell.W_x is before


def test_joining_a_view_gives_a_dict_that_is_not_live() -> None:
    cell = rl.RNNCell(2, 3, rng=0)
    zero = np.zeros_like(cell.W_h)
    joined, other = cell.params | {"W_h": zero}, {"W_h": zero} | cell.params
    assert (type(joined), type(other), type(dict(cell.params))) == (dict, dict, dict)
    assert joined["W_h"] is zero
    assert other["W_h"] is cell.W_h


@pytest.mark.parametrize("name", ["w_h", "W_H", "w_x"])
def test_a_name_with_other_capitals_is_refused(name: str) -> None:
    cell = rl.LSTMCell(2, 3, rng=0)
    with pytest.raises(AttributeError, match=r"write 'W_[hx]'"):
        setattr(cell, name, 3)
    assert not hasattr(cell, name)


def test_a_learners_attributes_are_kept_shape_letters_among_them() -> None:
    class Counting(rl.RNNCell):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.before = 1
            super().__init__(*arguments, **named)
            self.calls = 0

        def step(self, a: Any, prev: Any) -> Any:
            self.calls += 1
            self.B, self.cache = a.shape[1], np.array(a)
            return super().step(a, prev)

    cell = Counting(2, 3, rng=0)
    tape = cell.forward(np.ones((5, 4, 2)))
    cell.backward(tape, np.ones((5, 4, 3)))
    assert (cell.before, cell.calls, cell.B, cell.cache.shape) == (1, 5, 4, (1, 4, 3))


def test_tapes_and_batches_are_equal_to_themselves_alone_and_print_on_one_line() -> None:
    model = make_model()
    x, y = np.ones((5, 4, 2)), np.ones((5, 4, 1))
    batch = rl.Batch(x, y)
    result = model.loss_and_grads(batch)
    copied = [(record, copy.copy(record)) for record in (result.tapes[0], result.cell_grads[0], result)]
    for record, same in ((batch, rl.Batch(x, y)), *copied):
        assert record == record
        assert record != same
        assert len({record, record}) == 1
        assert "\n" not in repr(record)
        assert len(repr(record)) < 400
        with pytest.raises(FrozenInstanceError):
            setattr(record, next(iter(vars(record))), None)
    assert repr(batch) == "Batch(x=float64(5, 4, 2), y=float64(5, 4, 1), mask=None, lengths=None)"


def test_tab_completion_lists_what_is_loaded_on_demand() -> None:
    assert set(rl.__all__) <= set(dir(rl))


def test_unsigned_labels_of_64_bits_index_as_the_signed_ones_do() -> None:
    cell = rl.LSTMCell(4, 3, rng=0)
    x = np.array([[1, 3], [0, 2]])
    np.testing.assert_array_equal(cell.forward(x.astype(np.uint64)).h, cell.forward(x).h)


def test_an_unknown_parameter_names_those_that_there_are() -> None:
    cell = rl.RNNCell(2, 3)
    assert "W_q" not in cell.params
    with pytest.raises(KeyError, match=r"params: expected one of \('W_x', 'W_h', 'b'\), got 'W_q'"):
        cell.params["W_q"]


def test_a_parameter_that_is_added_too_early_says_so() -> None:
    class Early(rl.RNNCell):
        def __init__(self) -> None:
            self.add_param("s", "uniform", (1, 3))

    with pytest.raises(TypeError, match=r"^Early: expected super\(\).__init__ before add_param\('s'\)"):
        Early()
