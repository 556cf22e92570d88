"""The ledger's transitions over ingestions, each inside a transaction that its caller holds."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any

import msgspec

from ionbeam.backends.embedded import ledger_windows as windows
from ionbeam.backends.embedded.ledger_windows import Rules
from ionbeam.domain.accounting import Counts
from ionbeam.domain.contract import Contract
from ionbeam.domain.windows import micros, moment
from ionbeam.ports.observations import Share
from ionbeam.ports.records import Acceptance, Accepted, AcceptOutcome, IngestionState, Published, Standing
from ionbeam.schemas.codec import decode, encode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim

_MESSAGES = msgspec.msgpack.Encoder()
_CLAIMS = msgspec.json.Decoder(tuple[Claim, ...])
_IDS = msgspec.json.Decoder(tuple[str, ...])


def post(db: sqlite3.Connection, owner: str, record: bytes, messages: tuple[Published, ...]) -> int:
    """Put a journal record and the messages that go with it into the outbox."""
    cursor = db.execute(
        "INSERT INTO outbox (owner, record, messages) VALUES (?, ?, ?)", (owner, record, _MESSAGES.encode(messages))
    )
    number: int = cursor.lastrowid or 0
    return number


def standing(db: sqlite3.Connection, command_id: str) -> Standing:
    row = db.execute("SELECT issued_at, digest, payload, entry FROM ingestions WHERE id = ?", (command_id,)).fetchone()
    if row is not None:
        return Standing(accepted=True, issued_at=moment(row[0]), digest=row[1], payload_location=row[2], entry=row[3])
    handed = db.execute("SELECT at FROM first_handed WHERE id = ?", (command_id,)).fetchone()
    return Standing(accepted=False, issued_at=None if handed is None else moment(handed[0]))


def first_handed(db: sqlite3.Connection, command_id: str, now: int) -> int:
    db.execute("INSERT OR IGNORE INTO first_handed VALUES (?, ?)", (command_id, now))
    at: int = db.execute("SELECT at FROM first_handed WHERE id = ?", (command_id,)).fetchone()[0]
    return at


def contract(db: sqlite3.Connection, dataset: str) -> tuple[Contract | None, int]:
    row = db.execute("SELECT body, version FROM contracts WHERE dataset = ?", (dataset,)).fetchone()
    return (None, 0) if row is None else (decode(row[0], Contract), row[1])


def accept(db: sqlite3.Connection, new: Acceptance, owner: str, now: int) -> Accepted:
    known = db.execute("SELECT entry FROM ingestions WHERE id = ?", (new.id,)).fetchone()
    if known is not None:
        return Accepted(AcceptOutcome.ALREADY, known[0])
    dataset = new.metadata.dataset.name
    current, version = contract(db, dataset)
    if version != new.contract_version:
        return Accepted(AcceptOutcome.CONTRACT_MOVED)
    if current != new.contract:
        db.execute(
            "INSERT INTO contracts VALUES (?1, 1, ?2)"
            " ON CONFLICT (dataset) DO UPDATE SET version = version + 1, body = ?2",
            (dataset, encode(new.contract)),
        )
    entry = post(db, owner, new.record, new.messages)
    _insert(db, new, entry, now)
    db.execute("DELETE FROM first_handed WHERE id = ?", (new.id,))
    return Accepted(AcceptOutcome.ACCEPTED, entry)


def _insert(db: sqlite3.Connection, new: Acceptance, entry: int, now: int) -> None:
    body = encode(new.metadata)
    digest = hashlib.sha256(body).hexdigest()
    db.execute("INSERT OR IGNORE INTO metadata VALUES (?, ?)", (digest, body))
    issued_at = micros(new.issued_at)
    db.execute(
        "INSERT INTO ingestions (id, dataset, issued_at, accepted_at, digest, payload, quarantine, start,"
        ' "end", claims, replaces, max_future, counts, metadata, entry) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)',
        (
            new.id,
            new.metadata.dataset.name,
            issued_at,
            now,
            new.digest,
            new.payload_location,
            new.quarantine_location,
            micros(new.start_time),
            micros(new.end_time),
            msgspec.json.encode(new.claims),
            msgspec.json.encode(new.replaces),
            str(new.max_future),
            encode(new.counts),
            digest,
            entry,
        ),
    )
    db.executemany(
        "INSERT INTO shares (ingestion, window, dataset, issued_at, rows, placement) VALUES (?,?,?,?,?,?)",
        [
            (new.id, share.window_start, new.metadata.dataset.name, issued_at, share.rows, share.placement)
            for share in new.shares
        ],
    )


def enter(db: sqlite3.Connection, ingestion_id: str, rules: Rules) -> list[int]:
    row = db.execute(
        "SELECT dataset, entered, claims, replaces FROM ingestions WHERE id = ?", (ingestion_id,)
    ).fetchone()
    if row is None or row[1]:
        return []
    dataset, _, claims_body, replaces_body = row
    db.execute("UPDATE ingestions SET entered = 1 WHERE id = ?", (ingestion_id,))
    for earlier in _IDS.decode(replaces_body):
        replace(db, earlier, ingestion_id, rules)
    if db.execute("SELECT 1 FROM replaced WHERE id = ?", (ingestion_id,)).fetchone():
        return []
    return _take_part(db, dataset, ingestion_id, _CLAIMS.decode(claims_body), rules, leave=False)


def replace(db: sqlite3.Connection, ingestion_id: str, by: str, rules: Rules) -> None:
    """Take an ingestion, known or not yet known, out of its windows."""
    new = db.execute("INSERT OR IGNORE INTO replaced VALUES (?, ?)", (ingestion_id, by)).rowcount
    row = db.execute("SELECT dataset, entered, claims FROM ingestions WHERE id = ?", (ingestion_id,)).fetchone()
    if new and row is not None and row[1]:
        _take_part(db, row[0], ingestion_id, _CLAIMS.decode(row[2]), rules, leave=True)


def _take_part(
    db: sqlite3.Connection, dataset: str, ingestion: str, claims: tuple[Claim, ...], rules: Rules, *, leave: bool
) -> list[int]:
    """Let an ingestion's rows and claims enter or leave; the windows that its rows touch."""
    agreed, _ = contract(db, dataset)
    assert agreed is not None, "an accepted ingestion has a contract"
    shares = db.execute("SELECT window, rows FROM shares WHERE ingestion = ?", (ingestion,)).fetchall()
    db.execute("UPDATE shares SET entered = ? WHERE ingestion = ?", (0 if leave else 1, ingestion))
    for window, rows in shares:
        windows.touch(db, dataset, window, agreed.span, -rows if leave else rows)
    windows.change_coverage(db, dataset, claims, withdraw=leave)
    touched = [window for window, _ in shares]
    for window in {*touched, *windows.pending_under(db, dataset, agreed.span, claims)}:
        windows.judge(db, dataset, window, rules(dataset))
    return touched


