"""The second look: the parameters' gradients, sums over time and batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell, Tape
from rnnlab.diagnosis.case import FIT, RIGHT, blocks, derivative, step_values, step_vocabulary, with_values
from rnnlab.diagnosis.report import Finding, modified, raised, sentence
from rnnlab.diagnosis.run import Loop, Run, Vjp, go_back, own_extras
from rnnlab.diagnosis.step import Explanation, explain_plain, show_numbers
from rnnlab.diagnosis.terms import Vocabulary, match, residual
from rnnlab.ops import Array
from rnnlab.validate import describe

Params = dict[str, Array]
Wrong = tuple[str, str, Array, Array, Explanation | None]  # parameter, gate, claimed, exact, why
CORNER = 8  # sums are told apart by so many rows and columns; the one that is chosen is compared whole
RECORDED = ("x", "states", "gates", "extras")


class Sums:
    """The exact parameter gradients that belong to one `Loop`, and hypotheses for claimed ones.

    Where `forward` is not made of steps, `loop` is None and each number comes from the whole forward pass.
    """

    def __init__(self, run: Run, loop: Loop | None, d_extras: Array | Sequence[Array] = ()) -> None:
        self.run, self.loop, self.d_extras = run, loop, d_extras
        self._tables: dict[tuple[str, tuple[Any, ...]], Array] = {}

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The step's vocabulary, over all T*B rows."""
        run, states = self.run, self.run.tape.states.swapaxes(0, 1)
        recorded = (states[:, :-1], run.tape.gates, states[:, 1:], run.tape.extras)
        prev, gates, following, extras = map(run.rows, recorded)
        return step_vocabulary(run.cell, prev, gates, following, extras, run.method)

    def along(self, name: str, direction: Array) -> Array:
        """Each step's share (T,) of the derivative along a direction of one parameter."""
        run, loop = self.run, self.loop
        prev = run.rows(run.tape.states[:-1].swapaxes(0, 1))

        def moved(by: Any) -> Array:
            cell = with_values(run.cell, {name: run.cell.params[name] + by * direction})
            if loop is None:
                return np.array([run.loss(cell, run.x, run.tape.states[0])])
            following = step_values(cell, run.rows(run.inputs(cell)), prev)[1]
            return np.asarray((run.rows(loop.used[1:].swapaxes(0, 1)) * following).sum(axis=(0, 2)))

        shares = derivative(moved, run.method)
        return shares if loop is None else shares.reshape(run.T, -1).sum(axis=1)

    def table(self, name: str, block: tuple[Any, ...]) -> Array:
        """Each step's share of every entry of one block, (T, ...)."""
        if (name, block) not in self._tables:
            quick = self._outer(name, block)
            self._tables[name, block] = self._entries(name, block) if quick is None else quick
        return self._tables[name, block]

    def whole(self, name: str) -> Array:
        """The exact gradient of a parameter."""
        exact = np.zeros(self.run.cell.params[name].shape)
        for _, block in blocks(self.run.cell, name):
            exact[block] = self.table(name, block).sum(axis=0)
        return exact

    def _outer(self, name: str, block: tuple[Any, ...]) -> Array | None:
        """The shares as left_t^T d_a_t, where one random direction agrees: far fewer evaluations."""
        loop, run, p = self.loop, self.run, self.run.cell.params[name]
        lefts = {"W_x": run.x, "b": np.ones((*run.x.shape[:2], 1)), "W_h": run.tape.states[:-1, 0]}
        if loop is None or name not in lefts or not isinstance(block[0], int):
            return None
        shares = np.einsum("tbi,tbj->tij", lefts[name], loop.d_a[block[0]])
        if shares.shape[1:] != p.shape[1:]:
            return None
        direction = np.zeros(p.shape)
        direction[block] = np.random.default_rng(3).normal(size=p.shape[1:])
        exact = self.along(name, direction)
        told = (shares * direction[block]).sum(axis=(1, 2))
        return shares if np.abs(told - exact).max() <= RIGHT[run.method] * np.abs(exact).max() else None

    def _entries(self, name: str, block: tuple[Any, ...]) -> Array:
        """The same, one entry at a time."""
        p = self.run.cell.params[name]
        shares = []
        for index in np.arange(p.size).reshape(p.shape)[block].ravel():
            one = np.zeros(p.size)
            one[index] = 1
            shares.append(self.along(name, one.reshape(p.shape)))
        return np.array(shares).T.reshape(-1, *p[block].shape)

    def wrong(self, claimed: Params, rng: np.random.Generator) -> Iterator[Wrong]:
        """Each block whose sum along a random direction is not the exact one, and the hypothesis that fits."""
        largest = max((np.abs(g).max() for g in claimed.values() if np.isfinite(g).all()), default=0.0)
        for name in claimed:
            p = self.run.cell.params[name]
            for gate, block in blocks(self.run.cell, name):
                direction = np.zeros(p.shape)
                direction[block] = rng.choice((-1, 1), p[block].shape) * rng.uniform(0.5, 1, p[block].shape)
                exact = self.along(name, direction).sum()
                told = (direction[block] * claimed[name][block]).sum()
                scale = max(abs(exact), np.abs(claimed[name][block]).max(), 1e-3 * largest)
                if not abs(told - exact) <= RIGHT[self.run.method] * scale:
                    why, true = self._explain(claimed[name][block], name, block)
                    yield name, gate, claimed[name][block], true, why

    def _explain(self, claimed: Array, name: str, block: tuple[Any, ...]) -> tuple[Explanation | None, Array]:
        """(hypothesis, exact block)."""
        run, tolerance = self.run, FIT[self.run.method]
        shares, p = self.table(name, block), run.cell.params[name]
        exact = shares.sum(axis=0)
        others = {
            f"params[{name}][{g}]": self.table(name, b).sum(axis=0) for g, b in blocks(run.cell, name) if b != block
        }
        if exact.ndim == 2 and exact.shape[0] == exact.shape[1] > 1:
            others |= {f"the transpose of {other}": v.T for other, v in others.items()}
        largest = max(np.abs(exact).max(), np.abs(p).max())
        plain = explain_plain(claimed, exact, others, largest, tolerance, run.x.shape[1], run.T)
        if plain:
            return plain, exact
        for kind, told, hypothesis in self._shapes_of_sums(name, shares, exact, p[block]):
            off = residual(claimed, hypothesis)
            if off <= tolerance:
                return Explanation(kind, told, off), exact
        found = self._formed(claimed, exact, name, self.loop) if self.loop is not None else None
        return found, exact

    def _shapes_of_sums(self, name: str, shares: Array, exact: Array, p: Array) -> Iterator[tuple[str, str, Array]]:
        if exact.ndim == 2 and exact.shape[0] == exact.shape[1]:
            yield "transpose", "is the transpose of the right one", exact.T
        yield "initialised from parameter", "has the parameter itself added: a buffer initialised from it", exact + p
        if len(shares) > 1:
            only = ", which the initial state enters: right only if the initial state is zero" if name == "W_h" else ""
            yield "first step skipped", f"lacks the first time step's term{only}", exact - shares[0]
            yield "last step skipped", "lacks the last time step's term", exact - shares[-1]
            for t, which in ((0, "first"), (-1, "last")):
                told = f"holds one time step's term alone (the {which}): = where += should be"
                yield "overwritten", told, shares[t]

    def _formed(self, claimed: Array, exact: Array, name: str, loop: Loop) -> Explanation | None:
        """Sums over time and batch of left^T (d * factor): which operands make the claimed, which the exact."""
        run = self.run
        vocabulary, H = self.vocabulary, run.cell.hidden_size
        signals = {f"d_a[{g}]": run.rows(d) for g, d in zip(run.cell.gate_names, loop.d_a, strict=True)}
        signals |= {f"d_extras[{n}]": run.rows(d) for n, d in enumerate(self.d_extras)}
        texts = ["".join(f) for f in vocabulary.single_names]
        factors = vocabulary.singles.reshape(-1, *vocabulary.shape)
        products: dict[str, Array] = {}
        if name == "W_x":  # x[t - 1] at t = 0 is the last, as Python counts
            lefts = {"x_t": run.rows(run.x), "x_{t-1}": run.rows(np.roll(run.x, 1, axis=0))}
        elif name != "W_h" and claimed.size == claimed.shape[-1] == H:
            lefts = {"": np.ones((len(factors[0]), 1))}
        else:
            lefts = dict(zip(texts[1:], factors[1:], strict=True))
            for state, prev in zip(run.cell.state_names, run.tape.states[:-1].swapaxes(0, 1), strict=True):
                products |= {f"({f} {state}_{{t-1}})": v * run.rows(prev) for f, v in lefts.items()}
        names: list[tuple[str, str, str]] = []
        rows: list[Array] = []
        for signal, d in signals.items():
            for some, scaled in ((lefts, d * factors), (products, d[None])):
                for left, value in some.items():
                    names += [(left, signal, text) for text in texts[: len(scaled)]]
                    rows.append((value[:, :CORNER].T @ scaled[..., :CORNER]).reshape(len(scaled), -1))
        table = np.concatenate(rows)
        both = np.stack([array.reshape(-1, array.shape[-1])[:CORNER, :CORNER].ravel() for array in (claimed, exact)])
        if table.shape[1] != both.shape[1]:
            return None
        found: tuple[list[tuple[int, int]], ...] = ([], [])
        for which, n, way in match(both, table, FIT[run.method]):
            found[which].append((n, way))
        if not found[0] or not found[1]:
            return None

        def differ(pair: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int, int]:
            (i, s), (j, r) = pair
            unlike = sum(a != b for a, b in zip(names[i], names[j], strict=True)) + (s != r)
            return unlike, sum(map(len, names[i])) + sum(map(len, names[j])), i

        (n, sign), (true_n, true_sign) = min(((m, e) for m in found[0] for e in found[1]), key=differ)
        mine, should = names[n], names[true_n]
        left, signal, text = mine
        whole = (lefts | products)[left].T @ (signals[signal] * factors[texts.index(text)])
        if whole.size != claimed.size:
            return None
        off = residual(claimed, sign * whole.reshape(claimed.shape))
        if off > FIT[run.method]:
            return None
        also = ", with the wrong sign" if sign != true_sign else ""
        told = f"is formed with {_sum_text(*mine)}, where {_sum_text(*should)} should be{also}"
        if mine != should and [m.replace("{t-1}", "t") for m in mine] == [m.replace("{t-1}", "t") for m in should]:
            return Explanation("neighbouring step", told + ": an operand from the neighbouring time step", off)
        kinds = ("wrong operand", "another's place", "wrong factor")  # of left, signal, factor
        return Explanation(
            next((k for k, m, s in zip(kinds, mine, should, strict=True) if m != s), kinds[0]), told, off
        )


