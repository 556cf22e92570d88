"""`ionbeam run`: draining under load, with a stuck exporter, at once; two nodes on one home."""

import json
import signal
from pathlib import Path

import pytest
import trio
from tests.cli.commands import Folder
from tests.cli.driving import apart, end_of, good, hashes, here, line_of, process
from tests.kill.workload import Workload, await_idle, check, exported, finish, told, topology_in, unsettled

from ionbeam.config import read_topology
from ionbeam.parts import open_ports

STUCK = Path(__file__).parent / "scripts" / "stuck.py"


def await_revision(topology: Path) -> None:
    """Wait until a window has been built."""

    async def wait() -> None:
        async with open_ports(read_topology(topology)) as ports:
            with trio.fail_after(60):
                watch = ports.ledger.watch("windows")
                while not await ports.ledger.last_revision():
                    await watch.wait()

    trio.run(wait)


@pytest.mark.parametrize("moment", ["at once", "when the first window is built"])
def test_a_drain_under_load_is_clean_and_the_next_run_does_the_rest(moment: str, tmp_path: Path) -> None:
    """SIGTERM ends it with 0; what was not done is done by the next run, and the datasets are the same."""
    workload = Workload(tmp_path / "work")
    undisturbed, topology = topology_in(tmp_path / "undisturbed"), topology_in(tmp_path / "drained")
    finish(workload, undisturbed)
    here(*workload.publish(topology), "--publish-only")
    node = process("run", "--topology", topology)
    try:
        assert "runs on" in line_of(node)
        if moment != "at once":
            await_revision(topology)
    finally:
        node.send_signal(signal.SIGTERM)
    ended = end_of(node)
    assert ended.code == 0, told(ended)
    assert "drained: nothing was left under way" in ended.out
    here("windows", "retry", "--topology", topology)
    check(topology, hashes(tmp_path / "undisturbed" / "home"))


def test_a_drain_runs_dry_what_has_been_taken(tmp_path: Path) -> None:
    """What a node has in hand at SIGTERM is finished or back in its queue: nothing stays taken."""
    workload, topology = Workload(tmp_path / "work"), topology_in(tmp_path)
    here(*workload.publish(topology), "--publish-only")
    node = process("run", "--topology", topology, "--json")
    try:
        await_revision(topology)
    finally:
        node.send_signal(signal.SIGTERM)
    ended = end_of(node)
    assert ended.code == 0, told(ended)
    assert ended.json["clean"] is True
    assert ended.json["cut"] == []
    queues = good("status", "--topology", topology, "--json").json["queues"]
    assert [one["taken"] for one in queues] == [0] * len(queues)


def _stuck(tmp_path: Path, timeout: str) -> Path:
    """A home with one built window whose export has not been done, and a short deadline."""
    folder, topology = Folder(tmp_path / "work"), topology_in(tmp_path)
    topology.write_text(f'{topology.read_text()}[node]\ndrain_timeout = "{timeout}"\n')
    file = folder.add("one", 0, 1)
    good("publish", file, "--payloads", folder.path, "--topology", topology, "--publish-only")
    return topology


def test_a_drain_with_a_stuck_exporter_ends_at_the_deadline(tmp_path: Path) -> None:
    """It ends with 1, says what was cut and what went back, and the next run does it."""
    topology = _stuck(tmp_path, "PT0.3S")
    node = process("run", "--topology", topology, script=STUCK)
    try:
        assert "runs on" in line_of(node)
        event = line_of(node).removeprefix("stuck with ").strip()
    finally:
        node.send_signal(signal.SIGTERM)
    ended = end_of(node)
    assert ended.code == 1, told(ended)
    assert "not finished in time and stopped: export-geoparquet" in ended.out
    assert f"went back to be done again: ionbeam.dataset.available.geoparquet/{event}" in ended.out
    assert unsettled(tmp_path / "home") == 1
    good("windows", "retry", "--topology", topology)
    assert unsettled(tmp_path / "home") == 0
    exported(tmp_path / "home")


def test_a_drain_that_was_not_clean_says_so_in_json(tmp_path: Path) -> None:
    """With --json stdout is one document that names what was cut and what went back."""
    topology = _stuck(tmp_path, "PT0.3S")
    node = process("run", "--topology", topology, "--json", script=STUCK)
    try:
        said = line_of(node)  # the exporter's own line
    finally:
        node.send_signal(signal.SIGTERM)
    ended = end_of(node)
    assert ended.code == 1, told(ended)
    stopped = ended.json
    event = said.removeprefix("stuck with ").strip()
    assert stopped["clean"] is False
    assert "export-geoparquet" in stopped["cut"]
    assert stopped["returned"] == [f"ionbeam.dataset.available.geoparquet/{event}"]


def test_a_second_ctrl_c_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    """Where a drain would wait an hour for its exporter, one more Ctrl-C ends it; the message is back."""
    topology = _stuck(tmp_path, "PT1H")
    node = process("run", "--topology", topology, script=STUCK)
    try:
        assert "runs on" in line_of(node)
        assert "stuck with" in line_of(node)
        node.send_signal(signal.SIGINT)
        assert "draining" in line_of(node, "stderr")
    finally:
        node.send_signal(signal.SIGINT)
    ended = end_of(node)
    assert ended.code == 1, told(ended)
    assert "stopped at once" in ended.err
    queues = good("status", "--topology", topology, "--json").json["queues"]
    assert [(one["ready"], one["taken"]) for one in queues if one["queue"].endswith("geoparquet")] == [(1, 0)]
    good("windows", "retry", "--topology", topology)
    assert unsettled(tmp_path / "home") == 0
    exported(tmp_path / "home")


def test_two_nodes_on_one_home_beside_a_source_do_everything_once(tmp_path: Path) -> None:
    """Two `run`s and an `ingest --publish-only`: every command accepted once, every window as one node builds it."""
    load = ("ingest", "synthetic", "--rows", "4000", "--stations", "4", "--hours", "6", "--commands", "8", "--json")
    good(*load, "--home", tmp_path / "alone")
    topology = topology_in(tmp_path)
    nodes = [process("run", "--topology", topology) for _ in range(2)]
    try:
        assert all("runs on" in line_of(node) for node in nodes)
        running = good("status", "--topology", topology, "--json").json["nodes"]
        assert len(running) <= 2  # a node reports itself when it has begun
        sent = apart(*load, "--publish-only", "--topology", topology)
        assert sent.code == 0, told(sent)
        assert len(json.loads(sent.out)["sent"]) == 8
        await_idle(topology)
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
    for node in nodes:
        ended = end_of(node)
        assert ended.code == 0, told(ended)
    audit = good("audit", "--topology", topology, "--json").json
    assert len(audit["ingestions"]) == 8
    assert audit["refused"] == []
    check(topology, hashes(tmp_path / "alone"))
