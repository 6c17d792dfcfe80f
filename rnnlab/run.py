"""A training run: what it is at one moment, that moment as a file, and the callbacks that keep or end a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from rnnlab.batch import LossAndGrads
from rnnlab.files import check_writable, is_safetensors, path_of, write_arrays
from rnnlab.history import History
from rnnlab.model import SequenceModel, check_model
from rnnlab.ops import Array
from rnnlab.optim import Optimizer
from rnnlab.process import uninterrupted
from rnnlab.saving import arguments, check_arrays, check_whole, first_difference, model_parts, outline, read
from rnnlab.validate import describe, integer


class Run:
    """The state of a training run, and its files; base of `Trainer`.

    Attributes
    ----------
    model, optimizer : what is trained, and how
    step, history : the number of steps done, and the `History` of all of them
    state : what is carried to the next batch, one array for each layer; None for nothing
    last : the last step's `LossAndGrads`, unclipped
    best_model : a copy of the model, as it was at the lowest validation loss
    """

    def __init__(self, model: SequenceModel, optimizer: Optimizer) -> None:
        check_model(model)
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer such as SGD or Adam, got {describe(optimizer)}")
        self.model, self.optimizer = model, optimizer
        self.history, self.step = History(), 0
        self.state: tuple[Array, ...] | None = None
        self.last: LossAndGrads | None = None
        self.best_model: SequenceModel | None = None
        self.begun = 0  # the step at which the list of batches began
        self.task: Any = None  # the outline of the task or list that `fit` was last called with
        self.expected_task: Any = None  # that of a loaded file

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model}, {self.optimizer}, step={self.step})"

    def _settings(self) -> dict[str, Any]:
        """What a run must have in common with the one whose file it loads."""
        given = {name: outline(getattr(self, name)) for name in arguments(self)}
        return given | {"optimizer": outline(self.optimizer), "task": self.task}

    def save(self, path: str | Path) -> None:
        """Save the run as it is now: weights, optimizer, step, history, carried state, and which task it reads.

        The file, .npz or .safetensors, is written whole or not at all, and holds no tapes. `rl.load` reads the model
        alone from it. Raises OSError where it cannot be written, ValueError for a model that could not be rebuilt.
        """
        header, arrays = model_parts(self.model)
        optimizer, history = self.optimizer, {f.name: getattr(self.history, f.name) for f in fields(self.history)}
        numbers = {name for name, values in history.items() if all(type(value) is float for value in values)}
        check_whole([outline(optimizer), self.task])
        header["run"] = self._settings() | {
            "step": self.step,
            "begun": self.begun,
            "optimizer_steps": optimizer.steps,
            "history": {name: values for name, values in history.items() if name not in numbers},
        }
        params = self.model.params
        ends = np.cumsum([params[name].size for name in optimizer.names])[:-1]
        for n, memory in enumerate(optimizer.memory):
            for name, part in zip(optimizer.names, np.split(memory, ends), strict=True):
                arrays[f"optimizer.{n}.{name}"] = part.reshape(params[name].shape)
        arrays |= {f"state.{n}": part for n, part in enumerate(self.state or ())}
        arrays |= {f"best.{name}": p for name, p in (self.best_model.params if self.best_model else {}).items()}
        arrays |= {f"history.{name}": np.array(history[name], float) for name in numbers}
        write_arrays(path, header, arrays)

    def load(self, path: str | Path) -> None:
        """Put this trainer, which was built in the same way, back to the moment of a `save`; `fit` then trains on
        exactly as if it had not stopped.

        A task or a list of batches is read on where it was; of other iterables hand over what is left. Raises
        ValueError, and changes nothing, for a file that is damaged or comes from another model, optimizer or setting,
        which it names; `fit` raises it for another task.
        """
        header, arrays = read(path)
        model, run = self.model, header.get("run")
        if not isinstance(run, dict):
            raise ValueError(f"{path}: expected a trainer's file, got a model's: rl.load reads it")
        try:
            first_difference(header["model"], outline(model), "model")
            for name, here in self._settings().items():
                if name in run and name != "task":
                    first_difference(run[name], here, name)
            step, steps, begun = (
                integer(name, run.get(name, 0) if name == "begun" else run[name], 0)
                for name in ("step", "optimizer_steps", "begun")
            )
            others = dict(run["history"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}: expected the run of a trainer built like this one, got another; {error}"
            ) from error
        params, best = model.params, named(arrays, "best")
        memories = range(len({name.split(".")[0] for name in named(arrays, "optimizer")}))
        numbers = {n: a for n, a in named(arrays, "history").items() if a.dtype == float and a.ndim == 1}
        wanted = dict(params) | {f"optimizer.{n}.{name}": p for n in memories for name, p in params.items()}
        first = named(arrays, "state").get("0")
        B = first.shape[1] if first is not None and first.ndim == 3 else 1
        states = {
            f"state.{n}": np.empty((len(cell.state_names), B, cell.hidden_size), cell.dtype)
            for n, cell in enumerate(model.cells if first is not None else ())
        }
        wanted |= states | ({f"best.{name}": p for name, p in params.items()} if best else {})
        lists = {f"history.{name}" for name in numbers}
        check_arrays(path, wanted, {name: a for name, a in arrays.items() if name not in lists})
        found, known = numbers.keys() | others.keys(), {f.name for f in fields(self.history)}
        if not {"loss", "gradient_norm"} <= found <= known:  # earlier versions did not validate
            raise ValueError(f"{path}: expected the history of this trainer, got {sorted(found)}")
        history = History(**others | {name: a.tolist() for name, a in numbers.items()})
        memory = tuple(np.concatenate([arrays[f"optimizer.{n}.{name}"].ravel() for name in params]) for n in memories)
        with uninterrupted():  # all is checked: from here on nothing can fail
            for name, p in params.items():
                p[...] = arrays[name]
            self.optimizer.steps, self.optimizer.memory, self.optimizer.names = steps, memory, tuple(params)
            self.step, self.begun, self.history, self.last = step, begun, history, None
            self.best_model = model.with_params(best) if best else None
            self.state = tuple(arrays[name] for name in states) or None
            self.task = self.expected_task = run.get("task")
            model.vocabulary = header.get("vocabulary")


def named(arrays: Mapping[str, Array], group: str) -> dict[str, Array]:
    """The arrays of a file whose names begin with "<group>.", by the rest of their names."""
    return {name.removeprefix(f"{group}."): a for name, a in arrays.items() if name.startswith(f"{group}.")}


class Checkpoint:
    """A callback that saves the trainer to `path` after its first step and then after every `every`-th.

    Each save takes the place of the last one, whole or not at all: killed at any moment, a trainer built in the same
    way that loads `path` and trains on is where it would have been, bit for bit. The first save shows at once whether
    the disk has room for it. Where `fit` has a `validation`, the file holds the best model too:
    `rl.load(path, best=True)`.

    Parameters
    ----------
    path : a name that ends in .npz or .safetensors, in a folder that is there
    every : steps from one save to the next

    Raises
    ------
    TypeError, ValueError for an argument that does not fit, OSError where the file cannot be written.
    """

    def __init__(self, path: str | Path, every: int = 100) -> None:
        self.path, self.every = path_of("path", path), integer("every", every)
        is_safetensors(path)
        check_writable(self.path)

    def __call__(self, trainer: Run) -> None:
        if trainer.step == 1 or trainer.step % self.every == 0:
            trainer.save(self.path)


class EarlyStopping:
    """A callback that ends `fit` when `patience` validations in a row have not been below the best (Prechelt 1998).

    `fit` needs its `validation` for it; `trainer.best_model` is the model at the best. All that it knows stands in
    `trainer.history`, so a run that is saved and loaded ends where it would have ended.
    """

    def __init__(self, patience: int) -> None:
        self.patience = integer("patience", patience)

    def __call__(self, trainer: Run) -> bool:
        losses, steps = trainer.history.validation, trainer.history.validation_step
        return bool(steps[-1:] == [trainer.step] and len(losses) - 1 - losses.index(min(losses)) >= self.patience)
