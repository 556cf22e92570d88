"""The contracts: what is written can be read, what was written stays readable, what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_json_schema import problems

from ionbeam.errors import MalformedMessage
from ionbeam.schemas import codec
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import (
    Claim,
    DataAvailableEvent,
    DataSetAvailableEvent,
    IngestDataCommand,
    StartSourceCommand,
)
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata, Link
from ionbeam.schemas.variables import CanonicalVariable, Latitude, Longitude, MetadataVariable, TimeColumn
from ionbeam.testing import strategies as ours
from ionbeam.testing.payloads import payloads

# Nested structs take their time to draw, more on a busy machine: no reason to fail.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOLDEN = Path(__file__).parent / "golden"
MESSAGES: dict[type[Any], st.SearchStrategy[Any]] = {
    StartSourceCommand: ours.start_source_commands(),
    IngestDataCommand: ours.ingest_commands(),
    DataAvailableEvent: ours.data_available_events(),
    DataSetAvailableEvent: ours.dataset_available_events(),
}
STRUCTS: dict[type[Any], st.SearchStrategy[Any]] = {
    **MESSAGES,
    Claim: ours.claims(),
    IngestionMetadata: ours.ingestion_metadata(),
    DatasetMetadata: ours.dataset_metadata(),
    DataIngestionMap: ours.ingestion_maps(),
    Link: ours.links(),
    TimeColumn: ours.time_columns(),
    Latitude: ours.latitudes(),
    Longitude: ours.longitudes(),
    CanonicalVariable: ours.canonical_variables(),
    MetadataVariable: ours.metadata_variables(),
}
SCHEMA = codec.json_schema(list(MESSAGES))
AN_HOUR = (datetime(2024, 3, 10, 11, tzinfo=UTC), datetime(2024, 3, 10, 12, tzinfo=UTC))


def called(kind: type[Any]) -> str:
    return kind.__name__


# -- what is written can be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STRUCTS, ids=called)
@settings(PATIENT, max_examples=40)
@given(data=st.data())
def test_every_struct_survives_the_codec(kind: type[Any], data: st.DataObject) -> None:
    """Decoding gives the same struct back, and its wire form has one spelling."""
    value = data.draw(STRUCTS[kind])
    body = codec.encode(value)
    again = codec.decode(body, kind)
    assert again == value
    assert codec.encode(again) == body


def test_the_strategies_cover_every_struct_of_the_contracts() -> None:
    """A struct that is added to a message needs a strategy and is tested by it."""
    assert {kind.__name__ for kind in STRUCTS} == set(SCHEMA["$defs"])


@pytest.mark.parametrize("kind", MESSAGES, ids=called)
@settings(PATIENT, max_examples=25)
@given(data=st.data())
def test_times_are_written_in_utc(kind: type[Any], data: st.DataObject) -> None:
    """Whatever offset a time came with, it is stored and written at +00:00."""
    message = data.draw(MESSAGES[kind])
    assert message.start_time.utcoffset() == timedelta(0)
    assert json.loads(codec.encode(message))["start_time"].endswith("Z")


@pytest.mark.parametrize("kind", MESSAGES, ids=called)
@settings(PATIENT, max_examples=25)
@given(data=st.data())
def test_fields_that_nobody_knows_pass_at_every_level(kind: type[Any], data: st.DataObject) -> None:
    """A newer peer may add fields to any object; an older one reads what it knows."""
    message = data.draw(MESSAGES[kind])
    content = _with_unknown_fields(json.loads(codec.encode(message)))
    assert codec.decode(json.dumps(content).encode(), kind) == message


def _with_unknown_fields(content: Any) -> Any:
    if isinstance(content, dict):
        return {"x_new": {"a": [1, None]}, **{name: _with_unknown_fields(part) for name, part in content.items()}}
    return [_with_unknown_fields(part) for part in content] if isinstance(content, list) else content


@pytest.mark.parametrize("kind", MESSAGES, ids=called)
@settings(PATIENT, max_examples=25)
@given(data=st.data())
def test_the_json_schema_accepts_what_the_codec_accepts(kind: type[Any], data: st.DataObject) -> None:
    """What is published as the schema of a message is true of every message."""
    content = json.loads(codec.encode(data.draw(MESSAGES[kind])))
    assert problems(content, {"$ref": f"#/$defs/{kind.__name__}"}, SCHEMA) == []


@settings(PATIENT, max_examples=40)
@given(data=st.data())
def test_payloads_fit_their_map(data: st.DataObject) -> None:
    """Every column that the map names is there, once, with any number of rows."""
    metadata = data.draw(ours.ingestion_metadata())
    table = data.draw(payloads(metadata))
    columns = metadata.ingestion_map
    wanted = {columns.datetime.raw_name, columns.lat.raw_name, columns.lon.raw_name}
    wanted |= {variable.column for variable in columns.canonical_variables}
    wanted |= {variable.column for variable in columns.metadata_variables}
    assert isinstance(table, pa.Table)
    assert wanted <= set(table.column_names)
    assert len(set(table.column_names)) == table.num_columns


# -- what was written stays readable ---------------------------------------------------------------------------------

BERLIN = timezone(timedelta(hours=1))
DATASET = DatasetMetadata(
    name="sensor_community",
    description="Air and weather by citizens",
    aggregation_span=Duration("PT1H"),
    source_links=(Link(mime_type="text/html", title="Sensor.Community", href="https://sensor.community/"),),
    keywords=("air quality", "weather"),
    subject_to_change_window=Duration("PT36H"),
)
METADATA = IngestionMetadata(
    dataset=DATASET,
    ingestion_map=DataIngestionMap(
        datetime=TimeColumn(from_col="when", dtype="datetime64[s]", timezone="Europe/Berlin"),
        lat=Latitude(cf_unit="degree", from_col="y", dtype="float32"),
        lon=Longitude(cf_unit="degree", from_col="x", dtype="float32"),
        canonical_variables=(
            CanonicalVariable(
                column="temp_f",
                standard_name="air_temperature",
                cf_unit="degC",
                level=2.0,
                method="mean",
                period=Duration("PT5M"),
                dtype="float32",
                from_unit="degF",
                missing_values=(-999.0, "n/a"),
            ),
        ),
        metadata_variables=(
            MetadataVariable(column="station", dtype="string"),
            MetadataVariable(column="channel", dtype="int16"),
        ),
        identity=("station",),
        fold="value",
        reject_column="error",
    ),
    version=1,
)
LEAST = IngestionMetadata(
    dataset=DatasetMetadata(name="rail"),
    ingestion_map=DataIngestionMap(
        canonical_variables=(CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="degC"),)
    ),
)
ID = "6f2b8d1e-52ab-4c1c-9d5c-0d6f3e1a7b90"
KEPT: dict[str, Any] = {
    "start_source_command.full": StartSourceCommand(
        id=ID,
        source_name="sensor-community",
        start_time=datetime(2024, 3, 10, 12, tzinfo=BERLIN),
        end_time=datetime(2024, 3, 10, 14, 30, 0, 250_000, tzinfo=BERLIN),
    ),
    "start_source_command.minimal": StartSourceCommand(
        id="start-1", source_name="rail", start_time=AN_HOUR[0], end_time=AN_HOUR[1]
    ),
    "ingest_data_command.full": IngestDataCommand(
        id=ID,
        metadata=METADATA,
        payload_location=f"raw/sensor_community/20240310T110000Z-20240310T130000Z_20240310T131500Z_{ID}",
        start_time=datetime(2024, 3, 10, 11, tzinfo=UTC),
        end_time=datetime(2024, 3, 10, 13, tzinfo=UTC),
        issued_at=datetime(2024, 3, 10, 13, 15, 0, 1, tzinfo=UTC),
        claims=(
            Claim(*AN_HOUR),
            Claim(datetime(2024, 3, 10, 12, 30, tzinfo=UTC), datetime(2024, 3, 10, 13, tzinfo=UTC)),
        ),
        replaces=("earlier-1", "0a0b0c0d-0000-4000-8000-00000000000f"),
    ),
    "ingest_data_command.minimal": IngestDataCommand(
        id="ingest-1", metadata=LEAST, payload_location="raw/rail/1", start_time=AN_HOUR[0], end_time=AN_HOUR[1]
    ),
    "data_available_event.full": DataAvailableEvent(
        id=ID,
        metadata=METADATA,
        start_time=datetime(2024, 3, 10, 11, 0, 5, tzinfo=UTC),
        end_time=datetime(2024, 3, 10, 12, 59, 55, 500_000, tzinfo=UTC),
        row_count=1234,
    ),
    "data_available_event.minimal": DataAvailableEvent(
        id="ingest-1", metadata=LEAST, start_time=AN_HOUR[0], end_time=AN_HOUR[1]
    ),
    "dataset_available_event.full": DataSetAvailableEvent(
        id="0f0e0d0c-0b0a-5908-8706-050403020100",
        metadata=DATASET,
        dataset_location=f"sensor_community/20240310T110000Z_PT1H_{'ab' * 32}",
        start_time=AN_HOUR[0],
        end_time=AN_HOUR[1],
        revision=3,
        supersedes="0f0e0d0c-0b0a-5908-8706-050403020102",
        row_count=0,
        content_hash="ab" * 32,
        ingestion_set_hash="cd" * 32,
    ),
    "dataset_available_event.minimal": DataSetAvailableEvent(
        id="built-1",
        metadata=LEAST.dataset,
        dataset_location="rail/1",
        start_time=datetime(2024, 3, 10, tzinfo=UTC),
        end_time=datetime(2024, 3, 11, tzinfo=UTC),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_messages_of_version_1_stay_readable(name: str) -> None:
    """Files that were written once and never change mean today what they meant then."""
    message = KEPT[name]
    assert codec.decode((GOLDEN / f"{name}.json").read_bytes(), type(message)) == message


@pytest.mark.parametrize("name", KEPT)
def test_what_is_written_today_is_what_version_1_wrote(name: str) -> None:
    """No field that version 1 reads is renamed, and what it wrote stands in what is written now."""
    message = KEPT[name]
    written = json.loads(codec.encode(message))
    then = json.loads(codec.encode(codec.decode((GOLDEN / f"{name}.json").read_bytes(), type(message))))
    kept = json.loads((GOLDEN / f"{name}.json").read_bytes())
    assert written == then
    assert _names(kept) <= _names(written)


def _names(content: Any, at: str = "$") -> set[str]:
    if isinstance(content, dict):
        return {f"{at}.{name}" for name in content}.union(
            *(_names(part, f"{at}.{name}") for name, part in content.items())
        )
    return set().union(*(_names(part, f"{at}[]") for part in content)) if isinstance(content, list) else set()


def test_every_file_of_version_1_is_read() -> None:
    """A file without a test would guard nothing."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(KEPT)


