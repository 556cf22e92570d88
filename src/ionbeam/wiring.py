"""How the actors of a node are wired: a mailbox between each two, and what each of them is given."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import trio

from ionbeam.actors.building import build
from ionbeam.actors.coordination import call_due, coordinate
from ionbeam.actors.core import Backoff, Child, Delivery, Mailbox, intake, patient
from ionbeam.actors.export import Apply, export
from ionbeam.actors.ingestion import Prepare, ingest
from ionbeam.actors.isolation import prepare_apart
from ionbeam.actors.prepare import PrepareRules, prepare
from ionbeam.actors.relay import Relay
from ionbeam.client.exporting import DatasetRevision, Exporter
from ionbeam.config import StageSettings, Topology
from ionbeam.parts import Ports
from ionbeam.ports.broker import Consumer, Incoming
from ionbeam.ports.records import Lease
from ionbeam.schemas import routes
from ionbeam.schemas.codec import decode, encode
from ionbeam.schemas.journal import RefusedMessage, record
from ionbeam.schemas.messages import DataAvailableEvent, DataSetAvailableEvent, IngestDataCommand

T = TypeVar("T")
CATCH_UP_PAGE = 500


class Wiring:
    """The actors of one node as children of a supervisor, with the mailboxes between them.

    `ledger`, `broker` and `objects` wait in place while the port behind them is unavailable. `queues` are those that
    the node takes messages from.
    """

    def __init__(
        self,
        topology: Topology,
        ports: Ports,
        *,
        random: Callable[[], float],
        prepare: Prepare | None,
        run_exporter: Callable[..., Awaitable[None]] | None,
        on_settled: Callable[[Delivery[Any]], None],
    ) -> None:
        attempts = topology.attempts
        self.backoff = Backoff(
            first=attempts.first_delay.microseconds / 1e6, most=attempts.longest_delay.microseconds / 1e6
        )
        self.ledger = patient(ports.ledger, self.backoff, random=random)
        self.broker = patient(ports.broker, self.backoff, random=random)
        self.relay = Relay(ports.session, self.ledger, self.broker, patient(ports.objects, self.backoff, random=random))
        self.mailboxes: list[Mailbox[Any]] = []
        self.queues = set(routes.BINDINGS)
        self._topology = topology
        self._ports = ports
        self._random = random
        self._prepare = prepare or self._prepare_here
        self._run_exporter = run_exporter or _in_thread
        self._on_settled = on_settled

    def children(self, exporters: Sequence[Exporter]) -> list[Child]:
        """In the order in which they start; they stop in reverse, so that the last stage runs dry last."""
        self.queues |= {routes.exporter_queue(exporter.name) for exporter in exporters}
        stopping = trio.Event()
        children = [Child("relay", partial(self.relay.run, stopping), stopping.set)]
        for exporter in exporters:
            children += self._export_stage(exporter)
        return [*children, *self._build_stage(), *self._coordinate_stage(), *self._ingest_stage()]

    def _export_stage(self, exporter: Exporter) -> list[Child]:
        name = f"export-{exporter.name}"
        queue = routes.exporter_queue(exporter.name)
        mailbox = self._mailbox(name, DataSetAvailableEvent, 8)
        return [
            Child(name, lambda: export(mailbox.inbox, self.ledger, self._apply(exporter)), mailbox.close),
            self._intake(queue, mailbox, 8, before=lambda: self._catch_up(exporter.name, queue)),
        ]

    def _build_stage(self) -> list[Child]:
        settings = self._topology.actors.building
        if not settings.workers:
            return []
        mailbox = self._mailbox("building", Lease, settings.mailbox)
        stopping = trio.Event()

        async def work() -> None:
            await build(
                mailbox.inbox,
                self.ledger,
                self._ports.store,
                self._ports.objects,
                self._ports.workers,
                chunk_rows=self._topology.memory.chunk_rows,
            )

        async def call() -> None:
            await call_due(
                self.ledger,
                mailbox,
                stopping,
                backoff=self.backoff,
                random=self._random,
                limit=self._topology.attempts.limit,
                on_settled=self._on_settled,
            )

        return [*_workers("building", settings, work, mailbox), Child("windows", call, stopping.set)]

    def _coordinate_stage(self) -> list[Child]:
        settings = self._topology.actors.coordination
        if not settings.workers:
            return []
        mailbox = self._mailbox("coordination", DataAvailableEvent, settings.mailbox)
        return [
            *_workers("coordination", settings, lambda: coordinate(mailbox.inbox, self.ledger), mailbox),
            self._intake(routes.COORDINATION, mailbox, settings.prefetch),
        ]

    def _ingest_stage(self) -> list[Child]:
        settings = self._topology.actors.ingestion
        if not settings.workers:
            return []
        mailbox = self._mailbox("ingestion", IngestDataCommand, settings.mailbox)

        async def work() -> None:
            await ingest(
                mailbox.inbox,
                self.ledger,
                self._ports.objects,
                self._prepare,
                self.relay,
                self._ports.workers,
                max_future=self._topology.rules.max_future,
                cf_refuses=self._topology.rules.cf == "refuse",
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
            return self._ports.broker.consume(queue, prefetch)

        async def run() -> None:
            if before is not None:
                await before()
            await intake(
                consumer,
                lambda body: decode(body, mailbox.kind),
                mailbox,
                self._ports.broker,
                stopping,
                limit=self._topology.attempts.limit,
                backoff=self.backoff,
                on_bury=self._journal_refusal,
                random=self._random,
                on_settled=self._on_settled,
            )

        return Child(f"{mailbox.name}-intake", run, stopping.set)

    async def _prepare_here(self, command: IngestDataCommand, issued_at: datetime, suspect: bool) -> Any:
        rules = PrepareRules(
            max_future=self._topology.rules.max_future,
            chunk_rows=self._topology.memory.chunk_rows,
            scratch=self._ports.scratch,
        )
        if suspect:
            return await prepare_apart(isolated_command(self._topology), command, issued_at, rules)
        return await self._ports.workers.run(
            prepare, command, issued_at, rules, self._ports.objects, self._ports.store, _token
        )

    def _apply(self, exporter: Exporter) -> Apply:
        objects = self._ports.objects

        async def apply(event: DataSetAvailableEvent) -> None:
            key = event.dataset_location
            revision = DatasetRevision(event=event, url=objects.url(key), open=partial(objects.open, key))
            await self._run_exporter(exporter.apply, revision)

        return apply

    async def _catch_up(self, exporter: str, queue: str) -> None:
        """A new exporter begins with the current revision of every window."""
        await self.broker.bind(queue, routes.DATASET_AVAILABLE)
        done = f"exporter/{exporter}/caught-up"
        if await self.ledger.recall(done):
            return
        after: tuple[str, int] | None = None
        while page := await self.ledger.windows(None, after, CATCH_UP_PAGE):
            for window in page:
                if window.current is not None:
                    event = window.current.event
                    await self.broker.publish_to(queue, event.id, encode(event))
            after = (page[-1].dataset, page[-1].window_start)
        await self.ledger.remember(done, b"yes")

    async def _journal_refusal(self, incoming: Incoming, reason: str) -> None:
        refused = RefusedMessage(
            queue=incoming.queue,
            reason=reason,
            message=incoming.body.decode("utf-8", errors="backslashreplace"),
        )
        now = await self.ledger.now()
        entry = await self.ledger.record(record("refused", f"{incoming.message_id}/{incoming.attempt}", now, refused))
        await self.relay.confirmed(entry)


def _workers(
    stage: str, settings: StageSettings, work: Callable[[], Awaitable[None]], mailbox: Mailbox[Any]
) -> list[Child]:
    return [Child(f"{stage}-{number + 1}", work, mailbox.close, restart=False) for number in range(settings.workers)]


async def _in_thread(function: Callable[..., None], *args: object) -> None:
    # An exporter may hang: its thread is left behind when the node must end.
    await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)


def _token() -> str:
    return uuid.uuid4().hex


def isolated_command(topology: Topology) -> list[str]:
    """The command line of a process that prepares one payload and ends."""
    return [sys.executable, "-m", "ionbeam.isolated", encode(topology).decode()]
