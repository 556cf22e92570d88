"""The four messages. Commands ask; events state facts. Times are UTC."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ionbeam.schemas.metadata import DatasetMetadata, DatasetName, IngestionMetadata

MessageId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\n)",
        description="a UUID, or 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first",
    ),
]
ObjectKey = Annotated[str, Meta(min_length=1, max_length=1024)]
Time = Annotated[datetime, Meta(tz=True, description="an ISO 8601 time with an offset, such as 2024-01-01T12:00:00Z")]
Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[a-z0-9_-]+$(?!\n)",
        description="1 to 100 lowercase letters, digits, '_' and '-'",
    ),
]

MAX_CLAIMS = 10_000


class Claim(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`[start, end)`: a source looked at this span of time."""

    start: Time
    end: Time

    def __post_init__(self) -> None:
        _in_utc(self, "start", "end")
        if self.end <= self.start:
            raise ValueError(f"a claim ends after it starts, got [{self.start.isoformat()}, {self.end.isoformat()})")


class StartSourceCommand(Struct, frozen=True, kw_only=True):
    """Asks a source to fetch the observations of `[start_time, end_time)`."""

    id: MessageId
    source_name: Name
    start_time: Time
    end_time: Time

    def __post_init__(self) -> None:
        _one_spelling(self)
        _in_utc(self, "start_time", "end_time")
        _in_order(self.start_time, self.end_time)


class IngestDataCommand(Struct, frozen=True, kw_only=True):
    """Asks for the payload at `payload_location` to be ingested.

    `issued_at` gives precedence over other commands. `claims` are the spans that were swept, null meaning
    `[start_time, end_time)`. `replaces` names earlier commands that this one takes the place of.
    """

    id: MessageId
    metadata: IngestionMetadata
    payload_location: ObjectKey
    start_time: Time
    end_time: Time
    issued_at: Time | None = None
    claims: Annotated[tuple[Claim, ...], Meta(max_length=MAX_CLAIMS)] | None = None
    replaces: tuple[MessageId, ...] = ()

    def __post_init__(self) -> None:
        _one_spelling(self)
        _in_utc(self, "start_time", "end_time", "issued_at")
        _in_order(self.start_time, self.end_time)
        msgspec.structs.force_setattr(self, "replaces", tuple(one_spelling(name) for name in self.replaces))
        if self.id in self.replaces:
            raise ValueError(f"`replaces` names the command itself ({self.id}); name earlier commands only")

    @property
    def swept(self) -> tuple[Claim, ...]:
        """The claims that the command makes."""
        return (Claim(self.start_time, self.end_time),) if self.claims is None else self.claims


class DataAvailableEvent(Struct, frozen=True, kw_only=True):
    """States that the rows of ingestion `id` are stored.

    `start_time` and `end_time` are the first and the last stored time, both included (rounded outwards to the
    microsecond), or the command's own where nothing was stored.
    """

    id: MessageId
    metadata: IngestionMetadata
    start_time: Time
    end_time: Time
    row_count: int | None = None

    def __post_init__(self) -> None:
        _one_spelling(self)
        _in_utc(self, "start_time", "end_time")


class DataSetAvailableEvent(Struct, frozen=True, kw_only=True):
    """States that a revision of a window is available at `dataset_location`.

    `start_time` and `end_time` are the window's. `supersedes` is the id of the event of the revision before.
    """

    id: MessageId
    metadata: DatasetMetadata
    dataset_location: ObjectKey
    start_time: Time
    end_time: Time
    revision: Annotated[int, Meta(ge=1)] = 1
    supersedes: MessageId | None = None
    row_count: Annotated[int, Meta(ge=0)] | None = None
    content_hash: str | None = None
    ingestion_set_hash: str | None = None

    def __post_init__(self) -> None:
        _one_spelling(self)
        _in_utc(self, "start_time", "end_time")


_REVISIONS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:ionbeam:dataset-revision")


def dataset_event_id(dataset: DatasetName, window_start: datetime, revision: int) -> str:
    """The id of a revision's event: the same for the same dataset, window and revision, whoever builds it."""
    start = window_start.astimezone(timezone.utc).isoformat()
    return str(uuid.uuid5(_REVISIONS, f"{dataset}/{start}/{revision}"))


def one_spelling(message_id: str) -> str:
    """A UUID in any of its spellings is one id; any other id stands as it is."""
    if len(message_id) in (32, 36):
        try:
            return str(uuid.UUID(message_id))
        except ValueError:
            pass
    return message_id


def _one_spelling(message: Struct) -> None:
    msgspec.structs.force_setattr(message, "id", one_spelling(message.id))  # type: ignore[attr-defined]


def _in_utc(message: Struct, *names: str) -> None:
    for name in names:
        value = getattr(message, name)
        if value is None:
            continue
        if value.tzinfo is None:
            raise ValueError(f"`{name}` has no time zone: {value.isoformat()}; write it with an offset, such as Z")
        try:
            msgspec.structs.force_setattr(message, name, value.astimezone(timezone.utc))
        except OverflowError:
            raise ValueError(f"`{name}` lies outside the years 1 to 9999 in UTC: {value.isoformat()}") from None


def _in_order(start: datetime, end: datetime) -> None:
    if end <= start:
        raise ValueError(f"`end_time` must be after `start_time`, got {start.isoformat()} to {end.isoformat()}")
