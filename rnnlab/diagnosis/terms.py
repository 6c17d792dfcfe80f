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
    texts: dict[str, None] = {}
    for name, value in spaces[0].items():
        texts |= dict.fromkeys(_inside(name, value)) if name.isidentifier() else {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Del):
            texts[ast.unparse(node)] = None
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Tuple | ast.Slice):
                for step in (n.id for n in ast.walk(node.slice) if isinstance(n, ast.Name)):
                    for array in {ast.unparse(node.value), _root(node)}:
                        texts |= {f"{array}[{near}]": None for near in (step, f"{step} - 1", f"{step} + 1")}
        elif isinstance(node, ast.BinOp | ast.Call) and _pure(node):
            texts[ast.unparse(node)] = None
    found: Values = {}
    every = [{**source.function.__globals__, **space} for space in spaces]
    for text in sorted(texts, key=lambda t: (not t.isidentifier(), "(" in t)):
        code = compile(text, "", "eval")
        try:
            values = [np.asarray(eval(code, space)) for space in every]
        except Exception:  # not defined there, or no such index
            continue
        if all(v.dtype.kind == "f" and v.ndim <= 3 for v in values):
            found[text] = [np.array(v) for v in values]
    return found


def _inside(text: str, value: Any, depth: int = 2) -> Iterator[str]:
    """A name, and the elements and attributes of what it holds."""
    if isinstance(value, np.ndarray):
        yield text
        yield from (f"{text}[{k}]" for k in range(min(len(value), 8)) if value.ndim == 3)
    elif isinstance(value, Mapping) and depth:
        for key in list(value)[:40]:
            yield from _inside(f"{text}[{key!r}]", value[key], depth - 1)
    elif isinstance(value, tuple | list) and depth:
        for k, element in enumerate(value[:12]):
            yield from _inside(f"{text}[{k}]", element, depth - 1)
    elif depth and hasattr(value, "__dict__") and not inspect.ismodule(value) and not inspect.isclass(value):
        params = getattr(value, "params", {})
        for name, inner in {**(params if isinstance(params, Mapping) else {}), **vars(value)}.items():
            if not name.startswith("_"):
                yield from _inside(f"{text}.{name}", inner, depth - 1)


def plain_words(words: Values) -> Values:
    """The names, elements and attributes among these texts, one for each value, the shortest."""
    kinds, found, seen = (ast.Name, ast.Subscript, ast.Attribute), {}, set()
    for text in sorted(words, key=lambda w: (len(w), w)):
        key = b"".join(v.tobytes() for v in words[text])
        if key not in seen and isinstance(ast.parse(text, mode="eval").body, kinds):
            seen.add(key)
            found[text] = words[text]
    return found


def whole_words(source: Source, space: Mapping[str, Any]) -> list[str]:
    """The texts of the function that hold whole numbers or lists of them: classes, positions."""
    texts = {ast.unparse(n) for n in ast.walk(source.tree) if isinstance(n, ast.Name | ast.Subscript | ast.Attribute)}
    found, names = [], {**source.function.__globals__, **space}
    for text in sorted(texts):
        try:
            value = np.asarray(eval(text, names))
        except Exception:  # not defined there
            continue
        if value.dtype.kind == "i" and value.ndim <= 1:
            found.append(text)
    return found


