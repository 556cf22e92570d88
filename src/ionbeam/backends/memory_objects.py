"""An object store in memory: the twin of the real ones, for simulations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError
from obstore.store import MemoryStore

from ionbeam.backends.objects import ObstoreObjects, checked, other_content
from ionbeam.backends.workers import InlineWorkers


class MemoryObjects(ObstoreObjects):
    """Objects in memory and in the loop: hand it to the next incarnation."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "memory://", InlineWorkers())

    async def put(self, key: str, data: bytes) -> None:
        await self._run(self.place, checked(key), data)

    @contextmanager
    def upload(self) -> Iterator[_MemoryUpload]:
        yield _MemoryUpload(self)

    def open(self, key: str) -> pa.NativeFile:
        return pa.BufferReader(self._content(checked(key)))

    def place(self, key: str, data: bytes) -> None:
        """Create `key`; IonbeamError where it has other content."""
        data = bytes(data)  # the store keeps the buffer that it is given, and a bytearray may change
        try:
            obstore.put(self._store, checked(key), data, mode="create")
        except AlreadyExistsError:
            if self._content(key) != data:
                raise other_content(key) from None


class _MemoryUpload:
    def __init__(self, store: MemoryObjects) -> None:
        self.file: pa.NativeFile = pa.BufferOutputStream()
        self._store = store

    def commit(self, key: str) -> None:
        self._store.place(key, self.file.getvalue().to_pybytes())
