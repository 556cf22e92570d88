"""What the local backends need of the file system: durable folders, locks of processes, errors."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from ionbeam.errors import Unavailable

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or raise the quota",
    errno.EROFS: "the file system is mounted read-only: remount it writable",
    errno.EIO: "the disk reports an error: check it",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files in the whole system: raise fs.file-max",
}


def unavailable(error: OSError, folder: Path) -> Unavailable | None:
    """`error` as Unavailable naming `folder` and the remedy, when the disk cannot serve now; else None."""
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    return Unavailable(f"{folder} cannot be used for now ({os.strerror(error.errno or 0)}): {remedy}")


def fsync_file(path: Path) -> None:
    """Make the content of the file durable."""
    _fsync(path, os.O_RDONLY)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        fsync_folder(made.parent)


def hold_lock(path: Path) -> int:
    """Create and lock `path`; the descriptor. Held until it is closed or the process ends in any way."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _names(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # somebody took it for a left-over and removed it between open and flock


def lock_is_free(path: Path) -> bool:
    """Whether nobody, in this process or another, holds the lock `path`."""
    return _if_free(path, remove=False)


def remove_free_lock(path: Path) -> bool:
    """Remove the lock file unless somebody holds it; whether nobody did."""
    return _if_free(path, remove=True)


def _if_free(path: Path, *, remove: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove and _names(path, descriptor):
            path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
