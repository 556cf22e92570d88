"""Bad input costs its sender, nobody else: every case of the specification through a real node."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio
from at_home import RAW, P, T, at, command, ipc_file, ipc_stream, metadata, row, rows, variable, working

from ionbeam.schemas.codec import encode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import IngestDataCommand
from ionbeam.schemas.metadata import MAX_COLUMNS
from ionbeam.schemas.variables import MetadataVariable, TimeColumn

Content = dict[str, Any]
Change = Callable[[Content], None]


def spelled(name: str, **more: Any) -> Content:
    """A good command as JSON says it."""
    content: Content = json.loads(encode(command(name, **more)))
    return content


def put(path: str, value: Any) -> Change:
    """Set what lies at `path` (dots between keys and numbers)."""

    def change(content: Content) -> None:
        *way, last = path.split(".")
        at_: Any = content
        for step in way:
            at_ = at_[int(step) if step.isdigit() else step]
        at_[int(last) if last.isdigit() else last] = value

    return change


def drop(path: str) -> Change:
    def change(content: Content) -> None:
        *way, last = path.split(".")
        at_: Any = content
        for step in way:
            at_ = at_[int(step) if step.isdigit() else step]
        del at_[last]

    return change


MAP, SET = "metadata.ingestion_map", "metadata.dataset"
MANY = [{"column": f"c{n}", "standard_name": "air_temperature", "cf_unit": "K", "level": n} for n in range(10_000)]

COMMANDS: dict[str, tuple[Change, list[str]]] = {
    "wrong type": (put(f"{SET}.name", 5), ["$.metadata.dataset.name", "got 5", "Expected `str`"]),
    "wrong type, deep": (put(f"{MAP}.canonical_variables.0.level", "high"), ["canonical_variables", "level", "high"]),
    "missing field": (drop("payload_location"), ["`payload_location`"]),
    "missing field, deep": (drop(f"{MAP}.canonical_variables.0.cf_unit"), ["cf_unit", "canonical_variables"]),
    "unknown version": (put("metadata.version", 2), ["$.metadata.version", "2", "version 1"]),
    "naive time": (put("start_time", "2024-01-01T00:00:00"), ["$.start_time", "2024-01-01T00:00:00", "timezone"]),
    "not a time": (put("end_time", "yesterday"), ["$.end_time", "yesterday"]),
    "end before start": (
        put("end_time", "2023-01-01T00:00:00Z"),
        ["`end_time` must be after `start_time`", "2023-01-01"],
    ),
    "end at start": (put("end_time", "2024-01-01T00:00:00Z"), ["`end_time` must be after `start_time`"]),
    "empty name": (put(f"{SET}.name", ""), ["$.metadata.dataset.name"]),
    "name that climbs": (put(f"{SET}.name", "../etc"), ["$.metadata.dataset.name", "../etc"]),
    "name with a slash": (put(f"{SET}.name", "a/b"), ["$.metadata.dataset.name", "a/b"]),
    "name of 1 MB": (put(f"{SET}.name", "n" * (1 << 20)), ["$.metadata.dataset.name", "nnn", "100"]),
    "id with a newline": (put("id", "a\nb"), ["$.id", "a\\nb"]),
    "empty map": (put(f"{MAP}.canonical_variables", []), ["`canonical_variables` is empty"]),
    "map of 10,000 columns": (put(f"{MAP}.canonical_variables", MANY), ["10001 columns", str(MAX_COLUMNS)]),
    "unknown standard name": (
        put(f"{MAP}.canonical_variables.0.standard_name", "air_temprature"),
        ["canonical_variables[0].standard_name", "air_temprature", "did you mean", "air_temperature"],
    ),
    "unknown unit": (put(f"{MAP}.canonical_variables.0.cf_unit", "degz"), ["canonical_variables[0].cf_unit", "degz"]),
    "impossible unit": (
        put(f"{MAP}.canonical_variables.0.cf_unit", "kg"),
        ["canonical_variables[0].cf_unit", "'kg'", "'K'"],
    ),
    "impossible from_unit": (
        put(f"{MAP}.canonical_variables.0.from_unit", "m"),
        ["canonical_variables[0].from_unit", "'m'"],
    ),
    "one canonical name twice": (
        put(f"{MAP}.canonical_variables.1", MANY[0] | {"column": "other", "level": 0.0}),
        ["canonical_variables[1]", "canonical_variables[0]", T],
    ),
    "metadata column twice": (
        put(f"{MAP}.metadata_variables", [{"column": "s"}, {"column": "s"}]),
        ["metadata_variables[1]", "'s'"],
    ),
    "metadata column named as a fixed one": (
        put(f"{MAP}.metadata_variables.0.column", "latitude"),
        ["metadata_variables[0]", "'latitude'"],
    ),
    "identity that is no column": (put(f"{MAP}.identity", ["hut"]), ["`identity`", "'hut'", "station"]),
    "unknown fold": (put(f"{MAP}.fold", "average"), ["fold", "average"]),
    "no duration": (put(f"{SET}.aggregation_span", "1 day"), ["aggregation_span", "1 day", "PT1H"]),
    "a month": (put(f"{SET}.aggregation_span", "P1M"), ["aggregation_span", "P1M"]),
    "a span of nothing": (put(f"{SET}.aggregation_span", "PT0S"), ["aggregation_span", "PT0S"]),
    "a claim that ends before it starts": (
        put("claims", [["2024-01-01T01:00:00Z", "2024-01-01T00:00:00Z"]]),
        ["claim ends after it starts", "claims"],
    ),
    "replacing itself": (put("replaces", ["bad"]), ["`replaces`", "bad"]),
    "a location outside": (put("payload_location", "../../etc/passwd"), ["../../etc/passwd", "object key"]),
    "no such time zone": (
        put(f"{MAP}.datetime.timezone", "Europe/Berln"),
        ["datetime.timezone", "Europe/Berln", "Europe/Berlin"],
    ),
    "issued in the future": (put("issued_at", "2100-01-01T00:00:00Z"), ["$.issued_at", "2100-01-01", "clock"]),
}


def good() -> pa.Table:
    return rows(row(60), row(120, "b", p=1e5))


async def test_commands_that_are_refused(tmp_path: Path) -> None:
    """Each becomes one dead letter that names path, value and remedy; the good command behind it is unaffected."""
    async with working(tmp_path / "home") as home:
        for number, (name, (change, _)) in enumerate(COMMANDS.items()):
            content = spelled("bad", payload_location=f"raw/bad{number}")
            await home.ports.objects.put(f"raw/bad{number}", ipc_file(good()))
            change(content)
            await home.publish(json.dumps(content).encode(), f"bad {name}"[:90])
            await home.send(command(f"good{number}", start_time=at(0)), good())
        await home.settle()
        letters = {letter.message_id: letter for letter in await home.letters()}
        assert set(letters) == {f"bad {name}"[:90] for name in COMMANDS}
        for name, (_, parts) in COMMANDS.items():
            letter = letters[f"bad {name}"[:90]]
            missing = [part for part in parts if part not in letter.reason]
            assert not missing, f"{name}: {missing} not in {letter.reason!r}"
            assert letter.attempts == 1
            assert letter.queue == "ionbeam.ingestion"
            assert len(letter.reason) < 3000
        for number in range(len(COMMANDS)):
            assert (await home.state(f"good{number}")).counts.accepted == 2
        assert await home.ports.ledger.ingestion("bad") is None
        assert (await home.revision()).rows == 2


BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "broken": (b'{"id": "x"', "not JSON"),
    "not UTF-8": (b'{"id": "\xff\xfe"}', "UTF-8"),
    "a list": (b"[]", "Expected `object`"),
    "a word": (b"null", "Expected `object`"),
    "another language": (b"<xml/>", "not JSON"),
    "too deep": (b"[" * 200_000, "not JSON"),
    "wrong, then broken": (b'{"id": 5, ' + b"[" * 50, "not JSON"),
    "wrong, then not UTF-8": (b'{"id": 5, "x": "\xff"}', "UTF-8"),
    "too long": (b'"' + b"x" * (5 << 20) + b'"', "bytes long"),
    "NaN": (b'{"id": NaN}', "not JSON"),
}


async def test_bodies_that_are_no_command(tmp_path: Path) -> None:
    """What is not JSON, or no object, is refused at once and kept byte for byte."""
    async with working(tmp_path / "home") as home:
        for name, (body, _) in BODIES.items():
            await home.publish(body, name)
        await home.send(command("good"), good())
        await home.settle()
        letters = {letter.message_id: letter for letter in await home.letters()}
        assert set(letters) == set(BODIES)
        for name, (body, says) in BODIES.items():
            assert says in letters[name].reason, (name, letters[name].reason)
            assert letters[name].body == body
            assert letters[name].attempts == 1
        assert (await home.state("good")).counts.accepted == 2


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def instead(name: str, column: pa.Array) -> pa.Table:
    table = rows(row(60))
    return table.set_column(table.schema.get_field_index(name), name, column)


def wide(count: int) -> pa.Table:
    """A payload with so many columns that the map does not name."""
    table = rows(row(60))
    columns = [*table.columns, *[pa.array([1], pa.int8())] * count]
    return pa.Table.from_arrays(columns, names=[*table.column_names, *(f"x{n}" for n in range(count))])


PAYLOADS: dict[str, tuple[bytes | pa.Table | None, list[str]]] = {
    "missing": (None, ["raw/missing", "write it first"]),
    "empty": (b"", ["is empty", "send an Arrow IPC file"]),
    "truncated file": (ipc_file(good())[:-40], ["neither whole Arrow IPC nor Parquet", "write it again"]),
    "truncated stream": (ipc_stream(good())[:-60], ["neither whole Arrow IPC nor Parquet", "write it again"]),
    "not Arrow": (b"time,value\n1,2\n", ["neither whole Arrow IPC nor Parquet"]),
    "Parquet garbage": (b"PAR1" + b"\x15\x04" * 500 + b"PAR1", ["neither whole Arrow IPC nor Parquet"]),
    "truncated Parquet": (parquet(good())[:-30], ["neither whole Arrow IPC nor Parquet"]),
    "a column missing": (good().drop_columns(["t"]), ["canonical_variables[0].column", "'t'", "lacks", "'station'"]),
    "no time column": (good().drop_columns(["timestamp"]), ["datetime.from_col", "'timestamp'", "lacks"]),
    "a column of the wrong type": (
        instead("t", pa.array([True])),
        ["canonical_variables[0].column", "'t'", "bool", "send numbers"],
    ),
    "time of the wrong type": (instead("timestamp", pa.array([1.7e9])), ["datetime.from_col", "double", "timestamps"]),
    "naive times": (
        instead("timestamp", pa.array([0], pa.timestamp("s"))),
        ["datetime.timezone", "'timestamp'", "IANA"],
    ),
    "naive texts": (
        instead("timestamp", pa.array(["2024-01-01 00:01"])),
        ["`datetime.timezone`", "2024-01-01 00:01", "IANA"],
    ),
    "10,000 columns": (wide(10_000), ["10006 columns", str(MAX_COLUMNS), "split the payload"]),
    "ambiguous": (
        rows(*(row(60, t=200.0 + n) for n in range(150))),
        ["149 of 150 rows", "(timestamp, station)", "identity"],
    ),
}


async def test_payloads_that_are_refused(tmp_path: Path) -> None:
    """Each becomes one dead letter that says what is wrong with which object; the good one behind it is unaffected."""
    async with working(tmp_path / "home") as home:
        for number, (name, (payload, _)) in enumerate(PAYLOADS.items()):
            key = f"raw/{name.replace(' ', '_').replace(',', '')}"
            await home.send(command(f"bad{number}", payload_location=key), payload)
            await home.send(command(f"good{number}"), good())
        await home.settle()
        letters = {json.loads(letter.body)["id"]: letter for letter in await home.letters()}
        assert set(letters) == {f"bad{number}" for number in range(len(PAYLOADS))}
        for number, (name, (_, parts)) in enumerate(PAYLOADS.items()):
            reason = letters[f"bad{number}"].reason
            assert not [part for part in parts if part not in reason], (name, reason)
            assert len(reason) < 3000
            assert (letters[f"bad{number}"].attempts == 1) == (name != "missing")
            assert (await home.state(f"good{number}")).counts.accepted == 2
        stored = [key async for key in home.ports.objects.list("observations")]
        assert len(stored) == len(PAYLOADS), "a refused payload leaves nothing stored"


async def test_a_payload_may_still_come(tmp_path: Path) -> None:
    """An id that failed may come again, as if for the first time."""
    async with working(tmp_path / "home") as home:
        await home.ingest(command("c"))
        assert len(await home.letters()) == 1
        await home.ingest(command("c"), good())
        assert (await home.state("c")).counts.accepted == 2
        assert (await home.revision()).rows == 2


async def test_unknown_names_may_be_a_warning(tmp_path: Path) -> None:
    """With cf = "warn" an unknown name is accepted, and the dataset's metadata says so."""
    from ionbeam.config import Rules

    about = metadata(canonical_variables=(variable("t", standard_name="air_temprature"),))
    async with working(tmp_path / "home", rules=Rules(cf="warn")) as home:
        await home.ingest(command("c", about), good())
        assert b"air_temprature" in (await home.table()).schema.metadata[b"cf_warnings"]


