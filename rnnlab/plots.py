"""Plots of losses, gradients and gates. Every function takes an `ax` (None makes one) and returns it; none shows it.

One colour stands for one kind of cell in every figure, from the palette of Okabe & Ito (2008), which
colour-blind readers can tell apart; curves are labelled at their ends, so no legend has to be decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rnnlab.cells.base import Tape
from rnnlab.gradnorm import GradientNormLogger, entry_of
from rnnlab.lab import DistanceTerms, GateStatistics, JacobianDecay, MemoryPaths, Truncation
from rnnlab.lesson.diagram import cell_diagram as cell_diagram
from rnnlab.ops import Array
from rnnlab.trainer import History
from rnnlab.validate import check_finite, check_shape, describe, one_of, positive_int, to_array

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
PATH_COLOURS = {  # of gates, and of the paths by which a gradient comes back
    "memory": BLUE,
    "loss": VERMILLION,
    "input": ORANGE,
    "forget": SKY_BLUE,
    "output": PURPLE,
    "reset": ORANGE,
    "update": SKY_BLUE,
    "candidate": GREEN,
    "total": BLACK,
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
    _check_kind("ylabel", ylabel, str)
    smooth, curves = positive_int("smooth", smooth), _curves("histories", histories, positive=log)
    _check_kind("baselines", {} if baselines is None else baselines, Mapping)
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
    _check_kind("quantity", quantity, str)
    _check_kind("xlabel", xlabel, str)
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
    scale_at_right(ax)
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
    the tape, TypeError for what is no integer.
    """
    _check_kind("tape", tape, Tape)
    values = tape.gate(gate)
    T, B = values.shape[:2]
    _check_index("sequence", sequence, B, "one of the batch's")
    _check_events(events, T)
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
    name_events(ax, events or {})
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


