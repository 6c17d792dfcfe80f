"""The first look: one step. Each output of `step_backward`, through each incoming path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

import numpy as np

from rnnlab.diagnosis.case import FIT, RIGHT, StepCase, call_step_backward, own_vectors, step_vocabulary
from rnnlab.diagnosis.report import Finding, listing, modified, raised, sentence
from rnnlab.diagnosis.terms import Term, Vocabulary, closest_readings, factor_text, match, residual, subsets, transposed
from rnnlab.ops import Array

FLOOR = 1e-5  # a block is measured against at least this share of the largest one


@dataclass(frozen=True)
class Explanation:
    """A hypothesis that fits: `text` completes "d_a[forget] ...". `term` is what is lost or too many."""

    kind: str
    text: str
    residual: float | None = None
    term: Term | None = None
    cause: str = ""  # the same for outputs in which the same factors are missing and too many


@dataclass(frozen=True)
class Wrong:
    """One output that is wrong through one path."""

    output: str
    path: str
    claimed: Array
    exact: Array
    error: Array  # claimed - exact, less what follows from other mistakes
    explanation: Explanation | None
    follows: bool = False  # from another output that is wrong


def diagnose_step(case: StepCase) -> list[Finding]:
    """Findings about `step_backward`, the root first; none where all its outputs are right."""
    cell, S = case.cell, len(case.prev)
    values = case.prev, case.gates, case.extras
    paths = [np.where((np.arange(S) == p)[:, None, None], case.d_next, 0) for p in range(S)]
    try:
        first = call_step_backward(cell, paths[0], *values)
    except Exception as error:  # anything that a learner's code raises is a finding
        return [raised("step_backward", error)]
    try:
        called = [call_step_backward(cell, d, *values) for d in (*paths, 0 * case.d_next, case.d_next)]
    except Exception as error:
        return [raised("a later call of step_backward", error)]
    changed = sorted({name for call in called for name in call[3]})
    findings = [modified("step_backward", changed)] if changed else []
    if not all(np.array_equal(x, y, True) for x, y in zip(first[:2], called[0][:2], strict=True)):
        return [*findings, leftover("step_backward", first[0], called[0][0], case.d_a[0])]
    *each_a, zero_a, joint_a = (call[0] for call in called)
    *each_prev, zero_prev, joint_prev = (call[1] for call in called)
    names = [*(f"d_a[{g}]" for g in cell.gate_names), *(f"d_prev[{s}]" for s in cell.state_names)]
    constant = [n for n, d in zip(names, (*zero_a, *zero_prev), strict=True) if d.any() and np.isfinite(d).all()]
    if constant:
        told = (
            f"{listing(constant)}: not zero for d_next = 0, though a gradient is linear in d_next; is a buffer "
            "initialised from something else than zeros, or d_next forgotten in a product?"
        )
        findings.append(Finding(tuple(constant), (), "not zero for zero", told, 0.0))
    finite = np.isfinite(zero_a).all() and np.isfinite(zero_prev).all()
    claimed_a, claimed_prev = np.array(each_a), np.array(each_prev)
    if finite:
        claimed_a, claimed_prev = claimed_a - zero_a, claimed_prev - zero_prev
    wrong = _compare(case, claimed_a, claimed_prev)
    wrong = [w for w in wrong if w.output not in constant or w.explanation is None or w.explanation.kind != "zero"]
    findings += _to_findings(case, wrong, claimed_a, claimed_prev)
    right = RIGHT[case.method]
    if not findings and not (
        is_right(joint_a, claimed_a.sum(axis=0), right) and is_right(joint_prev, claimed_prev.sum(axis=0), right)
    ):
        told = "Each incoming path alone is right, but not all together: step_backward is not linear in d_next."
        findings.append(Finding(("d_next",), (), "not linear", told, 0.0))
    return findings


def leftover(what: str, first: Array, second: Array, exact: Array) -> Finding:
    """Two calls with the same arguments that give different answers."""
    grows = residual(exact, second - first) < 1e-6
    how = ": each call adds to the one before (accumulators are not cleared)" if grows else ""
    told = (
        f"The second call of {what} with the same arguments gives another answer than the first, so something is "
        f"left over from the call before{how}."
    )
    return Finding((what,), (), "state left over", told, residual(second, first + exact) if grows else 0.0)


def is_right(claimed: Array, exact: Array, tolerance: float, largest: float = 0.0) -> bool:
    scale = max(np.abs(exact).max(initial=0), FLOOR * largest)
    return bool(np.abs(claimed - exact).max(initial=0) <= tolerance * scale)


def _compare(case: StepCase, claimed_a: Array, claimed_prev: Array) -> list[Wrong]:
    """Every output that is wrong through one path, with the hypothesis that fits; not what merely follows."""
    cell, tolerance = case.cell, RIGHT[case.method]
    largest = float(max(np.abs(case.d_a).max(), np.abs(case.d_prev).max()))
    vocabulary: Vocabulary | None = None
    gates = [f"d_a[{g}]" for g in cell.gate_names]
    wrong: list[Wrong] = []
    for p, path in enumerate(f"dL/d{s}" for s in cell.state_names):
        bad = [k for k, g in enumerate(claimed_a[p]) if not is_right(g, case.d_a[p, k], tolerance, largest)]
        bad_prev = [j for j, d in enumerate(claimed_prev[p]) if not is_right(d, case.d_prev[p, j], tolerance, largest)]
        if not bad and not bad_prev:
            continue
        vocabulary = vocabulary or step_vocabulary(cell, case.prev, case.gates, case.next, case.extras, case.method)
        here: list[Wrong] = []
        for k in bad:
            bases = {path: case.d_next[p]} | {g: claimed_a[p, n] for n, g in enumerate(gates) if n not in bad}
            others = {g: case.d_a[p, n] for n, g in enumerate(gates) if n != k}
            why = explain(claimed_a[p, k], case.d_a[p, k], vocabulary, bases, others, largest)
            error = claimed_a[p, k] - case.d_a[p, k]
            here.append(Wrong(gates[k], path, claimed_a[p, k], case.d_a[p, k], error, why))
        here = _what_follows(here, case.method, vocabulary)
        for j in bad_prev:
            claimed, exact = claimed_prev[p, j], case.d_prev[p, j]
            known = (_true_terms(case, q, j, vocabulary) for q in sorted(range(len(case.prev)), key=lambda q: q != p))
            true = next(filter(None, known), None)
            if bad and true is None and _shares_ratio(here, claimed, exact, case.method) is None:
                continue  # it may follow from d_a, and nothing tells
            errors = dict(zip(gates, claimed_a[p] - case.d_a[p], strict=True))
            rest = claimed - sum(vocabulary.value(term, errors) for term in true or () if term.base in errors)
            if is_right(rest, exact, tolerance, largest):
                continue
            bases = {path: case.d_next[p]} | dict(zip(gates, claimed_a[p], strict=True))
            others = {f"d_prev[{s}]": case.d_prev[p, n] for n, s in enumerate(cell.state_names) if n != j}
            why = explain(claimed, exact, vocabulary, bases, others, largest, rest, true or ())
            here.append(Wrong(f"d_prev[{cell.state_names[j]}]", path, claimed, exact, rest - exact, why))
        wrong += _what_follows(here, case.method, vocabulary)
    return wrong


def _what_follows(wrong: list[Wrong], method: str, vocabulary: Vocabulary) -> list[Wrong]:
    """An unexplained output has an explained one's cause where it is wrong by the same ratio, or where its error
    is the other's error times recorded values."""
    explained = [w for w in wrong if w.explanation and not w.follows]

    def told(w: Wrong) -> Wrong:
        root = _shares_ratio(explained, w.claimed, w.exact, method)
        errors = (o for o in explained if root is None and vocabulary.readings(w.error, {o.output: o.error}))
        root = root or next(errors, None)
        return w if root is None else replace(w, explanation=root.explanation, follows=True)

    return [w if w.explanation else told(w) for w in wrong]