_STATE = (
    'SELECT i.id, i.dataset, i.entered, i.issued_at, i.accepted_at, i.payload, i.quarantine, i.start, i."end",'
    " i.claims, i.replaces, i.max_future, i.counts, i.metadata, r.id FROM ingestions i"
    " LEFT JOIN replaced r ON r.id = i.id"
)


def states(db: sqlite3.Connection, after: str | None, limit: int) -> list[IngestionState]:
    """A page of accepted ingestions in the order of acceptance."""
    found = db.execute(
        f"{_STATE} WHERE i.seq > COALESCE((SELECT seq FROM ingestions WHERE id = ?), 0) ORDER BY i.seq LIMIT ?",
        (after, limit),
    ).fetchall()
    return [_state(db, row) for row in found]


def state(db: sqlite3.Connection, command_id: str) -> IngestionState | None:
    row = db.execute(f"{_STATE} WHERE i.id = ?", (command_id,)).fetchone()
    return None if row is None else _state(db, row)


def _state(db: sqlite3.Connection, row: tuple[Any, ...]) -> IngestionState:
    (name, dataset, entered, issued, accepted, payload, quarantine, start, end, *rest) = row
    claims, replaces, max_future, counts, metadata, gone = rest
    shares = db.execute(
        "SELECT window, rows, placement FROM shares WHERE ingestion = ? ORDER BY window", (name,)
    ).fetchall()
    return IngestionState(
        id=name,
        dataset=dataset,
        issued_at=moment(issued),
        accepted_at=moment(accepted),
        replaced=gone is not None,
        entered=bool(entered),
        payload_location=payload,
        quarantine_location=quarantine,
        start_time=moment(start),
        end_time=moment(end),
        metadata=windows.metadata_of(db, metadata),
        claims=_CLAIMS.decode(claims),
        replaces=_IDS.decode(replaces),
        max_future=Duration(max_future),
        counts=decode(counts, Counts),
        shares=tuple(Share(window_start=w, rows=rows, placement=placement) for w, rows, placement in shares),
    )
