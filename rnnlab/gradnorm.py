"""The gradient-norm logger: how much gradient reaches each time step, and each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from rnnlab.cells.base import Gradients
from rnnlab.cells.bidirectional import Bidirectional, DirectionsGradients, DirectionsTape, Recurrent, Tapes
from rnnlab.files import read_arrays, write_arrays
from rnnlab.ops import Array, norm
from rnnlab.trainer import Trainer
from rnnlab.validate import check_shape, describe, entry_of, integer, positive_float

Entry = TypeVar("Entry")
FORMAT = "rnnlab gradient norms"


def state_norms(cell: Recurrent, tape: Tapes, grads: Gradients) -> dict[str, Array]:
    """||dL/dm_t|| over batch and units for t = 0 .. T, (T+1,), by state name.

    The last state part is the cell's memory and counts every path (`Cell.memory_gradient`): for an
    LSTM, "c" is the textbook's delta c_t. A `Bidirectional` gives "forward_cell.h", "backward_cell.h", ..., each t
    in the order in which that cell reads.
    """
    if isinstance(cell, Bidirectional):
        assert isinstance(tape, DirectionsTape)
        assert isinstance(grads, DirectionsGradients)
        of_cells = map(state_norms, cell.cells, tape.tapes, grads.cells)
        return {f"{name}.{s}": n for name, norms in zip(cell.parts, of_cells, strict=True) for s, n in norms.items()}
    assert not isinstance(tape, DirectionsTape)
    gradients = dict(zip(cell.state_names, grads.states.swapaxes(0, 1), strict=True))
    gradients[cell.state_names[-1]] = cell.memory_gradient(tape, grads)
    return {name: norm(g, (1, 2)) for name, g in gradients.items()}


def block_norms(params: Mapping[str, Array], gate_names: Sequence[str]) -> dict[str, float]:
    """||block|| of every parameter's gradient, gate by gate: {"W_h[forget]": ..., "b_hn": ...}."""
    norms: dict[str, float] = {}
    for name, p in params.items():
        if p.ndim == 3 and len(p) == len(gate_names):
            of_gates = norm(p, (1, 2)).tolist()
            norms |= {f"{name}[{gate}]": value for gate, value in zip(gate_names, of_gates, strict=True)}
        else:
            norms[name] = float(norm(p, tuple(range(p.ndim))))
    return norms


def log10_ratio(norms: Array) -> float:
    """log10 of ||dL/dm_1|| / ||dL/dm_T||, from norms (T+1,): below 0 what vanishes, above 0 what explodes.

    A memory that the loss does not read at T counts from the last t where its gradient is not 0. A
    gradient that is 0 at t = 1 gives -inf.
    """
    check_shape("norms", norms, (("T+1", None),))
    norms = norms[1:]
    if not len(norms) or norms[0] == 0:
        return -np.inf
    return float(np.log10(norms[0]) - np.log10(norms[norms > 0][-1]))


def log10_rate(norms: Array) -> float:
    """The same per time step: the slope of log10 ||dL/dm_t|| going back in time, fitted to t = 1 .. T.

    -0.3 halves the gradient with each step back. Zeros, which have no logarithm, are left out; NaN
    where fewer than two norms remain.
    """
    check_shape("norms", norms, (("T+1", None),))
    t = np.flatnonzero(norms[1:] > 0)
    if len(t) < 2:
        return np.nan
    centred = t - t.mean()
    return float(-(centred @ np.log10(norms[1:][t])) / (centred @ centred))


@dataclass(frozen=True)
class NormRecord:
    """The norms of one training step: `norms[layer][state name]` is (T+1,), `params[layer]["W_h[forget]"]` a number."""

    step: int
    norms: tuple[dict[str, Array], ...]
    params: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class Alarm:
    """A layer's gradient vanished or exploded between its last and its first time step."""

    step: int
    layer: int
    kind: str
    log10_ratio: float

    def __str__(self) -> str:
        return (
            f"training step {self.step}, layer {self.layer}: {self.kind} gradient, "
            f"norm at the first time step / at the last = 10^{self.log10_ratio:.1f}"
        )