# -- accepted, with rows in quarantine or nulls --------------------------------------------------------------------


async def test_bad_rows_go_into_quarantine(tmp_path: Path) -> None:
    """Null or unreadable times, positions that are none, no value at all: counted by reason, kept as they came."""
    schema = RAW.set(0, pa.field("timestamp", pa.string()))
    bad = [
        ({"timestamp": None}, "time_missing"),
        ({"timestamp": "soon"}, "time_unreadable"),
        ({"timestamp": "2024-02-30T00:00:00Z"}, "time_unreadable"),
        ({"timestamp": "1066-10-14T09:00:00Z"}, "time_out_of_range"),
        ({"timestamp": "2024-01-02T02:00:01Z"}, "time_in_future"),
        ({"latitude": None}, "position_missing"),
        ({"longitude": None}, "position_missing"),
        ({"latitude": math.nan}, "position_not_finite"),
        ({"longitude": math.inf}, "position_not_finite"),
        ({"latitude": 90.5}, "position_off_globe"),
        ({"longitude": -181.0}, "position_off_globe"),
        ({"t": None, "p": None}, "no_value"),
        ({"t": math.nan, "p": math.inf}, "no_value"),
    ]
    good_row = row(60) | {"timestamp": "2024-01-01T00:01:00Z"}
    table = pa.Table.from_pylist(
        [good_row, *(good_row | {"station": f"bad {n}"} | change for n, (change, _) in enumerate(bad))], schema
    )
    async with working(tmp_path / "home") as home:
        await home.ingest(command("c"), table)
        counts = (await home.state("c")).counts
        reasons = [reason for _, reason in bad]
        assert counts.reasons == {reason: reasons.count(reason) for reason in set(reasons)}
        assert (counts.received, counts.accepted, counts.rejected) == (len(bad) + 1, 1, len(bad))
        kept = await home.quarantine("c")
        assert [r["__reason"] for r in kept] == reasons
        assert [r["__row"] for r in kept] == list(range(1, len(bad) + 1))
        assert repr([{n: r[n] for n in schema.names} for r in kept]) == repr(table.slice(1).to_pylist())
        assert (await home.revision()).rows == 1
        assert await home.letters() == []


