"""`ionbeam ingest sensor-community` on real files, counted once more with nothing but Python's csv."""

from __future__ import annotations

import csv
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio
from tests.cli.driving import data, good, hashes

from ionbeam.config import Topology
from ionbeam.node import Node
from ionbeam.parts import open_exporters, open_ports
from ionbeam.ports.records import Revision
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode

CF = {
    "P0": ("mass_concentration_of_pm1_ambient_aerosol_particles_in_air", "ug m-3"),
    "P1": ("mass_concentration_of_pm10_ambient_aerosol_particles_in_air", "ug m-3"),
    "P2": ("mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air", "ug m-3"),
    "temperature": ("air_temperature", "degC"),
    "humidity": ("relative_humidity", "%"),
    "pressure": ("air_pressure", "Pa"),
    "pressure_sealevel": ("air_pressure_at_mean_sea_level", "Pa"),
}
Window = tuple[str, str]
"""Dataset and day."""


class Line(NamedTuple):
    """A line of a file, as a person would read it."""

    sensor: str
    at: datetime
    values: dict[str, float]


def number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def lines(file: Path) -> Iterator[Line]:
    """The lines that count: a readable time, a valid position, and a value."""
    with file.open(encoding="utf-8", newline="") as content:
        for row in csv.DictReader(content, delimiter=";"):
            try:
                at = datetime.fromisoformat(row["timestamp"])
            except (TypeError, ValueError):
                continue
            values = {column: number(row.get(column)) for column in CF if math.isfinite(number(row.get(column)))}
            if abs(number(row["lat"])) <= 90 and -180 <= number(row["lon"]) <= 360 and values:
                yield Line(row["sensor_id"], at, values)


def dataset_of(file: Path) -> str:
    return f"sensor_community_{file.name.split('_')[1]}"


def expected(folder: Path) -> dict[Window, dict[tuple[str, datetime], Line]]:
    """For each dataset and day the observations, by sensor and time."""
    found: dict[Window, dict[tuple[str, datetime], Line]] = defaultdict(dict)
    for file in sorted(folder.rglob("*.csv")):
        found[dataset_of(file), file.name[:10]].update({})
        for line in lines(file):
            found[dataset_of(file), line.at.date().isoformat()][line.sensor, line.at] = line
    return dict(found)


def built(home: Path) -> dict[Window, dict[str, Any]]:
    entries = good("datasets", "--home", home, "--json").json["datasets"]
    return {(one["dataset"], one["window_start"][:10]): one for one in entries}


def read(entry: dict[str, Any]) -> pa.Table:
    with pa.OSFile(unquote(urlsplit(entry["location"]).path)) as file:
        return pa.ipc.open_file(file).read_all()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home into which all of the real archive has been ingested."""
    source = data("sensor-community")
    home = tmp_path_factory.mktemp("archive") / "home"
    outcome = good("ingest", "sensor-community", source, "--home", home, "--json").json
    assert outcome["ok"]
    return home


def test_each_type_and_day_is_a_window_with_every_observation(archive: Path) -> None:
    """As many rows as there are distinct (sensor, timestamp) pairs with a time, a position and a value."""
    counted = {window: len(found) for window, found in expected(data("sensor-community")).items()}
    assert len(counted) == 15
    assert {window: entry["rows"] for window, entry in built(archive).items()} == counted


def test_values_arrive_under_cf_names_with_their_units(archive: Path) -> None:
    """Of each window a hundred observations, chosen at random, value by value."""
    chance = Random(7)
    windows = built(archive)
    for window, found in expected(data("sensor-community")).items():
        table = read(windows[window])
        columns = {
            column: f"{name}__{unit}__0.0__point__PT0S"
            for column, (name, unit) in CF.items()
            if f"{name}__{unit}__0.0__point__PT0S" in table.column_names
        }
        assert columns.keys() >= {column for line in found.values() for column in line.values}
        for column, name in columns.items():
            described = table.schema.field(name).metadata
            assert (described[b"standard_name"].decode(), described[b"units"].decode()) == CF[column]
        sensors, times = table["sensor_id"].to_pylist(), table["timestamp"].cast(pa.timestamp("us")).to_pylist()
        place = {pair: row for row, pair in enumerate(zip(sensors, times, strict=True))}
        assert place.keys() == found.keys()
        for pair in chance.sample(sorted(found), min(100, len(found))):
            row = table.slice(place[pair], 1).to_pylist()[0]
            shown = {column: row[name] for column, name in columns.items() if row[name] is not None}
            assert shown == found[pair].values, pair


def test_a_second_run_changes_nothing(archive: Path) -> None:
    """No command, no revision, no event, the same bytes."""
    files = {path: path.read_bytes() for path in (archive / "exports").rglob("*.parquet")}
    before = built(archive)
    outcome = good("ingest", "sensor-community", data("sensor-community"), "--home", archive, "--json").json
    assert outcome["sent"] == []
    assert outcome["revisions"] == []
    assert built(archive) == before
    assert {path: path.read_bytes() for path in (archive / "exports").rglob("*.parquet")} == files


def test_all_of_it_adds_up(archive: Path) -> None:
    """`ionbeam audit`, which reads everything again."""
    audit = good("audit", "--home", archive, "--json").json
    assert audit["ok"]
    assert audit["totals"]["ingestions"] == 15
    assert audit["totals"]["received"] == audit["totals"]["accepted"] + audit["totals"]["duplicate"] + (
        audit["totals"]["conflict"] + audit["totals"]["merged"] + audit["totals"]["rejected"]
    )


def quarantined(home: Path) -> list[dict[str, Any]]:
    rows = []
    for path in (home / "objects" / "quarantine").rglob("*"):
        if path.is_file():
            with pa.OSFile(str(path)) as file:
                rows += pa.ipc.open_stream(file).read_all().to_pylist()
    return rows


def test_dirty_files_end_well_with_every_bad_row_in_quarantine(tmp_path: Path) -> None:
    """Exit 0; what is not in a dataset is a duplicate, a conflict, or in quarantine with its reason."""
    source, home = data("sensor-community-dirty"), tmp_path / "home"
    outcome = good("ingest", "sensor-community", source, "--home", home, "--json").json
    kept = quarantined(home)
    assert outcome["rows"]["rejected"] == len(kept) > 0
    reasons: dict[str, int] = defaultdict(int)
    for row in kept:
        assert row["__reason"]
        reasons[row["__reason"]] += 1
    assert dict(reasons) == outcome["reasons"]
    assert any(reason.startswith("source:cut line") for reason in reasons)
    counted = {window: len(found) for window, found in expected(source).items()}
    assert {window: entry["rows"] for window, entry in built(home).items()} == counted
    assert good("audit", "--home", home, "--json").json["ok"]


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of a few of the real files: two days, three types, the sensor that moves among them."""
    source = data("sensor-community")
    folder = tmp_path_factory.mktemp("some")
    chosen: list[Path] = []
    for day in sorted(source.iterdir())[2:4]:
        for kind in ("sds011", "dht22", "bme280"):
            files = sorted(day.glob(f"*_{kind}_*.csv"))
            chosen += [*files[:2], *day.glob(f"*_{kind}_sensor_22068.csv")]
    return [Path(shutil.copy(file, folder / file.name)) for file in dict.fromkeys(chosen)]


