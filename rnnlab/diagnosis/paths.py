"""One step of a cell whose source cannot be read: which gate is wrong, by which path, and by which values.

Each state after the step is given a gradient alone, so that only the paths that leave from it are seen. What
`step_backward` says of every gate and every state before the step is compared with the derivative of `step`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.formulas import formulas
from rnnlab.diagnosis.report import Finding, listing
from rnnlab.ops import Array
from rnnlab.proof.case import Arrays
from rnnlab.proof.exact import COMPLEX, gradient

DRAWS = 3  # sets of random numbers; a factor or term must fit all of them
SAME = 1e-7


def step_findings(cell: Cell, rng: np.random.Generator) -> list[Finding]:
    """One finding for each wrong path through one step; empty where the mistake is none of a step.

    A cell whose `step` refuses complex numbers, or which has no `step` of its own, has no findings either.
    """
    ways: dict[tuple[str, str], list[str]] = {}  # (what is wrong, what it should be) -> the states that it comes from
    numbers: dict[tuple[str, str], str] = {}
    try:
        for state in cell.state_names:
            for name, should, values in _wrong_paths(cell, state, rng):
                ways.setdefault((name, should), []).append(state)
                numbers.setdefault((name, should), values)
    except Exception:  # a learner's code may raise anything
        return []
    return [
        Finding(
            "unexplained",
            f"{name} is wrong as far as it comes from {listing(states)} after the step."
            + f" It should be `{should}`." * bool(should),
            outputs=(name,),
            numbers=numbers[name, should],
        )
        for (name, should), states in ways.items()
    ]


def _step(cell: Cell, state: str, rng: np.random.Generator) -> tuple[Arrays, Arrays, Arrays]:
    """Of one step on random numbers: the claimed gradients, the exact ones, and what has a name there."""
    n, shape = cell.state_names.index(state), (2, cell.hidden_size)
    a = rng.normal(size=(len(cell.gate_names), *shape))
    prev, d = rng.normal(size=(len(cell.state_names), *shape)), rng.normal(size=shape)
    gates, _, extras = (np.array(v) for v in cell.step(a, prev))
    d_next = np.zeros_like(prev)
    d_next[n] = d

    def named(d_a: Sequence[Array] | Array, d_prev: Sequence[Array] | Array) -> Arrays:
        found = {f"d_a[{name}]": np.array(v) for name, v in zip(cell.gate_names, d_a, strict=True)}
        return found | {f"d_prev[{name}]": np.array(v) for name, v in zip(cell.state_names, d_prev, strict=True)}

    d_a = gradient(lambda a: (d * cell.step(a, prev.astype(complex))[1][n]).sum(), a, COMPLEX)
    d_prev = gradient(lambda prev: (d * cell.step(a.astype(complex), prev)[1][n]).sum(), prev, COMPLEX)
    names = (*cell.gate_names, *cell.extra_names, *(f"prev_{name}" for name in cell.state_names), f"d_{state}")
    values = dict(zip(names, (*gates, *extras, *prev, d), strict=True))
    return named(*cell.step_backward(d_next, prev, gates, extras)[:2]), named(d_a, d_prev), values


def _wrong_paths(cell: Cell, state: str, rng: np.random.Generator) -> Iterator[tuple[str, str, str]]:
    """(what is wrong, what it should be where a formula fits, its values), seen from one state after the step."""
    claims, exacts, values = zip(*(_step(cell, state, rng) for _ in range(DRAWS)), strict=True)
    wrong = {name: claims[0][name] - exacts[0][name] for name in claims[0]}
    follows = sum(wrong[f"d_a[{gate}]"] @ W.T for gate, W in zip(cell.gate_names, cell.W_h, strict=True))
    for name, off in wrong.items():
        size = SAME * max(np.abs(exacts[0][name]).max(), 1.0)
        if np.abs(off).max() <= size or (name == "d_prev[h]" and np.abs(off - follows).max() <= size):
            continue
        claimed, exact = [c[name] for c in claims], [e[name] for e in exacts]
        at = tuple(map(int, np.unravel_index(np.argmax(np.abs(off)), off.shape)))
        operands = {text: [v[text] for v in values] for text in values[0]}
        known = [np.ones(e.shape, bool) for e in exact]
        should = next((text for text, *_ in formulas(name, claimed, exact, known, operands, {})), "")
        numbers = f"{name} {list(at)} is {claimed[0][at]:.6g} and should be {exact[0][at]:.6g}"
        yield name, ast.unparse(ast.parse(should)), numbers
