"""The third look: a `backward` of the learner's own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell, Gradients, Tape
from rnnlab.diagnosis.case import FIT, RIGHT, make_step_case, step_values
from rnnlab.diagnosis.report import Finding, listing
from rnnlab.diagnosis.run import Loop, Run, Vjp, forward_states, forward_x, go_back, taught_vjp
from rnnlab.diagnosis.step import diagnose_step, explain_plain, is_right, leftover, raised, show_numbers
from rnnlab.diagnosis.sums import Params, Sums, Wrong, blocks, check_params, named_scale, own_extras, param_findings
from rnnlab.diagnosis.terms import residual
from rnnlab.ops import Array
from rnnlab.validate import describe


def call_backward(run: Run) -> tuple[Gradients, list[str]]:
    """The cell's own `backward` on copies, and the names of the arguments that it changed."""
    tape = replace(run.tape, **{n: getattr(run.tape, n).copy() for n in ("x", "states", "gates", "extras")})
    d_h, d_state = run.d_h.copy(), run.d_state.copy()
    grads = run.cell.backward(tape, d_h, d_state)
    names = {"d_h": (d_h, run.d_h), "d_state": (d_state, run.d_state)}
    names |= {f"tape.{n}": (getattr(tape, n), getattr(run.tape, n)) for n in ("x", "states", "gates", "extras")}
    return grads, [name for name, (now, then) in names.items() if not np.array_equal(now, then, True)]


def diagnose_backward(run: Run, exact: Vjp | None, taught: Vjp | None, rng: np.random.Generator) -> list[Finding]:
    """A `backward` against the time loop around each step's exact derivatives, or, where these are None, against
    the whole forward pass. `taught` is a step_backward known to be right, if there is one."""
    cell = run.cell
    try:
        grads, changed = call_backward(run)
        params, wrong = check_params("backward", getattr(grads, "params", None), cell)  # copies: buffers may be reused
        states, x = (np.array(getattr(grads, name, None)) for name in ("states", "x"))
        again, _ = _second(run)
    except _SecondCallError as error:
        told = f"The second call of backward raises {error}: something unusable is left over from the call before."
        return [Finding(("backward",), (), "state left over", told, 0.0)]
    except Exception as error:
        return [raised("backward", error)]
    findings: list[Finding] = []
    if changed:
        told = (
            f"backward changes its argument {listing(changed)} in place, so the caller's array is another afterwards."
        )
        findings.append(Finding(tuple(changed), (), "argument modified", told, 0.0))
    findings += wrong
    if wrong:
        return findings
    second, _ = check_params("backward", getattr(again, "params", None), cell)
    loop = go_back(run, exact) if exact else None
    sums = Sums(run, loop)
    different = [n for n in params if not np.array_equal(params[n], second.get(n, params[n]), True)]
    if different:
        name = different[0]
        whole = np.zeros(params[name].shape)
        for _, block in blocks(cell, name):
            whole[block] = sums.table(name, block).sum(axis=0)
        finding = leftover("backward", params[name], second[name], whole)
        findings.append(replace(finding, outputs=tuple(f"params[{n}]" for n in different)))
        params = {n: g for n, g in params.items() if n not in different}  # nothing more can be said of these
    true_states = loop.recorded if loop else forward_states(run)
    claimed_states, claimed_x = _shaped(states, true_states), _shaped(x, run.x)
    for output, given, value, like in (("states", states, claimed_states, true_states), ("x", x, claimed_x, run.x)):
        if value is None:
            told = f"{output} is {describe(given)}, where an array of shape {like.shape} should be."
            findings.append(Finding((output,), (), "wrong shape", told, 0.0))
    true_x = run.sums_of(loop)["x"] if loop else forward_x(run)
    right = RIGHT[run.method]
    states_right = claimed_states is None or is_right(claimed_states, true_states, 0.0, right)
    x_right = claimed_x is None or is_right(claimed_x, true_x, 0.0, right)
    bad_params = list(sums.wrong_blocks(params, rng))
    if states_right and x_right and not bad_params:
        return findings
    d_extras = np.zeros((0, *run.d_h.shape))
    if loop and taught:
        d_extras = own_extras(run, loop)
    claims: Params = {name: g for name, g in params.items() if name in ("W_x", "b")}
    claims |= {} if claimed_x is None else {"x": claimed_x}
    fitting = None
    if loop and exact:
        fitting = _fitting_loop(run, exact, taught is not None, loop, claims, claimed_states)
    if fitting:
        finding, sim = fitting
        findings.append(finding)
        left = {n: g for n, g in params.items() if f"params[{n}]" not in finding.outputs}
        sums = sums if finding.outputs == ("x",) else Sums(run, sim)
        found: list[Wrong] = []
        for name, gate, block in sums.wrong_blocks(left, rng):
            why, true = sums.explain(params[name][block], name, gate, block, d_extras)
            if why or finding.kind.startswith("lost"):  # else it may follow from the operands that are wrong
                found.append((name, gate, params[name][block], true, why))
        return findings + param_findings(found)
    if not states_right and exact:
        in_a_step = diagnose_one_step_backward(run, rng)
        if in_a_step:
            return findings + in_a_step
    if not states_right and claimed_states is not None:
        findings.append(_states_finding(run, claimed_states, true_states, x_right and not bad_params))
        if not (x_right and not bad_params):
            zeros = [(n, g, b) for n, g, b in bad_params if not params[n][b].any()]
            bad_params, x_right = zeros, True
    found = []
    for name, gate, block in bad_params:
        why, true = sums.explain(params[name][block], name, gate, block, d_extras)
        found.append((name, gate, params[name][block], true, why))
    findings += param_findings(found)
    if not x_right and claimed_x is not None:
        findings.append(_x_finding(run, claimed_x, true_x, loop))
    return findings