def _shares_ratio(wrong: Iterable[Wrong], claimed: Array, exact: Array, method: str) -> Wrong | None:
    for o in wrong:
        left, right = claimed * o.exact, exact * o.claimed
        if np.abs(right).max() > 0 and np.abs(left - right).max() <= FIT[method] * np.abs(right).max():
            return o
    return None


def _true_terms(case: StepCase, p: int, j: int, vocabulary: Vocabulary) -> list[Term] | None:
    """The summands of d_prev[j] in truth, read off the exact numbers of path p: None where nothing fits.

    In most cells d_prev[h] = sum_k d_a[k] W_h[k]^T, perhaps with one gate's product gated (a GRU's reset) and
    an elementwise path besides; d_prev[c] may get d_a[k] times a peephole weight.
    """
    cell, exact, path = case.cell, case.d_prev[p, j], f"dL/d{case.cell.state_names[p]}"
    names = [f"d_a[{g}]" for g in cell.gate_names]
    bases = dict(zip(names, case.d_a[p], strict=True))
    candidates: list[list[Term]] = [[]]
    if j == 0 and all(f"W_h[{g}]^T" in vocabulary.matrices for g in cell.gate_names):
        standard = [Term(name, (), f"W_h{name.removeprefix('d_a')}^T") for name in names]
        candidates = [standard]
        for term in standard:
            rest = [other for other in standard if other != term]
            candidates.append(rest)
            for factor in vocabulary.single_names[1:]:
                candidates += [[*rest, replace(term, before=factor)], [*rest, replace(term, after=factor)]]
    elif j > 0:
        vectors = [name for name in own_vectors(cell) if name in vocabulary.factors]
        weighted = [Term(name, (vector,)) for name in names for vector in vectors]
        candidates += [list(some) for n in (1, 2) for some in combinations(weighted, n)]
    values = {term: vocabulary.value(term, bases) for term in set(chain.from_iterable(candidates))}
    left = np.array([exact - sum((values[term] for term in c), np.zeros_like(exact)) for c in candidates])
    left = left.reshape(len(candidates), -1)
    zero = np.flatnonzero(np.abs(left).max(axis=1) <= FIT[case.method] * np.abs(exact).max())
    if len(zero):
        return candidates[int(zero[0])]
    direct = case.d_next[p].ravel() * vocabulary.products
    fits = [(i, len(vocabulary.product_names[n]), n) for i, n, _ in match(left, direct, FIT[case.method])]
    if not fits:
        return None
    i, _, n = min(fits)
    return [*candidates[i], Term(path, vocabulary.product_names[n])]


