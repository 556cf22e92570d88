"""A map held against a payload's schema: what is refused before any row is read, and how it is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ionbeam.domain.mapping import checked, no_times_missing_zone, plan, stored_schema
from ionbeam.domain.units import Conversion
from ionbeam.errors import Refused
from ionbeam.schemas.metadata import MAX_COLUMNS, DataIngestionMap
from ionbeam.schemas.variables import CanonicalVariable, Latitude, Longitude, MetadataVariable, TimeColumn

VARIABLE = CanonicalVariable(
    column="t", standard_name="air_temperature", cf_unit="degC", from_unit="K", dtype="float32"
)
MAP = DataIngestionMap(
    canonical_variables=(VARIABLE,), metadata_variables=(MetadataVariable(column="station"),), reject_column="why"
)
KINDS: dict[str, Any] = {
    "timestamp": pa.timestamp("us", "UTC"),
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "t": pa.float64(),
    "station": pa.string(),
    "why": pa.string(),
}


def schema(**kinds: Any) -> pa.Schema:
    return pa.schema({**KINDS, **kinds})


def refusal(columns: DataIngestionMap, payload: pa.Schema) -> str:
    with pytest.raises(Refused) as caught:
        plan(columns, payload)
    return str(caught.value)


def test_a_plan_says_what_is_used_and_what_is_ignored() -> None:
    """Columns that the map names are used, each once; the others are ignored; conversions are ready."""
    made = plan(MAP, schema(extra=pa.list_(pa.int8()), more=pa.int8()))
    assert made.used == tuple(KINDS)
    assert made.ignored == ("extra", "more")
    assert made.conversions[VARIABLE.canonical_name] == Conversion(1.0, -273.15)
    assert made.variables == (VARIABLE,)
    assert made.metadata == MAP.metadata_variables


@pytest.mark.parametrize(
    ("missing", "path"),
    [
        ("timestamp", "datetime.from_col"),
        ("latitude", "lat.from_col"),
        ("longitude", "lon.from_col"),
        ("t", "canonical_variables[0].column"),
        ("station", "metadata_variables[0].column"),
        ("why", "reject_column"),
    ],
)
def test_a_missing_column_is_named(missing: str, path: str) -> None:
    """The error names where the map asks for it, the column, and what the payload has instead."""
    said = refusal(MAP, pa.schema({name: kind for name, kind in KINDS.items() if name != missing}))
    assert f"$.metadata.ingestion_map.{path} names {missing!r}, which the payload lacks" in said
    assert all(repr(name) in said for name in KINDS if name != missing)


@pytest.mark.parametrize(
    ("name", "kind", "path"),
    [
        ("timestamp", pa.float64(), "datetime.from_col"),
        ("timestamp", pa.int64(), "datetime.from_col"),
        ("timestamp", pa.bool_(), "datetime.from_col"),
        ("latitude", pa.bool_(), "lat.from_col"),
        ("longitude", pa.timestamp("s"), "lon.from_col"),
        ("t", pa.list_(pa.float64()), "canonical_variables[0].column"),
        ("t", pa.bool_(), "canonical_variables[0].column"),
        ("t", pa.binary(), "canonical_variables[0].column"),
        ("t", pa.dictionary(pa.int8(), pa.bool_()), "canonical_variables[0].column"),
        ("station", pa.struct([("a", pa.int8())]), "metadata_variables[0].column"),
        ("station", pa.binary(), "metadata_variables[0].column"),
        ("why", pa.int64(), "reject_column"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(name: str, kind: pa.DataType, path: str) -> None:
    """The error names path, column, its type, and what to send."""
    said = refusal(MAP, schema(**{name: kind}))
    assert said.startswith(f"$.metadata.ingestion_map.{path}: column {name!r} is of type {kind}; send ")


NUMBERS = [
    pa.int8(),
    pa.uint64(),
    pa.float16(),
    pa.float32(),
    pa.decimal128(5, 1),
    pa.decimal256(40, 1),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.null(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.int16()),
]
TIMES = [
    pa.timestamp("s"),
    pa.timestamp("ns", "+05:30"),
    pa.timestamp("ms", "Asia/Kolkata"),
    pa.date32(),
    pa.date64(),
    pa.string(),
]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ("latitude", "longitude", "t", "station") for kind in NUMBERS),
        *((name, kind) for name in ("timestamp", "station") for kind in TIMES),
        ("station", pa.bool_()),
        ("why", pa.large_string()),
        ("why", pa.dictionary(pa.int8(), pa.string())),
        ("why", pa.null()),
    ],
    ids=str,
)
def test_readable_types_are_accepted(name: str, kind: pa.DataType) -> None:
    """Numbers of any kind, text that spells them, dictionaries of either; times of any unit and zone."""
    plan(MAP, schema(**{name: kind}))


def test_every_problem_is_told_at_once() -> None:
    """One error lists all columns that are wrong."""
    said = refusal(MAP, pa.schema({"latitude": pa.bool_(), "t": pa.binary()}))
    assert said.count("which the payload lacks") == 4
    assert said.count("is of type") == 2


def test_a_doubled_column_is_refused_where_it_is_used() -> None:
    """A name that occurs twice is ambiguous if the map names it, else ignored."""
    fields = list(KINDS.items())
    assert "occurs 2 times" in refusal(MAP, pa.schema([*fields, ("t", pa.float64())]))
    assert plan(MAP, pa.schema([*fields, ("x", pa.int8()), ("x", pa.int8())])).ignored == ("x", "x")


def test_too_many_columns_are_refused() -> None:
    """A payload has at most so many columns; the error says how many there are."""
    wide = pa.schema({**KINDS, **{f"c{n}": pa.int8() for n in range(10_000)}})
    assert f"{len(wide)} columns, at most {MAX_COLUMNS}" in refusal(MAP, wide)
    most = pa.schema({**KINDS, **{f"c{n}": pa.int8() for n in range(MAX_COLUMNS - len(KINDS))}})
    assert len(plan(MAP, most).ignored) == MAX_COLUMNS - len(KINDS)


@pytest.mark.parametrize(
    ("columns", "units"),
    [
        (
            DataIngestionMap(
                canonical_variables=(
                    CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="K", from_unit="kg"),
                )
            ),
            "'kg'",
        ),
        (DataIngestionMap(lat=Latitude(cf_unit="m"), canonical_variables=(VARIABLE,)), "'m'"),
        (DataIngestionMap(lon=Longitude(cf_unit="no such unit"), canonical_variables=(VARIABLE,)), "'no such unit'"),
    ],
)
def test_units_that_do_not_convert_are_refused(columns: DataIngestionMap, units: str) -> None:
    """A unit that does not become the one that is stored is refused by name."""
    assert units in refusal(columns, schema())


def test_columns_are_renamed_by_the_map() -> None:
    """The names that the map gives are the ones that are looked for."""
    columns = DataIngestionMap(
        datetime=TimeColumn(from_col="when"),
        lat=Latitude(from_col="y"),
        lon=Longitude(from_col="x"),
        canonical_variables=(VARIABLE,),
    )
    payload = pa.schema({"when": pa.string(), "y": pa.int8(), "x": pa.int8(), "t": pa.int8(), "timestamp": pa.int8()})
    assert plan(columns, payload).used == ("when", "y", "x", "t")
    assert plan(columns, payload).ignored == ("timestamp",)


def test_one_raw_column_may_serve_twice() -> None:
    """A payload column can be a variable and a metadata column at once."""
    columns = DataIngestionMap(canonical_variables=(VARIABLE,), metadata_variables=(MetadataVariable(column="t"),))
    assert plan(columns, schema()).used == ("timestamp", "latitude", "longitude", "t")


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("s"), pa.timestamp("ns"), pa.date32(), pa.date64(), pa.dictionary(pa.int8(), pa.timestamp("s"))],
)
def test_naive_times_need_a_zone(kind: pa.DataType) -> None:
    """Times without a zone are refused as such, with or without rows; the map's zone settles it."""
    with pytest.raises(Refused, match=r"datetime\.timezone is missing: column 'timestamp'.*IANA"):
        no_times_missing_zone(MAP, kind)
    local = DataIngestionMap(datetime=TimeColumn(timezone="Europe/Berlin"), canonical_variables=(VARIABLE,))
    no_times_missing_zone(local, kind)


