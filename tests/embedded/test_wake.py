"""No ring is lost between looking and waiting, in a process or between processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from ionbeam.backends.embedded.wake import EVERY, Bells


async def test_a_ring_between_looking_and_waiting_is_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    """Who took the count before the ring does not wait."""
    bells = Bells()
    seen = bells.bell("topic")
    bells.ring(["topic"])
    with trio.fail_after(1):
        assert await bells.wait("topic", seen) == seen + 1


async def test_a_ring_wakes_all_who_wait_for_its_topic(autojump_clock: trio.testing.MockClock) -> None:
    """Those who wait for the topic wake, those who wait for another do not; EVERY wakes all."""
    bells, woken = Bells(), list[str]()

    async def wait(topic: str) -> None:
        await bells.wait(topic, bells.bell(topic))
        woken.append(topic)

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for topic in ("a", "a", "b", "c"):
                nursery.start_soon(wait, topic)
            await trio.testing.wait_all_tasks_blocked()
            bells.ring(["a", "nobody"])
            await trio.testing.wait_all_tasks_blocked()
            assert woken == ["a", "a"]
            bells.ring([EVERY])
    assert sorted(woken) == ["a", "a", "b", "c"]


async def test_the_backstop(autojump_clock: trio.testing.MockClock) -> None:
    """A waiter that nobody rings comes back after the backstop, with the count unchanged."""
    bells = Bells(backstop=5)
    seen = bells.bell("topic")
    assert await bells.wait("topic", seen) == seen
    assert trio.current_time() == pytest.approx(5)
    assert bells.statistics().backstops == 1


async def heard(one: Bells, other: Bells, folder: Path, topics: list[str], wait_for: str) -> None:
    """`one` rings `topics`; returns when a waiter of `other` for `wait_for` was woken."""
    with one.listening(folder), other.listening(folder) as descriptor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.hear, descriptor)
            seen = other.bell(wait_for)
            one.ring(topics)
            with trio.fail_after(20):
                assert await other.wait(wait_for, seen) > seen
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("topics", "wait_for"),
    [
        (["queue:a"], "queue:a"),
        (["queue:a\nb\u00e4\x00"], "queue:a\nb\u00e4\x00"),
        ([EVERY], "queue:a"),
        ([f"queue:{number}" for number in range(1000)], "queue:77"),
    ],
)
async def test_rings_reach_other_processes(tmp_path: Path, topics: list[str], wait_for: str) -> None:
    """A topic of any spelling arrives, and many topics at once arrive as a ring for all."""
    one, other = Bells(), Bells()
    await heard(one, other, tmp_path / "wake", topics, wait_for)
    assert other.statistics().heard >= 1
    assert other.statistics().backstops == 0
    assert one.statistics().heard == 0, "nobody hears himself"
    assert os.listdir(tmp_path / "wake") == [], "on leaving, FIFOs go"


async def test_the_fifo_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    """A FIFO that nobody reads goes away with the next ring, and other files are left alone."""
    os.mkfifo(tmp_path / "dead.fifo")
    (tmp_path / "notes.txt").touch()
    bells = Bells()
    with bells.listening(tmp_path):
        bells.ring(["topic"])
        names = set(os.listdir(tmp_path))
    assert "dead.fifo" not in names and "notes.txt" in names


async def test_a_full_pipe_loses_no_topic(tmp_path: Path) -> None:
    """A process that stood still while its pipe filled up is woken for the topic that found no room, too."""
    one, other = Bells(), Bells()
    with one.listening(tmp_path), other.listening(tmp_path) as descriptor:
        late = "a topic that finds no room where the others still found some"
        seen = other.bell(late)
        for _ in range(9000):
            one.ring(["early"])
        one.ring([late])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.hear, descriptor)
            with trio.fail_after(20):
                assert await other.wait(late, seen) > seen
            nursery.cancel_scope.cancel()
