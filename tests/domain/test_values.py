"""Raw columns of every type to numbers and texts, held against one value at a time in plain Python."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.units import Conversion
from ionbeam.domain.values import MISSING_VALUE, NOT_A_NUMBER, NOT_FINITE, plain, read_numbers, read_texts, value_type

SAME = Conversion(1.0, 0.0)
CONVERSIONS = [SAME, Conversion(1.0, -273.15), Conversion(1.8, 32.0), Conversion(100.0, 0.0)]
DTYPES = ["float64", "float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
WHOLE = {
    str(kind): kind
    for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
}
MISSING: list[tuple[float | str, ...]] = [
    (),
    (-999.0,),
    ("-999",),
    (0.0, -999.0, " n/a\t"),
    (float("nan"),),
    (-999.9,),
    (1e300, 0.5),
]


def _bounds(kind: pa.DataType) -> tuple[int, int]:
    info = np.iinfo(kind.to_pandas_dtype())
    return int(info.min), int(info.max)


def _whole(kind: pa.DataType) -> st.SearchStrategy[int]:
    low, high = _bounds(kind)
    near = [
        v
        for v in (low, low + 1, -999, -1, 0, 1, 127, 128, 255, 2**53 + 1, 2**63 - 1, high - 1, high)
        if low <= v <= high
    ]
    return st.one_of(st.sampled_from(near), st.integers(low, high))


def _real(width: int) -> st.SearchStrategy[float]:
    dtype = {16: np.float16, 32: np.float32, 64: np.float64}[width]
    special = [math.nan, math.inf, -math.inf, -0.0, 0.5, 300.0, float(dtype(-999.0)), float(dtype(-999.9))]
    borders = [127.0, 128.0, -128.0, -129.0, 255.0, 256.0, 32768.0, 2.0**15 + 0.5, -1.0]
    special += borders if width == 16 else [*borders, 2.0**31, -(2.0**31), 2.0**32, 2.0**63, -(2.0**63), 2.0**64]
    return st.one_of(st.sampled_from(special), st.floats(width=width))  # type: ignore[arg-type]


TEXTS = [
    "",
    " ",
    "1",
    " 1.5 ",
    "-999",
    "-999.0",
    "n/a",
    " n/a ",
    "x",
    "nan",
    "inf",
    "-Infinity",
    "1e400",
    "1,5",
    "0x1",
    "12 3",
    "-0.0",
    "300",
    "9007199254740993",
    " -9007199254740993",
    "+18446744073709551615",
    "9223372036854775808",
    "0000000000000000012",
    "1" * 45,
    "9007199254740993.0",
]
values_of: dict[str, st.SearchStrategy[Any]] = {
    **{name: _whole(kind) for name, kind in WHOLE.items()},
    "halffloat": _real(16),
    "float": _real(32),
    "double": _real(64),
    "decimal": st.sampled_from(
        [Decimal(text) for text in ("0.00", "-999.00", "1.50", "-0.05", "300.00", "1234567890.12", "-999.90")]
    ),
    "string": st.sampled_from(TEXTS),
    "large_string": st.sampled_from(TEXTS),
    "string_view": st.sampled_from(TEXTS),
}
kinds = {
    **WHOLE,
    "halffloat": pa.float16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "decimal": pa.decimal128(14, 2),
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
}


def column_of(name: str, values: list[Any]) -> pa.Array:
    if name == "halffloat":
        return pa.array([None if v is None else np.float16(v) for v in values], pa.float16())
    return pa.array(values, kinds[name])


# -- the rules, one value at a time --------------------------------------------------------------------------------


def number_in(text: str) -> float | None:
    """What a text spells, if it spells a number."""
    text = text.strip(" \t\n\r\x0b\x0c")
    if not text or "_" in text or not set(text.lower()) <= set("0123456789+-.einfaty"):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def is_missing(raw: Any, name: str, missing: tuple[float | str, ...]) -> bool:
    for value in missing:
        if isinstance(raw, str) and isinstance(value, str) and raw.strip() == value.strip():
            return True
        try:
            number = float(value)
        except ValueError:
            continue
        if isinstance(raw, Decimal):
            if math.isfinite(number) and raw == Decimal(repr(number)):
                return True
            continue
        ours = number_in(raw) if isinstance(raw, str) else raw
        if ours is None:
            continue
        if math.isnan(number) or (isinstance(ours, float) and math.isnan(ours)):
            if math.isnan(number) and isinstance(ours, float) and math.isnan(ours):
                return True
            continue
        with np.errstate(over="ignore"):
            spelled = {"halffloat": np.float16, "float": np.float32}.get(name, float)(number)
        if ours == float(spelled):
            return True
    return False


def expected(
    raw: Any, name: str, dtype: str, conversion: Conversion, missing: tuple[float | str, ...]
) -> tuple[Any, str | None]:
    """The stored value, or null and why."""
    if raw is None:
        return None, None
    if is_missing(raw, name, missing):
        return None, MISSING_VALUE
    if isinstance(raw, str):
        digits = raw.strip()
        raw = number_in(raw)
        if raw is None:
            return None, NOT_A_NUMBER
        if digits.lstrip("+-").isdigit() and len(digits) < 38:
            raw = int(digits)  # however long, it is exact where an integer is stored
    if conversion == SAME and isinstance(raw, int) and "int" in dtype:
        low, high = _bounds(WHOLE[dtype])
        return (raw, None) if low <= raw <= high else (None, NOT_A_NUMBER)
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.float64(float(raw))
        if conversion != SAME:
            value = value * conversion.scale + conversion.offset
        if dtype == "float32":
            value = np.float32(value)
    if np.isnan(value):
        return None, NOT_A_NUMBER
    if np.isinf(value):
        return None, NOT_FINITE
    if "int" not in dtype:
        return float(value) + 0.0, None
    low, high = _bounds(WHOLE[dtype])
    nearest = round(float(value))
    if abs(Fraction(float(value)) - nearest) > Fraction(1, 10**9) or not low <= nearest <= high:
        return None, NOT_A_NUMBER
    return nearest, None


columns = st.sampled_from(sorted(values_of)).flatmap(
    lambda name: st.tuples(st.just(name), st.lists(st.one_of(st.none(), values_of[name]), max_size=12))
)


@settings(max_examples=500, deadline=None)
@given(columns, st.sampled_from(DTYPES), st.sampled_from(CONVERSIONS), st.sampled_from(MISSING), st.booleans())
def test_numbers_follow_the_rules(
    column: tuple[str, list[Any]], dtype: str, conversion: Conversion, missing: tuple[float | str, ...], encoded: bool
) -> None:
    """Each value, its dtype, and the reason why it is null; dictionary-encoded or plain."""
    name, content = column
    raw = column_of(name, content)
    content = raw.to_pylist() if name == "halffloat" else content
    if encoded and name not in {"string_view", "halffloat"}:
        raw = raw.dictionary_encode()
    found = read_numbers(raw, dtype, conversion, missing)
    wanted = [expected(value, name, dtype, conversion, missing) for value in content]
    assert found.values.type == pa.type_for_alias(dtype)
    assert found.values.to_pylist() == [value for value, _ in wanted]
    assert [math.copysign(1.0, v) for v in found.values.to_pylist() if v == 0] == [1.0] * sum(v == 0 for v, _ in wanted)
    reasons = [why for _, why in wanted]
    for reason in (NOT_A_NUMBER, NOT_FINITE, MISSING_VALUE):
        mask = found.nulled.get(reason, np.zeros(len(content), bool))
        assert mask.tolist() == [why == reason for why in reasons]
    assert found.counts() == {why: reasons.count(why) for why in set(reasons) - {None}}


@settings(max_examples=200, deadline=None)
@given(columns, st.sampled_from(DTYPES), st.sampled_from(CONVERSIONS), st.sampled_from(MISSING), st.integers(0, 12))
def test_the_cut_does_not_matter(
    column: tuple[str, list[Any]], dtype: str, conversion: Conversion, missing: tuple[float | str, ...], cut: int
) -> None:
    """A column read in two parts, as slices, gives what it gives as a whole."""
    name, content = column
    raw = column_of(name, content)
    whole = read_numbers(raw, dtype, conversion, missing)
    parts = [read_numbers(part, dtype, conversion, missing) for part in (raw.slice(0, cut), raw.slice(cut))]
    assert pa.concat_arrays([part.values for part in parts]).equals(whole.values)
    together: dict[str, int] = {}
    for part in parts:
        for why, count in part.counts().items():
            together[why] = together.get(why, 0) + count
    assert together == whole.counts()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_of_nothing(dtype: str) -> None:
    """A column of Arrow's null type is null in any dtype, for no reason."""
    found = read_numbers(pa.nulls(3), dtype, CONVERSIONS[1], (-1.0,))
    assert found.values.to_pylist() == [None] * 3
    assert found.values.type == pa.type_for_alias(dtype)
    assert found.counts() == {}


