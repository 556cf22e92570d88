"""Files of the Sensor.Community archive as Arrow tables: each line a header, blank, row or rejected."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

REJECTED = "rejected_because"
"""The column that says why a line could not be parsed; null where it could."""

DESCRIBING = ("sensor_id", "sensor_type", "location")
_REQUIRED = {"sensor_id", "lat", "lon", "timestamp"}
_LEADING = (*DESCRIBING, "lat", "lon", "timestamp")
_BOM = "\ufeff"
_SEPARATOR = "\x1f"
_CONTROL = "[\\x00-\\x08\\x0a-\\x1f\\x7f-\\x{9f}]"
_SHOWN = 80


class Unusable(Exception):
    """Something that cannot be ingested. The text says what is wrong and what to do; `where` is its path."""

    def __init__(self, reason: str, where: str | None = None) -> None:
        super().__init__(reason)
        self.where = where


class SensorFile(NamedTuple):
    """A parsed file: sha256 of its content, and the rows as `parse` gives them."""

    sha256: str
    rows: pa.Table


def digest(path: Path) -> str:
    """sha256 of what is in the file, gunzipped where its name ends in `.gz`. Raises Unusable."""
    return hashlib.sha256(_content(path)).hexdigest()


def read(path: Path) -> SensorFile:
    """The file, parsed. Raises Unusable when it cannot be opened, is empty, or has no known header."""
    content = _content(path)
    return SensorFile(hashlib.sha256(content).hexdigest(), parse(content, path.name))


def parse(content: bytes, name: str) -> pa.Table:
    """A row for each line of `content` that is neither blank nor a header, in order.

    All columns are text; an empty field is null. Of a line that does not parse there is only
    `rejected_because`: why, and where (`name`). Raises Unusable when no line is a known header.
    """
    lines = _lines(content)
    headers = _headers(lines)
    if not headers:
        raise Unusable(_no_header(lines))
    kind = pc.index_in(lines, value_set=pa.array(list(headers), lines.type))
    kept = pc.and_(pc.is_null(kind), pc.not_equal(lines, ""))
    governing = pc.fill_null(pc.fill_null_forward(kind), -1).filter(kept)
    numbers = pa.array(np.arange(1, len(lines) + 1)).filter(kept)
    lines = lines.filter(kept)
    parts = []
    for index, names in enumerate([[], *headers.values()], start=-1):
        mine = pc.equal(governing, index)
        if index == 0 or pc.any(mine, min_count=0).as_py():
            parts.append(_rows(lines.filter(mine), numbers.filter(mine), names, name))
    table = pa.concat_tables(parts, promote_options="default")
    if len(parts) > 1:
        table = table.sort_by("")
    return arranged(table.drop_columns([""]))


def arranged(table: pa.Table) -> pa.Table:
    """The columns that every file has (null where this one lacks them), then the others, the reason last."""
    for column in (*_LEADING, REJECTED):
        if column not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), pa.string()))
    others = [column for column in table.column_names if column not in {*_LEADING, REJECTED}]
    return table.select([*_LEADING, *others, REJECTED])


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise Unusable(f"cannot be read ({error}); check the file, or fetch it again") from None


def _lines(content: bytes) -> pa.Array:
    """The lines without their ends and outer blanks; as Latin-1, where all bytes are text, if not UTF-8."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.removeprefix(_BOM.encode()).decode("latin-1")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = pc.list_flatten(pc.split_pattern(pa.array([text], pa.large_string()), "\n"))
    return pc.utf8_trim(lines, f"{_BOM} \t\r")


def _headers(lines: pa.Array) -> dict[str, list[str]]:
    """The distinct header lines, each with its column names."""
    headers = {}
    for line in pc.unique(lines.filter(pc.match_substring(lines, "sensor_id"))).to_pylist():
        names = _fields(line) or []
        named = [name for name in names if name]
        if set(named) >= _REQUIRED and len(set(named)) == len(named) and REJECTED not in named:
            headers[line] = names
    return headers


