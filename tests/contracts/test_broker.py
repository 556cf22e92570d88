"""The embedded broker keeps the broker's contract, on disk and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from broker_suite import BrokerContract

from ionbeam.backends.embedded.broker import PART, EmbeddedBroker
from ionbeam.backends.embedded.connection import open_memory
from ionbeam.backends.embedded.database import Database, open_database
from ionbeam.backends.embedded.wake import Bells
from ionbeam.ports.broker import Broker


class EmbeddedWorld:
    """Nodes on one home, or on one connection in memory, with a clock that is turned by hand."""

    def __init__(self, path: Path | None) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self._path = path
        self._connection = open_memory() if path is None else None
        self._bells = Bells() if path is None else None
        self._nodes: dict[Broker, Database] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[EmbeddedBroker]:
        async with open_database(
            self._path,
            clock=lambda: self.now,
            parts=[PART],
            connection=self._connection,
            bells=self._bells,
            backstop=60,
            reclaim_every=1000,
        ) as database:
            broker = EmbeddedBroker(database, lambda: self.now)
            self._nodes[broker] = database
            yield broker
            self._nodes.pop(broker, None)

    async def elapse(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def kill(self, broker: Broker) -> None:
        victim = self._nodes.pop(broker)
        victim.sever()
        for database in self._nodes.values():
            await database.sessions.reclaim([victim.session] if self._path is None else [])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


class TestEmbeddedBrokerOnDisk(BrokerContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> EmbeddedWorld:
        return EmbeddedWorld(tmp_path / "home" / "ionbeam.sqlite")


class TestEmbeddedBrokerInMemory(BrokerContract):
    @pytest.fixture
    def world(self) -> EmbeddedWorld:
        return EmbeddedWorld(None)
