"""The command line: what can be typed. What each command does stands in `ionbeam.commands`, imported when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ionbeam.errors import IonbeamError, TopologyError
from ionbeam.text import clean
from ionbeam.version import VERSION

FAILED, WRONG_USE, STOPPED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code: 0 done, 1 something failed, 2 wrong use."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "command"):
        parser.print_help()
        return WRONG_USE
    module, _, function = arguments.command.partition(":")
    try:
        code: int = getattr(importlib.import_module(f"ionbeam.commands.{module}"), function)(arguments)
    except BrokenPipeError:
        # the reader of our output has gone: nothing to tell it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except BaseException as error:
        return _failed(error, as_json=getattr(arguments, "json", False))
    return code


def _failed(error: BaseException, *, as_json: bool) -> int:
    """Tell what stopped a command; what is not ours to explain comes out as it is."""
    causes = _causes(error)
    if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
        print("ionbeam: stopped; what was under way goes back to its queues", file=sys.stderr)
        return STOPPED
    if not all(isinstance(cause, IonbeamError) for cause in causes):
        raise error
    problems = [
        problem
        for cause in causes
        for problem in (cause.problems if isinstance(cause, TopologyError) else [str(cause)])
    ]
    for problem in problems:
        print(f"ionbeam: {clean(problem)}", file=sys.stderr)
    if as_json:
        from ionbeam.commands.common import print_json

        print_json({"ok": False, "problems": problems})
    return FAILED


def _causes(error: BaseException) -> list[BaseException]:
    """The exceptions in `error`, which may be a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in _causes(inner)]
    return [error]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ionbeam",
        description="Turns streams of IoT observations into time-windowed, CF-described Arrow datasets.",
        epilog="Begin with `ionbeam demo`. Every command has --help.",
    )
    parser.add_argument("--version", action="version", version=f"ionbeam {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    _pipeline_commands(commands)
    _looking_commands(commands)
    _operator_commands(commands)
    return parser


Commands = argparse._SubParsersAction  # the only name that argparse gives to it


def _pipeline_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    demo = _add(commands, "demo", "demo:demo", "run a year of real weather through a whole node")
    demo.set_defaults(default_home="demo-home")

    ingest = commands.add_parser("ingest", help="ingest observations from a source")
    ingest.set_defaults(parser=ingest, command="ingest:which")
    sources = ingest.add_subparsers(metavar="SOURCE", title="sources")
    archive = _add(sources, "sensor-community", "ingest:sensor_community", "files of the Sensor.Community archive")
    archive.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="folders or DATE_TYPE_sensor_ID.csv files")
    archive.add_argument("--span", default="P1D", help="length of a window, ISO 8601 (default P1D)")
    synthetic = _add(sources, "synthetic", "ingest:synthetic", "made-up observations, the same for the same seed")
    for name, default, what in (
        ("rows", 100_000, "observations in all"),
        ("stations", 100, "stations"),
        ("hours", 24, "hours that they are spread over"),
        ("seed", 1, "which observations"),
        ("commands", 1, "payloads to send them in"),
    ):
        synthetic.add_argument(f"--{name}", type=number, default=default, metavar="N", help=f"{what} ({default})")
    synthetic.add_argument("--span", default="PT1H", help="length of a window, ISO 8601 (default PT1H)")

    publish = _add(commands, "publish", "publish:publish", "send commands made elsewhere")
    publish.add_argument("files", nargs="+", type=Path, metavar="COMMAND.json", help="IngestDataCommands, in order")
    payload = publish.add_mutually_exclusive_group()
    payload.add_argument("--payload", type=Path, metavar="ROWS.arrow", help="the payload of the commands")
    payload.add_argument("--payloads", type=Path, metavar="DIR", help="where the files that payload_location names lie")
    for parser in (archive, synthetic, publish):
        parser.add_argument("--publish-only", action="store_true", help="leave the work to a running node")

    _add(commands, "run", "run:run", "run a node until SIGTERM or Ctrl-C")


def _looking_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    _add(commands, "status", "status:status", "queues, windows that wait and why, dead letters")
    datasets = _add(commands, "datasets", "datasets:datasets", "the current revision of each window")
    datasets.add_argument("name", nargs="?", metavar="NAME", help="only this dataset")
    show = _add(commands, "show", "datasets:show", "a dataset file: metadata, columns, first rows")
    show.add_argument("location", metavar="LOCATION", help="URL, path or key, as `ionbeam datasets` prints it")
    show.add_argument("--rows", type=number, default=10, metavar="N", help="rows to print (10)")
    audit = _add(commands, "audit", "audit:audit", "check that every row is accounted for, against the data itself")
    audit.add_argument("--dataset", metavar="NAME", help="only this dataset")


def _operator_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    windows = commands.add_parser("windows", help="act on windows")
    windows.set_defaults(parser=windows, command="windows:which")
    actions = windows.add_subparsers(metavar="ACTION", title="actions")
    retry = _add(actions, "retry", "windows:retry", "free parked windows and build them")
    retry.add_argument("--dataset", metavar="NAME", help="only this dataset's")
    retract = _add(commands, "retract", "windows:retract", "take an ingestion back, with its rows and claims")
    retract.add_argument("id", metavar="ID", help="the id of its command")
    for parser in (retry, retract):
        parser.add_argument("--publish-only", action="store_true", help="leave the work to a running node")
    check = _add(commands, "check", "check:check", "say everything that is wrong with a topology")
    check.add_argument("file", nargs="?", type=Path, metavar="TOPOLOGY", help="the TOML file")


def _add(commands: Commands[argparse.ArgumentParser], name: str, command: str, what: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--home", type=Path, metavar="DIR", help="the home ($IONBEAM_HOME or ./ionbeam-home)")
    where.add_argument("--topology", type=Path, metavar="FILE", help="a topology file (TOML)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what happens, to stderr")
    parser.set_defaults(command=command, parser=parser, default_home=None)
    return parser


def number(text: str) -> int:
    """A whole number, not below 0; its name stands in the message for what is none."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
