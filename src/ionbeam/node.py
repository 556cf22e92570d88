"""A node: the actors of one process, wired to the parts that `parts.py` has chosen."""

from __future__ import annotations

import os
import random as chance
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import Struct

from ionbeam.actors.building import build
from ionbeam.actors.coordination import call_due, coordinate
from ionbeam.actors.core import (
    Backoff,
    Child,
    ChildEvent,
    Delivery,
    Intensity,
    Mailbox,
    Settled,
    Supervisor,
    intake,
    patient,
)
from ionbeam.actors.export import Apply, export
from ionbeam.actors.ingestion import Prepare, ingest
from ionbeam.actors.isolation import prepare_apart
from ionbeam.actors.prepare import PrepareRules, prepare
from ionbeam.actors.relay import Relay
from ionbeam.client.exporting import DatasetRevision, Exporter
from ionbeam.config import StageSettings, Topology
from ionbeam.domain.windows import EPOCH
from ionbeam.parts import Ports
from ionbeam.ports.broker import Consumer, Incoming
from ionbeam.ports.records import Lease, MailboxState, NodeState
from ionbeam.schemas import routes
from ionbeam.schemas.codec import decode, encode
from ionbeam.schemas.journal import RefusedMessage, RulesInForce, record
from ionbeam.schemas.messages import DataAvailableEvent, DataSetAvailableEvent, IngestDataCommand
from ionbeam.version import VERSION

