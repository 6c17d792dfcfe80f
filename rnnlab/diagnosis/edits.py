"""Small edits of one statement, as a learner would make them: each is another way to write the same line."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

from rnnlab.diagnosis.source import Source, one_line

Slots = dict[int, tuple[ast.AST, str, int | None]]
ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div)


@dataclass(eq=False)
class Edit:
    """One replacement in a function's tree.

    parent, name, index   where it stands: `parent.name`, or `parent.name[index]` in a list
    new                   what stands there afterwards; a list of statements replaces one
    kind, term            what it says, for `wording`
    """

    source: Source
    statement: ast.stmt
    parent: ast.AST
    name: str
    index: int | None
    new: Any
    kind: str
    term: str = ""

    @property
    def old(self) -> Any:
        value = getattr(self.parent, self.name)
        return value if self.index is None else value[self.index]

    @contextmanager
    def made(self) -> Iterator[None]:
        """The tree reads so within."""
        old = self.old
        for new in self.new if isinstance(self.new, list) else [self.new]:
            located(new, self.statement)
        self._put(self.new)
        try:
            yield
        finally:
            if isinstance(self.new, list) and self.index is not None:
                getattr(self.parent, self.name)[self.index : self.index + len(self.new)] = [old]
            else:
                self._put(old)

    def _put(self, value: Any) -> None:
        if self.index is None:
            setattr(self.parent, self.name, value)
        elif isinstance(value, list):
            getattr(self.parent, self.name)[self.index : self.index + 1] = value
        else:
            getattr(self.parent, self.name)[self.index] = value

    def keep(self) -> None:
        """The tree reads so from here on."""
        self._put(self.new)
        self.source.places.clear()

    def mended(self) -> str:
        """The statement after the edit, on one line."""
        if isinstance(self.new, list) and self.new:
            return "\n".join(map(one_line, self.new))
        if self.new == [] or isinstance(self.new, ast.Pass):
            return ""
        if isinstance(self.new, ast.stmt):
            return one_line(self.new)
        with self.made():
            return one_line(self.statement)


def located(new: Any, at: ast.stmt) -> Any:
    """New nodes stand in the line of the statement that they belong to."""
    todo = [new]
    while todo:
        node = todo.pop()
        if getattr(node, "lineno", 0) < 1 and "lineno" in node._attributes:
            node.lineno, node.col_offset, node.end_lineno, node.end_col_offset = at.lineno, 0, at.lineno, 0
        todo += ast.iter_child_nodes(node)
    return new


def slots(source: Source) -> Slots:
    """Where each node of a function stands."""
    found: Slots = source.places
    if found:
        return found
    for parent in ast.walk(source.tree):
        for name, value in ast.iter_fields(parent):
            for n, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.expr_context | ast.operator):
                    found[id(child)] = (parent, name, n)
    return found


def statement_edits(source: Source, statement: ast.stmt) -> Iterator[Edit]:
    """= for += and back, another sign, a fresh array in place of a changed one, the line left out."""
    slot = slots(source)[id(statement)]

    def edit(new: Any, kind: str) -> Edit:
        return Edit(source, statement, *slot, new, kind)

    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Name | ast.Subscript):
            yield edit(ast.AugAssign(target, ast.Add(), statement.value), "+= for =")
    if isinstance(statement, ast.AugAssign):
        yield edit(ast.Assign([statement.target], statement.value, lineno=0), "= for +=")
        whole = ast.BinOp(_loaded(statement.target), statement.op, statement.value)
        yield edit(ast.Assign([statement.target], whole, lineno=0), "in place")
        if isinstance(statement.op, ast.Add | ast.Sub):
            other = ast.Sub() if isinstance(statement.op, ast.Add) else ast.Add()
            yield edit(ast.AugAssign(statement.target, other, statement.value), "sign")
    if isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr):
        yield edit(ast.Pass(), "line to remove")
    if (
        isinstance(statement, ast.For | ast.If)
        and not statement.orelse
        and all(isinstance(s, ast.Assign | ast.AugAssign | ast.Expr) for s in statement.body)
    ):
        yield edit(ast.Pass(), "line to remove")
    if isinstance(statement, ast.If):
        yield edit(list(statement.body), "branch")


def copies(source: Source) -> Iterator[Edit]:
    """A copy of an argument at the beginning, for a function that changes it."""
    first = source.tree.body[0]
    for argument in source.tree.args.args:
        if argument.arg != "self":
            line = ast.parse(f"{argument.arg} = {argument.arg}.copy()").body[0]
            yield Edit(source, first, *slots(source)[id(first)], [line, first], "argument", argument.arg)


def renamed_calls(source: Source, statement: ast.stmt) -> Iterator[Edit]:
    """Another function in the place of one that the statement calls: one that is called nearby, or of `rnnlab.ops`.

    No other function of the learner's is ever called, for it may do anything.
    """
    where, space = slots(source), source.function.__globals__
    near = {n.func.id for n in ast.walk(source.tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    ours = {name for name, f in space.items() if getattr(f, "__module__", "") == "rnnlab.ops" and inspect.isfunction(f)}
    functions = sorted((near & {name for name, f in space.items() if inspect.isfunction(f)}) | ours)
    for head in _heads(statement):
        called = {n.func.id for n in ast.walk(head) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        for old in sorted(called & set(functions)) if id(head) in where else ():
            for new in functions:
                if new != old:
                    tree = _Renamed({old: new}).visit(copy.deepcopy(head))
                    yield Edit(source, statement, *where[id(head)], tree, "another operand", f"{new}|{old}")


def forward_edits(source: Source, statement: ast.stmt, words: Iterable[str]) -> Iterator[Edit]:
    """For a forward pass: another activation or one more, a term or a factor of recorded values."""
    where, words = slots(source), list(words)
    activations = ["np.tanh", *(f for f in ("sigmoid", "relu") if f in source.function.__globals__)]
    activations = [a if "." in a or a in source.function.__globals__ else f"rl.ops.{a}" for a in activations]
    if "rl" in source.function.__globals__:
        activations += ["rl.ops.sigmoid"]
    matrices = [f"{a} @ {b}" for a in words for b in words if b.startswith("self.")]
    kinds = (ast.Name, ast.Subscript, ast.BinOp, ast.Call)
    nodes = [n for head in _heads(statement) for n in ast.walk(head) if isinstance(n, kinds) and _is_value(n, where)]
    for node in nodes:
        inner = node.args[0] if isinstance(node, ast.Call) and len(node.args) == 1 else node
        for name in activations:
            text = f"{name}|{ast.unparse(node)}"
            call = ast.Call(ast.parse(name, mode="eval").body, [inner], [])
            yield Edit(source, statement, *where[id(node)], call, "activation", text)
    for node in nodes:
        for term in (*matrices, *words):
            new = ast.BinOp(node, ast.Add(), ast.parse(term, mode="eval").body)
            yield Edit(source, statement, *where[id(node)], new, "missing term", term)


def is_unpacking(statement: ast.stmt) -> bool:
    """Whether a statement only gives names to what is there."""
    kinds = (ast.Tuple, ast.Name, ast.expr_context, ast.Subscript, ast.Constant, ast.Attribute)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Tuple):
        return False
    return all(isinstance(n, kinds) for n in ast.walk(statement.value))


def updates(source: Source, loop: ast.For) -> Iterator[Edit]:
    """An update that is missing at the end of a loop: `carried = new`, first of names that the loop only reads."""
    stored = {n.id for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    read = {n.id for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    before = {n.id for n in ast.walk(source.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    still, unread = sorted((read & before) - stored - {ast.unparse(loop.target)}), sorted(stored - read)
    texts = [(old, new) for old in (*still, *sorted(read & stored)) for new in sorted(stored) if new != old]
    if 1 < len(unread) <= 3:
        texts = [(", ".join(c), ", ".join(unread)) for c in permutations(still, len(unread))] + texts
    end = loop.body[-1]
    place = slots(source)[id(end)]
    for old, new in texts:
        line = ast.parse(f"{old} = {new}").body[0]
        yield Edit(source, end, *place, [end, line], "missing update", f"{old} = {new}")


def expression_edits(source: Source, statement: ast.stmt, words: Iterable[str] = ()) -> Iterator[Edit]:
    """Every change of one node: an operand left out or exchanged, a sign, a transpose, brackets, an index.

    `words` are texts of other operands; the smallest changes come first.
    """
    where = slots(source)
    heads = _heads(statement)
    nodes = [n for head in heads for n in ast.walk(head) if isinstance(n, ast.expr) and _is_value(n, where)]
    seen: set[str] = set()
    for kind, changes in (
        ("left out", _children),
        ("operator", _operators),
        ("transpose", _transposes),
        ("brackets", _brackets),
        ("index", _neighbours),
        ("option", _options),
    ):
        for node in nodes:
            for new in changes(node):
                edit = Edit(source, statement, *where[id(node)], new, kind, ast.unparse(node))
                if (text := edit.mended()) not in seen:
                    seen.add(text)
                    yield edit
    for edit in (*_exchanges(source, statement, heads, where), *_other_steps(source, statement, nodes, where)):
        if (text := edit.mended()) not in seen:
            seen.add(text)
            yield edit
    for node in nodes:
        parent, _, _ = where[id(node)]
        product = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.MatMult)
        whole = product or (isinstance(parent, ast.Attribute) and parent.attr == "T")  # the operand of a matrix product
        if (isinstance(node, ast.Name | ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Load)) or whole:
            old = ast.unparse(node)
            for text in words:
                new = ast.parse(text, mode="eval").body
                edit = Edit(source, statement, *where[id(node)], new, "another operand", f"{text}|{old}")
                if text != old and (line := edit.mended()) not in seen:
                    seen.add(line)
                    yield edit


def _is_value(node: ast.AST, where: Slots) -> bool:
    """Not the name of a function or a module, which holds no number."""
    parent, name, _ = where.get(id(node), (None, "func", None))
    module = isinstance(node, ast.Name) and isinstance(parent, ast.Attribute) and parent.attr != "T"
    return name != "func" and not module


def _exchanges(source: Source, statement: ast.stmt, heads: list[ast.AST], where: Slots) -> Iterator[Edit]:
    """Two names exchanged wherever they stand in the statement."""
    for head in heads:
        names = sorted({n.id for n in ast.walk(head) if isinstance(n, ast.Name)})
        for a, b in combinations(names, 2) if len(names) <= 16 and id(head) in where else ():
            new = _Renamed({a: b, b: a}).visit(copy.deepcopy(head))
            yield Edit(source, statement, *where[id(head)], new, "exchanged", f"{a}|{b}")


def returned_exchanges(source: Source, statement: ast.stmt) -> Iterator[Edit]:
    """Two of the values that a function returns exchanged."""
    if isinstance(statement, ast.Return) and statement.value is not None:
        yield from _exchanges(source, statement, [statement.value], slots(source))


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def _other_steps(source: Source, statement: ast.stmt, nodes: list[ast.expr], where: Slots) -> Iterator[Edit]:
    """An index by another loop's variable, where a number stands or another name."""
    loops = [n.target for n in ast.walk(source.tree) if isinstance(n, ast.For | ast.comprehension)]
    variables = sorted({n.id for target in loops for n in ast.walk(target) if isinstance(n, ast.Name)})
    for node in nodes:
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name | ast.Constant | ast.UnaryOp):
            for name in variables:
                new = ast.Subscript(node.value, ast.Name(name, ast.Load()), node.ctx)
                yield Edit(source, statement, *where[id(node)], new, "index", ast.unparse(node))


