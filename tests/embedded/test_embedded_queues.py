"""The embedded broker between processes, across deaths, and in time."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.backends.embedded import queues
from ionbeam.backends.embedded.broker import PART, EmbeddedBroker
from ionbeam.backends.embedded.connection import open_memory
from ionbeam.backends.embedded.database import Database, open_database
from ionbeam.errors import IonbeamError
from ionbeam.ports.broker import Incoming, QueueDepth

Q = "ionbeam.test.queue"
START = datetime(2026, 1, 1, tzinfo=UTC)


def virtual() -> datetime:
    return START + timedelta(seconds=trio.current_time())


@asynccontextmanager
async def twin(
    connection: sqlite3.Connection | None = None, *dead: str
) -> AsyncIterator[tuple[Database, EmbeddedBroker]]:
    async with open_database(None, clock=virtual, parts=[PART], connection=connection, dead=dead) as database:
        yield database, EmbeddedBroker(database, virtual)


async def received(broker: EmbeddedBroker) -> Incoming:
    with trio.fail_after(20):
        async with broker.consume(Q, 1) as consumer:
            return await consumer.receive()


async def crash_with_it_in_hand(connection: sqlite3.Connection, dead: str | None) -> tuple[str, Incoming]:
    """One more process that dies while it holds the message; its session."""
    async with twin(connection, *([dead] if dead else [])) as (database, broker):
        incoming = await received(broker)
        database.sever()
        return database.session, incoming


async def test_only_the_first_death_spends_an_attempt(autojump_clock: trio.testing.MockClock) -> None:
    """A death in isolation gives the attempt back, twenty times; then the message is beyond any limit."""
    connection, dead = open_memory(), None
    async with twin(connection) as (_, broker):
        await broker.publish_to(Q, "m1", b"innocent")
    attempts = []
    for _ in range(22):
        dead, incoming = await crash_with_it_in_hand(connection, dead)
        attempts.append((incoming.attempt, incoming.suspect))
    assert attempts == [(1, False)] + [(2, True)] * 21
    assert dead is not None
    async with twin(connection, dead) as (_, broker):
        incoming = await received(broker)
        assert incoming.attempt == queues.BEYOND_ANY_LIMIT
        assert "died 21 times" in incoming.history[-1].error
        await broker.bury(incoming, "it kills")
        (letter,) = await broker.dead_letters()
        assert letter.attempts == 23, "all that were made, one of them here"
        assert len(letter.history) == 2
    connection.close()


async def test_a_suspect_message_that_fails_spends_its_attempts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Isolation excuses deaths only: an orderly failure counts, and the message stays suspect."""
    connection = open_memory()
    async with twin(connection) as (_, broker):
        await broker.publish_to(Q, "m1", b"")
    dead, _ = await crash_with_it_in_hand(connection, None)
    async with twin(connection, dead) as (_, broker):
        for attempt in (2, 3, 4):
            incoming = await received(broker)
            assert (incoming.attempt, incoming.suspect) == (attempt, True)
            await broker.retry(incoming, "error", 1)
        last = await received(broker)
        assert await broker.give_back(last)
        assert (await received(broker)).attempt == last.attempt
    connection.close()


async def test_a_zombie_settles_nothing(tmp_path: Path) -> None:
    """A process that was stopped past its expiry finds its lease lost, whoever holds the message now."""
    now = [START]
    for settle in ("ack", "give_back", "retry", "bury"):
        async with (
            open_database(tmp_path / settle, clock=lambda: now[0], parts=[PART], reclaim_every=1000) as stopped,
            open_database(tmp_path / settle, clock=lambda: now[0], parts=[PART], reclaim_every=1000) as other,
        ):
            zombie, broker = (EmbeddedBroker(database, lambda: now[0]) for database in (stopped, other))
            await zombie.publish_to(Q, "m1", b"")
            held = await received(zombie)
            now[0] += timedelta(seconds=61)
            await other.sessions.renew()
            assert await other.sessions.reclaim() == 1
            values = {"retry": ("error", 0.0), "bury": ("reason",)}.get(settle, ())
            assert await getattr(zombie, settle)(held, *values) is False
            assert (await broker.depths())[0] == QueueDepth(queue=Q, ready=1, delayed=0, taken=0, dead=0)
            again = await received(broker)
            assert (again.attempt, again.suspect) == (2, True)
            assert await getattr(zombie, settle)(held, *values) is False
            assert await broker.ack(again) is True


