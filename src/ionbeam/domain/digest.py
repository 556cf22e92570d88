"""A digest of rows that does not depend on how they are cut into tables."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa


class RowsDigest:
    """The sha256 of rows, column by column: which values are there, and what they are, bit for bit."""

    def __init__(self) -> None:
        self._columns: dict[tuple[str, str], hashlib._Hash] = {}
        self.rows = 0

    def update(self, table: pa.Table) -> None:
        self.rows += len(table)
        for name, column in zip(table.column_names, table.columns, strict=True):
            for chunk in column.chunks:
                self._add(name, chunk)

    def hexdigest(self) -> str:
        whole = hashlib.sha256(str(self.rows).encode())
        for (name, part), column in sorted(self._columns.items()):
            whole.update(f"{name}/{part}/{column.hexdigest()}\n".encode())
        return whole.hexdigest()

    def _add(self, name: str, chunk: pa.Array) -> None:
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        self._part(name, "there", valid)
        if pa.types.is_string(chunk.type):
            chunk = chunk.fill_null("")
            data = chunk.cast(pa.binary())
            offsets = np.frombuffer(data.buffers()[1], np.int32, len(data) + 1, data.offset * 4)
            self._part(name, "lengths", np.diff(offsets))
            if data.buffers()[2] is not None:
                self._part(name, "text", np.frombuffer(data.buffers()[2], np.uint8)[offsets[0] : offsets[-1]])
        else:
            self._part(name, "values", chunk.fill_null(0).to_numpy(zero_copy_only=False))

    def _part(self, name: str, part: str, values: np.ndarray[tuple[int], np.dtype[np.generic]]) -> None:
        column = self._columns.setdefault((name, part), hashlib.sha256())
        column.update(np.ascontiguousarray(values).view(np.uint8).data)
