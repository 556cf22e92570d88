"""How long a back-off waits."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam.actors.core import Backoff, steady

chances = st.floats(0, 1, exclude_max=True)


@st.composite
def backoffs(draw: st.DrawFn) -> Backoff:
    first = draw(st.floats(0.001, 100))
    return Backoff(
        first=first,
        factor=draw(st.floats(1, 1000)),
        most=draw(st.floats(first, 100_000)),
        jitter=draw(st.floats(0, 0.99)),
    )


@given(backoffs(), st.integers(1, 100_000), chances)
def test_a_delay_is_never_zero_and_never_above_most(backoff: Backoff, attempt: int, chance: float) -> None:
    """Chance only shortens, by at most its share; no attempt is too high for a float."""
    longest = backoff.delay(attempt, steady)
    assert 0 < longest <= backoff.most
    delay = backoff.delay(attempt, lambda: chance)
    assert longest * (1 - backoff.jitter) <= delay <= longest


@given(backoffs(), st.integers(1, 2000))
def test_delays_do_not_shrink_from_attempt_to_attempt(backoff: Backoff, attempt: int) -> None:
    """Without chance, a later attempt waits at least as long."""
    assert backoff.delay(attempt, steady) <= backoff.delay(attempt + 1, steady)


def test_delays_grow_by_the_factor_up_to_most() -> None:
    """The first is `first`, the last is `most`."""
    backoff = Backoff(first=1, factor=2, most=5, jitter=0.5)
    assert [backoff.delay(attempt, steady) for attempt in (1, 2, 3, 4, 5000)] == [1, 2, 4, 5, 5]
    assert backoff.delay(2, lambda: 0.5) == 1.5


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"first": 0}, "first"),
        ({"factor": 0.5}, "factor"),
        ({"most": 0.5}, "most"),
        ({"jitter": 1}, "jitter"),
        ({"first": float("nan")}, "first"),
        ({"factor": float("inf")}, "factor"),
    ],
)
def test_a_backoff_that_would_not_wait_is_refused(fields: dict[str, float], named: str) -> None:
    """Also where it is decoded from a file: the error names the field."""
    with pytest.raises(ValueError, match=f"`{named}` must"):
        Backoff(**fields)


def test_a_wrong_backoff_in_a_file_is_a_validation_error() -> None:
    """msgspec reports it like any other mistake of a topology."""
    with pytest.raises(msgspec.ValidationError, match="`first` must"):
        msgspec.convert({"first": -1}, Backoff)


def test_attempts_are_counted_from_one() -> None:
    """There is no delay before the first attempt to ask for."""
    with pytest.raises(ValueError, match="from 1, got 0"):
        Backoff().delay(0, steady)
