"""The second look: the parameters' gradients, sums over time and batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.case import FIT, RIGHT, StepCase, derivative, step_values, step_vocabulary
from rnnlab.diagnosis.report import Finding, listing
from rnnlab.diagnosis.run import Loop, Run, Vjp, go_back
from rnnlab.diagnosis.step import PLURAL, Explanation, explain_plain, raised, show_numbers
from rnnlab.diagnosis.terms import Vocabulary, match, residual
from rnnlab.ops import Array
from rnnlab.validate import describe

Params = dict[str, Array]
Wrong = tuple[str, str, Array, Array, Explanation | None]  # parameter, gate, claimed, exact, why


class Sums:
    """The exact parameter gradients that belong to one `Loop`, and hypotheses for claimed ones.

    Where `forward` is not made of steps, `loop` is None and each number comes from the whole forward pass.
    """

    def __init__(self, run: Run, loop: Loop | None) -> None:
        self.run, self.loop = run, loop
        self._vocabulary: Vocabulary | None = None
        self._tables: dict[tuple[str, tuple[Any, ...]], Array] = {}

    def along(self, name: str, direction: Array) -> Array:
        """Each step's share (T,) of the derivative along a direction of one parameter."""
        run, params = self.run, self.run.cell.params

        def twin(by: Any) -> Cell:
            return run.cell.with_params(params | {name: params[name] + by * direction})

        if self.loop is None:
            state = run.tape.states[0]

            def whole(by: Any) -> Array:
                tape = twin(by).forward(run.x, state)
                return np.array([(run.d_h * tape.h).sum() + (run.d_state * tape.states[-1]).sum()])

            return derivative(whole, run.method)
        shift = np.zeros(1)
        if name == "W_x":
            shift = run.rows(np.einsum("tbd,kdh->ktbh", run.x, direction))
        elif name == "b":
            shift = direction
        a, prev = run.rows(run.inputs()), run.rows(run.tape.states[:-1].swapaxes(0, 1))
        weights = run.rows(self.loop.used[1:].swapaxes(0, 1))

        def rows(by: Any) -> Array:
            cell = run.cell if name in ("W_x", "b") else twin(by)
            following = step_values(cell, a + by * shift, prev)[1]
            return np.asarray((weights * following).sum(axis=(0, 2)))

        return np.asarray(derivative(rows, run.method).reshape(run.T, -1).sum(axis=1))

    def table(self, name: str, block: tuple[Any, ...]) -> Array:
        """Each step's share of every entry of one block, (T, ...)."""
        key = (name, block)
        if key not in self._tables:
            quick = self._outer(name, block)
            self._tables[key] = self._entries(name, block) if quick is None else quick
        return self._tables[key]

    def _outer(self, name: str, block: tuple[Any, ...]) -> Array | None:
        """The shares as left_t^T d_a_t, where one random direction agrees: far fewer evaluations."""
        loop, run, p = self.loop, self.run, self.run.cell.params[name]
        if loop is None or name not in ("W_x", "W_h", "b") or not isinstance(block[0], int):
            return None
        lefts = {"W_x": run.x, "b": np.ones((*run.x.shape[:2], 1))}
        shares = np.einsum("tbi,tbj->tij", lefts.get(name, run.tape.states[:-1, 0]), loop.d_a[block[0]])
        direction = np.zeros(p.shape)
        if shares.shape[1:] != p.shape[1:]:
            return None
        direction[block] = np.random.default_rng(3).normal(size=p.shape[1:])
        exact = self.along(name, direction)
        told = (shares * direction[block]).sum(axis=(1, 2))
        return shares if np.abs(told - exact).max() <= RIGHT[run.method] * np.abs(exact).max() else None

    def _entries(self, name: str, block: tuple[Any, ...]) -> Array:
        """The same, one entry at a time."""
        p = self.run.cell.params[name]
        inside = np.zeros(p.shape, bool)
        inside[block] = True
        shares = []
        for index in map(tuple, np.argwhere(inside)):
            one = np.zeros(p.shape)
            one[index] = 1
            shares.append(self.along(name, one))
        return np.array(shares).T.reshape(-1, *p[block].shape)

    def wrong_blocks(self, claimed: Params, rng: np.random.Generator) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
        """(parameter, gate, index) of each block whose sum along random directions is not the exact one."""
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
                    yield name, gate, block

    def explain(
        self, claimed: Array, name: str, gate: str, block: tuple[Any, ...], d_extras: Array
    ) -> tuple[Explanation | None, Array]:
        """(hypothesis, exact block)."""
        run, tolerance = self.run, FIT[self.run.method]
        shares = self.table(name, block)
        exact = shares.sum(axis=0)
        p = run.cell.params[name]
        others = {
            f"params[{name}][{g}]": self.table(name, b).sum(axis=0) for g, b in blocks(run.cell, name) if b != block
        }
        for g, b in blocks(run.cell, name):
            if len(exact.shape) == 2 and exact.shape[0] == exact.shape[1] > 1 and b != block:
                others[f"the transpose of params[{name}][{g}]"] = others[f"params[{name}][{g}]"].T
        plain = explain_plain(claimed, exact, others, max(np.abs(exact).max(), np.abs(p).max()), tolerance)
        if plain and plain.kind == "scale":
            plain = named_scale(plain, float((claimed * exact).sum() / (exact * exact).sum()), run)
        if plain:
            return plain, exact
        for kind, told, hypothesis in self._shapes_of_sums(name, shares, exact, p[block]):
            if hypothesis.shape == claimed.shape:
                off = residual(claimed, hypothesis)
                if off <= tolerance:
                    return Explanation(kind, told, off), exact
        found = self._formed(claimed, exact, name, d_extras) if self.loop is not None else None
        return found, exact

    def _shapes_of_sums(self, name: str, shares: Array, exact: Array, p: Array) -> Iterator[tuple[str, str, Array]]:
        if exact.ndim == 2 and exact.shape[0] == exact.shape[1]:
            yield "transpose", "is the transpose of the right one", exact.T
        yield "initialised from parameter", "has the parameter itself added: a buffer initialised from it", exact + p
        if len(shares) > 1:
            only = ", which the initial state enters: right only if the initial state is zero" if name == "W_h" else ""
            yield "first step skipped", f"lacks the first time step's term{only}", exact - shares[0]
            yield "last step skipped", "lacks the last time step's term", exact - shares[-1]
            told = "holds one time step's term alone ({}): = where += should be"
            yield "overwritten", told.format("the first"), shares[0]
            yield "overwritten", told.format("the last"), shares[-1]

    def _formed(self, claimed: Array, exact: Array, name: str, d_extras: Array) -> Explanation | None:
        """Sums over time and batch of left^T (d * factor): which operands make the claimed, which the exact."""
        run, loop = self.run, self.loop
        assert loop is not None
        vocabulary = self._vocabulary = self._vocabulary or sequence_vocabulary(run)
        shape = vocabulary.shape
        signals = {f"d_a[{g}]": run.rows(d) for g, d in zip(run.cell.gate_names, loop.d_a, strict=True)}
        signals |= {f"d_extras[{n}]": run.rows(d) for n, d in enumerate(d_extras)}
        factors = vocabulary.singles.reshape(-1, *shape)
        names: list[tuple[str, str, str]] = []
        rows: list[Array] = []
        flat_x = run.rows(run.x)
        for signal, d in signals.items():
            scaled = d * factors  # (F, TB, H)
            if claimed.size == shape[1] and claimed.shape[-1] == shape[1]:
                names += [("", signal, "".join(f)) for f in vocabulary.single_names]
                rows.append(scaled.sum(axis=1))
            elif name == "W_x":
                names += [("x_t", signal, "".join(f)) for f in vocabulary.single_names]
                rows.append((flat_x.T @ scaled).reshape(len(factors), -1))
            else:
                lefts = {"".join(f): v for f, v in zip(vocabulary.single_names[1:], factors[1:], strict=True)}
                for f, v in list(lefts.items()):
                    for s, prev in zip(run.cell.state_names, run.tape.states[:-1].swapaxes(0, 1), strict=True):
                        lefts[f"({f} {s}_{{t-1}})"] = v * run.rows(prev)
                for f, left in lefts.items():
                    plain = f.startswith("(") and " " in f
                    some = scaled[:1] if plain else scaled
                    names += [(f, signal, "".join(g)) for g in vocabulary.single_names[: len(some)]]
                    rows.append((left.T @ some).reshape(len(some), -1))
        table = np.concatenate(rows)
        if table.shape[1] != claimed.size:
            return None
        both = np.stack((claimed.ravel(), exact.ravel()))
        found: tuple[list[tuple[int, int]], ...] = ([], [])
        for which, n, way in match(both, table, FIT[run.method]):
            found[which].append((n, way))
        if not found[0] or not found[1]:
            return None

        def differ(pair: tuple[tuple[int, int], tuple[int, int]]) -> tuple[int, int, int]:
            (i, s), (j, r) = pair
            unlike = sum(a != b for a, b in zip(names[i], names[j], strict=True)) + (s != r)
            return unlike, sum(map(len, names[i])) + sum(map(len, names[j])), i

        (mine, sign), (should, true_sign) = min(((m, e) for m in found[0] for e in found[1]), key=differ)
        off = residual(both[0], sign * table[mine])
        also = ", with the wrong sign" if sign != true_sign else ""
        told = f"is formed with {_sum_text(names[mine])}, where {_sum_text(names[should])} should be{also}"
        (_, signal, factor), (_, true_signal, true_factor) = names[mine], names[should]
        if names[mine] != names[should] and _any_step(names[mine]) == _any_step(names[should]):
            return Explanation("neighbouring step", told + ": an operand from the neighbouring time step", off)
        if signal != true_signal:
            return Explanation("another's place", told, off)
        return Explanation("wrong factor" if factor != true_factor else "wrong operand", told, off)


