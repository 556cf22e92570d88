"""The command line itself: help, exit codes, where the home is, JSON on stdout, checking a topology."""

from pathlib import Path

import pytest
from tests.cli.commands import Folder
from tests.cli.driving import apart, good, here

COMMANDS = [
    ("demo",),
    ("ingest",),
    ("ingest", "sensor-community"),
    ("ingest", "synthetic"),
    ("publish",),
    ("run",),
    ("status",),
    ("datasets",),
    ("show",),
    ("audit",),
    ("windows",),
    ("windows", "retry"),
    ("retract",),
    ("check",),
]
SMALL = ("ingest", "synthetic", "--rows", "50", "--stations", "2", "--hours", "1", "--json")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one window and one dead letter."""
    home = tmp_path_factory.mktemp("usage") / "home"
    good(*SMALL, "--home", home)
    folder = Folder(home.parent / "work")
    here("publish", folder.write("{", "broken"), "--home", home)
    return home


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    """It says how the command is used and exits with 0."""
    ended = good(*command, "--help")
    assert ended.out.startswith(f"usage: ionbeam {' '.join(command)}")


def test_the_overview_names_every_command() -> None:
    """`ionbeam --help`, in a process as people start it."""
    ended = apart("--help")
    assert ended.code == 0
    for command in COMMANDS:
        assert f"    {command[0]} " in ended.out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("no-such-command",),
        ("ingest",),
        ("windows",),
        ("retract",),
        ("show",),
        ("publish",),
        ("publish", "/no/such/file.json"),
        ("publish", __file__, "--payload", "/no/such/file.arrow"),
        ("publish", __file__, "--payloads", "/no/such/folder"),
        ("publish", __file__, "--payload", __file__, "--payloads", "/"),
        ("ingest", "sensor-community", "/no/such/folder"),
        ("ingest", "sensor-community", "/", "--span", "a day"),
        ("ingest", "sensor-community", "/", "--span", "PT0S"),
        ("ingest", "synthetic", "--rows", "-1"),
        ("ingest", "synthetic", "--stations", "0"),
        ("show", "x", "--rows", "many"),
        ("status", "--home", "/a", "--topology", "/b"),
        ("check",),
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_wrong_use_is_explained_with_exit_code_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was typed cannot be meant: exit 2, a sentence, and no home is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IONBEAM_HOME", raising=False)
    ended = here(*arguments)
    assert ended.code == 2
    assert ended.out + ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("status",), ("datasets",), ("audit",), ("windows", "retry"), ("retract", "x")])
def test_a_home_that_is_none_is_an_error_and_is_not_made(command: tuple[str, ...], tmp_path: Path) -> None:
    """Looking at a home that does not exist: exit 1, its name and what to do."""
    ended = here(*command, "--home", tmp_path / "nowhere")
    assert ended.code == 1
    assert "is not a home of ionbeam" in ended.err
    assert list(tmp_path.iterdir()) == []
    ended = here(*command, "--home", tmp_path / "nowhere", "--json")
    assert ended.code == 1
    assert ended.json["ok"] is False
    assert "is not a home of ionbeam" in ended.json["problems"][0]


def test_the_home_comes_from_the_command_line_the_environment_or_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--home wins over IONBEAM_HOME, which wins over ./ionbeam-home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IONBEAM_HOME", str(tmp_path / "environment"))
    good(*SMALL, "--home", "typed")
    good(*SMALL)
    monkeypatch.delenv("IONBEAM_HOME")
    good(*SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["environment", "ionbeam-home", "typed"]


def test_a_home_in_a_topology_is_relative_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command is typed."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "node.toml").write_text('home = "data"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IONBEAM_HOME", str(tmp_path / "ignored"))
    good(*SMALL, "--topology", "etc/node.toml")
    assert (folder / "data" / "ionbeam.sqlite").exists()
    assert not (tmp_path / "ignored").exists()


KEYS = {
    ("status",): {"now", "nodes", "queues", "windows", "dead_letters", "datasets"},
    ("datasets",): {"datasets"},
    ("audit",): {"ok", "ingestions", "windows", "refused", "totals"},
    ("windows", "retry"): {"ok", "notes", "revisions", "refused", "waiting"},
    ("retract", "unknown"): {"ok", "notes", "revisions", "refused", "waiting"},
    SMALL[:-1]: {"ok", "sent", "accepted", "refused", "rows", "reasons", "revisions", "notes", "problems"},
}


@pytest.mark.parametrize("command", KEYS, ids=" ".join)
def test_json_is_one_document_with_the_documented_keys(command: tuple[str, ...], home: Path) -> None:
    """Nothing else is on stdout."""
    assert set(good(*command, "--home", home, "--json").json) >= KEYS[command]


def test_the_entries_of_datasets_and_audit_have_the_documented_keys(home: Path) -> None:
    """As programs read them."""
    (entry,) = good("datasets", "--home", home, "--json").json["datasets"]
    assert set(entry) == {
        "dataset",
        "window_start",
        "window_end",
        "revision",
        "supersedes",
        "rows",
        "content_hash",
        "location",
    }
    assert entry["location"].startswith("file:///")
    assert (entry["revision"], entry["supersedes"]) == (1, None)
    assert good("datasets", "other", "--home", home, "--json").json == {"datasets": []}
    audit = good("audit", "--home", home, "--json").json
    assert audit["ok"] is True
    (ingestion,) = audit["ingestions"]
    assert set(ingestion) >= {
        "id",
        "dataset",
        "status",
        "received",
        "accepted",
        "duplicate",
        "merged",
        "conflict",
        "rejected",
        "replaced",
        "reasons",
    }
    (window,) = audit["windows"]
    assert set(window) >= {"dataset", "window_start", "status", "rows", "accepted", "duplicate", "merged", "conflict"}
    (refused,) = audit["refused"]
    assert set(refused) == {"id", "queue", "reason"}
    shown = good("show", entry["location"], "--json").json
    assert set(shown) == {"metadata", "rows", "columns", "first_rows"}
    assert shown["rows"] == entry["rows"]


def test_a_failure_is_one_json_document_too(home: Path, tmp_path: Path) -> None:
    """With --json a program finds on stdout that it failed, and why; a person finds it on stderr."""
    for command in (("show", "no-such-key", "--home", home), ("status", "--topology", tmp_path / "absent.toml")):
        ended = here(*command, "--json")
        assert ended.code == 1
        assert ended.json["ok"] is False
        assert ended.json["problems"]
        assert "ionbeam: " in ended.err


MISTAKES = """
hoem = "x"
[node]
threads = 0
[rules]
max_future = "a day"
cf = "ignore"
[actors.ingestion]
workers = "two"
[datasets.air]
min_rebuild_intervall = "PT1S"
[exporters.parquet]
kind = "csv"
"""


def test_check_reports_every_mistake_at_once_by_key_path(tmp_path: Path) -> None:
    """A line for each, on stderr; with --json one list."""
    file = tmp_path / "node.toml"
    file.write_text(MISTAKES)
    ended = here("check", file)
    assert ended.code == 1
    places = [line.split(":")[0] for line in ended.err.splitlines()]
    assert places == [
        "hoem",
        "node.threads",
        "rules.max_future",
        "rules.cf",
        "actors.ingestion.workers",
        "datasets.air.min_rebuild_intervall",
        "exporters.parquet.kind",
    ]
    assert "did you mean 'home'?" in ended.err
    report = here("check", file, "--json")
    assert report.code == 1
    assert report.json == {"ok": False, "problems": ended.err.splitlines()}
    # Nothing starts on such a topology, and whoever tries reads the same.
    ended = here("run", "--topology", file)
    assert ended.code == 1
    assert ended.err.count("\n") == len(places)


def test_check_is_content_with_a_good_topology(tmp_path: Path) -> None:
    """Both ways of naming it; the file that comes with the project is one."""
    file = Path(__file__).parents[2] / "supervisors" / "embedded.toml"
    assert "fine" in good("check", file).out
    assert good("check", "--topology", file, "--json").json == {"ok": True, "problems": []}
    (tmp_path / "broken.toml").write_text("[")
    assert "not TOML" in here("check", tmp_path / "broken.toml").err
    assert "cannot be read" in here("check", tmp_path / "absent.toml").err
