"""What all commands share: where the home is, how results and progress are shown, how logs go to stderr."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from ionbeam.config import Topology, read_topology
from ionbeam.errors import HomeError
from ionbeam.text import clean


def topology_of(arguments: argparse.Namespace) -> Topology:
    """The topology that the command line names: a file, a home, or the default home."""
    if arguments.topology is not None:
        return read_topology(arguments.topology)
    if arguments.home is not None:
        return Topology(home=str(arguments.home))
    if arguments.default_home is not None and not os.environ.get("IONBEAM_HOME"):
        return Topology(home=arguments.default_home)
    return Topology()


def existing_home(topology: Topology) -> None:
    """Raises HomeError where there is nothing to look at."""
    home = Path(topology.home)
    if not (home / "ionbeam.sqlite").exists():
        raise HomeError(f"{home} is not a home of ionbeam: ingest something first, or name another with --home")


def log_to_stderr(arguments: argparse.Namespace, level: int = logging.CRITICAL) -> None:
    """Send logs to stderr, each record on one line whatever its text holds; tracebacks only with --verbose.

    Commands that report what went wrong themselves keep to `level` CRITICAL.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(arguments.verbose))
    logging.basicConfig(level=logging.INFO if arguments.verbose else level, handlers=[handler], force=True)


class _OneLine(logging.Formatter):
    def __init__(self, tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if self._tracebacks and record.exc_info:
            return clean(super().format(record), keep_lines=True)
        text = f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]}"
        return clean(text)


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A table for people; columns of numbers stand on the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2))
    for place, name in enumerate(columns):
        number = bool(rows) and all(isinstance(row[place], int) for row in rows)
        table.add_column(name, justify="right" if number else "left", header_style="bold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(spell(value)) for value in row))
    console().print(table)


def print_reasons(title: str, entries: Sequence[tuple[str, str]]) -> None:
    """Things that went wrong, each with its reason on lines of its own: reasons are long."""
    print(title)
    for what, reason in entries:
        print(f"  {clean(what)}")
        for line in textwrap.wrap(clean(reason), width=_width() - 6) or [""]:
            print(f"      {line}")


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 1000


def spell(value: object) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return clean(str(value))


def console(*, stderr: bool = False) -> Any:
    """rich's console; as wide as it takes where the output is not a terminal, so that nothing is cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 500, highlight=False)


def say(text: str) -> None:
    """A line for people on stdout."""
    print(clean(text))