def calls_step_backward(run: Run) -> bool:
    """Whether the cell's own `backward` makes use of its `step_backward`."""
    calls: list[int] = []
    twin = copy.copy(run.cell)
    own = twin.step_backward

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return own(*arguments)

    twin.__dict__["step_backward"] = counted
    with contextlib.suppress(Exception):  # told when backward is diagnosed
        twin.backward(run.tape, run.d_h.copy(), run.d_state.copy())
    return bool(calls)


def compare_with_loop(run: Run) -> list[Finding]:
    """An own `backward` around a step_backward that is wrong: does it differ from the right loop around the same?"""
    try:
        claimed, _ = call_backward(run)
        right = Cell.backward(run.cell, run.tape, run.d_h, run.d_state)
    except Exception as error:
        return [raised("backward", error)]
    params, findings = check_params("backward", getattr(claimed, "params", None), run.cell)
    pairs: list[tuple[str, Any, Array | None]] = [
        (f"params[{name}]", g, right.params[name]) for name, g in params.items()
    ]
    pairs += [("states", claimed.states, right.states), ("x", claimed.x, right.x)]
    for output, told, expected in pairs:
        value = None if expected is None else _shaped(told, expected)
        if value is not None and expected is not None and not is_right(value, expected, 0.0, RIGHT[run.method]):
            why = explain_plain(value, expected, {}, float(np.abs(expected).max()), FIT[run.method])
            text = f"{why.text}" if why else "wrong beyond what follows from step_backward"
            numbers = "" if why else show_numbers(value, expected)
            kind, off = (why.kind, why.residual) if why else ("unexplained", None)
            findings.append(Finding((output,), (), kind, f"{output}: {text}.", off, numbers))
    return findings