def scale_at_right(ax: Axes) -> None:
    """The vertical scale at the right, where backpropagation begins: the left is free for labels."""
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.spines["left"].set_visible(False)
    ax.spines["right"].set_visible(True)


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

    Call it last: it reads the axes' scale, and lets the axes end at this side where the last curve does.
    """
    end = {"right": -1, "left": 0}[one_of("side", side, ("right", "left"))]
    ends = []
    for line in lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        drawn = np.flatnonzero(np.isfinite(y))
        ends.append((x[drawn[end]], y[drawn[end]]))
    (left, right), outermost = ax.get_xlim(), (max if end else min)(x for x, _ in ends)
    if left < outermost < right:  # a connector within the axes looks like a flat piece of curve
        ax.set_xlim((left, outermost) if end else (outermost, right))
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


def name_events(ax: Axes, events: Mapping[int, str]) -> None:
    """Name time steps, {t: text}, above the picture: upright where the names have no room side by side."""
    if not events:
        return
    size, times = 9.0, sorted(events)
    names, (left, right) = [events[t] for t in times], ax.get_xlim()
    points_a_step = ax.get_window_extent().width * 72 / ax.figure.dpi / (right - left)
    rooms = np.diff(times) * points_a_step
    needs = [0.3 * size * (len(one) + len(next_one) + 2) for one, next_one in pairwise(names)]  # half of each, a gap
    upright = (rooms < needs).any() and max(map(len, names)) > 1
    top = ax.secondary_xaxis("top")
    top.set_xticks(times, names, rotation=90 if upright else 0, fontsize=size)
    top.spines["top"].set_visible(False)


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
    _check_labels(name, curves, "curve")
    arrays = {}
    for label, curve in curves.items():
        entry = f"{name}[{label!r}]"
        array = to_array(entry, curve.loss if isinstance(curve, History) else curve)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{entry}: expected real numbers, got {describe(curve)}")
        check_shape(entry, array, (("steps", None),))
        check_finite(entry, array)
        if positive and array.min() <= 0:
            raise ValueError(f"{entry}: expected numbers above 0 for a logarithmic axis, got {array.min()}")
        arrays[label] = array.astype(float)
    return arrays


# ---- the gradient laboratory ------------------------------------------------------------------


def gradient_norm_map(logger: GradientNormLogger, *, state: str = "h", layer: int = -1, ax: Axes | None = None) -> Axes:
    """||dL/dstate_t|| as a map, in logarithmic colour: time steps across, training steps up.

    Sequences of different length are joined at their ends, where the loss is read. An exact 0 is grey, and infinity.
    Raises ValueError for a logger without records or without any gradient, and for one whose steps do not
    increase, as after two trainings; otherwise as `GradientNormLogger.norms`.
    """
    _check_kind("logger", logger, GradientNormLogger)
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
    ax.figure.colorbar(mesh, ax=ax, label=f"norm of dL/d{state}$_t$", pad=0.02)
    ax.grid(False)
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
    _check_kinds("loggers", loggers, GradientNormLogger)
    curves = {}
    for label, logger in loggers.items():
        values = logger.rates(state, layer) if per_step else logger.ratios(state, layer)
        curves[label] = _drawable(f"loggers[{label!r}]", values)
    ax, lines = axes(ax), []
    for (label, values), style in zip(curves.items(), line_styles(curves), strict=True):
        lines += ax.plot(loggers[label].steps, values, label=label, **style)
    ax.axhline(0, color=GREY, linewidth=1)
    what = "per time step back" if per_step else "at t = 1, divided by that at t = T"
    ax.set(xlabel="training step", ylabel=f"log$_{{10}}$ of the norm of dL/d{state}$_t$\n{what}")
    direct_labels(ax, lines)
    return ax


def parameter_norms(
    logger: GradientNormLogger, blocks: Iterable[str], *, layer: int = -1, ax: Axes | None = None
) -> Axes:
    """Norms of dL/dparameter against training step, for blocks such as "W_h[forget]"; raises as
    `GradientNormLogger.param_norms`."""
    _check_kind("logger", logger, GradientNormLogger)
    if isinstance(blocks, str) or not isinstance(blocks, Iterable):
        raise TypeError(f"blocks: expected names such as 'W_h[forget]', got {describe(blocks)}")
    curves = {}
    for block in blocks:
        values = logger.param_norms(block, layer)
        curves[block] = _drawable(f"blocks[{block!r}]", np.where(values > 0, values, np.nan))
    if not curves:
        raise ValueError("blocks: expected at least one, got none")
    ax, lines = axes(ax), []
    for (block, values), style in zip(curves.items(), _block_styles(curves), strict=True):
        lines += ax.plot(logger.steps, values, label=block, **style)
    ax.set_yscale("log")
    ax.set(xlabel="training step", ylabel="norm of dL/dparameter")
    direct_labels(ax, lines)
    return ax


def memory_paths(paths: MemoryPaths, *, stacked: bool = False, ax: Axes | None = None) -> Axes:
    """By which paths a gradient came back to the memory: a norm for each path, on a logarithmic axis.

    `stacked` shows each path's share of the whole instead (`MemoryPaths.shares`): the shares add up to 1,
    those of paths that work against the whole stand below 0. A part below 1e-14 of the whole is rounding, and
    left out. Raises ValueError for a whole that is 0 at every step, or at all but one, which is no line.
    """
    _check_kind("paths", paths, MemoryPaths)
    values, whole = paths.shares() if stacked else paths.norms(), paths.norms()["total"]
    least, reached = 1 if stacked else 2, np.count_nonzero((whole > 0) & (whole < np.inf))
    if reached < least:
        raise ValueError(f"paths: expected a gradient above 0 at {least} or more time steps, got {reached}")
    ax = axes(ax)
    t = np.arange(len(paths.total))
    if stacked:
        above, below = np.zeros(len(t)), np.zeros(len(t))
        for name, share in values.items():
            if not share.any():
                continue
            base = np.where(share >= 0, above, below)
            ax.bar(t, share, bottom=base, width=1.0, color=PATH_COLOURS.get(name, GREY), label=_path_label(name))
            above, below = above + np.maximum(share, 0), below + np.minimum(share, 0)
        ax.axhline(0, color=BLACK, linewidth=0.8)
        ax.set_xlim(-0.5, len(t) - 0.5)
        handles, names = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        ax.set(xlabel="time step t", ylabel="share of the gradient of the memory")
        return ax
    lines = []
    for name, norms in values.items():
        shown = np.where(norms > 1e-14 * whole, norms, np.nan)
        if not np.isfinite(shown).any():
            continue
        colour, (first, *more) = PATH_COLOURS.get(name, GREY), np.flatnonzero(np.isfinite(shown))
        if more:
            style = "--" if name == "total" else "-"
            lines += ax.plot(t, shown, color=colour, linestyle=style, label=_path_label(name))
        else:  # one point, such as a loss read once: named where it stands
            ax.plot(first, shown[first], "o", color=colour, clip_on=False, zorder=3)
            ax.annotate(
                _path_label(name),
                xy=(first, shown[first]),
                xytext=(-8, 8),
                textcoords="offset points",
                ha="right",
                color=colour,
                fontsize=9,
            )
    ax.set_yscale("log")
    ax.set_xlim(0, max(1, len(t) - 1))
    ax.set(xlabel="time step t (the loss is read at the right end)", ylabel="norm of the part of dL/dmemory$_t$")
    scale_at_right(ax)
    direct_labels(ax, lines, side="left")
    return ax


def distance_terms(
    terms: Mapping[str, DistanceTerms], block: str = "W_h[candidate]", *, ax: Axes | None = None
) -> Axes:
    """The norm of each time distance's term of dL/dparameter, for one block; one curve for each network.

    Raises KeyError for a block that a network does not have, ValueError for terms that are all 0.
    """
    _check_kinds("terms", terms, DistanceTerms)
    curves = {}
    for label, one in terms.items():
        norms = entry_of("block", one.norms, block)
        curves[label] = _drawable(f"terms[{label!r}]", np.where(norms > 0, norms, np.nan))
    ax, lines = axes(ax), []
    for (label, shown), style in zip(curves.items(), line_styles(curves), strict=True):
        lines += ax.plot(shown, label=label, **style)
    ax.set_yscale("log")
    ax.set(
        xlabel="time steps between the weight's use and the loss",
        ylabel=f"norm of this distance's term\nof dL/d{block}",
    )
    direct_labels(ax, lines)
    return ax


def truncation(
    results: Mapping[str, Truncation], *, quantity: str = "relative error", name: str = "all", ax: Axes | None = None
) -> Axes:
    """Truncated against full backpropagation, by the number of steps kept: "relative error" or "angle".

    `name` is a recurrent parameter or "all". Raises KeyError for a parameter that a model does not have,
    ValueError where nothing can be drawn.
    """
    one_of("quantity", quantity, ("relative error", "angle"))
    _check_kinds("results", results, Truncation)
    curves = {}
    for label, result in results.items():
        relative = quantity == "relative error"
        values = entry_of("name", result.relative_error, name) if relative else result.angle(name)
        curves[label] = _drawable(f"results[{label!r}]", values)
    ax, lines = axes(ax), []
    for (label, values), style in zip(curves.items(), line_styles(curves), strict=True):
        lines += ax.plot(results[label].lengths, values, marker="o", markersize=4, label=label, **style)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.0f}")
    unit = "angle to the full gradient (degrees)" if quantity == "angle" else "|truncated - full| / |full|"
    ax.set(xlabel="time steps that backpropagation goes back", ylabel=unit)
    ax.set_ylim(bottom=0)
    scale_at_right(ax)
    direct_labels(ax, lines, side="left")
    return ax


def singular_values(decay: JacobianDecay, *, sequence: int = 0, ax: Axes | None = None) -> Axes:
    """Singular values of d state_T / d state_{T - span} against the span, in powers of ten, and beside them what
    theory says: the bound of a plain network, and what the gates alone would keep. Raises IndexError for a
    sequence outside the batch, ValueError where every product is 0."""
    _check_kind("decay", decay, JacobianDecay)
    _check_index("sequence", sequence, decay.log_norm.shape[1], "one of the batch's")
    _drawable("decay", decay.log_norm[:, sequence])
    ax, lines = axes(ax), []
    powers = decay.log_singular_values[:, sequence] / np.log(10)
    ax.plot(decay.spans, powers, color=SKY_BLUE, linewidth=0.6, alpha=0.7)
    curves: dict[str, tuple[Array, dict[str, Any]]] = {"largest = norm": (decay.log_norm[:, sequence], {"color": BLUE})}
    if decay.log_gate_product is not None:
        of_units = np.sort(decay.log_gate_product[:, sequence], axis=-1)
        curves["gates alone, best unit"] = of_units[:, -1], {"color": ORANGE}
        middle = of_units[:, of_units.shape[-1] // 2]
        curves["gates alone, median unit"] = middle, {"color": ORANGE, "linestyle": "--"}
    if decay.log_bound is not None:
        curves["bound max|φ'| |W|"] = decay.log_bound[:, sequence], {"color": GREY, "linestyle": "--"}
    for label, (values, style) in curves.items():
        shown = np.where(np.isfinite(values), values, np.nan) / np.log(10)
        if np.isfinite(shown).any():
            lines += ax.plot(decay.spans, shown, label=label, linewidth=1.8, **style)
    ax.set(xlabel="span of the product of Jacobians (time steps)", ylabel="log$_{10}$ singular value")
    ax.set_xlim(1, max(2, len(decay.spans)))
    direct_labels(ax, lines)
    return ax


def connectivity(
    log_norms: Mapping[str, Array], *, events: Mapping[int, str] | None = None, ax: Axes | None = None
) -> Axes:
    """What each input does to the last output: `lab.connectivity` of several networks side by side, in powers of ten.

    Each value is (T,), or (T, B), of which the mean over the batch is drawn. `events` names time steps,
    {t: text}, above the picture. Raises ValueError for a network that no input reaches, IndexError for an
    event outside the sequence.
    """
    _check_labels("log_norms", log_norms, "array")
    means = {}
    for label, values in log_norms.items():
        logs = to_array(f"log_norms[{label!r}]", values)
        if logs.dtype.kind not in "fiu" or logs.ndim not in (1, 2) or not logs.size:
            raise ValueError(f"log_norms[{label!r}]: expected numbers of shape (T,) or (T, B), got {describe(values)}")
        mean = logs.reshape(len(logs), -1).mean(axis=1) / np.log(10)
        means[label] = _drawable(f"log_norms[{label!r}]", mean)
    longest = max(map(len, means.values()))
    _check_events(events, longest)
    ax, lines = axes(ax), []
    for (label, mean), style in zip(means.items(), line_styles(means), strict=True):
        lines += ax.plot(mean, label=label, **style)
    ax.set(xlabel="time step t", ylabel="log$_{10}$ |d h$_T$ / d x$_t$|")
    ax.set_xlim(0, max(1, longest - 1))
    direct_labels(ax, lines, side="left")
    scale_at_right(ax)
    for t in events or ():
        ax.axvline(t, color=GREY, linewidth=0.8, linestyle=":")
    name_events(ax, events or {})
    return ax


def saturation(statistics: GateStatistics, *, ax: Axes | None = None) -> Axes:
    """How much of the time each unit's gates stand shut (across) and open (up), after Karpathy et al. (2015), fig. 3.

    A point near the right corner is a gate that is always shut, one near the top a gate always open, one
    at the origin a gate that is never either. No point can lie above the diagonal. Units whose shares agree
    to two decimals are one point; its area is their number.
    """
    _check_kind("statistics", statistics, GateStatistics)
    ax, area = axes(ax), min(20.0, 640 / statistics.left.shape[1])  # of one unit, in points^2
    ax.plot([0, 1], [1, 0], color=GREY, linewidth=0.8)
    for n, name in enumerate(statistics.gate_names):
        colour = PATH_COLOURS.get(name, OTHER_COLOURS[n % len(OTHER_COLOURS)])
        shares = np.stack((statistics.left[n], statistics.right[n]), axis=1).round(2)
        places, units = np.unique(shares, axis=0, return_counts=True)
        look: dict[str, Any] = {"facecolor": to_rgba(colour, 0.5), "edgecolor": colour, "zorder": 3}
        ax.scatter(places[:, 0], places[:, 1], s=area * units, **look)
        ax.scatter([], [], s=40, label=f"{name} gate", **look)  # for the key, in one size
    ax.legend(title="area: number of units", loc="upper right", frameon=False)
    ax.set(
        xlabel=f"share of time below {statistics.low:g} (shut)",
        ylabel=f"share of time above {statistics.high:g} (open)",
    )
    ax.set(xlim=(-0.08, 1.08), ylim=(-0.08, 1.08), aspect="equal")  # room for large points in the corners
    return ax


def half_lives(statistics: Mapping[str, GateStatistics], *, ax: Axes | None = None) -> Axes:
    """Half-lives of the memory cells, the longest first, on a logarithmic axis, one curve for each network.

    An infinite one, and 0, have no place on it and leave a gap. Raises ValueError where nothing is left.
    """
    _check_kinds("statistics", statistics, GateStatistics)
    curves = {}
    for label, one in statistics.items():
        values = one.half_life[one.order]
        curves[label] = _drawable(f"statistics[{label!r}]", np.where(values > 0, values, np.nan))
    ax, lines = axes(ax), []
    for (label, values), style in zip(curves.items(), line_styles(curves), strict=True):
        share = np.arange(1, len(values) + 1) / len(values)
        lines += ax.plot(share, values, marker=".", label=label, **style)
    ax.set_yscale("log")
    ax.set(xlabel="share of the memory cells that last at least as long", ylabel="half-life (time steps)")
    ax.set_xlim(0, 1)
    scale_at_right(ax)
    direct_labels(ax, lines, side="left")
    return ax


def _check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {describe(value)}")


def _check_kinds(name: str, values: Mapping[str, object], kind: type) -> None:
    """TypeError or ValueError unless `values` maps at least one label to a `kind`."""
    _check_labels(name, values, kind.__name__)
    for label, value in values.items():
        _check_kind(f"{name}[{label!r}]", value, kind)


def _check_labels(name: str, values: Mapping[str, object], what: str) -> None:
    """TypeError or ValueError unless `values` is a dict with at least one label, all of them strings."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{name}: expected a dict from label to {what}, got {describe(values)}")
    if not values:
        raise ValueError(f"{name}: expected at least one {what}, got none")
    for label in values:
        if not isinstance(label, str):
            raise TypeError(f"{name}: expected labels that are strings, got {describe(label)}")


