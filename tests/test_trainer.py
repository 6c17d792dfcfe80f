"""The trainer: the loop by hand, carried state, resuming bit for bit, callbacks, and failures that leave it whole."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from tests.cases import refuses, relative_error

TEXT = "the quick brown fox jumps over the lazy dog. " * 20


def adder(seed: int = 0, T: int = 8) -> tuple[rl.SequenceModel, rl.tasks.Task]:
    task = rl.tasks.adding(T, batch_size=4, seed=seed)
    model = rl.SequenceModel(rl.LSTMCell(2, 5, rng=seed), rl.Dense(5, 1, rng=seed + 1), task.loss)
    return model, task


def writer() -> tuple[rl.SequenceModel, rl.tasks.CharText]:
    task = rl.tasks.char_text(TEXT, T=6, batch_size=3)
    cells = [rl.GRUCell(task.size, 5, rng=0), rl.LSTMCell(5, 4, rng=1)]
    return rl.SequenceModel(cells, rl.Dense(4, task.size, rng=2), rl.softmax_cross_entropy), task


def snapshot(trainer: rl.Trainer) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "params": trainer.model.params,
            "optimizer": vars(trainer.optimizer),
            "step": trainer.step,
            "history": trainer.history,
            "state": trainer.state,
        }
    )


def assert_same(found: Any, expected: Any) -> None:
    """Equal bit for bit, through dicts, sequences and arrays."""
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, Mapping):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("clip_norm", [None, 0.05, 1e9])
def test_fit_is_loss_and_grads_then_clip_then_step(clip_norm: float | None) -> None:
    model, task = adder()
    by_hand, optimizer = model.with_params(model.params), rl.SGD(0.1, momentum=0.5)
    losses, norms = [], []
    for n in range(5):
        result = by_hand.loss_and_grads(task.batch(n))
        norm = float(np.sqrt(sum((g**2).sum() for g in result.grads.values())))
        factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
        optimizer.step(by_hand.params, {name: factor * g for name, g in result.grads.items()})
        losses.append(float(result.loss))
        norms.append(norm)
    trainer = rl.Trainer(model, rl.SGD(0.1, momentum=0.5), clip_norm=clip_norm)
    history = trainer.fit(task, 5)
    assert history is trainer.history
    assert history.loss == pytest.approx(losses, rel=1e-12)
    assert history.gradient_norm == pytest.approx(norms, rel=1e-12)
    assert len(history) == trainer.step == 5
    for name, p in model.params.items():
        assert relative_error(p, by_hand.params[name]) <= 1e-12
    assert trainer.train_step(task.batch(5)) == history.loss[5]


@pytest.mark.parametrize("make", [adder, writer])
@pytest.mark.parametrize("optimizer", [lambda: rl.Adam(0.01), lambda: rl.SGD(rl.linear_decay(0.1, 100), momentum=0.9)])
def test_two_fits_are_one_of_as_many_steps_bit_for_bit(make: Any, optimizer: Any) -> None:
    model, task = make()
    twin = model.with_params(model.params)
    settings: dict[str, Any] = {"clip_norm": 1.0, "carry_state": make is writer}
    whole, halves = rl.Trainer(model, optimizer(), **settings), rl.Trainer(twin, optimizer(), **settings)
    whole.fit(task, 40)
    halves.fit(task, 17)
    halves.fit(task, 23)
    assert_same(halves.model.params, whole.model.params)
    assert_same(halves.history.loss, whole.history.loss)
    assert_same(halves.history.gradient_norm, whole.history.gradient_norm)
    assert_same(halves.state, whole.state)


def test_carry_state_joins_the_chunks_of_a_text() -> None:
    """With a learning rate of 0 the chunks are one forward pass over the text, each chunk's gradient its own."""
    model, task = writer()
    batches = [task.batch(n) for n in range(5)]
    whole_x = np.concatenate([batch.x for batch in batches])
    tape_0 = model.cells[0].forward(whole_x)
    tape_1 = model.cells[1].forward(tape_0.h)
    seen: list[Any] = []
    trainer = rl.Trainer(model, rl.SGD(lambda step: 0.0), carry_state=True, callbacks=[lambda t: seen.append(t.last)])
    trainer.fit(task, 5)
    for n, last in enumerate(seen):
        for tape, whole in zip(last.tapes, (tape_0, tape_1), strict=True):
            assert relative_error(tape.states[1:], whole.states[6 * n + 1 : 6 * n + 7]) <= 1e-14
        if n:
            for tape, before in zip(last.tapes, seen[n - 1].tapes, strict=True):
                np.testing.assert_array_equal(tape.states[0], before.states[-1])
    assert trainer.state is not None
    for state, whole in zip(trainer.state, (tape_0, tape_1), strict=True):
        assert relative_error(state, whole.states[-1]) <= 1e-14


