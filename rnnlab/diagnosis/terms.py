"""The vocabulary of hypotheses: which products of recorded values turn one array into another.

Arrays are compared as flat rows of N numbers. A hypothesis is accepted when it reproduces all of them to
a relative tolerance, so a chance fit among a million candidates is out of reach.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations, combinations_with_replacement, product
from typing import TypeVar

import numpy as np

from rnnlab.ops import Array

SIGNS = (("-", -1), ("+", 1))
Ratio = tuple[tuple[str, ...], tuple[str, ...], int, float]  # missing, extra, sign, residual
Item = TypeVar("Item")
MOST = 60  # equivalent readings of one array that are looked at


@dataclass(frozen=True)
class Term:
    """((base * before) @ matrix) * after: what one summand of a backward pass looks like."""

    base: str
    before: tuple[str, ...] = ()
    matrix: str = ""
    after: tuple[str, ...] = ()

    @property
    def factors(self) -> tuple[str, ...]:
        return self.before + self.after

    @property
    def cost(self) -> int:
        return len(self.factors) + 2 * bool(self.matrix) + self.base.startswith("d_a")

    def difference(self, other: Term) -> int:
        """In how many places the two disagree."""
        if self.matrix and other.matrix:
            unlike = len(set(self.before) ^ set(other.before)) + len(set(self.after) ^ set(other.after))
        else:
            unlike = len(set(self.factors) ^ set(other.factors))
        return unlike + 2 * (self.base != other.base) + 2 * (self.matrix != other.matrix)

    def __str__(self) -> str:
        inner = factor_text((self.base, *self.before), in_product=True)
        if self.matrix:
            inner = f"({inner}) {self.matrix}" if self.before else f"{inner} {self.matrix}"
        return factor_text((inner, *self.after), in_product=True)


def factor_text(factors: Iterable[str], in_product: bool = False) -> str:
    """ "c_{t-1} f(1 - f)"; differences stand in brackets beside other factors."""
    texts = [f for f in factors if f]
    if len(texts) > 1 or in_product:
        texts = [f"({f})" if f.startswith(("1 - ", "1 + ")) else f for f in texts]
    return " ".join(texts)


def match(left: Array, right: Array, tolerance: float) -> Iterator[tuple[int, int, int]]:
    """All (i, j, sign) with left[i] = sign right[j], over the rows of (n, N) and (m, N).

    Rows are found by one random projection and a sort, then compared in full.
    """
    size = np.abs(left).max(axis=1, initial=0)
    probe = np.random.default_rng(7).normal(size=left.shape[1])
    with np.errstate(all="ignore"):
        marks, keys = left @ probe, right @ probe
        order = np.argsort(keys)
        keys = keys[order]
        width = 2 * tolerance * size * np.abs(probe).sum()
        for sign in (1, -1):
            low = np.searchsorted(keys, sign * marks - width)
            high = np.searchsorted(keys, sign * marks + width)
            for i in np.flatnonzero(high > low):
                if size[i] > 0 and np.isfinite(size[i]):
                    rows = order[low[i] : high[i]]
                    good = np.abs(left[i] - sign * right[rows]).max(axis=1) <= tolerance * size[i]
                    yield from ((int(i), int(j), sign) for j in rows[good])


class Vocabulary:
    """Named (N, H) values of one case, their factor forms, and the (H, H) matrices.

    `values` get the forms v, 1 - v, v(1 - v), 1 - v^2; `derived` values (products, parameters) stand for
    themselves alone. Values that repeat an earlier one, or are zero, are left out.
    """

    def __init__(
        self, values: dict[str, Array], derived: dict[str, Array], matrices: dict[str, Array], tolerance: float
    ) -> None:
        self.tolerance, self.matrices, self.shape = tolerance, matrices, next(iter(values.values())).shape
        names, arrays = [""], [np.ones(self.shape)]
        for name, v in (values | derived).items():
            forms = [(name, v)]
            if name in values or name.startswith("tanh"):
                forms += [(f"1 - {name}", 1 - v), (f"{name}(1 - {name})", v * (1 - v)), (f"1 - {name}^2", 1 - v * v)]
                forms += [(f"1 + {name}^2", 1 + v * v)]
                forms += [(f"[{name} > 0]", (v > 0).astype(float))] * bool((v == 0).any())
            for text, array in forms:
                scale = np.abs(array).max()
                if scale > 1e-12 and not any(np.abs(array - known).max() <= 1e-12 * scale for known in arrays):
                    names.append(text)
                    arrays.append(array)
        plain = list((values | derived).items())
        self.brackets = [(f"({a} {s} {b})", v + n * w) for (a, v), (b, w) in combinations(plain, 2) for s, n in SIGNS]
        self.single_names = [(name,) if name else () for name in names]
        self.singles = np.array(arrays).reshape(len(arrays), -1)
        self.factors = dict(zip(names, arrays, strict=True))
        pairs = list(combinations_with_replacement(range(len(names)), 2))
        self.product_names = [tuple(n for n in (names[i], names[j]) if n) for i, j in pairs]
        self.products = self.singles[[i for i, _ in pairs]] * self.singles[[j for _, j in pairs]]
        self.divisors = np.flatnonzero(np.abs(self.products).min(axis=1) > 1e-6)

    def value(self, term: Term, bases: dict[str, Array]) -> Array:
        """The numbers of a term, (N, H)."""
        value = bases[term.base]
        for name in term.before:
            value = value * self.factors[name]
        if term.matrix:
            value = value @ self.matrices[term.matrix]
        for name in term.after:
            value = value * self.factors[name]
        return value

    def ratio(self, claimed: Array, exact: Array, brackets: bool = False) -> Ratio | None:
        """The simplest claimed * missing = sign * exact * extra, of products of two forms; with `brackets`, of single
        forms and of sums and differences of two values: h - n, c - g."""
        names, table = self.product_names, self.products
        if brackets:
            names = [*self.single_names, *((name,) for name, _ in self.brackets)]
            table = np.concatenate((self.singles, *(v.reshape(1, -1) for _, v in self.brackets)))
        left, right = claimed.ravel() * table, exact.ravel() * table
        found = []
        for i, j, sign in match(left, right, self.tolerance):
            both = "".join(names[i] + names[j])
            simple = (both.count("(") * brackets, len(both)) if brackets else ()
            found.append((len(names[i]) + len(names[j]) + (sign < 0), simple, i, j, sign))
        if not found:
            return None
        *_, i, j, sign = min(found)
        return names[i], names[j], sign, residual(left[i], sign * right[j])

    def readings(self, array: Array, bases: dict[str, Array]) -> list[tuple[Term, int]]:
        """The terms that equal +-array: (array / after) matrix^-1 = base * before, both sides tabulated."""
        found: list[tuple[Term, int]] = []
        outer = array.ravel() / self.products[self.divisors]
        for name, M in ({"": None} | self.matrices).items():
            left = outer
            if M is not None:
                if np.linalg.cond(M) > 1e6:
                    continue
                left = (outer.reshape(-1, *self.shape) @ np.linalg.inv(M)).reshape(outer.shape)
            for base_name, base in bases.items():
                for i, j, sign in match(left, base.ravel() * self.products, self.tolerance):
                    after, before = self.product_names[self.divisors[i]], self.product_names[j]
                    if not set(after) & set(before) or name:
                        term = Term(base_name, before, name, after) if name else Term(base_name, before + after)
                        found.append((term, sign))
        found = sorted(set(found), key=lambda r: (r[0].cost, str(r[0])))
        return found[:MOST]

    def terms(self, bases: dict[str, Array]) -> tuple[list[Term], Array]:
        """Every base times two factors, and every base times one factor before or after one matrix."""
        names: list[Term] = []
        rows: list[Array] = []
        for base_name, base in bases.items():
            names += [Term(base_name, factors) for factors in self.product_names]
            rows.append(base.ravel() * self.products)
            scaled = (base.ravel() * self.singles).reshape(-1, *self.shape)
            for name, M in self.matrices.items():
                names += [Term(base_name, factors, name) for factors in self.single_names]
                rows.append((scaled @ M).reshape(len(scaled), -1))
                names += [Term(base_name, (), name, factors) for factors in self.single_names[1:]]
                rows.append((base @ M).ravel() * self.singles[1:])
        table = np.concatenate(rows)
        kept = np.flatnonzero(np.abs(table).max(axis=1) > 0)
        return [names[i] for i in kept], table[kept]

    def difference(
        self, error: Array, bases: dict[str, Array], true: Collection[Term] = ()
    ) -> tuple[Term | None, Term | None, float] | None:
        """(put in, left out, residual): the simplest error = one term, or one term minus another.

        Of several, one that leaves out a term that is known to be `true` is preferred: X(1 - v) too many is then
        told as X in the place of X v.
        """
        names, table = self.terms(bases)
        flat = error.ravel()[None]
        found: list[tuple[float, int, int, int]] = []
        for _, j, sign in match(flat, table, self.tolerance):
            found.append((names[j].cost - 10 * (sign < 0 and names[j] in true), j, -1, sign))
        for i, j, sign in match(table - flat, table, self.tolerance):
            if sign > 0 and i != j and (not found or names[j] in true):
                cost = names[i].difference(names[j]) + 0.1 * (names[i].cost + names[j].cost)
                found.append((cost - 10 * (names[j] in true), i, j, 1))
        if not found:
            return None
        _, i, j, sign = min(found)
        if j >= 0:
            return names[i], names[j], residual(flat[0], table[i] - table[j])
        off = residual(flat[0], sign * table[i])
        return (names[i], None, off) if sign > 0 else (None, names[i], off)


def residual(claimed: Array, hypothesis: Array) -> float:
    """max|claimed - hypothesis| / max|claimed|."""
    return float(np.abs(claimed - hypothesis).max() / max(np.abs(claimed).max(), np.finfo(float).tiny))


def closest_readings(claimed: list[tuple[Term, int]], exact: list[tuple[Term, int]]) -> tuple[Term, Term, int] | None:
    """The pair of readings (claimed, exact, relative sign) that differ least."""
    pairs = [
        (c.difference(e) + 0.1 * (c.cost + e.cost) + (s != r), str(c), str(e), c, e, s * r)
        for (c, s), (e, r) in product(claimed, exact)
    ]
    return min(pairs, key=lambda pair: pair[:3])[3:] if pairs else None


def transposed(matrix: str) -> str:
    return matrix.removesuffix("^T") if matrix.endswith("^T") else f"{matrix}^T"


def subsets(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
    """All but the empty one, small ones first."""
    items = list(items)
    return chain.from_iterable(combinations(items, n) for n in range(1, len(items) + 1))
