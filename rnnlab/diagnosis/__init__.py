"""`diagnose`: says which term of a learner's derivative is wrong."""

from __future__ import annotations

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.backward import calls_step_backward, compare_with_loop, diagnose_backward, diagnose_linearity
from rnnlab.diagnosis.case import (
    CENTRAL,
    enough_rows,
    make_step_case,
    private_copy,
    random_params,
    step_values,
    with_values,
)
from rnnlab.diagnosis.compare import compare_cells
from rnnlab.diagnosis.report import Diagnosis, Finding, listing, raised
from rnnlab.diagnosis.run import exact_vjp, make_run
from rnnlab.diagnosis.step import diagnose_step
from rnnlab.diagnosis.sums import diagnose_recurrent_grads
from rnnlab.ops import Array
from rnnlab.validate import describe, generator, positive_int

__all__ = ["Diagnosis", "Finding", "diagnose"]


def diagnose(
    cell: Cell, reference: Cell | None = None, *, rng: int | np.random.Generator = 0, T: int = 5, B: int = 3
) -> Diagnosis:
    """Say where a cell's derivatives are wrong, and what the mistake most likely is.

    First one step: every output of `step_backward`, through each incoming path alone, against the exact
    vector-Jacobian product of the cell's own `step` (complex step: Squire & Trapp 1998; central differences
    where `step` refuses complex numbers). Then the sums of `recurrent_grads`, and a `backward` of the
    cell's own, over T steps of B sequences. For each array that is wrong, hypotheses are tested against
    the numbers: a missing or extra factor, a sign, a transpose, a lost term, a neighbouring time step,
    another gate's array, ... A finding's residual says how well its hypothesis fits; where none does, the
    finding says so and shows the numbers. What merely follows from another mistake is left out.

    The parameters are replaced by random ones, and a copy is worked on: the cell stays as it is.

    With a `reference`, the forward passes of the two cells are compared instead, gate by gate, on the same
    parameters.

    Returns a `Diagnosis`, also for a cell whose code raises; raises TypeError or ValueError only for
    arguments that are no cells, sizes or seeds.
    """
    if not isinstance(cell, Cell):
        raise TypeError(f"cell: expected a Cell, got {describe(cell)}")
    if reference is not None and not isinstance(reference, Cell):
        raise TypeError(f"reference: expected a Cell or None, got {describe(reference)}")
    T, B, rng = positive_int("T", T), positive_int("B", B), generator(rng)
    if reference is not None:
        return compare_cells(cell, reference, T, B, rng)
    notes: list[str] = []
    try:
        with np.errstate(all="ignore"):  # NaN and infinity are told as findings
            findings = _diagnose(private_copy(cell), T, B, rng, notes)
        findings += identical_gates(cell)
    except Exception as error:  # a learner's code may raise anything, anywhere
        findings = [raised("the forward pass", error)]
    return Diagnosis(repr(cell), tuple(findings), tuple(notes))


def _diagnose(cell: Cell, T: int, B: int, rng: np.random.Generator, notes: list[str]) -> list[Finding]:
    methods = ("forward", "backward", "step", "step_backward")
    own = {name for name in methods if getattr(type(cell), name) is not getattr(Cell, name)}
    if not own & {"backward", "step_backward"}:
        told = f"{type(cell).__name__} has no step_backward"
        return [raised("step_backward", NotImplementedError(told))]
    case, method = None, None
    if "step" in own or "forward" not in own:
        rows = max(B, enough_rows(cell))
        cell, unusable = _usable(cell, rows, rng)
        if unusable:
            return unusable
        case = make_step_case(cell, rows, rng)
        if case is None:
            notes.append("step mixes the sequences of a batch: only whole backward passes are compared")
        elif "forward" not in own:
            method = case.method
        if case and case.method == CENTRAL:
            notes.append("step does not work on complex numbers: exact derivatives are central differences, to 1e-5")
    else:
        cell = random_params(cell, rng)
    run = make_run(cell, T, B, rng, method)
    uses_step = "step_backward" in own and ("backward" not in own or calls_step_backward(run))
    findings = diagnose_step(case) if case and uses_step else []
    broken = any(f.kind in ("exception", "wrong shape", "state left over") for f in findings)
    if findings and "backward" in own:
        return findings + ([] if broken else compare_with_loop(run))
    exact = exact_vjp(run) if case else None
    if exact and uses_step and "backward" not in own and not broken:
        findings += diagnose_recurrent_grads(run, exact, not findings, rng)
    taught = case is not None and "step_backward" in own and (uses_step or not diagnose_step(case))
    return findings or diagnose_backward(run, exact, taught, rng) or diagnose_linearity(run)


def _usable(cell: Cell, rows: int, rng: np.random.Generator) -> tuple[Cell, list[Finding]]:
    """The cell with random parameters (its own where one must be positive, say), and why its `step` cannot be
    differentiated: it draws random numbers, or computes in single precision."""
    K, S, H = len(cell.gate_names), len(cell.state_names), cell.hidden_size
    a, prev = rng.normal(size=(K, rows, H)), rng.normal(size=(S, rows, H))
    twin = random_params(cell, rng)
    values = step_values(twin, a, prev)
    if not np.isfinite(values[1]).all():
        twin = with_values(cell, {})
        values = step_values(twin, a, prev)
    names = [*cell.gate_names, *cell.state_names, *cell.extra_names]
    single = [name for name, v in zip(names, np.concatenate(values), strict=True) if _is_single(v)]
    if not all(np.array_equal(x, y, True) for x, y in zip(values, step_values(twin, a, prev), strict=True)):
        told = (
            "step gives another answer at each call with the same arguments: are random numbers drawn in it, or is "
            "something left over from the call before? There is no derivative to compare with."
        )
        return twin, [Finding(("step",), (), "state left over", told, 0.0)]
    if single:
        told = (
            f"step gives {listing(single)} in single precision: a float32 buffer? "
            "Its derivatives can be checked once it computes in float64."
        )
        return twin, [Finding(("step",), (), "float32", told, 0.0)]
    return twin, []


def identical_gates(cell: Cell) -> list[Finding]:
    """Gates that start with the same random weights: no derivative is wrong, but a gate is wasted."""
    wasted: dict[str, list[str]] = {}
    for name, p in cell.params.items():
        # constant or identity matrices are alike on purpose
        if p.ndim == 3 and len(p) == len(cell.gate_names) and p.shape[1] > 1 and np.unique(p).size > 2:
            alike = [gate for gate, q in zip(cell.gate_names, p, strict=True) if (p == q).all(axis=(1, 2)).sum() > 1]
            wasted |= {f"params[{name}]": alike} if alike else {}
    if not wasted:
        return []
    outputs, gates = list(wasted), list(wasted.values())[-1]
    told = (
        f"The gates {listing(gates)} have identical weights in {listing(outputs)}: is a seed reset inside the "
        "initialiser? (No derivative is wrong.)"
    )
    return [Finding(tuple(outputs), (), "identical gates", told, 0.0)]


def _is_single(values: Array) -> bool:
    """Whether all these numbers went through single precision, and some of them show it."""
    return bool(np.any(values * 4096 % 1)) and np.array_equal(values, values.astype(np.float32))
