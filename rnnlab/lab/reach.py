"""How far back a network looks: what each input does to the last output, and to the loss."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from rnnlab.batch import Batch
from rnnlab.cells.arrays import padded
from rnnlab.cells.base import Cell, Tape
from rnnlab.cells.bidirectional import Recurrent
from rnnlab.lab.recorded import backward_in_blocks, log, one_direction
from rnnlab.model import SequenceModel, State, check_model
from rnnlab.ops import Array, norm
from rnnlab.validate import describe, float_array, positive_float, to_array


def connectivity(
    target: Cell | SequenceModel, x: Array, state: State | Array | None = None, lengths: Array | None = None
) -> Array:
    """log ||d h_T / d x_t|| (natural, Frobenius norm) for every t of each sequence.

    h_T is the last output of the cell, or of the model's last layer; with `lengths` the output at each sequence's end.

    Parameters
    ----------
    target : a `Cell` or a `SequenceModel`
    x : the input as `forward` takes it, integers as their one-hot rows or their embedding
    state : the initial state, (S, B, H) for a cell, one for each layer of a model, None for zeros
    lengths : the number of steps of each sequence, as `forward` takes it

    Returns
    -------
    (T, B), -inf where nothing of x_t arrives.

    Raises
    ------
    TypeError, ValueError
        For a target that is neither, for a model with a layer that reads backwards, and as `Cell.forward`.

    References
    ----------
    After Madsen 2019, doi 10.23915/distill.00016.
    """
    initial: Any = state  # `forward` and `unroll` check it
    if isinstance(target, Cell):
        cells: tuple[Cell, ...] = (target,)
        tapes: tuple[Tape, ...] = (target.forward(_rows(target, x, lengths), initial, lengths),)
    elif isinstance(target, SequenceModel):
        target, rows = _embedded(target, x, lengths)
        cells, tapes = one_direction(target.cells, target.unroll(rows, initial, lengths))
    else:
        raise TypeError(f"target: expected a Cell or a SequenceModel, got {describe(target)}")
    (T, B), H = tapes[0].x.shape[:2], cells[-1].hidden_size
    units = np.zeros((len(cells[-1].state_names), H, B, H))
    units[0] = np.eye(H)[:, None]  # one gradient for each unit of h_T
    log_norms = np.empty((T, B))
    for start, grads, log_scale in backward_in_blocks(cells, tapes, units, input_gradient=True):
        d_x = np.asarray(grads[0].x)
        d_x = d_x.reshape(len(d_x), H, B, -1)
        log_norms[start : start + len(d_x)] = log(norm(d_x, (1, 3))) + log_scale
    return log_norms


def _embedded(model: SequenceModel, x: Array, lengths: Array | None) -> tuple[SequenceModel, Array]:
    """(the model without an embedding, the rows that its first layer reads)."""
    if model.embedding is None:
        return model, _rows(model.cells[0], x, lengths)
    return SequenceModel(model.cells, model.readout, model.loss), model.embedding.forward(padded(x, lengths)[0])


def _rows(cell: Recurrent, x: Array, lengths: Array | None) -> Array:
    """x, integers as their one-hot rows; TypeError or ValueError as `Cell.forward`."""
    x = cell.check_input(padded(x, lengths)[0])
    return np.eye(cell.input_size, dtype=cell.dtype)[x] if x.ndim == 2 else x


def input_gradient_norms(model: SequenceModel, batch: Batch, state: State | None = None) -> Array:
    """||dL/dx_t|| for every t of each sequence; integer input as its one-hot rows or its embedding.

    Parameters
    ----------
    model, batch : a model, and a batch for it
    state : the initial state as in `SequenceModel.loss_and_grads`

    Returns
    -------
    (T, B). Raises as `SequenceModel.loss_and_grads`.
    """
    check_model(model)
    if isinstance(batch, Batch):
        model, rows = _embedded(model, batch.x, batch.lengths)
        batch = replace(batch, x=rows)
    d_x = model.loss_and_grads(batch, state, input_gradient=True).cell_grads[0].x
    return norm(np.asarray(d_x), (2,))


class ShadedText:
    """A text whose characters are shaded by a positive quantity, in logarithms; a notebook shows it as plain HTML.

    Parameters
    ----------
    text : at least one character
    log_values : (T,), one natural logarithm for each character, such as `connectivity`'s for one sequence
    decades : the largest value gets the full colour, what lies so many powers of ten below it, or more, none
    caption : what stands above it

    Raises
    ------
    TypeError, ValueError
        Where text and values do not fit.
    """

    def __init__(self, text: str, log_values: Array, *, decades: float = 4.0, caption: str = "") -> None:
        if not isinstance(text, str) or not text:
            raise TypeError(f"text: expected a string of at least one character, got {describe(text)}")
        self.text, self.caption, self.decades = text, caption, positive_float("decades", decades)
        if to_array("log_values", log_values).dtype.kind not in "fiu":
            raise TypeError(f"log_values: expected numbers, got {describe(log_values)}")
        self.log_values = np.asarray(log_values, float)
        float_array("log_values", np.maximum(self.log_values, -1e300), (("T", len(text)),), np.dtype(float))

    @property
    def shades(self) -> Array:
        """Between 0 and 1 for each character, (T,)."""
        largest = self.log_values.max()
        if largest == -np.inf:
            return np.zeros(len(self.text))
        shades: Array = np.clip(1 + (self.log_values - largest) / (np.log(10) * self.decades), 0, 1)
        return shades

    def _repr_html_(self) -> str:
        spans = []
        for character, shade, value in zip(self.text, self.shades, self.log_values, strict=True):
            red, green, blue = (round(255 + shade * (full - 255)) for full in (0x56, 0xB4, 0xE9))  # to sky blue
            shown = "↵\n" if character == "\n" else escape(character)
            hint = f"10^{value / np.log(10):.1f}"
            spans.append(f'<span style="background:rgb({red},{green},{blue})" title="{hint}">{shown}</span>')
        style = "white-space:pre-wrap;font-family:monospace;line-height:1.5;color:#000;background:#fff;padding:.5em"
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure style="margin:0">{caption}<div style="{style}">{"".join(spans)}</div></figure>'

    def __repr__(self) -> str:
        return f"ShadedText({self.text[:40]!r}, {len(self.text)} characters)"
