"""The topology: which backends, which actors, which rules. A TOML file, checked as a whole."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from ionbeam.errors import TopologyError
from ionbeam.schemas.codec import from_builtins
from ionbeam.schemas.duration import Duration

DEFAULT_HOME = "ionbeam-home"


class NodeSettings(Struct, frozen=True, kw_only=True):
    """The node itself. Blocking work runs in at most `threads` threads; a drain takes at most `drain_timeout`."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9_-]{1,64}$(?!\n)")] = "node"
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    drain_timeout: Duration = Duration("PT30S")


class Rules(Struct, frozen=True, kw_only=True):
    """What is accepted: times up to `max_future` after a command was issued; names that CF knows, or a warning."""

    max_future: Duration = Duration("P1D")
    cf: Literal["refuse", "warn"] = "refuse"


class WindowSettings(Struct, frozen=True, kw_only=True):
    """When windows are built."""

    allow_incomplete_windows: bool = False
    min_rebuild_interval: Duration = Duration("PT0S")


class BackendSettings(Struct, frozen=True, kw_only=True):
    """Which backend serves a port."""

    backend: Literal["embedded"] = "embedded"


class ObjectSettings(Struct, frozen=True, kw_only=True):
    """Where objects are kept: by default the folder `objects` of the home."""

    backend: Literal["local"] = "local"
    path: str | None = None


class StageSettings(Struct, frozen=True, kw_only=True):
    """A stage: how many workers, how many messages wait in its mailbox, how many are taken from the broker."""

    workers: Annotated[int, Meta(ge=0, le=256)] = 1
    mailbox: Annotated[int, Meta(ge=1, le=100_000)] = 4
    prefetch: Annotated[int, Meta(ge=1, le=10_000)] = 8


class Actors(Struct, frozen=True, kw_only=True):
    """The stages that this node runs; `workers = 0` leaves a stage to other nodes."""

    ingestion: StageSettings = StageSettings(workers=2)
    coordination: StageSettings = StageSettings(mailbox=64, prefetch=64)
    building: StageSettings = StageSettings(workers=2, mailbox=1)


class ExporterSettings(Struct, frozen=True, kw_only=True):
    """An exporter. `path`: where it writes, by default the folder `exports/{name}` of the home."""

    kind: Literal["geoparquet"] = "geoparquet"
    enabled: bool = True
    path: str | None = None


class Attempts(Struct, frozen=True, kw_only=True):
    """How often a failing message or window is tried, and the pauses in between."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 5
    first_delay: Duration = Duration("PT0.2S")
    longest_delay: Duration = Duration("PT1M")


class Supervision(Struct, frozen=True, kw_only=True):
    """The node gives up after more than `restarts` restarts of its actors within `within`."""

    restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 10
    within: Duration = Duration("PT1M")


class Memory(Struct, frozen=True, kw_only=True):
    """How many rows a worker sorts at once; about 1 kB of memory each."""

    chunk_rows: Annotated[int, Meta(ge=100, le=100_000_000)] = 262_144


class Topology(Struct, frozen=True, kw_only=True):
    """Everything that a node is made of. `home` is the folder of the embedded backends."""

    home: str = field(default_factory=lambda: os.environ.get("IONBEAM_HOME") or DEFAULT_HOME)
    node: NodeSettings = NodeSettings()
    rules: Rules = Rules()
    windows: WindowSettings = WindowSettings()
    datasets: dict[str, WindowSettings] = field(default_factory=dict)
    broker: BackendSettings = BackendSettings()
    ledger: BackendSettings = BackendSettings()
    store: BackendSettings = BackendSettings()
    objects: ObjectSettings = ObjectSettings()
    actors: Actors = Actors()
    exporters: dict[str, ExporterSettings] = field(default_factory=lambda: {"geoparquet": ExporterSettings()})
    attempts: Attempts = Attempts()
    supervision: Supervision = Supervision()
    memory: Memory = Memory()


def read_topology(path: Path) -> Topology:
    """The topology in the TOML file `path`; a relative `home` in it is relative to the file's folder.

    Without one it is `$IONBEAM_HOME`, or `ionbeam-home` in the current folder, as on the command line.

    Raises TopologyError with every mistake found.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TopologyError([f"{path}: cannot be read ({error.strerror})"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TopologyError([f"{path}: not TOML: {error}"]) from None
    topology = check_topology(content)
    if "home" not in content:
        return topology
    return msgspec.structs.replace(topology, home=str(path.parent / Path(topology.home).expanduser()))


def check_topology(content: dict[str, Any]) -> Topology:
    """The topology that `content` describes. Raises TopologyError with every mistake, each with its key path."""
    problems: list[str] = []
    topology: Topology = _struct(Topology, content, "", problems)
    problems.extend(_names(content))
    if not problems:
        problems.extend(_contradictions(topology))
    if problems:
        raise TopologyError(problems)
    return topology


def _struct(kind: type[Any], content: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(content, dict):
        problems.append(f"{path}: expected a table, got {_short(content)}")
        return kind()
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in content.items():
        where = f"{path}.{key}" if path else key
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(hints)}"
            problems.append(f"{where}: unknown key; {hint}")
        else:
            values[key] = _value(hints[key], value, where, problems)
    return kind(**values)


def _value(kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _struct(kind, value, path, problems)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            problems.append(f"{path}: expected a table, got {_short(value)}")
            return {}
        return {key: _value(get_args(kind)[1], item, f"{path}.{key}", problems) for key, item in value.items()}
    try:
        return from_builtins(value, kind)
    except msgspec.ValidationError as error:
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        remedy = f"; choose from {', '.join(map(repr, choices))}" if choices else ""
        problems.append(f"{path}: {error} (got {_short(value)}){remedy}")
        return value


_LETTERS = set("abcdefghijklmnopqrstuvwxyz0123456789_")


def _names(content: dict[str, Any]) -> list[str]:
    """What is wrong with the names that the operator chose."""
    problems = []
    for table, letters, spelled in (
        ("exporters", _LETTERS | {"-"}, "lowercase letters, digits, '_' and '-'"),
        ("datasets", _LETTERS, "lowercase letters, digits and '_'"),
    ):
        names = content.get(table)
        for name in names if isinstance(names, dict) else ():
            if not name or not set(name) <= letters:
                problems.append(f"{table}.{name}: a name here has {spelled}")
    return problems


def _contradictions(topology: Topology) -> list[str]:
    problems = []
    if topology.attempts.longest_delay < topology.attempts.first_delay:
        problems.append("attempts.longest_delay: is shorter than attempts.first_delay")
    for key in ("first_delay", "longest_delay"):
        if not getattr(topology.attempts, key):
            problems.append(f"attempts.{key}: must be longer than PT0S")
    if not topology.supervision.within:
        problems.append("supervision.within: must be longer than PT0S")
    return problems


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