async def test_a_declared_dead_process_that_goes_on_is_a_session_again(tmp_path: Path) -> None:
    """What a returned zombie takes from then on is held by a living session, so its death frees it too."""
    now = [START]
    async with (
        open_database(tmp_path / "db", clock=lambda: now[0], parts=[PART], reclaim_every=1000) as other,
        open_database(tmp_path / "db", clock=lambda: now[0], parts=[PART], reclaim_every=1000) as late,
    ):
        now[0] += timedelta(seconds=61)
        await other.sessions.renew()
        assert await other.sessions.reclaim() == 1
        zombie, broker = EmbeddedBroker(late, lambda: now[0]), EmbeddedBroker(other, lambda: now[0])
        await zombie.publish_to(Q, "m1", b"")
        await received(zombie)
        late.sever()
        assert await other.sessions.reclaim() == 1
        assert (await received(broker)).suspect


async def test_a_waiting_consumer_wakes_when_a_delay_is_over(autojump_clock: trio.testing.MockClock) -> None:
    """A delayed message arrives at its time, with nobody asking before that."""
    async with twin() as (database, broker):
        await broker.publish_to(Q, "m1", b"")
        await broker.retry(await received(broker), "error", 3600)
        started, before = trio.current_time(), database.statistics()
        async with broker.consume(Q, 1) as consumer:
            with trio.fail_after(4000):
                assert (await consumer.receive()).attempt == 2
        assert trio.current_time() - started == pytest.approx(3600, abs=0.01)
        assert database.statistics().changes - before.changes <= 4


async def test_a_shorter_delay_is_noticed_by_who_waits_for_a_longer_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A retry that is due earlier than what a consumer waits for moves its alarm."""
    async with twin() as (_, broker):
        for name in ("slow", "fast"):
            await broker.publish_to(Q, name, b"")
        slow, fast = await received(broker), await received(broker)
        await broker.retry(slow, "error", 1000)
        got: list[tuple[str, float]] = []

        async def consume() -> None:
            got.append(((await received_late(broker)).message_id, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await trio.testing.wait_all_tasks_blocked()
            await broker.retry(fast, "error", 10)
        assert got == [("fast", pytest.approx(10, abs=0.01))]


async def received_late(broker: EmbeddedBroker) -> Incoming:
    async with broker.consume(Q, 1) as consumer:
        return await consumer.receive()


async def test_a_clock_that_is_set_back_holds_no_new_message_up(tmp_path: Path) -> None:
    """Messages published before the clock was set back by a day can be taken at once."""
    now = [START]
    async with open_database(tmp_path / "db", clock=lambda: now[0], parts=[PART]) as database:
        broker = EmbeddedBroker(database, lambda: now[0])
        await broker.publish_to(Q, "m1", b"")
        now[0] -= timedelta(days=1)
        assert (await broker.depths())[0].ready == 1
        assert (await received(broker)).message_id == "m1"


async def test_what_cannot_go_back_now_goes_back_later(tmp_path: Path) -> None:
    """Messages taken ahead that the disk refused to take back are free again once it works."""
    async with open_database(tmp_path / "db", clock=lambda: START, parts=[PART]) as database:
        broker = EmbeddedBroker(database, lambda: START)
        for number in range(3):
            await broker.publish_to(Q, f"m{number}", b"")
        await database.write(lambda db: db.execute("PRAGMA busy_timeout = 0").fetchone())
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        async with broker.consume(Q, 3) as consumer:
            await broker.ack(await consumer.receive())
            other.execute("BEGIN IMMEDIATE")
        assert (await broker.depths())[0].taken == 2
        other.execute("ROLLBACK")
        other.close()
        assert [(m.message_id, m.attempt) for m in [await received(broker), await received(broker)]] == [
            ("m1", 1),
            ("m2", 1),
        ]


async def test_depths_and_takings_scan_no_bodies(autojump_clock: trio.testing.MockClock) -> None:
    """Depths come from covering indexes, and the oldest message is found without sorting the queue."""
    async with twin() as (database, _):
        names = {"queue": Q, "most": 1, "now": 0}

        def plan(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {queues.DEPTHS}", names).fetchall()
            rows += connection.execute(f"EXPLAIN QUERY PLAN {queues._OLDEST}", names).fetchall()
            return [row[3] for row in rows]

        steps = await database.read(plan)
        touching = [step for step in steps if "messages" in step or "dead_letters" in step]
        assert len(touching) == 7
        assert all(step.startswith("SEARCH") and "COVERING INDEX" in step for step in touching), touching


ACTIONS = st.lists(st.sampled_from(["publish", "take", "ack", "back", "retry", "bury", "crash", "wait"]), max_size=40)


@given(actions=ACTIONS)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_nothing_doubled(actions: list[str]) -> None:
    """Whatever happens in whatever order, each message is done with, dead, or in the queue exactly once."""

    async def main() -> None:
        connection, published, acked, dead = open_memory(), 0, 0, ""
        names = iter(actions)
        crashed = True
        while crashed:
            crashed, held = False, list[Incoming]()
            async with twin(connection, *([dead] if dead else [])) as (database, broker):
                for name in names:
                    depth = {found.queue: found for found in await broker.depths()}.get(Q)
                    if name == "publish":
                        await broker.publish_to(Q, str(published), b"")
                        published += 1
                    elif name == "take" and depth is not None and depth.ready:
                        held.append(await received(broker))
                    elif name == "ack" and held:
                        acked += await broker.ack(held.pop())
                    elif name == "back" and held:
                        assert await broker.give_back(held.pop())
                    elif name == "retry" and held:
                        assert await broker.retry(held.pop(), "error", 5)
                    elif name == "bury" and held:
                        assert await broker.bury(held.pop(), "reason")
                    elif name == "wait":
                        await trio.sleep(5)
                    elif name == "crash":
                        dead, crashed = database.session, True
                        database.sever()
                        break
                    if published:
                        (found,) = await broker.depths()
                        assert found.taken == len(held)
                        assert acked + found.dead + found.unsettled == published
        connection.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


_CHILD = """
import os, signal, sys, trio
from pathlib import Path
from datetime import UTC, datetime
from ionbeam.backends.embedded.broker import PART, EmbeddedBroker
from ionbeam.backends.embedded.database import open_database
clock = lambda: datetime.now(UTC)
async def main():
    async with open_database(Path(sys.argv[1]), clock=clock, parts=[PART]) as database:
        broker = EmbeddedBroker(database, clock)
        if sys.argv[2] == "publish":
            await broker.publish("exchange", "from the child", b"body")
        else:
            async with broker.consume(sys.argv[3], 1) as consumer:
                await consumer.receive()
                os.kill(os.getpid(), signal.SIGKILL)
