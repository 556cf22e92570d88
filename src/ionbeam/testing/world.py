"""What survives a crash, and the nodes that live in it: databases, objects, a clock, and an exporter's folder."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import trio
from msgspec import Struct

from ionbeam.backends.embedded.broker import EmbeddedBroker
from ionbeam.backends.embedded.connection import open_memory
from ionbeam.backends.embedded.database import Database, open_database
from ionbeam.backends.embedded.ledger import EmbeddedLedger
from ionbeam.backends.embedded.wake import Bells
from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.client.exporting import DatasetRevision
from ionbeam.domain.windows import micros
from ionbeam.ports.broker import DeadLetter, Incoming
from ionbeam.ports.records import BuildOutcome, IngestionState, Lease, WindowState
from ionbeam.schemas import routes
from ionbeam.schemas.codec import decode
from ionbeam.schemas.journal import Record
from ionbeam.testing.faults import Fault, Script
from ionbeam.testing.life import PARTS, Life
from ionbeam.testing.load import Plan
from ionbeam.testing.raw import START

MOST_CRASHES = 40
PAGE = 1000


class Recorder:
    """An exporter that keeps what it was given. It trusts that it is never given an older revision."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown: dict[tuple[str, int], tuple[int, str | None]] = {}
        self.went_back: list[str] = []

    def apply(self, revision: DatasetRevision) -> None:
        event = revision.event
        window = (event.metadata.name, micros(event.start_time))
        before = self.shown.get(window)
        if before is not None and event.revision < before[0]:
            self.went_back.append(f"{self.name} went back from revision {before[0]} to {event.revision} of {window}")
        self.shown[window] = (event.revision, event.content_hash)


class Outcome(Struct, frozen=True, kw_only=True):
    """How a world stood when it had come to rest and its nodes had drained."""

    windows: list[WindowState]
    ingestions: list[IngestionState]
    dead: list[DeadLetter]
    journal: list[Record]
    objects: MemoryObjects
    exports: list[Recorder]
    left: list[str]
    violations: list[str]
    trace: list[str]
    struck: bool = False