def _check_index(name: str, value: object, length: int, of: str) -> None:
    """TypeError unless `value` is an integer, IndexError unless it is one of 0 .. length - 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer, {of} 0 .. {length - 1}, got {describe(value)}")
    if not 0 <= value < length:
        raise IndexError(f"{name}: expected {of} 0 .. {length - 1}, got {value}")


def _check_events(events: Mapping[int, str] | None, T: int) -> None:
    """TypeError unless `events` is None or a dict from integer to string, IndexError for steps outside 0 .. T-1."""
    if events is None:
        return
    _check_kind("events", events, Mapping)
    for t, text in events.items():
        _check_index("events", t, T, "time steps")
        if not isinstance(text, str):
            raise TypeError(f"events[{t}]: expected a string, got {describe(text)}")


def _drawable(name: str, values: Array) -> Array:
    """`values` with gaps for what is not finite; ValueError if nothing is left."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError(f"{name}: expected at least one value that can be drawn, got none among {len(values)}")
    return np.where(finite, values, np.nan)


def _path_label(name: str) -> str:
    """ "through the forget gate": how a path reads in a figure."""
    own = {"memory": "along the memory", "loss": "from the output", "total": "all together", "other": "by other ways"}
    return own.get(name, "back from the candidate" if name == "candidate" else f"back from the {name} gate")


def _block_styles(blocks: Iterable[str]) -> list[dict[str, Any]]:
    """A colour for each gate, a dash for each parameter; "W_h[forget]" is both."""
    parameters: dict[str, int] = {}
    styles = []
    for block in blocks:
        parameter, _, gate = block.removesuffix("]").partition("[")
        dash = parameters.setdefault(parameter, len(parameters))
        styles.append({"color": PATH_COLOURS.get(gate, BLACK), "linestyle": LINE_STYLES[dash % len(LINE_STYLES)]})
    return styles
