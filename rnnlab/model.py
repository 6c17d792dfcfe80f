"""A sequence model: one cell or a stack of cells, a readout and a loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rnnlab import cells as library
from rnnlab.batch import Batch, targets
from rnnlab.cells.arrays import padded
from rnnlab.cells.base import Cell
from rnnlab.cells.tape import Gradients, Record, Tape
from rnnlab.losses import TARGETS
from rnnlab.ops import Array
from rnnlab.params import Params
from rnnlab.readout import Dense
from rnnlab.saving import read, rebuilt_model, save_model
from rnnlab.validate import check_params, describe, float_dtype, has_entries

Loss = Callable[[Array, Array, Array | None], tuple[Any, Array]]
State = Sequence[Array | None]  # one (S, B, H) array for each layer
PREDICT_CHUNK = 64  # steps that `predict` records at a time


@dataclass(frozen=True, eq=False, repr=False)
class LossAndGrads(Record):
    """What one pass over a batch gives.

    loss        the mean loss
    grads       dL/dparameter, named and shaped like `model.params`
    tapes       what each layer recorded, the first layer first
    cell_grads  each layer's `Gradients`
    state       each layer's final state (S, B, H), to carry on with
    """

    loss: Any
    grads: dict[str, Array]
    tapes: tuple[Tape, ...]
    cell_grads: tuple[Gradients, ...]
    state: tuple[Array, ...]


class SequenceModel:
    """cells -> readout -> loss: layer l + 1 reads the outputs h of layer l, the readout the last one's.

    `cells` is a `Cell` or a sequence of them, `readout` a `Dense`, `loss` a function such as
    `softmax_cross_entropy`. Raises TypeError or ValueError where sizes or dtypes do not match.
    """

    def __init__(self, cells: Cell | Sequence[Cell], readout: Dense, loss: Loss) -> None:
        self.cells = (cells,) if isinstance(cells, Cell) else tuple(cells) if has_entries(cells) else ()
        self.readout, self.loss = readout, loss
        if not self.cells or not all(isinstance(cell, Cell) for cell in self.cells):
            raise TypeError(f"cells: expected a Cell or a sequence of them, got {describe(cells)}")
        if len(set(map(id, self.cells))) < len(self.cells):
            raise ValueError(
                "cells: expected a cell of its own for each layer, got one twice (`with_params` copies it)"
            )
        if not isinstance(readout, Dense):
            raise TypeError(f"readout: expected a Dense, got {describe(readout)}")
        if not callable(loss):
            raise TypeError(f"loss: expected a function (prediction, target, mask), got {describe(loss)}")
        layers: tuple[Cell | Dense, ...] = (*self.cells, readout)
        for below, above in zip(self.cells, layers[1:], strict=True):
            if above.input_size != below.hidden_size:
                raise ValueError(f"cells: expected a layer with {below.hidden_size} inputs above {below}, got {above}")
            if above.dtype != below.dtype:
                raise ValueError(f"cells: expected one dtype throughout, got {below.dtype} and {above.dtype}")

    vocabulary: str | None = None  # the alphabet of the text that the model was trained on

    def save(self, path: str | Path) -> None:
        """Save weights and architecture, whole or not at all, to a .npz or .safetensors file; `rl.load` reads it.

        Raises OSError where the file cannot be written, TypeError or ValueError for parameters that are not finite
        real floats, and for a cell of yours with an option that its constructor does not keep under its name.
        """
        save_model(self, path)

    def __repr__(self) -> str:
        return f"SequenceModel({', '.join(map(repr, (*self.cells, self.readout)))})"

    @property
    def params(self) -> Params:
        """All parameters by name, "cells.0.W_x", ..., "readout.b": a live view, as `cell.params` is."""
        return Params({f"cells.{n}": cell for n, cell in enumerate(self.cells)} | {"readout": self.readout})

    def with_params(self, params: Mapping[str, Array]) -> Self:
        """A copy with copies of these parameters (all of them); raises as `Cell.with_params`."""
        check_params(params, self.params)
        other = copy.copy(self)
        other.cells, other.readout = tuple(map(copy.copy, self.cells)), copy.copy(self.readout)
        other.params.update({name: np.array(p) for name, p in params.items()})
        return other

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """A copy computing in `dtype`."""
        return self.with_params({name: p.astype(float_dtype(dtype)) for name, p in self.params.items()})

    def predict(
        self, x: Array, state: State | None = None, lengths: Array | None = None
    ) -> tuple[Array, tuple[Array, ...]]:
        """(outputs (T, B, O), final state): the readout at every step, and where to go on from.

        With `lengths`, as in `Cell.forward`, outputs past a sequence's end are 0 and its state is that of its last
        step: `outputs[lengths - 1, np.arange(B)]` are its last outputs. Only 64 steps are recorded at a time, so memory
        grows with T by the outputs alone. Raises as `Cell.forward`.
        """
        x, alive = padded(x, lengths)
        if x.ndim < 2 or not 0 < len(x) <= PREDICT_CHUNK:  # a single chunk is checked by `Cell.forward`
            x = self.cells[0].check_input(x)
        outputs = np.empty((*x.shape[:2], self.readout.output_size), self.readout.dtype)
        for start in range(0, len(x), PREDICT_CHUNK):
            steps = slice(start, start + PREDICT_CHUNK)
            try:
                tapes = self.unroll(x[steps], state, None if alive is None else alive[steps])
                outputs[steps] = self.readout.forward(tapes[-1].h)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}, counted from step {start}" if start else str(error)) from error
            state = final_state(tapes)
        if alive is not None:
            outputs[~alive] = 0
        return outputs, tuple(s for s in state or () if s is not None)

    def mean_loss(self, batch: Batch, state: State | None = None) -> Any:
        """The loss alone, forward only: for validation. Arguments and errors as in `loss_and_grads`."""
        return self._loss(batch, state)[0]

    def loss_and_grads(self, batch: Batch, state: State | None = None, *, input_gradient: bool = False) -> LossAndGrads:
        """Forward, loss, backpropagation through time; nothing is updated.

        `state` holds one (S, B, H) array or None for each layer; the gradient stops there (truncated
        BPTT). The readout and the loss see the steps that are read in at least one sequence. With
        `input_gradient`, `cell_grads[0].x` is dL/dx. Raises as `Cell.forward` and the loss do.
        """
        loss, d_y, kept, tapes = self._loss(batch, state)
        h = tapes[-1].h
        readout_grads, d_h_kept = self.readout.backward(h[kept], d_y)
        d_h = np.zeros_like(h)
        d_h[kept] = d_h_kept
        cell_grads: list[Gradients] = []
        for n, (cell, tape) in reversed(list(enumerate(zip(self.cells, tapes, strict=True)))):
            grads = cell.backward(tape, d_h, input_gradient=n > 0 or input_gradient)
            cell_grads.insert(0, grads)
            if grads.x is not None:
                d_h = grads.x
        named = {f"cells.{n}.{name}": g for n, grads in enumerate(cell_grads) for name, g in grads.params.items()}
        named |= {f"readout.{name}": g for name, g in readout_grads.items()}
        return LossAndGrads(loss, named, tapes, tuple(cell_grads), final_state(tapes))

    def _loss(self, batch: Batch, state: State | None) -> tuple[Any, Array, Array | slice, tuple[Tape, ...]]:
        """(loss, its derivative, the steps that it reads, the layers' tapes)."""
        if not isinstance(batch, Batch):
            raise TypeError(f"batch: expected a Batch, got {describe(batch)}")
        tapes = self.unroll(batch.x, state, batch.lengths)
        h = tapes[-1].h
        y, mask = self.targets(batch, tapes[-1])
        read = mask.any(axis=1)
        kept = slice(None) if read.all() else np.flatnonzero(read)  # a slice copies nothing
        prediction = self.readout.forward(h[kept])
        loss, d_y = checked_loss(self.loss(prediction, y[kept], mask[kept]), prediction, np.arange(len(h))[kept])
        return loss, d_y, kept, tapes

    def targets(self, batch: Batch, tape: Tape) -> tuple[Array, Array]:
        """(y at every step, the steps (T, B) that the loss reads), checked against the last layer's tape."""
        shape, (check, axes) = (*tape.x.shape[:2], self.readout.output_size), TARGETS.get(self.loss, (None, None))
        y, mask = targets(batch, tape.alive, shape, axes)
        if check is not None:  # here, where its shape and places are the batch's
            y = check("y", y, mask, np.broadcast_to(np.zeros((), tape.states.dtype), shape))
        return y, mask

    def unroll(self, x: Array, state: State | None = None, lengths: Array | None = None) -> tuple[Tape, ...]:
        """Each layer's tape; raises as `Cell.forward`, and where `state` does not hold one entry for each layer."""
        if state is not None and not (isinstance(state, Sequence | np.ndarray) and has_entries(state)):
            raise TypeError(f"state: expected one array for each of {len(self.cells)} layers, got {describe(state)}")
        states = (None,) * len(self.cells) if state is None else tuple(state)
        if len(states) != len(self.cells):
            raise ValueError(f"state: expected one array for each of {len(self.cells)} layers, got {len(states)}")
        tapes: list[Tape] = []
        for cell, initial in zip(self.cells, states, strict=True):
            given = () if lengths is None else (lengths,)  # a cell of the user's may not know any
            tapes.append(cell.forward(tapes[-1].h if tapes else x, initial, *given))
        return tuple(tapes)


def checked_loss(result: object, prediction: Array, steps: Array) -> tuple[Any, Array]:
    """What a loss returned, (loss, d_prediction); `steps` are the time steps that it read.

    TypeError or ValueError for anything else, FloatingPointError, with the place, for what is not finite.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"loss: expected it to return (loss, d_prediction), got {describe(result)}")
    loss, d = result
    if np.ndim(loss) or not isinstance(loss, int | float | complex | np.number | np.ndarray):
        raise TypeError(f"loss: expected a number and its derivative, got {describe(loss)}")
    if not isinstance(d, np.ndarray) or d.dtype.kind not in "fc":
        raise TypeError(f"loss: expected a derivative, an array of floats, got {describe(d)}")
    if d.shape != prediction.shape:
        raise ValueError(f"loss: expected a derivative of the prediction's shape {prediction.shape}, got {d.shape}")
    if not np.isfinite(loss):
        raise FloatingPointError(f"loss: expected a finite number, got {loss}")
    if not np.isfinite(d).all():
        t, b, *_ = index = tuple(np.argwhere(~np.isfinite(d))[0].tolist())
        raise FloatingPointError(
            f"loss: expected a finite derivative, got {d[index]} at time step {steps[t]}, sequence {b}"
        )
    return loss, d


def load(path: str | Path, cells: Iterable[type] = (), loss: Loss | None = None) -> SequenceModel:
    """The model of a file that `model.save` or `trainer.save` wrote, bit for bit as it was.

    Parameters
    ----------
    path
        The .npz or .safetensors file.
    cells
        Classes of your own that the model is made of, such as `[MyCell]`.
    loss
        The model's loss function, where it is one of your own.

    Returns
    -------
    The model, with the parameters of the file.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        Names the file and what is wrong with it: it is truncated, damaged, of another kind or a later version; an array
        is missing, one too many, or of another shape or dtype; or the model needs a class or a loss that was not handed
        over. Nothing in the file is executed.
    """
    yours = tuple(cells) if has_entries(cells) else (cells,)
    for cls in yours:
        if not isinstance(cls, type) or not issubclass(cls, BUILT):
            raise TypeError(f"cells: expected classes such as [MyCell], got {describe(cls)}")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function (prediction, target, mask), got {describe(loss)}")
    header, arrays = read(path)
    ours = [thing for thing in vars(library).values() if isinstance(thing, type) and issubclass(thing, Cell)]
    things = [SequenceModel, Dense, *ours, *TARGETS, *yours, *([] if loss is None else [loss])]
    model: SequenceModel = rebuilt_model(path, header["model"], things, arrays, SequenceModel, run="run" in header)
    model.vocabulary = header.get("vocabulary")
    return model


BUILT = (Cell, Dense, SequenceModel)  # what a file may name the classes of


def check_model(model: object) -> None:
    """TypeError for anything but a `SequenceModel`."""
    if not isinstance(model, SequenceModel):
        raise TypeError(f"model: expected a SequenceModel, got {describe(model)}")


def check_sizes(model: SequenceModel, inputs: int, outputs: int, characters: str | None = None) -> None:
    """TypeError unless `model` is one; ValueError for other sizes (one output too many would broadcast) or letters."""
    check_model(model)
    if characters is not None and model.vocabulary not in (None, characters):
        raise ValueError(
            f"model: expected one trained on {characters!r:.60}, got the alphabet {model.vocabulary!r:.60}"
        )
    if (model.cells[0].input_size, model.readout.output_size) != (inputs, outputs):
        raise ValueError(f"model: expected {inputs} inputs and {outputs} outputs, got {model}")


def final_state(tapes: Sequence[Tape]) -> tuple[Array, ...]:
    """Each layer's state after the last step, as a copy that outlives the tape."""
    return tuple(tape.states[-1].copy() for tape in tapes)
