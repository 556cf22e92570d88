"""A message that kills the process that reads it."""

import signal
from pathlib import Path

from tests.cli.commands import Folder
from tests.cli.driving import end_of, good, line_of, process
from tests.kill.workload import await_idle, dead_letters, told

SCRIPT = Path(__file__).parent / "scripts" / "killer.py"


def test_a_message_that_kills_its_process_is_a_dead_letter_and_the_node_lives(tmp_path: Path) -> None:
    """Its first victim is the node; from then on only a process of its own, until the limit. Others are ingested."""
    folder, topology = Folder(tmp_path / "work"), tmp_path / "topology.toml"
    topology.write_text('home = "home"\n[attempts]\nlimit = 3\nfirst_delay = "PT0.01S"\nlongest_delay = "PT0.05S"\n')
    files = [folder.add(name, hour, hour + 1) for hour, name in enumerate(("before", "killer", "behind"))]
    good("publish", *files, "--payloads", folder.path, "--topology", topology, "--publish-only")

    first = end_of(process("run", "--topology", topology, script=SCRIPT))
    assert first.code == -signal.SIGKILL, told(first)

    second = process("run", "--topology", topology, script=SCRIPT)
    try:
        assert "runs on" in line_of(second)
        await_idle(topology)
        assert second.poll() is None
    finally:
        second.send_signal(signal.SIGTERM)
    ended = end_of(second)
    assert ended.code == 0, told(ended)

    (letter,) = dead_letters(topology)
    assert letter.message_id == "killer"
    assert letter.attempts == 3
    assert "was ended by SIGKILL" in letter.reason
    first_death, second_death = (past.error for past in letter.history)
    assert "the process that held it died" in first_death
    assert "was ended by SIGKILL" in second_death

    home = tmp_path / "home"
    ingestions = good("audit", "--home", home, "--json").json["ingestions"]
    assert {one["id"] for one in ingestions} == {"before", "behind"}
    assert [one["rows"] for one in good("datasets", "--home", home, "--json").json["datasets"]] == [12, 12]
