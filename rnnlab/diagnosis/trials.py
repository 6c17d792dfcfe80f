"""Trial runs: the learner's code is run with an edit in place, and its claims are compared with what is wanted."""

from __future__ import annotations

import ast
import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.diagnosis.edits import Edit
from rnnlab.diagnosis.locate import Correction
from rnnlab.diagnosis.probe import Place, copied
from rnnlab.diagnosis.report import Finding
from rnnlab.diagnosis.sentences import sentence
from rnnlab.diagnosis.source import Source, executed, limited, running, sources
from rnnlab.ops import Array
from rnnlab.proof.case import LOSS, Arrays, Case, as_array
from rnnlab.proof.exact import FLOOR, SAME, agrees

SHARE = 0.08  # of the wrong numbers that an edit has to mend, to be one mistake of several
MOST_RUNS = 3000  # of the learner's code in one search: a number of runs, so that the answer is the same everywhere
GIVES_NAMES = ("exchanged", "another operand", "index", "left out", "missing term")  # wrong in `h, c = prev`

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


@dataclass
class Repair:
    """An edit after which the gradients are right: all of them, or (`left` > 0) more than before."""

    edit: Edit
    finding: Finding
    left: int

    @classmethod
    def of(cls, edit: Edit, left: int = 0) -> Repair:
        """With what is said of it, which is found before the edit is kept."""
        where = edit.source.where(edit.statement)
        return cls(edit, Finding(edit.kind, sentence(edit), *where, edit.mended()), left)


class Trials:
    """A backward pass whose claims differ from `exact`, on which edits are tried."""

    def __init__(
        self, case: Case, exact: Arrays, functions: Sequence[Source], elsewhere: Check, scale: float = 1.0
    ) -> None:
        self.case, self.functions, self.elsewhere, self.scale = case, functions, elsewhere, scale
        self.exact, self.wanted = exact, Wanted(exact)
        self.closures = any(source.within for source in functions)  # a forward pass makes the backward pass
        self.current: dict[int, tuple[Source, Any]] = {}
        self.runs, self.most = 0, MOST_RUNS
        self.seen: set[tuple[int, str]] = set()  # the edits that were tried
        self.claims: Arrays = {}
        self.record: Any = None
        self.record = self._reusable()
        self.claimed = self.wanted.vector({})
        self.partial: Repair | None = None
        self.located: Correction | None = None
        self.reached: list[Place] = []
        forward = sources(executed(case.record)[1])  # its numbers may stand in the backward pass
        trees = [n for s in (*functions, *forward) for n in ast.walk(s.tree)]
        numbers = {ast.unparse(n) for n in trees if isinstance(n, ast.Constant) and type(n.value) in (int, float)}
        self.constants = sorted(numbers | {"0", "1"})

    def _reusable(self) -> Any:
        """One record of the forward pass for all runs; None where a backward pass uses it up, or stands in it."""
        with contextlib.suppress(Exception):
            record = copy.deepcopy(self.case.record())  # it may hold the learner's own arrays
            self.record = freeze(record)  # no edit may spoil it for the next one
            self.claims = {n: np.array(g) / self.scale for n, g in self.case.back(record, self.scale).items()}
            first, second = self.wanted.vector(self.claims), self.run([])
            if second is not None and np.array_equal(first, second) and not self.closures:
                return record
        self.record = None
        with contextlib.suppress(Exception):  # it uses up its record, or writes in it: a new one for each run
            self.claims = {n: np.array(g) / self.scale for n, g in self.case.claims(self.scale).items()}
        return None

    def run(self, codes: Sequence[Any], names: dict[str, Any] | None = None) -> Array | None:
        """The claimed gradients with these codes in place; None where the code raises."""
        self.runs += 1
        every = {**self.current, **{id(s): (s, code) for s, code in codes}}
        try:
            with np.errstate(all="ignore"):
                record = self.case.record() if self.record is None and not self.closures else self.record
                with running(list(every.values()), names), limited():
                    claims = self.case.back(
                        self.case.record() if self.closures else copied(record, arrays=False), self.scale
                    )
                return self.wanted.vector({name: as_array(g) / self.scale for name, g in claims.items()})
        except Exception:  # an edit may raise anything
            return None

    def wrong(self, claims: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(~(np.abs(claims - self.wanted.exact) <= SAME))

    def tried(self, edits: Iterable[Edit], most: int | None = None) -> Repair | None:
        """The first of so many edits after which everything is right, here and on fresh numbers."""
        before, start = self.wrong(self.claimed), self.runs
        enough = (1 - SHARE) * before.sum()
        for edit in edits:
            if self.runs > min(start + (most or self.most), self.most):
                return None
            names = is_unpacking(edit.statement) and isinstance(edit.node, ast.expr)
            if (id(edit.node), edit.text) in self.seen or (names and edit.kind not in GIVES_NAMES):
                continue
            self.seen.add((id(edit.node), edit.text))
            try:
                code = edit.compiled()
            except (SyntaxError, ValueError, TypeError):
                continue
            claims = self.run([(edit.source, code)])
            if claims is None:
                continue
            wrong = self.wrong(claims)
            left = int(wrong.sum())
            if left == 0:
                with running([*self.current.values(), (edit.source, code)]):
                    if self.elsewhere(self.wanted.shapes):
                        return Repair.of(edit)
            elif not (wrong & ~before).any() and left < (self.partial.left if self.partial else enough):
                self.partial = Repair.of(edit, left)
        return None

    def accept(self, edit: Edit) -> None:
        """Keep an edit, and look for the next mistake with it in place."""
        edit.keep()
        self.seen.clear()
        self.current[id(edit.source)] = (edit.source, edit.source.compiled(edit.source.tree))


def freeze(thing: Any, depth: int = 6) -> Any:
    """The same thing, every array within read-only from here on."""
    if isinstance(thing, np.ndarray):
        thing.flags.writeable = False
    elif depth and isinstance(thing, tuple | list | dict):
        for element in thing.values() if isinstance(thing, dict) else thing:
            freeze(element, depth - 1)
    elif depth and hasattr(thing, "__dict__") and not callable(thing):
        freeze(vars(thing), depth - 1)
    return thing


def is_unpacking(statement: ast.stmt) -> bool:
    """Whether a statement only gives names to what is there."""
    kinds = (ast.Tuple, ast.Name, ast.expr_context, ast.Subscript, ast.Constant, ast.Attribute)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Tuple):
        return False
    return all(isinstance(n, kinds) for n in ast.walk(statement.value))
