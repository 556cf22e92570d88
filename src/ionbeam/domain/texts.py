"""Columns of text (and Arrow times) to numbers and instants. Whole columns at a time, no Python per row."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from ionbeam.domain import zones
from ionbeam.errors import Refused

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_SPACE = " \t\n\r\x0b\x0c"
_NUMBER = r"(?i)\A[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf|infinity)\z"


def parse_numbers(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The float64 values that texts spell, and where a text was there and spells none.

    Read are `[+-]digits[.digits][e[+-]digits]` (`.5` and `5.` too), `nan`, `inf` and `infinity` in any
    case, with ASCII white space around. What is too large is infinite. The values are null where the text is
    null or no number. Raises Refused for a column that is not text.
    """
    column = _plain(column)
    if not _is_text(column.type):
        raise Refused(f"numbers are read from text here, got a column of type {str(column.type)[:120]}; send text")
    try:
        values = column.cast(pa.float64())
    except pa.ArrowInvalid:
        return _parse_numbers_slowly(column)
    # The cast takes C's `nan(…)`, which is none of ours.
    if values.null_count < len(values) and pc.any(pc.match_substring(column.filter(pc.is_nan(values)), "(")).as_py():
        return _parse_numbers_slowly(column)
    return values, pa.repeat(pa.scalar(False), len(column))


