"""The database commits in groups, keeps what it confirmed, and says what is wrong with a file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.backends.embedded.connection import FORMAT, open_memory, open_writer
from ionbeam.backends.embedded.database import Database, Part, open_database
from ionbeam.errors import HomeError, IonbeamError, Unavailable

NOTES = Part(name="notes", tables="CREATE TABLE IF NOT EXISTS notes (\n text TEXT\n);\n")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def opened(path: Path | None, connection: sqlite3.Connection | None = None) -> AsyncIterator[Database]:
    async with open_database(path, clock=lambda: NOW, parts=[NOTES], connection=connection) as database:
        yield database


def add(connection: sqlite3.Connection, text: str) -> str:
    connection.execute("INSERT INTO notes VALUES (?)", (text,))
    return text


async def notes(database: Database) -> list[str]:
    return await database.read(
        lambda connection: [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]
    )


@asynccontextmanager
async def busy_writer(database: Database) -> AsyncIterator[None]:
    """While this is open a change is being made; the ones made meanwhile wait."""
    inside, leave = trio.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        trio.from_thread.run_sync(inside.set)
        leave.wait(30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, slow)
        await inside.wait()
        try:
            yield
        finally:
            leave.set()


async def test_waiting_changes_share_one_commit(tmp_path: Path) -> None:
    """Changes that arrive while one is being committed are committed together, in order of arrival."""
    async with opened(tmp_path / "db") as database, trio.open_nursery() as nursery:
        before = database.statistics()
        async with busy_writer(database):
            for number in range(20):
                nursery.start_soon(database.write, lambda connection, text=f"{number:02}": add(connection, text))
            await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked(0.2)
        after = database.statistics()
        assert (after.commits - before.commits, after.changes - before.changes) == (2, 21)
        assert after.largest_group == 20
        assert sorted(await notes(database)) == [f"{number:02}" for number in range(20)]


async def test_a_failing_change_fails_alone(tmp_path: Path) -> None:
    """A change that raises is undone and its own caller gets the exception; its companions stand."""
    failed: list[str] = []

    def fails(connection: sqlite3.Connection) -> None:
        add(connection, "half")
        raise KeyError("why")

    async def write_failing(database: Database) -> None:
        with pytest.raises(KeyError, match="why"):
            await database.write(fails, ["never rung"])
        failed.append("yes")

    async with opened(tmp_path / "db") as database:
        seen = database.bells.bell("never rung"), database.bells.bell("rung")
        async with trio.open_nursery() as nursery, busy_writer(database):
            nursery.start_soon(database.write, lambda connection: add(connection, "one"), ["rung"])
            nursery.start_soon(write_failing, database)
            nursery.start_soon(database.write, lambda connection: add(connection, "two"))
            await trio.testing.wait_all_tasks_blocked()
        assert sorted(await notes(database)) == ["one", "two"]
        assert failed == ["yes"]
        assert (database.bells.bell("never rung"), database.bells.bell("rung")) == (seen[0], seen[1] + 1)


@given(outcomes=st.lists(st.booleans(), max_size=20))
@settings(max_examples=30, deadline=None)
def test_the_file_holds_exactly_what_succeeded(outcomes: list[bool]) -> None:
    """Whichever changes of a group fail, what stands is what the successful ones made, each once."""

    async def main() -> None:
        async with opened(None) as database, trio.open_nursery() as nursery:
            for number, succeeds in enumerate(outcomes):
                nursery.start_soon(one, database, str(number), succeeds)
            nursery.cancel_scope.deadline = trio.current_time() + 60
            while database.statistics().changes < len(outcomes) + 1:
                await trio.lowlevel.checkpoint()
            assert sorted(await notes(database)) == sorted(str(n) for n, good in enumerate(outcomes) if good)

    async def one(database: Database, text: str, succeeds: bool) -> None:
        def change(connection: sqlite3.Connection) -> None:
            add(connection, text)
            if not succeeds:
                raise KeyError(text)

        try:
            await database.write(change)
        except KeyError:
            assert not succeeds

    trio.run(main)


async def test_cancelled_means_not_made() -> None:
    """Wherever a write is cancelled: it raises Cancelled if and only if the change was not made."""
    for steps in range(12):
        returned: list[str] = []
        async with opened(None) as database:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def write(text: str, database: Database = database, done: list[str] = returned) -> None:
                        done.append(await database.write(lambda connection: add(connection, text)))

                    for name in "abc":
                        nursery.start_soon(write, name)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            assert sorted(await notes(database)) == sorted(returned), steps


async def test_a_cancelled_waiter_leaves_no_trace(tmp_path: Path) -> None:
    """On disk too: a change that was cancelled while it waited for its turn is not made."""
    async with opened(tmp_path / "db") as database:
        async with busy_writer(database):
            with trio.move_on_after(0) as scope:
                await database.write(lambda connection: add(connection, "never"))
            assert scope.cancelled_caught
        await database.write(lambda connection: add(connection, "after"))
        assert await notes(database) == ["after"]


async def test_settling_in_a_cancelled_shutdown(tmp_path: Path) -> None:
    """A shielded write still works after everything around it was cancelled."""
    async with opened(tmp_path / "db") as database:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await database.write(lambda connection: add(connection, "settled"))
        assert await notes(database) == ["settled"]


async def test_a_look_sees_one_snapshot(tmp_path: Path) -> None:
    """What is committed during a look stays out of it, and is not held up by it."""
    count = "SELECT count(*) FROM notes"
    looked, go_on = trio.Event(), threading.Event()

    def look(connection: sqlite3.Connection) -> tuple[int, int]:
        (first,) = connection.execute(count).fetchone()
        trio.from_thread.run_sync(looked.set)
        go_on.wait(30)
        (second,) = connection.execute(count).fetchone()
        return first, second

    async def check() -> None:
        assert await database.read(look) == (0, 0)

    async with opened(tmp_path / "db") as database:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check)
            await looked.wait()
            await database.write(lambda connection: add(connection, "new"))
            go_on.set()
        assert await notes(database) == ["new"]


async def test_a_full_disk_is_unavailable_for_the_whole_group(tmp_path: Path) -> None:
    """A full disk undoes all changes of the group with Unavailable; once there is space, they can be made."""
    refused: list[Unavailable] = []

    async def write(size: int) -> None:
        try:
            await database.write(lambda connection: add(connection, "x" * size))
        except Unavailable as error:
            refused.append(error)

    async with opened(tmp_path / "db") as database:
        await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 20").fetchone())
        async with trio.open_nursery() as nursery, busy_writer(database):
            nursery.start_soon(write, 1)
            nursery.start_soon(write, 500_000)
            await trio.testing.wait_all_tasks_blocked()
        assert await notes(database) == []
        assert len(refused) == 2 and refused[0] is not refused[1]
        assert "free some space" in str(refused[0]) and str(tmp_path) in str(refused[0])
        await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 9999").fetchone())
        await write(500_000)
        assert len(await notes(database)) == 1


async def test_a_locked_file_is_unavailable(tmp_path: Path) -> None:
    """Another process that keeps the file locked makes writes Unavailable, and reads go on."""
    async with opened(tmp_path / "db") as database:
        await database.write(lambda connection: connection.execute("PRAGMA busy_timeout = 0").fetchone())
        other = sqlite3.connect(tmp_path / "db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="look who uses it"):
            await database.write(lambda connection: add(connection, "no"))
        assert await notes(database) == []
        other.execute("ROLLBACK")
        other.close()
        await database.write(lambda connection: add(connection, "yes"))


def damage(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(path: Path) -> None:
    connection = open_writer(path)
    connection.execute("UPDATE about SET value = '9.9.9' WHERE name = 'written_by'")
    connection.execute(f"PRAGMA user_version = {FORMAT + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage, "damaged.*ionbeam replay"),
        (foreign, "another program"),
        (newer, f"format {FORMAT + 1}, written by ionbeam 9.9.9.*run that version or a newer one"),
        (Path.mkdir, "cannot be opened"),
    ],
)
async def test_files_that_cannot_be_used(tmp_path: Path, spoil: object, says: str) -> None:
    """A damaged, foreign or newer file is refused with its path and the remedy, and stays as it is."""
    path = tmp_path / "db"
    spoil(path)  # type: ignore[operator]
    with pytest.raises(HomeError, match=f"(?s){path}.*{says}"):
        async with opened(path):
            pass


def test_many_processes_may_create_one_home(tmp_path: Path) -> None:
    """Opening a new file from many sides at once makes one file, and nobody fails."""
    for number in range(20):
        path = tmp_path / str(number) / "db"
        with ThreadPoolExecutor(8) as pool:
            for connection in [job.result() for job in [pool.submit(open_writer, path) for _ in range(8)]]:
                assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT,)
                assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
                connection.close()


_WRITES_FOR_EVER = """
import sys, trio
from pathlib import Path
from datetime import UTC, datetime
from ionbeam.backends.embedded.database import Part, open_database
async def main():
    part = Part(name="notes", tables="CREATE TABLE IF NOT EXISTS notes (text TEXT);")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with open_database(Path(sys.argv[1]), clock=lambda: now, parts=[part]) as db:
        for number in range(100_000):
            await db.write(lambda c: c.execute("INSERT INTO notes VALUES (?)", (number,)) and None)
            print(number, flush=True)
