"""Columns of text and times against a slow reading of one value at a time."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ionbeam.domain.texts import ParsedTimes, parse_numbers, parse_times
from ionbeam.errors import Refused

TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]

# -- numbers -----------------------------------------------------------------------------------------------

NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|nan|inf|infinity)", re.IGNORECASE | re.ASCII)


def number(text: str) -> float | None:
    """The oracle: one text at a time."""
    text = text.strip(" \t\n\r\x0b\x0c")
    return float(text) if NUMBER.fullmatch(text) else None


NUMBERS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.from_regex(NUMBER, fullmatch=True),
    st.tuples(st.sampled_from(["", " ", "\t ", "\n"]), st.floats().map(str), st.sampled_from(["", " ", "\r\n"])).map(
        "".join
    ),
)
WRONG = st.one_of(
    st.text(max_size=6),
    st.text("0123456789+-.eEnaif_x, ", max_size=8),
    st.sampled_from(
        ["", " ", ".", "+", "1_000", "0x10", "1,5", "١٢", "1e", "nan(1)", "nan()", "1\x00", "\xa01", "--1"]
    ),
)


def check_numbers(column: pa.Array, texts: list[str | None]) -> None:
    values, bad = parse_numbers(column)
    expected = [None if text is None else number(text) for text in texts]
    assert values.type == pa.float64()
    assert bad.type == pa.bool_()
    assert list(map(repr, values.to_pylist())) == [repr(None if v is None else v) for v in expected]
    assert bad.to_pylist() == [t is not None and v is None for t, v in zip(texts, expected, strict=True)]


@given(st.sampled_from(TYPES), st.lists(st.one_of(st.none(), NUMBERS), max_size=8))
@example(
    pa.string(),
    ["1e400", "-1e400", "1e-400", "5.", ".5", "+1", "-0", "1.7976931348623159e308", "NaN", "-inf"],
)
@example(pa.string(), [None, "0" * 400 + "1", "1" * 400, "Infinity"])
def test_good_numbers(kind: pa.DataType, texts: list[str | None]) -> None:
    """Texts that spell numbers give the same bits as Python's float, and none is bad."""
    texts = [text if text is None or number(text) is not None else "1" for text in texts]
    check_numbers(pa.array(texts, kind), texts)


@given(st.sampled_from(TYPES), st.lists(st.one_of(st.none(), NUMBERS, WRONG), max_size=8), st.integers(0, 3))
@example(pa.string(), ["nan(1)"], 0)
@example(pa.string(), ["nan", "nan()"], 0)
@example(pa.string(), ["1_000", "0x10", "", "1,5", "١٢", None, "1"], 1)
def test_any_numbers(kind: pa.DataType, texts: list[str | None], skip: int) -> None:
    """One bad text spoils no other, in columns that are slices too."""
    check_numbers(pa.array(texts, kind).slice(skip), texts[skip:])


def test_numbers_of_nothing() -> None:
    """A column of type null has no values and nothing bad; another type is refused by name."""
    values, bad = parse_numbers(pa.nulls(3))
    assert values.to_pylist() == [None] * 3
    assert bad.to_pylist() == [False] * 3
    with pytest.raises(Refused, match="int64"):
        parse_numbers(pa.array([1]))


# -- times -------------------------------------------------------------------------------------------------

TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?"
    r"( ?(?:[Zz]|([+-])(\d\d)(?::?(\d\d))?))?)?",
    re.ASCII,
)
LOWEST, HIGHEST = -(2**63) + 1, 2**63 - 1
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Africa/Casablanca",
]
DAY0 = date(1970, 1, 1).toordinal()


def read(text: str, zone: str) -> int | None:
    """The oracle: nanoseconds of one text, None where it is unreadable."""
    match = TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(group or 0) for group in match.groups()[:6])
    fraction, offset, sign, hours, minutes = match.groups()[6:]
    try:
        local = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 (as it is written)
    except ValueError:
        return None
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        return None
    nanos = int((fraction or "").ljust(9, "0")[:9])
    if offset is None and zone != "UTC":
        return at(local, nanos, zone)
    shift = (int(hours or 0) * 3600 + int(minutes or 0) * 60) * (-1 if sign == "-" else 1)
    return (whole_seconds(local) - shift) * 10**9 + nanos


def whole_seconds(local: datetime) -> int:
    return (local.toordinal() - DAY0) * 86400 + local.hour * 3600 + local.minute * 60 + local.second


