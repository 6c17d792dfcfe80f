"""Operands: what has a name where an expression stands, and what these names hold each time it is computed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rnnlab.diagnosis.source import MOST_CALLS, Source, limited
from rnnlab.ops import Array
from rnnlab.proof.case import as_array

Values = dict[str, list[Array]]  # by the text of an expression, one array for each occurrence


def operands_at(source: Source, scopes: Sequence[Mapping[str, Any]]) -> Values:
    """The arrays that the learner's names hold at each occurrence: elements, attributes and neighbours in time too."""
    texts: dict[str, None] = {}
    for name, value in scopes[0].items():
        texts |= dict.fromkeys(_inside(name, value)) if name.isidentifier() else {}
    targets = [n.target for n in ast.walk(source.tree) if isinstance(n, ast.For)]
    loops = sorted({target.id for target in targets if isinstance(target, ast.Name)})
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Del):
            texts[ast.unparse(node)] = None
            texts |= dict.fromkeys(_other_parts(node)) if isinstance(node, ast.Subscript) else {}
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Tuple | ast.Slice):
                for step in (n.id for n in ast.walk(node.slice) if isinstance(n, ast.Name)):
                    for array in {ast.unparse(node.value), _root(node)}:
                        texts |= {f"{array}[{near}]": None for near in (step, f"{step} - 1", f"{step} + 1")}
                texts |= {f"{ast.unparse(node.value)}[{other}]": None for other in loops}
        elif isinstance(node, ast.BinOp | ast.Call) and _pure(node):
            texts[ast.unparse(node)] = None
    deep = [name for name, v in scopes[0].items() if isinstance(v, np.ndarray) and v.ndim > 2 and name.isidentifier()]
    texts |= {f"{name}[{axes}{step}]": None for name in deep for step in loops for axes in ("", ":, ")}
    found: Values = {}
    every = [{**source.function.__globals__, **scope} for scope in scopes]
    for text in sorted(texts, key=lambda t: (not t.isidentifier(), "(" in t)):
        code = compile(text, "", "eval")
        try:
            with limited(MOST_CALLS // 100):
                values = [as_array(eval(code, scope)) for scope in every]
        except Exception:  # not defined there, no such index, or no numbers
            continue
        shape = next((v.shape for v in values if v.dtype.kind == "f"), ())
        if shape:  # a sum begins at the whole number 0
            values = [np.zeros(shape) if v.dtype.kind == "i" and v.ndim == 0 and not v else v for v in values]
        if all(v.dtype.kind == "f" and v.ndim <= 4 and v.size for v in values):
            found[text] = [np.array(v) for v in values]
    return found


def _other_parts(node: ast.Subscript) -> Iterator[str]:
    """What a slice leaves: a[:, H:] of a[:, :H]."""
    row = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for n, part in enumerate(row):
        if isinstance(part, ast.Slice) and part.step is None:
            for rest in (part.lower and f":{ast.unparse(part.lower)}", part.upper and f"{ast.unparse(part.upper)}:"):
                if rest:
                    index = [*map(ast.unparse, row[:n]), rest, *map(ast.unparse, row[n + 1 :])]
                    yield f"{ast.unparse(node.value)}[{', '.join(index)}]"


def _inside(text: str, value: Any, depth: int = 2) -> Iterator[str]:
    """A name, and the elements and attributes of what it holds."""
    if isinstance(value, np.ndarray):
        yield text
        yield from (f"{text}[{k}]" for k in range(min(len(value), 8)) if value.ndim > 2)
    elif isinstance(value, Mapping) and depth:
        for key in list(value)[:40]:
            yield from _inside(f"{text}[{key!r}]", value[key], depth - 1)
    elif isinstance(value, tuple | list) and depth:
        for k, element in enumerate(value[:12]):
            yield from _inside(f"{text}[{k}]", element, depth - 1)
    elif depth and hasattr(value, "__dict__") and not inspect.ismodule(value) and not inspect.isclass(value):
        params = getattr(value, "params", {})
        for name, inner in {**(params if isinstance(params, Mapping) else {}), **vars(value)}.items():
            if not name.startswith("_"):
                yield from _inside(f"{text}.{name}", inner, depth - 1)


def simple_operands(operands: Values) -> Values:
    """The names, elements and attributes among these texts, one for each value, the shortest."""
    kinds, found, seen = (ast.Name, ast.Subscript, ast.Attribute), {}, set()
    for text in sorted(operands, key=lambda w: (len(w), w)):
        key = str(operands[text][0].shape).encode() + b"".join(v.tobytes() for v in operands[text])
        if key not in seen and isinstance(ast.parse(text, mode="eval").body, kinds):
            seen.add(key)
            found[text] = operands[text]
    return found


def integer_operands(source: Source, scopes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of the function that hold arrays, lists or elements of whole numbers: classes, positions."""
    nodes = [n for n in ast.walk(source.tree) if isinstance(n, ast.Name | ast.Subscript | ast.Attribute)]
    found, names = [], {**source.function.__globals__, **scopes[0]}
    for text in sorted({ast.unparse(n) for n in nodes}):
        try:
            value = as_array(eval(text, names))
        except Exception:  # not defined there, or no numbers
            continue
        if value.dtype.kind == "i" and value.ndim <= 2 and "shape" not in text and (value.ndim or "[" in text):
            found.append(text)
    return found


def whole_numbers(scopes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Whole numbers by the text that gives them: `T`, `len(x)`, `x.shape[0]`."""
    found = {name: int(v) for name, v in scopes[0].items() if type(v) is int or isinstance(v, np.integer)}
    found = {name: v for name, v in found.items() if v > 1}
    for name, value in scopes[0].items():
        if isinstance(value, np.ndarray) and name.isidentifier():
            found |= {f"{name}.shape[{k}]": n for k, n in enumerate(value.shape) if n > 1}
            found |= {f"{name}.size": value.size} if value.ndim > 1 and value.size > 1 else {}
        elif isinstance(value, list | tuple) and len(value) > 1:
            found[f"len({name})"] = len(value)
    return found


def _root(node: ast.expr) -> str:
    """The name of the array that is indexed: hs of hs[1:][t - 1]."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return ast.unparse(node)


def _pure(node: ast.expr) -> bool:
    """Arithmetic and functions of NumPy alone, of moderate length: it can be evaluated once more."""
    calls = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    known = all(isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "np" for f in calls)
    return (
        known and sum(1 for _ in ast.walk(node)) <= 24 and not any(isinstance(n, ast.keyword) for n in ast.walk(node))
    )
