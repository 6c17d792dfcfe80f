"""The rules: what one expression could be instead, in one small step."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

Change = tuple[str, str]  # kind of the edit, text of the expression afterwards
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**"}
ORDER = ["left out", "sign", "operator", "missing factor", "slope of a tanh", "slope of a sigmoid"]
ORDER += ["exchanged", "transpose", "brackets", "index", "option"]
OPERANDS = (ast.Name, ast.Subscript, ast.Attribute)


def is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def rules(node: ast.expr | ast.Slice) -> Iterator[Change]:
    """What one expression could be instead."""
    if isinstance(node, ast.Slice) or is_stored(node):
        return
    text = ast.unparse(node)
    x = f"({text})"
    yield from _exchanges(node)
    yield from (("left out", ast.unparse(part)) for part in _parts(node))
    if isinstance(node, ast.BinOp):
        a, b, sign = f"({ast.unparse(node.left)})", f"({ast.unparse(node.right)})", OPERATORS.get(type(node.op), "+")
        if sign in "+-*/":
            signs = sign in "+-"
            yield from (("sign" if signs and o in "+-" else "operator", f"{a} {o} {b}") for o in "+-*/" if o != sign)
        if sign in "-/@":
            yield "sign" if sign == "-" else "operator", f"{b} {sign} {a}"
        if sign == "**":
            yield "operator", f"{a} ** {3 if b == '(2)' else 2}"
        yield from _slopes(node)
        yield from (("brackets", new) for new in _within(node.left, sign, True, lambda last: f"({last}) {sign} {b}"))
        yield from (
            ("brackets", new) for new in _within(node.right, sign, False, lambda first: f"{a} {sign} ({first})")
        )
    elif isinstance(node, ast.Call):
        yield from (("option", new) for new in _options(node))
        if len(node.args) == 1 and isinstance(inner := node.args[0], ast.BinOp) and type(inner.op) in OPERATORS:
            f, sign = ast.unparse(node.func), OPERATORS[type(inner.op)]
            yield "brackets", f"{f}({ast.unparse(inner.left)}) {sign} ({ast.unparse(inner.right)})"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        a, b = ast.unparse(node.left), ast.unparse(node.comparators[0])
        yield from (("operator", f"({a}) > ({b})"), ("operator", f"({a}) < ({b})"))
    if isinstance(node, (*OPERANDS, ast.BinOp, ast.Call)):
        yield "sign", f"-{x}"
    if isinstance(node, (*OPERANDS, ast.Call)):
        yield from (("operator", new) for new in (f"{x} ** 2", f"1 - {x}", f"1 - {x} ** 2", f"({x} > 0)"))
        yield f"missing factor|(1 - {text})", f"{x} * (1 - {x})"
    if isinstance(node, OPERANDS):
        yield from (("transpose", f"{x}.T"), ("index", f"{x}[::-1]"))
        axes = ("axis=0", "axis=1", "axis=1, keepdims=True", "axis=(0, 1)")
        yield from (("option", f"{x}.sum({axis})") for axis in axes)


def _parts(node: ast.expr) -> list[ast.expr]:
    """What an expression is made of, any of which may be meant alone."""
    if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "T"):
        return [node.value]
    if isinstance(node, ast.Call):
        of = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        parts = [*node.args, *(v for v in of if ast.unparse(v) not in ("np", "numpy", "self"))]
        return [part for part in parts if not isinstance(part, ast.Starred)]
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    inner = isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare)
    return [part for part in ast.iter_child_nodes(node) if inner and isinstance(part, ast.expr)]


def _slopes(node: ast.BinOp) -> Iterator[Change]:
    """1 - g**2, the derivative of a tanh, for g * (1 - g), that of a sigmoid, and back."""
    match node:
        case ast.BinOp(ast.Constant(1), ast.Sub(), ast.BinOp(value, ast.Pow(), ast.Constant(2))):
            g = ast.unparse(value)
            yield f"slope of a sigmoid|{g}", f"({g}) * (1 - {g})"
        case ast.BinOp(first, ast.Mult(), ast.BinOp(ast.Constant(1), ast.Sub(), value)):
            g, left = ast.unparse(value), ast.unparse(first)
            if left == g or left.endswith(f" * {g}"):
                yield f"slope of a tanh|{g}", f"{left.removesuffix(g)}(1 - {g} ** 2)"


def _exchanges(node: ast.expr) -> Iterator[Change]:
    """Two elements of a tuple or a list, two arguments, two indices, two neighbouring letters of einsum's text."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Subscript):
        first, second = ast.unparse(node.value.slice), ast.unparse(node.slice)
        yield f"exchanged|{first} and {second}", f"{ast.unparse(node.value.value)}[{second}][{first}]"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        for n, (a, b) in enumerate(pairwise(node.value)):
            if (a + b).isalpha():
                yield f"exchanged|{a} and {b}", repr(node.value[:n] + b + a + node.value[n + 2 :])
    row = "args" if isinstance(node, ast.Call) else "elts"
    elements = getattr(node, row, [])
    for i, j in combinations(range(len(elements)), 2):
        new, turned = copy.copy(node), list(elements)
        turned[i], turned[j] = elements[j], elements[i]
        setattr(new, row, turned)
        yield f"exchanged|{ast.unparse(elements[i])} and {ast.unparse(elements[j])}", ast.unparse(new)


