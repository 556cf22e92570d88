"""The dataset file: its columns and notes, and the one form of its bytes."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.domain.contract import contract_of
from ionbeam.domain.dataset import BATCH_ROWS, WRITE_OPTIONS, Batches, columns_of, conform, dataset_schema, described
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata, Link
from ionbeam.schemas.variables import CanonicalVariable, MetadataVariable

KINDS = {"t": "float64", "f": "float32", "n": "int16", "u": "uint64"}


def variable(name: str, **more: Any) -> CanonicalVariable:
    kind = KINDS.get(name, "float64")
    return CanonicalVariable(
        column=name, standard_name="air_temperature", cf_unit="K", level=float(ord(name)), dtype=kind, **more
    )  # type: ignore[arg-type]


def metadata(variables: str = "tfnu", columns: str = "sk", **about: Any) -> IngestionMetadata:
    return IngestionMetadata(
        dataset=DatasetMetadata(name="air", aggregation_span=Duration("PT1H"), **about),
        ingestion_map=DataIngestionMap(
            canonical_variables=tuple(map(variable, variables)),
            metadata_variables=tuple(MetadataVariable(column=name) for name in columns),
            identity=("s",),
        ),
    )


ONE = metadata()
SCHEMA = dataset_schema(contract_of(ONE), [ONE], 0)
NAMES = {name: variable(name).canonical_name for name in KINDS}


# -- schema --------------------------------------------------------------------------------------------------------


def test_columns_and_their_order() -> None:
    """timestamp, position, variables by ascending precedence of their maps, then metadata columns likewise."""
    maps = [metadata("nt", "sk"), metadata("tf", "sxk"), metadata("u", "s")]
    schema = dataset_schema(contract_of(maps[0]), maps, 0)
    variables = [variable(name).canonical_name for name in "ntfu"]
    assert schema.names == ["timestamp", "latitude", "longitude", *variables, "s", "k", "x"]
    assert schema.field("timestamp").type == pa.timestamp("ns", "UTC")
    assert schema.field("latitude").type == schema.field("longitude").type == pa.float64()
    assert [str(schema.field(name).type) for name in variables] == ["int16", "double", "float", "uint64"]
    assert {schema.field(name).type for name in "skx"} == {pa.string()}
    found, columns = columns_of(maps)
    assert ([v.canonical_name for v in found], columns) == (variables, ["s", "k", "x"])


def test_notes_of_columns() -> None:
    """Each column carries its CF standard name, units, level, cell method and period."""
    notes = SCHEMA.field(NAMES["t"]).metadata
    assert notes == {
        b"level": b"116.0",
        b"method": b"point",
        b"period": b"PT0S",
        b"standard_name": b"air_temperature",
        b"units": b"K",
    }
    assert SCHEMA.field("latitude").metadata == {b"standard_name": b"latitude", b"units": b"degrees_north"}
    assert SCHEMA.field("longitude").metadata == {b"standard_name": b"longitude", b"units": b"degrees_east"}
    assert SCHEMA.field("timestamp").metadata == {b"standard_name": b"time"}
    assert SCHEMA.field("s").metadata is None


def test_notes_of_the_dataset() -> None:
    """The dataset is described as the ingestion of highest precedence describes it; window and contract beside it."""
    link = Link(mime_type="text/html", title="t", href="h")
    last = metadata(
        description="new", keywords=("b", "a"), source_links=(link,), subject_to_change_window=Duration("PT5M")
    )
    maps = [metadata(description="old"), last]
    notes = {
        k.decode(): v.decode() for k, v in dataset_schema(contract_of(maps[0]), maps, -3_600_000_000).metadata.items()
    }
    assert notes == {
        "ionbeam.format": "1",
        "ionbeam.identity": '["s"]',
        "ionbeam.fold": "row",
        "name": "air",
        "description": "new",
        "keywords": '["b","a"]',
        "source_links": json.dumps([{"mime_type": "text/html", "title": "t", "href": "h"}], separators=(",", ":")),
        "aggregation_span": "PT1H",
        "subject_to_change_window": "PT5M",
        "window_start": "1969-12-31T23:00:00+00:00",
        "window_end": "1970-01-01T00:00:00+00:00",
    }
    assert list(notes) == sorted(notes)
    assert described(contract_of(last), maps) == last.dataset


def test_metadata_keys_are_sorted() -> None:
    """Keys stand in one order in the schema and in every field."""
    for notes in (SCHEMA.metadata, *(field.metadata for field in SCHEMA if field.metadata)):
        assert list(notes) == sorted(notes)


def test_a_dataset_without_ingestions_is_described_by_its_contract() -> None:
    """A window that everyone left still has a schema, and says no more than the contract does."""
    contract = contract_of(metadata(description="gone"))
    schema = dataset_schema(contract, [], 0)
    assert schema.names == ["timestamp", "latitude", "longitude"]
    assert schema.metadata[b"description"] == b""
    assert schema.metadata[b"aggregation_span"] == b"PT1H"


def test_warnings_of_cf_stand_in_the_notes() -> None:
    """What CF does not know of the variables is told in the file, if the topology let it pass."""
    odd = msgspec.structs.replace(variable("t"), standard_name="no_such_name")
    maps = [
        msgspec.structs.replace(
            ONE, ingestion_map=msgspec.structs.replace(ONE.ingestion_map, canonical_variables=(odd,))
        )
    ]
    assert b"no_such_name" in dataset_schema(contract_of(maps[0]), maps, 0).metadata[b"cf_warnings"]
    assert b"cf_warnings" not in SCHEMA.metadata


def test_conform_fills_what_an_ingestion_lacks() -> None:
    """Stored rows come under the dataset's schema: other columns null, others in order and type."""
    stored = pa.table(
        {"s": pa.array(["x"]).dictionary_encode(), "longitude": [2.0], "latitude": [1.0], "timestamp": [5]}
    )
    (row,) = conform(stored, SCHEMA).select(["latitude", "longitude", "s", "k", NAMES["t"], NAMES["u"]]).to_pylist()
    assert row == {"latitude": 1.0, "longitude": 2.0, "s": "x", "k": None, NAMES["t"]: None, NAMES["u"]: None}
    assert conform(stored, SCHEMA).schema.equals(SCHEMA, check_metadata=True)
    assert conform(stored, SCHEMA)["timestamp"].cast(pa.int64()).to_pylist() == [5]


