"""Figures of gates and of what the laboratory measures: paths, distances, truncation, products of Jacobians, reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from rnnlab.cells.base import Tape
from rnnlab.ops import Array
from rnnlab.plots import checks, style
from rnnlab.plots.style import curves
from rnnlab.validate import describe, entry_of, one_of, to_array

if TYPE_CHECKING:
    from rnnlab.lab import DistanceTerms, GateStatistics, JacobianDecay, MemoryPaths, Truncation

GATE_MEANINGS = {
    "input": "1 writes the candidate",
    "forget": "1 keeps the memory",
    "output": "1 shows the memory",
    "reset": "1 reads the old state",
    "update": "1 keeps the old state",
    "candidate": "what would be written",
}
PATH_LABELS = {
    "memory": "along the memory",
    "loss": "from the output",
    "total": "all together",
    "other": "by other ways",
    "candidate": "back from the candidate",
}


@style.figure
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

    Sigmoid gates run from 0 (dark) to 1 (bright); a candidate from -1 to 1 around white (wider where a ReLU exceeds 1).
    Column t is the step that reads `tape.x[t]`.

    Parameters
    ----------
    tape : what `cell.forward` returned
    gate : a name of `tape.gate_names`
    sequence : which one of the batch
    sort : orders the units by their mean, the largest at the top
    events : names of time steps, {t: text}, above the picture
    """
    checks.check_kind("tape", tape, "Tape")
    values = tape.gate(gate)
    T, B = values.shape[:2]
    checks.check_index("sequence", sequence, B, "one of the batch's")
    checks.check_events(events, T)
    units = values[:, sequence].T
    if sort:
        units = units[np.argsort(-units.mean(axis=1), kind="stable")]
    if gate == "candidate":
        limit = max(1.0, float(np.abs(units).max()))
        bar, look = gate, {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    else:
        bar, look = f"{gate} gate", {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}
    bar += f": {GATE_MEANINGS[gate]}" if gate in GATE_MEANINGS else ""
    ylabel, number = "unit, largest mean first" if sort else "unit", np.arange(len(units))
    ax = style.axes(ax)
    style.heat_map(ax, np.arange(T), number, units, bar=bar, xlabel="time step t", ylabel=ylabel, **look)
    ax.invert_yaxis()
    style.name_events(ax, events or {})
    return ax


def saturation(statistics: GateStatistics, *, ax: Axes | None = None) -> Axes:
    """How much of the time each unit's gates stand shut (across) and open (up), after Karpathy et al. (2015), fig. 3.

    A point near the right corner is a gate that is always shut, one near the top a gate always open, one
    at the origin a gate that is never either. No point can lie above the diagonal. Units whose shares agree
    to two decimals are one point; its area is their number.
    """
    checks.check_kind("statistics", statistics, "GateStatistics")
    ax, area = style.axes(ax), min(20.0, 640 / statistics.left.shape[1])  # of one unit, in points^2
    ax.plot([0, 1], [1, 0], color=style.GREY, linewidth=0.8)
    for n, name in enumerate(statistics.gate_names):
        colour = style.PATH_COLOURS.get(name, style.OTHER_COLOURS[n % len(style.OTHER_COLOURS)])
        shares = np.stack((statistics.left[n], statistics.right[n]), axis=1).round(2)
        places, units = np.unique(shares, axis=0, return_counts=True)
        look: dict[str, Any] = {"facecolor": to_rgba(colour, 0.5), "edgecolor": colour, "zorder": 3}
        ax.scatter(places[:, 0], places[:, 1], s=area * units, **look)
        ax.scatter([], [], s=40, label=f"{name} gate", **look)  # for the key, in one size
    style.legend(ax, title="area: number of units", loc="upper right")
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
    checks.check_kinds("statistics", statistics, "GateStatistics")
    points = {}
    for label, one in statistics.items():
        points[label] = np.arange(1, len(one.order) + 1) / len(one.order), one.half_life[one.order]
    xlabel, ylabel = "share of the memory cells that last at least as long", "half-life (time steps)"
    look: dict[str, Any] = {"marker": ".", "side": "left", "log": True, "start": 0}
    return style.curves(ax, points, argument="statistics", xlabel=xlabel, ylabel=ylabel, **look)


@style.figure
def memory_paths(paths: MemoryPaths, *, stacked: bool = False, ax: Axes | None = None) -> Axes:
    """By which paths a gradient came back to the memory: a norm for each path, on a logarithmic axis.

    A part below 1e-14 of the whole is rounding, and left out.

    Parameters
    ----------
    paths : what `lab.memory_paths` returned
    stacked
        Shows each path's share of the whole instead (`MemoryPaths.shares`): the shares add up to 1, those of paths that
        work against the whole stand below 0.
    """
    checks.check_kind("paths", paths, "MemoryPaths")
    whole = paths.norms()["total"]
    least, reached = 1 if stacked else 2, np.count_nonzero((whole > 0) & (whole < np.inf))
    if reached < least:
        raise ValueError(f"paths: expected a gradient above 0 at {least} or more time steps, got {reached}; is d_h 0?")
    return _stacked(paths, ax) if stacked else _path_norms(paths, ax)


def _path_norms(paths: MemoryPaths, ax: Axes | None) -> Axes:
    norms, t = paths.norms(), np.arange(len(paths.total))
    points, looks, once = {}, {}, {}
    for name, part in norms.items():
        label, colour = _path_label(name), style.PATH_COLOURS.get(name, style.GREY)
        drawn = np.flatnonzero((part > 1e-14 * norms["total"]) & np.isfinite(part))
        if len(drawn) == 1:
            once[label] = (float(drawn[0]), float(part[drawn[0]])), colour
        else:
            points[label] = t, np.where(np.isin(t, drawn), part, np.nan)
            looks[label] = {"color": colour, "linewidth": 2.5 if name == "total" else 1.5}
    xlabel, ylabel = "time step t (the loss is read at the right end)", "norm of the part of dL/dmemory$_t$"
    ax = curves(ax, points, styles=looks, side="left", log=True, start=0, xlabel=xlabel, ylabel=ylabel)
    for label, (place, colour) in once.items():  # such as a loss read once: named where it stands
        ax.plot(*place, "o", color=colour, clip_on=False, zorder=3)
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": colour, "fontsize": style.SIZE}
        ax.annotate(label, xy=place, xytext=(-8, 8), **look)
    return ax


def _stacked(paths: MemoryPaths, ax: Axes | None) -> Axes:
    ax, t = style.axes(ax), np.arange(len(paths.total))
    above, below = np.zeros(len(t)), np.zeros(len(t))
    for name, share in paths.shares().items():
        if share.any():
            base = np.where(share >= 0, above, below)
            colour = style.PATH_COLOURS.get(name, style.GREY)
            ax.bar(t, share, bottom=base, width=1.0, color=colour, label=_path_label(name))
            above, below = above + np.maximum(share, 0), below + np.minimum(share, 0)
    ax.axhline(0, color=style.BLACK, linewidth=0.8)
    ax.set(xlabel="time step t", ylabel="share of the gradient of the memory", xlim=(-0.5, len(t) - 0.5))
    handles, names = ax.get_legend_handles_labels()
    style.legend(ax, handles=handles[::-1], labels=names[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


@style.figure
def distance_terms(
    terms: Mapping[str, DistanceTerms], block: str = "W_h[candidate]", *, ax: Axes | None = None
) -> Axes:
    """The norm of each time distance's term of dL/dparameter, for one block; one curve for each network.

    Parameters
    ----------
    terms : a dict from label to what `lab.distance_terms` returned
    block : such as "W_h[forget]"
    """
    checks.check_kinds("terms", terms, "DistanceTerms")
    norms = {label: entry_of("block", one.norms, block) for label, one in terms.items()}
    points = {label: (np.arange(len(values)), values) for label, values in norms.items()}
    xlabel, ylabel = "time steps between the weight's use and the loss", f"norm of this distance's term\nof dL/d{block}"
    return curves(ax, points, argument="terms", log=True, xlabel=xlabel, ylabel=ylabel)


@style.figure
def truncation(
    results: Mapping[str, Truncation], *, quantity: str = "relative error", name: str = "all", ax: Axes | None = None
) -> Axes:
    """Truncated against full backpropagation, by the number of steps kept.

    Parameters
    ----------
    results : a dict from label to what `lab.truncation` returned
    quantity : "relative error" or "angle"
    name : a recurrent parameter, such as "cells.0.W_h", or "all"
    """
    relative = one_of("quantity", quantity, ("relative error", "angle")) == "relative error"
    checks.check_kinds("results", results, "Truncation")
    points = {}
    for label, result in results.items():
        values = entry_of("name", result.relative_error, name) if relative else result.angle(name)
        points[label] = result.lengths, values
    xlabel = "time steps that backpropagation goes back"
    ylabel = "|truncated - full| / |full|" if relative else "angle to the full gradient (degrees)"
    look: dict[str, Any] = {"marker": "o", "side": "left", "logx": True, "bottom": 0}
    return curves(ax, points, argument="results", xlabel=xlabel, ylabel=ylabel, **look)


@style.figure
def singular_values(decay: JacobianDecay, *, sequence: int = 0, ax: Axes | None = None) -> Axes:
    """Singular values of d state_T / d state_{T - span} against the span, in powers of ten.

    Beside them stands what theory says: the bound of a plain network, and what the gates alone would keep.

    Parameters
    ----------
    decay : what `lab.jacobian_decay` returned
    sequence : which one of the batch
    """
    checks.check_kind("decay", decay, "JacobianDecay")
    checks.check_index("sequence", sequence, decay.log_norm.shape[1], "one of the batch's")
    if not np.isfinite(decay.log_norm[:, sequence]).any():
        raise ValueError(
            "decay: expected a product that is not 0 for some span, got zeros alone; take a shorter sequence"
        )

    def powers(logarithms: Array) -> Array:
        """This sequence's natural logarithms as powers of ten."""
        return style.gaps(logarithms[:, sequence] / np.log(10))

    points = {"largest = norm": (decay.spans, powers(decay.log_norm))}
    if decay.log_gate_product is not None:
        of_units = np.sort(decay.log_gate_product, axis=-1)
        points["gates alone, best unit"] = decay.spans, powers(of_units[..., -1])
        points["gates alone, median unit"] = decay.spans, powers(of_units[..., of_units.shape[-1] // 2])
    colours = (style.BLUE, style.ORANGE, style.shade(style.ORANGE, 1))
    styles = {label: {"color": colour, "linewidth": 1.8} for label, colour in zip(points, colours, strict=False)}
    bound = decay.log_bound
    references = {} if bound is None else {"bound max|φ'| |W|": (decay.spans, powers(bound))}
    ax = style.axes(ax)
    ax.plot(decay.spans, powers(decay.log_singular_values), color=style.SKY_BLUE, linewidth=0.6, alpha=0.7)
    xlabel, ylabel = "span of the product of Jacobians (time steps)", "log$_{10}$ singular value"
    return curves(ax, points, styles=styles, references=references, start=1, xlabel=xlabel, ylabel=ylabel)


@style.figure
def connectivity(
    log_norms: Mapping[str, Array], *, events: Mapping[int, str] | None = None, ax: Axes | None = None
) -> Axes:
    """What each input does to the last output, of several networks side by side, in powers of ten.

    Parameters
    ----------
    log_norms
        A dict from label to what `lab.connectivity` returned: (T,), or (T, B), whose mean over the batch is drawn.
    events : names of time steps, {t: text}, above the picture
    """
    checks.check_labels("log_norms", log_norms, "array")
    points = {}
    for label, values in log_norms.items():
        logs = to_array(f"log_norms[{label!r}]", values)
        if logs.dtype.kind not in "fiu" or logs.ndim not in (1, 2) or not logs.size:
            raise ValueError(
                f"log_norms[{label!r}]: expected numbers of shape (T,) or (T, B), got {describe(values)}; "
                "`lab.connectivity` returns them"
            )
        points[label] = np.arange(len(logs)), logs.reshape(len(logs), -1).mean(axis=1) / np.log(10)
    checks.check_events(events, max(len(t) for t, _ in points.values()))
    xlabel, ylabel = "time step t", "log$_{10}$ |d h$_T$ / d x$_t$|"
    ax = curves(ax, points, argument="log_norms", side="left", start=0, xlabel=xlabel, ylabel=ylabel)
    for t in events or ():
        ax.axvline(t, color=style.GREY, linewidth=0.8, linestyle="--")
    style.name_events(ax, events or {})
    return ax


def _path_label(name: str) -> str:
    """How a path reads in a figure."""
    return PATH_LABELS.get(name, f"back from the {name} gate")