def test_whole_numbers_keep_every_digit() -> None:
    """Integers beyond 2**53 are not rounded on their way to an integer dtype."""
    big = [2**53 + 1, 2**63 - 1, -(2**63), 2**62 + 1]
    assert read_numbers(pa.array(big, pa.int64()), "int64", SAME).values.to_pylist() == big
    most = [2**64 - 1, 2**63 + 1]
    assert read_numbers(pa.array(most, pa.uint64()), "uint64", SAME).values.to_pylist() == most
    assert read_numbers(pa.array(most, pa.uint64()), "int64", SAME).counts() == {NOT_A_NUMBER: 2}


def test_texts_of_long_integers_keep_every_digit() -> None:
    """Two ids that differ in the last of 16 digits are two, as numbers and as metadata, whatever else is there."""
    ids = ["9007199254740993", "9007199254740992", "x", None, "7.0", "18446744073709551615"]
    found = read_numbers(pa.array(ids), "int64", SAME, (7,))
    assert found.values.to_pylist() == [9007199254740993, 9007199254740992, None, None, None, None]
    assert found.counts() == {NOT_A_NUMBER: 2, MISSING_VALUE: 1}
    assert texts(pa.array(ids), "uint64") == ["9007199254740993", "9007199254740992", None, None, "7", ids[-1]]
    gone = read_numbers(pa.array(ids[:1]), "int64", SAME, (ids[0],))
    assert (gone.values.to_pylist(), gone.counts()) == ([None], {MISSING_VALUE: 1})
    too_long = read_numbers(pa.array(ids[-1:]), "int64", SAME, (ids[-1],))
    assert (too_long.values.to_pylist(), too_long.counts()) == ([None], {MISSING_VALUE: 1})


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if "int" in dtype])
def test_the_borders_of_integers(dtype: str) -> None:
    """The last numbers that fit are kept, the next ones are not; nothing wraps around."""
    low, high = _bounds(WHOLE[dtype])
    beyond = [float(high) + 1.0, float(low) - (1.0 if "64" not in dtype else 4096.0), 1e300, -1e300]
    found = read_numbers(pa.array([float(low), *beyond]), dtype, SAME)
    assert found.values.to_pylist() == [low, None, None, None, None]
    assert found.counts() == {NOT_A_NUMBER: 4}


