"""One case examined: the claimed gradients against the exact ones, and the mistakes that make the difference."""

from __future__ import annotations

import linecache
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from rnnlab.diagnosis.forward import forward_repair
from rnnlab.diagnosis.locate import Correction
from rnnlab.diagnosis.probe import PROBE, Probe, instrumented, places
from rnnlab.diagnosis.report import Diagnosis, Finding, listing
from rnnlab.diagnosis.search import Search
from rnnlab.diagnosis.several import several
from rnnlab.diagnosis.source import executed, learners, running, sources
from rnnlab.diagnosis.trials import Wanted, is_unpacking, on_other_numbers
from rnnlab.process import one_blas_thread
from rnnlab.proof.case import Case, WrongCall, advice
from rnnlab.proof.exact import COMPLEX, LARGE, TOLERANCE, agrees, best_method, gradient

NOWHERE: tuple[str, int | None, str] = ("", None, "")  # neither function, nor line, nor text
LINEAR = 1e-9  # of what is scaled up and down again
Codes = tuple[set[Any], set[Any]]  # those that the backward pass runs, and those that the forward pass runs


def examined(make: Callable[[], Case], title: str, rng: np.random.Generator) -> Diagnosis:
    """What is wrong with one case: it raises, it gives two answers, or its gradients are not the exact ones."""
    with one_blas_thread(), np.errstate(all="ignore"), warnings.catch_warnings():  # NaN and infinity are findings
        warnings.simplefilter("ignore")  # of edits, which may be anything
        try:
            case = make()
            name, value = next(iter(case.inputs.items()))
            first, again = (np.real(case.loss(name, value)) for _ in range(2))
            record = case.record()
        except MemoryError as error:
            raise MemoryError("T, B: expected a case that fits into memory; take smaller ones") from error
        except WrongCall:
            raise
        except Exception as error:  # a learner's code may raise anything
            return Diagnosis(title, (_raised("the forward pass", error),))
        if not np.array_equal(first, again):
            what = (
                "The forward pass gives another answer at each call with the same arguments: are random numbers drawn "
                "in it, or is something kept from the call before? There is no derivative to compare with."
            )
            return Diagnosis(title, (Finding("state left over", what, outputs=("the forward pass",)),))
        result, codes = executed(lambda: case.back(record, 1.0))
        if isinstance(result, WrongCall):
            raise result
        return _compared(case, title, result, (codes, executed(case.record)[1]), rng)


def _compared(case: Case, title: str, result: Any, codes: Codes, rng: np.random.Generator) -> Diagnosis:
    """The claimed gradients against the exact ones, and the search for what mends them."""
    raised = result if isinstance(result, Exception) else None
    claims = {} if raised else {name: np.array(g) for name, g in result.items()}
    method = best_method(case.loss, case.inputs, rng)
    notes = [] if raised else _notes(case, claims, method)
    if not raised:
        again = executed(case.claims)[0]
        if isinstance(again, Exception):
            return Diagnosis(title, (_raised("a second call of the backward pass", again),))
        if any(not np.array_equal(claims[name], again[name], equal_nan=True) for name in claims):
            what = (
                "A second call of the backward pass gives another answer: what it keeps between calls is not cleared."
            )
            return Diagnosis(title, (Finding("state left over", what, outputs=tuple(claims)),))
    names = list(case.inputs) if raised else [name for name in claims if name in case.inputs]
    if not names:
        what = "It returns no gradient of any input. Is its return statement missing?"
        return Diagnosis(title, (Finding("exception", what, outputs=("the backward pass",)),), tuple(notes))
    bound, scale = TOLERANCE[method], 1.0
    wrong = [n for n in names if raised or not agrees(claims[n], *case.along(n, method, rng), bound)]
    if not wrong and case.takes_scale:
        small, scale = Wanted({n: claims[n] for n in names}), LARGE
        large = small.vector({n: g / LARGE for n, g in case.claims(LARGE).items()})
        wrong = small.names(~(np.abs(large - small.exact) <= LINEAR))
    if not wrong:
        return Diagnosis(title, (), tuple(notes))
    exact = {n: g for n, g in claims.items() if n not in wrong} if scale == 1 else dict(claims)
    if scale == 1:
        exact |= {n: gradient(partial(case.loss, n), case.inputs[n], method) for n in wrong}
    findings = _mistakes(case, exact, codes, method, scale, raised, rng)
    if scale != 1 and case.plain:  # the gradients may be small wherever these functions are used
        notes += [f"{f.where}: for gradients {LARGE:g} times as large: {f.what}" for f in findings]
        findings = []
    return Diagnosis(title, tuple(findings), tuple(notes))


def _mistakes(
    case: Case, exact: Any, codes: Codes, method: str, scale: float, raised: Exception | None, rng: Any
) -> list[Finding]:
    elsewhere = on_other_numbers(case.remake(rng, False) if case.remake else case, method, rng, scale)
    search = Search(case, exact, sources(*codes), elsewhere, scale)
    wrong = search.wanted.names(search.wrong(search.wanted.vector(dict(search.claims))))
    if not wrong and not raised:
        return [_single_precision(search, list(exact))]
    first = search.repair()
    if first is not None:
        finding = replace(first.finding, outputs=tuple(wrong))
        if raised:
            error = f"The backward pass raises {type(raised).__name__}: {str(raised).rstrip('.')}."
            finding = replace(finding, what=f"{error} {finding.what}")
        return [finding]
    located = search.located
    if raised:
        return [_raised("the backward pass", raised)]
    nowhere = located is None or is_unpacking(located.place.statement)
    forward = sources(executed(case.record)[1]) if scale == 1 and nowhere else []
    if repair := forward_repair(case, forward, method, wrong, not search.functions):
        found = replace(repair.finding, outputs=tuple(wrong))
        what = "The forward and the backward pass do not belong together. They would, if this line were another"
        if "self.b" in found.text and "self.b" not in str(found.repair):
            what = "step adds self.b, but its argument a = W_x x + b has the bias already"
        return [replace(found, what=f"{what}: {found.what}")]
    repairs, right = several(search, method, rng)
    if right:
        return [replace(repair.finding, outputs=tuple(wrong)) for repair in repairs]
    return [_unexplained(search, located, wrong)]


