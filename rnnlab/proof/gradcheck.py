"""`check_gradients`: proves every derivative of a cell, a model or plain functions against the forward pass."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.batch import Batch
from rnnlab.cells.base import Cell
from rnnlab.ops import Array
from rnnlab.proof.case import LOSS, Case, advice, cell_case, form_of, model_case
from rnnlab.proof.exact import FLOOR, LARGE, TOLERANCE, best_method, derivative
from rnnlab.proof.functions import loss_case, pair_case
from rnnlab.proof.gradreport import CheckRow, GradientMismatch, GradientReport
from rnnlab.validate import describe, generator, integer, positive_float

ROUNDING = 32.0  # errors below so many times the effect of rounding the inputs are ignored
MOST_STATES = 40  # of a longer sequence so many dL/dstate_t are compared, the first and the last among them

Block = tuple[str, str, Any]  # array, name of the block, its index along the first axis


def check_gradients(
    target: Any,
    *arguments: Any,
    batch: Batch | None = None,
    T: int = 5,
    B: int = 3,
    rng: int | np.random.Generator = 0,
    method: str = "auto",
    tolerance: float | None = None,
    entries: bool = False,
    max_entries: int = 600,
    lengths: Array | None = None,
) -> GradientReport:
    """Compare every gradient with the derivative of the forward pass.

    For a cell the check makes a case of its own, with random biases and input, a non-zero initial state and a random
    loss over all outputs and the final state. Compared are every parameter, the input, and dL/dstate_t for every t,
    by restarting the network at t: 0 is the initial state, T the final one. Scaling the incoming
    gradient by 1024 must scale the result by 1024, which fails where a gradient is clipped. For a model: every
    parameter, the input (unless it is integers) and each layer's initial state, on `batch`, with one draw of its
    dropout held. For functions: what their backward pass returns. Where an array that the backward pass reads must not
    be changed, it is read-only.

    Each block of each array is compared along one random direction over all of its entries. Where that fails, or with
    `entries=True`, its entries are compared one by one.

    Parameters
    ----------
    target, *arguments
        A `Cell` or a `Bidirectional`; a `SequenceModel` and a `Batch`; or the functions that `diagnose` takes:
        `forward, backward, arguments`, or `f, *arguments` with the loss inside.
    batch : Batch, optional
        A model's batch, where it does not stand among the arguments.
    T, B : int
        Time steps and sequences of a cell's case. Of more than 40 states, 40 are compared.
    rng : int or Generator
        The random numbers of the case.
    method : str
        "complex step" (exact to rounding, for an analytic forward pass), "central differences", or "auto": complex
        step, unless the forward pass refuses complex numbers or disagrees with central differences.
    tolerance : float, optional
        The largest |difference| / max|exact| of a block, by default 1e-9 and 1e-6. What rounding the inputs does is
        allowed besides, so that steep and long sequences are not accused.
    entries : bool
        Compare entry by entry.
    max_entries : int
        Of larger blocks so many entries are drawn.
    lengths : array, optional
        Those of a cell's case, as in `Cell.forward`; a model's are in its batch.

    Returns
    -------
    GradientReport
        It prints as a table. A float32 target is checked as its float64 copy.

    Raises
    ------
    GradientMismatch
        If a gradient is wrong.
    TypeError, ValueError
        For arguments that do not fit, and for a backward pass that returns something else than gradients.

    References
    ----------
    Squire & Trapp (1998), SIAM Review 40: complex step.
    """
    if method not in ("auto", *TOLERANCE):
        raise ValueError(f"method: expected 'auto', {' or '.join(map(repr, TOLERANCE))}, got {method!r}")
    max_entries, rng = integer("max_entries", max_entries), generator(rng)
    case = _case(target, arguments if batch is None else (*arguments, batch), T, B, rng, lengths)
    with _said_plainly():
        claims = case.claims()
        large = case.claims(LARGE) if case.takes_scale else {}
    claims.pop(LOSS, None)
    if method == "auto":
        method = best_method(case.loss, case.inputs, rng)
    bound = TOLERANCE[method] if tolerance is None else positive_float("tolerance", tolerance)
    check = _Check(case, claims, method, bound, max_entries if entries else 0, max_entries, rng)
    rows = (*check.rows(), *_not_linear(case, claims, large, bound))
    report = GradientReport(case.target, method, bound, rows)
    if not report.max_error <= bound:
        error = GradientMismatch(report)
        if isinstance(target, Cell) and "b" in inspect.unwrap(type(target).step).__code__.co_names:
            error.add_note(
                "step reads self.b, but its argument a = W_x x + b has the bias already: leave it out there."
            )
        wrong = {row.array for row in rows if not row.error <= bound}
        if isinstance(target, Cell) and wrong == {"W_h"} and type(target).recurrent_grads is Cell.recurrent_grads:
            error.add_note(
                "W_h's gradient is h_{t-1}^T d_a unless the cell says otherwise. Where W_h multiplies something "
                "else, write recurrent_grads; GRUResetBeforeCell shows how."
            )
        raise error
    return report


def _case(
    target: Any, arguments: Sequence[Any], T: int, B: int, rng: np.random.Generator, lengths: Array | None
) -> Case:
    form = form_of(target, arguments)
    if form == "cell":
        T, B = integer("T", T), integer("B", B)
        with _said_plainly():
            case = cell_case(target.astype(np.float64), T, B, rng, lengths)
        case.target = repr(target)
        return case
    if lengths is not None:
        raise TypeError(f"lengths: expected None, a model's are in its batch, got {describe(lengths)}")
    if form == "model":
        case = model_case(target.astype(np.float64), arguments[0], rng)
        case.target = repr(target)
        return case
    case = pair_case(target, arguments[0], arguments[1], rng) if form == "pair" else loss_case(target, arguments, rng)
    if case.unknown:
        names = ", ".join(map(repr, case.unknown))
        raise ValueError(
            f"{case.target}: whose gradient is {names}? Call it d and the name of its array, or return a dict"
        )
    return case


@contextlib.contextmanager
def _said_plainly() -> Iterator[None]:
    """What NumPy and Python say of a learner's mistake, with what to do about it."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if what := advice(error):
            raise type(error)(f"{error}: {what}").with_traceback(error.__traceback__) from error
        raise


