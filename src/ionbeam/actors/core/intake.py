"""From the broker into a mailbox: receive, decode, hand on. The broker has counted the attempt before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import trio

from ionbeam.actors.core.backoff import Backoff, steady
from ionbeam.actors.core.delivery import Delivery
from ionbeam.actors.core.mailbox import Mailbox
from ionbeam.actors.core.patience import patient
from ionbeam.errors import IonbeamError, Poison, Unavailable
from ionbeam.ports.broker import Broker, Consumer, Incoming

T = TypeVar("T")


class BrokerSettler:
    """Settles `incoming` with `broker`, and awaits `on_bury` before the broker buries."""

    def __init__(self, broker: Broker, incoming: Incoming, on_bury: Callable[[Incoming, str], Awaitable[None]]) -> None:
        self._broker = broker
        self._incoming = incoming
        self._on_bury = on_bury
        self._told = False

    async def ack(self) -> bool:
        return await self._broker.ack(self._incoming)

    async def give_back(self) -> bool:
        return await self._broker.give_back(self._incoming)

    async def retry(self, error: str, delay: float) -> bool:
        return await self._broker.retry(self._incoming, error, delay)

    async def bury(self, reason: str) -> bool:
        if not self._told:
            await self._on_bury(self._incoming, reason)
            self._told = True
        return await self._broker.bury(self._incoming, reason)


async def intake(
    consumer_of: Callable[[], AbstractAsyncContextManager[Consumer]],
    decode: Callable[[bytes], T],
    mailbox: Mailbox[T],
    broker: Broker,
    stopping: trio.Event,
    *,
    limit: int = 5,
    backoff: Backoff,
    max_suspect_attempts: int = 20,
    on_bury: Callable[[Incoming, str], Awaitable[None]],
    random: Callable[[], float] = steady,
    grace: float = 5.0,
    on_settled: Callable[[Delivery[Any]], None] | None = None,
    on_wait: Callable[[str, IonbeamError], None] | None = None,
) -> None:
    """Feed `mailbox` from a consumer until `stopping` is set; what it holds unput is given back.

    A message that does not decode (Poison) is buried; any other error of `decode` spends an attempt. A
    message whose attempts are used up although no failure buried it ended its process each time: it is buried
    before it is decoded. That is after `limit` attempts; for a suspect one after `max_suspect_attempts` if
    that is more, because whatever lay in a mailbox when its process was killed is suspect too. Give `limit`
    for both where a kill is always its fault.

    `on_bury` is awaited before every bury, also those from a Delivery, and may be repeated when the process
    dies in between. An unavailable broker is waited for in place. `random`, `grace`, `on_settled`: see
    Delivery; `on_wait`: see `patient`.
    """

    def deliver(incoming: Incoming, message: Any) -> Delivery[Any]:
        return Delivery(
            message,
            BrokerSettler(broker, incoming, on_bury),
            attempt=incoming.attempt,
            suspect=incoming.suspect,
            limit=limit,
            backoff=backoff,
            random=random,
            grace=grace,
            on_settled=on_settled,
            label=f"{incoming.queue}/{incoming.message_id}",
        )

    async def hand_on(incoming: Incoming) -> None:
        try:
            _refuse_used_up(incoming, limit, max_suspect_attempts)
            message = decode(incoming.body)
        except Exception as error:
            async with deliver(incoming, incoming):
                raise error
        else:
            await _put(mailbox, deliver(incoming, message), stopping)

    async def feed(consumer: Consumer) -> None:
        willing = patient(consumer, backoff, random=random, on_wait=on_wait)
        async with _until(stopping):
            while True:
                await hand_on(await willing.receive())

    failures = 0
    while not stopping.is_set():
        try:
            # The consumer stays outside of what `stopping` cancels: it leaves in peace.
            async with consumer_of() as consumer:
                failures = 0
                await feed(consumer)
        except Unavailable as error:
            failures += 1
            if on_wait is not None:
                on_wait("consume", error)
            with trio.move_on_after(backoff.delay(failures, random)):
                await stopping.wait()


async def _put(mailbox: Mailbox[T], delivery: Delivery[T], stopping: trio.Event) -> None:
    try:
        await mailbox.put(delivery)
    except BaseException as error:
        await delivery.give_back()
        # A node may close its mailboxes in the moment in which it stops us: that is no failure.
        if not (isinstance(error, trio.ClosedResourceError) and stopping.is_set()):
            raise


@asynccontextmanager
async def _until(stopping: trio.Event) -> AsyncIterator[None]:
    """The body is cancelled when `stopping` is set."""

    async def watch(scope: trio.CancelScope) -> None:
        await stopping.wait()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        yield
        nursery.cancel_scope.cancel()


def _refuse_used_up(incoming: Incoming, limit: int, max_suspect_attempts: int) -> None:
    most = max(limit, max_suspect_attempts) if incoming.suspect else limit
    if incoming.attempt <= most:
        return
    history = "; ".join(f"{past.at.isoformat()} {past.error}" for past in incoming.history)
    raise Poison(
        f"this would be attempt {incoming.attempt} and at most {most} are made: it repeatedly ended"
        f" with its process ({len(incoming.history)} of {incoming.attempt - 1} attempts left an error);"
        f" history: {history or 'none'}"
    )
