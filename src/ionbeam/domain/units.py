"""Conversions between units, by UDUNITS: `y = x * scale + offset` and nothing else."""

from __future__ import annotations

import math
import re
import threading
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ionbeam.domain import unit_spellings as spellings
from ionbeam.errors import Refused


class Conversion(Struct, frozen=True):
    """`y = x * scale + offset`."""

    scale: float
    offset: float

    @property
    def identity(self) -> bool:
        return self.scale == 1.0 and self.offset == 0.0


def apply(conversion: Conversion, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`values` converted, as float64. An identity gives the same array back; the input never changes."""
    if conversion.identity:
        return values
    # Two rounded steps, never a fused one: the same bits on every machine.
    result = np.multiply(values, conversion.scale, dtype=np.float64)
    if conversion.offset != 0.0:
        result += conversion.offset
    return result


@lru_cache(maxsize=4096)
def conversion(from_unit: str, to_unit: str) -> Conversion:
    """How values in `from_unit` become values in `to_unit`. Safe to call from any thread.

    Agrees with UDUNITS' own conversion to the rounding of its steps (temperatures go by way of kelvin); two
    spellings of one unit give the exact identity. A logarithmic unit, a reference time or a unit that CF has
    and UDUNITS lacks (`dB`) converts to its own spelling only. Raises Refused that names both units, the
    reason and nearby valid ones.
    """
    with _lock:
        for unit, other in ((from_unit, to_unit), (to_unit, from_unit)):
            if reason := _obstacle(unit):
                raise Refused(_refusal(from_unit, to_unit, reason, _near(unit, other)))
        if from_unit == to_unit:
            return Conversion(1.0, 0.0)
        for unit, other in ((from_unit, to_unit), (to_unit, from_unit)):
            if reason := _special(unit):
                raise Refused(_refusal(from_unit, to_unit, reason, _near(unit, other)))
        found = _affine(from_unit, to_unit)
        if found is None:
            reason = f"{_shown(from_unit)} does not measure what {_shown(to_unit)} measures"
            near = (
                _near(from_unit, to_unit, example=False)
                or _near(to_unit, from_unit, example=False)
                or _near(from_unit, to_unit)
            )
            raise Refused(_refusal(from_unit, to_unit, reason, near))
        return found


@lru_cache(maxsize=4096)
def unit_problem(unit: str) -> str | None:
    """Why `unit` is none that UDUNITS or CF knows, with nearby valid spellings; None when it is one."""
    with _lock:
        reason = _obstacle(unit)
        return None if reason is None else f"{reason}; {_remedy(_near(unit, None))}"


def suggestion(unit: str, target: str) -> str:
    """What to write in place of `unit`, which does not convert to `target`."""
    with _lock:
        return _remedy(_near(unit, target))


@lru_cache(maxsize=4096)
def is_reference_time(unit: str) -> bool:
    """`days since 2000-01-01` and the like."""
    with _lock:
        return _obstacle(unit) is None and unit not in spellings.CF_ONLY and _is_reference_time(_parse(unit))


# UDUNITS has global state (its error handler, the last error): one thread at a time.
_lock = threading.RLock()
_LONGEST = 255
_REFERENCE = re.compile(r"@ -?\d+T\d+")
_ANGLE_OF_HEAT = re.compile(r"(?=.*\bK\b)(?=.*\brad\b)")
_FAR = 2.0**60
_KELVIN_ROUNDING = 4 * math.ulp(500.0)


@lru_cache(maxsize=4096)
def _parse(unit: str) -> Any:
    """The `cf_units.Unit`; ValueError when there is none. Imported late: that costs 130 ms."""
    import cf_units

    with cf_units.suppress_errors():
        parsed = cf_units.Unit(unit)
    if parsed.is_unknown() or parsed.is_no_unit():
        raise ValueError(f"{unit!r} means no unit")
    return parsed


def _obstacle(unit: str) -> str | None:
    """Why `unit` cannot be used at all."""
    if unit in spellings.CF_ONLY:
        return None
    unknown = f"{_shown(unit)} is not a unit that UDUNITS knows"
    # cf_units trims, drops a final `UTC`, turns `#` into 1; C strings end at NUL. UDUNITS has none of it.
    if len(unit) > _LONGEST or unit != unit.strip() or not unit.isprintable() or "#" in unit:
        return unknown
    try:
        parsed = _parse(unit)
    except ValueError:
        return unknown
    if unit.lower().endswith("utc") and not _is_reference_time(parsed):
        return unknown
    if _ANGLE_OF_HEAT.match(parsed.definition):
        return f"UDUNITS reads {_shown(unit)} as an angle times a temperature"
    return None


def _special(unit: str) -> str | None:
    """Why the sound `unit` converts to its own spelling only."""
    if unit in spellings.CF_ONLY:
        return f"{_shown(unit)} is a unit of CF that UDUNITS cannot convert"
    parsed = _parse(unit)
    if _is_reference_time(parsed):
        return f"{_shown(unit)} is a reference time, not a linear unit"
    if "(re " in parsed.definition:
        return f"{_shown(unit)} is logarithmic, and only linear units are converted"
    return None


def _is_reference_time(parsed: Any) -> bool:
    return bool(parsed.is_time_reference() or _REFERENCE.search(parsed.definition))


def _affine(from_unit: str, to_unit: str) -> Conversion | None:
    """The conversion between two sound units; None when there is none, or it is no straight line."""
    source, target = _parse(from_unit), _parse(to_unit)
    if not source.is_convertible(target):
        return None

    def convert(value: float) -> float:
        return float(source.convert(value, target))

    # Far out the offset no longer disturbs the slope; at zero the slope does not disturb the offset.
    scale = _tidy((convert(_FAR) - convert(-_FAR)) / (2 * _FAR))
    offset = convert(0.0)
    if offset:
        simple = _fraction(offset, _KELVIN_ROUNDING * max(1.0, abs(scale)), 10_000)
        offset = offset if simple is None else simple
    # UDUNITS also "converts" reciprocals (s to Hz), which have no value at zero.
    if scale == 0.0 or not math.isfinite(scale) or not math.isfinite(offset):
        return None
    return Conversion(scale, offset or 0.0)


def _tidy(value: float) -> float:
    """`value` without the last-digit noise of UDUNITS' steps, if it or its inverse is a simple fraction."""
    if not math.isfinite(value) or value == 0.0:
        return value
    slack = 2 * math.ulp(value)
    simple = _fraction(value, slack, 100_000)
    if simple is None and abs(value) < 1.0:
        inverse = _fraction(1.0 / value, 2 * math.ulp(1.0 / value), 100_000)
        if inverse is not None and abs(1.0 / inverse - value) <= slack:
            simple = 1.0 / inverse
    return value if simple is None else simple


def _fraction(value: float, slack: float, largest_denominator: int) -> float | None:
    """The simple fraction other than 0 that lies within `slack` of `value`, if there is one."""
    if not math.isfinite(value):
        return None
    simple = float(Fraction(value).limit_denominator(largest_denominator))
    return simple if simple and abs(simple - value) <= slack else None


def _near(unit: str, other: str | None, example: bool = True) -> list[str]:
    """At most three spellings near `unit` that UDUNITS knows and, where `other` is sound, convert to it.

    Where none is near, any that convert serve as an `example`.
    """
    target = None if other is None or _obstacle(other) or _special(other) else other

    def fits(spelling: str) -> bool:
        if spelling == unit or _obstacle(spelling) is not None:
            return False
        return (
            target is None or spelling == target or (not _special(spelling) and _affine(spelling, target) is not None)
        )

    near = [spelling for spelling in spellings.near(unit) if fits(spelling)]
    if not near and target is not None and example:
        near = [spelling for spelling in spellings.COMMON if fits(spelling)]
    return near[:3]


def _refusal(from_unit: str, to_unit: str, reason: str, near: list[str]) -> str:
    return f"cannot convert {_shown(from_unit)} to {_shown(to_unit)}: {reason}; {_remedy(near)}"


def _remedy(near: list[str]) -> str:
    if not near:
        return "write a unit as UDUNITS spells it, such as 'm s-1'"
    return f"did you mean {' or '.join(map(repr, near))}?"


def _shown(unit: str) -> str:
    return repr(unit if len(unit) <= 100 else unit[:100] + "…")
