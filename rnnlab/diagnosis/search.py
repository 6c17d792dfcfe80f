"""The search: a mistake is what can be repaired, so every explanation is an edit that was run."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rnnlab.case import as_array
from rnnlab.diagnosis.bench import Bench, Repair, is_unpacking
from rnnlab.diagnosis.edits import Edit, expression_edits, slots, word_edits
from rnnlab.diagnosis.locate import Target, directions, pushed_down, recorded, suspects, targets
from rnnlab.diagnosis.probe import Place, look, places
from rnnlab.diagnosis.source import MOST_CALLS, Source, limited
from rnnlab.diagnosis.statements import added_line, copies, statement_edits, stored_names, updates
from rnnlab.diagnosis.terms import FORMS, added_up, bracketed, formed, readings, scaled
from rnnlab.diagnosis.vocabulary import Values, counts, plain_words, vocabulary, whole_words

DOUBLE = 1e-9  # what the rounding of double precision leaves
UNKNOWN = "_rnnlab_word_"  # stands for another operand
HEADS = (ast.For, ast.If, ast.While)


class Search(Bench):
    """Repairs of a backward pass whose claims differ from `exact`."""

    def repair(self) -> Repair | None:
        """An edit that makes every gradient right, or None; then `partial` and `located` say how far it got."""
        self.partial, self.located, self.reached, self.runs = None, None, [], 0
        claimed = self.run([])
        self.claimed = self.goal.vector({}) if claimed is None else claimed
        for stage in (self._raising,) if claimed is None else (self._whole_lines, self._solved, self._unsolved):
            if found := self.tried(stage()):
                return found
        return None

    def pairs(self, heads: bool | None = None) -> list[tuple[Source, ast.stmt]]:
        every = [(s, statement) for s in self.functions for statement in s.statements]
        return [pair for pair in every if heads is None or isinstance(pair[1], HEADS) == heads]

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
            yield from (*self.edits(*pair), *word_edits(*pair, names))

    def _whole_lines(self) -> Iterator[Edit]:
        """= for +=, a line too many, a loop that ends early, an update that is missing."""
        for heads in (False, True):
            yield from (e for pair in self.pairs(heads) for e in statement_edits(*pair))
            if heads:
                yield from (e for pair in self.pairs(True) for e in self.edits(*pair))
            else:
                returns = [pair for pair in self.pairs(False) if isinstance(pair[1], ast.Return)]
                yield from (e for pair in returns for e in self.edits(*pair) if e.kind == "exchanged")
        for source, loop in self.pairs(True):
            if isinstance(loop, ast.For):
                space = self.names(look(source, loop.body[-1], before=False))
                every = vocabulary(source, [space])
                plain = plain_words(every)
                words = {w: v[0] for w, v in every.items() if w.isidentifier() or w in plain}
                words |= {w: np.zeros(()) for w, v in space.items() if type(v) in (int, float) and v == 0}
                yield from updates(source, loop, words)
        yield from self._sums()

    def _sums(self) -> Iterator[Edit]:
        """The line that adds up one gradient in a loop, where only that gradient is wrong."""
        name = next(iter(self.goal.names(self.wrong(self.claimed))), "")
        claimed, exact = np.asarray(self.claims.get(name, 0.0)), self.exact.get(name, np.zeros(()))
        if len(self.goal.names(self.wrong(self.claimed))) > 1 or claimed.shape != exact.shape or not claimed.shape:
            return
        for source, loop in self.pairs(True):
            if isinstance(loop, ast.For):
                place = look(source, loop.body[-1], before=False)
                spaces = recorded(self.run, [place], True).spaces[id(place.node)]
                words = vocabulary(source, spaces) if spaces else {}
                plain, lack = plain_words(words), np.squeeze(exact - claimed)
                same = [w for w, v in words.items() if np.squeeze(v[-1]).shape == lack.shape]
                for total in [w for w in same if np.allclose(np.squeeze(words[w][-1]), np.squeeze(claimed))][:3]:
                    for form in added_up(lack.reshape(words[total][-1].shape), plain):
                        yield added_line(source, loop, f"{total} += {form}")

    def names(self, place: Place) -> dict[str, Any]:
        """The local names at a place, the first time."""
        return next(iter(recorded(self.run, [place], True).spaces[id(place.node)]), {})

    def _solved(self) -> Iterator[Edit]:
        """The places of which one change mends everything: edits of their lines, then what the numbers say."""
        self.reached = suspects(self.run, self.functions, self.claimed, self.wrong(self.claimed))
        chosen = [place for place in self.reached if place.all]
        moves = [d for place in chosen if (d := directions(self.run, place, self.claimed)) is not None]
        aims = [aim for d in moves for aim in targets(self.run, [d], self.claimed, self.goal.exact)]
        aims.sort(key=lambda aim: (is_unpacking(aim.place.statement), not aim.sure))
        self.located = min(reversed(aims), key=_unlikely, default=None)
        self.runs = 0
        yield from (edit for aim in aims for edit in self.fitting(aim))
        yield from (edit for aim in aims for edit in self._other_words(aim, ("{}",)))
        lines = {id(aim.place.statement): aim.place for aim in aims}
        yield from (edit for p in lines.values() for edit in self.edits(p.source, p.statement))
        yield from self.read([aim for aim in aims if aim.sure])
        yield from self.read([aim for aim in aims if not aim.sure])
        yield from (edit for aim in aims for edit in self._other_words(aim, FORMS[:4]))

    def fitting(self, aim: Target) -> Iterator[Edit]:
        """The edits of an expression after which its value fits, computed from the names that it had there."""
        source, statement, node = aim.place.source, aim.place.statement, aim.place.node
        if aim.place.after:
            yield from self.edits(source, statement)
            return
        inside = {id(n) for n in ast.walk(node)}
        for edit in self.edits(source, statement):
            if id(edit.node) in inside:
                with edit.made():
                    code = self._code(aim)
                if self._fits(aim, code):
                    yield edit

    def _code(self, aim: Target) -> Any:
        """The place's expression as the tree reads now."""
        parent, name, index = slots(aim.place.source)[id(aim.place.node)]
        new = getattr(parent, name) if index is None else getattr(parent, name)[index]
        try:
            return compile(ast.unparse(new), "", "eval")
        except SyntaxError:  # an edit may be no expression
            return None

    def _fits(self, aim: Target, code: Any, words: Sequence[dict[str, Any]] = ()) -> bool:
        """Whether the gradients would be right with this code in the place of the expression."""
        try:
            spaces = zip(aim.spaces, words or [{}] * len(aim.spaces), strict=True)
            names = aim.place.source.function.__globals__
            with limited(MOST_CALLS // 100):
                return aim.fits([as_array(eval(code, {**names, **space, **more})) for space, more in spaces])
        except Exception:  # an edit may raise anything
            return False

    def _other_words(self, aim: Target, forms: Sequence[str]) -> Iterator[Edit]:
        """Another operand from all that has a name there, or (forms) one more factor."""
        if aim.place.after:
            return
        source, statement, inside = aim.place.source, aim.place.statement, {id(n) for n in ast.walk(aim.place.node)}
        words = plain_words(vocabulary(source, aim.spaces))
        kind = "another operand" if len(forms) == 1 else "missing factor"
        for hole in word_edits(source, statement, [UNKNOWN], kind):
            if id(hole.node) not in inside:
                continue
            with hole.made():
                code = self._code(aim)
            for form, (word, values) in itertools.product(forms, words.items()):
                if self._fits(aim, code, [{UNKNOWN: formed(form, v)} for v in values]):
                    text = bracketed(form.format(word))
                    new, term = (part.replace(UNKNOWN, text) for part in (hole.text, hole.term))
                    yield replace(hole, text=new, term=term)

    def _reworded(self, place: Place, words: Values) -> Iterator[Edit]:
        """Other operands and one more factor, from all that has a name there."""
        texts = list(plain_words(words))
        yield from word_edits(place.source, place.statement, texts)
        forms = [f.format(w) for f in FORMS[:4] for w in texts]
        yield from word_edits(place.source, place.statement, forms, "missing factor")

    def _unsolved(self) -> Iterator[Edit]:
        """The lines that reach what is wrong, where the numbers do not say what they should have been."""
        self.runs = 0
        yield from self._positions()
        nearest = sorted(self.reached, key=lambda p: (not p.all, is_unpacking(p.statement), p.disturbs, _is_buffer(p)))
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
                    words = vocabulary(source, [self.names(look(source, statement))])
                    yield from word_edits(source, statement, [w for w in words if w.isidentifier()])
        if self.located is None:
            for p in lines.values():
                spaces = recorded(self.run, [p], True).spaces[id(p.node)]
                yield from self._reworded(p, vocabulary(p.source, spaces)) if spaces else ()

    def _positions(self) -> Iterator[Edit]:
        """Other whole numbers as an index: another class, another token."""
        for source, statement in self.pairs(False):
            indices = [n.slice for n in ast.walk(statement) if isinstance(n, ast.Subscript)]
            inside = {id(n) for index in indices for n in ast.walk(index)}
            words = whole_words(source, self.names(look(source, statement))) if inside else []
            yield from (e for e in word_edits(source, statement, words) if id(e.node) in inside)

    def read(self, aims: Sequence[Target]) -> Iterator[Edit]:
        """The edits that the numbers suggest: of an expression that is wrong, or of one of its parts.

        The shortest come first, and those that take their names from the line itself.
        """
        found: list[tuple[int, int, int, Edit]] = []
        for n, aim in enumerate(aims[-12:]):
            source, statement, after = aim.place.source, aim.place.statement, aim.place.after
            words, whole = vocabulary(source, aim.spaces), counts(aim.spaces)
            here = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
            for node, claimed, exact in pushed_down(aim):
                known = [
                    np.broadcast_to(k, e.shape) if k.size == 1 else k for k, e in zip(aim.known, exact, strict=True)
                ]
                given = ast.unparse(node), claimed, exact
                found_here = readings(*given, known, words, whole)
                if node is aim.place.node and not all(k.all() for k in known):
                    goal, have = (aim.seen() @ np.concatenate([np.ravel(v) for v in row]) for row in (exact, claimed))
                    found_here = itertools.chain(found_here, scaled(given[0], goal, have, whole))
                for text, kind, term in found_here:
                    new = ast.parse(text, mode="eval").body
                    foreign = {n.id for n in ast.walk(new) if isinstance(n, ast.Name)} - here
                    size = sum(1 for _ in ast.walk(new)) + 8 * len(foreign)
                    if kind in ("sign", "scale", "missing factor", "missing term"):  # what is there stays
                        size -= sum(1 for _ in ast.walk(node))
                    name = isinstance(node, ast.Name)  # its line is another one
                    size += (
                        30 * is_unpacking(statement) + 20 * after + 40 * name + 6 * (kind == "scale" and not foreign)
                    )
                    edit = _next_line(aim.place, text) if after else Edit(source, statement, node, text, kind, term)
                    edit.term = ast.unparse(node) if kind == "another operand" and not after else edit.term
                    found.append((size, -n, len(found), edit))
        yield from (edit for *_, edit in sorted(found, key=lambda row: row[:3]))
        yield from (edit for aim in aims if aim.sure for edit in self._one_entry(aim))

    def _one_entry(self, aim: Target) -> Iterator[Edit]:
        """A 1 that is not subtracted from the entry of the class (or added to it)."""
        place = aim.place
        if isinstance(place.statement, ast.Assign) and isinstance(place.statement.targets[0], ast.Name):
            name = place.statement.targets[0].id
            for word in whole_words(place.source, aim.spaces[0]):
                for index in (word, f"np.arange(len({word})), {word}"):
                    for line in (f"{name}[{index}] -= 1", f"{name}[{index}] += 1"):
                        text = f"{ast.unparse(place.statement)}\n{line}"
                        yield Edit(place.source, place.statement, place.statement, text, "missing line", line)

    def single(self) -> Place | None:
        """The first place whose value is of single precision."""
        every = [place for source in self.functions for place in places(source)]
        probe = recorded(self.run, every)
        return next((p for p in every if id(p.node) == probe.single), None)

    def in_double(self, place: Place) -> str | None:
        """The statement of this place without what makes it single."""
        for edit in self.edits(place.source, place.statement):
            claims = self.run([(edit.source, edit.compiled())])
            if claims is not None and np.abs(claims - self.goal.exact).max() < DOUBLE:
                return edit.mended()
        return None


def _unlikely(aim: Target) -> tuple[bool, ...]:
    """A place that mends much, where something is computed, is where the mistake is named; of those the last."""
    place = aim.place
    return (not aim.sure, is_unpacking(place.statement), _is_buffer(place), isinstance(place.node, ast.Name))


def _is_buffer(place: Place) -> bool:
    """Whether the statement makes an empty array, which anything may be added to."""
    return "zeros" in ast.unparse(place.statement)


def _next_line(place: Place, text: str) -> Edit:
    """A line more: what a name has to become once its statement has run."""
    line, statement = f"{place.text} = {text}", place.statement
    if isinstance(statement, ast.For):
        reads = [s for s in statement.body if place.text in {n.id for n in ast.walk(s) if isinstance(n, ast.Name)}]
        first = (reads or statement.body)[0]
        return Edit(place.source, first, first, f"{line}\n{ast.unparse(first)}", "missing line", line)
    return Edit(place.source, statement, statement, f"{ast.unparse(statement)}\n{line}", "missing line", line)
