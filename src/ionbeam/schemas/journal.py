"""What the journal keeps: every command, event and decision, one JSON object a line, deduplicated by id and kind."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ionbeam.schemas.codec import encode

FORMAT = 1


class Record(Struct, frozen=True, kw_only=True):
    """One decision. `body` holds what is needed to take it again without asking anybody."""

    kind: str
    id: str
    at: datetime
    body: msgspec.Raw
    format: int = FORMAT


def record(kind: str, name: str, at: datetime, body: Struct) -> bytes:
    """A journal record of `body`, encoded."""
    return encode(Record(kind=kind, id=name, at=at, body=msgspec.Raw(encode(body))))


class AcceptedCommand(Struct, frozen=True, kw_only=True):
    """A command was accepted. `shares` say where the store put its rows."""

    command: Any
    issued_at: datetime
    digest: str
    counts: Any
    shares: Any
    quarantine_location: str | None
    contract: Any
    contract_version: int
    code_version: str


class RefusedMessage(Struct, frozen=True, kw_only=True):
    """A message became a dead letter. `message` is its text as it came (bytes that are not UTF-8 escaped)."""

    queue: str
    reason: str
    message: str


class BuiltWindow(Struct, frozen=True, kw_only=True):
    """A window was built. `revised` is false when the content was that of the revision before."""

    event: Any
    revised: bool
    counts: Any
    ingestions: tuple[str, ...]
    code_version: str


class OperatorAction(Struct, frozen=True, kw_only=True):
    """Somebody took an ingestion back, or freed parked windows."""

    action: str
    subject: str


class RulesInForce(Struct, frozen=True, kw_only=True):
    """The rules by which a node decides from now on."""

    max_future: str
    cf: str
    allow_incomplete_windows: bool
    min_rebuild_interval: str
    datasets: Any
    code_version: str
