"""The networks that are compared, and the same search of a learning rate for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

import numpy as np

from rnnlab.experiments.results import Row
from rnnlab.experiments.runner import Runner
from rnnlab.experiments.settings import Network, Outcome, Run, Training
from rnnlab.validate import describe, integer

RATES = (0.03, 0.01, 0.003, 0.001)
SEARCH = ((1, 2), (2, 1), (None, 1))  # run so many seeds, None for all of them; then keep so many rates
H = {"LSTM": 32, "GRU": 37, "RNN": 66}  # about 5,000 parameters each

LSTM, GRU, RNN = Network("LSTM", H["LSTM"]), Network("GRU", H["GRU"]), Network("RNN", H["RNN"])
NETWORKS = {
    "LSTM chrono": replace(LSTM, chrono=True),
    "LSTM b_f = 3, b_i = -3": replace(LSTM, forget_bias=3.0, input_bias=-3.0),
    "LSTM b_f = 3": replace(LSTM, forget_bias=3.0),
    "LSTM b_f = 1": replace(LSTM, forget_bias=1.0),
    "LSTM default": LSTM,
    "GRU chrono": replace(GRU, chrono=True),
    "GRU b_z = 3": replace(GRU, update_bias=3.0),
    "GRU b_z = 1": replace(GRU, update_bias=1.0),
    "GRU b_z = 0": replace(GRU, update_bias=0.0),
    "RNN default": RNN,
    "RNN orthogonal": replace(RNN, recurrent_init="orthogonal"),
    "IRNN": replace(RNN, recurrent_init="identity", activation="relu", bias=0.0),  # Le, Jaitly & Hinton 2015
}
Key = TypeVar("Key")


def settings(task: str, T: int, steps: int) -> Training:
    """A training run on this task; the network, rate and seed are put in later."""
    return Training(RNN, 0, task, T, steps, lr=0.01)


def seed_range(seeds: int) -> range:
    return range(integer("seeds", seeds))


def with_seeds(base: Training, label: str, lr: float, seeds: Sequence[int]) -> list[Training]:
    """The same training of the network of this label, once for each seed."""
    return [replace(base, network=NETWORKS[label], lr=lr, seed=seed) for seed in seeds]


def collect(name: str, runs: Mapping[Key, Sequence[Run]], runner: Runner | None) -> dict[Key, tuple[Outcome, ...]]:
    """The outcomes of all runs, under the keys of the runs. Without a runner they are computed here and not kept."""
    if runner is not None and not isinstance(runner, Runner):
        raise TypeError(f"runner: expected a Runner or None, got {describe(runner)}")
    outcomes = iter((runner or Runner())([run for group in runs.values() for run in group], name))
    return {key: tuple(islice(outcomes, len(group))) for key, group in runs.items()}


def compare(name: str, labels: Sequence[str], base: Training, seeds: int, runner: Runner | None) -> list[Row]:
    """Train the networks of these labels with the settings of `base`, each at the best of RATES."""
    all_seeds, runner = seed_range(seeds), Runner() if runner is None else runner  # one that remembers the search
    rates: dict[str, Sequence[float]] = dict.fromkeys(labels, RATES)
    found: dict[tuple[str, float], tuple[Outcome, ...]] = {}
    for first_seeds, kept in SEARCH:
        pairs = [(label, lr) for label in labels for lr in rates[label]]
        found |= collect(name, {pair: with_seeds(base, *pair, all_seeds[:first_seeds]) for pair in pairs}, runner)
        for label in labels:
            best_first = sorted(rates[label], key=lambda lr: quality(base, found[label, lr]), reverse=True)
            rates[label] = best_first[:kept]
    tried = {label: tuple(o for lr in RATES for o in found[label, lr]) for label in labels}
    return [Row(label, found[label, lr], tried[label], lr) for label, (lr,) in rates.items()]


def quality(base: Training, outcomes: Sequence[Outcome]) -> tuple[float, ...]:
    """What makes one learning rate better than another: more seeds solved, then fewer steps, then the score."""
    sign = -1 if base.task == "adding" else 1
    scores = [-np.inf if outcome["score"] is None else sign * outcome["score"] for outcome in outcomes]
    steps = [outcome["solved_at"] or base.steps for outcome in outcomes]
    return sum(o["solved_at"] is not None for o in outcomes), -sum(steps), float(np.mean(scores))
