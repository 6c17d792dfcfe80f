"""Probes: the learner's own backward pass, run with a hand on the values of its expressions and names."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnlab.diagnosis.source import Source, shallow
from rnnlab.ops import Array

PROBE = "__rnnlab_probe__"
CONTAINERS = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Starred, ast.IfExp, ast.Call, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)


@dataclass(eq=False)
class Place:
    """One value that may be wrong: an expression's, or (`after`) that of a name once its statement has run.

    before     a look at the names before the statement, where no value is changed
    disturbs   how many numbers that are right depend on it; `reaches_all`, whether every wrong one does
    """

    source: Source
    statement: ast.stmt
    node: ast.expr
    after: bool = False
    before: bool = False
    disturbs: int = 0
    reaches_all: bool = False

    @property
    def text(self) -> str:
        return ast.unparse(self.node)


@dataclass
class Probe:
    """What instrumented code calls with each value, in the order of the run.

    values   everything that was recorded, by place and occurrence
    scopes   the local names at each occurrence, where asked for
    add      by place, an array for each occurrence that is added to its value
    """

    add: dict[int, list[Array]] = field(default_factory=dict)
    values: dict[int, list[Array]] = field(default_factory=lambda: defaultdict(list))
    scopes: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    order: list[int] = field(default_factory=list)

    def __call__(self, n: int, value: Any, scope: dict[str, Any] | None = None, inside: bool = False) -> Any:
        """The value, changed as asked; `inside` changes the array itself, for what other names hold too."""
        if not isinstance(value, np.ndarray | float) or np.asarray(value).dtype.kind not in "fb":
            return value
        k = len(self.values[n])
        if n in self.add and k < len(self.add[n]) and self.add[n][k].shape == np.shape(value):
            change = self.add[n][k]
            value = np.add(value, change, out=value) if inside and isinstance(value, np.ndarray) else value + change
        self.values[n].append(np.asarray(value) * 1.0)
        self.order.append(n)
        if scope is not None:  # as they are now: the frame goes on using the same dict and the same arrays
            self.scopes[n].append({k: copied(v, depth=2) for k, v in scope.items()})
        return value


def copied(value: Any, depth: int = 6, arrays: bool = True) -> Any:
    """The same in lists and dicts of its own, in which a loop or an edit may write; `arrays` copies these too."""
    if isinstance(value, np.ndarray) and arrays:
        return value.copy()
    if depth and type(value) in (list, tuple):
        return type(value)(copied(v, depth - 1, arrays) for v in value)
    if depth and type(value) is dict:
        return {k: copied(v, depth - 1, arrays) for k, v in value.items()}
    return value


def scope_place(source: Source, statement: ast.stmt, before: bool = True) -> Place:
    """A place that holds no value of the learner's: for the names before or after a statement."""
    return Place(source, statement, ast.Constant(0.0), not before, before)


def places(source: Source) -> list[Place]:
    """What statements store, return and hand to functions, and the names that hold it afterwards."""
    found = []
    for statement in source.statements:
        value = getattr(statement, "value", None)
        if isinstance(value, ast.expr):
            found += [Place(source, statement, node) for node in _elements(value)]
        found += [Place(source, statement, node, after=True) for node in _stored(statement)]
    return found


