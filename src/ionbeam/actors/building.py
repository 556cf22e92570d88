"""Building: from a due window to a dataset file and a DataSetAvailableEvent."""

from __future__ import annotations

import hashlib
from datetime import datetime

from ionbeam.actors.assemble import Assembled, assemble
from ionbeam.actors.core import Inbox
from ionbeam.domain.dataset import described
from ionbeam.domain.windows import moment
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import ObservationStore
from ionbeam.ports.records import Lease, Published, Revision
from ionbeam.ports.workers import Workers
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode
from ionbeam.schemas.journal import BuiltWindow, record
from ionbeam.schemas.messages import DataSetAvailableEvent, dataset_event_id
from ionbeam.version import VERSION


async def build(
    inbox: Inbox[Lease],
    ledger: Ledger,
    store: ObservationStore,
    objects: ObjectStore,
    workers: Workers,
    *,
    chunk_rows: int,
) -> None:
    """Build leased windows until the inbox ends.

    The dataset file is durable before the ledger records it; a lease that was lost meanwhile records nothing.
    """
    async for delivery in inbox:
        async with delivery as lease:
            assembled = await workers.run(
                assemble, lease.contract, lease.window_start, lease.members, store, objects, chunk_rows
            )
            now = await ledger.now()
            revision = _revision(lease, assembled, now)
            await ledger.built(lease, revision, _record(lease, revision, now), _messages(revision))


def set_hash(members: tuple[str, ...]) -> str:
    """The sha256 over the ids of the ingestions that a build used, in order of precedence."""
    return hashlib.sha256("\n".join(members).encode()).hexdigest()


def _revision(lease: Lease, built: Assembled, now: datetime) -> Revision:
    """What the ledger records: the next revision, or the current one where the content is the same."""
    ids = tuple(member.id for member in lease.members)
    if lease.current is not None and lease.current.content_hash == built.content_hash:
        number, event, at = lease.current.number, lease.current.event, lease.current.built_at
    else:
        number = 1 if lease.current is None else lease.current.number + 1
        event, at = _event(lease, built, number, set_hash(ids)), now
    return Revision(
        dataset=lease.dataset,
        window_start=lease.window_start,
        number=number,
        rows=built.counts.rows,
        content_hash=built.content_hash,
        ingestion_set_hash=set_hash(ids),
        counts=built.counts,
        event=event,
        built_at=at,
    )


def _event(lease: Lease, built: Assembled, number: int, ingestion_set_hash: str) -> DataSetAvailableEvent:
    start = moment(lease.window_start)
    return DataSetAvailableEvent(
        id=dataset_event_id(lease.dataset, start, number),
        metadata=described(lease.contract, [member.metadata for member in lease.members]),
        dataset_location=built.location,
        start_time=start,
        end_time=moment(lease.window_start + lease.span.microseconds),
        revision=number,
        supersedes=None if lease.current is None else lease.current.event.id,
        row_count=built.counts.rows,
        content_hash=built.content_hash,
        ingestion_set_hash=ingestion_set_hash,
    )


def _record(lease: Lease, revision: Revision, now: datetime) -> bytes:
    decision = BuiltWindow(
        event=revision.event,
        revised=lease.current is None or lease.current.number != revision.number,
        counts=revision.counts,
        ingestions=tuple(member.id for member in lease.members),
        code_version=VERSION,
    )
    return record("built", f"{revision.event.id}/{revision.ingestion_set_hash}", now, decision)


def _messages(revision: Revision) -> tuple[Published, ...]:
    body = encode(revision.event)
    return (Published(exchange=routes.DATASET_AVAILABLE, message_id=revision.event.id, body=body),)
