"""`ionbeam windows retry` and `ionbeam retract`: what an operator can do."""

from __future__ import annotations

import argparse
import sys

from ionbeam.client import Client
from ionbeam.commands.common import existing_home, log_to_stderr, topology_of
from ionbeam.commands.progress import Progress
from ionbeam.commands.summary import finish
from ionbeam.commands.work import Sent, send_and_work
from ionbeam.parts import Ports
from ionbeam.schemas.journal import OperatorAction, record
from ionbeam.schemas.messages import one_spelling


def which(arguments: argparse.Namespace) -> int:
    arguments.parser.print_help()
    return 2


def retry(arguments: argparse.Namespace) -> int:
    log_to_stderr(arguments)
    existing_home(topology_of(arguments))
    notes: list[str] = []

    async def submit(client: Client, ports: Ports, progress: Progress) -> Sent:
        now = await ports.ledger.now()
        action = OperatorAction(action="retry windows", subject=arguments.dataset or "*")
        freed = await ports.ledger.retry_windows(
            arguments.dataset, record("operator", f"retry/{now.isoformat()}", now, action)
        )
        notes.append(f"{freed:,} parked windows freed")
        return Sent()

    return finish(arguments, send_and_work(arguments, submit, work=not arguments.publish_only), notes)


def retract(arguments: argparse.Namespace) -> int:
    log_to_stderr(arguments)
    existing_home(topology_of(arguments))
    name = one_spelling(arguments.id)
    notes: list[str] = []

    async def submit(client: Client, ports: Ports, progress: Progress) -> Sent:
        now = await ports.ledger.now()
        known = await ports.ledger.ingestion(name)
        action = OperatorAction(action="retract", subject=name)
        await ports.ledger.retract(name, record("operator", f"retract/{name}", now, action))
        if known is None:
            notes.append(f"{name} is not known here yet; when it comes, it will have no effect")
        elif known.replaced:
            notes.append(f"{name} was taken back before")
        else:
            notes.append(f"{name} is taken back: {known.counts.accepted:,} rows leave {len(known.shares):,} windows")
        return Sent()

    if not name or len(name) > 100:
        print(f"ionbeam: not the id of a command: {name[:120]!r}", file=sys.stderr)
        return 2
    return finish(arguments, send_and_work(arguments, submit, work=not arguments.publish_only), notes)
