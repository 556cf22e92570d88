"""Payloads as Arrow makes them: told by their first bytes, cut into pieces of bounded size, refused when damaged."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from at_home import ipc_file, ipc_stream

from ionbeam.actors.payload import PIECE_ROWS, open_payload
from ionbeam.errors import Refused

TABLE = pa.table(
    {
        "n": pa.array(range(1000), pa.int32()),
        "s": pa.array([None if n % 7 == 0 else f"text {n % 5}" for n in range(1000)]),
        "d": pa.array([f"kind {n % 3}" for n in range(1000)]).dictionary_encode(),
    }
)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def deltas() -> bytes:
    """A stream whose dictionary grows from batch to batch."""
    sink = io.BytesIO()
    words = [f"kind {n % 3}" for n in range(1000)]
    kind = pa.dictionary(pa.int32(), pa.string())
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    schema = pa.schema({"n": pa.int32(), "s": pa.string(), "d": kind})
    names = ["kind 0", "kind 1", "kind 2"]
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        for start, known in ((0, 1), (1, 2), (2, 3)):
            end = start + 1 if known < 3 else 1000
            dictionary = pa.array(names[:known])
            indices = pa.array([names.index(word) for word in words[start:end]], pa.int32())
            columns = [
                TABLE["n"].slice(start, end - start).combine_chunks(),
                TABLE["s"].slice(start, end - start).combine_chunks(),
            ]
            columns = [c.chunk(0) if isinstance(c, pa.ChunkedArray) else c for c in columns]
            writer.write_batch(
                pa.RecordBatch.from_arrays(
                    [*columns, pa.DictionaryArray.from_arrays(indices, dictionary)], schema=schema
                )
            )
    return sink.getvalue()


def read(data: bytes) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    payload = open_payload(pa.BufferReader(data), "raw/key")
    return payload.schema, list(payload.batches)


FORMS = {
    "file": ipc_file(TABLE),
    "file in chunks": ipc_file(TABLE, 100),
    "file, lz4": ipc_file(TABLE, 300, compression="lz4"),
    "file, zstd": ipc_file(TABLE, 300, compression="zstd"),
    "stream": ipc_stream(TABLE),
    "stream in chunks, zstd": ipc_stream(TABLE, 64, compression="zstd"),
    "stream, old format": ipc_stream(TABLE, 500, use_legacy_format=True),
    "stream with delta dictionaries": deltas(),
    "parquet": parquet(TABLE),
    "parquet, small groups": parquet(TABLE, row_group_size=70, compression="zstd"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_rows(form: str) -> None:
    """IPC file or stream, compressed or not, with dictionaries that grow, or Parquet: the same rows in order."""
    schema, batches = read(FORMS[form])
    assert schema.names == ["n", "s", "d"]
    assert [row for batch in batches for row in batch.to_pylist()] == TABLE.to_pylist()
    assert all(batch.schema.names == schema.names for batch in batches)


@pytest.mark.parametrize("form", [ipc_file, ipc_stream, parquet])
def test_pieces_are_bounded(form: Any) -> None:
    """A batch as long as the payload is handed out in pieces."""
    table = pa.table({"n": np.arange(2 * PIECE_ROWS + 5, dtype=np.int64)})
    _, batches = read(form(table))
    assert max(map(len, batches)) <= PIECE_ROWS
    assert pa.Table.from_batches(batches).equals(table)


@pytest.mark.parametrize("form", [ipc_file, ipc_stream, parquet])
def test_no_rows_at_all(form: Any) -> None:
    """A payload with a schema and without rows is fine, with or without an empty batch."""
    schema, batches = read(form(TABLE.slice(0, 0)))
    assert schema.names == TABLE.column_names
    assert sum(map(len, batches)) == 0
    sink = io.BytesIO()
    pa.ipc.new_file(sink, TABLE.schema).close()
    assert read(sink.getvalue())[1] == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"x", "neither whole Arrow IPC nor Parquet"),
        (b"not Arrow at all, just some text", "neither whole Arrow IPC nor Parquet"),
        (b"ARROW1", "neither whole Arrow IPC nor Parquet"),
        (b"ARROW1\0\0" + b"\xff" * 64, "neither whole Arrow IPC nor Parquet"),
        (b"PAR1", "neither whole Arrow IPC nor Parquet"),
        (b"PAR1" + b"\x00" * 100 + b"PAR1", "neither whole Arrow IPC nor Parquet"),
        (b"PAR1" + b"garbage" * 20 + b"\x10\0\0\0PAR1", "neither whole Arrow IPC nor Parquet"),
        (b'{"a": 1}\n' * 10, "neither whole Arrow IPC nor Parquet"),
        (b"\0" * 64, "neither whole Arrow IPC nor Parquet"),
        (b"\xff" * 64, "neither whole Arrow IPC nor Parquet"),
        (b"timestamp,latitude\n1,2\n", "neither whole Arrow IPC nor Parquet"),
    ],
)
def test_what_is_no_payload_is_refused(data: bytes, says: str) -> None:
    """The error names the object and what to do."""
    with pytest.raises(Refused, match=says) as caught:
        read(data)
    assert "raw/key" in str(caught.value)
    assert "send" in str(caught.value)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "stream, old format"])
def test_truncated_payloads_are_refused(form: str) -> None:
    """A payload that was cut off in the middle of something is refused, wherever that is."""
    data = FORMS[form]
    cuts = sorted({1, 7, 8, 9, len(data) // 3, len(data) // 2, len(data) * 9 // 10, len(data) - 20, len(data) - 1})
    for cut in cuts:
        with pytest.raises(Refused):
            read(data[:cut])


def test_a_stream_cut_between_two_messages_is_refused() -> None:
    """Arrow reads it like a whole one: what is gone would be lost in silence."""
    with pytest.raises(Refused, match="it was cut"):
        read(ipc_stream(TABLE)[:-8])
