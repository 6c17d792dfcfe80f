"""One run of an experiment: settings in, numbers out. All that can change the numbers is a field."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from time import process_time
from typing import Any

import numpy as np

from rnnlab import init, tasks
from rnnlab.cells import Cell, Gradients, GRUCell, LSTMCell, RNNCell, Tape
from rnnlab.gradnorm import state_norms
from rnnlab.lab.recorded import one_direction
from rnnlab.model import SequenceModel
from rnnlab.ops import Array, norm
from rnnlab.optim import SGD, Adam
from rnnlab.readout import Dense
from rnnlab.trainer import Trainer
from rnnlab.validate import one_of

Outcome = dict[str, Any]  # plain JSON
CELLS = {"RNN": RNNCell, "LSTM": LSTMCell, "GRU": GRUCell}
TASKS = {"adding": tasks.adding, "movie": tasks.movie, "temporal order": tasks.temporal_order}
OPTIMIZERS = {"Adam": Adam, "SGD": SGD}
VERSION = 1  # raise it when the same settings come to mean other numbers: saved results are then run again
FRACTION = 0.9  # gradient ratios of a task compare step T with step T - FRACTION * T
MEASURED = 32  # on so many sequences


@dataclass(frozen=True)
class Network:
    """How one layer is made; None leaves what the cell draws by default.

    `bias` sets all biases, `forget_bias`, `input_bias` and `update_bias` one gate's after it; `chrono`
    draws those gates' biases for the task's T (Tallec & Ollivier 2018); `spectral_radius` scales W_h.
    """

    cell: str
    hidden_size: int
    recurrent_init: str = "uniform"
    input_init: str = "uniform"
    activation: str = "tanh"
    spectral_radius: float | None = None
    bias: float | None = None
    forget_bias: float | None = None
    input_bias: float | None = None
    update_bias: float | None = None
    chrono: bool = False

    def build(self, input_size: int, T: int, rng: np.random.Generator, dtype: str) -> Cell:
        """The cell of these settings.

        Parameters
        ----------
        input_size, T : D, and the task's time steps, for which chrono biases are drawn
        rng : draws the weights, then the chrono biases
        dtype : "float32" or "float64"

        Returns
        -------
        The cell. ValueError for settings that its kind does not have.
        """
        kind = CELLS[one_of("cell", self.cell, CELLS)]
        options: dict[str, Any] = {"recurrent_init": self.recurrent_init, "input_init": self.input_init}
        options |= {"activation": self.activation} if kind is RNNCell else {}
        cell: Cell = kind(input_size, self.hidden_size, rng=rng, dtype=dtype, **options)
        if self.spectral_radius is not None:
            W = cell.params["W_h"]
            W *= self.spectral_radius / np.abs(np.linalg.eigvals(W)).max(axis=-1)[:, None, None]
        if self.bias is not None:
            for name, p in cell.params.items():
                if name.startswith("b"):
                    p[...] = self.bias
        if self.chrono:
            b = init.chrono(T, self.hidden_size, rng)
            biases = {"forget": b, "input": -b} if kind is LSTMCell else {"update": b}
        else:
            biases = {gate: getattr(self, f"{gate}_bias") for gate in ("forget", "input", "update")}
        for gate, value in biases.items():
            if value is not None:
                cell.set_bias(gate, value)
        return cell


@dataclass(frozen=True)
class Run(ABC):
    """Settings, with a key that is theirs alone; `execute` computes the numbers."""

    network: Network
    seed: int

    @abstractmethod
    def execute(self) -> Outcome:
        """Do it, and return plain JSON."""

    @property
    def settings(self) -> dict[str, Any]:
        return {"run": type(self).__name__, "version": VERSION, **asdict(self)}

    @property
    def key(self) -> str:
        """The same for the same settings, in every process."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:24]

    @property
    def rng(self) -> np.random.Generator:
        """Draws the network; spawned, because default_rng(seed) itself repeats a task's batch 0."""
        return np.random.default_rng(self.seed).spawn(1)[0]


