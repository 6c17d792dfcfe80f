"""Where: the expressions whose value alone, if it were another, would make every gradient right.

A backward pass is linear in what is added to one of its gradients. So one number added at one place moves all
returned gradients along a fixed direction, and the error of these gradients either lies in the space of the
directions of a place, or no change of that place can mend it. Where it does, least squares gives the change, and with
it what the expression should have been. Nothing in this knows what the expression means.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.diagnosis.probe import PROBE, Place, Probe, instrumented, parts, places
from rnnlab.diagnosis.source import Source
from rnnlab.ops import Array

SAME = 1e-6  # relative to the largest number compared
MOST_ENTRIES = 480  # of one place; a share of a weight's gradient at every step has more, and is searched by edits
Run = Callable[[Sequence[Any], dict[str, Any]], Array | None]


@dataclass
class Target:
    """A place, and what it should have been.

    claimed, exact   one array for each occurrence: what it is once all before it is right, and what it should be
    known            which numbers of `exact` the returned gradients determine
    parts            the values of the expressions that it is made of
    spaces           the local names at each occurrence
    sure             whether it mends more numbers than it has itself
    """

    place: Place
    claimed: list[Array]
    exact: list[Array]
    known: list[Array]
    parts: dict[int, list[Array]]
    spaces: list[dict[str, Any]]
    sure: bool

    def fits(self, values: list[Any]) -> bool:
        """Whether these values, one for each occurrence, are what the place should have been."""
        for value, exact, known in zip(values, self.exact, self.known, strict=True):
            if np.shape(value) != exact.shape:
                return False
            with np.errstate(invalid="ignore"):
                if not (np.abs(value - exact)[known] <= 1e-6 * np.abs(exact).max(initial=1e-12)).all():
                    return False
        return True


def suspects(run: Run, functions: Sequence[Source], claimed: Array, wrong: Array, every: bool = True) -> list[Place]:
    """The places that reach every wrong gradient (or any of them), in the order in which the run comes to them."""
    found = [place for source in functions for place in places(source)]
    probe = Probe()
    codes = [instrumented(s, [p.node for p in found if p.source is s]) for s in functions]
    if run(codes, {PROBE: probe}) is None:
        return []
    rng = np.random.default_rng(0)
    reached = []
    for place in found:
        key = id(place.node)
        noise = [1e-3 * rng.normal(size=v.shape) for v in probe.values.get(key, [])]
        moved = run(codes, {PROBE: Probe({key: noise})}) if noise else None
        if moved is not None:
            touched = np.abs(moved - claimed) > 0
            place.disturbs = int(touched[~wrong].sum())
            if touched[wrong].all() if every else touched[wrong].any():
                reached.append(place)
    first = {key: n for n, key in reversed(list(enumerate(probe.order)))}
    return sorted(reached, key=lambda p: first[id(p.node)])


@dataclass
class Directions:
    """How every returned gradient moves with each number of one place, one column each."""

    place: Place
    shapes: list[tuple[int, ...]]
    columns: Array

    def changes(self, change: Array) -> list[Array]:
        """The numbers of the columns as one array for each occurrence."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return [c.reshape(s) for c, s in zip(np.split(change, ends), self.shapes, strict=True)]


def directions(run: Run, place: Place, claimed: Array) -> Directions | None:
    """None where the gradients are not linear in the place's value, so that it is no gradient."""
    key, probe = id(place.node), Probe()
    code = instrumented(place.source, [place.node])
    run([code], {PROBE: probe})
    found = Directions(place, [v.shape for v in probe.values[key]], np.zeros(0))
    total = sum(int(np.prod(shape)) for shape in found.shapes)
    if not 0 < total <= MOST_ENTRIES:
        return None
    random = np.random.default_rng(1).normal(size=total)
    tried = [run([code], {PROBE: Probe({key: found.changes(change)})}) for change in (random, -random)]
    if tried[0] is None or tried[1] is None or np.abs((tried[0] + tried[1]) / 2 - claimed).max() > SAME:
        return None
    moved = [run([code], {PROBE: Probe({key: found.changes(unit)})}) for unit in np.eye(total)]
    if any(m is None for m in moved):
        return None
    found.columns = np.array([m - claimed for m in moved if m is not None]).T
    return found