def at(local: datetime, nanos: int, zone: str) -> int | None:
    """The earliest instant at which clocks in `zone` show `local`; None when there is none."""
    if not 1600 < local.year < 2300:
        return whole_seconds(local) * 10**9 + nanos
    there = ZoneInfo(zone)
    found = []
    for fold in (0, 1):
        instant = local.replace(tzinfo=there, fold=fold).astimezone(UTC)
        if instant.astimezone(there).replace(tzinfo=None) == local:
            found.append(whole_seconds(instant.replace(tzinfo=None)))
    return min(found) * 10**9 + nanos if found else None


def check_times(parsed: ParsedTimes, nulls: list[bool], expected: list[int | None]) -> None:
    in_range = [e is not None and LOWEST <= e <= HIGHEST for e in expected]
    assert parsed.nanoseconds.dtype == np.int64
    assert parsed.missing.tolist() == nulls
    assert parsed.unreadable.tolist() == [not n and e is None for n, e in zip(nulls, expected, strict=True)]
    assert parsed.out_of_range.tolist() == [e is not None and not r for e, r in zip(expected, in_range, strict=True)]
    assert parsed.nanoseconds.tolist() == [e if r else 0 for e, r in zip(expected, in_range, strict=True)]


def check_time_texts(column: pa.Array, texts: list[str | None], zone: str) -> None:
    expected = [None if text is None else read(text, zone) for text in texts]
    check_times(parse_times(column, zone), [text is None for text in texts], expected)


def pad(low: int, high: int, width: int = 2) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(lambda n: f"{n:0{width}d}")


YEARS = st.one_of(pad(1900, 2100, 4), pad(0, 9999, 4), st.sampled_from(["1677", "2262"]))
OFFSETS = st.one_of(
    st.sampled_from(
        ["", "Z", "z", " Z", "+00", "-0000", "+23:59", "-23:59", "+24:00", "+01:60", " +01:00", "  Z", "+1"]
    ),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["+", "-", " +"]),
        pad(0, 23),
        st.sampled_from(["", ":"]),
        pad(0, 59),
    ),
)
CLOCKS = st.builds(
    "{}{}:{}{}{}".format,
    st.sampled_from(["T", " ", "t", "  ", "_"]),
    pad(0, 24),
    pad(0, 60),
    st.one_of(st.just(""), pad(0, 60).map(":{}".format), st.from_regex(r":[0-5][0-9]\.[0-9]{0,12}", fullmatch=True)),
    OFFSETS,
)
DATES = st.builds("{}-{}-{}".format, YEARS, pad(0, 13), pad(0, 32))
NEAR = st.builds("{}{}".format, DATES, st.one_of(st.just(""), CLOCKS, st.just("T05"), st.just("T05Z"), st.just("Z")))
GOOD_DATES = st.dates().map(date.isoformat)
CLOCK = st.builds("{}{}:{}:{}".format, st.sampled_from("T "), pad(0, 23), pad(0, 59), pad(0, 59))
FORMS = st.sampled_from(["{}{}Z", "{}{}", "{}{}.25Z", "{}{}.123456789", "{}{}+02:00", "{}{}.5-0330", "{0}"])
EDGES = [
    "2262-04-11T23:47:16.854775807",
    "2262-04-11T23:47:16.854775808",
    "2262-04-11T23:47:16.8547758079Z",
    "1677-09-21T00:12:43.145224193",
    "1677-09-21T00:12:43.145224192Z",
    "1677-09-21T00:12:43.145224191Z",
    "2262-04-12T00:47:16.854775807+01:00",
    "2262-04-11T23:47:16.854775807-01:00",
    "0001-01-01T00:00:00+05:00",
    "0000-01-01",
    "9999-12-31T23:59:59-23:59",
    "1969-12-31T23:59:59.999999999Z",
    "2024-02-29",
    "2023-02-29",
    "2024-02-30",
    "2024-01-01T24:00:00Z",
    "2024-01-01T00:00:60Z",
    "2024-01-01T00:00:00.Z",
    "2024-01-01 00:00:00 +01",
    "2024-01-01T05Z",
    "2024-01-01T05",
    "2024-01-01T05+01",
    "2024-01-01T05+0100",
    "2024-01-01T05+01:00",
    "2024-01-01T05:06+01",
    "",
    " 2024-01-01",
    "٢٠٢٤-01-01",
    "2024-01-01\n",
]


@given(
    st.sampled_from(TYPES),
    st.lists(st.one_of(st.none(), NEAR, st.text(max_size=5)), max_size=8),
    st.sampled_from(ZONES),
)
@example(pa.string(), EDGES, "UTC")
@example(pa.large_string(), EDGES, "Europe/Berlin")
@example(pa.string(), ["2024-03-31 02:30", "2024-10-27 02:30", "2050-07-01 00:00", None, "x"], "Europe/Berlin")
def test_any_time_texts(kind: pa.DataType, texts: list[str | None], zone: str) -> None:
    """Mixed forms, faults, gaps and folds in one column are each read as they would be alone."""
    check_time_texts(pa.array(texts, kind), texts, zone)


