"""One step of a cell with the numbers put in: typeset in a notebook, plain in a terminal."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnlab.cells.base import Arrays, Cell
from rnnlab.lesson.trace import Line, Trace, evaluate
from rnnlab.ops import Array
from rnnlab.validate import describe, float_array, to_array

_SIGNS = {ast.Add: ("+", 1), ast.Sub: ("-", 1), ast.Mult: ("*", 2), ast.MatMult: ("@", 2), ast.Div: ("/", 2)}
_SIGNS_TEX = {"*": r"\odot", "@": r"\,"}
_BACK = {"back": "W_h", "back_to_x": "W_x"}  # `Cell.back`, and the same for the input
# The Greek letter is meant.
_FUNCTIONS = {"sigmoid": "σ", "logistic": "σ"}  # noqa: RUF001


@dataclass(frozen=True)
class StepExplanation:
    """What `explain_step` found: `forward` and `backward` are lines with a `name`, a `formula` and a `value`.

    `gates` says which line computes which gate, and `values` looks a line's number up by its name. `str`
    of it is plain text; a notebook typesets it.
    """

    cell: str
    gate_names: tuple[str, ...]
    gates: dict[str, str]
    forward: tuple[Line, ...]
    backward: tuple[Line, ...] = ()

    @property
    def values(self) -> dict[str, Array]:
        """The last value of each name, (H,) as a rule: `values["c_t"]`, `values["dL/dh_{t-1}"]`."""
        return {line.name: line.value[0] for line in (*self.forward, *self.backward)}

    def __str__(self) -> str:
        width = max(len(one.name) for one in (*self.forward, *self.backward))
        text = []
        for title, lines in self._passes():
            text.append(f"{self.cell}: one step {title}")
            for line in lines:
                parts = enumerate(self._parts(line, False))
                text += [f"    {'' if n else line.name:{width}} = {part}" for n, part in parts]
        return "\n".join(text)

    __repr__ = __str__

    def _passes(self) -> list[tuple[str, tuple[Line, ...]]]:
        """The passes that were explained, by name."""
        return [(name, lines) for name, lines in (("forward", self.forward), ("backward", self.backward)) if lines]

    def _parts(self, line: Line, tex: bool) -> list[str]:
        """Formula, formula with numbers, value: the same text twice in a row stands once."""
        parts = [number(line.value, tex)]
        if line.formula is not None:
            texts = Writer(line, self.gate_names, tex)
            parts = [texts.of(line.formula, False), texts.of(line.formula, True), *parts]
        return [part for n, part in enumerate(parts) if n == 0 or part != parts[n - 1]]

    def _repr_latex_(self) -> str:
        blocks = []
        for title, lines in self._passes():
            rows = [rf"{label(line.name, True)} &= " + r" \\ &= ".join(self._parts(line, True)) for line in lines]
            heading = rf"\text{{{self.cell}, one step {title}}} & \\"
            blocks.append("$$\\begin{aligned}\n" + heading + "\n" + " \\\\\n".join(rows) + "\n\\end{aligned}$$")
        return "\n\n".join(blocks)


class Writer:
    """One line's formula as text, with names or with numbers."""

    def __init__(self, line: Line, gates: Sequence[str], tex: bool) -> None:
        self.line, self.gates, self.tex = line, gates, tex

    def of(self, e: ast.expr, numbers: bool, outer: int = 0) -> str:
        """The expression's text; one that binds less than `outer` gets parentheses."""
        if isinstance(e, ast.IfExp):
            return self.of(e.body if evaluate(e.test, self.line.known) else e.orelse, numbers, outer)
        if isinstance(e, ast.BinOp) and type(e.op) in _SIGNS:
            sign, level = _SIGNS[type(e.op)]
            shown = _SIGNS_TEX.get(sign, sign) if self.tex else sign
            text = f"{self.of(e.left, numbers, level)} {shown} {self.of(e.right, numbers, level + 1)}"
            return f"({text})" if level < outer else text
        if isinstance(e, ast.BinOp) and isinstance(e.op, ast.Pow):
            base, power = self.of(e.left, numbers, 5), self.of(e.right, numbers, 5)
            return f"{{{base}}}^{{{power}}}" if self.tex else f"{base}**{power}"
        if isinstance(e, ast.UnaryOp) and isinstance(e.op, ast.USub):
            return f"-{self.of(e.operand, numbers, 3)}"
        if isinstance(e, ast.Call):
            return self._call(e, numbers)
        if isinstance(e, ast.Constant):
            return str(e.value)
        return self._leaf(e, numbers)

    def _call(self, e: ast.Call, numbers: bool) -> str:
        name = ast.unparse(e.func).split(".")[-1]
        owner = evaluate(e.func.value, self.line.known) if isinstance(e.func, ast.Attribute) else None
        if name in _BACK and isinstance(owner, Cell):
            return self._back(_BACK[name], owner, evaluate(e.args[0], self.line.known), numbers)
        arguments = ", ".join(self.of(a, numbers) for a in e.args)
        shown = _FUNCTIONS.get(name, name)
        if self.tex:
            shown = r"\sigma" if name in _FUNCTIONS else rf"\operatorname{{{name}}}"
            bracketed = arguments.startswith(r"\begin{p") and arguments.find(r"\end{p") == len(arguments) - 13
            return rf"{shown}{arguments}" if bracketed else rf"{shown}\left({arguments}\right)"
        return f"{shown}({arguments})"

    def _back(self, weights: str, cell: Cell, d_a: Sequence[Array], numbers: bool) -> str:
        """The sum over k of dL/da[k] W[k]^T, written out."""
        turned, times = ("^{T}", r" \, ") if self.tex else (".T", " @ ")
        terms = []
        for gate, d, W in zip(self.gates, d_a, cell.params[weights], strict=True):
            names = label(f"dL/da[{gate}]", self.tex), label(f"{weights}[{gate}]", self.tex) + turned
            terms.append(times.join((number(d, self.tex), number(W.T, self.tex)) if numbers else names))
        return (r" \\ &\quad + " if self.tex and numbers else " + ").join(terms)

    def _leaf(self, e: ast.expr, numbers: bool) -> str:
        """A name, a parameter of the cell, or a piece of one; of several gates the one that this line is about."""
        value, base, chosen = evaluate(e, self.line.known), e, range(len(self.gates))
        transposed = isinstance(e, ast.Attribute) and e.attr in ("T", "mT")
        if transposed:
            # `transposed` says that this is an attribute, which has a value.
            base = e.value  # type: ignore[attr-defined]
        one = None
        if isinstance(base, ast.Subscript):
            index, base = evaluate(base.slice, self.line.known), base.value
            if isinstance(index, slice):
                chosen = chosen[index]
            elif isinstance(index, (int, np.integer)):
                one = self.gates[int(index)]
        if np.ndim(value) == 3 and self.line.item is not None and len(value) == self.line.items == len(chosen):
            value, one = value[self.line.item], self.gates[chosen[self.line.item]]
        if numbers:
            return number(np.asarray(value), self.tex)
        code = base.attr if isinstance(base, ast.Attribute) else ast.unparse(base)
        text = label(self.line.labels.get(code, code) + (f"[{one}]" if one else ""), self.tex)
        return text + ("" if not transposed else "^{T}" if self.tex else ".T")


