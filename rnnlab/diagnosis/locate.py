"""Where: the places whose value alone, if it were another, would make every gradient right.

A backward pass is linear in what is added to one of its gradients. So one number added at one place moves all
returned gradients along a fixed direction, and the error of these gradients either lies in the space of the
directions of a place, or no change of that place can mend it. Where it does, least squares gives the change, and with
it what the value should have been. Nothing in this knows what the value means.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.diagnosis.probe import PROBE, Place, Probe, instrumented, places, subexpressions
from rnnlab.diagnosis.source import Source
from rnnlab.ops import Array
from rnnlab.proof.exact import SAME

MOST_ENTRIES = 480  # of one place
INVERSE: dict[type, tuple[Callable[[Array, Array], Array], Callable[[Array, Array], Array]]] = {
    ast.Add: (lambda result, right: result - right, lambda result, left: result - left),
    ast.Sub: (lambda result, right: result + right, lambda result, left: left - result),
    ast.Mult: (lambda result, right: result / right, lambda result, left: result / left),
    ast.Div: (lambda result, right: result * right, lambda result, left: left / result),
}  # the left operand from the result and the right one, and the other way round
Run = Callable[[Sequence[Any], dict[str, Any]], Array | None]


def recorded(run: Run, chosen: Sequence[Place], names: bool = False, inner: Sequence[ast.expr] = ()) -> Probe:
    """One run with a probe at each of these places."""
    probe = Probe()
    run(_codes(chosen, names, inner), {PROBE: probe})
    return probe


def _codes(chosen: Sequence[Place], names: bool = False, inner: Sequence[ast.expr] = ()) -> list[Any]:
    functions = {id(p.source): p.source for p in chosen}.values()
    return [instrumented(s, [p for p in chosen if p.source is s], inner, names) for s in functions]


def suspects(run: Run, functions: Sequence[Source], claimed: Array, wrong: Array) -> list[Place]:
    """The places that reach a wrong gradient: those that reach all of them first, and fewest right ones."""
    found = [place for source in functions for place in places(source)]
    codes, probe = _codes(found), Probe()
    if run(codes, {PROBE: probe}) is None:
        return []
    rng, reached = np.random.default_rng(0), []
    for place in found:
        key = id(place.node)
        noise = [1e-3 * rng.normal(size=v.shape) for v in probe.values.get(key, [])]
        moved = run(codes, {PROBE: Probe({key: noise})}) if noise else None
        if moved is not None and (touched := np.abs(moved - claimed) > 0)[wrong].any():
            place.disturbs, place.reaches_all = int(touched[~wrong].sum()), bool(touched[wrong].all())
            reached.append(place)
    first = {key: n for n, key in reversed(list(enumerate(probe.order)))}
    return sorted(reached, key=lambda p: (not p.reaches_all, first[id(p.node)]))


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
    key = id(place.node)
    codes = _codes([place])
    found = Directions(place, [v.shape for v in recorded(run, [place]).values[key]], np.zeros(0))
    total = sum(int(np.prod(shape)) for shape in found.shapes)
    if not 0 < total <= MOST_ENTRIES:
        return None
    random = np.random.default_rng(1).normal(size=total)
    tried = [run(codes, {PROBE: Probe({key: found.changes(change)})}) for change in (random, -random)]
    if tried[0] is None or tried[1] is None or not np.abs((tried[0] + tried[1]) / 2 - claimed).max() <= SAME:
        return None
    moved = [run(codes, {PROBE: Probe({key: found.changes(unit)})}) for unit in np.eye(total)]
    if any(m is None for m in moved):
        return None
    found.columns = np.array([m - claimed for m in moved if m is not None]).T
    return found


@dataclass
class Correction:
    """A place, and what it should have been.

    claimed, exact   one array for each occurrence: what it is once all before it is right, and what it should be
    known            which numbers of `exact` the returned gradients determine
    columns          how the returned gradients move with these numbers
    inner            the values of the expressions that it is made of
    scopes           the local names at each occurrence
    sure             whether it mends more numbers than it has itself
    """

    place: Place
    claimed: list[Array]
    exact: list[Array]
    known: list[Array]
    columns: Array
    inner: dict[int, list[Array]]
    scopes: list[dict[str, Any]]
    sure: bool

    def seen(self) -> Array:
        """The sums of its numbers that the returned gradients depend on, one row each."""
        _, sizes, v = np.linalg.svd(self.columns, full_matrices=False)
        return np.asarray(v[sizes > 1e-9 * max(sizes[0], 1e-300)])

    def fits(self, values: list[Any]) -> bool:
        """Whether every gradient would be right with these values, one for each occurrence."""
        if [np.shape(v) for v in values] != [e.shape for e in self.exact]:
            return False
        off = np.concatenate([np.ravel(v - e) for v, e in zip(values, self.exact, strict=True)])
        with np.errstate(all="ignore"):
            return bool(np.abs(self.columns @ off).max() <= SAME)


def solve(run: Run, chosen: Sequence[Directions], claimed: Array, exact: Array) -> list[Correction]:
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
    inner = [n for d in chosen for n in subexpressions(d.place.node)]
    probe = Probe({id(d.place.node): d.changes(c) for d, c, _ in shares})
    mended = run(_codes([d.place for d in chosen], True, inner), {PROBE: probe})
    if mended is None or not np.abs(mended - exact).max() <= 10 * SAME:
        return []
    found = []
    for d, change, determined in shares:
        key, right = id(d.place.node), probe.values[id(d.place.node)]
        if len(right) == len(d.shapes):
            was = [r - c for r, c in zip(right, d.changes(change), strict=True)]
            inside = {id(n): probe.values[id(n)] for n in subexpressions(d.place.node)} | {key: was}
            known = d.changes(determined)
            found.append(Correction(d.place, was, right, known, d.columns, inside, probe.scopes[key], bool(sure)))
    return found


def pushed_down(correction: Correction) -> Iterator[tuple[ast.expr, list[Array], list[Array]]]:
    """(part, its value, what it should have been if the other parts are right), from the whole to its leaves."""
    todo: list[tuple[ast.expr, list[Array]]] = [(correction.place.node, correction.exact)]
    while todo:
        node, exact = todo.pop(0)
        claimed = correction.inner.get(id(node), [])
        if len(claimed) != len(exact):
            continue
        yield node, claimed, exact
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            todo.append((node.operand, [-e for e in exact]))
        if not isinstance(node, ast.BinOp) or type(node.op) not in INVERSE:
            continue
        parts = node.left, node.right
        values = [_values(correction, part, len(exact)) for part in parts]
        for part, own, other, inverse in zip(parts, values, values[::-1], INVERSE[type(node.op)], strict=True):
            if not isinstance(part, ast.Constant) and len(own) == len(other) == len(exact):
                with np.errstate(all="ignore"):
                    right = [np.asarray(inverse(e, o)) for e, o in zip(exact, other, strict=True)]
                if all(r.shape == v.shape for r, v in zip(right, own, strict=True)):
                    todo.append((part, right))


def _values(correction: Correction, node: ast.expr, count: int) -> list[Array]:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return [np.asarray(float(node.value))] * count
    return correction.inner.get(id(node), [])