def counts(spaces: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Whole numbers by the text that gives them: `T`, `len(x)`, `x.shape[0]`."""
    found = {name: v for name, v in spaces[0].items() if type(v) is int and v > 1}
    for name, value in spaces[0].items():
        if isinstance(value, np.ndarray) and name.isidentifier():
            found |= {f"{name}.shape[{k}]": n for k, n in enumerate(value.shape) if n > 1}
        elif isinstance(value, list | tuple) and len(value) > 1:
            found[f"len({name})"] = len(value)
    return found


def readings(
    text: str, claimed: list[Array], exact: list[Array], known: list[Array], words: Values, whole: Mapping[str, int]
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
    table = _Table(shape, mask, words, len(exact))
    with np.errstate(all="ignore"):
        ratio = goal / have
        ratio[(goal == 0) & (have == 0)] = np.nan  # says nothing there
    inner = bracketed(text)
    for scale in _scales(ratio, whole):
        yield (f"-{inner}", "sign", "") if scale == "-1" else (f"{inner} {scale}", "scale", scale)
    for form in (*table.products(ratio, 2), *table.pieces(ratio)):
        yield f"{inner} * {form}", "missing factor", form
    for form in (*table.products(goal, 3), *table.reductions(goal)):
        yield form, "another operand", form
    for sign, lack in (("+", goal - have), ("-", have - goal)):
        for form in (*table.products(lack, 3), *table.matrix_products(lack), *table.sums(lack)):
            yield f"{text} {sign} {form}", "missing term", form
    for form in (*table.matrix_products(goal), *table.pieces(goal)):
        yield form, "another operand", form


def guesses(
    text: str, claimed: list[Array], exact: list[Array], seen: Array, words: Values, whole: Mapping[str, int]
) -> Iterator[tuple[str, str, str]]:
    """The same where the gradients determine only some sums of the numbers (the rows of `seen`): short forms alone."""
    if len({e.shape for e in exact}) != 1:
        return
    table = _Table(exact[0].shape, np.ones(sum(e.size for e in exact), bool), words, len(exact))
    have, goal = (np.stack(v).ravel() for v in (claimed, exact))
    forms = [(name, row) for name, row in zip(table.names, table.rows, strict=True)]
    forms += [(f"{a} * {b}", v * w) for (a, v), (b, w) in combinations(forms[:80], 2)]
    if not len(seen) or not np.isfinite(have).all():
        return
    wanted, now = seen @ goal, seen @ have
    size = np.abs(wanted).max(initial=0)
    with np.errstate(all="ignore"):
        ratio = np.where(np.abs(now) > 1e-6 * size, wanted / now, np.nan)
        ratio[(np.abs(now) <= 1e-9 * size) & (np.abs(wanted) > 1e-6 * size)] = np.inf
    for scale in _scales(ratio, whole):
        yield (f"-{bracketed(text)}", "sign", "") if scale == "-1" else (f"{bracketed(text)} {scale}", "scale", scale)
    if not forms:
        return
    rows = np.array([row for _, row in forms])
    for kind, pattern, made, aim in (
        ("missing factor", "{0} * {1}", rows * have, wanted),
        ("another operand", "{1}", rows, wanted),
        ("missing term", "{0} + {1}", rows, wanted - now),
        ("missing term", "{0} - {1}", rows, now - wanted),
    ):
        near = np.abs(made @ seen.T - aim).max(axis=1) <= CLOSE * max(size, 1e-300)
        yield from ((pattern.format(bracketed(text), forms[n][0]), kind, forms[n][0]) for n in np.flatnonzero(near))


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
                flat = formed(form, flat)
                key = np.round(flat, 12).tobytes()
                if key not in seen and np.isfinite(flat).all() and np.ptp(flat) > 0:
                    seen.add(key)
                    self.names.append(form.format(bracketed(text) if form != "{}" else text))
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

    def reductions(self, goal: Array) -> Iterator[str]:
        """A sum or mean of a recorded value over some of its axes."""
        for text, values in self.words.items():
            ways = [(k,) for k in range(values[0].ndim)] + ([(0, 1)] if values[0].ndim > 2 else [])
            for axis in ways if len(values) == self.count else ():
                kept = values[0].sum(axis, keepdims=True).shape == self.shape
                made = [np.asarray(v.sum(axis, keepdims=kept)) for v in values]
                if any(m.shape != self.shape for m in made):
                    continue
                flat = np.stack(made).ravel()[self.mask]
                for name, size in (("sum", 1), ("mean", np.prod([values[0].shape[k] for k in axis]))):
                    if np.abs(flat / size - goal).max() <= CLOSE * np.abs(goal).max():
                        where = axis[0] if len(axis) == 1 else axis
                        yield f"{bracketed(text)}.{name}(axis={where}{', keepdims=True' * kept})"

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
                    sides += [(bracketed(name), stack), (f"{bracketed(name)}.T", stack.mT)]
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


def formed(form: str, v: Array) -> Array:
    index = FORMS.index(form)
    return (v, 1 - v, v * (1 - v), 1 - v**2, (v > 0).astype(float))[index]


def _scales(ratio: Array, whole: Mapping[str, int]) -> Iterator[str]:
    """A constant ratio, first by the names of whole numbers: "/ T", "* B"; then as a number: "-1", "* 1 / 3"."""
    ratio = ratio[~np.isnan(ratio)]
    value = float(np.median(ratio)) if len(ratio) else 1.0
    if not np.isfinite(ratio).all() or abs(value - 1) < 1e-6 or np.abs(ratio - value).max() > 1e-6 * abs(value):
        return
    if abs(value + 1) < 1e-6:
        yield "-1"
    yield from (f"/ {text}" for text, n in whole.items() if abs(value * n - 1) < 1e-6)
    yield from (f"* {text}" for text, n in whole.items() if abs(value / n - 1) < 1e-6)
    for bottom in range(1, 13):
        top = value * bottom
        if abs(top - round(top)) < 1e-6 * abs(top) and 0 < abs(round(top)) <= 60:
            yield f"* {round(top)}" if bottom == 1 else f"* {round(top)} / {bottom}"
            return
    yield f"* {value:.6g}"


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


def bracketed(text: str) -> str:
    node = ast.parse(text, mode="eval").body
    plain = isinstance(node, ast.Name | ast.Subscript | ast.Attribute | ast.Constant | ast.Call)
    product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)
    return text if plain or product else f"({text})"
