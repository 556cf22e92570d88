"""Windows of a dataset: `[k·span, (k+1)·span)` from the Unix epoch. Moments are microseconds since the epoch, UTC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ionbeam.schemas.duration import Duration
from ionbeam.schemas.metadata import TIMESTAMP

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """`moment` in microseconds since the Unix epoch."""
    return (moment - EPOCH) // _MICROSECOND


def moment(micros: int) -> datetime:
    """The time of `micros` since the Unix epoch, UTC. Clipped to the years that datetime has."""
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return datetime.min.replace(tzinfo=timezone.utc) if micros < 0 else datetime.max.replace(tzinfo=timezone.utc)


def floor_micros(nanoseconds: int) -> datetime:
    """The last microsecond not after `nanoseconds` since the epoch."""
    return moment(nanoseconds // 1000)


def ceil_micros(nanoseconds: int) -> datetime:
    """The first microsecond not before `nanoseconds` since the epoch."""
    return moment(-(-nanoseconds // 1000))


def window_start(at: int, span: Duration) -> int:
    """The start of the window that the microsecond `at` lies in."""
    return at - at % span.microseconds


def by_window(table: pa.Table, span: Duration) -> Iterator[tuple[int, pa.Table]]:
    """The rows of `table`, which is in order of time, window by window: each window's start and its rows."""
    windows = np.floor_divide(table.column(TIMESTAMP).to_numpy(), span.nanoseconds)
    borders = [0, *(np.flatnonzero(windows[1:] != windows[:-1]) + 1).tolist(), len(table)]
    for start, end in pairwise(borders):
        yield int(windows[start]) * span.microseconds, table.slice(start, end - start)


def due_at(start: int, span: Duration, subject_to_change: Duration) -> int:
    """The moment from which a covered window may be built."""
    return start + span.microseconds + subject_to_change.microseconds