def factor_edits(source: Source, statement: ast.stmt, forms: Iterable[str]) -> Iterator[Edit]:
    """Each operand of the statement times each form."""
    where, forms = slots(source), list(forms)
    for head in _heads(statement):
        for node in ast.walk(head):
            if not isinstance(node, ast.Name | ast.Subscript | ast.Attribute | ast.BinOp | ast.Call):
                continue
            if _is_value(node, where) and not isinstance(getattr(node, "ctx", None), ast.Store):
                for form in forms:
                    new = ast.BinOp(node, ast.Mult(), ast.parse(form, mode="eval").body)
                    yield Edit(source, statement, *where[id(node)], new, "missing factor", form)


def _heads(statement: ast.stmt) -> list[ast.AST]:
    """The expressions of a simple statement, of a loop or branch those of its head; indices of targets too."""
    if isinstance(statement, ast.For):
        return [statement.iter]
    if isinstance(statement, ast.If | ast.While):
        return [statement.test]
    if isinstance(statement, ast.FunctionDef | ast.With | ast.ClassDef):
        return []
    value = getattr(statement, "value", None)
    found: list[ast.AST] = [value] if isinstance(value, ast.expr) else []
    targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
    for target in targets:
        found += [n.slice for n in ast.walk(target) if isinstance(n, ast.Subscript)] if target is not None else []
    return found