def explain(
    claimed: Array,
    exact: Array,
    vocabulary: Vocabulary,
    bases: dict[str, Array],
    others: dict[str, Array],
    largest: float,
    rest: Array | None = None,
    true: Sequence[Term] | None = None,
) -> Explanation | None:
    """The simplest hypothesis that turns the exact numbers into the claimed ones; None where none fits.

    `bases` are what summands start from, `others` the exact values of this output's neighbours, `rest` the
    claimed numbers less what follows from other mistakes. `true` names the summands of an output that is a sum of
    several (d_prev), as far as they are known; None means that the output should be one product.
    """
    rest = claimed if rest is None else rest
    plain = explain_plain(claimed, exact, others, largest, vocabulary.tolerance, len(claimed))
    if plain:
        return plain
    found = vocabulary.ratio(rest, exact)
    if found:
        return of_ratio(*found)
    error = rest - exact
    if true is None:
        told, should = vocabulary.readings(rest, bases), vocabulary.readings(exact, bases)
        pair = closest_readings(told, should)
        if pair:
            value = vocabulary.value(pair[0], bases)
            off = min(residual(rest, value), residual(rest, -value))
            return _of_terms(pair[0], pair[1], off, whole=True, sign=pair[2])
        for number in (1, 2):
            lost = vocabulary.readings(error / number, bases)
            if lost:
                term, sign = lost[0]
                off = residual(error, number * sign * vocabulary.value(term, bases))
                return _of_lost(term, sign, number, bool(told), off)
        bracket = vocabulary.ratio(rest, exact, brackets=True)
        if bracket:
            return of_ratio(*bracket)
    summands = vocabulary.difference(error, bases, true or ())
    return _of_terms(*summands) if summands else _of_several(error, vocabulary, bases, true or ())


