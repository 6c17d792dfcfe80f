"""Plain mistakes at every public callable: each is an error at once that names the argument, or a right answer.

`calls` lists the calls with good arguments. Each argument in turn is replaced by values that people hand over by
mistake. No error may come from inside (an unpacking, a broadcast, an attribute, a key), and what can never be right
(a masked array, numbers of other precisions, NaN) may not give an answer.
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import interop, lab, plots
from rnnlab.validate import describe

T, B, D, H, O = 6, 3, 4, 5, 2  # noqa: E741 - O is the shape letter
Calls = dict[str, tuple[Callable[..., Any], dict[str, Any]]]
Table = dict[type[Exception], list[Any]]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(T, B, D)), RNG.normal(size=(T, B, O))
LENGTHS = np.array([3, 6, 1])
CELL = rl.LSTMCell(D, H, rng=0)
BOTH = rl.Bidirectional(rl.LSTMCell(D, H, rng=0), rl.LSTMCell(D, H, rng=1))
EMBEDDING, LABELS = rl.Embedding(4, D, rng=0), RNG.integers(0, 4, (T, B))
MODEL = rl.SequenceModel(CELL, rl.Dense(H, O, rng=1), rl.mean_squared_error)
TEXT = rl.tasks.char_text("abc\n" * 50, T=4, batch_size=2)
WRITER = rl.SequenceModel(rl.GRUCell(4, H, rng=0), rl.Dense(H, 4, rng=1), rl.softmax_cross_entropy)
TAPE = CELL.forward(X)
GRADS = CELL.backward(TAPE, np.ones((T, B, H)))
PASS = MODEL.loss_and_grads(rl.Batch(X, Y))
PARAMS = {name: p.copy() for name, p in MODEL.params.items()}


def logger() -> rl.GradientNormLogger:
    made = rl.GradientNormLogger()
    made.record(1, MODEL.cells, PASS.tapes, PASS.cell_grads)
    return made


@cache
def calls() -> Calls:
    """Every public call with arguments that are right."""
    sizes = {"input_size": D, "hidden_size": H, "rng": 0, "dtype": np.float64}
    starts = {"input_init": "uniform", "recurrent_init": "orthogonal", "bias": True}
    cells = {
        f"{kind.__name__}()": (kind, sizes | starts | more)
        for kind, more in (
            (rl.RNNCell, {"activation": "relu"}),
            (rl.LSTMCell, {"forget_bias": 1.0, "input_bias": np.ones(H)}),
            (rl.GRUCell, {"update_bias": 1.0}),
            (rl.GRUResetBeforeCell, {"update_bias": 1.0}),
            (rl.FourGateLSTMCell, {"forget_bias": 1.0}),
        )
    }
    one, stack = {"cell": CELL}, {"cells": (CELL,), "tapes": PASS.tapes, "cell_grads": PASS.cell_grads}
    onnx = {"W": np.ones((1, 4 * H, D)), "R": np.ones((1, 4 * H, H)), "B": np.ones((1, 8 * H))}
    return (
        cells
        | {
            "Cell.forward": (CELL.forward, {"x": X, "state": np.zeros((2, B, H)), "lengths": LENGTHS}),
            "Cell.backward": (CELL.backward, {"tape": TAPE, "d_h": np.ones((T, B, H)), "d_state": np.ones((2, B, H))}),
            "Cell.with_params": (CELL.with_params, {"params": dict(CELL.params)}),
            "Cell.astype": (CELL.astype, {"dtype": np.float32}),
            "Cell.set_bias": (rl.LSTMCell(D, H, rng=0).set_bias, {"gate": "forget", "value": 1.0}),
            "Cell.add_param": (rl.RNNCell(D, H, rng=0).add_param, {"name": "V", "init": "uniform", "shape": (H, H)}),
            "Cell.back": (CELL.back, {"d_a": np.ones((4, B, H))}),
            "Cell.memory_gradient": (CELL.memory_gradient, {"tape": TAPE, "grads": GRADS}),
            "Tape.gate": (TAPE.gate, {"name": "forget"}),
            "Dense()": (rl.Dense, {"input_size": H, "output_size": O, "rng": 0, "dtype": np.float64, "bias": False}),
            "Embedding()": (rl.Embedding, {"input_size": 4, "output_size": D, "rng": 0, "dtype": np.float64}),
            "Embedding.forward": (EMBEDDING.forward, {"x": LABELS}),
            "Embedding.backward": (EMBEDDING.backward, {"x": LABELS, "d_rows": X}),
            "Bidirectional()": (rl.Bidirectional, {"forward_cell": CELL, "backward_cell": copy.copy(CELL)}),
            "Reversed()": (rl.Reversed, {"backward_cell": CELL}),
            "Bidirectional.forward": (BOTH.forward, {"x": X, "state": np.zeros((2, B, 2 * H)), "lengths": LENGTHS}),
            "Bidirectional.backward": (
                BOTH.backward,
                {"tape": BOTH.forward(X), "d_h": np.ones((T, B, 2 * H)), "d_state": np.ones((2, B, 2 * H))},
            ),
            "Dense.forward": (MODEL.readout.forward, {"h": np.ones((T, B, H))}),
            "Dense.backward": (MODEL.readout.backward, {"h": np.ones((T, B, H)), "d_y": np.ones((T, B, O))}),
            "SequenceModel()": (
                rl.SequenceModel,
                {"cells": CELL, "readout": MODEL.readout, "loss": MODEL.loss, "embedding": EMBEDDING, "dropout": 0.1},
            ),
            "SequenceModel.predict": (MODEL.predict, {"x": X, "state": [np.zeros((2, B, H))], "lengths": LENGTHS}),
            "SequenceModel.unroll": (MODEL.unroll, {"x": X, "state": [np.zeros((2, B, H))], "lengths": LENGTHS}),
            "SequenceModel.with_params": (MODEL.with_params, {"params": PARAMS}),
            "SequenceModel.astype": (MODEL.astype, {"dtype": np.float32}),
            "SequenceModel.mean_loss": (MODEL.mean_loss, {"batch": rl.Batch(X, Y), "state": [np.zeros((2, B, H))]}),
            "SequenceModel.loss_and_grads": (
                MODEL.loss_and_grads,
                {"batch": rl.Batch(X, Y), "state": [None], "rng": 0},
            ),
            "Batch": (
                lambda x, y, mask, lengths: MODEL.loss_and_grads(rl.Batch(x, y, mask, lengths)),
                {"x": X, "y": Y, "mask": np.ones((T, B), bool), "lengths": LENGTHS},
            ),
            "Batch, each step": (
                lambda x, y, mask: MODEL.loss_and_grads(rl.Batch(x, y, mask)),
                {"x": X, "y": Y, "mask": np.ones((T, B), bool)},
            ),
            "Batch, one answer": (lambda x, y: MODEL.loss_and_grads(rl.Batch(x, y)), {"x": X, "y": Y[0]}),
            "pad": (rl.pad, {"sequences": [X[:2, 0], X[:, 1]]}),
            "softmax_cross_entropy": (
                rl.softmax_cross_entropy,
                {"prediction": Y, "target": np.ones((T, B), int), "mask": np.ones((T, B), bool)},
            ),
            "mean_squared_error": (
                rl.mean_squared_error,
                {"prediction": Y, "target": Y, "mask": np.ones((T, B), bool)},
            ),
            "sigmoid_cross_entropy": (
                rl.sigmoid_cross_entropy,
                {"prediction": Y, "target": np.abs(Y) / 9, "mask": np.ones((T, B), bool)},
            ),
            "SGD()": (rl.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
            "Adagrad()": (rl.Adagrad, {"lr": 0.1, "epsilon": 1e-8, "initial_sum": 0.1, "weight_decay": 0.1}),
            "RMSProp()": (rl.RMSProp, {"lr": 0.1, "decay": 0.9, "epsilon": 1e-8, "weight_decay": 0.1}),
            "clip_by_value": (rl.clip_by_value, {"grads": PASS.grads, "limit": 1.0}),
            "EarlyStopping()": (rl.EarlyStopping, {"patience": 3}),
            "Adam()": (rl.Adam, {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight_decay": 0.1}),
            "Adam.step": (lambda params, grads: rl.Adam().step(params, grads), {"params": PARAMS, "grads": PASS.grads}),
            "linear_decay": (rl.linear_decay, {"lr": 0.1, "steps": 10}),
            "clip_by_global_norm": (rl.clip_by_global_norm, {"grads": PASS.grads, "max_norm": 1.0}),
            "Trainer()": (
                lambda **a: rl.Trainer(**{"optimizer": rl.SGD(0.1)} | a),
                {"model": MODEL, "clip_norm": 1.0, "clip_value": 1.0, "callbacks": [], "carry_state": False, "seed": 0},
            ),
            "Trainer optimizer": (lambda optimizer: rl.Trainer(MODEL, optimizer), {"optimizer": rl.SGD(0.1)}),
            "Trainer.fit": (
                rl.Trainer(copy_of(MODEL), rl.SGD(0.01)).fit,
                {
                    **{"batches": [rl.Batch(X, Y)], "steps": 1, "shuffle": True},
                    **{"validation": rl.Batch(X, Y), "every": 1, "progress": "line"},
                },
            ),
            "Trainer.fit, epochs": (
                rl.Trainer(copy_of(MODEL), rl.SGD(0.01)).fit,
                {"batches": [rl.Batch(X, Y)], "epochs": 1},
            ),
            "Trainer.train_step": (
                lambda batch: rl.Trainer(copy_of(MODEL), rl.SGD(0.01)).train_step(batch),
                {"batch": rl.Batch(X, Y)},
            ),
            "GradientNormLogger()": (
                rl.GradientNormLogger,
                {"every": 1, "vanishing": 1e-6, "exploding": 1e3, "on_alarm": print},
            ),
            "GradientNormLogger.record": (rl.GradientNormLogger().record, {"step": 1} | stack),
            "GradientNormLogger.norms": (logger().norms, {"state": "c", "layer": 0}),
            "GradientNormLogger.save": (logger().save, {"path": "norms.npz"}),
            "GradientNormLogger.load": (rl.GradientNormLogger.load, {"path": "norms.npz", "on_alarm": None}),
            "check_gradients": (rl.check_gradients, {"target": CELL, "lengths": np.array([5, 1, 2])}),
            "diagnose": (rl.diagnose, {"target": CELL, "rng": 0, "T": 3, "B": 2}),
            "tasks.adding": (rl.tasks.adding, {"T": 10, "batch_size": 4, "seed": 0}),
            "tasks.movie": (rl.tasks.movie, {"T": 10, "batch_size": 4, "seed": 0}),
            "tasks.temporal_order": (rl.tasks.temporal_order, {"T": 10, "batch_size": 4, "seed": 0}),
            "Task.batch": (rl.tasks.adding(4).batch, {"n": 0}),
            "Task.stream": (rl.tasks.adding(4).stream, {"start": 0}),
            "Task.evaluation": (rl.tasks.adding(4).evaluation, {"size": 3}),
            "Task.score": (rl.tasks.adding(4).score, {"model": adder(), "size": 3}),
            "tasks.char_text": (
                rl.tasks.char_text,
                {"text": "abc\n" * 50, "T": 4, "batch_size": 2, "test_share": 0.1},
            ),
            "CharText.encode": (TEXT.encode, {"text": "abc"}),
            "CharText.evaluation": (TEXT.evaluation, {"size": 3}),
            "CharText.decode": (TEXT.decode, {"numbers": np.array([0, 1])}),
            "CharText.bits_per_character": (TEXT.bits_per_character, {"model": WRITER}),
            "CharText.sample": (
                TEXT.sample,
                {"model": WRITER, "length": 3, "rng": 0, "prompt": "a", "temperature": 1.0},
            ),
            "tasks.ngram_bits": (rl.tasks.ngram_bits, {"train": TEXT.train, "test": TEXT.test, "n": 2}),
            "init.uniform": (rl.init.uniform, {"shape": (2, 3), "rng": 0}),
            "init.glorot": (rl.init.glorot, {"shape": (2, 3), "rng": 0}),
            "init.orthogonal": (rl.init.orthogonal, {"shape": (2, 3), "rng": 0}),
            "init.identity": (rl.init.identity, {"shape": (2, 3), "rng": 0}),
            "init.chrono": (rl.init.chrono, {"T": 10, "hidden_size": 4, "rng": 0}),
            "Checkpoint()": (rl.Checkpoint, {"path": "run.npz", "every": 1}),
            "SequenceModel.save": (MODEL.save, {"path": "model.npz"}),
            "load": (rl.load, {"path": "saved.npz", "cells": (), "loss": None}),
            "Trainer.save": (rl.Trainer(copy_of(MODEL), rl.SGD(0.1)).save, {"path": "run.npz"}),
            "interop.to_pytorch": (interop.to_pytorch, one | {"layer": 0}),
            "interop.to_keras": (interop.to_keras, one),
            "interop.to_onnx": (interop.to_onnx, one),
            "interop.from_pytorch": (
                interop.from_pytorch,
                {"weights": interop.to_pytorch(CELL), "layer": 0, "activation": "tanh"},
            ),
            "interop.from_keras": (
                interop.from_keras,
                {"weights": interop.to_keras(CELL), "activation": "tanh", "reset_after": True},
            ),
            "interop.from_onnx": (
                interop.from_onnx,
                {"weights": onnx, "linear_before_reset": 0, "activation": "tanh", "direction": "reverse", "layout": 0},
            ),
            "explain_step": (rl.explain_step, one | {"x": X[0, 0], "state": np.zeros((2, H))}),
        }
        | laboratory()
    )


def laboratory() -> Calls:
    """The analyses, and the figures of what they return."""
    recorded: dict[str, Any] = {"cell": CELL, "tape": TAPE}
    pulled = recorded | {"d_h": np.ones((T, B, H)), "d_state": np.zeros((2, B, H))}
    batch = {"model": MODEL, "batch": rl.Batch(X, Y)}
    statistics, record = lab.gate_statistics(CELL, TAPE), logger()
    found: Calls = {
        "lab.connectivity": (
            lab.connectivity,
            {"target": CELL, "x": X, "state": np.zeros((2, B, H)), "lengths": LENGTHS},
        ),
        "lab.distance_gradients": (lambda **a: next(lab.distance_gradients(**a)), pulled),
        "lab.distance_terms": (lab.distance_terms, pulled),
        "lab.memory_paths": (lab.memory_paths, pulled),
        "lab.gate_statistics": (
            lab.gate_statistics,
            {"cell": CELL, "tapes": TAPE, "keeps": "forget", "low": 0.1, "high": 0.9},
        ),
        "lab.input_gradient_norms": (lab.input_gradient_norms, batch | {"state": [None]}),
        "lab.output_gradients": (lab.output_gradients, batch | {"result": PASS}),
        "lab.truncation": (lab.truncation, batch | {"lengths": [1, 2], "state": None}),
        "lab.jacobians": (lab.jacobians, recorded | {"times": [0, 1]}),
        "lab.jacobian_decay": (lab.jacobian_decay, recorded | {"start": 0, "end": 3, "keeps": "forget"}),
        "lab.jacobian_product": (lab.jacobian_product, recorded | {"start": 0, "end": 3}),
        "lab.jacobian_products": (lambda **a: next(lab.jacobian_products(**a)), recorded | {"start": 0, "end": 3}),
    }
    drawn: Calls = {
        "loss_curves": (
            plots.loss_curves,
            {"histories": {"LSTM": [1.0, 0.5]}, "baselines": {"chance": 1.0}, "smooth": 1},
        ),
        "gradient_flow": (plots.gradient_flow, {"norms": {"LSTM": [1.0, 0.5]}}),
        "gate_heatmap": (
            plots.gate_heatmap,
            {"tape": TAPE, "gate": "forget", "sequence": 0, "events": {1: "reveal"}},
        ),
        "gradient_norm_map": (plots.gradient_norm_map, {"logger": record, "state": "c", "layer": 0}),
        "gradient_ratios": (plots.gradient_ratios, {"loggers": {"LSTM": record}, "state": "c", "layer": 0}),
        "parameter_norms": (plots.parameter_norms, {"logger": record, "blocks": ["W_h[forget]"], "layer": 0}),
        "memory_paths": (plots.memory_paths, {"paths": lab.memory_paths(**pulled)}),
        "distance_terms": (
            plots.distance_terms,
            {"terms": {"LSTM": lab.distance_terms(**pulled)}, "block": "W_h[candidate]"},
        ),
        "truncation": (plots.truncation, {"results": {"LSTM": lab.truncation(MODEL, rl.Batch(X, Y))}}),
        "singular_values": (plots.singular_values, {"decay": lab.jacobian_decay(CELL, TAPE), "sequence": 0}),
        "connectivity": (plots.connectivity, {"log_norms": {"LSTM": lab.connectivity(CELL, X)}}),
        "saturation": (plots.saturation, {"statistics": statistics}),
        "half_lives": (plots.half_lives, {"statistics": {"LSTM": statistics}}),
    }
    return found | {f"plots.{name}": (partial(call, ax=plots.axes(None)), a) for name, (call, a) in drawn.items()}


def adder() -> rl.SequenceModel:
    return rl.SequenceModel(rl.RNNCell(2, 3, rng=0), rl.Dense(3, 1, rng=1), rl.mean_squared_error)


def copy_of(model: rl.SequenceModel) -> rl.SequenceModel:
    return model.with_params(model.params)


def mistakes(good: Any) -> dict[str, Any]:
    """What people hand over in place of this value, by a name for it."""
    found: dict[str, Any] = {
        "None": None,
        "a string": "nonsense",
        "an empty string": "",
        "an integer": 3,
        "zero": 0,
        "minus one": -1,
        "a float": 1.5,
        "NaN": float("nan"),
        "True": True,
        "an object": object(),
        "a class": rl.LSTMCell,
        "a function": len,
        "an empty list": [],
        "a list of strings": ["a", "b"],
        "a ragged list": [[1.0], [1.0, 2.0]],
        "an empty dict": {},
        "a dict of None": dict.fromkeys(good) if isinstance(good, Mapping) else {"a": None},
        "a scalar array": np.array(1.0),
        "a vector": np.ones(7),
        "a matrix": np.ones((2, 2)),
        "four axes": np.ones((2, 2, 2, 2)),
        "no entries": np.ones((0, 3, 4)),
        "an object array": np.array([None, 1]),
        "strings": np.array(["a", "b"]),
        "complex numbers": np.ones((2, 2), complex),
        "a cell": rl.RNNCell(2, 2, rng=0),
        "a model": adder(),
        "a tape": rl.RNNCell(2, 2, rng=0).forward(np.ones((2, 1, 2))),
        "a batch": rl.Batch(np.ones((2, 1, 2)), np.ones((2, 1, 1))),
    }
    if isinstance(good, np.ndarray) and good.ndim:
        found |= {
            "batch first": good.swapaxes(0, -1),
            "one step more": np.concatenate((good, good[:1])),
            "one entry more": np.concatenate((good, good[..., :1]), axis=-1),
            "one axis more": good[None],
            "one axis less": good[0],
            "nested lists": good.tolist(),
            "bytes": good.tobytes(),
        }
    if isinstance(good, Mapping):
        first = next(iter(good))
        found |= {
            "one name less": {k: v for k, v in good.items() if k != first},
            "one name more": dict(good) | {"more": np.ones(3)},
            "a name that is a number": dict(good) | {3: np.ones(3)},
            "a list for an array": dict(good) | {first: [1.0, 2.0]},
            "None for an array": dict(good) | {first: None},
            "another shape": dict(good) | {first: np.ones((2, 9))},
            "the values": list(good.values()),
        }
    if isinstance(good, list | tuple) and len(good):
        found |= {"one more": [*good, good[0]], "the first": good[0], "None in it": [None, *good[1:]]}
    return found


def never(good: Any) -> dict[str, Any]:
    """What can never be a right answer's input: for an array of floats of the right shape."""
    if not isinstance(good, np.ndarray) or good.dtype.kind != "f" or not good.ndim:
        return {}
    spoiled = good.copy()
    spoiled.flat[0] = np.nan
    return {
        "NaN in it": spoiled,
        "an infinity in it": np.where(np.isnan(spoiled), np.inf, spoiled),
        "objects": good.astype(object),
        "a masked array": np.ma.masked_array(good, good > 0),
        "float16": good.astype(np.float16),
        "longdouble": good.astype(np.longdouble),
        "strings of numbers": good.astype(str),
    }


