"""The GeoParquet exporter: what its files hold, and which revision they show whatever happens in between."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import duckdb
import geopandas
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.client import (
    DataSetAvailableEvent,
    DatasetMetadata,
    DatasetRevision,
    Duration,
    IonbeamError,
    Refused,
    Unavailable,
    dataset_event_id,
)
from ionbeam.exporters.folder import Disk, window_stem
from ionbeam.exporters.geoparquet import GeoParquetExporter, read_stamp

if TYPE_CHECKING:
    from typing_extensions import Buffer

START = datetime(2024, 1, 1, tzinfo=UTC)
STEM = "20240101T000000Z_P1D"
TOMBSTONE = f".{STEM}.removed"
TEMPERATURE = "air_temperature__degC__2.0__point__PT0S"
HOSTILE = ["Zürich 🌡", "'; DROP TABLE x; --", "../../etc/passwd", "a\nb\tc", "", "北京", "{{x}}\\", None]


# -- datasets ------------------------------------------------------------------------------------------------


def observations(count: int, seed: int = 0, station: str = "station") -> pa.Table:
    """A dataset as the builder writes it: described fields, a null now and then, hostile station names."""
    numbers = range(seed, seed + count)
    time = pa.array([int(START.timestamp()) * 10**9 + n * 1_000_000_007 for n in numbers])
    fields = [
        pa.field("timestamp", pa.timestamp("ns", "UTC"), metadata={"standard_name": "time"}),
        pa.field("latitude", pa.float64(), metadata={"units": "degrees_north"}),
        pa.field("longitude", pa.float64(), metadata={"units": "degrees_east"}),
        pa.field(TEMPERATURE, pa.float64(), metadata={"standard_name": "air_temperature", "units": "degC"}),
        pa.field(station, pa.string()),
    ]
    columns = [
        time.cast(pa.timestamp("ns", "UTC")),
        pa.array([-60.0 + n % 100 + 0.1 for n in numbers]),
        pa.array([170.0 - n % 300 for n in numbers]),
        pa.array([None if n % 3 == 1 else n / 8 for n in numbers], pa.float64()),
        pa.array([HOSTILE[n % len(HOSTILE)] for n in numbers], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata={"description": "Wetter in Zürich"}))


def as_revision(
    table: pa.Table,
    number: int = 1,
    *,
    name: str = "weather",
    start: datetime = START,
    rows: int | None = -1,
    content_hash: str = "c0ffee",
    batch_rows: int = 65_536,
) -> DatasetRevision:
    """`table` as revision `number` of a window. `rows`: what the event says, by default the truth."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    content = sink.getvalue()
    event = DataSetAvailableEvent(
        id=dataset_event_id(name, start, number),
        metadata=DatasetMetadata(name=name),
        dataset_location=f"{name}/{STEM}_{content_hash}",
        start_time=start,
        end_time=start + timedelta(days=1),
        revision=number,
        row_count=table.num_rows if rows == -1 else rows,
        content_hash=content_hash,
    )
    return DatasetRevision(event=event, url="memory:", open=lambda: pa.BufferReader(content))


SIZES = {1: 3, 2: 0, 3: 4, 4: 3, 5: 0, 6: 5}
"""How many rows each revision has: zero twice, and 4 the same content as 1."""

REVISIONS = {number: as_revision(observations(rows), number) for number, rows in SIZES.items()}


def shown(folder: Path) -> dict[str, bytes]:
    """What the folder of `weather` holds beside its lock."""
    return {path.name: path.read_bytes() for path in (folder / "weather").iterdir() if path.name != ".lock"}


def revision_shown(folder: Path) -> int:
    """The highest revision that a file of the folder speaks of; 0 for none."""
    numbers = [0]
    for name, content in shown(folder).items():
        if name == TOMBSTONE:
            numbers.append(json.loads(content)["revision"])
        elif name == f"{STEM}.parquet":
            numbers.append(int(pq.read_metadata(io.BytesIO(content)).metadata[b"ionbeam.revision"]))
    return max(numbers)