def _sum_text(left: str, signal: str, factor: str) -> str:
    right = f"{signal} {f'({factor})' if factor.startswith('1 -') else factor}".strip()
    return f"{left}^T ({right})" if left and factor else f"{left}^T {right}" if left else right


def check_params(what: str, claimed: Any, cell: Cell, inside: bool = False) -> tuple[Params, list[Finding]]:
    """The claimed gradients as arrays of the right shapes, and findings of what does not fit. `inside`: only those
    of the parameters inside `step`."""
    if not isinstance(claimed, dict):
        told = f"{what} gives {describe(claimed)}, where a dictionary of gradients should be."
        return {}, [Finding((what,), (), "wrong shape", told, 0.0)]
    findings: list[Finding] = []
    arrays: Params = {}
    for name in sorted(set(cell.params) - ({"W_x", "b"} if inside else set())):
        shape, value, output = cell.params[name].shape, claimed.get(name), f"params[{name}]"
        array = np.asarray(value)
        if value is None:
            told = f"{output}: {what} gives no gradient for this parameter."
            findings.append(Finding((output,), (), "missing", told, 0.0))
        elif array.shape != shape or array.dtype.kind not in "fiuc":
            told = f"{output} is {describe(array)}, where shape {shape} should be."
            findings.append(Finding((output,), (), "wrong shape", told, 0.0))
        else:
            arrays[name] = array.real.astype(float)
    return arrays, findings


