"""The ledger's transitions over leases of windows, each inside a transaction that its caller holds."""

from __future__ import annotations

import sqlite3

from ionbeam.backends.embedded import ledger_ingestions as ingestions
from ionbeam.backends.embedded import ledger_windows as windows
from ionbeam.backends.embedded.ledger_windows import Rules
from ionbeam.domain.windows import moment
from ionbeam.ports.records import BuildOutcome, Lease, Revision
from ionbeam.schemas.codec import decode, encode
from ionbeam.schemas.duration import Duration


def due(db: sqlite3.Connection, now: int) -> tuple[str, int] | None:
    """The window that has been due longest and that nobody holds."""
    found: tuple[str, int] | None = db.execute(
        "SELECT dataset, start FROM windows WHERE due <= ?1 AND (token IS NULL OR expires <= ?1)"
        " ORDER BY due, dataset, start LIMIT 1",
        (now,),
    ).fetchone()
    return found


def lease(db: sqlite3.Connection, dataset: str, window: int, token: str, holder: str, expires: int) -> Lease:
    """Lease the window to `holder`: the only place that sets a token."""
    db.execute(
        "UPDATE windows SET token = ?, holder = ?, expires = ? WHERE dataset = ? AND start = ?",
        (token, holder, expires, dataset, window),
    )
    span, desired, failures, revision = db.execute(
        "SELECT span, desired, failures, revision FROM windows WHERE dataset = ? AND start = ?", (dataset, window)
    ).fetchone()
    agreed, _ = ingestions.contract(db, dataset)
    assert agreed is not None, "a window has a contract"
    return Lease(
        dataset=dataset,
        window_start=window,
        span=Duration(span),
        token=token,
        desired=desired,
        expires=moment(expires),
        failures=failures,
        contract=agreed,
        members=windows.members_of(db, dataset, window),
        current=None if revision is None else decode(revision, Revision),
    )


def update(db: sqlite3.Connection, held: Lease, change: str, *values: object) -> bool:
    """Apply `change` to the leased window if the lease still holds: compare-and-set on its token."""
    return (
        db.execute(
            f"UPDATE windows SET {change} WHERE dataset = ? AND start = ? AND token = ?",
            (*values, held.dataset, held.window_start, held.token),
        ).rowcount
        == 1
    )


def built(db: sqlite3.Connection, held: Lease, revision: Revision, now: int) -> BuildOutcome:
    """Record what was built. The lease is still held after it, for `free` to end."""
    if not update(
        db,
        held,
        "built = ?, built_at = ?, number = ?, revision = ?, failures = 0, not_before = 0",
        held.desired,
        now,
        revision.number,
        encode(revision),
    ):
        return BuildOutcome.STALE
    if held.current is not None and held.current.content_hash == revision.content_hash:
        return BuildOutcome.UNCHANGED
    db.execute(
        "INSERT INTO revisions (dataset, window, number, body) VALUES (?, ?, ?, ?)",
        (held.dataset, held.window_start, revision.number, encode(revision)),
    )
    return BuildOutcome.REVISED


def free(db: sqlite3.Connection, held: Lease, rules: Rules) -> None:
    """End the lease, if it still holds, and schedule what the window still owes."""
    if update(db, held, "token = NULL, holder = NULL, expires = ?", None):
        windows.judge(db, held.dataset, held.window_start, rules(held.dataset))


def unpark(db: sqlite3.Connection, dataset: str | None, rules: Rules) -> int:
    """Free parked windows, of one dataset or of all; how many."""
    parked = db.execute(
        "SELECT dataset, start FROM windows WHERE parked IS NOT NULL AND dataset = COALESCE(?, dataset)", (dataset,)
    ).fetchall()
    for name, window in parked:
        db.execute(
            "UPDATE windows SET parked = NULL, failures = 0, not_before = 0 WHERE dataset = ? AND start = ?",
            (name, window),
        )
        windows.judge(db, name, window, rules(name))
    return len(parked)
