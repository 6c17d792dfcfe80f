"""The random case that a cell is diagnosed on, and its exact derivatives."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnlab.cells.base import Cell
from rnnlab.diagnosis.terms import Vocabulary
from rnnlab.ops import Array
from rnnlab.validate import describe

COMPLEX, CENTRAL = "complex step", "central differences"
STEP = {COMPLEX: 1e-30, CENTRAL: 1e-5}
RIGHT = {COMPLEX: 1e-9, CENTRAL: 1e-5}  # max|difference| / max|exact| of a block that is right
FIT = {COMPLEX: 1e-8, CENTRAL: 1e-4}  # the same for a hypothesis that fits
ROWS_AT_ONCE = 4096
NUMBERS = 40  # each output of a step is compared on at least so many
SYMBOLS = {"input": "i", "forget": "f", "output": "o", "reset": "r", "update": "z"}


@dataclass(frozen=True)
class StepCase:
    """One step on N rows: its values, and for each incoming path p the exact derivatives
    d_a[p] (K, N, H) and d_prev[p] (S, N, H) when d_next is `d_next[p]` in part p and zero elsewhere."""

    cell: Cell
    prev: Array
    gates: Array
    next: Array
    extras: Array
    d_next: Array
    d_a: Array
    d_prev: Array
    method: str


def enough_rows(cell: Cell) -> int:
    """The batch size that gives NUMBERS of them."""
    return -(-NUMBERS // cell.hidden_size)


def private_copy(cell: Cell) -> Cell:
    """A float64 copy that shares no buffer with the cell it was made from."""
    try:
        cell = copy.deepcopy(cell)
    except Exception:  # a learner's attribute may refuse to be copied
        cell = copy.copy(cell)
    return cell.astype(np.float64)


def with_values(cell: Cell, params: Mapping[str, Array]) -> Cell:
    """The cell with these parameters."""
    return cell.with_params({name: np.asarray(p) for name, p in {**cell.params, **params}.items()})


def random_params(cell: Cell, rng: np.random.Generator) -> Cell:
    """The cell with parameters away from every symmetric point: no zero, no identity, no twin gates."""
    params = {}
    for name, p in cell.params.items():
        rows = p.shape[-2] if p.ndim > 1 else 1
        if rows > 1:
            params[name] = rng.normal(size=p.shape) / np.sqrt(rows)
        else:
            params[name] = rng.uniform(0.3, 1, p.shape) * rng.choice((-1, 1), p.shape)
    return with_values(cell, params)


def stacked(what: str, names: Sequence[str], values: Any, shape: tuple[int, ...]) -> Array:
    """One step's arrays as one (len(names), *shape) array; ValueError in words for what does not fit."""
    try:
        count = len(values)
    except TypeError:
        raise ValueError(f"{what} is {describe(values)}, where {len(names)} arrays should be") from None
    if count != len(names):
        raise ValueError(f"{what} holds {count} arrays, where {len(names)} should be: {', '.join(names) or 'none'}")
    rows = []
    for name, value in zip(names, values, strict=True):
        array = np.asarray(value)
        if array.dtype.kind not in "fciu":
            raise ValueError(f"{what}[{name}] is {describe(value)}, where an array of shape {shape} should be")
        try:
            rows.append(np.broadcast_to(array, shape))
        except ValueError:
            raise ValueError(f"{what}[{name}] has shape {array.shape}, where {shape} should be") from None
    return np.array(rows).reshape(len(names), *shape)


def step_values(cell: Cell, a: Array, prev: Array) -> tuple[Array, Array, Array]:
    """`cell.step` on copies of its arguments: (gates, next_state, extras), each stacked."""
    shape, values = a.shape[1:], cell.step(a.copy(), prev.copy())
    if not isinstance(values, tuple | list) or len(values) != 3:
        raise ValueError(f"step returns {describe(values)}, where (gates, next_state, extras) should be")
    gates, following, extras = values
    return (
        stacked("step: gates", cell.gate_names, gates, shape),
        stacked("step: next_state", cell.state_names, following, shape),
        stacked("step: extras", cell.extra_names, extras, shape),
    )


