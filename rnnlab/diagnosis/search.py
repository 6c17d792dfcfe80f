"""The search: a mistake is what can be repaired, so every explanation is an edit that was run."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rnnlab.diagnosis.edits import Edit, expression_edits, operand_edits
from rnnlab.diagnosis.formulas import FORMS, bracketed, formulas, scaled
from rnnlab.diagnosis.locate import Correction, directions, pushed_down, recorded, solve, suspects
from rnnlab.diagnosis.operands import integer_operands, operands_at, simple_operands, whole_numbers
from rnnlab.diagnosis.probe import Place, places, scope_place
from rnnlab.diagnosis.source import MOST_CALLS, Source, limited
from rnnlab.diagnosis.statements import copies, line_added, statement_edits, stored_names, sums, updates
from rnnlab.diagnosis.trials import Repair, Trials, is_unpacking
from rnnlab.proof.case import as_array

FACTORS = tuple(FORMS)[:4]
DOUBLE = 1e-9  # what the rounding of double precision leaves
UNKNOWN = "_rnnlab_operand_"  # stands for another operand
# In a comparison of edits each of these counts as so many nodes: a name from another line, a plain number as the scale,
# a line more, a line that only gives names, and a name by itself, whose value comes from another line.
FOREIGN_NAME, PLAIN_NUMBER, AFTERWARDS, UNPACKING, NAME_ALONE = 8, 6, 20, 30, 40
COMPOUND = (ast.For, ast.If, ast.While)


class Search(Trials):
    """Repairs of a backward pass whose claims differ from `exact`."""

    def repair(self) -> Repair | None:
        """An edit that makes every gradient right, or None; then `partial` and `located` say how far it got."""
        self.partial, self.located, self.reached, self.runs = None, None, [], 0
        claimed = self.run([])
        self.claimed = self.wanted.vector({}) if claimed is None else claimed
        for stage in (self._raising,) if claimed is None else (self._whole_lines, self._solved, self._unsolved):
            if found := self.tried(stage()):
                return found
        return None

    def pairs(self, compound: bool | None = None) -> list[tuple[Source, ast.stmt]]:
        every = [(s, statement) for s in self.functions for statement in s.statements]
        return [pair for pair in every if compound is None or isinstance(pair[1], COMPOUND) == compound]

    def edits(self, source: Source, statement: ast.stmt) -> list[Edit]:
        """The small changes of a statement's expressions, found once."""
        if id(statement) not in source.edits:
            source.edits[id(statement)] = list(expression_edits(source, statement, self.constants))
        return source.edits[id(statement)]

    def _raising(self) -> Iterator[Edit]:
        """The backward pass does not come to its end: an array that must not be changed, a name, a shape."""
        yield from (e for pair in self.pairs() for e in statement_edits(*pair) if e.kind == "in place")
        yield from (e for source in self.functions for e in copies(source))
        names = [f"self.{name}" for name in self.case.inputs if name.isidentifier()]
        for pair in self.pairs():
            yield from (*self.edits(*pair), *operand_edits(*pair, names))

    def _whole_lines(self) -> Iterator[Edit]:
        """= for +=, a line too many, a loop that ends early, an update or a sum that is missing."""
        simple, compound = self.pairs(False), self.pairs(True)
        yield from (e for pair in simple for e in statement_edits(*pair))
        returns = [pair for pair in simple if isinstance(pair[1], ast.Return)]
        yield from (e for pair in returns for e in self.edits(*pair) if e.kind == "exchanged")
        yield from (e for pair in compound for e in statement_edits(*pair))
        yield from (e for pair in compound for e in self.edits(*pair))
        loops = [(s, loop, self.scopes(s, loop.body[-1], False)) for s, loop in compound if isinstance(loop, ast.For)]
        yield from (e for source, loop, scopes in loops for e in updates(source, loop, scopes[0]))
        names = self.wanted.names(self.wrong(self.claimed))
        name = names[0] if len(names) == 1 else ""
        claimed, exact = np.asarray(self.claims.get(name, 0.0)), self.exact.get(name, np.zeros(()))
        if claimed.shape == exact.shape != ():  # the line that adds it up may be missing
            for source, loop, scopes in loops:
                yield from sums(source, loop, scopes, claimed, exact - claimed)

    def scopes(self, source: Source, statement: ast.stmt, before: bool = True) -> list[dict[str, Any]]:
        """The local names before (or after) a statement, each time that it runs."""
        place = scope_place(source, statement, before)
        return recorded(self.run, [place], True).scopes[id(place.node)] or [{}]

    def _solved(self) -> Iterator[Edit]:
        """The places of which one change mends everything: edits of their lines, then what the numbers say."""
        self.reached = suspects(self.run, self.functions, self.claimed, self.wrong(self.claimed))
        chosen = [place for place in self.reached if place.reaches_all]
        moves = [d for place in chosen if (d := directions(self.run, place, self.claimed)) is not None]
        solved = [c for d in moves for c in solve(self.run, [d], self.claimed, self.wanted.exact)]
        solved.sort(key=lambda c: (is_unpacking(c.place.statement), not c.sure))
        self.located = min(reversed(solved), key=_unlikely, default=None)
        self.runs = 0
        yield from (edit for c in solved for edit in self.fitting(c))
        yield from (edit for c in solved for edit in self._other_operands(c, ("{}",)))
        lines = {id(c.place.statement): c.place for c in solved}
        yield from (edit for p in lines.values() for edit in self.edits(p.source, p.statement))
        yield from self.suggested([c for c in solved if c.sure])
        yield from self.suggested([c for c in solved if not c.sure])
        yield from (edit for c in solved for edit in self._other_operands(c, FACTORS))

    def fitting(self, correction: Correction) -> Iterator[Edit]:
        """The edits of an expression after which its value fits, computed from the names that it had there."""
        source, statement, node = correction.place.source, correction.place.statement, correction.place.node
        if correction.place.after:
            yield from self.edits(source, statement)
            return
        inside = {id(n) for n in ast.walk(node)}
        for edit in self.edits(source, statement):
            if id(edit.node) in inside and self._fits(correction, _code(edit, node)):
                yield edit

    def _fits(self, correction: Correction, code: Any, operands: Sequence[dict[str, Any]] = ()) -> bool:
        """Whether the gradients would be right with this code in the place of the expression."""
        try:
            scopes = zip(correction.scopes, operands or [{}] * len(correction.scopes), strict=True)
            names = correction.place.source.function.__globals__
            with limited(MOST_CALLS // 100):
                return correction.fits([as_array(eval(code, {**names, **scope, **more})) for scope, more in scopes])
        except Exception:  # an edit may raise anything
            return False

    def _other_operands(self, correction: Correction, forms: Sequence[str]) -> Iterator[Edit]:
        """Another operand from all that has a name there, or (forms) one more factor."""
        if correction.place.after:
            return
        source, statement = correction.place.source, correction.place.statement
        inside = {id(n) for n in ast.walk(correction.place.node)}
        operands = simple_operands(operands_at(source, correction.scopes))
        kind = "another operand" if len(forms) == 1 else "missing factor"
        for template in operand_edits(source, statement, [UNKNOWN], kind):
            if id(template.node) not in inside:
                continue
            code = _code(template, correction.place.node)
            for form, (operand, values) in itertools.product(forms, operands.items()):
                if self._fits(correction, code, [{UNKNOWN: FORMS[form](v)} for v in values]):
                    text = bracketed(form.format(operand))
                    new, term = (part.replace(UNKNOWN, text) for part in (template.text, template.term))
                    yield replace(template, text=new, term=term)

    def _unsolved(self) -> Iterator[Edit]:
        """The lines that reach what is wrong, where the numbers do not say what they should have been."""
        self.runs = 0
        yield from self._positions()
        nearest = sorted(
            self.reached, key=lambda p: (not p.reaches_all, is_unpacking(p.statement), p.disturbs, _is_buffer(p))
        )
        lines = {id(p.statement): p for p in reversed(nearest)}
        lines = dict(reversed(lines.items()))
        yield from (e for p in lines.values() for e in self.edits(p.source, p.statement))
        rest = [pair for pair in self.pairs(False) if id(pair[1]) not in lines]
        yield from (edit for pair in rest for edit in self.edits(*pair))
        if not lines:  # a wrong shape hides what reaches it: another name where the returned names are made
            ends = [statement for _, statement in self.pairs(False) if isinstance(statement, ast.Return)]
            read = {n.id for s in ends for n in ast.walk(s) if isinstance(n, ast.Name)}
            for source, statement in self.pairs(False):
                if statement in ends or read & stored_names(statement):
                    operands = operands_at(source, self.scopes(source, statement)[:1])
                    yield from operand_edits(source, statement, [w for w in operands if w.isidentifier()])
        if self.located is None:
            for p in lines.values():
                scopes = recorded(self.run, [p], True).scopes[id(p.node)]
                names = list(simple_operands(operands_at(p.source, scopes))) if scopes else []
                yield from operand_edits(p.source, p.statement, names)
                factors = [form.format(name) for form in FACTORS for name in names]
                yield from operand_edits(p.source, p.statement, factors, "missing factor")

    def _positions(self) -> Iterator[Edit]:
        """Other whole numbers as an index: another class, another token."""
        for source, statement in self.pairs(False):
            indices = [n.slice for n in ast.walk(statement) if isinstance(n, ast.Subscript)]
            inside = {id(n) for index in indices for n in ast.walk(index)}
            operands = integer_operands(source, self.scopes(source, statement)) if inside else []
            yield from (e for e in operand_edits(source, statement, operands) if id(e.node) in inside)

    def suggested(self, corrections: Sequence[Correction]) -> Iterator[Edit]:
        """The edits that the numbers suggest, the likeliest first, of the last few of these places."""
        rows = [(size, -n, edit) for n, c in enumerate(corrections[-12:]) for size, edit in _suggestions(c)]
        yield from (edit for *_, edit in sorted(rows, key=lambda row: row[:2]))
        yield from (edit for c in corrections if c.sure for edit in self._one_entry(c))

    def _one_entry(self, correction: Correction) -> Iterator[Edit]:
        """A 1 that is not subtracted from the entry of the class (or added to it)."""
        place = correction.place
        if isinstance(place.statement, ast.Assign) and isinstance(place.statement.targets[0], ast.Name):
            name = place.statement.targets[0].id
            for operand in integer_operands(place.source, correction.scopes):
                for index in (operand, f"np.arange(len({operand})), {operand}"):
                    for line in (f"{name}[{index}] -= 1", f"{name}[{index}] += 1"):
                        yield line_added(place.source, place.statement, line)

    def single(self) -> Place | None:
        """The first place whose value is of single precision."""
        every = [place for source in self.functions for place in places(source)]
        probe = recorded(self.run, every)
        return next((p for p in every if any(v.dtype == np.float32 for v in probe.values[id(p.node)])), None)

    def in_double(self, place: Place) -> str | None:
        """The statement of this place without what makes it single."""
        for edit in self.edits(place.source, place.statement):
            claims = self.run([(edit.source, edit.compiled())])
            if claims is not None and np.abs(claims - self.wanted.exact).max() < DOUBLE:
                return edit.mended()
        return None


def _code(edit: Edit, node: ast.expr) -> Any:
    """The expression of a place after an edit in it."""
    try:
        return compile(ast.unparse(edit.of(node)), "", "eval")
    except SyntaxError:  # an edit may be no expression
        return None


def _suggestions(correction: Correction) -> Iterator[tuple[int, Edit]]:
    """(size, edit) for each formula that gives the right value of the expression, or of one of its parts."""
    place = correction.place
    operands, whole = operands_at(place.source, correction.scopes), whole_numbers(correction.scopes)
    for node, claimed, exact in pushed_down(correction):
        known = [
            np.broadcast_to(k, e.shape) if k.size == 1 else k for k, e in zip(correction.known, exact, strict=True)
        ]
        old = ast.unparse(node)
        found = formulas(old, claimed, exact, known, operands, whole)
        if node is place.node and not all(k.all() for k in known):  # sums of its numbers are known, not all of them
            right, now = (correction.seen() @ np.concatenate([np.ravel(v) for v in row]) for row in (exact, claimed))
            found = itertools.chain(found, scaled(old, right, now, whole))
        for text, kind, term in found:
            if place.after:
                edit = _next_line(place, f"{place.text} = {text}")
            else:
                edit = Edit(place.source, place.statement, node, text, kind, old if kind == "another operand" else term)
            yield _size(place, node, text, kind), edit


def _size(place: Place, node: ast.expr, text: str, kind: str) -> int:
    """How many nodes the new expression has, those that stay not counted, and more for what is less likely."""
    new = ast.parse(text, mode="eval").body
    here = {n.id for n in ast.walk(place.statement) if isinstance(n, ast.Name)}
    foreign = {n.id for n in ast.walk(new) if isinstance(n, ast.Name)} - here
    size = sum(1 for _ in ast.walk(new)) + FOREIGN_NAME * len(foreign)
    if kind in ("sign", "scale", "missing factor", "missing term"):
        size -= sum(1 for _ in ast.walk(node))
    size += UNPACKING * is_unpacking(place.statement) + AFTERWARDS * place.after
    return size + NAME_ALONE * isinstance(node, ast.Name) + PLAIN_NUMBER * (kind == "scale" and not foreign)


def _unlikely(correction: Correction) -> tuple[bool, ...]:
    """A place that mends much, where something is computed, is where the mistake is named; of those the last."""
    place = correction.place
    return (not correction.sure, is_unpacking(place.statement), _is_buffer(place), isinstance(place.node, ast.Name))


def _is_buffer(place: Place) -> bool:
    """Whether the statement makes an empty array, which anything may be added to."""
    return "zeros" in ast.unparse(place.statement)


def _next_line(place: Place, line: str) -> Edit:
    """A line more: what a name has to become once its statement has run, or before a pass of a loop reads it."""
    if not isinstance(place.statement, ast.For):
        return line_added(place.source, place.statement, line)
    body = place.statement.body
    reads = [s for s in body if place.text in {n.id for n in ast.walk(s) if isinstance(n, ast.Name)}]
    return line_added(place.source, (reads or body)[0], line, before=True)
