"""What an exporter is: a function of a dataset's revision, and a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pyarrow as pa
from msgspec import Struct

from ionbeam.schemas.messages import DataSetAvailableEvent


class DatasetRevision(Struct, frozen=True, kw_only=True):
    """One revision of a window, as an exporter gets it.

    `open()` gives random access to the dataset file (Arrow IPC file); the caller closes it. `url` is where a program
    outside ionbeam finds it.
    """

    event: DataSetAvailableEvent
    url: str
    open: Callable[[], pa.NativeFile]


class Exporter(Protocol):
    """Puts dataset revisions somewhere.

    `apply` is called in a worker thread, at least once for each current revision. It must be idempotent, must not go
    back to an older revision of a window than the one it shows, and must make what an earlier revision left disappear
    when a revision has zero rows. What it did is durable when it returns. Any exception is one failed attempt.
    """

    @property
    def name(self) -> str:
        """Lowercase letters, digits, `_` and `-`; names the exporter's queue."""
        ...

    def apply(self, revision: DatasetRevision) -> None: ...
