"""Checks of the day-9 exercises: what is not done yet, which line is wrong and why, or what was measured."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.batch import Batch
from rnnlab.cells import Cell, GRUCell, GRUResetBeforeCell, LSTMCell
from rnnlab.cells.base import Arrays
from rnnlab.diagnosis import diagnose
from rnnlab.lab import truncation
from rnnlab.model import SequenceModel
from rnnlab.ops import Array, logistic


@dataclass(frozen=True)
class Verdict:
    """What a check found: `right`, or None where nothing is done yet, and the reason in `text`."""

    right: bool | None
    text: str

    def __repr__(self) -> str:
        start = {True: "right: ", False: "not yet: ", None: ""}[self.right]
        return start + self.text


NOT_DONE = "not done yet: replace each ... by a line of yours and run the cell again"


def gaps(kind: type[Cell]) -> bool:
    """Whether a method of the class still holds a `...`."""
    own = [member for member in vars(kind).values() if inspect.isfunction(member)]
    trees = [ast.parse(textwrap.dedent(inspect.getsource(method))) for method in own]  # a notebook has no file
    return any(isinstance(node, ast.Constant) and node.value is ... for tree in trees for node in ast.walk(tree))


def attempt(kind: type[Cell], reference: Cell | None = None) -> Any:
    """What `diagnose` says of a learner's cell of 3 inputs and 4 units, or that gaps are left.

    With a `reference` cell, the forward passes are compared as well.
    """
    if gaps(kind):
        return Verdict(None, NOT_DONE)
    cell = kind(3, 4, rng=0)
    if reference is not None:
        report = diagnose(cell, reference=reference)
        if report.findings:
            gate = "" if any(f.repair for f in report.findings) else _sigmoid_for_tanh(cell, reference)
            return Verdict(False, f"the {gate} takes tanh, not a sigmoid") if gate else report
    return diagnose(cell)


def _sigmoid_for_tanh(cell: Cell, reference: Cell) -> str:
    """The gate whose numbers are sigmoid(a) where the reference has tanh(a), "" where there is none."""
    x = np.random.default_rng(0).normal(size=(1, 2, cell.input_size))
    ours, theirs = cell.forward(x), reference.with_params(cell.params).forward(x)
    for gate in cell.gate_names:
        if np.allclose(ours.gate(gate), logistic(np.arctanh(theirs.gate(gate)))):
            return gate
    return ""


class ChungGRU(GRUCell):
    """The GRU as Chung et al. (2014) write it, to compare with: z = 1 replaces the state. It has no derivative."""

    def step(self, a: Array, prev: Array) -> tuple[Arrays, Arrays, Arrays]:
        (r, z, n), _, extras = super().step(a, prev)
        return (r, z, n), ((1 - z) * prev[0] + z * n,), extras


def undone(*answers: Any) -> bool:
    """Whether an answer is still `...`."""
    return any(answer is ... for answer in answers)


def guilty_line(kind: type[Cell], line: Any) -> Verdict:
    """Put `rl.LSTMCell`'s line of that name in the place of the learner's suspect, and ask `diagnose` again.

    `line` is the name on the left of the line, such as "d_c". The answer is measured: nothing is left to find.
    """
    if undone(line):
        return Verdict(None, NOT_DONE)
    wrong, right = (_assignments(cell.step_backward) for cell in (kind, LSTMCell))
    if line not in wrong or line not in right:
        return Verdict(False, f"expected the name at the left of a line, one of {sorted(wrong)}, got {line!r}")
    if diagnose(kind(3, 4, rng=0)).findings and ast.unparse(wrong[line]) == ast.unparse(right[line]):
        return Verdict(False, f"the line of {line} is that of the derivation: {ast.unparse(right[line])}")
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind.step_backward)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == line:
            node.value = right[line]
    space = dict(kind.step_backward.__globals__)
    exec(compile(ast.fix_missing_locations(tree), "<repaired>", "exec"), space)
    repaired = type("Repaired", (kind,), {"step_backward": space["step_backward"]})
    left = diagnose(repaired(3, 4, rng=0)).findings
    if left:
        return Verdict(False, f"{line} was wrong, and with it repaired something else is still wrong")
    return Verdict(True, f"{line} = {ast.unparse(right[line])}; with it nothing is left to find")


def _assignments(function: Any) -> dict[str, ast.expr]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    found = {ast.unparse(n.targets[0]): n.value for n in ast.walk(tree) if isinstance(n, ast.Assign)}
    return {name: value for name, value in found.items() if name.isidentifier() and name != "d_a"}


def resets_differ(cell: Cell, x: Any, h: Any) -> Verdict:
    """Whether resetting before and after the product gives states that differ by more than .05.

    `cell` is a `GRUCell` of 2 inputs and 2 units; x (2,) and h (2,) are the learner's.
    """
    if undone(x, h):
        return Verdict(None, NOT_DONE)
    x, h = np.asarray(x, float), np.asarray(h, float)
    if x.shape != (2,) or h.shape != (2,):
        return Verdict(False, f"expected two numbers for x and two for h, got shapes {x.shape} and {h.shape}")
    if np.abs(h).max() > 1:
        return Verdict(False, f"h = {h}: a state is a mean of outputs of tanh, so it never leaves -1 .. 1")
    before = GRUResetBeforeCell(2, 2, rng=0)
    before = before.with_params({name: cell.params[name] for name in before.params})
    after = cell.with_params(cell.params | {"b_hn": np.zeros_like(cell.params["b_hn"])})
    tapes = [one.forward(x[None, None], h[None, None]) for one in (before, after)]
    r, difference = tapes[0].gate("reset")[0, 0], float(np.abs(tapes[0].h - tapes[1].h).max())
    text = f"the states differ by {difference:.3f}"
    if difference > 0.05:
        return Verdict(True, text)
    if not h.any():
        return Verdict(False, f"{text}: an old state of 0 leaves nothing to reset")
    if np.ptp(r) < 0.2:
        text += f": r = {r.round(2)} scales all units alike, which goes through a product unchanged"
        return Verdict(False, text)
    return Verdict(False, f"{text}: r = {r.round(2)} differs enough; choose an h that W_h mixes more")


def bias_keeps(bias: Any, T: int = 200) -> Verdict:
    """Whether an LSTM's h keeps between a tenth and ten times its gradient over T steps with this `forget_bias`.

    bias is a number or (64,) numbers.
    """
    if undone(bias):
        return Verdict(None, NOT_DONE)
    bias = np.asarray(bias, float)
    if bias.shape not in ((), (64,)):
        return Verdict(False, f"expected a number or 64 of them, one for each unit, got shape {bias.shape}")
    cell = LSTMCell(8, 64, rng=0, forget_bias=bias)
    tape = cell.forward(np.random.default_rng(0).normal(size=(T, 8, 8)))
    d_h = np.zeros_like(tape.h)
    d_h[-1] = 1
    norms = np.linalg.norm(cell.backward(tape, d_h).states[:, 0], axis=(1, 2))
    left, gate = norms[1] / norms[-1], tape.gate("forget")
    text = f"h keeps {left:.2g} of its gradient over {T} steps"
    if bias.mean() < 0:
        return Verdict(False, f"{text}: a negative bias closes the forget gate, so it forgets at every step")
    if left < 0.1:
        return Verdict(False, f"{text}: the forget gates alone, {gate.mean():.2f}, leave {gate.mean() ** T:.0e}")
    if left > 10:
        return Verdict(False, f"{text}: it grows, for the gates lose nothing and the detours through h add")
    return Verdict(True, f"{text}; the forget gates are {gate.mean():.3f} on average")


def held_gates(measured: Mapping[tuple[str, Any], float], predicted: Mapping[tuple[str, Any], Any]) -> Verdict:
    """Compare predictions, "ruins" (a share below .6) or "harmless" (above .9) or "hurts", with what was measured."""
    if undone(*predicted.values()):
        return Verdict(None, NOT_DONE)
    words = ("ruins", "hurts", "harmless")
    for key, word in predicted.items():
        if word not in words:
            return Verdict(False, f"{key}: expected one of {words}, got {word!r}")
    found = {key: words[int(share >= 0.6) + int(share > 0.9)] for key, share in measured.items()}
    wrong = [key for key, word in predicted.items() if found[key] != word]
    text = f"{len(predicted) - len(wrong)} of {len(predicted)} as measured"
    for gate, value in wrong:
        text += f"\n    {gate} gate held at {value}: {measured[gate, value]:.2f}, {found[gate, value]}. {_WHY[gate]}"
    return Verdict(not wrong, text)


_WHY = {
    "forget": "At 1 old reveals pile up on the new one; at 0 nothing outlives a scene.",
    "input": "It decides when to write: a constant one writes every scene, or none.",
    "output": "At 0 nothing is ever said; otherwise this task does not need it to move.",
}


def truncation_length(model: SequenceModel, batch: Batch, k: Any, allowed: float = 0.01) -> Verdict:
    """Whether k is the least length, to 3 steps, whose truncated gradient is off by less than `allowed`."""
    if undone(k):
        return Verdict(None, NOT_DONE)
    T = len(batch.x)
    if not isinstance(k, int) or not 1 <= k <= T:
        return Verdict(False, f"expected a whole number of steps from 1 to {T}, got {k!r}")
    cut = truncation(model, batch, range(1, T + 1))
    error = cut.relative_error["all"]
    needed = int(cut.lengths[np.flatnonzero(error >= allowed)[-1] + 1])
    text = f"{k} steps cost {error[k - 1]:.1%} of the gradient"
    if abs(k - needed) <= 3:
        return Verdict(True, f"{text}; {needed} are the fewest for {allowed:.0%}")
    if k > needed:
        return Verdict(False, f"{text}: fewer do; what has vanished can be cut off for nothing")
    return Verdict(False, f"{text}: too short for {allowed:.0%}")
