"""What a search wants: the exact gradients as one vector, and claims that are right on other numbers too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

import numpy as np

from rnnlab.ops import Array
from rnnlab.proof.case import LOSS, Arrays, Case
from rnnlab.proof.exact import FLOOR, agrees

SAME = 1e-6  # relative to the largest number compared
Check = Callable[[Collection[str]], bool]  # whether the gradients of these arrays are right elsewhere too


class Wanted:
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


def on_other_numbers(case: Case, method: str, rng: np.random.Generator, scale: float = 1.0) -> Check:
    """The same functions on other numbers, of other sizes where that is possible: a repair must hold there too."""
    loss = None
    with np.errstate(all="ignore"):
        with contextlib.suppress(Exception):  # of code that raises there is no loss
            loss = case.claims(1.0).get(LOSS)
        asked = {name: case.along(name, method, rng) for name in case.inputs}

    def right(names: Collection[str]) -> bool:
        try:
            with np.errstate(all="ignore"):
                claims = case.claims(scale)
        except Exception:  # an edit may raise anything
            return False
        if LOSS in names and (loss is None or not np.allclose(claims[LOSS], loss, rtol=1e-9)):
            return False
        return all(agrees(claims.get(n, np.nan) / scale, *asked[n], 10 * SAME) for n in names if n != LOSS)

    return right
