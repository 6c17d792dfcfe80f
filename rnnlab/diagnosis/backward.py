"""The third look: a `backward` of the learner's own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell, Gradients, Tape
from rnnlab.diagnosis.case import FIT, RIGHT, enough_rows, make_step_case, step_values, with_values
from rnnlab.diagnosis.report import Finding, listing, modified, raised, sentence
from rnnlab.diagnosis.run import Loop, Run, Vjp, forward_states, forward_x, go_back, own_extras, taught_vjp
from rnnlab.diagnosis.step import diagnose_step, explain_plain, is_right, leftover, show_numbers
from rnnlab.diagnosis.sums import Params, Sums, changes, check_params, copied, param_findings
from rnnlab.diagnosis.terms import residual, subsets
from rnnlab.ops import Array
from rnnlab.validate import describe


def call_backward(run: Run) -> tuple[Gradients, list[str]]:
    """The cell's own `backward` on copies, and the names of what it changed; its parameters are put back."""
    tape, d_h, d_state = copied(run.tape), run.d_h.copy(), run.d_state.copy()
    before = {name: p.copy() for name, p in run.cell.params.items()}
    try:
        grads = run.cell.backward(tape, d_h, d_state)
    finally:
        now = {"d_h": (d_h, run.d_h), "d_state": (d_state, run.d_state)}
        now |= {f"params[{name}]": (run.cell.params[name], p) for name, p in before.items()}
        changed = [name for name, (mine, then) in now.items() if not np.array_equal(mine, then, True)]
        for name, p in before.items():
            run.cell.params[name][...] = p
    if not all(hasattr(grads, name) for name in ("params", "x", "states")):
        raise ValueError(f"backward gives {describe(grads)}, where Gradients should be")
    return grads, changed + changes(tape, run.tape)


def diagnose_backward(run: Run, exact: Vjp | None, taught: bool, rng: np.random.Generator) -> list[Finding]:
    """A `backward` against the time loop around each step's exact derivatives, or, where these are None, against
    the whole forward pass. `taught`: there is a step_backward that is known to be right."""
    cell, right = run.cell, RIGHT[run.method]
    try:
        grads, changed = call_backward(run)
        params, wrong = check_params("backward", grads.params, cell)  # copies: buffers may be reused
        states, x = _of_shape(grads.states, run.tape.states), _of_shape(grads.x, run.x)
    except Exception as error:
        return [raised("backward", error)]
    findings = ([modified("backward", changed)] if changed else []) + wrong
    if wrong:
        return findings
    try:
        second, _ = check_params("backward", call_backward(run)[0].params, cell)
    except Exception as error:
        told = f"The second call of backward raises {type(error).__name__}: {error}: something unusable is left over "
        return [Finding(("backward",), (), "state left over", told + "from the call before.", 0.0)]
    loop = go_back(run, exact) if exact else None
    d_extras = own_extras(run, loop) if loop and taught else ()
    sums = Sums(run, loop, d_extras)
    different = [n for n in params if not np.array_equal(params[n], second.get(n, params[n]), True)]
    if different:
        name = different[0]
        finding = leftover("backward", params[name], second[name], sums.whole(name))
        findings.append(replace(finding, outputs=tuple(f"params[{n}]" for n in different)))
        params = {n: g for n, g in params.items() if n not in different}  # nothing more can be said of these
    for output, value, like in (("states", states, run.tape.states), ("x", x, run.x)):
        if value is None:
            told = f"{output} is {describe(getattr(grads, output))}, where an array of shape {like.shape} should be."
            findings.append(Finding((output,), (), "wrong shape", told, 0.0))
    true_states = loop.recorded if loop else forward_states(run)
    true_x = run.sums_of(loop)["x"] if loop else forward_x(run)
    states_right = states is None or is_right(states, true_states, right)
    x_right = x is None or is_right(x, true_x, right)
    bad_params = list(sums.wrong(params, rng))
    if states_right and x_right and not bad_params:
        return findings
    if loop and exact:
        claims = {name: g for name, g in params.items() if name in ("W_x", "b")} | ({} if x is None else {"x": x})
        fitting = _fitting_loop(run, exact, taught, loop, claims, states)
        if fitting:
            finding, sim = fitting
            left = {n: g for n, g in params.items() if f"params[{n}]" not in finding.outputs}
            found = (sums if finding.outputs == ("x",) else Sums(run, sim, d_extras)).wrong(left, rng)
            known = finding.kind.startswith("lost")  # else what is unexplained may follow from the wrong operands
            return [*findings, finding, *param_findings([w for w in found if w[4] or known])]
    if not states_right and states is not None:
        in_a_step = diagnose_one_step_backward(run, rng) if exact else []
        if in_a_step:
            return findings + in_a_step
        alone = x_right and not bad_params
        findings.append(_states_finding(run, states, true_states, alone))
        if not alone:  # what is wrong besides may follow, but for what was never written
            bad_params, x_right = [w for w in bad_params if not w[2].any()], True
    findings += param_findings(bad_params)
    if not x_right and x is not None:
        findings.append(_x_finding(run, x, true_x, loop))
    return findings


