"""Edits of whole lines: = for +=, a line too many or missing, an update that is missing at the end of a loop."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from rnnlab.diagnosis.edits import Edit
from rnnlab.diagnosis.formulas import added_up
from rnnlab.diagnosis.operands import operands_at, simple_operands
from rnnlab.diagnosis.rules import OPERATORS, is_stored
from rnnlab.diagnosis.source import Source
from rnnlab.ops import Array


def statement_edits(source: Source, statement: ast.stmt) -> Iterator[Edit]:
    """= for += and back, another sign, a fresh array in place of a changed one, the statement left out."""
    simple = isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr)
    found: list[tuple[str, str, str]] = []
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name | ast.Subscript):
        target, value = ast.unparse(statement.targets[0]), ast.unparse(statement.value)
        found += [("+= for =", f"{target} {text}", "") for text in (f"+= {value}", f"= {target} + {value}")]
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Tuple):
        values = [ast.unparse(v) for v in statement.value.elts]
        names, left = [ast.unparse(t) for t in _stores(statement)], ast.unparse(statement.targets[0])
        for n, (name, value) in enumerate(zip(names, values, strict=False)):
            row = [*values[:n], f"{name} + {value}", *values[n + 1 :]]
            found.append(("+= for =", f"{left} = {', '.join(row)}", ""))
    if isinstance(statement, ast.AugAssign):
        target, value = ast.unparse(statement.target), ast.unparse(statement.value)
        sign = OPERATORS.get(type(statement.op), "+")
        found += [("= for +=", f"{target} = {value}", ""), ("in place", f"{target} = {target} {sign} ({value})", "")]
        if isinstance(statement.target, ast.Subscript) and sign == "+":
            array, index = ast.unparse(statement.target.value), ast.unparse(statement.target.slice)
            found.append(("repeated index", f"np.add.at({array}, ({index}), {value})", index))
        found += [("sign", f"{target} {other}= {value}", "") for other in "+-" if other != sign and sign in "+-"]
    body = [s for part in ("body", "orelse") for s in getattr(statement, part, [])]
    plain = all(isinstance(s, ast.Assign | ast.AugAssign | ast.Expr) for s in body)
    if simple or (isinstance(statement, ast.For | ast.If) and plain and not getattr(statement, "orelse", None)):
        found.append(("line to remove", "", ast.unparse(statement)))
    if isinstance(statement, ast.For):
        within = {n.id for n in ast.walk(statement.target) if isinstance(n, ast.Name)}
        sums = [s for s in body if isinstance(s, ast.AugAssign) and isinstance(s.op, ast.Add)]
        for total in sums:  # that stand still while the loop runs
            if not within & {n.id for n in ast.walk(total.target) if isinstance(n, ast.Name)}:
                yield line_added(source, statement, f"{ast.unparse(total.target)} = 0", before=True)
    if isinstance(statement, ast.If):
        found.append(("branch", "\n".join(map(ast.unparse, statement.body)), ""))
    yield from (Edit(source, statement, statement, text, kind, term) for kind, text, term in found)


def copies(source: Source) -> Iterator[Edit]:
    """A copy of an argument at the beginning, for a function that changes it."""
    first = source.tree.body[0]
    for argument in source.tree.args.args:
        if argument.arg != "self":
            lines = f"{argument.arg} = {argument.arg}.copy()\n{ast.unparse(first)}"
            yield Edit(source, first, first, lines, "argument", argument.arg)


def updates(source: Source, loop: ast.For, scope: Mapping[str, Any]) -> Iterator[Edit]:
    """An update that is missing at the end of a loop: `carried = new`, first of names that the loop only reads.

    Only what has the shape of the old value can take its place, or anything where that is still the number 0.
    """
    every = operands_at(source, [scope])
    plain = simple_operands(every)
    shapes = {w: v[0].shape for w, v in every.items() if w.isidentifier() or w in plain}
    shapes |= {w: () for w, v in scope.items() if type(v) in (int, float) and v == 0}
    names = [n for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Name)]
    stored, read = ({n.id for n in names if isinstance(n.ctx, kind)} for kind in (ast.Store, ast.Load))
    carried = sorted((n for n in shapes if n in read), key=lambda n: (n in stored, n))
    new = sorted(shapes, key=lambda w: (w in read, w not in stored, len(w), w))
    pairs = [(a, b) for a in carried for b in new if a != b and shapes[a] in ((), shapes[b])]
    pairs = [(a, b) for a, b in pairs if a not in stored or b in stored]
    loose = [(a, b) for a, b in pairs if a not in stored and b in stored - read]
    both = [(f"{a}, {c}", f"{b}, {d}") for (a, b), (c, d) in permutations(loose, 2) if a < c and b != d]
    for a, b in (*both[:20], *pairs):
        makers = [n for n, s in enumerate(loop.body) if {b, b.partition("[")[0]} & {ast.unparse(t) for t in _stores(s)}]
        reads = [n for n, s in enumerate(loop.body) for x in ast.walk(s) if isinstance(x, ast.Name) and x.id == a]
        at = loop.body[makers[-1] if makers and makers[-1] >= max(reads, default=0) else -1]
        yield line_added(source, at, f"{a} = {b}", "missing update")


def sums(
    source: Source, loop: ast.For, scopes: Sequence[Mapping[str, Any]], claimed: Array, lack: Array
) -> Iterator[Edit]:
    """A sum that is missing in a loop: `total += form`, of what is claimed and of what adds up to what it lacks.

    It stands beside the loop's other sums, unless a name changes after them; then at the end.
    """
    operands = operands_at(source, scopes)
    totals = [w for w, v in operands.items() if np.squeeze(v[-1]).shape == np.squeeze(claimed).shape]
    for total in [w for w in totals if np.allclose(np.squeeze(operands[w][-1]), np.squeeze(claimed))][:3]:
        for form in added_up(lack.reshape(operands[total][-1].shape), simple_operands(operands)):
            line = f"{total} += {form}"
            used = {n.id for n in ast.walk(ast.parse(line)) if isinstance(n, ast.Name)}
            last = max((n for n, s in enumerate(loop.body) if isinstance(s, ast.AugAssign)), default=-1)
            later = {name for s in loop.body[last + 1 :] for name in stored_names(s)}
            at = loop.body[-1 if later & used else last]
            yield line_added(source, at, line, before=hasattr(at, "body"))


def line_added(source: Source, at: ast.stmt, line: str, kind: str = "missing line", before: bool = False) -> Edit:
    """A line more, behind this statement or before it."""
    lines = [line, ast.unparse(at)] if before else [ast.unparse(at), line]
    return Edit(source, at, at, "\n".join(lines), kind, line)


def stored_names(statement: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and is_stored(n)}


def _stores(statement: ast.stmt) -> list[ast.expr]:
    targets = getattr(statement, "targets", ())
    return [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
