"""Lock files are told apart from their left-overs whatever happens between opening and locking."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from ionbeam.backends.files import hold_lock, lock_is_free, remove_free_lock, unavailable


def between(monkeypatch: pytest.MonkeyPatch, *happenings: object) -> None:
    """Let each of `happenings` happen once, just before a lock is taken."""
    flock, left = fcntl.flock, list(happenings)

    def interrupted(descriptor: int, how: int) -> None:
        if left:
            left.pop(0)()  # type: ignore[operator]
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", interrupted)


def test_a_held_lock_is_not_free(tmp_path: Path) -> None:
    """Within one process too; once its descriptor is closed it is free, and can be removed."""
    path = tmp_path / "a.lock"
    assert lock_is_free(path) and remove_free_lock(path), "nobody holds what is not there"
    lock = hold_lock(path)
    assert not lock_is_free(path) and not remove_free_lock(path)
    assert path.exists()
    os.close(lock)
    assert lock_is_free(path) and path.exists()
    assert remove_free_lock(path) and not path.exists()


def test_a_lock_that_was_swept_away_while_being_taken_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hold_lock never returns a lock on a file that others cannot find."""
    path = tmp_path / "a.lock"
    between(monkeypatch, path.unlink)
    lock = hold_lock(path)
    assert not lock_is_free(path)
    os.close(lock)


def test_sweeping_spares_a_lock_that_was_just_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A left-over that was replaced by a living process's lock while it was looked at stays."""
    path, held = tmp_path / "a.lock", list[int]()
    path.touch()

    def replaced() -> None:
        path.unlink()
        held.append(os.open(path, os.O_RDWR | os.O_CREAT))

    between(monkeypatch, replaced)
    remove_free_lock(path)
    assert path.exists()
    os.close(held[0])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE])
def test_outages_of_the_disk_are_unavailable(tmp_path: Path, code: int) -> None:
    """Errors that pass name the folder; others are not taken for an outage."""
    assert str(tmp_path) in str(unavailable(OSError(code, "?"), tmp_path))
    assert unavailable(OSError(errno.ENOENT, "?"), tmp_path) is None
