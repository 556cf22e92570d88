"""Folding against a plain reading of the rules: row by row, with dictionaries and loops."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.fold import Folded, fold

Row = dict[str, Any]
KINDS = {
    "timestamp": pa.int64(),
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "x": pa.float64(),
    "y": pa.int32(),
    "station": pa.string(),
    "note": pa.string(),
}
VARIABLES = ["x", "y"]
rows = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": st.integers(0, 2),
            "latitude": st.sampled_from([-0.0, 0.0, 1.0]),
            "longitude": st.sampled_from([0.0, 2.0]),
            "x": st.sampled_from([None, -0.0, 0.0, 1.5]),
            "y": st.sampled_from([None, 0, 7]),
            "station": st.sampled_from([None, "", "b"]),
            "note": st.sampled_from([None, "", "n"]),
        }
    ),
    max_size=14,
)
identities = st.sampled_from([("station",), ("station", "note"), (), ("latitude", "longitude"), ("note",)])


def table_of(content: list[Row], cut: int = 0, dictionary: bool = False) -> pa.Table:
    parts = []
    for some in (content[:cut], content[cut:]):
        columns = {name: pa.array([row[name] for row in some], kind) for name, kind in KINDS.items()}
        if dictionary:
            columns |= {name: columns[name].dictionary_encode() for name in ("station", "note")}
        parts.append(pa.table({**columns, "__row": pa.array(range(len(some)), pa.int64())}))
    return pa.concat_tables(parts)


def expected(content: list[Row], identity: tuple[str, ...], kind: str) -> tuple[list[Row], tuple[int, int, int]]:
    """Rows in ascending precedence, folded as the rules say it; (duplicate, merged, conflict)."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in content:
        groups.setdefault((row["timestamp"], *(row[name] for name in identity)), []).append(row)
    results, duplicate, merged, conflict = [], 0, 0, 0
    for group in groups.values():
        highest = group[-1]
        result = dict(highest)
        if kind == "value":
            for name in VARIABLES:
                values = [row[name] for row in group if row[name] is not None]
                result[name] = values[-1] if values else None
        for loser in group[:-1]:
            if all(loser[name] == highest[name] for name in KINDS if name not in {"timestamp", *identity}):
                duplicate += 1
            elif kind == "value" and all(loser[n] is None or loser[n] == result[n] for n in VARIABLES):
                merged += 1
            else:
                conflict += 1
        results.append(result)
    results.sort(key=lambda row: [_key(row[name]) for name in ("timestamp", *identity)])
    return results, (duplicate, merged, conflict)


def _key(value: Any) -> tuple[int, Any]:
    return (0, 0) if value is None else (1, value)


def counts(folded: Folded) -> tuple[int, int, int]:
    return folded.duplicate, folded.merged, folded.conflict


@settings(max_examples=200, deadline=None)
@given(rows, identities, st.sampled_from(["row", "value"]), st.integers(0, 14), st.booleans())
def test_folding_follows_the_rules(
    content: list[Row], identity: tuple[str, ...], kind: str, cut: int, dictionary: bool
) -> None:
    """The rows that stand, their order, and what each row that lost counts as."""
    folded = fold(table_of(content, cut, dictionary), identity, VARIABLES, kind)
    stand, numbers = expected(content, identity, kind)
    assert folded.rows.drop_columns(["__row"]).to_pylist() == stand
    assert counts(folded) == numbers
    assert len(content) == len(folded.rows) + sum(numbers)


@settings(max_examples=100, deadline=None)
@given(rows, identities, st.sampled_from(["row", "value"]))
def test_folding_twice_changes_nothing(content: list[Row], identity: tuple[str, ...], kind: str) -> None:
    """What has been folded is distinct: a second fold loses no row and changes none."""
    once = fold(table_of(content), identity, VARIABLES, kind)
    again = fold(once.rows, identity, VARIABLES, kind)
    assert again.rows.to_pylist() == once.rows.to_pylist()
    assert counts(again) == (0, 0, 0)


@settings(max_examples=200, deadline=None)
@given(rows, identities, st.sampled_from(["row", "value"]), st.integers(0, 14))
def test_folding_in_stages_gives_the_same_rows(
    content: list[Row], identity: tuple[str, ...], kind: str, cut: int
) -> None:
    """Rows may be folded per ingestion and then across ingestions: the rows that stand are the same."""
    whole = fold(table_of(content), identity, VARIABLES, kind).rows
    first, rest = (fold(table_of(part), identity, VARIABLES, kind).rows for part in (content[:cut], content[cut:]))
    staged = fold(pa.concat_tables([first, rest]), identity, VARIABLES, kind).rows
    assert staged.drop_columns(["__row"]).to_pylist() == whole.drop_columns(["__row"]).to_pylist()


def row(**values: Any) -> Row:
    return {
        "timestamp": 0,
        "latitude": 0.0,
        "longitude": 0.0,
        "x": None,
        "y": None,
        "station": "s",
        "note": None,
    } | values


@pytest.mark.parametrize(
    ("kind", "before", "after", "stands", "numbers"),
    [
        ("row", row(x=1.0, y=1), row(x=2.0), {"x": 2.0, "y": None}, (0, 0, 1)),
        ("row", row(x=-0.0), row(x=0.0), {"x": 0.0}, (1, 0, 0)),
        ("row", row(x=1.0, note="n"), row(x=1.0), {"note": None}, (0, 0, 1)),
        ("row", row(x=1.0, latitude=5.0), row(x=1.0), {"latitude": 0.0}, (0, 0, 1)),
        ("value", row(x=1.0), row(y=2), {"x": 1.0, "y": 2}, (0, 1, 0)),
        ("value", row(x=1.0, y=1), row(y=2), {"x": 1.0, "y": 2}, (0, 0, 1)),
        ("value", row(x=1.0, latitude=5.0), row(y=2), {"x": 1.0, "latitude": 0.0}, (0, 1, 0)),
        ("value", row(x=1.0), row(x=1.0), {"x": 1.0}, (1, 0, 0)),
        ("value", row(), row(x=1.0), {"x": 1.0}, (0, 1, 0)),
    ],
)
def test_cases_from_the_rules(kind: str, before: Row, after: Row, stands: Row, numbers: tuple[int, int, int]) -> None:
    """A later row wins whole, or value by value; the earlier is a duplicate, merged or a conflict."""
    folded = fold(table_of([before, after]), ("station",), VARIABLES, kind)
    (result,) = folded.rows.to_pylist()
    assert {name: result[name] for name in stands} == stands
    assert counts(folded) == numbers


def test_a_row_between_equal_rows_is_a_conflict() -> None:
    """A → B → A: the first is a duplicate of the winner, the second contradicts it."""
    folded = fold(table_of([row(x=1.0), row(x=2.0), row(x=1.0)]), ("station",), VARIABLES, "row")
    assert counts(folded) == (1, 0, 1)


def test_distinct_rows_are_only_ordered() -> None:
    """Without two rows of one identity nothing is lost."""
    folded = fold(table_of([row(timestamp=2), row(timestamp=1), row(station=None)]), ("station",), VARIABLES, "row")
    assert folded.rows["timestamp"].to_pylist() == [0, 1, 2]
    assert counts(folded) == (0, 0, 0)
