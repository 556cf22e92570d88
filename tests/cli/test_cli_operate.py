"""`retract`, `windows retry`, `show` and `status`: what an operator does and reads."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pytest
from tests.cli.commands import Folder, Row, command, filled, table
from tests.cli.driving import Ended, good, here

NAME = "air_temperature__degC__0.0__point__PT0S"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "work")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def publish(folder: Folder, home: Path, *files: Path) -> None:
    good("publish", *files, "--payloads", folder.path, "--home", home)


def datasets(home: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = good("datasets", "--home", home, "--json").json["datasets"]
    return found


# -- retract -----------------------------------------------------------------------------------------------------------
def test_a_known_ingestion_is_taken_back(folder: Folder, home: Path) -> None:
    """Its rows leave: what it had corrected is shown again, as a new revision."""
    publish(folder, home, folder.add("old", 0, 1), folder.add("new", 0, 1, filled(0, 1, base=90.0)))
    (before,) = datasets(home)
    ended = good("retract", "new", "--home", home)
    assert "12 rows leave 1 windows" in ended.out
    (after,) = datasets(home)
    assert after["revision"] == int(str(before["revision"])) + 1
    shown = good("show", after["location"], "--json").json["first_rows"]
    assert shown[0][NAME] == 10.0
    statuses = {one["id"]: one["status"] for one in good("audit", "--home", home, "--json").json["ingestions"]}
    assert statuses == {"old": "accepted", "new": "replaced"}


@pytest.mark.parametrize("claimed", [True, False])
def test_a_window_that_loses_its_last_row_has_a_revision_without_rows(
    claimed: bool, folder: Folder, home: Path
) -> None:
    """Also where nobody claims it any more. Its export is gone."""
    publish(folder, home, folder.add("only", 0, 1), *([folder.add("claim", 0, 1, [])] if claimed else []))
    exports = home / "exports" / "geoparquet" / "air"
    assert len(list(exports.glob("*.parquet"))) == 1
    good("retract", "only", "--home", home)
    (window,) = datasets(home)
    assert (window["revision"], window["rows"]) == (2, 0)
    assert good("show", window["location"], "--json").json["first_rows"] == []
    assert list(exports.glob("*.parquet")) == []
    good("audit", "--home", home)


def test_to_retract_twice_changes_nothing(folder: Folder, home: Path) -> None:
    """It says so, with exit 0."""
    publish(folder, home, folder.add("a", 0, 1), folder.add("b", 0, 1))
    good("retract", "b", "--home", home)
    before = datasets(home)
    ended = good("retract", "b", "--home", home, "--json")
    assert "was taken back before" in ended.json["notes"][0]
    assert ended.json["revisions"] == []
    assert datasets(home) == before
    good("audit", "--home", home)


def test_what_is_retracted_before_it_comes_has_no_effect(folder: Folder, home: Path) -> None:
    """An unknown id is remembered, in any spelling of a UUID."""
    publish(folder, home, folder.add("a", 0, 1))
    name = "6d7e9b1c-3f0a-4f0e-8a55-6c1f8f3a1b2c"
    assert "is not known here yet" in good("retract", name.replace("-", "").upper(), "--home", home).out
    publish(folder, home, folder.add(name, 0, 1, filled(0, 1, base=90.0)))
    (window,) = datasets(home)
    assert window["revision"] == 1
    assert good("show", window["location"], "--json").json["first_rows"][0][NAME] == 10.0
    good("audit", "--home", home)


def test_something_that_cannot_be_an_id_is_wrong_use(folder: Folder, home: Path) -> None:
    """Exit 2."""
    publish(folder, home, folder.add("a", 0, 1))
    assert here("retract", "", "--home", home).code == 2
    assert here("retract", "x" * 101, "--home", home).code == 2


# -- windows retry -----------------------------------------------------------------------------------------------------
def test_a_parked_window_is_reported_freed_and_built(folder: Folder, home: Path, tmp_path: Path) -> None:
    """While its rows cannot be read it is parked with the reason, and the exit code is 1; then `windows retry`."""
    topology = tmp_path / "topology.toml"
    topology.write_text('home = "home"\n[attempts]\nlimit = 2\nfirst_delay = "PT0.01S"\nlongest_delay = "PT0.02S"\n')
    folder_and_home = ("--payloads", folder.path, "--topology", topology)
    good("publish", folder.add("a", 0, 1), *folder_and_home)
    (segment,) = (home / "objects" / "observations" / "air").iterdir()
    hidden = segment.rename(tmp_path / "hidden")

    ended = here("publish", folder.add("b", 0, 1, filled(0, 1, base=90.0)), *folder_and_home)
    assert ended.code == 1
    assert "parked" in ended.out
    (window,) = good("status", "--home", home, "--json").json["windows"]
    assert window["state"] == "parked"
    assert segment.name in window["why"]
    assert "ionbeam windows retry" in window["why"]
    assert "parked" in good("status", "--home", home).out
    (verdict,) = here("audit", "--home", home, "--json").json["windows"]
    assert verdict["status"] == "pending"

    still = here("windows", "retry", "--topology", topology, "--json")
    assert (still.code, still.json["notes"]) == (1, ["1 parked windows freed"])

    hidden.rename(segment)
    freed = good("windows", "retry", "--dataset", "air", "--topology", topology, "--json").json
    assert freed["notes"] == ["1 parked windows freed"]
    assert [one["revision"] for one in freed["revisions"]] == [2]
    good("audit", "--home", home)


# -- show --------------------------------------------------------------------------------------------------------------
def test_show_takes_a_url_a_path_and_a_key(folder: Folder, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever `datasets` or a file manager gave."""
    publish(folder, home, folder.add("a", 0, 1))
    url = str(datasets(home)[0]["location"])
    path = Path(unquote(urlsplit(url).path))
    key = path.relative_to(home / "objects")
    shown = [good("show", where, "--home", home, "--json").json for where in (url, path, key)]
    assert shown[0] == shown[1] == shown[2]
    monkeypatch.chdir(path.parent)
    assert good("show", path.name, "--json").json == shown[0]
    (column,) = [one for one in shown[0]["columns"] if one["name"] == NAME]
    assert column["standard_name"] == "air_temperature"
    assert column["units"] == "degC"
    assert shown[0]["first_rows"][0]["timestamp"].startswith("2024-05-01 00:00:00")
    assert len(good("show", url, "--rows", "3", "--json").json["first_rows"]) == 3
    assert "degC" in good("show", url).out


