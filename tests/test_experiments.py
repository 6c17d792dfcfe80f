"""The experiments: equal budgets, the same numbers for the same seed, and nothing finished is lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from rnnlab import experiments, plots, tasks
from rnnlab.experiments import EXPERIMENTS, GradientFlow, Network, Result, Runner, Training, spearman
from rnnlab.experiments.__main__ import main
from rnnlab.experiments.catalogue import ADDING, UNGATED
from rnnlab.experiments.compare import NETWORKS, RATES, compare, quality, settings
from rnnlab.experiments.results import number
from rnnlab.experiments.settings import TASKS, Run, gradient_ratios

TINY = Training(
    Network("LSTM", 4), 0, "adding", T=10, steps=6, lr=0.01, evaluate_every=3, evaluate_on=20, confirm_on=20
)


def without_seconds(outcome: dict) -> dict:
    return {name: value for name, value in outcome.items() if name != "seconds"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Every training run that is really computed."""
    runs: list[Run] = []
    execute = Training.execute

    def count(self: Training) -> dict:
        runs.append(self)
        return execute(self)

    monkeypatch.setattr(Training, "execute", count)
    return runs


# ---- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_all_networks_of_a_task_have_about_as_many_parameters(task: str) -> None:
    sizes = {}
    for label, network in NETWORKS.items():
        run = Training(network, 0, task, T=20, steps=1, lr=0.01)
        model = run.model(TASKS[task](20))
        sizes[label] = sum(p.size for p in model.params.values())
    assert max(sizes.values()) <= 1.04 * min(sizes.values()), sizes
    assert min(sizes.values()) > 4000
    assert max(sizes.values()) < 6000


def test_every_network_gets_the_same_search_and_the_same_steps(counted: list[Training]) -> None:
    base = replace(TINY, evaluate_every=6)
    rows = compare("search", ("LSTM chrono", "RNN default"), base, 3, Runner())
    ran = tuple(counted)
    assert {run.steps for run in ran} == {6}
    for row, cell in zip(rows, ("LSTM", "RNN"), strict=True):
        error = {(run.lr, run.seed): Training.execute(run)["score"] for run in ran if run.network.cell == cell}
        first, second = sorted(RATES, key=lambda lr: error[lr, 0])[:2]
        assert row.lr == min((first, second), key=lambda lr: error[lr, 0] + error[lr, 1])
        assert error.keys() == {(lr, 0) for lr in RATES} | {(first, 1), (second, 1), (row.lr, 2)}
        assert len(row.outcomes) == 3
        assert len(row.tried) == len(error)
    assert len(ran) == 2 * 7  # no run twice


@pytest.mark.parametrize("task", ["adding", "temporal order"])
def test_a_rate_that_diverges_is_worse_than_one_that_fails(task: str) -> None:
    base = replace(TINY, task=task, steps=100)
    diverged = {"solved_at": None, "steps": 1, "score": None}
    failed = {"solved_at": None, "steps": 100, "score": 0.5}
    late, soon = failed | {"solved_at": 100}, failed | {"solved_at": 50, "steps": 50}
    order = [quality(base, [outcome, failed]) for outcome in (diverged, failed, late, soon)]
    assert order == sorted(order)
    assert len(set(order)) == 4


def test_every_experiment_has_its_settings_in_its_signature_and_a_description() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert experiment.__doc__, name
        assert experiment.__defaults__ == (5,), name
        assert {"runner", "T"} <= experiment.__kwdefaults__.keys(), name


def test_a_key_belongs_to_its_settings() -> None:
    others = [
        TINY,
        replace(TINY, seed=1),
        replace(TINY, steps=7),
        replace(TINY, clip_norm=None),
        replace(TINY, dtype="float64"),
        replace(TINY, network=replace(TINY.network, forget_bias=1.0)),
        GradientFlow(TINY.network, 0),
    ]
    assert len({run.key for run in others}) == len(others)
    assert replace(TINY).key == TINY.key


