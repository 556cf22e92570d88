"""Columns of an ingestion: where they come from and what they mean in CF terms."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ionbeam.schemas.duration import Duration, lasting

ColumnName = Annotated[str, Meta(min_length=1, max_length=255)]
StandardName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"^[A-Za-z0-9]+(_[A-Za-z0-9]+)*$(?!\n)",
        description="a name of the CF standard-name table: words of letters and digits joined by single '_'",
    ),
]
Unit = Annotated[str, Meta(min_length=1, max_length=100)]
CellMethod = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[a-z]+(_[a-z]+)*$(?!\n)",
        description="a CF cell method, such as point, mean, maximum or sum",
    ),
]
NumberType = Literal["float64", "float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
MetadataType = NumberType | Literal["string", "bool"]
TimeType = Annotated[
    str,
    Meta(
        pattern=r"^(datetime64|timestamp)\[(s|ms|us|ns)(, ?[A-Za-z0-9_+:/=-]{1,64})?\]$(?!\n)",
        description="datetime64 or timestamp with unit and, if it has one, zone: datetime64[ns, UTC]",
    ),
]


class TimeColumn(Struct, frozen=True, kw_only=True):
    """The observation time in the payload: Arrow timestamps of any unit and zone, or ISO 8601 text.

    `timezone` (IANA name) says how naive raw times are meant; without it they are refused.
    `from_col` null means the column `timestamp`.
    """

    from_col: ColumnName | None = None
    dtype: TimeType | None = "datetime64[ns, UTC]"
    timezone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None

    @property
    def raw_name(self) -> str:
        return self.from_col or "timestamp"


class Latitude(Struct, frozen=True, kw_only=True):
    """Latitude in the payload, in `cf_unit` (an angle). `from_col` null means the column `latitude`."""

    standard_name: Literal["latitude"] = "latitude"
    cf_unit: Unit = "degrees_north"
    from_col: ColumnName | None = None
    dtype: NumberType = "float64"

    @property
    def raw_name(self) -> str:
        return self.from_col or "latitude"


class Longitude(Struct, frozen=True, kw_only=True):
    """Longitude in the payload, in `cf_unit` (an angle). `from_col` null means the column `longitude`."""

    standard_name: Literal["longitude"] = "longitude"
    cf_unit: Unit = "degrees_east"
    from_col: ColumnName | None = None
    dtype: NumberType = "float64"

    @property
    def raw_name(self) -> str:
        return self.from_col or "longitude"


class CanonicalVariable(Struct, frozen=True, kw_only=True):
    """One observed quantity: the raw column and what its values mean.

    Values arrive in `from_unit` (default: `cf_unit`) and are stored in `cf_unit`. `level` is the height above
    ground in metres, `method` the CF cell method over `period`. `missing_values` are compared with the raw value
    in the raw column's own type and unit (text as the number it spells) and become null.
    """

    column: ColumnName
    standard_name: StandardName
    cf_unit: Unit
    level: float = 0.0
    method: CellMethod = "point"
    period: Duration = lasting("PT0S")
    dtype: NumberType = "float64"
    from_unit: Unit | None = None
    missing_values: tuple[float | str, ...] = ()

    def __post_init__(self) -> None:
        if not math.isfinite(self.level):
            raise ValueError(f"`level` must be a finite number of metres, got {self.level!r}")
        if self.level == 0.0:
            msgspec.structs.force_setattr(self, "level", 0.0)

    @property
    def canonical_name(self) -> str:
        """`{standard_name}__{cf_unit}__{level}__{method}__{period}`: `air_temperature__degC__2.0__point__PT0S`."""
        return f"{self.standard_name}__{self.cf_unit}__{self.level!r}__{self.method}__{self.period}"

    @classmethod
    def from_canonical_name(
        cls, name: str, *, column: str | None = None, dtype: NumberType = "float64"
    ) -> CanonicalVariable:
        """The variable that `canonical_name` was made from. Raises ValueError when `name` is not a canonical name."""
        standard_name, _, rest = name.partition("__")
        parts = rest.rsplit("__", 3)
        if len(parts) != 4 or not parts[0] or not re.fullmatch("[A-Za-z0-9]+(_[A-Za-z0-9]+)*", standard_name):
            raise ValueError(
                f"not a canonical name: {name[:120]!r}; expected standard_name__unit__level__method__period"
            )
        unit, level, method, period = parts
        return cls(
            column=column or name,
            standard_name=standard_name,
            cf_unit=unit,
            level=float(level),
            method=method,
            period=Duration(period),
            dtype=dtype,
        )


class MetadataVariable(Struct, frozen=True, kw_only=True):
    """A column that describes the observation (station, sensor, …). Kept as text; read as `dtype` first."""

    column: ColumnName
    dtype: MetadataType = "string"