def test_callbacks_are_called_in_order_after_each_update() -> None:
    model, task = adder()
    calls: list[tuple[str, int]] = []
    before = [model.params["readout.b"].copy()]

    def first(trainer: rl.Trainer) -> None:
        calls.append(("first", trainer.step))
        assert trainer.model is model
        assert len(trainer.history) == trainer.step
        assert trainer.last is not None
        assert trainer.history.loss[-1] == trainer.last.loss
        assert (model.params["readout.b"] != before[-1]).all()  # the update has been made
        before.append(model.params["readout.b"].copy())

    def second(trainer: rl.Trainer) -> None:
        calls.append(("second", trainer.step))

    rl.Trainer(model, rl.Adam(0.01), callbacks=[first, second]).fit(task, 3)
    assert calls == [(name, step) for step in (1, 2, 3) for name in ("first", "second")]


def test_of_all_tapes_the_last_ones_alone_stay_in_memory() -> None:
    model, task = writer()
    tapes: list[Any] = []
    trainer = rl.Trainer(model, rl.SGD(0.1), carry_state=True)
    trainer.callbacks = (lambda t: tapes.extend(map(weakref.ref, t.last.tapes)),)
    trainer.fit(task, 5)
    model.predict(task.train[:200, None])
    gc.collect()
    assert trainer.last is not None
    assert [tape() for tape in tapes if tape() is not None] == list(trainer.last.tapes)


def test_last_holds_the_gradients_before_clipping() -> None:
    model, task = adder()
    expected = model.loss_and_grads(task.batch(0)).grads
    trainer = rl.Trainer(model, rl.SGD(0.1), clip_norm=1e-3)
    trainer.fit(task, 1)
    assert trainer.last is not None
    assert_same(trainer.last.grads, expected)


def test_a_task_continues_at_the_trainers_step_and_an_iterable_from_its_start() -> None:
    seen: list[Any] = []

    class Recording(rl.SequenceModel):
        def loss_and_grads(self, batch: rl.Batch, *args: Any, **kwargs: Any) -> rl.LossAndGrads:
            seen.append(batch.x)
            return super().loss_and_grads(batch, *args, **kwargs)

    model, task = adder()
    trainer = rl.Trainer(Recording(model.cells, model.readout, model.loss), rl.SGD(0.1))
    trainer.fit(task, 2)
    trainer.fit(task, 1)
    trainer.fit([task.batch(7), task.batch(8)], 1)
    trainer.fit(task, 1)
    assert_same(seen, [task.batch(n).x for n in (0, 1, 2, 7, 4)])


def test_batches_that_end_too_soon_are_an_error_after_the_last_complete_step() -> None:
    model, task = adder()
    trainer = rl.Trainer(model, rl.SGD(0.1))
    with refuses(ValueError, "batches"):
        trainer.fit(iter([task.batch(0), task.batch(1)]), 3)
    assert trainer.step == len(trainer.history) == 2
    twin, _ = adder()
    rl.Trainer(twin, rl.SGD(0.1)).fit(task, 2)
    assert_same(model.params, twin.params)


def bad_batches() -> list[tuple[type[Exception], str, Any]]:
    good = adder()[1].batch(0)
    return [
        (ValueError, "x", rl.Batch(np.where(np.isclose(good.x, good.x[3, 1, 0]), np.nan, good.x), good.y, good.mask)),
        (ValueError, "x", rl.Batch(good.x[..., :1], good.y, good.mask)),
        (ValueError, "y", rl.Batch(good.x, good.y[1:], good.mask)),
        (ValueError, "y", rl.Batch(good.x, np.full_like(good.y, np.nan), good.mask)),
        (ValueError, "mask", rl.Batch(good.x, good.y, np.zeros_like(good.mask))),
        (TypeError, "batches[0]", (good.x, good.y)),
    ]


