"""Formulas: the shortest product of recorded values that turns what an expression is into what it should have been."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

from rnnlab.diagnosis.operands import Values
from rnnlab.ops import Array

FORMS: dict[str, Callable[[Array], Array]] = {
    "{}": lambda v: v,
    "(1 - {})": lambda v: 1 - v,
    "{0} * (1 - {0})": lambda v: v * (1 - v),
    "(1 - {}**2)": lambda v: 1 - v**2,
    "({} > 0)": lambda v: (v > 0).astype(float),
}
CLOSE = 1e-6
MOST_PLAIN = 24  # names of which means over a row are looked at
MOST_FORMS = 300  # of one table whose products are looked at; of three each, or sums of two, fewer


def formulas(
    text: str, claimed: list[Array], exact: list[Array], known: list[Array], operands: Values, whole: Mapping[str, int]
) -> Iterator[tuple[str, str, str]]:
    """(new text, kind, the term) for an expression: `text * f * (1 - f)`, `text + dh @ W.T`, another operand, ..."""
    if len({e.shape for e in exact}) != 1 or any(k.shape != e.shape for k, e in zip(known, exact, strict=True)):
        return
    shape, mask = exact[0].shape, np.stack(known).ravel()
    goal = np.stack(exact).ravel()[mask]
    have = np.stack([np.broadcast_to(c, shape) for c in claimed]).ravel()[mask]
    goal[np.abs(goal) < 1e-11 * np.abs(goal).max(initial=0)] = 0  # rounding of a least squares solution
    if not len(goal) or not np.isfinite(goal).all() or not np.abs(goal).max():
        return
    table, inner = _Table(shape, mask, operands, len(exact)), bracketed(text)
    with np.errstate(all="ignore"):
        ratio = goal / have
        ratio[(goal == 0) & (have == 0)] = np.nan  # says nothing there
    yield from scaled(text, goal, have, whole)
    for form in (*table.products(ratio, 2), *table.pieces(ratio)):
        yield f"{inner} * {bracketed(form)}", "missing factor", form
    for form in (*table.products(goal, 3), *table.pieces(goal)):
        yield form, "another operand", form
    for form, summed in _reductions(operands, shape):
        if np.abs(summed.ravel()[mask] - goal).max() <= CLOSE * np.abs(goal).max():
            yield form, "another operand", form
    for sign, lack in (("+", goal - have), ("-", have - goal)):
        for form in (*table.products(lack, 3), *table.sums(lack)):
            if form != text:  # twice the same is a scale
                yield f"{text} {sign} {form if sign == '+' else bracketed(form)}", "missing term", form
    if mask.all() and len(shape) == 2 and all(c.shape == shape for c in claimed):
        for whole_row, form in table.means(text, np.stack(claimed), goal):
            yield f"{whole_row} - ({form})", "missing term", f"-({form})"


def scaled(text: str, goal: Array, have: Array, whole: Mapping[str, int]) -> Iterator[tuple[str, str, str]]:
    """The expression times a number: first by the names of whole numbers, "/ T" and "* B"."""
    said = (np.abs(have) > 1e-9 * np.abs(goal).max(initial=0)) | (np.abs(goal) > 1e-9 * np.abs(goal).max(initial=0))
    with np.errstate(all="ignore"):
        ratio = goal[said] / have[said]
    value, x = float(np.median(ratio)) if len(ratio) else 1.0, bracketed(text)
    if not np.isfinite(ratio).all() or abs(value - 1) < 1e-6 or np.abs(ratio - value).max() > 1e-6 * abs(value):
        return
    if abs(value + 1) < 1e-6:
        yield f"-{x}", "sign", ""
    scales = [f"/ {operand}" for operand, n in whole.items() if abs(value * n - 1) < 1e-6]
    scales += [f"* {operand}" for operand, n in whole.items() if abs(value / n - 1) < 1e-6]
    whole_ratios: list[tuple[float, int]] = [
        (round(value * n), n) for n in range(1, 13) if abs(value * n - round(value * n)) < 1e-6 * abs(value)
    ]
    for a, b in whole_ratios[:1] or [(value, 1)]:
        scales.append(f"/ {b}" if a == 1 else f"* {a:.6g} / {b}" if b > 1 else f"* {a:.6g}")
    yield from ((f"{x} {scale}", "scale", scale) for scale in scales)


def added_up(goal: Array, operands: Values) -> Iterator[str]:
    """What adds up to the goal over all occurrences: a value, its sum over an axis, or a product of two matrices."""
    forms: dict[str, Array] = {}
    for text, values in operands.items():
        if values[0].ndim and all(v.shape == values[0].shape for v in values):
            forms[text] = whole = np.stack(values)
            for axis, keep in product(range(whole.ndim - 1), (False, True)):
                name = f"{text}.sum(axis={axis}{', keepdims=True' * keep})"
                forms[name] = whole.sum(axis=axis + 1, keepdims=keep)
    for form, whole in (forms | dict(_matrix_products(operands, goal.shape))).items():
        if whole.shape[1:] == goal.shape and np.allclose(whole.sum(axis=0), goal):
            yield form


def _matrix_products(operands: Values, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """A @ B, A @ B.T and A.T @ B of this shape, of the recorded matrices, at every occurrence."""
    sides: dict[bytes, tuple[str, Array]] = {}
    for text, values in operands.items():
        if all(v.ndim == 2 and v.shape == values[0].shape for v in values):
            for name, stack in ((bracketed(text), np.stack(values)), (f"{bracketed(text)}.T", np.stack(values).mT)):
                sides.setdefault(stack.tobytes() + str(stack.shape).encode(), (name, stack))
    for (a, left), (b, right) in product(sides.values(), repeat=2):
        if left.shape[2] == right.shape[1] and (left.shape[1], right.shape[2]) == shape:
            yield f"{a} @ {b}", left @ right


def _reductions(operands: Values, shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Sums and means of this shape, of the recorded values over some of their axes, at every occurrence."""
    axes: tuple[Any, ...] = (0, 1, 2, (0, 1))
    for (text, values), axis, name in product(operands.items(), axes, ("sum", "mean")):
        if values[0].ndim > np.max(axis):
            keep = len(shape) == values[0].ndim
            made = [np.asarray(getattr(v, name)(axis=axis, keepdims=keep)) for v in values]
            if all(m.shape == shape for m in made):
                yield f"{bracketed(text)}.{name}(axis={axis}{', keepdims=True' * keep})", np.stack(made)


