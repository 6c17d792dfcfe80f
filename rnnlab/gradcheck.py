"""`check_gradients`: proves every derivative of a cell or a model against its own forward pass."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np

from rnnlab.cells.base import Cell, Tape, read_only
from rnnlab.model import Batch, SequenceModel
from rnnlab.ops import Array
from rnnlab.validate import describe, generator, positive_float, positive_int

COMPLEX_STEP = 1e-30  # Im f(x + ih) / h has no subtraction, so h can be as small as one likes
CENTRAL_STEP = 1e-5
AGREEMENT_STEPS = (1e-5, 1e-7, 1e-7)  # a kink or a steep place between two points misleads one difference
LARGE = 1024.0  # a power of two, so that scaling by it rounds nothing
FLOOR = 1e-5  # a block is measured against at least this share of the largest exact gradient
TOLERANCE = {"complex step": 1e-9, "central differences": 1e-6}

Arrays = dict[str, Array]
Entry = tuple[tuple[int, ...], float, float]  # index, analytic, numeric


@dataclass(frozen=True)
class CheckRow:
    """One block of one array: how far its analytic gradient is from the numeric one, and where.

    `entries` of the block's `size` were compared one by one; where that is not all, a random direction too.
    `scale` is 1, or how many times as large the incoming gradient was for a row of the check for linearity.
    """

    array: str
    gate: str
    entries: int
    size: int
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    scale: float = 1.0

    @property
    def block(self) -> str:
        name = f"{self.array}[{self.gate}]" if self.gate else self.array
        return name if self.scale == 1 else f"{name}, incoming x {self.scale:g}"


@dataclass(frozen=True)
class GradientReport:
    """What was checked: prints as a table. `max_error` is the largest relative error of all rows."""

    target: str
    method: str
    tolerance: float
    rows: tuple[CheckRow, ...] = field(repr=False)

    @property
    def max_error(self) -> float:
        return max(row.error for row in self.rows)

    @property
    def worst(self) -> CheckRow:
        return max(self.rows, key=lambda row: row.error)

    def __str__(self) -> str:
        width = max(len(row.block) for row in self.rows)
        lines = [f"{self.target}: {self.method}, tolerance {self.tolerance:g}"]
        lines.append(f"{'gradient':{width}}  entries  relative error")
        for row in self.rows:
            verdict = "ok" if row.error <= self.tolerance else "WRONG"
            entries = str(row.size) if row.entries == row.size else f"{row.entries}/{row.size}"
            lines.append(f"{row.block:{width}}  {entries:>7}  {row.error:.1e}  {verdict}")
        return "\n".join(lines)


class GradientMismatch(AssertionError):
    """A derivative is wrong. `report` has all rows; `array`, `gate`, `index`, `analytic` and `numeric`
    are those of the row with the largest error."""

    def __init__(self, report: GradientReport) -> None:
        row = report.worst
        self.report, self.array, self.gate, self.index = report, row.array, row.gate, row.index
        self.analytic, self.numeric = row.analytic, row.numeric
        where = f"dL/d{row.array}" + (f", gate {row.gate!r}" if row.gate else "") + f", index {row.index}"
        claim, other = "the backward pass says", f"{report.method} of the forward pass"
        if row.scale != 1:
            claim = f"a gradient is linear (is this one clipped?): for {row.scale:g} times what comes in {claim}"
            other = f"{row.scale:g} times its other answer is"
        super().__init__(
            f"{where}: {claim} {row.analytic:.12g}, {other} {row.numeric:.12g} "
            f"(relative error {row.error:.1e})\n{report}"
        )

    def __reduce__(self) -> tuple[type[Self], tuple[GradientReport]]:
        """So that it arrives whole from a worker process."""
        return type(self), (self.report,)


@dataclass(frozen=True)
class _Case:
    """A scalar loss of named arrays, and the gradient that the backward pass claims for each; in `large`, where it
    can be asked, for LARGE times the loss.

    `losses[name]` evaluates the loss with that one array replaced; `gates[name]` names the blocks
    along the array's first axis.
    """

    values: Arrays
    claimed: Arrays
    large: Arrays
    losses: dict[str, Callable[[Array], Any]]
    gates: dict[str, tuple[str, ...]]


def check_gradients(
    target: Cell | SequenceModel,
    batch: Batch | None = None,
    *,
    T: int = 5,
    B: int = 3,
    rng: int | np.random.Generator = 0,
    method: str = "auto",
    tolerance: float | None = None,
    max_entries: int = 600,
) -> GradientReport:
    """Compare every gradient with the derivative of the forward pass.

    For a cell: a case of its own, with random biases and input, a non-zero initial state and a random
    loss over all outputs and the final state. Checked: every parameter, the input, and dL/dstate_t for
    every t, by restarting the network at t: 0 is the initial state, T the final one. A gradient is linear in
    what comes in, so 1024 times as much must give 1024 times as much back (not where it is clipped). For a model:
    every parameter, the input (unless it is integers) and each layer's initial state, on `batch`.
    The arrays that the backward pass reads are read-only, so a step that changes them fails at the line.

    `method` is "complex step" (exact to rounding, for an analytic forward pass), "central differences", or
    "auto": complex step, unless the forward pass refuses complex numbers or disagrees with the central
    differences in three random directions. `tolerance` bounds max|difference| / max|exact| of each block,
    by default 1e-9 and 1e-6. Of arrays with more than `max_entries` entries that many are drawn, and one
    random direction over all.

    A float32 target is checked as its float64 copy. Returns a report that prints as a table; raises
    `GradientMismatch` if a gradient is wrong, TypeError or ValueError for arguments that do not fit.
    """
    if method not in ("auto", *TOLERANCE):
        raise ValueError(f"method: expected 'auto', {' or '.join(map(repr, TOLERANCE))}, got {method!r}")
    max_entries, rng = positive_int("max_entries", max_entries), generator(rng)
    if isinstance(target, Cell):
        if batch is not None:
            raise TypeError(f"batch: expected None for a cell, which has a case of its own, got {describe(batch)}")
        case = _cell_case(target.astype(np.float64), positive_int("T", T), positive_int("B", B), rng)
    elif isinstance(target, SequenceModel):
        if not isinstance(batch, Batch):
            raise TypeError(f"batch: expected a Batch to check a model on, got {describe(batch)}")
        case = _model_case(target.astype(np.float64), batch, rng)
    else:
        raise TypeError(f"target: expected a Cell or a SequenceModel, got {describe(target)}")
    if method == "auto":
        method = "complex step" if _is_analytic(case, rng) else "central differences"
    bound = TOLERANCE[method] if tolerance is None else positive_float("tolerance", tolerance)
    rows = (*_compare(case, method, max_entries, rng), *_not_linear(case, bound))
    report = GradientReport(repr(target), method, bound, rows)
    if not report.max_error <= bound:
        raise GradientMismatch(report)
    return report


def _cell_case(cell: Cell, T: int, B: int, rng: np.random.Generator) -> _Case:
    S, H = len(cell.state_names), cell.hidden_size
    drawn = cell.with_params({name: _random_bias(name, p, rng) for name, p in cell.params.items()})
    x, state = rng.normal(size=(T, B, cell.input_size)), rng.normal(size=(S, B, H))
    with contextlib.suppress(FloatingPointError):  # a parameter may have to be positive, say: then the cell's own
        drawn.forward(x.copy(), state.copy())
        cell = drawn
    d_h, d_state = rng.normal(size=(T, B, H)), rng.normal(size=(S, B, H))

    def loss(params: Arrays, x: Array, state: Array, t: int = 0) -> Any:
        """What is read from step t on, when the network starts there with `state`."""
        worth = (d_state * state).sum() if t == T else 0
        if t < T:
            dtype = np.result_type(x, state, *params.values())
            tape = cell.with_params({name: p.astype(dtype) for name, p in params.items()}).forward(x[t:], state)
            worth = (d_h[t:] * tape.h).sum() + (d_state * tape.states[-1]).sum()
        return worth + ((d_h[t - 1] * state[0]).sum() if t else 0)

    def claims(scale: float) -> Arrays:
        grads = cell.backward(tape, read_only(scale * d_h), read_only(scale * d_state))
        states = {f"states[{t}]": d for t, d in enumerate(grads.states)}
        return grads.params | {"x": _present(grads.x, x)} | states

    tape = freeze(cell.forward(read_only(x), read_only(state)))
    # A gradient is linear in what comes in, and the second call must find nothing left over from the first.
    large = {name: np.array(g) for name, g in claims(LARGE).items()}
    claimed, params = claims(1.0), dict(cell.params)
    values = params | {"x": x}
    losses = {name: _of_parameter(name, params, lambda params: loss(params, x, state)) for name in params}
    losses["x"] = lambda v: loss(params, v, state)
    for t in range(T + 1):
        name = f"states[{t}]"
        values[name] = tape.states[t]
        losses[name] = partial(loss, params, x, t=t)
    gates = {name: cell.gate_names for name, p in cell.params.items() if p.ndim == 3}
    gates |= {name: cell.state_names for name in values if name.startswith("states")}
    return _Case(values, claimed, large, losses, gates)


def _model_case(model: SequenceModel, batch: Batch, rng: np.random.Generator) -> _Case:
    x = np.asarray(batch.x)
    x = x.astype(np.float64) if x.dtype.kind == "f" else x
    B = x.shape[1] if x.ndim > 1 else 0
    states = tuple(rng.normal(size=(len(cell.state_names), B, cell.hidden_size)) for cell in model.cells)

    def loss(params: Arrays, x: Array, states: Sequence[Array]) -> Any:
        kinds = [a.dtype for a in (*params.values(), x, *states) if a.dtype.kind in "fc"]
        twin = model.with_params({name: p.astype(np.result_type(*kinds)) for name, p in params.items()})
        return twin.mean_loss(replace(batch, x=x), states)

    params = dict(model.params)
    result = model.loss_and_grads(replace(batch, x=read_only(x)), tuple(map(read_only, states)), input_gradient=True)
    values, claimed = dict(params), dict(result.grads)
    losses = {name: _of_parameter(name, params, lambda params: loss(params, x, states)) for name in params}
    if x.dtype.kind == "f":
        values["x"], claimed["x"] = x, _present(result.cell_grads[0].x, x)
        losses["x"] = lambda v: loss(params, v, states)
    gates: dict[str, tuple[str, ...]] = {}
    for n, (cell, state) in enumerate(zip(model.cells, states, strict=True)):
        name = f"cells.{n}.states[0]"
        values[name], claimed[name] = state, result.cell_grads[n].states[0]
        losses[name] = partial(lambda n, v: loss(params, x, (*states[:n], v, *states[n + 1 :])), n)
        gates |= {f"cells.{n}.{key}": cell.gate_names for key, p in cell.params.items() if p.ndim == 3}
        gates[name] = cell.state_names
    return _Case(values, claimed, {}, losses, gates)


def _of_parameter(name: str, params: Arrays, loss: Callable[[Arrays], Any]) -> Callable[[Array], Any]:
    """The loss as a function of one parameter, the others as they are."""
    return lambda value: loss(params | {name: np.asarray(value)})


def _random_bias(name: str, p: Array, rng: np.random.Generator) -> Array:
    """Zero biases hide a bias that is used in another's place; (K, 1, H), (1, H) and (H,) arrays are biases."""
    return np.asarray(rng.normal(size=p.shape)) if p.ndim < 2 or p.shape[-2] == 1 else p


