"""The counts of ingestions and windows, and the identities that they satisfy."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.accounting import NAMES, Counts, WindowCounts, conflicts_are_suspicious, total

numbers = st.integers(0, 50)
counts = st.builds(
    Counts,
    **dict.fromkeys((*NAMES, "ignored_columns"), numbers),
    reasons=st.dictionaries(st.sampled_from(["no_value", "time_missing"]), numbers),
    values=st.dictionaries(st.sampled_from(["t: not_finite", "p: missing_value"]), numbers),
)


@settings(deadline=None)
@given(numbers, numbers, numbers, numbers, st.dictionaries(st.text(max_size=3), numbers))
def test_an_ingestion_balances(a: int, d: int, m: int, c: int, reasons: dict[str, int]) -> None:
    """received = accepted + duplicate + merged + conflict + rejected, and the reasons add up to rejected."""
    rejected = sum(reasons.values())
    good = Counts(
        received=a + d + m + c + rejected,
        accepted=a,
        duplicate=d,
        merged=m,
        conflict=c,
        rejected=rejected,
        reasons=reasons,
    )
    assert good.balanced
    for name in NAMES:
        assert not msgspec.structs.replace(good, **{name: getattr(good, name) + 1}).balanced
    assert not msgspec.structs.replace(good, reasons={**reasons, "one more": 1}).balanced


@settings(deadline=None)
@given(numbers, numbers, numbers, numbers)
def test_a_window_balances(rows: int, duplicate: int, merged: int, conflict: int) -> None:
    """accepted = rows + duplicate + merged + conflict."""
    accepted = rows + duplicate + merged + conflict
    good = WindowCounts(accepted=accepted, rows=rows, duplicate=duplicate, merged=merged, conflict=conflict)
    assert good.balanced
    for name in ("accepted", "rows", "duplicate", "merged", "conflict"):
        assert not msgspec.structs.replace(good, **{name: getattr(good, name) + 1}).balanced


@settings(deadline=None)
@given(st.lists(counts, max_size=4))
def test_a_total_is_the_sum_of_each_count(many: list[Counts]) -> None:
    """Every number and every reason is added up; nothing at all is zero."""
    found = total(many)
    for name in (*NAMES, "ignored_columns"):
        assert getattr(found, name) == sum(getattr(one, name) for one in many)
    for name in ("reasons", "values"):
        keys = {key for one in many for key in getattr(one, name)}
        assert getattr(found, name) == {key: sum(getattr(one, name).get(key, 0) for one in many) for key in keys}


@pytest.mark.parametrize(
    ("conflicts", "received", "suspicious"),
    [(99, 99, False), (100, 199, True), (100, 200, False), (101, 200, True), (100, 100, True), (0, 0, False)],
)
def test_many_conflicts_are_suspicious(conflicts: int, received: int, suspicious: bool) -> None:
    """At least 100 conflicts that are more than half of the rows."""
    assert conflicts_are_suspicious(conflicts, received) is suspicious
