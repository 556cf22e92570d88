"""A command's map held against the payload that came with it: which column is read how. Checked before any row."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ionbeam.domain.units import Conversion, conversion
from ionbeam.domain.values import is_number, is_text, value_type
from ionbeam.errors import Refused
from ionbeam.schemas.metadata import LATITUDE, LONGITUDE, MAX_COLUMNS, ROW, TIMESTAMP, DataIngestionMap
from ionbeam.schemas.variables import CanonicalVariable, MetadataVariable

REASON = "__reason"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to read one payload. `ignored` are the payload's columns that the map does not name."""

    columns: DataIngestionMap
    conversions: dict[str, Conversion]
    used: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def variables(self) -> tuple[CanonicalVariable, ...]:
        return self.columns.canonical_variables

    @property
    def metadata(self) -> tuple[MetadataVariable, ...]:
        return self.columns.metadata_variables


def plan(columns: DataIngestionMap, payload: pa.Schema) -> Plan:
    """Hold the map against the payload's schema.

    Raises Refused that lists every column that is missing, doubled or of a type that cannot be read.
    """
    if len(payload.names) > MAX_COLUMNS:
        raise Refused(
            f"the payload has {len(payload.names)} columns, at most {MAX_COLUMNS} are allowed:"
            " send the columns that the map names, or split the payload"
        )
    wanted = _wanted(columns)
    problems = [problem for name, where, kinds in wanted if (problem := _problem(payload, name, where, kinds))]
    if problems:
        raise Refused("; ".join(dict.fromkeys(problems)))
    used = tuple(dict.fromkeys(name for name, _, _ in wanted))
    named = set(used)
    return Plan(
        columns=columns,
        conversions=_conversions(columns),
        used=used,
        ignored=tuple(name for name in payload.names if name not in named),
    )


def stored_schema(columns: DataIngestionMap) -> pa.Schema:
    """The columns of an ingestion's stored rows; `timestamp` in nanoseconds since the Unix epoch, UTC."""
    return pa.schema(
        [
            pa.field(TIMESTAMP, pa.int64(), nullable=False),
            pa.field(LATITUDE, pa.float64(), nullable=False),
            pa.field(LONGITUDE, pa.float64(), nullable=False),
            *(pa.field(v.canonical_name, pa.type_for_alias(v.dtype)) for v in columns.canonical_variables),
            *(pa.field(m.column, pa.string()) for m in columns.metadata_variables),
            pa.field(ROW, pa.int64(), nullable=False),
        ]
    )


def checked(batch: pa.RecordBatch, plan: Plan) -> pa.RecordBatch:
    """`batch` once its columns are proven sound inside (offsets, UTF-8, dictionary indexes).

    Raises Refused. Payloads come from anywhere: kernels on a broken buffer read out of bounds. Columns that the map
    does not name count too: with rejected rows they go into quarantine.
    """
    try:
        batch.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowIndexError) as error:
        raise Refused(f"the payload is damaged: {error}; write it again and send it as a new command") from None
    return batch


def _conversions(columns: DataIngestionMap) -> dict[str, Conversion]:
    conversions = {
        v.canonical_name: conversion(v.from_unit or v.cf_unit, v.cf_unit) for v in columns.canonical_variables
    }
    conversions[LATITUDE] = conversion(columns.lat.cf_unit, "degrees_north")
    conversions[LONGITUDE] = conversion(columns.lon.cf_unit, "degrees_east")
    return conversions


_SPELLED = (pa.types.is_boolean, pa.types.is_timestamp, pa.types.is_date)
_NUMBERS = "numbers or text that spells them"
_TEXTS = "text, numbers, booleans or times"
_TIMES = "Arrow timestamps or ISO 8601 text"
_REASONS = "text"


def _wanted(columns: DataIngestionMap) -> list[tuple[str, str, str]]:
    """Raw column, where the map names it, what it may hold."""
    wanted = [
        (columns.datetime.raw_name, "datetime.from_col", _TIMES),
        (columns.lat.raw_name, "lat.from_col", _NUMBERS),
        (columns.lon.raw_name, "lon.from_col", _NUMBERS),
        *((v.column, f"canonical_variables[{i}].column", _NUMBERS) for i, v in enumerate(columns.canonical_variables)),
        *((m.column, f"metadata_variables[{i}].column", _TEXTS) for i, m in enumerate(columns.metadata_variables)),
    ]
    if columns.reject_column is not None:
        wanted.append((columns.reject_column, "reject_column", _REASONS))
    return wanted


def _problem(payload: pa.Schema, name: str, where: str, kinds: str) -> str | None:
    path = f"$.metadata.ingestion_map.{where}"
    found = payload.get_all_field_indices(name)
    if not found:
        return (
            f"{path} names {name[:120]!r}, which the payload lacks; it has {', '.join(map(repr, payload.names))[:400]}"
        )
    if len(found) > 1:
        return f"{path} names {name[:120]!r}, which occurs {len(found)} times in the payload; rename one"
    kind = payload.field(found[0]).type
    if not _readable(value_type(kind), kinds):
        return f"{path}: column {name[:120]!r} is of type {str(kind)[:120]}; send {kinds}"
    return None


def _readable(kind: pa.DataType, kinds: str) -> bool:
    if pa.types.is_null(kind) or is_text(kind):
        return True
    if kinds is _TIMES:
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
    if kinds is _NUMBERS:
        return is_number(kind)
    if kinds is _TEXTS:
        return is_number(kind) or any(test(kind) for test in _SPELLED)
    return False


def no_times_missing_zone(columns: DataIngestionMap, kind: pa.DataType) -> None:
    """Raises Refused for naive Arrow timestamps whose map gives no time zone, also when there are no rows."""
    kind = value_type(kind)
    naive = pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)
    if naive and columns.datetime.timezone is None:
        raise Refused(
            f"$.metadata.ingestion_map.datetime.timezone is missing: column {columns.datetime.raw_name!r}"
            f" has times without a zone ({kind}); name their IANA time zone there, such as UTC"
        )