def _parse_numbers_slowly(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    trimmed = pc.ascii_trim(column, characters=_SPACE)
    good = pc.match_substring_regex(trimmed, _NUMBER)
    values = pc.if_else(good, trimmed, pa.scalar(None, column.type)).cast(pa.float64())
    return values, pc.fill_null(pc.invert(good), False)


class ParsedTimes(Struct, frozen=True, eq=False):
    """Instants in nanoseconds since the Unix epoch, UTC; 0 in rows that one of the masks flags."""

    nanoseconds: Integers
    missing: Mask
    unreadable: Mask
    out_of_range: Mask


def parse_times(column: pa.Array, timezone: str | None) -> ParsedTimes:
    """The instants of ISO 8601 texts, Arrow timestamps of any unit and zone, or Arrow dates (midnight).

    Texts are `YYYY-MM-DD`, or that and `[T ]HH:MM[:SS[.fraction]]` with an offset `Z`, `±HH`, `±HHMM` or
    `±HH:MM`, if any, after at most one space; years 0001 to 9999; digits beyond the nanosecond are dropped.
    Missing is null; out of range is what timestamp[ns] cannot hold (before 1677-09-21T00:12:43.145224193Z,
    after 2262-04-11T23:47:16.854775807Z).

    Times without an offset are local to `timezone` (IANA): of an ambiguous one the earlier is meant, one that
    the clocks skipped is unreadable. Raises Refused where there is such a time and no `timezone`, for an
    unknown `timezone`, and for a column of another type.
    """
    if timezone is not None:
        zones.check(timezone)
    column = _plain(column)
    missing = _mask(column.is_null())
    kind = column.type
    if _is_text(kind):
        cast = _cast_texts(column, missing)
        if cast is not None and cast.type.tz is not None:
            return ParsedTimes(_whole(cast), missing, np.zeros_like(missing), np.zeros_like(missing))
        seconds, nanos, unreadable, naive = _read_texts(column, missing, cast)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds, nanos = _split(column)
        unreadable = np.zeros_like(missing)
        naive = ~missing if pa.types.is_date(kind) or kind.tz is None else np.zeros_like(missing)
    else:
        raise Refused(
            f"times are read from ISO 8601 text, Arrow timestamps and Arrow dates, got a column of type"
            f" {str(kind)[:120]}; send one of those"
        )
    if naive.any():
        zone = _needed(timezone, column, naive)
        unreadable |= zones.to_utc(seconds, naive, zone)
    return _assembled(seconds, nanos, missing, unreadable)


def _plain(column: pa.Array) -> pa.Array:
    """`column` without dictionary encoding or string views; a column of nothing as text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _mask(array: pa.Array) -> Mask:
    result: Mask = array.fill_null(False).to_numpy(zero_copy_only=False)
    return result


def _whole(array: pa.Array) -> Integers:
    """Integers or times as int64, null as 0. May share the array's memory: not to be written to."""
    result: Integers = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return result


def _needed(timezone: str | None, column: pa.Array, naive: Mask) -> str:
    if timezone is not None:
        return timezone
    first = column[int(np.argmax(naive))]
    if pa.types.is_timestamp(column.type):
        text = str(np.datetime64(first.value, column.type.unit))
    elif pa.types.is_date(column.type):
        text = str(np.datetime64(first.value, "D" if pa.types.is_date32(column.type) else "ms"))
    else:
        text = first.as_py()
    raise Refused(
        f"the map's `datetime.timezone` is missing, and the time {text!r} has no offset;"
        " name the IANA time zone that it is local to, such as 'Europe/Berlin' or 'UTC'"
    )


# -- texts, all of one form -----------------------------------------------------------------------------

# Arrow also reads hours without minutes (`2024-01-01T05Z`). Texts of these lengths may be such.
_IN_DOUBT = {"UTC": (14, 16, 18, 19), None: (13,)}


def _cast_texts(column: pa.Array, missing: Mask) -> pa.Array | None:
    """Nanoseconds, in UTC where each text has an offset, naive where none has; None where it is neither."""
    # Each text that Arrow cannot cast costs as much as 40 that it can: ask the first one which form it has.
    first = column.slice(int(np.argmin(missing)) if len(missing) else 0, 1)
    lengths = pc.binary_length(column)
    for zone, doubtful in _IN_DOUBT.items():
        try:
            first.cast(pa.timestamp("ns", zone))
            values = column.cast(pa.timestamp("ns", zone))
        except pa.ArrowInvalid:
            continue
        if not pc.any(pc.is_in(lengths, value_set=pa.array(doubtful, lengths.type))).as_py():
            return values
    return None


# -- texts of any form -----------------------------------------------------------------------------------

_BLOCK = 8192


def _read_texts(column: pa.Array, missing: Mask, cast: pa.Array | None) -> tuple[Integers, Integers, Mask, Mask]:
    """Seconds (local where there is no offset), nanoseconds, where unreadable, where readable and naive."""
    if cast is not None:
        seconds, nanos = _split(cast)
        return seconds, nanos, np.zeros_like(missing), ~missing & (cast.type.tz is None)
    if len(column) <= _BLOCK:
        return _match_texts(column)
    # Faults are rare: a block without one is cast, 40 times as fast.
    parts = []
    for start in range(0, len(column), _BLOCK):
        block, gone = column.slice(start, _BLOCK), missing[start : start + _BLOCK]
        parts.append(_read_texts(block, gone, _cast_texts(block, gone)))
    seconds, nanos, unreadable, naive = (np.concatenate(part) for part in zip(*parts, strict=True))
    return seconds, nanos, unreadable, naive


_TIME = (
    r"\A(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12][0-9]|3[01])"
    r"(?:[Tt ](?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
    r"(?::(?P<second>[0-5][0-9])(?:\.(?P<fraction>[0-9]+))?)?"
    r"(?P<zone> ?(?:[Zz]|(?P<sign>[+-])(?P<zone_hours>[01][0-9]|2[0-3])(?::?(?P<zone_minutes>[0-5][0-9]))?))?"
    r")?\z"
)


def _match_texts(column: pa.Array) -> tuple[Integers, Integers, Mask, Mask]:
    """As _read_texts does, by a regular expression."""
    fields = pc.extract_regex(column, _TIME)
    matched = _mask(fields.is_valid())

    def number(name: str, digits: int = 0) -> Integers:
        text = pc.struct_field(fields, name)
        if digits:
            text = pc.ascii_rpad(pc.utf8_slice_codeunits(text, 0, digits), digits, "0")
        return _whole(pc.if_else(pc.equal(text, ""), "0", text))

    year, month, day = number("year"), number("month"), number("day")
    months = (year - 1970) * 12 + (month - 1)
    first, after = (m.view("M8[M]").astype("M8[D]").view(np.int64) for m in (months, months + 1))
    readable = matched & (year > 0) & (day <= after - first)
    seconds = (first + day - 1) * 86400 + number("hour") * 3600 + number("minute") * 60 + number("second")
    sign = np.where(_mask(pc.equal(pc.struct_field(fields, "sign"), "-")), -60, 60)
    seconds -= sign * (number("zone_hours") * 60 + number("zone_minutes"))
    seconds[~readable] = 0
    naive = readable & _mask(pc.equal(pc.struct_field(fields, "zone"), ""))
    return seconds, number("fraction", digits=9), _mask(column.is_valid()) & ~readable, naive


# -- Arrow's own times ----------------------------------------------------------------------------------

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _split(column: pa.Array) -> tuple[Integers, Integers]:
    """Whole seconds since the epoch, rounded down, and the nanoseconds above them."""
    if pa.types.is_date32(column.type):
        days = _whole(column.cast(pa.int32()))
        return days * 86400, np.zeros_like(days)
    per_second = _PER_SECOND["ms" if pa.types.is_date64(column.type) else column.type.unit]
    seconds, rest = np.divmod(_whole(column), per_second)
    return seconds, rest * (1_000_000_000 // per_second)


# -- both -----------------------------------------------------------------------------------------------

_LAST_SECOND, _LAST_NANOS = divmod(2**63 - 1, 1_000_000_000)
_FIRST_SECOND, _FIRST_NANOS = divmod(-(2**63) + 1, 1_000_000_000)


def _assembled(seconds: Integers, nanos: Integers, missing: Mask, unreadable: Mask) -> ParsedTimes:
    early = (seconds < _FIRST_SECOND) | ((seconds == _FIRST_SECOND) & (nanos < _FIRST_NANOS))
    late = (seconds > _LAST_SECOND) | ((seconds == _LAST_SECOND) & (nanos > _LAST_NANOS))
    out_of_range = (early | late) & ~missing & ~unreadable
    # The first second times 1e9 lies below int64 although the instant does not: one second is moved over.
    before = seconds < 0
    nanoseconds = (seconds + before) * 1_000_000_000 + (nanos - before * 1_000_000_000)
    nanoseconds[missing | unreadable | out_of_range] = 0
    return ParsedTimes(nanoseconds, missing, unreadable, out_of_range)
