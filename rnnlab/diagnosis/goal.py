"""The goal of a search: what the gradients should be, here and on fresh numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from functools import partial

import numpy as np

from rnnlab.case import LOSS, Arrays, Case, derivative
from rnnlab.ops import Array

SAME = 1e-6  # relative to the largest number compared
FLOOR = 1e-5  # an array is measured against at least this share of the largest gradient


class Goal:
    """What the claimed gradients should be, as one vector, each array divided by its size."""

    def __init__(self, exact: Arrays) -> None:
        largest = max((np.abs(v).max(initial=0) for v in exact.values()), default=0)
        self.sizes = {
            name: max(np.abs(v).max(initial=0), FLOOR * largest, np.finfo(float).tiny) for name, v in exact.items()
        }
        self.shapes = {name: v.shape for name, v in exact.items()}
        self.exact = self.vector(exact)
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self.shapes.values())])
        self.slices = {name: slice(a, b) for name, a, b in zip(self.shapes, ends, ends[1:], strict=False)}

    def vector(self, claims: Arrays) -> Array:
        """All claims in a row; what has another shape counts as wrong in every entry."""
        rows = []
        for name, shape in self.shapes.items():
            g = claims.get(name)
            fits = g is not None and np.shape(g) == shape
            rows.append(np.ravel(np.asarray(g) / self.sizes[name]) if fits else np.full(int(np.prod(shape)), 1e30))
        return np.concatenate(rows)

    def names(self, wrong: Array) -> list[str]:
        """The arrays in which these entries stand."""
        return [name for name, part in self.slices.items() if wrong[part].any()]


class Fresh:
    """The same functions on other numbers, of other sizes where that is possible: a repair must hold there too."""

    def __init__(self, case: Case, method: str, rng: np.random.Generator, scale: float = 1.0) -> None:
        self.case, self.scale = case, scale
        self.loss: Array | None = None
        with np.errstate(all="ignore"):
            with contextlib.suppress(Exception):  # of code that raises there is no loss
                self.loss = case.claims(1.0).get(LOSS)
            self.asked = {}
            for name, value in case.inputs.items():
                direction = rng.normal(size=value.shape)
                self.asked[name] = direction, derivative(partial(case.loss, name), value, direction, method)

    def right(self, names: Iterable[str]) -> bool:
        """Whether the claimed gradients agree with the derivatives in one random direction each."""
        try:
            with np.errstate(all="ignore"):
                claims = self.case.claims(self.scale)
        except Exception:  # an edit may raise anything
            return False
        for name in names:
            if name == LOSS:
                if self.loss is None or not np.allclose(claims[LOSS], self.loss, rtol=1e-9):
                    return False
                continue
            direction, number = self.asked[name]
            g = claims.get(name)
            if g is None or np.shape(g) != direction.shape:
                return False
            size = max(abs(number), 1e-2 * float(np.abs(direction * g).sum()), 1e-12)
            if not abs(float((direction * g).sum()) / self.scale - number) <= 10 * SAME * size:
                return False
        return True
