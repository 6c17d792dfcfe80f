"""The named experiments, each with its settings in view.

The training experiments have this in common: Adam, batch 32, gradient clipped to norm 1, fresh data at every
step, float32, one step budget for all networks of a table, and about 5,000 parameters each. Every network gets
the same SEARCH for its learning rate: all RATES on the first seed, the best two on the second as well, and the
better of those on all seeds. "Solved" means a score on the task's fixed evaluation sequences: an MSE below .01
(adding), .99 right answers (the others). `explosion_clipping` alone differs: SGD, clipped or not, at three rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import getdoc
from typing import TypeVar

import numpy as np

from rnnlab.experiments.compare import NETWORKS, RATES, collect, compare, seed_range, settings, with_seeds
from rnnlab.experiments.results import Result, Row, by_seed, floats, mean, number, solved, spearman
from rnnlab.experiments.runner import Runner
from rnnlab.experiments.settings import FRACTION, GradientFlow, Network, Training

TRAINING_NOTE = "A number is the step at which that seed solved the task; in brackets, the score it ended with."
UNGATED = ("RNN default", "RNN orthogonal", "IRNN")
GATED = tuple(label for label in NETWORKS if label not in UNGATED)
LSTM_STARTS = ("LSTM chrono", "LSTM b_f = 3, b_i = -3", "LSTM b_f = 1", "LSTM default")
ADDING = (*LSTM_STARTS, "GRU chrono", "GRU b_z = 0", *UNGATED)
CLASSIFIERS = ("LSTM chrono", "LSTM b_f = 1", "GRU chrono", *UNGATED)
RATIO_LABEL = "log10 of the gradient ratio"
Experiment = TypeVar("Experiment", bound=Callable[..., Result])

EXPERIMENTS: dict[str, Callable[..., Result]] = {}
PARAMETERS = """

Parameters
----------
seeds : how many: the seeds are 0 .. seeds - 1
runner
    A `Runner`: where results are kept and how many processes compute them. None computes here and keeps nothing.
T, steps, hidden_size
    As far as the function takes them: the length of each sequence (of `temporal_order` several), the step budget of
    each training run, and H of each network.