def call_step_backward(
    cell: Cell, d_next: Array, prev: Array, gates: Array, extras: Array
) -> tuple[Array, Array, Array, list[str]]:
    """(d_a, d_prev, d_extras, names of the arguments that it changed); raises ValueError for what does not fit."""
    given = {"d_next": d_next, "prev": prev, "gates": gates, "extras": extras}
    copies = {name: array.copy() for name, array in given.items()}
    result = cell.step_backward(*copies.values())
    changed = [name for name, array in given.items() if not np.array_equal(copies[name], array, True)]
    if not isinstance(result, tuple | list) or len(result) != 3:
        raise ValueError(f"step_backward returns {type(result).__name__}, where (d_a, d_prev, d_extras) should be")
    d_a, d_prev, d_extras = result
    if d_extras is None and type(cell).backward is not Cell.backward:
        d_extras = ()  # the base class's loop alone needs them
    if not hasattr(d_extras, "__len__"):
        raise ValueError(f"d_extras is {describe(d_extras)}, where a tuple of arrays should be")
    shape, numbers = d_next.shape[1:], [str(n) for n in range(len(d_extras))]
    return (
        stacked("d_a", cell.gate_names, d_a, shape).real,
        stacked("d_prev", cell.state_names, d_prev, shape).real,
        stacked("d_extras", numbers, d_extras, shape).real,
        changed,
    )


