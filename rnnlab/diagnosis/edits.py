"""Small edits of one statement, as a learner would make them: each is another way to write the same line."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from types import CodeType
from typing import Any

from rnnlab.diagnosis.rules import OPERANDS, ORDER, indices, is_stored, rules
from rnnlab.diagnosis.source import Source, one_line, shallow

Slots = dict[int, tuple[ast.AST, str, int | None]]


@dataclass(eq=False)
class Edit:
    """One replacement in a function's tree.

    node   the expression or statement that is replaced, of this statement
    text   what stands there afterwards; of a statement any number of lines
    kind   what sort of edit it is, and `term` the piece of text that tells about it, for its sentence
    """

    source: Source
    statement: ast.stmt
    node: ast.AST
    text: str
    kind: str
    term: str = ""

    def of(self, top: ast.AST) -> Any:
        """A copy of `top`, in which the node stands, with the edit made; what does not change is shared."""
        node, new = self.node, self.parsed()
        while node is not top:
            parent, name, index = slots(self.source)[id(node)]
            twin = copy.copy(parent)
            if index is not None:
                row = getattr(parent, name)
                new = [*row[:index], *(new if isinstance(new, list) else [new]), *row[index + 1 :]]
            setattr(twin, name, new)
            node, new = parent, twin
        return new

    def parsed(self) -> Any:
        """The new expression or statements, in the line of what they replace."""
        if isinstance(self.node, ast.stmt):
            new: Any = ast.parse(self.text).body or [ast.Pass()]
        else:
            new = _expression(self.text)
        for tree in new if isinstance(new, list) else [new]:
            for node in ast.walk(tree):
                if "lineno" in node._attributes:
                    # `_attributes` says at run time which nodes have lines.
                    node.lineno = node.end_lineno = self.statement.lineno  # type: ignore[attr-defined]
                    node.col_offset = node.end_col_offset = 0  # type: ignore[attr-defined]
                if isinstance(getattr(self.node, "ctx", None), ast.Store) and node is tree:
                    node.ctx = ast.Store()
        return new

    def compiled(self) -> CodeType:
        return self.source.compiled(self.of(self.source.tree))

    def keep(self) -> None:
        """The tree reads so for good."""
        self.source.tree = self.of(self.source.tree)
        self.source.changed()

    def mended(self) -> str:
        """The statement after the edit, each on one line."""
        if isinstance(self.node, ast.stmt):
            return "\n".join(map(one_line, ast.parse(self.text).body))
        text = one_line(self.of(self.statement))
        if " * (" in text and not hasattr(self.statement, "body"):
            text = ast.unparse(_Flat().visit(ast.parse(text)))
        return text


class _Flat(ast.NodeTransformer):
    """a * b * c for a * (b * c)."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        self.generic_visit(node)
        right = node.right
        if isinstance(node.op, ast.Mult) and isinstance(right, ast.BinOp) and isinstance(right.op, ast.Mult):
            return self.visit_BinOp(ast.BinOp(ast.BinOp(node.left, ast.Mult(), right.left), ast.Mult(), right.right))
        return node


def slots(source: Source) -> Slots:
    """Where each node of a function stands."""
    found: Slots = source.places
    if not found:
        for parent in ast.walk(source.tree):
            for name, value in ast.iter_fields(parent):
                for n, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    if isinstance(child, ast.AST) and not isinstance(child, ast.expr_context | ast.operator):
                        found[id(child)] = (parent, name, n)
    return found


def expression_edits(source: Source, statement: ast.stmt, constants: Iterable[str] = ()) -> Iterator[Edit]:
    """Every change of one node by the rules below, the smallest first, and two names exchanged."""
    roots = _own_expressions(statement)
    nodes = [n for root in roots for n in ast.walk(root) if isinstance(n, ast.expr | ast.Slice) and _value(source, n)]
    loops = [n.target for n in ast.walk(source.tree) if isinstance(n, ast.For | ast.comprehension)]
    steps = sorted({n.id for target in loops for n in ast.walk(target) if isinstance(n, ast.Name)})
    found: list[tuple[str, ast.AST, str]] = [
        (kind, node, text) for node in nodes for kind, text in (*rules(node), *indices(node, steps))
    ]
    rank = {kind: n for n, kind in enumerate(ORDER)}
    found.sort(key=lambda row: rank.get(row[0].partition("|")[0], len(rank)))
    numbers = [n for n in nodes if isinstance(n, ast.Constant) and type(n.value) in (int, float)]
    found += [("another operand", n, c) for n in numbers for c in constants if c != ast.unparse(n)]
    for root in roots:
        texts = sorted({ast.unparse(n) for n in ast.walk(root) if isinstance(n, ast.Name) or _is_element(n)})
        for a, b in combinations(texts, 2) if len(texts) <= 16 else ():
            if a.partition("[")[0] == b.partition("[")[0] or "[" not in a + b:
                found.append((f"exchanged|{a} and {b}", root, _exchanged(root, {a: b, b: a})))
        for first, second in combinations([n for n in ast.walk(root) if isinstance(n, ast.Slice)], 2):
            for (_, a), (_, b) in product(indices(first, steps), indices(second, steps)):
                found.append(("index", root, _exchanged(root, {ast.unparse(first): a, ast.unparse(second): b})))
    seen: set[str] = {one_line(statement)}
    for kind, node, text in found:
        kind, _, term = kind.partition("|")
        edit = Edit(source, statement, node, text, kind, term or ast.unparse(node))
        try:
            line = edit.mended()
        except (SyntaxError, ValueError):
            continue
        if line not in seen:
            seen.add(line)
            yield edit


