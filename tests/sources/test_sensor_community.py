"""Archive files become one command per type and day, and a later run sends only what is new or changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_client import Crashed, RecordingClient

from ionbeam.client import Claim, Duration
from ionbeam.sources.sensor_community import Report, ingest

DATA = Path(os.environ.get("IONBEAM_DATA", Path(__file__).parents[3] / "shared" / "data"))
LEADING = "sensor_id;sensor_type;location;lat;lon;timestamp"
COLUMNS = {
    "dht22": "temperature;humidity",
    "sds011": "P1;durP1;ratioP1;P2;durP2;ratioP2",
    "sps30": "P1;P4;P2;P0;N10;N4;N25;N1;N05;TS",
    "pms5003": "P1;P2;P0",
    "bme280": "pressure;altitude;pressure_sealevel;temperature;humidity",
    "ds18b20": "temperature",
    "scd30": "temperature;humidity;co2_ppm",
    "ppd42ns": "P1;durP1;ratioP1;P2;durP2;ratioP2",
    "radiation_sbm-20": "counts_per_minute;hv_pulses;tick;counts;sample_time_ms",
}
F, G, H = (f"2024-02-03_dht22_sensor_{number}.csv" for number in (1, 2, 3))


def write(folder: Path, name: str, *values: str) -> Path:
    """An archive file with a row for each of `values`, which stands in the first column of the type."""
    described, _, number = name.removesuffix(".csv").removesuffix("_indoor").partition("_sensor_")
    day, _, kind = described.partition("_")
    columns = COLUMNS[kind]
    rest = ";" * columns.count(";")
    rows = [
        f"{number};{kind.upper()};7;50.1;8.2;{day}T00:00:{second:02d};{value}{rest}"
        for second, value in enumerate(values)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("\n".join((f"{LEADING};{columns}", *rows, "")))
    return path


def values(sent: Sequence[pa.Table]) -> list[tuple[str, str]]:
    """Sensor and temperature of every row."""
    return sorted(
        pair
        for rows in sent
        for pair in zip(rows["sensor_id"].to_pylist(), rows["temperature"].to_pylist(), strict=True)
    )


async def run(client: RecordingClient, *paths: Path, **options: object) -> Report:
    return await ingest(client, paths, **options)  # type: ignore[arg-type]


# -- one command per type and day ------------------------------------------------------------------


async def test_one_command_per_type_and_day(tmp_path: Path) -> None:
    """Each claims its own day in UTC, whatever folder its files lie in, and progress names it."""
    write(tmp_path / "x", F, "1")
    write(tmp_path / "y", G, "2", "3")
    write(tmp_path, "2024-02-03_sds011_sensor_9.csv", "4")
    write(tmp_path, "2024-02-04_dht22_sensor_1.csv", "5")
    client = RecordingClient()
    seen: list[tuple[str, int, int]] = []
    report = await run(client, tmp_path, progress=lambda *told: seen.append(told))
    assert [(s.metadata.dataset.name, s.start.day, len(s.rows)) for s in client.sent] == [
        ("sensor_community_dht22", 3, 3),
        ("sensor_community_sds011", 3, 1),
        ("sensor_community_dht22", 4, 1),
    ]
    day = datetime(2024, 2, 3, tzinfo=timezone.utc)
    assert client.sent[0].claims == (Claim(day, day.replace(day=4)),)
    assert (client.sent[0].start, client.sent[0].end) == (day, day.replace(day=4))
    assert seen == [
        ("sensor_community_dht22/2024-02-03", 1, 3),
        ("sensor_community_sds011/2024-02-03", 2, 3),
        ("sensor_community_dht22/2024-02-04", 3, 3),
    ]
    assert report == Report(commands=tuple(s.id for s in client.sent), rows=5, files_sent=4)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dht22", {"temperature": "air_temperature__degC", "humidity": "relative_humidity__%"}),
        ("ds18b20", {"temperature": "air_temperature__degC"}),
        (
            "sds011",
            {
                "P1": "mass_concentration_of_pm10_ambient_aerosol_particles_in_air__ug m-3",
                "P2": "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air__ug m-3",
            },
        ),
        (
            "sps30",
            {
                "P0": "mass_concentration_of_pm1_ambient_aerosol_particles_in_air__ug m-3",
                "P1": "mass_concentration_of_pm10_ambient_aerosol_particles_in_air__ug m-3",
                "P2": "mass_concentration_of_pm2p5_ambient_aerosol_particles_in_air__ug m-3",
            },
        ),
        (
            "bme280",
            {
                "temperature": "air_temperature__degC",
                "humidity": "relative_humidity__%",
                "pressure": "air_pressure__Pa",
                "pressure_sealevel": "air_pressure_at_mean_sea_level__Pa",
            },
        ),
        (
            "scd30",
            {
                "temperature": "air_temperature__degC",
                "humidity": "relative_humidity__%",
                "co2_ppm": "mole_fraction_of_carbon_dioxide_in_air__1e-6",
            },
        ),
    ],
)
async def test_columns_mean_what_cf_says(tmp_path: Path, kind: str, expected: dict[str, str]) -> None:
    """Every column that has a CF name is mapped, also without a value all day; the others come unmapped."""
    write(tmp_path, f"2024-02-03_{kind}_sensor_1.csv", "1")
    client = RecordingClient()
    await run(client, tmp_path, span=Duration("PT1H"))
    (sent,) = client.sent
    assert sent.variables == {column: f"{name}__0.0__point__PT0S" for column, name in expected.items()}
    assert set(f"{LEADING};{COLUMNS[kind]}".split(";")) <= set(sent.rows.column_names)
    mapping = sent.metadata.ingestion_map
    assert mapping.identity_columns == ("sensor_id",)
    assert mapping.datetime.timezone == "UTC"
    assert mapping.reject_column in sent.rows.column_names
    assert str(sent.metadata.dataset.aggregation_span) == "PT1H"


@pytest.mark.parametrize("kind", ["radiation_sbm-20", "ppd42ns"])
async def test_a_type_without_any_cf_meaning_is_reported(tmp_path: Path, kind: str) -> None:
    """Counts of pulses or particles are not passed off as something that CF knows."""
    write(tmp_path, f"2024-02-03_{kind}_sensor_1.csv", "1")
    client = RecordingClient()
    report = await run(client, tmp_path)
    assert not client.sent
    assert not client.memory
    assert "has a known CF name" in str(*report.problems)


async def test_indoor_sensors_are_a_dataset_of_their_own(tmp_path: Path) -> None:
    """Their temperature is not that of the air outside."""
    write(tmp_path, F.replace(".csv", "_indoor.csv"), "21")
    client = RecordingClient()
    await run(client, tmp_path)
    assert client.sent[0].metadata.dataset.name == "sensor_community_dht22_indoor"


async def test_rows_come_by_file_name_and_line(tmp_path: Path) -> None:
    """The payload is the same however paths are given; a column that only one file has is null elsewhere."""
    b = write(tmp_path / "1", G, "3", "1")
    a = write(tmp_path / "2", F, "2")
    a.write_text(f"{LEADING};P9;temperature\n1;DHT22;7;50.1;8.2;2024-02-03T00:00:00;x;2\n")
    tables = []
    for paths in ((a, b), (b, a), (tmp_path, a)):
        client = RecordingClient()
        await run(client, *paths)
        tables.append(client.sent[0].rows)
    assert tables[0]["temperature"].to_pylist() == ["2", "3", "1"]
    assert tables[0]["P9"].null_count == 2
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


# -- what cannot be used ---------------------------------------------------------------------------


async def test_a_bad_file_stops_no_other(tmp_path: Path) -> None:
    """Empty, headless, misnamed, missing and contradictory files are named, each with a remedy."""
    write(tmp_path, F, "1")
    (tmp_path / G).write_text("")
    (tmp_path / H).write_text("what;is;this\n1;2;3\n")
    (tmp_path / "2024-02-31_dht22_sensor_4.csv").write_text("")
    (tmp_path / "notes.csv").write_text("")
    (tmp_path / "README").write_text("not looked at")
    twice = "2024-02-03_dht22_sensor_5.csv"
    write(tmp_path / "a", twice, "1")
    write(tmp_path / "b", twice, "2")
    client = RecordingClient()
    report = await run(client, tmp_path, tmp_path / "absent.csv")
    assert values([sent.rows for sent in client.sent]) == [("1", "1")]
    reasons = {Path(problem.path).name: problem.reason for problem in report.problems}
    assert {name: reason.split(";")[0].split(":")[0] for name, reason in reasons.items()} == {
        G: "is empty",
        H: "has no known header",
        "2024-02-31_dht22_sensor_4.csv": "is not named DATE_TYPE_sensor_ID.csv, its day is unknown",
        "notes.csv": "is not named DATE_TYPE_sensor_ID.csv, its day is unknown",
        "absent.csv": "is not there",
        twice: f"has other content than {tmp_path / 'b' / twice}",
    }


async def test_a_memory_that_cannot_be_read_sends_nothing(tmp_path: Path) -> None:
    """What is already out there is unknown then; the day's key and what is wrong are told."""
    write(tmp_path, F, "1")
    for value, reason in ((b"{", "cannot be read"), (b'{"version": 2}', "version 2")):
        client = RecordingClient()
        client.memory["sensor_community_dht22/2024-02-03"] = value
        report = await run(client, tmp_path)
        assert not client.sent
        assert reason in str(*report.problems)