# -- bytes ---------------------------------------------------------------------------------------------------------


def file_of(pieces: list[pa.Table], schema: pa.Schema = SCHEMA) -> bytes:
    sink, batches = io.BytesIO(), Batches(schema)
    with pa.ipc.new_file(sink, schema, options=WRITE_OPTIONS) as writer:
        for piece in pieces:
            for batch in batches.add(conform(piece, schema)):
                writer.write_batch(batch)
        for batch in batches.rest():
            writer.write_batch(batch)
    return sink.getvalue()


texts = st.one_of(st.none(), st.sampled_from(["", "a", "longer text", "\U0001f600"]))
reals = st.one_of(st.none(), st.sampled_from([0.0, 1.5, -2.0]))
ROW = st.tuples(st.integers(-5, 5), reals, reals, st.one_of(st.none(), st.integers(-9, 9)), texts, texts)
rows = st.lists(ROW, max_size=20)
Row = tuple[Any, ...]


def plain(content: list[Row]) -> pa.Table:
    """The rows as plain columns."""
    kinds = [pa.int64(), pa.float64(), pa.float32(), pa.int16(), pa.string(), pa.string()]
    names = ["timestamp", NAMES["t"], NAMES["f"], NAMES["n"], "s", "k"]
    columns = {
        name: pa.array([row[at] for row in content], kind)
        for at, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    position = {
        name: pa.array([at] * len(content), pa.float64()) for name, at in (("latitude", 1.0), ("longitude", -0.0))
    }
    return pa.table({**columns, **position})


def spoilt(array: pa.Array) -> pa.Array:
    """The same values in other bytes: garbage under nulls, a validity buffer in any case, an offset, −0.0."""
    valid = np.packbits([False, *array.is_valid().to_pylist()], bitorder="little")
    kind = array.type
    if pa.types.is_string(kind):
        items = [b"garbage", *((v.encode() if v is not None else b"hidden") for v in array.to_pylist())]
        offsets = np.cumsum([0, *map(len, items)]).astype(np.int32)
        buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(items) + b"tail")]
    else:
        dtype = np.dtype(kind.to_pandas_dtype())
        garbage = dtype.type(77)
        values = np.array([garbage, *(garbage if v is None else v for v in array.to_pylist())], dtype)
        if pa.types.is_floating(kind):
            values = np.where(values == 0, -values, values)
        buffers = [pa.py_buffer(valid), pa.py_buffer(np.append(values, garbage))]
    return pa.Array.from_buffers(kind, len(array) + 1, buffers).slice(1)


