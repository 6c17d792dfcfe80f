"""The gradient taken apart: by time distance, by path, and what truncation leaves of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rnnlab.batch import Batch, LossAndGrads
from rnnlab.cells.base import Cell, Tape
from rnnlab.gradnorm import block_norms
from rnnlab.lab.recorded import back_one_step, check_cell, one_direction, outside_gradients, slice_time
from rnnlab.model import SequenceModel, State, check_model
from rnnlab.ops import Array, norm
from rnnlab.validate import describe, entry_of, integer, is_iterable

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
    return _distances(cell, tape, outside_gradients(cell, tape, d_h, d_state)[1:])


def _distances(cell: Cell, tape: Tape, d_states: Array) -> Iterator[Arrays]:
    times = np.arange(len(d_states))
    for _ in range(len(d_states)):
        some = (times >= 0) & d_states.any(axis=(1, 2, 3))
        times, d_states, params = times[some], d_states[some], {k: np.zeros_like(p) for k, p in cell.params.items()}
        if len(times):
            d_states, params = back_one_step(cell, tape, times, d_states)
        yield params
        times = times - 1


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


@dataclass(frozen=True)
class MemoryPaths:
    """delta m_t = dL/dm_t through every path (`Cell.memory_gradient`), and the parts that add up to it.

    total is (T+1, B, H); each of `parts` too, by name:

    "memory"    straight along the memory, f_{t+1} delta c_{t+1} in an LSTM and z_{t+1} delta h_{t+1} in a
                GRU: the constant error carousel (Hochreiter & Schmidhuber 1997). Nothing in a plain RNN.
    "loss"      through the output that reads m_t, from what the loss (or the layer above) reads there
    gate names  through that same output, back from one gate of the step after it
    "other"     only where there are further ways round W_h: in none of rnnlab's cells, but past the end of a shorter
                sequence, where a gradient of the final h is handed on

    The output that reads c_t is h_t in an LSTM, and h_{t+1} in the four-gate cell, which reads before it writes.
    """

    total: Array
    parts: dict[str, Array]

    def norms(self) -> dict[str, Array]:
        """||part_t|| over batch and units, (T+1,), by name, and "total"."""
        return {name: norm(part, (1, 2)) for name, part in (self.parts | {"total": self.total}).items()}

    def shares(self) -> dict[str, Array]:
        """<part_t, total_t> / <total_t, total_t>, (T+1,), by name: they add up to 1 (to 0 where the total is 0)."""
        largest = np.abs(self.total).max(axis=(1, 2), keepdims=True)
        scale = np.where(largest > 0, largest, 1)  # without it, squares of small numbers would be 0
        scaled = self.total / scale
        whole = (scaled * scaled).sum(axis=(1, 2))
        divisor = np.where(whole > 0, whole, 1)
        return {name: (part / scale * scaled).sum(axis=(1, 2)) / divisor for name, part in self.parts.items()}


def memory_paths(cell: Cell, tape: Tape, d_h: Array, d_state: Array | None = None) -> MemoryPaths:
    """Split the memory's gradient by path.

    A gate's share is what no longer comes back when that gate's W_h block is zero. The
    blocks are taken away one after the other, so a path through two gates (reset, then candidate, where
    the reset gate acts first) counts for the one that `gate_names` lists first. Whatever reaches
    m_{t-1} from m_t without W_h counts as "memory", a learner's peepholes included.

    Parameters
    ----------
    cell, tape : a cell, and the tape of its forward pass
    d_h : (T, B, H), dL/dh_t as read at each step's output
    d_state : (S, B, H), what reaches the final state besides d_h; None for zeros

    Returns
    -------
    `MemoryPaths`. Errors as in `Cell.backward`.
    """
    check_cell(cell, tape)
    grads = cell.backward(tape, d_h, d_state, input_gradient=False)

    def back(through: Cell, d_states: Array) -> Array:
        """dL/dstate_t (T+1, S, B, H) that comes from dL/dstate_{t+1}, for all t at once."""
        d_prev, _ = back_one_step(through, tape, np.arange(len(tape.x)), d_states[1:])
        return np.concatenate((d_prev, np.zeros_like(d_states[:1])))

    def memory(d_states: Array) -> Array:
        return cell.memory_gradient(tape, replace(grads, states=d_states))

    def of_memory_alone(d_states: Array) -> Array:
        """The same gradient, all of it put on the memory."""
        alone = np.zeros_like(d_states)
        alone[:, -1] = memory(d_states)
        return alone

    through_h = {"loss": outside_gradients(cell, tape, d_h, d_state)}
    W_h, left = cell.W_h.copy(), back(cell, grads.states)
    for k, gate in enumerate(cell.gate_names):
        W_h[k] = 0
        without = back(cell.with_params(cell.params | {"W_h": W_h}), grads.states)
        through_h[gate], left = left - without, without
    bare = cell.with_params(cell.params | {"W_h": W_h})  # all of W_h is zero by now
    parts = {"memory": memory(back(bare, of_memory_alone(grads.states)))}
    for name, part in through_h.items():
        later = back(bare, part - of_memory_alone(part))  # read by the next output, and not by way of the memory
        parts[name] = memory(part) + memory(later)
    total = memory(grads.states)
    other = total - sum(parts.values())
    if np.abs(other).max() > 1e3 * np.finfo(cell.dtype).eps * np.abs(total).max():
        parts["other"] = other
    return MemoryPaths(total, parts)


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
    if not is_iterable(lengths):
        raise TypeError(f"lengths: expected integers of at least 1, got {describe(lengths)}")
    ks = [integer("lengths", k) for k in lengths]
    if not ks:
        raise ValueError("lengths: expected at least one, got none")
    cells, tapes = one_direction(model.cells, result.tapes)
    whole, rows = _vectors(result.grads), [_vectors(_truncated(cells, tapes, d_h, k)) for k in ks]
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
        for n in reversed(range(len(cells))):
            grads = cells[n].backward(slice_time(tapes[n], start, end), d, input_gradient=n > 0)
            d = np.asarray(grads.x)
            for name, g in grads.params.items():
                total[f"cells.{n}.{name}"] = total.get(f"cells.{n}.{name}", 0) + g
    return total


def _vectors(grads: Arrays) -> Arrays:
    """The gradient of each recurrent parameter as a vector, and all of them as one."""
    vectors = {name: grads[name].ravel() for name in sorted(grads) if name.startswith("cells.")}
    return vectors | {"all": np.concatenate([*vectors.values()])}
