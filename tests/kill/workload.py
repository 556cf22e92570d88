"""A small workload with all that can happen to a command, and what a home must show when it is done."""

from __future__ import annotations

import gc
from pathlib import Path

import pyarrow.parquet as pq
import trio
from tests.cli.commands import Folder, filled
from tests.cli.driving import Ended, good, hashes, here

from ionbeam.config import read_topology
from ionbeam.node import Node
from ionbeam.parts import open_exporters, open_ports
from ionbeam.ports.broker import DeadLetter

REFUSED = {"refused-unit", "refused-name"}
PAUSES = '[attempts]\nfirst_delay = "PT0.01S"\nlongest_delay = "PT0.05S"\n'
# Whatever a killed process had taken is prepared in a process of its own afterwards: fewer taken, shorter tests.
FEW = "[actors.ingestion]\nworkers = 2\nprefetch = 2\nmailbox = 1\n"


class Workload:
    """Commands that overlap, correct, replace, claim without rows and must be refused; windows of an hour."""

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        add, issued = self.folder.add, self._issued
        warmer = [(slot, station, value + 1) for slot, station, value in filled(1, 3)]
        unit = {"canonical_variables": [{"column": "t", "standard_name": "air_temperature", "cf_unit": "kg"}]}
        name = {"canonical_variables": [{"column": "t", "standard_name": "no_such_name", "cf_unit": "degC"}]}
        rail = {"name": "rail"}
        self.files = [
            add("first", 0, 2, [*filled(0, 2), (3, "broken", None)], issued_at=issued(1)),
            add("corrected", 1, 3, [*warmer, *filled(1, 3, "b"), (13, "broken", None)], issued_at=issued(9)),
            add("refused-unit", 0, 1, map=unit, issued_at=issued(2)),
            add("late", 1, 3, filled(1, 3, base=0.0), issued_at=issued(3)),
            add("half", 3, 3.5, filled(3, 3.5), issued_at=issued(4)),
            add("nothing", 3.5, 4, [], issued_at=issued(5)),
            add("refused-name", 0, 1, map=name, issued_at=issued(6)),
            add("rail", 0, 1, filled(0, 1), dataset=rail, map={"fold": "value"}, issued_at=issued(7)),
            add("unstamped", 4, 5),
            add("replacing", 0, 2, filled(0, 2, base=20.0), replaces=["first"], issued_at=issued(8)),
        ]

    @staticmethod
    def _issued(minute: int) -> str:
        return f"2024-06-01T00:{minute:02d}:00Z"

    def publish(self, topology: Path) -> list[str]:
        """The command line that sends all of it and works until nothing is due."""
        names = [str(path) for path in self.files]
        return ["publish", *names, "--payloads", str(self.folder.path), "--topology", str(topology), "--json"]


def topology_in(path: Path) -> Path:
    """A topology file with a home beside it."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / "topology.toml"
    file.write_text(f'home = "home"\n{FEW}{PAUSES}', encoding="utf-8")
    return file


def finish(workload: Workload, topology: Path) -> None:
    """What a user does after a crash: the same command again. It ends as it would have without the crash."""
    ended = here(*workload.publish(topology))
    outcome = ended.json
    assert {one["id"] for one in outcome["refused"]} == REFUSED, ended
    assert ended.code == 1, ended
    assert len(outcome["accepted"]) == len(workload.files) - len(REFUSED)


def check(topology: Path, reference: dict[tuple[str, str], str]) -> None:
    """The datasets are those of the reference, all adds up, nothing is unsettled, exports show what is current."""
    home = topology.parent / "home"
    assert hashes(home) == reference
    audit = good("audit", "--home", home, "--json").json
    assert audit["ok"]
    assert all(window["status"] == "built" for window in audit["windows"])
    assert unsettled(home) == 0
    exported(home)
    leftovers(home)


def unsettled(home: Path) -> int:
    status = good("status", "--home", home, "--json").json
    return sum(one[state] for one in status["queues"] for state in ("ready", "delayed", "taken"))


def exported(home: Path) -> None:
    """Each window's file shows its current revision and no other, whole."""
    shown = {}
    for path in (home / "exports" / "geoparquet").glob("*/*.parquet"):
        footer = {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}
        shown[footer["ionbeam.event_id"]] = (
            int(footer["ionbeam.revision"]),
            footer["ionbeam.content_hash"],
            pq.read_table(path).num_rows,
        )
    assert set(shown.values()) == {
        (one["revision"], one["content_hash"], one["rows"])
        for one in good("datasets", "--home", home, "--json").json["datasets"]
    }


def leftovers(home: Path) -> None:
    """No half-written file is left, neither beside the exports nor in the object store."""
    gc.collect()  # the commands that ran in this process gave their staging folders up, but may not be collected yet
    halves = [*(home / "exports").rglob(".incoming"), *(home / "objects" / ".staging").rglob("*")]
    assert [path for path in halves if path.is_file()] == []


def await_idle(topology: Path, seconds: float = 60.0) -> None:
    """Wait until the nodes that run on the home have nothing left to do."""

    async def wait() -> None:
        read = read_topology(topology)
        async with open_ports(read) as ports:
            with trio.fail_after(seconds):
                await Node(read, ports, open_exporters(read)).idle(0.05)

    trio.run(wait)


def dead_letters(topology: Path) -> list[DeadLetter]:
    """The dead letters with their histories, which `status` does not print."""

    async def look() -> list[DeadLetter]:
        async with open_ports(read_topology(topology)) as ports:
            return await ports.broker.dead_letters()

    return trio.run(look)


def told(ended: Ended) -> str:
    return f"exit {ended.code}\n{ended.out[-2000:]}\n{ended.err[-4000:]}"
