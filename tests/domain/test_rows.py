"""What is accepted, what is rejected under which reason, and what becomes null."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain import mapping
from ionbeam.domain.mapping import Plan
from ionbeam.domain.rows import LONGEST_REASON, Canonical, Limits, canonicalise
from ionbeam.schemas.metadata import DataIngestionMap
from ionbeam.schemas.variables import CanonicalVariable, Latitude, MetadataVariable, TimeColumn

T, H = "air_temperature__degC__2.0__point__PT0S", "relative_humidity__1__0.0__point__PT0S"
MAP = DataIngestionMap(
    datetime=TimeColumn(from_col="when"),
    canonical_variables=(
        CanonicalVariable(
            column="t",
            standard_name="air_temperature",
            cf_unit="degC",
            level=2.0,
            from_unit="K",
            missing_values=(-999,),
        ),
        CanonicalVariable(column="h", standard_name="relative_humidity", cf_unit="1", dtype="int32"),
    ),
    metadata_variables=(MetadataVariable(column="station"), MetadataVariable(column="number", dtype="int16")),
    reject_column="why",
)
SCHEMA = pa.schema(
    {
        "when": pa.string(),
        "latitude": pa.float64(),
        "longitude": pa.float64(),
        "t": pa.float64(),
        "h": pa.string(),
        "station": pa.string(),
        "number": pa.string(),
        "why": pa.string(),
        "other": pa.list_(pa.int64()),
    }
)
PLAN = mapping.plan(MAP, SCHEMA)
HOUR = 3600 * 10**9
LIMITS = Limits(latest=10 * HOUR, closed_before=-2 * HOUR)

GOOD: dict[str, Any] = {
    "when": "1970-01-01T01:00:00Z",
    "latitude": 1.0,
    "longitude": 2.0,
    "t": 300.15,
    "h": "50",
    "station": "s",
    "number": "7",
    "why": None,
    "other": None,
}


def judge(*rows: dict[str, Any], limits: Limits = LIMITS, plan: Plan = PLAN, first: int = 0) -> Canonical:
    batch = pa.RecordBatch.from_pylist([GOOD | row for row in rows], SCHEMA)
    return canonicalise(batch, plan, first, limits)


# -- the rules, one row at a time ----------------------------------------------------------------------------------

TIMES = {
    None: "time_missing",
    "": "time_unreadable",
    "yesterday": "time_unreadable",
    "1600-01-01T00:00Z": "time_out_of_range",
    "2300-01-01T00:00Z": "time_out_of_range",
    "1970-01-01T10:00:00Z": None,
    "1970-01-01T10:00:00.000000001Z": "time_in_future",
    "1970-01-01T01:00:00+02:00": None,
    "1969-12-31T22:00:00Z": None,
    "1969-12-31T21:59:59.999999999Z": "window_closed",
    "1970-01-01T12:00:00Z": "time_in_future",
}


def expected(row: dict[str, Any]) -> str | None:
    """The first reason that applies, in the order in which they are listed."""
    if row["why"] is not None:
        return f"source:{row['why']}"
    time = TIMES[row["when"]]
    if time is not None and time != "window_closed":
        return time
    lat, lon = row["latitude"], row["longitude"]
    if lat is None or lon is None:
        return "position_missing"
    if not (math.isfinite(lat) and math.isfinite(lon)):
        return "position_not_finite"
    if not (-90 <= lat <= 90 and -180 <= lon <= 360):
        return "position_off_globe"
    if (row["t"] in (None, -999.0) or not math.isfinite(row["t"])) and row["h"] in (None, "x"):
        return "no_value"
    return time


rows = st.lists(
    st.fixed_dictionaries(
        {
            "when": st.sampled_from(list(TIMES)),
            "latitude": st.sampled_from([0.0, 0.0, 0.0, 90.0, -90.0, 90.001, None, math.nan, math.inf]),
            "longitude": st.sampled_from([0.0, 0.0, 0.0, 180.0, 360.0, 360.1, -180.5, None, -math.inf]),
            "t": st.sampled_from([300.15, 300.15, None, math.nan, math.inf, -999.0]),
            "h": st.sampled_from(["50", None, "x"]),
            "number": st.sampled_from(["7", "x", None]),
            "why": st.sampled_from([None, None, None, "cut line", ""]),
        }
    ),
    max_size=15,
)


@settings(max_examples=200, deadline=None)
@given(rows, st.integers(0, 10**12))
def test_rows_are_judged_by_the_first_reason(content: list[dict[str, Any]], first: int) -> None:
    """Each row is accepted or rejected under one reason; numbers of places, counts and quarantine agree."""
    content = [GOOD | row for row in content]
    found = judge(*content, first=first)
    reasons = [expected(row) for row in content]
    places = [first + at for at, why in enumerate(reasons) if why is not None]
    assert found.rows["__row"].to_pylist() == [first + at for at, why in enumerate(reasons) if why is None]
    assert found.reasons == Counter(why for why in reasons if why is not None)
    if not places:
        assert found.rejected is None
    else:
        assert found.rejected is not None
        assert found.rejected["__row"].to_pylist() == places
        assert found.rejected["__reason"].to_pylist() == [why for why in reasons if why is not None]
        kept = found.rejected.select(SCHEMA.names).to_pylist()
        assert repr(kept) == repr([row for row, why in zip(content, reasons, strict=True) if why is not None])


@settings(max_examples=150, deadline=None)
@given(rows)
def test_values_made_null_are_counted_in_accepted_rows(content: list[dict[str, Any]]) -> None:
    """Nulls are counted by raw column and reason, and only where the row stays."""
    content = [GOOD | row for row in content]
    kept = [row for row in content if expected(row) is None]
    wanted = {
        "t: not_a_number": sum(row["t"] is not None and math.isnan(row["t"]) for row in kept),
        "t: not_finite": sum(row["t"] == math.inf for row in kept),
        "t: missing_value": sum(row["t"] == -999.0 for row in kept),
        "h: not_a_number": sum(row["h"] == "x" for row in kept),
        "number: not_a_number": sum(row["number"] == "x" for row in kept),
    }
    assert judge(*content).values == {name: count for name, count in wanted.items() if count}


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(0, 15))
def test_the_cut_does_not_matter(content: list[dict[str, Any]], cut: int) -> None:
    """Two batches are judged as one would be."""
    whole, parts = (
        judge(*content),
        (judge(*content[:cut]), judge(*content[cut:], first=cut if cut < len(content) else 0)),
    )
    joined = [row for part in parts for row in part.rows.to_pylist()]
    assert joined == whole.rows.to_pylist()
    assert Counter(parts[0].reasons) + Counter(parts[1].reasons) == Counter(whole.reasons)
    assert Counter(parts[0].values) + Counter(parts[1].values) == Counter(whole.values)


# -- examples ------------------------------------------------------------------------------------------------------


def test_an_accepted_row() -> None:
    """Converted to the CF unit, in the dtype of the map, under the stored names."""
    (row,) = judge({}, first=41).rows.to_pylist()
    assert row == {
        "timestamp": HOUR,
        "latitude": 1.0,
        "longitude": 2.0,
        T: 27.0,
        H: 50,
        "station": "s",
        "number": "7",
        "__row": 41,
    }


@pytest.mark.parametrize(
    ("sent", "stored"),
    [(180.0, 180.0), (180.0001, -179.9999), (360.0, 0.0), (-180.0, -180.0), (270.0, -90.0), (-0.0, 0.0), (359.5, -0.5)],
)
def test_longitudes_east_of_180_go_west(sent: float, stored: float) -> None:
    """Longitudes in (180, 360] become lon − 360; 180 and −180 stay; −0.0 is 0.0."""
    (row,) = judge({"longitude": sent}).rows.to_pylist()
    assert row["longitude"] == pytest.approx(stored, abs=1e-9)
    assert math.copysign(1, row["longitude"]) == math.copysign(1, stored)


@pytest.mark.parametrize(("lat", "lon"), [(90.0000001, 0.0), (-91.0, 0.0), (0.0, 360.0000001), (0.0, -180.0000001)])
def test_positions_off_the_globe(lat: float, lon: float) -> None:
    """Just beyond the poles or the ends of longitude is off the globe."""
    assert judge({"latitude": lat, "longitude": lon}).reasons == {"position_off_globe": 1}


def test_the_border_of_the_future_is_believed() -> None:
    """A time at exactly the latest moment is accepted, a nanosecond later is not."""
    at = {"when": "1970-01-01T00:00:01Z"}
    assert judge(at, limits=Limits(latest=10**9)).reasons == {}
    assert judge(at, limits=Limits(latest=10**9 - 1)).reasons == {"time_in_future": 1}


def test_a_rejecting_source_has_the_first_word() -> None:
    """The source's reason stands even where the row is wrong in other ways, an empty one too."""
    found = judge({"why": "cut", "when": None, "latitude": None}, {"why": ""}, {})
    assert found.reasons == {"source:cut": 1, "source:": 1}
    assert len(found.rows) == 1