def _of_several(
    error: Array, vocabulary: Vocabulary, bases: dict[str, Array], true: Sequence[Term]
) -> Explanation | None:
    """The same mistake in several of the true summands of d_prev."""
    values = {term: vocabulary.value(term, bases) for term in true if term.base in bases}
    turned = {term: replace(term, matrix=transposed(term.matrix)) for term in values if term.matrix}
    for kind, told, changes in (
        ("lost term", "lacks {}", {term: -v for term, v in values.items()}),
        ("transpose", "has the transpose of the matrix in {}",
            {t: vocabulary.value(u, bases) - values[t] for t, u in turned.items() if u.matrix in vocabulary.matrices}),
        ("sign of a term", "has {} with the wrong sign", {term: -2 * v for term, v in values.items()}),
    ):  # fmt: skip
        for some in subsets(changes):
            off = residual(error, np.sum([changes[term] for term in some], axis=0))
            if off <= vocabulary.tolerance:
                return Explanation(kind, told.format(listing([str(term) for term in some])), off)
    return None


def explain_plain(
    claimed: Array, exact: Array, others: dict[str, Array], largest: float, tolerance: float, B: int, T: int = 1
) -> Explanation | None:
    """Hypotheses that need no vocabulary: zeros, a number, a neighbour's place, single precision."""
    if not np.isfinite(claimed).all():
        return Explanation("not finite", "is not finite (NaN or infinite)", 0.0)
    size, scale = np.abs(claimed).max(), np.abs(exact).max()
    if size <= 1e-14 * largest:
        return Explanation("zero", "is all zeros: never written", 0.0)
    if scale <= 1e-14 * largest:
        return Explanation("should be zero", "should be zero", None)
    number = float((claimed * exact).sum() / (exact * exact).sum())
    off = residual(claimed, number * exact)
    if off <= tolerance and abs(number + 1) <= tolerance:
        return Explanation("sign", "has the wrong sign", off)
    if np.abs(claimed - exact).max() <= 3e-6 * scale and tolerance < 1e-6:
        return Explanation("float32", "is right to single precision only, as from a float32 buffer", off)
    if off <= tolerance:
        for name, meaning, n in (("B", "batch size", B), ("T", "number of steps", T), ("T*B", "number of rows", T * B)):
            for text, value in ((name, n), (f"1/({name})" if "*" in name else f"1/{name}", 1 / n)):
                if n > 1 and abs(number - value) <= 1e-6 * value:
                    return Explanation("scale", f"is {text} times the right value: scaled by the {meaning}", off)
        if claimed.size > 1:  # any two numbers have some ratio
            return Explanation("scale", f"is {number:.6g} times the right value", off)
    for name, other in others.items():
        if np.abs(claimed - other).max() <= tolerance * size:
            return Explanation("another's place", f"holds what {name} should be", residual(claimed, other))
    return None


def _meaning(factors: tuple[str, ...]) -> str:
    if any(f.endswith(")") and "(1 - " in f for f in factors):
        return ": the derivative of the sigmoid"
    if any(f.startswith("1 - ") and f.endswith("^2") for f in factors):
        return ": the derivative of tanh"
    return ""


def of_ratio(missing: tuple[str, ...], extra: tuple[str, ...], sign: int, off: float) -> Explanation:
    also, cause = ", and the wrong sign" if sign < 0 else "", f"{missing} {extra}"
    if len(missing) == 2 and missing[0] == missing[1] and extra == (f"{missing[0]}^2",):
        missing, extra = missing[:1], (missing[0].replace("-", "+"),)  # 1 - v^2 = (1 - v)(1 + v)
    if missing and extra:
        told = f"has {factor_text(extra)} in the place of {factor_text(missing)}{also}{_exchange(missing, extra)}"
        return Explanation("wrong factor", told, off, None, cause)
    if missing:
        told = f"lacks the factor {factor_text(missing)}{also}{_meaning(missing)}"
        return Explanation("missing factor", told, off, None, cause)
    told = f"has the factor {factor_text(extra)} too many{also}{_meaning(extra)}"
    return Explanation("extra factor", told, off, None, cause)


