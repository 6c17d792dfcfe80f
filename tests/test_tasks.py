"""Tasks: each definition checked from x alone, batches that depend on (seed, n) alone, text, and n-grams."""

from __future__ import annotations

import collections
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnlab as rl
from rnnlab import tasks
from tests.cases import refuses

TASKS = (tasks.adding, tasks.movie, tasks.temporal_order)
each_task = pytest.mark.parametrize("make", TASKS, ids=lambda f: f.__name__)
each_length = pytest.mark.parametrize("T", [10, 17, 100])


def assert_same(one: rl.Batch, other: rl.Batch) -> None:
    np.testing.assert_array_equal(one.x, other.x)
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.mask, other.mask)


# ---- what all tasks promise -------------------------------------------------------------------


@each_task
def test_a_batch_depends_on_seed_and_number_alone(make: Any) -> None:
    asked_in_order = [make(12, 5, seed=3).batch(n) for n in range(4)]
    again = make(12, 5, seed=3)
    for n in (2, 0, 3, 1, 2):
        assert_same(again.batch(n), asked_in_order[n])
    for batch, expected in zip(again, asked_in_order, strict=False):
        assert_same(batch, expected)
    for batch, expected in zip(again.stream(2), asked_in_order[2:], strict=False):
        assert_same(batch, expected)
    xs = [b.x.tobytes() for b in (*asked_in_order, *(make(12, 5, seed=4).batch(n) for n in range(4)))]
    assert len(set(xs)) == 8


@each_task
@each_length
def test_x_y_and_mask_fit_the_model_that_the_task_names(make: Any, T: int) -> None:
    task = make(T, 6)
    batch = task.batch(0)
    assert batch.x.shape[:2] == batch.y.shape[:2] == batch.mask.shape == (T, 6)
    model = rl.SequenceModel(rl.GRUCell(task.input_size, 3, rng=0), rl.Dense(3, task.output_size, rng=1), task.loss)
    result = model.loss_and_grads(batch)
    assert math.isfinite(result.loss)
    sizes = {tasks.adding: (2, 1), tasks.movie: (5, 4), tasks.temporal_order: (6, 4)}
    assert (task.input_size, task.output_size) == sizes[make]
    assert (batch.mask == (np.arange(T) == T - 1)[:, None]).all()  # the answer is read at the last step
    assert not batch.y[:-1].any()


@each_task
def test_the_evaluation_batch_is_fixed_and_no_training_batch(make: Any) -> None:
    task = make(12, 5, seed=3)
    assert_same(task.evaluation(40), make(12, 9, seed=3).evaluation(40))
    assert task.evaluation().x.shape[1] == 500
    assert (task.evaluation(40).x != make(12, 5, seed=4).evaluation(40).x).any()
    for n in range(20):
        assert (task.evaluation(5).x != task.batch(n).x).any()


class Oracle(rl.SequenceModel):
    """Answers what it is given; for classes as logits."""

    def __init__(self, task: tasks.Task, answer: Any) -> None:
        super().__init__(rl.RNNCell(task.input_size, 1, rng=0), rl.Dense(1, task.output_size, rng=0), task.loss)
        self.answer = answer

    def predict(self, x: Any, state: Any = None) -> Any:
        return self.answer, ()


@each_task
def test_score_and_solved_know_the_perfect_and_the_ignorant(make: Any) -> None:
    task = make(20, seed=1)
    y = task.evaluation().y
    regression = task.loss is rl.mean_squared_error
    right = y if regression else np.eye(4)[y]
    assert task.score(Oracle(task, right)) == (0 if regression else 1)
    assert task.solved(task.score(Oracle(task, right)))
    ignorant = np.ones_like(y) if regression else np.eye(4)[np.ones_like(y)]
    score = task.score(Oracle(task, ignorant))
    # one answer for all: the variance of the sum of two uniform numbers (standard error .0088 at 500), or a quarter
    assert task.chance == pytest.approx(1 / 6 if regression else 0.25)
    assert abs(score - task.chance) < 5 * (0.0088 if regression else math.sqrt(0.25 * 0.75 / 500))
    assert not task.solved(score)