def undisturbed(folder: Path, number: int) -> dict[str, bytes]:
    """What a new folder holds after revision `number` alone."""
    GeoParquetExporter(folder).apply(REVISIONS[number])
    return shown(folder)


def exported(folder: Path, table: pa.Table) -> Path:
    GeoParquetExporter(folder).apply(as_revision(table))
    return folder / "weather" / f"{STEM}.parquet"


# -- what a file holds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 200, 70_000])
def test_valid_geoparquet(tmp_path: Path, rows: int) -> None:
    """An independent validator finds nothing against the 1.1 rules of the format and of its covering."""
    beside = Path(sys.executable).parent / "geoparquet-validator"
    validator = str(beside) if beside.exists() else shutil.which("geoparquet-validator")
    if validator is None:
        pytest.skip("geoparquet-validator is not installed")
    path = exported(tmp_path, observations(rows))
    for kind in ("core", "covering"):
        done = subprocess.run(
            [validator, "check", "--class", kind, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "rules: GeoParquet 1.1.0" in done.stdout
        assert f"=> {kind}: " in done.stdout
        assert " 0 fail" in done.stdout


def test_columns_values_and_descriptions_are_kept(tmp_path: Path) -> None:
    """The dataset's columns come back equal: types, nulls, nanoseconds, text, described as before."""
    table = observations(70_000)
    read = pq.read_table(exported(tmp_path, table))
    assert read.select(table.column_names).equals(table)
    assert read.column_names == [*table.column_names, "geometry", "bbox"]
    for field in table.schema:
        kept = read.schema.field(field.name)
        assert kept.type == field.type
        assert (field.metadata or {}).items() <= (kept.metadata or {}).items()
    assert read.schema.metadata[b"description"] == "Wetter in Zürich".encode()


def test_geometry_covering_and_metadata(tmp_path: Path) -> None:
    """Each row has a little-endian WKB point (lon, lat) and its box; `geo` says so and bounds them all."""
    table = observations(200)
    path = exported(tmp_path, table)
    read = pq.read_table(path)
    lon, lat = table["longitude"].to_pylist(), table["latitude"].to_pylist()
    assert read["geometry"].to_pylist() == [struct.pack("<BIdd", 1, 1, *at) for at in zip(lon, lat, strict=True)]
    corners = [{"xmin": x, "ymin": y, "xmax": x, "ymax": y} for x, y in zip(lon, lat, strict=True)]
    assert read["bbox"].to_pylist() == corners
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Point"])
    assert read.schema.field("geometry").type == pa.binary()
    assert "crs" not in column, "absent means OGC:CRS84"
    assert column["bbox"] == [min(lon), min(lat), max(lon), max(lat)]
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]


def test_bounds_span_all_batches(tmp_path: Path) -> None:
    """The extremes count wherever they lie: here the first batch and the last one hold one corner each."""
    table = observations(2 * 65_536 + 1)
    lon = pa.array([-179.5, *[0.0] * (table.num_rows - 2), 179.5])
    lat = pa.array([89.5, *[0.0] * (table.num_rows - 2), -89.5])
    table = table.set_column(1, table.schema.field(1), lat).set_column(2, table.schema.field(2), lon)
    metadata = pq.read_metadata(exported(tmp_path, table))
    column = json.loads(metadata.metadata[b"geo"])["columns"]["geometry"]
    assert column["bbox"] == [-179.5, -89.5, 179.5, 89.5]
    assert [metadata.row_group(n).num_rows for n in range(3)] == [65_536, 65_536, 1]


def test_row_groups_have_a_size_of_their_own(tmp_path: Path) -> None:
    """However the dataset is cut into batches, no row group has more than 65,536 rows."""
    GeoParquetExporter(tmp_path).apply(as_revision(observations(70_000), batch_rows=70_000))
    metadata = pq.read_metadata(tmp_path / "weather" / f"{STEM}.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [65_536, 4_464]


def test_footer_names_the_revision(tmp_path: Path) -> None:
    """The footer tells which event, revision, content and window the file shows; columns are zstd."""
    revision = as_revision(observations(5), 7)
    GeoParquetExporter(tmp_path).apply(revision)
    metadata = pq.read_metadata(tmp_path / "weather" / f"{STEM}.parquet")
    assert {k: v for k, v in metadata.metadata.items() if k.startswith(b"ionbeam.")} == {
        b"ionbeam.dataset": b"weather",
        b"ionbeam.window_start": b"2024-01-01T00:00:00+00:00",
        b"ionbeam.window_end": b"2024-01-02T00:00:00+00:00",
        b"ionbeam.event_id": revision.event.id.encode(),
        b"ionbeam.revision": b"7",
        b"ionbeam.content_hash": b"c0ffee",
    }
    group = metadata.row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}


def test_duckdb_reads_the_values(tmp_path: Path) -> None:
    """DuckDB sees every value, null, text and nanosecond, and can prune by the covering."""
    table = observations(300)
    path = exported(tmp_path, table)
    with duckdb.connect() as connection:
        # The conversion of geometries wants an extension that DuckDB would download.
        connection.execute("SET enable_geoparquet_conversion = false; SET TimeZone = 'UTC'")
        source = connection.from_parquet(str(path))
        rows = source.select(f'epoch_ns(timestamp), longitude, "{TEMPERATURE}", station').fetchall()
        boxed = source.filter("bbox.xmin >= 100 AND bbox.xmax <= 160").count("*").fetchall()
        points = source.select("geometry").fetchall()
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    others = [table[name].to_pylist() for name in ("longitude", TEMPERATURE, "station")]
    # DuckDB keeps timestamps with a time zone to the microsecond.
    assert [(row[0] // 1000, *row[1:]) for row in rows] == list(
        zip((time // 1000 for time in times), *others, strict=True)
    )
    assert boxed == [(sum(100 <= x <= 160 for x in others[0]),)]
    assert bytes(points[0][0]) == struct.pack("<BIdd", 1, 1, 170.0, -59.9)


def test_geopandas_reads_points(tmp_path: Path) -> None:
    """geopandas finds the geometry and its reference system by itself, and filters by a box."""
    table = observations(300)
    path = exported(tmp_path, table)
    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert frame.geometry.x.tolist() == table["longitude"].to_pylist()
    assert frame.geometry.y.tolist() == table["latitude"].to_pylist()
    assert pa.array(frame["station"], from_pandas=True).to_pylist() == table["station"].to_pylist()
    inside = pc.and_(pc.greater_equal(table["longitude"], 100), pc.less_equal(table["longitude"], 160))
    assert len(geopandas.read_parquet(path, bbox=(100, -90, 160, 90))) == pc.sum(inside).as_py()


@pytest.mark.parametrize("name", ["geometry", "Geometry", "bbox", "geo", "xmin", "weird \"name'.\n"])
def test_a_column_of_our_name_is_kept(tmp_path: Path, name: str) -> None:
    """A metadata column called like one of ours, in any letters, stays, and readers still find both."""
    table = observations(20, station=name)
    path = exported(tmp_path, table)
    assert pq.read_table(path).select(table.column_names).equals(table)
    assert geopandas.read_parquet(path).geometry.x.tolist() == table["longitude"].to_pylist()
    names = [column.casefold() for column in pq.read_schema(path).names]
    assert len(set(names)) == len(names)


def test_same_revision_same_bytes(tmp_path: Path) -> None:
    """Two exporters write the same bytes for the same revision."""
    assert undisturbed(tmp_path / "a", 3) == undisturbed(tmp_path / "b", 3)


class MeteredDisk(Disk):
    """Notes the most that `pool` holds, above what it holds now, whenever something is written."""

    def __init__(self, pool: pa.MemoryPool) -> None:
        self.pool = pool
        self.before = pool.bytes_allocated()
        self.peak = 0

    def create(self, path: Path) -> IO[bytes]:
        return cast("IO[bytes]", MeteredFile(path, self))


class MeteredFile(io.FileIO):
    def __init__(self, path: Path, disk: MeteredDisk) -> None:
        super().__init__(path, "xb")
        self._disk = disk

    def write(self, data: Buffer) -> int:
        disk = self._disk
        disk.peak = max(disk.peak, disk.pool.bytes_allocated() - disk.before)
        return super().write(data)


def test_a_file_is_written_with_bounded_memory(tmp_path: Path) -> None:
    """What Arrow holds at once does not grow with the window: one batch and its encoding, not the dataset."""
    peaks = []
    batch = observations(65_536)
    for batches in (2, 8):
        revision = as_revision(pa.concat_tables([batch] * batches), batches)
        default, pool = pa.default_memory_pool(), pa.system_memory_pool()
        disk = MeteredDisk(pool)
        pa.set_memory_pool(pool)
        try:
            GeoParquetExporter(tmp_path, disk=disk).apply(revision)
        finally:
            pa.set_memory_pool(default)
        peaks.append(disk.peak)
    assert 0 < peaks[1] < 1.5 * peaks[0], peaks


# -- which revision is shown ---------------------------------------------------------------------------------


def test_a_later_revision_takes_the_place(tmp_path: Path) -> None:
    """Revision 3 replaces revision 1: only it is there, under the same name."""
    exporter = GeoParquetExporter(tmp_path)
    exporter.apply(REVISIONS[1])
    exporter.apply(REVISIONS[3])
    assert list(shown(tmp_path)) == [f"{STEM}.parquet"]
    assert pq.read_table(tmp_path / "weather" / f"{STEM}.parquet").num_rows == SIZES[3]


@pytest.mark.parametrize("replayed", [1, 2, 3])
def test_a_replay_touches_nothing(tmp_path: Path, replayed: int) -> None:
    """An older event, with rows or without, or the same again, leaves bytes, inode and time alone."""
    GeoParquetExporter(tmp_path).apply(REVISIONS[3])
    path = tmp_path / "weather" / f"{STEM}.parquet"
    before = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
    GeoParquetExporter(tmp_path).apply(REVISIONS[replayed])
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert list(shown(tmp_path)) == [path.name]


def test_the_file_of_an_empty_revision_disappears(tmp_path: Path) -> None:
    """Zero rows leave a tombstone, which an older event does not lift and a later one does."""
    exporter = GeoParquetExporter(tmp_path)
    exporter.apply(REVISIONS[1])
    exporter.apply(REVISIONS[2])
    assert list(shown(tmp_path)) == [TOMBSTONE]
    exporter.apply(REVISIONS[1])
    assert list(shown(tmp_path)) == [TOMBSTONE]
    exporter.apply(REVISIONS[3])
    assert list(shown(tmp_path)) == [f"{STEM}.parquet"]


def test_the_folder_is_one_table(tmp_path: Path) -> None:
    """Readers of a whole folder see the windows that have rows, also beside one that was removed."""
    exporter = GeoParquetExporter(tmp_path)
    later = [START + timedelta(days=day) for day in range(3)]
    for start in later:
        exporter.apply(as_revision(observations(4), start=start))
    exporter.apply(as_revision(observations(0), 2, start=later[1]))
    folder = tmp_path / "weather"
    assert len(list(folder.iterdir())) == 4, "a lock, a tombstone and two windows"
    assert pq.read_table(folder).num_rows == 8
    assert pyarrow.dataset.dataset(folder).count_rows() == 8
    with duckdb.connect() as connection:
        assert connection.from_parquet(f"{folder}/*.parquet").count("*").fetchall() == [(8,)]


def test_a_dataset_without_a_count(tmp_path: Path) -> None:
    """An event that does not say its row count has it counted: an empty dataset is a tombstone too."""
    exporter = GeoParquetExporter(tmp_path)
    exporter.apply(as_revision(observations(3), 1, rows=None))
    assert list(shown(tmp_path)) == [f"{STEM}.parquet"]
    exporter.apply(as_revision(observations(0), 2, rows=None))
    assert list(shown(tmp_path)) == [TOMBSTONE]


def test_no_rows_need_no_dataset(tmp_path: Path) -> None:
    """An event of zero rows is enough: the dataset is not opened, and a new window gets a tombstone."""

    def unreachable() -> pa.NativeFile:
        raise AssertionError("opened")

    GeoParquetExporter(tmp_path).apply(msgspec.structs.replace(REVISIONS[2], open=unreachable))
    assert list(shown(tmp_path)) == [TOMBSTONE]


def test_content_that_comes_back(tmp_path: Path) -> None:
    """A → B → A ends with the rows of A under the number of the last revision."""
    exporter = GeoParquetExporter(tmp_path)
    for number in (1, 3, 4):
        exporter.apply(REVISIONS[number])
    table = pq.read_table(tmp_path / "weather" / f"{STEM}.parquet")
    assert table.select(observations(0).column_names).equals(observations(SIZES[4]))
    assert revision_shown(tmp_path) == 4


def test_the_same_number_from_another_home(tmp_path: Path) -> None:
    """Equal numbers with other content: the event in hand is the news, also between file and tombstone."""
    exporter = GeoParquetExporter(tmp_path)
    exporter.apply(as_revision(observations(3), 1, content_hash="aa"))
    exporter.apply(as_revision(observations(5), 1, content_hash="bb"))
    assert pq.read_metadata(tmp_path / "weather" / f"{STEM}.parquet").num_rows == 5
    exporter.apply(as_revision(observations(0), 1, content_hash="cc"))
    assert list(shown(tmp_path)) == [TOMBSTONE]
    exporter.apply(as_revision(observations(5), 1, content_hash="bb"))
    assert list(shown(tmp_path)) == [f"{STEM}.parquet"]


def test_windows_and_datasets_stand_apart(tmp_path: Path) -> None:
    """Each window of each dataset has its own file."""
    exporter = GeoParquetExporter(tmp_path)
    for name in ("weather", "air"):
        for day in range(2):
            exporter.apply(as_revision(observations(2), name=name, start=START + timedelta(days=day)))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")) == [
        f"{name}/2024010{day}T000000Z_P1D.parquet" for name in ("air", "weather") for day in (1, 2)
    ]


@given(st.lists(st.tuples(st.sampled_from(sorted(REVISIONS)), st.booleans()), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_any_order_ends_with_the_highest(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, bool]]
) -> None:
    """Doubled, reordered, through two exporters: the folder ends as if the highest had come alone."""
    folder = tmp_path_factory.mktemp("any")
    exporters = GeoParquetExporter(folder / "shared"), GeoParquetExporter(folder / "shared")
    highest = 0
    for number, second in events:
        exporters[second].apply(REVISIONS[number])
        highest = max(highest, number)
        assert revision_shown(folder / "shared") == highest
    assert shown(folder / "shared") == undisturbed(folder / "alone", highest)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" + b"\xff" * 50 + b"\x20\0\0\0PAR1", b"not ours" * 9])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """What cannot be read shows no revision: the next event puts a whole file in its place."""
    folder = tmp_path / "weather"
    folder.mkdir()
    for name in (f"{STEM}.parquet", TOMBSTONE):
        (folder / name).write_bytes(damage)
    GeoParquetExporter(tmp_path).apply(REVISIONS[1])
    assert shown(tmp_path) == undisturbed(tmp_path / "alone", 1)


def test_an_unreadable_disk_is_not_a_damaged_file() -> None:
    """A read error while looking for the revision is raised: what is shown may be newer than the event."""

    class Unreadable(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        read_stamp(Unreadable(b"PAR1" * 9))


def test_a_foreign_file_is_replaced(tmp_path: Path) -> None:
    """A good Parquet file that says nothing of a revision counts as none."""
    (tmp_path / "weather").mkdir()
    pq.write_table(observations(9), tmp_path / "weather" / f"{STEM}.parquet")
    GeoParquetExporter(tmp_path).apply(REVISIONS[1])
    assert revision_shown(tmp_path) == 1


# -- disks that fail, processes that die ---------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: nothing after this reaches the disk."""


class DyingDisk(Disk):
    """Does `steps` steps, half of one more if it is a write, and then fails with `failure` for ever."""

    def __init__(self, steps: int, failure: Callable[[], BaseException] = Killed) -> None:
        self.left = steps
        self.failure = failure
        self.trace: list[str] = []

    def step(self, what: str) -> None:
        if self.left == 0:
            raise self.failure()
        self.left -= 1
        self.trace.append(what)

    def make_folder(self, path: Path) -> None:
        self.step("make_folder")
        super().make_folder(path)

    def create(self, path: Path) -> IO[bytes]:
        self.step("create")
        return cast("IO[bytes]", DyingFile(path, self))

    def sync(self, file: IO[bytes]) -> None:
        self.step("sync")
        super().sync(file)

    def replace(self, source: Path, target: Path) -> None:
        self.step(f"replace {target.suffix}")
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self.step(f"remove {path.suffix or path.name}")
        super().remove(path)

    def sync_folder(self, path: Path) -> None:
        self.step(f"sync_folder {path.name}")
        super().sync_folder(path)


class DyingFile(io.FileIO):
    """A file whose writes are steps of its disk; unbuffered, so what was written before the end is there."""

    def __init__(self, path: Path, disk: DyingDisk) -> None:
        super().__init__(path, "xb")
        self._disk = disk

    def write(self, data: Buffer) -> int:
        content = bytes(data)
        try:
            self._disk.step("write")
        except BaseException:
            super().write(content[: len(content) // 2])
            raise
        return super().write(content)


def steps_of(folder: Path, number: int) -> list[str]:
    disk = DyingDisk(10_000)
    GeoParquetExporter(folder, disk=disk).apply(REVISIONS[number])
    return disk.trace


def test_a_file_is_synced_before_it_is_shown_and_its_folder_after(tmp_path: Path) -> None:
    """Durable: content, then name, then folder; the older sort of file goes once the newer one is durable."""
    trace = [step for step in steps_of(tmp_path, 1) if step not in ("write", "make_folder")]
    assert trace[-8:] == [
        "create",
        "sync",
        "replace .parquet",
        "sync_folder weather",
        "remove .removed",
        "sync_folder weather",
        f"sync_folder {tmp_path.name}",
        "remove .incoming",
    ]
    assert f"sync_folder {tmp_path.name}" in trace[:-8], "the new folder's name is synced too"
    trace = [step for step in steps_of(tmp_path, 2) if step != "write"]
    assert trace.index("sync") < trace.index("replace .removed") < trace.index("remove .parquet")


def test_a_replay_makes_sure_that_what_it_finds_is_durable(tmp_path: Path) -> None:
    """A process killed between `replace` and the folder's sync is made good by the event that comes again."""
    GeoParquetExporter(tmp_path).apply(REVISIONS[1])
    assert "sync_folder weather" in steps_of(tmp_path, 1)


@pytest.mark.parametrize("story", [[1], [2], [1, 3], [1, 2], [1, 2, 3], [2, 5]])
def test_a_kill_at_any_step(tmp_path: Path, story: list[int]) -> None:
    """Killed anywhere, the folder shows the old revision or the new, whole; the event again heals it."""
    *before, last = story
    previous = before[-1] if before else 0

    def prepared(name: str) -> Path:
        folder = tmp_path / name
        for number in before:
            GeoParquetExporter(folder).apply(REVISIONS[number])
        return folder

    total = len(steps_of(prepared("whole"), last))
    assert total > 8
    for steps in range(total):
        folder = prepared(f"killed-{steps}")
        with pytest.raises(Killed):
            GeoParquetExporter(folder, disk=DyingDisk(steps)).apply(REVISIONS[last])
        if (folder / "weather").exists():
            assert revision_shown(folder) in (previous, last)
        if before:
            GeoParquetExporter(folder).apply(REVISIONS[before[0]])
            assert revision_shown(folder) in (previous, last), "an older event changes nothing"
        GeoParquetExporter(folder).apply(REVISIONS[last])
        assert shown(folder) == undisturbed(tmp_path / f"alone-{steps}", last)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_disk_that_cannot_be_written_is_unavailable(tmp_path: Path, number: int) -> None:
    """Full or read-only at any step: Unavailable names the folder and the remedy; later all is well."""

    def failure() -> OSError:
        return OSError(number, "as the system says it")

    GeoParquetExporter(tmp_path / "whole").apply(REVISIONS[1])
    for steps in range(len(steps_of(tmp_path / "whole", 3))):
        folder = tmp_path / str(steps)
        GeoParquetExporter(folder).apply(REVISIONS[1])
        with pytest.raises(Unavailable) as caught:
            GeoParquetExporter(folder, disk=DyingDisk(steps, failure)).apply(REVISIONS[3])
        assert str(folder) in str(caught.value)
        assert "as the system says it" in str(caught.value)
        assert ("mount it writable" if number == errno.EROFS else "free space") in str(caught.value)
        GeoParquetExporter(folder).apply(REVISIONS[3])
        assert shown(folder) == undisturbed(tmp_path / f"alone-{steps}", 3)


def test_another_fault_of_the_disk_is_itself(tmp_path: Path) -> None:
    """An error that waiting does not cure is not called Unavailable."""
    GeoParquetExporter(tmp_path).apply(REVISIONS[1])
    with pytest.raises(PermissionError):
        GeoParquetExporter(tmp_path, disk=DyingDisk(3, lambda: OSError(errno.EACCES, "no"))).apply(REVISIONS[3])


def test_a_failed_write_gives_its_space_back(tmp_path: Path) -> None:
    """A partial file does not stay on a disk that is full: only what was shown before is there."""

    class FullDisk(DyingDisk):
        def remove(self, path: Path) -> None:
            Disk.remove(self, path)

    GeoParquetExporter(tmp_path).apply(REVISIONS[1])
    disk = FullDisk(5, lambda: OSError(errno.ENOSPC, "full"))
    with pytest.raises(Unavailable):
        GeoParquetExporter(tmp_path, disk=disk).apply(REVISIONS[3])
    assert disk.trace.count("write") > 0
    assert shown(tmp_path) == undisturbed(tmp_path / "alone", 1)


def test_one_exporter_at_a_time_in_a_dataset(tmp_path: Path) -> None:
    """While one exporter writes, another process would wait at the lock; afterwards the lock is free."""
    tried = []

    class Curious(Disk):
        def create(self, path: Path) -> IO[bytes]:
            with (path.parent / ".lock").open("rb") as other, pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tried.append(path)
            return super().create(path)

    GeoParquetExporter(tmp_path, disk=Curious()).apply(REVISIONS[1])
    assert tried
    with (tmp_path / "weather" / ".lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "/tmp", "a/b", "a\0b"])
def test_a_name_stays_below_the_folder(tmp_path: Path, name: str) -> None:
    """A dataset's name that would leave the folder is refused, and nothing is written."""
    with pytest.raises(Refused, match="cannot name a file"):
        GeoParquetExporter(tmp_path / "in").apply(as_revision(observations(2), name=name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("column", ["latitude", "longitude"])
def test_a_dataset_without_a_position(tmp_path: Path, column: str) -> None:
    """A null coordinate is not made up: the attempt fails, naming the dataset, and the old file stays."""
    GeoParquetExporter(tmp_path).apply(REVISIONS[1])
    table = observations(3)
    index = table.column_names.index(column)
    broken = table.set_column(index, table.schema.field(index), pa.array([1.0, None, 2.0]))
    with pytest.raises(IonbeamError, match="1 null coordinates"):
        GeoParquetExporter(tmp_path).apply(as_revision(broken, 3))
    assert shown(tmp_path) == undisturbed(tmp_path / "alone", 1)


def test_a_dataset_of_another_length_than_its_event_says(tmp_path: Path) -> None:
    """Rows missing from the file are not passed on in silence."""
    with pytest.raises(IonbeamError, match=r"has 3 rows, its event .* says 4"):
        GeoParquetExporter(tmp_path).apply(as_revision(observations(3), rows=4))
    assert shown(tmp_path) == {}


def test_names_of_windows() -> None:
    """Start in UTC and span in one spelling; years keep four digits and sort as text."""
    event = REVISIONS[1].event
    assert window_stem(event) == STEM
    hours = msgspec.structs.replace(event.metadata, aggregation_span=Duration("PT90M"))
    early = msgspec.structs.replace(event, start_time=datetime(7, 2, 3, 4, 30, tzinfo=UTC), metadata=hours)
    assert window_stem(early) == "00070203T043000Z_PT1H30M"
