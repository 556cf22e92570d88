"""Quarantine: rejected rows are kept as they came, each with its place in the payload and its reason."""

from __future__ import annotations

from contextlib import ExitStack

import pyarrow as pa

from ionbeam.ports.objects import ObjectStore, Upload


class Quarantine:
    """Rejected rows with their reasons, streamed to an object that exists only when there are any."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._stack = ExitStack()
        self._upload: Upload | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def add(self, rejected: pa.RecordBatch) -> None:
        if self._writer is None:
            self._upload = self._stack.enter_context(self._objects.upload())
            self._writer = pa.ipc.new_stream(self._upload.file, rejected.schema)
        self._writer.write_batch(rejected)

    def commit(self, key: str) -> str | None:
        """Make the rejected rows durable under `key`; None when there are none."""
        if self._writer is None or self._upload is None:
            return None
        self._writer.close()
        self._upload.commit(key)
        return key