def _elements(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield node
        inside = [*node.args, *(k.value for k in node.keywords if k.arg != "out")]
    elif isinstance(node, COMPREHENSIONS):
        inside = [node.value if isinstance(node, ast.DictComp) else node.elt]
        inside += [g.iter for g in node.generators if isinstance(g.iter, ast.Call | ast.Tuple)]
    elif isinstance(node, ast.IfExp):
        inside = [node.body, node.orelse]
    elif isinstance(node, ast.Dict):
        inside = list(node.values)
    elif isinstance(node, CONTAINERS):
        inside = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
    else:
        yield node
        inside = [n for n in ast.walk(node) if isinstance(n, (*COMPREHENSIONS, ast.Call)) and n is not node]
    for child in inside:
        if not isinstance(child, ast.Constant):
            yield from _elements(child)


def _stored(statement: ast.stmt) -> Iterator[ast.expr]:
    """What holds another value after a statement than one of its expressions: unpacked, `*=`, `-= 1`, `out=`."""
    targets: list[ast.expr] = []
    if isinstance(statement, ast.For):  # and what is carried from pass to pass
        targets = [statement.target, *map(ast.Name, carried(statement.body))]
    elif isinstance(statement, ast.Assign):
        targets = [t for t in statement.targets if isinstance(t, ast.Tuple)]
    elif isinstance(statement, ast.AugAssign):
        if not isinstance(statement.op, ast.Add | ast.Sub):
            targets = [statement.target]
        elif isinstance(statement.value, ast.Constant):
            targets = [ast.Name(next(n.id for n in ast.walk(statement.target) if isinstance(n, ast.Name)))]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        targets = [k.value for k in statement.value.keywords if k.arg == "out"]
    nodes = [n for t in targets for n in (t.elts if isinstance(t, ast.Tuple) else [t])]
    texts = dict.fromkeys(ast.unparse(n) for n in nodes if isinstance(n, ast.Name | ast.Subscript))
    yield from (ast.parse(text, mode="eval").body for text in texts)


def carried(body: Sequence[ast.stmt]) -> list[str]:
    """The names that a loop's body reads before it stores them: what one pass hands to the next."""
    stored, found = set[str](), set[str]()
    for statement in body:
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        sums = [n.target for n in ast.walk(statement) if isinstance(n, ast.AugAssign)]
        found |= {n.id for n in names if isinstance(n.ctx, ast.Load) or n in sums} - stored
        stored |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return sorted(found & stored)


def subexpressions(node: ast.expr) -> list[ast.expr]:
    """An expression and what it is made of by + - * / and powers."""
    found = [node]
    if isinstance(node, ast.BinOp):
        found += subexpressions(node.left) + subexpressions(node.right)
    elif isinstance(node, ast.UnaryOp):
        found += subexpressions(node.operand)
    return found


def instrumented(
    source: Source, chosen: Sequence[Place], inner: Sequence[ast.expr] = (), local_names: bool = False
) -> tuple[Source, Any]:
    """The function's code with a probe at each of these places, numbered by the id of their node, and of `inner`."""
    wrapped = {id(p.node) for p in chosen if not (p.after or p.before)} | {id(node) for node in inner}
    behind: dict[int, list[Place]] = defaultdict(list)
    for place in chosen:
        if place.after or place.before:
            behind[id(place.statement)].append(place)

    def call(key: int, value: ast.expr, inside: bool = False) -> ast.Call:
        names = ast.Call(ast.Name("locals", ast.Load()), [], []) if local_names else ast.Constant(None)
        return ast.Call(ast.Name(PROBE, ast.Load()), [ast.Constant(key), value, names, ast.Constant(inside)], [])

    def line(place: Place) -> ast.stmt:
        """A probe of a name beside its statement; where that gave it an array of others, the name gets a new one."""
        loop, at = isinstance(place.statement, ast.For), place.statement
        unpacks = loop or (isinstance(at, ast.Assign) and isinstance(at.targets[0], ast.Tuple))
        value = call(id(place.node), place.node, inside=not unpacks)
        if not unpacks or not isinstance(place.node, ast.Name):
            return ast.copy_location(ast.Expr(value), at)
        new: ast.stmt = ast.Assign([ast.Name(place.text, ast.Store())], value)
        there = ast.parse(f"{place.text!r} in locals()", mode="eval").body  # from the second pass on
        return ast.copy_location(ast.If(there, [new], []) if loop else new, at)

    class Wrap(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            plain = self.generic_visit(shallow(node))
            if id(node) in wrapped and isinstance(plain, ast.expr):
                return call(id(node), plain)
            beside = behind.get(id(node), [])
            lines = [line(place) for place in beside]
            if lines and isinstance(plain, ast.For) and not isinstance(beside[0].node, ast.Constant):
                plain.body = [*lines, *plain.body]  # what a pass begins with
                return plain
            if lines:
                return [*lines, plain] if beside[0].before else [plain, *lines]
            return plain

    return source, source.compiled(ast.fix_missing_locations(Wrap().visit(source.tree)))
