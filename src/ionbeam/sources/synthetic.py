"""Source: made-up stations, for benchmarks and demonstrations, with the dirt that real ones have.

Row `i` follows from the seed and `i` alone: the same rows come in any number of commands. An affine
permutation of the slots (station, step in time) shuffles the times over the whole span without holding them.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from msgspec import Struct

from ionbeam.client import (
    CanonicalVariable,
    Claim,
    Client,
    DataIngestionMap,
    DatasetMetadata,
    Duration,
    IngestionMetadata,
    MetadataVariable,
)

DATASET = "synthetic"
BATCH = 65_536
MISSING = -9999.0
PT1H = Duration("PT1H")
START = datetime(2024, 1, 1, tzinfo=timezone.utc)

DUPLICATE_EVERY, DUPLICATE_AT = 1000, 999
BAD_POSITION_EVERY, BAD_POSITION_AT = 1000, 499

_COMMANDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:ionbeam:source:synthetic")
_NULL, _MISSING = 0.10, 0.01
_NETWORKS = ("city", "coast", "mountain", "river", "valley")
_VARIABLES = (
    # column, standard name, unit, raw unit, level; least and greatest raw value times scale, scale
    ("temperature", "air_temperature", "degC", "degF", 2.0, -220, 1040, 10),
    ("humidity", "relative_humidity", "%", None, 2.0, 50, 1000, 10),
    ("pressure", "air_pressure", "Pa", None, 0.0, 95_000, 105_000, 1),
    ("wind_speed", "wind_speed", "m s-1", None, 10.0, 0, 400, 10),
)
_SCHEMA = pa.schema(
    [
        ("timestamp", pa.timestamp("ns", "UTC")),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        *((name, pa.float64()) for name, *_ in _VARIABLES),
        ("station", pa.string()),
        ("network", pa.string()),
        ("sensor", pa.string()),
    ]
)

Indices = npt.NDArray[np.int64]


def metadata(span: Duration = PT1H) -> IngestionMetadata:
    """The map of the rows that `batches` gives, into windows of `span`."""
    return IngestionMetadata(
        dataset=DatasetMetadata(
            name=DATASET,
            description="Made-up observations of made-up stations",
            aggregation_span=span,
            keywords=("synthetic",),
        ),
        ingestion_map=DataIngestionMap(
            canonical_variables=tuple(
                CanonicalVariable(
                    column=column,
                    standard_name=name,
                    cf_unit=unit,
                    from_unit=raw_unit,
                    level=level,
                    missing_values=(MISSING,),
                )
                for column, name, unit, raw_unit, level, *_ in _VARIABLES
            ),
            metadata_variables=tuple(MetadataVariable(column=c) for c in ("station", "network", "sensor")),
            identity=("station",),
        ),
    )


def batches(
    *,
    rows: int,
    stations: int,
    hours: int,
    seed: int,
    start: datetime = START,
    part: int = 0,
    parts: int = 1,
) -> pa.RecordBatchReader:
    """Part `part` of `rows` rows in `parts` nearly equal parts, in batches of 65,536 made as they are read.

    Times are UTC, in `[start, start + hours)`. No two rows share station and time, except that every
    thousandth row repeats the one before it. Of a thousand rows one has a bad position (absent, not finite,
    off the globe, in turn); a tenth of the values are null and a hundredth are -9999. Raises ValueError for
    sizes that make no sense.
    """
    if not 0 <= part < parts:
        raise ValueError(f"`part` counts from 0 and is less than `parts`, got part {part} of {parts}")
    plan = _Plan(rows=rows, stations=stations, hours=hours, seed=seed, start=start)
    first, last = rows * part // parts, rows * (part + 1) // parts
    return pa.RecordBatchReader.from_batches(_SCHEMA, _generate(plan, first, last))


async def ingest(
    client: Client,
    *,
    rows: int,
    stations: int,
    hours: int,
    seed: int,
    span: Duration = PT1H,
    commands: int = 1,
    start: datetime = START,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[str, ...]:
    """Send the rows of `batches` in `commands` commands, but not those accepted already; the ids sent.

    Each payload has rows of the whole span, so only the last command claims it: windows are built once.
    """
    if commands < 1:
        raise ValueError(f"`commands` must be at least 1, got {commands}")
    described = metadata(span)
    end = start + timedelta(hours=hours)
    sent = []
    for part in range(commands):
        wanted = [rows, stations, hours, seed, str(span), start.isoformat(), part, commands]
        command = str(uuid.uuid5(_COMMANDS, json.dumps(wanted)))
        if not await client.accepted(command):
            reader = batches(
                rows=rows, stations=stations, hours=hours, seed=seed, start=start, part=part, parts=commands
            )
            claims = [Claim(start, end)] if part == commands - 1 else []
            await client.ingest(reader, described, start, end, command_id=command, claims=claims)
            sent.append(command)
        if progress is not None:
            progress(DATASET, part + 1, commands)
    return tuple(sent)


class _Plan(Struct, frozen=True, kw_only=True):
    """What is wanted, checked, with what follows from it."""

    rows: int
    stations: int
    hours: int
    seed: int
    start: datetime

    def __post_init__(self) -> None:
        for name in ("rows", "stations", "hours"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")
        if self.rows >= 2**31:
            raise ValueError(f"`rows` must be less than 2**31, got {self.rows}; make several datasets")
        if self.start.tzinfo is None:
            raise ValueError(f"`start` has no time zone: {self.start.isoformat()}; add tzinfo=timezone.utc")

    @property
    def step(self) -> int:
        """Nanoseconds between two slots of a station."""
        return self.hours * 3_600_000_000_000 // -(-self.rows // self.stations)

    @property
    def origin(self) -> int:
        """`start` in nanoseconds since the Unix epoch."""
        return (self.start - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(microseconds=1) * 1000

    def stream(self, name: int, at: int = 0) -> np.random.Generator:
        """The seed's random numbers number `name`, from number `at` on."""
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(name,)))
        return np.random.Generator(bits.advance(at))

    def permutation(self) -> tuple[int, int]:
        """`a` and `c` so that `(a·i + c) mod rows` visits every slot once, far from the slot before."""
        a = int(self.rows * 0.6180339887498949) | 1
        while math.gcd(a, self.rows) != 1:
            a += 2
        return a, int(self.stream(0).integers(self.rows))


