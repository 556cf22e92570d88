"""Raw observations of a simulated load: which rows a command brings, and the payload that carries them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from random import Random
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from ionbeam.schemas.metadata import DataIngestionMap
from ionbeam.schemas.variables import CanonicalVariable

START = datetime(2024, 3, 10, 12, tzinfo=timezone.utc)
"""The wall clock when a simulation begins."""

HOUR, SLOT = 3600, 600
TEMPERATURE = CanonicalVariable(
    column="t",
    standard_name="air_temperature",
    cf_unit="degC",
    level=2.0,
    from_unit="K",
    missing_values=(-999.0,),
)
HUMIDITY = CanonicalVariable(column="h", standard_name="relative_humidity", cf_unit="%", dtype="float32")
PRESSURE = CanonicalVariable(column="p", standard_name="air_pressure", cf_unit="Pa", dtype="int32")
VARIABLES = (TEMPERATURE, HUMIDITY, PRESSURE)


class Row(Struct, frozen=True, kw_only=True):
    """One raw observation; `second` counts from START. Null is None."""

    second: int | None
    lat: float | None
    lon: float | None
    values: dict[str, float | int | None]
    texts: dict[str, str | None]
    reject: str | None = None


def first_window(windows: int) -> int:
    """The first of a dataset's `windows`, in seconds from START: some are over, some are still to come."""
    return -HOUR * (windows - 2)


def rows(windows: int, columns: DataIngestionMap, chance: Random, earlier: Sequence[Row]) -> tuple[Row, ...]:
    """Rows that meet those of `earlier` commands: the same again, corrected, or beside them."""
    made = []
    for _ in range(chance.choice((0, 1, 3, 6, 10))):
        if earlier and chance.random() < 0.4:
            old = chance.choice(earlier)
            values: dict[str, float | int | None] = {
                v.column: old.values.get(v.column) if chance.random() < 0.6 else value(v, chance)
                for v in columns.canonical_variables
            }
            made.append(msgspec.structs.replace(old, values=values, texts=_texts(columns, chance, old), reject=None))
        else:
            made.append(_row(windows, columns, chance))
    return tuple(made)


def _row(windows: int, columns: DataIngestionMap, chance: Random) -> Row:
    second = first_window(windows) + chance.randrange(windows * HOUR // SLOT) * SLOT
    place = chance.choice(((50.0, 8.0), (50.0, 188.5), (-0.0, 0.0), (51.5, -3.25)))
    lat, lon = place
    row = Row(
        second=second,
        lat=lat,
        lon=lon,
        values={v.column: value(v, chance) for v in columns.canonical_variables},
        texts=_texts(columns, chance, None),
        reject="broken sensor" if columns.reject_column and chance.random() < 0.2 else None,
    )
    return chance.choice(_DIRT)(row) if chance.random() < 0.1 else row


_DIRT = (
    lambda row: msgspec.structs.replace(row, second=None),
    lambda row: msgspec.structs.replace(row, second=40 * 24 * HOUR),
    lambda row: msgspec.structs.replace(row, lat=None),
    lambda row: msgspec.structs.replace(row, lat=91.0),
    lambda row: msgspec.structs.replace(row, lon=float("nan")),
    lambda row: msgspec.structs.replace(row, values=dict.fromkeys(row.values)),
)


def value(variable: CanonicalVariable, chance: Random) -> float | int | None:
    if variable is PRESSURE:
        return chance.choice((None, 101325, 99000))
    if variable is HUMIDITY:
        return chance.choice((None, float("inf"), 0.1, 55.5))
    return chance.choice((None, float("nan"), -999.0, 273.15, 281.4, 290.0))


def _texts(columns: DataIngestionMap, chance: Random, old: Row | None) -> dict[str, str | None]:
    known: dict[str, str | None] = {} if old is None else old.texts
    return {
        m.column: known[m.column] if m.column in known else chance.choice((None, "a", "b", "ü"))
        for m in columns.metadata_variables
    }


def payload(columns: DataIngestionMap, content: Sequence[Row], stream: bool) -> bytes:
    """`content` as an Arrow IPC file, or a stream, with the columns that the map names."""
    nanoseconds = [None if r.second is None else _nanoseconds(r.second) for r in content]
    arrays: dict[str, Any] = {
        "timestamp": pa.array(nanoseconds, pa.timestamp("ns", "UTC")),
        "latitude": pa.array([r.lat for r in content], pa.float64()),
        "longitude": pa.array([r.lon for r in content], pa.float64()),
    }
    for v in columns.canonical_variables:
        kind = pa.int64() if v is PRESSURE else pa.float64()
        arrays[v.column] = pa.array([r.values.get(v.column) for r in content], kind)
    for m in columns.metadata_variables:
        arrays[m.column] = pa.array([r.texts.get(m.column) for r in content], pa.string())
    if columns.reject_column is not None:
        arrays[columns.reject_column] = pa.array([r.reject for r in content], pa.string())
    table, sink = pa.table(arrays), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _nanoseconds(second: int) -> int:
    return (int(START.timestamp()) + second) * 1_000_000_000
