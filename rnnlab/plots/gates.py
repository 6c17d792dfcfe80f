"""Figures of gates: what they did in one sequence, and what they do most of the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from rnnlab.cells.base import Tape
from rnnlab.plots import checks, style

if TYPE_CHECKING:
    from rnnlab.lab import GateStatistics

GATE_MEANINGS = {
    "input": "1 writes the candidate",
    "forget": "1 keeps the memory",
    "output": "1 shows the memory",
    "reset": "1 reads the old state",
    "update": "1 keeps the old state",
    "candidate": "what would be written",
}


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
    ax : matplotlib axes; None makes new ones

    Returns
    -------
    The axes.

    Raises
    ------
    KeyError
        For a gate that the cell does not have.
    IndexError, TypeError
        For a sequence or an event outside the tape, and for what is no integer.
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