Returns
-------
A `Result`: print it for the table, `plot` it for the picture.
"""


def experiment(function: Experiment) -> Experiment:
    """Name it in EXPERIMENTS, and describe in its docstring the arguments that all of them share."""
    function.__doc__ = (getdoc(function) or "") + PARAMETERS
    EXPERIMENTS[function.__name__.replace("_", "-")] = function
    return function


# ---- untrained --------------------------------------------------------------------------------


@experiment
def gradient_flow(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, hidden_size: int = 64) -> Result:
    """How much gradient reaches step 1 of an untrained network: log10 of ||dL/dh_1|| / ||dL/dh_T||.

    D = 8 inputs from N(0, 1), batch 32, a random dL/dh_T, float64. The LSTM's memory has two more
    columns: the partial derivative dL/dc_1 and the textbook's delta c_1 (with the path through h), the first
    against ||dL/dh_T|| (which is exactly 0 at T), the second against its own norm at T.
    """
    rnn, lstm, gru = (Network(cell, hidden_size) for cell in ("RNN", "LSTM", "GRU"))
    networks = {
        "RNN default": rnn,
        "RNN Glorot": replace(rnn, recurrent_init="glorot", input_init="glorot"),
        "RNN orthogonal, Glorot input": replace(rnn, recurrent_init="orthogonal", input_init="glorot"),
    }
    networks |= {f"RNN spectral radius {r:g}": replace(rnn, spectral_radius=r) for r in (0.5, 0.9, 1.1, 1.5, 2.0, 3.0)}
    networks["IRNN"] = replace(rnn, recurrent_init="identity", activation="relu", bias=0.0)
    networks |= {f"LSTM b_f = {b}": replace(lstm, forget_bias=float(b)) for b in (0, 1, 2, 3, 5)}
    networks["LSTM chrono"] = replace(lstm, chrono=True)
    networks |= {f"GRU b_z = {b}": replace(gru, update_bias=float(b)) for b in (-1, 0, 1, 2, 3, 5)}
    networks["GRU chrono"] = replace(gru, chrono=True)
    runs = {label: [GradientFlow(n, seed, T) for seed in seed_range(seeds)] for label, n in networks.items()}
    rows = [Row(*found) for found in collect("gradient-flow", runs, runner).items()]

    def ratios(row: Row, first: str = "h", last: str = "h") -> list[float]:
        """log10 of the norm of dL/dfirst_1 over that of dL/dlast_T; empty where the cell has no such state."""
        return [o["log10"][first][1] - o["log10"][last][-1] for o in row.outcomes if first in o["log10"]]

    columns = ("network", "log10 ratio", "by seed", "memory dL/dc", "memory delta c")
    memories = [(ratios(row, "c"), ratios(row, "delta c", "delta c")) for row in rows]
    cells = [
        (row.label, mean(ratios(row)), floats(ratios(row)), *(mean(values) if values else "" for values in memory))
        for row, memory in zip(rows, memories, strict=True)
    ]
    points = {row.label: [(value, True) for value in ratios(row)] for row in rows}
    title = f"Gradient flow, untrained: log10 of ||dL/dh_1|| / ||dL/dh_T||, T = {T}, H = {hidden_size}"
    notes = [f"Means over {seeds} seeds of the log10, that is, geometric means of the ratio."]
    return Result(title, columns, cells, notes, rows, points, RATIO_LABEL)


# ---- trained ----------------------------------------------------------------------------------


@experiment
def adding(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, steps: int = 1500) -> Result:
    """The adding problem: who gets below the variance of the target, 1/6? 1,500 steps for everyone."""
    rows = compare("adding", ADDING, settings("adding", T, steps), seeds, runner)
    title = f"Adding problem, T = {T}, {steps} steps: MSE (always answering 1 gives .167, solved below .01)"
    return training_result(title, rows, steps)


@experiment
def movie(seeds: int = 5, *, runner: Runner | None = None, T: int = 60, steps: int = 1200) -> Result:
    """The movie: name at the end what the flagged scene in the first half was. 1,200 steps for everyone."""
    rows = compare("movie", CLASSIFIERS, settings("movie", T, steps), seeds, runner)
    return training_result(f"Movie, T = {T}, {steps} steps: share of right answers (chance .25)", rows, steps)


@experiment
def temporal_order(
    seeds: int = 5, *, runner: Runner | None = None, T: Sequence[int] = (20, 30, 50, 100), steps: int = 1000
) -> Result:
    """In which order came two symbols? By length of the sequence, 1,000 steps for everyone."""
    rows = []
    for length in T:
        name, base = f"T = {length}", settings("temporal order", length, steps)
        found = compare(f"temporal-order, {name}", CLASSIFIERS, base, seeds, runner)
        rows += [replace(row, label=f"{name}, {row.label}") for row in found]
    return training_result(f"Temporal order by length, {steps} steps: share of right answers (chance .25)", rows, steps)


@experiment
def gate_bias(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, steps: int = 1000) -> Result:
    """Temporal order again: which gate biases make a memory?"""
    rows = compare("gate-bias", GATED, settings("temporal order", T, steps), seeds, runner)
    title = f"Gate biases on temporal order, T = {T}, {steps} steps: share of right answers (chance .25)"
    return training_result(title, rows, steps)


@experiment
def before_after(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, steps: int = 1500) -> Result:
    """What training on the adding problem does to the gradient ratio at the distance .9 T (runs of `adding`)."""
    rows = compare("before-after", ADDING, settings("adding", T, steps), seeds, runner)
    columns = ("network", "before", "after", "before, by seed", "after, by seed", "solved")
    cells, points = [], {}
    for row in rows:
        before, after = ratios(row), ratios(row, "after")
        cells.append((row.label, mean(before), mean(after), floats(before), floats(after), solved(row.outcomes)))
        points[row.label] = [(value, False) for value in before] + [(value, True) for value in after]
    title = f"Before and after training on adding: log10 of ||dL/dh_{T - round(FRACTION * T)}|| / ||dL/dh_{T}||"
    notes = [f"Training ends when the task is solved, else after {steps} steps."]
    axis = f"{RATIO_LABEL}, before (hollow) and after training"
    return Result(title, columns, cells, notes, rows, points, axis)


@experiment
def explosion_clipping(seeds: int = 5, *, runner: Runner | None = None, T: int = 30, steps: int = 600) -> Result:
    """Exploding gradients: plain SGD on temporal order, with and without clipping, at three learning rates.

    The smaller rates ask whether they would do instead of clipping.
    """
    runs: dict[str, list[Training]] = {}
    for label in ("IRNN", "RNN orthogonal"):
        for lr in (0.1, 0.01, 0.001):
            for how, clip_norm in (("not clipped", None), ("clipped", 1.0)):
                base = replace(settings("temporal order", T, steps), optimizer="SGD", clip_norm=clip_norm)
                runs[f"{label}, lr {number(lr)}, {how}"] = with_seeds(base, label, lr, seed_range(seeds))

    rows = [Row(*found) for found in collect("explosion-clipping", runs, runner).items()]
    columns = ("network", "solved", "by seed", "largest gradient norm", "median gradient norm")
    cells, points = [], {}
    for row in rows:
        norms = [outcome["gradient_norm"] or [np.nan] for outcome in row.outcomes]
        largest, median = ([float(size(n)) for n in norms] for size in (np.max, np.median))
        by_size = [" ".join(f"{value:.2g}" for value in values) for values in (largest, median)]
        cells.append((row.label, solved(row.outcomes), by_seed(row.outcomes), *by_size))
        points[row.label] = by_success(np.log10(largest).tolist(), row)
    title = f"Explosion and clipping: SGD on temporal order, T = {T}, {steps} steps"
    notes = [TRAINING_NOTE, "Norms are those before clipping, by seed, over all steps of training."]
    return Result(title, columns, cells, notes, rows, points, "log10 of the largest gradient norm (filled: solved)")


@experiment
def ratio_predicts_success(seeds: int = 5, *, runner: Runner | None = None, T: int = 100) -> Result:
    """Does the gradient ratio at the start predict who solves the task? Spearman's rank correlation.

    The runs of `gate_bias`, `temporal_order` and `adding` at this T. Seeds of one network are not independent
    of each other, so the correlation of the networks' means stands beside that of the runs.
    """
    rows, notes = [], []
    for labels, base in (
        ((*GATED, *UNGATED), settings("temporal order", T, 1000)),
        (ADDING, settings("adding", T, 1500)),
    ):
        found = compare("ratio-predicts-success", labels, base, seeds, runner)
        rows += [replace(row, label=f"{base.task}, {row.label}") for row in found]
        success = np.array([row.solved() for row in found])
        for state, what in (("h", "dL/dh"), ("delta c", "dL/dh (of an LSTM delta c)")):
            ratio = np.array([ratios(row, state=state) for row in found])
            for x, y, of in ((ratio.ravel(), success.ravel(), "runs"), (ratio.mean(1), success.mean(1), "networks")):
                rho, p = spearman(x, y, np.random.default_rng(0))
                text = f"{number(rho, 2)} (p {'< .001' if p < 0.001 else f'= {number(p)}'})"
                text = "undefined, for all fared alike" if np.isnan(rho) else text
                notes.append(f"Spearman, {base.task}, {what}, {len(x)} {of}: {text}")
    columns = ("task, network", "log10 ratio", "by seed", "solved")
    cells = [(row.label, mean(ratios(row)), floats(ratios(row)), solved(row.outcomes)) for row in rows]
    points = {row.label: by_success(ratios(row), row) for row in rows}
    title = f"Does the untrained gradient ratio at the distance {round(FRACTION * T)} predict success?"
    return Result(title, columns, cells, notes, rows, points, f"{RATIO_LABEL}, untrained (filled: solved)")


# ---- beneath them -----------------------------------------------------------------------------


def ratios(row: Row, when: str = "before", state: str = "h") -> list[float]:
    """log10 of each seed's gradient ratio "before" or "after" training, of h where the cell has no such state."""
    found = [outcome[when] or {"h": np.nan} for outcome in row.outcomes]  # none after a training that diverged
    return [ratio.get(state, ratio["h"]) for ratio in found]


