"""What a person reads when work is done, and what a program reads."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from ionbeam.commands.common import print_json, print_table, say
from ionbeam.commands.work import Outcome, refusals, tell_refusals
from ionbeam.domain.accounting import NAMES
from ionbeam.domain.windows import moment
from ionbeam.text import clean

MOST = 12


def finish(arguments: argparse.Namespace, outcome: Outcome, notes: list[str]) -> int:
    """Print what came of it; the exit code."""
    if arguments.json:
        print_json(document(outcome, notes))
    else:
        tell(outcome, notes)
    return 0 if outcome.ok else 1


def document(outcome: Outcome, notes: list[str]) -> dict[str, object]:
    counts = outcome.counts
    return {
        "ok": outcome.ok,
        "sent": outcome.sent,
        "notes": notes,
        "problems": outcome.problems,
        "accepted": outcome.accepted,
        "refused": refusals(outcome.refused),
        "rows": {name: getattr(counts, name) for name in NAMES},
        "reasons": counts.reasons,
        "revisions": [
            {
                "dataset": revision.dataset,
                "window_start": revision.event.start_time,
                "revision": revision.number,
                "rows": revision.rows,
                "content_hash": revision.content_hash,
            }
            for revision in outcome.revisions
        ],
        "waiting": len(outcome.waiting),
    }


def tell(outcome: Outcome, notes: list[str]) -> None:
    for note in notes:
        say(note)
    for problem in outcome.problems:
        say(f"problem: {problem}")
    if outcome.ingestions:
        _rows(outcome)
    gone = [state.id for state in outcome.ingestions if state.replaced]
    if gone:
        say(f"taken back or replaced before they came, so without effect: {', '.join(gone[:MOST])}")
    if outcome.worked:
        _windows(outcome)
    else:
        say(
            f"{len(outcome.sent):,} commands sent; "
            + ("a running node does the work" if outcome.nodes else "no node runs here: start one with `ionbeam run`")
        )
    if outcome.refused:
        tell_refusals(outcome.refused, MOST)


def _rows(outcome: Outcome) -> None:
    counts = outcome.counts
    folded = counts.duplicate + counts.merged + counts.conflict
    say(
        f"rows: {counts.received:,} received = {counts.accepted:,} accepted"
        f" + {folded:,} folded ({counts.duplicate:,} duplicate, {counts.merged:,} merged, {counts.conflict:,} conflict)"
        f" + {counts.rejected:,} rejected"
    )
    rows = sorted(counts.reasons.items(), key=lambda item: (-item[1], item[0]))
    if rows:
        print_table(("rejected because", "rows"), rows[:MOST])
        _more(rows)


def _windows(outcome: Outcome) -> None:
    by_dataset: dict[str, dict[int, int]] = {}
    for revision in outcome.revisions:  # in order: a window's last revision is the one that counts
        by_dataset.setdefault(revision.dataset, {})[revision.window_start] = revision.rows
    if by_dataset:
        rows = [(dataset, len(built), sum(built.values())) for dataset, built in sorted(by_dataset.items())]
        print_table(("dataset", "windows built", "rows"), rows)
    else:
        say("windows: nothing new to build")
    waiting = [window for window in outcome.waiting if window.parked is None]
    if waiting:
        say(f"windows that wait: {len(waiting):,} (see `ionbeam status` for why)")
    parked = [
        (window.dataset, moment(window.window_start), window.parked)
        for window in outcome.waiting
        if window.parked is not None
    ]
    if parked:
        print_table(("parked", "window", "reason"), parked[:MOST])
        _more(parked)


def _more(rows: Sequence[object]) -> None:
    if len(rows) > MOST:
        say(f"… and {len(rows) - MOST:,} more")


def where_files_lie(outcome: Outcome) -> list[tuple[str, str]]:
    home = Path(outcome.topology.home)
    return [
        ("datasets", str(home / "objects")),
        *(
            (f"exports, {name}", settings.path or str(home / "exports" / name))
            for name, settings in outcome.topology.exporters.items()
            if settings.enabled
        ),
    ]


def quoted(path: str | Path) -> str:
    """A path as one types it in a shell."""
    return shlex.quote(clean(str(path)))