async def test_bad_values_become_null(tmp_path: Path) -> None:
    """NaN, inf, text that is no number, declared missing values: null, counted by column and reason, the row stays."""
    about = metadata(canonical_variables=(variable("t", missing_values=(-999, "n/a")), variable("p")))
    texts = ["280.5", "n/a", "-999.0", "warm", "nan", "inf", "", None, "1e999"]
    table = pa.table(
        {
            "timestamp": pa.array([at(60 * n) for n in range(len(texts))], pa.timestamp("us", "UTC")),
            "latitude": [1.0] * len(texts),
            "longitude": [2.0] * len(texts),
            "t": texts,
            "p": [math.inf, *[1e5] * 8],
            "station": ["s"] * len(texts),
        }
    )
    async with working(tmp_path / "home") as home:
        await home.ingest(command("c", about), table)
        counts = (await home.state("c")).counts
        assert counts.values == {"t: missing_value": 2, "t: not_a_number": 3, "t: not_finite": 2, "p: not_finite": 1}
        assert (counts.received, counts.accepted, counts.reasons) == (9, 9, {})
        found = await home.table()
        assert found[T].to_pylist() == [280.5] + [None] * 8
        assert found[P].to_pylist() == [None] + [1e5] * 8


# -- fine ----------------------------------------------------------------------------------------------------------


