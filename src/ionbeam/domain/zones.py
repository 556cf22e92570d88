"""Local times of an IANA time zone to UTC, for whole columns.

By Python's zoneinfo, not by Arrow's kernels: those know no daylight saving after 2037 and need the system's
own time-zone files.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import numpy.typing as npt

from ionbeam.errors import Refused

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
_BLOCK = 1 << 25
# Offsets are probed this often; no zone has changed its offset twice within three of these steps.
_STEP = _DAY
# Local times farther out than this are beyond timestamp[ns] in every zone, and are left as they are.
_FARTHEST = (2**63) // 10**9 + 2 * _DAY


def check(name: str) -> None:
    """Raises Refused, with near names, when `name` is not an IANA time zone."""
    if name != "UTC":
        _zone(name)


def to_utc(seconds: Integers, local: Mask, name: str) -> Mask:
    """Turn local seconds since 1970-01-01T00:00 into UTC, in place, where `local`.

    Returns where the clocks skipped the local time; those rows mean nothing. Of an ambiguous local time the
    earlier instant is meant.
    """
    skipped = np.zeros(len(seconds), dtype=bool)
    if name == "UTC":
        return skipped
    rows = np.flatnonzero(local & (seconds >= -_FARTHEST) & (seconds <= _FARTHEST))
    times = seconds[rows]
    blocks = times // _BLOCK
    for block in np.unique(blocks):
        inside = blocks == block
        ends, starts, offsets = _local_segments(name, int(block))
        # The first segment that ends after the time: of two that hold it, the earlier.
        segment = np.searchsorted(ends, times[inside], side="right")
        skipped[rows[inside]] = times[inside] < starts[segment]
        seconds[rows[inside]] -= offsets[segment]
    return skipped


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        # Settings of the machine, and copies of the database (`right/` counts leap seconds).
        if name in ("localtime", "posixrules") or name.startswith(("right/", "posix/")):
            raise ValueError(name)
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        pass
    names = {known.lower(): known for known in sorted(available_timezones() - {"localtime"})}
    if not names:
        raise Refused(f"no time zone {name[:64]!r}: this machine has no time-zone database; install `tzdata`")
    cities = {known.rpartition("/")[2]: known for known in names}
    key = name[:64].lower()
    near = [names[match] for match in difflib.get_close_matches(key, names)]
    near += [names[cities[match]] for match in difflib.get_close_matches(key, cities)]
    likely = " or ".join(map(repr, dict.fromkeys(near[:3])))
    hint = f"did you mean {likely}?" if near else "write one such as 'UTC'"
    raise Refused(f"`datetime.timezone` {name[:64]!r} is not an IANA time zone; {hint}")


@lru_cache(maxsize=2048)
def _local_segments(name: str, block: int) -> tuple[Integers, Integers, Integers]:
    """Spans of one offset over the local times of a block: their local ends, local starts, and offsets."""
    zone = _zone(name)

    def offset(second: int) -> int:
        there = (_EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset()
        return 0 if there is None else round(there.total_seconds())

    # Offsets stay below a day, so these UTC bounds hold every local time of the block.
    first, last = block * _BLOCK - _DAY, (block + 1) * _BLOCK + _DAY
    changes, offsets = [first], [offset(first)]
    for probe in range(first + _STEP, last + _STEP, _STEP):
        if offset(probe) != offsets[-1]:
            low, high = probe - _STEP, probe
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
            changes.append(high)
            offsets.append(offset(probe))
    utc, shift = np.array(changes, dtype=np.int64), np.array(offsets, dtype=np.int64)
    ends = np.append(utc[1:], np.iinfo(np.int64).max // 2) + shift
    return np.maximum.accumulate(ends), utc + shift, shift
