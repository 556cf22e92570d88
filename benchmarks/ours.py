"""One run of ionbeam in a process of its own, and the payload that both sides read.

python benchmarks/ours.py payload PATH --rows N --stations S --hours H
python benchmarks/ours.py run PAYLOAD HOME --hours H [--export]
"""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import trio

from ionbeam.backends.embedded import broker, database, ledger, observations  # noqa: F401 (imported before the clock)
from ionbeam.backends.local_objects import LocalObjects  # noqa: F401 (imported before the clock)
from ionbeam.client import IngestDataCommand
from ionbeam.config import Topology
from ionbeam.domain import cf
from ionbeam.node import Node
from ionbeam.parts import Ports, open_exporters, open_ports
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode
from ionbeam.sources import synthetic
from measuring import Stopwatch

LOOK_AGAIN = 0.02


class Watchdog(trio.abc.Instrument):
    """How long a task's step held the event loop at most, in milliseconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began: float | None = None  # the step that adds the instrument is not measured

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._began is not None:
            self.longest = max(self.longest, (time.perf_counter() - self._began) * 1000)


def write_payload(path: Path, rows: int, stations: int, hours: int, seed: int) -> None:
    """The synthetic rows as an Arrow IPC file."""
    reader = synthetic.batches(rows=rows, stations=stations, hours=hours, seed=seed)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


async def run(payload: Path, home: Path, hours: int, *, export: bool = False) -> dict[str, float]:
    """From the published command to all windows built: seconds, CPU seconds, peak MB, rows, ms the loop was held."""
    topology = Topology(home=str(home)) if export else Topology(home=str(home), exporters={})
    watchdog = Watchdog()
    async with open_ports(topology) as ports, trio.open_nursery() as nursery:
        command = _command(payload, home, hours)
        node = Node(topology, ports, open_exporters(topology))
        nursery.start_soon(node.run)
        await node.idle(LOOK_AGAIN)
        trio.lowlevel.add_instrument(watchdog)
        watch = Stopwatch()
        await ports.broker.publish(routes.INGESTION, command.id, encode(command))
        await node.idle(LOOK_AGAIN)
        measured = watch.stopped()
        trio.lowlevel.remove_instrument(watchdog)
        rows = await _built_rows(ports)
        await node.drain()
    return {"rows": rows, "loop_held_ms": round(watchdog.longest, 1), **measured}


def _command(payload: Path, home: Path, hours: int) -> IngestDataCommand:
    """The command, with its payload under its raw key: the same file, by a second name."""
    start, end = synthetic.START, synthetic.START + timedelta(hours=hours)
    command_id = str(uuid.uuid4())
    key = routes.raw_key(synthetic.DATASET, start, end, end, command_id)
    target = home / "objects" / key
    target.parent.mkdir(parents=True)
    os.link(payload, target)
    return IngestDataCommand(
        id=command_id, metadata=synthetic.metadata(), payload_location=key, start_time=start, end_time=end
    )


async def _built_rows(ports: Ports) -> int:
    """The rows of all windows. Refuses to measure a run that built none or left something undone."""
    windows = await ports.ledger.windows(None, None, 10_000)
    letters = await ports.broker.dead_letters()
    if not windows or letters or any(window.current is None for window in windows):
        raise SystemExit(f"the run did not end well: {[letter.reason for letter in letters]}, {windows[:3]}")
    return sum(window.current.rows for window in windows if window.current is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("payload", "run"))
    parser.add_argument("paths", nargs="+", type=Path)
    for name, default in (("rows", 0), ("stations", 2000), ("hours", 24), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "payload":
        write_payload(arguments.paths[0], arguments.rows, arguments.stations, arguments.hours, arguments.seed)
        return
    # What is imported at first use belongs to importing: the CF table, and pandas, which Arrow loads where it finds it.
    cf.problems(synthetic.metadata().ingestion_map.canonical_variables)
    pa.scalar(False)
    payload, home = arguments.paths
    print(json.dumps(trio.run(lambda: run(payload, home, arguments.hours, export=arguments.export))))


if __name__ == "__main__":
    main()
