"""`ionbeam datasets` and `ionbeam show`: what has been built, and what is in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import trio

from ionbeam.commands.common import existing_home, log_to_stderr, print_json, print_table, say, topology_of
from ionbeam.commands.work import all_windows
from ionbeam.config import Topology
from ionbeam.errors import IonbeamError
from ionbeam.parts import open_ports, open_stores
from ionbeam.ports.records import Revision

MOST = 40
SHORT_HASH = 8


def datasets(arguments: argparse.Namespace) -> int:
    log_to_stderr(arguments)
    topology = topology_of(arguments)
    existing_home(topology)
    found = trio.run(_current, topology, arguments.name)
    if arguments.json:
        print_json({"datasets": [_entry(revision, url) for revision, url in found]})
        return 0
    if not found:
        say(f"no dataset {arguments.name} here" if arguments.name else "no dataset has been built here yet")
        return 0
    if not sys.stdout.isatty():
        whole = [(r.dataset, r.event.start_time, r.event.end_time, r.number, r.rows, url) for r, url in found]
        print_table(("dataset", "from", "to", "revision", "rows", "location"), whole)
        return 0
    shown = found[-MOST:]
    short = [
        (r.event.start_time, r.number, r.rows, r.event.dataset_location[: SHORT_HASH - len(r.content_hash)])
        for r, _ in shown
    ]
    print_table(("window from", "revision", "rows", "dataset, for `ionbeam show`"), short)
    if len(shown) < len(found):
        say(f"the last {len(shown)} of {len(found):,} windows (`--json`, or a pipe, has all, with full locations)")
    return 0


async def _current(topology: Topology, dataset: str | None) -> list[tuple[Revision, str]]:
    async with open_ports(topology) as ports:
        return [
            (window.current, ports.objects.url(window.current.event.dataset_location))
            for window in await all_windows(ports, dataset)
            if window.current is not None
        ]


def _entry(revision: Revision, url: str) -> dict[str, object]:
    return {
        "dataset": revision.dataset,
        "window_start": revision.event.start_time,
        "window_end": revision.event.end_time,
        "revision": revision.number,
        "supersedes": revision.event.supersedes,
        "rows": revision.rows,
        "content_hash": revision.content_hash,
        "location": url,
    }


def show(arguments: argparse.Namespace) -> int:
    log_to_stderr(arguments)
    topology = topology_of(arguments)
    path = _path(arguments.location, topology)
    if path is None:
        raise IonbeamError(f"nothing at {arguments.location!r}: take a location from `ionbeam datasets`")
    try:
        with pa.OSFile(str(path)) as file:
            reader = pa.ipc.open_file(file)
            schema = reader.schema
            head = _head(reader, arguments.rows)
            rows = sum(reader.get_batch(place).num_rows for place in range(reader.num_record_batches))
    except pa.ArrowInvalid as error:
        raise IonbeamError(f"{path} is not a dataset file ({error})") from None
    notes = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    if arguments.json:
        print_json({"metadata": notes, "rows": rows, "columns": _columns(schema), "first_rows": _plain(head)})
        return 0
    print_table(("metadata", "value"), [*notes.items(), ("rows", rows)])
    columns = _columns(schema)
    print_table(
        ("column", "type", "standard name", "units", "level", "method", "period"),
        [
            [column.get(key, "") for key in ("name", "type", "standard_name", "units", "level", "method", "period")]
            for column in columns
        ],
    )
    # the variables' full names stand in the table above
    print_table([name.partition("__")[0] for name in schema.names], [list(row.values()) for row in _plain(head)])
    return 0


def _path(location: str, topology: Topology) -> Path | None:
    """The file that a URL, a path, or an object key or the beginning of one names."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
    else:
        path = Path(location)
        if not path.is_file():
            found = trio.run(_begins, topology, location)
            if len(found) == 1:
                path = Path(unquote(urlsplit(found[0]).path))
    return path if path.is_file() else None


async def _begins(topology: Topology, start: str) -> list[str]:
    """The URLs of the objects whose keys begin with `start`."""
    objects, _ = open_stores(topology)
    folder = start.rpartition("/")[0]
    try:
        return [objects.url(key) async for key in objects.list(folder) if folder and key.startswith(start)]
    except IonbeamError:  # not a key
        return []


def _head(reader: pa.ipc.RecordBatchFileReader, rows: int) -> pa.Table:
    if reader.num_record_batches == 0:
        return reader.schema.empty_table()
    return pa.Table.from_batches([reader.get_batch(0)]).slice(0, rows)


def _columns(schema: pa.Schema) -> list[dict[str, str]]:
    return [
        {
            "name": field.name,
            "type": str(field.type),
            **{key.decode(): value.decode() for key, value in (field.metadata or {}).items()},
        }
        for field in schema
    ]


def _plain(table: pa.Table) -> list[dict[str, object]]:
    """Rows with times as text: nanoseconds do not fit a datetime."""
    place = table.schema.get_field_index("timestamp")
    if place >= 0:
        text = pc.replace_substring_regex(table.column(place).cast(pa.string()), r"(\.\d*?)0+Z$", r"\1Z")
        table = table.set_column(place, "timestamp", pc.replace_substring(text, ".Z", "Z"))
    rows: list[dict[str, object]] = table.to_pylist()
    return rows
