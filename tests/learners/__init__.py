"""Learners' code of many layouts, right and with one mistake each, against which `diagnose` is scored.

A `Base` is a right module as a learner would write it, and a table of edits: kind of mistake, what stands there, and
what stands there instead. Each edit makes one `Case`. `look` is read by whoever works on the diagnosis; `held` is only
scored, and its code is not read. Both sets were written before any of it was diagnosed.

The edits' notation, about two lines each; an old text stands exactly once in the module:

    kind: old text
      => new text ## other line where an explanation may stand ## another

`\\n` begins a new line of the same indentation, an empty new text takes the line away (its two neighbours are then
accepted), `&&` adds a second edit (which is a second mistake where the kind is `two`), and the kind `right` means
that the code stays right.

Scoring, per case. *found*: there is a finding. *line*: a finding stands at an accepted line, that is in the edited
statement or one given after `##`. *explained*: a finding at an accepted line has a repair (two mistakes: at each of
the two). *proven*: the repairs, put into the module, make every gradient right by the differences taken here.
*false*: no finding stands at an accepted line, or a repair stands at another. Right code: *false* is any finding.
An exception or an answer without findings is none of these, and the exception is counted as an error.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import rnnlab as rl

FOLDER = tempfile.TemporaryDirectory(prefix="learners")
COUNT = itertools.count()
STEP = 1e-4


@dataclass(frozen=True)
class Base:
    """A right module, its layout, what is handed to `diagnose` (from the module and a drawing function), its edits."""

    name: str
    layout: str
    call: Callable[[Any, Callable[..., Any]], tuple[Any, ...]]
    source: str
    edits: str
    weights: tuple[str, ...] = ()  # of one loss function: what its gradients are of, globals or arguments, in order

    def cases(self) -> Iterator[Case]:
        yield Case(self.name, self, "right", self.source, ())
        entries = re.split(r"\n(?=\S)", self.edits.strip("\n"))
        for n, entry in enumerate(entries, 1):
            kind, rest = entry.split(": ", 1)
            yield edited(f"{self.name}-{n:02}", self, kind, rest)


def cell(name: str, kind: str, source: str, edits: str) -> Base:
    """The base of a subclass of `Cell`: D = 3, H = 4."""
    return Base(name, "cell", lambda m, r: (getattr(m, kind)(3, 4, rng=2),), source, edits)


@dataclass(frozen=True)
class Case:
    """A module's text; `accepted` holds, for each of its mistakes, the lines where an explanation may stand."""

    id: str
    base: Base
    kind: str
    source: str
    accepted: tuple[frozenset[int], ...]

    def load(self) -> ModuleType:
        """The module, imported from a file of its own, so that its source can be read."""
        name = f"{self.id.replace('-', '_')}_{next(COUNT)}"
        path = Path(FOLDER.name) / f"{name}.py"
        path.write_text(self.source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def arguments(self) -> tuple[Any, ...]:
        """What `diagnose` is given."""
        rng = np.random.default_rng(3)
        return self.base.call(self.load(), lambda *shape: 0.6 * rng.standard_normal(shape))


def edited(name: str, base: Base, kind: str, rest: str) -> Case:
    source, marks = base.source, []
    for k, pair in enumerate(rest.split("&&")):
        old, new = (part.strip() for part in (pair + " ").split("=> ", 1))
        new, *others = (part.strip() for part in re.split(r"\s*##\s*", new))
        assert source.count(old) == 1, f"{name}: {source.count(old)} times {old!r}"
        start = source.index(old)
        line = source.rindex("\n", 0, start) + 1
        indent = re.match(" *", source[line:])[0]  # type: ignore[index]
        new = new.replace("\\n", "\n" + indent)
        if not new and source[line:start].isspace():
            before = source.rindex("\n", 0, line - 1) + 1  # its neighbours take the mark
            after = source.index("\n", source.index("\n", start) + 1)
            rest_of_it = source[source.index("\n", start) + 1 : after]
            source = f"{source[:before]}<{k}>{source[before:line]}{rest_of_it}</{k}>{source[after:]}"
        else:
            source = source[:start] + f"<{k}>{new}</{k}>" + source[start + len(old) :]
        marks.append(others)
    plain = re.sub(r"</?\d>", "", source)
    statements = simple_statements(plain)
    accepted = []
    for k, others in enumerate(marks):
        place = re.search(rf"<{k}>(.*?)</{k}>", source, re.DOTALL)
        lines = set() if place is None else {1 + source.count("\n", 0, n) for n in place.span()}
        lines = set(range(min(lines), max(lines) + 1)) if lines else lines
        found = [{n for n, text in enumerate(plain.split("\n"), 1) if other in text} for other in others]
        assert all(found), f"{name}: a line after ## is not there: {others}"
        lines = lines.union(*found)
        assert lines or kind == "right", f"{name}: no accepted line"
        accepted.append(frozenset(lines.union(*(s for s in statements if s & lines))))
    if kind != "two":  # one mistake that shows at several lines
        accepted = [frozenset().union(*accepted)]
    return Case(name, base, kind, plain, () if kind == "right" else tuple(accepted))


def simple_statements(source: str) -> list[set[int]]:
    """The lines of each statement that holds no others."""
    return [
        set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and not hasattr(node, "body")
    ]


# ---- finite differences -----------------------------------------------------------------------

Entry = tuple[str, Any, Any]  # name, the array, the gradient that is claimed


def claimed(case: Case) -> tuple[Callable[[], float], list[Entry]]:
    """The loss as a function of arrays that may be changed in place, and each array's gradient."""
    target, rng = case.arguments(), np.random.default_rng(5)
    if isinstance(target[0], rl.Cell):
        cell = target[0]
        x, state = rng.standard_normal((4, 2, cell.input_size)), rng.standard_normal((len(cell.state_names), 2, 4))
        d_h, d_state = rng.standard_normal((4, 2, 4)), rng.standard_normal(state.shape)
        grads = cell.backward(cell.forward(x, state), d_h.copy(), d_state.copy())

        def value() -> float:
            tape = cell.forward(x, state)
            return float((tape.h * d_h).sum() + (tape.states[-1] * d_state).sum())

        entries = [(name, cell.params[name], grads.params[name]) for name in cell.params]
        return value, [*entries, ("x", x, grads.x), ("state", state, grads.states[0])]
    if len(target) == 3 and callable(target[1]):
        forward, backward, arguments = target
        *outputs, cache = forward(*arguments)
        d = [rng.standard_normal(output.shape) for output in outputs]
        grads = backward(*(each.copy() for each in d), cache)
        named = dict(zip(inspect.signature(forward).parameters, arguments, strict=True))
        named = {name: a for name, a in named.items() if not isinstance(a, np.ndarray) or a.dtype.kind == "f"}
        entries = []
        for n, (name, argument) in enumerate(named.items()):
            if isinstance(argument, dict):
                of = grads if isinstance(grads, dict) else grads[n]
                entries += [(key, array, of["d" + key]) for key, array in argument.items()]
            else:
                entries.append((name, argument, grads["d" + name] if isinstance(grads, dict) else grads[n]))
        return lambda: float(sum((o * r).sum() for o, r in zip(forward(*arguments), d, strict=False))), entries
    function, *given = target
    _, *returned = function(*given)
    parameters = dict(zip(inspect.signature(function).parameters, given, strict=False))
    arrays = {name: (function.__globals__ | parameters)[name] for name in case.base.weights}
    if not arrays:
        arrays = next(argument for argument in given if isinstance(argument, dict))
        returned = [returned[0]["d" + name] for name in arrays]
    entries = [(name, array, grad) for (name, array), grad in zip(arrays.items(), returned, strict=False)]
    return lambda: float(function(*given)[0]), entries


def error(case: Case) -> float:
    """The largest relative error of a claimed gradient, along two random directions of each array."""
    value, entries = claimed(case)
    rng, worst = np.random.default_rng(7), 0.0
    for _, array, grad in entries:
        if np.shape(grad) != array.shape:
            return float("inf")
        at, pairs = array.copy(), []
        for _ in range(2):
            way, values = rng.standard_normal(array.shape), []
            for h in (STEP, -STEP, 2 * STEP, -2 * STEP):
                array[...] = at + h * way
                values.append(value())
            array[...] = at
            exact = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * STEP)
            pairs.append((exact, float((grad * way).sum())))
        numbers = np.array(pairs)
        worst = max(worst, np.abs(numbers[:, 0] - numbers[:, 1]).max() / max(np.abs(numbers).max(), 1e-4))
    return worst


