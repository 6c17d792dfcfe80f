"""`diagnose`: names the line of a learner's backward pass that is wrong, and shows it mended.

What one case goes through, and the file of each step:

    source                     reads the learner's functions as trees, and runs them in another wording
    probe                      records the values of their expressions, and adds numbers to them
    locate                     finds the places where one change mends everything, and solves for the right values
    rules, edits, statements   small changes of an expression, and of a whole line
    operands, formulas         what has a name at a place, and which formula of it gives the right values
    trials                     run the code with an edit in place, and compare what it claims with the exact gradients
    search, several            the order in which edits are tried, for one mistake and for more
    sentences, report          what is said of it

`examine` leads one case through these steps, `forward` a forward pass, and `paths` tells what is known of a cell
without source. A new kind of mistake is a rule, and its sentence in `sentences`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnlab.batch import Batch
from rnnlab.cells.base import Cell
from rnnlab.cells.bidirectional import Recurrent
from rnnlab.diagnosis.examine import examined
from rnnlab.diagnosis.forward import compare_cells
from rnnlab.diagnosis.paths import step_findings
from rnnlab.diagnosis.report import Diagnosis, Finding, listing
from rnnlab.model import SequenceModel
from rnnlab.proof.case import Case, cell_case, form_of, model_case, resized
from rnnlab.proof.functions import loss_case, name_of, pair_case
from rnnlab.proof.nested import arrays, smaller
from rnnlab.validate import describe, generator, integer

__all__ = ["Diagnosis", "Finding", "diagnose"]


def diagnose(
    target: Any,
    *arguments: Any,
    reference: Cell | None = None,
    rng: int | np.random.Generator = 0,
    T: int = 4,
    B: int = 3,
) -> Diagnosis:
    """Name the line of a backward pass that is wrong, say why, and show it mended.

    The exact derivatives are those of the forward pass. Where a claimed gradient differs from them, small edits of
    the learner's own lines are run until one makes every gradient right, on fresh numbers of other sizes too. Only
    such an edit is called an explanation. Where none is found, the finding still names the line whose value is
    wrong, and what it should have been. Nothing is assumed about the layout of the code.

    Parameters
    ----------
    target, *arguments
        =====================================================  ==================================================
        `diagnose(cell)`                                       a `Cell` with any mix of `step`, `step_backward`,
                                                               `forward`, `backward` and `recurrent_grads`
        `diagnose(forward, backward, arguments)`               two functions: `forward(*arguments)` returns its
                                                               output(s) and, last, what `backward` needs;
                                                               `backward(d_output(s), that)` returns the gradients
                                                               as a tuple in the order of the arguments, or as a
                                                               dict (`dWx` is of `Wx`). An argument may be a dict
                                                               of arrays. Only the shapes of arrays matter.
        `diagnose(f, *arguments)`                              one function that returns its loss and gradients,
                                                               `loss, dWx, ... = f(*arguments)`; its weights may
                                                               be arguments, a dict, or globals
        `diagnose(model, batch)`                               a `SequenceModel`: its loss, then each cell
        `diagnose(cell, reference=other)`                      two forward passes, compared gate by gate
        =====================================================  ==================================================
    reference : Cell, optional
        A cell whose forward pass is right.
    rng : int or Generator
        The random numbers of the check.
    T, B : int
        Time steps and sequences of the check of a cell.

    Returns
    -------
    Diagnosis
        `findings` is empty where nothing is wrong. Code that raises is a finding too.

    Raises
    ------
    TypeError, ValueError
        For arguments that are none of these.

    References
    ----------
    Complex step: Squire & Trapp (1998). Repairs by search: Weimer et al. (2009).

    Examples
    --------
    A cell:

    >>> class MyRNN(rl.RNNCell):
    ...     def step_backward(self, d_next, prev, gates, extras):
    ...         d_a = d_next * (1 - gates)
    ...         return d_a, (self.back(d_a),), ()
    >>> rl.diagnose(MyRNN(3, 4, rng=0)).findings[0].repair
    'd_a = d_next * (1 - gates ** 2)'

    Two functions; only the shapes of the arguments matter:

    >>> def forward(x, W):
    ...     h = np.tanh(x @ W)
    ...     return h, (x, W, h)
    >>> def backward(d_h, cache):
    ...     x, W, h = cache
    ...     d_a = d_h * (1 - h)
    ...     return d_a @ W.T, x.T @ d_a
    >>> rl.diagnose(forward, backward, [np.zeros((2, 3)), np.zeros((3, 4))]).findings[0].repair
    'd_a = d_h * (1 - h ** 2)'

    One function with its loss:

    >>> def loss_and_gradient(x, y, W):
    ...     error = x @ W - y
    ...     return (error**2).sum(), {"dW": x.T @ error}
    >>> rl.diagnose(loss_and_gradient, np.zeros((5, 3)), np.zeros((5, 4)), np.zeros((3, 4))).findings[0].repair
    "return ((error ** 2).sum(), {'dW': x.T @ error * 2})"

    A model, whose loss is the learner's here:

    >>> def twice(prediction, target, mask=None):
    ...     loss, d_prediction = rl.mean_squared_error(prediction, target, mask)
    ...     return loss, 2 * d_prediction
    >>> model = rl.SequenceModel(rl.RNNCell(3, 4, rng=0), rl.Dense(4, 2, rng=1), twice)
    >>> rl.diagnose(model, rl.Batch(np.ones((5, 2, 3)), np.ones((5, 2, 2)))).findings[0].repair
    'return (loss, d_prediction)'

    Two forward passes:

    >>> class OtherRNN(rl.RNNCell):
    ...     def step(self, a, prev):
    ...         h = np.tanh(a) + prev @ self.W_h
    ...         return h, h, ()
    >>> rl.diagnose(OtherRNN(3, 4, rng=0), reference=rl.RNNCell(3, 4, rng=0)).findings[0].repair
    'h = np.tanh(a + prev @ self.W_h)'
    """
    T, B, rng = integer("T", T), integer("B", B), generator(rng)
    if reference is not None:
        if not isinstance(target, Cell) or not isinstance(reference, Cell):
            raise TypeError(f"reference: expected two cells, got {describe(target)} and {describe(reference)}.")
        return compare_cells(target, reference, T, B, rng)
    form = form_of(target, arguments)
    if form == "cell":
        return _of_layer(target, T, B, rng)
    if form == "model":
        return _of_model(target, arguments[0], rng)
    if form == "pair":
        title = f"{name_of(target)}, {name_of(arguments[0])}"
        return _of_functions(lambda a: pair_case(target, arguments[0], a, rng), arguments[1], title, rng)
    return _of_functions(lambda a: loss_case(target, a, rng), arguments, name_of(target), rng)


def _of_functions(make: Callable[[Any], Case], given: Any, title: str, rng: np.random.Generator) -> Diagnosis:
    """On small arrays where the functions take them; what is right there may still be wrong on the ones given."""
    with contextlib.suppress(Exception), np.errstate(all="ignore"), warnings.catch_warnings():  # of the learner's code
        warnings.simplefilter("ignore")
        small = smaller(given)
        if sum(a.size for a in arrays(list(small))) < sum(a.size for a in arrays(list(given))) / 2:
            case = make(small)
            claims = case.claims()
            if all(
                claims[name].shape == x.shape and np.isfinite(claims[name]).all() for name, x in case.inputs.items()
            ):
                report = examined(lambda: case, title, rng)
                if not report.ok:
                    return report
    return examined(lambda: make(given), title, rng)


def _of_layer(layer: Recurrent, T: int, B: int, rng: np.random.Generator) -> Diagnosis:
    """A cell, or each cell of a `Bidirectional`."""
    cells = (layer,) if isinstance(layer, Cell) else layer.cells
    reports = [_of_cell(cell, T, B, rng) for cell in cells]
    if not isinstance(layer, Cell) and all(report.ok for report in reports):
        reports.append(examined(lambda: cell_case(layer.astype(np.float64), T, B, rng), repr(layer), rng))
    return _together(repr(layer), reports)


def _together(title: str, reports: Sequence[Diagnosis]) -> Diagnosis:
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    findings = dict.fromkeys(finding for report in reports for finding in report.findings)
    return Diagnosis(title, tuple(findings), tuple(notes))


def _of_cell(cell: Cell, T: int, B: int, rng: np.random.Generator) -> Diagnosis:
    own = {name for name in ("backward", "step_backward") if getattr(type(cell), name) is not getattr(Cell, name)}
    if not own:
        what = "There is no backward pass: write step_backward (or backward)."
        return Diagnosis(repr(cell), (Finding("exception", what, outputs=("step_backward",)),))
    small = resized(cell, 5, 4)
    report = examined(lambda: cell_case(small, T, B, rng), repr(cell), rng)
    if report.ok and small is not cell:  # what is right there may still be wrong in the cell that was given
        report = examined(lambda: cell_case(cell.astype(np.float64), T, B, rng), repr(cell), rng)
    findings = report.findings
    if findings and all(f.kind == "unexplained" and not f.line for f in findings):  # there is no source, say
        findings = tuple(step_findings(cell, rng)) or findings
    return Diagnosis(repr(cell), (*findings, *identical_gates(cell)), report.notes)


def _of_model(model: SequenceModel, batch: Batch, rng: np.random.Generator) -> Diagnosis:
    """The loss alone, then each cell alone, then the whole: what follows from one mistake is not said again."""
    y, (target, mask) = model.predict(batch.x, None, batch.lengths)[0], model.targets(batch)

    def loss(prediction: Any) -> Any:
        value, d_prediction = model.loss(prediction, target, mask)
        return value, {"prediction": d_prediction}

    reports = [examined(lambda: loss_case(loss, (y.astype(float),), rng), name_of(model.loss), rng)]
    reports += [_of_layer(layer, 4, 3, rng) for layer in model.cells]
    if all(report.ok for report in reports):
        reports.append(examined(lambda: model_case(model.astype(np.float64), batch, rng), repr(model), rng))
    return _together(repr(model), reports)


def identical_gates(cell: Cell) -> list[Finding]:
    """Gates that start with the same random weights: no derivative is wrong, but a gate is wasted."""
    wasted: dict[str, list[str]] = {}
    for name, p in cell.params.items():
        # constant or identity matrices are alike on purpose
        if p.ndim == 3 and len(p) == len(cell.gate_names) and p.shape[1] > 1 and np.unique(p).size > 2:
            alike = [gate for gate, q in zip(cell.gate_names, p, strict=True) if (p == q).all(axis=(1, 2)).sum() > 1]
            wasted |= {name: alike} if alike else {}
    if not wasted:
        return []
    what = (
        f"The gates {listing(list(wasted.values())[-1])} have identical weights in {listing(list(wasted))}: is a seed "
        "reset inside the initialiser? (No derivative is wrong.)"
    )
    return [Finding("identical gates", what, outputs=tuple(wasted))]
