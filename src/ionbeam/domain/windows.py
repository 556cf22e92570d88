"""Windows of a dataset: `[k·span, (k+1)·span)` from the Unix epoch. Moments are microseconds since the epoch, UTC."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt

from ionbeam.schemas.duration import Duration

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


def window_indexes(nanoseconds: npt.NDArray[np.int64], span: Duration) -> npt.NDArray[np.int64]:
    """For each time its window's number k, so that the window starts at `k * span`."""
    result: npt.NDArray[np.int64] = np.floor_divide(nanoseconds, span.nanoseconds)
    return result


def due_at(start: int, span: Duration, subject_to_change: Duration) -> int:
    """The moment from which a covered window may be built."""
    return start + span.microseconds + subject_to_change.microseconds