def variants(content: list[Row], cuts: list[int]) -> Iterator[list[pa.Table]]:
    """The same rows in other clothes."""
    whole = plain(content)
    borders = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    yield [whole.slice(a, b - a) for a, b in pairwise(borders)]
    yield [plain(content[a:b]) for a, b in pairwise(borders)]
    yield [pa.concat_tables([plain(content[a:b]) for a, b in pairwise(borders)])]
    yield [
        pa.table(
            {
                name: spoilt(column.combine_chunks())
                for name, column in zip(whole.column_names, whole.columns, strict=True)
            }
        )
    ]
    yield [
        pa.table(
            {
                n: c.dictionary_encode() if n in "sk" else c
                for n, c in zip(whole.column_names, whole.columns, strict=True)
            }
        )
    ]
    yield [
        pa.concat_tables([plain([(9, 9.0, 9.0, 9, "z", "z")] * 3), whole, plain([(9,) + (None,) * 5])]).slice(
            3, len(whole)
        )
    ]


@settings(max_examples=80, deadline=None)
@given(rows, st.lists(st.integers(0, 20), max_size=3))
def test_equal_rows_have_equal_bytes(content: list[Row], cuts: list[int]) -> None:
    """Slices, chunks, offsets, dictionaries, garbage under nulls, signs of zero: the file is the same."""
    wanted = file_of([plain(content)])
    for pieces in variants(content, cuts):
        assert pa.concat_tables([conform(p, SCHEMA) for p in pieces]).num_rows == len(content)
        assert file_of(pieces) == wanted


@settings(max_examples=100, deadline=None)
@given(rows, rows)
def test_other_rows_have_other_bytes(one: list[Row], other: list[Row]) -> None:
    """The file says which rows it holds."""
    assert (file_of([plain(one)]) == file_of([plain(other)])) == (one == other)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_the_file_gives_the_rows_back(content: list[Row]) -> None:
    """An ordinary reader finds what was written, under the dataset's schema."""
    found = pa.ipc.open_file(pa.BufferReader(file_of([plain(content)]))).read_all()
    found.validate(full=True)
    assert found.schema.equals(SCHEMA, check_metadata=True)
    assert found.to_pylist() == conform(plain(content), SCHEMA).to_pylist()


def buffers_of(data: bytes) -> Iterator[tuple[pa.Field, pa.Array, list[pa.Buffer | None]]]:
    reader = pa.ipc.open_file(pa.BufferReader(data))
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        yield from (
            (field, column, column.buffers()) for field, column in zip(batch.schema, batch.columns, strict=True)
        )


