"""Opening a payload, whatever Arrow made it: IPC file, IPC stream or Parquet, told by its first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from ionbeam.domain.values import value_type
from ionbeam.errors import Refused

PIECE_ROWS = 131_072
CONTINUATION, NOTHING = b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"
_DAMAGE = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Payload:
    """The schema and the rows of a payload, in pieces of bounded size. Raises Refused where it is damaged."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def open_payload(file: pa.NativeFile, key: str) -> Payload:
    """Raises Refused when the object is empty, truncated, or neither Arrow IPC nor Parquet."""
    head = file.read(6)
    file.seek(0)
    if not head:
        raise Refused(f"the payload {key} is empty: send an Arrow IPC file, also when it has zero rows")
    try:
        if head.startswith(b"PAR1"):
            return _parquet(file, key)
        if head == b"ARROW1":
            reader = pa.ipc.open_file(file)
            return Payload(_readable(reader.schema), _pieces(_from_file(reader), key))
        _check_end(file, head)
        stream = pa.ipc.open_stream(file)
        return Payload(_readable(stream.schema), _pieces(iter(stream), key))
    except _DAMAGE as error:
        raise _refusal(key, error) from None


def _check_end(file: pa.NativeFile, head: bytes) -> None:
    """A stream that was cut between two messages reads like a whole one, but for its end marker."""
    marker = CONTINUATION + NOTHING if head.startswith(CONTINUATION) else NOTHING  # before Arrow 0.15: only a length
    file.seek(max(0, file.size() - len(marker)))
    if file.read() != marker:
        raise pa.ArrowInvalid("no end of an Arrow stream: it was cut, or is none")
    file.seek(0)


def _parquet(file: pa.NativeFile, key: str) -> Payload:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    return Payload(_readable(parquet.schema_arrow), _pieces(parquet.iter_batches(PIECE_ROWS), key))


def _readable(schema: pa.Schema) -> pa.Schema:
    """`schema`; UnicodeDecodeError now, where damage makes a name or a time zone in it unreadable."""
    _ = schema.names, [kind.tz for kind in map(value_type, schema.types) if pa.types.is_timestamp(kind)]
    return schema


def _from_file(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    for place in range(reader.num_record_batches):
        yield reader.get_batch(place)


def _pieces(batches: Iterator[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    try:
        for batch in batches:
            for start in range(0, len(batch), PIECE_ROWS):
                yield batch.slice(start, PIECE_ROWS)
    except _DAMAGE as error:
        raise _refusal(key, error) from None


def _refusal(key: str, error: Exception) -> Refused:
    return Refused(
        f"the payload {key} is neither whole Arrow IPC nor Parquet ({str(error)[:200]});"
        " write it again and send it as a new command"
    )