def test_show_of_what_is_no_dataset_is_an_error(folder: Folder, home: Path) -> None:
    """Nothing there, another kind of file, a name that leads out of the store."""
    publish(folder, home, folder.add("a", 0, 1))
    for where in ("air/absent", "../ionbeam.sqlite", "file:///no/such/file", home / "ionbeam.sqlite", home):
        ended = here("show", where, "--home", home)
        assert ended.code == 1, where
        assert ended.err.startswith("ionbeam: "), ended


# -- status ------------------------------------------------------------------------------------------------------------
def test_status_says_which_spans_an_incomplete_window_misses(folder: Folder, home: Path) -> None:
    """Half claimed: it waits, and names what nothing has claimed."""
    claims = [["2024-05-01T00:00:00Z", "2024-05-01T00:20:00Z"], ["2024-05-01T00:30:00Z", "2024-05-01T00:50:00Z"]]
    publish(folder, home, folder.add("a", 0, 1, claims=claims))
    assert datasets(home) == []
    (window,) = good("status", "--home", home, "--json").json["windows"]
    assert window["state"] == "incomplete"
    assert window["missing"] == [
        ["2024-05-01T00:20:00Z", "2024-05-01T00:30:00Z"],
        ["2024-05-01T00:50:00Z", "2024-05-01T01:00:00Z"],
    ]
    said = good("status", "--home", home).out
    assert "nothing has claimed 2024-05-01T00:20:00Z to 2024-05-01T00:30:00Z" in said
    publish(folder, home, folder.add("rest", 0, 1, []))
    assert good("status", "--home", home, "--json").json["windows"] == []
    assert len(datasets(home)) == 1


