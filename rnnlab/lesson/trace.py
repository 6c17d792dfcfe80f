"""A cell's own method run line by line from its source, so that what is explained is what is computed."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.ops import Array


@dataclass(frozen=True)
class Line:
    """One equation, `name` = `formula`, with the values and labels of the formula's names at that moment.

    `item` of `items` numbers the gate where one formula computes several; a formula of None means given.
    """

    name: str
    formula: ast.expr | None
    value: Array
    known: dict[str, Any] = field(default_factory=dict, repr=False)
    labels: dict[str, str] = field(default_factory=dict, repr=False)
    item: int | None = None
    items: int = 1


class Trace:
    """`lines`, the assignments of one method of `cell` on `arguments`, and what it returned.

    Raises OSError where the source cannot be read.
    """

    def __init__(self, cell: Cell, method: Callable[..., Any], **arguments: Array) -> None:
        function: Any = getattr(method, "__func__", method)
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise OSError(f"{method}: expected a function that starts with def")
        first, *others = (argument.arg for argument in tree.args.args)
        self.cell, self.gates = cell, cell.gate_names
        self.lines: list[Line] = []
        self.returned: list[Any] = []
        self.formulas: list[ast.expr] = []  # of what is returned
        self.known = function.__globals__ | inspect.getclosurevars(function).nonlocals | {first: cell}
        self.known |= dict(zip(others, arguments.values(), strict=True))
        self.roles = dict(zip(others, arguments, strict=True))  # the learner may name the arguments freely
        stored = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        self.reused = {name for name in stored if stored.count(name) > 1}
        self.labels = {code: f"dL/da[{gate}]" for code, gate in zip(_pre_activations(tree), self.gates, strict=False)}
        for statement in tree.body:
            self._run(statement)

    def _run(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Tuple):
            self.formulas = statement.value.elts
            self.returned = [evaluate(formula, self.known) for formula in self.formulas]
            return
        self.before = dict(self.known), dict(self.labels)  # all values are computed before any name is replaced
        exec(compile(ast.Module([statement], []), "<step>", "exec"), self.known)
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self._assigned(statement.targets[0], statement.value)
        elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
            old = ast.Name(statement.target.id, ast.Load())
            self._assigned(statement.target, ast.BinOp(old, statement.op, statement.value))

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        """Take tuples apart: one line for each name, and for each gate where an array holds all gates."""
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._assigned(one, its)
        elif isinstance(target, ast.Tuple):
            role = self.roles.get(value.id, "") if isinstance(value, ast.Name) else ""
            for n, one in enumerate(target.elts):
                if isinstance(one, ast.Name) and one.id != "_":
                    self._line(one.id, None if role not in ("", "a") else value, n, len(target.elts), role)
        elif isinstance(target, ast.Name) and target.id != "_" and not isinstance(value, ast.Tuple):
            result = self.known[target.id]
            if np.ndim(result) == 3 and len(result) == len(self.gates):
                for n in range(len(self.gates)):
                    self._line(target.id, value, n, len(self.gates))
            elif isinstance(result, np.ndarray):
                self._line(target.id, value)

    def _line(self, code: str, formula: ast.expr | None, n: int | None = None, items: int = 1, role: str = "") -> None:
        label, state = self.labels.get(code, code), self.cell.state_names
        if role == "prev":
            label = f"{code}_{{t-1}}"
        elif role == "d_next":
            label = f"dL/d{state[n or 0]}_t"
        elif label.startswith("dL/d") and label.endswith("_t"):
            label = "δ" + label[4:]  # the textbook's: the path within this step is added
        elif label.endswith("_{t-1}") or label.startswith("a["):
            label = code
        elif n is not None and items == len(self.gates) and code in self.reused and not isinstance(formula, ast.Call):
            label = f"a[{self.gates[n]}]"  # i, f, g, o = a + h @ W_h: not yet the gates
        elif code.startswith("d_") and label == code:
            label = f"dL/d{code[2:]}"
        self.labels[code] = label
        value = self.known[code]
        if value.ndim == 3 and n is not None:
            value, label = value[n], f"{label}[{self.gates[n]}]"
        self.lines.append(Line(label, formula, value, *self.before, n, items))


def _pre_activations(tree: ast.FunctionDef) -> list[str]:
    """The code's names of dL/da of each gate: the first thing that `step_backward` returns, a tuple of names."""
    if len(tree.args.args) < 5:
        return []
    returned = next((s.value for s in tree.body if isinstance(s, ast.Return)), None)
    first = returned.elts[0] if isinstance(returned, ast.Tuple) and returned.elts else None
    for s in reversed(tree.body if isinstance(first, ast.Name) else []):
        if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == ast.unparse(first or s):
            first = s.value
    return [ast.unparse(e) for e in first.elts] if isinstance(first, ast.Tuple) else []


def evaluate(formula: ast.expr, known: dict[str, Any]) -> Any:
    """The value of one expression of the source, with the values that its names had there."""
    with np.errstate(all="ignore"):
        whole = ast.fix_missing_locations(ast.Expression(formula))
        return eval(compile(whole, "<step>", "eval"), dict(known))
