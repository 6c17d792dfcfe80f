"""The look of all figures: colours, axes, curves with labels at their ends, maps, names of time steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import getdoc
from itertools import cycle, pairwise
from typing import Any, TypeVar

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rnnlab.ops import Array
from rnnlab.validate import describe, one_of

# after Okabe & Ito (2008), which colour-blind readers can tell apart; the light ones darker, for 3:1 on white
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#BF8000", "#3496CF", "#009E73"
BLUE, VERMILLION, PURPLE, OLIVE = "#005A93", "#D55E00", "#B8609A", "#7A7400"
GREY = "#767676"  # what is no curve: reference lines, grids
SIZE = 11.0  # of all letters, in points

CELL_COLOURS = {"fourgatelstm": PURPLE, "gruresetbefore": SKY_BLUE, "rnn": VERMILLION, "lstm": BLUE, "gru": GREEN}
OTHER_COLOURS = (BLACK, ORANGE, OLIVE)
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


Figure = TypeVar("Figure", bound=Callable[..., Axes])
EVERY_FIGURE = """
ax : matplotlib axes; None makes new ones

Returns
-------
The axes.

Raises
------
TypeError, ValueError, KeyError, IndexError
    For an argument that does not fit and where nothing can be drawn, before anything is; the axes stay as they were.
