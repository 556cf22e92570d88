"""Coordination: which windows have news, and which of them are due.

`coordinate` lets each ingestion take effect in the windows that it touches; the ledger schedules them. `call_due`
leases windows as they become due and hands them to building, one as soon as a builder is free for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import trio

from ionbeam.actors.core import Backoff, Delivery, Inbox, Mailbox
from ionbeam.domain.windows import moment
from ionbeam.ports.ledger import Ledger, Watch
from ionbeam.ports.records import Lease
from ionbeam.schemas.messages import DataAvailableEvent

LEASE_SECONDS = 60.0
LEASE_GRACE = 10.0
BUILD_LIMIT = 5


async def coordinate(inbox: Inbox[DataAvailableEvent], ledger: Ledger) -> None:
    """Let what is available take effect, until the inbox ends."""
    async for delivery in inbox:
        async with delivery as event:
            await ledger.enter(event.id)


async def call_due(
    ledger: Ledger,
    mailbox: Mailbox[Lease],
    stopping: trio.Event,
    *,
    backoff: Backoff,
    random: Callable[[], float],
    ttl: float = LEASE_SECONDS,
    limit: int = BUILD_LIMIT,
    on_settled: Callable[[Delivery[Any]], None] | None = None,
) -> None:
    """Feed `mailbox` with windows as they become due, until `stopping` is set.

    A lease is kept alive from here until it is settled, also while it waits in the mailbox.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop, stopping, nursery.cancel_scope)
        while True:
            watch, lease = ledger.watch("windows"), None
            with trio.move_on_after(LEASE_GRACE, shield=True):
                # Shielded: a lease that nobody has heard of would block its window until it expires.
                lease = None if stopping.is_set() else await ledger.lease(ttl)
            if lease is None:
                await _until_due(ledger, watch)
                continue
            settler = LeaseSettler(ledger, lease)
            nursery.start_soon(settler.keep_alive, ttl)
            delivery = Delivery(
                lease,
                settler,
                attempt=lease.failures + 1,
                limit=limit,
                backoff=backoff,
                random=random,
                on_settled=on_settled,
                label=f"window {lease.dataset} {moment(lease.window_start):%Y-%m-%dT%H:%M:%SZ}",
            )
            try:
                await mailbox.put(delivery)
            except (trio.Cancelled, trio.ClosedResourceError):
                await delivery.give_back()
                raise


async def _stop(stopping: trio.Event, scope: trio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel()


async def _until_due(ledger: Ledger, watch: Watch) -> None:
    """Wait for the next due moment, or for news that may change it."""
    due = await ledger.next_due()
    seconds = math.inf if due is None else (due - await ledger.now()).total_seconds()
    with trio.move_on_after(max(seconds, 0.001)):
        await watch.wait()


class LeaseSettler:
    """Settles a window's lease as a broker settles a message."""

    def __init__(self, ledger: Ledger, lease: Lease) -> None:
        self._ledger = ledger
        self._lease = lease
        self._settled = trio.Event()

    async def keep_alive(self, ttl: float) -> None:
        """Renew the lease until it is settled or lost."""
        while True:
            with trio.move_on_after(ttl / 3):
                await self._settled.wait()
                return
            if not await self._ledger.renew(self._lease, ttl):
                return

    async def ack(self) -> bool:
        """Building has recorded what it built; the lease ended with that."""
        self._settled.set()
        return True

    async def give_back(self) -> bool:
        self._settled.set()
        await self._ledger.release(self._lease)
        return True

    async def retry(self, error: str, delay: float) -> bool:
        self._settled.set()
        await self._ledger.failed(self._lease, error, delay)
        return True

    async def bury(self, reason: str) -> bool:
        """A window is never buried: it is parked, until new data or an operator frees it."""
        self._settled.set()
        await self._ledger.failed(self._lease, reason, None)
        return True