def test_status_says_until_when_a_window_is_not_due(folder: Folder, home: Path) -> None:
    """Complete, and its data may still change for a hundred years."""
    publish(folder, home, folder.add("a", 0, 1, dataset={"subject_to_change_window": "P36525D"}))
    assert datasets(home) == []
    (window,) = good("status", "--home", home, "--json").json["windows"]
    assert window["state"] == "not due"
    assert window["due"] == "2124-05-02T01:00:00Z"
    assert "until 2124-05-02T01:00:00Z" in good("status", "--home", home).out


def test_status_tells_the_last_event_of_each_dataset(folder: Folder, home: Path) -> None:
    """With the window that it was about; a dataset without one is listed too."""
    publish(folder, home, folder.add("a", 0, 2), folder.add("b", 0, 0.5, dataset={"name": "rail"}))
    found = {one["dataset"]: one for one in good("status", "--home", home, "--json").json["datasets"]}
    assert found["air"]["revision"] == 1
    assert found["rail"]["last_event"] is None


# -- text that would steer a terminal ----------------------------------------------------------------------------------
HOSTILE = "\x1b[31mred\x1b]0;title\x07 \r\nforged: line\u202e\x9b2J"


def visible(ended: Ended) -> None:
    """Nothing but text and line ends has been printed."""
    for text in (ended.out, ended.err):
        assert not [one for one in text if one != "\n" and (ord(one) < 32 or 127 <= ord(one) < 160 or one == "\u202e")]
        assert "\nforged: line" not in text


def test_hostile_text_never_reaches_the_terminal(folder: Folder, home: Path) -> None:
    """In ids, reasons, values, names and paths: shown escaped, on its own line only. JSON has it as it is."""
    rows: list[Row] = [(slot, HOSTILE, value) for slot, _, value in filled(0, 1)]
    reject = table(rows).append_column("why", [[HOSTILE if slot == 3 else None for slot in range(12)]])
    with pa.OSFile(str(folder.path / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, reject.schema) as writer:
        writer.write_table(reject)
    files = [
        folder.write(command(HOSTILE, 0, 1), "id"),
        folder.write(command("unit", 0, 1, dataset={"name": HOSTILE}), "name"),
        folder.write(command("rows", 0, 1, map={"reject_column": "why"}, dataset={"description": HOSTILE})),
    ]
    ended = here("publish", *files, "--payloads", folder.path, "--home", home)
    assert ended.code == 1
    assert "\\x1b[31mred" in ended.out
    visible(ended)
    (window,) = datasets(home)
    for arguments in (
        ("status",),
        ("status", "-v"),
        ("audit",),
        ("datasets", HOSTILE),
        ("show", window["location"]),
        ("show", HOSTILE),
        ("retract", HOSTILE),
        ("windows", "retry", "--dataset", HOSTILE),
    ):
        visible(here(*arguments, "--home", home))
    visible(here("status", "--home", home / HOSTILE))
    letters = good("status", "--home", home, "--json").json["dead_letters"]
    assert HOSTILE in [one["id"] for one in letters]


def test_hostile_keys_of_a_topology_are_shown_escaped(tmp_path: Path) -> None:
    """By `check`, and by whatever else reads it."""
    file = tmp_path / "topology.toml"
    file.write_text('"\\u001b[31m\\nforged: line" = 1\n[exporters."\\u001b[2J"]\n')
    for arguments in (("check", file), ("status", "--topology", file)):
        ended = here(*arguments)
        assert ended.code == 1
        assert "\\x1b[31m" in ended.err
        visible(ended)