def diagnose_one_step_backward(run: Run, rng: np.random.Generator) -> list[Finding]:
    """An own `backward` as a step_backward: one step of one row gives d_a as the bias's gradient, d_prev as
    dL/dstates[0]. Nothing is found where the bias's and W_x's gradients disagree about d_a."""
    cell = run.cell
    rows = -(-40 // cell.hidden_size)
    x = rng.normal(size=(rows, cell.input_size))
    try:
        case = make_step_case(cell, rows, rng, x)
    except Exception:  # told elsewhere
        return []

    def step_backward(d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Array, Array, tuple[()]]:
        d_a, d_prev = np.empty_like(case.a), np.empty_like(case.prev)
        for n in range(rows):
            one = slice(n, n + 1)
            states = np.stack((prev[:, one], case.next[:, one]))
            tape = Tape(x[None, one], states, gates[:, None, one], extras[:, None, one], cell.gate_names)
            d_state = d_next[:, one].copy()
            d_state[0] = 0
            grads = cell.backward(tape, d_next[:1, one].copy(), d_state)
            d_a[:, one], d_prev[:, one] = grads.params["b"], grads.states[0]
            by_weights = np.einsum("d,kdh->kh", x[n], grads.params["W_x"]) / (x[n] @ x[n])
            if not np.allclose(by_weights, d_a[:, n], rtol=1e-6, atol=1e-9):
                raise ValueError("the gradients of W_x and b disagree about d_a")
        return d_a, d_prev, ()

    twin = copy.copy(cell)
    twin.__dict__["step_backward"] = step_backward
    try:
        findings = diagnose_step(replace(case, cell=twin))
    except Exception:
        return []
    findings = [f for f in findings if f.kind not in ("exception", "wrong shape", "not linear")]
    return [replace(f, sentence=f"In one step of backward: {f.sentence}") for f in findings]


class _SecondCallError(Exception):
    """The second of two equal calls raised."""


def _second(run: Run) -> tuple[Gradients, list[str]]:
    try:
        return call_backward(run)
    except Exception as error:
        raise _SecondCallError(f"{type(error).__name__}: {error}") from error


def _shaped(value: Any, like: Array) -> Array | None:
    array = np.asarray(value)
    return array.real.astype(float) if array.shape == like.shape and array.dtype.kind in "fiuc" else None


def _fitting_loop(
    run: Run, vjp: Vjp, taught: bool, right: Loop, claims: Params, states: Array | None
) -> tuple[Finding, Loop] | None:
    """The wrong time loop that reproduces most of the claimed arrays that are wrong, and what to say of it."""
    exact = run.sums_of(right)
    wrong = {n: c for n, c in claims.items() if not is_right(c, exact[n], 0.0, RIGHT[run.method])}
    best: tuple[Finding, Loop] | None = None
    for kind, paths, told, loop in wrong_loops(run, vjp, taught):
        predicted = run.sums_of(loop)
        off = {n if n == "x" else f"params[{n}]": residual(c, predicted[n]) for n, c in wrong.items()}
        if states is not None and not is_right(loop.recorded, right.recorded, 0.0, RIGHT[run.method]):
            off["states"] = min(residual(states, loop.used), residual(states, loop.recorded))
        fits = {output: far for output, far in off.items() if far <= FIT[run.method]}
        if fits and (best is None or len(fits) > len(best[0].outputs)):
            sentence = f"backward: {told}."
            if kind == "lost in time" and list(fits) == ["x"]:
                sentence = f"x: {told}, so dL/dx ignores the later time steps."
            best = Finding(tuple(fits), paths, kind, sentence, max(fits.values())), loop
    return best


def wrong_loops(run: Run, vjp: Vjp, taught: bool) -> Iterator[tuple[str, tuple[str, ...], str, Loop]]:
    """(kind, paths, sentence, loop) of the wrong ways back through time that people write."""
    cell, tape, T = run.cell, run.tape, run.T
    S = len(cell.state_names)
    for lost in chain.from_iterable(combinations(range(S), n) for n in range(1, S + 1)):
        carried = np.array([s not in lost for s in range(S)], float)[:, None, None]
        paths = tuple(f"dL/d{cell.state_names[s]}" for s in lost)
        told = f"{listing(paths)} of the next step {'is' if len(lost) == 1 else 'are'} never carried back"
        yield "lost in time", paths, told, go_back(run, vjp, carried)
        yield "lost in time", paths, told, go_back(run, vjp, carried, final=carried)
    last = np.zeros_like(run.d_h)
    last[-1] = run.d_h[-1]
    yield "lost d_h", ("dL/dh",), "d_h is read at the last step alone", go_back(run, vjp, d_h=last)
    yield "lost d_h", ("dL/dh",), "d_h is never read", go_back(run, vjp, d_h=0 * last)
    yield (
        "lost d_state",
        (),
        "d_state, what reaches the final state from outside, is ignored",
        go_back(run, vjp, final=0),
    )
    early = np.concatenate((run.d_h[:1], run.d_h[:-1]))
    yield (
        "neighbouring step",
        ("dL/dh",),
        "d_h of the step before is read (d_h[t-1] for d_h[t])",
        go_back(run, vjp, d_h=early),
    )
    if not taught:
        return
    for s, name in enumerate(cell.state_names):
        for kind, told, rows in (
            ("neighbouring step", f"{name}_t is used where {name}_{{t-1}} is meant", tape.states[1:, s]),
            (
                "initial state",
                f"the initial {name} is taken as zero",
                np.r_[0 * tape.states[:1, s], tape.states[1:-1, s]],
            ),
        ):
            previous = tape.states[:-1].copy()
            previous[:, s] = rows
            yield kind, (), told, go_back(run, taught_vjp(run, previous=previous))
    for k, gate in enumerate(cell.gate_names):
        gates = tape.gates.copy()
        gates[k, :-1] = gates[k, 1:]
        told = f"the gate {gate} of the next step is used where this step's is meant"
        yield "neighbouring step", (), told, go_back(run, taught_vjp(run, replace(tape, gates=gates)))
    for name in ("b", "W_x", "W_h"):
        yield from _recomputed(run, name)


def _recomputed(run: Run, name: str) -> Iterator[tuple[str, tuple[str, ...], str, Loop]]:
    """Gates recomputed for the backward pass with another gate's parameter."""
    cell, tape, T = run.cell, run.tape, run.T
    p, a, K = cell.params[name], run.inputs(), len(cell.gate_names)
    if p.shape[0] != K:
        return
    for source in range(K):
        twin = cell.with_params(cell.params | {name: np.broadcast_to(p[source], p.shape)})
        b = np.einsum("tbd,kdh->ktbh", run.x, twin.W_x) + twin.b[:, :, None]
        recomputed = np.stack([step_values(twin, b[:, t], tape.states[t])[0] for t in range(T)], axis=1)
        rest = [k for k in range(K) if k != source]
        for some in chain.from_iterable(combinations(rest, n) for n in range(1, K)):
            gates = tape.gates.copy()
            gates[list(some)] = recomputed[list(some)]
            names = [cell.gate_names[k] for k in some]
            told = (
                f"{name}[{cell.gate_names[source]}] is used in the place of {listing([f'{name}[{g}]' for g in names])} "
                "where the gates are recomputed"
            )
            yield "another's place", (), told, go_back(run, taught_vjp(run, replace(tape, gates=gates)))


def _states_finding(run: Run, claimed: Array, exact: Array, alone: bool) -> Finding:
    """dL/dstates that no wrong loop reproduces: where in time it parts from the exact one."""
    right = RIGHT[run.method]
    T, parts = run.T, run.cell.state_names
    good = np.array(
        [
            [is_right(claimed[t, s], exact[t, s], float(np.abs(exact).max()), right) for s in range(len(parts))]
            for t in range(T + 1)
        ]
    )
    outputs = tuple(f"states[{part}]" for s, part in enumerate(parts) if not good[:, s].all())
    first = int(np.flatnonzero(~good.all(axis=1)).max())
    where = f"wrong already at t = {T}, the last"
    if first < T:
        last_right = f"from t = {T} down to t = {first + 1}" if first + 1 < T else f"at t = {T}"
        where = f"right {last_right}, wrong from t = {first} on down"
    if not claimed.any():
        return Finding(outputs, (), "zero", f"{listing(outputs)}: all zeros: never written.", 0.0)
    less = exact.copy()
    less[1:, 0] -= run.d_h
    off = residual(claimed, less)
    if off <= FIT[run.method]:
        told = f"{listing(outputs)}: recorded before d_h is added ({where})."
        return Finding(outputs, ("dL/dh",), "lost d_h", told, off)
    if alone:
        memory = exact.copy()
        grads = Gradients({}, None, exact)
        memory[:, -1] = run.cell.memory_gradient(run.tape, grads)
        told = (
            f"{listing(outputs)}: {where}, though the parameters' and the input's gradients are right: the recorded "
            "array is changed after its step was computed (an argument modified in place, as in d_c += ...)"
        )
        off = residual(claimed, memory)
        fits = off <= FIT[run.method]
        told += "; it holds the textbook's delta, which adds the path through h_t." if fits else "."
        return Finding(outputs, (), "argument modified", told, off if fits else None)
    t, s = first, int(np.flatnonzero(~good[first])[0])
    told = f"{listing(outputs)}: {where}, and no hypothesis fits."
    return Finding(outputs, (), "unexplained", told, None, show_numbers(claimed[t, s], exact[t, s]))


def _x_finding(run: Run, claimed: Array, exact: Array, loop: Loop | None) -> Finding:
    plain = explain_plain(claimed, exact, {}, float(np.abs(exact).max()), FIT[run.method])
    if plain and plain.kind == "scale":
        plain = named_scale(plain, float((claimed * exact).sum() / (exact * exact).sum()), run)
    if plain:
        return Finding(("x",), (), plain.kind, f"x {plain.text}.", plain.residual)
    if loop is not None:
        names = run.cell.gate_names
        terms = np.einsum("ktbh,kdh->ktbd", loop.d_a, run.cell.W_x)
        for some in chain.from_iterable(combinations(range(len(names)), n) for n in range(1, len(names))):
            off = residual(claimed, terms[list(some)].sum(axis=0))
            if off <= FIT[run.method]:
                lost = [f"d_a[{g}] W_x[{g}]^T" for k, g in enumerate(names) if k not in some]
                return Finding(("x",), (), "lost term", f"x lacks {listing(lost)}.", off)
    return Finding(("x",), (), "unexplained", "x is wrong, and no hypothesis fits.", None, show_numbers(claimed, exact))
