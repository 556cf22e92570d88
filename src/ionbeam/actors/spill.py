"""Runs that wait on disk for their merge, in one unnamed file that goes with the process, however that ends."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import IO

import pyarrow as pa

from ionbeam.errors import Unavailable

RUN_ROWS = 4_096


class Spill:
    """A context manager. `folder`: where the file lies; None: the system's folder for temporary files."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError):  # what could not be written to a full disk is not needed any more
            self._stack.close()

    def keep(self, table: pa.Table) -> Iterator[pa.Table]:
        """Write `table`; its rows again, in pieces, whenever they are asked for. Raises Unavailable: disk full."""
        if self._file is None:
            self._file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - the stack is its context
        start = self._file.tell()
        table = table.combine_chunks()
        try:
            with pa.ipc.new_stream(self._file, table.schema) as writer:
                writer.write_table(table, max_chunksize=RUN_ROWS)
            self._file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            folder = self._folder or tempfile.gettempdir()
            raise Unavailable(f"no space left in {folder} to sort a large payload: free some") from error
        return self._read(start, self._file.tell() - start)

    def _read(self, start: int, length: int) -> Iterator[pa.Table]:
        assert self._file is not None
        with pa.PythonFile(_Part(self._file.fileno(), start, length), mode="r") as part:
            for batch in pa.ipc.open_stream(part):
                yield pa.Table.from_batches([batch])


class _Part:
    """A part of a file, read by position: many are read in turn through one descriptor."""

    closed = False

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor, self._at, self._end = descriptor, start, start + length

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._at
        data = os.pread(self._descriptor, left if size < 0 else min(size, left), self._at)
        self._at += len(data)
        return data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The file is the spill's to close."""
