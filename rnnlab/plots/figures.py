"""Figures of losses, gates and the gradient-norm logger: each checks what it is given, then draws it with `style`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from rnnlab.cells.base import Tape
from rnnlab.gradnorm import GradientNormLogger
from rnnlab.ops import Array
from rnnlab.plots.checks import (
    Curve,
    check_events,
    check_index,
    check_kind,
    check_kinds,
    curve_arrays,
    drawable,
)
from rnnlab.plots.style import (
    GREY,
    OLIVE,
    PATH_COLOURS,
    axes,
    colour_bar,
    curves,
    name_events,
    shade,
)
from rnnlab.validate import describe, has_entries, positive_int

GATE_MEANINGS = {
    "input": "1 writes the candidate",
    "forget": "1 keeps the memory",
    "output": "1 shows the memory",
    "reset": "1 reads the old state",
    "update": "1 keeps the old state",
    "candidate": "what would be written",
}


def loss_curves(
    histories: Mapping[str, Curve],
    *,
    baselines: Mapping[str, float] | None = None,
    smooth: int = 1,
    log: bool = False,
    ylabel: str = "training loss",
    ax: Axes | None = None,
) -> Axes:
    """Loss against training step, one curve for each label.

    `histories` maps a label to a `History` or to its losses; a label that begins with a cell's name
    ("LSTM, chrono") takes that cell's colour. `smooth` draws the mean of the last so many steps,
    `baselines` dashed horizontals, such as chance. `log` needs losses above 0. Raises TypeError or
    ValueError for curves that are empty, not finite or shorter than `smooth`.
    """
    check_kind("ylabel", ylabel, "str")
    smooth, curves_of = positive_int("smooth", smooth), curve_arrays("histories", histories, positive=log)
    if baselines is not None and not isinstance(baselines, Mapping):
        raise TypeError(f"baselines: expected a dict from label to number, got {describe(baselines)}")
    references = curve_arrays("baselines", {k: [v] for k, v in baselines.items()}, positive=log) if baselines else {}
    shortest = min(map(len, curves_of.values()))
    if shortest < smooth:
        raise ValueError(f"smooth: expected at most the {shortest} steps of the shortest curve, got {smooth}")
    points = {}
    for label, curve in curves_of.items():
        mean = np.convolve(curve, np.full(smooth, 1 / smooth), "valid") if smooth > 1 else curve
        points[label] = np.arange(smooth, len(curve) + 1), mean
    last = max(map(len, curves_of.values()))
    levels = {label: (np.array([1, last]), np.repeat(value, 2)) for label, value in references.items()}
    ylabel += f"\n(mean of the last {smooth} steps)" if smooth > 1 else ""
    limits = (1, max(last, 2))
    return curves(ax, points, references=levels, log=log, xlim=limits, xlabel="training step", ylabel=ylabel)


def gradient_flow(
    norms: Mapping[str, Sequence[float] | Array],
    *,
    relative: bool = False,
    quantity: str = "norm of dL/dstate$_t$",
    xlabel: str = "time step t (the loss is read at the right end)",
    ax: Axes | None = None,
) -> Axes:
    """How much gradient reaches each time step: a norm against t = 0, 1, ..., on a logarithmic axis.

    `norms` maps a label to the norms at successive t, such as `state_norms(cell, tape, grads)["c"]` or
    an entry of `GradientNormLogger.norms`. An exact 0 leaves a gap, for a logarithm has no place for it;
    `relative` divides each curve by its last value above 0. The labels stand at the left, where the
    curves part, and the scale at the right, where backpropagation begins. Raises TypeError or ValueError
    for norms that are empty, negative, not finite or all 0.
    """
    check_kind("quantity", quantity, "str")
    check_kind("xlabel", xlabel, "str")
    arrays = curve_arrays("norms", norms)
    for label, curve in arrays.items():
        if (curve < 0).any() or not curve.any():
            raise ValueError(f"norms[{label!r}]: expected norms, at least 0 and not all 0, got {describe(curve)}")
    points = {}
    for label, curve in arrays.items():
        above_0 = np.where(curve > 0, curve, np.nan)
        points[label] = np.arange(len(curve)), above_0 / curve[curve > 0][-1] if relative else above_0
    limits = (0, max(1, *(len(curve) - 1 for curve in arrays.values())))
    quantity += ", divided by its last value" if relative else ""
    return curves(ax, points, side="left", log=True, xlim=limits, xlabel=xlabel, ylabel=quantity)


def gate_heatmap(
    tape: Tape,
    gate: str,
    *,
    sequence: int = 0,
    sort: bool = False,
    events: Mapping[int, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One gate's activations for one sequence of the batch: units down, time steps across.

    Sigmoid gates run from 0 (dark) to 1 (bright); a candidate from -1 to 1 around white (wider where a
    ReLU exceeds 1). `sort` orders the units by their mean, the largest at the top. `events` names
    time steps, {t: text}, above the picture. Column t is the step that reads `tape.x[t]`. Raises
    KeyError for a gate that the cell does not have, IndexError for a sequence or an event outside
    the tape, TypeError for what is no integer.
    """
    check_kind("tape", tape, "Tape")
    values = tape.gate(gate)
    T, B = values.shape[:2]
    check_index("sequence", sequence, B, "one of the batch's")
    check_events(events, T)
    units = values[:, sequence].T
    if sort:
        units = units[np.argsort(-units.mean(axis=1), kind="stable")]
    if gate == "candidate":
        limit = max(1.0, float(np.abs(units).max()))
        scale, limits, title = "RdBu_r", (-limit, limit), gate
    else:
        scale, limits, title = "viridis", (0.0, 1.0), f"{gate} gate"
    title += f": {GATE_MEANINGS[gate]}" if gate in GATE_MEANINGS else ""
    ax = axes(ax)
    image = ax.imshow(
        units, cmap=scale, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest", rasterized=True
    )
    colour_bar(ax, image, title)
    ax.set(xlabel="time step t", ylabel="unit, largest mean first" if sort else "unit")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    name_events(ax, events or {})
    return ax


