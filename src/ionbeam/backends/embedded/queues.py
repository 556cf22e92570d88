"""The tables of the embedded broker and the transitions of a message in them, each within a transaction.

A message is ready (`holder` null, not delayed, or its delay over), delayed, or taken (`holder` is a session).
`takings` counts how often it was taken and never goes back: with `seq` it is the token of one taking. Times
are microseconds since the Unix epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from ionbeam.backends.embedded.database import Part
from ionbeam.domain.windows import micros, moment
from ionbeam.ports.broker import Attempt, DeadLetter, Incoming, QueueDepth

KEPT_ATTEMPTS = 20
LONGEST_ERROR = 2_000
MOST_DEATHS = 20
BEYOND_ANY_LIMIT = 1_000_000

TABLES = """
CREATE TABLE IF NOT EXISTS queues (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bindings (
    exchange TEXT NOT NULL, queue TEXT NOT NULL, PRIMARY KEY (exchange, queue)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    message_id TEXT NOT NULL,
    available_at INTEGER NOT NULL,
    delayed INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    takings INTEGER NOT NULL DEFAULT 0,
    holder TEXT,
    isolated INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    first_failed INTEGER,
    history BLOB NOT NULL DEFAULT '[]',
    body BLOB NOT NULL
);
-- `holder` stands in both indexes so that they cover what is asked of them.
CREATE INDEX IF NOT EXISTS messages_waiting
    ON messages (queue, delayed, available_at, seq, holder) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS messages_taken ON messages (queue, holder) WHERE holder IS NOT NULL;
CREATE TABLE IF NOT EXISTS dead_letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    message_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    first_failed INTEGER NOT NULL,
    last_failed INTEGER NOT NULL,
    history BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS dead_letters_queue ON dead_letters (queue, number);
"""

# Messages that never failed do not look at the clock, so that one that was set back does not hold them up.
_OLDEST = """
SELECT seq FROM (
    SELECT * FROM (SELECT seq, available_at FROM messages
        WHERE holder IS NULL AND queue = :queue AND delayed = 0 ORDER BY available_at, seq LIMIT :most)
    UNION ALL
    SELECT * FROM (SELECT seq, available_at FROM messages
        WHERE holder IS NULL AND queue = :queue AND delayed = 1 AND available_at <= :now
        ORDER BY available_at, seq LIMIT :most)
) ORDER BY available_at, seq LIMIT :most
"""

_TAKE = """
UPDATE messages SET attempts = attempts + 1, takings = takings + 1, holder = ?, isolated = suspect
WHERE seq = ? RETURNING seq, message_id, attempts, takings, suspect, deaths, history, body
"""

DEPTHS = """
SELECT name,
    (SELECT count(*) FROM messages WHERE holder IS NULL AND queue = name AND delayed = 0)
  + (SELECT count(*) FROM messages
        WHERE holder IS NULL AND queue = name AND delayed = 1 AND available_at <= :now),
    (SELECT count(*) FROM messages
        WHERE holder IS NULL AND queue = name AND delayed = 1 AND available_at > :now),
    (SELECT count(*) FROM messages WHERE holder IS NOT NULL AND queue = name),
    (SELECT count(*) FROM dead_letters WHERE queue = name)
FROM queues ORDER BY name
"""

_HELD = "WHERE seq = ? AND takings = ? AND holder IS NOT NULL"


class Receipt(Struct, frozen=True):
    """One taking of one message."""

    seq: int
    taking: int


def bind(connection: sqlite3.Connection, queue: str, exchange: str) -> bool:
    """Declare `queue` and bind it; whether it is new."""
    new = connection.execute("INSERT OR IGNORE INTO queues VALUES (?)", (queue,)).rowcount == 1
    connection.execute("INSERT OR IGNORE INTO bindings VALUES (?, ?)", (exchange, queue))
    return new


def bound_to(connection: sqlite3.Connection, exchange: str) -> list[str]:
    rows = connection.execute("SELECT queue FROM bindings WHERE exchange = ?", (exchange,))
    return [queue for (queue,) in rows]


def put(connection: sqlite3.Connection, queues: Iterable[str], message_id: str, body: bytes, now: datetime) -> None:
    """A copy into each of `queues`, which are declared where they are not yet."""
    for queue in queues:
        connection.execute("INSERT OR IGNORE INTO queues VALUES (?)", (queue,))
        connection.execute(
            "INSERT INTO messages (queue, message_id, available_at, body) VALUES (?, ?, ?, ?)",
            (queue, message_id, micros(now), body),
        )


def take(connection: sqlite3.Connection, queue: str, most: int, holder: str, now: datetime) -> list[Incoming]:
    """Up to `most` messages, oldest first, each with its attempt counted, now held by `holder`."""
    names = {"queue": queue, "most": most, "now": micros(now)}
    return [
        _incoming(queue, connection.execute(_TAKE, (holder, seq)).fetchone())
        for (seq,) in connection.execute(_OLDEST, names).fetchall()
    ]


def next_due(connection: sqlite3.Connection, queue: str) -> datetime | None:
    """When the next delayed message of `queue` can be taken."""
    (due,) = connection.execute(
        "SELECT min(available_at) FROM messages WHERE holder IS NULL AND queue = ? AND delayed = 1", (queue,)
    ).fetchone()
    return None if due is None else moment(due)


def ack(connection: sqlite3.Connection, receipt: Receipt) -> bool:
    return connection.execute(f"DELETE FROM messages {_HELD}", (receipt.seq, receipt.taking)).rowcount == 1


def give_back(connection: sqlite3.Connection, receipt: Receipt) -> bool:
    """Free again at its old place in the queue, the attempt unspent."""
    changed = connection.execute(
        f"UPDATE messages SET holder = NULL, attempts = attempts - 1 {_HELD}", (receipt.seq, receipt.taking)
    )
    return changed.rowcount == 1


def retry(connection: sqlite3.Connection, receipt: Receipt, error: str, now: datetime, due: datetime) -> bool:
    """Free again at `due`, with `error` in its history."""
    row = connection.execute(f"SELECT history FROM messages {_HELD}", (receipt.seq, receipt.taking)).fetchone()
    if row is None:
        return False
    connection.execute(
        "UPDATE messages SET holder = NULL, delayed = 1, available_at = ?, history = ?,"
        " first_failed = coalesce(first_failed, ?) WHERE seq = ?",
        (micros(due), _extended(row[0], now, error), micros(now), receipt.seq),
    )
    return True


def bury(connection: sqlite3.Connection, receipt: Receipt, reason: str, now: datetime) -> bool:
    """To the dead letters. Attempts that ended with the process count there."""
    moved = connection.execute(
        "INSERT INTO dead_letters"
        " (queue, message_id, reason, attempts, first_failed, last_failed, history, body)"
        " SELECT queue, message_id, ?, attempts + deaths, coalesce(first_failed, ?), ?, history, body"
        f" FROM messages {_HELD}",
        (reason, micros(now), micros(now), receipt.seq, receipt.taking),
    )
    return moved.rowcount == 1 and ack(connection, receipt)


def return_held(connection: sqlite3.Connection, session: str) -> None:
    """Free what a dead session held.

    Each message becomes suspect and its attempt stays spent. One that was suspect already is decoded in a
    process of its own, so the death was hardly its doing: its attempt is given back and the death counted, up
    to MOST_DEATHS.
    """
    (died_at,) = connection.execute("SELECT died_at FROM sessions WHERE id = ?", (session,)).fetchone()
    now = moment(died_at)
    held = connection.execute(
        "SELECT seq, isolated, deaths, history FROM messages WHERE holder = ?", (session,)
    ).fetchall()
    for seq, isolated, deaths, history in held:
        deaths += isolated
        if not isolated:
            history = _extended(history, now, f"the process that held it died (session {session})")
        elif deaths > MOST_DEATHS:
            history = _extended(history, now, f"the process died {deaths} times with this suspect message in hand")
        connection.execute(
            "UPDATE messages SET holder = NULL, suspect = 1, attempts = attempts - isolated, deaths = ?,"
            " history = ?, first_failed = coalesce(first_failed, ?) WHERE seq = ?",
            (deaths, history, died_at, seq),
        )


def depths(connection: sqlite3.Connection, now: datetime) -> list[QueueDepth]:
    rows = connection.execute(DEPTHS, {"now": micros(now)}).fetchall()
    return [
        QueueDepth(queue=queue, ready=ready, delayed=delayed, taken=taken, dead=dead)
        for queue, ready, delayed, taken, dead in rows
    ]


def dead_letters(connection: sqlite3.Connection, queue: str | None) -> list[DeadLetter]:
    where, values = ("", ()) if queue is None else ("WHERE queue = ?", (queue,))
    rows = connection.execute(
        "SELECT number, message_id, queue, reason, attempts, first_failed, last_failed, body, history"
        f" FROM dead_letters {where} ORDER BY number",
        values,
    )
    return [
        DeadLetter(
            id=str(number),
            message_id=message_id,
            queue=name,
            reason=reason,
            attempts=attempts,
            first_failed=moment(first),
            last_failed=moment(last),
            body=body,
            history=_history(history),
        )
        for number, message_id, name, reason, attempts, first, last, body, history in rows
    ]


PART = Part(name="broker", tables=TABLES, on_dead=return_held)
"""The broker's part of a Database."""


def _incoming(queue: str, row: Sequence[object]) -> Incoming:
    seq, message_id, attempts, takings, suspect, deaths, history, body = row
    assert isinstance(seq, int) and isinstance(takings, int) and isinstance(deaths, int)
    assert isinstance(attempts, int) and isinstance(body, bytes)
    return Incoming(
        queue=queue,
        message_id=str(message_id),
        body=body,
        attempt=BEYOND_ANY_LIMIT if deaths > MOST_DEATHS else attempts,
        suspect=bool(suspect),
        history=_history(history),
        receipt=Receipt(seq, takings),
    )


def _history(stored: object) -> tuple[Attempt, ...]:
    assert isinstance(stored, str | bytes)
    return msgspec.json.decode(stored, type=tuple[Attempt, ...])


def _extended(stored: object, now: datetime, error: str) -> bytes:
    """The stored history with one more attempt: the newest KEPT_ATTEMPTS, each error shortened."""
    if len(error) > LONGEST_ERROR:
        error = error[: LONGEST_ERROR - 1] + "…"
    return msgspec.json.encode((*_history(stored), Attempt(now, error))[-KEPT_ATTEMPTS:])
