"""`ionbeam ingest`: observations from a source."""

from __future__ import annotations

import argparse
import sys

from ionbeam.client import Client, Duration
from ionbeam.commands.common import log_to_stderr
from ionbeam.commands.progress import Progress
from ionbeam.commands.summary import finish
from ionbeam.commands.work import Sent, send_and_work
from ionbeam.parts import Ports


def which(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return 2


def span_of(arguments: argparse.Namespace) -> Duration:
    """The window length that was typed; ends the command where it is none."""
    try:
        span = Duration(arguments.span)
    except ValueError as error:
        arguments.parser.error(f"argument --span: {error}")
    if not span or span.microseconds % 1_000_000:
        arguments.parser.error(f"argument --span: a window lasts a positive number of whole seconds, got {span}")
    return span


def sensor_community(arguments: argparse.Namespace) -> int:
    from ionbeam.sources import sensor_community as source

    log_to_stderr(arguments)
    span = span_of(arguments)
    absent = [str(path) for path in arguments.paths if not path.exists()]
    if absent:
        print(f"ionbeam: no such file or folder: {', '.join(absent)}", file=sys.stderr)
        return 2
    notes: list[str] = []

    async def submit(client: Client, ports: Ports, progress: Progress) -> Sent:
        report = await source.ingest(client, arguments.paths, span=span, progress=progress.step)
        notes.append(
            f"{report.files_sent:,} files sent in {len(report.commands):,} commands,"
            f" {report.files_unchanged:,} unchanged since they were ingested"
        )
        problems = [f"{problem.path}: {problem.reason}" for problem in report.problems]
        if not (problems or report.files_sent or report.files_unchanged):
            where = ", ".join(map(str, arguments.paths))
            problems.append(f"{where}: no file there is named DATE_TYPE_sensor_ID.csv, as in the archive")
        return Sent(ids=report.commands, problems=problems)

    return finish(arguments, send_and_work(arguments, submit, work=not arguments.publish_only), notes)


def synthetic(arguments: argparse.Namespace) -> int:
    from ionbeam.sources import synthetic as source

    log_to_stderr(arguments)
    span = span_of(arguments)
    for name in ("stations", "hours", "commands"):
        if getattr(arguments, name) < 1:
            arguments.parser.error(f"argument --{name}: must be at least 1, got {getattr(arguments, name)}")

    async def submit(client: Client, ports: Ports, progress: Progress) -> Sent:
        ids = await source.ingest(
            client,
            rows=arguments.rows,
            stations=arguments.stations,
            hours=arguments.hours,
            seed=arguments.seed,
            span=span,
            commands=arguments.commands,
            progress=progress.step,
        )
        return Sent(ids=ids)

    return finish(arguments, send_and_work(arguments, submit, work=not arguments.publish_only), [])
