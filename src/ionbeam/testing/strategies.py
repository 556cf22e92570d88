"""Hypothesis strategies for messages and what they are made of. They make what the contracts allow, and nothing else.

Needs `hypothesis`, which ionbeam itself does not install. Numbers stay within what JSON carries unharmed: finite
floats, integers of at most 53 bits; times are in UTC or at another offset, to the microsecond.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import (
    Claim,
    DataAvailableEvent,
    DataSetAvailableEvent,
    IngestDataCommand,
    StartSourceCommand,
)
from ionbeam.schemas.metadata import (
    LATITUDE,
    LONGITUDE,
    ROW,
    TIMESTAMP,
    DataIngestionMap,
    DatasetMetadata,
    IngestionMetadata,
    Link,
)
from ionbeam.schemas.variables import CanonicalVariable, Latitude, Longitude, MetadataVariable, TimeColumn

LONGEST = Duration("P100000D")
OWN_COLUMNS = (TIMESTAMP, LATITUDE, LONGITUDE, ROW)
NUMBER_TYPES = (
    "float64", "float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
UNITS = ("degC", "K", "%", "1", "Pa", "hPa", "m s-1", "ug m-3", "mm h-1", "W m-2", "odd__unit_")
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns")


def _optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def durations() -> st.SearchStrategy[Duration]:
    """Short and long, of whole units and to the microsecond."""
    microseconds = st.integers(0, LONGEST.microseconds)
    whole = st.builds(
        lambda count, unit: min(count * unit, LONGEST.microseconds),
        st.integers(0, 100),
        st.sampled_from([1, 1000, 10**6, 60 * 10**6, 3600 * 10**6, 86_400 * 10**6]),
    )
    return (whole | microseconds).map(lambda count: Duration(timedelta(microseconds=count)))


def spans() -> st.SearchStrategy[Duration]:
    """Widths of windows: whole seconds, and not none."""
    seconds = st.sampled_from([1, 60, 600, 3600, 86_400, 604_800]) | st.integers(1, 10**7)
    return seconds.map(lambda count: Duration(timedelta(seconds=count)))


def moments() -> st.SearchStrategy[datetime]:
    """Times with an offset, from the year 2 to 9998."""
    offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
    return st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.just(timezone.utc) | offsets)  # noqa: DTZ001 - the zone is drawn


def intervals() -> st.SearchStrategy[tuple[datetime, datetime]]:
    """Start and end, the end later."""
    return st.lists(moments(), min_size=2, max_size=2, unique=True).map(lambda both: (min(both), max(both)))


def message_ids() -> st.SearchStrategy[str]:
    """UUIDs in several spellings, and other ids."""
    spelled = st.uuids().flatmap(lambda known: st.sampled_from([str(known), known.hex, str(known).upper()]))
    return spelled | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)


def dataset_names() -> st.SearchStrategy[str]:
    return st.from_regex(r"[a-z0-9_]{1,100}", fullmatch=True)


def names() -> st.SearchStrategy[str]:
    """Names of sources and exporters."""
    return st.from_regex(r"[a-z0-9_-]{1,100}", fullmatch=True)


def object_keys() -> st.SearchStrategy[str]:
    return st.from_regex(r"[a-z0-9]{1,20}(/[A-Za-z0-9_-]{1,20}){0,3}", fullmatch=True)


def column_names() -> st.SearchStrategy[str]:
    """Any text: columns are named by whoever measures."""
    return st.text(min_size=1, max_size=12) | st.sampled_from(["temp", "rh", "station", "naïve ü", "__row2"])


def time_columns() -> st.SearchStrategy[TimeColumn]:
    dtype = st.from_regex(r"(datetime64|timestamp)\[(s|ms|us|ns)(, ?UTC)?\]", fullmatch=True)
    zone = _optional(st.sampled_from(ZONES))
    return st.builds(TimeColumn, from_col=_optional(column_names()), dtype=_optional(dtype), timezone=zone)


def latitudes() -> st.SearchStrategy[Latitude]:
    unit = st.sampled_from(["degrees_north", "degree", "radian"])
    dtype = st.sampled_from(NUMBER_TYPES)
    return st.builds(Latitude, cf_unit=unit, from_col=_optional(column_names()), dtype=dtype)


def longitudes() -> st.SearchStrategy[Longitude]:
    unit = st.sampled_from(["degrees_east", "degree", "radian"])
    dtype = st.sampled_from(NUMBER_TYPES)
    return st.builds(Longitude, cf_unit=unit, from_col=_optional(column_names()), dtype=dtype)


def canonical_variables() -> st.SearchStrategy[CanonicalVariable]:
    """Well formed; the standard name need not be one that CF has, nor the units convertible."""
    finite = st.floats(allow_nan=False, allow_infinity=False)
    return st.builds(
        CanonicalVariable,
        column=column_names(),
        standard_name=st.from_regex(r"[A-Za-z0-9]{1,8}(_[A-Za-z0-9]{1,8}){0,3}", fullmatch=True),
        cf_unit=st.sampled_from(UNITS),
        level=finite,
        method=st.sampled_from(["point", "mean", "sum", "root_mean_square"]),
        period=durations(),
        dtype=st.sampled_from(NUMBER_TYPES),
        from_unit=_optional(st.sampled_from(UNITS)),
        missing_values=st.lists(finite | st.text(max_size=8), max_size=3).map(tuple),
    )


def metadata_variables() -> st.SearchStrategy[MetadataVariable]:
    column = column_names().filter(lambda name: name not in OWN_COLUMNS)
    return st.builds(MetadataVariable, column=column, dtype=st.sampled_from([*NUMBER_TYPES, "string", "bool"]))


@st.composite
def ingestion_maps(draw: st.DrawFn) -> DataIngestionMap:
    """Each output column once, an identity among them, or the default one."""
    variables = draw(st.lists(canonical_variables(), min_size=1, max_size=4, unique_by=lambda v: v.canonical_name))
    taken = {variable.canonical_name for variable in variables}
    metadata = draw(
        st.lists(metadata_variables().filter(lambda m: m.column not in taken), max_size=3, unique_by=lambda m: m.column)
    )
    choices = [TIMESTAMP, LATITUDE, LONGITUDE, *(m.column for m in metadata)]
    return DataIngestionMap(
        datetime=draw(time_columns()),
        lat=draw(latitudes()),
        lon=draw(longitudes()),
        canonical_variables=tuple(variables),
        metadata_variables=tuple(metadata),
        identity=draw(_optional(st.lists(st.sampled_from(choices), max_size=4).map(tuple))),
        fold=draw(st.sampled_from(["row", "value"])),
        reject_column=draw(_optional(column_names())),
    )


def links() -> st.SearchStrategy[Link]:
    text = st.text(max_size=20)
    return st.builds(Link, mime_type=text, title=text, href=text)


def dataset_metadata() -> st.SearchStrategy[DatasetMetadata]:
    return st.builds(
        DatasetMetadata,
        name=dataset_names(),
        description=st.text(max_size=40),
        aggregation_span=spans(),
        source_links=st.lists(links(), max_size=2).map(tuple),
        keywords=st.lists(st.text(max_size=10), max_size=3).map(tuple),
        subject_to_change_window=durations(),
    )


def ingestion_metadata() -> st.SearchStrategy[IngestionMetadata]:
    return st.builds(IngestionMetadata, dataset=dataset_metadata(), ingestion_map=ingestion_maps(), version=st.just(1))


def claims() -> st.SearchStrategy[Claim]:
    return intervals().map(lambda both: Claim(*both))


@st.composite
def start_source_commands(draw: st.DrawFn) -> StartSourceCommand:
    start, end = draw(intervals())
    return StartSourceCommand(id=draw(message_ids()), source_name=draw(names()), start_time=start, end_time=end)


@st.composite
def ingest_commands(draw: st.DrawFn) -> IngestDataCommand:
    start, end = draw(intervals())
    name = draw(message_ids())
    others = message_ids().filter(lambda other: _spelled(other) != _spelled(name))
    return IngestDataCommand(
        id=name,
        metadata=draw(ingestion_metadata()),
        payload_location=draw(object_keys()),
        start_time=start,
        end_time=end,
        issued_at=draw(_optional(moments())),
        claims=draw(_optional(st.lists(claims(), max_size=3).map(tuple))),
        replaces=draw(st.lists(others, max_size=2).map(tuple)),
    )


def _spelled(message_id: str) -> str:
    try:
        return uuid.UUID(message_id).hex
    except ValueError:
        return message_id


@st.composite
def data_available_events(draw: st.DrawFn) -> DataAvailableEvent:
    start, end = draw(intervals())
    return DataAvailableEvent(
        id=draw(message_ids()),
        metadata=draw(ingestion_metadata()),
        start_time=start,
        end_time=end,
        row_count=draw(_optional(st.integers(0, 2**53))),
    )


@st.composite
def dataset_available_events(draw: st.DrawFn) -> DataSetAvailableEvent:
    start, end = draw(intervals())
    sha256 = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
    return DataSetAvailableEvent(
        id=draw(message_ids()),
        metadata=draw(dataset_metadata()),
        dataset_location=draw(object_keys()),
        start_time=start,
        end_time=end,
        revision=draw(st.integers(1, 2**53)),
        supersedes=draw(_optional(message_ids())),
        row_count=draw(_optional(st.integers(0, 2**53))),
        content_hash=draw(_optional(sha256)),
        ingestion_set_hash=draw(_optional(sha256)),
    )