async def test_zero_rows_are_a_claim(tmp_path: Path) -> None:
    """A payload without rows, or with rejected rows only, is accepted and claims its span."""
    async with working(tmp_path / "home") as home:
        await home.ingest(command("half", end_time=at(1800)), rows(row(60)))
        assert (await home.window()).current is None
        sink = io.BytesIO()
        pa.ipc.new_file(sink, RAW).close()
        await home.ingest(command("zero", start_time=at(1800), end_time=at(3000)), sink.getvalue())
        assert (await home.window()).current is None
        await home.ingest(command("rejected", start_time=at(3000)), rows(row(3100, t=None)))
        assert (await home.state("zero")).counts.received == 0
        assert (await home.state("rejected")).counts.rejected == 1
        assert (await home.revision()).rows == 1
        assert await home.letters() == []


STATIONS = [
    "",
    " ",
    "plain",
    "Zürich",
    "e\u0301",
    "\U0001f600",
    'quote"d',
    "it's",
    "a,b;c\td",
    "two\nlines\r\n",
    "back\\slash",
    "nul\x00nul",
    "\u202eright to left\u200f",
    "\ufeffbom",
    "'; DROP TABLE windows; --",
    "../../etc/passwd",
    "%s{0}$HOME`id`",
    "x" * 100_000,
    "\x1b[31mred\x1b[0m",
    "NULL",
    "nan",
    "\ud7ff\ue000\uffff",
]


