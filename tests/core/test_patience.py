"""Waiting in place for a port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from ionbeam.actors.core import Backoff, patient, steady
from ionbeam.errors import IonbeamError, PayloadMissing, Unavailable

BACKOFF = Backoff(first=1, factor=2, most=8, jitter=0)


class Port:
    """Fails as scripted, then answers."""

    colour = "red"

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.calls: list[float] = []

    async def double(self, number: int, *, plus: int = 0) -> int:
        """Twice the number."""
        self.calls.append(trio.current_time())
        if self.faults:
            raise self.faults.pop(0)
        return 2 * number + plus

    def plain(self) -> str:
        if self.faults:
            raise self.faults.pop(0)
        return "plain"

    async def numbers(self) -> AsyncIterator[int]:
        yield 1
        yield 2

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        if self.faults:
            raise self.faults.pop(0)
        yield "open"


async def test_an_unavailable_port_is_waited_for_with_backoff(autojump_clock: MockClock) -> None:
    """The pauses grow, the observer hears of each, the answer is the port's own."""
    port = Port(Unavailable("full"), Unavailable("full"), Unavailable("still full"))
    heard: list[tuple[str, str]] = []

    def hear(method: str, error: IonbeamError) -> None:
        heard.append((method, str(error)))

    start = trio.current_time()
    assert await patient(port, BACKOFF, random=steady, on_wait=hear).double(4, plus=1) == 9
    assert [at - start for at in port.calls] == [0, 1, 3, 7]
    assert heard == [("Port.double", "full")] * 2 + [("Port.double", "still full")]


async def test_backoff_begins_anew_after_a_success(autojump_clock: MockClock) -> None:
    """A port that recovered is not punished for its past."""
    port = Port(Unavailable("a"), Unavailable("a"))
    willing = patient(port, BACKOFF, random=steady)
    await willing.double(1)
    port.faults = [Unavailable("b")]
    start = trio.current_time()
    await willing.double(1)
    assert trio.current_time() - start == 1


async def test_any_other_error_comes_out_at_once(autojump_clock: MockClock) -> None:
    """Only Unavailable is waited for."""
    port = Port(PayloadMissing("no such object"))
    with pytest.raises(PayloadMissing):
        await patient(port, BACKOFF, random=steady).double(1)
    assert len(port.calls) == 1


async def test_waiting_has_no_end_but_cancellation(autojump_clock: MockClock) -> None:
    """An hour of outage is an hour of waiting."""
    port = Port(*[Unavailable("away")] * 1000)
    with trio.move_on_after(3600) as scope:
        await patient(port, BACKOFF, random=steady).double(1)
    assert scope.cancelled_caught
    assert len(port.calls) > 400


async def test_everything_else_passes_through_unchanged() -> None:
    """Sync methods, generators, context managers and attributes are the port's own."""
    port = Port()
    willing = patient(port, BACKOFF, random=steady)
    assert willing.colour == "red"
    assert willing.plain == port.plain
    assert willing.double.__doc__ == "Twice the number."
    assert [number async for number in willing.numbers()] == [1, 2]
    async with willing.opened() as what:
        assert what == "open"
    port.faults = [Unavailable("now"), Unavailable("now")]
    with pytest.raises(Unavailable):
        willing.plain()
    with pytest.raises(Unavailable):
        async with willing.opened():
            pass
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = willing.nothing_like_it  # type: ignore[attr-defined]
