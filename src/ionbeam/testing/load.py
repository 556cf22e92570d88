"""What a simulated world is asked to do: commands with their rows, and when which copy of which arrives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec import Struct

from ionbeam.config import Attempts, Memory, Topology, WindowSettings
from ionbeam.schemas.codec import encode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim, IngestDataCommand
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam.schemas.variables import CanonicalVariable, MetadataVariable
from ionbeam.testing.scheduling import chances

START = datetime(2024, 3, 10, 12, tzinfo=timezone.utc)
"""The wall clock when a simulation begins."""

HOUR, SLOT = 3600, 600
HOURS = 3600.0
UNSTAMPED_AT, DISAGREES_AT = 4000.0, 3 * HOURS
LIMIT = 8
"""Attempts at a message; more than the faults of one run can spend."""

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


class Sent(Struct, frozen=True, kw_only=True):
    """A message for ingestion, when copies of it arrive (seconds from START), and what shall become of it.

    A dead one names in `reason` what its dead letter must say. `rows` None: its payload is not there.
    """

    id: str
    body: bytes
    at: tuple[float, ...]
    fate: Literal["accepted", "dead"] = "accepted"
    reason: str = ""
    command: IngestDataCommand | None = None
    rows: tuple[Row, ...] | None = ()


class Plan(Struct, frozen=True, kw_only=True):
    """All that a world is asked to do. `killers` are the ids of commands whose payload ends the process that
    reads it; it is looked at `until` seconds after START."""

    seed: int
    nodes: int
    topology: Topology
    sent: tuple[Sent, ...]
    until: float
    newcomer: bool = False
    killers: frozenset[str] = frozenset()

    def calm(self) -> Plan:
        """The same commands, each sent once, in order of precedence, to a single node."""
        return msgspec.structs.replace(
            self,
            nodes=1,
            newcomer=False,
            sent=tuple(msgspec.structs.replace(sent, at=(_calm_at(sent),)) for sent in self.sent),
        )


def _calm_at(sent: Sent) -> float:
    """When it was issued, or as soon as the world begins; what ranks or is refused by its moment keeps that."""
    if sent.fate == "dead" or sent.command is None or sent.command.issued_at is None:
        return min(sent.at)
    return max(0.0, (sent.command.issued_at - START).total_seconds())


class Style(Struct, frozen=True, kw_only=True):
    """What the commands of one dataset have in common: its contract, and when its windows are built."""

    name: str
    fold: Literal["row", "value"]
    identity: tuple[str, ...] | None
    metadata: tuple[str, ...]
    windows: int
    subject_to_change: str
    settings: WindowSettings

    def map(self, chance: Random) -> IngestionMetadata:
        """The map of one command: some of the variables, in some order; columns outside the identity may lack."""
        variables = chance.sample(VARIABLES, chance.randint(1, len(VARIABLES)))
        extra = ("operator",) if self.identity is not None and chance.random() < 0.4 else ()
        return IngestionMetadata(
            dataset=DatasetMetadata(
                name=self.name,
                description=f"simulated {self.name}",
                aggregation_span=Duration("PT1H"),
                subject_to_change_window=Duration(self.subject_to_change),
            ),
            ingestion_map=DataIngestionMap(
                canonical_variables=tuple(variables),
                metadata_variables=tuple(MetadataVariable(column=name) for name in (*self.metadata, *extra)),
                identity=self.identity,
                fold=self.fold,
                reject_column="bad" if chance.random() < 0.2 else None,
            ),
        )


def style(name: str, chance: Random, far: bool) -> Style:
    identity, metadata = chance.choice(((("station",), ("station",)), (None, ("station",)), (None, ())))
    return Style(
        name=name,
        fold=chance.choice(("row", "value")),
        identity=identity,
        metadata=metadata,
        windows=chance.randint(2, 5),
        subject_to_change="P2D" if far else chance.choice(("PT0S", "PT0S", "PT10M")),
        settings=WindowSettings(
            allow_incomplete_windows=chance.random() < 0.25,
            min_rebuild_interval=Duration(chance.choice(("PT0S", "PT0S", "PT5M"))),
        ),
    )


def topology(styles: Sequence[Style]) -> Topology:
    return Topology(
        datasets={each.name: each.settings for each in styles},
        attempts=Attempts(limit=LIMIT),
        memory=Memory(chunk_rows=100),
    )


def first_window(windows: int) -> int:
    """The first of a dataset's `windows`, in seconds from START: some are over, some are still to come."""
    return -HOUR * (windows - 2)


def rows(each: Style, columns: DataIngestionMap, chance: Random, earlier: Sequence[Row]) -> tuple[Row, ...]:
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
            made.append(_row(each, columns, chance))
    return tuple(made)


def _row(each: Style, columns: DataIngestionMap, chance: Random) -> Row:
    second = first_window(each.windows) + chance.randrange(each.windows * HOUR // SLOT) * SLOT
    place = chance.choice(((50.0, 8.0), (50.0, 368.0), (-0.0, 0.0), (51.5, -3.25)))
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


def moment(second: float) -> datetime:
    return START + timedelta(seconds=second)


def sending(command: IngestDataCommand, content: tuple[Row, ...] | None, *at: float, **fate: Any) -> Sent:
    return Sent(id=command.id, body=encode(command), at=at, command=command, rows=content, **fate)


def claim(start: int, end: int) -> Claim:
    return Claim(moment(start), moment(end))


def purpose(seed: int, *what: object) -> Random:
    return chances(seed, "load", *what)
