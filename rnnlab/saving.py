"""Models as files: what is in a file, and how it is checked before anything is used.

`SequenceModel.save` and `rnnlab.loading` call this, and `rnnlab.run` adds training runs.

A file (see `rnnlab.files`) holds every parameter under its name in `model.params`, and this header:

    format, version    "rnnlab", 1: a file of a later version is refused
    model              the `outline` of the model
    vocabulary         the alphabet of a text model, or null
    run                of a trainer only: outlines of its settings, optimizer and task; its step, the optimizer's steps,
                       what is in the history beside lists of numbers

A trainer's file also holds `optimizer.<n>.<parameter>`, the optimizer's memory (Adam's m and v are 0 and 1),
`state.<n>`, the state carried by layer n, `history.<field>`, and `best.<parameter>`, the best model's. Tapes are in no
file.

An outline says how an object is built: {"class": name, argument: value, ...} with the arguments of the constructor
that the object keeps as attributes of the same names; a value is a number, a string, a list or an outline. So a cell of
yours with an option is saved and loaded when its constructor says `self.option = option`; an optimizer or a task that
does not say so is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rnnlab.files import crc32, read_arrays, write_arrays
from rnnlab.ops import Array
from rnnlab.params import Layer
from rnnlab.validate import check_finite, describe

VERSION = 1
OF_RUN = ("optimizer", "state", "history", "best")  # how the names of the arrays begin that a trainer adds
NOT_KEPT = "not kept"  # in an outline: the arguments that the object has no attribute for
NOT_OUTLINED = ("self", "rng", "model", "optimizer", "callbacks")


# ---- outlines ---------------------------------------------------------------------------------


def outline(value: Any) -> Any:
    """How `value` is built, as JSON can write it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, list | tuple):
        return [outline(entry) for entry in value]
    if isinstance(value, np.ndarray):
        plain = np.asarray(value)
        sums = crc32(plain) if plain.dtype.kind in "fciub" else None  # what is no number is refused where it is read
        return {"array": [list(plain.shape), plain.dtype.name, sums]}
    if inspect.isroutine(value) or isinstance(value, type):
        return {"function": name_of(value)}
    if isinstance(value, partial):
        made = {"func": value.func, "args": value.args, **value.keywords}
    else:
        made = {name: getattr(value, name) for name in arguments(value)}
    lost = [name for name in _named(value) if not hasattr(value, name)]
    missing = {NOT_KEPT: lost} if lost and not isinstance(value, Layer) else {}  # a cell may keep them as parameters
    return {"class": name_of(type(value))} | {name: outline(part) for name, part in made.items()} | missing


def arguments(made: object) -> list[str]:
    """The arguments of the constructors of this object's class that it keeps under their names."""
    return [name for name in _named(made) if hasattr(made, name)]


def _named(made: object) -> list[str]:
    """The arguments that the constructors of this object's class take by name."""
    found: dict[str, None] = {}
    for cls in type(made).__mro__:
        if (init := vars(cls).get("__init__")) is None or cls is object:
            continue
        parameters = inspect.signature(init).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found |= dict.fromkeys(name for name in named if name not in NOT_OUTLINED)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break  # it hands nothing on to the class above
    return list(found)


def check_whole(made: Any) -> None:
    """ValueError for the outline of an optimizer or a task that does not keep an argument of its constructor."""
    if not isinstance(made, dict):
        for part in made if isinstance(made, list) else ():
            check_whole(part)
        return
    for name in made.get(NOT_KEPT, ()):
        raise ValueError(
            f"{made['class']}: expected its argument {name!r} kept under its name, so that loading can compare it, "
            f"got no such attribute; write self.{name} = {name} in its __init__"
        )
    check_whole(list(made.values()))


def name_of(thing: Any) -> str:
    """The name of a class or function: "rnnlab.LSTMCell" for the library's, "MyCell" for yours."""
    name = str(getattr(thing, "__qualname__", type(thing).__name__))
    return f"rnnlab.{name}" if str(getattr(thing, "__module__", "")).split(".")[0] == "rnnlab" else name


def rebuild(made: Any, known: Mapping[str, Any], numbers: int) -> Any:
    """The object of an outline; `numbers` is how many the file holds, so no larger layer is made."""
    if isinstance(made, list):
        return [rebuild(entry, known, numbers) for entry in made]
    if not isinstance(made, dict):
        return made
    name = made.get("class", made.get("function"))
    if not isinstance(name, str) or name not in known:
        ask = f"rl.load(path, cells=[{name}])" if "class" in made else f"rl.load(path, loss={name})"
        raise ValueError(f"the {'class' if 'class' in made else 'function'} {name!r}: hand it over, {ask}")
    if "function" in made:
        return known[name]
    options = {key: rebuild(value, known, numbers) for key, value in made.items() if key != "class"}
    sizes = [int(size) for key, size in options.items() if key.endswith("_size")]
    if min(sizes, default=1) < 1 or max(np.prod(sizes, dtype=object), options.get("hidden_size", 0) ** 2) > numbers:
        raise ValueError(f"{name} of the sizes {sizes}, which the {numbers} numbers in the file cannot fill")
    return known[name](**options)


