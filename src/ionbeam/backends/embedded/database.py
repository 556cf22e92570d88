"""The one SQLite file under the embedded broker and ledger: group commits, snapshots, wake-ups, sessions."""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import trio
from msgspec import Struct

from ionbeam.backends.embedded import sessions
from ionbeam.backends.embedded.connection import (
    check_format,
    explain,
    open_memory,
    open_reader,
    open_writer,
    statements,
    transaction,
)
from ionbeam.backends.embedded.sessions import OnDead, Sessions
from ionbeam.backends.embedded.wake import Bells
from ionbeam.backends.workers import InlineWorkers, ThreadWorkers
from ionbeam.errors import IonbeamError
from ionbeam.ports.workers import Workers

T = TypeVar("T")

_LARGEST_GROUP = 256
_IDLE_READERS = 4


class Part(Struct, frozen=True, kw_only=True):
    """What one user of the file keeps in it.

    `tables` is a script of `CREATE … IF NOT EXISTS` statements, each ending its line. `on_dead` returns,
    within a transaction, what a dead session held in them.
    """

    name: str
    tables: str
    on_dead: OnDead | None = None


class DatabaseStatistics(Struct, frozen=True):
    """Since it was opened: transactions committed, changes in them, the most changes in one, and reads."""

    commits: int
    changes: int
    largest_group: int
    reads: int


class _Pending:
    """A change on its way: `begun` once a transaction has it, then a value or an error."""

    __slots__ = ("begun", "change", "error", "rings", "value")

    def __init__(self, change: Callable[[sqlite3.Connection], Any], rings: Collection[str]) -> None:
        self.change = change
        self.rings = rings
        self.begun = False
        self.value: Any = None
        self.error: BaseException | None = None

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class Database:
    """Changes and looks at the file. Made by `open_database`. Functions given to it run in worker threads."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, workers: Workers, bells: Bells) -> None:
        self.bells = bells
        self.sessions: Sessions
        self._writer = connection
        self._path = path
        self._workers = workers
        self._turn = trio.Lock()
        self._pending: deque[_Pending] = deque()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._commits = self._changes = self._largest = self._reads = 0

    @property
    def session(self) -> str:
        """The id of the session that this Database is."""
        return self.sessions.own

    async def write(self, change: Callable[[sqlite3.Connection], T], rings: Collection[str] = ()) -> T:
        """Make a change and return what it returns; durable when this returns. Then the bells of `rings`
        ring.

        Changes that wait at the same time share one transaction and one fsync. One that raises is undone
        alone, and its exception is raised here. `rings` is read after the commit, so the change may fill it.
        Raises Unavailable while the file cannot be written: nothing has changed. trio.Cancelled means that
        the change was not made; once it has begun it is waited for.
        """
        mine = _Pending(change, rings)
        self._pending.append(mine)
        try:
            await self._turn.acquire()
        except trio.Cancelled:
            if not mine.begun:
                self._pending.remove(mine)
                raise
            with trio.CancelScope(shield=True):
                await self._turn.acquire()
        try:
            # Whoever's turn it is commits for all who wait; the others find theirs done.
            if not mine.begun:
                with trio.CancelScope(shield=True):
                    await self._commit_pending()
        finally:
            self._turn.release()
        return cast(T, mine.outcome())

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` makes of one consistent snapshot. Raises Unavailable while the file cannot be read."""
        self._check_open()
        self._reads += 1
        try:
            return await self._workers.run(self._look, look)
        except (sqlite3.Error, OSError) as error:
            if (explained := explain(error, self._path)) is not None:
                raise explained from error
            raise

    def statistics(self) -> DatabaseStatistics:
        return DatabaseStatistics(self._commits, self._changes, self._largest, self._reads)

    def sever(self) -> None:
        """What kill -9 does, for simulations: nothing reaches the file any more, the lock is free."""
        self._closed = True
        self.sessions.let_go()

    async def close(self) -> None:
        """Wait for the change in hand, then refuse all others."""
        async with self._turn:
            self._closed = True
        if self._path is not None:
            await self._workers.run(self._close_connections)

    async def _commit_pending(self) -> None:
        await trio.lowlevel.checkpoint()  # lets those join who were woken together with us
        group = [self._pending.popleft() for _ in range(min(len(self._pending), _LARGEST_GROUP))]
        for pending in group:
            pending.begun = True
        try:
            self._check_open()
            await self._workers.run(self._commit, group)
        except BaseException as error:
            for pending in group:
                # One exception each: every raise would add to the traceback of a shared one.
                pending.error = _again(explain(error, self._path) or error, error)
            if not isinstance(error, Exception):
                raise
            return
        self._commits += 1
        self._changes += len(group)
        self._largest = max(self._largest, len(group))
        self.bells.ring({topic for pending in group if pending.error is None for topic in pending.rings})

    def _commit(self, group: Sequence[_Pending]) -> None:
        with transaction(self._writer, "BEGIN IMMEDIATE"):
            for pending in group:
                self._writer.execute("SAVEPOINT change")
                try:
                    pending.value = pending.change(self._writer)
                except Exception as error:
                    if explain(error, self._path) is not None:
                        raise
                    pending.error = error
                    self._writer.execute("ROLLBACK TO change")
                self._writer.execute("RELEASE change")
            self._writer.execute("COMMIT")

    def _look(self, look: Callable[[sqlite3.Connection], T]) -> T:
        if self._path is None:
            with transaction(self._writer, "BEGIN"):
                return look(self._writer)
        try:
            connection = self._idle.pop()  # no test before: other threads pop too
        except IndexError:
            connection = open_reader(self._path)
        try:
            with transaction(connection, "BEGIN"):
                return look(connection)
        finally:
            if len(self._idle) < _IDLE_READERS and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()

    def _close_connections(self) -> None:
        while self._idle:
            self._idle.pop().close()
        self._writer.close()

    def _check_open(self) -> None:
        if self._closed:
            name = self._path or "the database in memory"
            raise IonbeamError(f"{name} is closed; settle and stop everything before leaving open_database")


