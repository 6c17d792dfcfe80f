"""The rules: what one expression could be instead, in one small step."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from itertools import combinations

Change = tuple[str, str]  # kind of the edit, text of the expression afterwards
OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.MatMult: "@", ast.Pow: "**"}
ORDER = (
    "left out",
    "sign",
    "operator",
    "missing factor",
    "slope",
    "exchanged",
    "transpose",
    "brackets",
    "index",
    "option",
)
OPERANDS = (ast.Name, ast.Subscript, ast.Attribute)


def is_stored(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def rules(node: ast.expr | ast.Slice) -> Iterator[Change]:
    """What one expression could be instead."""
    if isinstance(node, ast.Slice) or is_stored(node):
        return
    x = f"({ast.unparse(node)})"
    yield from _exchanges(node)
    if isinstance(node, ast.BinOp):
        a, b, sign = f"({ast.unparse(node.left)})", f"({ast.unparse(node.right)})", OPERATORS.get(type(node.op), "+")
        yield from (("left out", a), ("left out", b))
        if sign in "+-*/":
            signs = sign in "+-"
            yield from (("sign" if signs and o in "+-" else "operator", f"{a} {o} {b}") for o in "+-*/" if o != sign)
        if sign in "-/@":
            yield "sign" if sign == "-" else "operator", f"{b} {sign} {a}"
        if sign == "**":
            yield "operator", f"{a} ** {3 if b == '(2)' else 2}"
        yield from _slopes(node)
        yield from (("brackets", text) for text in _brackets(node, sign))
    elif isinstance(node, ast.Call):
        yield from (("left out", ast.unparse(arg)) for arg in node.args if not isinstance(arg, ast.Starred))
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) not in ("np", "numpy", "self"):
            yield "left out", ast.unparse(node.func.value)
        yield from (("option", ast.unparse(call)) for call in _options(node))
        if len(node.args) == 1 and isinstance(inner := node.args[0], ast.BinOp) and type(inner.op) in OPERATORS:
            f, sign = ast.unparse(node.func), OPERATORS[type(inner.op)]
            yield "brackets", f"{f}({ast.unparse(inner.left)}) {sign} ({ast.unparse(inner.right)})"
    elif isinstance(node, ast.IfExp):
        yield from (("left out", ast.unparse(part)) for part in (node.body, node.orelse))
    elif isinstance(node, ast.UnaryOp):
        yield "left out", ast.unparse(node.operand)
    elif isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "T"):
        yield "left out", ast.unparse(node.value)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        a, b = ast.unparse(node.left), ast.unparse(node.comparators[0])
        yield from (("left out", a), ("operator", f"({a}) > ({b})"), ("operator", f"({a}) < ({b})"))
    if isinstance(node, (*OPERANDS, ast.BinOp, ast.Call)):
        yield "sign", f"-{x}"
    if isinstance(node, (*OPERANDS, ast.Call)):
        yield from (("operator", f"{x} ** 2"), ("operator", f"1 - {x}"), ("operator", f"1 - {x} ** 2"))
        text = ast.unparse(node)
        yield from ((f"missing factor|(1 - {text})", f"{x} * (1 - {x})"), ("operator", f"({x} > 0)"))
    if isinstance(node, OPERANDS):
        yield from (("transpose", f"{x}.T"), ("index", f"{x}[::-1]"))
        axes = ("axis=0", "axis=1", "axis=1, keepdims=True", "axis=(0, 1)")
        yield from (("option", f"{x}.sum({axis})") for axis in axes)


def _exchanges(node: ast.expr) -> Iterator[Change]:
    """Two elements of a tuple or a list, two arguments, two indices, two neighbouring letters of einsum's text."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Subscript):
        first, second = ast.unparse(node.value.slice), ast.unparse(node.slice)
        yield f"exchanged|{first} and {second}", f"{ast.unparse(node.value.value)}[{second}][{first}]"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        letters = node.value
        for n in range(len(letters) - 1):
            if letters[n : n + 2].isalpha():
                text = letters[:n] + letters[n + 1] + letters[n] + letters[n + 2 :]
                yield f"exchanged|{letters[n]} and {letters[n + 1]}", repr(text)
    row = "args" if isinstance(node, ast.Call) else "elts"
    elements = getattr(node, row, [])
    for i, j in combinations(range(len(elements)), 2):
        new, turned = copy.copy(node), list(elements)
        turned[i], turned[j] = elements[j], elements[i]
        setattr(new, row, turned)
        yield f"exchanged|{ast.unparse(elements[i])} and {ast.unparse(elements[j])}", ast.unparse(new)


