"""Every line of an archive file is a header, blank, a row or a rejected row, whatever its bytes are."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ionbeam.sources.sensor_community_files import REJECTED, Unusable, parse, read

HEADER = b"sensor_id;sensor_type;location;lat;lon;timestamp;temperature;humidity"
ROW = b"5332;DHT22;3121;57.138;-2.077;2018-04-02T11:49:04;6.70;91.80"
DATA = Path(os.environ.get("IONBEAM_DATA", Path(__file__).parents[3] / "shared" / "data"))


def rows(*lines: bytes, end: bytes = b"\n") -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = parse(end.join((HEADER, *lines)) + end, "f.csv").to_pylist()
    return found


fields = st.text(st.characters(codec="latin-1", exclude_categories=["C"], exclude_characters=';"')).map(
    lambda text: text.encode("latin-1")
)
lines = st.one_of(
    st.just(HEADER),
    st.just(ROW),
    st.sampled_from([b"", b"  ", b"\t", ROW[:20], ROW + b";1", ROW + b"\x00", b"\xff\xfe\x00;;", b'"', b'1;"2']),
    st.lists(fields, min_size=8, max_size=8).map(b";".join),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b"")),
)


@settings(deadline=None)
@given(st.lists(lines, max_size=30), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
@example([b"\xc3\xa4;2;3;4;5;6;7;8", b"\xe4;2;3;4;5;6;7;8"], b"\n", False)
def test_every_line_is_accounted_for(below: list[bytes], end: bytes, ends: bool) -> None:
    """The rows are the lines that are neither blank nor headers, in order; each is parsed or says why not."""
    content = end.join([HEADER, *below]) + (end if ends else b"")
    table = parse(content, "f.csv")
    kept = [line for line in below if line.strip(b" \t\r") and line.strip(b" \t\r") != HEADER]
    assert len(table) == len(kept)
    for line, row in zip(kept, table.to_pylist(), strict=True):
        values = [value for name, value in row.items() if name != REJECTED]
        if row[REJECTED] is not None:
            assert values == [None] * 8
            assert line != ROW
            assert "(f.csv, line " in row[REJECTED]
        elif b'"' not in line:
            assert line.count(b";") == 7
            assert len(table.column_names) == 9


def test_fields_come_as_they_are_written() -> None:
    """Values stay text, so that ionbeam judges them; an empty field is null."""
    good, garbage = rows(ROW, b"5332;DHT22;;57.138;-2.077;yesterday;warm; ")
    assert good == {
        "sensor_id": "5332",
        "sensor_type": "DHT22",
        "location": "3121",
        "lat": "57.138",
        "lon": "-2.077",
        "timestamp": "2018-04-02T11:49:04",
        "temperature": "6.70",
        "humidity": "91.80",
        REJECTED: None,
    }
    assert (garbage["location"], garbage["timestamp"], garbage["temperature"]) == (None, "yesterday", "warm")
    assert garbage["humidity"] is None
    assert garbage[REJECTED] is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"5331;SDS011;3121;", "cut line: 4 of 8 fields: 5331;SDS011;3121; (f.csv, line 3)"),
        (ROW + ROW, "too many fields: 15 of 8: "),
        (ROW.replace(b"6.70", b"6\x00"), "control characters: 5332;DHT22;3121;57.138;-2.077;"),
        (ROW.replace(b"6.70", b"6\x85"), "control characters: 5332;DHT22;3121;57.138;-2.077;"),
        (ROW.replace(b"6.70", b'"6.70'), "a quote without its partner: 5332"),
    ],
)
def test_a_line_that_cannot_be_parsed_says_why_and_where(line: bytes, reason: str) -> None:
    """Its fields are null, its neighbours are unharmed, and the reason is short whatever the line is."""
    before, bad, after = rows(ROW, line, ROW)
    assert before == after
    assert (bad[REJECTED] or "").startswith(reason)
    assert {value for name, value in bad.items() if name != REJECTED} == {None}
    (long,) = rows(b"x" * 100_000)
    assert len(long[REJECTED] or "") < 200


def test_bom_crlf_latin_1_and_quotes_are_understood() -> None:
    """What spreadsheets and editors do to a file does not change its rows."""
    quoted = b'"5332";DHT22;"K\xf6ln; M\xfclheim";57.138;-2.077;2018-04-02T11:49:04;6.70;91.80'
    content = b"\xef\xbb\xbf" + b"\r\n".join((b'"sensor_id"' + HEADER[9:], ROW, b"", quoted, ROW))
    first, second, third = parse(content, "f.csv").to_pylist()
    assert first == third == rows(ROW)[0]
    assert second == {**first, "location": "Köln; Mülheim"}


def test_old_mac_line_ends_are_line_ends_only_where_there_are_no_others() -> None:
    """A lone carriage return inside a line of a file with line feeds is garbage."""
    assert len(parse(HEADER + b"\r" + ROW + b"\r" + ROW, "f.csv")) == 2
    (row,) = rows(ROW.replace(b"6.70", b"6\r7"))
    assert (row[REJECTED] or "").startswith("control characters")


def test_a_header_in_the_middle_rules_the_lines_below_it() -> None:
    """Files that were joined keep their meaning and the order of their rows."""
    other = HEADER.replace(b"temperature;humidity", b"P1")
    table = parse(b"\n".join((b"note", HEADER, ROW, other, ROW[:-6], HEADER, ROW)), "f.csv")
    assert table["P1"].to_pylist() == [None, None, "6.70", None]
    assert table["temperature"].to_pylist() == [None, "6.70", None, "6.70"]
    assert table[REJECTED].to_pylist() == ["before the header: note (f.csv, line 1)", None, None, None]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a;b;c\n1;2;3\n", "no known header: it begins with 'a;b;c'"),
        (HEADER + b";humidity\n", "each once"),
        (b"\x1f\x8b\x00\x00sensor_id", "no known header"),
    ],
)
def test_a_file_without_a_known_header_is_unusable(content: bytes, reason: str) -> None:
    """The error shows how the file begins, and what is expected."""
    with pytest.raises(Unusable, match=reason):
        parse(content, "f.csv")


def test_gzip_is_the_same_file(tmp_path: Path) -> None:
    """The archive's older years are compressed: content, not packing, makes a version."""
    plain, packed, broken = (tmp_path / name for name in ("a.csv", "a.csv.gz", "b.csv.gz"))
    plain.write_bytes(HEADER + b"\n" + ROW)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    broken.write_bytes(packed.read_bytes()[:-10])
    assert read(plain).sha256 == read(packed).sha256
    assert read(plain).rows.equals(read(packed).rows)
    with pytest.raises(Unusable, match="cannot be read"):
        read(broken)


def test_the_real_dirty_days() -> None:
    """Four bad days: all lines are there, and the one that was cut mid-record is named."""
    folder = DATA / "sensor-community-dirty"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set IONBEAM_DATA to their folder")
    expected = {"2017-08-30": 306, "2018-04-02": 582, "2018-12-22": 575, "2019-01-17": 125}
    for path in sorted(folder.glob("*.csv")):
        table = read(path).rows
        assert len(table) == expected[path.name[:10]]
        bad = table.filter(pc.is_valid(table[REJECTED]))[REJECTED].to_pylist()
        assert len(bad) == (path.name.startswith("2019-01-17"))
        assert all(reason.startswith("cut line: 4 of 12 fields: 5331;SDS011;3121;") for reason in bad)
