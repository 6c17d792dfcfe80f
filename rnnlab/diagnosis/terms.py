"""What: the shortest product of recorded values that turns what an expression is into what it should have been."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from rnnlab.diagnosis.source import Source
from rnnlab.ops import Array

FORMS = ("{}", "(1 - {})", "{0} * (1 - {0})", "(1 - {}**2)", "({} > 0)")
CLOSE = 1e-6
Values = dict[str, list[Array]]  # by the text of an expression, one array for each occurrence


def vocabulary(source: Source, spaces: Sequence[Mapping[str, Any]]) -> Values:
    """The arrays that the learner's names hold at each occurrence: elements, attributes and neighbours in time too."""
    texts: dict[str, None] = dict.fromkeys(name for name in spaces[0] if name.isidentifier())
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Del):
            texts[ast.unparse(node)] = None
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Tuple | ast.Slice):
                for step in (n.id for n in ast.walk(node.slice) if isinstance(n, ast.Name)):
                    for array in {ast.unparse(node.value), _root(node)}:
                        texts |= {f"{array}[{near}]": None for near in (step, f"{step} - 1", f"{step} + 1")}
        elif isinstance(node, ast.BinOp | ast.Call) and _pure(node):
            texts[ast.unparse(node)] = None
    for name, value in spaces[0].items():
        if isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 3):
            texts |= {f"{name}[{k}]": None for k in range(min(len(value), 8))}
        elif isinstance(value, dict):
            texts |= {f"{name}[{key!r}]": None for key in list(value)[:40]}
    for owner, thing in spaces[0].items():
        if isinstance(thing, np.ndarray) or not hasattr(thing, "__dict__") or inspect.ismodule(thing):
            continue
        params = getattr(thing, "params", {})
        for name, value in {**(params if isinstance(params, Mapping) else {}), **vars(thing)}.items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not name.startswith("_"):
                texts[f"{owner}.{name}"] = None
                texts |= {f"{owner}.{name}[{k}]": None for k in range(min(len(value), 8)) if value.ndim >= 3}
    found: Values = {}
    for text in texts:
        code = compile(text, "", "eval")
        try:
            values = [np.asarray(eval(code, source.function.__globals__, dict(space))) for space in spaces]
        except Exception:  # not defined there, or no such index
            continue
        if all(v.dtype.kind == "f" and v.ndim <= 3 for v in values):
            found[text] = [np.array(v) for v in values]
    return found


def readings(
    text: str, claimed: list[Array], exact: list[Array], known: list[Array], words: Values
) -> Iterator[tuple[str, str, str]]:
    """(new text, kind, the term) for an expression: `text * f * (1 - f)`, `text + dh @ W.T`, another operand, ..."""
    if len({e.shape for e in exact}) != 1:
        return
    shape, mask = exact[0].shape, np.stack(known).ravel()
    table = _Table(shape, mask, words, len(exact))
    goal = np.stack(exact).ravel()[mask]
    have = np.stack([np.broadcast_to(c, shape) for c in claimed]).ravel()[mask]
    goal[np.abs(goal) < 1e-11 * np.abs(goal).max(initial=0)] = 0  # rounding of a least squares solution
    if not len(goal) or not np.isfinite(goal).all() or not np.abs(goal).max():
        return
    with np.errstate(all="ignore"):
        ratio = goal / have
        ratio[(goal == 0) & (have == 0)] = np.nan  # says nothing there
    if scale := _number(ratio):
        yield (f"-({text})", "sign", "") if scale == "-1" else (f"{scale} * ({text})", "scale", scale)
    for form in (*table.products(ratio, 2), *table.pieces(ratio)):
        yield f"{_bracket(text)} * {form}", "missing factor", form
    for form in table.products(goal, 3):
        yield form, "another operand", form
    for sign, lack in (("+", goal - have), ("-", have - goal)):
        for form in (*table.products(lack, 3), *table.matrix_products(lack), *table.sums(lack)):
            yield f"{text} {sign} {form}", "missing term", form
    for form in (*table.matrix_products(goal), *table.pieces(goal)):
        yield form, "another operand", form


