"""A folder that shows the highest revision of each window as one file, whoever writes and is killed when."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from ionbeam.client import DataSetAvailableEvent, Refused, Unavailable

LOCK, INCOMING = ".lock", ".incoming"
REMOVED = ".removed"


class Stamp(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which revision of which window a file shows; it travels inside the file. Times are ISO 8601, UTC."""

    dataset: str
    window_start: str
    window_end: str
    event_id: str
    revision: int
    content_hash: str | None = None

    @classmethod
    def of(cls, event: DataSetAvailableEvent) -> Stamp:
        return cls(
            dataset=event.metadata.name,
            window_start=event.start_time.isoformat(),
            window_end=event.end_time.isoformat(),
            event_id=event.id,
            revision=event.revision,
            content_hash=event.content_hash,
        )


class Disk:
    """Every step by which a folder changes on disk; each may fail, the process may end between any two."""

    def make_folder(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def create(self, path: Path) -> IO[bytes]:
        """A new file for writing. Refuses one that exists, a symbolic link included."""
        return path.open("xb")

    def sync(self, file: IO[bytes]) -> None:
        file.flush()
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Fine when `path` is not there."""
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class RevisionFolder:
    """Keeps `{root}/{dataset}/{window}_{span}{suffix}`, or `.{window}_{span}.removed` for one without rows.

    The tombstone's name begins with a dot: what reads a whole folder of Parquet passes over such files.

    `read_stamp` gives the stamp inside a file that was written before; None for a file that is damaged or not
    ours, which counts as no file. The stamps on disk alone decide what is newer, so any number of processes
    may share the folder: a lock file in each dataset's folder admits one at a time.
    """

    def __init__(
        self,
        root: Path,
        suffix: str,
        read_stamp: Callable[[IO[bytes]], Stamp | None],
        disk: Disk | None = None,
    ) -> None:
        self._root = root
        self._suffix = suffix
        self._read_stamp = read_stamp
        self._disk = disk or Disk()

    def show(self, event: DataSetAvailableEvent, write: Callable[[IO[bytes]], int]) -> None:
        """Let the window's file be `event`'s revision, unless a higher one, or this one, is shown already.

        `write` fills a new file, stamp included, and returns its number of rows; with none, a tombstone takes
        the file's place. The same revision number with another event or content hash replaces what is shown:
        another home built it. Durable when it returns. Raises Unavailable when the disk is full or read-only,
        Refused for a name that leaves the folder.
        """
        home = _below(self._root, event.metadata.name)
        target = _below(home, window_stem(event) + self._suffix)
        tombstone = _below(home, f".{window_stem(event)}{REMOVED}")
        stamp = Stamp.of(event)
        with _disk_can_fill(self._root):
            self._make(home)
            with _locked(home / LOCK), self._incoming(home) as incoming:
                shown = self._shown(target, tombstone, stamp)
                if shown is None:
                    shown = target if self._written(incoming, event, write) else tombstone
                    self._disk.replace(incoming, shown)
                    self._disk.sync_folder(home)
                # Also where nothing was written: a process killed after its `replace` leaves both, unsynced.
                self._disk.remove(tombstone if shown == target else target)
                self._disk.sync_folder(home)
                self._disk.sync_folder(self._root)

    def _shown(self, target: Path, tombstone: Path, stamp: Stamp) -> Path | None:
        """Which of the two shows `stamp` or something newer; None when neither does."""
        found = [(self._stamp_in(target), target), (_stamp_in_tombstone(tombstone), tombstone)]
        ranked = [(old.revision, old == stamp, path) for old, path in found if old is not None]
        revision, same, path = max(ranked, default=(0, False, target))
        return path if revision > stamp.revision or same else None

    def _stamp_in(self, path: Path) -> Stamp | None:
        try:
            with path.open("rb") as file:
                return self._read_stamp(file)
        except FileNotFoundError:
            return None

    @contextmanager
    def _incoming(self, home: Path) -> Iterator[Path]:
        """The name of the next file; always the same, so what a killed process left is found unsearched."""
        path = home / INCOMING
        self._disk.remove(path)
        try:
            yield path
        finally:
            # A partial file on a full disk would take the space that others wait for.
            self._disk.remove(path)

    def _written(self, path: Path, event: DataSetAvailableEvent, write: Callable[[IO[bytes]], int]) -> bool:
        """A synced file at `path`: True for one with rows, False for a tombstone."""
        if event.row_count != 0:
            with self._disk.create(path) as file:
                rows = write(file)
                self._disk.sync(file)
            if rows:
                return True
            self._disk.remove(path)
        with self._disk.create(path) as file:
            file.write(msgspec.json.encode(Stamp.of(event)))
            self._disk.sync(file)
        return False

    def _make(self, home: Path) -> None:
        missing = [folder for folder in (home, *home.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            self._disk.make_folder(folder)
            self._disk.sync_folder(folder.parent)


def window_stem(event: DataSetAvailableEvent) -> str:
    """`{window start}_{span}`, as in `20240101T000000Z_P1D`; starts of years before 1000 keep four digits."""
    start: datetime = event.start_time
    return f"{start.year:04d}{start:%m%dT%H%M%SZ}_{event.metadata.aggregation_span}"


def _below(folder: Path, name: str) -> Path:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Refused(f"{name[:120]!r} cannot name a file in {folder}; dataset names are lowercase, digits and `_`")
    return folder / name


def _stamp_in_tombstone(path: Path) -> Stamp | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Stamp)
    except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Blocks until no other process or thread is in `path`'s folder. The end of a process frees its lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_REMEDY = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space there or raise the quota",
    errno.EROFS: "mount it writable",
}


@contextmanager
def _disk_can_fill(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = _REMEDY.get(error.errno or 0)
        if remedy is None:
            raise
        raise Unavailable(
            f"cannot write to the export folder {folder}: {error.strerror}; {remedy} or configure another"
            " folder, the export goes on by itself"
        ) from error
