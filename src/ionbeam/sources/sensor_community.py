"""Source: files of the Sensor.Community (luftdaten.info) archive, one command per sensor type and day.

    DATE/DATE_TYPE_sensor_ID.csv     `;`-separated, naive UTC times; `.csv.gz` and `_indoor.csv` are read too

A file is sent again only when its content changed. What was sent is remembered per dataset and day, and is
remembered before it is sent: whatever may have been published can be replaced later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import trio

from ionbeam.client import Client, Duration
from ionbeam.sources.sensor_community_day import Day, Found, Problem, Report, ingest_day
from ionbeam.sources.sensor_community_map import dataset_name

__all__ = ["Problem", "Report", "ingest"]

P1D = Duration("P1D")
_NAME = re.compile(
    r"(?P<file>(?P<day>\d{4}-\d\d-\d\d)_(?P<type>[A-Za-z0-9_-]+?)_sensor_\d+(?P<indoor>_indoor)?\.csv)(\.gz)?",
    re.ASCII,
)


async def ingest(
    client: Client,
    paths: Sequence[Path],
    *,
    span: Duration = P1D,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Send what is new or changed among the archive files at `paths` (files, or folders and all below them).

    Each command claims its whole day. A file that cannot be used is reported and stops no other. An error of
    the client ends the run; the next run goes on from there. `progress` is told the dataset and day that is
    done, how many are done, and of how many. Memory is bounded by one day's files of one type.
    """
    found, problems = await trio.to_thread.run_sync(_find, [Path(path) for path in paths])
    report = Report(problems=tuple(problems))
    for done, day in enumerate(sorted(found), start=1):
        report += await ingest_day(client, day, found[day], span)
        if progress is not None:
            progress(day.key, done, len(found))
    return report


def _find(paths: Sequence[Path]) -> tuple[dict[Day, Found], list[Problem]]:
    """The archive files at `paths` by day and file name, each with all places where it is."""
    days: dict[Day, Found] = {}
    problems = []
    files = [file.absolute() for path in paths for file in (_below(path) if path.is_dir() else [path])]
    for file in dict.fromkeys(files):
        day, name = _named(file)
        shown = str(file).encode(errors="replace").decode()
        if not os.path.isfile(file):
            problems.append(Problem(shown, "is not there; check the path"))
        elif day is None:
            problems.append(Problem(shown, "is not named DATE_TYPE_sensor_ID.csv, its day is unknown; rename it"))
        elif str(file) != shown:
            problems.append(Problem(shown, "lies in a folder whose name is not UTF-8; rename the folder"))
        else:
            days.setdefault(day, {}).setdefault(name, []).append(file)
    return days, problems


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.csv*") if path.name.endswith((".csv", ".csv.gz")))


def _named(path: Path) -> tuple[Day | None, str]:
    """The day that a file's name tells (None where it tells none), and the name without `.gz`."""
    match = _NAME.fullmatch(path.name)
    try:
        if match is not None:
            dataset = dataset_name(match["type"], indoor=match["indoor"] is not None)
            day = Day(date.fromisoformat(match["day"]), dataset)
            return (day if day.date < date.max else None), match["file"]
    except ValueError:
        pass
    return None, path.name
