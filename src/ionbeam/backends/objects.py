"""Object stores on obstore: how objects are read, listed and deleted, whichever store keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import ObjectStore as Store

from ionbeam.errors import IonbeamError, PayloadMissing, Refused, Unavailable
from ionbeam.ports.workers import Workers
from ionbeam.schemas.routes import checked_key

T = TypeVar("T")

STAGING = ".staging"


class ObstoreObjects:
    """The half of `ports.objects.ObjectStore` that obstore gives alike for every store.

    A backend adds what differs: `put`, `upload` and `open`. `where` is the URL of the store's root, without a slash
    at its end.
    """

    def __init__(self, store: Store, where: str, workers: Workers) -> None:
        self._store = store
        self._where = where
        self._workers = workers

    async def get(self, key: str) -> bytes:
        return await self._run(self._content, checked(key))

    async def exists(self, key: str) -> bool:
        try:
            await self._run(self.size, key)
        except PayloadMissing:
            return False
        return True

    async def delete(self, key: str) -> None:
        await self._run(self.discard, key)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """A folder at a time, so memory holds no more names than the fullest folder has."""
        pending = [f"{checked(prefix.rstrip('/'))}/"] if prefix else [""]
        while pending:
            entry = pending.pop()
            if entry and not entry.endswith("/"):
                yield entry
            else:
                pending.extend(reversed(await self._run(self._entries, entry)))

    def url(self, key: str) -> str:
        return f"{self._where}/{checked(key)}"

    def size(self, key: str) -> int:
        with self._explained(checked(key)):
            return obstore.head(self._store, key)["size"]

    def discard(self, key: str) -> None:
        with suppress(PayloadMissing), self._explained(checked(key)):
            obstore.delete(self._store, key)

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        return await self._workers.run(lambda: function(*args))

    def _content(self, key: str) -> bytes:
        with self._explained(key):
            return obstore.get(self._store, key).bytes().to_bytes()

    def _entries(self, folder: str) -> Sequence[str]:
        """What is in `folder` in the order of keys; folders end with a slash, which is also how they sort."""
        with self._explained(folder):
            found = obstore.list_with_delimiter(self._store, folder.rstrip("/") or None)
        names = [entry["path"] for entry in found["objects"]]
        names += [f"{path}/" for path in found["common_prefixes"]]
        return sorted(name for name in names if name != f"{STAGING}/")

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Turn errors of reading and deleting `key` into ours."""
        try:
            yield
        except (FileNotFoundError, NotFoundError) as error:
            raise self._missing(key) from error
        except BaseError as error:
            raise self._translated(error, key) from error

    def _missing(self, key: str) -> PayloadMissing:
        return PayloadMissing(f"no object {key!r} in {self._where}; write it first, or mend the key")

    def _translated(self, error: BaseError, key: str) -> IonbeamError:
        """What obstore says when it has tried for as long as it does: the store cannot serve for now."""
        return Unavailable(f"{self._where} cannot be used for now: {first_line(error)}")


def checked(key: str) -> str:
    """`key`, when it names an object; raises Refused."""
    if checked_key(key).split("/", 1)[0] == STAGING:
        raise Refused(f"not an object key: {key[:120]!r}; {STAGING!r} holds what is still being written")
    return key


def other_content(key: str) -> IonbeamError:
    """The error for a key that is taken."""
    return IonbeamError(f"object {key!r} exists with other content and is never overwritten; choose another key")


def first_line(error: BaseError) -> str:
    """obstore's message without the dump of its inside that follows."""
    return (str(error).splitlines() or [type(error).__name__])[0]