def gradient_norm_map(logger: GradientNormLogger, *, state: str = "h", layer: int = -1, ax: Axes | None = None) -> Axes:
    """||dL/dstate_t|| as a map, in logarithmic colour: time steps across, training steps up.

    Sequences of different length are joined at their ends, where the loss is read. An exact 0 is grey, and infinity.
    Raises ValueError for a logger without records or without any gradient, and for one whose steps do not
    increase, as after two trainings; otherwise as `GradientNormLogger.norms`.
    """
    check_kind("logger", logger, "GradientNormLogger")
    for before, after in pairwise(logger.steps):
        if before >= after:
            raise ValueError(f"logger: expected training steps that increase, got {after} after {before}")
    norms = logger.norms(state, layer)
    longest = max(map(len, norms), default=0)
    values = np.full((len(norms), longest), np.nan)
    for row, curve in zip(values, norms, strict=True):
        row[longest - len(curve) :] = np.where((curve > 0) & (curve < np.inf), curve, np.nan)
    if not np.isfinite(values).any():
        raise ValueError(f"logger: expected records with a gradient above 0, got {len(norms)} without")
    ax = axes(ax)
    same = min(map(len, norms)) == longest
    t = np.arange(longest) - (0 if same else longest - 1)
    ax.set_facecolor("#C8C8C8")
    limits = LogNorm(np.nanmin(values), np.nanmax(values))
    mesh = ax.pcolormesh(t, np.array(logger.steps), values, norm=limits, cmap="viridis", rasterized=True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    colour_bar(ax, mesh, f"norm of dL/d{state}$_t$")
    ax.set(xlabel="time step t" if same else "time steps from the end", ylabel="training step")
    return ax


def gradient_ratios(
    loggers: Mapping[str, GradientNormLogger],
    *,
    state: str = "h",
    layer: int = -1,
    per_step: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """How much gradient reaches the first time step, against training step: `GradientNormLogger.ratios`,
    in powers of ten, or its fitted `rates` where `per_step`.

    Raises as `GradientNormLogger.norms`, ValueError for a logger without a finite ratio.
    """
    check_kinds("loggers", loggers, "GradientNormLogger")
    points = {}
    for label, logger in loggers.items():
        values = logger.rates(state, layer) if per_step else logger.ratios(state, layer)
        points[label] = np.array(logger.steps), drawable(f"loggers[{label!r}]", values)
    what = "per time step back" if per_step else "at t = 1, divided by that at t = T"
    ax = curves(ax, points, xlabel="training step", ylabel=f"log$_{{10}}$ of the norm of dL/d{state}$_t$\n{what}")
    ax.axhline(0, color=GREY, linewidth=1)
    return ax


def parameter_norms(
    logger: GradientNormLogger, blocks: Iterable[str], *, layer: int = -1, ax: Axes | None = None
) -> Axes:
    """Norms of dL/dparameter against training step, for blocks such as "W_h[forget]"; raises as
    `GradientNormLogger.param_norms`."""
    check_kind("logger", logger, "GradientNormLogger")
    if isinstance(blocks, str) or not has_entries(blocks):
        raise TypeError(f"blocks: expected names such as 'W_h[forget]', got {describe(blocks)}")
    points = {}
    for block in blocks:
        values = logger.param_norms(block, layer)
        shown = drawable(f"blocks[{block!r}]", np.where(values > 0, values, np.nan))
        points[block] = np.array(logger.steps), shown
    if not points:
        raise ValueError("blocks: expected at least one, got none")
    xlabel, ylabel = "training step", "norm of dL/dparameter"
    return curves(ax, points, styles=_block_styles(points), log=True, xlabel=xlabel, ylabel=ylabel)


def _block_styles(blocks: Iterable[str]) -> list[dict[str, Any]]:
    """A colour for each gate, a shade of it for each parameter; "W_h[forget]" is both."""
    parameters: dict[str, int] = {}
    styles = []
    for block in blocks:
        parameter, _, gate = block.removesuffix("]").partition("[")
        n = parameters.setdefault(parameter, len(parameters))
        styles.append({"color": shade(PATH_COLOURS.get(gate, OLIVE), n)})
    return styles