def by_success(values: Sequence[float], row: Row) -> list[tuple[float, bool]]:
    """One dot for each seed, filled where it solved the task."""
    return list(zip(values, row.solved(), strict=True))


def training_result(title: str, rows: Sequence[Row], steps: int) -> Result:
    """The table of trained networks: who solved the task, when, and what the search found."""
    columns = ("network", "parameters", "lr", "solved", "by seed", "all rates", "scores", "CPU s")
    cells, points = [], {}
    for row in rows:
        scores = [outcome["score"] for outcome in row.tried if outcome["score"] is not None]
        spread = f"{number(min(scores))} - {number(max(scores))}" if scores else "-"
        found = (solved(row.outcomes), by_seed(row.outcomes), solved(row.tried), spread)
        seconds = mean([outcome["seconds"] for outcome in row.outcomes])
        cells.append((row.label, str(row.outcomes[0]["parameters"]), number(row.lr, 4), *found, seconds))
        points[row.label] = by_success([outcome["solved_at"] or steps for outcome in row.outcomes], row)
    rates = ", ".join(number(lr, 4) for lr in RATES)
    notes = [
        TRAINING_NOTE,
        f"lr: each network at the best of {rates}: all of them on the first seed, the best two on the second, the "
        "better one on all; all rates and scores are those of all these runs. CPU s: mean seconds of a run.",
    ]
    axis = f"solved at training step (hollow: not solved within {steps})"
    return Result(title, columns, cells, notes, rows, points, axis)