def test_defaults_of_version_1_stand() -> None:
    """What a peer leaves out means what it always meant."""
    command = codec.decode((GOLDEN / "ingest_data_command.minimal.json").read_bytes(), IngestDataCommand)
    columns, dataset = command.metadata.ingestion_map, command.metadata.dataset
    assert command.swept == (Claim(command.start_time, command.end_time),)
    assert (command.issued_at, command.replaces, command.metadata.version) == (None, (), 1)
    assert (str(dataset.aggregation_span), str(dataset.subject_to_change_window)) == ("P1D", "PT0S")
    assert (columns.fold, columns.identity_columns, columns.reject_column) == ("row", ("latitude", "longitude"), None)
    assert (columns.datetime.raw_name, columns.lat.raw_name, columns.lon.raw_name) == (
        "timestamp",
        "latitude",
        "longitude",
    )
    (variable,) = columns.canonical_variables
    assert variable.canonical_name == "air_temperature__degC__0.0__point__PT0S"
    assert (variable.dtype, variable.from_unit, variable.missing_values) == ("float64", None, ())


# -- what is wrong is named ------------------------------------------------------------------------------------------


def _command() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / "ingest_data_command.full.json").read_bytes())
    return content


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]

    def change(content: Any) -> None:
        for step in way:
            content = content[step]
        content[last] = value

    return change


