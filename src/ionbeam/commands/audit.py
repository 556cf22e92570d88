"""`ionbeam audit`: every row accounted for, checked against the data itself."""

from __future__ import annotations

import argparse

import trio
from msgspec import Struct

from ionbeam.audit import IngestionVerdict, WindowVerdict, audit_ingestions, audit_windows
from ionbeam.commands.common import (
    existing_home,
    log_to_stderr,
    print_json,
    print_reasons,
    print_table,
    say,
    topology_of,
)
from ionbeam.commands.progress import Progress
from ionbeam.commands.work import refusals, tell_refusals
from ionbeam.config import Topology
from ionbeam.domain.accounting import NAMES, WindowCounts, total
from ionbeam.domain.windows import moment
from ionbeam.errors import HomeError
from ionbeam.parts import open_ports
from ionbeam.ports.broker import DeadLetter

COLUMNS = (*NAMES, "replaced")
MOST = 20


class Audit(Struct, frozen=True, kw_only=True):
    """All verdicts."""

    ingestions: list[IngestionVerdict]
    windows: list[WindowVerdict]
    refused: list[DeadLetter]

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Where something does not hold, and what."""
        found = [
            (f"ingestion {verdict.state.id}", problem) for verdict in self.ingestions for problem in verdict.problems
        ]
        for verdict in self.windows:
            where = f"window {verdict.state.dataset} {moment(verdict.state.window_start):%Y-%m-%dT%H:%M:%SZ}"
            found += [(where, problem) for problem in verdict.problems]
        return found


def audit(arguments: argparse.Namespace) -> int:
    """Exit code 1 where an identity does not hold."""
    log_to_stderr(arguments)
    topology = topology_of(arguments)
    existing_home(topology)
    result = trio.run(_audit, topology, arguments.dataset)
    if arguments.json:
        print_json(_document(result))
    else:
        _tell(result)
    return 1 if result.problems else 0


async def _audit(topology: Topology, dataset: str | None) -> Audit:
    chunk_rows = topology.memory.chunk_rows
    ingestions: list[IngestionVerdict] = []
    windows: list[WindowVerdict] = []
    with Progress() as progress:
        async with open_ports(topology) as ports:
            if dataset is not None and dataset not in await ports.ledger.datasets():
                raise HomeError(f"no dataset {dataset!r} here: see `ionbeam datasets`")
            async for verdict in audit_ingestions(ports, dataset, chunk_rows):
                ingestions.append(verdict)
                progress.step("auditing ingestions", len(ingestions), None)
            async for window in audit_windows(ports, dataset, chunk_rows):
                windows.append(window)
                progress.step("auditing windows", len(windows), None)
            return Audit(ingestions=ingestions, windows=windows, refused=await ports.broker.dead_letters())


def _ingestion(verdict: IngestionVerdict) -> dict[str, object]:
    state = verdict.state
    return {
        "id": state.id,
        "dataset": state.dataset,
        "status": "replaced" if state.replaced else "accepted",
        **{name: getattr(state.counts, name) for name in NAMES},
        "replaced": state.counts.accepted if state.replaced else 0,
        "reasons": state.counts.reasons,
        "values": state.counts.values,
        "problems": verdict.problems,
    }


def _window(verdict: WindowVerdict) -> dict[str, object]:
    state = verdict.state
    pending = state.pending or state.current is None
    counts = WindowCounts() if state.current is None else state.current.counts
    return {
        "dataset": state.dataset,
        "window_start": moment(state.window_start),
        "status": "pending" if pending else "built",
        "rows": counts.rows,
        "accepted": counts.accepted,
        "duplicate": counts.duplicate,
        "merged": counts.merged,
        "conflict": counts.conflict,
        "problems": verdict.problems,
    }


def _document(result: Audit) -> dict[str, object]:
    ingestions = [_ingestion(verdict) for verdict in result.ingestions]
    windows = [_window(verdict) for verdict in result.windows]
    totals: dict[str, object] = {name: sum(int(str(one[name])) for one in ingestions) for name in COLUMNS}
    totals["rows"] = sum(int(str(window["rows"])) for window in windows if window["status"] == "built")
    totals["ingestions"] = len(ingestions)
    totals["windows"] = len(windows)
    totals["refused"] = len(result.refused)
    return {
        "ok": not result.problems,
        "ingestions": ingestions,
        "windows": windows,
        "refused": refusals(result.refused),
        "totals": totals,
    }


def _tell(result: Audit) -> None:
    document = _document(result)
    totals = document["totals"]
    assert isinstance(totals, dict)
    pending = sum(1 for verdict in result.windows if _window(verdict)["status"] == "pending")
    print_table(("of all ingestions", "rows"), [(name, totals[name]) for name in COLUMNS])
    say(
        f"{totals['ingestions']:,} ingestions, {totals['windows']:,} windows ({pending:,} pending),"
        f" {totals['rows']:,} rows in built windows, {totals['refused']:,} messages refused"
    )
    reasons = total(verdict.state.counts for verdict in result.ingestions).reasons
    if reasons:
        print_table(("rejected because", "rows"), sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:MOST])
    if result.refused:
        tell_refusals(result.refused, MOST)
    if result.problems:
        print_reasons("does not hold:", result.problems[:MOST])
        say(f"{len(result.problems):,} things do not hold")
    else:
        say("everything adds up: payloads, stored rows and dataset files agree with the ledger")