@dataclass
class _Check:
    """The comparison of one case, block by block."""

    case: Case
    claims: dict[str, Array]
    method: str
    bound: float
    entries: int
    most: int
    rng: np.random.Generator

    def rows(self) -> Iterator[CheckRow]:
        blocks = list(self._blocks())
        numbers = {block[:2]: self._along(block) for block in blocks}
        largest = max((self._size(name, k) for name, _, k in blocks), default=0.0)
        for block in blocks:
            name, gate, k = block
            analytic, numeric = numbers[name, gate]
            scale = max(self._size(name, k), FLOOR * largest, np.finfo(float).tiny)
            size, n = self.claims[name][k].size, self.entries
            error = _size((analytic - numeric) / scale)
            if not error <= self.bound and self._rounding(block) * ROUNDING < _size(analytic - numeric):
                n = self.most
            found = self._one_by_one(block, n) if n else []
            index, analytic, numeric = max(found, key=lambda e: _size(e[1] - e[2]), default=((), analytic, numeric))
            if found:
                scale = max(*(abs(e[2]) for e in found), FLOOR * largest, np.finfo(float).tiny)
                error = max(_size((analytic - numeric) / scale), error if error > self.bound and n < size else 0.0)
            elif not error <= self.bound:
                error = 0.0  # rounding alone does as much
            yield CheckRow(name, gate, min(len(found), size), size, error, index, analytic, numeric)

    def _blocks(self) -> Iterator[Block]:
        states = [name for name in self.case.inputs if name.startswith("states[")]
        kept = {states[n] for n in np.linspace(0, len(states) - 1, MOST_STATES).astype(int)} if states else set()
        for name, value in self.case.inputs.items():
            if name in states and name not in kept:
                continue
            if name not in self.claims:
                if name == "x" or name.startswith("states["):
                    continue  # left out by a backward pass of the learner's own
                raise ValueError(f"backward: expected dL/d{name} of shape {value.shape}, got none")
            if self.claims[name].shape != value.shape:
                raise ValueError(f"backward: expected dL/d{name} of shape {value.shape}, got {self.claims[name].shape}")
            gates = self.case.blocks.get(name, ())
            yield from ((name, gate, k) for k, gate in enumerate(gates)) if gates else [(name, "", ...)]

    def _direction(self, block: Block) -> Array:
        name, _, k = block
        inside = np.zeros(self.case.inputs[name].shape)
        inside[k] = 1
        return np.asarray(self.rng.normal(size=inside.shape) * inside)

    def _along(self, block: Block) -> tuple[float, float]:
        """The claimed and the exact derivative along one random direction."""
        direction, name = self._direction(block), block[0]
        exact = derivative(lambda v: self.case.loss(name, v), self.case.inputs[name], direction, self.method)
        with np.errstate(invalid="ignore"):  # an infinite claim is wrong, and says so in its row
            return float((direction * self.claims[name]).sum()), exact

    def _rounding(self, block: Block) -> float:
        """How far the exact derivatives move when the input is rounded differently."""
        direction, name = self._direction(block), block[0]
        at = self.case.inputs[name]
        near = at * (1 + np.finfo(float).eps * self.rng.choice((-1, 1), size=at.shape))
        ask = [derivative(lambda v: self.case.loss(name, v), x, direction, self.method) for x in (at, near)]
        return abs(ask[1] - ask[0])

    def _one_by_one(self, block: Block, most: int) -> list[tuple[tuple[int, ...], float, float]]:
        name, _, k = block
        value, inside = self.case.inputs[name], np.zeros(self.case.inputs[name].shape, bool)
        inside[k] = True
        found = []
        for index in map(tuple, self.rng.permutation(np.argwhere(inside))[:most].tolist()):
            unit = np.zeros(value.shape)
            unit[index] = 1
            exact = derivative(lambda v: self.case.loss(name, v), value, unit, self.method)
            found.append((index, float(self.claims[name][index]), exact))
        return found

    def _size(self, name: str, k: Any) -> float:
        values = np.abs(self.claims[name][k])
        return float(values[np.isfinite(values)].max(initial=0))


def _not_linear(case: Case, claims: dict[str, Array], large: dict[str, Array], bound: float) -> Iterator[CheckRow]:
    """A row for each array whose gradient is not LARGE times as large for an incoming gradient that is."""
    largest = max((np.abs(claims[name]).max(initial=0) for name in large), default=0)
    for name, much in large.items():
        with np.errstate(invalid="ignore"):  # infinite claims are rows of their own already
            off = np.abs(much / LARGE - claims[name])
        scale = max(np.abs(claims[name]).max(initial=0), FLOOR * largest, np.finfo(float).tiny)
        index = tuple(int(i) for i in np.unravel_index(np.argmax(off), off.shape))
        if not off[index] <= bound * scale:
            gates = case.blocks.get(name, ())
            gate = gates[index[0]] if gates else ""
            numbers = float(much[index]), float(LARGE * claims[name][index])
            yield CheckRow(name, gate, off.size, off.size, _size(off[index] / scale), index, *numbers, scale=LARGE)


def _size(difference: float) -> float:
    """|difference|, where a NaN counts as infinitely wrong."""
    return float("inf") if np.isnan(difference) else abs(difference)
