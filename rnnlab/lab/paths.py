"""By which paths a gradient came back to the memory: along it, or through h and the gates of the next step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.lab.recorded import back_one_step, check_cell, outside_gradients
from rnnlab.ops import Array, norm


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