@each_task
def test_a_model_of_other_sizes_gets_no_score(make: Any) -> None:
    """One answer too many would broadcast against the target, and give a number."""
    task = make(20)
    D, O = task.input_size, task.output_size  # noqa: E741 - O is the shape letter
    for inputs, outputs in ((D, O + 1), (D + 1, O)):
        model = rl.SequenceModel(rl.RNNCell(inputs, 3, rng=0), rl.Dense(3, outputs, rng=0), task.loss)
        with pytest.raises(ValueError, match=f"^model: expected {D} inputs and {O} outputs, got SequenceModel"):
            task.score(model)


def test_defaults_are_those_of_the_signatures() -> None:
    for make in TASKS:
        assert_same(make(10).batch(3), make(10, 32, 0).batch(3))
    found, expected = (
        tasks.char_text(ALPHABET_TEXT),
        tasks.char_text(ALPHABET_TEXT, T=64, batch_size=32, test_share=0.1),
    )
    np.testing.assert_array_equal(found.batch(3).x, expected.batch(3).x)
    np.testing.assert_array_equal(found.test, expected.test)


def test_a_task_is_solved_from_its_own_bound_on() -> None:
    assert tasks.adding(10).solved(0.0099)
    assert not tasks.adding(10).solved(0.01)
    for make in (tasks.movie, tasks.temporal_order):
        assert make(10).solved(0.99)
        assert not make(10).solved(0.9899)


# ---- each definition, from x ------------------------------------------------------------------


@pytest.mark.parametrize("T", [2, 3, 10, 101])
def test_adding_marks_one_number_in_each_half_and_asks_for_their_sum(T: int) -> None:
    batch = tasks.adding(T, 400).batch(0)
    x, y = batch.x.tolist(), batch.y.tolist()
    places = set()
    for b in range(400):
        marked = [t for t in range(T) if x[t][b][1] == 1]
        assert all(x[t][b][1] in (0, 1) and 0 <= x[t][b][0] < 1 for t in range(T))
        assert len(marked) == 2
        assert marked[0] < T // 2 <= marked[1]
        assert y[-1][b] == [x[marked[0]][b][0] + x[marked[1]][b][0]]
        places |= set(marked)
    assert T > 10 or places == set(range(T))


