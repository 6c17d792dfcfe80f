"""How far back a network looks: what each input does to the last output, and to the loss."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.lab.steps import fold_time, step_back
from rnnlab.model import Batch, SequenceModel, State, check_model
from rnnlab.ops import Array, norm
from rnnlab.validate import describe, float_array, positive_float, to_array


def connectivity(target: Cell | SequenceModel, x: Array, state: State | Array | None = None) -> Array:
    """log ||d h_T / d x_t|| (natural, Frobenius norm) for every t of each sequence, (T, B).

    h_T is the last output of the cell or of the model's last layer; x as `forward` takes it, integers
    as their one-hot rows; `state` (S, B, H) for a cell, one for each layer of a model, None for zeros.
    -inf where nothing of x_t arrives. After Madsen 2019 (doi 10.23915/distill.00016). Raises as
    `Cell.forward`, TypeError for a target that is neither.
    """
    cells: tuple[Cell, ...]
    tapes: tuple[Tape, ...]
    if isinstance(target, Cell):
        cells, tapes = (target,), (target.forward(x, None if state is None else np.asarray(state)),)
    elif isinstance(target, SequenceModel):
        states = tuple(state) if isinstance(state, np.ndarray) else state
        cells, tapes = target.cells, target.unroll(x, states)
    else:
        raise TypeError(f"target: expected a Cell or a SequenceModel, got {describe(target)}")
    T, B = tapes[0].x.shape[:2]
    H = cells[-1].hidden_size
    # d h_T[unit] / d state_t for each layer, (S, H units of h_T, B, H), but for exp(log_scale)
    d_states = [np.zeros((len(cell.state_names), H, B, cell.hidden_size), cell.dtype) for cell in cells]
    d_states[-1][0] = np.eye(H)[:, None]
    log_scale, log_norms = np.zeros(B), np.empty((T, B))
    with np.errstate(divide="ignore"):
        for t in reversed(range(T)):
            d_x: Array | float = 0.0
            for n, (cell, tape) in reversed(list(enumerate(zip(cells, tapes, strict=True)))):
                d_states[n][0] += d_x
                d_a, d_states[n] = step_back(cell, fold_time(tape, np.array([t])), d_states[n])
                d_x = (d_a.reshape(len(d_a), H * B, -1) @ cell.W_x.mT).sum(axis=0).reshape(H, B, -1)
            log_norms[t] = np.log(norm(np.asarray(d_x), (0, 2))) + log_scale
            largest = np.max([np.abs(d).max(axis=(0, 1, 3)) for d in d_states], axis=0)
            d_states = [d / np.where(largest > 0, largest, 1)[:, None] for d in d_states]
            log_scale += np.log(largest)
    return log_norms


def input_gradient_norms(model: SequenceModel, batch: Batch, state: State | None = None) -> Array:
    """||dL/dx_t|| for every t of each sequence, (T, B); integer input as its one-hot rows.

    Raises as `SequenceModel.loss_and_grads`.
    """
    check_model(model)
    if isinstance(batch, Batch) and to_array("x", batch.x).ndim == 2:
        model.cells[0].forward(batch.x)  # for its complaints about labels
        batch = replace(batch, x=np.eye(model.cells[0].input_size, dtype=model.cells[0].dtype)[batch.x])
    d_x = model.loss_and_grads(batch, state, input_gradient=True).cell_grads[0].x
    return norm(np.asarray(d_x), (2,))


class ShadedText:
    """A text whose characters are shaded by a positive quantity, in logarithms; a notebook shows it.

    `log_values` (T,) are natural logarithms, such as `connectivity`'s for one sequence. The largest gets
    the full colour, what lies `decades` powers of ten below it, or more, none. Plain HTML without
    scripts. Raises TypeError or ValueError where text and values do not fit.
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
