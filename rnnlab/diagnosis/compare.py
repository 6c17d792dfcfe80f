"""Two forward passes side by side: where they part, and by what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.case import (
    COMPLEX,
    StepCase,
    own_vectors,
    private_copy,
    random_params,
    step_values,
    step_vocabulary,
)
from rnnlab.diagnosis.report import Diagnosis, Finding, listing
from rnnlab.diagnosis.step import Explanation, is_right, of_ratio, raised, show_numbers
from rnnlab.diagnosis.terms import Vocabulary, match, residual
from rnnlab.ops import Array

SAME = 1e-9


def compare_cells(cell: Cell, reference: Cell, T: int, B: int, rng: np.random.Generator) -> Diagnosis:
    """Gate by gate and state by state, one step on the same numbers; then whole sequences."""
    target = f"{cell!r} against {reference!r}"
    different = [
        f"{name} {getattr(cell, name)} and {getattr(reference, name)}"
        for name in ("gate_names", "state_names", "input_size", "hidden_size")
        if getattr(cell, name) != getattr(reference, name)
    ]
    shapes = [{name: p.shape for name, p in c.params.items()} for c in (cell, reference)]
    common = [name for name in shapes[0] if shapes[0][name] == shapes[1].get(name)]
    if different:
        told = f"The two cells cannot be compared: {'; '.join(different)}."
        return Diagnosis(target, (Finding(("cell",), (), "another interface", told, 0.0),))
    notes = []
    if shapes[0] != shapes[1]:
        notes.append(f"only {listing(common)} are parameters of both; the others keep values of their own")
    own, other = random_params(private_copy(cell), rng), private_copy(reference)
    other = random_params(other, rng)
    other = other.with_params(other.params | {name: own.params[name] for name in common})
    findings: list[Finding] = []
    try:
        findings = _compare_step(own, other, rng)
        if not findings:
            findings = _compare_sequence(own, other, T, B, rng)
    except Exception as error:
        findings = [raised("the forward pass", error)]
    return Diagnosis(target, tuple(findings), tuple(notes))


def _compare_step(cell: Cell, reference: Cell, rng: np.random.Generator) -> list[Finding]:
    K, S, H = len(cell.gate_names), len(cell.state_names), cell.hidden_size
    rows = max(3, -(-40 // H))
    a, prev = rng.normal(size=(K, rows, H)), rng.normal(size=(S, rows, H))
    gates, following, _ = step_values(cell, a, prev)
    true_gates, true_following, extras = step_values(reference, a, prev)
    none = np.zeros(0)
    # the vocabulary's "next" values are the reference's: what the equations should have given
    case = StepCase(reference, a, prev, gates, true_following, extras, none, none, none, COMPLEX)
    vocabulary = step_vocabulary(case, own_vectors(cell))
    findings = []
    sums = _Sums(vocabulary, prev, cell)
    for k, name in enumerate(cell.gate_names):
        if not is_right(gates[k], true_gates[k], 0.0, SAME):
            others = {f"the gate {g}": true_gates[n] for n, g in enumerate(cell.gate_names) if n != k}
            why = _explain_gate(name, gates[k], true_gates[k], a[k], others, sums)
            findings.append(_finding(f"gates[{name}]", gates[k], true_gates[k], why))
    if findings:
        return findings  # the states follow from the gates
    for s in reversed(range(S)):  # h is made from the others
        claimed, exact = following[s], true_following[s]
        follows = any(
            np.allclose(claimed * f(true_following[n]), exact * f(following[n]), rtol=1e-9)
            for n in range(s + 1, S)
            for f in (np.tanh, np.asarray)
        )
        if not is_right(claimed, exact, 0.0, SAME) and not follows:
            why = _explain_state(claimed, exact, vocabulary, sums, cell.state_names[s])
            findings.append(_finding(f"next_state[{cell.state_names[s]}]", claimed, exact, why))
    return findings


def _compare_sequence(cell: Cell, reference: Cell, T: int, B: int, rng: np.random.Generator) -> list[Finding]:
    """Two forward passes whose steps agree: the first t at which they part."""
    S, H = len(cell.state_names), cell.hidden_size
    x, state = rng.normal(size=(T, B, cell.input_size)), rng.normal(size=(S, B, H))
    claimed, exact = (c.forward(x.copy(), state.copy()).states for c in (cell, reference))
    wrong = [t for t in range(T + 1) if not is_right(claimed[t], exact[t], 0.0, SAME)]
    if not wrong:
        return []
    t = wrong[0]
    told = f"One step agrees, but the forward passes part: states are the same up to t = {t - 1}, and part at t = {t}."
    return [Finding(("states",), (), "unexplained", told, None, show_numbers(claimed[t], exact[t]))]


class _Sums:
    """Reads an array as one term or the sum of two: products of recorded values, and h (or c) through a matrix."""

    def __init__(self, vocabulary: Vocabulary, prev: Array, cell: Cell) -> None:
        bases = {"": np.ones(prev.shape[1:])}
        bases |= {f"{name}_{{t-1}}": v for name, v in zip(cell.state_names, prev, strict=True)}
        self.names, self.table = vocabulary.terms(bases)

    def read(self, array: Array, without: str = "") -> tuple[str, float] | None:
        """The simplest reading and its residual, not using the value `without`."""
        kept = [n for n, term in enumerate(self.names) if not without or not any(without in f for f in term.factors)]
        table, flat = self.table[kept], array.reshape(1, -1)
        whole = [(self.names[kept[j]].cost, j) for _, j, sign in match(flat, table, 1e-8) if sign > 0]
        if whole:
            j = min(whole)[1]
            return str(self.names[kept[j]]), residual(array.ravel(), table[j])
        pairs = [
            (self.names[kept[i]].cost + self.names[kept[j]].cost, i, j)
            for i, j, sign in match(flat - table, table, 1e-8)
            if sign > 0
        ]
        if not pairs:
            return None
        _, i, j = min(pairs)
        return f"{self.names[kept[i]]} + {self.names[kept[j]]}", residual(array.ravel(), table[i] + table[j])


def _finding(output: str, claimed: Array, exact: Array, why: Explanation | None) -> Finding:
    if why is None:
        told = f"{output} parts from the reference, and no hypothesis fits."
        return Finding((output,), (), "unexplained", told, None, show_numbers(claimed, exact))
    return Finding((output,), (), why.kind, f"{output} {why.text}.", why.residual)


def _explain_gate(
    name: str, claimed: Array, exact: Array, a: Array, others: dict[str, Array], sums: _Sums
) -> Explanation | None:
    for other_name, other in others.items():
        if is_right(claimed, other, 0.0, SAME):
            return Explanation("another's place", f"holds what {other_name} should be", residual(claimed, other))
    with np.errstate(all="ignore"):
        inverse: dict[str, Callable[[Array], Array]] = {
            "sigmoid": lambda v: np.asarray(np.log(v / (1 - v))),
            "tanh": np.arctanh,
            "no activation": np.asarray,
        }
        inner = {n: f(exact) for n, f in inverse.items()}
        mine = {n: f(claimed) for n, f in inverse.items()}
    guesses = [
        ("1 - v", f"is 1 - {name} of the reference", 1 - exact),
        ("sign", "has the wrong sign", -exact),
    ]
    guesses += [
        ("activation", f"goes through {m}, where the reference has {e}", _apply(m, inner[e]))
        for m in ("sigmoid", "tanh", "relu", "no activation")
        for e in inner
        if m != e
    ]
    for kind, told, hypothesis in guesses:
        if np.isfinite(hypothesis).all() and is_right(claimed, hypothesis, 0.0, SAME):
            return Explanation(kind, told, residual(claimed, hypothesis))
    for activation, before in mine.items():
        after = inner[activation]
        if np.isfinite(before).all() and np.isfinite(after).all():
            nothing = ("", 0.0)
            has = nothing if np.allclose(before, a, rtol=1e-9) else sums.read(before - a)
            should = nothing if np.allclose(after, a, rtol=1e-9) else sums.read(after - a)
            if has and should:
                texts = [" + ".join(filter(None, (f"a[{name}]", part))) for part, _ in (has, should)]
                told = f"reads {texts[0]}, where the reference reads {texts[1]}"
                return Explanation("wrong input", told, max(has[1], should[1]))
    return None


def _apply(name: str, x: Array) -> Array:
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-x)))
        return {"tanh": np.tanh(x), "relu": np.maximum(x, 0)}.get(name, x)


def _explain_state(claimed: Array, exact: Array, vocabulary: Vocabulary, sums: _Sums, name: str) -> Explanation | None:
    found = vocabulary.ratio(claimed, exact)
    if found:
        return of_ratio(*found)
    has, should = (sums.read(array, f"{name}_t") for array in (claimed, exact))
    if has and should:
        return Explanation("wrong term", f"is {has[0]}, where the reference has {should[0]}", max(has[1], should[1]))
    return None