def test_declared_missing_values_in_their_own_unit() -> None:
    """−999.9 is compared before the conversion, as float32 spells it where the column is float32."""
    raw = pa.array([-999.9, 0.0], pa.float32())
    found = read_numbers(raw, "float64", Conversion(1.8, 32.0), (-999.9,))
    assert found.values.to_pylist() == [None, 32.0]
    assert read_numbers(pa.array([-1767.82]), "float64", Conversion(1.8, 32.0), (-999.9,)).counts() == {}


def test_counts_of_some_rows() -> None:
    """Counts can be asked for the rows that were accepted only."""
    found = read_numbers(pa.array(["x", "1", "y", "inf"]), "float64", SAME)
    assert found.counts(np.array([True, True, False, False])) == {NOT_A_NUMBER: 1}


# -- texts ---------------------------------------------------------------------------------------------------------


def texts(column: pa.Array, dtype: str) -> list[str | None]:
    found = read_texts(column, dtype).values
    assert found.type == pa.dictionary(pa.int32(), pa.string())
    spelled: list[str | None] = found.to_pylist()
    return spelled


HOSTILE = [
    "",
    "a,b",
    'q"q',
    "two\nlines",
    "back\\slash",
    "nul\x00nul",
    "\u200frtl\u202e",
    "\ud7ff\U0001f600",
    "é",
    "e\u0301",
]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=5), st.sampled_from(HOSTILE))), st.booleans(), st.integers(0, 5))
def test_any_text_stays_as_it_is(content: list[str | None], encoded: bool, cut: int) -> None:
    """Text is kept character by character, whatever type of text column it comes in."""
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        raw = pa.array(content, kind)
        if encoded and kind != pa.string_view():
            raw = raw.dictionary_encode()
        assert texts(raw, "string") == content
        assert texts(raw.slice(cut), "string") == content[cut:]


