"""What ionbeam needs of a message broker."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct


class Attempt(Struct, frozen=True):
    """One ended attempt at a message."""

    at: datetime
    error: str


class Incoming(Struct, frozen=True, kw_only=True):
    """A message in hand. `receipt` is the broker's own token for settling it.

    `attempt` counts from 1 and was durably recorded before the message was handed out. `suspect` is true when the
    process that held it before died with it in hand: what decodes it must not be trusted to survive.
    """

    queue: str
    message_id: str
    body: bytes
    attempt: int
    suspect: bool
    history: tuple[Attempt, ...]
    receipt: object


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that will not be tried again, with everything one needs to mend and replay it.

    `id` is the dead letter's own: one message may die more than once.
    """

    id: str
    message_id: str
    queue: str
    reason: str
    attempts: int
    first_failed: datetime
    last_failed: datetime
    body: bytes
    history: tuple[Attempt, ...] = ()


class QueueDepth(Struct, frozen=True, kw_only=True):
    """Messages of a queue: `ready` can be taken now, `delayed` after a back-off, `taken` are in somebody's hands."""

    queue: str
    ready: int
    delayed: int
    taken: int
    dead: int

    @property
    def unsettled(self) -> int:
        return self.ready + self.delayed + self.taken


class Consumer(Protocol):
    async def receive(self) -> Incoming:
        """The next message; waits for one. At most `prefetch` are unsettled at a time."""
        ...


class Broker(Protocol):
    """Durable queues fed by exchanges; at-least-once delivery; one holder of a message at a time."""

    async def bind(self, queue: str, exchange: str) -> bool:
        """Declare `queue` and feed it from `exchange` from now on. True when the queue is new."""
        ...

    async def publish(self, exchange: str, message_id: str, body: bytes) -> None:
        """Put a copy into every queue bound to `exchange`. Durable when it returns."""
        ...

    async def publish_to(self, queue: str, message_id: str, body: bytes) -> None:
        """Put a copy into one queue. Durable when it returns."""
        ...

    def consume(self, queue: str, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Take messages from `queue`. On leaving, what was taken and never handed out is back, its attempt unspent."""
        ...

    async def ack(self, incoming: Incoming) -> bool:
        """The message is done with. False when it was no longer held here (its lease was lost): an event, no error."""
        ...

    async def give_back(self, incoming: Incoming) -> bool:
        """Back to the front of the queue with its attempt unspent (drain, cancellation)."""
        ...

    async def retry(self, incoming: Incoming, error: str, delay: float) -> bool:
        """Back to the queue after `delay` seconds; the attempt stays spent and `error` joins its history."""
        ...

    async def bury(self, incoming: Incoming, reason: str) -> bool:
        """To the dead letters, with `reason` and its history."""
        ...

    async def depths(self) -> list[QueueDepth]:
        """Every queue with its depth."""
        ...

    async def dead_letters(self, queue: str | None = None) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        ...
