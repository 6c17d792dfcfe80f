"""A sequence model: one cell or a stack of cells, a readout and a loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from rnnlab.batch import Batch, LossAndGrads, check_batch, targets
from rnnlab.cells.arrays import padded
from rnnlab.cells.base import Cell
from rnnlab.cells.bidirectional import Recurrent, Tapes
from rnnlab.cells.tape import Gradients
from rnnlab.losses import TARGETS, checked_loss
from rnnlab.ops import Array
from rnnlab.params import Parameterized, Params
from rnnlab.readout import Dense, Embedding
from rnnlab.saving import save_model
from rnnlab.validate import describe, fraction, generator, is_iterable, to_array

Loss = Callable[[Array, Array, Array | None], tuple[Any, Array]]
Seed = int | np.random.Generator
State = Sequence[Array | None]  # one (S, B, H) array for each layer
PREDICT_CHUNK = 64  # steps that `predict` records at a time


class SequenceModel(Parameterized):
    """cells -> readout -> loss: layer l + 1 reads the outputs h of layer l, the readout the last one's.

    Parameters
    ----------
    cells : a `Cell`, a `Bidirectional`, or a sequence of them
    readout : a `Dense`
    loss : a function such as `softmax_cross_entropy`
    embedding : an `Embedding` that turns integers x into the first layer's input; None for none
    dropout
        In training, the share of each layer's outputs that is set to 0 on the way up, the others being divided by
        1 - dropout (Srivastava et al. 2014); never on the way through time (Zaremba et al. 2014). It drops where an
        `rng` is given, as `Trainer` does, and never in `predict`.

    Raises TypeError or ValueError where sizes or dtypes do not match.
    """

    def __init__(
        self,
        cells: Recurrent | Sequence[Recurrent],
        readout: Dense,
        loss: Loss,
        *,
        embedding: Embedding | None = None,
        dropout: float = 0.0,
    ) -> None:
        self.cells: tuple[Recurrent, ...]
        self.cells = (cells,) if isinstance(cells, Recurrent) else tuple(cells) if is_iterable(cells) else ()
        self.readout, self.loss, self.embedding = readout, loss, embedding
        self.dropout = fraction("dropout", dropout)
        if not self.cells or not all(isinstance(cell, Recurrent) for cell in self.cells):
            raise TypeError(f"cells: expected a Cell or a sequence of them, got {describe(cells)}")
        single = [id(part) for cell in self.cells for part in cell.parts.values()]
        if len(set(single)) < len(single):
            raise ValueError(
                "cells: expected a cell of its own for each layer, got one twice (`with_params` copies it)"
            )
        if not isinstance(readout, Dense):
            raise TypeError(f"readout: expected a Dense, got {describe(readout)}")
        if not callable(loss):
            raise TypeError(f"loss: expected a function (prediction, target, mask), got {describe(loss)}")
        if embedding is not None and not isinstance(embedding, Embedding):
            raise TypeError(f"embedding: expected an Embedding or None, got {describe(embedding)}")
        for below, above in pairwise(self.layers.values()):
            width = below.hidden_size if isinstance(below, Recurrent) else below.output_size
            if above.input_size != width:
                raise ValueError(f"cells: expected a layer with {width} inputs above {below}, got {above}")
            if above.dtype != below.dtype:
                raise ValueError(f"cells: expected one dtype throughout, got {below.dtype} and {above.dtype}")

    @property
    def layers(self) -> dict[str, Any]:
        """Every layer by the name that stands before its parameters, from the input to the readout."""
        first = {} if self.embedding is None else {"embedding": self.embedding}
        return first | {f"cells.{n}": cell for n, cell in enumerate(self.cells)} | {"readout": self.readout}

    @property
    def reads_forwards(self) -> bool:
        """Whether no layer reads backwards, so that a sequence can be read piece by piece."""
        return all(isinstance(cell, Cell) for cell in self.cells)

    @property
    def input_size(self) -> int:
        """D; with an embedding, how many integers it knows."""
        return self.cells[0].input_size if self.embedding is None else self.embedding.input_size

    vocabulary: str | None = None  # the alphabet of the text that the model was trained on

    def save(self, path: str | Path) -> None:
        """Save weights and architecture, whole or not at all, to a .npz or .safetensors file; `rl.load` reads it.

        Raises OSError where the file cannot be written, TypeError or ValueError for parameters that are not finite
        real floats, and for a cell of yours with an option that its constructor does not keep under its name.
        """
        save_model(self, path)

    def __repr__(self) -> str:
        return f"SequenceModel({', '.join(map(repr, self.layers.values()))})"

    @property
    def params(self) -> Params:
        """All parameters by name, "cells.0.W_x", ..., "readout.b": a live view, as `cell.params` is."""
        return Params(self.layers)

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.cells, other.readout = tuple(map(copy.copy, self.cells)), copy.copy(self.readout)
        other.embedding = copy.copy(self.embedding)
        return other

    def predict(
        self, x: Array, state: State | None = None, lengths: Array | None = None
    ) -> tuple[Array, tuple[Array, ...]]:
        """The readout at every step, without dropout.

        Only 64 steps are recorded at a time, so memory grows with T by the outputs alone, unless a layer reads both
        directions.

        Parameters
        ----------
        x : (T, B, D) floats or (T, B) integers
        state : one (S, B, H) array or None for each layer; None for zeros
        lengths
            As in `Cell.forward`. Outputs past a sequence's end are 0 and its state is that of its last step:
            `outputs[lengths - 1, np.arange(B)]` are its last outputs.

        Returns
        -------
        (outputs (T, B, O), each layer's final state, to continue from). Raises as `Cell.forward`.
        """
        x, alive = padded(to_array("x", x), lengths)
        chunk = PREDICT_CHUNK if self.reads_forwards else max(x.shape[0] if x.ndim else 0, 1)
        if x.ndim < 2 or not 0 < len(x) <= chunk:  # a single chunk is checked by `forward`
            x = (self.embedding or self.cells[0]).check_input(x)
        outputs = np.empty((*x.shape[:2], self.readout.output_size), self.readout.dtype)
        for start in range(0, len(x), chunk):
            steps = slice(start, start + chunk)
            try:
                tapes = self.unroll(x[steps], state, None if alive is None else alive[steps])
                outputs[steps] = self.readout.forward(tapes[-1].h)
            except FloatingPointError as error:
                raise FloatingPointError(f"{error}, counted from step {start}" if start else str(error)) from error
            state = final_state(tapes)
        if alive is not None:
            outputs[~alive] = 0
        return outputs, tuple(s for s in state or () if s is not None)

    def mean_loss(self, batch: Batch, state: State | None = None, *, rng: Seed | None = None) -> Any:
        """The loss alone, forward only: for validation.

        Parameters
        ----------
        batch, state, rng : as in `loss_and_grads`

        Returns
        -------
        The mean loss. Raises as `loss_and_grads`.
        """
        return self._loss(batch, state, rng)[0]

    def loss_and_grads(
        self, batch: Batch, state: State | None = None, *, input_gradient: bool = False, rng: Seed | None = None
    ) -> LossAndGrads:
        """Forward, loss, backpropagation through time; nothing is updated.

        The readout and the loss see the steps that are read in at least one sequence.

        Parameters
        ----------
        batch : a `Batch`
        state : one (S, B, H) array or None for each layer; the gradient stops there (truncated BPTT)
        input_gradient : whether `cell_grads[0].x` is to be dL/dx
        rng : a seed or a generator, which draws what `dropout` drops; None drops nothing

        Returns
        -------
        `LossAndGrads`. Raises as `Cell.forward` and the loss do.
        """
        loss, d_y, kept, h_kept, tapes, scales = self._loss(batch, state, rng)
        readout_grads, d_h_kept = self.readout.backward(h_kept, d_y)
        d_h = np.zeros((*tapes[-1].x.shape[:2], self.readout.input_size), d_h_kept.dtype)
        d_h[kept] = d_h_kept
        grads, cell_grads = {"readout": readout_grads}, list[Gradients]()
        wanted = input_gradient or self.embedding is not None
        for n in reversed(range(len(self.cells))):
            d_h = d_h * scales[n] if scales else d_h
            # Each layer gets the tape of its own forward pass, so of its own kind.
            g = self.cells[n].backward(tapes[n], d_h, input_gradient=n > 0 or wanted)  # type: ignore[arg-type]
            cell_grads.insert(0, g)
            grads[f"cells.{n}"] = g.params
            if g.x is not None:
                d_h = g.x
        if self.embedding is not None:
            grads["embedding"] = self.embedding.backward(padded(batch.x, batch.lengths)[0], d_h)
        named = {f"{layer}.{name}": g for layer in self.layers for name, g in grads[layer].items()}
        return LossAndGrads(loss, named, tapes, tuple(cell_grads), final_state(tapes))

    def _loss(
        self, batch: Batch, state: State | None, rng: Seed | None
    ) -> tuple[Any, Array, Array | slice, Array, tuple[Tapes, ...], list[Array]]:
        """(loss, its derivative, the steps that it reads, what the readout sees there, the tapes, dropout's scales)."""
        check_batch("batch", batch)
        scales = self.dropout_scales(batch.x, rng)
        tapes = self.unroll(batch.x, state, batch.lengths, scales)
        y, mask = self.targets(batch)
        read = mask.any(axis=1)
        kept = slice(None) if read.all() else np.flatnonzero(read)  # a slice copies nothing
        h = tapes[-1].h[kept]
        h = h * scales[-1][kept] if scales else h
        prediction = self.readout.forward(h)
        result = self.loss(prediction, y[kept], mask[kept])
        own = None if self.loss in TARGETS else mask[kept]  # the library's losses are known to heed it
        loss, d_y = checked_loss(result, prediction, np.arange(len(mask))[kept], own)
        return loss, d_y, kept, h, tapes, scales

    def targets(self, batch: Batch) -> tuple[Array, Array]:
        """(y at every step, the steps (T, B) that the loss reads); ValueError or TypeError where they do not fit x."""
        x, alive = padded(to_array("x", batch.x), batch.lengths)
        shape, (check, axes) = (*x.shape[:2], self.readout.output_size), TARGETS.get(self.loss, (None, None))
        y, mask = targets(batch, alive, shape, axes)
        if check is not None:  # here, where its shape and places are the batch's
            y = check("y", y, mask, np.broadcast_to(np.zeros((), self.readout.dtype), shape))
        return y, mask

    def dropout_scales(self, x: Array, rng: Seed | None) -> list[Array]:
        """What each layer's outputs are multiplied by, (T, B, H): 0 or 1 / (1 - dropout); [] where nothing drops."""
        if rng is None or not self.dropout or np.ndim(x) < 2:
            return []
        drawn, scale = generator(rng), self.readout.dtype.type(1 / (1 - self.dropout)).real
        return [(drawn.random((*np.shape(x)[:2], cell.hidden_size)) >= self.dropout) * scale for cell in self.cells]

    def unroll(
        self, x: Array, state: State | None = None, lengths: Array | None = None, scales: Sequence[Array] = ()
    ) -> tuple[Tapes, ...]:
        """Each layer's tape.

        Parameters
        ----------
        x, state, lengths : as in `predict`
        scales : what `dropout_scales` gave; they multiply the outputs on the way up

        Returns
        -------
        One tape for each layer. Raises as `Cell.forward`, and where `state` does not hold one entry for each layer.
        """
        states: State = (None,) * len(self.cells) if state is None else state
        listed = isinstance(states, Sequence | np.ndarray) and is_iterable(states)
        if not listed or len(states) != len(self.cells) or getattr(states, "ndim", 4) == 3:
            advice = "; write [state]" if isinstance(state, np.ndarray) and len(self.cells) == 1 else ""
            text = f"state: expected a list of one array (S, B, H) for each of {len(self.cells)} layers, got "
            raise (ValueError if listed else TypeError)(text + describe(state) + advice)
        x, alive = padded(to_array("x", x), lengths)
        given = () if alive is None else (alive,)  # a cell of the user's may not take any
        tapes: list[Tapes] = []
        below = x if self.embedding is None else self.embedding.forward(x)
        for n, (cell, initial) in enumerate(zip(self.cells, states, strict=True)):
            tapes.append(cell.forward(below, initial, *given))
            below = tapes[n].h * scales[n] if scales else tapes[n].h
        return tuple(tapes)


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
    if (model.input_size, model.readout.output_size) != (inputs, outputs):
        raise ValueError(f"model: expected {inputs} inputs and {outputs} outputs, got {model}")


def final_state(tapes: Sequence[Tapes]) -> tuple[Array, ...]:
    """Each layer's state after the last step, as a copy that outlives the tape."""
    return tuple(tape.states[-1].copy() for tape in tapes)