trio.run(main)
"""


async def test_what_was_confirmed_survives_kill_9(tmp_path: Path) -> None:
    """Every change that was confirmed before the process was killed is in the file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _WRITES_FOR_EVER, str(tmp_path / "db")]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment)
    output = b""
    with trio.fail_after(30):
        assert process.stdout is not None
        while output.count(b"\n") < 50:
            output += await process.stdout.receive_some()
        process.kill()
        while chunk := await process.stdout.receive_some():
            output += chunk
        await process.wait()
    confirmed = output[: output.rindex(b"\n")].split()
    async with opened(tmp_path / "db") as database:
        found = await notes(database)
    assert [str(int(name)) for name in confirmed] == found[: len(confirmed)]
    assert len(found) <= len(confirmed) + 1


async def test_exceptions_of_the_body_come_out_as_they_are(tmp_path: Path) -> None:
    """open_database wraps nothing in a group."""
    with pytest.raises(ZeroDivisionError):
        async with opened(tmp_path / "db"):
            raise ZeroDivisionError


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    """Using it after open_database was left is a mistake, not an outage."""
    async with opened(tmp_path / "db") as database:
        pass
    for use in (database.read(lambda connection: None), database.write(lambda connection: None)):
        with pytest.raises(IonbeamError, match="is closed") as caught:
            await use
        assert not isinstance(caught.value, Unavailable)


async def test_the_twin_outlives_its_database() -> None:
    """In memory the connection keeps everything for the next incarnation, also after one was severed."""
    connection = open_memory()
    async with opened(None, connection) as database:
        await database.write(lambda connection: add(connection, "one"))
        database.sever()
        with pytest.raises(IonbeamError):
            await database.write(lambda connection: add(connection, "lost"))
    async with opened(None, connection) as database:
        assert await notes(database) == ["one"]
    connection.close()