# ---- scores -----------------------------------------------------------------------------------


@dataclass
class Score:
    """What `diagnose` said of one case; the words are defined above."""

    case: Case = field(repr=False)
    found: bool = False
    line: bool = False
    explained: bool = False
    proven: bool = False
    false: bool = False
    failure: str = ""
    seconds: float = 0.0
    report: Any = field(default=None, repr=False)


def judge(case: Case) -> Score:
    score, begun = Score(case), time.perf_counter()
    try:
        target = case.arguments()
        begun = time.perf_counter()
        score.report = rl.diagnose(*target)
        findings = list(score.report.findings)
        places = [(finding.line, finding.repair) for finding in findings]
    except Exception as exception:
        score.failure = f"{type(exception).__name__}: {exception}"
        return score
    finally:
        score.seconds = time.perf_counter() - begun
    score.found = bool(findings)
    right = frozenset[int]().union(*case.accepted)
    score.line = any(line in right for line, _ in places)
    repaired = {line for line, repair in places if repair is not None}
    score.explained = bool(case.accepted) and all(lines & repaired for lines in case.accepted)
    score.false = score.found and (not score.line or bool(repaired - right))
    score.proven = score.explained and mends(case, [p for p in places if p[1] is not None])
    return score


def mends(case: Case, repairs: list[tuple[int, str]]) -> bool:
    """Whether every gradient is right after the statements at these lines are replaced."""
    lines = case.source.split("\n")
    try:
        for line, repair in sorted(repairs, reverse=True):
            span = next(s for s in simple_statements(case.source) if line in s)
            indent = " " * (len(lines[min(span) - 1]) - len(lines[min(span) - 1].lstrip()))
            lines[min(span) - 1 : max(span)] = [indent + part for part in (repair.strip() or "pass").split("\n")]
        return error(Case(case.id, case.base, case.kind, "\n".join(lines), ())) < 1e-5
    except Exception:
        return False


def cases(which: str) -> list[Case]:
    """The cases of `look`, `held` or `all`."""
    from . import (
        held_arrays,
        held_cells,
        held_loss,
        held_nets,
        held_units,
        look_cells,
        look_loss,
        look_packed,
        look_sizes,
        look_styles,
        look_units,
    )

    sets = {
        "look": (look_packed, look_loss, look_cells, look_units, look_styles, look_sizes),
        "held": (held_arrays, held_loss, held_nets, held_cells, held_units),
    }
    chosen = sets[which] if which in sets else sets["look"] + sets["held"]
    return [case for module in chosen for base in module.BASES for case in base.cases()]
