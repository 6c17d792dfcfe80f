"""The search: a mistake is what can be repaired, so every explanation is an edit that was run."""

from __future__ import annotations

import ast
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from rnnlab.case import LOSS, Arrays, Case, derivative
from rnnlab.diagnosis.edits import (
    Edit,
    call_edits,
    copies,
    expression_edits,
    factor_edits,
    operand_edits,
    slots,
    statement_edits,
    term_edits,
    updates,
)
from rnnlab.diagnosis.locate import SAME, Target, directions, pushed_down, recorded, suspects, targets
from rnnlab.diagnosis.probe import PROBE, Place, Probe, instrumented, look, places
from rnnlab.diagnosis.source import Source, running
from rnnlab.diagnosis.terms import (
    FORMS,
    Values,
    bracketed,
    counts,
    formed,
    guesses,
    plain_words,
    readings,
    vocabulary,
    whole_words,
)
from rnnlab.diagnosis.words import sentence
from rnnlab.ops import Array

SHARE = 0.08  # of the wrong numbers that an edit has to mend, to be one mistake of several
MOST_RUNS = 3000  # of the learner's code in one search: a number of runs, so that the answer is the same everywhere
GIVES_NAMES = ("exchanged", "another operand", "index", "left out", "missing term")  # wrong in `h, c = prev`
DOUBLE = 1e-9  # what the rounding of double precision leaves
MOST_PAIRS = 6  # of places that are looked at closely
FLOOR = 1e-5  # an array is measured against at least this share of the largest gradient
UNKNOWN = "_rnnlab_word_"  # stands for another operand
HEADS = (ast.For, ast.If, ast.While)


@dataclass
class Repair:
    """An edit after which the gradients are right: all of them, or (`left` > 0) more than before."""

    edit: Edit
    text: str
    mended: str
    what: str
    left: int

    @classmethod
    def of(cls, edit: Edit, left: int = 0) -> Repair:
        """With its words, which are found before the edit is kept."""
        return cls(edit, edit.source.text(edit.statement), edit.mended(), sentence(edit), left)


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