async def test_hostile_station_names(tmp_path: Path) -> None:
    """Any text is a station: it stays as it is, orders rows by code point, and reaches no path."""
    stations = [None, *STATIONS]
    async with working(tmp_path / "home") as home:
        await home.ingest(command("c"), rows(*(row(60, name, t=280.0 + n) for n, name in enumerate(stations))))
        table = await home.table()
        assert table["station"].to_pylist() == [None, *sorted(STATIONS)]
        by_name = dict(zip(table["station"].to_pylist(), table[T].to_pylist(), strict=True))
        assert by_name == {name: 280.0 + n for n, name in enumerate(stations)}
        assert await home.letters() == []
    names = await trio.to_thread.run_sync(lambda: [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")])
    assert all(name.isascii() and name.isprintable() for name in names)


async def test_hostile_column_names(tmp_path: Path) -> None:
    """Raw and metadata columns may be called anything."""
    odd = ['qu"ote', "a,b", "new\nline", "nul\x00", "\u202e", "..", "__row2", "SELECT"]
    about = metadata(
        canonical_variables=(variable("t", column="raw 'T'\n"),),
        metadata_variables=tuple(MetadataVariable(column=name) for name in odd),
    )
    table = rows(row(60)).rename_columns({"t": "raw 'T'\n"})
    for name in odd:
        table = table.append_column(name, pa.array([f"in {name}"]))
    async with working(tmp_path / "home") as home:
        await home.ingest(command("c", about), table)
        (found,) = (await home.table()).to_pylist()
        assert {name: found[name] for name in odd} == {name: f"in {name}" for name in odd}
        assert await home.letters() == []


COLUMNS = {
    "int8": pa.array([1, 2, None], pa.int8()),
    "uint64": pa.array([1, 2, None], pa.uint64()),
    "float16": pa.array([np.float16(1), np.float16(2), None], pa.float16()),
    "float32": pa.array([1, 2, None], pa.float32()),
    "decimal128": pa.array([Decimal("1.00"), Decimal("2.00"), None], pa.decimal128(9, 2)),
    "decimal256": pa.array([Decimal("1"), Decimal("2"), None], pa.decimal256(50, 0)),
    "text": pa.array(["1", " 2.0 ", None]),
    "large text": pa.array(["1", "2", None], pa.large_string()),
    "text view": pa.array(["1", "2", None], pa.string_view()),
    "dictionary of text": pa.array(["1", "2", None]).dictionary_encode(),
    "dictionary of numbers": pa.array([1.0, 2.0, None]).dictionary_encode(),
    "chunks": pa.chunked_array([[1.0], [], [2.0, None]]),
}


async def test_columns_of_any_numeric_type(tmp_path: Path) -> None:
    """Integers, floats, decimals, text, dictionaries, any chunking: the same dataset."""
    async with working(tmp_path / "home") as home:
        for number, column in enumerate(COLUMNS.values()):
            about = metadata("tp", about={"name": f"d{number}"})
            table = rows(*(row(60 * n, p=1e5) for n in range(3)))
            table = table.set_column(table.schema.get_field_index("t"), "t", column)
            await home.send(command(f"c{number}", about), ipc_stream(table))
        await home.settle()
        assert [letter.reason for letter in await home.letters()] == []
        for number, name in enumerate(COLUMNS):
            assert (await home.table(dataset=f"d{number}"))[T].to_pylist() == [1.0, 2.0, None], name


def timed(column: pa.Array) -> pa.Table:
    return pa.table(
        {
            "timestamp": column,
            "latitude": [1.0] * len(column),
            "longitude": [2.0] * len(column),
            "t": [float(n) for n in range(len(column))],
            "p": pa.nulls(len(column), pa.float64()),
            "station": ["s"] * len(column),
        }
    )


async def test_timestamps_of_any_unit_and_zone(tmp_path: Path) -> None:
    """Seconds to nanoseconds, any zone, dictionaries, dates and texts: the same instants."""
    moments = [1_704_067_200, 1_704_067_260]
    columns = {
        f"{unit} {zone}": pa.array([m * per for m in moments], pa.timestamp(unit, zone))
        for unit, per in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9))
        for zone in ("UTC", "+05:30", "America/St_Johns", "Asia/Kolkata")
    }
    columns["dictionary"] = pa.array(moments, pa.timestamp("s", "UTC")).dictionary_encode()
    columns["text"] = pa.array(["2024-01-01T00:00:00Z", "2024-01-01T05:31:00+05:30"])
    hashes = set()
    async with working(tmp_path / "home") as home:
        for number, column in enumerate(columns.values()):
            about = metadata("tp", about={"name": f"d{number}"})
            await home.send(command(f"c{number}", about), timed(column))
        local = metadata("tp", about={"name": "local"}, datetime=TimeColumn(timezone="Asia/Kolkata"))
        naive = pa.array([m + 19_800 for m in moments], pa.timestamp("s"))
        await home.send(command("local", local), timed(naive))
        await home.settle()
        assert [letter.reason for letter in await home.letters()] == []
        for name in (*(f"d{number}" for number in range(len(columns))), "local"):
            table = await home.table(dataset=name)
            assert table["timestamp"].cast(pa.int64()).to_pylist() == [m * 10**9 for m in moments]
            hashes.add(str(table.to_pydict()))
    assert len(hashes) == 1