class World:
    """One home in memory. `keep` runs a node in it, again after each crash."""

    def __init__(self, plan: Plan, faults: Sequence[Fault] = ()) -> None:
        self.plan = plan
        self.script = Script(faults)
        self.connection = open_memory()
        self.bells = Bells(math.inf)
        self.objects = MemoryObjects()
        self.exports: dict[str, Recorder] = {}
        self.lives: dict[str, Life] = {}
        self.trace: list[str] = []
        self.violations: list[str] = []
        self.journal: list[Record] = []
        self.clock_offset = 0.0
        self.crashes = 0
        self._repeats = 0
        self._leases: dict[tuple[str, int], str] = {}
        self.database: Database
        self.nursery: trio.Nursery
        self._journaled: set[tuple[str, str]] = set()

    # -- time and memory -------------------------------------------------------------------------------------------
    def clock(self) -> datetime:
        return START + timedelta(seconds=trio.current_time() + self.clock_offset)

    def note(self, who: str, text: str) -> None:
        self.trace.append(f"{trio.current_time():10.3f} {who:11} {text}")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The world's own session, through which commands are sent and looked at."""
        async with (
            open_database(
                None,
                clock=self.clock,
                parts=PARTS,
                connection=self.connection,
                bells=self.bells,
                session="world",
            ) as self.database,
            trio.open_nursery() as self.nursery,
        ):
            self.broker = EmbeddedBroker(self.database, self.clock)
            self.ledger = EmbeddedLedger(self.database, self.clock)
            for queue, exchange in routes.BINDINGS.items():
                await self.broker.bind(queue, exchange)
            yield
            self.nursery.cancel_scope.cancel()

    # -- nodes -----------------------------------------------------------------------------------------------------
    def begin(self, name: str, exporters: Sequence[str] = ()) -> None:
        """Start a node, with exporters of these names."""
        recorders = [self.exports.setdefault(exporter, Recorder(exporter)) for exporter in exporters]
        self.nursery.start_soon(self._keep, name, recorders)

    async def _keep(self, name: str, exporters: Sequence[Recorder]) -> None:
        """Live, and after each end live again, until an end was a drain."""
        killed: list[str] = []
        number = 0
        while True:
            number += 1
            life = Life(self, f"{name}-{number}", exporters)
            self.lives[name] = life
            if await life.live(tuple(killed)):
                return
            if life.dead:
                killed.append(life.session)
            self.crashes += 1
            if self.crashes > MOST_CRASHES:
                self.violations.append(f"more than {MOST_CRASHES} crashes: something ends every process")
                return
            await trio.sleep(life.restart_after)

    async def declare_dead(self, life: Life, after: float) -> None:
        await trio.sleep(after)
        if not life.dead:
            self.note("world", f"{life.session} is declared dead")
            await self.database.sessions.reclaim([life.session])

    async def repeat(self, after: float, exchange: str, message_id: str, body: bytes) -> None:
        """Deliver once more what was published."""
        self._repeats += 1
        await trio.sleep(after)
        self.note("world", f"repeats {message_id}")
        await self.broker.publish(exchange, message_id, body)
        self._repeats -= 1

    async def drain(self) -> None:
        self.script = Script()
        for life in self.lives.values():
            stopped = await life.drain() if life.at_work else None
            if stopped is not None and not stopped.clean:
                self.violations.append(f"{life.session} did not drain clean: {stopped}")

    # -- coming to rest --------------------------------------------------------------------------------------------
    async def rest(self) -> None:
        """Wait until nothing is left to do; say what is left after two hours."""
        for pause in (1.0, 5.0, 30.0, *[120.0] * 60):
            if not await self.unrest():
                return
            await trio.sleep(pause)
        self.violations += [f"never came to rest: {what}" for what in await self.unrest()]

    async def unrest(self) -> list[str]:
        """All that is still to be done."""
        found = [f"{life.session} is away" for life in self.lives.values() if not life.at_work]
        found += ["something is still to be repeated"] * self._repeats
        found += [f"unsettled: {depth}" for depth in await self.broker.depths() if depth.unsettled]
        unsettled = await self.ledger.unsettled()
        if unsettled.windows or unsettled.decisions:
            found.append(str(unsettled))
        due = await self.ledger.next_due()
        if due is not None and due < self.clock() + timedelta(hours=1):
            found.append(f"a window is due at {due}")
        return found

    async def outcome(self) -> Outcome:
        left = [text for text in await self.unrest() if not text.endswith("is away")]
        left += [f"session {name}" for name in await self.database.read(_sessions) if name != "world"]
        windows = await self.ledger.windows(None, None, PAGE)
        left += [f"leased: {w.dataset} {w.window_start}" for w in windows if w.leased_until is not None]
        return Outcome(
            windows=windows,
            ingestions=await self.ledger.ingestions(None, PAGE),
            dead=await self.broker.dead_letters(),
            journal=self.journal,
            objects=self.objects,
            exports=list(self.exports.values()),
            left=left,
            violations=self.violations,
            trace=self.trace,
        )

    # -- what must hold at every moment ----------------------------------------------------------------------------
    def happened(self, call: str, args: Sequence[Any], result: Any) -> None:
        """A node's call had its effect."""
        if call == "objects.put":
            self._stored(*args)
        elif call == "ledger.lease" and result is not None:
            self._leases[result.dataset, result.window_start] = result.token
        elif call == "ledger.built" and result.outcome is not BuildOutcome.STALE:
            lease: Lease = args[0]
            if self._leases[lease.dataset, lease.window_start] != lease.token:
                self.violations.append(f"the result of a lost lease of window {lease.window_start} was recorded")

    def _stored(self, key: str, data: bytes) -> None:
        if key.startswith("journal/"):
            records = [decode(line, Record) for line in data.splitlines()]
            self.journal += records
            self._journaled.update((record.kind, record.id) for record in records)

    def settling(self, call: str, incoming: Incoming) -> None:
        """A message is about to be settled for good: what was decided of it is in the journal by now."""
        if incoming.queue != routes.INGESTION:
            return
        if call == "broker.ack" and ("accepted", incoming.message_id) not in self._journaled:
            self.violations.append(f"{incoming.message_id} was acknowledged before the journal had its acceptance")
        refused = ("refused", f"{incoming.message_id}/{incoming.attempt}")
        if call == "broker.bury" and refused not in self._journaled:
            self.violations.append(f"{incoming.message_id} was buried before the journal had its refusal")


def _sessions(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT id FROM sessions")]
