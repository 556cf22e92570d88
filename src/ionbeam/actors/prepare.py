"""The blocking part of ingestion: from a payload to stored rows, quarantine and counts. For worker threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from msgspec import Struct

from ionbeam.actors.payload import open_payload
from ionbeam.actors.quarantine import Quarantine
from ionbeam.actors.spill import Spill
from ionbeam.domain import mapping
from ionbeam.domain.accounting import Counts, conflicts_are_suspicious
from ionbeam.domain.fold import fold
from ionbeam.domain.mapping import Plan, stored_schema
from ionbeam.domain.order import order
from ionbeam.domain.rows import SOURCE, Limits, canonicalise
from ionbeam.domain.runs import slices
from ionbeam.domain.windows import micros
from ionbeam.errors import Refused
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import ObservationStore, Share
from ionbeam.schemas import routes
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import IngestDataCommand
from ionbeam.schemas.metadata import TIMESTAMP

MOST_REASONS = 100
OTHER = "source:(other)"
_LAST_NANOSECOND = (1 << 63) - 1


class PrepareRules(Struct, frozen=True, kw_only=True):
    """How far into the future times are believed; how many rows are sorted in memory at once, and where the rest waits.

    `scratch`: a folder for temporary files; None: the system's.
    """

    max_future: Duration = Duration("P1D")
    chunk_rows: int = 262_144
    scratch: str | None = None


class Prepared(Struct, frozen=True, kw_only=True):
    """What ingestion will record: everything it speaks of is durable. Times in nanoseconds since the epoch, UTC."""

    counts: Counts
    shares: tuple[Share, ...]
    quarantine_location: str | None
    first: int | None
    last: int | None


@dataclass(slots=True)
class _Tally:
    received: int = 0
    rejected: int = 0
    accepted: int = 0
    duplicate: int = 0
    merged: int = 0
    conflict: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    values: dict[str, int] = field(default_factory=dict)
    first: int | None = None
    last: int | None = None

    def add(self, reasons: dict[str, int], values: dict[str, int]) -> None:
        """Sources may reject every row for a reason of its own: what is counted by reason stays bounded."""
        for reason, count in reasons.items():
            if reason.startswith(SOURCE) and reason not in self.reasons and len(self.reasons) >= MOST_REASONS:
                reason = OTHER
            self.reasons[reason] = self.reasons.get(reason, 0) + count
        for name, count in values.items():
            self.values[name] = self.values.get(name, 0) + count

    def counts(self, ignored_columns: int) -> Counts:
        return Counts(
            received=self.received,
            accepted=self.accepted,
            duplicate=self.duplicate,
            merged=self.merged,
            conflict=self.conflict,
            rejected=self.rejected,
            reasons=dict(sorted(self.reasons.items())),
            values=dict(sorted(self.values.items())),
            ignored_columns=ignored_columns,
        )


def prepare(
    command: IngestDataCommand,
    issued_at: datetime,
    rules: PrepareRules,
    objects: ObjectStore,
    store: ObservationStore,
    token: Callable[[], str],
) -> Prepared:
    """Read, judge, sort, fold and store the command's rows.

    Raises Refused for a payload that can never be ingested, PayloadMissing when it is not there.
    """
    metadata = command.metadata
    with ExitStack() as stack:
        file = stack.enter_context(objects.open(routes.checked_key(command.payload_location)))
        payload = open_payload(file, command.payload_location)
        plan = mapping.plan(metadata.ingestion_map, payload.schema)
        time_type = payload.schema.field(metadata.ingestion_map.datetime.raw_name).type
        mapping.no_times_missing_zone(metadata.ingestion_map, time_type)
        quarantine = stack.enter_context(Quarantine(objects))
        tally = _Tally()
        limits = Limits(latest=_latest(issued_at, rules.max_future))
        judged = _judged(payload.batches, plan, limits, quarantine, tally)
        spill = stack.enter_context(Spill(rules.scratch))
        folded = _folded(judged, plan, rules.chunk_rows, tally, spill)
        shares = store.write(
            metadata.dataset.name,
            command.id,
            metadata.dataset.aggregation_span.microseconds,
            stored_schema(metadata.ingestion_map),
            folded,
        )
        if conflicts_are_suspicious(tally.conflict, tally.received):
            store.forget(metadata.dataset.name, command.id, shares)
            raise _ambiguous(tally, command)
        location = quarantine.commit(routes.quarantine_key(metadata.dataset.name, command.id, token()))
        return Prepared(
            counts=tally.counts(len(plan.ignored)),
            shares=tuple(shares),
            quarantine_location=location,
            first=tally.first,
            last=tally.last,
        )


def _latest(issued_at: datetime, max_future: Duration) -> int:
    return min((micros(issued_at) + max_future.microseconds) * 1000, _LAST_NANOSECOND)


def _judged(
    batches: Iterator[pa.RecordBatch], plan: Plan, limits: Limits, quarantine: Quarantine, tally: _Tally
) -> Iterator[pa.Table]:
    for batch in batches:
        result = canonicalise(mapping.checked(batch, plan), plan, tally.received, limits)
        tally.received += len(batch)
        tally.add(result.reasons, result.values)
        if result.rejected is not None:
            tally.rejected += len(result.rejected)
            quarantine.add(result.rejected)
        if len(result.rows):
            yield result.rows


def _folded(judged: Iterator[pa.Table], plan: Plan, chunk_rows: int, tally: _Tally, spill: Spill) -> Iterator[pa.Table]:
    """The accepted rows, folded, in the total order.

    Chunks that fit in memory are sorted one by one; where there is more than one, they wait on disk as runs and are
    merged by slices of time.
    """
    identity = plan.columns.identity_columns
    variables = [variable.canonical_name for variable in plan.variables]
    schema = stored_schema(plan.columns)
    for pieces in slices(_runs(judged, identity, chunk_rows, spill), chunk_rows):
        result = fold(_joined(pieces), identity, variables, plan.columns.fold)
        tally.accepted += len(result.rows)
        tally.duplicate += result.duplicate
        tally.merged += result.merged
        tally.conflict += result.conflict
        times = result.rows.column(TIMESTAMP)
        tally.first = int(times[0].as_py()) if tally.first is None else tally.first
        tally.last = int(times[-1].as_py())
        yield result.rows.cast(schema)


def _runs(
    judged: Iterator[pa.Table], identity: tuple[str, ...], chunk_rows: int, spill: Spill
) -> list[Iterator[pa.Table]]:
    """Runs in order of time, each of at most about `chunk_rows` rows, in the order of the payload."""
    runs: list[Iterator[pa.Table]] = []
    waiting: list[pa.Table] = []
    rows = 0
    for table in judged:
        if rows and rows + len(table) > chunk_rows:
            runs.append(spill.keep(_sorted(_joined(waiting), identity)))
            waiting, rows = [], 0
        waiting.append(table)
        rows += len(table)
    if waiting:
        last = _sorted(_joined(waiting), identity)
        runs.append(spill.keep(last) if runs else iter([last]))
    return runs


def _joined(tables: list[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).unify_dictionaries()


def _sorted(table: pa.Table, identity: tuple[str, ...]) -> pa.Table:
    places = order(table, identity).places
    return table if places is None else table.take(pa.array(places))


def _ambiguous(tally: _Tally, command: IngestDataCommand) -> Refused:
    identity = ", ".join(("timestamp", *command.metadata.ingestion_map.identity_columns))
    return Refused(
        f"{tally.conflict} of {tally.received} rows contradict another row of the same identity ({identity}):"
        " a column that tells the stations apart is missing from `metadata_variables` or `identity`"
    )
