"""Training runs as files: resumed is uninterrupted, bit for bit, and what belongs to another run is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab.files import read_arrays, write_arrays
from tests.faults import damaged_files, interrupts_at_lines, kills, moment, run, timed_interrupts


def adder(optimizer: Any = None, **options: Any) -> tuple[rl.Trainer, rl.tasks.Task]:
    task = rl.tasks.adding(8, batch_size=4)
    model = rl.SequenceModel(rl.LSTMCell(2, 5, rng=0), rl.Dense(5, 1, rng=1), task.loss)
    return rl.Trainer(model, optimizer or rl.Adam(0.01), **options), task


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("at", [0, 1, 7])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, suffix: str, at: int) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is an extra")
    path = tmp_path / f"run{suffix}"
    trainer, text = run()
    if at:
        trainer.fit(text, at)
    trainer.save(path)
    saved = moment(trainer)
    trainer.fit(text, 20 - at)
    resumed, _ = run()
    resumed.fit(text, 3)  # whatever it did before
    resumed.load(path)
    assert moment(resumed) == saved
    assert resumed.last is None
    resumed.fit(text, 20 - at)
    assert moment(resumed) == moment(trainer)
    assert resumed.history == trainer.history


@pytest.mark.parametrize("make", [lambda: rl.SGD(0.1), lambda: rl.SGD(0.1, momentum=0.9), lambda: rl.Adam(0.01)])
def test_every_optimizer_is_resumed(tmp_path: Path, make: Any) -> None:
    (trainer, task), (other, _) = adder(make()), adder(make())
    trainer.fit(task, 5)
    trainer.save(tmp_path / "run.npz")
    other.load(tmp_path / "run.npz")
    for one in (trainer, other):
        one.fit(task, 5)
    assert moment(other) == moment(trainer)


def test_the_model_alone_is_loaded_from_a_run(tmp_path: Path) -> None:
    trainer, text = run(tmp_path / "run.npz")
    trainer.fit(text, 4)
    model = rl.load(tmp_path / "run.npz")
    for name, p in trainer.model.params.items():
        np.testing.assert_array_equal(model.params[name], p)
    assert model.vocabulary == text.characters
    model.save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"model\.npz: expected a trainer's file, got a model's"):
        trainer.load(tmp_path / "model.npz")


def test_a_runs_file_holds_three_numbers_for_each_weight_and_no_tapes(tmp_path: Path) -> None:
    """Three numbers for each weight with Adam, and no tapes."""
    trainer, text = run(H=32, T=64)
    trainer.fit(text, 3)
    trainer.save(tmp_path / "run.npz")
    weights = sum(p.nbytes for p in trainer.model.params.values())
    assert (tmp_path / "run.npz").stat().st_size < 3 * weights + 20_000


def other_runs() -> dict[str, tuple[str, Any]]:
    task = rl.tasks.adding(8, batch_size=4)

    def built(cell: Any, optimizer: Any = None, **options: Any) -> rl.Trainer:
        model = rl.SequenceModel(cell, rl.Dense(cell.hidden_size, 1, rng=1), options.pop("loss", task.loss))
        return rl.Trainer(model, optimizer or rl.Adam(0.01), **options)

    lstm = rl.LSTMCell(2, 5, rng=0)
    return {
        "another cell": ("model.cells[0]: expected rnnlab.LSTMCell", built(rl.GRUCell(2, 5, rng=0))),
        "another size": ("model.cells[0].hidden_size: expected 5 ", built(rl.LSTMCell(2, 6, rng=0))),
        "two layers": (
            "model.cells: expected ",
            rl.Trainer(rl.SequenceModel([lstm, rl.LSTMCell(5, 5)], rl.Dense(5, 1), task.loss), rl.Adam(0.01)),
        ),
        "another dtype": (
            "model.cells[0].dtype: expected 'float64'",
            rl.Trainer(built(lstm).model.astype(np.float32), rl.Adam(0.01)),
        ),
        "another loss": ("model.loss", built(rl.LSTMCell(2, 5), loss=rl.softmax_cross_entropy)),
        "another optimizer": ("optimizer: expected rnnlab.Adam", built(rl.LSTMCell(2, 5), rl.SGD(0.01))),
        "another rate": ("optimizer.lr: expected 0.01 ", built(rl.LSTMCell(2, 5), rl.Adam(0.02))),
        "a schedule": ("optimizer.lr: expected 0.01 ", built(rl.LSTMCell(2, 5), rl.Adam(rl.linear_decay(0.01, 9)))),
        "clipping": ("clip_norm: expected None", built(rl.LSTMCell(2, 5), clip_norm=1.0)),
        "a carried state": ("carry_state: expected False", built(rl.LSTMCell(2, 5), carry_state=True)),
    }


@pytest.mark.parametrize("what", other_runs())
def test_a_run_of_another_trainer_is_refused_by_name(tmp_path: Path, what: str) -> None:
    path, (name, other) = tmp_path / "run.npz", other_runs()[what]
    trainer, task = adder()
    trainer.fit(task, 2)
    trainer.save(path)
    before = moment(other)
    with pytest.raises(ValueError, match=rf"run\.npz: expected .*{re.escape(name)}.*as in the file, got "):
        other.load(path)
    assert moment(other) == before


def test_another_task_is_refused_by_name_and_the_same_is_not(tmp_path: Path) -> None:
    trainer, task = adder()
    trainer.fit(task, 2)
    trainer.save(tmp_path / "run.npz")
    for other, name in (
        (rl.tasks.adding(9, batch_size=4), "batches.T: expected 8"),
        (rl.tasks.adding(8, batch_size=4, seed=1), "batches.seed: expected 0"),
        (rl.tasks.char_text("abc " * 50, T=4, batch_size=2), "batches: expected rnnlab.Task"),
    ):
        resumed, _ = adder()
        resumed.load(tmp_path / "run.npz")
        with pytest.raises(ValueError, match=f"^{re.escape(name)}"):
            resumed.fit(other, 1)
        assert resumed.step == 2
    resumed.fit(rl.tasks.adding(8, batch_size=4), 1)  # one that was made anew


def test_the_optimizers_memory_goes_by_name(tmp_path: Path) -> None:
    trainer, task = adder()
    trainer.fit(task, 2)
    trainer.save(tmp_path / "run.npz")
    header, arrays = read_arrays(tmp_path / "run.npz")
    write_arrays(tmp_path / "run.npz", header, dict(reversed(arrays.items())))
    other, _ = adder()
    other.load(tmp_path / "run.npz")
    assert moment(other) == moment(trainer)


def spoil(**changes: Any) -> Any:
    return lambda header, arrays: (header | {"run": header["run"] | changes}, arrays)


def without(name: str) -> Any:
    return lambda header, arrays: (header, {k: a for k, a in arrays.items() if k != name})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (spoil(step=-1), "step"),
        (spoil(step="2"), "step"),
        (spoil(optimizer_steps=None), "optimizer_steps"),
        (spoil(history=3), "expected"),
        (without("optimizer.1.cells.0.b"), r"optimizer\.1\.cells\.0\.b"),
        (without("state.1"), r"state\.1"),
        (without("history.loss"), "history"),
        (lambda h, a: (h, a | {"history.accuracy": np.zeros(2)}), "history"),
        (lambda h, a: (h, a | {"state.0": a["state.0"][:, :, :2]}), r"state\.0"),
        (lambda h, a: (h, a | {"state.0": a["state.0"][0]}), r"state\.0"),
        (lambda h, a: (h, a | {"optimizer.0.cells.0.b": np.zeros(3)}), r"optimizer\.0\.cells\.0\.b"),
        (lambda h, a: (h, a | {"optimizer.0.readout.b": a["readout.b"] * np.nan}), r"optimizer\.0\.readout\.b"),
        (lambda h, a: (h, a | {"cells.0.b": a["cells.0.b"].astype(np.float32)}), r"cells\.0\.b"),
        (lambda h, a: (h | {"run": [1]}, a), "trainer"),
    ],
)
def test_a_wrong_entry_is_refused_and_nothing_is_loaded(tmp_path: Path, change: Any, text: str) -> None:
    path = tmp_path / "run.npz"
    trainer, task = run()
    trainer.fit(task, 2)
    trainer.save(path)
    write_arrays(path, *change(*read_arrays(path)))
    other, _ = run()
    before = moment(other)
    with pytest.raises(ValueError, match=rf"(?s)run\.npz: .*{text}"):
        other.load(path)
    assert moment(other) == before


def test_checkpoint_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    path, validation = tmp_path / "run.npz", rl.tasks.adding(8, batch_size=4).evaluation(20)
    losses: dict[int, float] = {}

    def record(trainer: rl.Trainer) -> None:
        losses[trainer.step] = float(trainer.model.mean_loss(validation))

    trainer, task = adder(rl.SGD(0.9), callbacks=[rl.Checkpoint(path, every=5), record])
    for steps in (1, 4, 3, 30):
        trainer.fit(task, steps, validation=validation, every=1)
        newest = max(step for step in losses if step == 1 or step % 5 == 0)
        assert read_arrays(path)[0]["run"]["step"] == newest
        newest_model, best_model = rl.load(path), rl.load(path, best=True)
        assert float(newest_model.mean_loss(validation)) == losses[newest]
        assert float(best_model.mean_loss(validation)) == min(loss for n, loss in losses.items() if n <= newest)
    assert min(losses.values()) < losses[newest]  # the two are told apart
    assert {p.name for p in tmp_path.iterdir()} == {"run.npz"}


def test_a_file_without_a_best_model_says_so(tmp_path: Path) -> None:
    trainer, task = adder(rl.SGD(0.1))
    trainer.fit(task, 2)
    trainer.save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"run\.npz: expected a best model, .*; give `fit` a validation="):
        rl.load(tmp_path / "run.npz", best=True)


def test_checkpoint_tells_at_once_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        rl.Checkpoint(tmp_path / "absent" / "run.npz")
    assert not list(tmp_path.iterdir())


# ---- faults; `python -m tests.faults` tries more of each -------------------------------------------


def test_kill_9_loses_nothing() -> None:
    tally = kills(2)
    assert (tally.tried, tally.survived) == (2, 2), tally


def test_ctrl_c_at_any_line_leaves_one_step_whole() -> None:
    tally = interrupts_at_lines(every=17)
    assert tally.tried > 50
    assert tally.survived == tally.tried, tally


def test_ctrl_c_after_any_time_leaves_one_step_whole() -> None:
    tally = timed_interrupts(20)
    assert tally.survived == tally.tried == 20, tally


def test_a_torn_step_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the deferral, lines between the parts of the update tear them apart."""
    import contextlib

    monkeypatch.setattr("rnnlab.optim.uninterrupted", contextlib.nullcontext)
    monkeypatch.setattr("rnnlab.trainer.uninterrupted", contextlib.nullcontext)
    tally = interrupts_at_lines(every=17)
    assert tally.tried - tally.survived >= 3, tally


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_damaged_run_is_refused_and_changes_nothing(suffix: str) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is an extra")
    tally = damaged_files(200, suffix)
    assert tally.survived == tally.tried == 200, tally


