"""Figures of losses and of the gradient-norm logger: each checks what it is given, then draws it with `style`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from rnnlab.gradnorm import GradientNormLogger
from rnnlab.ops import Array
from rnnlab.plots import checks, style
from rnnlab.plots.style import curves
from rnnlab.validate import describe, integer, is_iterable


@style.figure
def loss_curves(
    histories: Mapping[str, checks.Curve],
    *,
    baselines: Mapping[str, float] | None = None,
    smooth: int = 1,
    log: bool = False,
    ylabel: str = "training loss",
    ax: Axes | None = None,
) -> Axes:
    """Loss against training step, one curve for each label.

    Parameters
    ----------
    histories
        A dict from label to a `History` or its losses; a label that begins with a cell's name ("LSTM, chrono") takes
        that cell's colour.
    baselines : a dict from label to a number, such as chance: dashed horizontals
    smooth : draws the mean of the last so many steps
    log : a logarithmic axis, for losses above 0
    ylabel : what the losses are
    """
    checks.check_kind("ylabel", ylabel, "str")
    smooth, curves_of = integer("smooth", smooth), checks.curve_arrays("histories", histories, positive=log)
    if baselines is not None and not isinstance(baselines, Mapping):
        raise TypeError(f"baselines: expected a dict from label to number, got {describe(baselines)}")
    one_each = {label: [value] for label, value in (baselines or {}).items()}
    references = checks.curve_arrays("baselines", one_each, positive=log) if one_each else {}
    shortest = min(map(len, curves_of.values()))
    if shortest < smooth:
        raise ValueError(f"smooth: expected at most the {shortest} steps of the shortest curve, got {smooth}")
    points = {}
    for label, curve in curves_of.items():
        mean = np.convolve(curve, np.full(smooth, 1 / smooth), "valid")
        points[label] = np.arange(smooth, len(curve) + 1), mean
    last = max(map(len, curves_of.values()))
    levels = {label: ((1, last), np.repeat(value, 2)) for label, value in references.items()}
    ylabel += f"\n(mean of the last {smooth} steps)" if smooth > 1 else ""
    return curves(ax, points, references=levels, log=log, start=1, xlabel="training step", ylabel=ylabel)


@style.figure
def gradient_flow(
    norms: Mapping[str, Sequence[float] | Array],
    *,
    relative: bool = False,
    quantity: str = "norm of dL/dstate$_t$",
    xlabel: str = "time step t (the loss is read at the right end)",
    ax: Axes | None = None,
) -> Axes:
    """How much gradient reaches each time step: a norm against t = 0, 1, ..., on a logarithmic axis.

    The labels stand at the left, where the curves part, and the scale at the right, where backpropagation begins. An
    exact 0 leaves a gap, for a logarithm has no place for it.

    Parameters
    ----------
    norms
        A dict from label to the norms at successive t, such as `state_norms(cell, tape, grads)["c"]` or an entry of
        `GradientNormLogger.norms`.
    relative : divides each curve by its last value above 0
    quantity, xlabel : what stands at the two axes
    """
    checks.check_kind("quantity", quantity, "str")
    checks.check_kind("xlabel", xlabel, "str")
    arrays = checks.curve_arrays("norms", norms)
    points = {}
    for label, curve in arrays.items():
        if (curve < 0).any() or not curve.any():
            raise ValueError(f"norms[{label!r}]: expected norms, at least 0 and not all 0, got {describe(curve)}")
        points[label] = np.arange(len(curve)), curve / curve[curve > 0][-1] if relative else curve
    quantity += ", divided by its last value" if relative else ""
    return curves(ax, points, side="left", log=True, start=0, xlabel=xlabel, ylabel=quantity)


@style.figure
def gradient_norm_map(logger: GradientNormLogger, *, state: str = "h", layer: int = -1, ax: Axes | None = None) -> Axes:
    """||dL/dstate_t|| as a map, in logarithmic colour: time steps across, training steps up.

    Sequences of different length are joined at their ends, where the loss is read. An exact 0 is grey, and infinity.

    Parameters
    ----------
    logger : what a training recorded
    state : a state part, such as "h" or "c"
    layer : which layer, -1 for the last
    """
    checks.check_kind("logger", logger, "GradientNormLogger")
    for before, after in pairwise(logger.steps):
        if before >= after:
            raise ValueError(
                f"logger: expected training steps that increase, got {after} after {before}; take a new logger "
                "for each training"
            )
    norms = logger.norms(state, layer)
    longest = max(map(len, norms), default=0)
    values = np.full((len(norms), longest), np.nan)
    for row, curve in zip(values, norms, strict=True):
        row[longest - len(curve) :] = style.gaps(curve, log=True)
    if not np.isfinite(values).any():
        raise ValueError(
            f"logger: expected records with a gradient above 0, got {len(norms)} without; train with it as a callback"
        )
    ax = style.axes(ax)
    ax.set_facecolor("#C8C8C8")
    same = min(map(len, norms)) == longest
    t, xlabel = np.arange(longest) - (0 if same else longest - 1), "time step t" if same else "time steps from the end"
    look: dict[str, Any] = {"cmap": "viridis", "norm": LogNorm(np.nanmin(values), np.nanmax(values))}
    bar, steps = f"norm of dL/d{state}$_t$", np.array(logger.steps)
    return style.heat_map(ax, t, steps, values, bar=bar, xlabel=xlabel, ylabel="training step", **look)


@style.figure
def gradient_ratios(
    loggers: Mapping[str, GradientNormLogger],
    *,
    state: str = "h",
    layer: int = -1,
    per_step: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """How much gradient reaches the first time step, against training step, in powers of ten.

    Parameters
    ----------
    loggers : a dict from label to `GradientNormLogger`
    state, layer : as in `GradientNormLogger.ratios`
    per_step : draws the fitted `GradientNormLogger.rates` instead
    """
    checks.check_kinds("loggers", loggers, "GradientNormLogger")
    points = {}
    for label, logger in loggers.items():
        points[label] = logger.steps, logger.rates(state, layer) if per_step else logger.ratios(state, layer)
    what = "per time step back" if per_step else "at t = 1, divided by that at t = T"
    ylabel = f"log$_{{10}}$ of the norm of dL/d{state}$_t$\n{what}"
    ax = curves(ax, points, argument="loggers", xlabel="training step", ylabel=ylabel)
    ax.axhline(0, color=style.GREY, linewidth=1)
    return ax


@style.figure
def parameter_norms(
    logger: GradientNormLogger, blocks: Iterable[str], *, layer: int = -1, ax: Axes | None = None
) -> Axes:
    """Norms of dL/dparameter against training step; one colour a gate, one shade a parameter.

    Parameters
    ----------
    logger : what a training recorded
    blocks : names such as "W_h[forget]"
    layer : which layer, -1 for the last
    """
    checks.check_kind("logger", logger, "GradientNormLogger")
    if isinstance(blocks, str) or not is_iterable(blocks):
        raise TypeError(f"blocks: expected names such as 'W_h[forget]', got {describe(blocks)}")
    points = {block: (logger.steps, logger.param_norms(block, layer)) for block in blocks}
    if not points:
        raise ValueError("blocks: expected at least one, got none")
    xlabel, ylabel = "training step", "norm of dL/dparameter"
    styles = _block_styles(points)
    return curves(ax, points, argument="blocks", styles=styles, log=True, xlabel=xlabel, ylabel=ylabel)


def _block_styles(blocks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A colour for each gate, a shade of it for each parameter; "W_h[forget]" is both."""
    parameters: dict[str, int] = {}
    styles = {}
    for block in blocks:
        parameter, _, gate = block.removesuffix("]").partition("[")
        n = parameters.setdefault(parameter, len(parameters))
        styles[block] = {"color": style.shade(style.PATH_COLOURS.get(gate, style.OLIVE), n)}
    return styles
