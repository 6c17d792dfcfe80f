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
from typing import TypeVar

import numpy as np

from rnnlab.experiments.compare import NETWORKS, RATES, collect, compare, seed_range, settings, with_seeds
from rnnlab.experiments.results import Result, Row, by_seed, floats, number, solved, spearman
from rnnlab.experiments.runner import Runner
from rnnlab.experiments.settings import FRACTION, GradientFlow, Network, Outcome, Training

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
    seeds
        How many: the seeds are 0 .. seeds - 1.
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
    function.__doc__ = (function.__doc__ or "").rstrip() + PARAMETERS
    EXPERIMENTS[function.__name__.replace("_", "-")] = function
    return function


# ---- untrained --------------------------------------------------------------------------------


@experiment
def gradient_flow(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, hidden_size: int = 64) -> Result:
    """How much gradient reaches step 1 of an untrained network: log10 of ||dL/dh_1|| / ||dL/dh_T||.

    D = 8 inputs from N(0, 1), batch 32, a random dL/dh_T, float64. The LSTM's memory has two more
    columns: the coordinate dL/dc_1 and the textbook's delta c_1 (with the path through h), the first
    against ||dL/dh_T|| (the coordinate is exactly 0 at T), the second against its own norm at T.
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
    found = collect("gradient-flow", runs, runner)
    rows = [Row(label, outcomes) for label, outcomes in found.items()]
    columns = ("network", "log10 ratio", "by seed", "memory dL/dc", "memory delta c")
    cells, points = [], {}
    for row in rows:
        norms = [{name: np.array(values) for name, values in outcome["log10"].items()} for outcome in row.outcomes]
        h = [n["h"][1] - n["h"][-1] for n in norms]
        memory = ["", ""]
        if "c" in norms[0]:
            ratios = [(n["c"][1] - n["h"][-1], n["delta c"][1] - n["delta c"][-1]) for n in norms]
            memory = [f"{mean:.1f}" for mean in np.mean(ratios, axis=0)]
        cells.append((row.label, f"{np.mean(h):.1f}", floats(h), *memory))
        points[row.label] = [(value, True) for value in h]
    title = f"Gradient flow, untrained: log10 of ||dL/dh_1|| / ||dL/dh_T||, T = {T}, H = {hidden_size}"
    notes = [f"Means over {seeds} seeds of the log10, that is, geometric means of the ratio."]
    return Result("gradient-flow", title, columns, cells, notes, rows, points, RATIO_LABEL)


# ---- trained ----------------------------------------------------------------------------------


@experiment
def adding(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, steps: int = 1500) -> Result:
    """The adding problem: who gets below the variance of the target, 1/6? 1,500 steps for everyone."""
    rows = compare("adding", ADDING, settings("adding", T, steps), seeds, runner)
    title = f"Adding problem, T = {T}, {steps} steps: MSE (always answering 1 gives .167, solved below .01)"
    return training_result("adding", title, rows, steps)


@experiment
def movie(seeds: int = 5, *, runner: Runner | None = None, T: int = 60, steps: int = 1200) -> Result:
    """The movie: name at the end what the flagged scene in the first half was. 1,200 steps for everyone."""
    rows = compare("movie", CLASSIFIERS, settings("movie", T, steps), seeds, runner)
    return training_result("movie", f"Movie, T = {T}, {steps} steps: share of right answers (chance .25)", rows, steps)


@experiment
def temporal_order(
    seeds: int = 5, *, runner: Runner | None = None, T: Sequence[int] = (20, 30, 50, 100), steps: int = 1000
) -> Result:
    """In which order came two symbols? By length of the sequence, 1,000 steps for everyone."""
    rows = []
    for length in T:
        found = compare(
            f"temporal-order, T = {length}", CLASSIFIERS, settings("temporal order", length, steps), seeds, runner
        )
        rows += [replace(row, label=f"T = {length}, {row.label}") for row in found]
    title = f"Temporal order by length, {steps} steps: share of right answers (chance .25)"
    return training_result("temporal-order", title, rows, steps)


@experiment
def gate_bias(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, steps: int = 1000) -> Result:
    """Temporal order again: which gate biases make a memory?"""
    rows = compare("gate-bias", GATED, settings("temporal order", T, steps), seeds, runner)
    title = f"Gate biases on temporal order, T = {T}, {steps} steps: share of right answers (chance .25)"
    return training_result("gate-bias", title, rows, steps)


@experiment
def before_after(seeds: int = 5, *, runner: Runner | None = None, T: int = 100, steps: int = 1500) -> Result:
    """What training on the adding problem does to the gradient ratio at the distance .9 T (runs of `adding`)."""
    rows = compare("before-after", ADDING, settings("adding", T, steps), seeds, runner)
    columns = ("network", "before", "after", "before, by seed", "after, by seed", "solved")
    cells, points = [], {}
    for row in rows:
        before = [outcome["before"]["h"] for outcome in row.outcomes]
        after = [outcome["after"]["h"] if outcome["after"] else np.nan for outcome in row.outcomes]
        means = [f"{np.mean(values):.1f}" for values in (before, after)]
        cells.append((row.label, *means, floats(before), floats(after), solved(row.outcomes)))
        points[row.label] = [(value, False) for value in before] + [(value, True) for value in after]
    title = f"Before and after training on adding: log10 of ||dL/dh_{T - round(FRACTION * T)}|| / ||dL/dh_{T}||"
    notes = [f"Training ends when the task is solved, else after {steps} steps."]
    axis = f"{RATIO_LABEL}, before (hollow) and after training"
    return Result("before-after", title, columns, cells, notes, rows, points, axis)


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
    found = collect("explosion-clipping", runs, runner)
    columns = ("network", "solved", "by seed", "largest gradient norm", "median gradient norm")
    cells, points = [], {}
    for label, outcomes in found.items():
        norms = [outcome["gradient_norm"] for outcome in outcomes]
        largest, median = ([float(f(n or [np.nan])) for n in norms] for f in (np.max, np.median))
        by_size = [" ".join(f"{value:.2g}" for value in values) for values in (largest, median)]
        cells.append((label, solved(outcomes), by_seed(outcomes), *by_size))
        points[label] = by_success([float(np.log10(n)) for n in largest], outcomes)
    rows = [Row(label, outcomes) for label, outcomes in found.items()]
    title = f"Explosion and clipping: SGD on temporal order, T = {T}, {steps} steps"
    notes = [TRAINING_NOTE, "Norms are those before clipping, by seed, over all steps of training."]
    axis = "log10 of the largest gradient norm (filled: solved)"
    return Result("explosion-clipping", title, columns, cells, notes, rows, points, axis)


@experiment
def ratio_predicts_success(seeds: int = 5, *, runner: Runner | None = None, T: int = 100) -> Result:
    """Does the gradient ratio at the start predict who solves the task? Spearman's rank correlation.

    The runs of `gate_bias`, `temporal_order` and `adding` at this T. Seeds of one network are not independent
    of each other, so the correlation of the networks' means stands beside that of the runs.
    """
    cells: list[tuple[str, ...]] = []
    points, notes, rows = {}, [], []
    for labels, base in (
        ((*GATED, *UNGATED), settings("temporal order", T, 1000)),
        (ADDING, settings("adding", T, 1500)),
    ):
        found = compare("ratio-predicts-success", labels, base, seeds, runner)
        for row in found:
            h = [outcome["before"]["h"] for outcome in row.outcomes]
            name = f"{base.task}, {row.label}"
            cells.append((name, f"{np.mean(h):.1f}", floats(h), solved(row.outcomes)))
            points[name] = by_success(h, row.outcomes)
            rows.append(replace(row, label=name))
        success = np.array([[outcome["solved_at"] is not None for outcome in row.outcomes] for row in found])
        for state in ("h", "delta c"):
            ratio = np.array([[o["before"].get(state, o["before"]["h"]) for o in row.outcomes] for row in found])
            what = "dL/dh" if state == "h" else "dL/dh (of an LSTM delta c)"
            for x, y, of in ((ratio.ravel(), success.ravel(), "runs"), (ratio.mean(1), success.mean(1), "networks")):
                rho, p = spearman(x, y, np.random.default_rng(0))
                text = f"{number(rho, 2)} (p {'< .001' if p < 0.001 else f'= {number(p)}'})"
                text = "undefined, for all fared alike" if np.isnan(rho) else text
                notes.append(f"Spearman, {base.task}, {what}, {len(x)} {of}: {text}")
    columns = ("task, network", "log10 ratio", "by seed", "solved")
    title = f"Does the untrained gradient ratio at the distance {round(FRACTION * T)} predict success?"
    axis = f"{RATIO_LABEL}, untrained (filled: solved)"
    return Result("ratio-predicts-success", title, columns, cells, notes, rows, points, axis)


# ---- beneath them -----------------------------------------------------------------------------


def by_success(values: Sequence[float], outcomes: Sequence[Outcome]) -> list[tuple[float, bool]]:
    """One dot for each seed, filled where it solved the task."""
    return [(value, outcome["solved_at"] is not None) for value, outcome in zip(values, outcomes, strict=True)]


def training_result(name: str, title: str, rows: Sequence[Row], steps: int) -> Result:
    """The table of trained networks: who solved the task, when, and what the search found."""
    columns = ("network", "parameters", "lr", "solved", "by seed", "all rates", "scores", "CPU s")
    cells, points = [], {}
    for row in rows:
        scores = [outcome["score"] for outcome in row.tried if outcome["score"] is not None]
        seconds = np.mean([outcome["seconds"] for outcome in row.outcomes])
        spread = f"{number(min(scores))} - {number(max(scores))}" if scores else "-"
        parameters = f"{row.outcomes[0]['parameters']}"
        found = (solved(row.outcomes), by_seed(row.outcomes), solved(row.tried), spread)
        cells.append((row.label, parameters, number(row.lr, 4), *found, f"{seconds:.1f}"))
        points[row.label] = by_success([o["solved_at"] or steps for o in row.outcomes], row.outcomes)
    notes = [
        TRAINING_NOTE,
        f"lr: each network at the best of {', '.join(number(lr, 4) for lr in RATES)}: all of them on the "
        "first seed, the best two on the second, the better one on all; all rates and scores are those of all these "
        "runs. CPU s: mean seconds of a run.",
    ]
    axis = f"solved at training step (hollow: not solved within {steps})"
    return Result(name, title, columns, cells, notes, rows, points, axis)
