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
        draws = [_Draw(cell, rng) for _ in range(DRAWS)]
        for state in cell.state_names:
            for name, should, values in _of_state(draws, state):
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


class _Draw:
    """One step on random numbers."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        K, S, H, B = len(cell.gate_names), len(cell.state_names), cell.hidden_size, 2
        self.cell, self.a, self.prev = cell, rng.normal(size=(K, B, H)), rng.normal(size=(S, B, H))
        self.gates, _, self.extras = (np.array(v) for v in cell.step(self.a, self.prev))
        self.d = rng.normal(size=(B, H))  # the gradient that reaches one state after the step

    def claimed(self, state: str) -> Arrays:
        d_next = np.zeros_like(self.prev)
        d_next[self.cell.state_names.index(state)] = self.d
        d_a, d_prev, _ = self.cell.step_backward(d_next, self.prev, self.gates, self.extras)
        return self._named(d_a, d_prev)

    def exact(self, state: str) -> Arrays:
        n = self.cell.state_names.index(state)
        d_a = gradient(lambda a: (self.d * self.cell.step(a, self.prev.astype(complex))[1][n]).sum(), self.a, COMPLEX)
        d_prev = gradient(
            lambda prev: (self.d * self.cell.step(self.a.astype(complex), prev)[1][n]).sum(), self.prev, COMPLEX
        )
        return self._named(d_a, d_prev)

    def _named(self, d_a: Sequence[Array] | Array, d_prev: Sequence[Array] | Array) -> Arrays:
        gates = {f"d_a[{name}]": np.array(d) for name, d in zip(self.cell.gate_names, d_a, strict=True)}
        return gates | {f"d_prev[{name}]": np.array(d) for name, d in zip(self.cell.state_names, d_prev, strict=True)}

    def operands(self, state: str) -> Arrays:
        """What has a name in one step."""
        cell = self.cell
        return (
            dict(zip(cell.gate_names, self.gates, strict=True))
            | dict(zip(cell.extra_names, self.extras, strict=True))
            | {f"prev_{name}": v for name, v in zip(cell.state_names, self.prev, strict=True)}
            | {f"d_{state}": self.d}
        )


def _of_state(draws: list[_Draw], state: str) -> Iterator[tuple[str, str, str]]:
    """(what is wrong, what it should be where a formula fits, its values), seen from one state after the step."""
    claims, exacts = [d.claimed(state) for d in draws], [d.exact(state) for d in draws]
    cell, wrong = draws[0].cell, {name: claims[0][name] - exacts[0][name] for name in claims[0]}
    follows = sum(wrong[f"d_a[{gate}]"] @ W.T for gate, W in zip(cell.gate_names, cell.W_h, strict=True))
    for name, off in wrong.items():
        size = SAME * max(np.abs(exacts[0][name]).max(), 1.0)
        if np.abs(off).max() <= size or (name == "d_prev[h]" and np.abs(off - follows).max() <= size):
            continue
        claimed, exact = [c[name] for c in claims], [e[name] for e in exacts]
        at = tuple(map(int, np.unravel_index(np.argmax(np.abs(off)), off.shape)))
        operands = {w: [d.operands(state)[w] for d in draws] for w in draws[0].operands(state)}
        known = [np.ones(e.shape, bool) for e in exact]
        should = next((text for text, *_ in formulas(name, claimed, exact, known, operands, {})), "")
        values = f"{name} {list(at)} is {claimed[0][at]:.6g} and should be {exact[0][at]:.6g}"
        yield name, ast.unparse(ast.parse(should)), values