@pytest.mark.parametrize(
    ("order", "workers", "chunk_rows"),
    [
        ("all at once", 1, 100),
        ("all at once", 4, 100),
        ("all at once", 4, 100_000),
        ("one by one", 4, 100),
        ("one by one", 1, 100_000),
        ("one by one, backwards", 1, 100),
        ("one by one, backwards", 4, 100_000),
    ],
)
def test_neither_order_nor_workers_nor_batches_change_the_bytes(
    order: str, chunk_rows: int, workers: int, some: list[Path], tmp_path: Path
) -> None:
    """One command for a day or one a file, in any order, by one worker or four, sorted in small pieces or whole."""
    reference = some[0].parent.parent / "reference"
    if not reference.exists():
        good("ingest", "sensor-community", *some, "--home", reference)
    topology = tmp_path / "topology.toml"
    stages = "".join(f"[actors.{stage}]\nworkers = {workers}\n" for stage in ("ingestion", "building"))
    topology.write_text(f'home = "home"\n{stages}[memory]\nchunk_rows = {chunk_rows}\n')
    files = some[::-1] if "backwards" in order else some
    if order == "all at once":
        good("ingest", "sensor-community", *files, "--topology", topology)
    else:
        for file in files:
            good("ingest", "sensor-community", file, "--topology", topology, "--publish-only")
        good("windows", "retry", "--topology", topology)
    assert hashes(tmp_path / "home") == hashes(reference)
    assert len(hashes(reference)) == 6


def test_a_corrected_file_makes_a_revision_that_supersedes_the_first(some: list[Path], tmp_path: Path) -> None:
    """The export shows only the second; the first one's event, sent again, changes nothing."""
    home, folder = tmp_path / "home", tmp_path / "files"
    folder.mkdir()
    file = Path(shutil.copy(next(path for path in some if "_dht22_" in path.name), folder))
    good("ingest", "sensor-community", folder, "--home", home)
    (first,) = built(home).values()
    (event,) = _revisions(home)

    header, *rest = file.read_text(encoding="utf-8").splitlines()
    column = header.split(";").index("temperature")
    fields = rest[0].split(";")
    fields[column] = "-12.5"
    file.write_text("\n".join([header, ";".join(fields), *rest[1:]]) + "\n", encoding="utf-8")
    outcome = good("ingest", "sensor-community", folder, "--home", home, "--json").json
    assert [one["revision"] for one in outcome["revisions"]] == [2]

    (second,) = built(home).values()
    assert (second["revision"], second["supersedes"], second["rows"]) == (2, event.event.id, first["rows"])
    assert second["content_hash"] != first["content_hash"]
    before = _exported(home)
    _send_to_exporter(home, event)
    assert _exported(home) == before
    assert [one["revision"] for one in built(home).values()] == [2]
    good("audit", "--home", home)


def _revisions(home: Path) -> list[Revision]:
    async def look() -> list[Revision]:
        async with open_ports(Topology(home=str(home))) as ports:
            return [revision for _, revision in await ports.ledger.revisions(0, 100)]

    return trio.run(look)


def _send_to_exporter(home: Path, revision: Revision) -> None:
    """Put the event into the exporter's queue again, and let a node work until it is done with."""

    async def send() -> None:
        topology = Topology(home=str(home))
        async with open_ports(topology) as ports, trio.open_nursery() as nursery:
            event = revision.event
            await ports.broker.publish_to(routes.exporter_queue("geoparquet"), event.id, encode(event))
            node = Node(topology, ports, open_exporters(topology))
            nursery.start_soon(node.run)
            await node.idle()
            await node.drain()

    trio.run(send)


def _exported(home: Path) -> bytes:
    """The one exported file, which shows revision 2 with the corrected value and nothing else."""
    (path,) = (home / "exports").rglob("*.parquet")
    assert pq.read_metadata(path).metadata[b"ionbeam.revision"] == b"2"
    assert -12.5 in pq.read_table(path)["air_temperature__degC__0.0__point__PT0S"].to_pylist()
    return path.read_bytes()
