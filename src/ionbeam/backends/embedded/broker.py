"""The embedded broker: durable queues in the home's SQLite file."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import trio

from ionbeam.backends.embedded import queues
from ionbeam.backends.embedded.database import Database
from ionbeam.backends.embedded.queues import PART, Receipt
from ionbeam.errors import IonbeamError, SettlementError
from ionbeam.ports.broker import DeadLetter, Incoming, QueueDepth

__all__ = ["PART", "EmbeddedBroker"]

log = logging.getLogger(__name__)


class EmbeddedBroker:
    """A Broker in a Database that was opened with PART. `clock` gives UTC.

    Publishing to an exchange with no queue succeeds and goes nowhere; publishing to a queue declares it. All
    methods raise Unavailable while the file cannot be used, and have changed nothing then.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._holders: dict[Receipt, _Consumer] = {}
        self._stranded: set[Receipt] = set()

    async def bind(self, queue: str, exchange: str) -> bool:
        return await self._database.write(lambda connection: queues.bind(connection, queue, exchange))

    async def publish(self, exchange: str, message_id: str, body: bytes) -> None:
        now = self._clock()
        rings: set[str] = set()

        def change(connection: sqlite3.Connection) -> None:
            names = queues.bound_to(connection, exchange)
            queues.put(connection, names, message_id, body, now)
            rings.update(map(_topic, names))

        await self._database.write(change, rings)

    async def publish_to(self, queue: str, message_id: str, body: bytes) -> None:
        now = self._clock()
        await self._database.write(
            lambda connection: queues.put(connection, [queue], message_id, body, now), [_topic(queue)]
        )

    @asynccontextmanager
    async def consume(self, queue: str, prefetch: int) -> AsyncIterator[_Consumer]:
        if prefetch < 1:
            raise ValueError(f"prefetch must be at least 1, got {prefetch}")
        consumer = _Consumer(self, queue, prefetch)
        try:
            yield consumer
        finally:
            with trio.CancelScope(shield=True):
                await self._return(queue, consumer.leave())

    async def ack(self, incoming: Incoming) -> bool:
        return await self._settle(incoming, queues.ack)

    async def give_back(self, incoming: Incoming) -> bool:
        return await self._settle(incoming, queues.give_back, [_topic(incoming.queue)])

    async def retry(self, incoming: Incoming, error: str, delay: float) -> bool:
        now = self._clock()
        due = now + timedelta(seconds=delay)
        return await self._settle(
            incoming,
            lambda connection, receipt: queues.retry(connection, receipt, error, now, due),
            [_topic(incoming.queue)],
        )

    async def bury(self, incoming: Incoming, reason: str) -> bool:
        now = self._clock()
        return await self._settle(incoming, lambda connection, receipt: queues.bury(connection, receipt, reason, now))

    async def depths(self) -> list[QueueDepth]:
        now = self._clock()
        return await self._database.read(lambda connection: queues.depths(connection, now))

    async def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        return await self._database.read(lambda connection: queues.dead_letters(connection, queue))

    async def _settle(
        self,
        incoming: Incoming,
        change: Callable[[sqlite3.Connection, Receipt], bool],
        rings: list[str] | None = None,
    ) -> bool:
        receipt = incoming.receipt
        if not isinstance(receipt, Receipt):
            raise SettlementError(
                f"message {incoming.message_id!r} has the receipt of another broker: {receipt!r};"
                " settle it where it was received"
            )
        held = await self._database.write(lambda connection: change(connection, receipt), rings or ())
        consumer = self._holders.pop(receipt, None)
        if consumer is not None:
            consumer.settled(receipt)
        return held

    async def _take(self, consumer: _Consumer, most: int) -> tuple[list[Incoming], datetime | None]:
        """Up to `most` messages, or none and the time at which the next delayed one is due."""
        now = self._clock()
        sessions = self._database.sessions
        stranded = frozenset(self._stranded)

        def change(connection: sqlite3.Connection) -> tuple[list[Incoming], datetime | None]:
            for receipt in stranded:
                queues.give_back(connection, receipt)
            taken = queues.take(connection, consumer.queue, most, sessions.own, now)
            if not taken:
                return taken, queues.next_due(connection, consumer.queue)
            sessions.present(connection, now)
            return taken, None

        taken, due = await self._database.write(change)
        self._stranded -= stranded
        for incoming in taken:
            assert isinstance(incoming.receipt, Receipt)
            self._holders[incoming.receipt] = consumer
        return taken, due

    async def _return(self, queue: str, receipts: list[Receipt]) -> None:
        """Give back what was never handed out; what cannot go back now does so with the next taking."""

        def change(connection: sqlite3.Connection) -> None:
            for receipt in receipts:
                queues.give_back(connection, receipt)

        for receipt in receipts:
            self._holders.pop(receipt, None)
        if receipts:
            try:
                await self._database.write(change, [_topic(queue)])
            except IonbeamError as error:
                self._stranded.update(receipts)
                log.warning("%d messages of queue %r stay taken for now: %s", len(receipts), queue, error)

    async def _wait(self, topic: str, seen: int, due: datetime | None) -> None:
        patience = math.inf if due is None else max(0.0, (due - self._clock()).total_seconds())
        with trio.move_on_after(patience):
            await self._database.bells.wait(topic, seen)

    def _ring_count(self, topic: str) -> int:
        return self._database.bells.bell(topic)


class _Consumer:
    """Keeps at most `prefetch` messages unsettled. Several tasks may receive at once."""

    def __init__(self, broker: EmbeddedBroker, queue: str, prefetch: int) -> None:
        self.queue = queue
        self._broker = broker
        self._prefetch = prefetch
        self._waiting: deque[Incoming] = deque()
        self._unsettled: set[Receipt] = set()
        self._room = trio.Event()
        self._turn = trio.Lock()

    async def receive(self) -> Incoming:
        # Nothing may wait between a taking and the pop: a cancellation there would keep the message from
        # everybody.
        async with self._turn:
            while not self._waiting:
                await self._fill()
            return self._waiting.popleft()

    async def _fill(self) -> None:
        """Take messages, or else wait until that may be possible."""
        room = self._prefetch - len(self._unsettled)
        if room <= 0:
            self._room = trio.Event()
            await self._room.wait()
            return
        topic = _topic(self.queue)
        seen = self._broker._ring_count(topic)
        taken, due = await self._broker._take(self, room)
        self._waiting.extend(taken)
        self._unsettled.update(incoming.receipt for incoming in taken if isinstance(incoming.receipt, Receipt))
        if not taken:
            await self._broker._wait(topic, seen, due)

    def settled(self, receipt: Receipt) -> None:
        self._unsettled.discard(receipt)
        self._room.set()

    def leave(self) -> list[Receipt]:
        """The receipts of what was never handed out."""
        waiting = [incoming.receipt for incoming in self._waiting if isinstance(incoming.receipt, Receipt)]
        self._waiting.clear()
        return waiting


def _topic(queue: str) -> str:
    return f"queue:{queue}"