def first_difference(saved: Any, here: Any, where: str) -> None:
    """ValueError that names the first place where two outlines differ."""
    if isinstance(saved, dict) and isinstance(here, dict) and saved.get("class") == here.get("class"):
        for key in saved:  # what the file does not say is of a later version
            first_difference(saved.get(key), here.get(key), f"{where}.{key}")
    elif isinstance(saved, list) and isinstance(here, list) and len(saved) == len(here):
        for n, (one, other) in enumerate(zip(saved, here, strict=True)):
            first_difference(one, other, f"{where}[{n}]")
    elif saved != here:
        raise ValueError(f"{where}: expected {_short(saved)} as in the file, got {_short(here)}; set it so")


def _short(made: Any) -> str:
    if isinstance(made, list) and made and isinstance(made[0], dict):
        return f"{len(made)} of {_short(made[0])}"
    return str(made["class"]) if isinstance(made, dict) and "class" in made else repr(made)


# ---- models -----------------------------------------------------------------------------------


def model_parts(model: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a `SequenceModel`; ValueError for one that could not be rebuilt from them as it is."""
    made, arrays = outline(model), dict(model.params)
    if isinstance(model.loss, partial):
        raise ValueError(
            "loss: expected a function made with def, whose name a file can hold, got a partial; write a def"
        )
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise TypeError(f"params[{name!r}]: expected real floats to save, got {array.dtype}; `astype` converts it")
        check_finite(f"params[{name!r}]", array)
    things = [*map(type, (model, *model.layers.values(), *_parts(model))), model.loss]
    again = rebuilt_model("model", made, things, arrays, type(model))
    for layer, copy in zip(_parts(model), _parts(again), strict=True):
        _check_kept(layer, copy)
    return {"format": "rnnlab", "version": VERSION, "model": made, "vocabulary": model.vocabulary}, arrays


def save_model(model: Any, path: str | Path) -> None:
    """See `SequenceModel.save`."""
    write_arrays(path, *model_parts(model))


def rebuilt_model(
    path: str | Path, made: Any, classes: Iterable[Any], arrays: Mapping[str, Array], kind: type[Any]
) -> Any:
    """The model that the outline `made` describes, with these arrays, all checked.

    `classes` are the classes and functions that the outline may name, and the model has to be a `kind`.
    """
    try:
        known = {name_of(thing): thing for thing in classes}
        model = rebuild(made, known, sum(array.size for array in arrays.values()))
        if not isinstance(model, kind):
            raise TypeError(f"no model: {describe(model)}")
    except Exception as error:  # whatever a hostile outline makes a constructor raise
        advice = "; keep each argument of its constructor under its name" if isinstance(error, TypeError) else ""
        raise ValueError(f"{path}: expected the description of a model, got {error}{advice}") from error
    check_arrays(path, model.params, arrays)
    return model.with_params({name: arrays[name] for name in model.params})


def check_arrays(path: str | Path, wanted: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """ValueError unless `found` has the names, shapes and dtypes of `wanted`, in finite numbers."""
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"{path}: expected an array {missing[0]!r}, got {list(found)}")
    if extra := [name for name in found if name not in wanted]:
        raise ValueError(f"{path}: expected the arrays {list(wanted)}, got one more: {extra[0]!r}")
    for name, array in wanted.items():
        if (found[name].shape, found[name].dtype) != (array.shape, array.dtype):
            raise ValueError(f"{path}: expected {name!r} to be {describe(array)}, got {describe(found[name])}")
        check_finite(f"{path}: {name!r}", found[name])


def _check_kept(layer: Any, copy: Any) -> None:
    """ValueError for an attribute of `layer` that building it again, as `copy`, does not bring back."""
    for name, value in vars(layer).items():
        if name != "rng" and name not in layer.params and outline(vars(copy).get(name)) != outline(value):
            raise ValueError(
                f"{type(layer).__name__}.{name}: expected an option kept under the name of the constructor's "
                f"argument, so that loading brings it back, got {value!r:.60} that would be lost"
            )


def _parts(model: Any) -> list[Any]:
    """Every layer that has parameters of its own: of a `Bidirectional`, its cells."""
    return [part for layer in model.layers.values() for part in layer.parts.values()]


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a file of a model or a run; ValueError for another kind of file or a later version."""
    header, arrays = read_arrays(path)
    if header.get("format") != "rnnlab" or not isinstance(header.get("version"), int) or "model" not in header:
        raise ValueError(f"{path}: expected a file that rnnlab saved, got the format {header.get('format')!r}")
    if header["version"] > VERSION:
        raise ValueError(
            f"{path}: expected format version {VERSION}, got {header['version']}, of a later rnnlab: update yours"
        )
    vocabulary = header.get("vocabulary")
    if vocabulary is not None and not isinstance(vocabulary, str):
        raise ValueError(f"{path}: expected an alphabet as a string, got {describe(vocabulary)}")
    return header, arrays
