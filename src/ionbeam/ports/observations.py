"""What ionbeam needs of a store of observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa
from msgspec import Struct


class Share(Struct, frozen=True, kw_only=True):
    """What one ingestion has in one window: how many rows, and where the store put them.

    `window_start` in microseconds since the Unix epoch, UTC. `placement` is the store's own word.
    """

    window_start: int
    rows: int
    placement: str


class ObservationStore(Protocol):
    """Keeps the accepted rows of each ingestion and gives them back by window.

    Blocking: for worker threads. A table of stored rows has `timestamp` (int64, nanoseconds since the Unix epoch,
    UTC), `latitude`, `longitude`, the variables under canonical names, the metadata columns, and `__row` (int64,
    the row's place in the payload). Whole rows come back exactly as they went in: nulls, bits of floats, text.
    """

    def write(
        self, dataset: str, ingestion: str, span_us: int, schema: pa.Schema, tables: Iterable[pa.Table]
    ) -> list[Share]:
        """Keep the rows of an ingestion; durable when it returns.

        `tables` come in order of time and do not overlap in time. The same rows of the same ingestion may be
        written again with no further effect. A write that is never accepted is never read.
        """
        ...

    def read(self, dataset: str, ingestion: str, share: Share) -> Iterator[pa.Table]:
        """The rows of a share, in the order in which they were written, in pieces of bounded size."""
        ...

    def forget(self, dataset: str, ingestion: str, shares: Sequence[Share]) -> None:
        """Remove rows that nothing needs any more."""
        ...
