"""Raw rows to stored rows: what is accepted, what is rejected and why, what becomes null and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam.domain import texts
from ionbeam.domain.mapping import REASON, Plan
from ionbeam.domain.texts import ParsedTimes
from ionbeam.domain.values import Mask, Numbers, plain, read_numbers, read_texts
from ionbeam.schemas.metadata import LATITUDE, LONGITUDE, ROW, TIMESTAMP

TIME_MISSING = "time_missing"
TIME_UNREADABLE = "time_unreadable"
TIME_OUT_OF_RANGE = "time_out_of_range"
TIME_IN_FUTURE = "time_in_future"
POSITION_MISSING = "position_missing"
POSITION_NOT_FINITE = "position_not_finite"
POSITION_OFF_GLOBE = "position_off_globe"
NO_VALUE = "no_value"
WINDOW_CLOSED = "window_closed"
SOURCE = "source:"
LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """The latest time that is believed, and the end of what retention has closed; nanoseconds since the epoch."""

    latest: int
    closed_before: int | None = None


@dataclass(frozen=True, slots=True)
class Canonical:
    """One batch of raw rows, judged.

    `rows` are the accepted ones under their stored names (metadata columns dictionary-encoded), `rejected` the raw
    rows that are not, with `__row` and `__reason`; None when there are none.
    """

    rows: pa.Table
    rejected: pa.RecordBatch | None
    reasons: dict[str, int]
    values: dict[str, int]


def canonicalise(batch: pa.RecordBatch, plan: Plan, first_row: int, limits: Limits) -> Canonical:
    """Judge a batch whose first row is number `first_row` of the payload."""
    columns = plan.columns
    times = texts.parse_times(plain(batch.column(columns.datetime.raw_name)), columns.datetime.timezone)
    latitude = _position(batch, columns.lat.raw_name, columns.lat.dtype, plan, LATITUDE)
    longitude = _position(batch, columns.lon.raw_name, columns.lon.dtype, plan, LONGITUDE)
    longitude.values[longitude.values > 180.0] -= 360.0
    variables = {
        v.canonical_name: read_numbers(
            batch.column(v.column), v.dtype, plan.conversions[v.canonical_name], v.missing_values
        )
        for v in plan.variables
    }
    metadata = {m.column: read_texts(batch.column(m.column), m.dtype) for m in plan.metadata}
    rejects = _judge(batch, plan, times, latitude, longitude, variables, limits)
    bad = np.zeros(len(batch), bool)
    for _, mask in rejects:
        bad |= mask
    accepted = {
        TIMESTAMP: pa.array(times.nanoseconds),
        LATITUDE: pa.array(latitude.values + 0.0),
        LONGITUDE: pa.array(longitude.values + 0.0),
        **{name: numbers.values for name, numbers in variables.items()},
        **{name: column.values for name, column in metadata.items()},
        ROW: pa.array(np.arange(first_row, first_row + len(batch), dtype=np.int64)),
    }
    rows = pa.table(accepted)
    if bad.any():
        rows = rows.filter(pa.array(~bad)).combine_chunks()
    rejected = _quarantined(batch, plan, rejects, bad, first_row) if bad.any() else None
    return Canonical(
        rows=rows,
        rejected=rejected,
        reasons=_by_reason(rejected),
        values=_nulled(plan, variables, metadata, None if rejected is None else ~bad),
    )


@dataclass(frozen=True, slots=True)
class _Position:
    values: npt.NDArray[np.float64]
    missing: Mask
    not_finite: Mask
    off_globe: Mask


def _position(batch: pa.RecordBatch, raw: str, dtype: str, plan: Plan, name: str) -> _Position:
    numbers = read_numbers(batch.column(raw), dtype, plan.conversions[name])
    null = numbers.values.is_null().to_numpy(zero_copy_only=False)
    not_finite = np.zeros(len(batch), bool)
    for mask in numbers.nulled.values():
        not_finite |= mask
    values = numbers.values.cast(pa.float64(), safe=False).fill_null(0.0).to_numpy(zero_copy_only=False).copy()
    low, high = (-90.0, 90.0) if name == LATITUDE else (-180.0, 360.0)
    return _Position(values, null & ~not_finite, not_finite, (values < low) | (values > high))


def _judge(
    batch: pa.RecordBatch,
    plan: Plan,
    times: ParsedTimes,
    latitude: _Position,
    longitude: _Position,
    variables: dict[str, Numbers],
    limits: Limits,
) -> list[tuple[str, Mask]]:
    """The rejected rows by reason: each row under the first reason that applies to it."""
    checks: Iterator[tuple[str, Mask]] = iter(
        [
            (SOURCE, _rejected_by_source(batch, plan)),
            (TIME_MISSING, times.missing),
            (TIME_UNREADABLE, times.unreadable),
            (TIME_OUT_OF_RANGE, times.out_of_range),
            (TIME_IN_FUTURE, times.nanoseconds > limits.latest),
            (POSITION_MISSING, latitude.missing | longitude.missing),
            (POSITION_NOT_FINITE, latitude.not_finite | longitude.not_finite),
            (POSITION_OFF_GLOBE, latitude.off_globe | longitude.off_globe),
            (NO_VALUE, _no_value(variables, len(batch))),
            *([(WINDOW_CLOSED, times.nanoseconds < limits.closed_before)] if limits.closed_before is not None else []),
        ]
    )
    judged: list[tuple[str, Mask]] = []
    settled: Mask | None = None
    for reason, mask in checks:
        if not mask.any():
            continue
        if settled is None:
            settled = mask.copy()
        else:
            mask = mask & ~settled
            if not mask.any():
                continue
            settled |= mask
        judged.append((reason, mask))
    return judged


def _rejected_by_source(batch: pa.RecordBatch, plan: Plan) -> Mask:
    name = plan.columns.reject_column
    if name is None:
        return np.zeros(len(batch), bool)
    mask: Mask = plain(batch.column(name)).is_valid().to_numpy(zero_copy_only=False)
    return mask


def _no_value(variables: dict[str, Numbers], length: int) -> Mask:
    empty = np.ones(length, bool)
    for numbers in variables.values():
        if numbers.values.null_count == 0:
            return np.zeros(length, bool)
        empty &= numbers.values.is_null().to_numpy(zero_copy_only=False)
    return empty


def _nulled(
    plan: Plan, variables: dict[str, Numbers], metadata: dict[str, Numbers], of_rows: Mask | None
) -> dict[str, int]:
    counts: dict[str, int] = {}
    columns = [(v.column, variables[v.canonical_name]) for v in plan.variables]
    for column, numbers in [*columns, *metadata.items()]:
        for reason, count in numbers.counts(of_rows).items():
            counts[f"{column}: {reason}"] = counts.get(f"{column}: {reason}", 0) + count
    return counts


def _quarantined(
    batch: pa.RecordBatch, plan: Plan, rejects: list[tuple[str, Mask]], bad: Mask, first_row: int
) -> pa.RecordBatch:
    places = np.flatnonzero(bad)
    reasons = np.zeros(len(batch), np.int32)
    for index, (_, mask) in enumerate(rejects):
        reasons[mask] = index
    columns = [plain(_taken(column, places)) for column in batch.columns]
    spelled = pa.array([reason for reason, _ in rejects], pa.string()).take(pa.array(reasons[places]))
    if plan.columns.reject_column is not None:
        theirs = columns[batch.schema.get_field_index(plan.columns.reject_column)].cast(pa.string())
        spelled = pc.coalesce(pc.binary_join_element_wise(SOURCE, theirs, ""), spelled)
    return pa.RecordBatch.from_arrays(
        [pa.array(places + first_row), spelled, *columns],
        names=[ROW, REASON, *batch.schema.names],
    )


def _taken(column: pa.Array, places: npt.NDArray[np.int64]) -> pa.Array:
    """The values at `places`, also of a type that Arrow has no kernel to take from (views, run-end encoding)."""
    try:
        return column.take(pa.array(places))
    except pa.ArrowNotImplementedError:
        runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
        return pa.concat_arrays([column.slice(int(run[0]), len(run)) for run in runs])


def _by_reason(rejected: pa.RecordBatch | None) -> dict[str, int]:
    if rejected is None:
        return {}
    reasons = pc.utf8_slice_codeunits(rejected.column(REASON), 0, LONGEST_REASON)
    return {item["values"]: item["counts"] for item in reasons.value_counts().to_pylist()}