def _no_header(lines: pa.Array) -> str:
    first = lines.filter(pc.not_equal(lines, "")).slice(0, 1).to_pylist()
    if not first:
        return "is empty; fetch it again, or remove it"
    return (
        f"has no known header: it begins with {first[0][:_SHOWN]!r}; expected `;`-separated column names,"
        f" among them {', '.join(sorted(_REQUIRED))}, each once"
    )


def _fields(line: str) -> list[str] | None:
    """The fields of a line that may have quotes, None when these do not pair."""
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=";", strict=True))]
    except csv.Error:
        return None


def _rows(lines: pa.Array, numbers: pa.Array, names: list[str], file: str) -> pa.Table:
    """Lines under one header as columns, line numbers in column "". Without `names` all are rejected."""
    control = pc.match_substring_regex(lines, _CONTROL)
    fields, unpaired, separator = _separated(lines)
    count = pc.add(pc.count_substring(fields, separator), 1)
    parsed = pc.and_not(pc.and_not(pc.equal(count, len(names)), control), unpaired)
    good = parsed.to_numpy(zero_copy_only=False)
    flat = pc.utf8_trim(pc.list_flatten(pc.split_pattern(fields.filter(parsed), separator)), " \t")
    flat = pc.if_else(pc.equal(flat, ""), None, flat)
    first = (np.cumsum(good) - 1) * len(names)
    columns: dict[str, pa.Array] = {"": numbers}
    for place, name in enumerate(names):
        if name:
            columns[name] = flat.take(pa.array(first + place, mask=~good)).cast(pa.string())
    columns[REJECTED] = pa.nulls(len(lines), pa.string())
    if good.all():
        return pa.table(columns)
    facts = {"line": lines, "number": numbers, "control": control, "unpaired": unpaired, "count": count}
    reasons = _reasons(pa.table(facts).filter(pc.invert(parsed)), len(names), file)
    columns[REJECTED] = reasons.take(pa.array(np.cumsum(~good) - 1, mask=good))
    return pa.table(columns)


def _reasons(bad: pa.Table, width: int, file: str) -> pa.Array:
    count = bad["count"]
    what = pc.case_when(
        pc.make_struct(bad["control"], bad["unpaired"], pa.scalar(width == 0), pc.less(count, width)),
        "control characters",
        "a quote without its partner",
        "before the header",
        _joined("cut line: ", count, f" of {width} fields"),
        _joined("too many fields: ", count, f" of {width}"),
    )
    shown = pc.utf8_slice_codeunits(pc.replace_substring_regex(bad["line"], _CONTROL, "\ufffd"), 0, _SHOWN)
    dots = pc.if_else(pc.greater(pc.utf8_length(bad["line"]), _SHOWN), "…", "")
    joined = _joined(what, ": ", shown, dots, f" ({file}, line ", bad["number"], ")")
    return joined.combine_chunks()


def _separated(lines: pa.Array) -> tuple[pa.Array, pa.Array, str]:
    """The lines free of quotes, where quotes did not pair, and the separator, which no field contains."""
    quoted = pc.match_substring(lines, '"')
    if not pc.any(quoted, min_count=0).as_py():
        return lines, quoted, ";"
    split = [_fields(line) for line in lines.filter(quoted).to_pylist()]
    joined = pa.array(["" if row is None else _SEPARATOR.join(row) for row in split], lines.type)
    unpaired = pc.replace_with_mask(quoted, quoted, pa.array([row is None for row in split], pa.bool_()))
    plain = pc.replace_substring(lines, ";", _SEPARATOR)
    return pc.replace_with_mask(plain, quoted, joined), unpaired, _SEPARATOR


def _joined(*parts: pa.ChunkedArray | str) -> pa.ChunkedArray:
    texts = [part if isinstance(part, str) else part.cast(pa.string()) for part in parts]
    return pc.binary_join_element_wise(*texts, "")