async def test_times_from_1677_to_2262(tmp_path: Path) -> None:
    """What timestamp[ns] holds is stored in its window; what lies outside is rejected; far futures too."""
    seconds = [-9_223_372_037, -9_223_372_036, -1, 0, 1_704_067_200, 9_223_372_036, 9_223_372_037, 10**12]
    about = metadata("tp", about={"aggregation_span": Duration("P1D"), "name": "far"})
    asked = command("c", about, claims=(), start_time=at(0))
    async with working(tmp_path / "home") as home:
        await home.ingest(asked, timed(pa.array(seconds, pa.timestamp("s", "UTC"))))
        counts = (await home.state("c")).counts
        assert counts.reasons == {"time_out_of_range": 3, "time_in_future": 1}
        windows = await home.windows("far")
        day = 86_400
        assert [w.window_start // 10**6 for w in windows] == sorted({s // day * day for s in seconds[1:5]})


async def test_a_command_with_extra_fields(tmp_path: Path) -> None:
    """Fields that this version does not know are no reason to refuse."""
    content = spelled("c")
    content["trace"] = {"any": [1, None]}
    content["metadata"]["ingestion_map"]["canonical_variables"][0]["colour"] = "red"
    async with working(tmp_path / "home") as home:
        await home.send(content, good())
        await home.settle()
        assert (await home.state("c")).counts.accepted == 2


@pytest.mark.parametrize("count", [MAX_COLUMNS - len(RAW)])
async def test_as_many_columns_as_are_allowed(tmp_path: Path, count: int) -> None:
    """A wide payload within the limit is fine; what the map does not name is counted."""
    async with working(tmp_path / "home") as home:
        await home.ingest(command("c"), wide(count))
        assert (await home.state("c")).counts.ignored_columns == count


def test_the_cases_are_commands() -> None:
    """What the cases above change is a good command."""
    from ionbeam.schemas.codec import decode

    assert decode(json.dumps(spelled("c")).encode(), IngestDataCommand) == command("c")
