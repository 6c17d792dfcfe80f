"""`fit` as people know it: lists that go round, epochs, shuffling, validation, early ends, and all of it resumable."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from tests.cases import refuses
from tests.faults import interrupted_at_line

D, H, O = 3, 4, 2  # noqa: E741 - O is the shape letter


def batches(n: int = 3) -> list[rl.Batch]:
    rng = np.random.default_rng(0)
    return [rl.Batch(rng.normal(size=(5, 4, D)), rng.normal(size=(5, 4, O))) for _ in range(n)]


class Recording(rl.SequenceModel):
    """Notes the batches and the states that it was trained on."""

    seen: list[Any]

    def loss_and_grads(self, batch: rl.Batch, state: Any = None, **options: Any) -> Any:
        self.seen.append((batch.x, state))
        return super().loss_and_grads(batch, state, **options)


def trainer(**options: Any) -> rl.Trainer:
    cells = [rl.LSTMCell(D, H, rng=0), rl.GRUCell(H, H, rng=1)]
    dropout = options.pop("dropout", 0.0)
    model = Recording(cells, rl.Dense(H, O, rng=2), rl.mean_squared_error, dropout=dropout)
    model.seen = []
    return rl.Trainer(model, rl.Adam(0.01), **options)


def order(made: rl.Trainer, data: list[rl.Batch]) -> list[int]:
    """The numbers of the batches that were read."""
    model: Any = made.model
    return [next(n for n, batch in enumerate(data) if batch.x is x) for x, _ in model.seen]


def same(one: rl.Trainer, other: rl.Trainer) -> None:
    assert one.history == other.history
    assert one.step == other.step
    assert all((p == other.model.params[name]).all() for name, p in one.model.params.items())
    best = [made.best_model for made in (one, other)]
    assert (best[0] is None) == (best[1] is None)
    if best[0] is not None and best[1] is not None:
        assert all((p == best[1].params[name]).all() for name, p in best[0].params.items())


# ---- rounds -----------------------------------------------------------------------------------------


def test_a_list_goes_round() -> None:
    data, made = batches(), trainer()
    made.fit(data, epochs=2)
    made.fit(data, 2)
    made.fit(data, steps=2)
    assert order(made, data) == [0, 1, 2] * 3 + [0]


def test_another_list_begins_with_its_first_batch() -> None:
    data, made = batches(5), trainer()
    made.fit(data[:3], 4)
    made.fit(data[3:], 3)
    assert order(made, data) == [0, 1, 2, 0, 3, 4, 3]


def test_shuffling_reads_each_batch_once_a_round_in_an_order_of_the_seed() -> None:
    data = batches(6)
    read = {}
    for seed in (0, 0, 1):
        made = trainer(seed=seed)
        made.fit(data, epochs=4, shuffle=True)
        rounds = np.reshape(order(made, data), (4, 6))
        assert (np.sort(rounds) == np.arange(6)).all()
        assert len({tuple(r) for r in rounds}) > 1
        assert (read.setdefault(seed, rounds) == rounds).all()
    assert (read[0] != read[1]).any()


def test_a_carried_state_is_dropped_where_the_list_wraps() -> None:
    data, made = batches(), trainer(carry_state=True)
    made.fit(data, epochs=2)
    model: Any = made.model
    assert [state is None for _, state in model.seen] == [True, False, False] * 2


def test_what_cannot_go_round_is_refused() -> None:
    task = rl.tasks.adding(6)
    for wrong in (
        lambda: trainer().fit(batches()),
        lambda: trainer().fit(batches(), 2, epochs=2),
    ):
        with refuses(ValueError, "steps"):
            wrong()
    with refuses(ValueError, "epochs"):
        trainer().fit(task, epochs=2)
    with refuses(ValueError, "shuffle"):
        trainer().fit(task, 2, shuffle=True)
    with refuses(ValueError, "batches"):
        trainer().fit([], 2)


# ---- validation -------------------------------------------------------------------------------------


def test_validation_is_the_mean_loss_of_the_held_batch_every_so_many_steps() -> None:
    data, made, losses = batches(), trainer(dropout=0.5, carry_state=True), []
    made.callbacks = (lambda t: losses.append(float(t.model.mean_loss(data[2]))),)
    history = made.fit(data[:2], 7, validation=data[2], every=3)
    assert history.validation_step == [3, 6]
    assert history.validation == [losses[2], losses[5]]
    made.fit(data[:2], 2, validation=data[2])
    assert history.validation_step == [3, 6, 8]  # once a round
    assert made.best_model is not None
    assert float(made.best_model.mean_loss(data[2])) == min(history.validation)


@pytest.mark.parametrize("make", [lambda: rl.tasks.adding(6, batch_size=4), lambda: rl.tasks.char_text("abcd\n" * 90)])
def test_a_task_gives_the_batch_that_it_keeps_apart(make: Any) -> None:
    task = make()
    D, O = (2, 1) if isinstance(task, rl.tasks.Task) else (task.size, task.size)  # noqa: E741
    loss = task.loss if isinstance(task, rl.tasks.Task) else rl.softmax_cross_entropy
    model = rl.SequenceModel(rl.GRUCell(D, H, rng=0), rl.Dense(H, O, rng=0), loss)
    history = rl.Trainer(model, rl.Adam(0.01)).fit(task, 4, validation=task, every=4)
    assert history.validation == [float(model.mean_loss(task.evaluation()))]
    if isinstance(task, rl.tasks.CharText):
        x = task.evaluation(7).x
        assert x.shape == (44, 7)  # as long as the test text
        text = task.decode(task.test)
        assert all(task.decode(x[:, b]) in text for b in range(7))


def test_a_validation_that_does_not_fit_is_refused_before_the_first_step() -> None:
    made, data = trainer(), batches()
    for wrong in (rl.Batch(data[0].x, data[0].y[:3]), rl.Batch(data[0].x, np.zeros((5, 4, 3)))):
        with refuses(ValueError, "validation"):
            made.fit(data, 2, validation=wrong)
    with refuses(TypeError, "validation"):
        made.fit(data, 2, validation=3)  # type: ignore[arg-type]
    for asks in (trainer(callbacks=[rl.EarlyStopping(2)]), made):
        with refuses(ValueError, "validation"):
            asks.fit(data, 2, every=None if asks.callbacks else 2)
    assert made.step == 0


# ---- ends -------------------------------------------------------------------------------------------


def test_a_callback_that_returns_true_ends_it_cleanly() -> None:
    data, seen = batches(), []
    stop: Any = lambda t: t.step == 4  # noqa: E731
    made = trainer(callbacks=[stop, lambda t: seen.append(t.step)])
    history = made.fit(data, epochs=10)
    assert len(history) == made.step == 4
    assert seen == [1, 2, 3, 4]  # the others are called too
    made.fit(data, 2)
    assert order(made, data) == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("answer", [1, "yes", [0], np.ones(3)])
def test_only_true_ends_it(answer: Any) -> None:
    made = trainer(callbacks=[lambda t: answer])
    made.fit(batches(), 3)
    assert made.step == 3


def test_early_stopping_waits_patience_validations_and_the_best_is_kept() -> None:
    scripted = [5.0, 3.0, 4.0, 3.0, 3.5, 1.0, 1.0, 1.0, 2.0]

    class Scripted(Recording):
        def mean_loss(self, batch: Any, state: Any = None, **options: Any) -> Any:
            return scripted[len(made.history.validation)]

    made, data = trainer(callbacks=[rl.EarlyStopping(3)]), batches()
    model = Scripted(made.model.cells, made.model.readout, made.model.loss)
    model.seen, made.model = [], model
    copies: list[Any] = []
    made.callbacks = (*made.callbacks, lambda t: copies.append({n: p.copy() for n, p in t.model.params.items()}))
    made.fit(data, 100, validation=data[0], every=2)
    assert made.history.validation == scripted[:5]  # 3 is the lowest; 4, 3 and 3.5 are not below it
    assert made.step == 10
    assert made.best_model is not None
    assert all((p == copies[3][name]).all() for name, p in made.best_model.params.items())
    made.fit(data, 100, validation=data[0], every=2)
    assert made.step == 18  # 1 was a new best


# ---- stopped and resumed ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 6, 7])
def test_a_run_resumes_bit_for_bit(at: int, tmp_path: Path) -> None:
    data = batches()

    def made() -> rl.Trainer:
        return trainer(dropout=0.4, seed=5, carry_state=True, clip_value=0.5, callbacks=[rl.EarlyStopping(2)])

    options: dict[str, Any] = {"shuffle": True, "validation": data[0], "every": 2}
    whole, first, second = made(), made(), made()
    whole.fit(data, 11, **options)
    first.fit(data, at, **options)
    first.save(tmp_path / "run.npz")
    second.load(tmp_path / "run.npz")
    same(first, second)
    second.fit(data, 11 - at, **options)
    same(whole, second)
    assert rl.load(tmp_path / "run.npz", cells=[Recording]).dropout == 0.4
    other = made()
    other.load(tmp_path / "run.npz")
    for mistaken, said in (
        (data[:2], r": expected 3 of rnnlab\.Batch"),
        (data[::-1], r"\[0\]\.x\.array\[2\]: expected "),
    ):
        with pytest.raises(ValueError, match=rf"^batches\.batches{said}.*got "):
            other.fit(mistaken, 1, **options)
    for wrong in (trainer(dropout=0.4, carry_state=True, clip_value=0.5), trainer(seed=5)):
        with pytest.raises(ValueError, match="expected the run of a trainer built like this one"):
            wrong.load(tmp_path / "run.npz")


def test_a_validation_that_was_interrupted_is_made_up_for() -> None:
    data, made, twin = batches(), trainer(), trainer()

    class Interrupted(Recording):
        interrupt = True

        def mean_loss(self, *arguments: Any, **options: Any) -> Any:
            if self.interrupt:
                raise KeyboardInterrupt
            return super().mean_loss(*arguments, **options)

    model = Interrupted(made.model.cells, made.model.readout, made.model.loss)
    model.seen, made.model = [], model
    with pytest.raises(KeyboardInterrupt):
        made.fit(data, 6, validation=data[0], every=2)
    assert made.step == len(made.history) == 2
    assert not made.history.validation
    model.interrupt = False
    made.fit(data, 4, validation=data[0], every=2)
    twin.fit(data, 6, validation=data[0], every=2)
    same(made, twin)


def test_ctrl_c_at_any_line_loses_nothing() -> None:
    """Both directions, lengths, dropout, shuffled rounds and a validation after each step; every 97th line is tried."""
    rng = np.random.default_rng(0)
    lengths = np.array([1, 2])
    data = [rl.Batch(rng.normal(size=(2, 2, D)), rng.normal(size=(2, O)), lengths=lengths) for _ in range(2)]

    def fresh() -> rl.Trainer:
        layer = rl.Bidirectional(rl.LSTMCell(D, 2, rng=0), rl.LSTMCell(D, 2, rng=1))
        model = rl.SequenceModel(layer, rl.Dense(4, O, rng=2), rl.mean_squared_error, dropout=0.3)
        return rl.Trainer(model, rl.Adam(0.01, weight_decay=0.1), seed=1, callbacks=[rl.EarlyStopping(9)])

    options: dict[str, Any] = {"shuffle": True, "validation": data[0], "every": 1}
    start, whole, tried = fresh(), fresh(), 0
    start.fit(data, 1, **options)
    whole.fit(data, 4, **options)
    for line in range(1, 10_000, 97):
        stopped = copy.deepcopy(start)
        if not interrupted_at_line(line, lambda stopped=stopped: stopped.fit(data, 1, **options)):  # type: ignore[misc]
            break
        tried += 1
        history = stopped.history
        assert len(history) == len(history.gradient_norm) == stopped.step == stopped.optimizer.steps
        assert len(history.validation) == len(history.validation_step)
        stopped.fit(data, 4 - stopped.step, **options)
        same(whole, stopped)
    assert tried > 10


# ---- what is said -----------------------------------------------------------------------------------


def test_the_line_shows_loss_norm_and_validation(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="progress bars need the extra 'lesson'")
    made, data = trainer(), batches()
    made.fit(data, 6, validation=data[0], progress="rounds")
    shown = capsys.readouterr().err
    history = made.history
    assert f"loss {history.loss[-1]:.4g}, norm {history.gradient_norm[-1]:.3g}" in shown
    assert f"validation {history.validation[-1]:.4g}" in shown
    assert "6/6" in shown


def test_float64_data_for_a_float32_model_is_said() -> None:
    model = rl.SequenceModel(
        rl.GRUCell(D, H, rng=0, dtype=np.float32), rl.Dense(H, O, rng=0, dtype=np.float32), rl.mean_squared_error
    )
    made, data = rl.Trainer(model, rl.Adam(0.01)), batches()
    with pytest.warns(UserWarning, match=r"^x: float64 data .* x\.astype\(np\.float32\)") as said:
        made.fit(data, 5)
    assert len(said) == 1
    made.fit([rl.Batch(b.x.astype(np.float32), b.y.astype(np.float32)) for b in data], 2)  # no word of it


@pytest.mark.parametrize("x", [np.ones((5, 4, D), np.float16), np.ma.masked_array(np.ones((5, 4, D)), True), None])
def test_a_validation_batch_whose_x_does_not_fit_is_refused_before_the_first_step(x: Any) -> None:
    model = rl.SequenceModel(rl.RNNCell(D, H, rng=0), rl.Dense(H, O, rng=1), rl.mean_squared_error)
    trainer, held = rl.Trainer(model, rl.SGD(0.1)), rl.Batch(x, batches()[0].y)
    with pytest.raises(TypeError, match=r"^validation: expected a batch that fits the model, got one whose x: "):
        trainer.fit(batches(), 2, validation=held)
    assert trainer.step == 0


def test_objects_in_the_place_of_numbers_are_refused_by_name() -> None:
    model = rl.SequenceModel(rl.RNNCell(D, H, rng=0), rl.Dense(H, O, rng=1), rl.mean_squared_error)
    with pytest.raises(TypeError, match=r"^x: expected floats \(float64\), got an array .* dtype object"):
        rl.Trainer(model, rl.SGD(0.1)).fit([rl.Batch(np.ones((5, 4, D), object), batches()[0].y)], 1)
