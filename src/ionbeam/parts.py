"""The parts that a node is made of: which backend stands behind each port, which exporters there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import trio

from ionbeam.client.client import Client
from ionbeam.client.exporting import Exporter
from ionbeam.config import ExporterSettings, Topology, read_topology
from ionbeam.ports.broker import Broker
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.ports.observations import ObservationStore
from ionbeam.ports.records import WindowRules
from ionbeam.ports.workers import Workers
from ionbeam.schemas import routes


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """What a node stands on. `session` is unique to this incarnation; it names the node's journal.

    `scratch` is the folder for temporary files; None: the system's, which may be memory.
    """

    broker: Broker
    ledger: Ledger
    store: ObservationStore
    objects: ObjectStore
    workers: Workers
    session: str
    scratch: str | None = None

    def client(self) -> Client:
        return Client(broker=self.broker, ledger=self.ledger, objects=self.objects, workers=self.workers)


@asynccontextmanager
async def open_ports(topology: Topology, clock: Callable[[], datetime] = utc_now) -> AsyncIterator[Ports]:
    """The backends that `topology` names, open. Raises HomeError, TopologyError or Unavailable."""
    from ionbeam.backends.embedded import broker, ledger
    from ionbeam.backends.embedded.database import open_database
    from ionbeam.backends.workers import ThreadWorkers

    home = Path(topology.home)
    workers = ThreadWorkers(trio.CapacityLimiter(topology.node.threads))
    async with open_database(home / "ionbeam.sqlite", clock=clock, parts=(broker.PART, ledger.PART)) as database:
        objects, store = await workers.run(open_stores, topology)
        queues = broker.EmbeddedBroker(database, clock)
        for queue, exchange in routes.BINDINGS.items():
            await queues.bind(queue, exchange)
        yield Ports(
            broker=queues,
            ledger=ledger.EmbeddedLedger(database, clock, partial(window_rules, topology)),
            store=store,
            objects=objects,
            workers=workers,
            scratch=topology.home,
            session=f"{utc_now():%Y%m%dT%H%M%S}-{database.session}",
        )


@asynccontextmanager
async def open_client(where: str | Path | Topology) -> AsyncIterator[Client]:
    """See `ionbeam.open`."""
    if isinstance(where, Topology):
        topology = where
    elif str(where).endswith(".toml"):
        topology = read_topology(Path(where))
    else:
        topology = Topology(home=str(where))
    async with open_ports(topology) as ports:
        yield ports.client()


def open_stores(topology: Topology) -> tuple[ObjectStore, ObservationStore]:
    """Blocking. The object store and the observation store of `topology`."""
    from ionbeam.backends.embedded.observations import SegmentStore
    from ionbeam.backends.local_objects import LocalObjects
    from ionbeam.backends.workers import ThreadWorkers

    folder = Path(topology.objects.path) if topology.objects.path else Path(topology.home) / "objects"
    objects = LocalObjects(folder.resolve(), ThreadWorkers(trio.CapacityLimiter(topology.node.threads)))
    return objects, SegmentStore(objects)


def window_rules(topology: Topology, dataset: str) -> WindowRules:
    settings = topology.datasets.get(dataset, topology.windows)
    return WindowRules(
        allow_incomplete=settings.allow_incomplete_windows, min_rebuild_interval=settings.min_rebuild_interval
    )


def open_exporters(topology: Topology) -> list[Exporter]:
    """The exporters that `topology` enables."""
    return [_exporter(topology, name, settings) for name, settings in topology.exporters.items() if settings.enabled]


def _exporter(topology: Topology, name: str, settings: ExporterSettings) -> Exporter:
    from ionbeam.exporters.geoparquet import GeoParquetExporter

    folder = Path(settings.path) if settings.path else Path(topology.home) / "exports" / name
    return GeoParquetExporter(folder, name=name)
