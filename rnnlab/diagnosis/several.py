"""Several mistakes at once: one edit after the other, or two places that together mend everything."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from rnnlab.diagnosis.locate import directions, solve, suspects
from rnnlab.diagnosis.search import Search
from rnnlab.diagnosis.trials import Repair, on_other_numbers
from rnnlab.proof.exact import gradient

MOST_MISTAKES = 4
MOST_PAIRS = 6  # of places that are looked at closely


def several(search: Search, method: str, rng: Any) -> tuple[list[Repair], bool]:
    """Several mistakes: first over one time step, where each stands alone, then over all; whether all are mended."""
    found, remake = list[Repair](), search.case.remake
    search.most = 2 * search.most // 3
    search.seen.clear()
    if remake is not None and search.case.steps > 1:
        short = remake(rng, True)
        try:
            claims = short.claims()
        except Exception:  # an index may be out of range there
            claims = {}
        exact = dict(claims)  # a loss among them is what it is
        exact |= {n: gradient(partial(short.loss, n), x, method) for n, x in short.inputs.items() if n in claims}
        shorter = Search(short, exact, search.functions, on_other_numbers(remake(rng, True), method, rng))
        shorter.most = search.most
        if claims and shorter.wrong(shorter.wanted.vector(claims)).any():
            found, right = all_repairs(shorter, MOST_MISTAKES)
            search.current = shorter.current
            now = search.run([]) if right else None
            if not right or (now is not None and not search.wrong(now).any()):
                return found, right
    more, right = all_repairs(search, MOST_MISTAKES)
    return found + more, right


def all_repairs(search: Search, most: int) -> tuple[list[Repair], bool]:
    """One edit after another until everything is right, and whether it is."""
    found = list[Repair]()
    while len(found) < most:
        repair = search.repair() or search.partial
        if repair is None:
            two_places(search)
            repair = search.partial
        if repair is None:
            return found, False
        found.append(repair)
        search.accept(repair.edit)
        if not repair.left:
            return found, True
    return found, False


def two_places(search: Search) -> None:
    """Two places that together make everything right; then `partial` mends one of them."""
    wrong = search.wrong(search.claimed)
    search.runs = solved = 0
    reached = search.reached or suspects(search.run, search.functions, search.claimed, wrong)
    moves = [d for place in reached if (d := directions(search.run, place, search.claimed)) is not None]
    for pair in itertools.combinations(moves, 2):
        if pair[0].place.statement is not pair[1].place.statement:
            corrections = solve(search.run, pair, search.claimed, search.wanted.exact)
            solved += bool(corrections)
            for correction in corrections:
                search.located = search.located or correction
                search.tried(itertools.chain(search.fitting(correction), search.suggested([correction])), 100)
            if search.partial is not None or solved == MOST_PAIRS:
                return
