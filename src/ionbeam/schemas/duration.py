"""ISO 8601 durations of fixed length, with one canonical spelling."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import total_ordering
from typing import Any

from msgspec import field

_MICROSECONDS = {"W": 604_800_000_000, "D": 86_400_000_000, "H": 3_600_000_000, "M": 60_000_000, "S": 1_000_000}
_LONGEST = 100_000 * _MICROSECONDS["D"]
_PATTERN = re.compile(
    r"P(?=.)(?:(?P<W>\d{1,9})W)?(?:(?P<D>\d{1,9})D)?"
    r"(?:T(?=.)(?:(?P<H>\d{1,9})H)?(?:(?P<M>\d{1,9})M)?(?:(?P<S>\d{1,9}(?:\.\d{1,6})?)S)?)?"
)


@total_ordering
class Duration:
    """A non-negative span of time, exact to the microsecond.

    Weeks, days, hours, minutes and seconds are of fixed length (a day is 24 hours); months and years are
    refused because theirs is not. `str()` gives the canonical spelling: `PT24H` and `P1D` are both `P1D`.
    """

    __slots__ = ("microseconds",)
    microseconds: int

    def __init__(self, text: str | timedelta | Duration) -> None:
        if isinstance(text, Duration):
            value = text.microseconds
        elif isinstance(text, timedelta):
            value = text // timedelta(microseconds=1)
        else:
            value = _parse(text)
        if not 0 <= value <= _LONGEST:
            raise ValueError(f"a duration lies between PT0S and P100000D, got {str(text)[:40]!r}")
        object.__setattr__(self, "microseconds", value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Duration does not change")

    def __reduce__(self) -> tuple[type[Duration], tuple[str]]:
        return Duration, (str(self),)

    @property
    def nanoseconds(self) -> int:
        return self.microseconds * 1000

    @property
    def timedelta(self) -> timedelta:
        return timedelta(microseconds=self.microseconds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.microseconds == other.microseconds

    def __lt__(self, other: Duration) -> bool:
        return self.microseconds < other.microseconds

    def __bool__(self) -> bool:
        return self.microseconds > 0

    def __hash__(self) -> int:
        return hash(self.microseconds)

    def __repr__(self) -> str:
        return f"Duration({str(self)!r})"

    def __str__(self) -> str:
        rest = self.microseconds
        date = time = ""
        for unit in "DHMS":
            count, left = divmod(rest, _MICROSECONDS[unit])
            if unit == "S" and left:
                time += f"{count}.{left:06d}".rstrip("0") + "S"
            elif count and unit == "D":
                date = f"{count}D"
            elif count:
                time += f"{count}{unit}"
            rest = left
        return "P" + date + ("T" + time if time else "") if date or time else "PT0S"


def lasting(text: str) -> Any:
    """A struct field's default duration, made per struct: a plain default has no place in a JSON Schema."""
    return field(default_factory=lambda: Duration(text))


def _parse(text: str) -> int:
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(
            f"not an ISO 8601 duration of fixed length: {text[:40]!r}; write weeks to seconds, such as PT1H or P1D"
        )
    total = 0
    for unit, count in match.groupdict().items():
        if count is not None:
            whole, _, fraction = count.partition(".")
            total += int(whole) * _MICROSECONDS[unit] + (int(fraction.ljust(6, "0")) if fraction else 0)
    return total
