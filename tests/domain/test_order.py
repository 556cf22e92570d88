"""The total order of rows: time, then the identity columns (nulls first, text by code point), then precedence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.order import order

# U+FF5E sorts before U+1F600 by code point, after it by UTF-16 units.
LETTERS = "aAzZ~é\u0301\ud7ff\ue000\uff5e\U0001f600\U0010ffff\x00\t\u200f"
words = st.one_of(st.none(), st.text(st.sampled_from(LETTERS), max_size=3))
Row = tuple[Any, ...]


def expected(rows: Sequence[Row]) -> list[int]:
    """Places in order, by Python's own sort of code points; equal identities keep their order."""
    return sorted(range(len(rows)), key=lambda at: [_key(value) for value in rows[at]])


def _key(value: Any) -> tuple[int, Any]:
    if value is None:
        return (0, 0)
    return (1, [ord(c) for c in value]) if isinstance(value, str) else (1, value)


def check(rows: Sequence[Row], table: pa.Table, identity: Sequence[str]) -> None:
    found = order(table, identity)
    places = list(range(len(rows))) if found.places is None else found.places.tolist()
    wanted = expected(rows)
    assert places == wanted
    before: list[Row | None] = [None, *(rows[at] for at in wanted[:-1])] if wanted else []
    assert found.starts.tolist() == [rows[at] != other for at, other in zip(wanted, before, strict=True)]
    assert found.distinct == (len(set(rows)) == len(rows))


def table_of(rows: Sequence[Row], cut: int = 0, dictionary: bool = False) -> pa.Table:
    """Rows of (time, text, text) as a table in two chunks, with dictionaries that differ between them."""

    def part(some: Sequence[Row]) -> pa.Table:
        columns = {name: pa.array([row[at] for row in some], pa.string()) for at, name in ((1, "a"), (2, "b"))}
        if dictionary:
            columns = {name: column.dictionary_encode() for name, column in columns.items()}
        return pa.table({"timestamp": pa.array([row[0] for row in some], pa.int64()), **columns})

    return pa.concat_tables([part(rows[:cut]), part(rows[cut:])])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), words, words), max_size=30),
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from([1, 7, 10**9, 2**50]),
)
def test_rows_are_ordered_by_time_then_text(rows: list[Row], cut: int, dictionary: bool, step: int) -> None:
    """Any rows, chunking, encoding and resolution of time: the order of a plain sort."""
    rows = [(time * step, a, b) for time, a, b in rows]
    check(rows, table_of(rows, cut, dictionary), ["a", "b"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63) + 1, 2**63 - 1), words), max_size=20))
def test_times_far_apart_are_ordered(rows: list[Row]) -> None:
    """Instants from one end of timestamp[ns] to the other do not wrap around."""
    check(rows, table_of([(*row, None) for row in rows]), ["a"])


positions = st.sampled_from([-180.0, -1.5, -0.0, 0.0, 5e-324, 1.5, 180.0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), positions, positions), max_size=30))
def test_rows_are_ordered_by_position(rows: list[Row]) -> None:
    """Where the position is the identity, numbers order rows, and −0.0 is 0.0."""
    columns = {name: pa.array([row[at] for row in rows], pa.float64()) for at, name in ((1, "lat"), (2, "lon"))}
    check(rows, pa.table({"timestamp": pa.array([row[0] for row in rows], pa.int64()), **columns}), ["lat", "lon"])


@pytest.mark.parametrize(
    ("spread", "kinds"),
    [(10, 3), (1 << 45, 3), (1 << 57, 3), (1 << 61, 5000), ((1 << 62) + 1, 3)],
    ids=["packed", "packed_long", "argsort", "lexsort_bits", "lexsort_times"],
)
def test_every_way_of_sorting_gives_the_same_order(spread: int, kinds: int) -> None:
    """Short keys are sorted as values, longer ones by place, the longest by columns: one order."""
    chance = np.random.default_rng(spread % 1000)
    size = 6000
    times = chance.integers(0, 50, size) * (spread // 50)
    times[:2] = 0, spread
    times[2:] += chance.integers(0, 2, size - 2)  # no common step to divide by
    rows = [(int(t), f"{k:05d}", None) for t, k in zip(times, chance.integers(0, kinds, size), strict=True)]
    check(rows, table_of(rows), ["a"])


@pytest.mark.parametrize("columns", [2, 7])
def test_many_identity_columns_do_not_overflow(columns: int) -> None:
    """More combinations of identities than fit into 62 bits are still told apart."""
    chance = np.random.default_rng(7)
    size = 3000
    ranks = chance.integers(0, 2500, (columns, size))
    ranks[:, : size // 2] = ranks[:, size // 2 :]
    times = np.tile(chance.integers(0, 3, size // 2), 2)
    names = [f"c{n}" for n in range(columns)]
    table = pa.table({"timestamp": times, **{n: [f"{v:06d}" for v in r] for n, r in zip(names, ranks, strict=True)}})
    rows = [(int(t), *(f"{r[at]:06d}" for r in ranks)) for at, t in enumerate(times)]
    check(rows, table, names)


def test_rows_in_order_stay_where_they_are() -> None:
    """Rows that come in order are not moved at all."""
    rows = [(0, None, "x"), (0, "", "x"), (0, "a", "x"), (0, "a", "x"), (1, None, "x")]
    assert order(table_of(rows), ["a", "b"]).places is None


def test_no_rows() -> None:
    """An empty table is in order and distinct."""
    found = order(table_of([]), ["a"])
    assert found.places is None
    assert found.distinct


def test_precedence_decides_between_equal_identities() -> None:
    """Rows of one identity keep the order in which they came, and only the first begins a group."""
    rows = [(5, "b", None), (5, "a", None), (5, "b", None), (5, "a", None), (5, "b", None)]
    found = order(table_of(rows), ["a"])
    assert found.places is not None
    assert found.places.tolist() == [1, 3, 0, 2, 4]
    assert found.starts.tolist() == [True, False, True, False, False]
    assert not found.distinct