@pytest.mark.parametrize(
    ("raw", "dtype", "spelled"),
    [
        (pa.array([1, None, -7]), "string", ["1", None, "-7"]),
        (pa.array([True, None, False]), "string", ["true", None, "false"]),
        (pa.array([True, None]), "bool", ["true", None]),
        (pa.array([1, 0, None]), "bool", ["true", "false", None]),
        (pa.array([" TRUE ", "False", None]), "bool", ["true", "false", None]),
        (pa.array(["007", "x", "8"]), "int32", ["7", None, "8"]),
        (pa.array([1.0, 2.5, math.nan]), "int16", ["1", None, None]),
        (pa.array([2**64 - 1], pa.uint64()), "uint64", ["18446744073709551615"]),
        (pa.array([Decimal("1.50")]), "string", ["1.50"]),
        (pa.array([Decimal("7.00")]), "int8", ["7"]),
        (pa.nulls(2), "string", [None, None]),
        (pa.nulls(2), "int32", [None, None]),
        (pa.array([0], pa.timestamp("s", "UTC")), "string", ["1970-01-01 00:00:00Z"]),
        (pa.array([0], pa.date32()), "string", ["1970-01-01"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), "string", ["a", "b", "a"]),
        (pa.array([5, 6, 5]).dictionary_encode(), "string", ["5", "6", "5"]),
        (pa.array([5, 300, 5]).dictionary_encode(), "uint8", ["5", None, "5"]),
    ],
)
def test_metadata_is_read_as_its_dtype_then_spelled(raw: pa.Array, dtype: str, spelled: list[str | None]) -> None:
    """A metadata column is text in the end; numbers are read as the map says before."""
    assert texts(raw, dtype) == spelled


def test_metadata_that_does_not_fit_is_counted() -> None:
    """What its dtype cannot hold is null, with the reason."""
    assert read_texts(pa.array(["1", "x", "300", None, "inf"]), "uint8").counts() == {NOT_A_NUMBER: 2, NOT_FINITE: 1}


def test_encodings_are_seen_through() -> None:
    """The type that counts is that of the values; dictionaries and views become plain columns."""
    assert value_type(pa.dictionary(pa.int8(), pa.float32())) == pa.float32()
    assert plain(pa.array(["a", None, "a"]).dictionary_encode()).equals(pa.array(["a", None, "a"]))
    assert plain(pa.array(["a"], pa.string_view())).type == pa.large_string()
    assert plain(pa.DictionaryArray.from_arrays([0, 1, None], ["x", None])).to_pylist() == ["x", None, None]