trio.run(main)
"""


async def run_child(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with trio.fail_after(60):
        return await trio.run_process([sys.executable, "-c", _CHILD, *arguments], check=False, env=environment)


async def test_a_message_of_a_killed_process_comes_promptly(tmp_path: Path) -> None:
    """A waiting consumer gets what a process held when it was killed, as suspect, with no restart."""
    path = tmp_path / "db"
    async with open_database(
        path, clock=lambda: datetime.now(UTC), parts=[PART], backstop=1000, reclaim_every=0.2
    ) as database:
        broker = EmbeddedBroker(database, lambda: datetime.now(UTC))
        await broker.publish_to(Q, "m1", b"body")
        assert (await run_child(str(path), "die", Q)).returncode == -9
        again = await received(broker)
        assert (again.body, again.attempt, again.suspect) == (b"body", 2, True)
        assert database.bells.statistics().backstops == 0


async def test_publishing_in_one_process_wakes_another(tmp_path: Path) -> None:
    """With no backstop at all a consumer is woken by another process's publish, and polls nothing."""
    path = tmp_path / "db"
    async with open_database(
        path, clock=lambda: datetime.now(UTC), parts=[PART], backstop=float("inf"), reclaim_every=1000
    ) as database:
        broker = EmbeddedBroker(database, lambda: datetime.now(UTC))
        await broker.bind(Q, "exchange")
        async with trio.open_nursery() as nursery:
            before = database.statistics()
            nursery.start_soon(run_child, str(path), "publish")
            async with broker.consume(Q, 1) as consumer:
                with trio.fail_after(30):
                    assert (await consumer.receive()).message_id == "from the child"
        statistics = database.bells.statistics()
        assert statistics.heard >= 1 and statistics.backstops == 0
        # One look before it waits, and one for each ring: the child's publish and the end of its session.
        assert database.statistics().changes - before.changes <= 1 + statistics.heard


async def test_a_severed_database_refuses_the_broker(autojump_clock: trio.testing.MockClock) -> None:
    """After a simulated kill nothing is published, taken or settled, and leaving consume raises nothing."""
    async with twin() as (database, broker):
        await broker.publish_to(Q, "m1", b"")
        async with broker.consume(Q, 2) as consumer:
            held = await consumer.receive()
            database.sever()
            for use in (broker.ack(held), broker.publish_to(Q, "m2", b""), broker.depths()):
                with pytest.raises(IonbeamError, match="closed"):
                    await use
