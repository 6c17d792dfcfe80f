"""Plots of losses, gradients and gates. Every function takes an `ax` (None makes one) and returns it; none shows it.

One colour stands for one kind of cell in every figure, from the palette of Okabe & Ito (2008), which
colour-blind readers can tell apart; curves are labelled at their ends, so no legend has to be decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rnnlab.cells.base import Tape
from rnnlab.ops import Array
from rnnlab.trainer import History
from rnnlab.validate import check_finite, check_shape, describe, one_of, positive_int

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#767676"  # what is no curve: reference lines, grids

CELL_COLOURS = {
    "fourgatelstm": PURPLE,
    "gruresetbefore": SKY_BLUE,
    "rnn": VERMILLION,
    "lstm": BLUE,
    "gru": GREEN,
}
OTHER_COLOURS = (BLACK, ORANGE, YELLOW)
GATE_MEANINGS = {
    "input": "1 writes the candidate",
    "forget": "1 keeps the memory",
    "output": "1 shows the memory",
    "reset": "1 reads the old state",
    "update": "1 keeps the old state",
    "candidate": "what would be written",
}
LINE_STYLES = ("-", "--", ":", "-.")

Curve = History | Sequence[float] | Array


# ---- figures ----------------------------------------------------------------------------------


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
    smooth, curves = positive_int("smooth", smooth), _curves("histories", histories, positive=log)
    references = _curves("baselines", {k: [v] for k, v in baselines.items()}, positive=log) if baselines else {}
    shortest = min(map(len, curves.values()))
    if shortest < smooth:
        raise ValueError(f"smooth: expected at most the {shortest} steps of the shortest curve, got {smooth}")
    ax, lines = axes(ax), []
    for (label, curve), style in zip(curves.items(), line_styles(curves), strict=True):
        mean = np.convolve(curve, np.full(smooth, 1 / smooth), "valid") if smooth > 1 else curve
        lines += ax.plot(np.arange(smooth, len(curve) + 1), mean, label=label, **style)
    last = max(map(len, curves.values()))
    for label, (value,) in references.items():
        lines += ax.plot([1, last], [value, value], color=GREY, linestyle="--", linewidth=1.2, label=label)
    ax.set(xlabel="training step", ylabel=ylabel + (f"\n(mean of the last {smooth} steps)" if smooth > 1 else ""))
    ax.set_xlim(1, max(last, 2))
    if log:
        ax.set_yscale("log")
    direct_labels(ax, lines)
    return ax


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
    curves = _curves("norms", norms)
    for label, curve in curves.items():
        if (curve < 0).any() or not curve.any():
            raise ValueError(f"norms[{label!r}]: expected norms, at least 0 and not all 0, got {describe(curve)}")
    ax, lines = axes(ax), []
    for (label, curve), style in zip(curves.items(), line_styles(curves), strict=True):
        above_0 = np.where(curve > 0, curve, np.nan)
        lines += ax.plot(above_0 / curve[curve > 0][-1] if relative else above_0, label=label, **style)
    ax.set_yscale("log")
    ax.set_xlim(0, max(1, *(len(curve) - 1 for curve in curves.values())))
    ax.set(xlabel=xlabel, ylabel=quantity + (", divided by its last value" if relative else ""))
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.spines["left"].set_visible(False)
    ax.spines["right"].set_visible(True)
    direct_labels(ax, lines, side="left")
    return ax


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
    the tape.
    """
    values = tape.gate(gate)
    T, B = values.shape[:2]
    if not 0 <= sequence < B:
        raise IndexError(f"sequence: expected one of the batch's 0 .. {B - 1}, got {sequence}")
    for t in events or ():
        if not 0 <= t < T:
            raise IndexError(f"events: expected time steps 0 .. {T - 1}, got {t}")
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
    ax.figure.colorbar(image, ax=ax, label=title, pad=0.02)
    ax.grid(False)
    ax.set(xlabel="time step t", ylabel="unit, largest mean first" if sort else "unit")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    if events:
        names = list(events.values())
        top = ax.secondary_xaxis("top")
        upright = len(names) > 5 and max(map(len, names)) > 1
        top.set_xticks(list(events), names, rotation=90 if upright else 0)
        top.spines["top"].set_visible(False)
    return ax


