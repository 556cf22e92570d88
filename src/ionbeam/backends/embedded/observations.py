"""Observations as Arrow segments in object storage: one segment an ingestion, its rows by window and time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta

import pyarrow as pa

from ionbeam.domain.windows import by_window
from ionbeam.errors import IonbeamError
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import Share
from ionbeam.schemas import routes
from ionbeam.schemas.duration import Duration

SEGMENT_BATCH_ROWS = 65_536


class SegmentStore:
    """Implements `ports.observations.ObservationStore`.

    A placement is `{key}#{first}:{count}`: `count` record batches of the segment `key` from batch `first` on. A
    segment's key is unique to the write, so a write that is repeated or never accepted shows through nowhere.
    """

    def __init__(self, objects: ObjectStore, token: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._objects = objects
        self._token = token

    def write(
        self, dataset: str, ingestion: str, span_us: int, schema: pa.Schema, tables: Iterable[pa.Table]
    ) -> list[Share]:
        span = Duration(timedelta(microseconds=span_us))
        key = routes.observations_key(dataset, ingestion, self._token())
        placed: dict[int, tuple[int, int, int]] = {}
        number = 0
        with self._objects.upload() as upload:
            with pa.ipc.new_file(upload.file, schema) as writer:
                for window, batch in _batches(tables, span):
                    writer.write_batch(batch)
                    first, count, rows = placed.get(window, (number, 0, 0))
                    placed[window] = (first, count + 1, rows + len(batch))
                    number += 1
            if placed:
                upload.commit(key)
        return [
            Share(window_start=window, rows=rows, placement=f"{key}#{first}:{count}")
            for window, (first, count, rows) in placed.items()
        ]

    def read(self, dataset: str, ingestion: str, share: Share) -> Iterator[pa.Table]:
        key, _, place = share.placement.partition("#")
        first, _, count = place.partition(":")
        with self._objects.open(key) as file:
            reader = pa.ipc.open_file(file)
            rows = 0
            for number in range(int(first), int(first) + int(count)):
                batch = reader.get_batch(number)
                rows += len(batch)
                yield pa.Table.from_batches([batch])
        if rows != share.rows:
            raise IonbeamError(f"segment {key} holds {rows} rows where the ledger has {share.rows}")

    def forget(self, dataset: str, ingestion: str, shares: Sequence[Share]) -> None:
        for key in {share.placement.partition("#")[0] for share in shares}:
            self._objects.discard(key)


def _batches(tables: Iterable[pa.Table], span: Duration) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of `tables`, which come in order of time, as batches that each lie in one window."""
    for table in tables:
        for window, part in by_window(table.combine_chunks(), span):
            for batch in part.to_batches(max_chunksize=SEGMENT_BATCH_ROWS):
                yield window, batch
