"""What a simulated world is asked to do: commands with their rows, and when which copy of which arrives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ionbeam.config import Attempts, Memory, Topology, WindowSettings
from ionbeam.schemas.codec import encode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim, IngestDataCommand
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam.schemas.variables import MetadataVariable
from ionbeam.testing.raw import START, VARIABLES, Row
from ionbeam.testing.scheduling import chances

HOURS = 3600.0
UNSTAMPED_AT, DISAGREES_AT = 4000.0, 3 * HOURS
LIMIT = 8
"""Attempts at a message; more than the faults of one run can spend."""


class Sent(Struct, frozen=True, kw_only=True):
    """A message for ingestion, when copies of it arrive (seconds from START), and what shall become of it.

    A dead one names in `reason` what its dead letter must say. `rows` None: its payload is not there.
    """

    id: str
    body: bytes
    at: tuple[float, ...]
    fate: Literal["accepted", "dead"] = "accepted"
    reason: str = ""
    command: IngestDataCommand | None = None
    rows: tuple[Row, ...] | None = ()


class Plan(Struct, frozen=True, kw_only=True):
    """All that a world is asked to do. `killers` are the ids of commands whose payload ends the process that
    reads it; it is looked at `until` seconds after START."""

    seed: int
    nodes: int
    topology: Topology
    sent: tuple[Sent, ...]
    until: float
    newcomer: bool = False
    killers: frozenset[str] = frozenset()

    def calm(self) -> Plan:
        """The same commands, each sent once, in order of precedence, to a single node."""
        return msgspec.structs.replace(
            self,
            nodes=1,
            newcomer=False,
            sent=tuple(msgspec.structs.replace(sent, at=(_calm_at(sent),)) for sent in self.sent),
        )


def _calm_at(sent: Sent) -> float:
    """When it was issued, or as soon as the world begins; what ranks or is refused by its moment keeps that."""
    if sent.fate == "dead" or sent.command is None or sent.command.issued_at is None:
        return min(sent.at)
    return max(0.0, (sent.command.issued_at - START).total_seconds())


class Style(Struct, frozen=True, kw_only=True):
    """What the commands of one dataset have in common: its contract, and when its windows are built."""

    name: str
    fold: Literal["row", "value"]
    identity: tuple[str, ...] | None
    metadata: tuple[str, ...]
    windows: int
    subject_to_change: str
    settings: WindowSettings

    def map(self, chance: Random) -> IngestionMetadata:
        """The map of one command: some of the variables, in some order; columns outside the identity may lack."""
        variables = chance.sample(VARIABLES, chance.randint(1, len(VARIABLES)))
        extra = ("operator",) if self.identity is not None and chance.random() < 0.4 else ()
        return IngestionMetadata(
            dataset=DatasetMetadata(
                name=self.name,
                description=f"simulated {self.name}",
                aggregation_span=Duration("PT1H"),
                subject_to_change_window=Duration(self.subject_to_change),
            ),
            ingestion_map=DataIngestionMap(
                canonical_variables=tuple(variables),
                metadata_variables=tuple(MetadataVariable(column=name) for name in (*self.metadata, *extra)),
                identity=self.identity,
                fold=self.fold,
                reject_column="bad" if chance.random() < 0.2 else None,
            ),
        )


def style(name: str, chance: Random, far: bool) -> Style:
    identity, metadata = chance.choice(((("station",), ("station",)), (None, ("station",)), (None, ())))
    return Style(
        name=name,
        fold=chance.choice(("row", "value")),
        identity=identity,
        metadata=metadata,
        windows=chance.randint(2, 5),
        subject_to_change="P2D" if far else chance.choice(("PT0S", "PT0S", "PT10M")),
        settings=WindowSettings(
            allow_incomplete_windows=chance.random() < 0.25,
            min_rebuild_interval=Duration(chance.choice(("PT0S", "PT0S", "PT5M"))),
        ),
    )


def topology(styles: Sequence[Style]) -> Topology:
    return Topology(
        datasets={each.name: each.settings for each in styles},
        attempts=Attempts(limit=LIMIT),
        memory=Memory(chunk_rows=100),
    )


def moment(second: float) -> datetime:
    return START + timedelta(seconds=second)


def sending(command: IngestDataCommand, content: tuple[Row, ...] | None, *at: float, **fate: Any) -> Sent:
    return Sent(id=command.id, body=encode(command), at=at, command=command, rows=content, **fate)


def claim(start: int, end: int) -> Claim:
    return Claim(moment(start), moment(end))


def purpose(seed: int, *what: object) -> Random:
    return chances(seed, "load", *what)