class _Table:
    """The forms v, 1 - v, v (1 - v), 1 - v^2 of every recorded value that has the shape of what is looked for."""

    def __init__(self, shape: tuple[int, ...], mask: Array, words: Values, count: int) -> None:
        self.shape, self.mask, self.words, self.count = shape, mask, words, count
        self.names: list[str] = []
        rows: list[Array] = []
        seen: set[bytes] = set()
        for form in FORMS:
            for text, values in words.items():
                if len(values) != count or any(not _fits(v.shape, shape) for v in values):
                    continue
                flat = np.stack([np.broadcast_to(v, shape) for v in values]).ravel()[mask]
                flat = _formed(form, flat)
                key = np.round(flat, 12).tobytes()
                if key not in seen and np.isfinite(flat).all() and np.ptp(flat) > 0:
                    seen.add(key)
                    self.names.append(form.format(_bracket(text) if form != "{}" else text))
                    rows.append(flat)
        self.rows = np.array(rows).reshape(len(rows), int(mask.sum()))

    def products(self, goal: Array, most: int) -> Iterator[str]:
        """Products of at most so many forms that equal the goal, the shortest first."""
        said = ~np.isnan(goal)
        if not len(self.rows) or not np.isfinite(goal[said]).all() or not np.abs(goal[said]).max(initial=0) > 1e-12:
            return
        for n in self._equal(goal, said):
            yield self.names[n]
        nonzero = said & (goal != 0)
        with np.errstate(all="ignore"):
            logs, wanted = np.log(np.abs(self.rows[:, nonzero])), np.log(np.abs(goal[nonzero]))
        usable = np.flatnonzero(np.isfinite(logs).all(axis=1))
        logs = logs[usable]
        if most >= 2 and len(usable):
            for i, j in self._pairs(logs, wanted):
                yield from self._named(goal, (usable[i], usable[j]))
        if most >= 3 and 0 < len(usable) <= 120:
            for k in range(len(usable)):
                for i, j in self._pairs(logs[: k + 1], wanted - logs[k]):
                    yield from self._named(goal, (usable[i], usable[j], usable[k]))

    def sums(self, goal: Array) -> Iterator[str]:
        """Two products of two values each that add up to the goal."""
        plain = [n for n, name in enumerate(self.names) if not set(name) & set("(*+-@")][:60]
        if len(plain) < 2 or not np.abs(goal).max() > 1e-12:
            return
        pairs = list(combinations(plain, 2))
        table = np.array([self.rows[i] * self.rows[j] for i, j in pairs]).reshape(len(pairs), -1)
        order = np.argsort(table[:, 0])
        rest, near = goal[0] - table[:, 0], 1e-8 * np.abs(table[:, 0]).max(initial=0)
        low = np.searchsorted(table[order, 0], rest - near)
        high = np.searchsorted(table[order, 0], rest + near)
        for n in np.flatnonzero(high > low):
            for m in order[low[n] : high[n]]:
                if n < m and np.abs(table[n] + table[m] - goal).max() <= CLOSE * np.abs(goal).max():
                    yield " + ".join(" * ".join(self.names[i] for i in pairs[k]) for k in (n, m))

    def _pairs(self, logs: Array, wanted: Array) -> Iterator[tuple[int, int]]:
        """i <= j whose logarithms add up: looked up by their first number, then compared in all."""
        order = np.argsort(logs[:, 0])
        column = logs[order, 0]
        rest = wanted[0] - logs[:, 0]
        low, high = np.searchsorted(column, rest - 1e-5), np.searchsorted(column, rest + 1e-5)
        for i in np.flatnonzero(high > low):
            for j in order[low[i] : high[i]]:
                if i <= j and np.abs(logs[i] + logs[j] - wanted).max() < 1e-5:
                    yield int(i), int(j)

    def _named(self, goal: Array, rows: tuple[int, ...]) -> Iterator[str]:
        said = ~np.isnan(goal)
        product = np.prod(self.rows[list(rows)], axis=0)
        if np.abs(product - goal)[said].max() <= CLOSE * np.abs(goal[said]).max():
            yield " * ".join(self.names[n] for n in sorted(rows))

    def _equal(self, goal: Array, said: Array) -> Iterator[int]:
        size = np.abs(goal[said]).max()
        fits = np.abs(self.rows[:, said] - goal[said]).max(axis=1) <= CLOSE * size
        yield from (int(n) for n in np.flatnonzero(fits))

    def pieces(self, goal: Array) -> Iterator[str]:
        """Two numbers, one on each side of a condition: the slope of a function that is linear in pieces."""
        said = np.isfinite(goal)
        for text, values in self.words.items() if said.any() else ():
            if len(values) == self.count and all(_fits(v.shape, self.shape) for v in values):
                v = np.stack([np.broadcast_to(a, self.shape) for a in values]).ravel()[self.mask]
                for form, inside in ((f"{text} > 0", v > 0), (f"({text} > 0) & ({text} < 1)", (v > 0) & (v < 1))):
                    sides = [goal[said & inside], goal[said & ~inside]]
                    if all(len(s) > 1 and np.ptp(s) < 1e-6 for s in sides) and abs(sides[0][0] - sides[1][0]) > 1e-6:
                        yield f"np.where({form}, {sides[0][0]:.6g}, {sides[1][0]:.6g})"

    def matrix_products(self, goal: Array) -> Iterator[str]:
        """A @ B, A @ B.T and A.T @ B of recorded matrices, alone or times one form, that equal the goal."""
        if len(self.shape) != 2 or not np.abs(goal).max() > 1e-12:
            return
        sides: list[tuple[str, Array]] = []
        seen: set[bytes] = set()
        for name, v in self.words.items():
            if len(v) == self.count and all(a.ndim == 2 and a.shape == v[0].shape for a in v):
                stack = np.stack(v)
                if stack.tobytes() not in seen:
                    seen.add(stack.tobytes())
                    sides += [(_bracket(name), stack), (f"{_bracket(name)}.T", stack.mT)]
        with np.errstate(all="ignore"):
            wanted = np.concatenate([goal[None], goal / self.rows])
        for a, left in sides:
            for b, right in sides:
                if (left.shape[1], right.shape[2]) == self.shape and left.shape[2] == right.shape[1]:
                    made = (left @ right).ravel()[self.mask]
                    size = np.abs(made).max()
                    with np.errstate(invalid="ignore"):
                        near = np.flatnonzero(np.abs(wanted[:, 0] - made[0]) <= CLOSE * size) if size > 0 else ()
                        fits = [n for n in near if np.abs(wanted[n] - made).max() <= CLOSE * size]
                    for n in fits:
                        yield f"{a} @ {b}" if n == 0 else f"({a} @ {b}) * {self.names[n - 1]}"