@pytest.mark.parametrize("text", EDGES)
def test_each_edge_alone(text: str) -> None:
    """A text alone in its column is read as in company."""
    check_time_texts(pa.array([text]), [text], "UTC")
    check_time_texts(pa.array([text]), [text], "Asia/Kathmandu")


@given(
    FORMS,
    st.lists(st.one_of(st.none(), st.tuples(GOOD_DATES, CLOCK)), max_size=8),
    st.sampled_from(ZONES),
    st.integers(0, 2),
)
def test_texts_of_one_form(form: str, parts: list[tuple[str, str] | None], zone: str, skip: int) -> None:
    """A column of one form, the usual case, is read alike on its faster way."""
    texts = [None if part is None else form.format(*part) for part in parts]
    check_time_texts(pa.array(texts, pa.string()).slice(skip), texts[skip:], zone)


@given(
    st.sampled_from([zone for zone in ZONES if zone != "UTC"]),
    st.integers(1880, 2200),
    st.lists(st.integers(0, 366 * 24 * 4), min_size=1, max_size=20),
)
def test_local_times_of_any_year(zone: str, year: int, quarters: list[int]) -> None:
    """Local times are Python's own, the earlier of two, before 1900 and after 2037 too."""
    first = datetime(year, 1, 1)  # noqa: DTZ001 (naive on purpose)
    locals_ = [first + timedelta(minutes=15 * n) for n in quarters]
    parsed = parse_times(pa.array(locals_, pa.timestamp("us")), zone)
    check_times(parsed, [False] * len(locals_), [at(local, 0, zone) for local in locals_])


@pytest.mark.parametrize(
    ("zone", "first"),
    [
        ("America/Noronha", datetime(2000, 10, 1)),  # noqa: DTZ001 (naive on purpose)
        ("Africa/Freetown", datetime(1939, 8, 20)),  # noqa: DTZ001 (naive on purpose)
    ],
)
def test_short_spells_of_an_offset(zone: str, first: datetime) -> None:
    """The shortest spells in the database are seen: a week of summer time, four days without it."""
    locals_ = [first + timedelta(minutes=15 * n) for n in range(31 * 96)]
    expected = [at(local, 0, zone) for local in locals_]
    assert None in expected
    parsed = parse_times(pa.array(locals_, pa.timestamp("s")), zone)
    check_times(parsed, [False] * len(locals_), expected)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_long_column_with_few_faults(zone: str) -> None:
    """In a column of many blocks each row is read as alone: zoned and naive blocks, faults, another form."""
    texts: list[str | None] = [
        f"2024-05-{1 + n // 2880:02d}T{n // 120 % 24:02d}:{n // 2 % 60:02d}:30Z" for n in range(40_000)
    ]
    texts[9000] = "2024-02-30"
    texts[16384:24576] = [str(text)[:-1] for text in texts[16384:24576]]
    texts[39_999] = None
    texts[30_000] = "1500-01-01 00:00"
    check_time_texts(pa.array(texts), texts, zone)


def test_gap_and_fold() -> None:
    """When clocks go back the earlier instant is meant; what they skip is unreadable."""
    texts = [
        "2024-03-31 01:59:59",
        "2024-03-31 02:00",
        "2024-03-31 02:59:59",
        "2024-03-31 03:00",
        "2024-10-27 02:30",
    ]
    parsed = parse_times(pa.array(texts), "Europe/Berlin")
    assert parsed.unreadable.tolist() == [False, True, True, False, False]
    utc = [datetime.fromtimestamp(ns // 10**9, UTC).strftime("%H:%M:%S") for ns in parsed.nanoseconds.tolist()]
    assert utc == ["00:59:59", "00:00:00", "00:00:00", "01:00:00", "00:30:00"]


UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-(10**10), 10**10),
    st.sampled_from([-(2**63), 2**63 - 1, LOWEST]),
)


