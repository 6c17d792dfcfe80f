"""The bug zoo: every mutant is caught, located and named; nothing that is right is blamed."""

import numpy as np
import pytest
from zoo import (
    ANIMALS,
    MECHANICAL,
    PAIRS,
    RIGHT,
    Animal,
    fails_gradient_check,
    judge,
    judge_mechanical,
    mutant,
    named,
    random_right_case,
)

import rnnlab as rl

UNEXPLAINED = {"missing transpose, no step to compare with"}  # backward alone, without a step: located in time only
CASES, CHUNKS = 1000, 20
CHECKED = [animal for animal in ANIMALS if animal.gradient]


@pytest.mark.parametrize("animal", CHECKED, ids=lambda animal: animal.name)
def test_check_gradients_fails(animal: Animal) -> None:
    assert fails_gradient_check(animal.make())


@pytest.mark.parametrize("animal", ANIMALS, ids=lambda animal: animal.name)
def test_diagnose_names_place_and_term(animal: Animal) -> None:
    verdict = judge(animal)
    assert verdict.located, verdict.report
    assert not verdict.blamed, verdict.report
    assert verdict.explained != (animal.mistake in UNEXPLAINED), verdict.report


def test_the_list_is_complete() -> None:
    numbers = {n for animal in ANIMALS if animal.number != "own" for n in animal.number.split(", ")}
    assert numbers == {str(n) for n in range(1, 21)}


@pytest.mark.parametrize(("base", "where"), PAIRS)
def test_two_mistakes_at_once_are_located(base: type[rl.Cell], where: tuple[str, ...]) -> None:
    report = rl.diagnose(base(3, 4, rng=3))
    outputs = tuple(output for finding in report.findings for output in finding.outputs)
    assert all(named(outputs, place) for place in where), str(report)


@pytest.mark.parametrize("base", MECHANICAL)
def test_mechanical_mutants_are_found_and_nothing_else_is_blamed(base: type[rl.Cell]) -> None:
    (mutants, found, explained, blamed), told = judge_mechanical(base, every=3)
    assert mutants > 3
    assert found == mutants, told
    assert blamed == 0, told
    assert explained >= 0.8 * mutants


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_right_cells_are_not_blamed(chunk: int) -> None:
    blamed = {
        n: report for n in range(chunk, CASES, CHUNKS) if not (report := rl.diagnose(random_right_case(n), rng=n)).ok
    }
    assert not blamed, "\n".join(map(str, blamed.values()))


@pytest.mark.parametrize("base", RIGHT)
def test_right_cells_pass_the_gradient_check(base: type[rl.Cell]) -> None:
    rl.check_gradients(base(3, 4, rng=3))


@pytest.mark.parametrize(("T", "B", "H"), [(1, 1, 1), (1, 3, 2), (2, 1, 3), (7, 2, 8)])
def test_right_cells_of_any_size(T: int, B: int, H: int) -> None:
    for base in RIGHT:
        report = rl.diagnose(base(2, H, rng=T), T=T, B=B)
        assert report.ok, str(report)


def test_identical_gates_are_told_and_alike_matrices_on_purpose_are_not() -> None:
    cell = rl.LSTMCell(4, 4, rng=0, input_init="identity", recurrent_init="identity")
    assert rl.diagnose(cell).ok
    same = rl.LSTMCell(4, 4, rng=0)
    same.params["W_x"][1] = same.params["W_x"][3]
    (finding,) = rl.diagnose(same).findings
    assert finding.kind == "identical gates"
    assert "forget and output" in finding.sentence


def test_a_piece_of_text_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times, not once"):
        mutant(rl.LSTMCell, "step_backward", ("no such text", ""))


def test_a_planted_factor_of_any_size_is_found() -> None:
    for size in (1e-6, 1e-3, 0.1, 7.0):
        base = mutant(rl.RNNCell, "recurrent_grads", ("outer_products(", f"{1 + size} * outer_products("))
        (finding,) = rl.diagnose(base(3, 4, rng=0)).findings
        assert finding.outputs == ("params[W_h][candidate]",)
        assert finding.kind == ("scale" if size > 3e-6 else "float32")


def test_hidden_sizes_of_users_are_diagnosed_too() -> None:
    base = mutant(rl.LSTMCell, "step_backward", ("d_c * g * i", "d_c * i"))
    (finding,) = rl.diagnose(base(5, 40, rng=0)).findings
    assert finding.outputs == ("d_a[input]",)
    assert "lacks the factor g" in finding.sentence
    assert np.isfinite(finding.residual or 0.0)
