"""The ports as a simulated node sees them: every call passes the world's script of faults, and is looked at."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar, TypeVarTuple

import pyarrow as pa
import trio

from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.ports.broker import Incoming

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Life(Protocol):
    """The incarnation of a node that calls; see `ionbeam.testing.world`."""

    async def pass_through(self, call: str, method: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any: ...

    def pass_through_sync(self, call: str, method: Callable[..., T], *args: Any) -> T: ...


class Proxy:
    """`port` with every coroutine method passing through `life` as `{name}.{method}`."""

    def __init__(self, life: Life, name: str, port: object) -> None:
        self._life = life
        self._name = name
        self._port = port

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        if not inspect.iscoroutinefunction(value):
            return value
        life, call = self._life, f"{self._name}.{attribute}"

        async def passing(*args: Any, **named: Any) -> Any:
            return await life.pass_through(call, value, *args, **named)

        return passing


class BrokerProxy(Proxy):
    @asynccontextmanager
    async def consume(self, queue: str, prefetch: int) -> AsyncIterator[_ConsumerProxy]:
        port: Any = self._port
        async with port.consume(queue, prefetch) as consumer:
            yield _ConsumerProxy(self._life, consumer)


class _ConsumerProxy:
    def __init__(self, life: Life, consumer: Any) -> None:
        self._life = life
        self._consumer = consumer

    async def receive(self) -> Incoming:
        incoming: Incoming = await self._life.pass_through("broker.receive", self._consumer.receive)
        return incoming


class ObjectsProxy(Proxy):
    """Blocking methods run in the loop, so what strikes there strikes without waiting."""

    def __init__(self, life: Life, port: MemoryObjects) -> None:
        super().__init__(life, "objects", port)
        self._objects = port

    @contextmanager
    def upload(self) -> Iterator[_UploadProxy]:
        with self._objects.upload() as upload:
            yield _UploadProxy(self._life, upload)

    def open(self, key: str) -> pa.NativeFile:
        return self._life.pass_through_sync("objects.open", self._objects.open, key)

    def size(self, key: str) -> int:
        return self._life.pass_through_sync("objects.size", self._objects.size, key)

    def discard(self, key: str) -> None:
        self._life.pass_through_sync("objects.discard", self._objects.discard, key)


class _UploadProxy:
    def __init__(self, life: Life, upload: Any) -> None:
        self.file: pa.NativeFile = upload.file
        self._life = life
        self._upload = upload

    def commit(self, key: str) -> None:
        self._life.pass_through_sync("objects.commit", self._upload.commit, key)


class WorkersProxy:
    """Blocking work in the loop; see `ionbeam.backends.workers.InlineWorkers`."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        async def here() -> T:
            await trio.lowlevel.checkpoint()
            return function(*args)

        result: T = await self._life.pass_through("workers.run", here)
        return result


def spell(args: Sequence[object]) -> str:
    """What a trace shows of arguments and results: names, not bodies."""
    return " ".join(text for arg in args if (text := _name(arg)))


def _name(value: object) -> str:
    if isinstance(value, bytes):
        return f"({len(value)} B)"
    if isinstance(value, list | tuple | set):
        return f"[{spell(tuple(value))}]"
    if isinstance(value, str | int | float | None):
        return str(value)
    for attribute in ("message_id", "outcome", "id", "token"):
        if hasattr(value, attribute):
            return f"{getattr(value, attribute)}"
    return type(value).__name__
