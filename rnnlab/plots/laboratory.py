"""The figures of the laboratory: paths, distances, truncation, products of Jacobians, reach, gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from rnnlab.gradnorm import entry_of
from rnnlab.ops import Array
from rnnlab.plots.checks import (
    check_events,
    check_index,
    check_kind,
    check_kinds,
    check_labels,
    drawable,
)
from rnnlab.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    OTHER_COLOURS,
    PATH_COLOURS,
    SIZE,
    SKY_BLUE,
    axes,
    curves,
    line_styles,
    name_events,
    shade,
)
from rnnlab.validate import describe, one_of, to_array

if TYPE_CHECKING:
    from rnnlab.lab import DistanceTerms, GateStatistics, JacobianDecay, MemoryPaths, Truncation


def memory_paths(paths: MemoryPaths, *, stacked: bool = False, ax: Axes | None = None) -> Axes:
    """By which paths a gradient came back to the memory: a norm for each path, on a logarithmic axis.

    `stacked` shows each path's share of the whole instead (`MemoryPaths.shares`): the shares add up to 1,
    those of paths that work against the whole stand below 0. A part below 1e-14 of the whole is rounding, and
    left out. Raises ValueError for a whole that is 0 at every step, or at all but one, which is no line.
    """
    check_kind("paths", paths, "MemoryPaths")
    whole = paths.norms()["total"]
    least, reached = 1 if stacked else 2, np.count_nonzero((whole > 0) & (whole < np.inf))
    if reached < least:
        raise ValueError(f"paths: expected a gradient above 0 at {least} or more time steps, got {reached}")
    return _stacked(paths, ax) if stacked else _path_norms(paths, ax)


def _path_norms(paths: MemoryPaths, ax: Axes | None) -> Axes:
    norms, t = paths.norms(), np.arange(len(paths.total))
    shown = {name: np.where(part > 1e-14 * norms["total"], part, np.nan) for name, part in norms.items()}
    once = {name for name, part in shown.items() if np.isfinite(part).sum() == 1}
    points = {_path_label(name): (t, part) for name, part in shown.items() if np.isfinite(part).sum() > 1}
    styles = [_path_style(name) for name, part in shown.items() if np.isfinite(part).sum() > 1]
    xlabel, ylabel = "time step t (the loss is read at the right end)", "norm of the part of dL/dmemory$_t$"
    ax = curves(
        ax, points, styles=styles, side="left", log=True, xlim=(0, max(1, len(t) - 1)), xlabel=xlabel, ylabel=ylabel
    )
    for name in once:  # one point, such as a loss read once: named where it stands
        (at,) = np.flatnonzero(np.isfinite(shown[name]))
        place, colour = (float(at), float(shown[name][at])), _path_style(name)["color"]
        ax.plot(*place, "o", color=colour, clip_on=False, zorder=3)
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": colour, "fontsize": SIZE}
        ax.annotate(_path_label(name), xy=place, xytext=(-8, 8), **look)
    return ax


def _stacked(paths: MemoryPaths, ax: Axes | None) -> Axes:
    ax, t = axes(ax), np.arange(len(paths.total))
    above, below = np.zeros(len(t)), np.zeros(len(t))
    for name, share in paths.shares().items():
        if share.any():
            base = np.where(share >= 0, above, below)
            ax.bar(t, share, bottom=base, width=1.0, color=PATH_COLOURS.get(name, GREY), label=_path_label(name))
            above, below = above + np.maximum(share, 0), below + np.minimum(share, 0)
    ax.axhline(0, color=BLACK, linewidth=0.8)
    ax.set(xlabel="time step t", ylabel="share of the gradient of the memory", xlim=(-0.5, len(t) - 0.5))
    handles, names = ax.get_legend_handles_labels()
    _legend(ax, handles=handles[::-1], labels=names[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def distance_terms(
    terms: Mapping[str, DistanceTerms], block: str = "W_h[candidate]", *, ax: Axes | None = None
) -> Axes:
    """The norm of each time distance's term of dL/dparameter, for one block; one curve for each network.

    Raises KeyError for a block that a network does not have, ValueError for terms that are all 0.
    """
    check_kinds("terms", terms, "DistanceTerms")
    points = {}
    for label, one in terms.items():
        norms = entry_of("block", one.norms, block)
        shown = drawable(f"terms[{label!r}]", np.where(norms > 0, norms, np.nan))
        points[label] = np.arange(len(shown)), shown
    xlabel = "time steps between the weight's use and the loss"
    return curves(ax, points, log=True, xlabel=xlabel, ylabel=f"norm of this distance's term\nof dL/d{block}")


def truncation(
    results: Mapping[str, Truncation], *, quantity: str = "relative error", name: str = "all", ax: Axes | None = None
) -> Axes:
    """Truncated against full backpropagation, by the number of steps kept: "relative error" or "angle".

    `name` is a recurrent parameter or "all". Raises KeyError for a parameter that a model does not have,
    ValueError where nothing can be drawn.
    """
    one_of("quantity", quantity, ("relative error", "angle"))
    check_kinds("results", results, "Truncation")
    points = {}
    for label, result in results.items():
        relative = quantity == "relative error"
        values = entry_of("name", result.relative_error, name) if relative else result.angle(name)
        points[label] = result.lengths, drawable(f"results[{label!r}]", values)
    styles = [style | {"marker": "o", "markersize": 4} for style in line_styles(points)]
    unit = "angle to the full gradient (degrees)" if quantity == "angle" else "|truncated - full| / |full|"
    xlabel, ylabel = "time steps that backpropagation goes back", unit
    return curves(ax, points, styles=styles, side="left", logx=True, bottom=0, xlabel=xlabel, ylabel=ylabel)


def singular_values(decay: JacobianDecay, *, sequence: int = 0, ax: Axes | None = None) -> Axes:
    """Singular values of d state_T / d state_{T - span} against the span, in powers of ten, and beside them what
    theory says: the bound of a plain network, and what the gates alone would keep. Raises IndexError for a
    sequence outside the batch, ValueError where every product is 0."""
    check_kind("decay", decay, "JacobianDecay")
    check_index("sequence", sequence, decay.log_norm.shape[1], "one of the batch's")
    drawable("decay", decay.log_norm[:, sequence])
    lines: dict[str, tuple[Array, str]] = {"largest = norm": (decay.log_norm[:, sequence], BLUE)}
    if decay.log_gate_product is not None:
        of_units = np.sort(decay.log_gate_product[:, sequence], axis=-1)
        lines["gates alone, best unit"] = of_units[:, -1], ORANGE
        lines["gates alone, median unit"] = of_units[:, of_units.shape[-1] // 2], shade(ORANGE, 1)
    points = {label: (decay.spans, _powers(values)) for label, (values, _) in lines.items()}
    styles = [{"color": colour, "linewidth": 1.8} for _, colour in lines.values()]
    drawn = [np.isfinite(y).any() for _, y in points.values()]
    points = {label: xy for (label, xy), some in zip(points.items(), drawn, strict=True) if some}
    styles = [style for style, some in zip(styles, drawn, strict=True) if some]
    bound = (
        {} if decay.log_bound is None else {"bound max|φ'| |W|": (decay.spans, _powers(decay.log_bound[:, sequence]))}
    )
    bound = {label: xy for label, xy in bound.items() if np.isfinite(xy[1]).any()}
    ax = axes(ax)
    ax.plot(decay.spans, _powers(decay.log_singular_values[:, sequence]), color=SKY_BLUE, linewidth=0.6, alpha=0.7)
    xlabel, ylabel = "span of the product of Jacobians (time steps)", "log$_{10}$ singular value"
    return curves(
        ax, points, styles=styles, references=bound, xlim=(1, max(2, len(decay.spans))), xlabel=xlabel, ylabel=ylabel
    )


def connectivity(
    log_norms: Mapping[str, Array], *, events: Mapping[int, str] | None = None, ax: Axes | None = None
) -> Axes:
    """What each input does to the last output: `lab.connectivity` of several networks side by side, in powers of ten.

    Each value is (T,), or (T, B), of which the mean over the batch is drawn. `events` names time steps,
    {t: text}, above the picture. Raises ValueError for a network that no input reaches, IndexError for an
    event outside the sequence.
    """
    check_labels("log_norms", log_norms, "array")
    means = {}
    for label, values in log_norms.items():
        logs = to_array(f"log_norms[{label!r}]", values)
        if logs.dtype.kind not in "fiu" or logs.ndim not in (1, 2) or not logs.size:
            raise ValueError(f"log_norms[{label!r}]: expected numbers of shape (T,) or (T, B), got {describe(values)}")
        mean = logs.reshape(len(logs), -1).mean(axis=1) / np.log(10)
        means[label] = drawable(f"log_norms[{label!r}]", mean)
    longest = max(map(len, means.values()))
    check_events(events, longest)
    points = {label: (np.arange(len(mean)), mean) for label, mean in means.items()}
    xlabel, ylabel = "time step t", "log$_{10}$ |d h$_T$ / d x$_t$|"
    ax = curves(ax, points, side="left", xlim=(0, max(1, longest - 1)), xlabel=xlabel, ylabel=ylabel)
    for t in events or ():
        ax.axvline(t, color=GREY, linewidth=0.8, linestyle="--")
    name_events(ax, events or {})
    return ax


def saturation(statistics: GateStatistics, *, ax: Axes | None = None) -> Axes:
    """How much of the time each unit's gates stand shut (across) and open (up), after Karpathy et al. (2015), fig. 3.

    A point near the right corner is a gate that is always shut, one near the top a gate always open, one
    at the origin a gate that is never either. No point can lie above the diagonal. Units whose shares agree
    to two decimals are one point; its area is their number.
    """
    check_kind("statistics", statistics, "GateStatistics")
    ax, area = axes(ax), min(20.0, 640 / statistics.left.shape[1])  # of one unit, in points^2
    ax.plot([0, 1], [1, 0], color=GREY, linewidth=0.8)
    for n, name in enumerate(statistics.gate_names):
        colour = PATH_COLOURS.get(name, OTHER_COLOURS[n % len(OTHER_COLOURS)])
        shares = np.stack((statistics.left[n], statistics.right[n]), axis=1).round(2)
        places, units = np.unique(shares, axis=0, return_counts=True)
        look: dict[str, Any] = {"facecolor": to_rgba(colour, 0.5), "edgecolor": colour, "zorder": 3}
        ax.scatter(places[:, 0], places[:, 1], s=area * units, **look)
        ax.scatter([], [], s=40, label=f"{name} gate", **look)  # for the key, in one size
    _legend(ax, title="area: number of units", loc="upper right")
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
    check_kinds("statistics", statistics, "GateStatistics")
    points = {}
    for label, one in statistics.items():
        values = one.half_life[one.order]
        shown = drawable(f"statistics[{label!r}]", np.where(values > 0, values, np.nan))
        points[label] = np.arange(1, len(values) + 1) / len(values), shown
    styles = [style | {"marker": "."} for style in line_styles(points)]
    xlabel, ylabel = "share of the memory cells that last at least as long", "half-life (time steps)"
    return curves(ax, points, styles=styles, side="left", log=True, xlim=(0, 1), xlabel=xlabel, ylabel=ylabel)


def _path_label(name: str) -> str:
    """ "through the forget gate": how a path reads in a figure."""
    own = {"memory": "along the memory", "loss": "from the output", "total": "all together", "other": "by other ways"}
    return own.get(name, "back from the candidate" if name == "candidate" else f"back from the {name} gate")


def _path_style(name: str) -> dict[str, Any]:
    return {"color": PATH_COLOURS.get(name, GREY), "linewidth": 2.5 if name == "total" else 1.5}


def _powers(logarithms: Array) -> Array:
    """Natural logarithms as powers of ten, with gaps for infinities."""
    return np.asarray(np.where(np.isfinite(logarithms), logarithms, np.nan) / np.log(10))


def _legend(ax: Axes, **arguments: Any) -> None:
    ax.legend(frameon=False, fontsize=SIZE, title_fontsize=SIZE, labelcolor=BLACK, **arguments)