def _unexplained(search: Search, located: Correction | None, wrong: list[str]) -> Finding:
    """What is known without a repair: the line, its value, and of what that should be the derivative."""
    here = located.place.source.where(located.place.statement) if located else NOWHERE
    if all(not np.any(search.claims.get(name, 1.0)) for name in wrong):
        what = f"All zeros: {listing(wrong)}. Is the gradient never written, or is a line lost?"
        return Finding("never written", what, *here, None, tuple(wrong))
    shapes = {n: (np.shape(search.claims[n]), search.exact[n].shape) for n in wrong if n in search.claims}
    if told := [f"{n} is {claimed} and has to be {own}" for n, (claimed, own) in shapes.items() if claimed != own]:
        what = f"A gradient has the shape of its array: that of {listing(told)}. Is an axis or a product missing?"
        return Finding("wrong shape", what, outputs=tuple(wrong))
    if located is None:
        what = f"Wrong: {listing(wrong)}. No change of a single line was found that mends this."
        return Finding("unexplained", what, outputs=tuple(wrong))
    off = [np.abs(e - c) for e, c in zip(located.exact, located.claimed, strict=True)]
    k = int(np.argmax([o.max() for o in off]))
    index = np.unravel_index(np.argmax(off[k]), off[k].shape)
    was, should = located.claimed[k][index], located.exact[k][index]
    numbers = f"`{located.place.text}` {list(map(int, index))} is {was:.6g} and should be {should:.6g}"
    what = f"The value of `{located.place.text}` is wrong, and no small edit was found that mends it."
    if meaning := _meaning(search.case, located):
        what += f" It should be {meaning}."
    return Finding("unexplained", what, *here, None, tuple(wrong), numbers)


def _meaning(case: Case, located: Correction) -> str:
    """The expression of the forward pass whose exact derivative the value should be: "dL/d a[:, H:2*H] of line 9"."""
    name, value = next(iter(case.inputs.items()))
    functions = sources(executed(lambda: case.loss(name, value))[1])
    every = [p for s in functions for p in places(s) if not p.after]
    codes = [instrumented(s, [p for p in every if p.source is s]) for s in functions]

    def loss(probe: Probe) -> float:
        with running(codes, {PROBE: probe}):
            return float(np.real(case.loss(name, value)))

    loss(probe := Probe())
    rng, exact = np.random.default_rng(3), located.exact if all(k.all() for k in located.known) else []
    for place in every:
        for turned in (exact[::-1], exact):  # the backward pass comes to the last step first
            if exact and [v.shape for v in probe.values[id(place.node)]] == [e.shape for e in turned]:
                way = [rng.normal(size=e.shape) for e in turned]
                up, down = (loss(Probe({id(place.node): [h * w for w in way]})) for h in (1e-4, -1e-4))
                wanted = sum(float((w * e).sum()) for w, e in zip(way, turned, strict=True))
                if abs((up - down) / 2e-4 - wanted) < 1e-5 * abs(wanted):
                    return f"dL/d `{place.text}` of line {place.statement.lineno}"
    return ""


def _single_precision(search: Search, names: list[str]) -> Finding:
    place = search.single()
    here = place.source.where(place.statement) if place else NOWHERE
    what = (
        "A value of single precision (float32) stands in the backward pass: its error is that of float32, about 1e-7."
    )
    return Finding("float32", what, *here, search.in_double(place) if place else None, tuple(names))


def _raised(where: str, error: Exception) -> Finding:
    """What a learner's code raises, and the line of theirs that it comes from."""
    frames = [(f, n) for f, n in traceback.walk_tb(error.__traceback__) if learners({f.f_code})]
    message = ": ".join(filter(None, (type(error).__name__, str(error).strip(" ."), advice(error).rstrip("."))))
    here = NOWHERE
    if frames:
        frame, line = frames[-1]
        here = frame.f_code.co_name, line, linecache.getline(frame.f_code.co_filename, line).strip()
    return Finding("exception", f"{where} raises {message.rstrip('?.')}.", *here, None, (where,))


def _notes(case: Case, claims: Any, method: str) -> list[str]:
    """What is no wrong derivative, and worth a look."""
    notes = []
    if method != COMPLEX:
        notes.append("the forward pass does not take complex numbers: exact derivatives are central differences")
    for name in case.inputs:
        if name not in claims:
            notes.append(f"the backward pass returns no gradient of {name}: it was not checked")
    if case.unknown:
        notes.append(f"whose gradient is {listing(case.unknown)}? Not checked: call it d and the name of its array")
    if case.unclaimed:
        notes.append(f"no gradient of {listing(case.unclaimed)} is returned, which the function reads: not checked")
    for name, gates in case.blocks.items():
        dead = [g for g, block in zip(gates, claims.get(name, ()), strict=False) if not np.any(block)]
        if name == "b" and dead:
            notes.append(f"no gradient reaches the gate {listing(dead)}: it has no effect on the outputs")
    return notes
