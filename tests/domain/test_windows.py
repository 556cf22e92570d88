"""Windows are `[k·span, (k+1)·span)` from the Unix epoch, before 1970 too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain import windows
from ionbeam.domain.windows import by_window, ceil_micros, due_at, floor_micros, micros, moment, window_start
from ionbeam.schemas.duration import Duration

SECOND = 1_000_000
spans = st.integers(1, 500_000).map(lambda seconds: Duration(timedelta(seconds=seconds)))
nanoseconds = st.integers(-(2**63) + 1, 2**63 - 1)


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)))
def test_micros_and_moment_are_inverse(at: datetime) -> None:
    """A UTC time is one number of microseconds, and that number is the time again."""
    assert moment(micros(at)) == at


def test_micros_counts_from_the_epoch_in_any_zone() -> None:
    """The offset of a time counts, its zone does not."""
    zone = timezone(timedelta(hours=5, minutes=30))
    assert micros(datetime(1970, 1, 1, 5, 30, 0, 1, tzinfo=zone)) == 1
    assert micros(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1


@pytest.mark.parametrize(("at", "year"), [(-(2**62), 1), (2**62, 9999)])
def test_moments_outside_of_datetime_are_clipped(at: int, year: int) -> None:
    """A moment before the year 1 or after 9999 is the first or last one that datetime has."""
    assert moment(at).year == year


@settings(deadline=None)
@given(nanoseconds)
def test_microseconds_are_rounded_outwards(at: int) -> None:
    """floor and ceil give the two microseconds around a nanosecond, the same one when it is whole."""
    low, high = micros(floor_micros(at)), micros(ceil_micros(at))
    assert low * 1000 <= at <= high * 1000
    assert high - low == (0 if at % 1000 == 0 else 1)


@settings(deadline=None)
@given(st.integers(-(2**55), 2**55), spans)
def test_a_window_holds_its_time(at: int, span: Duration) -> None:
    """The window of a microsecond starts at a multiple of the span, not after it and less than a span before."""
    start = window_start(at, span)
    assert Fraction(start, span.microseconds).denominator == 1
    assert start <= at < start + span.microseconds


@pytest.mark.parametrize(
    ("at", "start"),
    [
        (0, 0),
        (-1, -3600),
        (3600 * SECOND - 1, 0),
        (3600 * SECOND, 3600),
        (-3600 * SECOND, -3600),
        (-3601 * SECOND, -7200),
    ],
)
def test_borders_belong_to_the_window_that_starts_there(at: int, start: int) -> None:
    """A window includes its start and excludes its end, on both sides of 1970."""
    assert window_start(at, Duration("PT1H")) == start * SECOND


@settings(deadline=None)
@given(st.lists(st.integers(-5_000, 5_000), min_size=1), st.integers(1, 700), st.sampled_from([1, 999_999_937]))
def test_rows_are_cut_at_the_borders(seconds: list[int], span: int, off: int) -> None:
    """by_window gives each row once, in order, under the window of its own time, one piece a window."""
    times = sorted(
        second * 1_000_000_000 + chance for second, chance in zip(seconds, [0, -1, off] * len(seconds), strict=False)
    )
    table = pa.table({"timestamp": pa.array(times, pa.int64()), "n": list(range(len(times)))})
    cut = list(by_window(table, Duration(timedelta(seconds=span))))
    starts = [start for start, _ in cut]
    assert starts == sorted(set(starts))
    assert [n for _, piece in cut for n in piece["n"].to_pylist()] == list(range(len(times)))
    for start, piece in cut:
        assert {time // (span * 10**9) * span * SECOND for time in piece["timestamp"].to_pylist()} == {start}


def test_rows_are_cut_at_the_ends_of_time() -> None:
    """The first and the last instant of timestamp[ns] have windows."""
    times = [-(2**63) + 1, -1, 0, 2**63 - 1]
    cut = list(by_window(pa.table({"timestamp": pa.array(times, pa.int64())}), Duration("P1D")))
    day = 86_400 * SECOND
    assert [start for start, _ in cut] == [(time // 1000) // day * day for time in times]


def test_a_window_is_due_at_its_end_or_later() -> None:
    """Due is the window's end plus the time for which it is subject to change."""
    assert due_at(-3600 * SECOND, Duration("PT1H"), Duration("PT0S")) == 0
    assert due_at(0, Duration("PT1H"), Duration("PT10M")) == 4200 * SECOND
    assert datetime(1970, 1, 1, tzinfo=UTC) == windows.EPOCH