"""


def figure(draw: Figure) -> Figure:
    """Complete the docstring, which ends with its section Parameters, by what holds for every figure."""
    draw.__doc__ = (getdoc(draw) or "") + EVERY_FIGURE
    return draw


def axes(ax: Axes | None, height: float = 4.0) -> Axes:
    """`ax`, or new ones for None; black on opaque white also in a dark notebook. TypeError for anything else."""
    if ax is None:
        _, ax = plt.subplots(figsize=(7.5, height), layout="constrained")
    if not isinstance(ax, Axes):
        raise TypeError(f"ax: expected matplotlib axes or None, got {describe(ax)}")
    for surface in (ax, ax.figure):
        surface.set_facecolor("white")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(BLACK)
    ax.tick_params(which="both", colors=BLACK, labelsize=SIZE)
    for text in (ax.xaxis.label, ax.yaxis.label, ax.title):
        text.set(color=BLACK, fontsize=SIZE)
    ax.grid(True, color="#E0E0E0", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def curves(
    ax: Axes | None,
    points: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    argument: str = "",
    styles: Mapping[str, dict[str, Any]] | None = None,
    references: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]] | None = None,
    marker: str = "",
    side: str = "right",
    log: bool = False,
    logx: bool = False,
    start: int | None = None,
    bottom: float | None = None,
) -> Axes:
    """One curve (x, y) for each label, named at its end on this `side`; `references` are dashed and grey.

    What is not finite, and on a `log` axis what is not above 0, leaves a gap. A curve of gaps alone is left out; where
    `argument` names what the curves came from, it is a ValueError. `start` is the left end of the axis. With the labels
    at the left the scale stands at the right, where backpropagation begins.
    """
    everything = {label: (np.asarray(x), gaps(y, log)) for label, (x, y) in {**points, **(references or {})}.items()}
    shown = [label for label, (_, y) in everything.items() if np.isfinite(y).any()]
    for label in points:
        if argument and label not in shown:
            entry, n = f"{argument}[{label!r}]", len(everything[label][1])
            raise ValueError(
                f"{entry}: expected at least one value that can be drawn, got none among {n}; leave it out"
            )
    ax, looks = axes(ax), dict(styles or zip(points, line_styles(points), strict=True))
    looks = {label: {"marker": marker, "markersize": 4} | looks[label] for label in points}
    looks |= {label: {"color": GREY, "linestyle": "--", "linewidth": 1.2} for label in references or ()}
    lines = [ax.plot(*everything[label], label=label, **looks[label])[0] for label in shown]
    if log:
        ax.set_yscale("log")
    if logx:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:.0f}")
    elif all(everything[label][0].dtype.kind in "iu" for label in points):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if start is not None:
        ax.set_xlim(start, max(start + 1, *(x[-1] for x, _ in everything.values())))
    if bottom is not None:
        ax.set_ylim(bottom=bottom)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if side == "left":
        ax.yaxis.tick_right()
        ax.yaxis.set_label_position("right")
        ax.spines["left"].set_visible(False)
        ax.spines["right"].set_visible(True)
    direct_labels(ax, lines, side)
    return ax


def gaps(values: npt.ArrayLike, log: bool = False) -> Array:
    """The values, NaN where they are not finite or have no place on a `log` axis."""
    values = np.asarray(values)
    return np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)


def heat_map(ax: Axes, x: Array, y: Array, values: Array, *, bar: str, xlabel: str, ylabel: str, **look: Any) -> Axes:
    """values (len(y), len(x)) as colours, x across and y up, with the scale, named `bar`, beside it."""
    image = ax.pcolormesh(_edges(x), _edges(y), values, rasterized=True, **look)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    scale = ax.figure.colorbar(image, ax=ax, pad=0.02)
    scale.set_label(bar, fontsize=SIZE, color=BLACK)
    scale.ax.tick_params(which="both", labelsize=SIZE, colors=BLACK)
    ax.grid(False)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def _edges(centres: Array) -> Array:
    """Where the cells of a map with these centres begin and end."""
    between = (centres[1:] + centres[:-1]) / 2 if len(centres) > 1 else centres + 0.5
    return np.concatenate(([2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]][: len(centres) - 1]))


def colour_of(label: str) -> str | None:
    """The colour of the cell whose name begins the label ("GRU", "four-gate LSTM, chrono"), None for no cell."""
    name = "".join(c for c in label.lower() if c.isalnum())
    return next((colour for cell, colour in CELL_COLOURS.items() if name.startswith(cell)), None)


def shade(colour: str, n: int) -> str:
    """The n-th shade of a colour, each darker than the one before it."""
    red, green, blue = (0.7**n * part for part in to_rgb(colour))
    return to_hex((red, green, blue)).upper()


def line_styles(labels: Collection[str]) -> list[dict[str, Any]]:
    """Colour and width for each label: one colour a kind of cell, darker for each further one of it.

    Widths fall from the first to the last, which is drawn on top: where curves coincide, both are seen.
    """
    seen, others, styles = Counter[str](), cycle(OTHER_COLOURS), []
    for label, width in zip(labels, np.linspace(2.5, 1.5, len(labels)), strict=True):
        colour = colour_of(label) or next(others)
        styles.append({"color": shade(colour, seen[colour]), "linewidth": float(width) if len(labels) > 1 else 1.5})
        seen[colour] += 1
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
    order = np.argsort(heights, kind="stable")
    heights[order] = spread(heights[order], 1.25 * SIZE / points)
    outside, align = (1.03, "left") if end else (-0.03, "right")
    connector = {"arrowstyle": "-", "linewidth": 1.5, "shrinkA": 1, "shrinkB": 0, "relpos": (0 if end else 1, 0.5)}
    look: dict[str, Any] = {"color": BLACK, "fontsize": SIZE, "ha": align, "va": "center", "annotation_clip": False}
    for line, xy, height in zip(lines, ends, heights, strict=True):
        wire, place = connector | {"color": line.get_color()}, (outside, float(height))
        ax.annotate(str(line.get_label()), xy, place, textcoords="axes fraction", arrowprops=wire, **look)


def legend(ax: Axes, **arguments: Any) -> None:
    """A key without a frame, in the letters of the other text."""
    ax.legend(frameon=False, fontsize=SIZE, title_fontsize=SIZE, labelcolor=BLACK, **arguments)


def name_events(ax: Axes, events: Mapping[int, str]) -> None:
    """Name time steps, {t: text}, above the picture: upright where the names have no room side by side."""
    if not events:
        return
    times = sorted(events)
    names, (left, right) = [events[t] for t in times], ax.get_xlim()
    points_a_step = ax.get_window_extent().width * 72 / ax.figure.dpi / (right - left)
    rooms = np.diff(times) * points_a_step
    needs = [0.3 * SIZE * (len(one) + len(next_one) + 2) for one, next_one in pairwise(names)]  # half of each, a gap
    upright = (rooms < needs).any() and max(map(len, names)) > 1
    top = ax.secondary_xaxis("top")
    top.set_xticks(times, names, rotation=90 if upright else 0, fontsize=SIZE, color=BLACK)
    top.spines["top"].set_visible(False)


def spread(positions: Array, gap: float) -> Array:
    """Ascending positions, moved as little apart as keeps neighbours at least `gap` from each other."""
    up, down = positions.copy(), positions.copy()
    for i in range(1, len(positions)):
        up[i] = max(up[i], up[i - 1] + gap)
        down[-i - 1] = min(down[-i - 1], down[-i] - gap)
    middle: Array = (up + down) / 2
    return middle