def label(name: str, tex: bool) -> str:
    """A variable's name as it is shown: `dL/dc_t` becomes a fraction, a gate's name stands upright."""
    if not tex:
        return name
    if name.startswith("dL/d"):
        return rf"\frac{{\partial L}}{{\partial {label(name[4:], True)}}}"
    name, _, gate = name.partition("[")
    base, _, below = name.partition("_")
    base = base if len(base) == 1 else rf"\delta {base[1:]}" if base[0] == "δ" else rf"\text{{{base}}}"
    text = base + (f"_{{{below.strip('{}')}}}" if below else "")
    return text + (rf"[\text{{{gate[:-1]}}}]" if gate else "")


def number(value: npt.ArrayLike, tex: bool) -> str:
    """A row, a matrix or a number; of more than four columns or rows only the first four are shown."""
    value = np.asarray(value)
    if value.ndim > 2:
        return f"{value.shape}"
    if value.ndim == 0:
        return f"{value:.3g}"
    rows = [[f"{v:z.3f}" for v in row[:4]] + ["…"] * (len(row) > 4) for row in np.atleast_2d(value)[:4]]
    if np.atleast_2d(value).shape[0] > 4:
        rows.append(["…"])
    if tex:
        inside = r" \\ ".join(" & ".join(row) for row in rows).replace("…", r"\dots")
        return rf"\begin{{pmatrix}}{inside}\end{{pmatrix}}"
    return "[" + "; ".join(" ".join(row) for row in rows) + "]"


