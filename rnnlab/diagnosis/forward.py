"""Repairs of a forward pass: one that does not belong to its backward pass, or differs from a reference."""

from __future__ import annotations

import ast
import contextlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from rnnlab.diagnosis.edits import Edit, call_edits, expression_edits, operand_edits
from rnnlab.diagnosis.operands import operands_at, simple_operands
from rnnlab.diagnosis.probe import PROBE, Probe, instrumented, scope_place
from rnnlab.diagnosis.search import Search
from rnnlab.diagnosis.source import Source, running
from rnnlab.diagnosis.trials import MOST_RUNS, Repair
from rnnlab.diagnosis.wanted import SAME
from rnnlab.proof.case import Case
from rnnlab.proof.exact import agrees, derivative


def missing_repair(search: Search) -> Repair | None:
    """What a forward pass lacks beside its reference: an activation, a term."""
    search.runs = 0
    rows = []
    for source, statement in search.pairs(False):
        operands = operands_at(source, search.scopes(source, statement)[:1])
        rows.append((source, statement, list(simple_operands(operands))))
    functions = ("np.tanh", "sigmoid", "relu", "rl.ops.sigmoid", "rl.ops.relu")
    calls = (e for source, statement, _ in rows for e in call_edits(source, statement, functions, wrap=True))
    terms = (
        edit
        for source, statement, operands in rows
        for edit in operand_edits(source, statement, [*_products(operands), *operands], "missing term")
    )
    return search.tried(calls) or search.tried(terms)


def _products(operands: Sequence[str]) -> list[str]:
    return [f"{a} @ {b}" for a in operands for b in operands if b.startswith("self.")]


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

    def right(case: Case) -> bool:
        claims = case.claims()
        for name in names:
            direction = rng.normal(size=case.inputs[name].shape)
            number = derivative(partial(case.loss, name), case.inputs[name], direction, method)
            if case is not fresh and np.count_nonzero(claims[name]) != np.count_nonzero(reaching[name]):
                return False  # less is compared than before
            if not agrees(claims[name], direction, number, 10 * SAME):
                return False
        return True

    def edits() -> Iterator[Edit]:
        rows = [(source, statement) for source in functions for statement in source.statements]
        calls = {n.func.id for s in functions for n in ast.walk(s.tree) if _calls_a_name(n)}  # type: ignore[attr-defined]
        known = sorted(calls | {"sigmoid", "np.tanh"})
        yield from (edit for row in rows for edit in call_edits(*row, known))
        small = [e for row in rows for e in expression_edits(*row) if "> 0" not in e.text]
        yield from (e for e in small if e.kind in ("exchanged", "left out"))
        for source, statement in rows:
            place, probe = scope_place(source, statement), Probe()
            with running([instrumented(source, [place], local_names=True)], {PROBE: probe}):
                case.record()
            for scope in probe.scopes[id(place.node)][:1]:
                operands = simple_operands(operands_at(source, [scope]))
                yield from operand_edits(source, statement, operands)
                yield from operand_edits(source, statement, operands if factors else (), "missing factor")
        yield from (e for e in small if e.kind in ("operator", "sign"))

    for edit in itertools.islice(edits(), MOST_RUNS):
        with contextlib.suppress(Exception), running([(edit.source, edit.compiled())]):  # an edit may raise anything
            if right(case) and right(fresh):
                return Repair.of(edit)
    return None


def _calls_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1
