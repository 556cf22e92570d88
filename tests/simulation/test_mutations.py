"""The simulation notices a broken promise: each is broken on purpose, and a few seeds find it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
import pyarrow as pa
import pytest

from ionbeam.actors.core import Inbox
from ionbeam.actors.relay import GROUP, Relay
from ionbeam.backends.embedded import ledger as ledger_backend
from ionbeam.backends.embedded import ledger_leases, queues
from ionbeam.backends.embedded.broker import EmbeddedBroker
from ionbeam.backends.embedded.ledger import EmbeddedLedger
from ionbeam.backends.embedded.observations import SegmentStore
from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.ports.broker import Consumer, Incoming
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import Share
from ionbeam.ports.records import Acceptance, Accepted, BuildOutcome, Lease, Revision
from ionbeam.schemas import routes
from ionbeam.schemas.messages import DataSetAvailableEvent
from ionbeam.testing import life
from ionbeam.testing.simulation import simulate

MOST_SEEDS = 120


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# -- messages ----------------------------------------------------------------------------------------------------------


class AcksOnReceipt(EmbeddedBroker):
    """Acknowledges a message when it is handed out: its effect is still to come."""

    @asynccontextmanager
    async def consume(self, queue: str, prefetch: int) -> AsyncIterator[Any]:
        async with super().consume(queue, prefetch) as consumer:
            yield _AcksOnReceipt(super().ack, consumer)

    async def ack(self, incoming: Incoming) -> bool:
        return True


class _AcksOnReceipt:
    def __init__(self, ack: Callable[[Incoming], Awaitable[bool]], consumer: Consumer) -> None:
        self._ack, self._consumer = ack, consumer

    async def receive(self) -> Incoming:
        incoming = await self._consumer.receive()
        await self._ack(incoming)
        return incoming


@contextmanager
def ack_before_the_effect() -> Iterator[None]:
    with patch.object(life, "EmbeddedBroker", AcksOnReceipt):
        yield


def _forgets_the_death(connection: sqlite3.Connection, session: str) -> None:
    """What a dead process held comes back as if it had never been handed out."""
    connection.execute("UPDATE messages SET holder = NULL, attempts = attempts - 1 WHERE holder = ?", (session,))


@contextmanager
def attempts_counted_after_the_work() -> Iterator[None]:
    part = msgspec.structs.replace(queues.PART, on_dead=_forgets_the_death)
    with patch.object(life, "PARTS", (part, ledger_backend.PART)):
        yield


# -- outbox and journal ------------------------------------------------------------------------------------------------


class ClearsFirst(Relay):
    """Takes decisions out of the outbox before anybody has heard of them."""

    async def _relay_group(self) -> int:
        entries = await self._ledger.outbox(GROUP)
        await self._ledger.clear([entry.number for entry in entries], routes.journal_key(self._node, 1))
        ledger = self._ledger

        class Remembered:
            async def outbox(self, limit: int) -> Any:
                return entries

            def __getattr__(self, name: str) -> Any:
                return getattr(ledger, name)

        with patch.object(self, "_ledger", Remembered()):
            return await super()._relay_group()


class AcksUnjournaled(Relay):
    """Tells those who ask that their decision is in the journal, whether or not it is."""

    async def confirmed(self, entry: int | None, *, fresh: bool = True) -> None: ...


@contextmanager
def outbox_cleared_before_publishing() -> Iterator[None]:
    with patch("ionbeam.wiring.Relay", ClearsFirst):
        yield


@contextmanager
def journal_after_the_ack() -> Iterator[None]:
    with patch("ionbeam.wiring.Relay", AcksUnjournaled):
        yield


# -- rows and claims ---------------------------------------------------------------------------------------------------


class StoresLate(SegmentStore):
    """Keeps what it confirms in memory, until the next call."""

    def __init__(self, objects: ObjectStore, token: Callable[[], str]) -> None:
        super().__init__(_Late(objects), token)  # type: ignore[arg-type]

    def read(self, dataset: str, ingestion: str, share: Share) -> Iterator[pa.Table]:
        self._objects.flush()  # type: ignore[attr-defined]
        return super().read(dataset, ingestion, share)

    def write(
        self, dataset: str, ingestion: str, span_us: int, schema: pa.Schema, tables: Iterable[pa.Table]
    ) -> list[Share]:
        self._objects.flush()  # type: ignore[attr-defined]
        return super().write(dataset, ingestion, span_us, schema, tables)


class _Late:
    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._waiting: list[tuple[str, bytes]] = []

    def flush(self) -> None:
        while self._waiting:
            key, content = self._waiting.pop()
            with self._objects.upload() as upload:
                upload.file.write(content)
                upload.commit(key)

    @contextmanager
    def upload(self) -> Iterator[Any]:
        scratch, waiting = MemoryObjects(), self._waiting
        with scratch.upload() as upload:

            class Later:
                file = upload.file

                def commit(self, key: str) -> None:
                    waiting.append((key, self.file.getvalue().to_pybytes()))

            yield Later()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


@contextmanager
def claim_entered_before_rows_are_stored() -> Iterator[None]:
    with patch.object(life, "SegmentStore", StoresLate):
        yield


class AcceptsTwice(EmbeddedLedger):
    """Takes an id that it knows for a new one, and lets it enter again."""

    async def accept(self, acceptance: Acceptance) -> Accepted:
        again = msgspec.structs.replace(acceptance, id=f"{acceptance.id}-again")
        known = (await self.standing(acceptance.id)).accepted
        return await super().accept(again if known else acceptance)


@contextmanager
def an_id_is_accepted_twice() -> Iterator[None]:
    with patch.object(life, "EmbeddedLedger", AcceptsTwice):
        yield


_LEASE, _BUILT = ledger_leases.lease, ledger_leases.built

# -- building and exporting --------------------------------------------------------------------------------------------


def _by_arrival(db: sqlite3.Connection, *args: Any) -> Lease:
    """Ranks the ingestions of a window by when they were accepted."""
    lease = _LEASE(db, *args)
    arrived = dict(db.execute("SELECT id, seq FROM ingestions").fetchall())
    return msgspec.structs.replace(lease, members=tuple(sorted(lease.members, key=lambda m: arrived[m.id])))


@contextmanager
def fold_by_arrival() -> Iterator[None]:
    with patch.object(ledger_leases, "lease", _by_arrival):
        yield


def _any_result(db: sqlite3.Connection, lease: Lease, revision: Revision, now: int) -> BuildOutcome:
    """Records whatever any builder hands in, as the next revision, whoever holds the lease by now."""
    place = (lease.dataset, lease.window_start)
    token, number = db.execute("SELECT token, number FROM windows WHERE dataset = ? AND start = ?", place).fetchone()
    if token != lease.token:
        db.execute("UPDATE windows SET token = ? WHERE dataset = ? AND start = ?", (lease.token, *place))
        revision = msgspec.structs.replace(revision, number=number + 1)
    return _BUILT(db, lease, revision, now)


@contextmanager
def lease_token_not_checked() -> Iterator[None]:
    with patch.object(ledger_leases, "built", _any_result):
        yield


async def _export_all(inbox: Inbox[DataSetAvailableEvent], ledger: Ledger, apply: Any) -> None:
    async for delivery in inbox:
        async with delivery as event:
            await apply(event)


@contextmanager
def exporter_goes_back() -> Iterator[None]:
    with patch("ionbeam.wiring.export", _export_all):
        yield


# Each with a seed that is known to find it; others are tried when the load has changed since.
MUTATIONS: dict[Callable[[], AbstractContextManager[None]], int] = {
    ack_before_the_effect: 0,
    attempts_counted_after_the_work: 9,
    outbox_cleared_before_publishing: 0,
    journal_after_the_ack: 0,
    claim_entered_before_rows_are_stored: 0,
    an_id_is_accepted_twice: 8,
    fold_by_arrival: 0,
    lease_token_not_checked: 12,
    exporter_goes_back: 73,
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_promise_is_found(mutation: Callable[[], AbstractContextManager[None]]) -> None:
    """At least one seed fails once the promise is broken, and passes when it is whole again."""
    with mutation():
        tried = [MUTATIONS[mutation], *range(MOST_SEEDS)]
        found = next((seed for seed in tried if simulate(seed).problems), None)
    assert found is not None
    assert simulate(found).problems == []
