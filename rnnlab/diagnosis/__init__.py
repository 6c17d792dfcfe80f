"""`diagnose`: says which term of a learner's derivative is wrong."""

from __future__ import annotations

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.backward import calls_step_backward, compare_with_loop, diagnose_backward
from rnnlab.diagnosis.case import CENTRAL, make_step_case, private_copy, random_params
from rnnlab.diagnosis.compare import compare_cells
from rnnlab.diagnosis.report import Diagnosis, Finding, listing
from rnnlab.diagnosis.run import exact_vjp, forward_method, make_run, taught_vjp
from rnnlab.diagnosis.step import diagnose_step, raised
from rnnlab.diagnosis.sums import diagnose_recurrent_grads
from rnnlab.ops import Array
from rnnlab.validate import describe, generator, positive_int

__all__ = ["Diagnosis", "Finding", "diagnose"]

ROWS_OF_NUMBERS = 40  # each output of the step is compared on at least so many numbers


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
    try:
        with np.errstate(all="ignore"):  # NaN and infinity are told as findings
            findings, notes = _diagnose(private_copy(cell), T, B, rng)
        findings += identical_gates(cell)
    except Exception as error:  # a learner's code may raise anything, anywhere
        findings, notes = [raised("the forward pass", error)], []
    return Diagnosis(repr(cell), tuple(findings), tuple(notes))


def _diagnose(cell: Cell, T: int, B: int, rng: np.random.Generator) -> tuple[list[Finding], list[str]]:
    notes: list[str] = []
    original, cell = cell, random_params(cell, rng)
    own_forward, own_backward = type(cell).forward is not Cell.forward, type(cell).backward is not Cell.backward
    has_step, has_step_backward = (
        getattr(type(cell), name) is not getattr(Cell, name) for name in ("step", "step_backward")
    )
    rows = max(B, -(-ROWS_OF_NUMBERS // cell.hidden_size))
    case = None
    if has_step or not own_forward:
        case = make_step_case(cell, rows, rng)
        if not np.isfinite(case.next).all():
            cell = original  # a parameter that must be positive, say
            case = make_step_case(cell, rows, rng)
        single = [n for n, v in (("gates", case.gates), ("next_state", case.next)) if _is_single(v)]
        if single:
            told = (
                f"step gives {' and '.join(single)} in single precision: a float32 buffer? "
                "Its derivatives can be checked once it computes in float64."
            )
            return [Finding(("step",), (), "float32", told, 0.0)], notes
        if case.method == CENTRAL:
            notes.append("step does not work on complex numbers: exact derivatives are central differences, to 1e-5")
    run = make_run(cell, T, B, rng, case.method if case and not own_forward else forward_method(cell, T, B, rng))
    uses_step = has_step_backward and (not own_backward or calls_step_backward(run))
    step_findings = diagnose_step(case) if case and has_step_backward else []
    if not has_step_backward and not own_backward:
        return [raised("step_backward", NotImplementedError(f"{type(cell).__name__} has no step_backward"))], notes
    taught = taught_vjp(run) if has_step_backward and not (step_findings and not uses_step) else None
    if not uses_step:
        step_findings = []  # nobody reads it
    exact = exact_vjp(run) if case else None
    findings = list(step_findings)
    broken = any(f.kind in ("exception", "wrong shape", "state left over") for f in findings)
    if own_backward and step_findings:
        return findings + ([] if broken else compare_with_loop(run)), notes
    if exact and uses_step and not own_backward and not broken:
        findings += diagnose_recurrent_grads(run, exact, not step_findings, rng)
    if not findings:
        findings += diagnose_backward(run, exact, taught, rng)
    return findings, notes


def identical_gates(cell: Cell) -> list[Finding]:
    """Gates that start with the same random weights: no derivative is wrong, but a gate is wasted."""
    outputs, gates = [], []
    for name, p in cell.params.items():
        if p.ndim == 3 and len(p) == len(cell.gate_names) > 1 and p.shape[1] > 1:
            random = np.unique(p).size > 2  # constant or identity matrices are alike on purpose
            twins = [
                g for k, g in enumerate(cell.gate_names) if any(np.array_equal(p[k], q) for q in np.delete(p, k, 0))
            ]
            if random and twins:
                outputs.append(f"params[{name}]")
                gates = twins
    if not outputs:
        return []
    told = (
        f"The gates {listing(gates)} have identical weights in {listing(outputs)}: is a seed reset inside the "
        "initialiser? (No derivative is wrong.)"
    )
    return [Finding(tuple(outputs), (), "identical gates", told, 0.0)]


def _is_single(values: Array) -> bool:
    """Whether all these numbers went through single precision."""
    return values.size > 0 and bool(np.any(values)) and np.array_equal(values, values.astype(np.float32))