@pytest.mark.parametrize(("error", "name", "batch"), bad_batches())
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_refused_batch_leaves_everything_as_it_was(
    error: type[Exception], name: str, batch: Any, clip_norm: float | None
) -> None:
    model, task = adder()
    trainer = rl.Trainer(model, rl.Adam(0.01), clip_norm=clip_norm, carry_state=True)
    trainer.fit(task, 3)
    before, last = snapshot(trainer), trainer.last
    with refuses(error, name):
        trainer.fit([batch], 1)
    assert_same(snapshot(trainer), before)
    assert trainer.last is last


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(clip_norm: float | None) -> None:
    def loss(prediction: Any, target: Any, mask: Any = None) -> Any:
        value, d = rl.mean_squared_error(prediction, target, mask)
        return value, d * 1e308 * 1e10 if broken else d

    broken = False
    model, task = adder()
    trainer = rl.Trainer(rl.SequenceModel(model.cells, model.readout, loss), rl.Adam(0.01), clip_norm=clip_norm)
    trainer.fit(task, 2)
    before = snapshot(trainer)
    broken = True
    with np.errstate(all="ignore"), pytest.raises((ValueError, FloatingPointError), match="finite"):
        trainer.fit(task, 1)
    assert_same(snapshot(trainer), before)


def test_an_overflow_is_an_error_that_names_the_step_and_leaves_everything_as_it_was() -> None:
    """A relu RNN whose state grows a hundredfold each step; no warning comes before the error."""
    cell = rl.RNNCell(2, 3, rng=0, activation="relu").with_params(
        {"W_x": np.ones((1, 2, 3)), "W_h": 50 * np.ones((1, 3, 3)), "b": np.ones((1, 1, 3))}
    )
    task = rl.tasks.adding(200, batch_size=4)
    trainer = rl.Trainer(rl.SequenceModel(cell, rl.Dense(3, 1, rng=0), task.loss), rl.Adam(0.01), clip_norm=1.0)
    before = snapshot(trainer)
    with pytest.raises(
        FloatingPointError, match=r"RNNCell: state 'h' is not finite at t = 1[34]\d; at training step 1"
    ):
        trainer.fit(task, 1)
    assert_same(snapshot(trainer), before)


def test_progress_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="progress bars need the extra 'lesson'")
    model, task = adder()
    twin, _ = adder()
    rl.Trainer(model, rl.SGD(0.1)).fit(task, 4, progress="adding")
    rl.Trainer(twin, rl.SGD(0.1)).fit(task, 4)
    assert_same(model.params, twin.params)
    shown = capsys.readouterr()
    assert "adding" in shown.out + shown.err


def test_fit_keeps_the_number_of_blas_threads_that_the_environment_asks_for() -> None:
    pytest.importorskip("threadpoolctl", reason="limiting threads needs the extra 'lesson'")
    assert threads_in_fit({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "2"}, "") == ["2", "True"]


def test_a_number_of_threads_that_numpy_did_not_heed_does_not_count() -> None:
    """Set after NumPy was imported, the environment says something else than what is."""
    pytest.importorskip("threadpoolctl", reason="limiting threads needs the extra 'lesson'")
    assert threads_in_fit({}, "import os; os.environ['OMP_NUM_THREADS'] = '7'") == ["1", "True"]