# -- the second run --------------------------------------------------------------------------------


async def test_unchanged_files_are_not_sent_again(tmp_path: Path) -> None:
    """Not even when they were moved; the new place is remembered."""
    write(tmp_path / "old", F, "1")
    write(tmp_path / "old", G, "2")
    client = RecordingClient()
    await run(client, tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    report = await run(client, tmp_path / "new")
    assert report == Report(files_unchanged=2)
    assert len(client.sent) == 1
    write(tmp_path / "elsewhere", F, "7")
    await run(client, tmp_path / "elsewhere")
    assert values([sent.rows for sent in client.standing]) == [("1", "7"), ("2", "2")]


async def test_a_command_that_was_never_accepted_is_sent_again_under_its_id(tmp_path: Path) -> None:
    """With all of its files, also when only some are passed, and with the same payload."""
    write(tmp_path / "a", F, "1")
    write(tmp_path / "b", G, "2")
    client = RecordingClient(accepts=False)
    await run(client, tmp_path)
    await run(client, tmp_path / "a")
    first, second = client.sent
    assert first.id == second.id
    assert first.rows.equals(second.rows)
    assert first.replaces == second.replaces == ()


async def test_new_files_of_a_known_day_are_a_further_command(tmp_path: Path) -> None:
    """It carries only them, and replaces nothing."""
    write(tmp_path, F, "1")
    client = RecordingClient()
    await run(client, tmp_path)
    write(tmp_path, G, "2")
    report = await run(client, tmp_path)
    assert values([client.sent[1].rows]) == [("2", "2")]
    assert client.sent[1].replaces == ()
    assert (report.files_sent, report.files_unchanged) == (1, 1)


async def test_a_changed_file_replaces_every_command_that_had_it(tmp_path: Path) -> None:
    """The new command carries the other files of those commands too, from where they were last seen."""
    write(tmp_path / "a", F, "1")
    write(tmp_path / "b", G, "2")
    client = RecordingClient()
    await run(client, tmp_path)
    write(tmp_path / "c", H, "3")
    await run(client, tmp_path)
    write(tmp_path / "a", F, "9", "8")
    await run(client, tmp_path / "a")
    first, second, third = client.sent
    assert values([third.rows]) == [("1", "8"), ("1", "9"), ("2", "2")]
    assert third.replaces == (first.id,)
    assert client.standing == [second, third]


async def test_content_that_comes_back_gets_a_new_id(tmp_path: Path) -> None:
    """A, B and A again are three commands, each in the place of all before it."""
    client = RecordingClient()
    for value in "ABAB":
        write(tmp_path, F, value)
        await run(client, tmp_path)
    ids = [sent.id for sent in client.sent]
    assert len(set(ids)) == 4
    assert [sent.replaces for sent in client.sent] == [tuple(ids[:k]) for k in range(4)]


async def test_a_file_to_be_carried_that_is_gone_is_asked_for(tmp_path: Path) -> None:
    """Nothing is sent for that day: its rows would be lost with the command that is replaced."""
    write(tmp_path / "a", F, "1")
    gone = write(tmp_path / "b", G, "2")
    client = RecordingClient()
    await run(client, tmp_path)
    gone.unlink()
    write(tmp_path / "a", F, "9")
    write(tmp_path / "a", H, "3")
    remembered = dict(client.memory)
    report = await run(client, tmp_path / "a")
    assert len(client.sent) == 1
    assert client.memory == remembered
    (problem,) = report.problems
    assert problem.path == str(gone)
    assert "pass the folder where the file is now" in problem.reason
    write(tmp_path / "c", G, "2")
    await run(client, tmp_path)
    assert values([sent.rows for sent in client.standing]) == [("1", "9"), ("2", "2"), ("3", "3")]


async def test_a_file_that_became_unreadable_keeps_its_good_version(tmp_path: Path) -> None:
    """A cut download is reported, and takes nothing away."""
    write(tmp_path, F, "1")
    client = RecordingClient()
    await run(client, tmp_path)
    (tmp_path / F).write_text("sensor_id;sens")
    report = await run(client, tmp_path)
    assert "no known header" in str(*report.problems)
    assert values([sent.rows for sent in client.standing]) == [("1", "1")]


# -- crashes ---------------------------------------------------------------------------------------


def as_it_is(folder: Path) -> list[tuple[str, str]]:
    """What stands in the files, read without the source."""
    rows = [line.split(";") for path in folder.glob("*.csv") for line in path.read_text().splitlines()[1:]]
    return sorted((row[0], row[6]) for row in rows)


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("crash_at", range(1, 8))
@pytest.mark.parametrize("change", ["none", "again", "back", "new"])
async def test_a_crash_at_any_call_leaves_nothing_behind(
    tmp_path: Path, crash_at: int, after_effect: bool, change: str
) -> None:
    """Whatever the crashed run had published, once a later run ends each row stands exactly once."""
    write(tmp_path, F, "1", "2")
    write(tmp_path, G, "3")
    client = RecordingClient()
    await run(client, tmp_path)
    write(tmp_path, F, "5")
    write(tmp_path, H, "6")
    client.calls, client.crash_at, client.crash_after_effect = 0, crash_at, after_effect
    try:
        await run(client, tmp_path)
    except Crashed:
        pass
    else:
        assert crash_at > 3
    client.crash_at = None
    if change == "again":
        write(tmp_path, F, "7")
    elif change == "back":
        write(tmp_path, F, "1", "2")
    elif change == "new":
        write(tmp_path, H, "8", "9")
    await run(client, tmp_path)
    assert values([sent.rows for sent in client.standing]) == as_it_is(tmp_path)
    assert (await run(client, tmp_path)).commands == ()


steps = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from([F, G, H]), st.lists(st.sampled_from("123"), max_size=2), max_size=3),
        st.one_of(st.none(), st.integers(1, 5)),
        st.booleans(),
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=60)
@given(steps)
def test_any_history_of_changes_and_crashes_ends_right(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[dict[str, list[str]], int | None, bool]],
) -> None:
    """The files' rows stand, each exactly once, however they changed and wherever runs crashed before."""
    folder = tmp_path_factory.mktemp("archive")

    async def live() -> None:
        client = RecordingClient()
        for changes, client.crash_at, client.crash_after_effect in history:
            client.calls = 0
            for name, content in changes.items():
                write(folder, name, *content)
            try:
                await run(client, folder)
            except Crashed:
                continue
            assert values([sent.rows for sent in client.standing]) == as_it_is(folder)
        client.crash_at = None
        await run(client, folder)
        assert values([sent.rows for sent in client.standing]) == as_it_is(folder)

    trio.run(live)


# -- real files ------------------------------------------------------------------------------------


async def test_the_real_archive() -> None:
    """Five days of three types: every line below a header is a row, and a second run sends nothing."""
    folder = DATA / "sensor-community"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set IONBEAM_DATA to their folder")
    client = RecordingClient()
    report = await run(client, folder)
    files = list(folder.rglob("*.csv"))
    lines = sum(len(path.read_bytes().splitlines()) - 1 for path in files)
    assert (len(client.sent), report.rows, report.unparsed, report.files_sent) == (15, lines, 0, len(files))
    assert report.problems == ()
    sent = {(sent.metadata.dataset.name, sent.start.day): sent.rows for sent in client.sent}
    rows = sent["sensor_community_sds011", 13]
    moving = rows.filter(pc.equal(rows["sensor_id"], "22068"))
    assert len(pc.unique(moving["lat"])) > 1
    assert await run(client, folder) == Report(files_unchanged=len(files))
