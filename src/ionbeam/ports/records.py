"""What a ledger takes and gives: plain structs, the same whatever keeps them.

Times are UTC; window starts are microseconds since the Unix epoch.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum

from msgspec import Struct

from ionbeam.domain.accounting import Counts, WindowCounts
from ionbeam.domain.contract import Contract
from ionbeam.ports.observations import Share
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim, DataSetAvailableEvent
from ionbeam.schemas.metadata import IngestionMetadata


class Published(Struct, frozen=True, kw_only=True):
    """A message that a decision causes: to be published to `exchange` once the decision stands."""

    exchange: str
    message_id: str
    body: bytes


class OutboxEntry(Struct, frozen=True, kw_only=True):
    """What a decision causes: one journal record and any messages, relayed in the order of `number`."""

    number: int
    record: bytes
    messages: tuple[Published, ...] = ()


class Standing(Struct, frozen=True, kw_only=True):
    """What the ledger knows of a command id. `entry` is the outbox entry of its acceptance."""

    accepted: bool
    issued_at: datetime | None
    digest: str | None = None
    payload_location: str | None = None
    entry: int | None = None


class Acceptance(Struct, frozen=True, kw_only=True):
    """All that is recorded when a command is accepted."""

    id: str
    metadata: IngestionMetadata
    issued_at: datetime
    digest: str
    payload_location: str
    quarantine_location: str | None
    start_time: datetime
    end_time: datetime
    claims: tuple[Claim, ...]
    replaces: tuple[str, ...]
    counts: Counts
    shares: tuple[Share, ...]
    max_future: Duration
    contract: Contract
    contract_version: int
    record: bytes
    messages: tuple[Published, ...]


class AcceptOutcome(Enum):
    ACCEPTED = "accepted"
    ALREADY = "already accepted"
    CONTRACT_MOVED = "the contract changed since it was read: read it again"


class Accepted(Struct, frozen=True):
    outcome: AcceptOutcome
    entry: int | None = None


class WindowRules(Struct, frozen=True, kw_only=True):
    """The operator's rules for the windows of a dataset."""

    allow_incomplete: bool = False
    min_rebuild_interval: Duration = Duration("PT0S")


class Member(Struct, frozen=True, kw_only=True):
    """An ingestion that has rows in a window, with its precedence and where its rows are."""

    id: str
    issued_at: datetime
    metadata: IngestionMetadata
    share: Share

    @property
    def precedence(self) -> tuple[datetime, str]:
        return (self.issued_at, self.id)


class Revision(Struct, frozen=True, kw_only=True):
    """The current revision of a window."""

    dataset: str
    window_start: int
    number: int
    rows: int
    content_hash: str
    ingestion_set_hash: str
    counts: WindowCounts
    event: DataSetAvailableEvent
    built_at: datetime


class Lease(Struct, frozen=True, kw_only=True):
    """The right to build one window, held until `expires` unless renewed. `members` by ascending precedence."""

    dataset: str
    window_start: int
    span: Duration
    token: str
    desired: int
    expires: datetime
    failures: int
    contract: Contract
    members: tuple[Member, ...]
    current: Revision | None


class BuildOutcome(Enum):
    REVISED = "a new revision"
    UNCHANGED = "the same content: no revision"
    STALE = "the lease was lost: nothing recorded"


class Built(Struct, frozen=True):
    outcome: BuildOutcome
    entry: int | None = None


class IngestionState(Struct, frozen=True, kw_only=True):
    """An accepted ingestion as the ledger keeps it."""

    id: str
    dataset: str
    issued_at: datetime
    accepted_at: datetime
    replaced: bool
    entered: bool
    payload_location: str
    quarantine_location: str | None
    start_time: datetime
    end_time: datetime
    metadata: IngestionMetadata
    claims: tuple[Claim, ...]
    replaces: tuple[str, ...]
    max_future: Duration
    counts: Counts
    shares: tuple[Share, ...]


class WindowState(Struct, frozen=True, kw_only=True):
    """A window as `status` and `audit` show it."""

    dataset: str
    window_start: int
    span: Duration
    desired: int
    built: int
    rows: int
    covered: bool
    missing: tuple[Claim, ...]
    due: datetime | None
    leased_until: datetime | None
    failures: int
    parked: str | None
    current: Revision | None

    @property
    def pending(self) -> bool:
        return self.desired != self.built


class Unsettled(Struct, frozen=True, kw_only=True):
    """Work that is under way: windows due, leased or about to be tried again; decisions still in an outbox."""

    windows: int
    decisions: int


class MailboxState(Struct, frozen=True, kw_only=True):
    """A mailbox of a running node: how many messages wait in it, of how many it has room for."""

    name: str
    waiting: int
    capacity: int


class NodeState(Struct, frozen=True, kw_only=True):
    """A running node, as it last reported itself."""

    session: str
    name: str
    pid: int
    seen: datetime
    mailboxes: tuple[MailboxState, ...] = ()
