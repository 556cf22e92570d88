"""`ionbeam status`: what is under way, what waits and why, what went wrong."""

from __future__ import annotations

import argparse
from datetime import datetime

import trio
from msgspec import Struct

from ionbeam.commands.common import existing_home, log_to_stderr, print_json, print_table, say, topology_of
from ionbeam.commands.work import all_windows, queue_title, tell_refusals
from ionbeam.config import Topology
from ionbeam.domain.windows import moment
from ionbeam.parts import open_ports
from ionbeam.ports.broker import DeadLetter, QueueDepth
from ionbeam.ports.records import NodeState, Revision, WindowState

MOST = 20


class Report(Struct, frozen=True, kw_only=True):
    """All that `status` knows."""

    now: datetime
    nodes: list[NodeState]
    queues: list[QueueDepth]
    dead_letters: list[DeadLetter]
    windows: list[WindowState]
    latest: dict[str, Revision | None]


def status(arguments: argparse.Namespace) -> int:
    log_to_stderr(arguments)
    topology = topology_of(arguments)
    existing_home(topology)
    report = trio.run(_look, topology)
    if arguments.json:
        print_json(_document(report))
    else:
        _tell(report)
    return 0


async def _look(topology: Topology) -> Report:
    async with open_ports(topology) as ports:
        ledger = ports.ledger
        return Report(
            now=await ledger.now(),
            nodes=await ledger.nodes(),
            queues=await ports.broker.depths(),
            dead_letters=await ports.broker.dead_letters(),
            windows=await all_windows(ports, pending=True),
            latest={dataset: await ledger.latest(dataset) for dataset in await ledger.datasets()},
        )


def why(window: WindowState, now: datetime) -> tuple[str, str]:
    """The state of a window that is not built, and what it waits for."""
    if window.parked is not None:
        return "parked", f"{window.parked}; mend the cause, then `ionbeam windows retry`"
    if window.leased_until is not None and window.leased_until > now:
        return "leased", f"being built; the lease ends {window.leased_until:%H:%M:%SZ}"
    if window.due is None and window.missing:
        spans = ", ".join(f"{_short(gap.start)} to {_short(gap.end)}" for gap in window.missing[:3])
        more = f" and {len(window.missing) - 3} more" if len(window.missing) > 3 else ""
        return "incomplete", f"nothing has claimed {spans}{more}"
    if window.due is None:
        return "empty", "no rows in it"
    if window.due > now:
        return "not due", f"until {_short(window.due)}" + (
            f" (after {window.failures} failed builds)" if window.failures else ""
        )
    return "due", "to be built as soon as a builder is free"


def _short(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _document(report: Report) -> dict[str, object]:
    return {
        "now": report.now,
        "nodes": report.nodes,
        "queues": [
            {
                "queue": depth.queue,
                "ready": depth.ready,
                "delayed": depth.delayed,
                "taken": depth.taken,
                "dead": depth.dead,
            }
            for depth in report.queues
        ],
        "windows": [
            {
                "dataset": window.dataset,
                "window_start": moment(window.window_start),
                "state": why(window, report.now)[0],
                "why": why(window, report.now)[1],
                "missing": window.missing,
                "due": window.due,
                "leased_until": window.leased_until,
                "failures": window.failures,
            }
            for window in report.windows
        ],
        "dead_letters": [
            {
                "id": letter.message_id,
                "queue": letter.queue,
                "reason": letter.reason,
                "attempts": letter.attempts,
                "first_failed": letter.first_failed,
                "last_failed": letter.last_failed,
            }
            for letter in report.dead_letters
        ],
        "datasets": [
            {
                "dataset": dataset,
                "last_event": None if latest is None else latest.built_at,
                "window_start": None if latest is None else latest.event.start_time,
                "revision": None if latest is None else latest.number,
            }
            for dataset, latest in report.latest.items()
        ],
    }


def _tell(report: Report) -> None:
    if not report.nodes:
        say("no node is running on this home")
    for node in report.nodes:
        boxes = ", ".join(f"{box.name} {box.waiting}/{box.capacity}" for box in node.mailboxes)
        say(f"node {node.name} (process {node.pid}): mailboxes {boxes}")
    print_table(
        ("queue", "ready", "delayed", "taken", "dead"),
        [(queue_title(d.queue), d.ready, d.delayed, d.taken, d.dead) for d in report.queues],
    )
    rows = [
        (dataset, *((None, None) if last is None else (last.built_at, last.event.start_time)))
        for dataset, last in report.latest.items()
    ]
    if rows:
        print_table(("dataset", "last event", "of the window from"), rows)
    waiting = [(w.dataset, moment(w.window_start), *why(w, report.now)) for w in report.windows]
    if waiting:
        print_table(("window of", "from", "state", "why"), waiting[:MOST])
        if len(waiting) > MOST:
            say(f"… and {len(waiting) - MOST:,} more windows (`ionbeam status --json` has all)")
    else:
        say("windows: every window is built")
    if report.dead_letters:
        tell_refusals(report.dead_letters, MOST)
    else:
        say("dead letters: none")