def _sum_text(name: tuple[str, str, str]) -> str:
    left, signal, factor = name
    right = f"{signal} {f'({factor})' if factor.startswith('1 -') else factor}".strip()
    return f"{left}^T ({right})" if left and factor else f"{left}^T {right}" if left else right


def _any_step(name: tuple[str, str, str]) -> tuple[str, ...]:
    return tuple(part.replace("{t-1}", "t") for part in name)


def named_scale(plain: Explanation, number: float, run: Run) -> Explanation:
    """A number that is B, T or one of their inverses is told by name."""
    B, T = run.x.shape[1], run.T
    for name, value in {"B": B, "T": T, "T*B": T * B, "1/B": 1 / B, "1/T": 1 / T, "1/(T*B)": 1 / (T * B)}.items():
        if abs(number - value) <= 1e-6 * value and value != 1:
            what = {"B": "batch size", "T": "number of steps"}.get(name.removeprefix("1/"), "number of rows")
            return replace(plain, text=f"is {name} times the right value: scaled by the {what}")
    return plain


def blocks(cell: Cell, name: str) -> list[tuple[str, tuple[Any, ...]]]:
    """(gate, index) for each gate's block of a parameter, or one block for a parameter without gates."""
    p = cell.params[name]
    if p.ndim == 3 and len(p) == len(cell.gate_names):
        return [(gate, (k,)) for k, gate in enumerate(cell.gate_names)]
    return [("", (...,))]


