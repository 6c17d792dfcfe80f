"""Probes: the learner's own backward pass, run with a hand on the values of its expressions."""

from __future__ import annotations

import ast
import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnlab.diagnosis.source import Source
from rnnlab.ops import Array

PROBE = "__rnnlab_probe__"
CONTAINERS = (ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Starred, ast.IfExp, ast.Call, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)


@dataclass(eq=False)
class Place:
    """One expression whose value may be what is wrong: what a statement stores, returns or hands to a function."""

    source: Source
    statement: ast.stmt
    node: ast.expr
    disturbs: int = 0  # how many numbers that are right depend on it


@dataclass
class Probe:
    """What instrumented code calls with the value of each expression, in the order of the run.

    values   everything that was recorded, by expression and occurrence
    spaces   the local names at each occurrence, where asked for
    add      by expression, an array for each occurrence that is added to its value
    """

    add: dict[int, list[Array]] = field(default_factory=dict)
    values: dict[int, list[Array]] = field(default_factory=lambda: defaultdict(list))
    spaces: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    order: list[int] = field(default_factory=list)
    single: int = 0  # the first expression whose value is of single precision

    def __call__(self, n: int, value: Any, space: dict[str, Any] | None = None) -> Any:
        if not isinstance(value, np.ndarray | float) or np.asarray(value).dtype.kind not in "fb":
            return value
        self.single = self.single or (n if getattr(value, "dtype", None) == np.float32 else 0)
        k = len(self.values[n])
        if n in self.add and k < len(self.add[n]) and self.add[n][k].shape == np.shape(value):
            value = value + self.add[n][k]
        self.values[n].append(np.array(value, float))
        self.order.append(n)
        if space is not None:  # as they are now: the frame goes on using the same dict and the same arrays
            self.spaces[n].append({k: v.copy() if isinstance(v, np.ndarray) else v for k, v in space.items()})
        return value


def places(source: Source) -> list[Place]:
    """The places of a function: the values of its statements, each element of a tuple, each argument of a call."""
    found = []
    for statement in source.statements:
        value = getattr(statement, "value", None)
        if isinstance(value, ast.expr):
            found += [Place(source, statement, node) for node in _elements(value)]
    return found


def _elements(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        yield node
        inside = [a for a in node.args] + [k.value for k in node.keywords if k.arg != "out"]
    elif isinstance(node, COMPREHENSIONS):
        inside = [node.value if isinstance(node, ast.DictComp) else node.elt]
        inside += [g.iter for g in node.generators if isinstance(g.iter, ast.Call | ast.Tuple)]
    elif isinstance(node, CONTAINERS):
        inside = [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.expr)]
        if isinstance(node, ast.IfExp):
            inside = [node.body, node.orelse]
        elif isinstance(node, ast.Dict):
            inside = list(node.values)
    else:
        yield node
        inside = [n for n in ast.walk(node) if isinstance(n, (*COMPREHENSIONS, ast.Call)) and n is not node]
    for child in inside:
        if not isinstance(child, ast.Constant):
            yield from _elements(child)


def parts(node: ast.expr) -> list[ast.expr]:
    """An expression and what it is made of by + - * / and powers."""
    found = [node]
    if isinstance(node, ast.BinOp):
        found += parts(node.left) + parts(node.right)
    elif isinstance(node, ast.UnaryOp):
        found += parts(node.operand)
    return found


def instrumented(source: Source, nodes: Sequence[ast.expr], local_names: bool = False) -> tuple[Source, Any]:
    """The function's code with a probe around each of these expressions, numbered by their id."""
    wrapped = {id(node): id(node) for node in nodes}

    class Wrap(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            key = wrapped.get(id(node))
            plain = ast.NodeTransformer.generic_visit(self, _shallow(node))
            if key is None or not isinstance(plain, ast.expr):
                return plain
            arguments: list[ast.expr] = [ast.Constant(key), plain]
            if local_names:
                arguments.append(ast.Call(ast.Name("locals", ast.Load()), [], []))
            return ast.Call(ast.Name(PROBE, ast.Load()), arguments, [])

    return source, source.compiled(ast.fix_missing_locations(Wrap().visit(source.tree)))


def _shallow(node: ast.AST) -> ast.AST:
    """A copy of one node whose lists of children are its own, so that the original stays as it is."""
    twin = copy.copy(node)
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            setattr(twin, name, list(value))
    return twin
