"""Local folders and memory keep the object store's contract; what only a folder can get wrong is below."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import trio

from ionbeam.backends.objects import LocalObjects, MemoryObjects
from ionbeam.backends.workers import ThreadWorkers
from ionbeam.errors import IonbeamError, Unavailable
from object_store_suite import ObjectStoreContract, OpenStore


def local(folder: Path) -> LocalObjects:
    return LocalObjects(folder, ThreadWorkers(trio.CapacityLimiter(4)))


class TestLocalObjects(ObjectStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: local(tmp_path / "objects")


class TestMemoryObjects(ObjectStoreContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        store = MemoryObjects()
        return lambda: store


async def test_urls_of_local_objects_are_escaped(tmp_path: Path) -> None:
    """A folder with blanks and letters outside ASCII gives a valid absolute file URL."""
    url = local(tmp_path / "my d\u00e4ta").url("raw/a_1")
    assert url == f"{tmp_path.as_uri()}/my%20d%C3%A4ta/raw/a_1"


@pytest.mark.parametrize("way", ["put", "upload"])
async def test_everything_is_synced_before_it_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The content is synced before the name exists; then every folder on the way is synced."""
    store, synced = local(tmp_path / "objects"), []
    await store.put("first", b"")
    target = tmp_path / "objects" / "new" / "folder" / "key"
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    if way == "put":
        await store.put("new/folder/key", b"x")
    else:
        with store.upload() as upload:
            upload.file.write(b"x")
            upload.commit("new/folder/key")
    content, *folders = synced
    assert ".staging" in content[0] and content[1] is False
    assert (str(target.parent), True) in folders
    assert {path for path, _ in folders} == {str(parent) for parent in list(target.parents)[:3]}


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "space"), (errno.EDQUOT, "quota"), (errno.EROFS, "writable")]
)
async def test_a_disk_that_cannot_serve_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    """A full or read-only disk is Unavailable, naming folder and remedy; nothing is half there."""
    folder = tmp_path / "objects"
    store = local(folder)

    def failing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(Unavailable, match=remedy) as caught:
            await store.put("key", b"content")
        with pytest.raises(Unavailable, match=remedy), store.upload() as upload:
            upload.commit("key")
    assert str(folder) in str(caught.value)
    assert await store.exists("key") is False
    await store.put("key", b"content")
    assert await store.get("key") == b"content"
    assert [path for path in (folder / ".staging").rglob("*") if path.is_file()] == list(
        (folder / ".staging").glob("*.lock")
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_arrow_writing_to_a_full_disk_is_unavailable(tmp_path: Path) -> None:
    """An error of the disk inside an upload's body comes out as Unavailable too."""
    store = local(tmp_path)
    with pytest.raises(Unavailable, match="space"), store.upload(), pa.OSFile("/dev/full", "wb") as full:
        full.write(b"x" * 100_000)


async def test_an_object_cannot_be_a_folder(tmp_path: Path) -> None:
    """A key below an object, or an object named like a folder, is an error and not a wait."""
    store = local(tmp_path)
    await store.put("a/b", b"")
    for key in ("a/b/c", "a"):
        with pytest.raises(IonbeamError) as caught:
            await store.put(key, b"")
        assert not isinstance(caught.value, Unavailable)


_LEFT_BEHIND = """
import os, signal, sys, trio
from pathlib import Path
from ionbeam.backends.objects import LocalObjects
from ionbeam.backends.workers import InlineWorkers
with LocalObjects(Path(sys.argv[1]), InlineWorkers()).upload() as upload:
    upload.file.write(b"half")
    upload.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_left_overs_of_dead_processes_are_removed(tmp_path: Path) -> None:
    """What a killed process was writing goes at the next opening; what a living one writes stays."""
    living = local(tmp_path)
    with living.upload() as upload:
        upload.file.write(b"still ")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", _LEFT_BEHIND, str(tmp_path)]
        await trio.run_process(command, check=False, env=environment)
        staged = [path for path in (tmp_path / ".staging").rglob("*") if path.is_file()]
        assert len(staged) == 4, "two locks and two half-written files"
        assert [key async for key in local(tmp_path).list("")] == []
        staged = [path for path in (tmp_path / ".staging").rglob("*") if path.is_file()]
        assert len(staged) == 2, "those of the living one"
        upload.file.write(b"alive")
        upload.commit("key")
    assert await living.get("key") == b"still alive"