class Slow(rl.optim.Optimizer):
    """SGD divided by k, an option that it keeps under another name."""

    def __init__(self, lr: float, k: int) -> None:
        super().__init__(lr)
        self._k = k

    def start(self, grad: Any) -> Any:
        return ()

    def update(self, grad: Any, memory: Any, rate: float, n: int) -> Any:
        return rate * grad / self._k, ()


class Ones(rl.tasks.BatchStream):
    """A task that keeps its length under another name."""

    def __init__(self, length: int) -> None:
        self._n = length

    def batch(self, n: int) -> rl.Batch:
        return rl.Batch(np.ones((self._n, 2, 2)), np.ones((self._n, 2, 1)))


def test_an_option_of_an_optimizer_or_a_task_that_would_be_lost_is_refused(tmp_path: Path) -> None:
    trainer, task = adder(Slow(0.1, 3))
    trainer.fit(task, 1)
    with pytest.raises(ValueError, match=r"^Slow: expected its argument 'k' .*; write self\.k = k in its __init__"):
        trainer.save(tmp_path / "run.npz")
    trainer, _ = adder()
    trainer.fit(Ones(4), 1)  # which trains, but cannot be saved
    with pytest.raises(ValueError, match=r"^Ones: expected its argument 'length' .*; write self\.length = length"):
        trainer.save(tmp_path / "run.npz")
    assert not list(tmp_path.iterdir())


def test_another_number_of_reveals_is_another_task(tmp_path: Path) -> None:
    def movies() -> rl.Trainer:
        model = rl.SequenceModel(rl.RNNCell(5, 3, rng=0), rl.Dense(3, 4, rng=1), rl.softmax_cross_entropy)
        return rl.Trainer(model, rl.SGD(0.1))

    trainer, other = movies(), movies()
    trainer.fit(rl.tasks.movie(8, reveals=2), 1)
    trainer.save(tmp_path / "run.npz")
    other.load(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=r"batches\.draw\.reveals: expected 2 "):
        other.fit(rl.tasks.movie(8, reveals=3), 1)
