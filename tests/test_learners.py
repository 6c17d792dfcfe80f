"""Learners' code: what is called wrong has a wrong gradient, what is called right a right one; the score is strict."""

from types import SimpleNamespace
from typing import Any

import pytest
from learners import Case, cases, error, judge, simple_statements

import rnnlab as rl

ALL = cases("all")
WRONG = [case for case in ALL if case.kind != "right"]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_the_case_is_what_it_says(case: Case) -> None:
    if case.kind == "right":
        assert error(case) < 1e-6
    else:
        assert error(case) > 1e-3
        assert all(case.accepted)


def told(monkeypatch: pytest.MonkeyPatch, *places: tuple[int, str | None]) -> None:
    findings = [SimpleNamespace(line=line, repair=repair) for line, repair in places]
    monkeypatch.setattr(rl, "diagnose", lambda *_: SimpleNamespace(findings=findings))


def answers(case: Case) -> list[tuple[int, str]]:
    """The lines that differ from the right module, as a perfect report would give them."""
    wrong, right = case.source.split("\n"), case.base.source.split("\n")
    lines = [n for n, (a, b) in enumerate(zip(wrong, right, strict=True), 1) if a != b]
    spans = {min(s): s for n in lines for s in simple_statements(case.source) if n in s}
    return [(n, "\n".join(right[min(s) - 1 : max(s)])) for n, s in spans.items()]


SAME_LINES = [case for case in WRONG if case.source.count("\n") == case.base.source.count("\n")]


@pytest.mark.parametrize("case", SAME_LINES[::7], ids=lambda case: case.id)
def test_a_perfect_answer_is_explained_and_proven(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    places: Any = answers(case)
    told(monkeypatch, *places)
    score = judge(case)
    in_simple_statements = bool(places)
    assert score.explained == score.proven == score.line == in_simple_statements
    assert not score.false


def test_other_answers_are_scored_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in WRONG if case.id == "packed-step-06")
    ((line, repair),) = answers(case)
    told(monkeypatch)
    assert not judge(case).found
    told(monkeypatch, (line, None))
    assert judge(case).line
    assert not judge(case).explained
    told(monkeypatch, (line, "da_o = do * (1 - o)"))  # a repair that mends nothing
    assert judge(case).explained
    assert not judge(case).proven
    told(monkeypatch, (line + 1, repair))
    assert judge(case).false
    told(monkeypatch, (line, repair), (line + 1, "da_g = dg"))
    assert judge(case).false
    right = next(case for case in ALL if case.id == "packed-step")
    told(monkeypatch, (line, None))
    assert judge(right).false
    monkeypatch.setattr(rl, "diagnose", lambda *_: 1 / 0)
    assert "division" in judge(case).failure


def test_two_mistakes_need_two_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in WRONG if case.id == "packed-step-11")
    first, second = answers(case)
    told(monkeypatch, first)
    assert judge(case).line
    assert not judge(case).explained
    told(monkeypatch, first, second)
    assert judge(case).proven