def _drop(path: str) -> Callable[[dict[str, Any]], None]:
    *way, last = path.split(".")

    def change(content: Any) -> None:
        for step in way:
            content = content[step]
        del content[last]

    return change


VARIABLE = "metadata.ingestion_map.canonical_variables.0"
REFUSALS: dict[str, tuple[Callable[[dict[str, Any]], None], list[str]]] = {
    "wrong type": (_set("metadata.dataset.name", 7), ["$.metadata.dataset.name", "(got 7)"]),
    "missing field": (_drop("metadata.dataset.name"), ["`name`", "$.metadata.dataset"]),
    "missing at the top": (_drop("payload_location"), ["payload_location"]),
    "unknown version": (_set("metadata.version", 2), ["`version` 2", "version 1", "$.metadata.version"]),
    "naive time": (_set("start_time", "2024-03-10T12:00:00"), ["$.start_time", "2024-03-10T12:00:00", "offset"]),
    "no time": (_set("issued_at", "yesterday"), ["$.issued_at", "yesterday", "ISO 8601"]),
    "naive time in a claim": (_set("claims.1.0", "2024-03-10T12:30:00"), ["$.claims[1][0]", "2024-03-10T12:30:00"]),
    "end before start": (_set("end_time", "2024-03-10T10:00:00Z"), ["end_time", "2024-03-10T10:00:00+00:00"]),
    "end at start": (_set("end_time", "2024-03-10T12:00:00+01:00"), ["end_time", "after", "start_time"]),
    "claim that ends first": (
        _set("claims.0", ["2024-03-10T12:00:00Z", "2024-03-10T11:00:00Z"]),
        ["a claim ends after it starts", "2024-03-10T11:00:00+00:00", "$.claims["],
    ),
    "empty dataset name": (_set("metadata.dataset.name", ""), ["$.metadata.dataset.name", '(got "")']),
    "empty column name": (_set(f"{VARIABLE}.column", ""), ["canonical_variables[", ".column"]),
    "dataset that climbs": (_set("metadata.dataset.name", "../etc"), ["$.metadata.dataset.name", "../etc"]),
    "dataset with a slash": (_set("metadata.dataset.name", "a/b"), ["$.metadata.dataset.name", "a/b"]),
    "dataset with a line end": (_set("metadata.dataset.name", "rail\n"), ["$.metadata.dataset.name", "rail\\n"]),
    "id with a slash": (_set("id", "a/b"), ["$.id", "a/b"]),
    "name of a megabyte": (_set("metadata.dataset.name", "a" * (1 << 20)), ["$.metadata.dataset.name", "characters"]),
    "span of nothing": (_set("metadata.dataset.aggregation_span", "PT0S"), ["aggregation_span", "PT0S"]),
    "span of a month": (_set("metadata.dataset.aggregation_span", "P1M"), ["P1M", "$.metadata.dataset.aggregation"]),
    "unknown fold": (_set("metadata.ingestion_map.fold", "both"), ["$.metadata.ingestion_map.fold", "both", "'row'"]),
    "no variables": (_set("metadata.ingestion_map.canonical_variables", []), ["canonical_variables", "at least one"]),
    "identity that is no column": (
        _set("metadata.ingestion_map.identity", ["sensor"]),
        ["identity", "'sensor'", "station", "$.metadata.ingestion_map"],
    ),
    "one column twice": (
        _set("metadata.ingestion_map.metadata_variables", [{"column": "latitude"}]),
        ["metadata_variables[0]", "'latitude'", "once"],
    ),
    "a command that replaces itself": (_set("replaces", [_command()["id"]]), ["replaces", "itself"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_path_and_value(name: str) -> None:
    """Whoever must mend the message is told where it is wrong and what stood there, at moderate length."""
    change, wanted = REFUSALS[name]
    content = _command()
    change(content)
    said = _refusal(json.dumps(content).encode(), IngestDataCommand)
    assert [text for text in wanted if text not in said] == []
    assert len(said) < 800


def _refusal(body: bytes, kind: type[Any]) -> str:
    with pytest.raises(MalformedMessage) as caught:
        codec.decode(body, kind)
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"id": "a"', b"\xff\xfe", b"[1, 2", b'{"a": NaN}', b"[" * 100_000],
    ids=["empty", "open", "word", "cut", "bytes", "cut list", "NaN", "deep"],
)
def test_what_is_no_json_is_called_that(body: bytes) -> None:
    """The error says so, and never repeats the whole body."""
    said = _refusal(body, StartSourceCommand)
    assert said.startswith("not JSON: ")
    assert len(said) < 300


def test_what_is_no_object_is_refused() -> None:
    """A list or a number is JSON, and no message."""
    assert "Expected `object`, got `array`" in _refusal(b"[]", IngestDataCommand)


@pytest.mark.parametrize("spelling", ["NaN", "Infinity", "-Infinity", "1e999", '"NaN"', '"inf"', "null"])
def test_a_level_is_a_finite_number(spelling: str) -> None:
    """Neither JavaScript's spellings nor an overflow nor a word make it into a canonical name."""
    body = json.dumps(_command()).replace('"level": 2.0', f'"level": {spelling}').encode()
    assert b'"level": 2.0' not in body
    _refusal(body, IngestDataCommand)


@pytest.mark.parametrize("level", [float("nan"), float("inf"), float("-inf")])
def test_a_level_that_is_not_finite_cannot_be_built_either(level: float) -> None:
    """Python code is held to the same rule, and told the value."""
    with pytest.raises(ValueError, match=f"level.*{level!r}"):
        CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="K", level=level)


def test_a_message_that_carries_data_is_refused_by_its_size() -> None:
    """A body beyond the limit is not even parsed."""
    body = codec.encode(KEPT["ingest_data_command.full"]) + b" " * codec.MAX_MESSAGE_BYTES
    assert "never the data" in _refusal(body, IngestDataCommand)


# -- canonical names and durations -----------------------------------------------------------------------------------


@settings(PATIENT)
@given(ours.canonical_variables())
def test_a_canonical_name_gives_its_variable_back(variable: CanonicalVariable) -> None:
    """Name, unit, level, method and period all stand in it, so equal names mean equal variables."""
    name = variable.canonical_name
    again = CanonicalVariable.from_canonical_name(name, column=variable.column, dtype=variable.dtype)
    plain = msgspec.structs.replace(variable, from_unit=None, missing_values=())
    assert again == plain
    assert again.canonical_name == name


def test_the_ground_has_one_level() -> None:
    """A level of -0.0 is that of 0.0, in the name too: one variable must not become two columns."""
    below = CanonicalVariable(column="t", standard_name="air_temperature", cf_unit="K", level=-0.0)
    assert below.canonical_name == "air_temperature__K__0.0__point__PT0S"


@pytest.mark.parametrize("name", ["", "a__b", "a_b__K__2.0__point", "__K__2.0__point__PT0S", "a____1.0__b__PT0S"])
def test_what_is_no_canonical_name_is_refused(name: str) -> None:
    """The error shows the form that is expected."""
    with pytest.raises(ValueError, match="not a canonical name"):
        CanonicalVariable.from_canonical_name(name)


@settings(PATIENT)
@given(ours.durations())
def test_a_duration_has_one_spelling(duration: Duration) -> None:
    """What `str` writes is read as the same, and by msgspec's own reader of ISO 8601 too."""
    assert Duration(str(duration)) == duration
    assert msgspec.convert(str(duration), timedelta) == duration.timedelta


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        (["P1D", "PT24H", "PT1440M", "PT86400S", "P0DT24H"], "P1D"),
        (["P1W", "P7D"], "P7D"),
        (["PT90M", "PT1H30M", "PT5400S"], "PT1H30M"),
        (["PT0S", "P0D", "PT0.000S"], "PT0S"),
        (["PT0.25S", "PT0.250000S"], "PT0.25S"),
    ],
)
def test_durations_are_spelled_in_one_way(spellings: list[str], canonical: str) -> None:
    """Names and bytes that contain a duration do not depend on who wrote it."""
    assert {str(Duration(text)) for text in spellings} == {canonical}


@pytest.mark.parametrize("text", ["", "P", "PT", "1D", "P1M", "P1Y", "-P1D", "P-1D", "PT1", "P1DT", "p1d", "PT1.5H"])
def test_durations_of_no_fixed_length_are_refused(text: str) -> None:
    """Months, years, signs and loose ends: the value is shown."""
    with pytest.raises(ValueError, match="duration") as caught:
        Duration(text)
    assert repr(text) in str(caught.value)
