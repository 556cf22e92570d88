"""Commands and payloads to test with, and a node that works on a home of its own."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import trio

from ionbeam.client import Exporter
from ionbeam.config import Attempts, NodeSettings, Topology
from ionbeam.node import Node
from ionbeam.parts import Ports, open_ports, utc_now
from ionbeam.ports.broker import DeadLetter
from ionbeam.ports.records import IngestionState, Revision, WindowState
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim, IngestDataCommand
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam.schemas.variables import CanonicalVariable, MetadataVariable

DAY = datetime(2024, 1, 1, tzinfo=UTC)
T = "air_temperature__K__0.0__point__PT0S"
P = "air_pressure__Pa__0.0__point__PT0S"
RAW = pa.schema(
    {
        "timestamp": pa.timestamp("us", "UTC"),
        "latitude": pa.float64(),
        "longitude": pa.float64(),
        "t": pa.float64(),
        "p": pa.float64(),
        "station": pa.string(),
    }
)


def at(seconds: float) -> datetime:
    """A moment of the day that the tests play on."""
    return DAY + timedelta(seconds=seconds)


def claim(start: float, end: float) -> Claim:
    return Claim(at(start), at(end))


def variable(known: str = "t", **more: Any) -> CanonicalVariable:
    """One of three variables by the name of its column; `more` changes it."""
    name, unit = {"t": ("air_temperature", "K"), "p": ("air_pressure", "Pa"), "h": ("relative_humidity", "%")}[known]
    return CanonicalVariable(**({"column": known, "standard_name": name, "cf_unit": unit} | more))


def metadata(variables: str = "tp", about: dict[str, Any] | None = None, **columns: Any) -> IngestionMetadata:
    """Dataset `air` in windows of an hour, told apart by station; `columns` change its map."""
    described = {"name": "air", "aggregation_span": Duration("PT1H"), **(about or {})}
    standard = {
        "canonical_variables": tuple(map(variable, variables)),
        "metadata_variables": (MetadataVariable(column="station"),),
    }
    return IngestionMetadata(
        dataset=DatasetMetadata(**described), ingestion_map=DataIngestionMap(**(standard | columns))
    )


def command(name: str, about: IngestionMetadata | None = None, **more: Any) -> IngestDataCommand:
    """A command over the first hour, issued an hour later for each letter of the alphabet."""
    standard: dict[str, Any] = {
        "id": name,
        "metadata": about or metadata(),
        "payload_location": f"raw/{name}",
        "start_time": at(0),
        "end_time": at(3600),
        "issued_at": at(7200),
    }
    return IngestDataCommand(**(standard | more))


def row(
    second: float, station: str | None = "s", t: float | None = 280.0, p: float | None = None, **more: Any
) -> dict[str, Any]:
    return {"timestamp": at(second), "latitude": 1.0, "longitude": 2.0, "t": t, "p": p, "station": station} | more


def rows(*content: dict[str, Any], schema: pa.Schema = RAW) -> pa.Table:
    return pa.Table.from_pylist(list(content), schema)


def ipc_file(table: pa.Table, chunk: int | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


def ipc_stream(table: pa.Table, chunk: int | None = None, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


class Home:
    """A home on which a node works."""

    def __init__(self, ports: Ports, node: Node) -> None:
        self.ports = ports
        self.node = node

    async def publish(self, body: bytes, name: str = "x") -> None:
        """Send a message as it is."""
        await self.ports.broker.publish(routes.INGESTION, name, body)

    async def send(self, asked: IngestDataCommand | dict[str, Any], payload: pa.Table | bytes | None = None) -> None:
        """Upload the payload, if there is one, where the command says, and send the command."""
        body = encode(asked) if isinstance(asked, IngestDataCommand) else msgspec.json.encode(asked)
        if payload is not None:
            content: dict[str, Any] = msgspec.json.decode(body)
            data = payload if isinstance(payload, bytes) else ipc_file(payload)
            await self.ports.objects.put(content["payload_location"], data)
        await self.publish(body, "x")

    async def settle(self) -> None:
        """Wait until nothing is left to do."""
        with trio.fail_after(60):
            await self.node.idle()

    async def ingest(self, asked: IngestDataCommand, payload: pa.Table | bytes | None = None) -> None:
        await self.send(asked, payload)
        await self.settle()

    async def letters(self) -> list[DeadLetter]:
        return await self.ports.broker.dead_letters()

    async def state(self, name: str) -> IngestionState:
        found = await self.ports.ledger.ingestion(name)
        assert found is not None, f"{name} was not accepted: {[letter.reason for letter in await self.letters()]}"
        return found

    async def windows(self, dataset: str = "air") -> list[WindowState]:
        return await self.ports.ledger.windows(dataset, None, 1000)

    async def window(self, second: float = 0, dataset: str = "air") -> WindowState:
        start = int((at(second) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)
        (found,) = [window for window in await self.windows(dataset) if window.window_start == start]
        return found

    async def revision(self, second: float = 0, dataset: str = "air") -> Revision:
        found = (await self.window(second, dataset)).current
        assert found is not None, "the window was not built"
        return found

    async def revisions(self) -> list[Revision]:
        """All revisions of all windows, in the order in which they were recorded."""
        return [revision for _, revision in await self.ports.ledger.revisions(0, 1000)]

    async def table(self, second: float = 0, dataset: str = "air") -> pa.Table:
        """The current dataset of a window."""
        location = (await self.revision(second, dataset)).event.dataset_location
        return pa.ipc.open_file(pa.BufferReader(await self.ports.objects.get(location))).read_all()

    async def quarantine(self, name: str) -> list[dict[str, Any]]:
        location = (await self.state(name)).quarantine_location
        if location is None:
            return []
        found: list[dict[str, Any]] = pa.ipc.open_stream(await self.ports.objects.get(location)).read_all().to_pylist()
        return found


@asynccontextmanager
async def working(
    folder: Path, clock: Callable[[], datetime] = utc_now, exporters: Sequence[Exporter] = (), **topology: Any
) -> AsyncIterator[Home]:
    """A node that works on the home `folder`; it is drained on leaving."""
    settings: dict[str, Any] = {
        "exporters": {},
        "attempts": Attempts(limit=3, first_delay=Duration("PT0.01S"), longest_delay=Duration("PT0.02S")),
        "node": NodeSettings(drain_timeout=Duration("PT20S")),
    }
    made = Topology(home=str(folder), **(settings | topology))
    raised: BaseException | None = None
    async with open_ports(made, clock) as ports:
        node = Node(made, ports, exporters)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            try:
                yield Home(ports, node)
                stopped = await node.drain()
                assert stopped.clean, stopped
            except BaseException as error:
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