def _children(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Call):
        yield from (a for a in node.args if not isinstance(a, ast.Starred))
        if isinstance(node.func, ast.Attribute) and not (
            isinstance(node.func.value, ast.Name) and node.func.value.id in ("np", "numpy", "self")
        ):
            yield node.func.value
    elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Store):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield node.left


def _operators(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ARITHMETIC):
            for other in ARITHMETIC:
                if not isinstance(node.op, other):
                    yield ast.BinOp(node.left, other(), node.right)
            if isinstance(node.op, ast.Sub | ast.Div):
                yield ast.BinOp(node.right, node.op, node.left)
        if isinstance(node.op, ast.MatMult):
            yield ast.BinOp(node.right, node.op, node.left)
        if isinstance(node.op, ast.Pow):
            yield ast.BinOp(node.left, node.op, ast.Constant(3 if _is(node.right, 2) else 2))
    if isinstance(node, ast.Name | ast.Subscript | ast.BinOp | ast.Call | ast.Attribute):
        yield ast.UnaryOp(ast.USub(), node)
    if isinstance(node, ast.Name | ast.Subscript | ast.Attribute | ast.Call):
        yield ast.BinOp(node, ast.Pow(), ast.Constant(2))
        yield ast.BinOp(ast.Constant(1), ast.Sub(), node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for turned in (ast.Gt, ast.Lt):
            if not isinstance(node.ops[0], turned):
                yield ast.Compare(node.left, [turned()], node.comparators)


def _transposes(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Name | ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Store):
        yield ast.Attribute(node, "T", ast.Load())


def _brackets(node: ast.expr) -> Iterator[ast.expr]:
    """(a + b) c for a + b c and the like: what stands before a sum's last product is taken into it, and back."""
    if not isinstance(node, ast.BinOp):
        return
    if isinstance(node.op, ast.Add | ast.Sub):
        for here, other, right in ((node.right, node.left, True), (node.left, node.right, False)):
            factors = _factors(here)
            for n in range(1, len(factors)):
                for inside, outside in ((factors[:n], factors[n:]), (factors[n:], factors[:n])):
                    part = _product(inside)
                    total = ast.BinOp(other, node.op, part) if right else ast.BinOp(part, node.op, other)
                    yield ast.BinOp(_product(outside), ast.Mult(), total)
    if isinstance(node.op, ast.Mult):
        factors = _factors(node)
        for n, factor in enumerate(factors):
            if isinstance(factor, ast.BinOp) and isinstance(factor.op, ast.Add | ast.Sub):
                rest = factors[:n] + factors[n + 1 :]
                yield ast.BinOp(factor.left, factor.op, _product([factor.right, *rest]))
                yield ast.BinOp(_product([factor.left, *rest]), factor.op, factor.right)
    for inner, first in ((node.left, True), (node.right, False)):  # a op (b op c) and (a op b) op c
        if isinstance(inner, ast.BinOp) and type(inner.op) is not type(node.op):
            if first:
                yield ast.BinOp(inner.left, inner.op, ast.BinOp(inner.right, node.op, node.right))
            else:
                yield ast.BinOp(ast.BinOp(node.left, node.op, inner.left), inner.op, inner.right)


def _neighbours(node: ast.expr) -> Iterator[ast.expr]:
    """The step before or after: t - 1 and t + 1 for t, an index or bound that is one off, a loop turned round."""
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
        for new in _near(node.slice):
            yield ast.Subscript(node.value, new, node.ctx)
    if isinstance(node, ast.Slice):
        for name in ("lower", "upper"):
            bound = getattr(node, name)
            for new in [None, *(_near(bound) if bound is not None else [ast.Constant(1), ast.Constant(-1)])]:
                if new is not bound:
                    changed = ast.Slice(node.lower, node.upper, node.step)
                    setattr(changed, name, new)
                    yield changed
        if isinstance(node.lower, ast.Constant) and node.upper is None:
            yield ast.Slice(None, ast.UnaryOp(ast.USub(), node.lower), None)
        if node.lower is None and isinstance(node.upper, ast.UnaryOp):
            yield ast.Slice(node.upper.operand, None, None)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        for n, bound in enumerate(node.args):
            for new in _near(bound):
                yield ast.Call(node.func, [*node.args[:n], new, *node.args[n + 1 :]], [])
        if len(node.args) == 2:
            yield ast.Call(node.func, node.args[1:], [])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("range", "zip", "enumerate"):
        yield ast.Call(ast.Name("reversed", ast.Load()), [node], [])


def _near(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return [ast.Constant(node.value + k) for k in (-1, 1, 2)]
    if isinstance(node, ast.UnaryOp):
        return [ast.Constant(0), ast.Constant(-2), node.operand]
    one: list[ast.expr] = [ast.BinOp(node, op, ast.Constant(1)) for op in (ast.Sub(), ast.Add())]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) and _is(node.right, 1):
        other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return [node.left, ast.BinOp(node.left, other, node.right), *one]
    return one if isinstance(node, ast.Name | ast.BinOp | ast.Call) else []


def _options(node: ast.expr) -> Iterator[ast.expr]:
    """Another axis of a sum, or none."""
    if isinstance(node, ast.Call):
        for n, keyword in enumerate(node.keywords):
            if keyword.arg == "axis":
                rest = node.keywords[:n] + node.keywords[n + 1 :]
                for text in ("0", "1", "-1", "(0, 1)"):
                    value = ast.parse(text, mode="eval").body
                    yield ast.Call(node.func, node.args, [*rest, ast.keyword("axis", value)])
            elif keyword.arg != "out":
                yield ast.Call(node.func, node.args, node.keywords[:n] + node.keywords[n + 1 :])
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("mean", "sum"):
            if not any(k.arg == "axis" for k in node.keywords):
                for axis in (0, 1):
                    one = [*node.keywords, ast.keyword("axis", ast.Constant(axis))]
                    kept = [*one, ast.keyword("keepdims", ast.Constant(True))]
                    yield from (ast.Call(node.func, node.args, given) for given in (one, kept))
            other = ast.Attribute(node.func.value, "sum" if node.func.attr == "mean" else "mean", ast.Load())
            yield ast.Call(other, node.args, node.keywords)
    elif isinstance(node, ast.Name | ast.Subscript) and not isinstance(node.ctx, ast.Store):
        for axis in (0, 1):
            keywords = [ast.keyword("axis", ast.Constant(axis))]
            yield ast.Call(ast.Attribute(node, "sum", ast.Load()), [], keywords)
        keywords = [ast.keyword("axis", ast.Constant(1)), ast.keyword("keepdims", ast.Constant(True))]
        yield ast.Call(ast.Attribute(node, "sum", ast.Load()), [], keywords)


def _factors(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _factors(node.left) + _factors(node.right)
    return [node]


def _product(factors: list[ast.expr]) -> ast.expr:
    product = factors[0]
    for factor in factors[1:]:
        product = ast.BinOp(product, ast.Mult(), factor)
    return product


def _is(node: ast.expr, value: int) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _loaded(target: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(target), mode="eval").body