@pytest.mark.parametrize("kind", [pa.timestamp("s", "UTC"), pa.timestamp("ns", "+01:00"), pa.string()])
def test_times_with_a_zone_and_texts_pass(kind: pa.DataType) -> None:
    """An Arrow zone is enough; texts are looked at one by one."""
    no_times_missing_zone(MAP, kind)


def test_the_stored_schema() -> None:
    """Time in nanoseconds, position, variables in their dtype, metadata as text, the place in the payload."""
    assert stored_schema(MAP) == pa.schema(
        [
            pa.field("timestamp", pa.int64(), nullable=False),
            pa.field("latitude", pa.float64(), nullable=False),
            pa.field("longitude", pa.float64(), nullable=False),
            pa.field("air_temperature__degC__0.0__point__PT0S", pa.float32()),
            pa.field("station", pa.string()),
            pa.field("__row", pa.int64(), nullable=False),
        ]
    )


def broken(kind: str) -> pa.Array:
    """An array that would make a kernel read where it must not."""
    if kind == "utf8":
        offsets, text = np.array([0, 1, 2], np.int32), b"\xffa"
        return pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(text)])
    if kind == "offsets":
        offsets = np.array([0, 1 << 30, 3], np.int32)
        return pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(b"abc")])
    return pa.DictionaryArray.from_arrays(pa.array([0, 100], pa.int8()), pa.array(["a"]), safe=False)


@pytest.mark.parametrize("kind", ["utf8", "offsets", "dictionary"])
@pytest.mark.parametrize("where", ["station", "other"])
def test_damaged_columns_are_refused(kind: str, where: str) -> None:
    """Broken buffers are found before any kernel runs over them, also in columns that only quarantine keeps."""
    array = broken(kind)
    columns = {name: pa.nulls(2, kind) for name, kind in KINDS.items()} | {"other": pa.nulls(2)} | {where: array}
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    with pytest.raises(Refused, match="damaged"):
        checked(batch, plan(MAP, batch.schema))
