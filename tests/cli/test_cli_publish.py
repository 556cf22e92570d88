"""`ionbeam publish`: commands made elsewhere, valid or not, with their payloads."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import Folder, command, filled
from tests.cli.driving import good, here
from tests.kill.workload import dead_letters, topology_in


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "work")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def rows(home: Path) -> dict[str, int]:
    found = good("datasets", "--home", home, "--json").json["datasets"]
    return {f"{one['dataset']} {one['window_start']}": one["rows"] for one in found}


def test_valid_and_invalid_commands_go_in_the_order_given(folder: Folder, home: Path) -> None:
    """What the node refuses is reported with its reason and makes the exit code 1; the others go on."""
    files = [
        folder.add("one", 0, 1),
        folder.write("{ not json", "broken"),
        folder.write("[1, 2]", "list"),
        folder.add("backwards", 1, 0),
        folder.write({**command("no-version", 0, 1), "metadata": 5}),
        folder.add("two", 1, 2),
        folder.add("upstairs", 0, 1, dataset={"name": "../air"}),
        folder.add("three", 2, 3),
    ]
    ended = here("publish", *files, "--payloads", folder.path, "--home", home, "--json")
    outcome = ended.json
    assert ended.code == 1
    assert outcome["ok"] is False
    assert outcome["accepted"] == ["one", "two", "three"]
    assert [name for name in outcome["sent"] if not _is_uuid(name)] == [
        "one",
        "backwards",
        "no-version",
        "two",
        "upstairs",
        "three",
    ]
    reasons = {one["id"]: one["reason"] for one in outcome["refused"]}
    assert len(reasons) == 5
    assert set(reasons) == set(outcome["sent"]) - {"one", "two", "three"}
    assert "end_time" in reasons["backwards"]
    assert "$.metadata" in reasons["no-version"]
    assert "$.metadata.dataset.name" in reasons["upstairs"]
    assert "../air" in reasons["upstairs"]
    assert sum("not JSON" in reason for reason in reasons.values()) == 1
    assert list(rows(home).values()) == [12, 12, 12]
    # They stay to be looked at.
    letters = good("status", "--home", home, "--json").json["dead_letters"]
    assert {one["id"]: one["reason"] for one in letters} == reasons


def _is_uuid(name: str) -> bool:
    return len(name) == 36


def test_a_person_reads_the_reasons_too(folder: Folder, home: Path) -> None:
    """Without --json."""
    ended = here("publish", folder.add("later", 1, 0), "--payloads", folder.path, "--home", home)
    assert ended.code == 1
    assert "later" in ended.out
    assert "end_time" in ended.out


def test_one_payload_goes_with_every_command(folder: Folder, home: Path) -> None:
    """--payload: whatever `payload_location` says, this file's rows."""
    payload = folder.payload("rows", filled(0, 2))
    files = [
        folder.write(command("air", 0, 2, payload_location="elsewhere")),
        folder.write(command("rail", 0, 2, dataset={"name": "rail"})),
    ]
    good("publish", *files, "--payload", payload, "--home", home)
    assert list(rows(home).values()) == [12] * 4


def test_a_payload_gets_its_raw_key(folder: Folder, home: Path) -> None:
    """The command's `payload_location` becomes `raw/{dataset}/{start}-{end}_{now}_{id}`."""
    file = folder.add("one", 0, 1)
    good("publish", file, "--payloads", folder.path, "--home", home)
    (stored,) = (home / "objects" / "raw" / "air").iterdir()
    assert stored.name.startswith("20240501T000000Z-20240501T010000Z_")
    assert stored.name.endswith("_one")
    assert stored.read_bytes() == (folder.path / "one.arrow").read_bytes()


