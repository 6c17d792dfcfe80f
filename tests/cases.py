"""What several tests share: the cells, random cases for them, and how an error is measured."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import rnnlab as rl

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


def refuses(error: type[Exception], argument: str) -> Any:
    """A block that must raise this error with a message that names the argument and says what came."""
    return pytest.raises(error, match=rf"(?s)^{re.escape(argument)}: expected .*got ")
