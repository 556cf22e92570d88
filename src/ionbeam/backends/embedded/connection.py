"""Connections to the embedded backend's SQLite file: opening, format, explained errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ionbeam.backends.files import fsync_folder, hold_lock, make_folder, unavailable
from ionbeam.errors import HomeError, IonbeamError, Unavailable
from ionbeam.version import VERSION

FORMAT = 1
"""The version of the file's layout, kept in `user_version`."""

_APPLICATION = 0x696F6E62
_BUSY_SECONDS = 10

_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_BUSY: f"another process held its lock for more than {_BUSY_SECONDS} s: look who uses it",
    sqlite3.SQLITE_LOCKED: "a table is locked: look who uses it",
    sqlite3.SQLITE_PROTOCOL: "its locks are contended: look who uses it",
    sqlite3.SQLITE_IOERR: "the disk reports an error or is full: check it",
    sqlite3.SQLITE_READONLY: "it cannot be written: check its owner, its mode and the mount",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check its owner, its mode and the limit of open files",
    sqlite3.SQLITE_NOMEM: "no memory is left: free some",
}
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_ABOUT = "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


def explain(error: BaseException, path: Path | None) -> IonbeamError | None:
    """Unavailable when the file cannot serve now, HomeError when it is damaged, else None."""
    name = path or "the database in memory"
    if isinstance(error, OSError) and path is not None:
        return unavailable(error, path.parent)
    if not isinstance(error, sqlite3.Error):
        return None
    code = _code(error)
    if code in _REMEDIES:
        return Unavailable(f"{name} cannot be used for now ({error}): {_REMEDIES[code]}")
    if code in _BROKEN:
        return HomeError(
            f"{name} is damaged ({error}): stop every process on this home and restore the file from a copy,"
            " or rebuild it from the journal with `ionbeam replay`"
        )
    return None


def open_writer(path: Path) -> sqlite3.Connection:
    """The connection for changes, whose commits are durable; the file is created, or its format checked."""
    try:
        make_folder(path.parent)
        with _alone(path):
            connection = _connect(path)
            try:
                _prepare(connection, path)
            except BaseException:
                connection.close()
                raise
            fsync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        explained = explain(error, path)
        if _code(error) == sqlite3.SQLITE_CANTOPEN or explained is None:
            explained = HomeError(f"{path} cannot be opened ({error}): check the folder's owner and mode")
        raise explained from error
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot change anything."""
    connection = _connect(path)
    connection.execute("PRAGMA query_only = ON")
    return connection


def open_memory() -> sqlite3.Connection:
    """A database that lives as long as this connection."""
    return _connect(":memory:")


def check_format(connection: sqlite3.Connection, path: Path | None) -> None:
    """Mark a new file as ours. Raises HomeError when it is another program's, or newer than FORMAT."""
    connection.execute("BEGIN IMMEDIATE")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    try:
        if application != _APPLICATION and (application or tables):
            raise HomeError(f"{path} is the database of another program; give ionbeam a home folder of its own")
        if version > FORMAT:
            raise HomeError(
                f"{path} has format {version}, written by ionbeam {_writer(connection)};"
                f" this is {VERSION}, which reads formats up to {FORMAT}: run that version or a newer one"
            )
        if version < FORMAT:
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(_ABOUT)
            connection.execute("INSERT OR REPLACE INTO about VALUES ('written_by', ?)", (VERSION,))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def statements(script: str) -> Iterator[str]:
    """The statements of `script` one by one: `executescript` would commit the transaction that it runs in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """A transaction that is rolled back unless the body commits it."""
    connection.execute(begin)
    try:
        yield
    finally:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: SQLite does not queue those that switch a new file to WAL at once."""
    turn = path.with_name(f"{path.name}.opening")
    lock = hold_lock(turn)
    try:
        yield
    finally:
        with suppress(OSError):
            turn.unlink()
        os.close(lock)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    check_format(connection, path)


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 for errors that are not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _connect(path: Path | str) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _writer(connection: sqlite3.Connection) -> str:
    try:
        row = connection.execute("SELECT value FROM about WHERE name = 'written_by'").fetchone()
    except sqlite3.OperationalError:
        row = None
    return str(row[0]) if row else "of an unknown version"