def _generate(plan: _Plan, first: int, last: int) -> Iterator[pa.RecordBatch]:
    a, c = plan.permutation()
    place = plan.stream(1)
    latitudes = place.uniform(35.0, 70.0, plan.stations).round(4)
    longitudes = place.uniform(-10.0, 30.0, plan.stations).round(4)
    numbers = range(plan.stations)
    names = pa.array([f"station-{number:05d}" for number in numbers])
    networks = pa.array([_NETWORKS[number % len(_NETWORKS)] for number in numbers])
    sensors = pa.array([f"sensor-{number % 7}" for number in numbers])
    for begin in range(first, last, BATCH):
        index = np.arange(begin, min(begin + BATCH, last), dtype=np.int64)
        source = index - (index % DUPLICATE_EVERY == DUPLICATE_AT)
        slot = (a * source + c) % plan.rows
        station = slot % plan.stations
        time = plan.origin + slot // plan.stations * plan.step
        latitude, longitude = _positions(source, latitudes[station], longitudes[station])
        chosen = pa.array(station)
        yield pa.record_batch(
            [
                pa.array(time).view(_SCHEMA.field("timestamp").type),
                latitude,
                longitude,
                *(_values(plan, number, source) for number in range(len(_VARIABLES))),
                names.take(chosen),
                networks.take(chosen),
                sensors.take(chosen),
            ],
            schema=_SCHEMA,
        )


def _positions(
    source: Indices, latitude: npt.NDArray[np.float64], longitude: npt.NDArray[np.float64]
) -> tuple[pa.Array, pa.Array]:
    """The positions with the bad ones among them."""
    bad = source % BAD_POSITION_EVERY == BAD_POSITION_AT
    turn = source // BAD_POSITION_EVERY % 3
    latitude = np.where(bad & (turn == 1), np.nan, np.where(bad & (turn == 2), 95.0, latitude))
    return pa.array(latitude, mask=bad & (turn == 0)), pa.array(longitude)


def _values(plan: _Plan, number: int, source: Indices) -> pa.Array:
    """Values of variable `number`: one random number a row says whether there is one, and which."""
    *_, lowest, highest, scale = _VARIABLES[number]
    begin = int(source[0])
    drawn = plan.stream(2 + number, begin).random(int(source[-1]) - begin + 1)[source - begin]
    spread = (highest - lowest) / (1.0 - _NULL - _MISSING)
    value = np.floor((drawn - (_NULL + _MISSING)) * spread + lowest) / scale
    value[drawn < _NULL + _MISSING] = MISSING
    return pa.array(value, mask=drawn < _NULL)
