"""What ionbeam needs of an object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import IO, Protocol

import pyarrow as pa


class Upload(Protocol):
    """An object being written by a worker thread; nobody sees it before `commit`."""

    file: IO[bytes] | pa.NativeFile

    def commit(self, key: str) -> None:
        """Make what was written the object `key`, durably. An object of that key that is there already stays."""
        ...


class ObjectStore(Protocol):
    """Immutable objects by key. Nothing is ever overwritten with other content.

    The blocking methods (`upload`, `open`, `size`, `discard`) are for worker threads; the async ones for actors.
    Raises Unavailable while the store cannot serve (disk full, unreachable).
    """

    async def put(self, key: str, data: bytes) -> None:
        """Create `key`; durable when it returns. The same content again is fine; other content is an error."""
        ...

    async def get(self, key: str) -> bytes:
        """The whole object. Raises PayloadMissing when there is none."""
        ...

    async def exists(self, key: str) -> bool: ...

    async def delete(self, key: str) -> None:
        """Remove `key`; fine when it is not there."""
        ...

    def list(self, prefix: str) -> AsyncIterator[str]:
        """The keys below the folder `prefix`, in order."""
        ...

    def url(self, key: str) -> str:
        """Where a program outside ionbeam finds the object: `file://…`, `s3://…`."""
        ...

    def upload(self) -> AbstractContextManager[Upload]:
        """Blocking. Stream a new object whose key is known at the end; discarded unless committed."""
        ...

    def open(self, key: str) -> pa.NativeFile:
        """Blocking. Random access to an object. Raises PayloadMissing when there is none."""
        ...

    def size(self, key: str) -> int:
        """Blocking. Bytes of the object. Raises PayloadMissing when there is none."""
        ...

    def discard(self, key: str) -> None:
        """Blocking. Remove `key`; fine when it is not there."""
        ...
