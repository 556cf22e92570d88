"""The ledger's transitions over windows, each inside a transaction that its caller holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from ionbeam.domain import coverage
from ionbeam.domain.coverage import Segment
from ionbeam.domain.windows import due_at, micros, moment
from ionbeam.ports.observations import Share
from ionbeam.ports.records import Member, Revision, WindowRules, WindowState
from ionbeam.schemas.codec import decode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim
from ionbeam.schemas.metadata import IngestionMetadata

Rules = Callable[[str], WindowRules]


@lru_cache(maxsize=4096)
def _metadata(digest: str, body: bytes) -> IngestionMetadata:
    return decode(body, IngestionMetadata)


def metadata_of(db: sqlite3.Connection, digest: str) -> IngestionMetadata:
    return _metadata(digest, db.execute("SELECT body FROM metadata WHERE hash = ?", (digest,)).fetchone()[0])


def members_of(db: sqlite3.Connection, dataset: str, window: int) -> tuple[Member, ...]:
    """The ingestions with rows in a window, by ascending precedence."""
    found = db.execute(
        "SELECT s.ingestion, s.issued_at, s.rows, s.placement, i.metadata FROM shares s"
        " JOIN ingestions i ON i.id = s.ingestion WHERE s.dataset = ? AND s.window = ? AND s.entered"
        " ORDER BY s.issued_at, s.ingestion",
        (dataset, window),
    ).fetchall()
    return tuple(
        Member(
            id=ingestion,
            issued_at=moment(issued_at),
            metadata=metadata_of(db, digest),
            share=Share(window_start=window, rows=rows, placement=placement),
        )
        for ingestion, issued_at, rows, placement, digest in found
    )


# -- coverage ------------------------------------------------------------------------------------------------------


def _segments(db: sqlite3.Connection, dataset: str, start: int, end: int) -> list[Segment]:
    """The segments that touch `[start, end]`, in order."""
    before = db.execute(
        'SELECT start, "end", count FROM coverage WHERE dataset = ? AND start < ? ORDER BY start DESC LIMIT 1',
        (dataset, start),
    ).fetchall()
    inside = db.execute(
        'SELECT start, "end", count FROM coverage WHERE dataset = ? AND start >= ? AND start <= ? ORDER BY start',
        (dataset, start, end),
    ).fetchall()
    return [segment for row in (*before, *inside) if (segment := Segment(*row)).end >= start]


def change_coverage(db: sqlite3.Connection, dataset: str, claims: Iterable[Claim], *, withdraw: bool) -> None:
    change = coverage.withdraw if withdraw else coverage.claim
    for claim in claims:
        start, end = _micros(claim)
        before = _segments(db, dataset, start, end)
        after = change(before, start, end)
        db.executemany("DELETE FROM coverage WHERE dataset = ? AND start = ?", [(dataset, s.start) for s in before])
        db.executemany("INSERT INTO coverage VALUES (?, ?, ?, ?)", [(dataset, *segment) for segment in after])


def _micros(claim: Claim) -> tuple[int, int]:
    return micros(claim.start), micros(claim.end)


def gaps(db: sqlite3.Connection, dataset: str, start: int, span: Duration) -> list[tuple[int, int]]:
    """What no claim covers of the window."""
    end = start + span.microseconds
    return coverage.missing(_segments(db, dataset, start, end), start, end)


# -- windows -------------------------------------------------------------------------------------------------------


def touch(db: sqlite3.Connection, dataset: str, window: int, span: Duration, rows: int) -> None:
    """An ingestion with `rows` rows entered (or, negative, left) the window: there is news in it."""
    db.execute(
        "INSERT INTO windows (dataset, start, span, desired, rows) VALUES (?1, ?2, ?3, 1, ?4)"
        " ON CONFLICT (dataset, start) DO UPDATE SET desired = desired + 1, rows = rows + ?4,"
        " parked = NULL, failures = 0, not_before = 0",
        (dataset, window, str(span), rows),
    )


def pending_under(db: sqlite3.Connection, dataset: str, span: Duration, claims: Iterable[Claim]) -> set[int]:
    """Windows with news that overlap one of `claims`."""
    found: set[int] = set()
    for claim in claims:
        start, end = _micros(claim)
        found.update(
            window
            for (window,) in db.execute(
                "SELECT start FROM windows WHERE dataset = ? AND start > ? AND start < ? AND desired <> built",
                (dataset, start - span.microseconds, end),
            )
        )
    return found


def judge(db: sqlite3.Connection, dataset: str, window: int, rules: WindowRules) -> None:
    """Schedule the window for when it is due, or not at all: see DESIGN, Windows."""
    span_text, desired, built, rows, not_before, built_at, parked, number = db.execute(
        "SELECT span, desired, built, rows, not_before, built_at, parked, number FROM windows"
        " WHERE dataset = ? AND start = ?",
        (dataset, window),
    ).fetchone()
    span = Duration(span_text)
    ready = desired != built and parked is None and (rows > 0 or number > 0)
    if ready and rows > 0 and not rules.allow_incomplete:
        ready = not gaps(db, dataset, window, span)
    due = None
    if ready:
        due = due_at(window, span, _subject_to_change(db, dataset, window))
        due = max(due, not_before)
        if built_at is not None:
            due = max(due, built_at + rules.min_rebuild_interval.microseconds)
    db.execute("UPDATE windows SET due = ? WHERE dataset = ? AND start = ?", (due, dataset, window))


def _subject_to_change(db: sqlite3.Connection, dataset: str, window: int) -> Duration:
    found = db.execute(
        "SELECT i.metadata FROM shares s JOIN ingestions i ON i.id = s.ingestion"
        " WHERE s.dataset = ? AND s.window = ? AND s.entered ORDER BY s.issued_at DESC, s.ingestion DESC LIMIT 1",
        (dataset, window),
    ).fetchone()
    return metadata_of(db, found[0]).dataset.subject_to_change_window if found else Duration("PT0S")


_FIRST = -(1 << 62)
_STATE = "SELECT dataset, start, span, desired, built, rows, due, expires, failures, parked, revision FROM windows"


def states(
    db: sqlite3.Connection, dataset: str | None, after: tuple[str, int] | None, limit: int, pending: bool
) -> list[WindowState]:
    """A page of windows by dataset and start."""
    place = after or ("", _FIRST)
    if dataset is not None:
        if place[0] > dataset:
            return []
        place = (dataset, place[1] if place[0] == dataset else _FIRST)
    # With one dataset not as a row value: SQLite would walk through all that lies before the page.
    condition = "(dataset, start) > (?, ?)" if dataset is None else "dataset = ? AND start > ?"
    condition += " AND desired <> built" if pending else ""
    found = db.execute(f"{_STATE} WHERE {condition} ORDER BY dataset, start LIMIT ?", (*place, limit)).fetchall()
    return [_state(db, row) for row in found]


def _state(db: sqlite3.Connection, row: tuple[Any, ...]) -> WindowState:
    dataset, start, span_text, desired, built, rows, due, expires, failures, parked, revision = row
    span = Duration(span_text)
    missing = gaps(db, dataset, start, span)
    return WindowState(
        dataset=dataset,
        window_start=start,
        span=span,
        desired=desired,
        built=built,
        rows=rows,
        covered=not missing,
        missing=tuple(Claim(moment(low), moment(high)) for low, high in missing),
        due=None if due is None else moment(due),
        leased_until=None if expires is None else moment(expires),
        failures=failures,
        parked=parked,
        current=None if revision is None else decode(revision, Revision),
    )
