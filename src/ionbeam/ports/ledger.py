"""What ionbeam needs of a ledger: who was accepted, which windows have news, what was built.

Each method is one atomic transition: it has happened as a whole when it returns, or not at all, and to ask for it
again changes nothing. No transition looks at more than the ingestions and windows that it names or touches.
All times are on the ledger's own clock, UTC; window starts are microseconds since the Unix epoch.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from ionbeam.domain.contract import Contract
from ionbeam.ports.records import (
    Acceptance,
    Accepted,
    Built,
    IngestionState,
    Lease,
    Member,
    NodeState,
    OutboxEntry,
    Published,
    Revision,
    Standing,
    Unsettled,
    WindowState,
)


class Watch(Protocol):
    """Opened before looking, so that no news between looking and waiting is missed."""

    async def wait(self) -> None:
        """Wait until there may be news since the watch was opened."""
        ...


class Ledger(Protocol):
    def watch(self, topic: Literal["windows", "outbox"]) -> Watch:
        """Watch the schedule of windows, or the outbox."""
        ...

    async def now(self) -> datetime: ...

    # -- sources -----------------------------------------------------------------------------------------------
    async def stamp(self, command_id: str) -> datetime:
        """A moment for a command's `issued_at`: now, and later than every stamp given before.

        The same again for a command that is sent again before it was accepted: a sender that was interrupted and
        repeats itself does not change the order of its commands.
        """
        ...

    async def recall(self, key: str) -> bytes | None:
        """What was remembered under `key`."""
        ...

    async def remember(self, key: str, value: bytes) -> None: ...

    # -- ingestion ---------------------------------------------------------------------------------------------
    async def standing(self, command_id: str) -> Standing: ...

    async def first_handed(self, command_id: str) -> datetime:
        """The moment at which a command without `issued_at` was first handed to a node; recorded once."""
        ...

    async def contract(self, dataset: str) -> tuple[Contract | None, int]:
        """The dataset's contract and its version (0: none yet)."""
        ...

    async def accept(self, acceptance: Acceptance) -> Accepted: ...

    async def record(self, record: bytes, *messages: Published) -> int:
        """Put a journal record (a refusal, an operator's action) into the outbox; its entry's number."""
        ...

    # -- coordination ------------------------------------------------------------------------------------------
    async def enter(self, ingestion_id: str) -> list[int]:
        """Let an accepted ingestion, its claims and its replacements take effect; the windows that its rows touch.

        An ingestion that a later one replaces leaves its windows, or never enters them.
        """
        ...

    async def retract(self, ingestion_id: str, record: bytes) -> int:
        """Take an ingestion back, known or not yet known. The outbox entry's number."""
        ...

    async def reconsider(self) -> None:
        """Judge all waiting windows by the rules that this node was started with."""
        ...

    # -- building ----------------------------------------------------------------------------------------------
    async def lease(self, ttl: float) -> Lease | None:
        """The window that has been due longest, if any is due and free, for `ttl` seconds."""
        ...

    async def renew(self, lease: Lease, ttl: float) -> bool:
        """Keep the lease for `ttl` seconds more. False: it was lost, stop building."""
        ...

    async def built(self, lease: Lease, revision: Revision, record: bytes, messages: tuple[Published, ...]) -> Built:
        """Record what was built, if the lease still holds: compare-and-set on its token.

        The same content as the current revision makes no revision and sends no `messages`; what was counted is
        recorded all the same.
        """
        ...

    async def failed(self, lease: Lease, reason: str, retry_in: float | None) -> None:
        """The build failed: try again in `retry_in` seconds, or park the window (None)."""
        ...

    async def release(self, lease: Lease) -> None:
        """Hand the window back unbuilt."""
        ...

    async def retry_windows(self, dataset: str | None, record: bytes) -> int:
        """Free parked windows; how many."""
        ...

    async def next_due(self) -> datetime | None:
        """When the next window becomes due; None when none is scheduled. May lie in the past."""
        ...

    async def unsettled(self) -> Unsettled: ...

    # -- exports -----------------------------------------------------------------------------------------------
    async def current(self, dataset: str, window_start: int) -> Revision | None: ...

    async def last_revision(self) -> int:
        """The place of the newest revision among all revisions of all datasets, counted from 1; 0: none."""
        ...

    async def revisions(self, after: int, limit: int) -> list[tuple[int, Revision]]:
        """Revisions in the order in which they were recorded, those behind place `after`."""
        ...

    # -- outbox ------------------------------------------------------------------------------------------------
    async def outbox(self, limit: int) -> list[OutboxEntry]:
        """This node's oldest entries (those of nodes that died included), in order."""
        ...

    async def clear(self, numbers: list[int], journal_cursor: str) -> None:
        """These entries are in the journal and published."""
        ...

    async def pending(self, numbers: list[int]) -> set[int]:
        """Which of these entries still wait in the outbox."""
        ...

    # -- nodes -------------------------------------------------------------------------------------------------
    async def report(self, state: NodeState) -> None:
        """Say how this node is. Forgotten when the node ends."""
        ...

    async def nodes(self) -> list[NodeState]: ...

    # -- looking -----------------------------------------------------------------------------------------------
    async def ingestions(self, after: str | None, limit: int) -> list[IngestionState]:
        """Accepted ingestions in the order of acceptance, a page at a time: those after id `after`."""
        ...

    async def ingestion(self, command_id: str) -> IngestionState | None: ...

    async def windows(
        self, dataset: str | None, after: tuple[str, int] | None, limit: int, *, pending: bool = False
    ) -> list[WindowState]:
        """Windows by dataset and start, a page at a time; `pending`: only those whose news are not built."""
        ...

    async def latest(self, dataset: str) -> Revision | None:
        """The revision of the dataset that was recorded last."""
        ...

    async def members(self, dataset: str, window_start: int) -> tuple[Member, ...]: ...

    async def datasets(self) -> list[str]: ...
