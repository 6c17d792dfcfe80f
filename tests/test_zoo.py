"""The bug zoo: mutants are caught, and the line is named and mended; nothing that is right is blamed.

`python -m tests.zoo` does the same for every mutant; here stand samples, so that the suite stays short.
"""

import numpy as np
import pytest
from zoo import ANIMALS, MECHANICAL, PAIRS, RIGHT, Animal, fails_gradient_check, judge, judge_mechanical, mutant
from zoo import random_right_case as right_case

import rnnlab as rl

CHECKED = [animal for animal in ANIMALS if animal.gradient]
QUICK = [a for a in CHECKED if a.number in ("1", "2", "3", "6", "7", "15", "19", "20")][::3]


@pytest.mark.parametrize("animal", CHECKED, ids=lambda animal: animal.name)
def test_check_gradients_fails(animal: Animal) -> None:
    assert fails_gradient_check(animal.make())


@pytest.mark.parametrize("animal", QUICK, ids=lambda animal: animal.name)
def test_diagnose_names_the_line_and_mends_it(animal: Animal) -> None:
    verdict = judge(animal)
    assert verdict.located, verdict.report
    assert verdict.explained, verdict.report


def test_the_list_is_complete() -> None:
    numbers = {n for animal in ANIMALS if animal.number != "own" for n in animal.number.split(", ")}
    assert numbers == {str(n) for n in range(1, 21)}


def test_two_mistakes_at_once_are_both_mended() -> None:
    report = rl.diagnose(PAIRS[0](3, 4, rng=3))
    assert len(report.findings) == 2, str(report)
    assert all(f.repair for f in report.findings)


@pytest.mark.parametrize("base", MECHANICAL)
def test_mechanical_mutants_are_found_and_mended(base: type[rl.Cell]) -> None:
    (mutants, found, explained, _), told = judge_mechanical(base, every=30)
    assert mutants > 0
    assert found == mutants, told
    assert explained >= 0.8 * mutants, told


@pytest.mark.parametrize("chunk", range(4))
def test_right_cells_are_not_blamed(chunk: int) -> None:
    blamed = {n: report for n in range(chunk, 160, 4) if not (report := rl.diagnose(right_case(n), rng=n)).ok}
    assert not blamed, "\n".join(map(str, blamed.values()))


@pytest.mark.parametrize("base", RIGHT)
def test_right_cells_pass_the_gradient_check(base: type[rl.Cell]) -> None:
    rl.check_gradients(base(3, 4, rng=3))


@pytest.mark.parametrize(("T", "B", "H"), [(1, 1, 1), (1, 3, 2), (2, 1, 3), (7, 2, 8)])
def test_right_cells_of_any_size(T: int, B: int, H: int) -> None:
    for base in RIGHT:
        report = rl.diagnose(base(2, H, rng=T), T=T, B=B)
        assert report.ok, str(report)


def test_identical_gates_are_named_and_alike_matrices_on_purpose_are_not() -> None:
    cell = rl.LSTMCell(4, 4, rng=0, input_init="identity", recurrent_init="identity")
    assert rl.diagnose(cell).ok
    same = rl.LSTMCell(4, 4, rng=0)
    same.params["W_x"][1] = same.params["W_x"][3]
    (finding,) = rl.diagnose(same).findings
    assert finding.kind == "identical gates"
    assert "forget and output" in finding.what


def test_a_piece_of_text_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="0 times, not once"):
        mutant(rl.LSTMCell, "step_backward", ("no such text", ""))


@pytest.mark.parametrize("size", [1e-4, 0.1, 7.0])
def test_a_planted_factor_of_any_size_is_found_and_removed(size: float) -> None:
    base = mutant(rl.RNNCell, "recurrent_grads", ("outer_products(", f"{1 + size} * outer_products("))
    (finding,) = rl.diagnose(base(3, 4, rng=0)).findings
    assert finding.outputs == ("W_h",)
    assert f"{1 + size}" not in str(finding.repair)


def test_hidden_sizes_of_users_are_diagnosed_too() -> None:
    base = mutant(rl.LSTMCell, "step_backward", ("d_c * g * i", "d_c * i"))
    (finding,) = rl.diagnose(base(5, 40, rng=0)).findings
    assert "factor is missing: g" in finding.what
    assert np.all([w in finding.text for w in ("d_i", "d_c * i")])