def diagnose_linearity(run: Run) -> list[Finding]:
    """A backward pass that is right for this loss: is it so many times as large for a loss that is?"""
    scale, claims = 1024.0, []  # a power of two rounds nothing
    for factor in (scale, 1.0):
        grads, _ = call_backward(replace(run, d_h=factor * run.d_h, d_state=factor * run.d_state))
        claims.append({f"params[{n}]": np.array(g) for n, g in grads.params.items()} | {"states": grads.states.copy()})
    large, plain = claims
    wrong = [n for n, g in plain.items() if not is_right(large[n], scale * g, 0.0, RIGHT[run.method])]
    if not wrong:
        return []
    told = (
        f"{listing(wrong)}: right for this loss, but not {scale:g} times as large for one that is: is a gradient "
        "clipped inside the backward pass? (Clip all that it returns, together.)"
    )
    return [Finding(tuple(wrong), (), "not linear", told, 0.0)]


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
        call_backward(replace(run, cell=twin))
    return bool(calls)


def compare_with_loop(run: Run) -> list[Finding]:
    """An own `backward` around a step_backward that is wrong: does it differ from the right loop around the same?"""
    try:
        claimed, _ = call_backward(run)
        right = Cell.backward(run.cell, run.tape, run.d_h, run.d_state)
        params, findings = check_params("backward", claimed.params, run.cell)
    except Exception as error:
        return [raised("backward", error)]
    pairs = [(f"params[{name}]", g, right.params[name]) for name, g in params.items()]
    for output, given, expected in (*pairs, ("states", claimed.states, right.states), ("x", claimed.x, right.x)):
        value = None if expected is None else _of_shape(given, expected)
        if value is not None and expected is not None and not is_right(value, expected, RIGHT[run.method]):
            told = "is wrong beyond what follows from step_backward"
            findings.append(_plainly(run, (output,), value, expected, told))
    return findings


def diagnose_one_step_backward(run: Run, rng: np.random.Generator) -> list[Finding]:
    """An own `backward` as a step_backward: one step of one row gives d_a as the bias's gradient, d_prev as
    dL/dstates[0]. Nothing is found where the bias's and W_x's gradients disagree about d_a."""
    cell = run.cell
    rows = enough_rows(cell)
    x = rng.normal(size=(rows, cell.input_size))

    def step_backward(d_next: Array, prev: Array, gates: Array, extras: Array) -> tuple[Array, Array, tuple[()]]:
        d_a, d_prev = np.empty_like(gates), np.empty_like(prev)
        for n in range(rows):
            one = slice(n, n + 1)
            states = np.stack((prev[:, one], following[:, one]))
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
        case = make_step_case(twin, rows, rng, x)
        if case is None:
            return []
        following = case.next
        findings = diagnose_step(case)
    except Exception:  # told elsewhere
        return []
    findings = [f for f in findings if f.kind not in ("exception", "wrong shape", "not linear")]
    return [replace(f, sentence=f"In one step of backward: {f.sentence}") for f in findings]


def _of_shape(value: Any, like: Array) -> Array | None:
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        return None
    return array.real.astype(float) if array.shape == like.shape and array.dtype.kind in "fiuc" else None


