"""A node: the actors of one process, wired to the parts that `parts.py` has chosen."""

from __future__ import annotations

import os
import random as chance
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import Struct

from ionbeam.actors.core import (
    Child,
    ChildEvent,
    Delivery,
    Intensity,
    Mailbox,
    Settled,
    Supervisor,
)
from ionbeam.actors.ingestion import Prepare
from ionbeam.client.exporting import Exporter
from ionbeam.config import Topology
from ionbeam.domain.windows import EPOCH
from ionbeam.parts import Ports
from ionbeam.ports.records import MailboxState, NodeState
from ionbeam.schemas.journal import RulesInForce, record
from ionbeam.version import VERSION
from ionbeam.wiring import Wiring

T = TypeVar("T")
REPORT_SECONDS = 2.0
BACKGROUND = ("reports", "relay")


class Stopped(Struct, frozen=True, kw_only=True):
    """How a node ended: the messages and windows that went back, the actors that were cancelled.

    `clean`: all that was in a mailbox has been done, nobody was cancelled.
    """

    clean: bool
    cut: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()


class Node:
    """All actors of one process. `run` until `drain`; both once."""

    def __init__(
        self,
        topology: Topology,
        ports: Ports,
        exporters: Sequence[Exporter] = (),
        *,
        random: Callable[[], float] = chance.random,
        prepare: Prepare | None = None,
        run_exporter: Callable[..., Awaitable[None]] | None = None,
        on_event: Callable[[ChildEvent], None] | None = None,
        on_settled: Callable[[Delivery[Any]], None] | None = None,
    ) -> None:
        self.topology = topology
        self.ports = ports
        self.activity = trio.Event()
        self._told = on_settled
        self._returned: list[str] = []
        self._draining = False
        self._reporting_ends = trio.Event()
        self._wiring = Wiring(
            topology,
            ports,
            random=random,
            prepare=prepare,
            run_exporter=run_exporter,
            on_settled=self._settled,
        )
        self._ledger = self._wiring.ledger
        self._supervisor = Supervisor(
            [Child("reports", self._report, self._reporting_ends.set), *self._wiring.children(exporters)],
            intensity=Intensity(topology.supervision.restarts, topology.supervision.within.microseconds / 1e6),
            backoff=self._wiring.backoff,
            random=random,
            on_event=on_event,
        )

    @property
    def mailboxes(self) -> list[Mailbox[Any]]:
        return self._wiring.mailboxes

    # -- life ------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Run the actors until `drain`. Raises NodeFailed when they keep failing."""
        await self._ledger.record(await self._rules_in_force())
        await self._ledger.reconsider()
        try:
            await self._supervisor.run()
        finally:
            await self._give_back_rest()

    async def drain(self, deadline: float | None = None) -> Stopped:
        """Close the intake, let the mailboxes run dry, cancel what is left at the deadline (seconds)."""
        self._draining = True
        if deadline is None:
            deadline = self.topology.node.drain_timeout.microseconds / 1e6
        drained = await self._supervisor.drain(deadline)
        await self._give_back_rest()
        # What an intake had taken and not put into a mailbox goes back in every drain: that is no failure.
        # The relay and the reports wait for all others: they are cut when another one was stuck, and owe nothing.
        cut = tuple(name for name in drained.cut if name not in BACKGROUND)
        return Stopped(clean=not cut, cut=cut, returned=tuple(self._returned))

    async def idle(self, look_again: float = 0.25) -> None:
        """Return when nothing is left to do: no message unsettled, no window due, nothing in an outbox."""
        while not await self._is_idle():
            self.activity = trio.Event()
            with trio.move_on_after(look_again):
                await self.activity.wait()

    async def _is_idle(self) -> bool:
        # Along the way that work takes, and the queues once more: it may have moved on while we looked.
        if await self._unsettled_messages():
            return False
        unsettled = await self._ledger.unsettled()
        return not (unsettled.windows or unsettled.decisions or await self._unsettled_messages())

    async def _unsettled_messages(self) -> int:
        depths = await self._wiring.broker.depths()
        return sum(depth.unsettled for depth in depths if depth.queue in self._wiring.queues)

    async def _give_back_rest(self) -> None:
        with trio.CancelScope(shield=True):
            for mailbox in self.mailboxes:
                for delivery in mailbox.remaining():
                    await delivery.give_back()

    async def _report(self) -> None:
        """Tell the ledger how the mailboxes are, now and then, when that has changed."""
        told: NodeState | None = None
        while not self._reporting_ends.is_set():
            state = NodeState(
                session=self.ports.session,
                name=self.topology.node.name,
                pid=os.getpid(),
                seen=EPOCH,
                mailboxes=tuple(_mailbox_state(mailbox) for mailbox in self.mailboxes),
            )
            if state != told:
                await self._ledger.report(msgspec.structs.replace(state, seen=await self._ledger.now()))
                told = state
            with trio.move_on_after(REPORT_SECONDS):
                await self._reporting_ends.wait()

    async def _rules_in_force(self) -> bytes:
        rules, windows = self.topology.rules, self.topology.windows
        body = RulesInForce(
            max_future=str(rules.max_future),
            cf=rules.cf,
            allow_incomplete_windows=windows.allow_incomplete_windows,
            min_rebuild_interval=str(windows.min_rebuild_interval),
            datasets=self.topology.datasets,
            code_version=VERSION,
        )
        return record("rules", self.ports.session, await self._ledger.now(), body)

    def _settled(self, delivery: Delivery[Any]) -> None:
        if self._draining and delivery.settled is Settled.RETURNED:
            self._returned.append(delivery.label)
        self.activity.set()
        if self._told is not None:
            self._told(delivery)


def _mailbox_state(mailbox: Mailbox[Any]) -> MailboxState:
    numbers = mailbox.statistics()
    return MailboxState(name=numbers.name, waiting=numbers.waiting, capacity=numbers.capacity)