@dataclass(frozen=True)
class GradientFlow(Run):
    """An untrained network on normal input, with a random dL/dh_T: log10 of the norms of dL/dstate_t for all t."""

    T: int = 100
    input_size: int = 8
    batch_size: int = 32
    input_scale: float = 1.0

    def execute(self) -> Outcome:
        rng = self.rng
        cell = self.network.build(self.input_size, self.T, rng, "float64")
        tape = cell.forward(self.input_scale * rng.normal(size=(self.T, self.batch_size, self.input_size)))
        d_h = np.zeros_like(tape.h)
        d_h[-1] = rng.normal(size=d_h.shape[1:])
        norms = log_norms(cell, tape, cell.backward(tape, d_h, input_gradient=False))
        return {"log10": {name: values.tolist() for name, values in norms.items()}}


@dataclass(frozen=True)
class Training(Run):
    """Train on fresh batches until the task is solved or the steps are used up.

    Every `evaluate_every` steps the model is scored on `evaluate_on` sequences that are always the same;
    where these say solved, `confirm_on` others decide, and the final score is theirs too.
    """

    task: str
    T: int
    steps: int
    lr: float
    optimizer: str = "Adam"
    clip_norm: float | None = 1.0
    batch_size: int = 32
    evaluate_every: int = 50
    evaluate_on: int = 500
    confirm_on: int = 2000
    dtype: str = "float32"

    def execute(self) -> Outcome:
        task = TASKS[one_of("task", self.task, TASKS)](self.T, self.batch_size, self.seed)
        model = self.model(task)
        optimizer = OPTIMIZERS[one_of("optimizer", self.optimizer, OPTIMIZERS)](self.lr)
        trainer = Trainer(model, optimizer, clip_norm=self.clip_norm)
        before = gradient_ratios(model, task)
        start, curve, solved, diverged = process_time(), [], False, None
        try:
            while trainer.step < self.steps and not solved:
                with np.errstate(over="ignore", invalid="ignore"):
                    trainer.fit(task, min(self.evaluate_every, self.steps - trainer.step))
                    score = task.score(model, self.evaluate_on)
                    if task.solved(score) or trainer.step == self.steps:
                        score = task.score(model, self.confirm_on)
                        solved = task.solved(score)
                curve.append([trainer.step, score])
        except (FloatingPointError, ValueError) as error:  # a gradient that is not finite ends the run
            if "finite" not in str(error):
                raise
            diverged = str(error).splitlines()[0]
        return {
            "parameters": sum(p.size for p in model.params.values()),
            "steps": trainer.step,
            "solved_at": trainer.step if solved else None,
            "score": None if diverged else curve[-1][1],
            "diverged": diverged,
            "curve": curve,
            "gradient_norm": trainer.history.gradient_norm,
            "before": before,
            "after": None if diverged else gradient_ratios(model, task),
            "seconds": process_time() - start,
        }

    def model(self, task: tasks.Task) -> SequenceModel:
        """The untrained model, cell and readout drawn from `rng`."""
        rng = self.rng
        cell = self.network.build(task.input_size, self.T, rng, self.dtype)
        readout = Dense(self.network.hidden_size, task.output_size, rng=rng, dtype=self.dtype)
        return SequenceModel(cell, readout, task.loss)


def log_norms(cell: Cell, tape: Tape, grads: Gradients) -> dict[str, Array]:
    """log10 ||dL/dstate_t|| for t = 0 .. T, (T+1,): "h"; of an LSTM also "c", the partial derivative dL/dc_t (h_t held
    fixed), and "delta c", the textbook's, which counts every path.

    An exact zero becomes the logarithm of the smallest float, -307.65.
    """
    norms = state_norms(cell, tape, grads)
    if "c" in norms:
        norms |= {"delta c": norms["c"], "c": norm(grads.states[:, 1], (1, 2))}
    tiny = np.finfo(np.float64).tiny
    return {name: np.log10(np.maximum(values, tiny)) for name, values in norms.items()}


def gradient_ratios(model: SequenceModel, task: tasks.Task) -> dict[str, float]:
    """log10 of ||dL/dstate_(T - d)|| / ||dL/dstate_T|| at the distance d = .9 T, for "h" and an LSTM's "delta c".

    In float64, for the norms of a plain network at a distance of 90 leave the range of float32.
    """
    result = model.astype(np.float64).loss_and_grads(task.evaluation(MEASURED))
    (cell, *_), (tape, *_) = one_direction(model.cells, result.tapes)
    norms = log_norms(cell, tape, result.cell_grads[0])
    norms.pop("c", None)  # the partial derivative dL/dc_T is 0
    at = task.T - round(FRACTION * task.T)
    return {name: float(values[at] - values[-1]) for name, values in norms.items()}