@pytest.mark.parametrize("T", [2, 3, 10, 101])
def test_movie_asks_for_the_type_of_the_flagged_scene(T: int) -> None:
    batch = tasks.movie(T, 400).batch(0)
    x, y = batch.x.tolist(), batch.y.tolist()
    reveals, answers = set(), set()
    for b in range(400):
        assert all(sorted(x[t][b][:4]) == [0, 0, 0, 1] for t in range(T))
        flagged = [t for t in range(T) if x[t][b][4] == 1]
        assert all(x[t][b][4] in (0, 1) for t in range(T))
        assert len(flagged) == 1
        assert flagged[0] < T // 2
        assert y[-1][b] == x[flagged[0]][b].index(1)
        reveals.add(flagged[0])
        answers.add(y[-1][b])
    assert answers == {0, 1, 2, 3}
    assert T > 10 or reveals == set(range(T // 2))


@pytest.mark.parametrize("T", [10, 20, 100, 103])
def test_temporal_order_asks_which_two_symbols_came_in_which_order(T: int) -> None:
    batch = tasks.temporal_order(T, 400).batch(0)
    x, y = batch.x.tolist(), batch.y.tolist()
    names = {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}
    answers, distractors = set(), set()
    for b in range(400):
        symbols = [(t, x[t][b]) for t in range(T) if x[t][b] in (0, 1)]
        distractors |= {x[t][b] for t in range(T)} - {0, 1}
        assert len(symbols) == 2
        (first, one), (second, two) = symbols
        assert T // 10 <= first <= T / 5
        assert 2 * T // 5 <= second <= T / 2
        assert y[-1][b] == names[one, two]
        answers.add(y[-1][b])
    assert answers == {0, 1, 2, 3}
    assert distractors == {2, 3, 4, 5}


@pytest.mark.parametrize("ask", ["end", "always"])
@pytest.mark.parametrize(("T", "reveals"), [(12, 1), (12, 3), (4, 4)])
def test_movie_asks_for_the_latest_reveal_so_far(T: int, reveals: int, ask: str) -> None:
    batch = tasks.movie(T, 50, reveals=reveals, ask=ask).batch(2)
    assert batch.mask is not None
    for row in range(50):
        answer, seen = None, 0
        for t in range(T):
            if batch.x[t, row, 4]:
                answer, seen = int(batch.x[t, row, :4].argmax()), seen + 1
            asked = t == T - 1 if ask == "end" else answer is not None
            assert batch.mask[t, row] == asked
            if asked:
                assert batch.y[t, row] == answer
        assert seen == reveals


def test_several_reveals_lie_anywhere_and_what_is_asked_changes_no_film() -> None:
    end, always = (tasks.movie(10, 400, reveals=3, ask=ask).batch(0) for ask in ("end", "always"))
    assert np.array_equal(end.x, always.x)
    assert end.x[:, :, 4].any(axis=1).all()


@pytest.mark.parametrize("wrong", [{"reveals": 0}, {"reveals": 11}, {"ask": "never"}, {"reveals": 1.5}])
def test_movie_refuses_reveals_and_questions_that_do_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        tasks.movie(10, **wrong)


@pytest.mark.parametrize("make", [tasks.movie, tasks.temporal_order])
def test_the_classes_are_equally_frequent(make: Any) -> None:
    counts = np.bincount(make(30, 4000).batch(0).y[-1], minlength=4)
    assert (np.abs(counts - 1000) < 5 * math.sqrt(4000 * 0.25 * 0.75)).all()


# ---- text -------------------------------------------------------------------------------------

ALPHABET_TEXT = "".join(np.random.default_rng(0).choice(list("abcdefg"), 230))


def test_text_is_read_as_a_ring_each_row_from_its_own_place() -> None:
    task = tasks.char_text(ALPHABET_TEXT, T=7, batch_size=4, test_share=0.1)
    ring = ALPHABET_TEXT[:207]
    assert task.decode(task.train) == ring
    assert task.decode(task.test) == ALPHABET_TEXT[207:]
    for n in (0, 1, 2, 29, 1000):
        batch = task.batch(n)
        assert batch.mask is None
        for b in range(4):
            start = b * (207 // 4) + 7 * n
            expected = "".join(ring[(start + t) % 207] for t in range(8))
            assert task.decode(batch.x[:, b]) == expected[:-1]
            assert task.decode(batch.y[:, b]) == expected[1:]


def test_encode_and_decode_are_inverse_over_any_alphabet() -> None:
    text = "Ünïcode — naïve 漢字 \n\t" * 40
    task = tasks.char_text(text, T=4, batch_size=2)
    assert task.characters == "".join(sorted(set(text)))
    assert task.size == len(set(text))
    assert task.decode(task.encode(text)) == text
    np.testing.assert_array_equal(np.concatenate((task.train, task.test)), task.encode(text))
    assert task.encode("").shape == (0,)


def test_the_text_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(ALPHABET_TEXT + "é", encoding="utf-8")
    for given in (path, str(path)):
        assert tasks.char_text(given, T=4, batch_size=2).characters == "abcdefgé"
    with pytest.raises(FileNotFoundError):
        tasks.char_text(tmp_path / "missing.txt")


def test_the_default_text_is_the_python_reference_each_paragraph_once() -> None:
    text = tasks.python_reference()
    paragraphs = text.split("\n\n")
    assert len(set(paragraphs)) == len(paragraphs)
    assert len(text) > 300_000
    task = tasks.char_text()
    assert task.decode(task.train) + task.decode(task.test) == text
    assert len(task.test) == round(len(text) * 0.1)


@pytest.mark.parametrize(("T", "batch_size"), [(7, 4), (3, 8)])
def test_a_text_has_one_batch_to_train_on_and_two_characters_to_test(T: int, batch_size: int) -> None:
    text = "abcdefghij"
    task = tasks.char_text(text, T=T, batch_size=batch_size, test_share=0.2)
    assert (task.decode(task.train), task.decode(task.test)) == (text[:8], text[8:])
    for test_share in (0.3, 0.1):  # 7 and 3 characters, 9 and 1
        with refuses(ValueError, "text"):
            tasks.char_text(text, T=T, batch_size=batch_size, test_share=test_share)


def character_model(task: tasks.CharText) -> rl.SequenceModel:
    """An untrained writer; large recurrent weights make its state, and so its text, depend on the past."""
    cell = rl.LSTMCell(task.size, 8, rng=0)
    cell = cell.with_params({name: 4 * p for name, p in cell.params.items()})
    readout = rl.Dense(8, task.size, rng=1)
    readout = readout.with_params({name: 4 * p for name, p in readout.params.items()})
    return rl.SequenceModel(cell, readout, rl.softmax_cross_entropy)


def test_samples_are_decided_by_the_seed() -> None:
    task = tasks.char_text(ALPHABET_TEXT, T=7, batch_size=4)
    model = character_model(task)
    texts = [task.sample(model, 60, seed, prompt="a") for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 60
    assert set(texts[0]) <= set(task.characters)
    rng = np.random.default_rng(0)
    assert task.sample(model, 60, rng, prompt="a") == texts[0] != task.sample(model, 60, rng, prompt="a")


def test_sampling_carries_the_state_from_character_to_character() -> None:
    """At a temperature near 0 each character is the likeliest after the whole text so far, read at once."""
    task = tasks.char_text(ALPHABET_TEXT, T=7, batch_size=4)
    model = character_model(task)
    text = "abc"
    for _ in range(30):
        outputs, _ = model.predict(task.encode(text)[:, None])
        text += task.decode(outputs[-1].argmax(axis=-1))
    assert len(set(text[3:])) > 1
    assert task.sample(model, 30, 0, prompt="abc", temperature=1e-9) == text[3:]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_softmax_of_outputs_over_temperature(temperature: float) -> None:
    task = tasks.char_text("abcd" * 50, T=4, batch_size=2)
    readout = rl.Dense(2, 4, rng=0).with_params({"W": np.zeros((2, 4)), "b": np.array([[0.0, 1.0, -1.0, 0.5]])})
    model = rl.SequenceModel(rl.RNNCell(4, 2, rng=0), readout, rl.softmax_cross_entropy)
    weights = [math.exp(v / temperature) for v in (0.0, 1.0, -1.0, 0.5)]
    n = 3000
    counts = collections.Counter(task.sample(model, n, 0, prompt="a", temperature=temperature))
    for character, weight in zip("abcd", weights, strict=True):
        p = weight / sum(weights)
        assert abs(counts[character] - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_bits_per_character_is_the_mean_over_the_test_text_read_once() -> None:
    task = tasks.char_text(ALPHABET_TEXT, T=7, batch_size=4, test_share=0.5)
    model = character_model(task)
    state: Any = None
    bits = []
    for now, following in zip(task.test[:-1], task.test[1:], strict=True):
        outputs, state = model.predict(np.array([[now]]), state)
        row = outputs[0, 0].tolist()
        bits.append(-math.log2(math.exp(row[following]) / sum(math.exp(v) for v in row)))
    assert task.bits_per_character(model) == pytest.approx(sum(bits) / len(bits), rel=1e-12)


# ---- n-grams ----------------------------------------------------------------------------------


def witten_bell_bits(train: str, test: str, n: int, size: int) -> float:
    """The recursion of Witten and Bell 1991 with dictionaries, one character at a time."""
    followers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for order in range(n):
        for end in range(order, len(train)):
            followers[train[end - order : end]][train[end]] += 1

    def p(context: str, character: str) -> float:
        shorter = p(context[1:], character) if context else 1 / size
        seen = followers.get(context)
        if not seen:
            return shorter
        return (seen[character] + len(seen) * shorter) / (sum(seen.values()) + len(seen))

    text, bits = train + test, []
    for end in range(len(train), len(text)):
        bits.append(-math.log2(p(text[end - n + 1 : end], text[end])))
    return sum(bits) / len(bits)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_ngram_bits_equal_a_dictionary_implementation(n: int) -> None:
    text = "she sells sea shells on the sea shore; the shells she sells are sea shells, i am sure. " * 3
    text += "so if she sells shells on the quiet shore, zebras!"
    task = tasks.char_text(text, T=4, batch_size=2, test_share=0.3)
    train, test = task.decode(task.train), task.decode(task.test)
    found = tasks.ngram_bits(task.train, task.test, n)
    assert found == pytest.approx(witten_bell_bits(train, test, n, task.size), rel=1e-12)


def test_ngram_bits_of_a_text_that_repeats_fall_with_n() -> None:
    task = tasks.char_text("abcabd" * 100, T=4, batch_size=2)
    bits = [tasks.ngram_bits(task.train, task.test, n) for n in (1, 2, 4)]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] == pytest.approx(-2 * math.log2(1 / 3) / 3 - math.log2(1 / 6) / 3, abs=0.02)
    assert bits[2] < 0.05


def test_every_character_counts_the_one_of_number_0_too() -> None:
    text = "ab\0c" * 50
    task = tasks.char_text(text, T=5, batch_size=2)
    assert task.characters == "\0abc"
    assert task.decode(task.train) + task.decode(task.test) == text
    np.testing.assert_array_equal(task.encode("c\0"), [3, 0])


@pytest.mark.parametrize("temperature", [1e-300, 1e-310, 5e-324])
def test_the_lowest_temperatures_take_the_likeliest(temperature: float) -> None:
    task = tasks.char_text("abcd" * 50, T=4, batch_size=2)
    readout = rl.Dense(2, 4, rng=0).with_params({"W": np.zeros((2, 4)), "b": np.array([[1.0, 3.0, 2.0, 0.5]])})
    model = rl.SequenceModel(rl.RNNCell(4, 2, rng=0), readout, rl.softmax_cross_entropy)
    assert task.sample(model, 5, 0, prompt="a", temperature=temperature) == "bbbbb"


@pytest.mark.parametrize("kind", [list, lambda a: a.astype(np.uint8), lambda a: a.astype(np.uint64)])
def test_ngram_bits_read_any_integers(kind: Any) -> None:
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 5, 200), rng.integers(0, 5, 50)
    assert tasks.ngram_bits(kind(train), kind(test), 3) == tasks.ngram_bits(train, test, 3)
    far = 2**57  # beyond what a float tells apart
    assert tasks.ngram_bits(far + train.astype(np.uint64), far + test.astype(np.uint64), 1) == tasks.ngram_bits(
        far + train, far + test, 1
    )


def test_a_text_file_that_is_not_utf_8_is_named_with_the_remedy(tmp_path: Path) -> None:
    text, path = "caf\u00e9 au lait, s'il vous pla\u00eet. " * 20, tmp_path / "menu.txt"
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(
            ValueError, match=r"^text: expected a file in UTF-8, got '.*menu\.txt' with byte 0x.*encoding"
        ):
            tasks.char_text(path)
    path.write_bytes(text.encode("utf-8-sig"))  # with a byte-order mark, as some editors write it
    assert tasks.char_text(path).characters == tasks.char_text(text).characters
    with pytest.raises(ValueError, match=r"^text: expected more than 65 characters.*pass Path\('menu\.md'\)"):
        tasks.char_text("menu.md")
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        tasks.char_text(str(tmp_path / "absent.txt"))


def test_a_prompt_outside_the_alphabet_is_named_with_the_alphabet() -> None:
    task = tasks.char_text(ALPHABET_TEXT, T=7, batch_size=4)  # without a line's end, which is the default prompt
    with pytest.raises(ValueError, match=r"^prompt: expected .*got '\\n'; the alphabet is 'abc"):
        task.sample(character_model(task), 5, 0)


def test_a_model_of_another_alphabet_of_the_same_size_is_refused() -> None:
    task = tasks.char_text(ALPHABET_TEXT, T=7, batch_size=4)
    model = character_model(task)
    rl.Trainer(model, rl.SGD(0.1)).fit(task, 1)
    other = tasks.char_text(ALPHABET_TEXT.upper(), T=7, batch_size=4)
    assert task.bits_per_character(model) > 0
    with refuses(ValueError, "model"):
        other.bits_per_character(model)
    with refuses(ValueError, "model"):
        other.sample(model, 3, 0, prompt="A")


def test_the_score_is_an_error_where_answers_are_floats_whatever_the_loss() -> None:
    def half(prediction: Any, target: Any, mask: Any = None) -> Any:
        loss, d = rl.mean_squared_error(prediction, target, mask)
        return loss / 2, d / 2

    task = rl.tasks.adding(8)
    other = replace(task, loss=half)
    model = rl.SequenceModel(rl.RNNCell(2, 3, rng=0), rl.Dense(3, 1, rng=1), half)
    assert other.score(model) == task.score(model)
    assert other.solved(0.005)
    assert not other.solved(0.5)
