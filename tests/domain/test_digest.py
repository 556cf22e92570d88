"""The digest of rows: the same however they are cut, another one for any other rows."""

from __future__ import annotations

import struct
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.digest import RowsDigest

rows = st.lists(
    st.tuples(
        st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.0, 5e-324])),
        st.one_of(st.none(), st.sampled_from(["", "a", "ab", "\U0001f600"])),
        st.integers(-2, 2),
    ),
    max_size=12,
)
Row = tuple[float | None, str | None, int]


def table(some: list[Row]) -> pa.Table:
    kinds = (("x", pa.float64()), ("s", pa.string()), ("n", pa.int64()))
    return pa.table({name: pa.array([row[at] for row in some], kind) for at, (name, kind) in enumerate(kinds)})


def digest(*tables: pa.Table) -> str:
    found = RowsDigest()
    for one in tables:
        found.update(one)
    return found.hexdigest()


@settings(deadline=None)
@given(rows, st.lists(st.integers(0, 12), max_size=4))
def test_the_cut_does_not_matter(content: list[Row], cuts: list[int]) -> None:
    """One table, many, slices of one, with empty ones between: one digest."""
    whole = table(content)
    borders = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    assert digest(*(table(content[a:b]) for a, b in pairwise(borders))) == digest(whole)
    assert digest(*(whole.slice(a, b - a) for a, b in pairwise(borders))) == digest(whole)
    assert digest(pa.concat_tables([table(content[a:b]) for a, b in pairwise(borders)])) == digest(whole)


def _bits(row: Row) -> tuple[object, ...]:
    return (None if row[0] is None else struct.pack("d", row[0]), *row[1:])


@settings(deadline=None)
@given(rows.filter(len), rows.filter(len))
def test_other_rows_have_another_digest(one: list[Row], other: list[Row]) -> None:
    """Digests are equal exactly where the rows are, to the bit."""
    assert (digest(table(one)) == digest(table(other))) == ([*map(_bits, one)] == [*map(_bits, other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [([0.0], [-0.0]), ([None], [0.0]), ([1.0, None], [None, 1.0])],
)
def test_the_digest_sees_single_bits_and_nulls(one: list[float | None], other: list[float | None]) -> None:
    """Zeros of either sign differ, and so do a null and a zero."""
    assert digest(*(pa.table({"x": pa.array(one, pa.float64())}),)) != digest(
        pa.table({"x": pa.array(other, pa.float64())})
    )


def test_text_borders_count() -> None:
    """The same letters in other rows are other rows."""
    assert digest(pa.table({"s": ["ab", "c"]})) != digest(pa.table({"s": ["a", "bc"]}))


def test_what_lies_under_nulls_does_not_count() -> None:
    """Only values count, not what a buffer holds where there is none."""
    garbage = pa.Array.from_buffers(pa.float64(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(struct.pack("2d", 9.0, 1.0))])
    assert digest(pa.table({"x": garbage})) == digest(pa.table({"x": pa.array([None, 1.0])}))