def explain_step(
    cell: Cell, x: npt.ArrayLike, state: npt.ArrayLike | None = None, d_next: npt.ArrayLike | None = None
) -> StepExplanation:
    """The equations of one step of `cell` with the numbers put in, and backward where `d_next` is given.

    The equations are the lines of the cell's own `step` and `step_backward`, a learner's too, each with
    names, with numbers, and its value. A cell whose source cannot be read is shown by the values that
    its `step` returns.

    Parameters
    ----------
    cell : best with D = H = 2: matrices are written out, up to four rows and columns
    x : (D,) or (1, D), the input of the step
    state : (S, H) or (S, 1, H), what enters the step; None for zeros
    d_next : (S, H) or (S, 1, H), dL/dstate_t, for its derivatives as well

    Returns
    -------
    `StepExplanation`: `print` it in a terminal; a notebook typesets it.

    Raises
    ------
    TypeError, ValueError
        For something that is no cell, and for arrays of other shapes.
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"cell: expected a Cell, got {describe(cell)}")
    S, H = len(cell.state_names), cell.hidden_size
    x = _floats("x", to_array("x", x).reshape(1, -1), (("B", 1), ("D", cell.input_size)), cell)
    prev = _state("state", np.zeros((S, 1, H)) if state is None else state, cell)
    tape = cell.forward(x[None], prev)  # complains about what does not fit
    a, K, project = x @ cell.W_x + cell.b, len(cell.gate_names), _formula("x @ self.W_x + self.b")
    lines = [Line("x_t", None, x)]
    for k, gate in enumerate(cell.gate_names):
        lines.append(Line(f"a[{gate}]", project, a[k], {"x": x, "self": cell}, {"x": "x_t"}, k, K))
    gates, extras = tape.gates[:, 0], tape.extras[:, 0]
    lines += _lines(cell, "step", (gates, tape.states[1]), a=a, prev=prev)
    named = zip(cell.gate_names, gates, strict=True)
    of_gate = {line.name: gate for gate, value in named for line in lines if np.array_equal(line.value, value)}
    if d_next is None:
        return StepExplanation(type(cell).__name__, cell.gate_names, of_gate, tuple(lines))
    d_next = _state("d_next", d_next, cell)
    d_a, d_prev, _ = cell.step_backward(d_next, prev, gates, extras)
    backward = _lines(cell, "step_backward", (d_a, d_prev), d_next=d_next, prev=prev, gates=gates, extras=extras)
    d_x = np.einsum("kbh,kdh->bd", np.stack(list(d_a)), cell.W_x)
    backward.append(Line("dL/dx_t", _formula("self.back_to_x(d_a)"), d_x, {"self": cell, "d_a": d_a}))
    return StepExplanation(type(cell).__name__, cell.gate_names, of_gate, tuple(lines), tuple(backward))


def _formula(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _state(name: str, value: npt.ArrayLike, cell: Cell) -> Array:
    array = to_array(name, value)
    axes = (("S", len(cell.state_names)), ("B", 1), ("H", cell.hidden_size))
    return _floats(name, array[:, None] if array.ndim == 2 else array, axes, cell)


def _floats(name: str, array: Array, axes: Iterable[tuple[str, int]], cell: Cell) -> Array:
    """Whole numbers typed by hand are meant as floats."""
    return float_array(name, array.astype(cell.dtype) if array.dtype.kind in "iuf" else array, axes, cell.dtype)


def _lines(cell: Cell, method: str, results: tuple[Arrays, Arrays], **arguments: Array) -> list[Line]:
    """The lines of the method's source and one for each state that it returns."""
    names = [f"{s}_t" for s in cell.state_names]
    if method == "step_backward":
        names = [f"dL/d{s}_{{t-1}}" for s in cell.state_names]
    try:
        trace = Trace(cell, getattr(cell, method), **arguments)
        pairs = zip(trace.returned[:2], results, strict=True)
        agree = all(np.array_equal(np.stack(list(one)), np.stack(list(two))) for one, two in pairs)
    except Exception:  # the source is missing, or is more than plain assignments
        agree = False
    if agree:
        lines, last = trace.lines, trace.formulas[1]
        formulas = last.elts if isinstance(last, ast.Tuple) else [None] * len(names)
        known, labels = trace.known, trace.labels
    else:
        all_names = cell.gate_names if method == "step" else tuple(f"dL/da[{gate}]" for gate in cell.gate_names)
        lines = [Line(name, None, value) for name, value in zip(all_names, results[0], strict=True)]
        formulas, known, labels = [None] * len(names), {}, {}
    ends = zip(names, formulas, results[1], strict=True)
    return [*lines, *(Line(name, formula, np.asarray(value), known, labels) for name, formula, value in ends)]
