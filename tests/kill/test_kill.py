"""kill -9 at every border between two stages and at random moments: the end is that of an undisturbed run.

IONBEAM_KILLS says how many random kills (default 12). From 100 on, every border is tried before and after its first
and a later call; below, each is tried once: before its first call, or after a later one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from tests.cli.commands import Folder
from tests.cli.driving import Ended, end_of, good, hashes, here, line_of, process
from tests.kill.workload import Workload, await_idle, check, finish, told, topology_in, unsettled

from ionbeam.testing.crash import BORDERS

KILLS = int(os.environ.get("IONBEAM_KILLS", "12"))
LATER = dict.fromkeys(BORDERS, 3) | {"quarantine.commit": 2, "broker.bury": 2, "ledger.record": 2}
ALL = [f"{border}:{when}:{call}" for border in BORDERS for when in ("before", "after") for call in (1, LATER[border])]
MOMENTS = ALL if KILLS >= 100 else [*ALL[0::8], *ALL[7::8]]


class Reference:
    """An undisturbed run: what it built, and how long it took."""

    def __init__(self, path: Path) -> None:
        self.workload = Workload(path / "work")
        topology = topology_in(path / "undisturbed")
        began = time.monotonic()
        ended = end_of(process(*self.workload.publish(topology)))
        self.seconds = time.monotonic() - began
        assert ended.code == 1, told(ended)
        self.hashes = hashes(topology.parent / "home")
        assert len(self.hashes) == 6, self.hashes
        check(topology, self.hashes)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(tmp_path_factory.mktemp("reference"))


def crashing(moment: str, *arguments: str) -> subprocess.Popen[str]:
    """`ionbeam ARGUMENTS` that kills itself at `moment`."""
    return subprocess.Popen(
        [sys.executable, "-m", "ionbeam.testing.crash", "--at", moment, "--", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def crash(moment: str, *arguments: str) -> Ended:
    """Run it until it has killed itself."""
    ended = end_of(crashing(moment, *arguments))
    assert ended.code == -signal.SIGKILL, f"{moment} never came: {told(ended)}"
    return ended


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_a_stage_border_changes_nothing(moment: str, reference: Reference, tmp_path: Path) -> None:
    """Killed right before or right after any durable step, the same command again ends with the same datasets."""
    topology = topology_in(tmp_path)
    crash(moment, *reference.workload.publish(topology))
    finish(reference.workload, topology)
    check(topology, reference.hashes)


def _rounds() -> list[tuple[int, int]]:
    """A seed and a number of kills in a row, for each test, KILLS kills in all."""
    chance, rounds, left = Random(KILLS), [], KILLS
    while left > 0:
        kills = min(left, chance.choice((1, 1, 1, 3, 4, 5, 6)))
        rounds.append((len(rounds), kills))
        left -= kills
    return rounds


@pytest.mark.parametrize(("seed", "kills"), _rounds())
def test_kills_at_random_moments_change_nothing(seed: int, kills: int, reference: Reference, tmp_path: Path) -> None:
    """One kill -9 of the whole process group, or several on one home in a row, at moments that nobody chose."""
    chance = Random(f"kills {seed}")
    topology = topology_in(tmp_path)
    for _ in range(kills):
        started = process(*reference.workload.publish(topology))
        try:
            # The first third of a run is spent on starting the interpreter.
            started.communicate(timeout=reference.seconds * chance.uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()
    finish(reference.workload, topology)
    check(topology, reference.hashes)


@pytest.mark.parametrize("moment", ["broker.receive:after:1", "broker.ack:before:1", "ledger.record:after:2"])
def test_a_node_does_the_work_of_one_that_was_killed_beside_it(
    moment: str, reference: Reference, tmp_path: Path
) -> None:
    """Of two nodes on one home one is killed with work in hand; the other, never restarted, does all of it."""
    topology = topology_in(tmp_path)
    doomed = crashing(moment, "run", "--topology", str(topology))
    survivor = process("run", "--topology", topology)
    try:
        assert "runs on" in line_of(doomed)
        assert "runs on" in line_of(survivor)
        # Which of them takes a message is open: the same commands again, until the doomed one had its share.
        here(*reference.workload.publish(topology), "--publish-only")
        while doomed.poll() is None:
            here(*reference.workload.publish(topology), "--publish-only")
        await_idle(topology)
    finally:
        doomed.kill()
        survivor.send_signal(signal.SIGTERM)
    assert end_of(doomed).code == -signal.SIGKILL
    ended = end_of(survivor)
    assert ended.code == 0, told(ended)
    check(topology, reference.hashes)


def test_many_kills_do_not_make_an_innocent_message_a_dead_letter(tmp_path: Path) -> None:
    """A message that is in hand at eight kills in a row, more than an attempt limit of 5, is ingested after all."""
    folder, topology = Folder(tmp_path / "work"), topology_in(tmp_path)
    big = [(slot % 12, f"station-{slot:05d}", float(slot % 40)) for slot in range(20_000)]
    file = folder.add("big", 0, 1, big)
    good("publish", file, "--payloads", folder.path, "--topology", topology, "--publish-only")
    for moment in ["store.write:before:1", *["broker.receive:after:1"] * 6, "ledger.accept:before:1"]:
        crash(moment, "run", "--topology", str(topology))
    good("windows", "retry", "--topology", topology)
    home = tmp_path / "home"
    assert good("status", "--home", home, "--json").json["dead_letters"] == []
    assert [one["rows"] for one in good("datasets", "--home", home, "--json").json["datasets"]] == [20_000]
    assert unsettled(home) == 0
    good("audit", "--home", home)
