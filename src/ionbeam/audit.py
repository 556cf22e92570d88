"""The audit: what the ledger says, against the payloads, the stored rows and the dataset files themselves.

Every accepted ingestion is prepared once more from its payload and compared with its counts, its stored rows and its
quarantine. Every built window is built once more from the stored rows and compared, by hash, with its file.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import IO, cast

import pyarrow as pa
from msgspec import Struct

from ionbeam.actors.assemble import HashingFile, write_dataset
from ionbeam.actors.prepare import Prepared, PrepareRules, prepare
from ionbeam.domain.digest import RowsDigest
from ionbeam.domain.windows import by_window, moment
from ionbeam.errors import IonbeamError
from ionbeam.parts import Ports
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import ObservationStore, Share
from ionbeam.ports.records import IngestionState, Member, WindowState
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import IngestDataCommand

PAGE = 200
COPY_BYTES = 8 << 20


class IngestionVerdict(Struct, frozen=True, kw_only=True):
    """An accepted ingestion and what is wrong with it."""

    state: IngestionState
    problems: tuple[str, ...]


class WindowVerdict(Struct, frozen=True, kw_only=True):
    """A window and what is wrong with it; one that is not built yet is pending, not wrong."""

    state: WindowState
    problems: tuple[str, ...]


async def audit_ingestions(ports: Ports, dataset: str | None, chunk_rows: int) -> AsyncIterator[IngestionVerdict]:
    """Every accepted ingestion, in the order of acceptance."""
    after: str | None = None
    while page := await ports.ledger.ingestions(after, PAGE):
        for state in page:
            if dataset is None or state.dataset == dataset:
                problems = await ports.workers.run(_ingestion, state, ports.objects, ports.store, chunk_rows)
                yield IngestionVerdict(state=state, problems=tuple(problems))
        after = page[-1].id


async def audit_windows(ports: Ports, dataset: str | None, chunk_rows: int) -> AsyncIterator[WindowVerdict]:
    """Every window, by dataset and start."""
    after: tuple[str, int] | None = None
    while page := await ports.ledger.windows(dataset, after, PAGE):
        for state in page:
            yield WindowVerdict(state=state, problems=tuple(await _window(ports, state, chunk_rows)))
        after = (page[-1].dataset, page[-1].window_start)


def _ingestion(state: IngestionState, objects: ObjectStore, store: ObservationStore, chunk_rows: int) -> list[str]:
    """Blocking. What is wrong with an ingestion."""
    problems: list[str] = []
    if not state.counts.balanced:
        problems.append(f"its counts do not add up: {state.counts}")
    command = IngestDataCommand(
        id=state.id,
        metadata=state.metadata,
        payload_location=state.payload_location,
        start_time=state.start_time,
        end_time=state.start_time + timedelta(seconds=1),
    )
    rules = PrepareRules(max_future=state.max_future, chunk_rows=chunk_rows)
    comparing = _Comparing(store, state.shares)
    unwritten = _Unwritten(objects, state.quarantine_location)
    try:
        again = prepare(command, state.issued_at, rules, cast(ObjectStore, unwritten), comparing, lambda: "audit")
        problems += comparing.problems + unwritten.problems
        problems += _differences(state, again)
        problems += _quarantine(state, objects)
    except (IonbeamError, pa.ArrowException, OSError) as error:
        problems.append(str(error))
    return problems


def _differences(state: IngestionState, again: Prepared) -> list[str]:
    problems = []
    for name in ("received", "accepted", "duplicate", "merged", "conflict", "rejected", "reasons", "values"):
        ours, theirs = getattr(state.counts, name), getattr(again.counts, name)
        if ours != theirs:
            problems.append(f"{name}: the ledger has {ours}, the payload gives {theirs}")
    return problems


def _quarantine(state: IngestionState, objects: ObjectStore) -> list[str]:
    rows = 0
    if state.quarantine_location is not None:
        with objects.open(state.quarantine_location) as file:
            rows = sum(batch.num_rows for batch in pa.ipc.open_stream(file))
    if rows != state.counts.rejected:
        return [f"rejected: the ledger has {state.counts.rejected}, the quarantine holds {rows} rows"]
    return []


async def _window(ports: Ports, state: WindowState, chunk_rows: int) -> list[str]:
    if state.pending or state.current is None:
        return []
    contract, _ = await ports.ledger.contract(state.dataset)
    members = await ports.ledger.members(state.dataset, state.window_start)
    if contract is None:
        return ["its dataset has no contract"]
    file = HashingFile(None)
    current, problems = state.current, []
    if not current.counts.balanced:
        problems.append(f"its counts do not add up: {current.counts}")
    try:
        counts = await ports.workers.run(
            write_dataset, file, contract, state.window_start, members, ports.store, chunk_rows
        )
        if counts != current.counts:
            problems.append(f"the ledger has {current.counts}, the stored rows give {counts}")
        if file.hexdigest() != current.content_hash:
            problems.append(f"the stored rows give {file.hexdigest()}, the ledger has {current.content_hash}")
        found = await ports.workers.run(_hash, ports.objects, current.event.dataset_location)
        if found != current.content_hash:
            problems.append(f"the file {current.event.dataset_location} has the content {found}")
    except (IonbeamError, pa.ArrowException, OSError) as error:
        problems.append(str(error))
    return problems + _shares(state, members)


def _shares(state: WindowState, members: Sequence[Member]) -> list[str]:
    rows = sum(member.share.rows for member in members)
    return [] if rows == state.rows else [f"its ingestions have {rows} rows in it, the ledger counts {state.rows}"]


def _hash(objects: ObjectStore, key: str) -> str:
    sha = hashlib.sha256()
    with objects.open(key) as file:
        while piece := file.read(COPY_BYTES):
            sha.update(piece)
    return sha.hexdigest()


def _from(window: int) -> str:
    return f"window {moment(window):%Y-%m-%dT%H:%M:%SZ}"


class _Comparing:
    """An observation store that compares what is written to it with what is stored, and keeps nothing."""

    def __init__(self, store: ObservationStore, shares: Sequence[Share]) -> None:
        self._store = store
        self._shares = {share.window_start: share for share in shares}
        self.problems: list[str] = []

    def write(
        self, dataset: str, ingestion: str, span_us: int, schema: pa.Schema, tables: Iterable[pa.Table]
    ) -> list[Share]:
        span = Duration(timedelta(microseconds=span_us))
        digests: dict[int, RowsDigest] = {}
        for table in tables:
            for window, rows in by_window(table, span):
                digests.setdefault(window, RowsDigest()).update(rows)
        for window in sorted({*digests, *self._shares}):
            self._compare(dataset, ingestion, window, digests.get(window))
        return []

    def _compare(self, dataset: str, ingestion: str, window: int, derived: RowsDigest | None) -> None:
        share = self._shares.get(window)
        if share is None or derived is None:
            self.problems.append(f"{_from(window)}: rows in the {'payload' if share is None else 'store'} only")
            return
        stored = RowsDigest()
        for table in self._store.read(dataset, ingestion, share):
            stored.update(table)
        if stored.hexdigest() != derived.hexdigest():
            self.problems.append(
                f"{_from(window)}: the store holds other rows ({stored.rows}) than the payload gives ({derived.rows})"
            )

    def read(self, dataset: str, ingestion: str, share: Share) -> Iterator[pa.Table]:
        return self._store.read(dataset, ingestion, share)

    def forget(self, dataset: str, ingestion: str, shares: Sequence[Share]) -> None:
        """Nothing was written."""


class _Unwritten:
    """An object store to read from. What ingestion uploads, its quarantine, is compared with `kept` and dropped."""

    def __init__(self, objects: ObjectStore, kept: str | None) -> None:
        self._objects = objects
        self._kept = kept
        self.problems: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    @contextmanager
    def upload(self) -> Iterator[_Derived]:
        with tempfile.TemporaryFile() as file:
            yield _Derived(file, self._compare)

    def _compare(self, derived: IO[bytes]) -> None:
        if self._kept is None:
            self.problems.append("the payload gives rejected rows, the ledger names no quarantine")
            return
        with self._objects.open(self._kept) as file:
            stored = (batch.serialize() for batch in pa.ipc.open_stream(file))
            again = (batch.serialize() for batch in pa.ipc.open_stream(derived))
            if any(ours is None or not ours.equals(theirs) for ours, theirs in zip_longest(stored, again)):
                self.problems.append(f"the quarantine {self._kept} holds other rows than the payload gives")


class _Derived:
    """An upload that ends when it is committed."""

    def __init__(self, file: IO[bytes], compare: Callable[[IO[bytes]], None]) -> None:
        self.file = file
        self._compare = compare

    def commit(self, key: str) -> None:
        self.file.seek(0)
        self._compare(self.file)
