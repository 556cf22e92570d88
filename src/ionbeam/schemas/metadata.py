"""What a dataset is and how a payload's columns map to it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ionbeam.schemas.duration import Duration, lasting
from ionbeam.schemas.variables import (
    CanonicalVariable,
    ColumnName,
    Latitude,
    Longitude,
    MetadataVariable,
    TimeColumn,
)

DatasetName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[a-z0-9_]+$(?!\n)",
        description="1 to 100 lowercase letters, digits and '_'",
    ),
]
Text = Annotated[str, Meta(max_length=10_000)]
Fold = Literal["row", "value"]

TIMESTAMP, LATITUDE, LONGITUDE = "timestamp", "latitude", "longitude"
ROW = "__row"
"""The column of stored rows that holds a row's place in its payload."""
MAX_COLUMNS = 2_000


class Link(Struct, frozen=True, kw_only=True):
    """A link to the source of a dataset."""

    mime_type: Text
    title: Text
    href: Text


class DatasetMetadata(Struct, frozen=True, kw_only=True):
    """What a dataset is called, how it is cut into windows, and when a window is final.

    A window is built once `subject_to_change_window` has passed after its end.
    """

    name: DatasetName
    description: Text = ""
    aggregation_span: Duration = lasting("P1D")
    source_links: tuple[Link, ...] = ()
    keywords: tuple[Text, ...] = ()
    subject_to_change_window: Duration = lasting("PT0S")

    def __post_init__(self) -> None:
        span = self.aggregation_span.microseconds
        if span == 0 or span % 1_000_000:
            raise ValueError(
                f"`aggregation_span` must be a positive number of whole seconds, got {self.aggregation_span}"
            )


class DataIngestionMap(Struct, frozen=True, kw_only=True):
    """How the columns of a payload become a dataset's columns.

    `identity`: the output columns that, with the timestamp, tell one observation from another; default: all
    metadata columns, or the position where there are none. `fold`: what happens to rows of one identity.
    `reject_column`: a text column; where it is not null, the row is rejected with that reason.
    """

    datetime: TimeColumn = TimeColumn()
    lat: Latitude = Latitude()
    lon: Longitude = Longitude()
    canonical_variables: tuple[CanonicalVariable, ...]
    metadata_variables: tuple[MetadataVariable, ...] = ()
    identity: tuple[ColumnName, ...] | None = None
    fold: Fold = "row"
    reject_column: ColumnName | None = None

    def __post_init__(self) -> None:
        if not self.canonical_variables:
            raise ValueError("`canonical_variables` is empty: a map needs at least one observed variable")
        if len(self.canonical_variables) + len(self.metadata_variables) > MAX_COLUMNS:
            raise ValueError(
                f"the map names {len(self.canonical_variables) + len(self.metadata_variables)} columns;"
                f" at most {MAX_COLUMNS} are allowed"
            )
        seen: dict[str, str] = {name: f"ionbeam's own {name}" for name in (TIMESTAMP, LATITUDE, LONGITUDE, ROW)}
        for index, variable in enumerate(self.canonical_variables):
            _claim(seen, variable.canonical_name, f"`canonical_variables[{index}]`")
        for index, metadata in enumerate(self.metadata_variables):
            _claim(seen, metadata.column, f"`metadata_variables[{index}]`")
        for name in self.identity or ():
            if name not in self.identity_choices:
                raise ValueError(
                    f"`identity` names {name[:120]!r}, which is not a column of the map;"
                    f" choose from {', '.join(sorted(self.identity_choices))[:400]}"
                )

    @property
    def identity_choices(self) -> set[str]:
        return {TIMESTAMP, LATITUDE, LONGITUDE} | {variable.column for variable in self.metadata_variables}

    @property
    def identity_columns(self) -> tuple[str, ...]:
        """The identity without the timestamp, which always belongs to it, in the order that rows are sorted by."""
        if self.identity is not None:
            return tuple(dict.fromkeys(name for name in self.identity if name != TIMESTAMP))
        return tuple(variable.column for variable in self.metadata_variables) or (LATITUDE, LONGITUDE)


class IngestionMetadata(Struct, frozen=True, kw_only=True):
    """What a command says about its payload. `version` is the version of this contract."""

    dataset: DatasetMetadata
    ingestion_map: DataIngestionMap
    version: int = 1

    def __post_init__(self) -> None:
        if self.version != 1:
            raise ValueError(f"`version` {self.version} is not supported: this node speaks version 1")


def _claim(seen: dict[str, str], name: str, where: str) -> None:
    if name in seen:
        raise ValueError(f"{where} and {seen[name]} both give the column {name[:120]!r}; each name may occur once")
    seen[name] = where