DEEP = re.compile(
    r"broadcast|unpack|has no attribute|unsupported operand|object is not|not subscriptable|not iterable|"
    r"out of bounds|invalid literal|matmul|operands|cannot reshape|must be str|unhashable|could not convert|"
    r"positional argument|truth value|setting an array|ufunc|dimension|only integer|'<' not supported|can only"
)
CLEAR = re.compile(r"(?s)^[\w.\[\]'\":, ]*: .*expected .*got |^\[Errno|is not installed|^There are no ")


def verdict(call: Callable[..., Any], arguments: dict[str, Any]) -> str | None:
    """What is wrong with how this call takes these arguments; None where it answers or refuses them clearly."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("error")
            call(**arguments)
    except (TypeError, ValueError, KeyError, IndexError, FloatingPointError, OSError) as error:
        text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        return (
            None if CLEAR.search(text) and not DEEP.search(text.split("got")[0]) else f"{type(error).__name__}: {text}"
        )
    except AssertionError as error:  # a mismatch of gradients
        return None if type(error).__name__ == "GradientMismatch" else repr(error)
    except Exception as error:  # from inside
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("name", calls())
def test_good_arguments_are_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.save("saved.npz")
    logger().save("norms.npz")
    call, good = calls()[name]
    call(**good)


@pytest.mark.parametrize("name", calls())
def test_a_plain_mistake_is_refused_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.save("saved.npz")
    logger().save("norms.npz")
    call, good = calls()[name]
    wrong = []
    for argument, value in good.items():
        for what, bad in mistakes(value).items():
            if name.startswith("interop") and what == "a model":
                continue  # which is none
            if said := verdict(call, good | {argument: bad}):
                wrong.append(f"{argument} = {what}: {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", calls())
def test_what_can_never_be_right_gives_no_answer(name: str) -> None:
    if name == "Cell.back":
        pytest.skip("a part of a step, which the time loop checks after the last one")
    call, good = calls()[name]
    for argument, value in good.items():
        for what, bad in never(value).items():
            try:
                call(**good | {argument: bad})
            except (TypeError, ValueError, FloatingPointError):
                continue
            pytest.fail(f"{argument} = {what} ({describe(bad)}) gave an answer")


ONES, RAGGED, NAN = np.ones((T, B), bool), [[1.0], [1.0, 2.0]], float("nan")
SIZES = {"input_size": {ValueError: [0, -1], TypeError: [2.0, True]}, "rng": {TypeError: ["seed", -1, 1.5, object()]}}
TASK = {
    "T": {ValueError: [1], TypeError: [20.0]},
    "batch_size": {ValueError: [0]},
    "seed": {ValueError: [-1], TypeError: ["one"]},
}
ARRAY: Table = {
    ValueError: [np.full((T, B, H), NAN), np.array(1.0), RAGGED],
    TypeError: [None, np.ones((T, B, H), int)],
}
LOSS = {
    "prediction": {
        ValueError: [Y[0, 0], np.full_like(Y, NAN), np.full_like(Y, np.inf), RAGGED],
        TypeError: [Y.astype(int)],
    },
    "mask": {
        ValueError: [ONES[:-1], ONES[..., None], ~ONES, RAGGED],
        TypeError: [ONES * 2, ONES * 0.5, np.full((T, B), NAN), "last"],
    },
}
# By call and argument: what cannot be right though it is of the right type, and what is of another type.
REFUSED: dict[str, dict[str, Table]] = {
    "LSTMCell()": SIZES
    | {
        "hidden_size": {ValueError: [0, -1], TypeError: [2.0, True]},
        "dtype": {ValueError: [np.int64, np.float16], TypeError: ["float99"]},
        "input_init": {ValueError: ["gaussian"]},
        "recurrent_init": {ValueError: ["Uniform"], TypeError: [3]},
        "forget_bias": {ValueError: [np.zeros(3), NAN], TypeError: ["one"]},
    },
    "GRUCell()": {"update_bias": {ValueError: [np.zeros(3), NAN], TypeError: ["one"]}},
    "RNNCell()": {"activation": {ValueError: ["sigmoid"]}},
    "Cell.forward": {
        "x": {
            ValueError: [
                *(X[..., :3], np.zeros(4), X[..., None], X[:0], X[:, :0], np.zeros((0, 2), int), RAGGED),
                *(np.where(X > 1, NAN, X), np.full_like(X, np.inf)),
                *(np.full((T, B), D), np.full((T, B), -1)),
            ],
            TypeError: [
                *(X[0], X.astype(int), X.astype(bool), np.ones((T, B), bool), X.astype(complex)),
                *(np.full(X.shape, "a"), None, [[["a"] * D] * B] * T),
            ],
        },
        "state": {
            ValueError: [
                *(np.zeros((1, B, H)), np.zeros((2, 1, H)), np.zeros((2, B, D)), np.full((2, B, H), NAN), RAGGED)
            ],
            TypeError: [np.zeros((2, B, H), int)],
        },
    },
    "Cell.backward": {
        "d_h": {
            ValueError: [np.zeros((2, B, H)), np.zeros((T, 1, H)), np.full((T, B, H), NAN)],
            TypeError: [np.zeros((T, B, H), int), None],
        },
        "d_state": {ValueError: [np.zeros((1, B, H))], TypeError: ["zeros"]},
    },
    "Dense()": SIZES | {"output_size": {TypeError: ["2"]}, "dtype": {ValueError: [np.float16]}},
    "Dense.forward": {"h": ARRAY | {ValueError: [*ARRAY[ValueError], np.ones((T, B, D))]}},
    "Dense.backward": {
        "h": ARRAY,
        "d_y": ARRAY | {ValueError: [*ARRAY[ValueError], np.ones((T, B, 1)), np.ones((T - 1, B, O))]},
    },
    "SequenceModel()": {
        "cells": {
            ValueError: [
                *(rl.LSTMCell(D, 4), [rl.LSTMCell(D, H), rl.GRUCell(4, H)], rl.LSTMCell(D, H, dtype=np.float32))
            ],
            TypeError: [[], "LSTM", None, 3],
        },
        "readout": {TypeError: [None]},
        "loss": {TypeError: ["mse"]},
        "dropout": {ValueError: [1.0, -0.1]},
    },
    "Batch, each step": {
        "x": {
            ValueError: [X[..., :2], X[:0], X[:, :0], np.full_like(X, NAN), np.full((T, B), D), RAGGED],
            TypeError: [X.astype(int)],
        },
        "y": {ValueError: [Y[:-1], Y[:, :-1], Y[..., :1], RAGGED], TypeError: [Y[..., 0].astype(int)]},
        "mask": {ValueError: [~ONES, ONES[:, :2], RAGGED], TypeError: [ONES * 7]},
    },
    "SequenceModel.save": {"path": {ValueError: ["model.pkl", "model", "."], TypeError: [None, 3, "", b"model.npz"]}},
    "load": {
        "path": {ValueError: ["model.pkl", "model", "."], TypeError: [None, 3, "", b"model.npz"]},
        "cells": {TypeError: [3, ["LSTMCell"], [rl.Trainer]]},
    },
    "SequenceModel.predict": {
        "x": {
            ValueError: [X[:0], X[:, :0], np.zeros(3), np.array(0.0), RAGGED],
            TypeError: [X.astype(int), X[0]],
        },
        "state": {
            ValueError: [[], [np.zeros((2, B, H))] * 2, [np.zeros((1, B, H))], [np.zeros((2, 2, H))]],
            TypeError: [3],
        },
    },
    "softmax_cross_entropy": LOSS
    | {
        "target": {
            ValueError: [ONES * O, ONES * -1, np.ones((T - 1, B), int), np.ones((T, B, 1), int)],
            TypeError: [np.ones((T, B)), ONES],
        },
    },
    "mean_squared_error": LOSS
    | {
        "target": {
            ValueError: [Y[..., :1], Y[..., 0], np.full_like(Y, NAN), RAGGED],
            TypeError: [Y.astype(int)],
        },
    },
    "sigmoid_cross_entropy": LOSS | {"target": {ValueError: [Y[..., :1], np.full_like(Y, 1.5), np.full_like(Y, -0.5)]}},
    "SGD()": {
        "lr": {ValueError: [0, -0.1, NAN], TypeError: ["fast", True]},
        "momentum": {ValueError: [1, -0.1]},
        "weight_decay": {ValueError: [-1]},
    },
    "Adam()": {
        "lr": {ValueError: [np.inf]},
        "beta1": {ValueError: [1.0]},
        "beta2": {ValueError: [-0.5]},
        "epsilon": {ValueError: [0]},
    },
    "Adagrad()": {"epsilon": {ValueError: [-1]}, "initial_sum": {ValueError: [-1]}},
    "RMSProp()": {"epsilon": {ValueError: [0]}, "decay": {ValueError: [1]}},
    "linear_decay": {"lr": {ValueError: [0]}, "steps": {ValueError: [0]}},
    "clip_by_global_norm": {
        "max_norm": {ValueError: [0], TypeError: ["1"]},
        "grads": {
            TypeError: [[np.ones(2)], {"w": np.array([-1, 2])}],
            FloatingPointError: [{"w": np.array([NAN])}, {"w": np.array([np.inf])}],
        },
    },
    "clip_by_value": {"limit": {ValueError: [0]}},
    "EarlyStopping()": {"patience": {ValueError: [0]}},
    "Trainer()": {
        "model": {TypeError: [CELL]},
        "clip_norm": {ValueError: [0], TypeError: ["1"]},
        "callbacks": {TypeError: [3, [3]]},
    },
    "Trainer optimizer": {"optimizer": {TypeError: [0.1, rl.SGD]}},
    "Trainer.fit": {
        "steps": {ValueError: [-1], TypeError: [1.5]},
        "batches": {ValueError: [[]], TypeError: [3, rl.Batch(X, Y)]},
        "progress": {TypeError: [True]},
    },
    "GradientNormLogger()": {
        "every": {ValueError: [0], TypeError: [1.5]},
        "vanishing": {ValueError: [0.0]},
        "exploding": {TypeError: ["much"]},
        "on_alarm": {TypeError: [3]},
    },
    "GradientNormLogger.record": {
        "cells": {TypeError: [CELL, [TAPE]]},
        "tapes": {TypeError: [(TAPE, TAPE)]},
        "cell_grads": {TypeError: [[], [TAPE]]},
        "step": {TypeError: [1.5]},
    },
    "tasks.adding": TASK,
    "tasks.movie": TASK,
    "tasks.temporal_order": TASK | {"T": {ValueError: [1, 9], TypeError: [20.0]}},
    "Task.batch": {"n": {ValueError: [-1], TypeError: [0.0]}},
    "Task.stream": {"start": {ValueError: [-1]}},
    "Task.evaluation": {"size": {ValueError: [0]}},
    "tasks.char_text": {
        "text": {ValueError: ["", "too short"], TypeError: [3, b"bytes" * 100]},
        "T": {ValueError: [0]},
        "batch_size": {TypeError: [2.0]},
        "test_share": {ValueError: [1.0, 0]},
    },
    "CharText.encode": {"text": {ValueError: ["aZX"], TypeError: [5]}},
    "CharText.decode": {"numbers": {ValueError: [np.array([0, TEXT.size])], TypeError: [np.array([0.0])]}},
    "CharText.sample": {
        "length": {ValueError: [0]},
        "temperature": {ValueError: [0]},
        "prompt": {ValueError: ["", "?", 5]},
        "rng": {TypeError: ["seed"]},
        "model": {ValueError: [MODEL], TypeError: [CELL]},
    },
    "CharText.bits_per_character": {"model": {ValueError: [MODEL], TypeError: [CELL]}},
    "Task.score": {"model": {TypeError: [CELL]}},
    "tasks.ngram_bits": {
        "n": {ValueError: [0, 99, 200], TypeError: [2.0]},
        "train": {ValueError: [TEXT.train[:0]], TypeError: [TEXT.train.astype(float)]},
        "test": {ValueError: [TEXT.test[:0], -1 - TEXT.test]},
    },
    "init.chrono": {"T": {ValueError: [2]}, "hidden_size": {TypeError: [4.0]}},
    "init.orthogonal": {"rng": {TypeError: ["seed"]}},
    "Checkpoint()": {
        "path": {ValueError: ["run.pkl", "run"]},
        "every": {ValueError: [0], TypeError: [1.5]},
    },
    "interop.to_pytorch": {"layer": {ValueError: [-1], TypeError: [0.5, True]}},
    "interop.from_onnx": {"linear_before_reset": {ValueError: [2, -1, None, "yes"]}},
    "plots.loss_curves": {
        "histories": {
            ValueError: [{}, {"a": []}, {"a": rl.History()}, {"a": [[1.0]]}, {"a": [1.0, NAN]}],
            TypeError: [[1.0, 2.0], {"a": ["x"]}],
        },
        "smooth": {ValueError: [3, 0]},
    },
    "plots.gradient_flow": {"norms": {ValueError: [{}, {"a": [1.0, -1.0]}, {"a": [0.0, 0.0]}, {"a": [1.0, np.inf]}]}},
    "plots.gradient_ratios": {"loggers": {ValueError: [{}]}},
    "plots.distance_terms": {"terms": {ValueError: [{}]}},
    "plots.truncation": {"results": {ValueError: [{}]}},
    "plots.connectivity": {"log_norms": {ValueError: [{}]}},
    "plots.half_lives": {"statistics": {ValueError: [{}]}},
    "plots.parameter_norms": {"blocks": {ValueError: [[]], TypeError: ["W_h[forget]"]}},
}


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name in REFUSED for argument in REFUSED[name]])
def test_a_value_that_cannot_be_is_refused_by_the_arguments_name(
    name: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    MODEL.save("saved.npz")
    call, good = calls()[name]
    good = good | ({"lengths": None} if argument == "x" and "lengths" in good else {})  # which name x's axes too
    for error, values in REFUSED[name][argument].items():
        for value in values:
            with pytest.raises(error, match=rf"(?s)^{argument}(\[.*?\])?: expected .*got "):
                call(**good | {argument: value})
    assert [path.name for path in tmp_path.iterdir()] == ["saved.npz"]


BATCH = rl.Batch(X, Y)
LEARNER = partial(rl.Trainer, copy_of(MODEL))
ADVICE: dict[str, tuple[Callable[[], Any], str]] = {
    "every": (lambda: LEARNER(rl.SGD(0.1)).fit([BATCH], 3, every=2), "give validation="),
    "epochs": (lambda: LEARNER(rl.SGD(0.1)).fit(rl.tasks.adding(4), epochs=2), "give steps="),
    "iterator": (lambda: LEARNER(rl.SGD(0.1)).fit(iter([BATCH]), 3), "give list(batches)"),
    "pairs": (lambda: LEARNER(rl.SGD(0.1)).fit([(X, Y)], 3), "write rl.Batch(x, y)"),  # type: ignore[list-item]
    "one batch": (lambda: LEARNER(rl.SGD(0.1)).fit(BATCH, 3), "write [batch]"),  # type: ignore[arg-type]
    "width": (lambda: rl.Dense(4, 1).forward(np.ones((3, 5))), "expected shape (..., H=4)"),
    "empty sequence": (lambda: rl.pad([[1], []]), "sequences[1]: "),  # type: ignore[list-item]
    "state": (lambda: MODEL.predict(X, np.zeros((2, B, H))), "write [state]"),  # type: ignore[arg-type]
    "folder": (lambda: MODEL.save("absent/x.npz"), "make it first"),
    "no y": (lambda: MODEL.mean_loss(rl.Batch(X, None)), "y: expected an array, got None"),  # type: ignore[arg-type]
    "no x": (lambda: CELL.forward(None), "x: expected an array, got None"),  # type: ignore[arg-type]
    "integers": (lambda: CELL.forward(X.astype(int)), "write x.astype(float)"),
    "half precision": (lambda: CELL.forward(X.astype(np.float16)), "write x.astype(float)"),
    "masked array": (lambda: CELL.forward(np.ma.masked_array(X, mask=False)), "Batch.mask"),
    "tape": (lambda: lab.jacobians(CELL, X), "write cell.forward(x)"),  # type: ignore[arg-type]
    "class": (lambda: rl.check_gradients(rl.LSTMCell), "make one: LSTMCell(3, 4)"),
    "gate": (lambda: CELL.set_bias("update", 1.0), "update_bias: "),
}


@pytest.mark.parametrize("name", ADVICE)
def test_a_refusal_says_what_to_do_on_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call, advice = ADVICE[name]
    with pytest.raises((TypeError, ValueError, OSError)) as caught:
        call()
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
