"""What became of every row: the counts that ingestions and windows keep, and the identities they must satisfy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

NAMES = ("received", "accepted", "duplicate", "merged", "conflict", "rejected")
"""What is counted of an ingestion's rows."""


class Counts(Struct, frozen=True, kw_only=True):
    """What became of the rows of one ingestion.

    `reasons` counts rejected rows by reason; `values` counts single values made null, by `column: reason`;
    `ignored_columns` counts payload columns that the map does not name.
    """

    received: int = 0
    accepted: int = 0
    duplicate: int = 0
    merged: int = 0
    conflict: int = 0
    rejected: int = 0
    reasons: dict[str, int] = {}
    values: dict[str, int] = {}
    ignored_columns: int = 0

    @property
    def balanced(self) -> bool:
        """received = accepted + duplicate + merged + conflict + rejected, and every rejection has a reason."""
        lost = self.duplicate + self.merged + self.conflict + self.rejected
        return self.received == self.accepted + lost and self.rejected == sum(self.reasons.values())


def total(counts: Iterable[Counts]) -> Counts:
    """All of `counts` added up."""
    numbers: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for one in counts:
        numbers.update({name: getattr(one, name) for name in NAMES})
        numbers["ignored_columns"] += one.ignored_columns
        reasons.update(one.reasons)
        values.update(one.values)
    return Counts(
        received=numbers["received"],
        accepted=numbers["accepted"],
        duplicate=numbers["duplicate"],
        merged=numbers["merged"],
        conflict=numbers["conflict"],
        rejected=numbers["rejected"],
        reasons=dict(reasons),
        values=dict(values),
        ignored_columns=numbers["ignored_columns"],
    )


class WindowCounts(Struct, frozen=True, kw_only=True):
    """What became of the accepted rows that lie in one window."""

    accepted: int = 0
    rows: int = 0
    duplicate: int = 0
    merged: int = 0
    conflict: int = 0

    @property
    def balanced(self) -> bool:
        """accepted = rows + duplicate + merged + conflict."""
        return self.accepted == self.rows + self.duplicate + self.merged + self.conflict


CONFLICTS_NEEDED = 100


def conflicts_are_suspicious(conflicts: int, received: int) -> bool:
    """At least 100 conflicts that are more than half of the rows: an identity column is missing from the map."""
    return conflicts >= CONFLICTS_NEEDED and 2 * conflicts > received
