"""The embedded ledger keeps the ledger's contract, on disk and in memory; its cost does not grow with history."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import ledger_suite
import pytest
from ledger_suite import START, LedgerContract, acceptance, build, leased

from ionbeam.backends.embedded.connection import open_memory
from ionbeam.backends.embedded.database import Database, open_database
from ionbeam.backends.embedded.ledger import PART, EmbeddedLedger
from ionbeam.backends.embedded.wake import Bells
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.records import WindowRules


class EmbeddedWorld:
    """Nodes on one home, or on one connection in memory, with a clock that is turned by hand."""

    def __init__(self, path: Path | None) -> None:
        self.clock: datetime = START
        self.rules: dict[str, WindowRules] = {}
        self.connection = open_memory() if path is None else None
        self._path = path
        self._bells = Bells() if path is None else None
        self._nodes: dict[Ledger, Database] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[EmbeddedLedger]:
        async with open_database(
            self._path,
            clock=lambda: self.clock,
            parts=[PART],
            connection=self.connection,
            bells=self._bells,
            backstop=60,
            expiry=10**6,
            reclaim_every=1000,
        ) as database:
            ledger = EmbeddedLedger(database, lambda: self.clock, lambda name: self.rules.get(name, WindowRules()))
            self._nodes[ledger] = database
            yield ledger
            self._nodes.pop(ledger, None)

    async def elapse(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    async def kill(self, ledger: Ledger) -> None:
        victim = self._nodes.pop(ledger)
        victim.sever()
        for database in self._nodes.values():
            await database.sessions.reclaim([victim.session] if self._path is None else [])


class TestEmbeddedLedgerOnDisk(LedgerContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> EmbeddedWorld:
        return EmbeddedWorld(tmp_path / "home" / "ionbeam.sqlite")


class TestEmbeddedLedgerInMemory(LedgerContract):
    @pytest.fixture
    def world(self) -> EmbeddedWorld:
        return EmbeddedWorld(None)


# -- cost ----------------------------------------------------------------------------------------------------------


class Meter:
    """Counts the steps of SQLite's virtual machine: what a transition looks at, whatever the machine's speed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._steps = 0
        connection.set_progress_handler(self._tick, 1)

    def _tick(self) -> int:
        self._steps += 1
        return 0

    async def of(self, transition: Callable[[], Awaitable[object]]) -> int:
        before = self._steps
        await transition()
        return self._steps - before


async def costs(history: int) -> dict[str, int]:
    """Steps of each transition, beside `history` ingestions and windows that are built and some that wait."""
    world = EmbeddedWorld(None)
    async with world.open() as ledger:
        for number in range(history):
            hour = number + 10.0
            await ledger.accept(await acceptance(ledger, f"old{number}", {hour: 1}, [(hour, hour + 1)]))
            await ledger.enter(f"old{number}")
            await build(ledger, await leased(ledger), f"content {number}")
            await ledger.accept(await acceptance(ledger, f"wait{number}", {-hour: 1}, [(-hour, 0.5 - hour)]))
            await ledger.enter(f"wait{number}")
            await ledger.first_handed(f"handed{number}")
            await ledger_suite.emptied(ledger)
        assert world.connection is not None
        meter = Meter(world.connection)
        new = await acceptance(ledger, "new", {0: 1, 5: 1}, [(0, 9)])
        other = await acceptance(ledger, "other", {0: 2}, [(0, 1)], replaces=("new",))
        found = {
            "standing": await meter.of(lambda: ledger.standing("new")),
            "first_handed": await meter.of(lambda: ledger.first_handed("new")),
            "contract": await meter.of(lambda: ledger.contract("air")),
            "accept": await meter.of(lambda: ledger.accept(new)),
            "outbox": await meter.of(lambda: ledger.outbox(10)),
            "enter": await meter.of(lambda: ledger.enter("new")),
            "next_due": await meter.of(ledger.next_due),
            "unsettled": await meter.of(ledger.unsettled),
        }
        found["lease"] = await meter.of(lambda: ledger.lease(60))
        lease = await leased(ledger)
        found["renew"] = await meter.of(lambda: ledger.renew(lease, 60))
        found["failed"] = await meter.of(lambda: ledger.failed(lease, "x", 0.0))
        again = await leased(ledger)
        found["release"] = await meter.of(lambda: ledger.release(again))
        last = await leased(ledger)
        found["built"] = await meter.of(lambda: build(ledger, last, "new content"))
        await ledger.accept(other)
        found["enter, replacing"] = await meter.of(lambda: ledger.enter("other"))
        found["retract"] = await meter.of(lambda: ledger.retract("other", b"r"))
        numbers = [entry.number for entry in await ledger.outbox(10)]
        found["pending"] = await meter.of(lambda: ledger.pending(numbers))
        found["clear"] = await meter.of(lambda: ledger.clear(numbers, "journal/n/000000000001"))
        found["current"] = await meter.of(lambda: ledger.current("air", ledger_suite.ZERO))
        found["latest"] = await meter.of(lambda: ledger.latest("air"))
        found["last_revision"] = await meter.of(ledger.last_revision)
        place = await ledger.last_revision()
        found["revisions"] = await meter.of(lambda: ledger.revisions(place - 1, 10))
        found["stamp"] = await meter.of(lambda: ledger.stamp("c"))
        found["ingestion"] = await meter.of(lambda: ledger.ingestion("new"))
        found["ingestions, a page"] = await meter.of(lambda: ledger.ingestions("old5", 3))
        found["windows, a page"] = await meter.of(lambda: ledger.windows("air", ("air", ledger_suite.ZERO), 3))
        found["windows, all"] = await meter.of(lambda: ledger.windows(None, ("air", ledger_suite.ZERO), 3))
        found["windows, pending"] = await meter.of(
            lambda: ledger.windows("air", ("air", ledger_suite.ZERO), 3, pending=True)
        )
        found["retry_windows"] = await meter.of(lambda: ledger.retry_windows(None, b"r"))
    return found


async def test_cost_does_not_grow_with_history() -> None:
    """Each transition looks at as much beside 400 old ingestions and windows as beside 20."""
    small, large = await costs(20), await costs(400)
    grown = {name: (small[name], large[name]) for name in small if large[name] > 1.3 * small[name] + 20}
    assert not grown, f"these look at history (steps beside 20, beside 400): {grown}"
    assert min(large.values()) > 0