def targets(run: Run, chosen: Sequence[Directions], claimed: Array, exact: Array) -> list[Target]:
    """What these places should have been; empty where no change of them together makes every gradient right."""
    columns = np.concatenate([d.columns for d in chosen], axis=1)
    u, sizes, v = np.linalg.svd(columns, full_matrices=False)
    rank = int((sizes > 1e-9 * max(sizes[0], 1e-300)).sum())
    change = v[:rank].T @ ((u[:, :rank].T @ (exact - claimed)) / sizes[:rank])
    if not np.abs(claimed + columns @ change - exact).max() <= SAME:
        return []
    sure = rank < (np.abs(columns).max(axis=1) > 1e-12).sum()  # a place that could mend anything says little
    determined = (v[:rank] ** 2).sum(axis=0) > 1 - 1e-6
    cuts = np.cumsum([d.columns.shape[1] for d in chosen])[:-1]
    shares = list(zip(chosen, np.split(change, cuts), np.split(determined, cuts), strict=True))
    probe = Probe({id(d.place.node): d.changes(c) for d, c, _ in shares})
    nodes = {id(d.place): parts(d.place.node) for d in chosen}
    codes = []
    for source in {id(d.place.source): d.place.source for d in chosen}.values():
        codes.append(
            instrumented(source, [n for d in chosen if d.place.source is source for n in nodes[id(d.place)]], True)
        )
    mended = run(codes, {PROBE: probe})
    if mended is None or not np.abs(mended - exact).max() <= 10 * SAME:
        return []
    found = []
    for d, change, determined in shares:
        key, known = id(d.place.node), d.changes(determined)
        right = probe.values[key]
        if determined.any() and len(right) == len(known):
            was = [r - c for r, c in zip(right, d.changes(change), strict=True)]
            inside = {id(n): probe.values[id(n)] for n in nodes[id(d.place)]} | {key: was}
            found.append(Target(d.place, was, right, known, inside, probe.spaces[key], bool(sure)))
    return found


def _alike(a: Array, b: Array) -> bool:
    return a.shape == b.shape


def pushed_down(aim: Target) -> Iterator[tuple[ast.expr, list[Array], list[Array]]]:
    """(part, its value, what it should have been if the other parts are right), from the whole to its leaves."""
    todo: list[tuple[ast.expr, list[Array]]] = [(aim.place.node, aim.exact)]
    while todo:
        node, exact = todo.pop(0)
        claimed = aim.parts.get(id(node), [])
        if len(claimed) != len(exact):
            continue
        yield node, claimed, exact
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            todo.append((node.operand, [-e for e in exact]))
        if not isinstance(node, ast.BinOp):
            continue
        left, right = (aim.parts.get(id(n), []) for n in (node.left, node.right))
        for other, child, shapes, first in ((right, node.left, left, True), (left, node.right, right, False)):
            if isinstance(child, ast.Constant):
                continue
            if len(other) != len(exact):
                constant = node.right if first else node.left
                if not isinstance(constant, ast.Constant) or not isinstance(constant.value, int | float):
                    continue
                other = [np.asarray(float(constant.value))] * len(exact)
            solved = [_solved(node.op, e, o, first) for e, o in zip(exact, other, strict=True)]
            found = [s for s in solved if s is not None]
            if len(found) == len(shapes) == len(exact) and all(map(_alike, found, shapes)):
                todo.append((child, found))


def _solved(operator: ast.operator, result: Array, other: Array, first: bool) -> Array | None:
    """The one operand that gives this result with the other."""
    with np.errstate(all="ignore"):  # here and not in the generator, which would leave it set while it waits
        return _inverse(operator, result, other, first)


def _inverse(operator: ast.operator, result: Array, other: Array, first: bool) -> Array | None:
    if isinstance(operator, ast.Add):
        return np.asarray(result - other)
    if isinstance(operator, ast.Sub):
        return np.asarray(result + other if first else other - result)
    if isinstance(operator, ast.Mult):
        return np.asarray(result / other)
    if isinstance(operator, ast.Div):
        return np.asarray(result * other if first else other / result)
    return None
