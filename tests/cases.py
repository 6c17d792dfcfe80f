"""What several tests share: the cells and a learner's one, random cases for them, and how an error is measured."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.cells.base import outer_products

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is first imported

CELLS: tuple[type[rl.Cell], ...] = (
    rl.RNNCell,
    rl.LSTMCell,
    rl.GRUCell,
    rl.GRUResetBeforeCell,
    rl.FourGateLSTMCell,
)
each_cell = pytest.mark.parametrize("cell_class", CELLS, ids=lambda c: c.__name__)


def random_cell(cell_class: type[rl.Cell], D: int = 3, H: int = 4, seed: int = 0) -> rl.Cell:
    """A cell whose every parameter, biases included, is N(0, 0.7^2)."""
    rng = np.random.default_rng(seed)
    cell = cell_class(D, H, rng=rng)
    return cell.with_params({name: 0.7 * rng.normal(size=p.shape) for name, p in cell.params.items()})


def random_case(cell: rl.Cell, T: int, B: int, seed: int = 1) -> tuple[Any, Any, Any, Any]:
    """(x, state, d_h, d_state) for this cell, all N(0, 1)."""
    rng = np.random.default_rng(seed)
    S, H = len(cell.state_names), cell.hidden_size
    return (
        rng.normal(size=(T, B, cell.input_size)),
        rng.normal(size=(S, B, H)),
        rng.normal(size=(T, B, H)),
        rng.normal(size=(S, B, H)),
    )


def relative_error(found: Any, exact: Any) -> float:
    """max |found - exact| / max |exact|, over whole arrays of the same shape."""
    found, exact = np.asarray(found), np.asarray(exact)
    assert found.shape == exact.shape
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def largest(ours: Any, theirs: Any) -> float:
    """max |ours - theirs|, relative to the largest of theirs where that is above 1."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def needs(*modules: str) -> Any:
    """The module, or all of them; the test is skipped by name where one is not installed."""
    reason = "{} is not installed; it comes with the extra `interop`"
    found = [pytest.importorskip(name, reason=reason.format(name)) for name in modules]
    return found if len(found) > 1 else found[0]


def refuses(error: type[Exception], argument: str) -> Any:
    """A block that must raise this error with a message that names the argument and says what came."""
    return pytest.raises(error, match=rf"(?s)^{re.escape(argument)}: expected .*got ")


class MinimalGatedUnit(rl.Cell):
    """A learner's cell (Zhou et al. 2016), lists for tuples: n = tanh(x W + (f h) W_n), h = (1 - f) h + f n."""

    gate_names = ("open", "candidate")

    def step(self, a: Any, prev: Any) -> Any:
        (h,) = prev
        f = rl.ops.sigmoid(a[0] + h @ self.W_h[0])
        n = np.tanh(a[1] + (f * h) @ self.W_h[1])
        return [f, n], [(1 - f) * h + f * n], []

    def step_backward(self, d_next: Any, prev: Any, gates: Any, extras: Any) -> Any:
        (d_h,), (h,), (f, n) = d_next, prev, gates
        d_n = d_h * f * (1 - n**2)
        d_s = d_n @ self.W_h[1].T
        d_f = (d_h * (n - h) + d_s * h) * f * (1 - f)
        return [d_f, d_n], [d_h * (1 - f) + d_s * f + d_f @ self.W_h[0].T], []

    def recurrent_grads(self, tape: Any, d_a: Any, d_extras: Any) -> Any:
        h = tape.states[:-1, 0]
        W_h = outer_products(h, d_a[:1]), outer_products(tape.gates[0] * h, d_a[1:])
        return {"W_h": np.concatenate(W_h)}
