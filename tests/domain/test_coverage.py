"""Coverage counts the claims over every moment, whatever the order in which they come and go."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.coverage import Segment, claim, missing, withdraw

END = 24
Span = tuple[int, int]
spans = (
    st.tuples(st.integers(0, END), st.integers(0, END)).filter(lambda s: s[0] != s[1]).map(lambda s: (min(s), max(s)))
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Span]]:
    """Claims, some of them withdrawn later, in any order."""
    steps: list[tuple[str, Span]] = []
    standing: list[Span] = []
    for _ in range(draw(st.integers(0, 14))):
        if standing and draw(st.booleans()):
            steps.append(("withdraw", standing.pop(draw(st.integers(0, len(standing) - 1)))))
        else:
            standing.append(draw(spans))
            steps.append(("claim", standing[-1]))
    return steps


def changed(segments: list[Segment], step: str, start: int, end: int) -> list[Segment]:
    """As a ledger does it: only the segments that touch the span are read and replaced."""
    touched = [s for s in segments if s.end >= start and s.start <= end]
    after = (claim if step == "claim" else withdraw)(touched, start, end)
    return sorted([s for s in segments if s not in touched] + after)


def played(steps: list[tuple[str, Span]]) -> list[Segment]:
    segments: list[Segment] = []
    for step, span in steps:
        segments = changed(segments, step, *span)
    return segments


def counted(steps: list[tuple[str, Span]]) -> list[int]:
    """Claims over each unit of time, by counting."""
    return [
        sum((1 if step == "claim" else -1) for step, (start, end) in steps if start <= at < end) for at in range(END)
    ]


@settings(deadline=None)
@given(histories())
def test_coverage_equals_a_count(steps: list[tuple[str, Span]]) -> None:
    """At every moment the segments say how many claims lie there; segments are disjoint, maximal and in order."""
    segments = played(steps)
    found = [sum(s.claims for s in segments if s.start <= at < s.end) for at in range(END)]
    assert found == counted(steps)
    assert all(s.start < s.end and s.claims > 0 for s in segments)
    assert all(a.end < b.start or (a.end == b.start and a.claims != b.claims) for a, b in pairwise(segments))


@settings(deadline=None)
@given(st.lists(spans, max_size=6).flatmap(lambda all_: st.tuples(st.just(all_), st.permutations(all_))))
def test_the_order_of_claims_does_not_matter(orders: tuple[list[Span], list[Span]]) -> None:
    """Coverage is a function of the set of claims."""
    one, other = orders
    assert played([("claim", span) for span in one]) == played([("claim", span) for span in other])


@settings(deadline=None)
@given(st.lists(spans, max_size=6).flatmap(lambda all_: st.tuples(st.just(all_), st.permutations(all_))))
def test_withdrawing_everything_leaves_nothing(orders: tuple[list[Span], list[Span]]) -> None:
    """Whatever was claimed and withdrawn leaves no trace."""
    one, other = orders
    assert played([*(("claim", span) for span in one), *(("withdraw", span) for span in other)]) == []


@settings(deadline=None)
@given(histories(), spans)
def test_missing_is_what_nobody_claims(steps: list[tuple[str, Span]], window: Span) -> None:
    """missing gives, in order and joined, the parts of a span without any claim."""
    start, end = window
    gaps = missing(played(steps), start, end)
    bare = {at for at, claims in enumerate(counted(steps)) if claims == 0 and start <= at < end}
    assert {at for low, high in gaps for at in range(low, high)} == bare
    assert all(a[1] < b[0] for a, b in pairwise(gaps))


@pytest.mark.parametrize("span", [(0, 5), (4, 12), (10, 20), (2, 30)])
def test_what_was_never_claimed_cannot_be_withdrawn(span: Span) -> None:
    """Taking a claim away where there is none, even in part, is an error."""
    with pytest.raises(ValueError, match="to withdraw"):
        withdraw([Segment(5, 10, 1)], *span)


def test_touching_claims_join() -> None:
    """Two claims end to end are one segment; so are the pieces around a claim that was taken back."""
    segments = claim(claim([], 0, 5), 5, 9)
    assert segments == [Segment(0, 9, 1)]
    assert withdraw(claim(segments, 3, 6), 3, 6) == segments
