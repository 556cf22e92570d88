"""What the CF conventions say of a map's variables: standard names, units, cell methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from heapq import nsmallest
from importlib.resources import files

from msgspec import Struct

from ionbeam.domain.units import conversion, is_reference_time, suggestion, unit_problem
from ionbeam.errors import Refused
from ionbeam.schemas.variables import CanonicalVariable

CELL_METHODS = frozenset(
    {
        "point", "sum", "maximum", "maximum_absolute_value", "median", "mid_range", "minimum",
        "minimum_absolute_value", "mean", "mean_absolute_value", "mean_of_upper_decile", "mode", "range",
        "root_mean_square", "standard_deviation", "sum_of_squares", "variance",
    }
)  # fmt: skip
"""CF conventions, appendix E."""

MAX_PROBLEMS = 20


def problems(variables: Sequence[CanonicalVariable]) -> list[str]:
    """What of `variables` CF or UDUNITS does not know or does not allow, each with field, value and remedy.

    At most MAX_PROBLEMS are told, and a last line says when there are more. What was found of a variable is
    remembered, so that the next command with the same map costs microseconds.
    """
    found: list[str] = []
    for index, variable in enumerate(variables):
        of_variable = _problems(variable.standard_name, variable.cf_unit, variable.method, variable.from_unit)
        found += [f"canonical_variables[{index}].{problem}" for problem in of_variable]
        if len(found) > MAX_PROBLEMS:
            return [*found[:MAX_PROBLEMS], "more problems were not looked for; mend these first"]
    return found


def table_version() -> str:
    """The version number of the CF standard name table that is in use."""
    return _table().version


def canonical_unit(standard_name: str) -> str | None:
    """The canonical unit of `standard_name`; empty for names of text or flags, None for unknown names."""
    return _table().units.get(standard_name)


class _Table(Struct, frozen=True):
    version: str
    units: dict[str, str]
    aliases: dict[str, str]


@cache
def _table() -> _Table:
    # The format is described in scripts/make_cf_table.py.
    text = files("ionbeam.domain").joinpath("cf_standard_names.txt").read_text("utf-8")
    header, units, aliases = text.removesuffix("\n").split("\n\n")
    return _Table(version=header.split()[1], units=_pairs(units), aliases=_pairs(aliases))


def _pairs(lines: str) -> dict[str, str]:
    cells = lines.replace("\n", "\t").split("\t")
    return dict(zip(cells[::2], cells[1::2], strict=True))


@lru_cache(maxsize=8192)
def _problems(name: str, unit: str, method: str, from_unit: str | None) -> tuple[str, ...]:
    canonical = canonical_unit(name)
    found = [
        _name_problem(name) if canonical is None else None,
        _unit_problem(name, unit, canonical),
        None if method in CELL_METHODS else _method_problem(method),
        None if from_unit is None else _conversion_problem(from_unit, unit),
    ]
    return tuple(problem for problem in found if problem is not None)


def _name_problem(name: str) -> str:
    now = _table().aliases.get(name)
    if now is not None:
        return f"standard_name {name!r} is an old name; write {' or '.join(map(repr, now.split(',')))}"
    near = _near(name)
    remedy = f"did you mean {' or '.join(map(repr, near))}?" if near else "see https://cfconventions.org for the names"
    return f"standard_name {name!r} is not in the CF standard name table (version {table_version()}); {remedy}"


def _unit_problem(name: str, unit: str, canonical: str | None) -> str | None:
    # The table's own spelling always stands, also where UDUNITS lacks it.
    if unit == canonical:
        return None
    problem = unit_problem(unit)
    if problem is not None:
        return f"cf_unit {problem}"
    if canonical is None:
        return None
    if canonical == "":
        return None if unit == "1" else f"cf_unit {unit!r}: {name!r} has no unit; write '1'"
    if canonical == "s" and is_reference_time(unit):
        return None
    try:
        conversion(unit, canonical)
    except Refused:
        return (
            f"cf_unit {unit!r} does not convert to {canonical!r}, the canonical unit of {name!r};"
            f" {suggestion(unit, canonical)}"
        )
    return None


def _method_problem(method: str) -> str:
    return f"method {method!r} is not a CF cell method; choose from {', '.join(sorted(CELL_METHODS))}"


def _conversion_problem(from_unit: str, unit: str) -> str | None:
    try:
        conversion(from_unit, unit)
    except Refused as error:
        return f"from_unit {from_unit!r}: {error}"
    return None


def _near(name: str) -> list[str]:
    """At most three names by Tversky's index over trigrams: cheap, blind to word order."""
    index = _trigram_index()
    grams = _trigrams(name)
    shared = Counter(number for gram in grams for number in index.numbers.get(gram, ()))
    scores = {n: count / (0.7 * len(grams) + 0.3 * index.sizes[n]) for n, count in shared.items()}
    ranked = nsmallest(3, scores, key=lambda n: (-scores[n], index.names[n]))
    return [index.names[n] for n in ranked if scores[n] >= 0.25]


class _TrigramIndex(Struct, frozen=True):
    """Which names (by their number) have a trigram, and how many trigrams each has."""

    names: list[str]
    sizes: list[int]
    numbers: dict[str, list[int]]


@cache
def _trigram_index() -> _TrigramIndex:
    names = list(_table().units)
    sizes, numbers = [], dict[str, list[int]]()
    for number, name in enumerate(names):
        grams = _trigrams(name)
        sizes.append(len(grams))
        for gram in grams:
            numbers.setdefault(gram, []).append(number)
    return _TrigramIndex(names, sizes, numbers)


def _trigrams(name: str) -> set[str]:
    words = name.lower().replace("pm25", "pm2p5").replace("pm2_5", "pm2p5").replace("_", " ")
    text = f" {words} "
    return {text[i : i + 3] for i in range(len(text) - 2)}
