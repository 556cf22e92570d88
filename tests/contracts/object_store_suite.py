"""What every ObjectStore promises. A backend passes these tests by giving the fixture `open_store`.

`open_store()` opens the same store again each time: what one incarnation wrote, the next one reads.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
import trio

from ionbeam.errors import IonbeamError, PayloadMissing, Refused
from ionbeam.ports.objects import ObjectStore

OpenStore = Callable[[], ObjectStore]
BAD_KEYS = ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", "a b", "a\nb", "ä", ".staging/x", "x" * 1025]


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [key async for key in store.list(prefix)]


def uploaded(store: ObjectStore, key: str, data: bytes) -> None:
    with store.upload() as upload:
        upload.file.write(data)
        upload.commit(key)


class ObjectStoreContract:
    async def test_what_was_put_is_there(self, open_store: OpenStore) -> None:
        """An object is read back whole, also by the next incarnation, and its size is known."""
        await open_store().put("raw/a/one", b"content")
        store = open_store()
        assert await store.get("raw/a/one") == b"content"
        assert await store.exists("raw/a/one") is True
        assert store.size("raw/a/one") == 7
        with store.open("raw/a/one") as file:
            assert file.read_at(3, 4) == b"ent"

    async def test_an_empty_object_is_an_object(self, open_store: OpenStore) -> None:
        """Zero bytes can be put, read and opened."""
        store = open_store()
        await store.put("empty", b"")
        assert await store.get("empty") == b""
        assert store.size("empty") == 0
        with store.open("empty") as file:
            assert file.read() == b""

    async def test_missing_objects(self, open_store: OpenStore) -> None:
        """Reading what is not there raises PayloadMissing with the key; a folder is no object."""
        store = open_store()
        await store.put("folder/object", b"")
        for key in ("nothing", "folder", "folder/nothing", "folder/object/deeper"):
            assert await store.exists(key) is False
            for read in (store.open, store.size):
                with pytest.raises(PayloadMissing, match=key):
                    read(key)
            with pytest.raises(PayloadMissing, match=key):
                await store.get(key)
            await store.delete(key)
            store.discard(key)
        assert await store.exists("folder/object") is True

    async def test_the_same_content_again_is_fine(self, open_store: OpenStore) -> None:
        """Putting or committing an object again with its own content changes nothing."""
        store = open_store()
        await store.put("a", b"same")
        await store.put("a", b"same")
        uploaded(store, "a", b"same")
        assert await store.get("a") == b"same"

    @pytest.mark.parametrize("other", [b"diff", b"", b"same and more"])
    async def test_other_content_is_refused(self, open_store: OpenStore, other: bytes) -> None:
        """An object is never overwritten: the error names the key and the first content stays."""
        store = open_store()
        await store.put("a/key", b"same")
        with pytest.raises(IonbeamError, match="a/key"):
            await store.put("a/key", other)
        with pytest.raises(IonbeamError, match="a/key"):
            uploaded(store, "a/key", other)
        assert await store.get("a/key") == b"same"
        assert await keys(store) == ["a/key"]

    async def test_of_racing_writers_one_wins(self, open_store: OpenStore) -> None:
        """Of many that create one key with different contents at once, exactly one succeeds."""
        store = open_store()
        won: list[bytes] = []

        async def write(content: bytes) -> None:
            try:
                await store.put("deep/er/key", content)
            except IonbeamError:
                return
            won.append(content)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(write, b"%d" % number)
        assert won == [await store.get("deep/er/key")]

    async def test_of_racing_writers_of_one_content_all_win(self, open_store: OpenStore) -> None:
        """Many that create one object with the same content at once all succeed."""
        store = open_store()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(store.put, "deep/er/key", b"same")
        assert await store.get("deep/er/key") == b"same"

    async def test_a_big_object_is_read_anywhere(self, open_store: OpenStore) -> None:
        """Megabytes come back whole; `open` seeks and reads pieces of them, by several readers at once."""
        store, data = open_store(), bytes(range(256)) * 40_000
        uploaded(store, "big", data)
        assert store.size("big") == len(data)
        assert await store.get("big") == data
        with store.open("big") as one, store.open("big") as other:
            one.seek(5_000_001)
            assert other.read(3) == data[:3]
            assert one.read(70_000) == data[5_000_001:5_070_001]
            assert one.size() == len(data)

    async def test_what_was_given_may_change_later(self, open_store: OpenStore) -> None:
        """An object keeps the bytes that it was given, not the caller's buffer."""
        store, data = open_store(), bytearray(b"before")
        await store.put("key", data)
        data[:] = b"after!"
        assert await store.get("key") == b"before"

    async def test_deleted_objects_are_gone(self, open_store: OpenStore) -> None:
        """delete and discard remove an object, and the key may be used again."""
        store = open_store()
        await store.put("a/b", b"1")
        await store.delete("a/b")
        assert await store.exists("a/b") is False
        await store.put("a/b", b"2")
        store.discard("a/b")
        assert await keys(store) == []
        await store.put("a/b", b"3")
        assert await open_store().get("a/b") == b"3"

    async def test_listing_is_in_order_and_below_a_folder(self, open_store: OpenStore) -> None:
        """All keys below the folder, sorted as whole strings; a name that begins alike is not below."""
        store = open_store()
        names = ["a/b/c", "a-b", "a/b-c", "a/b.c", "a/b/d", "a", "ab/x", "a0"]
        names.remove("a")
        for name in reversed(names):
            await store.put(name, b"")
        assert await keys(store) == sorted(names)
        assert await keys(store, "a") == ["a/b-c", "a/b.c", "a/b/c", "a/b/d"]
        assert await keys(store, "a/b") == ["a/b/c", "a/b/d"]
        assert await keys(store, "nothing") == []
        assert await keys(store, "a-b") == []
        assert await keys(store, "a/b/") == ["a/b/c", "a/b/d"]

    async def test_an_emptied_folder_is_in_no_listing(self, open_store: OpenStore) -> None:
        """Objects are all that is listed: where the last one of a folder is deleted, nothing is left of it."""
        store = open_store()
        await store.put("folder/deep/key", b"")
        await store.put("folder/other", b"")
        await store.delete("folder/deep/key")
        assert await keys(store) == ["folder/other"]

    async def test_an_upload_shows_only_when_committed(self, open_store: OpenStore) -> None:
        """What is being written has no key and is in no listing; once committed it is read whole."""
        store = open_store()
        with store.upload() as upload:
            upload.file.write(b"one ")
            assert await keys(store) == []
            upload.file.write(pa.py_buffer(b"two").to_pybytes())
            upload.commit("big/object")
            assert await store.get("big/object") == b"one two"
        assert await open_store().get("big/object") == b"one two"

    async def test_an_upload_that_fails_leaves_nothing(self, open_store: OpenStore) -> None:
        """An exception, or leaving without a commit, discards what was written."""
        store = open_store()
        with pytest.raises(ZeroDivisionError), store.upload() as upload:
            upload.file.write(b"%d" % (1 // 0))
        with store.upload() as upload:
            upload.file.write(b"half")
        assert await keys(store) == []

    async def test_an_upload_holds_an_arrow_file(self, open_store: OpenStore) -> None:
        """Arrow writes an IPC file into an upload and reads it from `open`."""
        store, table = open_store(), pa.table({"x": [1, 2, 3]})
        with store.upload() as upload:
            with pa.ipc.new_file(upload.file, table.schema) as writer:
                writer.write_table(table)
            upload.commit("table")
        with store.open("table") as file:
            assert pa.ipc.open_file(file).read_all().equals(table)

    @pytest.mark.parametrize("key", BAD_KEYS)
    async def test_names_that_are_no_keys_are_refused(self, open_store: OpenStore, key: str) -> None:
        """No method takes a name that could lead out of the store, or that is not a key."""
        store = open_store()
        for ask in (store.get, store.exists, store.delete):
            with pytest.raises(Refused, match="not an object key"):
                await ask(key)
        for blocking in (store.open, store.size, store.discard, store.url):
            with pytest.raises(Refused, match="not an object key"):
                blocking(key)
        with pytest.raises(Refused, match="not an object key"):
            await store.put(key, b"")
        with pytest.raises(Refused, match="not an object key"):
            uploaded(store, key, b"")
        if key:
            with pytest.raises(Refused, match="not an object key"):
                await keys(store, key if not key.endswith("/") else f"{key}/..")

    async def test_urls_differ_by_key(self, open_store: OpenStore) -> None:
        """A URL is absolute and ends in the key."""
        assert "://" in open_store().url("raw/a")
        assert open_store().url("raw/a").endswith("/raw/a")
