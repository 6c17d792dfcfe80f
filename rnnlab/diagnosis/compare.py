"""Two forward passes side by side: where they part, and by what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.case import (
    COMPLEX,
    enough_rows,
    own_vectors,
    private_copy,
    random_params,
    step_values,
    step_vocabulary,
    with_values,
)
from rnnlab.diagnosis.report import Diagnosis, Finding, listing, raised, sentence
from rnnlab.diagnosis.step import Explanation, is_right, of_ratio, show_numbers
from rnnlab.diagnosis.terms import Vocabulary, match, residual
from rnnlab.ops import Array, relu, sigmoid

SAME = 1e-9
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "sigmoid": (sigmoid, lambda v: np.log(v / (1 - v))),
    "tanh": (np.tanh, np.arctanh),
    "relu": (relu, lambda v: np.full_like(v, np.nan)),
    "no activation": (np.asarray, np.asarray),
}  # each with its inverse


def compare_cells(cell: Cell, reference: Cell, T: int, B: int, rng: np.random.Generator) -> Diagnosis:
    """Gate by gate and state by state, one step on the same numbers; then whole sequences."""
    target = f"{cell!r} against {reference!r}"
    different = [
        f"{name} {getattr(cell, name)} and {getattr(reference, name)}"
        for name in ("gate_names", "state_names", "input_size", "hidden_size")
        if getattr(cell, name) != getattr(reference, name)
    ]
    if different:
        told = f"The two cells cannot be compared: {'; '.join(different)}."
        return Diagnosis(target, (Finding(("cell",), (), "another interface", told, 0.0),))
    shapes, theirs = ({name: p.shape for name, p in c.params.items()} for c in (cell, reference))
    common = [name for name in shapes if shapes[name] == theirs.get(name)]
    own = f"only {listing(common)} are parameters of both; the others keep values of their own"
    notes = () if shapes == theirs else (own,)
    cell, reference = (random_params(private_copy(c), rng) for c in (cell, reference))
    reference = with_values(reference, {name: cell.params[name] for name in common})
    try:
        with np.errstate(all="ignore"):
            findings = _compare_step(cell, reference, rng) or _compare_sequence(cell, reference, T, B, rng)
    except Exception as error:  # a learner's code may raise anything
        findings = [raised("the forward pass", error)]
    return Diagnosis(target, tuple(findings), notes)


def _compare_step(cell: Cell, reference: Cell, rng: np.random.Generator) -> list[Finding]:
    K, S, H = len(cell.gate_names), len(cell.state_names), cell.hidden_size
    rows = max(3, enough_rows(cell))
    a, prev = rng.normal(size=(K, rows, H)), rng.normal(size=(S, rows, H))
    gates, following, _ = step_values(cell, a, prev)
    true_gates, true_following, extras = step_values(reference, a, prev)
    # the vocabulary's "next" values are the reference's: what the equations should have given
    vocabulary = step_vocabulary(reference, prev, gates, true_following, extras, COMPLEX, own_vectors(cell))
    bases = {"": np.ones(prev.shape[1:])}
    bases |= {f"{name}_{{t-1}}": v for name, v in zip(cell.state_names, prev, strict=True)}
    findings = []
    for k, name in enumerate(cell.gate_names):
        if not is_right(gates[k], true_gates[k], SAME):
            others = {f"the gate {g}": true_gates[n] for n, g in enumerate(cell.gate_names) if n != k}
            why = _explain_gate(name, gates[k], true_gates[k], a[k], others, vocabulary, bases)
            findings.append(_finding(f"gates[{name}]", gates[k], true_gates[k], why))
    if findings:
        return findings  # the states follow from the gates
    for s in reversed(range(S)):  # h is made from the others
        claimed, exact, name = following[s], true_following[s], cell.state_names[s]
        follows = any(
            np.allclose(claimed * f(true_following[n]), exact * f(following[n]), rtol=1e-9)
            for n in range(s + 1, S)
            for f in (np.tanh, np.asarray)
        )
        if not is_right(claimed, exact, SAME) and not follows:
            ratio = vocabulary.ratio(claimed, exact)
            readings = [_read(array, vocabulary, bases, f"{name}_t") for array in (claimed, exact)]
            found = of_ratio(*ratio) if ratio else _of_readings(readings, "is {}, where the reference has {}")
            findings.append(_finding(f"next_state[{name}]", claimed, exact, found))
    return findings


def _compare_sequence(cell: Cell, reference: Cell, T: int, B: int, rng: np.random.Generator) -> list[Finding]:
    """Two forward passes whose steps agree: the first t at which they part."""
    S, H = len(cell.state_names), cell.hidden_size
    x, state = rng.normal(size=(T, B, cell.input_size)), rng.normal(size=(S, B, H))
    claimed, exact = (c.forward(x.copy(), state.copy()).states for c in (cell, reference))
    for t in range(T + 1):
        if not is_right(claimed[t], exact[t], SAME):
            until = f"states are the same up to t = {t - 1}, and part at t = {t}" if t else "they part at t = 0"
            told = f"One step agrees, but the forward passes do not: {until}."
            return [Finding(("states",), (), "unexplained", told, None, show_numbers(claimed[t], exact[t]))]
    return []


def _read(array: Array, vocabulary: Vocabulary, bases: dict[str, Array], without: str = "") -> tuple[str, float] | None:
    """The simplest reading as one term or the sum of two, not using the value `without`, and its residual: products
    of recorded values, and h (or c) through a matrix."""
    names, table = vocabulary.terms(bases)
    kept = [n for n, term in enumerate(names) if not without or not any(without in f for f in term.factors)]
    names, table, flat = [names[n] for n in kept], table[kept], array.reshape(1, -1)
    whole = [(names[j].cost, j) for _, j, sign in match(flat, table, 1e-8) if sign > 0]
    if whole:
        _, j = min(whole)
        return str(names[j]), residual(flat[0], table[j])
    pairs = [(names[i].cost + names[j].cost, i, j) for i, j, sign in match(flat - table, table, 1e-8) if sign > 0]
    if not pairs:
        return None
    _, i, j = min(pairs)
    return f"{names[i]} + {names[j]}", residual(flat[0], table[i] + table[j])


def _of_readings(readings: list[tuple[str, float] | None], text: str, kind: str = "wrong term") -> Explanation | None:
    (has, off), (should, true_off) = (reading or ("", np.inf) for reading in readings)
    return Explanation(kind, text.format(has, should), max(off, true_off)) if max(off, true_off) < np.inf else None


def _finding(output: str, claimed: Array, exact: Array, why: Explanation | None) -> Finding:
    if why is None:
        told = f"{output} parts from the reference, and no hypothesis fits."
        return Finding((output,), (), "unexplained", told, None, show_numbers(claimed, exact))
    return Finding((output,), (), why.kind, sentence((output,), why.text), why.residual)


def _explain_gate(
    name: str,
    claimed: Array,
    exact: Array,
    a: Array,
    others: dict[str, Array],
    vocabulary: Vocabulary,
    bases: dict[str, Array],
) -> Explanation | None:
    guesses = [("another's place", f"holds what {other} should be", v) for other, v in others.items()]
    guesses += [("1 - v", f"is 1 - {name} of the reference", 1 - exact), ("sign", "has the wrong sign", -exact)]
    inner = {activation: inverse(exact) for activation, (_, inverse) in ACTIVATIONS.items()}
    guesses += [
        ("activation", f"goes through {m}, where the reference has {e}", f(inner[e]))
        for m, (f, _) in ACTIVATIONS.items()
        for e in inner
        if m != e
    ]
    for kind, told, hypothesis in guesses:
        if np.isfinite(hypothesis).all() and is_right(claimed, hypothesis, SAME):
            return Explanation(kind, told, residual(claimed, hypothesis))
    for activation, (_, inverse) in ACTIVATIONS.items():
        both = [inverse(claimed), inner[activation]]
        if np.isfinite(both).all():
            readings: list[tuple[str, float] | None] = []
            for before in both:
                read = ("", 0.0) if np.allclose(before, a, rtol=1e-9) else _read(before - a, vocabulary, bases)
                readings.append(read and (f"a[{name}] + {read[0]}".removesuffix(" + "), read[1]))
            found = _of_readings(readings, "reads {}, where the reference reads {}", "wrong input")
            if found:
                return found
    return None