@settings(max_examples=60, deadline=None)
@given(rows)
def test_buffers_hold_nothing_but_values(content: list[Row]) -> None:
    """No validity without nulls; zeros under nulls; no text under nulls; no −0.0."""
    for field, column, buffers in buffers_of(file_of([plain(content)])):
        assert (buffers[0] is None) == (column.null_count == 0)
        if pa.types.is_string(field.type):
            text = b"" if buffers[2] is None else buffers[2].to_pybytes()
            assert text.rstrip(b"\0") == "".join(filter(None, column.to_pylist())).encode().rstrip(b"\0")
            continue
        raw = np.frombuffer(
            buffers[1], np.dtype("i8") if field.name == "timestamp" else field.type.to_pandas_dtype(), len(column)
        )
        assert not np.signbit(raw[raw == 0].astype(float)).any()
        assert (raw[~column.is_valid().to_numpy(zero_copy_only=False)] == 0).all()


def test_padding_is_zero() -> None:
    """Between the end of a buffer and the next there are only zeros."""
    data = file_of([plain([(1, 1.5, 2.5, 3, "abc", None)] * 3)])
    base = pa.py_buffer(data)
    reader = pa.ipc.open_file(pa.BufferReader(base))
    buffers = [b for column in reader.get_batch(0).columns for b in column.buffers() if b is not None and b.size]
    spans = sorted((b.address - base.address, b.size) for b in buffers)
    assert all(at % 8 == 0 for at, _ in spans)
    gaps = [(at + size, following) for (at, size), (following, _) in pairwise(spans)]
    assert sum(end < following for end, following in gaps) >= 5
    assert all(data[end:following].strip(b"\0") == b"" for end, following in gaps)
    last = sum(spans[-1])
    assert data[last : last + -last % 8].strip(b"\0") == b""


def test_batches_have_65536_rows() -> None:
    """The file's batches are of one size, whatever the size of what came; the last one is shorter."""
    size = 2 * BATCH_ROWS + 17
    table = pa.table(
        {"timestamp": np.arange(size), "latitude": np.zeros(size), "longitude": np.zeros(size), "s": ["x"] * size}
    )
    files = {file_of([table.slice(a, step) for a in range(0, size, step)]) for step in (1000, 65_536, 70_000, size)}
    assert len(files) == 1
    reader = pa.ipc.open_file(pa.BufferReader(files.pop()))
    assert BATCH_ROWS == 65_536
    assert [reader.get_batch(n).num_rows for n in range(reader.num_record_batches)] == [65_536, 65_536, 17]


def test_no_rows_no_batches() -> None:
    """A window without rows is a file with a schema and no batch."""
    data = file_of([plain([])])
    assert data == file_of([])
    assert pa.ipc.open_file(pa.BufferReader(data)).num_record_batches == 0


@pytest.mark.parametrize(("one", "other"), [(None, 0.0), (1.5, 1.5000000000000002)])
def test_a_null_is_not_a_zero(one: float | None, other: float | None) -> None:
    """Nulls, and every bit of a number, count."""
    assert file_of([plain([(1, one, None, None, "", "")])]) != file_of([plain([(1, other, None, None, "", "")])])


def test_all_null_and_all_empty_texts() -> None:
    """Columns without a single letter are written, and differ."""
    nulls, empty = ([plain([(1, None, None, None, text, text)] * 2)] for text in (None, ""))
    assert file_of(nulls) != file_of(empty)
    for pieces, text in ((nulls, None), (empty, "")):
        assert pa.ipc.open_file(pa.BufferReader(file_of(pieces))).read_all()["s"].to_pylist() == [text] * 2


def test_no_compression_and_no_dictionaries() -> None:
    """Values lie in the file as they are."""
    data = file_of([plain([(1, 1.25, None, None, "findable", "findable")] * 3)])
    assert data.count(b"findablefindablefindable") == 2
    assert struct.pack("3d", 1.25, 1.25, 1.25) in data