def _fitting_loop(
    run: Run, vjp: Vjp, taught: bool, right: Loop, claims: Params, states: Array | None
) -> tuple[Finding, Loop] | None:
    """The wrong time loop that reproduces most of the claimed arrays that are wrong, and what to say of it."""
    exact = run.sums_of(right)
    wrong = {n: c for n, c in claims.items() if not is_right(c, exact[n], RIGHT[run.method])}
    best: tuple[Finding, Loop] | None = None
    for kind, paths, told, loop in wrong_loops(run, vjp, taught):
        predicted = run.sums_of(loop)
        whole = kind in ("lost step", "order")  # these leave nothing right
        some = claims if whole else wrong
        off = {n if n == "x" else f"params[{n}]": residual(c, predicted[n]) for n, c in some.items()}
        if states is not None and not is_right(loop.recorded, right.recorded, RIGHT[run.method]):
            off["states"] = min(residual(states, loop.used), residual(states, loop.recorded))
        fits = {output: far for output, far in off.items() if far <= FIT[run.method]}
        if fits and (best is None or len(fits) > len(best[0].outputs)) and not (whole and len(fits) < len(some)):
            told = f"backward: {told}"
            if kind == "lost in time" and list(fits) == ["x"]:
                told = f"x: {told.removeprefix('backward: ')}, so dL/dx ignores the later time steps"
            best = Finding(tuple(fits), paths, kind, f"{told}.", max(fits.values())), loop
    return best


def wrong_loops(run: Run, vjp: Vjp, taught: bool) -> Iterator[tuple[str, tuple[str, ...], str, Loop]]:
    """(kind, paths, sentence, loop) of the wrong ways back through time that people write."""
    cell, tape, T = run.cell, run.tape, run.T
    for lost in subsets(range(len(cell.state_names))):
        carried = np.array([s not in lost for s in range(len(cell.state_names))], float)[:, None, None]
        paths = tuple(f"dL/d{cell.state_names[s]}" for s in lost)
        told = f"{listing(paths)} of the next step {'is' if len(lost) == 1 else 'are'} never carried back"
        yield "lost in time", paths, told, go_back(run, vjp, carried)
        yield "lost in time", paths, told, go_back(run, vjp, carried, final=carried)
    last = np.concatenate((np.zeros_like(run.d_h[1:]), run.d_h[-1:]))
    for told, d_h in (
        ("d_h is read at the last step alone", last),
        ("d_h is never read", 0 * last),
        ("d_h of the step before is read (d_h[t-1] for d_h[t])", np.roll(run.d_h, 1, axis=0)),
    ):
        yield "lost d_h", ("dL/dh",), told, go_back(run, vjp, d_h=d_h)
    told = "d_state, what reaches the final state from outside, is ignored"
    yield "lost d_state", (), told, go_back(run, vjp, final=0)
    for kind, told, steps in (
        ("lost step", "the loop never comes to the first time step, t = 0", reversed(range(1, T))),
        ("lost step", "the loop never takes the last time step", reversed(range(T - 1))),
        ("order", "the loop goes forward in time, from t = 0 on", range(T)),
    ):
        if T > 1:
            yield kind, (), told, go_back(run, vjp, steps=steps)
    if not taught:
        return
    for s, name in enumerate(cell.state_names):
        late, zero = tape.states[:-1].copy(), tape.states[:-1].copy()
        late[:, s], zero[0, s] = tape.states[1:, s], 0
        told = f"{name}_t is used where {name}_{{t-1}} is meant"
        yield "neighbouring step", (), told, go_back(run, taught_vjp(run, previous=late))
        yield "initial state", (), f"the initial {name} is taken as zero", go_back(run, taught_vjp(run, previous=zero))
    for way, which in ((1, "before"), (-1, "after")):
        told = f"the gates of the step {which} are used where this step's are meant"
        yield "neighbouring step", (), told, go_back(run, taught_vjp(run, np.roll(tape.gates, way, axis=1)))
    b = cell.params["b"]
    for source, name in enumerate(cell.gate_names):  # gates recomputed with another gate's bias
        twin = with_values(cell, {"b": np.broadcast_to(b[source], b.shape)})
        a = run.inputs(twin)
        recomputed = np.stack([step_values(twin, a[:, t], tape.states[t])[0] for t in range(T)], axis=1)
        for some in subsets(k for k in range(len(b)) if k != source):
            gates, places = tape.gates.copy(), listing([f"b[{cell.gate_names[k]}]" for k in some])
            gates[list(some)] = recomputed[list(some)]
            told = f"b[{name}] is used in the place of {places} where the gates are recomputed"
            yield "another's place", (), told, go_back(run, taught_vjp(run, gates))