def test_long_reasons_are_counted_short_and_kept_long() -> None:
    """Counts name a reason by its beginning; the quarantine keeps it whole."""
    found = judge({"why": "x" * 5000}, {"why": "x" * 4999 + "y"})
    assert found.reasons == {("source:" + "x" * 5000)[:LONGEST_REASON]: 2}
    assert found.rejected is not None
    assert found.rejected["__reason"].to_pylist() == ["source:" + "x" * 5000, "source:" + "x" * 4999 + "y"]


def test_positions_may_be_text_and_of_another_unit() -> None:
    """A position is read like any number: text that spells it, converted to degrees."""
    columns = DataIngestionMap(
        lat=Latitude(cf_unit="radian", dtype="float32"), canonical_variables=MAP.canonical_variables
    )
    schema = pa.schema(
        {
            "timestamp": pa.timestamp("s", "UTC"),
            "latitude": pa.string(),
            "longitude": pa.decimal128(6, 2),
            "t": pa.float32(),
            "h": pa.int8(),
        }
    )
    rows = [
        {"timestamp": 0, "latitude": "0.5", "longitude": None, "t": 1.0, "h": 1},
        {"timestamp": 0, "latitude": "north", "longitude": 0, "t": 1.0, "h": 1},
        {"timestamp": 0, "latitude": " 1.0 ", "longitude": 200, "t": 1.0, "h": 1},
    ]
    found = canonicalise(pa.RecordBatch.from_pylist(rows, schema), mapping.plan(columns, schema), 0, LIMITS)
    assert found.reasons == {"position_missing": 1, "position_not_finite": 1}
    (row,) = found.rows.to_pylist()
    assert row["latitude"] == pytest.approx(math.degrees(1.0), abs=1e-5)
    assert row["longitude"] == -160.0


def test_no_rows_at_all() -> None:
    """An empty batch gives an empty table of the stored columns, and nothing else."""
    found = judge()
    assert found.rows.column_names == mapping.stored_schema(MAP).names
    assert (len(found.rows), found.rejected, found.reasons, found.values) == (0, None, {}, {})
