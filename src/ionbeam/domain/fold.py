"""Rows of one identity into one row.

`row`: the row of highest precedence, whole, nulls too. `value`: for each variable the non-null value of highest
precedence; everything else from the row of highest precedence. Tables come in ascending precedence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ionbeam.domain.order import Order, order
from ionbeam.schemas.metadata import ROW, TIMESTAMP

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Folded:
    """The rows that stand, in the total order, and what became of those that do not."""

    rows: pa.Table
    duplicate: int = 0
    merged: int = 0
    conflict: int = 0


def fold(table: pa.Table, identity: Sequence[str], variables: Sequence[str], kind: str) -> Folded:
    """Fold `table`. `variables` are the columns that hold observed values."""
    found = order(table, identity)
    if found.distinct:
        return Folded(table if found.places is None else table.take(pa.array(found.places)))
    places = np.arange(len(table)) if found.places is None else found.places
    starts = np.flatnonzero(found.starts)
    ends = np.append(starts[1:], len(table)) - 1
    rows = table.take(pa.array(places[ends]))
    if kind == "value":
        rows = _merge(rows, table, places, starts, variables)
    return _account(rows, table, found, places, ends, identity, variables, kind)


def _merge(rows: pa.Table, table: pa.Table, places: Places, starts: Places, variables: Sequence[str]) -> pa.Table:
    """`rows` with, for each variable, the last value of its group that is not null."""
    for name in variables:
        column = table.column(name)
        valid = column.is_valid().to_numpy()[places]
        latest = np.maximum.reduceat(np.where(valid, np.arange(len(places)), -1), starts)
        empty = latest < 0
        chosen = pa.array(places[np.where(empty, 0, latest)], mask=empty)
        rows = rows.set_column(rows.schema.get_field_index(name), table.schema.field(name), column.take(chosen))
    return rows


def _account(
    rows: pa.Table,
    table: pa.Table,
    found: Order,
    places: Places,
    ends: Places,
    identity: Sequence[str],
    variables: Sequence[str],
    kind: str,
) -> Folded:
    """Count the rows that lost: against the winner as it was sent, then against the result."""
    group = np.cumsum(found.starts) - 1
    lost = np.ones(len(places), bool)
    lost[ends] = False
    group = group[lost]
    losers = table.take(pa.array(places[lost]))
    winners = table.take(pa.array(places[ends[group]]))
    compared = [name for name in table.column_names if name not in {TIMESTAMP, ROW, *identity}]
    duplicate = np.ones(len(losers), bool)
    for name in compared:
        duplicate &= _same(losers.column(name), winners.column(name))
    merged = np.zeros(len(losers), bool)
    if kind == "value":
        results = rows.take(pa.array(group))
        merged = ~duplicate
        for name in variables:
            column = losers.column(name)
            stands = _same(column, results.column(name)) | column.is_null().to_numpy()
            merged &= stands
    duplicates, merges = int(np.count_nonzero(duplicate)), int(np.count_nonzero(merged))
    return Folded(rows, duplicates, merges, len(losers) - duplicates - merges)


def _same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Mask:
    """Where both are equal or both null."""
    if pa.types.is_dictionary(left.type):
        left, right = left.cast(left.type.value_type), right.cast(right.type.value_type)
    equal = pc.equal(left, right).fill_null(False)
    both_null = pc.and_(left.is_null(), right.is_null())
    same: Mask = pc.or_(equal, both_null).to_numpy()
    return same
