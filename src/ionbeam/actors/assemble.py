"""The blocking part of building: from a window's stored rows to its dataset file. For worker threads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
from msgspec import Struct

from ionbeam.domain.accounting import WindowCounts
from ionbeam.domain.contract import Contract
from ionbeam.domain.dataset import WRITE_OPTIONS, Batches, columns_of, conform, dataset_schema
from ionbeam.domain.fold import fold
from ionbeam.domain.runs import slices
from ionbeam.domain.windows import moment
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import ObservationStore
from ionbeam.ports.records import Member
from ionbeam.schemas import routes
from ionbeam.schemas.metadata import ROW


class Assembled(Struct, frozen=True, kw_only=True):
    """A dataset file that is durable, and what became of the rows that went into it."""

    location: str
    content_hash: str
    counts: WindowCounts


class HashingFile:
    """A file for pyarrow to write to that takes the sha256 of what passes. Closing it leaves the inner file open."""

    closed = False

    def __init__(self, inner: IO[bytes] | pa.NativeFile | None) -> None:
        self._inner = inner
        self._sha = hashlib.sha256()
        self._position = 0

    def write(self, data: bytes | memoryview | pa.Buffer) -> int:
        self._sha.update(data)
        if self._inner is not None:
            self._inner.write(data)
        size = len(memoryview(data).cast("B"))
        self._position += size
        return size

    def tell(self) -> int:
        return self._position

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def assemble(
    contract: Contract,
    window_start: int,
    members: tuple[Member, ...],
    store: ObservationStore,
    objects: ObjectStore,
    chunk_rows: int,
) -> Assembled:
    """Fold the rows of `members` (ascending precedence), write the dataset file, make it durable under its key."""
    with objects.upload() as upload:
        file = HashingFile(upload.file)
        counts = write_dataset(file, contract, window_start, members, store, chunk_rows)
        content_hash = file.hexdigest()
        key = routes.dataset_key(contract.dataset, moment(window_start), contract.span, content_hash)
        upload.commit(key)
    return Assembled(location=key, content_hash=content_hash, counts=counts)


def write_dataset(
    file: HashingFile,
    contract: Contract,
    window_start: int,
    members: tuple[Member, ...],
    store: ObservationStore,
    chunk_rows: int,
) -> WindowCounts:
    """Write the window's dataset file to `file`; the counts of what went in."""
    maps = [member.metadata for member in members]
    schema = dataset_schema(contract, maps, window_start)
    variables = [variable.canonical_name for variable in columns_of(maps)[0]]
    tally = WindowCounts(accepted=sum(member.share.rows for member in members))
    batches = Batches(schema)
    with pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema, options=WRITE_OPTIONS) as writer:
        for table, counted in _folded(contract, members, variables, store, chunk_rows):
            tally = _plus(tally, counted)
            for batch in batches.add(conform(table, schema)):
                writer.write_batch(batch)
        for batch in batches.rest():
            writer.write_batch(batch)
    return tally


def _folded(
    contract: Contract,
    members: tuple[Member, ...],
    variables: list[str],
    store: ObservationStore,
    chunk_rows: int,
) -> Iterator[tuple[pa.Table, WindowCounts]]:
    runs = [_run(contract.dataset, member, store) for member in members]
    if len(runs) == 1:
        # One ingestion has been folded when it was stored.
        for table in runs[0]:
            yield table, WindowCounts(rows=len(table))
        return
    for pieces in slices(runs, chunk_rows):
        joined = pa.concat_tables(pieces, promote_options="default")
        # A slice may lie where nobody measured some of the variables.
        present = [name for name in variables if name in joined.column_names]
        result = fold(joined, contract.identity, present, contract.fold)
        yield (
            result.rows,
            WindowCounts(
                rows=len(result.rows),
                duplicate=result.duplicate,
                merged=result.merged,
                conflict=result.conflict,
            ),
        )


def _run(dataset: str, member: Member, store: ObservationStore) -> Iterator[pa.Table]:
    for table in store.read(dataset, member.id, member.share):
        yield table.drop_columns([ROW])


def _plus(left: WindowCounts, right: WindowCounts) -> WindowCounts:
    return WindowCounts(
        accepted=left.accepted + right.accepted,
        rows=left.rows + right.rows,
        duplicate=left.duplicate + right.duplicate,
        merged=left.merged + right.merged,
        conflict=left.conflict + right.conflict,
    )