def _present(gradient: Array | None, like: Array) -> Array:
    if gradient is None:
        raise TypeError(f"backward: expected dL/dx of shape {like.shape}, got None")
    return gradient


def freeze(tape: Tape) -> Tape:
    """The same tape, its arrays read-only."""
    x, states, gates, extras = map(read_only, (tape.x, tape.states, tape.gates, tape.extras))
    return replace(tape, x=x, states=states, gates=gates, extras=extras)


def _derivative(
    loss: Callable[[Array], Any], at: Array, direction: Array, method: str, size: float = CENTRAL_STEP
) -> float:
    """d/de loss(at + e direction) at e = 0 (complex step: Squire & Trapp 1998)."""
    if method == "complex step":
        return float(np.imag(loss(at + 1j * COMPLEX_STEP * direction)) / COMPLEX_STEP)
    step = size * direction
    return float((loss(at + step) - loss(at - step)).real / (2 * size))


def _is_analytic(case: _Case, rng: np.random.Generator) -> bool:
    """Whether complex step works here: abs, norms and real-typed buffers silently lose the imaginary part."""
    return all(
        any(_methods_agree(loss, case.values[name], size, rng) for size in AGREEMENT_STEPS)
        for name, loss in case.losses.items()
    )


def _methods_agree(loss: Callable[[Array], Any], at: Array, size: float, rng: np.random.Generator) -> bool:
    direction = rng.normal(size=at.shape)
    central = _derivative(loss, at, direction, "central differences", size)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            exact = _derivative(loss, at, direction, "complex step")
    except (TypeError, ValueError, FloatingPointError, np.exceptions.ComplexWarning):
        return False
    return abs(exact - central) <= 1e-5 * max(1.0, abs(central))