class _Table:
    """The forms v, 1 - v, v (1 - v), 1 - v^2 of every recorded value that has the shape of what is looked for."""

    def __init__(self, shape: tuple[int, ...], mask: Array, operands: Values, count: int) -> None:
        self.shape = shape
        operands = {text: v for text, v in operands.items() if len(v) == count}
        found: dict[bytes, tuple[str, Array]] = {}

        def add(name: str, values: Array) -> None:
            row = values.ravel()[mask]
            if np.isfinite(row).all() and np.ptp(row) > 0:
                found.setdefault(np.round(row, 12).tobytes(), (name, row))

        for form, (text, values) in product(FORMS, operands.items()):
            with contextlib.suppress(ValueError):  # of another shape
                whole = np.stack([np.broadcast_to(v, shape) for v in values])
                add(form.format(bracketed(text)) if form != "{}" else text, FORMS[form](whole))
        for name, whole in _matrix_products(operands, shape):
            add(name, whole)
        self.names = [name for name, _ in found.values()]
        self.rows = np.array([row for _, row in found.values()]).reshape(len(found), int(mask.sum()))
        self.plain = [n for n, name in enumerate(self.names) if not set(name) & set("(*+-@")][: MOST_FORMS // 5]

    def products(self, goal: Array, most: int) -> Iterator[str]:
        """Products of at most so many forms that equal the goal, the shortest first."""
        said = ~np.isnan(goal)
        goal, rows = goal[said], self.rows[:, said]
        if not len(rows) or not np.isfinite(goal).all() or not np.abs(goal).max(initial=0) > 1e-12:
            return
        yield from (self.names[n] for n, _ in _equal(rows, goal[None]))
        rows, few = rows[:MOST_FORMS], _some(goal)  # a few numbers, by which the products are looked up
        i, j = np.triu_indices(len(rows))
        pairs = rows[:, few][i] * rows[:, few][j]
        hits: list[tuple[int, ...]] = [(i[n], j[n]) for n, _ in _equal(pairs, goal[None, few])]
        if most > 2:
            with np.errstate(all="ignore"):
                rest = goal[few] / rows[: MOST_FORMS // 2, few]
            hits += [(i[n], j[n], k) for n, k in _equal(pairs, rest) if k >= j[n]]
        for hit in hits:
            if np.abs(np.prod(rows[list(hit)], axis=0) - goal).max() <= CLOSE * np.abs(goal).max():
                yield " * ".join(bracketed(self.names[n]) for n in sorted(hit))

    def sums(self, goal: Array) -> Iterator[str]:
        """Two products of two plain values each whose sum or difference is the goal."""
        i, j = (np.array(self.plain, int)[k] for k in np.triu_indices(len(self.plain), 1))
        if len(i) and np.abs(goal).max() > 1e-12:
            pairs = self.rows[i] * self.rows[j]
            names = [f"{self.names[a]} * {self.names[b]}" for a, b in zip(i, j, strict=True)]
            for sign, rest in (("+", goal - pairs), ("-", goal + pairs)):
                for n, m in _equal(pairs, rest, np.abs(goal).max()):
                    if n < m or (n > m and sign == "-"):
                        yield f"{names[n]} {sign} {names[m]}"

    def means(self, text: str, have: Array, goal: Array) -> Iterator[tuple[str, str]]:
        """(x, one or two terms v * mean(w * x) over a row) whose difference is the goal: the path through a norm.

        x is what is claimed, or that times a number for each row. With sums it is the path through a softmax.
        """
        plain = self.plain[:MOST_PLAIN]
        operands, few = ["", *(self.names[n] for n in plain)], _some(goal)
        values = np.concatenate((np.ones((1, *have.shape)), self.rows[plain].reshape(-1, *have.shape)))
        for factor, scale in zip(operands, values, strict=True):
            if np.ptp(scale, axis=-1).max() > 0:
                continue
            x, value = (f"{bracketed(text)} * {factor}" if factor else text), have * scale
            inner = (value * values).mean(axis=-1, keepdims=True) * np.array([1, self.shape[-1]]).reshape(2, 1, 1, 1, 1)
            rows = (values[:, None, None] * inner).reshape(-1, goal.size)  # by v, mean or sum, w
            lack = value.ravel() - goal

            def term(n: int, x: str = x) -> str:
                v, kind, w = np.unravel_index(n, (len(operands), 2, len(operands)))
                row = (
                    f"({f'{bracketed(x)} * {operands[w]}' if w else x}).{('mean', 'sum')[kind]}(axis=-1, keepdims=True)"
                )
                return f"{operands[v]} * {row}" if v else row

            yield from ((x, term(n)) for n, _ in _equal(rows, lack[None]))
            for n, m in _equal(rows[:, few], lack[few] - rows[:, few], np.abs(lack).max()):
                if n < m and np.abs(rows[n] + rows[m] - lack).max() <= CLOSE * np.abs(lack).max():
                    yield x, f"{term(n)} + {term(m)}"

    def pieces(self, goal: Array) -> Iterator[str]:
        """Two numbers, one on each side of a condition: the slope of a function that is linear in pieces."""
        said = np.isfinite(goal)
        for n in self.plain if said.any() else ():
            v, text = self.rows[n], self.names[n]
            for form, inside in ((f"{text} > 0", v > 0), (f"({text} > 0) & ({text} < 1)", (v > 0) & (v < 1))):
                sides = [goal[said & inside], goal[said & ~inside]]
                if all(len(s) > 1 and np.ptp(s) < 1e-6 for s in sides) and abs(sides[0][0] - sides[1][0]) > 1e-6:
                    yield f"np.where({form}, {sides[0][0]:.6g}, {sides[1][0]:.6g})"


def _equal(table: Array, wanted: Array, size: float = 0.0) -> list[tuple[int, int]]:
    """(n, k) where row n of the table is row k of what is wanted: looked up by the first number, compared in all."""
    order = np.argsort(table[:, 0])
    column, found = table[order, 0], list[tuple[int, int]]()
    with np.errstate(all="ignore"):  # no yield within, which would leave this state behind
        near = CLOSE * (np.full(len(wanted), size) if size else np.abs(wanted).max(axis=1))
        low, high = np.searchsorted(column, wanted[:, 0] - near), np.searchsorted(column, wanted[:, 0] + near, "right")
        for k in np.flatnonzero((high > low) & np.isfinite(near)):
            rows = order[low[k] : high[k]]
            found += [(int(n), int(k)) for n in rows[np.abs(table[rows] - wanted[k]).max(axis=1) <= near[k]]]
    return found


def _some(goal: Array) -> Array:
    """A few of its numbers: the largest, and some of the others."""
    return np.asarray(np.r_[np.argsort(-np.abs(goal))[:4], np.random.default_rng(0).permutation(len(goal))[:4]])


def bracketed(text: str) -> str:
    node = ast.parse(text, mode="eval").body
    plain = isinstance(node, ast.Name | ast.Subscript | ast.Attribute | ast.Constant | ast.Call)
    product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    return text if plain or product else f"({text})"
