"""The figures of the laboratory: paths, distances, truncation, products of Jacobians, reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from rnnlab.ops import Array
from rnnlab.plots import checks, style
from rnnlab.plots.style import curves
from rnnlab.validate import describe, entry_of, one_of, to_array

if TYPE_CHECKING:
    from rnnlab.lab import DistanceTerms, JacobianDecay, MemoryPaths, Truncation


PATH_LABELS = {
    "memory": "along the memory",
    "loss": "from the output",
    "total": "all together",
    "other": "by other ways",
    "candidate": "back from the candidate",
}


def memory_paths(paths: MemoryPaths, *, stacked: bool = False, ax: Axes | None = None) -> Axes:
    """By which paths a gradient came back to the memory: a norm for each path, on a logarithmic axis.

    A part below 1e-14 of the whole is rounding, and left out.

    Parameters
    ----------
    paths : what `lab.memory_paths` returned
    stacked
        Shows each path's share of the whole instead (`MemoryPaths.shares`): the shares add up to 1, those of paths that
        work against the whole stand below 0.
    ax : matplotlib axes; None makes new ones

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        For a whole that is 0 at every step, or at all but one, which is no line.
    """
    checks.check_kind("paths", paths, "MemoryPaths")
    whole = paths.norms()["total"]
    least, reached = 1 if stacked else 2, np.count_nonzero((whole > 0) & (whole < np.inf))
    if reached < least:
        raise ValueError(f"paths: expected a gradient above 0 at {least} or more time steps, got {reached}; is d_h 0?")
    return _stacked(paths, ax) if stacked else _path_norms(paths, ax)


def _path_norms(paths: MemoryPaths, ax: Axes | None) -> Axes:
    norms, t = paths.norms(), np.arange(len(paths.total))
    shown = {name: np.where(part > 1e-14 * norms["total"], part, np.nan) for name, part in norms.items()}
    once = [name for name, part in shown.items() if np.isfinite(part).sum() == 1]
    points = {_path_label(name): (t, part) for name, part in shown.items() if name not in once}
    colours = {name: style.PATH_COLOURS.get(name, style.GREY) for name in shown}
    looks = {
        _path_label(name): {"color": c, "linewidth": 2.5 if name == "total" else 1.5} for name, c in colours.items()
    }
    xlabel, ylabel = "time step t (the loss is read at the right end)", "norm of the part of dL/dmemory$_t$"
    ax = curves(ax, points, styles=looks, side="left", log=True, start=0, xlabel=xlabel, ylabel=ylabel)
    for name in once:  # one point, such as a loss read once: named where it stands
        (at,) = np.flatnonzero(np.isfinite(shown[name]))
        place, colour = (float(at), float(shown[name][at])), colours[name]
        ax.plot(*place, "o", color=colour, clip_on=False, zorder=3)
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": colour, "fontsize": style.SIZE}
        ax.annotate(_path_label(name), xy=place, xytext=(-8, 8), **look)
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


def distance_terms(
    terms: Mapping[str, DistanceTerms], block: str = "W_h[candidate]", *, ax: Axes | None = None
) -> Axes:
    """The norm of each time distance's term of dL/dparameter, for one block; one curve for each network.

    Parameters
    ----------
    terms : a dict from label to what `lab.distance_terms` returned
    block : such as "W_h[forget]"
    ax : matplotlib axes; None makes new ones

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        For a block that a network does not have.
    ValueError
        For terms that are all 0.
    """
    checks.check_kinds("terms", terms, "DistanceTerms")
    norms = {label: entry_of("block", one.norms, block) for label, one in terms.items()}
    points = {label: (np.arange(len(values)), values) for label, values in norms.items()}
    xlabel, ylabel = "time steps between the weight's use and the loss", f"norm of this distance's term\nof dL/d{block}"
    return curves(ax, points, argument="terms", log=True, xlabel=xlabel, ylabel=ylabel)


def truncation(
    results: Mapping[str, Truncation], *, quantity: str = "relative error", name: str = "all", ax: Axes | None = None
) -> Axes:
    """Truncated against full backpropagation, by the number of steps kept.

    Parameters
    ----------
    results : a dict from label to what `lab.truncation` returned
    quantity : "relative error" or "angle"
    name : a recurrent parameter, such as "cells.0.W_h", or "all"
    ax : matplotlib axes; None makes new ones

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        For a parameter that a model does not have.
    ValueError
        Where nothing can be drawn.
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


def singular_values(decay: JacobianDecay, *, sequence: int = 0, ax: Axes | None = None) -> Axes:
    """Singular values of d state_T / d state_{T - span} against the span, in powers of ten.

    Beside them stands what theory says: the bound of a plain network, and what the gates alone would keep.

    Parameters
    ----------
    decay : what `lab.jacobian_decay` returned
    sequence : which one of the batch
    ax : matplotlib axes; None makes new ones

    Returns
    -------
    The axes.

    Raises
    ------
    IndexError
        For a sequence outside the batch.
    ValueError
        Where every product is 0.
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


def connectivity(
    log_norms: Mapping[str, Array], *, events: Mapping[int, str] | None = None, ax: Axes | None = None
) -> Axes:
    """What each input does to the last output, of several networks side by side, in powers of ten.

    Parameters
    ----------
    log_norms
        A dict from label to what `lab.connectivity` returned: (T,), or (T, B), whose mean over the batch is drawn.
    events : names of time steps, {t: text}, above the picture
    ax : matplotlib axes; None makes new ones

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        For a network that no input reaches.
    IndexError
        For an event outside the sequence.
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
