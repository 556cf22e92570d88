"""Where blocking work runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Workers(Protocol):
    """Runs blocking functions outside the event loop. What has begun is waited for, also after a cancellation."""

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """`function(*args)`; whatever it raises is raised here."""
        ...
