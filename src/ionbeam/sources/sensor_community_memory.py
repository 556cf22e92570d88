"""What was sent for one dataset and day, so that a file which changed takes the place of what it was."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from ionbeam.sources.sensor_community_files import Unusable

_COMMANDS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:ionbeam:source:sensor_community")


class Version(Struct, frozen=True):
    """One content of a file, and the absolute path at which it was last seen."""

    sha256: str
    path: str


class Lineage(Struct, frozen=True, kw_only=True):
    """Commands that took each other's place, oldest first: the last has `files` and replaces the others."""

    commands: tuple[str, ...]
    files: dict[str, Version]

    @property
    def current(self) -> str:
        return self.commands[-1]

    @property
    def replaced(self) -> tuple[str, ...]:
        return self.commands[:-1]

    def holds(self, found: Mapping[str, Version]) -> bool:
        """Whether those of its files that are in `found` have the same content there."""
        return all(found[name].sha256 == mine.sha256 for name, mine in self.files.items() if name in found)


class Memory(Struct, frozen=True, kw_only=True):
    """All that was sent, or was going to be. A file is in at most one lineage."""

    lineages: tuple[Lineage, ...] = ()
    version: int = 1

    @property
    def files(self) -> dict[str, Version]:
        """Every file, in the version sent last."""
        return {name: version for lineage in self.lineages for name, version in lineage.files.items()}

    def holding(self, names: Iterable[str]) -> tuple[Lineage, ...]:
        """The lineages that have any of the files `names`."""
        wanted = set(names)
        return tuple(lineage for lineage in self.lineages if not wanted.isdisjoint(lineage.files))

    def located(self, found: Mapping[str, Version]) -> Memory:
        """The memory with the paths at which files of unchanged content are now."""
        lineages = []
        for lineage in self.lineages:
            files = dict(lineage.files)
            files.update((n, found[n]) for n, v in lineage.files.items() if n in found and found[n].sha256 == v.sha256)
            lineages.append(Lineage(commands=lineage.commands, files=files))
        return Memory(lineages=tuple(lineages))

    def extended(self, key: str, files: Mapping[str, Version]) -> tuple[Memory, Lineage]:
        """The memory with a command that carries `files`, and that command's lineage.

        The command replaces all commands of the lineages that have one of the files, and has to carry every
        file of these lineages, or ValueError is raised. Its id follows from `key` (dataset and day), from
        what it carries and from what it replaces: earlier content that returns does not get its earlier id.
        """
        old = self.holding(files)
        lost = {name for lineage in old for name in lineage.files}.difference(files)
        if lost:
            raise ValueError(
                f"{', '.join(sorted(lost))}: in a command to be replaced, and not in the one to replace it"
            )
        replaced = tuple(command for lineage in old for command in lineage.commands)
        content = [key, sorted((name, version.sha256) for name, version in files.items()), replaced]
        command = str(uuid.uuid5(_COMMANDS, msgspec.json.encode(content).decode()))
        lineage = Lineage(commands=(*replaced, command), files=dict(sorted(files.items())))
        kept = tuple(other for other in self.lineages if other.current not in replaced)
        return Memory(lineages=(*kept, lineage)), lineage


def encode(memory: Memory) -> bytes:
    return msgspec.json.encode(memory)


def decode(value: bytes | None) -> Memory:
    """What `encode` wrote; an empty memory for None. Raises Unusable when it is something else."""
    if value is None:
        return Memory()
    try:
        memory = msgspec.json.decode(value, type=Memory)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(f"what was remembered cannot be read: {error}") from None
    if memory.version != 1:
        raise Unusable(f"what was remembered has version {memory.version}, and this ionbeam knows 1: update ionbeam")
    return memory