class GradientNormLogger:
    """Records `state_norms` and `block_norms` of every layer at every `every`-th training step.

    A callback of `Trainer`, or used alone through `record`. `records` holds one `NormRecord` for each recorded step;
    sequences may differ in length from one to the next. A loss at every step feeds the gradient on its way back, so the
    ratio of the first norm to the last, and the alarms, speak of sequences whose loss is read at the end.

    Parameters
    ----------
    every : training steps from one record to the next
    vanishing : below this ratio, in every state part, a record is an alarm; None for no such alarm
    exploding : above this ratio, in one state part, a record is an alarm; None for no such alarm
    on_alarm : a function of an `Alarm`, such as `print`, which is called for each

    Raises TypeError or ValueError for an argument that does not fit.
    """

    def __init__(
        self,
        every: int = 1,
        *,
        vanishing: float | None = 1e-6,
        exploding: float | None = 1e3,
        on_alarm: Callable[[Alarm], object] | None = None,
    ) -> None:
        self.every = integer("every", every)
        self.vanishing = None if vanishing is None else positive_float("vanishing", vanishing)
        self.exploding = None if exploding is None else positive_float("exploding", exploding)
        if on_alarm is not None and not callable(on_alarm):
            raise TypeError(f"on_alarm: expected a function of an Alarm or None, got {describe(on_alarm)}")
        self.on_alarm = on_alarm
        self.records: list[NormRecord] = []

    def __call__(self, trainer: Trainer) -> None:
        if trainer.last is not None and trainer.step % self.every == 0:
            self.record(trainer.step, trainer.model.cells, trainer.last.tapes, trainer.last.cell_grads)

    def record(
        self, step: int, cells: Sequence[Recurrent], tapes: Sequence[Tapes], cell_grads: Sequence[Gradients]
    ) -> NormRecord:
        """Append the record of one pass.

        Parameters
        ----------
        step : the training step
        cells, tapes, cell_grads : each layer's cell, tape and gradients

        Returns
        -------
        The `NormRecord`. Raises TypeError or ValueError where these do not belong together.
        """
        for name, value in (("cells", cells), ("tapes", tapes), ("cell_grads", cell_grads)):
            if not isinstance(value, Sequence) or not 0 < len(value) == len(cells):
                raise TypeError(f"{name}: expected a list with one for each layer, got {describe(value)}")
        layers = list(zip(cells, tapes, cell_grads, strict=True))
        for n, (cell, tape, grads) in enumerate(layers):
            if not isinstance(cell, Recurrent):
                raise TypeError(f"cells[{n}]: expected a Cell, got {describe(cell)}")
            # Each kind of layer refuses a tape that is not of its own kind.
            cell.check_tape(tape)  # type: ignore[arg-type]
            if not isinstance(grads, DirectionsGradients if isinstance(cell, Bidirectional) else Gradients):
                raise TypeError(f"cell_grads[{n}]: expected what the cell's backward returns, got {describe(grads)}")
        record = NormRecord(
            integer("step", step, 0),
            tuple(state_norms(cell, tape, grads) for cell, tape, grads in layers),
            tuple(block_norms(grads.params, cell.gate_names) for cell, _, grads in layers),
        )
        self.records.append(record)
        if self.on_alarm is not None:
            for alarm in self._alarms_of(record):
                self.on_alarm(alarm)
        return record

    @property
    def steps(self) -> list[int]:
        """The training steps that were recorded."""
        return [record.step for record in self.records]

    def norms(self, state: str = "h", layer: int = -1) -> list[Array]:
        """One (T+1,) array for each recorded step, of one state part of one layer.

        Raises KeyError for a state and IndexError for a layer that was not recorded.
        """
        return [entry_of("state", _of_layer(record.norms, layer), state) for record in self.records]

    def ratios(self, state: str = "h", layer: int = -1) -> Array:
        """`log10_ratio` of each recorded step, (n,); raises as `norms`."""
        return np.array([log10_ratio(norms) for norms in self.norms(state, layer)])

    def rates(self, state: str = "h", layer: int = -1) -> Array:
        """`log10_rate` of each recorded step, (n,); raises as `norms`."""
        return np.array([log10_rate(norms) for norms in self.norms(state, layer)])

    def param_norms(self, block: str, layer: int = -1) -> Array:
        """||dL/dblock|| of each recorded step, (n,), for a block such as "W_h[forget]"; raises as `norms`."""
        return np.array([entry_of("block", _of_layer(record.params, layer), block) for record in self.records])

    def layer_norms(self, layer: int = -1) -> Array:
        """||dL/dparameters|| of each recorded step, (n,), all of a layer's parameters as one vector."""
        layers = [_of_layer(record.params, layer) for record in self.records]
        return np.array([norm(np.array([*blocks.values()]), (0,)) for blocks in layers])

    @property
    def alarms(self) -> list[Alarm]:
        """All alarms of the records so far, by the thresholds as they are now."""
        return [alarm for record in self.records for alarm in self._alarms_of(record)]

    def _alarms_of(self, record: NormRecord) -> list[Alarm]:
        alarms = []
        for layer, norms in enumerate(record.norms):
            ratio = max(log10_ratio(n) for n in norms.values())
            if self.vanishing is not None and ratio < np.log10(self.vanishing):
                alarms.append(Alarm(record.step, layer, "vanishing", ratio))
            if self.exploding is not None and ratio > np.log10(self.exploding):
                alarms.append(Alarm(record.step, layer, "exploding", ratio))
        return alarms

    # ---- on disk ------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything but `on_alarm` to an .npz or .safetensors file, which is replaced as a whole or not at all.

        The file holds all norms one after the other, and a header (see `rnnlab.files`) with everything else.
        """
        records = [
            {
                "step": r.step,
                "lengths": [{s: len(n) for s, n in layer.items()} for layer in r.norms],
                "params": r.params,
            }
            for r in self.records
        ]
        settings = {"every": self.every, "vanishing": self.vanishing, "exploding": self.exploding}
        norms = [norms for record in self.records for layer in record.norms for norms in layer.values()]
        header = {"format": FORMAT, "settings": settings, "records": records}
        write_arrays(path, header, {"norms": np.concatenate(norms)} if norms else {})

    @classmethod
    def load(cls, path: str | Path, *, on_alarm: Callable[[Alarm], object] | None = None) -> Self:
        """A logger with what `save` wrote; it continues where that one stopped.

        Raises FileNotFoundError, or ValueError for a file that is damaged or that `save` did not write.
        """
        header, arrays = read_arrays(path)
        if header.get("format") != FORMAT:
            raise ValueError(
                f"path: expected a file that GradientNormLogger.save wrote, got {str(path)!r}; a model's is for rl.load"
            )
        logger = cls(**header["settings"], on_alarm=on_alarm)
        lengths = [n for record in header["records"] for layer in record["lengths"] for n in layer.values()]
        norms = iter(np.split(arrays.get("norms", np.empty(0)), np.cumsum(lengths, dtype=int)[:-1]))
        for record in header["records"]:
            of_layers = tuple({name: next(norms) for name in layer} for layer in record["lengths"])
            logger.records.append(NormRecord(record["step"], of_layers, tuple(record["params"])))
        return logger


def _of_layer(layers: Sequence[Entry], layer: int) -> Entry:
    """`layers[layer]`; IndexError that says how many there are."""
    if not isinstance(layer, int | np.integer) or layer not in range(-len(layers), len(layers)):
        raise IndexError(f"layer: expected one of {len(layers)} recorded layers, got {layer!r}")
    return layers[layer]
