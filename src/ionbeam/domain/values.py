"""Raw columns to the numbers and texts of a dataset. Whole columns at a time, no Python per row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam.domain import texts
from ionbeam.domain.units import Conversion, apply

Mask = npt.NDArray[np.bool_]

NOT_A_NUMBER, NOT_FINITE, MISSING_VALUE = "not_a_number", "not_finite", "missing_value"
_SAME = Conversion(scale=1.0, offset=0.0)


@dataclass(frozen=True, slots=True)
class Numbers:
    """A column of finite numbers or nulls, and the values made null by reason."""

    values: pa.Array
    nulled: dict[str, Mask] = field(default_factory=dict)

    def counts(self, of_rows: Mask | None = None) -> dict[str, int]:
        """Values made null, by reason, in all rows or in `of_rows`."""
        counted = {
            reason: int(np.count_nonzero(mask if of_rows is None else mask & of_rows))
            for reason, mask in self.nulled.items()
        }
        return {reason: count for reason, count in counted.items() if count}


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, for a dictionary-encoded column as for a plain one."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def plain(column: pa.Array) -> pa.Array:
    """`column` without dictionary encoding or string views."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column


def read_numbers(
    column: pa.Array, dtype: str, conversion: Conversion, missing_values: tuple[float | str, ...] = ()
) -> Numbers:
    """`column` (numbers, or text that spells them) in `dtype` after `conversion`.

    `missing_values` are compared before the conversion, in the column's own type. What is not a finite number, does
    not fit `dtype`, or is missing becomes null.
    """
    raw = plain(column)
    nulled: dict[str, Mask] = {}
    if is_text(raw.type):
        numbers, bad = texts.parse_numbers(raw)
        spelled = _equal_texts(raw, missing_values)
        bad_mask = bad.to_numpy(zero_copy_only=False)
    elif pa.types.is_null(raw.type):
        return Numbers(pa.nulls(len(raw), pa.type_for_alias(dtype)))
    else:
        numbers, spelled, bad_mask = raw, None, None
    gone = _equal_numbers(numbers, missing_values)
    if spelled is not None:
        gone = spelled if gone is None else gone | spelled
    if gone is not None and gone.any():
        nulled[MISSING_VALUE] = gone
    else:
        gone = None
    if bad_mask is not None and bad_mask.any():
        nulled[NOT_A_NUMBER] = bad_mask if gone is None else bad_mask & ~gone
    if conversion.identity and "int" in dtype:
        if pa.types.is_integer(numbers.type):
            return _whole_numbers(numbers, dtype, gone, nulled)
        if spelled_in_digits := _long_integers(raw, numbers):
            return _long_texts(*spelled_in_digits, numbers, dtype, gone, nulled)
    return _real_numbers(numbers, dtype, conversion, gone, nulled)


def read_texts(column: pa.Array, dtype: str) -> Numbers:
    """A metadata column as dictionary-encoded text: read as `dtype`, then spelled. What does not fit is null."""
    kind = value_type(column.type)
    nulled: dict[str, Mask] = {}
    if pa.types.is_null(kind):
        column = column.cast(pa.string())
    elif dtype == "bool":
        column = plain(column)
        column = pc.utf8_lower(pc.utf8_trim_whitespace(column)) if is_text(kind) else column.cast(pa.bool_())
    elif dtype != "string" and not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        numbers = read_numbers(column, dtype, _SAME)
        column, nulled = numbers.values, numbers.nulled
    if pa.types.is_dictionary(column.type):
        indices = column.indices.cast(pa.int32())
        column = pa.DictionaryArray.from_arrays(indices, _spelled(column.dictionary)).dictionary_decode()
    else:
        column = _spelled(column)
    return Numbers(pc.dictionary_encode(column), nulled)


def _spelled(values: pa.Array) -> pa.Array:
    return plain(values).cast(pa.string())


def _equal_texts(raw: pa.Array, missing_values: tuple[float | str, ...]) -> Mask | None:
    spellings = [value.strip() for value in missing_values if isinstance(value, str)]
    if not spellings:
        return None
    found = pc.is_in(pc.utf8_trim_whitespace(raw), value_set=pa.array(spellings, raw.type))
    mask: Mask = found.to_numpy(zero_copy_only=False)
    return mask


def _equal_numbers(numbers: pa.Array, missing_values: tuple[float | str, ...]) -> Mask | None:
    result: Mask | None = None
    for value in missing_values:
        number = _number(value)
        if number is None:
            continue
        mask = _equal_number(numbers, number)
        if mask is not None:
            result = mask if result is None else result | mask
    return result


