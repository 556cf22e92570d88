"""Local folders and memory keep the object store's contract; what only a folder can get wrong is below."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import obstore
import pyarrow as pa
import pytest
import trio
from object_store_suite import ObjectStoreContract, OpenStore, keys, uploaded
from obstore.exceptions import GenericError
from obstore.store import LocalStore

from ionbeam.backends import local_objects
from ionbeam.backends.local_objects import LocalObjects
from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.backends.workers import ThreadWorkers
from ionbeam.errors import IonbeamError, PayloadMissing, Unavailable


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
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), target.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    if way == "put":
        await store.put("new/folder/key", b"x")
    else:
        with store.upload() as upload:
            upload.file.write(b"x")
            upload.commit("new/folder/key")
    content, *folders = synced
    assert ".staging" in content[0]
    assert content[1] is False
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


@pytest.mark.parametrize("code", [errno.EIO, errno.ENFILE, errno.EACCES, None])
async def test_an_error_of_the_disk_is_told_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    """A disk that cannot serve is a wait, what does not pass by itself an error; neither is a missing object."""
    store = local(tmp_path)
    await store.put("key", b"content")
    text = "unexpected" if code is None else f"Unable to open file: {os.strerror(code)} (os error {code})"

    def failing(*args: object) -> NoReturn:
        raise GenericError(f"{text}\n\nDebug source:\n(os error 2)")

    for name in ("get", "head", "delete", "list_with_delimiter"):
        monkeypatch.setattr(obstore, name, failing)
    for ask in (store.get, store.exists, store.delete, lambda key: keys(store)):
        with pytest.raises(IonbeamError, match=re.escape(str(tmp_path))) as caught:
            await ask("key")
        assert isinstance(caught.value, Unavailable) == (code in (errno.EIO, errno.ENFILE))
        assert not isinstance(caught.value, PayloadMissing)
        assert "Debug" not in str(caught.value)


_NO_DESCRIPTORS = """
import os, sys, trio
from pathlib import Path
from ionbeam.backends.local_objects import LocalObjects
from ionbeam.backends.workers import InlineWorkers
from ionbeam.errors import Unavailable

async def main():
    store = LocalObjects(Path(sys.argv[1]), InlineWorkers())
    await store.put("key", b"content")
    await store.get("key")  # obstore starts its threads at the first use
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for number, ask in enumerate((store.get, store.open, lambda key: store.put("other", b""))):
        try:
            result = ask("key")
            if number != 1:
                await result
        except Unavailable as error:
            print("open files" in str(error))
    os.close(held.pop())
    print(await store.get("key"))

trio.run(main)
"""


async def test_too_many_open_files_are_a_wait(tmp_path: Path) -> None:
    """A process without free descriptors gets Unavailable with the remedy, and goes on once there are some."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', sys.executable, "-c", _NO_DESCRIPTORS, str(tmp_path)]
    done = await trio.run_process(command, capture_stdout=True, env=environment)
    assert done.stdout.decode().split() == ["True", "True", "True", "b'content'"]


async def test_a_deletion_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When delete returns, also for what was gone already, the folder without the name is on the disk."""
    store, synced = local(tmp_path), []
    await store.put("folder/key", b"")
    monkeypatch.setattr(local_objects, "fsync_folder", lambda folder: synced.append(folder))
    await store.delete("folder/key")
    store.discard("folder/key")
    assert synced == [tmp_path / "folder"] * 2


def test_what_a_url_names_is_there(tmp_path: Path) -> None:
    """A program that knows nothing of ionbeam reads the object from its URL; obstore reads the same folder."""
    store = local(tmp_path / "a folder")
    uploaded(store, "raw/a_1", b"content")
    assert Path(unquote(urlsplit(store.url("raw/a_1")).path)).read_bytes() == b"content"
    other = LocalStore(tmp_path / "a folder")
    assert obstore.get(other, "raw/a_1").bytes().to_bytes() == b"content"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Opening a store where a file is in the way names the place."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IonbeamError, match=re.escape(str(tmp_path / "file"))):
        local(tmp_path / "file" / "objects")


_LEFT_BEHIND = """
import os, signal, sys, trio
from pathlib import Path
from ionbeam.backends.local_objects import LocalObjects
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