@asynccontextmanager
async def open_database(
    path: Path | None,
    *,
    clock: Callable[[], datetime],
    parts: Sequence[Part] = (),
    workers: Workers | None = None,
    connection: sqlite3.Connection | None = None,
    bells: Bells | None = None,
    session: str | None = None,
    dead: Collection[str] = (),
    backstop: float = 5.0,
    expiry: float = 60.0,
    reclaim_every: float = 2.0,
) -> AsyncIterator[Database]:
    """The Database in the file `path` (created when missing), whose folder is the home.

    `clock` gives UTC. `parts` are the tables to have. On opening, what dead sessions held is returned, then
    again every `reclaim_every` seconds; `expiry` seconds without a heartbeat make a session dead. A waiter
    that is not rung looks again after `backstop` seconds.

    `path` None: the twin for simulations, all in memory and in the loop, with no files, no tasks and no clock
    of its own. `connection` (from `open_memory`) and `bells` outlive it: hand them to the next one, or to
    several at a time, with the sessions that were killed in `dead`.

    Raises HomeError when the home cannot be used, Unavailable when not now.
    """
    if path is None:
        workers = InlineWorkers()
        connection = connection or open_memory()
        check_format(connection, None)
        bells = bells or Bells(math.inf)
    else:
        workers = workers or ThreadWorkers(trio.CapacityLimiter(_IDLE_READERS + 1))
        connection = await workers.run(open_writer, path)
        bells = Bells(backstop)
    database = Database(connection, path, workers, bells)
    folder = None if path is None else path.parent / "sessions"
    database.sessions = Sessions(database, parts, clock=clock, folder=folder, own=session, expiry=expiry)
    try:
        await workers.run(database.sessions.hold)
        await _prepare(database, parts, clock())
        await database.sessions.reclaim(dead)
        async with _attended(database, path, reclaim_every):
            yield database
    finally:
        with trio.CancelScope(shield=True):
            await database.sessions.end()
            await database.close()


@asynccontextmanager
async def _attended(database: Database, path: Path | None, reclaim_every: float) -> AsyncIterator[None]:
    """Listen to other processes and keep the session alive; the body's exceptions come out as they are."""
    if path is None:
        yield
        return
    raised: BaseException | None = None
    with database.bells.listening(path.parent / "wake") as descriptor:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.bells.hear, descriptor)
            nursery.start_soon(database.sessions.keep, reclaim_every)
            try:
                yield
            except BaseException as error:
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised


async def _prepare(database: Database, parts: Sequence[Part], now: datetime) -> None:
    def change(connection: sqlite3.Connection) -> None:
        for script in (sessions.TABLES, *(part.tables for part in parts)):
            for statement in statements(script):
                connection.execute(statement)
        connection.executemany("INSERT OR IGNORE INTO parts VALUES (?)", [(part.name,) for part in parts])
        database.sessions.present(connection, now)
        database.sessions.sweep(connection)

    await database.write(change)


def _again(error: BaseException, cause: BaseException) -> BaseException:
    if not isinstance(error, IonbeamError):
        return error
    fresh = type(error)(*error.args)
    fresh.__cause__ = cause if cause is not error else None
    return fresh