T = TypeVar("T")
CATCH_UP_PAGE = 500
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
        self._random = random
        attempts = topology.attempts
        self._backoff = Backoff(
            first=attempts.first_delay.microseconds / 1e6, most=attempts.longest_delay.microseconds / 1e6
        )
        self._ledger = patient(ports.ledger, self._backoff, random=random)
        self._broker = patient(ports.broker, self._backoff, random=random)
        self._objects = patient(ports.objects, self._backoff, random=random)
        self._relay = Relay(ports.session, self._ledger, self._broker, self._objects)
        self._prepare = prepare or self._prepare_here
        self._run_exporter = run_exporter or _in_thread
        self._told = on_settled
        self._returned: list[str] = []
        self._draining = False
        self._reporting_ends = trio.Event()
        self.mailboxes: list[Mailbox[Any]] = []
        self._supervisor = Supervisor(
            self._children(exporters),
            intensity=Intensity(topology.supervision.restarts, topology.supervision.within.microseconds / 1e6),
            backoff=self._backoff,
            random=random,
            on_event=on_event,
        )

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
        queues = {*routes.BINDINGS, *self._exporter_queues}
        return sum(depth.unsettled for depth in await self._broker.depths() if depth.queue in queues)

    async def _give_back_rest(self) -> None:
        with trio.CancelScope(shield=True):
            for mailbox in self.mailboxes:
                for delivery in mailbox.remaining():
                    await delivery.give_back()

    # -- wiring ----------------------------------------------------------------------------------------------------
    def _children(self, exporters: Sequence[Exporter]) -> list[Child]:
        """In the order in which they start; they stop in reverse, so that the last stage runs dry last."""
        self._exporter_queues = [routes.exporter_queue(exporter.name) for exporter in exporters]
        stopping = trio.Event()
        children = [
            Child("reports", self._report, self._reporting_ends.set),
            Child("relay", partial(self._relay.run, stopping), stopping.set),
        ]
        for exporter in exporters:
            children += self._export_stage(exporter)
        return [*children, *self._build_stage(), *self._coordinate_stage(), *self._ingest_stage()]

    def _export_stage(self, exporter: Exporter) -> list[Child]:
        name = f"export-{exporter.name}"
        queue = routes.exporter_queue(exporter.name)
        mailbox = self._mailbox(name, DataSetAvailableEvent, 8)
        return [
            Child(name, lambda: export(mailbox.inbox, self._ledger, self._apply(exporter)), mailbox.close),
            self._intake(queue, mailbox, 8, before=lambda: self._catch_up(exporter.name, queue)),
        ]

    def _build_stage(self) -> list[Child]:
        settings = self.topology.actors.building
        if not settings.workers:
            return []
        mailbox = self._mailbox("building", Lease, settings.mailbox)
        stopping = trio.Event()

        async def work() -> None:
            await build(
                mailbox.inbox,
                self._ledger,
                self.ports.store,
                self.ports.objects,
                self.ports.workers,
                chunk_rows=self.topology.memory.chunk_rows,
            )

        async def call() -> None:
            await call_due(
                self._ledger,
                mailbox,
                stopping,
                backoff=self._backoff,
                random=self._random,
                limit=self.topology.attempts.limit,
                on_settled=self._settled,
            )

        return [*_workers("building", settings, work, mailbox), Child("windows", call, stopping.set)]

    def _coordinate_stage(self) -> list[Child]:
        settings = self.topology.actors.coordination
        if not settings.workers:
            return []
        mailbox = self._mailbox("coordination", DataAvailableEvent, settings.mailbox)
        return [
            *_workers("coordination", settings, lambda: coordinate(mailbox.inbox, self._ledger), mailbox),
            self._intake(routes.COORDINATION, mailbox, settings.prefetch),
        ]

    def _ingest_stage(self) -> list[Child]:
        settings = self.topology.actors.ingestion
        if not settings.workers:
            return []
        mailbox = self._mailbox("ingestion", IngestDataCommand, settings.mailbox)

        async def work() -> None:
            await ingest(
                mailbox.inbox,
                self._ledger,
                self.ports.objects,
                self._prepare,
                self._relay,
                self.ports.workers,
                max_future=self.topology.rules.max_future,
                cf_refuses=self.topology.rules.cf == "refuse",
            )

        return [
            *_workers("ingestion", settings, work, mailbox),
            self._intake(routes.INGESTION, mailbox, settings.prefetch),
        ]

    def _mailbox(self, name: str, kind: type[T], capacity: int) -> Mailbox[T]:
        mailbox = Mailbox(name, kind, capacity)
        self.mailboxes.append(mailbox)
        return mailbox

    def _intake(
        self,
        queue: str,
        mailbox: Mailbox[T],
        prefetch: int,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Child:
        stopping = trio.Event()

        def consumer() -> AbstractAsyncContextManager[Consumer]:
            return self.ports.broker.consume(queue, prefetch)

        async def run() -> None:
            if before is not None:
                await before()
            await intake(
                consumer,
                lambda body: decode(body, mailbox.kind),
                mailbox,
                self.ports.broker,
                stopping,
                limit=self.topology.attempts.limit,
                backoff=self._backoff,
                on_bury=self._journal_refusal,
                random=self._random,
                on_settled=self._settled,
            )

        return Child(f"{mailbox.name}-intake", run, stopping.set)

    # -- what the wiring calls -------------------------------------------------------------------------------------
    async def _prepare_here(self, command: IngestDataCommand, issued_at: datetime, suspect: bool) -> Any:
        rules = PrepareRules(max_future=self.topology.rules.max_future, chunk_rows=self.topology.memory.chunk_rows)
        if suspect:
            return await prepare_apart(isolated_command(self.topology), command, issued_at, rules)
        return await self.ports.workers.run(
            prepare, command, issued_at, rules, self.ports.objects, self.ports.store, _token
        )

    def _apply(self, exporter: Exporter) -> Apply:
        objects = self.ports.objects

        async def apply(event: DataSetAvailableEvent) -> None:
            key = event.dataset_location
            revision = DatasetRevision(event=event, url=objects.url(key), open=partial(objects.open, key))
            await self._run_exporter(exporter.apply, revision)

        return apply

    async def _catch_up(self, exporter: str, queue: str) -> None:
        """A new exporter begins with the current revision of every window."""
        await self._broker.bind(queue, routes.DATASET_AVAILABLE)
        done = f"exporter/{exporter}/caught-up"
        if await self._ledger.recall(done):
            return
        after: tuple[str, int] | None = None
        while page := await self._ledger.windows(None, after, CATCH_UP_PAGE):
            for window in page:
                if window.current is not None:
                    event = window.current.event
                    await self._broker.publish_to(queue, event.id, encode(event))
            after = (page[-1].dataset, page[-1].window_start)
        await self._ledger.remember(done, b"yes")

    async def _journal_refusal(self, incoming: Incoming, reason: str) -> None:
        refused = RefusedMessage(
            queue=incoming.queue,
            reason=reason,
            message=incoming.body.decode("utf-8", errors="backslashreplace"),
        )
        now = await self._ledger.now()
        entry = await self._ledger.record(record("refused", f"{incoming.message_id}/{incoming.attempt}", now, refused))
        await self._relay.confirmed(entry)

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


def _workers(
    stage: str, settings: StageSettings, work: Callable[[], Awaitable[None]], mailbox: Mailbox[Any]
) -> list[Child]:
    return [Child(f"{stage}-{number + 1}", work, mailbox.close, restart=False) for number in range(settings.workers)]


def _mailbox_state(mailbox: Mailbox[Any]) -> MailboxState:
    numbers = mailbox.statistics()
    return MailboxState(name=numbers.name, waiting=numbers.waiting, capacity=numbers.capacity)


async def _in_thread(function: Callable[..., None], *args: object) -> None:
    # An exporter may hang: its thread is left behind when the node must end.
    await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def _token() -> str:
    return uuid.uuid4().hex


def isolated_command(topology: Topology) -> list[str]:
    """The command line of a process that prepares one payload and ends."""
    return [sys.executable, "-m", "ionbeam.isolated", encode(topology).decode()]
