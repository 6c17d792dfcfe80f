"""The gradient of a shared weight as a sum over time distances, and what truncation leaves of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rnnlab.batch import Batch, LossAndGrads
from rnnlab.cells.base import Cell, Tape
from rnnlab.gradnorm import block_norms
from rnnlab.lab.recorded import back_one_step, check_cell, one_direction, outside_gradients, slice_time
from rnnlab.model import SequenceModel, State, check_model
from rnnlab.ops import Array, norm
from rnnlab.validate import describe, entry_of, has_entries, positive_int

Arrays = dict[str, Array]


def distance_gradients(cell: Cell, tape: Tape, d_h: Array, d_state: Array | None = None) -> Iterator[Arrays]:
    """The terms of dL/dparameter, distance by distance, 0 .. T-1.

    A weight acts at every step. Distance d gathers what its use at step t - d does to the loss read from h_t, for all
    t; with one loss, at the end, that is one step. The terms add up to dL/dparameter.

    Parameters
    ----------
    cell, tape : a cell, and the tape of its forward pass
    d_h : (T, B, H), dL/dh_t as read at each step's output
    d_state : (S, B, H), what reaches the final state besides d_h; None for zeros

    Returns
    -------
    An iterator over dicts of gradients, named and shaped like `cell.params`. Errors as in `Cell.backward`.
    """
    check_cell(cell, tape)
    d_states = outside_gradients(cell, tape, d_h, d_state)[1:]
    times = np.arange(len(d_states))
    for _ in range(len(d_states)):
        some = d_states.any(axis=(1, 2, 3))
        times, d_states = times[some], d_states[some]
        if not len(times):
            yield {name: np.zeros_like(p) for name, p in cell.params.items()}
            continue
        d_states, params = back_one_step(cell, tape, times, d_states)
        yield params
        earlier = times > 0
        times, d_states = times[earlier] - 1, d_states[earlier]


@dataclass(frozen=True)
class DistanceTerms:
    """norms: ||term|| of each distance 0 .. T-1, (T,), by block ("W_h[forget]"); total: their sum, dL/dparameter."""

    norms: dict[str, Array]
    total: Arrays


def distance_terms(cell: Cell, tape: Tape, d_h: Array, d_state: Array | None = None) -> DistanceTerms:
    """The norms of `distance_gradients`: near terms train a shared weight even where far ones vanish.

    Parameters
    ----------
    cell, tape, d_h, d_state : as in `distance_gradients`

    Returns
    -------
    `DistanceTerms`: the norms by block and distance, and the sum of the terms. Errors as in `Cell.backward`.
    """
    norms, total = [], Arrays()
    for grads in distance_gradients(cell, tape, d_h, d_state):
        norms.append(block_norms(grads, cell.gate_names))
        total = {name: total.get(name, 0) + g for name, g in grads.items()}
    return DistanceTerms({block: np.array([row[block] for row in norms]) for block in norms[0]}, total)


def output_gradients(model: SequenceModel, batch: Batch, result: LossAndGrads) -> tuple[Array, ...]:
    """dL/dh that each layer receives: from the layer above, the last from the readout.

    Parameters
    ----------
    model, batch : a model, and a batch for it
    result : what `model.loss_and_grads(batch)` gave

    Returns
    -------
    One (T, B, H) array for each layer, the first layer first.
    """
    check_model(model)
    if not isinstance(result, LossAndGrads):
        raise TypeError(f"result: expected what model.loss_and_grads(batch) returns, got {describe(result)}")
    h = result.tapes[-1].h
    if not isinstance(batch, Batch):
        raise TypeError(f"batch: expected a Batch, got {describe(batch)}")
    _, d_y = model.loss(model.readout.forward(h), *model.targets(batch))
    above = [grads.x for grads in result.cell_grads[1:]]
    return *[d_h for d_h in above if d_h is not None], model.readout.backward(h, d_y)[1]


@dataclass(frozen=True)
class Truncation:
    """Truncated against full backpropagation, for each of `lengths` (n,).

    `cosine` and `relative_error` hold (n,) numbers for each recurrent parameter ("cells.0.W_h") and for
    "all" of them as one vector; a gradient that is zero has no angle (NaN). A readout's gradient is
    never truncated and left out.
    """

    lengths: Array
    cosine: Arrays
    relative_error: Arrays

    def angle(self, name: str = "all") -> Array:
        """The angle between the two in degrees, (n,). Raises KeyError for a parameter that was not compared."""
        return np.asarray(np.degrees(np.arccos(np.clip(entry_of("name", self.cosine, name), -1, 1))))


def truncation(
    model: SequenceModel, batch: Batch, lengths: Iterable[int] | None = None, *, state: State | None = None
) -> Truncation:
    """The gradient of BPTT truncated to blocks of k steps against the full one, by k.

    The states are those of the whole sequence; the gradient stops where a block begins. Blocks end at T, so with one
    loss at the end exactly the last k steps are counted.

    Parameters
    ----------
    model, batch : a model, and a batch for it
    lengths : the numbers k; None for the powers of two up to T
    state : the initial state as in `SequenceModel.loss_and_grads`

    Returns
    -------
    `Truncation`: angles and relative errors, by parameter.

    Raises
    ------
    TypeError, ValueError
        For a length below 1, for a model with a layer that reads backwards, and as `SequenceModel.loss_and_grads`.

    References
    ----------
    Williams & Peng 1990.
    """
    check_model(model)
    result = model.loss_and_grads(batch, state)
    d_h, T = output_gradients(model, batch, result)[-1], len(result.tapes[0].x)
    if lengths is None:
        lengths = [*(2**n for n in range((T - 1).bit_length())), T]
    if not has_entries(lengths):
        raise TypeError(f"lengths: expected integers of at least 1, got {describe(lengths)}")
    ks = [positive_int("lengths", k) for k in lengths]
    if not ks:
        raise ValueError("lengths: expected at least one, got none")
    full = {name: g for name, g in result.grads.items() if name.startswith("cells.")}
    cells, tapes = one_direction(model.cells, result.tapes)
    whole, rows = _vectors(full), [_vectors(_truncated(cells, tapes, d_h, k)) for k in ks]
    cosine, error = Arrays(), Arrays()
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, g in whole.items():
            length, cut = norm(g, (0,)), np.array([row[name] for row in rows])
            cosine[name] = (cut / norm(cut, (1,))[:, None]) @ (g / length)
            error[name] = norm(cut - g, (1,)) / length
    return Truncation(np.array(ks), cosine, error)


def _truncated(cells: tuple[Cell, ...], tapes: tuple[Tape, ...], d_h: Array, k: int) -> Arrays:
    total: Arrays = {}
    for end in range(len(d_h), 0, -k):
        start = max(end - k, 0)
        d = d_h[start:end]
        for n, (cell, tape) in reversed(list(enumerate(zip(cells, tapes, strict=True)))):
            grads = cell.backward(slice_time(tape, start, end), d, input_gradient=n > 0)
            for name, g in grads.params.items():
                total[f"cells.{n}.{name}"] = total.get(f"cells.{n}.{name}", 0) + g
            if grads.x is not None:
                d = grads.x
    return total


def _vectors(grads: Arrays) -> Arrays:
    """Each gradient as a vector, and all of them as one."""
    vectors = {name: grads[name].ravel() for name in sorted(grads)}
    return vectors | {"all": np.concatenate([*vectors.values()])}
