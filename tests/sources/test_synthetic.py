"""Made-up rows are the same for the same seed, however they are cut, with the dirt that was promised."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_client import RecordingClient

from ionbeam.client import Claim, Duration
from ionbeam.sources.synthetic import BATCH, MISSING, START, batches, ingest, metadata

VALUES = ("temperature", "humidity", "pressure", "wind_speed")


def table(**sizes: int) -> pa.Table:
    return batches(**sizes).read_all()  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 100), st.integers(0, 2**40), st.integers(1, 6))
def test_rows_do_not_depend_on_how_they_are_cut(rows: int, stations: int, hours: int, seed: int, parts: int) -> None:
    """The parts, one after another, are the whole; times lie in the span; every thousandth row repeats."""
    sizes = {"rows": rows, "stations": stations, "hours": hours, "seed": seed}
    whole = table(**sizes)
    cut = pa.concat_tables(table(**sizes, part=part, parts=parts) for part in range(parts))
    # NaN is unlike itself: let text compare it.
    assert whole.drop_columns(["latitude"]).equals(cut.drop_columns(["latitude"]))
    assert whole["latitude"].cast(pa.string()).equals(cut["latitude"].cast(pa.string()))
    assert len(whole) == rows
    assert pc.min(whole["timestamp"]).as_py() >= START
    assert pc.max(whole["timestamp"]).as_py() < START + timedelta(hours=hours)
    distinct = whole.group_by(["timestamp", "station"]).aggregate([])
    assert len(distinct) == rows - rows // 1000


def test_the_dirt_is_what_was_promised() -> None:
    """A tenth null, a hundredth -9999, a thousandth duplicate and a thousandth with a bad position."""
    rows = table(rows=200_000, stations=50, hours=24, seed=3)
    for name in VALUES:
        assert rows[name].null_count == pytest.approx(20_000, rel=0.05)
        assert pc.sum(pc.equal(rows[name], MISSING)).as_py() == pytest.approx(2_000, rel=0.15)
    assert rows["latitude"].null_count == 67
    assert pc.sum(pc.is_nan(rows["latitude"])).as_py() == 67
    assert pc.sum(pc.equal(rows["latitude"], 95.0)).as_py() == 66
    again, before = rows.slice(999, 1), rows.slice(998, 1)
    assert again.equals(before)


def test_values_are_believable() -> None:
    """Degrees Fahrenheit, per cent, pascal and metres per second, as sensors spell them."""
    rows = table(rows=50_000, stations=50, hours=24, seed=4)
    for name, low, high in zip(VALUES, (-22, 5, 95_000, 0), (104, 100, 105_000, 40), strict=True):
        real = rows[name].filter(pc.not_equal(rows[name], MISSING))
        least, greatest = pc.min_max(real).as_py().values()
        span = high - low
        assert low <= least < low + 0.01 * span
        assert high - 0.01 * span < greatest <= high
    assert all(len(str(value)) <= len("-9999.0") for value in rows["temperature"].slice(0, 1000).to_pylist())


def test_times_are_shuffled_over_the_whole_span() -> None:
    """The first thousand of a million rows already meet every hour, and other seeds give other rows."""
    reader = batches(rows=1_000_000, stations=100, hours=24, seed=5)
    first = reader.read_next_batch()
    assert len(first) == BATCH
    hours = pc.unique(pc.floor_temporal(first.slice(0, 1000)["timestamp"], unit="hour"))
    assert len(hours) == 24
    other = batches(rows=1_000_000, stations=100, hours=24, seed=6).read_next_batch()
    assert not first["humidity"].equals(other["humidity"])
    assert not first["station"].equals(other["station"])


@pytest.mark.parametrize("wrong", [{"rows": 0}, {"stations": 0}, {"hours": 0}, {"seed": -1}, {"rows": 2**31}])
def test_impossible_sizes_are_refused_by_name(wrong: dict[str, int]) -> None:
    """The error names the argument and its value."""
    ((name, value),) = wrong.items()
    sizes = {"rows": 1, "stations": 1, "hours": 1, "seed": 1, **wrong}
    with pytest.raises(ValueError, match=f"`{name}` .*{value}"):
        table(**sizes)


async def test_commands_share_the_rows_and_the_last_one_claims() -> None:
    """Ids are the same each time: what was accepted is not sent again, what was not is."""
    client = RecordingClient()
    sizes = {"rows": 1001, "stations": 7, "hours": 2, "seed": 1, "commands": 3}
    sent = await ingest(client, **sizes)  # type: ignore[arg-type]
    assert [len(command.rows) for command in client.sent] == [333, 334, 334]
    whole = Claim(START, START + timedelta(hours=2))
    assert [command.claims for command in client.sent] == [(), (), (whole,)]
    assert client.sent[0].metadata == metadata(Duration("PT1H"))
    assert await ingest(client, **sizes) == ()  # type: ignore[arg-type]
    del client.sent[1]
    assert await ingest(client, **sizes) == sent[1:2]  # type: ignore[arg-type]
    assert not set(await ingest(client, **{**sizes, "seed": 2})) & set(sent)  # type: ignore[arg-type]


def test_one_variable_needs_conversion() -> None:
    """Temperature comes in degrees Fahrenheit, -9999 is missing everywhere; the station is the identity."""
    mapping = metadata().ingestion_map
    assert {v.column: v.from_unit for v in mapping.canonical_variables if v.from_unit} == {"temperature": "degF"}
    assert {v.missing_values for v in mapping.canonical_variables} == {(-9999.0,)}
    assert mapping.identity_columns == ("station",)