def _plainly(run: Run, outputs: Sequence[str], claimed: Array, exact: Array, otherwise: str) -> Finding:
    """What can be said of a whole array: zeros, a sign, a number; or `otherwise`, and the numbers."""
    why = explain_plain(claimed, exact, {}, float(np.abs(exact).max()), FIT[run.method], run.x.shape[1], run.T)
    if why:
        return Finding(tuple(outputs), (), why.kind, sentence(outputs, why.text), why.residual)
    told = f"{listing(outputs)}: {otherwise}."
    return Finding(tuple(outputs), (), "unexplained", told, None, show_numbers(claimed, exact))


def _states_finding(run: Run, claimed: Array, exact: Array, alone: bool) -> Finding:
    """dL/dstates that no wrong loop reproduces: where in time it parts from the exact one.
    `alone`: all else is right."""
    T, largest = run.T, float(np.abs(exact).max())
    good = np.array(
        [
            [is_right(c, e, RIGHT[run.method], largest) for c, e in zip(*both, strict=True)]
            for both in zip(claimed, exact, strict=True)
        ]
    )
    outputs = tuple(f"states[{part}]" for s, part in enumerate(run.cell.state_names) if not good[:, s].all())
    first = int(np.flatnonzero(~good.all(axis=1)).max())
    where = f"wrong already at t = {T}, the last"
    if first < T:
        last_right = f"from t = {T} down to t = {first + 1}" if first + 1 < T else f"at t = {T}"
        where = f"right {last_right}, wrong from t = {first} on down"
    late, less, memory = claimed.copy(), exact.copy(), exact.copy()
    late[1:T] = exact[2:]
    less[1:, 0] -= run.d_h
    hypotheses = [("lost d_h", "recorded before d_h is added", less)]
    if T > 1:
        hypotheses.append(("neighbouring step", "states[t] holds what states[t + 1] should be", late))
    if alone:
        memory[:, -1] = run.cell.memory_gradient(run.tape, Gradients({}, None, exact))
        told = (
            "changed after its step was computed (an argument modified in place, as in d_c += ...): it holds the "
            "textbook's delta, which adds the path through h_t"
        )
        hypotheses.append(("argument modified", told, memory))
    for kind, told, hypothesis in hypotheses:
        off = residual(claimed, hypothesis)
        if off <= FIT[run.method]:
            return Finding(outputs, (), kind, f"{listing(outputs)}: {where}: {told}.", off)
    t, s = first, int(np.flatnonzero(~good[first])[0])
    finding = _plainly(run, outputs, claimed, exact, f"{where}, and no hypothesis fits")
    return finding if finding.explained else replace(finding, numbers=show_numbers(claimed[t, s], exact[t, s]))


def _x_finding(run: Run, claimed: Array, exact: Array, loop: Loop | None) -> Finding:
    cell = run.cell
    if loop is not None:
        terms = np.einsum("ktbh,kdh->ktbd", loop.d_a, cell.W_x)
        for some in subsets(range(len(terms))):
            off = residual(claimed, exact - terms[list(some)].sum(axis=0))
            if off <= FIT[run.method] and len(some) < len(terms):
                lost = listing([f"d_a[{cell.gate_names[k]}] W_x[{cell.gate_names[k]}]^T" for k in some])
                return Finding(("x",), (), "lost term", f"x lacks {lost}.", off)
        if cell.input_size == cell.hidden_size:
            off = residual(claimed, np.einsum("ktbh,khd->tbd", loop.d_a, cell.W_x))
            if off <= FIT[run.method]:
                return Finding(("x",), (), "transpose", "x is formed with W_x, where W_x^T should be.", off)
    return _plainly(run, ("x",), claimed, exact, "is wrong, and no hypothesis fits")
