"""Sending something and working until nothing is due: what `ingest`, `publish`, `demo` and others have in common."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import trio

from ionbeam.actors.core import Delivery
from ionbeam.client import Client
from ionbeam.commands.common import print_reasons, topology_of
from ionbeam.commands.progress import Progress
from ionbeam.config import Topology
from ionbeam.domain.accounting import Counts, total
from ionbeam.domain.windows import EPOCH
from ionbeam.errors import IonbeamError
from ionbeam.node import Node
from ionbeam.parts import Ports, open_exporters, open_ports
from ionbeam.ports.broker import DeadLetter
from ionbeam.ports.records import IngestionState, Revision, WindowState
from ionbeam.schemas import routes

PAGE = 500


@dataclass(kw_only=True)
class Outcome:
    """What came of it.

    `accepted` are those of `sent` that stand accepted, `ingestions` those of them that were accepted since `begun`;
    `revisions` were made since then; `waiting` are windows that are not built yet.
    """

    topology: Topology
    sent: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    accepted: list[str] = field(default_factory=list)
    ingestions: list[IngestionState] = field(default_factory=list)
    refused: list[DeadLetter] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    waiting: list[WindowState] = field(default_factory=list)
    worked: bool = True
    begun: datetime = EPOCH
    nodes: int = 0

    @property
    def ok(self) -> bool:
        return not self.refused and not self.problems and not any(window.parked for window in self.waiting)

    @property
    def counts(self) -> Counts:
        """The counts of what was sent, added up."""
        return total(state.counts for state in self.ingestions)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a submission sent, and what it could not."""

    ids: Sequence[str] = ()
    problems: Sequence[str] = ()


Submit = Callable[[Client, Ports, Progress], Awaitable[Sent]]


def send_and_work(arguments: argparse.Namespace, submit: Submit, *, work: bool = True) -> Outcome:
    """Run `submit`, then work until nothing is due; with `work` false leave that to a running node."""
    topology = topology_of(arguments)
    stages = topology.actors
    idle = [name for name in ("ingestion", "coordination", "building") if not getattr(stages, name).workers]
    if work and idle:
        raise IonbeamError(
            f"this topology leaves {' and '.join(idle)} to other nodes (workers = 0), so this command would wait for"
            " them: send with --publish-only"
        )
    return trio.run(_send_and_work, topology, submit, work)


async def _send_and_work(topology: Topology, submit: Submit, work: bool) -> Outcome:
    outcome = Outcome(topology=topology, worked=work)
    with Progress() as progress:
        async with open_ports(topology) as ports:
            before = {letter.id for letter in await ports.broker.dead_letters()}
            place = await ports.ledger.last_revision()
            outcome.begun = await ports.ledger.now()
            if work:
                sent = await _work(topology, ports, submit, progress)
            else:
                sent = await submit(ports.client(), ports, progress)
            outcome.sent, outcome.problems = tuple(sent.ids), tuple(sent.problems)
            await _gather(outcome, ports, before, place)
            outcome.nodes = len(await ports.ledger.nodes())
    return outcome


async def _work(topology: Topology, ports: Ports, submit: Submit, progress: Progress) -> Sent:
    def settled(delivery: Delivery[object]) -> None:
        progress.settled(delivery)

    node = Node(topology, ports, open_exporters(topology), on_settled=settled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        sent = await submit(ports.client(), ports, progress)
        progress.wait()
        await node.idle()
        await node.drain()
    return sent


async def _gather(outcome: Outcome, ports: Ports, before: set[str], place: int) -> None:
    for command_id in outcome.sent:
        state = await ports.ledger.ingestion(command_id)
        if state is not None:
            outcome.accepted.append(state.id)
        if state is not None and state.accepted_at >= outcome.begun:
            outcome.ingestions.append(state)
    while page := await ports.ledger.revisions(place, PAGE):
        outcome.revisions += [revision for _, revision in page]
        place = page[-1][0]
    ours = {*outcome.sent, *(revision.event.id for revision in outcome.revisions)}
    letters = await ports.broker.dead_letters()
    outcome.refused = [letter for letter in letters if letter.id not in before and letter.message_id in ours]
    outcome.waiting = await all_windows(ports, pending=True)


async def all_windows(ports: Ports, dataset: str | None = None, *, pending: bool = False) -> list[WindowState]:
    """All windows, or those whose news are not built."""
    windows: list[WindowState] = []
    after: tuple[str, int] | None = None
    while page := await ports.ledger.windows(dataset, after, PAGE, pending=pending):
        windows += page
        after = (page[-1].dataset, page[-1].window_start)
    return windows


def refusals(letters: Sequence[DeadLetter]) -> list[dict[str, object]]:
    """Dead letters as programs read them, by the id of their message."""
    return [{"id": letter.message_id, "queue": letter.queue, "reason": letter.reason} for letter in letters]


def tell_refusals(letters: Sequence[DeadLetter], most: int) -> None:
    """Dead letters as people read them: at most `most`, the newest."""
    entries = [
        (
            f"{letter.message_id}, queue {queue_title(letter.queue)}, attempt {letter.attempts},"
            f" {letter.last_failed:%Y-%m-%d %H:%M:%SZ}",
            letter.reason,
        )
        for letter in letters[-most:]
    ]
    print_reasons(f"refused, now dead letters: {len(letters):,}", entries)
    if len(letters) > most:
        print(f"  … and {len(letters) - most:,} older ones")


def queue_title(queue: str) -> str:
    """A queue as people know it."""
    return queue.removeprefix(routes.DATASET_AVAILABLE + ".") if queue.startswith(routes.DATASET_AVAILABLE) else queue