def sequence_vocabulary(run: Run) -> Vocabulary:
    """The step's vocabulary, over all T*B rows."""
    states = run.tape.states.swapaxes(0, 1)
    none = np.zeros(0)
    a, prev, following = run.rows(run.inputs()), run.rows(states[:, :-1]), run.rows(states[:, 1:])
    gates, extras = run.rows(run.tape.gates), run.rows(run.tape.extras)
    return step_vocabulary(StepCase(run.cell, a, prev, gates, following, extras, none, none, none, run.method))


def check_params(what: str, claimed: Any, cell: Cell, some: set[str] | None = None) -> tuple[Params, list[Finding]]:
    """The claimed gradients as arrays of the right shapes; what does not fit becomes a finding, and zeros."""
    findings: list[Finding] = []
    arrays: Params = {}
    if not isinstance(claimed, dict):
        told = f"{what} gives {describe(claimed)}, where a dictionary of gradients should be."
        return {name: np.zeros(p.shape) for name, p in cell.params.items()}, [
            Finding((what,), (), "wrong shape", told, 0.0)
        ]
    for name, p in cell.params.items():
        if some is not None and name not in some:
            continue
        output, value = f"params[{name}]", claimed.get(name)
        if value is None:
            told = f"{output}: {what} gives no gradient for this parameter."
            findings.append(Finding((output,), (), "missing", told, 0.0))
            continue
        array = np.asarray(value)
        if array.shape != p.shape or array.dtype.kind not in "fiuc":
            told = f"{output} is {describe(array)}, where shape {p.shape} should be."
            findings.append(Finding((output,), (), "wrong shape", told, 0.0))
            continue
        arrays[name] = array.real.astype(float)
    return arrays, findings


