"""A cell drawn from the lines of its own `step`, with the numbers of one step on the wires."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from rnnlab.cells.base import Cell
from rnnlab.lesson.explain import StepExplanation, Writer, explain_step
from rnnlab.lesson.trace import Line, evaluate
from rnnlab.ops import Array
from rnnlab.plots.style import figure

STAGES = ("learn", "forget", "remember", "use")
INK, LIT, PALE = "#1a1a1a", "#B34700", "#8c8c8c"


@dataclass
class Node:
    """One value of the step: the text in its box, its number, the boxes that it reads, and its place."""

    text: str
    value: Array
    parents: list[str]
    gate: str = ""  # the gate's name, for a gate
    stage: str = ""
    colour: str = INK
    x: float = 0.0
    y: float = 0.0


@figure
def cell_diagram(
    cell: Cell,
    x: npt.ArrayLike | None = None,
    state: npt.ArrayLike | None = None,
    *,
    stage: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one step of `cell` as its own `step` computes it, from left to right.

    A box is a value, named as the cell's source names it (shaded: a gate), with its numbers below, one
    for each unit; an arrow leads to what reads it. Where a sum adds products, each has a box of its own.

    Parameters
    ----------
    cell : any cell; the numbers stay readable up to H = 3
    x, state : as for `explain_step`; where left out, fixed numbers are used
    stage
        "learn", "forget", "remember" or "use", of a cell with an input and a forget gate, draws this stage in colour
        and the rest pale; None draws all of it alike.
    """
    if stage is not None and (stage not in STAGES or not {"input", "forget"} <= set(cell.gate_names)):
        raise ValueError(f"stage: expected None, or one of {STAGES} for a cell with these stages, got {stage!r}")
    S, H = len(cell.state_names), cell.hidden_size
    x = np.linspace(1, -1, cell.input_size) if x is None else x
    state = np.linspace(-0.5, 0.5, S * H).reshape(S, H) if state is None else state
    nodes = _placed(_nodes(explain_step(cell, x, state)), cell)
    if ax is None:
        wide, high = (max(getattr(node, axis) for node in nodes.values()) for axis in "xy")
        ax = plt.subplots(figsize=(1.1 * wide + 1.6, 0.72 * high + 1.3), layout="constrained")[1]
    boxes: dict[str, Any] = {}
    for name, node in nodes.items():
        node.colour = INK if stage is None else LIT if node.stage == stage else PALE
        box: dict[str, Any] = {"boxstyle": "round,pad=0.35", "facecolor": "#E8F1F8" if node.gate else "white"}
        box |= {"edgecolor": node.colour, "linewidth": 2.0 if node.stage == stage else 1.0}
        look: dict[str, Any] = {"ha": "center", "color": node.colour, "fontsize": 11}
        text = re.sub(r"_(\{t-1\}|t|\w+)", r"$_{\1}$", node.text).replace("*", "·")
        boxes[name] = ax.text(node.x, node.y, text, va="center", bbox=box, zorder=3, **look).get_bbox_patch()
        numbers = " ".join(f"{v:z.2f}" for v in node.value[0, :3]) + (" …" if node.value.shape[1] > 3 else "")
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
        ax.text(node.x, node.y - 0.3, numbers, va="top", bbox=white, zorder=4, **look)
    xs, ys = [node.x for node in nodes.values()], [node.y for node in nodes.values()]
    ax.set(xlim=(min(xs) - 0.7, max(xs) + 0.7), ylim=(min(ys) - 0.8, max(ys) + 0.6))
    ax.set_title(f"{type(cell).__name__}" + (f": {stage}" if stage else ""), fontsize=12)
    ax.axis("off")
    whole: Any = ax.figure.figure  # the figure itself where ax stands in a part of it
    whole.draw_without_rendering()  # now every box has its size
    edges = {name: box.get_window_extent().transformed(ax.transData.inverted()) for name, box in boxes.items()}
    for name, node in nodes.items():
        width = 1.6 if stage in (None, node.stage) else 0.8
        wire = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": node.colour, "linewidth": width}
        for parent in node.parents:
            start = nodes[parent]
            bend = -0.15 if any(abs(_passing(start, node, one)) < 0.3 for one in nodes.values()) else 0.04
            ends = (edges[name].x0, node.y), (edges[parent].x1, start.y)
            ax.annotate("", *ends, arrowprops=wire | {"connectionstyle": f"arc3,rad={bend}"}, zorder=1)
    return ax


