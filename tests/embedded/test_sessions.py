"""Who is alive is known by locks and heartbeats, and what the dead held goes back once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from ionbeam.backends.embedded.connection import open_memory
from ionbeam.backends.embedded.database import Database, Part, open_database
from ionbeam.backends.embedded.sessions import Sessions
from ionbeam.backends.embedded.wake import Bells


class Home:
    """A home whose sessions' things are recorded when they are returned."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "db"
        self.sessions = folder / "sessions"
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.returned: list[str] = []

    def on_dead(self, connection: sqlite3.Connection, session: str) -> None:
        (died_at,) = connection.execute("SELECT died_at FROM sessions WHERE id = ?", (session,)).fetchone()
        assert died_at == int(self.now.timestamp() * 1_000_000)
        self.returned.append(session)

    @asynccontextmanager
    async def open(self, *parts: str) -> AsyncIterator[Database]:
        made = [Part(name=name, tables="", on_dead=self.on_dead) for name in parts or ("things",)]
        async with open_database(self.path, clock=lambda: self.now, parts=made, reclaim_every=1000) as database:
            yield database


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def test_the_living_are_not_dead(home: Home) -> None:
    """Several sessions of one process are told apart, and none of them takes another for dead."""
    async with home.open() as one, home.open() as two:
        assert await one.sessions.dead_sessions() == []
        assert await two.sessions.dead_sessions() == []
        assert await two.sessions.reclaim() == 0
    assert list(home.sessions.iterdir()) == []


async def test_a_free_lock_is_a_dead_session(home: Home) -> None:
    """A session whose lock was let go is dead at once; what it held is returned exactly once."""
    async with home.open() as one, home.open() as two, home.open() as victim:
        victim.sever()
        assert await one.sessions.dead_sessions() == [victim.session]
        seen = one.bells.bell("any")
        assert (await one.sessions.reclaim(), await two.sessions.reclaim()) == (1, 0)
        assert home.returned == [victim.session]
        assert one.bells.bell("any") == seen + 1, "those who wait for what was returned are woken"
    assert list(home.sessions.iterdir()) == []


async def test_opening_reclaims(home: Home) -> None:
    """A restart after a crash needs nobody else: opening returns what the earlier session held."""
    async with home.open() as victim:
        victim.sever()
    async with home.open():
        assert home.returned == [victim.session]


async def test_a_silent_session_is_dead_and_may_return(home: Home) -> None:
    """A stopped process is replaced after the expiry; when it runs again it is a living session again."""
    async with home.open() as survivor, home.open() as stopped:
        home.now += timedelta(seconds=59)
        assert await survivor.sessions.dead_sessions() == []
        home.now += timedelta(seconds=2)
        await survivor.sessions.renew()
        assert await survivor.sessions.reclaim() == 1
        assert home.returned == [stopped.session]
        await stopped.sessions.renew()
        assert await survivor.sessions.dead_sessions() == []
        stopped.sever()
        assert await survivor.sessions.dead_sessions() == [stopped.session]


async def test_nobody_reclaims_what_he_cannot_return(home: Home) -> None:
    """A process opened without one of the file's parts leaves dead sessions to those that have it."""
    async with home.open("broker", "ledger") as victim:
        victim.sever()
    async with home.open("broker") as poor:
        assert await poor.sessions.reclaim() == 0
        assert home.returned == []
    home.returned.clear()
    async with home.open("broker", "ledger"):
        assert home.returned == [victim.session] * 2, "once for each part"


async def test_ending_returns_what_is_still_held(home: Home) -> None:
    """A session that ends in order keeps nothing, and leaves neither row nor lock."""
    async with home.open() as one:
        pass
    assert home.returned == [one.session]
    async with home.open() as two:
        assert await two.read(lambda db: db.execute("SELECT id FROM sessions").fetchall()) == [(two.session,)]


async def test_locks_of_nobody_are_swept(home: Home) -> None:
    """Lock files without a session, left by a process killed while it opened, go at the next opening."""
    home.sessions.mkdir()
    (home.sessions / "nobody.lock").touch()
    async with home.open() as database:
        assert [path.stem for path in home.sessions.iterdir()] == [database.session]


async def test_a_failing_hook_returns_nothing(home: Home) -> None:
    """A session is reclaimed as a whole: when one hook fails, it stays dead and unreclaimed."""
    async with home.open() as survivor, home.open() as victim:
        victim.sever()

        def fails(connection: sqlite3.Connection, session: str) -> None:
            raise KeyError(session)

        survivor.sessions.on_dead.append(fails)
        with pytest.raises(KeyError):
            await survivor.sessions.reclaim()
        survivor.sessions.on_dead.remove(fails)
        assert await survivor.sessions.reclaim() == 1


async def test_the_twin_is_told_who_died() -> None:
    """In memory there are no locks: the next incarnation says which session was killed."""
    connection, returned = open_memory(), list[str]()
    part = Part(name="things", tables="", on_dead=lambda db, session: returned.append(session))
    clock = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # noqa: E731 - a clock is a function everywhere
    async with open_database(None, clock=clock, parts=[part], connection=connection, session="first") as first:
        first.sever()
    assert returned == []
    async with open_database(None, clock=clock, parts=[part], connection=connection, dead=["first"]) as second:
        assert returned == ["first"]
        assert await second.sessions.reclaim(["first"]) == 0
    connection.close()


async def test_the_heartbeat_renews_and_reclaims(autojump_clock: trio.testing.MockClock) -> None:
    """keep() puts off the expiry every third of it, and looks for dead sessions each round."""
    calls: list[tuple[str, float]] = []

    class Recorded(Sessions):
        async def renew(self) -> None:
            calls.append(("renew", trio.current_time() - start))

        async def reclaim(self, dead: object = ()) -> int:
            calls.append(("reclaim", trio.current_time() - start))
            return 0

    start = trio.current_time()
    database = Database(sqlite3.connect(":memory:"), None, None, Bells())  # type: ignore[arg-type]
    sessions = Recorded(database, [], clock=lambda: datetime.now(UTC), folder=None, own=None, expiry=30)
    with trio.move_on_after(25):
        await sessions.keep(4)
    assert [at for name, at in calls if name == "reclaim"] == pytest.approx([4, 8, 12, 16, 20, 24])
    assert [at for name, at in calls if name == "renew"] == pytest.approx([12, 24])
    await database.close()
    database._writer.close()