def _compare(case: _Case, method: str, max_entries: int, rng: np.random.Generator) -> Iterator[CheckRow]:
    """One row for each block: every entry, or a sample of the entries and a random direction over all."""
    found: list[tuple[str, str, int, list[Entry]]] = []
    for name, value in case.values.items():
        if name not in case.claimed:
            raise ValueError(f"backward: expected dL/d{name} of shape {value.shape}, got none")
        loss, claimed = case.losses[name], np.asarray(case.claimed[name])
        if claimed.shape != value.shape:
            raise ValueError(f"backward: expected dL/d{name} of shape {value.shape}, got {claimed.shape}")
        blocks: Sequence[tuple[str, Any]] = [(gate, k) for k, gate in enumerate(case.gates.get(name, ()))]
        for gate, k in blocks or [("", ...)]:
            inside = np.zeros(value.shape, bool)
            inside[k] = True
            indices = np.argwhere(inside)
            size = len(indices)
            entries: list[Entry] = []
            if size > max_entries:
                direction = rng.normal(size=value.shape) * inside
                entries.append(((), float((direction * claimed).sum()), _derivative(loss, value, direction, method)))
                indices = rng.permutation(indices)[:max_entries]
            for index in map(tuple, indices.tolist()):
                one = np.zeros(value.shape)
                one[index] = 1
                entries.append((index, float(claimed[index]), _derivative(loss, value, one, method)))
            found.append((name, gate, size, entries))
    largest = max((abs(n) for *_, entries in found for *_, n in entries), default=0)
    for name, gate, size, entries in found:
        scale = max(max(abs(n) for *_, n in entries), FLOOR * largest, np.finfo(float).tiny)
        index, analytic, numeric = max(entries, key=lambda e: _size(e[1] - e[2]))
        error = _size((analytic - numeric) / scale)
        yield CheckRow(name, gate, min(size, max_entries), size, error, index, analytic, numeric)


def _not_linear(case: _Case, bound: float) -> Iterator[CheckRow]:
    """A row for each array whose gradient is not LARGE times as large for an incoming gradient that is."""
    largest = max((np.abs(case.claimed[name]).max(initial=0) for name in case.large), default=0)
    for name, large in case.large.items():
        claimed = np.asarray(case.claimed[name])
        with np.errstate(invalid="ignore"):  # infinite claims are rows of their own already
            off = np.abs(large / LARGE - claimed)
        scale = max(np.abs(claimed).max(initial=0), FLOOR * largest, np.finfo(float).tiny)
        index = tuple(int(i) for i in np.unravel_index(np.argmax(off), off.shape))
        if not off[index] <= bound * scale:
            gate = case.gates[name][index[0]] if name in case.gates else ""
            numbers = float(large[index]), float(LARGE * claimed[index])
            yield CheckRow(name, gate, off.size, off.size, _size(off[index] / scale), index, *numbers, scale=LARGE)


def _size(difference: float) -> float:
    """|difference|, where a NaN counts as infinitely wrong."""
    return float("inf") if np.isnan(difference) else abs(difference)