def _formed(form: str, v: Array) -> Array:
    index = FORMS.index(form)
    return (v, 1 - v, v * (1 - v), 1 - v**2, (v > 0).astype(float))[index]


def _number(ratio: Array) -> str:
    """A constant ratio as a short number: -1, 2, 1/3; "" where it is none."""
    ratio = ratio[~np.isnan(ratio)]
    value = float(np.median(ratio)) if len(ratio) else 1.0
    if not np.isfinite(ratio).all() or abs(value - 1) < 1e-6 or np.abs(ratio - value).max() > 1e-6 * abs(value):
        return ""
    for bottom in range(1, 13):
        top = value * bottom
        if abs(top - round(top)) < 1e-6 * abs(top) and 0 < abs(round(top)) <= 60:
            return f"{round(top)}" if bottom == 1 else f"{round(top)} / {bottom}"
    return f"{value:.6g}"


def _root(node: ast.expr) -> str:
    """The name of the array that is indexed: hs of hs[1:][t - 1]."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return ast.unparse(node)


def _pure(node: ast.expr) -> bool:
    """Arithmetic and functions of NumPy alone, of moderate length: it can be evaluated once more."""
    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    known = all(isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "np" for f in calls)
    return (
        known and sum(1 for _ in ast.walk(node)) <= 24 and not any(isinstance(n, ast.keyword) for n in ast.walk(node))
    )


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        return False


def _bracket(text: str) -> str:
    node = ast.parse(text, mode="eval").body
    plain = isinstance(node, ast.Name | ast.Subscript | ast.Attribute | ast.Constant | ast.Call)
    product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    return text if plain or product else f"({text})"