def test_a_payload_that_is_absent_or_outside_the_folder_is_left_as_it_is(folder: Folder, tmp_path: Path) -> None:
    """Nothing outside of DIR is read: such a location goes to the node unchanged, which refuses it."""
    topology = topology_in(tmp_path)
    outside = Folder(tmp_path / "outside").payload("rows", filled(0, 1))
    (folder.path / "link.arrow").symlink_to(outside)
    locations = {
        "absent": "absent.arrow",
        "above": "../outside/rows.arrow",
        "absolute": str(outside),
        "linked": "link.arrow",
        "folder": ".",
        "odd": "a\0b",
    }
    files = [folder.write(command(name, 0, 1, payload_location=where)) for name, where in locations.items()]
    files.append(folder.add("inside", 0, 1))
    ended = here("publish", *files, "--payloads", folder.path, "--topology", topology, "--json")
    assert ended.code == 1
    assert ended.json["accepted"] == ["inside"]
    sent = {letter.message_id: json.loads(letter.body)["payload_location"] for letter in dead_letters(topology)}
    assert sent == locations
    assert len(list((tmp_path / "home" / "objects" / "raw").rglob("*_*"))) == 1


def test_a_payload_below_the_folder_is_found(folder: Folder, home: Path) -> None:
    """`payload_location` may name a file in a folder of DIR."""
    Folder(folder.path / "deep" / "er").payload("rows", filled(0, 1))
    file = folder.write(command("one", 0, 1, payload_location="deep/er/rows.arrow"))
    good("publish", file, "--payloads", folder.path, "--home", home)
    assert list(rows(home).values()) == [12]


def issued(home: Path, *names: str) -> dict[str, Any]:
    """The `issued_at` under which each command was accepted, from the journal."""
    found = {}
    for segment in (home / "objects" / "journal").rglob("0*"):
        for line in segment.read_bytes().splitlines():
            record = json.loads(line)
            if record["kind"] == "accepted":
                found[record["id"]] = record["body"]["issued_at"]
    assert set(found) == set(names)
    return {name: datetime.fromisoformat(at) for name, at in found.items()}


def test_a_missing_issued_at_is_stamped_in_the_order_given(folder: Folder, home: Path) -> None:
    """Strictly increasing, now; one that is there stays. So the command given last wins."""
    began = datetime.now(timezone.utc)
    files = [
        folder.add("first", 0, 1, filled(0, 1, base=1.0)),
        folder.add("second", 0, 1, filled(0, 1, base=2.0), issued_at=None),
        folder.add("stamped", 0, 1, filled(0, 1, base=3.0), issued_at="2024-06-01T02:00:00+02:00"),
    ]
    good("publish", *files, "--payloads", folder.path, "--home", home)
    at = issued(home, "first", "second", "stamped")
    assert began < at["first"] < at["second"] < datetime.now(timezone.utc)
    assert at["stamped"] == datetime(2024, 6, 1, tzinfo=timezone.utc)
    (window,) = good("datasets", "--home", home, "--json").json["datasets"]
    shown = good("show", window["location"], "--rows", "1", "--json").json
    assert shown["first_rows"][0]["air_temperature__degC__0.0__point__PT0S"] == 2.0


def test_publish_only_leaves_the_work_to_a_node(folder: Folder, home: Path) -> None:
    """The command waits in its queue until somebody works on the home."""
    sent = good(
        "publish", folder.add("one", 0, 1), "--payloads", folder.path, "--home", home, "--publish-only", "--json"
    )
    assert sent.json["sent"] == ["one"]
    assert sent.json["accepted"] == []
    queues = {one["queue"]: one["ready"] for one in good("status", "--home", home, "--json").json["queues"]}
    assert queues["ionbeam.ingestion"] == 1
    good("windows", "retry", "--home", home)
    assert list(rows(home).values()) == [12]


def test_the_same_command_again_has_no_further_effect(folder: Folder, home: Path) -> None:
    """No revision, no dead letter, exit 0."""
    arguments = ("publish", folder.add("one", 0, 1), "--payloads", folder.path, "--home", home, "--json")
    assert len(good(*arguments).json["revisions"]) == 1
    assert good(*arguments).json["revisions"] == []
    assert len(good("audit", "--home", home, "--json").json["ingestions"]) == 1