def step_jacobian(cell: Cell, a: Array, prev: Array, method: str, at_once: int = ROWS_AT_ONCE) -> Array:
    """d next_state / d (a, prev), (K + S, H, S, N, H): one probe for each entry, stacked along the batch."""
    z = np.concatenate((a, prev))
    M, N, H = z.shape
    K, parts = len(a), []
    probes = np.eye(M * H).reshape(M * H, M, 1, H)
    chunk = max(1, at_once // N)
    for start in range(0, M * H, chunk):
        some = probes[start : start + chunk].swapaxes(0, 1)  # (M, P, 1, H)

        def shifted(by: complex, some: Array = some) -> Array:
            moved = (z[:, None] + by * some).reshape(M, -1, H)
            following = step_values(cell, moved[:K], moved[K:])[1]
            return following.reshape(len(prev), -1, N, H).swapaxes(0, 1)

        parts.append(derivative(shifted, method))
    return np.concatenate(parts).reshape(M, H, len(prev), N, H)


def derivative(f: Callable[[Any], Array], method: str) -> Array:
    """f'(0) of an array-valued function of one number."""
    step = STEP[method]
    if method == COMPLEX:
        return np.asarray(np.imag(f(1j * step)) / step)
    return np.asarray((f(step) - f(-step)).real / (2 * step))


def vector_jacobian(jacobian: Array, d_next: Array, gates: int) -> tuple[Array, Array]:
    """(d_a, d_prev) for dL/dnext_state = d_next (S, N, H)."""
    d = np.einsum("mishj,shj->mhi", jacobian, d_next)
    return d[:gates], d[gates:]


def make_step_case(cell: Cell, rows: int, rng: np.random.Generator, x: Array | None = None) -> StepCase | None:
    """A random case, of this input x (rows, D) where it is given. Complex step where one central difference
    confirms it (in the second of two draws, should the first meet a kink), else central differences; None where
    these are not confirmed either: a step that mixes its rows, or draws random numbers.
    Raises what the cell's `step` raises."""
    K, S, H = len(cell.gate_names), len(cell.state_names), cell.hidden_size
    for _ in range(2):
        a = rng.normal(size=(K, rows, H)) if x is None else x @ cell.W_x + cell.b
        prev = rng.normal(size=(S, rows, H))
        gates, following, extras = step_values(cell, a, prev)
        jacobian, method = _exact_jacobian(cell, a, prev, rng)
        if method == COMPLEX:
            break
    if jacobian is None:
        return None
    d_next = rng.normal(size=(S, rows, H))
    each = [vector_jacobian(jacobian, d_next * (np.arange(S) == p)[:, None, None], K) for p in range(S)]
    d_a, d_prev = (np.array(parts) for parts in zip(*each, strict=True))
    return StepCase(cell, prev, gates, following, extras, d_next, d_a, d_prev, method)


def _exact_jacobian(cell: Cell, a: Array, prev: Array, rng: np.random.Generator) -> tuple[Array | None, str]:
    direction = rng.normal(size=(len(a) + len(prev), *a.shape[1:]))
    d_a, d_prev = direction[: len(a)], direction[len(a) :]

    def moved(by: float) -> Array:
        return step_values(cell, a + by * d_a, prev + by * d_prev)[1]

    central = (moved(1e-6) - moved(-1e-6)) / 2e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        for method, at_once in ((COMPLEX, ROWS_AT_ONCE), (COMPLEX, 1), (CENTRAL, 1)):
            try:
                jacobian = step_jacobian(cell, a, prev, method, at_once)
            except Exception:  # whatever a learner's step raises on complex numbers, or on another batch size
                continue
            along = np.einsum("mishj,mhi->shj", jacobian, direction)
            if not np.abs(along - central).max() > 1e-4 * max(1.0, np.abs(central).max()):
                return jacobian, method
    return None, CENTRAL


def blocks(cell: Cell, name: str) -> list[tuple[str, tuple[Any, ...]]]:
    """(gate, index) for each gate's block of a parameter, or one block for a parameter without gates."""
    p = cell.params[name]
    if p.ndim == 3 and len(p) == len(cell.gate_names):
        return [(gate, (k,)) for k, gate in enumerate(cell.gate_names)]
    return [("", (...,))]


def hidden_matrices(cell: Cell) -> dict[str, Array]:
    """Every (H, H) matrix among the parameters, and its transpose: W_h[k], W_x[k] where D = H, and own ones."""
    found: dict[str, Array] = {}
    for name, p in cell.params.items():
        for gate, block in blocks(cell, name):
            if p[block].shape == (cell.hidden_size, cell.hidden_size) != (1, 1):
                label = f"{name}[{gate}]" if gate else name
                found[f"{label}^T"], found[label] = p[block].T, p[block]
    return found


def own_vectors(cell: Cell) -> dict[str, Array]:
    """The parameters of the cell's own with one number for each unit: b_hn, peephole weights, ..."""
    H, K = cell.hidden_size, len(cell.gate_names)
    found: dict[str, Array] = {}
    for name, p in cell.params.items():
        if name in ("W_x", "W_h", "b"):
            continue
        if p.size == H:
            found[name] = p.reshape(1, H)
        elif p.ndim > 1 and p.size == len(p) * H and p.shape != (H, H):
            rows = cell.gate_names if len(p) == K else range(len(p))
            found |= {f"{name}[{row}]": v for row, v in zip(rows, p.reshape(-1, 1, H), strict=True)}
    return found


def step_vocabulary(
    cell: Cell,
    prev: Array,
    gates: Array,
    following: Array,
    extras: Array,
    method: str,
    also: dict[str, Array] | None = None,
) -> Vocabulary:
    """Everything that a line of `step_backward` can multiply with, and what stands for itself `also`.

    Gates are written as in equations: i f g o, r z n; other names as they are.
    """
    symbols = SYMBOLS | {"candidate": "n" if "reset" in cell.gate_names else "g"}
    values: dict[str, Array] = {}
    for time, state in (("{t-1}", prev), ("t", following)):
        values |= {f"{name}_{time}": v for name, v in zip(cell.state_names, state, strict=True)}
    values |= {f"tanh({name})": np.tanh(v) for name, v in reversed(values.items())}
    values |= {symbols.get(name, name): v for name, v in zip(cell.gate_names, gates, strict=True)}
    values |= dict(zip(cell.extra_names, extras, strict=True))
    derived = {}
    if cell.W_h.shape == (len(cell.gate_names), cell.hidden_size, cell.hidden_size):
        for gate, W in zip(cell.gate_names, cell.W_h, strict=True):
            derived[f"({cell.state_names[0]}_{{t-1}} W_h[{gate}])"] = prev[0] @ W
    derived |= {name: np.broadcast_to(v, prev.shape[1:]) for name, v in (own_vectors(cell) | (also or {})).items()}
    return Vocabulary(values, derived, hidden_matrices(cell), FIT[method])
