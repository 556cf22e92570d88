"""The ordinary command line in a process that ends itself, as by kill -9, at a border between two stages.

    python -m ionbeam.testing.crash --at ledger.accept:after:1 -- publish a.json --payloads payloads --home h

`before`: the call never begins. `after`: what it does is durable, and nobody has seen its answer. The ports are
wrapped from outside; production code has no hook for this. `--list` prints the borders.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from ionbeam import parts
from ionbeam.cli import main as ionbeam
from ionbeam.client.exporting import DatasetRevision, Exporter
from ionbeam.config import Topology
from ionbeam.ports.broker import Consumer, Incoming
from ionbeam.schemas import routes

BORDERS = {
    "client.upload": "a payload gets its raw key",
    "client.publish": "a command is sent",
    "broker.receive": "a message is handed to a node, its attempt counted",
    "store.write": "the accepted rows of an ingestion are stored",
    "quarantine.commit": "the rejected rows of an ingestion are stored",
    "ledger.accept": "a command is accepted",
    "ledger.record": "a refusal or the rules in force enter the outbox",
    "journal.put": "a segment of the journal is written",
    "broker.publish": "a message that a decision caused is sent",
    "ledger.clear": "an outbox entry is done with",
    "broker.ack": "a message is done with",
    "broker.bury": "a message becomes a dead letter",
    "ledger.enter": "an ingestion takes effect in its windows",
    "ledger.lease": "a builder gets a window",
    "dataset.commit": "a dataset file gets its key",
    "ledger.built": "a build is recorded",
    "exporter.apply": "an exporter shows a revision",
}
"""What can be named, in the order in which a command meets it."""

_KINDS = {"raw/": "client.upload", "quarantine/": "quarantine.commit", "journal/": "journal.put"}


class Moment(NamedTuple):
    """When to die: before the `call`-th call at `border` begins, or after the `call`-th to end has ended."""

    border: str
    when: str
    call: int

    @classmethod
    def parse(cls, text: str) -> Moment:
        """`METHOD:WHEN:N`. Raises ValueError saying what is wrong."""
        border, _, rest = text.partition(":")
        when, _, count = rest.partition(":")
        if border not in BORDERS:
            raise ValueError(f"no border {border!r}; --list prints those that there are")
        if when not in ("before", "after"):
            raise ValueError(f"expected `before` or `after`, got {when!r}")
        if not count.isdecimal() or int(count) < 1:
            raise ValueError(f"expected a number of calls from 1, got {count!r}")
        return cls(border, when, int(count))


class Bomb:
    """Counts the calls at one border, in whatever thread they are made, and ends the process at its moment."""

    def __init__(self, moment: Moment, die: Callable[[], None]) -> None:
        self._moment = moment
        self._die = die
        self._guard = threading.Lock()
        self._calls = 0

    @contextmanager
    def at(self, border: str) -> Iterator[None]:
        """Around one call at `border`. A call that raises has not passed it."""
        self._reach(border, "before")
        yield
        self._reach(border, "after")

    def _reach(self, border: str, when: str) -> None:
        if (border, when) == self._moment[:2]:
            with self._guard:
                self._calls += 1
                mine = self._calls == self._moment.call
            if mine:
                self._die()


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Port:
    """A port whose coroutine methods pass the bomb as `{name}.{method}`."""

    def __init__(self, bomb: Bomb, name: str, port: Any) -> None:
        self._bomb = bomb
        self._name = name
        self._port = port

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        border = f"{self._name}.{attribute}"
        return self._passing(border, value) if border in BORDERS and inspect.iscoroutinefunction(value) else value

    def _passing(self, border: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **named: Any) -> Any:
            with self._bomb.at(border):
                return await method(*args, **named)

        return call


class _Broker(_Port):
    async def publish(self, exchange: str, message_id: str, body: bytes) -> None:
        with self._bomb.at("client.publish" if exchange == routes.INGESTION else "broker.publish"):
            await self._port.publish(exchange, message_id, body)

    @asynccontextmanager
    async def consume(self, queue: str, prefetch: int) -> AsyncIterator[_Consumer]:
        async with self._port.consume(queue, prefetch) as consumer:
            yield _Consumer(self._bomb, consumer)


class _Consumer:
    def __init__(self, bomb: Bomb, consumer: Consumer) -> None:
        self._bomb = bomb
        self._consumer = consumer

    async def receive(self) -> Incoming:
        with self._bomb.at("broker.receive"):
            return await self._consumer.receive()


class _Objects(_Port):
    async def put(self, key: str, data: bytes) -> None:
        with self._bomb.at(_kind(key)):
            await self._port.put(key, data)

    @contextmanager
    def upload(self) -> Iterator[_Upload]:
        with self._port.upload() as upload:
            yield _Upload(self._bomb, upload)


class _Upload:
    def __init__(self, bomb: Bomb, upload: Any) -> None:
        self.file = upload.file
        self._bomb = bomb
        self._upload = upload

    def commit(self, key: str) -> None:
        with self._bomb.at(_kind(key)):
            self._upload.commit(key)


class _Store(_Port):
    def write(self, *args: Any) -> Any:
        with self._bomb.at("store.write"):
            return self._port.write(*args)


class _Exporter:
    def __init__(self, bomb: Bomb, exporter: Exporter) -> None:
        self.name = exporter.name
        self._bomb = bomb
        self._exporter = exporter

    def apply(self, revision: DatasetRevision) -> None:
        with self._bomb.at("exporter.apply"):
            self._exporter.apply(revision)


def _kind(key: str) -> str:
    return next((border for prefix, border in _KINDS.items() if key.startswith(prefix)), "dataset.commit")


def wrapped(ports: parts.Ports, bomb: Bomb) -> parts.Ports:
    """`ports`, every border of which passes `bomb`."""
    return replace(
        ports,
        broker=_Broker(bomb, "broker", ports.broker),
        ledger=_Port(bomb, "ledger", ports.ledger),
        store=_Store(bomb, "store", ports.store),
        objects=_Objects(bomb, "objects", ports.objects),
    )


def arm(bomb: Bomb) -> None:
    """Let every node of this process run on wrapped ports and exporters. Before any command is imported."""
    open_ports, open_exporters = parts.open_ports, parts.open_exporters

    def armed_ports(*args: Any, **named: Any) -> AbstractAsyncContextManager[parts.Ports]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[parts.Ports]:
            async with open_ports(*args, **named) as ports:
                yield wrapped(ports, bomb)

        return opened()

    def armed_exporters(topology: Topology) -> list[Exporter]:
        return [_Exporter(bomb, exporter) for exporter in open_exporters(topology)]

    # set by name: to a type checker a function is not a variable
    setattr(parts, "open_ports", armed_ports)  # noqa: B010
    setattr(parts, "open_exporters", armed_exporters)  # noqa: B010


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line behind `--` until the moment comes, if it comes; else its exit code."""
    parser = argparse.ArgumentParser(prog="python -m ionbeam.testing.crash", description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the borders")
    parser.add_argument("--at", metavar="METHOD:WHEN:N", help="before or after the N-th call of METHOD")
    parser.add_argument("arguments", nargs="*", help="what follows `ionbeam`, behind --")
    arguments = parser.parse_args(argv)
    if arguments.list:
        for border, meaning in BORDERS.items():
            print(f"{border:20} {meaning}")
        return 0
    if arguments.at is None or not arguments.arguments:
        parser.error("name a moment with --at, and a command behind --")
    try:
        moment = Moment.parse(arguments.at)
    except ValueError as error:
        parser.error(f"--at {arguments.at}: {error}")
    arm(Bomb(moment, kill_this_process))
    return ionbeam(arguments.arguments)


if __name__ == "__main__":
    sys.exit(main())
