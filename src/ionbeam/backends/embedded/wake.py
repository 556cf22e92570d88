"""Wake-ups by topic, within a process and between the processes of one home.

Look, then wait: take the count of a topic's bell, look at the database, and wait for the count to change. A
ring that falls between looking and waiting has changed the count already, so none is lost.
"""

from __future__ import annotations

import errno
import math
import os
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import trio
from msgspec import Struct

from ionbeam.backends.files import make_folder, unavailable
from ionbeam.errors import HomeError

EVERY = "*"
"""Ringing this topic rings all bells."""

_SUFFIX = ".fifo"
_LONGEST = 512
_CROWDED = 2048
_CHUNK = 65_536


class BellStatistics(Struct, frozen=True):
    """Since the bells were made: `rung` calls to ring with a topic, `heard` lines from other processes,
    `backstops` waits that ended with no ring."""

    rung: int
    heard: int
    backstops: int


class _Bell:
    __slots__ = ("count", "event")

    def __init__(self) -> None:
        self.count = 0
        self.event = trio.Event()


class Bells:
    """A counter for each topic, and a way to wait for it to change.

    A ring can be lost only when a process is killed between its commit and the ring: `backstop` (seconds)
    bounds what that costs, so whoever wakes looks again, rung or not.
    """

    def __init__(self, backstop: float = math.inf) -> None:
        self._backstop = backstop
        self._bells: dict[str, _Bell] = {}
        self._folder: Path | None = None
        self._own = f"{uuid.uuid4().hex}{_SUFFIX}"
        self._rung = self._heard = self._backstops = 0

    def bell(self, topic: str) -> int:
        """The count of `topic` now; ask for it before looking."""
        return self._bells.setdefault(topic, _Bell()).count

    def ring(self, topics: Collection[str]) -> None:
        """Wake all who wait for any of `topics`, here and in the other processes. Never blocks."""
        if topics:
            self._rung += 1
            self._ring_here(topics)
            if self._folder is not None:
                self._ring_others(self._folder, topics)

    async def wait(self, topic: str, seen: int) -> int:
        """Wait until the count of `topic` is not `seen`, or for the backstop; the count now. A checkpoint."""
        bell = self._bells.setdefault(topic, _Bell())
        if bell.count != seen:
            await trio.lowlevel.checkpoint()
            return bell.count
        with trio.move_on_after(self._backstop) as scope:
            await bell.event.wait()
        self._backstops += scope.cancelled_caught
        return bell.count

    def statistics(self) -> BellStatistics:
        return BellStatistics(self._rung, self._heard, self._backstops)

    @contextmanager
    def listening(self, folder: Path) -> Iterator[int]:
        """Be reachable for the other processes through a FIFO in `folder`; its descriptor, for `hear`.

        A FIFO and not a socket, because the path of a socket may have only about 100 characters.
        """
        unborn, path = folder / f"{self._own}.new", folder / self._own
        try:
            make_folder(folder)
            os.mkfifo(unborn)
            descriptor = os.open(unborn, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.rename(unborn, path)  # named only once it has a reader, or a ringer would take it for a left-over
        except OSError as error:
            raise unavailable(error, folder) or HomeError(
                f"no FIFO can be made in {folder} ({error.strerror}); keep the home on a local file system"
            ) from error
        self._folder = folder
        try:
            yield descriptor
        finally:
            self._folder = None
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()

    async def hear(self, descriptor: int) -> None:
        """Pass on what other processes ring, for ever."""
        rest = b""
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            try:
                data = os.read(descriptor, _CHUNK)
            except BlockingIOError:
                continue
            *lines, rest = (rest + data).split(b"\n")
            self._heard += len(lines)
            # A pipe that was full has turned topics away that nobody will ring again.
            self._ring_here([EVERY] if len(data) > _CROWDED else [_topic(line) for line in lines])

    def _ring_here(self, topics: Collection[str]) -> None:
        for topic in self._bells if EVERY in topics else topics:
            bell = self._bells.get(topic)
            if bell is not None:
                bell.count += 1
                bell.event.set()
                bell.event = trio.Event()

    def _ring_others(self, folder: Path, topics: Collection[str]) -> None:
        data = b"".join(msgspec.json.encode(topic) + b"\n" for topic in topics)
        if len(data) > _LONGEST:
            data = msgspec.json.encode(EVERY) + b"\n"
        try:
            names = os.listdir(folder)
        except OSError:
            return  # the backstop is there for it
        for name in names:
            if name.endswith(_SUFFIX) and name != self._own:
                _send(folder / name, data)


def _send(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nobody reads it: its process is gone
            with suppress(OSError):
                path.unlink()
        return
    try:
        with suppress(BlockingIOError):  # full: wake-ups enough are on their way
            os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _topic(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=str)
    except msgspec.DecodeError:
        return EVERY
