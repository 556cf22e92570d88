"""What must come out, worked out slowly and plainly from the meaning of the commands alone.

It shares nothing with the domain but the words: no Arrow, no numpy, dictionaries and loops. Times are seconds from
START; coverage is counted on a grid, because all claims of a simulated load start and end on it.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass, field

from ionbeam.schemas.messages import IngestDataCommand
from ionbeam.schemas.variables import CanonicalVariable
from ionbeam.testing.load import Plan, Sent
from ionbeam.testing.raw import HOUR, START, Row

GRID = HOUR // 2
DAY = 24 * HOUR
Value = float | int | str | None
Stored = dict[str, Value]


@dataclass
class Ingestion:
    """An accepted command: its rows as they are stored, and what became of those that are not."""

    id: str
    command: IngestDataCommand
    rows: list[Stored]
    counts: Counter[str]
    reasons: Counter[str]


@dataclass
class Window:
    """One window of a dataset as it must be in the end.

    `ready`: it must be built, with exactly `rows`. Not ready: it must not be built; but one that `was_touched`
    only by ingestions that left again may have a revision with no rows.
    """

    ready: bool
    was_touched: bool
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[Value, ...]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    earliest: float = 0.0


@dataclass
class Expectation:
    ingestions: dict[str, Ingestion]
    replaced: set[str]
    windows: dict[tuple[str, int], Window]
    dead: Counter[str]


def expect(plan: Plan) -> Expectation:
    """The end of every window, ingestion and message of `plan`, whatever happened on the way."""
    accepted = [s for s in plan.sent if s.fate == "accepted"]
    ranked = sorted(accepted, key=_rank)
    ingestions = {s.id: _ingest(s) for s in ranked}
    replaced = {name for s in accepted if s.command is not None for name in s.command.replaces}
    windows: dict[tuple[str, int], Window] = {}
    for dataset in {i.command.metadata.dataset.name for i in ingestions.values()}:
        ours = [i for i in ingestions.values() if i.command.metadata.dataset.name == dataset]
        taking_part = [i for i in ours if i.id not in replaced]
        covered = _covered(taking_part)
        for start in {_window_of(row) for i in ours for row in i.rows}:
            windows[dataset, start] = _window(plan, dataset, start, taking_part, covered)
    dead = Counter({s.id: len(s.at) for s in plan.sent if s.fate == "dead"})
    return Expectation(ingestions, replaced & set(ingestions), windows, dead)


def _rank(sent: Sent) -> tuple[float, str]:
    """Precedence. What has no `issued_at` is sent after all others were issued."""
    assert sent.command is not None
    issued = sent.command.issued_at
    return (math.inf if issued is None else (issued - START).total_seconds(), sent.id)


def _window_of(row: Stored) -> int:
    second = row["timestamp"]
    assert isinstance(second, int)
    return second // HOUR * HOUR


def _covered(taking_part: list[Ingestion]) -> set[int]:
    return {
        slot
        for ingestion in taking_part
        for each in ingestion.command.swept
        for slot in range(int((each.start - START).total_seconds()), int((each.end - START).total_seconds()), GRID)
    }


def _window(plan: Plan, dataset: str, start: int, taking_part: list[Ingestion], covered: set[int]) -> Window:
    members = [i for i in taking_part if any(_window_of(row) == start for row in i.rows)]
    whole = all(slot in covered for slot in range(start, start + HOUR, GRID))
    rules = plan.topology.datasets[dataset]
    if not members:
        return Window(ready=False, was_touched=True, earliest=start + HOUR)
    about = members[-1].command.metadata.dataset
    due = start + HOUR + about.subject_to_change_window.microseconds / 1e6
    if not (whole or rules.allow_incomplete_windows) or due > plan.until:
        return Window(ready=False, was_touched=False, earliest=due)
    columns = members[-1].command.metadata.ingestion_map
    variables, metadata = _columns(members)
    inside = [row for i in members for row in i.rows if _window_of(row) == start]
    stand, counts = _fold(inside, columns.identity_columns, variables, metadata, columns.fold)
    stand.sort(key=lambda row: tuple(_order(row[name]) for name in ("timestamp", *columns.identity_columns)))
    names = ["timestamp", "latitude", "longitude", *variables, *metadata]
    counts.update(accepted=len(inside), rows=len(stand))
    return Window(
        ready=True,
        was_touched=False,
        columns=names,
        rows=[tuple(row.get(name) for name in names) for row in stand],
        counts=counts,
        earliest=due,
    )


def _columns(members: list[Ingestion]) -> tuple[list[str], list[str]]:
    """In the order of the maps, by ascending precedence, new ones appended."""
    variables: dict[str, None] = {}
    metadata: dict[str, None] = {}
    for ingestion in members:
        columns = ingestion.command.metadata.ingestion_map
        variables.update(dict.fromkeys(v.canonical_name for v in columns.canonical_variables))
        metadata.update(dict.fromkeys(m.column for m in columns.metadata_variables))
    return list(variables), list(metadata)


def _order(value: Value) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    return (1, 0.0, value) if isinstance(value, str) else (1, float(value), "")


# -- one command ---------------------------------------------------------------------------------------------------


def _ingest(sent: Sent) -> Ingestion:
    command = sent.command
    assert command is not None
    assert sent.rows is not None
    columns = command.metadata.ingestion_map
    reasons: Counter[str] = Counter()
    good: list[Stored] = []
    issued = min(sent.at) if command.issued_at is None else (command.issued_at - START).total_seconds()
    for raw in sent.rows:
        stored = _store(raw, columns.canonical_variables, [m.column for m in columns.metadata_variables])
        reason = _reason(raw, stored, issued, columns.canonical_variables)
        if reason is None:
            good.append(stored)
        else:
            reasons[reason] += 1
    variables, metadata = _columns([Ingestion(sent.id, command, [], Counter(), reasons)])
    stand, counts = _fold(good, columns.identity_columns, variables, metadata, columns.fold)
    counts.update(received=len(sent.rows), accepted=len(stand), rejected=reasons.total())
    return Ingestion(sent.id, command, stand, counts, reasons)


def _store(raw: Row, variables: tuple[CanonicalVariable, ...], metadata: list[str]) -> Stored:
    lon = raw.lon
    if lon is not None and 180.0 < lon <= 360.0:
        lon -= 360.0
    stored: Stored = {"timestamp": raw.second, "latitude": raw.lat, "longitude": lon}
    stored.update({v.canonical_name: _value(raw.values.get(v.column), v) for v in variables})
    stored.update({name: raw.texts.get(name) for name in metadata})
    return stored


def _value(raw: float | int | None, variable: CanonicalVariable) -> Value:
    if raw is None or raw in variable.missing_values or not math.isfinite(raw):
        return None
    if variable.dtype == "int32":
        return int(raw)
    value = raw + -273.15 if variable.from_unit == "K" else raw
    if variable.dtype == "float32":
        (value,) = struct.unpack("f", struct.pack("f", value))
    return float(value)


def _reason(raw: Row, stored: Stored, issued: float, variables: tuple[CanonicalVariable, ...]) -> str | None:
    """Why the row is rejected: the first reason that applies."""
    if raw.reject is not None:
        return f"source:{raw.reject}"
    if raw.second is None:
        return "time_missing"
    if raw.second > issued + DAY:
        return "time_in_future"
    if raw.lat is None or raw.lon is None:
        return "position_missing"
    if not (math.isfinite(raw.lat) and math.isfinite(raw.lon)):
        return "position_not_finite"
    if not (-90 <= raw.lat <= 90 and -180 <= raw.lon <= 360):
        return "position_off_globe"
    if all(stored[v.canonical_name] is None for v in variables):
        return "no_value"
    return None


# -- folding -------------------------------------------------------------------------------------------------------


def _fold(
    rows: list[Stored], identity: tuple[str, ...], variables: list[str], metadata: list[str], kind: str
) -> tuple[list[Stored], Counter[str]]:
    """One row for each identity, from `rows` in ascending precedence; and what became of the others."""
    groups: dict[tuple[Value, ...], list[Stored]] = {}
    for row in rows:
        groups.setdefault((row["timestamp"], *(row.get(name) for name in identity)), []).append(row)
    outside = [n for n in ("latitude", "longitude", *variables, *metadata) if n not in identity]
    stand, counts = [], Counter(duplicate=0, merged=0, conflict=0)
    for group in groups.values():
        top = group[-1]
        result = dict(top)
        if kind == "value":
            for name in variables:
                seen = [row[name] for row in group if row.get(name) is not None]
                result[name] = seen[-1] if seen else None
        for row in group[:-1]:
            if all(row.get(name) == top.get(name) for name in outside):
                counts["duplicate"] += 1
            elif kind == "value" and all(
                row.get(name) is None or row.get(name) == result.get(name) for name in variables
            ):
                counts["merged"] += 1
            else:
                counts["conflict"] += 1
        stand.append(result)
    return stand, counts
