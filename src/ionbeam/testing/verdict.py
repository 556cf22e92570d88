"""Holds the end of a simulated world against what was expected of it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa

from ionbeam.domain.windows import micros
from ionbeam.ports.records import Revision, WindowState
from ionbeam.schemas.codec import decode
from ionbeam.schemas.journal import Record
from ionbeam.schemas.messages import DataSetAvailableEvent
from ionbeam.testing.load import Plan
from ionbeam.testing.oracle import Expectation, Window
from ionbeam.testing.raw import START
from ionbeam.testing.world import Outcome

Key = tuple[str, int]


def hashes(outcome: Outcome) -> dict[Key, str]:
    """The content of every window that has any, by dataset and start (seconds from START)."""
    return {_key(w): w.current.content_hash for w in outcome.windows if w.current is not None}


def problems(plan: Plan, expected: Expectation, outcome: Outcome) -> list[str]:
    """Everything that is not as it must be; empty when all is well."""
    return [
        *outcome.violations,
        *(f"left over: {what}" for what in outcome.left),
        *_ingestions(expected, outcome),
        *_windows(expected, outcome),
        *_dead_letters(plan, expected, outcome),
        *_journal(expected, outcome),
        *_exports(outcome),
    ]


def _key(window: WindowState) -> Key:
    return window.dataset, round(window.window_start / 1e6 - START.timestamp())


def _ingestions(expected: Expectation, outcome: Outcome) -> Iterator[str]:
    found = {state.id: state for state in outcome.ingestions}
    if found.keys() != expected.ingestions.keys():
        yield f"accepted {sorted(found)}, expected {sorted(expected.ingestions)}"
    for name, state in found.items():
        want = expected.ingestions.get(name)
        if want is None:
            continue
        counts = msgspec.to_builtins(state.counts)
        if not state.counts.balanced:
            yield f"{name}: counts do not balance: {counts}"
        wrong = {key: (counts[key], value) for key, value in want.counts.items() if counts[key] != value}
        if wrong or counts["reasons"] != dict(want.reasons):
            yield f"{name}: counts (found, expected) {wrong}; reasons {counts['reasons']} for {dict(want.reasons)}"
        if state.replaced != (name in expected.replaced):
            yield f"{name}: replaced is {state.replaced}"


def _windows(expected: Expectation, outcome: Outcome) -> Iterator[str]:
    found = {_key(window): window for window in outcome.windows}
    if stray := found.keys() - expected.windows.keys():
        yield f"windows that nothing touched: {sorted(stray)}"
    for key, want in expected.windows.items():
        state = found.get(key)
        revision = None if state is None else state.current
        if state is not None and state.parked is not None:
            yield f"{key} is parked: {state.parked}"
        if want.ready and revision is None:
            yield f"{key} is ready and not built: {state}"
        elif want.ready and state is not None and state.pending:
            yield f"{key} is ready and its news are not built"
        elif not want.ready and revision is not None and (not want.was_touched or revision.rows):
            yield f"{key} is not ready, but has revision {revision.number} with {revision.rows} rows"
        if revision is not None:
            yield from (f"{key}: {problem}" for problem in _content(want, revision, outcome))


def _content(want: Window, revision: Revision, outcome: Outcome) -> Iterator[str]:
    with outcome.objects.open(revision.event.dataset_location) as file:
        body: bytes = file.read()
    if hashlib.sha256(body).hexdigest() != revision.content_hash:
        yield "the file does not have the hash that the ledger has"
    if not revision.counts.balanced:
        yield f"counts do not balance: {revision.counts}"
    if not want.ready:
        return
    table = pa.ipc.open_file(pa.BufferReader(body)).read_all()
    if table.column_names != want.columns:
        yield f"columns {table.column_names}, expected {want.columns}"
        return
    rows = _rows(table)
    if rows != want.rows:
        yield f"rows differ: found beside {_beside(rows, want.rows)}, expected beside {_beside(want.rows, rows)}"
    counts: dict[str, int] = msgspec.to_builtins(revision.counts)
    if counts != dict(want.counts):
        yield f"counts {counts}, expected {dict(want.counts)}"


def _rows(table: pa.Table) -> list[tuple[Any, ...]]:
    origin = int(START.timestamp())
    times = [value // 10**9 - origin for value in table.column(0).cast(pa.int64()).to_pylist()]
    return list(zip(times, *(column.to_pylist() for column in table.columns[1:]), strict=True))


def _beside(these: list[Any], those: list[Any]) -> list[Any]:
    return [row for row in these if row not in those][:3] or these[:3]


def _dead_letters(plan: Plan, expected: Expectation, outcome: Outcome) -> Iterator[str]:
    names = {sent.body: sent for sent in plan.sent}
    found: Counter[str] = Counter()
    for letter in outcome.dead:
        sent = names.get(letter.body)
        if sent is None:
            yield f"a dead letter of {letter.queue}: {letter.reason}"
            continue
        found[sent.id] += 1
        said = " ".join([letter.reason, *(attempt.error for attempt in letter.history)])
        if sent.fate == "dead" and sent.reason not in said:
            yield f"the dead letter of {sent.id} says {letter.reason!r}, and nothing of {sent.reason!r}"
    if found != expected.dead:
        reasons = [letter.reason for letter in outcome.dead]
        yield f"dead letters {dict(found)}, expected {dict(expected.dead)}: {reasons}"


def _journal(expected: Expectation, outcome: Outcome) -> Iterator[str]:
    decisions: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in outcome.journal:
        decisions[record.kind, record.id].append(record)
    accepted = {name for kind, name in decisions if kind == "accepted"}
    if accepted != expected.ingestions.keys():
        yield f"the journal accepts {sorted(accepted)}, expected {sorted(expected.ingestions)}"
    refused = {name.rpartition("/")[0] for kind, name in decisions if kind == "refused"}
    if refused != expected.dead.keys():
        yield f"the journal refuses {sorted(refused)}, expected {sorted(expected.dead)}"
    for key, records in decisions.items():
        if key[0] == "accepted" and len({bytes(record.body) for record in records}) > 1:
            yield f"the journal has {key} with several contents"
    yield from _revisions(expected, outcome)


class _BuiltBody(msgspec.Struct):
    event: DataSetAvailableEvent
    revised: bool


def _revisions(expected: Expectation, outcome: Outcome) -> Iterator[str]:
    """The journal tells every revision of every window once, in order, and none before it was due."""
    told: dict[Key, dict[int, str | None]] = defaultdict(dict)
    for record in outcome.journal:
        if record.kind != "built":
            continue
        event = decode(bytes(record.body), _BuiltBody).event
        key = (event.metadata.name, micros(event.start_time) // 10**6 - int(START.timestamp()))
        known = told[key].setdefault(event.revision, event.content_hash)
        if known != event.content_hash:
            yield f"the journal has two contents for revision {event.revision} of {key}"
        want = expected.windows.get(key)
        if want is not None and (record.at - START).total_seconds() < want.earliest:
            yield f"revision {event.revision} of {key} was built at {record.at}, before it was due"
    for state in outcome.windows:
        numbers = sorted(told[_key(state)])
        current = 0 if state.current is None else state.current.number
        if numbers != list(range(1, current + 1)):
            yield f"{_key(state)} is at revision {current}, the journal tells of {numbers}"


def _exports(outcome: Outcome) -> Iterator[str]:
    current = {
        (w.dataset, w.window_start): (w.current.number, w.current.content_hash)
        for w in outcome.windows
        if w.current is not None
    }
    for exporter in outcome.exports:
        yield from exporter.went_back
        if exporter.shown != current:
            yield f"{exporter.name} shows {exporter.shown}, current is {current}"