def copied(tape: Tape) -> Tape:
    return replace(tape, **{name: getattr(tape, name).copy() for name in RECORDED})


def changes(tape: Tape, original: Tape) -> list[str]:
    """Which of a tape's arrays are no longer what they were."""
    pairs = {name: (getattr(tape, name), getattr(original, name)) for name in RECORDED}
    return [f"tape.{name}" for name, (now, then) in pairs.items() if not np.array_equal(now, then, True)]


def diagnose_recurrent_grads(run: Run, vjp: Vjp, step_is_right: bool, rng: np.random.Generator) -> list[Finding]:
    """`recurrent_grads` on exact d_a, so that mistakes of `step_backward` do not reach it."""
    loop, cell = go_back(run, vjp), run.cell
    try:
        d_extras = own_extras(run, loop)
    except Exception as error:
        return [raised("step_backward", error)]
    try:
        without = cell.recurrent_grads(copied(run.tape), loop.d_a.copy(), np.zeros_like(d_extras))
        tape, d_a = copied(run.tape), loop.d_a.copy()
        claimed = cell.recurrent_grads(tape, d_a, d_extras.copy())
    except Exception as error:
        return [raised("recurrent_grads", error)] if step_is_right else []
    arrays, findings = check_params("recurrent_grads", claimed, cell, inside=True)
    edited = changes(tape, run.tape) + ["d_a"] * (not np.array_equal(d_a, loop.d_a, True))
    if edited:
        findings.append(modified("recurrent_grads", edited))
    if not step_is_right:  # d_extras may come from a step_backward that is wrong already
        arrays = {n: g for n, g in arrays.items() if np.array_equal(g, without[n], True)}
    return findings + param_findings(list(Sums(run, loop, d_extras).wrong(arrays, rng)))


def param_findings(found: Sequence[Wrong]) -> list[Finding]:
    """One finding for each parameter and explanation: gates with the same one together."""
    groups: dict[tuple[str, str, str], list[Wrong]] = {}
    for wrong in found:
        name, gate, _, _, why = wrong
        key = (name, why.kind, why.text.replace(f"[{gate}]", "[k]")) if why else (name, "unexplained", gate)
        groups.setdefault(key, []).append(wrong)
    findings = []
    for (_, kind, text), members in groups.items():
        outputs = tuple(f"params[{name}]" + (f"[{gate}]" if gate else "") for name, gate, *_ in members)
        *_, claimed, exact, why = members[0]
        if why is None:
            text = "is wrong, and no hypothesis fits"
        elif len(members) == 1:
            text = why.text
        numbers = "" if why else show_numbers(claimed, exact)
        findings.append(Finding(outputs, (), kind, sentence(outputs, text), why.residual if why else None, numbers))
    return findings
