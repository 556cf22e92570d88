"""Spellings of units that people write, and the UDUNITS spelling that they most likely mean."""

from __future__ import annotations

import difflib
import re

CF_ONLY = frozenset({"dB"})
"""Canonical units of the CF standard name table that UDUNITS lacks."""

COMMON = (
    "degC", "K", "degF", "Pa", "hPa", "kPa", "mbar", "bar", "dbar", "inHg", "mmHg", "psi", "m s-1",
    "km h-1", "knot", "mile h-1", "m", "mm", "cm", "km", "um", "inch", "ft", "mile", "mm h-1",
    "mm day-1", "inch h-1", "kg m-2 s-1", "kg m-2", "g m-2", "W m-2", "J m-2", "MJ m-2", "kW m-2", "W",
    "ug m-3", "mg m-3", "ng m-3", "g m-3", "kg m-3", "mol m-3", "m-3", "cm-3", "ppm", "ppb", "1e-3",
    "umol mol-1", "nmol mol-1", "g kg-1", "kg kg-1", "umol m-2 s-1", "mol m-2", "1", "%", "percent",
    "degree", "degrees_north", "degrees_east", "radian", "rad s-1", "s", "minute", "h", "day", "ms",
    "s-1", "Hz", "V", "mV", "A", "mA", "ohm", "S m-1", "uS cm-1", "lx", "Bq m-3", "uSv h-1", "nSv h-1",
    "m2", "m3", "L", "m3 s-1", "m3 m-3", "m s-2", "K m-1", "kg", "g", "J", "J kg-1", "N m-2", "dBZ",
    "DU", "min-1",
)  # fmt: skip

# What UDUNITS reads differently (C is coulomb, F farad, mb millibarn, mph milliphot) or not at all.
_TRAPS = {
    "c": ("degC",),
    "f": ("degF",),
    "k": ("K",),
    "degc": ("degC",),
    "degf": ("degF",),
    "mb": ("mbar",),
    "mbars": ("mbar",),
    "pa": ("Pa",),
    "mph": ("mile h-1",),
    "kph": ("km h-1",),
    "kmh": ("km h-1",),
    "kmph": ("km h-1",),
    "mps": ("m s-1",),
    "ms-1": ("m s-1",),
    "kn": ("knot",),
    "kts": ("knot",),
    "nm": ("nautical_mile", "nm"),
    "pct": ("%",),
    "psu": ("1e-3",),
    "okta": ("0.125",),
    "oktas": ("0.125",),
    "octa": ("0.125",),
    "octas": ("0.125",),
    "in": ("inch", "inHg"),
    "deg": ("degree",),
    "gpm": ("m",),
    "unitless": ("1",),
    "none": ("1",),
    "-": ("1",),
    "": ("1",),
    "#": ("1",),
    "ntu": ("1",),
    "w": ("W",),
}
_OF_HEAT = re.compile(r"(?:deg(?:ree)?s?)?[ _.]*(celsius|celcius|centigrade|c|fahrenheit|farenheit|f|kelvin|k)", re.I)
_HEAT = {"c": "degC", "f": "degF", "k": "K"}
_PER = re.compile(r"\s*/\s*([A-Za-zµμ]+)(\d*)")


def near(unit: str) -> list[str]:
    """Spellings that `unit` may stand for, the likeliest first; not checked against UDUNITS or a purpose."""
    text = unit.strip()[:100]
    found = list(_TRAPS.get(text.lower(), ()))
    if heat := _OF_HEAT.fullmatch(text.lstrip("°")):
        found.append(_HEAT[heat[1][0].lower()])
    found += _rewritten(text)
    found += _alike(text)
    return list(dict.fromkeys(found))


def _rewritten(text: str) -> list[str]:
    """`m_s-1`, `ug/m3`, `µg.m**-3`: another grammar for the same words."""
    plain = _PER.sub(lambda match: f" {match[1]}-{match[2] or '1'}", text)
    plain = re.sub(r"[\s_.*·]+", " ", plain.replace("#", "").replace("**", "").replace("^", "")).strip()
    plain = plain.replace("µ", "u").replace("μ", "u")
    return [spelling for spelling in (text, plain, *_alike(plain, cutoff=0.9)) if spelling]


def _alike(text: str, cutoff: float = 0.6) -> list[str]:
    folded: dict[str, list[str]] = {}
    for spelling in COMMON:
        folded.setdefault(spelling.lower(), []).append(spelling)
    matches = difflib.get_close_matches(text.lower(), folded, n=5, cutoff=cutoff)
    return [spelling for match in matches for spelling in folded[match]]