class Search:
    """Repairs of a backward pass whose claims differ from `exact`."""

    def __init__(
        self, case: Case, exact: Arrays, functions: Sequence[Source], fresh: Fresh, scale: float = 1.0
    ) -> None:
        self.case, self.goal, self.functions, self.fresh, self.scale = case, Goal(exact), functions, fresh, scale
        self.exact = exact
        self.current: dict[int, tuple[Source, Any]] = {}
        self.runs = 0
        self.claims: Arrays = {}
        self.record: Any = None
        self.record = self._reusable()
        self.claimed = self.goal.vector({})
        self.partial: Repair | None = None
        self.located: Target | None = None
        self.reached: list[Place] = []
        trees = [n for s in functions for n in ast.walk(s.tree)]
        numbers = {ast.unparse(n) for n in trees if isinstance(n, ast.Constant) and type(n.value) in (int, float)}
        self.constants = sorted(numbers | {"0", "1"})

    # ---- running -------------------------------------------------------------------------------

    def _reusable(self) -> Any:
        """One record of the forward pass for all runs; None where a backward pass uses it up."""
        with contextlib.suppress(Exception):
            self.record = record = self.case.record()
            _freeze(record)  # no edit may spoil it for the next one
            self.claims = {n: np.array(g) / self.scale for n, g in self.case.back(record, self.scale).items()}
            first, second = self.goal.vector(self.claims), self.run([])
            if second is not None and np.array_equal(first, second):
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
                record = self.case.record() if self.record is None else self.record
                with running(list(every.values()), names):
                    claims = self.case.back(record, self.scale)
                return self.goal.vector({name: np.asarray(g) / self.scale for name, g in claims.items()})
        except Exception:  # an edit may raise anything
            return None

    def wrong(self, claims: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(~(np.abs(claims - self.goal.exact) <= SAME))

    def tried(self, edits: Iterable[Edit], most: int = MOST_RUNS) -> Repair | None:
        """The first of so many edits after which everything is right, here and on fresh numbers."""
        before, start = self.wrong(self.claimed), self.runs
        enough = (1 - SHARE) * before.sum()
        for edit in edits:
            if self.runs > start + most or self.runs > MOST_RUNS:
                return None
            if is_unpacking(edit.statement) and edit.kind not in GIVES_NAMES:
                continue
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
                    if self.fresh.right(self.goal.shapes):
                        return Repair.of(edit)
            elif not (wrong & ~before).any() and left < (self.partial.left if self.partial else enough):
                self.partial = Repair.of(edit, left)
        return None

    def accept(self, edit: Edit) -> None:
        """Keep an edit, and look for the next mistake with it in place."""
        edit.keep()
        self.current[id(edit.source)] = (edit.source, edit.source.compiled(edit.source.tree))

    # ---- one mistake ---------------------------------------------------------------------------

    def repair(self) -> Repair | None:
        """An edit that makes every gradient right, or None; then `partial` and `located` say how far it got."""
        self.partial, self.located, self.reached, self.runs = None, None, [], 0
        claimed = self.run([])
        self.claimed = self.goal.vector({}) if claimed is None else claimed
        for stage in (self._raising,) if claimed is None else (self._whole_lines, self._solved, self._unsolved):
            if found := self.tried(stage()):
                return found
        return None

    def _pairs(self, heads: bool | None = None) -> list[tuple[Source, ast.stmt]]:
        every = [(s, statement) for s in self.functions for statement in s.statements]
        return [pair for pair in every if heads is None or isinstance(pair[1], HEADS) == heads]

    def _raising(self) -> Iterator[Edit]:
        """The backward pass does not come to its end: an array that must not be changed, a name, a shape."""
        yield from (e for pair in self._pairs() for e in statement_edits(*pair) if e.kind == "in place")
        yield from (e for source in self.functions for e in copies(source))
        names = [f"self.{name}" for name in self.case.inputs if name.isidentifier()]
        for pair in self._pairs():
            yield from (*expression_edits(*pair), *operand_edits(*pair, names))

    def _whole_lines(self) -> Iterator[Edit]:
        """= for +=, a line too many, a loop that ends early, an update that is missing."""
        for heads in (False, True):
            yield from (e for pair in self._pairs(heads) for e in statement_edits(*pair))
            if heads:
                yield from (e for pair in self._pairs(True) for e in expression_edits(*pair, self.constants))
            else:
                returns = [pair for pair in self._pairs(False) if isinstance(pair[1], ast.Return)]
                yield from (e for pair in returns for e in expression_edits(*pair) if e.kind == "exchanged")
        for source, loop in self._pairs(True):
            if isinstance(loop, ast.For):
                space = self._names(look(source, loop.body[-1], before=False))
                words = {w: v[0] for w, v in plain_words(vocabulary(source, [space])).items()}
                yield from updates(source, loop, words)

    def _names(self, place: Place) -> dict[str, Any]:
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
        yield from (edit for aim in aims for edit in self._fitting(aim))
        yield from (edit for aim in aims for edit in self._other_words(aim, ("{}",)))
        yield from self._read([aim for aim in aims if aim.sure])
        yield from self._read([aim for aim in aims if not aim.sure])
        yield from (edit for aim in aims for edit in self._other_words(aim, FORMS[:4]))

    def _fitting(self, aim: Target) -> Iterator[Edit]:
        """The edits of an expression after which its value fits, computed from the names that it had there."""
        source, statement, node = aim.place.source, aim.place.statement, aim.place.node
        if aim.place.after:
            yield from expression_edits(source, statement, self.constants)
            return
        inside = {id(n) for n in ast.walk(node)}
        for edit in expression_edits(source, statement, self.constants):
            if id(edit.node) in inside:
                with edit.made():
                    code = self._code(aim)
                if self._fits(aim, code):
                    yield edit

    def _code(self, aim: Target) -> Any:
        """The place's expression as the tree reads now."""
        parent, name, index = slots(aim.place.source)[id(aim.place.node)]
        new = getattr(parent, name) if index is None else getattr(parent, name)[index]
        return compile(ast.fix_missing_locations(ast.Expression(_copied(new))), "", "eval")

    def _fits(self, aim: Target, code: Any, words: Sequence[dict[str, Any]] = ()) -> bool:
        """Whether the gradients would be right with this code in the place of the expression."""
        try:
            spaces = zip(aim.spaces, words or [{}] * len(aim.spaces), strict=True)
            names = aim.place.source.function.__globals__
            return aim.fits([eval(code, {**names, **space, **more}) for space, more in spaces])
        except Exception:  # an edit may raise anything
            return False

    def _other_words(self, aim: Target, forms: Sequence[str]) -> Iterator[Edit]:
        """Another operand from all that has a name there, or (forms) one more factor."""
        if aim.place.after:
            return
        source, statement, inside = aim.place.source, aim.place.statement, {id(n) for n in ast.walk(aim.place.node)}
        words = plain_words(vocabulary(source, aim.spaces))
        edits = operand_edits if len(forms) == 1 else factor_edits
        for hole in edits(source, statement, [UNKNOWN]):
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
        yield from operand_edits(place.source, place.statement, texts)
        yield from factor_edits(place.source, place.statement, [f.format(w) for f in FORMS[:4] for w in texts])

    def _unsolved(self) -> Iterator[Edit]:
        """The lines that reach what is wrong, where the numbers do not say what they should have been."""
        self.runs = 0
        nearest = sorted(self.reached, key=lambda p: (not p.all, is_unpacking(p.statement), p.disturbs, _is_buffer(p)))
        lines = {id(p.statement): p for p in reversed(nearest)}
        lines = dict(reversed(lines.items()))
        yield from (e for p in lines.values() for e in expression_edits(p.source, p.statement, self.constants))
        rest = [pair for pair in self._pairs(False) if id(pair[1]) not in lines]
        yield from (edit for pair in rest for edit in expression_edits(*pair, self.constants))
        if self.located is None:
            for p in lines.values():
                spaces = recorded(self.run, [p], True).spaces[id(p.node)]
                yield from self._reworded(p, vocabulary(p.source, spaces)) if spaces else ()

    def _read(self, aims: Sequence[Target]) -> Iterator[Edit]:
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
                    found_here = itertools.chain(found_here, guesses(*given, aim.seen(), words, whole))
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
        for edit in expression_edits(place.source, place.statement):
            claims = self.run([(edit.source, edit.compiled())])
            if claims is not None and np.abs(claims - self.goal.exact).max() < DOUBLE:
                return edit.mended()
        return None

    # ---- several, and forward passes -----------------------------------------------------------

    def two(self) -> None:
        """Two places that together make everything right; then `partial` mends one of them."""
        wrong = self.wrong(self.claimed)
        self.runs = solved = 0
        reached = self.reached or suspects(self.run, self.functions, self.claimed, wrong)
        moves = [d for place in reached if (d := directions(self.run, place, self.claimed)) is not None]
        for pair in itertools.combinations(moves, 2):
            if pair[0].place.statement is not pair[1].place.statement:
                aims = targets(self.run, pair, self.claimed, self.goal.exact)
                solved += bool(aims)
                for aim in aims:
                    self.located = self.located or aim
                    self.tried(itertools.chain(self._fitting(aim), self._read([aim])), 100)
                if self.partial is not None or solved == MOST_PAIRS:
                    return

    def forward(self) -> Repair | None:
        """What a forward pass lacks: an activation, a term."""
        self.runs = 0
        rows = []
        for source, statement in self._pairs(False):
            words = vocabulary(source, [self._names(look(source, statement))])
            rows.append((source, statement, list(plain_words(words))))
        functions = ("np.tanh", "sigmoid", "relu", "rl.ops.sigmoid", "rl.ops.relu")
        calls = (e for source, statement, _ in rows for e in call_edits(source, statement, functions, wrap=True))
        terms = (
            e
            for source, statement, words in rows
            for e in term_edits(
                source, statement, [f"{a} @ {b}" for a in words for b in words if b.startswith("self.")] + words
            )
        )
        return self.tried(calls) or self.tried(terms)


def _copied(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


def _freeze(thing: Any, depth: int = 6) -> None:
    """Every array within is read-only from here on."""
    if isinstance(thing, np.ndarray):
        thing.flags.writeable = False
    elif depth and isinstance(thing, tuple | list | dict):
        for element in thing.values() if isinstance(thing, dict) else thing:
            _freeze(element, depth - 1)
    elif depth and hasattr(thing, "__dict__") and not callable(thing):
        _freeze(vars(thing), depth - 1)


def is_unpacking(statement: ast.stmt) -> bool:
    """Whether a statement only gives names to what is there."""
    kinds = (ast.Tuple, ast.Name, ast.expr_context, ast.Subscript, ast.Constant, ast.Attribute)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Tuple):
        return False
    return all(isinstance(n, kinds) for n in ast.walk(statement.value))


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
        first = statement.body[0]
        return Edit(place.source, first, first, f"{line}\n{ast.unparse(first)}", "missing line", line)
    return Edit(place.source, statement, statement, f"{ast.unparse(statement)}\n{line}", "missing line", line)


def all_repairs(search: Search, most: int) -> tuple[list[Repair], bool]:
    """One edit after another until everything is right, and whether it is."""
    found: list[Repair] = []
    while len(found) < most:
        repair = search.repair() or search.partial
        if repair is None:
            search.two()
            repair = search.partial
        if repair is None:
            return found, False
        found.append(repair)
        search.accept(repair.edit)
        if not repair.left:
            return found, True
    return found, False


def forward_repair(
    case: Case, functions: Sequence[Source], method: str, wrong: Sequence[str], factors: bool
) -> Repair | None:
    """An edit of the forward pass after which the backward pass, as it is, gives the right gradients.

    With `factors` it may be a factor too, where the backward pass is not the learner's own.
    """
    if not functions:
        return None
    rng = np.random.default_rng(1)
    names = [name for name in (*wrong, *case.inputs) if not name.startswith("states[") or name == "states[0]"]
    fresh, reaching = case.remake(rng, False) if case.remake else case, case.claims()

    def agrees(case: Case) -> bool:
        claims = case.claims()
        for name in names:
            direction = rng.normal(size=case.inputs[name].shape)
            number = derivative(partial(case.loss, name), case.inputs[name], direction, method)
            if case is not fresh and np.count_nonzero(claims[name]) != np.count_nonzero(reaching[name]):
                return False  # less is compared than before
            parts = direction * claims[name]
            if not abs(float(parts.sum()) - number) <= 10 * SAME * max(abs(number), float(np.abs(parts).sum())):
                return False
        return True

    def edits() -> Iterator[Edit]:
        rows = [(source, statement) for source in functions for statement in source.statements]
        calls = {n.func.id for s in functions for n in ast.walk(s.tree) if _calls_a_name(n)}  # type: ignore[attr-defined]
        known = sorted(calls | {"sigmoid", "np.tanh"})
        yield from (edit for row in rows for edit in call_edits(*row, known))
        yield from (e for row in rows for e in expression_edits(*row) if e.kind in ("exchanged", "operator"))
        for source, statement in rows:
            place, probe = look(source, statement), Probe()
            with running([instrumented(source, [place], local_names=True)], {PROBE: probe}):
                case.record()
            for space in probe.spaces[id(place.node)][:1]:
                words = plain_words(vocabulary(source, [space]))
                yield from operand_edits(source, statement, words)
                yield from factor_edits(source, statement, words if factors else ())

    for edit in itertools.islice(edits(), MOST_RUNS // 2):
        with contextlib.suppress(Exception), running([(edit.source, edit.compiled())]):  # an edit may raise anything
            if agrees(case) and agrees(fresh):
                return Repair.of(edit)
    return None


def _calls_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1