def _exchange(missing: tuple[str, ...], extra: tuple[str, ...]) -> str:
    """What an exchange of two factors usually means."""
    if len(missing) == len(extra) == 1:
        (m,), (e,) = missing, extra
        if m == f"1 - {e}" or e == f"1 - {m}":
            gate = min(m, e, key=len)
            return f": {gate} and 1 - {gate} are exchanged"
        if m.replace("{t-1}", "t") == e.replace("{t-1}", "t"):
            return ": an operand from the neighbouring time step"
        if m == f"tanh({e})" or e == f"tanh({m})":
            return ": the tanh stands in one of the two passes only"
    return ""


def _of_lost(term: Term, sign: int, number: int, simple: bool, off: float) -> Explanation:
    """error = +-number * term; `simple`: what is claimed is one product, so the exact value is that and a term more."""
    if number == 2:
        return Explanation("sign of a term", f"has the term {term} with the wrong sign", off, term)
    if simple or sign < 0:
        return Explanation("lost term", f"lacks the term {'-' if sign > 0 else ''}{term}", off, term)
    return Explanation("extra term", f"has the term {term} too many", off, term)


def _of_terms(
    put_in: Term | None, left_out: Term | None, off: float, whole: bool = False, sign: int = 1
) -> Explanation:
    """One summand lost, too many, or in another's place (`whole`: it is all that the output should be)."""
    if put_in is None:
        return Explanation("lost term", f"lacks the term {left_out}", off, left_out)
    if left_out is None:
        return Explanation("extra term", f"has the term {put_in} too many", off, put_in)
    should = f"{'is' if whole else 'has the term'} {put_in}, where {left_out} should be"
    should += " (and the wrong sign)" if sign < 0 else ""
    base, matrix = put_in.base == left_out.base, put_in.matrix == left_out.matrix
    alike = sorted(put_in.factors) == sorted(left_out.factors)
    mine, true = (term.matrix.removesuffix("^T") for term in (put_in, left_out))
    product = next((f for f in put_in.factors if f.endswith(f" {true})")), "")
    missing, extra = _only(left_out, put_in), _only(put_in, left_out)
    kind, why, cause = "wrong term", "", ""
    if base and alike and true and not mine:
        kind, why = "missing matrix", f": the product with {left_out.matrix} is missing"
    elif base and alike and matrix and put_in.matrix:
        kind, why = "order", ": the factor belongs on the other side of the product"
    elif base and not matrix and mine and (put_in.before, put_in.after) == (left_out.before, left_out.after):
        kind, why = (
            ("transpose", f": the transpose of {true}")
            if mine == true
            else ("another's place", ": another gate's matrix")
        )
    elif base and matrix and (missing or extra):
        kind = "wrong factor" if missing and extra else "missing factor" if missing else "extra factor"
        why = {
            "wrong factor": _exchange(missing, extra),
            "missing factor": f": the factor {factor_text(missing)} is missing",
            "extra factor": f": the factor {factor_text(extra)} is too many",
        }[kind]
        cause = f"{missing} {extra}"
    elif true and product:
        kind = "order"
        why = ": the elementwise factor comes before the product in the one pass and after it in the other"
    return Explanation(kind, should + why, off, None, cause)


def _only(term: Term, other: Term) -> tuple[str, ...]:
    return tuple((Counter(term.factors) - Counter(other.factors)).elements())