def threads_in_fit(environment: dict[str, str], first: str, then: str = "") -> list[str]:
    """The number of BLAS threads during `fit` in a new process, and whether it is as before afterwards."""
    script = f"""
import numpy as np, rnnlab as rl, threadpoolctl
{first}
threads = lambda: max([p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"])
task = rl.tasks.adding(4, batch_size=2)
model = rl.SequenceModel(rl.RNNCell(2, 3, rng=0), rl.Dense(3, 1, rng=1), task.loss)
before, found = threads(), []
rl.Trainer(model, rl.SGD(0.1), callbacks=[lambda trainer: found.append(threads())]).fit(task, 1)
{then}
print(found[0], threads() == before)
"""
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run(
        [sys.executable, "-c", script], env=clean | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


@pytest.mark.parametrize("first_ends_first", [False, True])
def test_fits_in_several_threads_leave_the_blas_as_they_found_it(first_ends_first: bool) -> None:
    pytest.importorskip("threadpoolctl", reason="limiting threads needs the extra 'lesson'")
    script = f"""
import threading
from concurrent.futures import ThreadPoolExecutor
ends, both = [threading.Event(), threading.Event()], threading.Barrier(3)
pool = ThreadPoolExecutor(2)  # threads that live on
def fit(n):
    def wait(trainer):
        both.wait(60)
        assert ends[n].wait(60)
    model = rl.SequenceModel(rl.RNNCell(2, 3, rng=0), rl.Dense(3, 1, rng=1), task.loss)
    rl.Trainer(model, rl.SGD(0.1), callbacks=[wait]).fit(task, 1)
fits = [pool.submit(fit, n) for n in (0, 1)]
both.wait(60)
for n in (0, 1) if {first_ends_first} else (1, 0):
    ends[n].set()
    fits[n].result()
"""
    found = threads_in_fit({}, "", script)
    assert found == ["1", "True"]


# ---- numbers that are not finite, and code of others that fails ---------------------------------


def spoiled(where: str) -> Any:
    """A loss of the learner's own that goes wrong in one way."""

    def loss(prediction: Any, target: Any, mask: Any) -> Any:
        value, d = rl.mean_squared_error(prediction, target, mask)
        wrong = {"loss": (np.nan, d), "inf": (np.inf, d), "nothing": None, "an array": (d, d), "alone": value}
        if where == "derivative":
            d = d.copy()
            d[-1, 2] = np.nan
        if where == "shape":
            d = d[..., 0]
        return wrong.get(where, (value, d))

    return loss


@pytest.mark.parametrize(
    ("where", "error", "text"),
    [
        ("loss", FloatingPointError, r"^loss: expected a finite number, got nan"),
        ("inf", FloatingPointError, r"^loss: expected a finite number, got inf"),
        ("derivative", FloatingPointError, r"^loss: .*derivative.*nan at time step 7, sequence 2"),
        ("nothing", TypeError, r"^loss: expected .*\(loss, d_prediction\), got None"),
        ("alone", TypeError, r"^loss: expected .*\(loss, d_prediction\), got "),
        ("an array", TypeError, r"^loss: expected .*number.*, got an array"),
        ("shape", ValueError, r"^loss: expected .*derivative.*shape \(1, 4, 1\), got \(1, 4\)"),
    ],
)
def test_a_loss_that_goes_wrong_stops_before_the_update(where: str, error: type[Exception], text: str) -> None:
    model, task = adder()
    trainer = rl.Trainer(model, rl.Adam(0.01), carry_state=True)
    trainer.fit(task, 3)
    before, model.loss = snapshot(trainer), spoiled(where)
    with pytest.raises(error, match=text) as raised:
        trainer.fit(task, 1)
    assert_same(snapshot(trainer), before)
    said = str(raised.value) + "".join(getattr(raised.value, "__notes__", ()))
    assert "training step 4" in said
    if error is FloatingPointError:
        assert f"{trainer.history.gradient_norm[-1]:.3g} at the step before" in said
        assert "clip_norm=1.0" in said
        assert "lower learning rate" in said


def test_one_optimizer_trains_one_model() -> None:
    (model, task), (other, _), optimizer = adder(), adder(), rl.Adam(0.01)
    rl.Trainer(model, optimizer).fit(task, 2)
    rl.Trainer(model, optimizer).fit(task, 2)  # the same model again is no mistake
    with refuses(ValueError, "optimizer"):
        rl.Trainer(other, optimizer)
    rl.Trainer(other, rl.Adam(0.01)).fit(task, 1)


@pytest.mark.parametrize("where", ["callback", "batches"])
def test_an_error_of_others_code_says_when_and_leaves_whole_steps(where: str) -> None:
    model, task = adder()

    def failing(trainer: rl.Trainer) -> None:
        if trainer.step == 2:
            raise KeyError("mine")

    def batches() -> Any:
        yield from (task.batch(0), task.batch(1))
        raise KeyError("mine")

    trainer = rl.Trainer(model, rl.SGD(0.1), callbacks=[failing] if where == "callback" else [])
    with pytest.raises(KeyError, match="mine") as raised:
        trainer.fit(task if where == "callback" else batches(), 5)
    assert "step 2" in "".join(raised.value.__notes__)
    again, _ = adder()
    twin = rl.Trainer(again, rl.SGD(0.1))
    twin.fit(task, 2)
    assert_same(snapshot(trainer), snapshot(twin))


def test_no_further_step_leaves_a_run_as_it_is() -> None:
    model, task = adder()
    trainer = rl.Trainer(model, rl.SGD(0.1))
    trainer.fit(task, 2)
    before = snapshot(trainer)
    assert trainer.fit(task, 0) is trainer.history
    assert_same(snapshot(trainer), before)
