"""Ingestion: from a command to stored rows and a DataAvailableEvent.

A command is accepted once, or refused for good. Its rows are stored before the ledger accepts it, and the ledger's
decision is in the journal before the message is settled.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import msgspec

from ionbeam.actors.core import Inbox
from ionbeam.actors.prepare import Prepared
from ionbeam.actors.relay import Relay
from ionbeam.domain import cf
from ionbeam.domain.contract import Contract, agree
from ionbeam.domain.windows import ceil_micros, floor_micros
from ionbeam.errors import PayloadMissing, Refused
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.records import Acceptance, Accepted, AcceptOutcome, Published, Standing
from ionbeam.ports.workers import Workers
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.journal import AcceptedCommand, record
from ionbeam.schemas.messages import DataAvailableEvent, IngestDataCommand
from ionbeam.version import VERSION

Prepare = Callable[[IngestDataCommand, datetime, bool], Awaitable[Prepared]]
"""The blocking part; the flag asks for a process of its own, because the one before died with this message in hand."""

CLOCK_TOLERANCE = timedelta(minutes=5)
_log = logging.getLogger(__name__)


async def ingest(
    inbox: Inbox[IngestDataCommand],
    ledger: Ledger,
    objects: ObjectStore,
    prepare: Prepare,
    relay: Relay,
    workers: Workers,
    *,
    max_future: Duration,
    cf_refuses: bool = True,
) -> None:
    """Ingest commands until the inbox ends."""
    async for delivery in inbox:
        async with delivery as command:
            standing = await ledger.standing(command.id)
            if standing.accepted:
                await _report_other_content(command, standing, objects, workers)
                await relay.confirmed(standing.entry, fresh=False)
                continue
            issued_at = await _precedence(command, standing, ledger)
            await workers.run(_check_names, command, cf_refuses)
            agree((await ledger.contract(command.metadata.dataset.name))[0], command.metadata)
            prepared = await prepare(command, issued_at, delivery.suspect)
            accepted = await _accept(command, issued_at, prepared, max_future, ledger)
            await relay.confirmed(accepted.entry, fresh=accepted.outcome is AcceptOutcome.ACCEPTED)


async def _precedence(command: IngestDataCommand, standing: Standing, ledger: Ledger) -> datetime:
    """The moment that ranks this command among others: its own, or the one at which it was first handed to a node."""
    if command.issued_at is None:
        return standing.issued_at or await ledger.first_handed(command.id)
    now = await ledger.now()
    if command.issued_at > now + CLOCK_TOLERANCE:
        raise Refused(
            f"$.issued_at {command.issued_at.isoformat()} is ahead of the ledger's clock ({now.isoformat()}) by more"
            f" than {CLOCK_TOLERANCE}: set the sender's clock"
        )
    return command.issued_at


def _check_names(command: IngestDataCommand, refuse: bool) -> None:
    problems = cf.problems(command.metadata.ingestion_map.canonical_variables)
    if problems and refuse:
        raise Refused("$.metadata.ingestion_map: " + "; ".join(problems))
    for problem in problems:
        _log.info("dataset %s: %s", command.metadata.dataset.name, problem)


async def _accept(
    command: IngestDataCommand, issued_at: datetime, prepared: Prepared, max_future: Duration, ledger: Ledger
) -> Accepted:
    """Let the ledger accept what is stored. Another command may extend the dataset's contract at the same time."""
    while True:
        contract, version = await ledger.contract(command.metadata.dataset.name)
        agreed = agree(contract, command.metadata)
        now = await ledger.now()
        accepted = await ledger.accept(_acceptance(command, issued_at, prepared, max_future, agreed, version, now))
        if accepted.outcome is not AcceptOutcome.CONTRACT_MOVED:
            return accepted


def _acceptance(
    command: IngestDataCommand,
    issued_at: datetime,
    prepared: Prepared,
    max_future: Duration,
    contract: Contract,
    contract_version: int,
    now: datetime,
) -> Acceptance:
    event = DataAvailableEvent(
        id=command.id,
        metadata=command.metadata,
        start_time=command.start_time if prepared.first is None else floor_micros(prepared.first),
        end_time=command.end_time if prepared.last is None else ceil_micros(prepared.last),
        row_count=prepared.counts.accepted,
    )
    decision = AcceptedCommand(
        command=command,
        issued_at=issued_at,
        digest=digest(command),
        counts=prepared.counts,
        shares=prepared.shares,
        quarantine_location=prepared.quarantine_location,
        contract=contract,
        contract_version=contract_version,
        code_version=VERSION,
    )
    return Acceptance(
        id=command.id,
        metadata=command.metadata,
        issued_at=issued_at,
        digest=decision.digest,
        payload_location=command.payload_location,
        quarantine_location=prepared.quarantine_location,
        start_time=event.start_time,
        end_time=event.end_time,
        claims=command.swept,
        replaces=command.replaces,
        counts=prepared.counts,
        shares=prepared.shares,
        max_future=max_future,
        contract=contract,
        contract_version=contract_version,
        record=record("accepted", command.id, now, decision),
        messages=(Published(exchange=routes.DATA_AVAILABLE, message_id=command.id, body=encode(event)),),
    )


def digest(command: IngestDataCommand) -> str:
    """What a command asks for, apart from when it was sent and where its payload lies."""
    plain = msgspec.structs.replace(command, issued_at=None, payload_location="-")
    return hashlib.sha256(encode(plain)).hexdigest()


async def _report_other_content(
    command: IngestDataCommand, standing: Standing, objects: ObjectStore, workers: Workers
) -> None:
    """An id is accepted once. The same id with other content has no effect, but somebody should know."""
    if digest(command) != standing.digest:
        _log.warning("command %s was accepted before with another content: this one has no effect", command.id)
    elif standing.payload_location not in (None, command.payload_location):
        here = await workers.run(_size, objects, command.payload_location)
        there = await workers.run(_size, objects, standing.payload_location)
        if here != there and None not in (here, there):
            _log.warning("command %s was accepted before with another payload: this one has no effect", command.id)


def _size(objects: ObjectStore, key: str) -> int | None:
    try:
        return objects.size(routes.checked_key(key))
    except (PayloadMissing, Refused):
        return None
