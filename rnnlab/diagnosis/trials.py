"""Trial runs: the learner's code is run with an edit in place, and what it claims is compared."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.diagnosis.edits import Edit
from rnnlab.diagnosis.locate import Correction
from rnnlab.diagnosis.probe import Place, copied
from rnnlab.diagnosis.report import Finding
from rnnlab.diagnosis.sentences import sentence
from rnnlab.diagnosis.source import Source, executed, limited, running, sources
from rnnlab.diagnosis.wanted import SAME, Check, Wanted
from rnnlab.ops import Array
from rnnlab.proof.case import Arrays, Case, as_array, freeze

SHARE = 0.08  # of the wrong numbers that an edit has to mend, to be one mistake of several
MOST_RUNS = 3000  # of the learner's code in one search: a number of runs, so that the answer is the same everywhere
GIVES_NAMES = ("exchanged", "another operand", "index", "left out", "missing term")  # wrong in `h, c = prev`


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
            self.record = record = self.case.record()
            freeze(record)  # no edit may spoil it for the next one
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


def is_unpacking(statement: ast.stmt) -> bool:
    """Whether a statement only gives names to what is there."""
    kinds = (ast.Tuple, ast.Name, ast.expr_context, ast.Subscript, ast.Constant, ast.Attribute)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Tuple):
        return False
    return all(isinstance(n, kinds) for n in ast.walk(statement.value))