def _slopes(node: ast.BinOp) -> Iterator[Change]:
    """... * (1 - g**2), the slope of a tanh, for ... * g * (1 - g), that of a sigmoid."""
    factors = _factors(node)
    for g in factors:
        if (one_minus := f"(1 - {g.strip('()')})") in factors:
            rest = [f for f in factors if f not in (g, one_minus)]
            yield f"slope|{g.strip('()')}", " * ".join([*rest, f"(1 - {g} ** 2)"])


def _brackets(node: ast.BinOp, sign: str) -> Iterator[str]:
    """(a + b) c for a + b c and back, f(a) b for f(a b), and a - (b - c) for a - b - c."""
    a, b = f"({ast.unparse(node.left)})", f"({ast.unparse(node.right)})"
    if sign in "+-":
        for factors, right in ((_factors(node.right), True), (_factors(node.left), False)):
            for n in range(1, len(factors)):
                for inside, outside in ((factors[:n], factors[n:]), (factors[n:], factors[:n])):
                    part, rest = " * ".join(inside), " * ".join(outside)
                    yield f"{rest} * ({a} {sign} {part})" if right else f"{rest} * ({part} {sign} {b})"
    if sign == "*":
        factors = _factors(node)
        for n, text in enumerate(factors):
            factor = ast.parse(text, mode="eval").body
            if isinstance(factor, ast.BinOp) and isinstance(factor.op, ast.Add | ast.Sub):
                c, d, inner = (
                    f"({ast.unparse(factor.left)})",
                    f"({ast.unparse(factor.right)})",
                    OPERATORS[type(factor.op)],
                )
                rest = " * ".join(factors[:n] + factors[n + 1 :])
                yield from (f"{c} {inner} {d} * {rest}", f"{c} * {rest} {inner} {d}")
    for side, other, first in ((node.left, b, True), (node.right, a, False)):
        if isinstance(side, ast.BinOp) and type(side.op) is not type(node.op) and type(side.op) in OPERATORS:
            c, d, inner = f"({ast.unparse(side.left)})", f"({ast.unparse(side.right)})", OPERATORS[type(side.op)]
            yield f"{c} {inner} ({d} {sign} {b})" if first else f"({a} {sign} {c}) {inner} {d}"
        if isinstance(side, ast.Call) and len(side.args) == 1 and not side.keywords:
            f, inner = ast.unparse(side.func), f"({ast.unparse(side.args[0])})"
            yield f"{f}({inner} {sign} {other})" if first else f"{f}({other} {sign} {inner})"


def _factors(node: ast.expr) -> list[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        return _factors(node.left) + _factors(node.right)
    return [f"({ast.unparse(node)})"]


def _options(node: ast.Call) -> Iterator[ast.expr]:
    """Another axis of a sum, or none; the sum for the mean."""
    for n, keyword in enumerate(node.keywords):
        rest = node.keywords[:n] + node.keywords[n + 1 :]
        if keyword.arg != "out":
            yield ast.Call(node.func, node.args, rest)
        if keyword.arg == "axis":
            for text in ("0", "1", "-1", "(0, 1)"):
                value = ast.parse(text, mode="eval").body
                yield ast.Call(node.func, node.args, [*rest, ast.keyword("axis", value)])
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("mean", "sum"):
        other = ast.Attribute(node.func.value, "sum" if node.func.attr == "mean" else "mean", ast.Load())
        yield ast.Call(other, node.args, node.keywords)
        if not any(k.arg == "axis" for k in node.keywords):
            for axis in (0, 1):
                one = [*node.keywords, ast.keyword("axis", ast.Constant(axis))]
                yield ast.Call(node.func, node.args, one)
                yield ast.Call(node.func, node.args, [*one, ast.keyword("keepdims", ast.Constant(True))])


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
