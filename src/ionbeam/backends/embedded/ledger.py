"""The ledger in the home's SQLite file."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

from ionbeam.backends.embedded import ledger_ingestions as ingestions
from ionbeam.backends.embedded import ledger_leases as leases
from ionbeam.backends.embedded import ledger_windows as windows
from ionbeam.backends.embedded.database import Database, Part
from ionbeam.backends.embedded.ledger_windows import Rules
from ionbeam.backends.embedded.tables import LEDGER
from ionbeam.backends.embedded.wake import Bells
from ionbeam.domain.contract import Contract
from ionbeam.domain.windows import micros, moment
from ionbeam.ports.ledger import Watch
from ionbeam.ports.records import (
    Acceptance,
    Accepted,
    BuildOutcome,
    Built,
    IngestionState,
    Lease,
    Member,
    NodeState,
    OutboxEntry,
    Published,
    Revision,
    Standing,
    Unsettled,
    WindowRules,
    WindowState,
)
from ionbeam.schemas.codec import decode, encode


def _let_go(db: sqlite3.Connection, session: str) -> None:
    """The windows that a dead session had leased are free, and its report is forgotten."""
    db.execute("UPDATE windows SET token = NULL, holder = NULL, expires = NULL WHERE holder = ?", (session,))
    db.execute("DELETE FROM nodes WHERE session = ?", (session,))


PART = Part(name="ledger", tables=LEDGER, on_dead=_let_go)
WINDOWS, OUTBOX = "windows", "outbox"
_MESSAGES = msgspec.msgpack.Decoder(tuple[Published, ...])


class _BellWatch:
    def __init__(self, bells: Bells, topic: str) -> None:
        self._bells, self._topic = bells, topic
        self._seen = bells.bell(topic)

    async def wait(self) -> None:
        self._seen = await self._bells.wait(self._topic, self._seen)


class EmbeddedLedger:
    """Implements `ports.ledger.Ledger`; each transition is one change of the database's next group commit."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        rules: Rules = lambda dataset: WindowRules(),
        token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._db = database
        self._clock = clock
        self._rules = rules
        self._token = token

    def watch(self, topic: Literal["windows", "outbox"]) -> Watch:
        return _BellWatch(self._db.bells, topic)

    async def now(self) -> datetime:
        return self._clock()

    def _now(self) -> int:
        return micros(self._clock())

    # -- sources ---------------------------------------------------------------------------------------------------
    async def stamp(self, command_id: str) -> datetime:
        def change(db: sqlite3.Connection) -> int:
            row = db.execute("SELECT value FROM facts WHERE key = 'stamp'").fetchone()
            stamp = self._now() if row is None else max(self._now(), row[0] + 1)
            db.execute("INSERT OR REPLACE INTO facts VALUES ('stamp', ?)", (stamp,))
            return ingestions.first_handed(db, command_id, stamp)

        return moment(await self._db.write(change))

    async def recall(self, key: str) -> bytes | None:
        def look(db: sqlite3.Connection) -> bytes | None:
            row = db.execute("SELECT value FROM memories WHERE key = ?", (key,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._db.read(look)

    async def remember(self, key: str, value: bytes) -> None:
        await self._db.write(lambda db: db.execute("INSERT OR REPLACE INTO memories VALUES (?, ?)", (key, value)))

    # -- ingestion -------------------------------------------------------------------------------------------------
    async def standing(self, command_id: str) -> Standing:
        return await self._db.read(lambda db: ingestions.standing(db, command_id))

    async def first_handed(self, command_id: str) -> datetime:
        return moment(await self._db.write(lambda db: ingestions.first_handed(db, command_id, self._now())))

    async def contract(self, dataset: str) -> tuple[Contract | None, int]:
        return await self._db.read(lambda db: ingestions.contract(db, dataset))

    async def accept(self, acceptance: Acceptance) -> Accepted:
        return await self._db.write(
            lambda db: ingestions.accept(db, acceptance, self._db.session, self._now()), rings=(OUTBOX,)
        )

    async def record(self, record: bytes, *messages: Published) -> int:
        return await self._db.write(lambda db: ingestions.post(db, self._db.session, record, messages), rings=(OUTBOX,))

    # -- coordination ----------------------------------------------------------------------------------------------
    async def enter(self, ingestion_id: str) -> list[int]:
        return await self._db.write(lambda db: ingestions.enter(db, ingestion_id, self._rules), rings=(WINDOWS,))

    async def retract(self, ingestion_id: str, record: bytes) -> int:
        def change(db: sqlite3.Connection) -> int:
            ingestions.replace(db, ingestion_id, "operator", self._rules)
            return ingestions.post(db, self._db.session, record, ())

        return await self._db.write(change, rings=(WINDOWS, OUTBOX))

    async def reconsider(self) -> None:
        def change(db: sqlite3.Connection) -> None:
            waiting = db.execute("SELECT dataset, start FROM windows WHERE desired <> built").fetchall()
            for dataset, window in waiting:
                windows.judge(db, dataset, window, self._rules(dataset))

        await self._db.write(change, rings=(WINDOWS,))

    # -- building --------------------------------------------------------------------------------------------------
    async def lease(self, ttl: float) -> Lease | None:
        def change(db: sqlite3.Connection) -> Lease | None:
            found = leases.due(db, self._now())
            if found is None:
                return None
            self._db.sessions.present(db, self._clock())
            return leases.lease(db, *found, self._token(), self._db.session, self._expiry(ttl))

        # most looks find nothing, and a look costs no commit
        if await self._db.read(lambda db: leases.due(db, self._now())) is None:
            return None
        return await self._db.write(change)

    async def renew(self, lease: Lease, ttl: float) -> bool:
        return await self._db.write(lambda db: leases.update(db, lease, "expires = ?", self._expiry(ttl)))

    async def built(self, lease: Lease, revision: Revision, record: bytes, messages: tuple[Published, ...]) -> Built:
        def change(db: sqlite3.Connection) -> Built:
            outcome = leases.built(db, lease, revision, self._now())
            if outcome is BuildOutcome.STALE:
                return Built(outcome)
            sent = messages if outcome is BuildOutcome.REVISED else ()
            entry = ingestions.post(db, self._db.session, record, sent)
            leases.free(db, lease, self._rules)
            return Built(outcome, entry)

        return await self._db.write(change, rings=(WINDOWS, OUTBOX))

    async def failed(self, lease: Lease, reason: str, retry_in: float | None) -> None:
        def change(db: sqlite3.Connection) -> None:
            not_before, parked = self._expiry(retry_in or 0.0), reason if retry_in is None else None
            if leases.update(db, lease, "failures = failures + 1, not_before = ?, parked = ?", not_before, parked):
                leases.free(db, lease, self._rules)

        await self._db.write(change, rings=(WINDOWS,))

    async def release(self, lease: Lease) -> None:
        await self._db.write(lambda db: leases.free(db, lease, self._rules), rings=(WINDOWS,))

    async def retry_windows(self, dataset: str | None, record: bytes) -> int:
        def change(db: sqlite3.Connection) -> int:
            freed = leases.unpark(db, dataset, self._rules)
            ingestions.post(db, self._db.session, record, ())
            return freed

        return await self._db.write(change, rings=(WINDOWS, OUTBOX))

    def _expiry(self, seconds: float) -> int:
        return self._now() + int(seconds * 1e6)

    async def next_due(self) -> datetime | None:
        def look(db: sqlite3.Connection) -> list[int]:
            free = db.execute(
                "SELECT due FROM windows WHERE due IS NOT NULL AND token IS NULL ORDER BY due LIMIT 1"
            ).fetchone()
            held = db.execute("SELECT MIN(expires) FROM windows WHERE token IS NOT NULL").fetchone()
            return [row[0] for row in (free, held) if row is not None and row[0] is not None]

        moments = await self._db.read(look)
        return moment(min(moments)) if moments else None

    async def unsettled(self) -> Unsettled:
        def look(db: sqlite3.Connection) -> Unsettled:
            # Two questions, not one with OR: each is answered from the index, whatever the history.
            busy, again = db.execute(
                "SELECT (SELECT COUNT(*) FROM windows WHERE due <= ?1),"
                " (SELECT COUNT(*) FROM windows WHERE due > ?1 AND failures > 0)",
                (self._now(),),
            ).fetchone()
            held = db.execute("SELECT COUNT(*) FROM windows WHERE token IS NOT NULL").fetchone()[0]
            decisions = db.execute("SELECT COUNT(*) FROM outbox").fetchone()[0]
            return Unsettled(windows=busy + again + held, decisions=decisions)

        return await self._db.read(look)

    # -- exports ---------------------------------------------------------------------------------------------------
    async def current(self, dataset: str, window_start: int) -> Revision | None:
        def look(db: sqlite3.Connection) -> Revision | None:
            row = db.execute(
                "SELECT revision FROM windows WHERE dataset = ? AND start = ?", (dataset, window_start)
            ).fetchone()
            return None if row is None or row[0] is None else decode(row[0], Revision)

        return await self._db.read(look)

    async def last_revision(self) -> int:
        return await self._db.read(lambda db: db.execute("SELECT COALESCE(MAX(place), 0) FROM revisions").fetchone()[0])

    async def revisions(self, after: int, limit: int) -> list[tuple[int, Revision]]:
        def look(db: sqlite3.Connection) -> list[tuple[int, Revision]]:
            found = db.execute(
                "SELECT place, body FROM revisions WHERE place > ? ORDER BY place LIMIT ?", (after, limit)
            )
            return [(place, decode(body, Revision)) for place, body in found]

        return await self._db.read(look)

    # -- outbox ----------------------------------------------------------------------------------------------------
    async def outbox(self, limit: int) -> list[OutboxEntry]:
        def look(db: sqlite3.Connection) -> list[OutboxEntry]:
            found = db.execute(
                "SELECT number, record, messages FROM outbox"
                " WHERE owner = ? OR owner NOT IN (SELECT id FROM sessions) ORDER BY number LIMIT ?",
                (self._db.session, limit),
            ).fetchall()
            return [
                OutboxEntry(number=number, record=record, messages=_MESSAGES.decode(messages))
                for number, record, messages in found
            ]

        return await self._db.read(look)

    async def clear(self, numbers: list[int], journal_cursor: str) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])
            node, _, number = journal_cursor.rpartition("/")
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (f"journal/{node}", number))

        await self._db.write(change)

    async def pending(self, numbers: list[int]) -> set[int]:
        def look(db: sqlite3.Connection) -> set[int]:
            return {
                number
                for number in numbers
                if db.execute("SELECT 1 FROM outbox WHERE number = ?", (number,)).fetchone()
            }

        return await self._db.read(look)

    # -- nodes -----------------------------------------------------------------------------------------------------
    async def report(self, state: NodeState) -> None:
        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?)", (self._db.session, encode(state)))

        await self._db.write(change)

    async def nodes(self) -> list[NodeState]:
        def look(db: sqlite3.Connection) -> list[NodeState]:
            found = db.execute("SELECT body FROM nodes WHERE session IN (SELECT id FROM sessions) ORDER BY session")
            return [decode(body, NodeState) for (body,) in found]

        return await self._db.read(look)

    # -- looking ---------------------------------------------------------------------------------------------------
    async def ingestions(self, after: str | None, limit: int) -> list[IngestionState]:
        return await self._db.read(lambda db: ingestions.states(db, after, limit))

    async def ingestion(self, command_id: str) -> IngestionState | None:
        return await self._db.read(lambda db: ingestions.state(db, command_id))

    async def windows(
        self, dataset: str | None, after: tuple[str, int] | None, limit: int, *, pending: bool = False
    ) -> list[WindowState]:
        return await self._db.read(lambda db: windows.states(db, dataset, after, limit, pending))

    async def latest(self, dataset: str) -> Revision | None:
        def look(db: sqlite3.Connection) -> Revision | None:
            row = db.execute(
                "SELECT body FROM revisions WHERE dataset = ? ORDER BY place DESC LIMIT 1", (dataset,)
            ).fetchone()
            return None if row is None else decode(row[0], Revision)

        return await self._db.read(look)

    async def members(self, dataset: str, window_start: int) -> tuple[Member, ...]:
        return await self._db.read(lambda db: windows.members_of(db, dataset, window_start))

    async def datasets(self) -> list[str]:
        return await self._db.read(
            lambda db: [row[0] for row in db.execute("SELECT dataset FROM contracts ORDER BY dataset")]
        )
