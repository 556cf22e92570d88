"""A Hypothesis strategy for payloads: small Arrow tables that fit a map, with the dirt that sensors send."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from ionbeam.schemas.metadata import IngestionMetadata
from ionbeam.testing.raw import START

MOST_ROWS = 12
_SPELLED = ("21.5", " 3 ", "-1e2", "nan", "n/a", "", None)


@st.composite
def payloads(draw: st.DrawFn, metadata: IngestionMetadata, around: datetime = START) -> pa.Table:
    """A table with the columns that `metadata`'s map names, each once, and sometimes one that it does not.

    Times lie within a few windows of `around`. There are nulls, positions off the globe, values that are not finite
    or missing, numbers as text, times as text, rows that repeat.
    """
    columns = metadata.ingestion_map
    count = draw(st.integers(0, MOST_ROWS))
    span = metadata.dataset.aggregation_span.timedelta
    arrays: dict[str, pa.Array] = {
        columns.datetime.raw_name: draw(_times(count, around, span, columns.datetime.timezone))
    }
    _add(arrays, columns.lat.raw_name, draw(_floats(count, (-90.0, 0.0, 50.25, 90.0, 91.0, float("nan")))))
    _add(arrays, columns.lon.raw_name, draw(_floats(count, (-180.0, -0.0, 8.5, 359.0, 361.0, float("inf")))))
    for variable in columns.canonical_variables:
        _add(arrays, variable.column, draw(_numbers(count, variable.missing_values)))
    for kept in columns.metadata_variables:
        _add(arrays, kept.column, draw(_texts(count, ("a", "b", "ü", "12", None))))
    if columns.reject_column is not None:
        _add(arrays, columns.reject_column, draw(_texts(count, (None, None, None, "broken"))))
    if draw(st.booleans()):
        _add(arrays, "a column that the map does not name", pa.nulls(count))
    table = pa.table(arrays)
    if count and draw(st.booleans()):
        table = table.take(pa.array(draw(st.lists(st.integers(0, count - 1), max_size=MOST_ROWS)), pa.int64()))
    return table


def _add(arrays: dict[str, pa.Array], name: str, array: pa.Array) -> None:
    """Two parts of a map may read one raw column: the first decides what is in it."""
    arrays.setdefault(name, array)


@st.composite
def _times(draw: st.DrawFn, count: int, around: datetime, span: timedelta, zone: str | None) -> pa.Array:
    steps = draw(st.lists(st.none() | st.integers(-12, 12), min_size=count, max_size=count))
    step = min(span, timedelta(days=365)) / 6
    moments = [None if number is None else around + number * step for number in steps]
    if draw(st.booleans()):
        return pa.array([None if m is None else m.isoformat() for m in moments], pa.string())
    unit = draw(st.sampled_from(["ms", "us", "ns"]))
    if zone is None or draw(st.booleans()):
        return pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, "UTC"), safe=False)
    naive = [None if m is None else m.replace(tzinfo=None) for m in moments]
    return pa.array(naive, pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)


def _listed(count: int, values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=count, max_size=count)


def _floats(count: int, odd: tuple[float, ...]) -> st.SearchStrategy[pa.Array]:
    values = st.sampled_from([*odd, None]) | st.floats(-90, 90)
    return _listed(count, values).map(lambda found: pa.array(found, pa.float64()))


def _numbers(count: int, missing: tuple[float | str, ...]) -> st.SearchStrategy[pa.Array]:
    sentinels = [float(value) for value in missing if isinstance(value, float | int)]
    floats = st.sampled_from([None, float("nan"), float("inf"), -0.0, *sentinels]) | st.floats(-1e6, 1e6)
    integers = st.none() | st.integers(-(2**31), 2**31 - 1)
    return st.one_of(
        _listed(count, floats).map(lambda found: pa.array(found, pa.float64())),
        _listed(count, integers).map(lambda found: pa.array(found, pa.int64())),
        _texts(count, _SPELLED),
    )


def _texts(count: int, choices: tuple[str | None, ...]) -> st.SearchStrategy[pa.Array]:
    plain = _listed(count, st.sampled_from(choices)).map(lambda found: pa.array(found, pa.string()))
    return plain | plain.map(lambda array: array.dictionary_encode())
