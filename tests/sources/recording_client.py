"""A client in memory that records what a source does, and can fail at any of its calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
from msgspec import Struct

from ionbeam.client import Claim, Client, IngestionMetadata, IonbeamError, Rows


class Sent(Struct, frozen=True, kw_only=True):
    """A published command with its payload."""

    id: str
    rows: pa.Table
    metadata: IngestionMetadata
    start: datetime
    end: datetime
    claims: tuple[Claim, ...] | None
    replaces: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        """Raw column to canonical name."""
        return {v.column: v.canonical_name for v in self.metadata.ingestion_map.canonical_variables}


class Crashed(IonbeamError):
    """The scripted fault."""


class RecordingClient(Client):
    """Keeps what was published and remembered. Call number `crash_at` fails, before its effect or after."""

    def __init__(self, *, accepts: bool = True) -> None:
        self.accepts = accepts
        self.memory: dict[str, bytes] = {}
        self.sent: list[Sent] = []
        self.calls = 0
        self.crash_at: int | None = None
        self.crash_after_effect = False

    @property
    def standing(self) -> list[Sent]:
        """The published commands, each once, that no published command replaces."""
        replaced = {name for sent in self.sent for name in sent.replaces}
        return list({sent.id: sent for sent in self.sent if sent.id not in replaced}.values())

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
        self._call()
        if isinstance(rows, pa.RecordBatchReader):
            rows = rows.read_all()
        assert isinstance(rows, pa.Table)
        self.sent.append(
            Sent(
                id=command_id,
                rows=rows,
                metadata=metadata,
                start=start,
                end=end,
                claims=None if claims is None else tuple(claims),
                replaces=tuple(replaces),
            )
        )
        self._done()
        return command_id

    async def accepted(self, command_id: str) -> bool:
        self._call()
        self._done()
        return self.accepts and any(sent.id == command_id for sent in self.sent)

    async def recall(self, key: str) -> bytes | None:
        self._call()
        self._done()
        return self.memory.get(key)

    async def remember(self, key: str, value: bytes) -> None:
        self._call()
        self.memory[key] = value
        self._done()

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.crash_at and not self.crash_after_effect:
            raise Crashed(f"before call {self.calls}")

    def _done(self) -> None:
        if self.calls == self.crash_at and self.crash_after_effect:
            raise Crashed(f"after call {self.calls}")
