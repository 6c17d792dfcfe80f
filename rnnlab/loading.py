"""Saved models read back: `rl.load`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rnnlab import cells as library
from rnnlab.cells import Bidirectional, Cell
from rnnlab.cells.bidirectional import Recurrent
from rnnlab.losses import TARGETS
from rnnlab.model import Loss, SequenceModel
from rnnlab.readout import Dense, Embedding
from rnnlab.saving import OF_RUN, read, rebuilt_model
from rnnlab.validate import describe, is_iterable, true_or_false

BUILT = (Bidirectional, Cell, Dense, Embedding, SequenceModel)  # what a file may name the classes of


def load(
    path: str | Path, cells: Iterable[type] = (), loss: Loss | None = None, *, best: bool = False
) -> SequenceModel:
    """The model of a file that `model.save` or `trainer.save` wrote, bit for bit as it was.

    Parameters
    ----------
    path
        The .npz or .safetensors file.
    cells
        Classes of your own that the model is made of, such as `[MyCell]`.
    loss
        The model's loss function, where it is one of your own.
    best
        Of a trainer's file, take the model as it was at the lowest validation loss, `trainer.best_model`.

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
        over; or the best model is asked for and not in the file. Nothing in the file is executed.
    """
    yours = tuple(cells) if is_iterable(cells) else (cells,)
    for cls in yours:
        if not isinstance(cls, type) or not issubclass(cls, BUILT):
            raise TypeError(f"cells: expected classes such as [MyCell], got {describe(cls)}")
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function (prediction, target, mask), got {describe(loss)}")
    header, arrays = read(path)
    if true_or_false("best", best):
        kept = {name.removeprefix("best."): array for name, array in arrays.items() if name.startswith("best.")}
        if not kept:
            raise ValueError(
                f"{path}: expected a best model, got a file without one; give `fit` a validation=, "
                "or wait for the first"
            )
        arrays |= kept
    if "run" in header:
        arrays = {name: array for name, array in arrays.items() if name.split(".")[0] not in OF_RUN}
    ours = [thing for thing in vars(library).values() if isinstance(thing, type) and issubclass(thing, Recurrent)]
    things = [SequenceModel, Dense, Embedding, *ours, *TARGETS, *yours, *([] if loss is None else [loss])]
    model: SequenceModel = rebuilt_model(path, header["model"], things, arrays, SequenceModel)
    model.vocabulary = header.get("vocabulary")
    return model
