"""The relay: what the ledger decided goes into the journal, then out to the broker, then out of the outbox.

Whoever waits for a decision to be journaled (nobody acknowledges a message before that) asks `Relay.confirmed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ionbeam.ports.broker import Broker
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.schemas import routes

GROUP = 256
LOOK_AGAIN = 1.0


class Relay:
    """One a process. `node` names its journal: unique to the incarnation, so that no two write the same segment."""

    def __init__(self, node: str, ledger: Ledger, broker: Broker, objects: ObjectStore) -> None:
        self._node = node
        self._ledger = ledger
        self._broker = broker
        self._objects = objects
        self._segments = 0
        self._through = 0
        self._progress = trio.Condition()

    async def run(self, stopping: trio.Event) -> None:
        """Relay until `stopping` is set and the outbox is empty."""
        while True:
            watch = self._ledger.watch("outbox")
            if await self._relay_group():
                continue
            if stopping.is_set():
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_then_cancel, watch.wait, nursery.cancel_scope)
                nursery.start_soon(_then_cancel, stopping.wait, nursery.cancel_scope)

    async def _relay_group(self) -> int:
        """Relay what waits, one journal segment for all of it; how many entries."""
        entries = await self._ledger.outbox(GROUP)
        if not entries:
            return 0
        # Counted before: a put that failed may have stored its segment, and another group needs another key.
        self._segments += 1
        key = routes.journal_key(self._node, self._segments)
        await self._objects.put(key, b"\n".join(entry.record for entry in entries) + b"\n")
        async with trio.open_nursery() as nursery:  # together, so that they can share a commit
            for message in (message for entry in entries for message in entry.messages):
                nursery.start_soon(self._broker.publish, message.exchange, message.message_id, message.body)
        numbers = [entry.number for entry in entries]
        await self._ledger.clear(numbers, key)
        async with self._progress:
            self._through = max(self._through, numbers[-1])
            self._progress.notify_all()
        return len(entries)

    async def confirmed(self, entry: int | None, *, fresh: bool = True) -> None:
        """Wait until outbox entry `entry` is journaled and published. `fresh`: this process has just made it.

        Entries that another process made, or relays for us, are looked for in the outbox itself.
        """
        while entry is not None and not (fresh and self._through >= entry):
            if not fresh and not await self._ledger.pending([entry]):
                return
            with trio.move_on_after(LOOK_AGAIN) as waiting:
                async with self._progress:
                    if not fresh or self._through < entry:
                        await self._progress.wait()
            fresh = fresh and not waiting.cancelled_caught


async def _then_cancel(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