def _number(value: float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _equal_number(numbers: pa.Array, value: float) -> Mask | None:
    """Where `numbers` equal `value` as their own type spells it; None where it cannot spell it."""
    kind = numbers.type
    if math.isnan(value):
        if not pa.types.is_floating(kind):
            return None
        found = pc.is_nan(numbers)
    else:
        try:
            if pa.types.is_decimal(kind):
                scalar = pa.scalar(Decimal(repr(value)), type=kind)
            elif pa.types.is_integer(kind):
                if not value.is_integer():
                    return None
                scalar = pa.scalar(int(value), type=kind)
            else:
                with np.errstate(over="ignore"):  # a type too small for the value holds it as infinity
                    scalar = pa.scalar(kind.to_pandas_dtype()(value), type=kind)
        except (pa.ArrowInvalid, OverflowError, ValueError):
            return None
        if pa.types.is_float16(kind):
            numbers, scalar = numbers.cast(pa.float32()), scalar.cast(pa.float32())
        found = pc.equal(numbers, scalar)
    mask: Mask = found.fill_null(False).to_numpy(zero_copy_only=False)
    return mask


def _whole_numbers(numbers: pa.Array, dtype: str, gone: Mask | None, nulled: dict[str, Mask]) -> Numbers:
    """Integers to integers, exact beyond 2**53."""
    target = pa.type_for_alias(dtype)
    bounds = np.iinfo(dtype)
    if numbers.type != target:
        low = pc.less(numbers.cast(pa.decimal128(20)), pa.scalar(int(bounds.min), pa.decimal128(20)))
        high = pc.greater(numbers.cast(pa.decimal128(20)), pa.scalar(int(bounds.max), pa.decimal128(20)))
        outside = pc.or_(low, high).fill_null(False)
        mask: Mask = outside.to_numpy(zero_copy_only=False)
        if mask.any():
            _add(nulled, NOT_A_NUMBER, mask if gone is None else mask & ~gone)
            numbers = pc.if_else(outside, pa.scalar(None, numbers.type), numbers)
        numbers = numbers.cast(target)
    if gone is not None:
        numbers = pc.if_else(pa.array(gone), pa.scalar(None, target), numbers)
    return Numbers(numbers, nulled)


def _long_integers(raw: pa.Array, numbers: pa.Array) -> tuple[pa.Array, pa.Array] | None:
    """The integers in a text column that a float would round, and where they are; None where there is none."""
    if not is_text(raw.type) or (pc.max(pc.abs(numbers)).as_py() or 0.0) < 2.0**53:
        return None
    trimmed = pc.ascii_trim_whitespace(raw)
    long = pc.match_substring_regex(trimmed, r"^[+-]?[0-9]{16,37}$").fill_null(False)
    return pc.if_else(long, trimmed, pa.scalar(None, raw.type)).cast(pa.decimal128(38)), long


def _long_texts(
    integers: pa.Array, long: pa.Array, numbers: pa.Array, dtype: str, gone: Mask | None, nulled: dict[str, Mask]
) -> Numbers:
    """Texts as integers, the long ones digit by digit."""
    short = _real_numbers(pc.if_else(long, pa.scalar(None, numbers.type), numbers), dtype, _SAME, gone, nulled)
    bounds, kind = np.iinfo(dtype), integers.type
    fits = pc.and_(
        pc.greater_equal(integers, pa.scalar(int(bounds.min), kind)),
        pc.less_equal(integers, pa.scalar(int(bounds.max), kind)),
    )
    unfit: Mask = pc.invert(fits).fill_null(False).to_numpy(zero_copy_only=False)
    _add(nulled, NOT_A_NUMBER, unfit if gone is None else unfit & ~gone)
    keeps = fits if gone is None else pc.and_(fits, pa.array(~gone))
    exact = pc.if_else(keeps, integers, pa.scalar(None, kind)).cast(short.values.type)
    return Numbers(pc.coalesce(exact, short.values), nulled)


def _real_numbers(
    numbers: pa.Array, dtype: str, conversion: Conversion, gone: Mask | None, nulled: dict[str, Mask]
) -> Numbers:
    absent: Mask | None = None
    if numbers.null_count:
        absent = numbers.is_null().to_numpy(zero_copy_only=False)
    if gone is not None:
        absent = gone if absent is None else absent | gone
    if numbers.null_count:
        numbers = numbers.fill_null(0)
    if pa.types.is_decimal(numbers.type):
        numbers = numbers.cast(pa.string())  # Arrow casts decimals to floats without rounding them correctly
    values = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    if absent is not None:
        values = np.where(absent, 0.0, values)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite, and counted as that below
        values = apply(conversion, values)
        if dtype == "float32":
            values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        _add(nulled, NOT_A_NUMBER, np.isnan(values))
        _add(nulled, NOT_FINITE, np.isinf(values))
        absent = ~finite if absent is None else absent | ~finite
        values = np.where(finite, values, values.dtype.type(0))
    if "int" in dtype:
        values, unfit = _rounded(values, dtype)
        if unfit.any():
            unfit = unfit if absent is None else unfit & ~absent
            _add(nulled, NOT_A_NUMBER, unfit)
            absent = unfit if absent is None else absent | unfit
    else:
        values = values + values.dtype.type(0)  # -0.0 becomes 0.0
    return Numbers(pa.array(values, mask=absent), nulled)


def _rounded(values: npt.NDArray[np.float64], dtype: str) -> tuple[npt.NDArray[np.integer], Mask]:
    """Numbers that are whole (to 1e-9, a conversion's rounding) and within `dtype`; the others are unfit."""
    bounds = np.iinfo(dtype)
    whole = np.rint(values)
    unfit = (np.abs(values - whole) > 1e-9) | (whole < float(bounds.min)) | (whole >= float(bounds.max) + 1.0)
    return np.where(unfit, 0.0, whole).astype(dtype), unfit


def _add(nulled: dict[str, Mask], reason: str, mask: Mask) -> None:
    if mask.any():
        nulled[reason] = nulled[reason] | mask if reason in nulled else mask
