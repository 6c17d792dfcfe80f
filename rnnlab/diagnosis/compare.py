"""Two forward passes side by side: the same search, with the reference's values in the place of exact gradients."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.forward import missing_repair
from rnnlab.diagnosis.report import Diagnosis, Finding, listing
from rnnlab.diagnosis.search import Search
from rnnlab.diagnosis.source import executed, sources
from rnnlab.diagnosis.wanted import Wanted
from rnnlab.proof.case import Arrays, Case, random_bias


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

    def on(one: Cell, x: object, state: object) -> Arrays:
        tape = one.forward(np.array(x), np.array(state))
        gates = {f"gates[{name}]": tape.gate(name) for name in one.gate_names}
        return gates | {f"states[{name}]": tape.states[1:, k] for k, name in enumerate(one.state_names)}

    def pair(rng: np.random.Generator, T: int) -> tuple[Case, Arrays]:
        x = rng.normal(size=(T, B, cell.input_size))
        state = rng.normal(size=(len(cell.state_names), B, cell.hidden_size))
        case = Case(title, {}, lambda name, value: 0.0, lambda: None, lambda record, scale: on(cell, x, state))
        return case, on(reference, x, state)

    try:
        with np.errstate(all="ignore"):
            for case, exact in (pair(rng, 1), pair(rng, max(T, 2))):
                values, codes = executed(partial(case.back, None, 1.0))
                if isinstance(values, Exception):
                    raise values
                other, values_there = pair(rng, T + 1)
                search = Search(case, exact, sources(codes), partial(_same, other, Wanted(values_there)))
                wrong = search.wanted.names(search.wrong(search.wanted.vector(values)))
                if wrong:
                    return Diagnosis(title, (_finding(search, wrong, values, exact),), notes)
    except Exception as error:  # a learner's code may raise anything
        what = f"The forward pass raises {type(error).__name__}: {error}."
        return Diagnosis(title, (Finding("exception", what, outputs=("the forward pass",)),), notes)
    return Diagnosis(title, (), notes)


def _same(case: Case, wanted: Wanted, _: object) -> bool:
    """Whether a repaired forward pass has these values too."""
    return bool(np.abs(wanted.vector(case.back(None, 1.0)) - wanted.exact).max() < 1e-9)


def _finding(search: Search, wrong: list[str], values: Arrays, exact: Arrays) -> Finding:
    """The line that makes the difference; without one, the first array that differs (the states follow from gates)."""
    repair = search.repair() or missing_repair(search)
    if repair is not None:
        return replace(repair.finding, outputs=tuple(wrong))
    name = wrong[0]
    index = np.unravel_index(np.argmax(np.abs(values[name] - exact[name])), exact[name].shape)
    t = next(t for t in range(len(exact[name])) if not np.allclose(values[name][t], exact[name][t], atol=1e-9))
    numbers = f"{name} {list(map(int, index))} is {values[name][index]:.6g}; the reference has {exact[name][index]:.6g}"
    what = f"{listing(wrong)} differ from the reference from t = {t + 1} on, and no small edit was found."
    return Finding("unexplained", what, outputs=tuple(wrong), numbers=numbers)
