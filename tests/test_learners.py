"""Learners' code: what is called wrong has a wrong gradient, what is called right a right one; both by differences."""

import pytest
from learners import Case, cases, error

ALL = cases("all")


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_the_case_is_what_it_says(case: Case) -> None:
    if case.kind == "right":
        assert error(case) < 1e-6
    else:
        assert error(case) > 1e-3
        assert all(case.accepted)
