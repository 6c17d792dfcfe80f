"""Forward passes: one beside its reference, and one that does not belong to its backward pass.

Both are searched like a backward pass. Beside a reference the wanted values are the reference's gates and states.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.edits import Edit, call_edits, expression_edits, operand_edits
from rnnlab.diagnosis.operands import operands_at, simple_operands
from rnnlab.diagnosis.report import Diagnosis, Finding, listing
from rnnlab.diagnosis.search import Search
from rnnlab.diagnosis.source import Source, executed, sources
from rnnlab.diagnosis.trials import Repair, Wanted
from rnnlab.proof.case import Arrays, Case, random_bias
from rnnlab.proof.exact import SAME, agrees

ACTIVATIONS = ("np.tanh", "sigmoid", "relu", "rl.ops.sigmoid", "rl.ops.relu")


def compare_cells(cell: Cell, reference: Cell, T: int, B: int, rng: np.random.Generator) -> Diagnosis:
    """Gate by gate and state by state, on the same parameters and numbers."""
    title = f"{cell!r} against {reference!r}"
    different = [
        f"{name} {getattr(cell, name)} and {getattr(reference, name)}"
        for name in ("gate_names", "state_names", "input_size", "hidden_size")
        if getattr(cell, name) != getattr(reference, name)
    ]
    if different:
        what = f"The two cells cannot be compared: {'; '.join(different)}."
        return Diagnosis(title, (Finding("another interface", what, outputs=("cell",)),))
    cell, reference = copy.deepcopy(cell), copy.deepcopy(reference)
    common = [name for name, p in cell.params.items() if p.shape == getattr(reference.params.get(name), "shape", None)]
    rest = f"only {listing(common)} are parameters of both; the others keep their own values"
    notes = () if set(common) == set(cell.params) == set(reference.params) else (rest,)
    drawn = {name: random_bias(cell.params[name], rng) for name in common}
    cell = cell.with_params(dict(cell.params) | drawn)
    reference = reference.with_params(dict(reference.params) | drawn)

    def pair(T: int) -> tuple[Case, Arrays]:
        """The cell's forward pass as what is claimed, and the reference's values."""
        x = rng.normal(size=(T, B, cell.input_size))
        state = rng.normal(size=(len(cell.state_names), B, cell.hidden_size))

        def values(one: Cell) -> Arrays:
            tape = one.forward(x.copy(), state.copy())
            gates = {f"gates[{name}]": tape.gate(name) for name in one.gate_names}
            return gates | {f"states[{name}]": tape.states[1:, k] for k, name in enumerate(one.state_names)}

        return Case(title, {}, lambda name, value: 0.0, lambda: None, lambda *_: values(cell)), values(reference)

    try:
        with np.errstate(all="ignore"):
            for steps in (1, max(T, 2)):
                case, exact = pair(steps)
                values, codes = executed(partial(case.back, None, 1.0))
                if isinstance(values, Exception):
                    raise values
                other, wanted = pair(T + 1)
                search = Search(case, exact, sources(codes), partial(_has_values, other, Wanted(wanted)))
                if wrong := search.wanted.names(search.wrong(search.wanted.vector(values))):
                    repair = search.repair() or _missing(search)
                    finding = repair.finding if repair else _first_difference(wrong, values, exact)
                    return Diagnosis(title, (replace(finding, outputs=tuple(wrong)),), notes)
    except Exception as error:  # a learner's code may raise anything
        what = f"The forward pass raises {type(error).__name__}: {error}."
        return Diagnosis(title, (Finding("exception", what, outputs=("the forward pass",)),), notes)
    return Diagnosis(title, (), notes)


def _has_values(case: Case, wanted: Wanted, _: object) -> bool:
    """Whether a repaired forward pass has these values too."""
    return bool(np.abs(wanted.vector(case.back(None, 1.0)) - wanted.exact).max() < 1e-9)


def _missing(search: Search) -> Repair | None:
    """What a forward pass lacks beside its reference: an activation, a term."""
    search.runs, pairs = 0, search.pairs(False)
    terms = [(pair, list(simple_operands(operands_at(pair[0], search.scopes(*pair)[:1])))) for pair in pairs]
    products = [(pair, [f"{a} @ {b}" for a in row for b in row if b.startswith("self.")] + row) for pair, row in terms]
    return search.tried(e for pair in pairs for e in call_edits(*pair, ACTIVATIONS, wrap=True)) or search.tried(
        e for pair, row in products for e in operand_edits(*pair, row, "missing term")
    )


def _first_difference(wrong: Sequence[str], values: Arrays, exact: Arrays) -> Finding:
    """The first array that differs: the states follow from the gates."""
    name = wrong[0]
    index = np.unravel_index(np.argmax(np.abs(values[name] - exact[name])), exact[name].shape)
    t = next(t for t in range(len(exact[name])) if not np.allclose(values[name][t], exact[name][t], atol=1e-9))
    numbers = f"{name} {list(map(int, index))} is {values[name][index]:.6g}; the reference has {exact[name][index]:.6g}"
    what = f"{listing(wrong)} differ from the reference from t = {t + 1} on, and no small edit was found."
    return Finding("unexplained", what, numbers=numbers)


def forward_repair(
    case: Case, functions: Sequence[Source], method: str, wrong: Sequence[str], factors: bool
) -> Repair | None:
    """An edit of the forward pass after which the backward pass, as it is, gives the right gradients.

    With `factors` it may be a factor too, where the backward pass is not the learner's own.
    """
    if not functions:
        return None
    rng = np.random.default_rng(1)
    names = [name for name in (*wrong, *case.inputs) if not name.startswith("states[") or name == "states[0]"]
    other, reaching = case.remake(rng, False) if case.remake else case, case.claims()

    def right(case: Case) -> bool:
        claims = case.claims()
        for name in names:
            if case is not other and np.count_nonzero(claims[name]) != np.count_nonzero(reaching[name]):
                return False  # less is compared than before
            if not agrees(claims[name], *case.along(name, method, rng), 10 * SAME):
                return False
        return True

    asked = Case(case.target, {}, case.loss, lambda: None, lambda *_: {"right": np.ones(1) * right(case)})
    search = Search(asked, {"right": np.ones(1)}, functions, lambda _: right(other))

    def edits() -> Iterator[Edit]:
        pairs = search.pairs()
        calls = {n.func for s in functions for n in ast.walk(s.tree) if isinstance(n, ast.Call) and len(n.args) == 1}
        known = sorted({f.id for f in calls if isinstance(f, ast.Name)} | {"sigmoid", "np.tanh"})
        yield from (edit for pair in pairs for edit in call_edits(*pair, known))
        small = [e for pair in pairs for e in expression_edits(*pair) if "> 0" not in e.text]
        yield from (e for e in small if e.kind in ("exchanged", "left out"))
        for pair in pairs:
            operands = simple_operands(operands_at(pair[0], search.scopes(*pair)[:1]))
            yield from operand_edits(*pair, operands)
            yield from operand_edits(*pair, operands if factors else (), "missing factor")
        yield from (e for e in small if e.kind in ("operator", "sign"))

    return search.tried(edits())
