"""Training runs as files, loaded into a trainer built in the same way; and the callbacks that keep or end one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rnnlab.files import check_writable, is_safetensors, path_of, write_arrays
from rnnlab.model import SequenceModel
from rnnlab.ops import Array
from rnnlab.optim import Optimizer
from rnnlab.process import uninterrupted
from rnnlab.saving import arguments, check_arrays, check_whole, first_difference, model_parts, outline, read
from rnnlab.validate import positive_int


class Run(Protocol):
    """What is saved of a `Trainer`, which calls the functions below."""

    model: SequenceModel
    optimizer: Optimizer
    callbacks: Iterable[Any]
    history: Any
    step: int
    begun: int
    best_model: SequenceModel | None
    state: tuple[Array, ...] | None
    last: Any
    task: Any
    expected_task: Any

    def save(self, path: str | Path) -> None: ...


def save_trainer(trainer: Run, path: str | Path) -> None:
    """See `Trainer.save`."""
    header, arrays = model_parts(trainer.model)
    optimizer, history = trainer.optimizer, {f.name: getattr(trainer.history, f.name) for f in fields(trainer.history)}
    numbers = {name for name, values in history.items() if all(type(value) is float for value in values)}
    check_whole([outline(trainer.optimizer), trainer.task])
    header["run"] = settings(trainer) | {
        "step": trainer.step,
        "begun": trainer.begun,
        "optimizer_steps": optimizer.steps,
        "history": {name: values for name, values in history.items() if name not in numbers},
    }
    params = trainer.model.params
    ends = np.cumsum([params[name].size for name in optimizer.names])[:-1]
    for n, memory in enumerate(optimizer.memory):
        for name, part in zip(optimizer.names, np.split(memory, ends), strict=True):
            arrays[f"optimizer.{n}.{name}"] = part.reshape(params[name].shape)
    arrays |= {f"state.{n}": part for n, part in enumerate(trainer.state or ())}
    best = {} if trainer.best_model is None else trainer.best_model.params
    arrays |= {f"best.{name}": p for name, p in best.items()}
    arrays |= {f"history.{name}": np.array(history[name], float) for name in numbers}
    write_arrays(path, header, arrays)


def settings(trainer: Run) -> dict[str, Any]:
    """What a trainer must have in common with the one whose file it loads."""
    return {name: outline(getattr(trainer, name)) for name in arguments(trainer)} | {
        "optimizer": outline(trainer.optimizer),
        "task": trainer.task,
    }


def load_trainer(trainer: Run, path: str | Path) -> None:
    """See `Trainer.load`."""
    header, arrays = read(path)
    model, optimizer, run = trainer.model, trainer.optimizer, header.get("run")
    if not isinstance(run, dict):
        raise ValueError(f"{path}: expected a trainer's file, got a model's: rl.load reads it")
    try:
        first_difference(header["model"], outline(model), "model")
        for name, here in settings(trainer).items():
            if name in run and name != "task":
                first_difference(run.get(name), here, name)
        step, steps = positive_int("step", run["step"], 0), positive_int("optimizer_steps", run["optimizer_steps"], 0)
        begun = positive_int("begun", run.get("begun", 0), 0)
        others = dict(run["history"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected the run of a trainer built like this one, got another; {error}") from error
    params = model.params
    names = {name.split(".")[1] for name in arrays if name.startswith("optimizer.")}
    wanted = dict(params) | {f"optimizer.{n}.{name}": p for n in range(len(names)) for name, p in params.items()}
    numbers = {n: a for n, a in arrays.items() if n.startswith("history.") and a.dtype == float and a.ndim == 1}
    first = arrays.get("state.0")
    states = [] if first is None else [f"state.{n}" for n in range(len(model.cells))]
    B = first.shape[1] if first is not None and first.ndim == 3 else 1
    for name, cell in zip(states, model.cells, strict=False):
        wanted[name] = np.empty((len(cell.state_names), B, cell.hidden_size), cell.dtype)
    kept = {f"best.{name}": p for name, p in params.items()} if any(n.startswith("best.") for n in arrays) else {}
    wanted |= kept
    check_arrays(path, wanted, {name: a for name, a in arrays.items() if name not in numbers})
    found, known = {name.split(".")[1] for name in numbers} | others.keys(), {f.name for f in fields(trainer.history)}
    if not {"loss", "gradient_norm"} <= found <= known:  # earlier versions did not validate
        raise ValueError(f"{path}: expected the history of this trainer, got {[*numbers, *others]}")
    history = type(trainer.history)(**others | {name.split(".")[1]: a.tolist() for name, a in numbers.items()})
    memory = tuple(
        np.concatenate([arrays[f"optimizer.{n}.{name}"].ravel() for name in params]) for n in range(len(names))
    )
    with uninterrupted():  # all is checked: from here on nothing can fail
        for name, p in params.items():
            p[...] = arrays[name]
        optimizer.steps, optimizer.memory, optimizer.names = steps, memory, tuple(params)
        trainer.step, trainer.begun, trainer.history, trainer.last = step, begun, history, None
        trainer.best_model = model.with_params({n: arrays[f"best.{n}"] for n in params}) if kept else None
        trainer.state = tuple(arrays[name] for name in states) or None
        trainer.task, trainer.expected_task = run.get("task"), run.get("task")
        model.vocabulary = header.get("vocabulary")


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
        self.path, self.every = path_of("path", path), positive_int("every", every)
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
        self.patience = positive_int("patience", patience)

    def __call__(self, trainer: Run) -> bool:
        losses, steps = trainer.history.validation, trainer.history.validation_step
        return bool(steps[-1:] == [trainer.step] and len(losses) - 1 - losses.index(min(losses)) >= self.patience)
