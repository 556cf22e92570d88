"""How observations are handed to ionbeam: upload the payload, then send the command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

import pyarrow as pa

from ionbeam.ports.broker import Broker
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.workers import Workers
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode
from ionbeam.schemas.messages import Claim, IngestDataCommand, one_spelling
from ionbeam.schemas.metadata import IngestionMetadata

Rows: TypeAlias = "pa.Table | pa.RecordBatchReader | Sequence[pa.RecordBatch]"


class Client:
    """A source's connection to a home or a cluster. Get one from `ionbeam.open(...)`."""

    def __init__(self, *, broker: Broker, ledger: Ledger, objects: ObjectStore, workers: Workers) -> None:
        self._broker = broker
        self._ledger = ledger
        self._objects = objects
        self._workers = workers

    async def ingest(
        self,
        rows: Rows,
        metadata: IngestionMetadata,
        start: datetime,
        end: datetime,
        *,
        command_id: str,
        claims: Sequence[Claim] | None = None,
        replaces: Sequence[str] = (),
    ) -> str:
        """Upload `rows` and send the command for them; both are durable when it returns the command's id.

        `[start, end)` is the span that was swept (time zone required); `claims`, when given, says it more precisely.
        Sending one id twice is harmless: it is accepted once. A reader is consumed in a worker thread, batch by batch.
        """
        now = await self._ledger.now()
        key = routes.raw_key(metadata.dataset.name, start, end, now, command_id)
        await self._workers.run(self._upload, key, rows)
        command = IngestDataCommand(
            id=command_id,
            metadata=metadata,
            payload_location=key,
            start_time=start,
            end_time=end,
            issued_at=await self._ledger.stamp(one_spelling(command_id)),
            claims=None if claims is None else tuple(claims),
            replaces=tuple(replaces),
        )
        await self._broker.publish(routes.INGESTION, command.id, encode(command))
        return command.id

    async def accepted(self, command_id: str) -> bool:
        """Whether the ledger has accepted the command (also when a later one has replaced it)."""
        return (await self._ledger.standing(command_id)).accepted

    async def recall(self, key: str) -> bytes | None:
        """What a source remembered under `key`, or None."""
        return await self._ledger.recall(key)

    async def remember(self, key: str, value: bytes) -> None:
        """Keep `value` under `key`; durable when it returns."""
        await self._ledger.remember(key, value)

    def _upload(self, key: str, rows: Rows) -> None:
        schema, batches = _batches(rows)
        with self._objects.upload() as upload:
            with pa.ipc.new_file(upload.file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            upload.commit(key)


def _batches(rows: Rows) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    if isinstance(rows, pa.Table):
        return rows.schema, rows.to_batches(max_chunksize=65_536)
    if isinstance(rows, pa.RecordBatchReader):
        return rows.schema, rows
    if not rows:
        raise ValueError("an empty list of batches has no schema: pass a Table with zero rows")
    return rows[0].schema, rows