def diagnose_recurrent_grads(run: Run, vjp: Vjp, step_is_right: bool, rng: np.random.Generator) -> list[Finding]:
    """`recurrent_grads` on exact d_a, so that mistakes of `step_backward` do not reach it."""
    loop = go_back(run, vjp)
    cell, tape = run.cell, run.tape
    try:
        d_extras = own_extras(run, loop)
        claimed = cell.recurrent_grads(tape, loop.d_a.copy(), d_extras.copy())
        without = cell.recurrent_grads(tape, loop.d_a.copy(), np.zeros_like(d_extras))
    except Exception as error:
        return [raised("recurrent_grads", error)] if step_is_right else []
    inside = set(cell.params) - {"W_x", "b"}
    arrays, findings = check_params("recurrent_grads", claimed, cell, inside)
    found: list[Wrong] = []
    sums = Sums(run, loop)
    for name, gate, block in sums.wrong_blocks(arrays, rng):
        told = arrays[name][block]
        depends = len(d_extras) and not np.array_equal(told, np.asarray(without[name])[block])
        if depends and not step_is_right:
            continue  # d_extras comes from a step_backward that is wrong already
        why, exact = sums.explain(told, name, gate, block, d_extras)
        found.append((name, gate, told, exact, why))
    return findings + param_findings(found)


def own_extras(run: Run, loop: Loop) -> Array:
    """What step_backward returns for recurrent_grads, at every step of the loop: (n, T, B, H)."""
    tape = run.tape
    steps = [
        run.cell.step_backward(loop.used[t + 1].copy(), tape.states[t].copy(), tape.gates[:, t], tape.extras[:, t])[2]
        for t in range(run.T)
    ]
    return (
        np.array([[np.asarray(d) for d in step] for step in steps])
        .reshape(run.T, len(steps[0]), *run.d_h.shape[1:])
        .swapaxes(0, 1)
    )


def param_findings(found: Sequence[Wrong]) -> list[Finding]:
    """One finding for each parameter and explanation: gates with the same one together."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for n, (name, gate, _, _, why) in enumerate(found):
        key = (name, why.kind, why.text.replace(f"[{gate}]", "[k]")) if why else (name, "unexplained", gate)
        groups.setdefault(key, []).append(n)
    findings = []
    for (_, kind, text), members in groups.items():
        outputs = tuple(f"params[{found[n][0]}]" + (f"[{found[n][1]}]" if found[n][1] else "") for n in members)
        *_, claimed, exact, why = found[members[0]]
        if why and len(members) == 1:
            text = why.text
        text = (text if why else "is wrong, and no hypothesis fits") + (": never written" if kind == "zero" else "")
        numbers = "" if why else show_numbers(claimed, exact)
        verb, _, rest = text.partition(" ")
        told = f"{listing(outputs)} {PLURAL.get(verb, verb) if len(outputs) > 1 else verb} {rest}."
        findings.append(Finding(outputs, (), kind, told, why.residual if why else None, numbers))
    return findings
