"""A local folder of objects that keeps what it confirms."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import shutil
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from ionbeam.backends.files import (
    fsync_file,
    fsync_folder,
    hold_lock,
    make_folder,
    remove_free_lock,
    unavailable,
)
from ionbeam.backends.objects import STAGING, ObstoreObjects, checked, first_line, other_content
from ionbeam.errors import IonbeamError
from ionbeam.ports.workers import Workers

_LOCK = ".lock"
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class LocalObjects(ObstoreObjects):
    """Objects as files below `folder`, which is made. What is confirmed is on the disk: content, name and folders.

    An object is written in `.staging`, made durable, and only then gets its name, which no other object can take away
    from it. What dead processes left in `.staging` is removed on opening. (Written with plain files: obstore's
    LocalStore does not sync, and its errors hide a full disk.) Opening blocks, and raises Unavailable while the disk
    cannot serve.
    """

    def __init__(self, folder: Path, workers: Workers) -> None:
        self._folder = folder.absolute()
        with self._writing():
            make_folder(self._folder)
        super().__init__(LocalStore(self._folder), self._folder.as_uri(), workers)
        self._durable: set[Path] = set()
        self._staging: Path | None = None
        self._guard = threading.Lock()
        with suppress(OSError):
            _sweep(self._folder / STAGING)

    async def put(self, key: str, data: bytes) -> None:
        await self._run(self._put, checked(key), data)

    def discard(self, key: str) -> None:
        super().discard(key)
        with self._writing(), suppress(FileNotFoundError, NotADirectoryError):
            fsync_folder(self._path(key).parent)

    @contextmanager
    def upload(self) -> Iterator[_LocalUpload]:
        with self._writing():
            staged = self._staged()
            upload = _LocalUpload(self, staged)
            try:
                yield upload
            finally:
                upload.discard()

    def open(self, key: str) -> pa.NativeFile:
        if self.size(key) == 0:
            return pa.BufferReader(b"")
        try:
            # read, not mapped: pages of a mapped file count as memory for as long as it is open
            return pa.OSFile(str(self._path(key)), "r")
        except OSError as error:
            raise self._failed(error, key) from error

    def place(self, staged: Path, key: str) -> None:
        """Blocking. Name the durable file `staged` durably; IonbeamError where other content has `key`."""
        path = self._path(key)
        self._make_durable(path.parent)
        try:
            os.link(staged, path)
        except FileExistsError:
            if not path.is_file() or not filecmp.cmp(staged, path, shallow=False):
                raise other_content(key) from None
        fsync_folder(path.parent)  # also when it was there: whoever named it may have died before this

    def _put(self, key: str, data: bytes) -> None:
        with self._writing():
            staged = self._staged()
            try:
                with staged.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self.place(staged, key)
            finally:
                with suppress(OSError):
                    staged.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / checked(key)

    def _staged(self) -> Path:
        """A fresh path in this store's own part of `.staging`, which its lock keeps from being swept away."""
        with self._guard:
            if self._staging is None:
                folder = self._folder / STAGING
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
    def _writing(self) -> Iterator[None]:
        """Turn errors of the file system into ours."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise IonbeamError(f"{self._folder}: {error}; no key may be both an object and a folder") from error
        except OSError as error:
            raise unavailable(error, self._folder) or IonbeamError(f"{self._folder}: {error}") from error

    def _translated(self, error: BaseError, key: str) -> IonbeamError:
        """obstore tells the operating system's error number in its text only."""
        found = _OS_ERROR.search(first_line(error))
        return self._failed(OSError(int(found[1]) if found else 0, first_line(error)), key)

    def _failed(self, error: OSError, key: str) -> IonbeamError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            return self._missing(key)
        return unavailable(error, self._folder) or IonbeamError(f"{self._folder}: {key!r} cannot be read: {error}")


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
