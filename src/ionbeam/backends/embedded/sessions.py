"""Who is alive on a home. What a dead session held goes back, whoever notices first.

A session is one opened Database. It lives while its lock file is locked, which the operating system ends with
the process, and while its heartbeat is younger than `expiry`, which ends for a process that is stopped or
stuck.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ionbeam.backends.embedded.connection import explain
from ionbeam.backends.embedded.wake import EVERY
from ionbeam.backends.files import hold_lock, lock_is_free, make_folder, remove_free_lock
from ionbeam.domain.windows import micros
from ionbeam.errors import HomeError, IonbeamError

if TYPE_CHECKING:
    from ionbeam.backends.embedded.database import Database, Part

log = logging.getLogger(__name__)

OnDead = Callable[[sqlite3.Connection, str], None]
"""Returns what the session held. Its row is still there, with `died_at` (microseconds since the epoch)."""

TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, pid INTEGER NOT NULL, expires_at INTEGER NOT NULL, died_at INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parts (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_SUFFIX = ".lock"


class Sessions:
    """The session of one Database (`own`), and its view of others. `folder` None: a twin without files."""

    def __init__(
        self,
        database: Database,
        parts: Sequence[Part],
        *,
        clock: Callable[[], datetime],
        folder: Path | None,
        own: str | None,
        expiry: float,
    ) -> None:
        self.own = own or uuid.uuid4().hex
        self.on_dead: list[OnDead] = [part.on_dead for part in parts if part.on_dead is not None]
        self._database = database
        self._parts = frozenset(part.name for part in parts)
        self._clock = clock
        self._folder = folder
        self._expiry = expiry
        self._lock: int | None = None

    def hold(self) -> None:
        """Blocking. Take this session's lock and sweep away those that nobody holds or needs."""
        if self._folder is None:
            return
        try:
            make_folder(self._folder)
            self._lock = hold_lock(self._path(self.own))
        except OSError as error:
            raise explain(error, self._folder / self.own) or HomeError(
                f"no lock file can be made in {self._folder} ({error.strerror}): check its owner and mode"
            ) from error

    def present(self, connection: sqlite3.Connection, now: datetime) -> None:
        """Within a transaction: this session is alive, also if it was declared dead before.

        Whoever records that this session holds something calls it in the same transaction, so that nothing is
        ever held by a session that is not in the table.
        """
        expires = micros(now + timedelta(seconds=self._expiry))
        connection.execute(
            "INSERT INTO sessions (id, pid, expires_at) VALUES (?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at",
            (self.own, os.getpid(), expires),
        )

    async def renew(self) -> None:
        """Put off the expiry of this session."""
        now = self._clock()
        await self._database.write(lambda connection: self.present(connection, now))

    async def dead_sessions(self) -> list[str]:
        """The other sessions whose lock is free or whose heartbeat has expired; none in a twin."""
        if self._folder is None:
            return []
        now = micros(self._clock())

        def look(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute("SELECT id, expires_at FROM sessions WHERE id != ?", (self.own,)).fetchall()
            return [name for name, expires in rows if expires < now or lock_is_free(self._path(name))]

        return await self._database.read(look)

    async def reclaim(self, dead: Collection[str] = ()) -> int:
        """Return what dead sessions held, `dead` (known to be dead) included; how many sessions.

        Sessions stay as they are while the file has parts that this Database was not opened with: what they
        hold there could not be returned.
        """
        found = await self.dead_sessions()
        if not found and not dead:
            return 0
        now = micros(self._clock())
        rings: set[str] = set()

        def change(connection: sqlite3.Connection) -> list[str]:
            if {name for (name,) in connection.execute("SELECT name FROM parts")} - self._parts:
                return []
            gone = [name for name in {*found, *dead} if self._is_dead(connection, name, now, name in dead)]
            for name in sorted(gone):
                self._end(connection, name, now)
            rings.update([EVERY] if gone else [])
            return gone

        gone = await self._database.write(change, rings)
        for name in gone:
            log.warning("session %s died: what it held is free again", name)
            if self._folder is not None:
                remove_free_lock(self._path(name))
        return len(gone)

    async def keep(self, every: float) -> None:
        """Renew this session and look for dead ones, every `every` seconds, for ever."""
        renewal = trio.current_time() + self._expiry / 3
        while True:
            await trio.sleep(every)
            try:
                # First ourselves: after a suspend all heartbeats look old.
                if trio.current_time() >= renewal:
                    await self.renew()
                    renewal = trio.current_time() + self._expiry / 3
                await self.reclaim()
            except IonbeamError as error:
                log.warning("the heartbeat of session %s waits: %s", self.own, error)

    async def end(self) -> None:
        """End this session in order; what it still holds goes back as if it had died."""
        now = micros(self._clock())
        try:
            await self._database.write(lambda connection: self._end(connection, self.own, now), [EVERY])
        except IonbeamError as error:
            log.warning("session %s could not end, another one will reclaim it: %s", self.own, error)
        self.let_go(remove=True)

    def let_go(self, *, remove: bool = False) -> None:
        """Free the lock, as the end of the process does; with `remove` its file goes too."""
        if self._lock is not None and self._folder is not None:
            if remove:
                with suppress(OSError):
                    self._path(self.own).unlink()
            os.close(self._lock)
            self._lock = None

    def sweep(self, connection: sqlite3.Connection) -> None:
        """Blocking. Remove lock files that belong to no session."""
        if self._folder is not None:
            known = {name for (name,) in connection.execute("SELECT id FROM sessions")}
            for path in self._folder.glob(f"*{_SUFFIX}"):
                if path.stem not in known:
                    remove_free_lock(path)

    def _is_dead(self, connection: sqlite3.Connection, name: str, now: int, certain: bool) -> bool:
        row = connection.execute("SELECT expires_at FROM sessions WHERE id = ?", (name,)).fetchone()
        return row is not None and (certain or row[0] < now or lock_is_free(self._path(name)))

    def _end(self, connection: sqlite3.Connection, name: str, now: int) -> None:
        found = connection.execute("UPDATE sessions SET died_at = ? WHERE id = ?", (now, name))
        if found.rowcount == 0:
            return  # declared dead by another session, which has returned what it held
        for hook in self.on_dead:
            hook(connection, name)
        connection.execute("DELETE FROM sessions WHERE id = ?", (name,))

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}{_SUFFIX}"
