"""A bounded typed channel of deliveries. The node owns it; actors borrow its inbox."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio
from msgspec import Struct

from ionbeam.actors.core.delivery import Delivery
from ionbeam.errors import MessageTypeError

T = TypeVar("T")


class MailboxStatistics(Struct, frozen=True, kw_only=True):
    """A mailbox at one moment.

    `waiting` deliveries of at most `capacity` lie in it, `blocked_senders` wait for room, `put` and `taken`
    count what came in and what went out since it was made (`remaining` counts as taken), `closed`: nothing
    more comes in.
    """

    name: str
    capacity: int
    waiting: int
    blocked_senders: int
    put: int
    taken: int
    closed: bool


class Inbox(Generic[T]):
    """The reading end of a mailbox: `async for delivery in inbox`. The reader holds what it got.

    Several workers may iterate at once, each delivery goes to one of them. A reader that is cancelled while
    it waits takes nothing; one that stops leaves the rest for the next. Iteration ends when intake is closed
    and all is read.
    """

    def __init__(self, mailbox: Mailbox[T]) -> None:
        self._mailbox = mailbox

    def __aiter__(self) -> Inbox[T]:
        return self

    async def __anext__(self) -> Delivery[T]:
        try:
            return await self._mailbox.take()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


class Mailbox(Generic[T]):
    """Deliveries of `kind` messages, at most `capacity` of them, first in first out."""

    def __init__(self, name: str, kind: type[T], capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"mailbox {name!r}: capacity must be at least 1, got {capacity}")
        self.name = name
        self.kind = kind
        self.capacity = capacity
        self.inbox: Inbox[T] = Inbox(self)
        # Both ends stay here: a channel whose last receiver closes drops what it holds.
        self._in, self._out = trio.open_memory_channel[Delivery[T]](capacity)
        self._put = 0
        self._taken = 0
        self._closed = False

    async def put(self, delivery: Delivery[T]) -> None:
        """Hand `delivery` over; waits while the mailbox is full. Cancelled or refused, the sender holds it.

        Raises MessageTypeError for a message of another kind and SettlementError for a delivery that is not
        held, both before waiting, and trio.ClosedResourceError once intake is closed, also to those who wait.
        """
        if not isinstance(delivery.message, self.kind):
            raise MessageTypeError(
                f"mailbox {self.name!r} takes {self.kind.__name__},"
                f" got {type(delivery.message).__name__}: wire its sender to a mailbox of that type"
            )
        delivery.hand_over()
        try:
            await self._in.send(delivery)
        except trio.ClosedResourceError:
            delivery.take()
            raise trio.ClosedResourceError(f"mailbox {self.name!r} has closed its intake") from None
        except BaseException:
            delivery.take()
            raise
        self._put += 1

    async def take(self) -> Delivery[T]:
        """The next delivery, for the caller to hold; waits for it. trio.EndOfChannel when closed and dry."""
        return self._taking(await self._out.receive())

    def close(self) -> None:
        """Close intake. What is in the mailbox can still be read. Closing twice is fine."""
        self._closed = True
        self._in.close()

    def remaining(self) -> list[Delivery[T]]:
        """Close intake and take out what was never read, oldest first; the caller holds it and settles it."""
        self.close()
        left: list[Delivery[T]] = []
        while True:
            try:
                left.append(self._taking(self._out.receive_nowait()))
            except (trio.WouldBlock, trio.EndOfChannel):
                return left

    def statistics(self) -> MailboxStatistics:
        """How full it is, and what went through it."""
        channel = self._out.statistics()
        return MailboxStatistics(
            name=self.name,
            capacity=self.capacity,
            waiting=channel.current_buffer_used,
            blocked_senders=channel.tasks_waiting_send,
            put=self._put,
            taken=self._taken,
            closed=self._closed,
        )

    def _taking(self, delivery: Delivery[T]) -> Delivery[T]:
        delivery.take()
        self._taken += 1
        return delivery