def _within(node: ast.expr, sign: str, last: bool, put: Callable[[str], str]) -> Iterator[str]:
    """An operation on only the last (or first) part of its operand: a + (b c) for (a + b) c, f(a c) for f(a) c."""
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right, own = ast.unparse(node.left), ast.unparse(node.right), OPERATORS[type(node.op)]
        part = node.right if last else node.left
        for new in (*([put(ast.unparse(part))] if own != sign else []), *_within(part, sign, last, put)):
            yield f"({left}) {own} ({new})" if last else f"({new}) {own} ({right})"
    elif isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        for new in (put(ast.unparse(node.args[0])), *_within(node.args[0], sign, last, put)):
            yield f"{ast.unparse(node.func)}({new})"


def _options(node: ast.Call) -> Iterator[str]:
    """Another axis of a sum, or none; the sum for the mean."""
    function, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
    others = [{k: v for k, v in given.items() if k != name} for name in given if name != "out"]
    if "axis" in given:
        others += [given | {"axis": axis} for axis in ("0", "1", "-1", "(0, 1)")]
    name = function.rpartition(".")[2]
    if isinstance(node.func, ast.Attribute) and name in ("mean", "sum"):
        yield ast.unparse(node).replace(
            function, function.removesuffix(name) + ("sum" if name == "mean" else "mean"), 1
        )
        if "axis" not in given:
            others += [given | {"axis": axis} | keep for axis in "01" for keep in ({}, {"keepdims": "True"})]
    for keywords in others:
        yield f"{function}({', '.join([*map(ast.unparse, node.args), *(f'{k}={v}' for k, v in keywords.items())])})"


def indices(node: ast.expr | ast.Slice, steps: list[str]) -> Iterator[Change]:
    """The step before or after, another loop's variable, a bound that is one off, a loop turned round."""
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple):
        array = ast.unparse(node.value)
        near = [*_near(node.slice), *(steps if isinstance(node.slice, ast.Name | ast.Constant | ast.UnaryOp) else ())]
        yield from (("index", f"{array}[{index}]") for index in near)
        if isinstance(node.value, ast.Subscript):  # x[t] for x[1:][t - 1]
            array = ast.unparse(node.value.value)
            yield from (("index", f"{array}[{index}]") for index in (ast.unparse(node.slice), *near))
    if isinstance(node, ast.Slice):
        low, high = (ast.unparse(b) if b else "" for b in (node.lower, node.upper))
        step = f":{ast.unparse(node.step)}" if node.step else ""
        yield from (
            ("index", f"{new}:{high}{step}") for new in ("", *(_near(node.lower) if node.lower else ("1", "-1")))
        )
        yield from (
            ("index", f"{low}:{new}{step}") for new in ("", *(_near(node.upper) if node.upper else ("1", "-1")))
        )
        if low and not high:
            yield "index", f":-({low})"
        if high.startswith("-") and not low:
            yield "index", f"{high[1:]}:"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("range", "zip", "enumerate"):
        yield "index", f"reversed({ast.unparse(node)})"
        arguments = [ast.unparse(a) for a in node.args]
        for n, bound in enumerate(node.args if node.func.id == "range" else ()):
            for new in _near(bound):
                yield "index", f"range({', '.join([*arguments[:n], new, *arguments[n + 1 :]])})"
        if node.func.id == "range" and len(arguments) == 2:
            yield "index", f"range({arguments[1]})"


def _near(node: ast.expr) -> list[str]:
    x = ast.unparse(node)
    if isinstance(node, ast.Constant):
        return [str(node.value + k) for k in (-1, 1, 2)] if type(node.value) is int else []
    if isinstance(node, ast.UnaryOp):
        return ["0", "-2", x.lstrip("-")]
    one = [f"{x} - 1", f"{x} + 1"]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) and ast.unparse(node.right) == "1":
        inner = ast.unparse(node.left)
        return [inner, f"{inner} - 1", f"{inner} + 1", *one]
    return one if isinstance(node, ast.Name | ast.BinOp | ast.Call) else []