def _to_findings(case: StepCase, wrong: list[Wrong], claimed_a: Array, claimed_prev: Array) -> list[Finding]:
    """One finding for each cause: outputs and paths with the same explanation together."""
    cell = case.cell
    findings: list[Finding] = []
    names = [f"dL/d{s}" for s in cell.state_names]
    for p, path in enumerate(names):
        lost = any(w.path == path for w in wrong)
        if lost and not np.abs(claimed_a[p]).max() and not np.abs(claimed_prev[p]).max():
            wrong = [w for w in wrong if w.path != path]
            told = f"Nothing of {path} is used: this incoming path ({path} of the next step) is lost."
            findings.append(Finding(("d_a", "d_prev"), (path,), "lost path", told, 0.0))
    groups: dict[tuple[str, ...], list[Wrong]] = {}
    for w in wrong:
        why = w.explanation
        key: tuple[str, ...] = ("unexplained", w.output) if why is None else (why.kind, why.cause or why.text)
        if why and why.term and why.kind in ("lost term", "extra term"):
            key = (why.kind, why.term.base, why.term.matrix, w.path)  # one lost path reaches several outputs
        groups.setdefault(key, []).append(w)
    return findings + _likewise(names, [_finding(names, members) for members in groups.values()])


def _likewise(names: Sequence[str], findings: list[Finding]) -> list[Finding]:
    """The same kind of mistake in the same outputs through several paths is one mistake, told for the simplest path."""
    groups: dict[tuple[tuple[str, ...], str], list[Finding]] = {}
    for f in findings:
        groups.setdefault((f.outputs, f.kind), []).append(f)
    merged = []
    for some in groups.values():
        told = min(some, key=lambda f: len(f.sentence))
        if len(some) > 1:
            rest = [p for p in names if p not in told.paths and any(p in f.paths for f in some)]
            told = replace(
                told,
                paths=tuple(p for p in names if p in rest or p in told.paths),
                sentence=f"{told.sentence} The same through {listing(rest)}.",
                residual=max((f.residual for f in some if f.residual is not None), default=None),
            )
        merged.append(told)
    explained = [f for f in merged if f.explained]
    for f in merged:
        roots = [n for n, root in enumerate(explained) if set(f.outputs) <= set(root.outputs)]
        if not f.explained and roots:
            root = explained[roots[0]]
            sentence = f"{root.sentence} Through {listing(f.paths)} it is wrong too; no hypothesis fits there."
            paths = tuple(p for p in names if p in root.paths or p in f.paths)
            explained[roots[0]] = replace(root, paths=paths, sentence=sentence)
        elif not f.explained:
            explained.append(f)
    return explained


def _finding(names: Sequence[str], members: list[Wrong]) -> Finding:
    """One finding for outputs and paths with the same explanation; `names` are all paths."""
    why = min((w.explanation for w in members if w.explanation), key=lambda e: len(e.text), default=None)
    outputs = tuple(dict.fromkeys(w.output for w in members))
    same = [w for w in members if not w.explanation or not why or why.term or w.explanation.text == why.text]
    roots = tuple(dict.fromkeys(w.output for w in same if not w.follows))
    after = tuple(output for output in outputs if output not in roots)
    paths = tuple(dict.fromkeys(w.path for w in members))
    through = "" if len(names) == 1 or len(paths) == len(names) else f" through {listing(paths)}"
    numbers = ""
    if why is None:
        kind, text = "unexplained", "is wrong, and no hypothesis fits"
        numbers = show_numbers(members[0].claimed, members[0].exact)
    else:
        kind, text = why.kind, why.text
        terms = [w.explanation.term for w in members if w.explanation and w.explanation.term]
        if len(roots) > 1 and why.term and len(set(terms)) > 1:
            common = tuple(f for f in why.term.factors if all(f in term.factors for term in terms))
            shared = Term(why.term.base, common, why.term.matrix)
            text = text.replace(str(why.term), f"{shared} (times factors of its own in each)")
    if kind == "zero" and through:
        text = text.replace("never written", f"{listing(paths)} does not get here")
    told = sentence(roots, text, through)
    if after:
        told += f" {listing(after)} {'follows' if len(after) == 1 else 'follow'} from it."
    off = max((w.explanation.residual or 0.0 for w in members if w.explanation), default=None)
    return Finding(outputs, paths, kind, told, off, numbers)


def show_numbers(claimed: Array, exact: Array) -> str:
    """The first three numbers that differ."""
    differ = np.flatnonzero(~np.isclose(claimed, exact, rtol=1e-5, atol=0))[:3]
    return f"({'; '.join(f'{claimed.flat[n]:.4g}, should be {exact.flat[n]:.4g}' for n in differ)})"
