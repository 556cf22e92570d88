"""The dataset file: its schema, and the one canonical form of its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ionbeam.domain import cf
from ionbeam.domain.contract import Contract
from ionbeam.domain.windows import moment
from ionbeam.schemas.metadata import LATITUDE, LONGITUDE, TIMESTAMP, DatasetMetadata, IngestionMetadata
from ionbeam.schemas.variables import CanonicalVariable

BATCH_ROWS = 65_536
FORMAT = "1"
Bytes = npt.NDArray[np.uint8]

WRITE_OPTIONS = pa.ipc.IpcWriteOptions(
    metadata_version=pa.ipc.MetadataVersion.V5, compression=None, use_threads=False, emit_dictionary_deltas=False
)


def columns_of(maps: Sequence[IngestionMetadata]) -> tuple[list[CanonicalVariable], list[str]]:
    """Variables and metadata columns, in the order of `maps` (ascending precedence), new ones appended."""
    variables: dict[str, CanonicalVariable] = {}
    metadata: dict[str, None] = {}
    for ingestion in maps:
        for variable in ingestion.ingestion_map.canonical_variables:
            variables.setdefault(variable.canonical_name, variable)
        for column in ingestion.ingestion_map.metadata_variables:
            metadata.setdefault(column.column)
    return list(variables.values()), list(metadata)


def described(contract: Contract, maps: Sequence[IngestionMetadata]) -> DatasetMetadata:
    """The dataset as the ingestion of highest precedence describes it; by its contract alone where there is none."""
    if maps:
        return maps[-1].dataset
    return DatasetMetadata(name=contract.dataset, aggregation_span=contract.span)


def dataset_schema(contract: Contract, maps: Sequence[IngestionMetadata], window_start: int) -> pa.Schema:
    """Columns and metadata of a window's dataset. `maps` by ascending precedence, one for each ingestion in it."""
    variables, metadata = columns_of(maps)
    fields = [
        _field(TIMESTAMP, pa.timestamp("ns", tz="UTC"), {"standard_name": "time"}),
        _field(LATITUDE, pa.float64(), {"standard_name": "latitude", "units": "degrees_north"}),
        _field(LONGITUDE, pa.float64(), {"standard_name": "longitude", "units": "degrees_east"}),
    ]
    for variable in variables:
        notes = {
            "standard_name": variable.standard_name,
            "units": variable.cf_unit,
            "level": repr(variable.level),
            "method": variable.method,
            "period": str(variable.period),
        }
        fields.append(_field(variable.canonical_name, pa.type_for_alias(variable.dtype), notes))
    fields.extend(_field(name, pa.string(), {}) for name in metadata)
    return pa.schema(fields, metadata=_sorted(_schema_notes(contract, maps, variables, window_start)))


def _schema_notes(
    contract: Contract, maps: Sequence[IngestionMetadata], variables: list[CanonicalVariable], window_start: int
) -> dict[str, str]:
    dataset = described(contract, maps)
    notes = {
        "ionbeam.format": FORMAT,
        "ionbeam.identity": _json(contract.identity),
        "ionbeam.fold": contract.fold,
        "name": dataset.name,
        "description": dataset.description,
        "keywords": _json(dataset.keywords),
        "source_links": _json(dataset.source_links),
        "aggregation_span": str(contract.span),
        "subject_to_change_window": str(dataset.subject_to_change_window),
        "window_start": moment(window_start).isoformat(),
        "window_end": moment(window_start + contract.span.microseconds).isoformat(),
    }
    warnings = cf.problems(variables)
    if warnings:
        notes["cf_warnings"] = _json(warnings)
    return notes


def _field(name: str, kind: pa.DataType, notes: dict[str, str]) -> pa.Field:
    return pa.field(name, kind, metadata=_sorted(notes) if notes else None)


def _sorted(notes: dict[str, str]) -> dict[bytes, bytes]:
    return {key.encode(): value.encode() for key, value in sorted(notes.items())}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Stored rows under the dataset's schema: columns that an ingestion does not have are null."""
    columns = []
    for field in schema:
        place = table.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.nulls(len(table), field.type))
        else:
            columns.append(table.column(place).cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


class Batches:
    """Regroups tables into canonical batches of exactly 65,536 rows, the last one shorter."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        """The batches that are full once `table` (of the dataset's schema) has come."""
        self._waiting.append(table)
        self._rows += len(table)
        if self._rows < BATCH_ROWS:
            return
        joined = pa.concat_tables(self._waiting)
        whole = self._rows - self._rows % BATCH_ROWS
        for start in range(0, whole, BATCH_ROWS):
            yield canonical_batch(joined.slice(start, BATCH_ROWS), self._schema)
        self._waiting = [joined.slice(whole)]
        self._rows -= whole

    def rest(self) -> Iterator[pa.RecordBatch]:
        """The last batch, if there are rows left."""
        if self._rows:
            yield canonical_batch(pa.concat_tables(self._waiting), self._schema)
        self._waiting, self._rows = [], 0


def canonical_batch(table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """`table` in buffers that depend on nothing but its values.

    Tables that are equal in Arrow can differ in bytes: by what lies under nulls and in padding, by −0.0, by a
    validity buffer without nulls, by offsets that do not start at 0.
    """
    columns = [_canonical(_one(column), column.type) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _one(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _canonical(array: pa.Array, kind: pa.DataType) -> pa.Array:
    length = len(array)
    valid = None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)
    validity = None if valid is None else _buffer(np.packbits(valid, bitorder="little"))
    if pa.types.is_string(kind):
        return pa.StringArray.from_buffers(length, *_text_buffers(array, valid), validity, array.null_count)
    values = _values(array, kind)
    if pa.types.is_floating(kind):
        values = np.add(values, values.dtype.type(0))
    if valid is not None:
        values = np.where(valid, values, values.dtype.type(0))
    return pa.Array.from_buffers(kind, length, [validity, _buffer(values)], array.null_count)


def _values(array: pa.Array, kind: pa.DataType) -> npt.NDArray[np.generic]:
    """The values as they lie in memory, whatever stands under nulls."""
    dtype = np.dtype(np.int64) if pa.types.is_timestamp(kind) else np.dtype(kind.to_pandas_dtype())
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype, count=len(array), offset=array.offset * dtype.itemsize)


def _text_buffers(array: pa.Array, valid: npt.NDArray[np.bool_] | None) -> tuple[pa.Buffer, pa.Buffer]:
    _, raw_offsets, data = array.buffers()
    if raw_offsets is None or len(array) == 0:
        return _buffer(np.zeros(len(array) + 1, np.int32)), _buffer(np.zeros(0, np.uint8))
    offsets = np.frombuffer(raw_offsets, np.int32, count=len(array) + 1, offset=array.offset * 4)
    lengths = np.diff(offsets)
    text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    if valid is not None and bool((lengths[~valid] != 0).any()):
        compact = array.fill_null("")
        return _text_buffers(compact, None)
    return _buffer(offsets - offsets[0]), _buffer(text[offsets[0] : offsets[-1]])


def _buffer(values: npt.NDArray[np.generic]) -> pa.Buffer:
    """Exactly the bytes of `values`: a longer buffer would lend its tail to the file's padding."""
    return (
        pa.py_buffer(np.ascontiguousarray(values).tobytes())
        if values.size == 0
        else pa.py_buffer(np.ascontiguousarray(values))
    )