@given(
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["UTC", "+02:00", "Asia/Tokyo"]),
    st.lists(st.none() | INT64),
)
def test_arrow_timestamps_with_a_zone(unit: str, zone: str, values: list[int | None]) -> None:
    """A zone of Arrow's changes nothing: the instants are kept; what does not fit is flagged, not wrapped."""
    column = pa.array(values, pa.int64()).cast(pa.timestamp(unit, zone))
    expected = [None if value is None else value * 10**9 // UNITS[unit] for value in values]
    check_times(parse_times(column, None), [value is None for value in values], expected)


@given(st.sampled_from(sorted(UNITS)), st.lists(st.none() | INT64))
def test_naive_arrow_timestamps(unit: str, values: list[int | None]) -> None:
    """Naive timestamps are local to the map's time zone."""
    column = pa.array(values, pa.int64()).cast(pa.timestamp(unit))
    nulls = [value is None for value in values]
    expected = [None if value is None else value * 10**9 // UNITS[unit] for value in values]
    check_times(parse_times(column, "UTC"), nulls, expected)
    earlier = [None if e is None or abs(e) < 2 * 10**9 else e - 9 * 3600 * 10**9 for e in expected]
    late = [e is not None and 0 <= e < 2 * 10**18 for e in earlier]
    tokyo = parse_times(column, "Etc/GMT-9").nanoseconds.tolist()
    assert [t for t, known in zip(tokyo, late, strict=True) if known] == [
        e for e, known in zip(earlier, late, strict=True) if known
    ]


@given(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1)))
def test_arrow_dates(days: list[int | None]) -> None:
    """A date is its midnight in the map's time zone."""
    nulls = [day is None for day in days]
    expected = [None if day is None else day * 86400 * 10**9 for day in days]
    check_times(parse_times(pa.array(days, pa.int32()).cast(pa.date32()), "UTC"), nulls, expected)
    millis = pa.array([None if day is None else day * 86_400_000 for day in days], pa.int64()).cast(pa.date64())
    check_times(parse_times(millis, "UTC"), nulls, expected)


def test_dates_are_local() -> None:
    """Midnight is that of the map's time zone."""
    column = pa.array([date(2024, 7, 1)])
    expected = datetime(2024, 7, 1, tzinfo=timezone(timedelta(hours=2))).timestamp()
    assert parse_times(column, "Europe/Berlin").nanoseconds.tolist() == [int(expected) * 10**9]


@pytest.mark.parametrize(
    ("column", "quoted"),
    [
        (pa.array([None, "2024-01-01T00:00:00Z", "2024-01-02 03:04", "2024-01-03"]), "'2024-01-02 03:04'"),
        (pa.array(["x", "2024-02-30", "2024-01-03"]), "'2024-01-03'"),
        (pa.array(["2024-01-01T00:00:00"]), "'2024-01-01T00:00:00'"),
        (pa.array([None, 0], pa.timestamp("ms")), "'1970-01-01T00:00:00.000'"),
        (pa.array([2**62], pa.int64()).cast(pa.timestamp("s")), "'146138514283-"),
        (pa.array([date(2024, 1, 1)], pa.date32()), "'2024-01-01'"),
        (pa.array([date(2024, 1, 1)], pa.date64()), "'2024-01-01T"),
    ],
)
def test_naive_times_need_a_zone(column: pa.Array, quoted: str) -> None:
    """Without a time zone in the map, the first naive time is quoted, whatever else is in the column."""
    with pytest.raises(Refused, match=r"`datetime\.timezone` is missing") as refusal:
        parse_times(column, None)
    assert quoted in str(refusal.value)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2024-01-01T00:00Z", "2024-01-01T00:00 +01:00", "2024-02-30", "x", None]),
        pa.array([], pa.string()),
        pa.nulls(2),
        pa.nulls(2, pa.timestamp("s")),
        pa.nulls(2, pa.date32()),
        pa.nulls(2, pa.string()),
    ],
)
def test_no_naive_time_needs_no_zone(column: pa.Array) -> None:
    """Where no time is naive, none is needed; nulls are missing."""
    parsed = parse_times(column, None)
    assert parsed.missing.tolist() == column.is_null().to_pylist()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Europe/Berln", "'Europe/Berlin'"),
        ("europe/berlin", "'Europe/Berlin'"),
        ("berlin", "'Europe/Berlin'"),
        ("utc", "'UTC'"),
        ("Europe", "not an IANA time zone"),
        ("../UTC", "not an IANA time zone"),
        ("", "not an IANA time zone"),
        ("localtime", "not an IANA time zone"),
        ("right/UTC", "not an IANA time zone"),
        ("+01:00", "not an IANA time zone"),
        ("a\0b", "not an IANA time zone"),
    ],
)
def test_unknown_zones(name: str, near: str) -> None:
    """A name that is no zone of the IANA, or one that means something else on each machine, is refused."""
    with pytest.raises(Refused, match=r"`datetime\.timezone`") as refusal:
        parse_times(pa.array(["2024-01-01T00:00Z"]), name)
    assert near in str(refusal.value)


@pytest.mark.parametrize(
    "column", [pa.array([1]), pa.array([1.5]), pa.array([True]), pa.array([b"x"]), pa.array([[1]])]
)
def test_other_types(column: pa.Array) -> None:
    """Another type is refused by name, with what is read instead."""
    with pytest.raises(Refused, match="ISO 8601") as refusal:
        parse_times(column, "UTC")
    assert str(column.type) in str(refusal.value)