def operand_edits(
    source: Source, statement: ast.stmt, operands: Iterable[str], kind: str = "another operand"
) -> Iterator[Edit]:
    """Each of these operands in the place of each operand that is there, or as one more factor or term of it."""
    form = {"another operand": "{1}", "missing factor": "({0}) * {1}", "missing term": "({0}) + {1}"}[kind]
    operands = list(operands)
    for node in (n for root in _own_expressions(statement) for n in ast.walk(root) if isinstance(n, ast.expr)):
        whole = _is_side(source, node) if kind == "another operand" else isinstance(node, ast.BinOp | ast.Call)
        if _value(source, node) and (isinstance(node, OPERANDS) or whole) and not is_stored(node):
            old = ast.unparse(node)
            for operand in operands:
                if operand != old:
                    term = old if kind == "another operand" else operand
                    yield Edit(source, statement, node, form.format(old, operand), kind, term)


def _is_side(source: Source, node: ast.expr) -> bool:
    """One side of a matrix product, or what is transposed."""
    parent = slots(source)[id(node)][0]
    product = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.MatMult)
    return product or (isinstance(parent, ast.Attribute) and parent.attr == "T")


def call_edits(source: Source, statement: ast.stmt, functions: Iterable[str], wrap: bool = False) -> Iterator[Edit]:
    """Another of these functions wherever one is called; with `wrap` also one of them around a value or a call."""
    functions = list(functions)
    for root in _own_expressions(statement):
        called = {ast.unparse(n.func) for n in ast.walk(root) if isinstance(n, ast.Call) and len(n.args) == 1}
        for old, new in product(sorted(called), functions):
            if old != new:
                text = _exchanged(root, {old: new})
                yield Edit(source, statement, root, text, "another operand", ast.unparse(root))
        for node in (n for n in ast.walk(root) if wrap and isinstance(n, (*OPERANDS, ast.BinOp, ast.Call))):
            if _value(source, node):
                inner = node.args[0] if isinstance(node, ast.Call) and len(node.args) == 1 else node
                texts = [f"{f}({ast.unparse(inner)})" for f in functions]
                yield from (Edit(source, statement, node, t, "another operand", ast.unparse(node)) for t in texts)


def _expression(text: str) -> ast.expr:
    """The tree of an expression, read as an index: there it may be a slice, which alone is none."""
    whole = ast.parse(f"x[{text}]", mode="eval").body
    assert isinstance(whole, ast.Subscript)
    return whole.slice


class _Exchanged(ast.NodeTransformer):
    def __init__(self, other: Mapping[str, str]) -> None:
        self.other = {old: _expression(new) for old, new in other.items()}

    def visit(self, node: ast.AST) -> Any:
        new = self.other.get(ast.unparse(node)) if isinstance(node, (*OPERANDS, ast.Slice)) else None
        return new or self.generic_visit(shallow(node))


def _exchanged(root: ast.AST, other: Mapping[str, str]) -> str:
    """The text of an expression, with other texts in the place of some."""
    return ast.unparse(_Exchanged(other).visit(root))


def _is_element(node: ast.AST) -> bool:
    """`a["i"]`, `gates[2]`, `z[t]`: an element by one index."""
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant | ast.Name)


def _own_expressions(statement: ast.stmt) -> list[ast.AST]:
    """The expressions of a simple statement, of a loop or branch those of its first line; indices of targets too."""
    if isinstance(statement, ast.For):
        return [statement.iter]
    if isinstance(statement, ast.If | ast.While):
        return [statement.test]
    if isinstance(statement, ast.FunctionDef | ast.With | ast.ClassDef):
        return []
    value = getattr(statement, "value", None)
    found: list[ast.AST] = [value] if isinstance(value, ast.expr) else []
    for target in getattr(statement, "targets", None) or [getattr(statement, "target", None)]:
        found += [n.slice for n in ast.walk(target) if isinstance(n, ast.Subscript)] if target is not None else []
    return found


def _value(source: Source, node: ast.AST) -> bool:
    """Not the name of a function or a module, which holds no number."""
    parent, name, _ = slots(source)[id(node)]
    scope = source.function.__globals__
    module = isinstance(node, ast.Name) and (node.id == "self" or inspect.ismodule(scope.get(node.id)))
    return name != "func" and not (module and isinstance(parent, ast.Attribute))