def test_networks_are_built_as_described() -> None:
    rng = np.random.default_rng(0)
    lstm = Network("LSTM", 8, chrono=True).build(2, 50, rng, "float32")
    assert lstm.dtype == np.float32
    forget, input_ = lstm.b[1], lstm.b[0]
    np.testing.assert_array_equal(forget, -input_)
    assert (forget >= 0).all()
    assert (forget <= np.log(49)).all()
    rnn = Network("RNN", 8, spectral_radius=1.5, bias=0.0).build(2, 50, rng, "float64")
    assert np.abs(np.linalg.eigvals(rnn.W_h[0])).max() == pytest.approx(1.5)
    assert not rnn.b.any()
    gru = Network("GRU", 8, update_bias=3.0).build(2, 50, rng, "float64")
    assert (gru.b[1] == 3).all()
    assert not (gru.b[0] == 3).any()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (replace(TINY, network=Network("LSTN", 4)), "cell: expected one of 'GRU', 'LSTM', 'RNN', got 'LSTN'"),
        (
            replace(TINY, network=Network("GRU", 4, forget_bias=1.0)),
            "forget_bias: expected the bias of one of .* got that of 'forget'",
        ),
        (replace(TINY, task="additing"), "task: expected one of 'adding', 'movie', 'temporal order', got 'additing'"),
        (replace(TINY, optimizer="Adom"), "optimizer: expected one of 'Adam', 'SGD', got 'Adom'"),
        (replace(TINY, T=1), "T: expected an integer of at least 2, got 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(run: Training, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run.execute()


# ---- runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_a_run_is_its_seed(cell: str) -> None:
    run = replace(TINY, network=Network(cell, 4))
    first, again, other = run.execute(), run.execute(), replace(run, seed=1).execute()
    assert without_seconds(first) == without_seconds(again)
    assert first["score"] != other["score"]
    assert json.loads(json.dumps(first)) == first  # plain JSON: kept and fresh outcomes are the same


def test_a_run_reports_what_the_model_scores() -> None:
    outcome = replace(TINY, confirm_on=30).execute()
    assert outcome["steps"] == 6
    assert outcome["solved_at"] is None
    assert [step for step, _ in outcome["curve"]] == [3, 6]
    assert outcome["curve"][-1][1] == outcome["score"]
    assert len(outcome["gradient_norm"]) == 6
    untrained = replace(TINY, steps=1, lr=1e-12, confirm_on=30)
    task = tasks.adding(10, 32, 0)
    assert untrained.execute()["score"] == pytest.approx(task.score(untrained.model(task), 30), rel=1e-5)


def test_a_run_stops_when_solved() -> None:
    run = Training(NETWORKS["GRU chrono"], 0, "movie", T=4, steps=2000, lr=0.02, evaluate_every=20, evaluate_on=100)
    outcome = run.execute()
    assert outcome["solved_at"] == outcome["steps"] < 2000
    assert outcome["score"] >= 0.99
    assert all(score < 0.99 for _, score in outcome["curve"][:-1])


def test_the_larger_evaluation_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {20: 0.001, 40: 0.5}
    monkeypatch.setattr(tasks.Task, "score", lambda self, model, size: scores[size])
    outcome = replace(TINY, confirm_on=40).execute()
    assert outcome["solved_at"] is None
    assert outcome["score"] == 0.5
    scores[40] = 0.009
    outcome = replace(TINY, confirm_on=40).execute()
    assert (outcome["solved_at"], outcome["score"]) == (3, 0.009)


def test_a_run_that_diverges_says_so() -> None:
    network = Network("RNN", 4, recurrent_init="identity", activation="relu")
    outcome = replace(TINY, network=network, optimizer="SGD", lr=1e20, clip_norm=None, steps=50).execute()
    assert "finite" in outcome["diverged"]
    assert outcome["score"] is outcome["after"] is outcome["solved_at"] is None


def test_the_gradient_ratio_of_a_linear_recurrence_is_its_power() -> None:
    """On an RNN near 0, dL/dh shrinks by the factor of W_h each step: .5 over the distance of 18 = .9 T."""
    task = tasks.adding(20)
    model = Training(Network("RNN", 4, recurrent_init="identity", bias=0.0), 0, "adding", 20, 1, 0.01).model(task)
    model.cells[0].params["W_x"][...] *= 1e-6
    model.cells[0].params["W_h"][...] *= 0.5
    assert gradient_ratios(model, task)["h"] == pytest.approx(18 * np.log10(0.5), abs=1e-6)


# ---- gradient flow ----------------------------------------------------------------------------


def test_without_input_an_orthogonal_network_keeps_the_gradient_exactly() -> None:
    network = Network("RNN", 64, recurrent_init="orthogonal", bias=0.0)
    norms = np.array(GradientFlow(network, 0, input_scale=0.0).execute()["log10"]["h"])
    np.testing.assert_allclose(norms, norms[-1], atol=1e-12)


@pytest.mark.parametrize(
    ("network", "known", "spread"),
    [
        (Network("LSTM", 64, forget_bias=1.0), -8.0, 1.5),
        (Network("LSTM", 64, chrono=True), -3.1, 0.5),
        (Network("GRU", 64, update_bias=2.0), -4.3, 0.5),
        (Network("RNN", 64), -24.7, 4.0),
        (Network("RNN", 64, recurrent_init="identity", activation="relu", bias=0.0), -0.6, 0.3),
    ],
)
def test_untrained_gradient_flow_is_that_of_an_independent_implementation(
    network: Network, known: float, spread: float
) -> None:
    ratios = [np.array(GradientFlow(network, seed).execute()["log10"]["h"]) for seed in range(5)]
    assert np.mean([h[1] - h[-1] for h in ratios]) == pytest.approx(known, abs=spread)


def test_the_two_gradients_of_an_lstm_memory_differ_by_the_forget_gate() -> None:
    """dL/dc_t = f_(t+1) delta c_(t+1): with f = 1/2 for all, the coordinate is half of the next delta."""
    network = Network("LSTM", 6, forget_bias=0.0)
    run = GradientFlow(network, 0, T=5, input_scale=0.0)
    cell = network.build(8, 5, np.random.default_rng(0), "float64")
    assert cell.state_names == ("h", "c")
    log10 = run.execute()["log10"]
    assert log10["c"][-1] < -300  # exactly 0 at T
    assert log10["delta c"][-1] > -3
    assert log10["c"][0] == log10["delta c"][0]  # the initial state has no output


# ---- kept results -----------------------------------------------------------------------------


def test_nothing_finished_is_computed_twice(tmp_path: Path, counted: list[Training]) -> None:
    runs = [replace(TINY, seed=seed) for seed in (0, 1, 0)]
    first = Runner(tmp_path)(runs)
    assert [run.seed for run in counted] == [0, 1]
    assert first[0] == first[2]
    assert Runner(tmp_path)(runs) == first
    assert len(counted) == 2
    Runner(tmp_path)([*runs, replace(TINY, seed=2), replace(TINY, steps=3)])
    assert [(run.seed, run.steps) for run in counted[2:]] == [(2, 6), (0, 3)]


def test_stopping_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [replace(TINY, seed=seed) for seed in range(4)]
    execute, computed = Training.execute, []

    def interrupted(self: Training) -> dict:
        if self.seed == 2 and len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(self.seed)
        return execute(self)

    monkeypatch.setattr(Training, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Runner(tmp_path)(runs)
    computed.append("again")
    outcomes = Runner(tmp_path)(runs)
    assert computed == [0, 1, "again", 2, 3]
    assert [without_seconds(o) for o in outcomes] == [without_seconds(execute(run)) for run in runs]


@pytest.mark.parametrize("damage", ["torn", "empty", "other settings", "no outcome", "empty outcome", "not JSON"])
def test_a_damaged_result_is_reported_and_computed_again(damage: str, tmp_path: Path, counted: list[Training]) -> None:
    whole = Runner(tmp_path)([TINY])
    (path,) = (tmp_path / "runs").iterdir()
    text = path.read_text()
    other = json.loads(text)
    other["settings"]["steps"] = 99
    damaged = {
        "torn": text[: len(text) // 2],
        "empty": "",
        "other settings": json.dumps(other),
        "no outcome": json.dumps({"settings": json.loads(text)["settings"]}),
        "empty outcome": json.dumps({"settings": json.loads(text)["settings"], "outcome": {}}),
        "not JSON": "\x00\x01",
    }
    path.write_text(damaged[damage])
    with pytest.warns(UserWarning, match=r"runs.*json is damaged .*; the run is computed again"):
        repaired = Runner(tmp_path)([TINY])
    assert without_seconds(repaired[0]) == without_seconds(whole[0])
    assert len(counted) == 2
    Runner(tmp_path)([TINY])
    assert len(counted) == 2


def test_workers_compute_and_keep_the_same_numbers(tmp_path: Path, counted: list[Training]) -> None:
    pytest.importorskip("joblib.externals.loky", reason="several processes need the extra 'experiments'")
    runs = [replace(TINY, seed=seed) for seed in range(2)]
    before = dict(os.environ)  # loky sets a variable of its own when it is imported
    outcomes = Runner(tmp_path, jobs=2)(runs)
    assert not counted  # not here
    assert dict(os.environ) == before
    assert Runner(tmp_path)(runs) == outcomes
    assert not counted  # kept by the workers
    assert [without_seconds(o) for o in outcomes] == [without_seconds(run.execute()) for run in runs]


@dataclass(frozen=True)
class Threads(Run):
    """What the environment says to a BLAS in the process that computes."""

    def execute(self) -> dict:
        return {name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}


def test_workers_have_one_blas_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    run = Threads(TINY.network, 0)
    assert Runner(jobs=2)([run]) == [{"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}]
    assert run.execute() == {"OPENBLAS_NUM_THREADS": None, "OMP_NUM_THREADS": "4"}


def test_a_run_that_fails_in_a_worker_is_an_error_here(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="task: expected one of"):
        Runner(tmp_path, jobs=2)([replace(TINY, task="none")])


@dataclass(frozen=True)
class DiesOnce(Training):
    """A training run whose process is killed without a word the first time that it is tried."""

    marker: str = ""

    def execute(self) -> dict:
        try:
            Path(self.marker).touch(exist_ok=False)
        except FileExistsError:
            return super().execute()
        os.kill(os.getpid(), signal.SIGKILL)
        return {}


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as POSIX does")
def test_two_dask_workers_of_which_one_is_killed_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs distributed: pip install rnnlab[experiments]")
    runs: list[Training] = [replace(TINY, seed=seed) for seed in range(4)]
    dying = DiesOnce(**(vars(runs[0]) | {"marker": str(tmp_path / "died")}))
    (tmp_path / "died").touch()
    here = Runner()([*runs, dying])
    (tmp_path / "died").unlink()
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        assert len(cluster.workers) == 2
        before = {worker.pid for worker in cluster.workers.values()}
        there = Runner(tmp_path, scheduler=cluster.scheduler_address)([*runs, dying])
        assert before - {worker.pid for worker in cluster.workers.values()}  # a worker did die
    assert list(map(without_seconds, there)) == list(map(without_seconds, here))  # bit for bit
    assert Runner(tmp_path)([*runs, dying]) == there


def test_a_scheduler_that_does_not_answer_is_an_error_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_answer(self: Runner, *_: object) -> None:
        raise OSError(f"Timed out trying to connect to {self.scheduler}")

    monkeypatch.setattr(Runner, "__call__", no_answer)
    assert main(["movie", "--folder", str(tmp_path), "--scheduler", "tcp://nowhere:1"]) == 1
    assert "tcp://nowhere:1" in capsys.readouterr().err
    not_an_address: Any = 8786
    with pytest.raises(TypeError, match=r"scheduler: expected an address such as .*, got int 8786"):
        Runner(scheduler=not_an_address)


@pytest.mark.parametrize(("library", "options"), [("joblib", {"jobs": 2}), ("tqdm", {"progress": True})])
def test_processes_and_a_bar_without_their_library_say_what_to_install(
    library: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"^{library} is not installed: pip install 'rnnlab\[experiments\]', or "):
        Runner(**options)([TINY])


# ---- tables and pictures ----------------------------------------------------------------------


def tiny_results(name: str, folder: Path) -> Result:
    arguments = {"gradient-flow": {"T": 10, "hidden_size": 4}, "temporal-order": {"T": (10,), "steps": 1}}
    return EXPERIMENTS[name](1, runner=Runner(folder), **arguments.get(name, {"T": 10, "steps": 1}))


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "ratio-predicts-success"])
def test_every_experiment_prints_a_table_and_draws_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def few(task: str, T: int, steps: int) -> Training:
        return replace(settings(task, T, steps), evaluate_on=4, confirm_on=4)

    monkeypatch.setattr(experiments.catalogue, "settings", few)
    result = tiny_results(name, tmp_path)
    text = str(result)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(result.cells) + 2
    assert len({len(line) for line in lines}) == 1  # columns stand below one another
    assert len(result.rows) == len(result.cells) == len(result.points)
    for row, cells in zip(result.rows, result.cells, strict=True):
        assert result[row.label] is row
        assert cells[0] == row.label
        assert len(row.outcomes) == 1
    figure, ax = plt.subplots()
    assert result.plot(ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == [row.label for row in result.rows]
    assert len(ax.lines) == sum(len(points) for points in result.points.values())
    plt.close(figure)
    with pytest.raises(KeyError, match="expected one of"):
        result["no such network"]


def test_the_table_tells_steps_from_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(self: Training) -> dict:
        solved = self.network.cell == "GRU"
        return {
            "parameters": 4500,
            "steps": 300 if solved else self.steps,
            "solved_at": 300 if solved else None,
            "score": 0.005 if solved else 0.17 - self.lr,
            "diverged": None,
            "seconds": 2.0,
        }

    monkeypatch.setattr(Training, "execute", execute)
    result = experiments.adding(3)
    cells = {line[0]: line for line in result.cells}
    assert list(cells) == list(ADDING)
    assert cells["GRU chrono"][1:] == ("4500", ".03", "3 of 3", "300 300 300", "7 of 7", ".005 - .005", "2.0")
    assert cells["RNN default"][2:7] == (".03", "0 of 3", "(.14) (.14) (.14)", "0 of 7", ".14 - .169")
    assert result.points["GRU chrono"] == [(300, True)] * 3
    assert result.points["RNN default"] == [(1500, False)] * 3


def test_a_picture_has_a_colour_for_each_kind_of_cell_and_fills_what_is_solved() -> None:
    points = {
        "T = 20, LSTM b_f = 3, b_i = -3": [(100, True), (200, False)],
        "adding, GRU chrono": [(300, True)],
        "IRNN": [(400, True)],
    }
    figure, ax = plt.subplots()
    Result("title", (), (), (), (), points, "step").plot(ax)
    lstm, unsolved, gru, irnn = ax.lines
    assert [line.get_xydata().tolist() for line in ax.lines] == [
        [[100, -0.125]],
        [[200, 0.125]],
        [[300, 1]],
        [[400, 2]],
    ]
    assert lstm.get_color() == unsolved.get_color() == plots.CELL_COLOURS["lstm"]
    assert gru.get_color() == plots.CELL_COLOURS["gru"]
    assert irnn.get_color() not in plots.CELL_COLOURS.values()
    assert lstm.get_markerfacecolor() == lstm.get_color()
    assert unsolved.get_markerfacecolor() == "none"
    assert ax.get_xlabel() == "step"
    plt.close(figure)


def test_success_is_correlated_with_the_ratio_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: on temporal order the ratio decides, on adding everybody fails."""

    def execute(self: Training) -> dict:
        good = self.task == "temporal order" and self.network.cell == "LSTM"
        h = (-1.0 if good else -9.0) - self.seed
        ending = {"solved_at": 100 if good else None, "steps": 100, "score": 1.0 if good else 0.25}
        return {"parameters": 1, "before": {"h": h}, "diverged": None, "seconds": 0.0, **ending}

    monkeypatch.setattr(Training, "execute", execute)
    result = experiments.ratio_predicts_success(4)
    notes = "\n".join(result.notes)
    networks = len(NETWORKS)
    assert f"temporal order, dL/dh, {networks} networks: 1 (p " in notes
    assert f"adding, dL/dh, {4 * len(ADDING)} runs: undefined, for all fared alike" in notes
    assert set(UNGATED) < {row.label.removeprefix("adding, ") for row in result.rows}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.1684, ".168"),
        (0.01, ".01"),
        (0.0, "0"),
        (1.0, "1"),
        (0.9999, "1"),
        (-0.18, "-.18"),
        (12.5, "12.5"),
    ],
)
def test_numbers_in_few_characters(value: float | None, text: str) -> None:
    assert number(value) == text


# ---- rank correlation -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y", "rho"),
    [
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),  # ties; scipy.stats.spearmanr
        ([0, 0, 1, 1, 1, 0, 1], [-3.1, -9.0, -0.7, -0.7, -2.2, -8.0, -20.8], 0.4369314487526515),
        ([1, 2, 3], [1, 4, 9], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
    ],
)
def test_spearman_is_scipy_s(x: list[float], y: list[float], rho: float) -> None:
    assert spearman(x, y, np.random.default_rng(0))[0] == pytest.approx(rho, abs=1e-12)


def test_the_p_value_counts_permutations() -> None:
    """Of the 24 orders of four values two have |rho| = 1."""
    _, p = spearman([1, 2, 3, 4], [1, 4, 9, 16], np.random.default_rng(0), permutations=40_000)
    assert p == pytest.approx(2 / 24, abs=0.006)  # four standard deviations of 40,000 draws
    x = np.arange(60)
    rho, p = spearman(x, (x * 37) % 60, np.random.default_rng(1))
    assert p > 0.05 > abs(rho) / 10
    assert spearman(x, x + 0.5, np.random.default_rng(1))[1] == pytest.approx(1 / 10_001)
    assert np.isnan(spearman([1, 2, 3], [0, 0, 0], np.random.default_rng(0))).all()


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([[1, 2, 3]], [[1, 2, 3]])])
def test_spearman_refuses_what_it_cannot_rank(x: list, y: list) -> None:
    with pytest.raises(ValueError, match="x, y: expected two arrays"):
        spearman(x, y, np.random.default_rng(0))
    with pytest.raises(ValueError, match="got NaN"):
        spearman([1, 2, np.nan], [1, 2, 3], np.random.default_rng(0))


# ---- command line -----------------------------------------------------------------------------


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "rnnlab.experiments", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_line_runs_keeps_and_finds_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("explosion-clipping", "--seeds", "1", "--steps", "1")
    first = command(*arguments, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "| IRNN, lr .1, not clipped" in first.stdout
    assert "12" in first.stderr  # progress, of 12 runs
    kept = tmp_path / "results"
    assert (kept / "explosion-clipping.txt").read_text() == first.stdout.removesuffix("\n")
    times = {path: path.stat().st_mtime_ns for path in (kept / "runs").iterdir()}
    assert len(times) == 12
    assert main([*arguments, "--folder", str(kept)]) == 0
    assert capsys.readouterr().out == first.stdout
    assert {path: path.stat().st_mtime_ns for path in (kept / "runs").iterdir()} == times


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts as a POSIX terminal does")
@pytest.mark.parametrize("interrupt", [os.killpg, os.kill], ids=["all processes", "the main process alone"])
def test_an_interrupt_keeps_what_was_finished(interrupt: Callable[[int, int], None], tmp_path: Path) -> None:
    arguments = ["movie", "--seeds", "2", "--steps", "10", "--jobs", "2", "--quiet"]
    line = [sys.executable, "-m", "rnnlab.experiments", *arguments]
    process = subprocess.Popen(
        line,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a background job would ignore it
    )
    runs = tmp_path / "results" / "runs"
    while process.poll() is None and len(list(runs.glob("*.json"))) < 2:
        time.sleep(0.02)
    interrupt(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr == "stopped; the finished runs are kept in results, the same command resumes\n"
    kept = [json.loads(path.read_text())["outcome"]["steps"] for path in runs.glob("*.json")]
    assert 2 <= len(kept) < 30  # of the search
    assert set(kept) == {10}


def test_the_list_names_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["adding", "--seeds", "0"], "--seeds: expected an integer of at least 1, got '0'"),
        (["adding", "--jobs", "two"], "--jobs: expected an integer of at least 1, got 'two'"),
        (["multiplying"], "invalid choice"),
        (["gradient-flow", "--steps", "5"], "gradient-flow has no --steps"),
    ],
)
def test_the_command_line_refuses_what_it_does_not_know(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["file", "file/below", "taken"])
def test_a_file_is_no_folder(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "runs").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main(["movie", "--seeds", "1", "--steps", "1", "--folder", str(tmp_path / folder)])
    assert stopped.value.code == 2
    assert "--folder: expected a folder to write in, got " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_importing_the_experiments_imports_neither_pictures_nor_progress_bars() -> None:
    code = "import sys, rnnlab.experiments; sys.exit('matplotlib' in sys.modules or 'tqdm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