def _nodes(step: StepExplanation) -> dict[str, Node]:
    """A box for each line of the step; the inside of the gates, x W_x + b + h W_h, is drawn as their wires."""
    nodes: dict[str, Node] = {}
    sources: dict[str, list[str]] = {}  # a name -> the boxes that it stands for

    def read(e: ast.expr, line: Line) -> list[str]:
        found: list[str] = []
        for part in (n.id for n in ast.walk(e) if isinstance(n, ast.Name)):
            label = line.labels.get(part, part)
            found += sources.get(label) or [k for n in sources if n.startswith(f"{label}[") for k in sources[n]]
        return list(dict.fromkeys(found))

    for line in step.forward:
        if line.formula is None:
            nodes[line.name] = Node(line.name, line.value, [])
        elif line.name.endswith("]") or line.name == "a":
            sources[line.name] = list(dict.fromkeys(sources.get(line.name, []) + read(line.formula, line)))
            continue
        elif isinstance(line.formula, ast.Name):  # h_t = h: the same box
            (key,) = read(line.formula, line)
            nodes[key].text = nodes[key].text.replace(key.split("'")[0], line.name, 1)
            nodes = {line.name if k == key else k: node for k, node in nodes.items()}
            for node in nodes.values():
                node.parents = [line.name if p == key else p for p in node.parents]
            continue
        else:
            text, parents = Writer(line, step.gate_names, False).of(line.formula, False), read(line.formula, line)
            gate = step.gates.get(line.name, "")
            if gate:
                # The Greek letter is meant.
                text = "tanh(…)" if "tanh" in text else "σ(…)" if "σ" in text else text  # noqa: RUF001
            elif isinstance(line.formula, ast.BinOp) and isinstance(line.formula.op, ast.Add):
                parents = []
                for term in (line.formula.left, line.formula.right):
                    word = Writer(line, step.gate_names, False).of(term, False)
                    product = isinstance(term, ast.BinOp) and isinstance(term.op, ast.Mult)
                    if product:
                        nodes[word] = Node(word, np.asarray(evaluate(term, line.known)), read(term, line))
                    parents += [word] if product else read(term, line)
                text = "sum" if len(parents) > 1 else text
            nodes[line.name] = Node(f"{line.name} = {text}", line.value, parents, gate)
        sources[line.name] = [line.name]
    return nodes


def _passing(start: Node, end: Node, node: Node) -> float:
    """How far above `node` the wire from `start` to `end` passes it; inf where it does not."""
    if not start.x < node.x < end.x:
        return np.inf
    return start.y + (end.y - start.y) * (node.x - start.x) / (end.x - start.x) - node.y


def _placed(nodes: dict[str, Node], cell: Cell) -> dict[str, Node]:
    """Columns by the longest way from the inputs; heights by the mean of what a box reads; and the stages."""
    inputs = [name for name, node in nodes.items() if not node.parents]
    for n, name in enumerate(inputs):  # x at the bottom, the memory at the top
        nodes[name].y = 1.6 * n
    order = ("output", "candidate", "reset", "input", "update", "forget")
    for name, node in nodes.items():
        node.x = max((nodes[p].x + 1 for p in node.parents), default=0.0)
        node.y = node.y if name in inputs else float(np.mean([nodes[p].y for p in node.parents]))
        if node.gate in order:
            node.y = 1.1 * order.index(node.gate)
    right = 0.0
    for column in sorted({node.x for node in nodes.values()}):
        previous, stand = -np.inf, sorted((n for n in nodes.values() if n.x == column), key=lambda n: n.y)
        half = max(0.046 * len(re.sub(r"[_{}]", "", node.text)) + 0.1 for node in stand)  # of the widest box, about
        for node in stand:
            previous = node.y = max(node.y, previous + 1.1)
            node.x = right + half
        right += 2 * half + 0.7
    columns = [node.x for node in nodes.values()]
    for node in (node for node in nodes.values() if columns.count(node.x) == 1):  # off the wires that only pass by
        for above in (_passing(nodes[p], reader, node) for reader in nodes.values() for p in reader.parents):
            node.y -= max(0.0, 0.6 - above) if abs(above) < 0.6 else 0.0
    for name in reversed(nodes):
        node, memory = nodes[name], f"{cell.state_names[-1]}_t"
        readers = [reader for reader in nodes.values() if name in reader.parents]
        to_memory = name == memory or any(reader.stage not in ("use", "") for reader in readers)
        node.stage = "learn or forget" if to_memory else "use"
    stage_of = {"input": "learn", "candidate": "learn", "forget": "forget", "output": "use"}
    for node in nodes.values():
        before = {nodes[p].stage for p in node.parents if nodes[p].parents}
        if node.gate in stage_of:
            node.stage = stage_of[node.gate]
        elif node.stage != "use":
            node.stage = "remember" if len(before) != 1 else before.pop()
        node.stage = node.stage if node.parents else ""
    return nodes
