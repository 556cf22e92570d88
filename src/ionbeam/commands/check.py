"""`ionbeam check`: everything that is wrong with a topology, at once."""

from __future__ import annotations

import argparse
import sys

from ionbeam.commands.common import print_json, say
from ionbeam.config import read_topology
from ionbeam.errors import TopologyError
from ionbeam.text import clean


def check(arguments: argparse.Namespace) -> int:
    path = arguments.file or arguments.topology
    if path is None:
        arguments.parser.error("which topology? name a TOML file, such as supervisors/embedded.toml")
    try:
        topology = read_topology(path)
    except TopologyError as error:
        if arguments.json:
            print_json({"ok": False, "problems": error.problems})
        else:
            for problem in error.problems:
                print(clean(problem), file=sys.stderr)
        return 1
    if arguments.json:
        print_json({"ok": True, "problems": []})
    else:
        stages = topology.actors
        say(f"{path}: fine; home {topology.home}")
        say(
            f"workers: ingestion {stages.ingestion.workers}, coordination {stages.coordination.workers},"
            f" building {stages.building.workers}; exporters:"
            f" {', '.join(name for name, one in topology.exporters.items() if one.enabled) or 'none'}"
        )
    return 0