# ---- the shared style -------------------------------------------------------------------------


def axes(ax: Axes | None) -> Axes:
    """`ax`, or new axes where it is None, in the style of all figures. TypeError for anything else."""
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, 4), layout="constrained")
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected matplotlib axes or None, got {describe(ax)}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#E0E0E0", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def colour_of(label: str) -> str | None:
    """The colour of the cell whose name begins the label ("GRU", "four-gate LSTM, chrono"), None for no cell."""
    name = "".join(c for c in label.lower() if c.isalnum())
    return next((colour for cell, colour in CELL_COLOURS.items() if name.startswith(cell)), None)


def line_styles(labels: Collection[str]) -> list[dict[str, Any]]:
    """Colour, dashes and width for each label: one colour a kind of cell, other dashes for each further one of it.

    Widths fall from the first to the last, which is drawn on top: where curves coincide, both are seen.
    """
    seen: dict[str, int] = {}
    others = count()
    styles = []
    for label, width in zip(labels, np.linspace(2.5, 1.5, len(labels)), strict=True):
        colour = colour_of(label) or OTHER_COLOURS[next(others) % len(OTHER_COLOURS)]
        dash = seen[colour] = seen.get(colour, -1) + 1
        dashes = LINE_STYLES[dash % len(LINE_STYLES)]
        styles.append({"color": colour, "linestyle": dashes, "linewidth": float(width) if len(labels) > 1 else 1.5})
    return styles


def direct_labels(ax: Axes, lines: Sequence[Line2D], side: str = "right") -> None:
    """Write each line's label beside its end at one side of the axes, moved apart where they would overlap.

    Call it last: it reads the axes' limits and scale.
    """
    end = {"right": -1, "left": 0}[one_of("side", side, ("right", "left"))]
    ends = []
    for line in lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        drawn = np.flatnonzero(np.isfinite(y))
        ends.append((x[drawn[end]], y[drawn[end]]))
    ax.set_ylim(ax.get_ylim())  # later changes of the data no longer move the curves away from their labels
    heights = (ax.transScale + ax.transLimits).transform(np.array(ends))[:, 1]
    points = ax.get_window_extent().height * 72 / ax.figure.dpi
    size = 9.0
    order = np.argsort(heights, kind="stable")
    heights[order] = spread(heights[order], 1.35 * size / points)
    outside, align = (1.03, "left") if end else (-0.03, "right")
    for line, xy, height in zip(lines, ends, heights, strict=True):
        ax.annotate(
            str(line.get_label()),
            xy=xy,
            xytext=(outside, float(height)),
            textcoords="axes fraction",
            ha=align,
            va="center",
            fontsize=size,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.get_color(),
                "linewidth": 1.5,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0 if end else 1, 0.5),
            },
        )


def spread(positions: Array, gap: float) -> Array:
    """Ascending positions, moved as little apart as keeps neighbours at least `gap` from each other."""
    up, down = positions.copy(), positions.copy()
    for i in range(1, len(positions)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-i - 1] = min(down[-i - 1], down[-i] - gap)
    middle: Array = (up + down) / 2
    return middle


# ---- at the door ------------------------------------------------------------------------------


def _curves(name: str, curves: Mapping[str, Curve], *, positive: bool = False) -> dict[str, Array]:
    """Each curve as a finite float array with at least one entry."""
    if not isinstance(curves, Mapping):
        raise TypeError(f"{name}: expected a dict from label to curve, got {describe(curves)}")
    if not curves:
        raise ValueError(f"{name}: expected at least one curve, got none")
    arrays = {}
    for label, curve in curves.items():
        entry, array = f"{name}[{label!r}]", np.asarray(curve.loss if isinstance(curve, History) else curve)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{entry}: expected real numbers, got {describe(curve)}")
        check_shape(entry, array, (("steps", None),))
        check_finite(entry, array)
        if positive and array.min() <= 0:
            raise ValueError(f"{entry}: expected numbers above 0 for a logarithmic axis, got {array.min()}")
        arrays[label] = array.astype(float)
    return arrays
