"""One day of one sensor type: what of it is new, changed or unsent, and the command for that."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import trio
from msgspec import Struct

from ionbeam.client import Claim, Client, Duration, IngestionMetadata
from ionbeam.sources import sensor_community_memory as memories
from ionbeam.sources.sensor_community_files import REJECTED, Unusable, arranged, digest, read
from ionbeam.sources.sensor_community_map import metadata
from ionbeam.sources.sensor_community_memory import Lineage, Memory, Version

Found = dict[str, list[Path]]
"""Files by name, each with all places where it is."""


class Problem(Struct, frozen=True):
    """Something that was not ingested: where it is, why, and what to do about it."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Report(Struct, frozen=True, kw_only=True):
    """What a run did. `unparsed` counts those of the `rows` sent that ionbeam rejects as cut or garbled."""

    commands: tuple[str, ...] = ()
    rows: int = 0
    unparsed: int = 0
    files_sent: int = 0
    files_unchanged: int = 0
    problems: tuple[Problem, ...] = ()

    def __add__(self, other: Report) -> Report:
        return Report(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Day(Struct, frozen=True, order=True):
    """A day (UTC) of a dataset: what one command is about."""

    date: date
    dataset: str

    @property
    def key(self) -> str:
        return f"{self.dataset}/{self.date.isoformat()}"

    @property
    def claim(self) -> Claim:
        start = datetime(self.date.year, self.date.month, self.date.day, tzinfo=timezone.utc)
        return Claim(start, start + timedelta(days=1))


async def ingest_day(client: Client, day: Day, found: Found, span: Duration) -> Report:
    """Send what is new or changed in the files `found`, and what was to be sent before and never arrived.

    A changed file's command replaces all commands that had the file, and carries what else these had.
    """
    files = _Files()
    try:
        memory = memories.decode(await client.recall(day.key))
        await files.look(found, memory.files)
        given = set(files.versions)
        unsent, names = await _due(client, day, memory, files)
        after = memory.located(files.versions)
        if names:
            after, lineage = after.extended(day.key, {name: files.versions[name] for name in names})
            unsent.append(lineage)
        commands = [(lineage, files.rows_of(lineage)) for lineage in unsent]
        maps = [metadata(day.dataset, rows.column_names, span) for _, rows in commands]
    except Unusable as error:
        return Report(problems=(*files.problems, Problem(error.where or day.key, str(error))))
    if after != memory:
        await client.remember(day.key, memories.encode(after))
    report = Report(problems=tuple(files.problems))
    for (lineage, rows), described in zip(commands, maps, strict=True):
        report += await _send(client, day, lineage, rows, described)
    sent = {name for lineage in unsent for name in lineage.files}
    return report + Report(files_unchanged=len(given - sent))


async def _due(client: Client, day: Day, memory: Memory, files: _Files) -> tuple[list[Lineage], set[str]]:
    """Lineages whose command is still right and was never accepted, and the files for a new command."""
    unsent = []
    names = files.versions.keys() - memory.files.keys()
    for lineage in memory.holding(files.versions):
        if lineage.holds(files.versions) and await client.accepted(lineage.current):
            continue
        await files.carry(lineage, day)
        if lineage.holds(files.versions):
            unsent.append(lineage)
        else:
            names |= lineage.files.keys()
    return unsent, names


async def _send(client: Client, day: Day, lineage: Lineage, rows: pa.Table, described: IngestionMetadata) -> Report:
    rows = await trio.to_thread.run_sync(rows.combine_chunks)
    await client.ingest(
        rows,
        described,
        day.claim.start,
        day.claim.end,
        command_id=lineage.current,
        claims=[day.claim],
        replaces=lineage.replaced,
    )
    unparsed = len(rows) - rows[REJECTED].null_count
    return Report(commands=(lineage.current,), rows=len(rows), unparsed=unparsed, files_sent=len(lineage.files))


class _Files:
    """The files of a day as they are now, with the rows of those that will be sent."""

    def __init__(self) -> None:
        self.versions: dict[str, Version] = {}
        self.problems: list[Problem] = []
        self._rows: dict[str, pa.Table] = {}

    async def look(self, found: Found, known: dict[str, Version]) -> None:
        """Take in the files `found`, and load those not as `known`; unusable ones become problems."""
        for name, places in sorted(found.items()):
            path = places[0]
            try:
                digests = [await trio.to_thread.run_sync(digest, place) for place in places]
                if len(set(digests)) > 1:
                    others = ", ".join(str(place) for place in places[1:])
                    raise Unusable(f"has other content than {others}; pass only the one that is right")
                if name in known and known[name].sha256 == digests[0]:
                    self.versions[name] = Version(digests[0], str(path))
                else:
                    await self._load(name, path)
            except Unusable as error:
                self.problems.append(Problem(str(path), str(error)))

    async def carry(self, lineage: Lineage, day: Day) -> None:
        """Load a lineage's files, one that was not found from where it was last seen. Raises Unusable."""
        for name, remembered in lineage.files.items():
            path = self.versions.get(name, remembered).path
            try:
                if name not in self._rows:
                    await self._load(name, Path(path))
            except Unusable as error:
                raise Unusable(
                    f"{error}. It is part of command {lineage.current}, which has to be sent or replaced as a"
                    f" whole: pass the folder where the file is now, too. Nothing of {day.key} was sent",
                    where=path,
                ) from None

    def rows_of(self, lineage: Lineage) -> pa.Table:
        """The rows of a lineage's files, by file name and line."""
        tables = [self._rows[name] for name in sorted(lineage.files)]
        return arranged(pa.concat_tables(tables, promote_options="default"))

    async def _load(self, name: str, path: Path) -> None:
        sha256, rows = await trio.to_thread.run_sync(read, path)
        self.versions[name] = Version(sha256, str(path))
        self._rows[name] = rows
