"""How long to wait before the next try."""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct


def steady() -> float:
    """A source of randomness without any: every delay is the longest that its attempt may have."""
    return 0.0


class Backoff(Struct, frozen=True, kw_only=True):
    """Delays that grow by `factor` from `first` to `most`, in seconds.

    `jitter` is the share, in [0, 1), by which chance may shorten a delay, so that many who failed together do
    not come back together; no delay is ever longer than `most`. Raises ValueError for a back-off that would
    not wait.
    """

    first: float = 1.0
    factor: float = 2.0
    most: float = 60.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.first < math.inf:
            raise ValueError(f"`first` must be a finite number of seconds above 0, got {self.first}")
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"`factor` must be finite and at least 1, got {self.factor}")
        if not self.first <= self.most < math.inf:
            raise ValueError(f"`most` must be finite and at least `first` ({self.first}), got {self.most}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"`jitter` must be in [0, 1), got {self.jitter}")

    def delay(self, attempt: int, random: Callable[[], float]) -> float:
        """Seconds to wait after the failed `attempt`, counted from 1. `random` gives numbers in [0, 1)."""
        if attempt < 1:
            raise ValueError(f"attempts are counted from 1, got {attempt}")
        return self._longest(attempt) * (1.0 - self.jitter * random())

    def _longest(self, attempt: int) -> float:
        try:
            return min(self.most, self.first * self.factor ** (attempt - 1))
        except OverflowError:  # a wait without end reaches powers that no float holds
            return self.most
