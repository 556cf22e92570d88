"""Object stores: a local folder that keeps what it confirms, and its twin in memory."""

from __future__ import annotations

import filecmp
import os
import shutil
import threading
import uuid
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import trio

from ionbeam.backends.files import (
    fsync_file,
    fsync_folder,
    hold_lock,
    make_folder,
    remove_free_lock,
    unavailable,
)
from ionbeam.errors import IonbeamError, PayloadMissing, Refused
from ionbeam.ports.workers import Workers
from ionbeam.schemas.routes import checked_key

T = TypeVar("T")

_STAGING = ".staging"
_LOCK = ".lock"


class LocalObjects:
    """Objects as files below `folder`. What is confirmed is on the disk: content, name and folders.

    An object is written in `.staging`, made durable, and only then gets its name, which no other object can
    take away from it. What dead processes left in `.staging` is removed on opening. (obstore reads
    the same folder; its LocalStore is not used here: it does not sync, and its errors hide a full disk.)
    """

    def __init__(self, folder: Path, workers: Workers) -> None:
        self._folder = folder.absolute()
        self._workers = workers
        self._durable: set[Path] = set()
        self._staging: Path | None = None
        self._guard = threading.Lock()
        with suppress(OSError):
            _sweep(self._folder / _STAGING)

    async def put(self, key: str, data: bytes) -> None:
        await self._run(self._put, _checked(key), data)

    async def get(self, key: str) -> bytes:
        return await self._run(self._get, _checked(key))

    async def exists(self, key: str) -> bool:
        return await self._run(self._path(key).is_file)

    async def delete(self, key: str) -> None:
        await self._run(self._delete, self._path(key))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """A folder at a time, so memory holds no more names than the fullest folder has."""
        pending = [f"{prefix.rstrip('/')}/"] if prefix else [""]
        if prefix:
            _checked(pending[0][:-1])
        while pending:
            entry = pending.pop()
            if entry and not entry.endswith("/"):
                yield entry
            else:
                pending.extend(reversed(await self._run(self._entries, entry)))

    def url(self, key: str) -> str:
        return self._path(key).as_uri()

    @contextmanager
    def upload(self) -> Iterator[_LocalUpload]:
        with self._explained():
            staged = self._staged()
            upload = _LocalUpload(self, staged)
            try:
                yield upload
            finally:
                upload.discard()

    def open(self, key: str) -> pa.NativeFile:
        with self._explained(key):
            path = self._object(key)
            if path.stat().st_size == 0:
                return pa.BufferReader(b"")
            # read, not mapped: pages of a mapped file count as memory for as long as it is open
            return pa.OSFile(str(path), "r")

    def size(self, key: str) -> int:
        with self._explained(key):
            return self._object(key).stat().st_size

    def discard(self, key: str) -> None:
        self._call(self._delete, self._path(key))

    def place(self, staged: Path, key: str) -> None:
        """Blocking. Name the durable file `staged` durably; IonbeamError where other content has `key`."""
        path = self._path(key)
        self._make_durable(path.parent)
        try:
            os.link(staged, path)
        except FileExistsError:
            if not path.is_file() or not filecmp.cmp(staged, path, shallow=False):
                raise _other_content(key) from None
        fsync_folder(path.parent)  # also when it was there: whoever named it may have died before this

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await self._workers.run(lambda: self._call(function, *args))

    def _call(self, function: Callable[..., T], *args: object) -> T:
        with self._explained():
            return function(*args)

    def _put(self, key: str, data: bytes) -> None:
        staged = self._staged()
        try:
            with open(staged, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.place(staged, key)
        finally:
            with suppress(OSError):
                staged.unlink(missing_ok=True)

    def _get(self, key: str) -> bytes:
        with self._explained(key):
            return self._object(key).read_bytes()

    def _delete(self, path: Path) -> None:
        if path.is_dir():
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            fsync_folder(path.parent)

    def _entries(self, folder: str) -> Sequence[str]:
        """What is in `folder` in the order of keys; folders end with a slash, which is also how they sort."""
        try:
            with os.scandir(self._folder / folder) as entries:
                names = [f"{folder}{entry.name}{'/' if entry.is_dir() else ''}" for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if name != f"{_STAGING}/")

    def _path(self, key: str) -> Path:
        return self._folder / _checked(key)

    def _object(self, key: str) -> Path:
        path = self._path(key)
        if path.is_dir():
            raise IsADirectoryError(key)
        return path

    def _staged(self) -> Path:
        """A fresh path in this store's own part of `.staging`, which its lock keeps from being swept away."""
        with self._guard:
            if self._staging is None:
                folder = self._folder / _STAGING
                make_folder(folder)
                own = folder / uuid.uuid4().hex
                weakref.finalize(self, _abandon, own, hold_lock(own.with_suffix(_LOCK)))
                own.mkdir()
                self._staging = own
        return self._staging / uuid.uuid4().hex

    def _make_durable(self, folder: Path) -> None:
        """Make `folder` and the names of it and its parents durable, each once."""
        for step in reversed([folder, *folder.parents]):
            if step not in self._durable and step.is_relative_to(self._folder):
                step.mkdir(exist_ok=True)
                fsync_folder(step.parent)
                self._durable.add(step)

    @contextmanager
    def _explained(self, key: str | None = None) -> Iterator[None]:
        """Turn errors of the file system into ours; `key` is what is read."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if key is None:
                raise IonbeamError(
                    f"{self._folder}: {error}; no key may be both an object and a folder"
                ) from error
            raise PayloadMissing(
                f"no object {key!r} in {self._folder}; write it first, or mend the key"
            ) from error
        except OSError as error:
            raise unavailable(error, self._folder) or IonbeamError(f"{self._folder}: {error}") from error


class _LocalUpload:
    """A file in `.staging` until it is committed."""

    def __init__(self, store: LocalObjects, staged: Path) -> None:
        self.file: pa.NativeFile = pa.OSFile(str(staged), "wb")
        self._store = store
        self._staged = staged

    def commit(self, key: str) -> None:
        self.file.close()
        fsync_file(self._staged)
        self._store.place(self._staged, key)

    def discard(self) -> None:
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            self._staged.unlink(missing_ok=True)


class MemoryObjects:
    """Objects in memory and in the loop, for simulations: hand it to the next incarnation."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.place(key, bytes(data))

    async def get(self, key: str) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._content(key)

    async def exists(self, key: str) -> bool:
        await trio.lowlevel.checkpoint()
        return _checked(key) in self._objects

    async def delete(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        self._objects.pop(_checked(key), None)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        folder = f"{_checked(prefix.rstrip('/'))}/" if prefix else ""
        await trio.lowlevel.checkpoint()
        for key in sorted(self._objects):
            if key.startswith(folder):
                yield key

    def url(self, key: str) -> str:
        return f"memory:///{_checked(key)}"

    @contextmanager
    def upload(self) -> Iterator[_MemoryUpload]:
        yield _MemoryUpload(self)

    def open(self, key: str) -> pa.NativeFile:
        return pa.BufferReader(self._content(key))

    def size(self, key: str) -> int:
        return len(self._content(key))

    def discard(self, key: str) -> None:
        self._objects.pop(_checked(key), None)

    def place(self, key: str, data: bytes) -> None:
        if self._objects.setdefault(_checked(key), data) != data:
            raise _other_content(key)

    def _content(self, key: str) -> bytes:
        if _checked(key) not in self._objects:
            raise PayloadMissing(f"no object {key!r} in memory; write it first, or mend the key")
        return self._objects[key]


class _MemoryUpload:
    def __init__(self, store: MemoryObjects) -> None:
        self.file: pa.NativeFile = pa.BufferOutputStream()
        self._store = store

    def commit(self, key: str) -> None:
        self._store.place(key, self.file.getvalue().to_pybytes())


def _checked(key: str) -> str:
    if checked_key(key).split("/", 1)[0] == _STAGING:
        raise Refused(f"not an object key: {key[:120]!r}; {_STAGING!r} holds what is still being written")
    return key


def _other_content(key: str) -> IonbeamError:
    return IonbeamError(
        f"object {key!r} exists with other content and is never overwritten; choose another key"
    )


def _abandon(own: Path, lock: int) -> None:
    shutil.rmtree(own, ignore_errors=True)
    with suppress(OSError):
        own.with_suffix(_LOCK).unlink()
    os.close(lock)


def _sweep(staging: Path) -> None:
    for lock in staging.glob(f"*{_LOCK}"):
        remove_free_lock(lock)
    for folder in staging.iterdir():
        if folder.suffix != _LOCK and not folder.with_suffix(_LOCK).exists():
            shutil.rmtree(folder, ignore_errors=True)
