"""What a person mistypes: it is said, and said where it helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.commands import Folder, Row, filled
from tests.cli.driving import good, here


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "work")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_mistyped_field_is_pointed_out(folder: Folder, home: Path) -> None:
    """Unknown fields pass, because newer peers may send them; whoever typed one is told which is near."""
    path = folder.add("typo", 0, 1)
    content = json.loads(path.read_text())
    content["metadata"]["ingestion_map"]["canonical_variables"][0]["from_units"] = "K"
    path.write_text(json.dumps(content))
    ended = good("publish", path, "--payloads", folder.path, "--home", home)
    assert "canonical_variables[0].from_units: unknown field, ignored; did you mean 'from_unit'?" in ended.out


def test_an_id_that_was_accepted_is_not_counted_again(folder: Folder, home: Path) -> None:
    """The same command again has no effect, and no rows are reported for it."""
    path = folder.add("once", 0, 1)
    good("publish", path, "--payloads", folder.path, "--home", home)
    again = good("publish", path, "--payloads", folder.path, "--home", home)
    assert "once was accepted before" in again.out
    assert "received" not in again.out


def test_a_retracted_id_that_comes_later_is_named(folder: Folder, home: Path) -> None:
    """Its rows count as received, and it is said that they have no effect."""
    good("publish", folder.add("first", 0, 1), "--payloads", folder.path, "--home", home)
    good("retract", "later", "--home", home)
    ended = good("publish", folder.add("later", 1, 2), "--payloads", folder.path, "--home", home)
    assert "without effect: later" in ended.out


def test_a_folder_without_archive_files_is_a_failure(tmp_path: Path, home: Path) -> None:
    """The wrong folder must not look like one that has nothing new."""
    (tmp_path / "notes.json").write_text("{}")
    ended = here("ingest", "sensor-community", tmp_path / "notes.json", "--home", home)
    assert ended.code == 1
    folder = tmp_path / "empty"
    folder.mkdir()
    ended = here("ingest", "sensor-community", folder, "--home", home)
    assert ended.code == 1
    assert "DATE_TYPE_sensor_ID.csv" in ended.out


def test_a_stage_left_to_others_is_not_waited_for(tmp_path: Path, home: Path) -> None:
    """A command that would wait for a stage that this node does not have says so at once."""
    topology = tmp_path / "t.toml"
    topology.write_text(f'home = "{home}"\n[actors.ingestion]\nworkers = 0\n')
    ended = here("ingest", "synthetic", "--rows", "10", "--topology", topology)
    assert ended.code == 1
    assert "--publish-only" in ended.err
    sent = good("ingest", "synthetic", "--rows", "10", "--topology", topology, "--publish-only")
    assert "no node runs here" in sent.out


def test_a_dataset_can_be_shown_by_the_beginning_of_its_key(folder: Folder, home: Path) -> None:
    """Hashes are long: enough of one to tell it from the others will do."""
    good("publish", folder.add("a", 0, 1), "--payloads", folder.path, "--home", home)
    (window,) = good("datasets", "--home", home, "--json").json["datasets"]
    key = "/".join(window["location"].split("/")[-2:])
    assert good("show", key[:-56], "--home", home, "--json").json["rows"] == window["rows"]
    assert here("show", "air/2199", "--home", home).code == 1


def test_an_audit_of_a_dataset_that_is_not_there_fails(folder: Folder, home: Path) -> None:
    """It must not say that everything adds up."""
    good("publish", folder.add("a", 0, 1), "--payloads", folder.path, "--home", home)
    ended = here("audit", "--dataset", "nosuch", "--home", home)
    assert ended.code == 1
    assert "nosuch" in ended.err


def test_a_changed_quarantine_is_noticed(folder: Folder, home: Path) -> None:
    """Rejected rows are kept as they came: a byte that changed in them does not hold."""
    rows: list[Row] = [*filled(0, 1), (6, "b", None)]
    good("publish", folder.add("a", 0, 1, rows), "--payloads", folder.path, "--home", home)
    (kept,) = (home / "objects" / "quarantine" / "air").iterdir()
    whole = kept.read_bytes()
    place = whole.index(b"no_value")
    kept.write_bytes(whole[:place] + b"no_velue" + whole[place + 8 :])
    ended = here("audit", "--home", home)
    assert ended.code == 1
    assert "quarantine" in ended.out
    kept.write_bytes(whole)
    good("audit", "--home", home)
