"""What CF says of a map's variables."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ionbeam.domain import cf
from ionbeam.schemas.variables import CanonicalVariable

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_cf_table.py"


def variable(name: str = "air_temperature", unit: str = "K", **others: str) -> CanonicalVariable:
    return CanonicalVariable(column="raw", standard_name=name, cf_unit=unit, **others)  # type: ignore[arg-type]


def test_the_whole_table_is_sound() -> None:
    """Each of the thousands of names has no problem with its own canonical unit."""
    table = cf._table()
    assert len(table.units) > 4000
    assert len(table.aliases) > 400
    assert int(cf.table_version()) >= 90
    variables = [variable(name, unit) for name, unit in table.units.items()]
    assert cf.problems(variables) == []


def test_aliases_lead_to_names() -> None:
    """An alias is no name, and each name that it stands for is one."""
    table = cf._table()
    for alias, names in table.aliases.items():
        assert alias not in table.units
        assert all(name in table.units for name in names.split(","))


@pytest.mark.parametrize("method", sorted(cf.CELL_METHODS))
def test_cell_methods(method: str) -> None:
    """The cell methods of appendix E are known."""
    assert cf.problems([variable(method=method)]) == []


@pytest.mark.parametrize(
    ("name", "unit", "others"),
    [
        ("air_temperature", "degC", {}),
        ("air_temperature", "degC", {"from_unit": "degF"}),
        ("relative_humidity", "%", {}),
        ("wind_speed", "knot", {}),
        ("time", "days since 2000-01-01", {}),
        ("equivalent_reflectivity_factor", "dBZ", {}),
        ("region", "1", {}),
        ("wind_from_direction", "radian", {}),
    ],
)
def test_no_problem(name: str, unit: str, others: dict[str, str]) -> None:
    """A unit that converts to the canonical one is as good as that one."""
    assert cf.problems([variable(name, unit, **others)]) == []


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            variable("air_temprature"),
            ["standard_name 'air_temprature'", f"version {cf.table_version()}", "'air_temperature'"],
        ),
        (variable("windspeed", "m s-1"), ["standard_name 'windspeed'", "'wind_speed'"]),
        (variable("AirTemperature"), ["'air_temperature'"]),
        (variable("zzzz"), ["standard_name 'zzzz'", "https://cfconventions.org"]),
        (
            variable("chlorophyll_concentration_in_sea_water", "kg m-3"),
            ["old name", "'mass_concentration_of_chlorophyll_in_sea_water'"],
        ),
        (
            variable("surface_carbon_dioxide_mole_flux", "mol m-2 s-1"),
            [
                "'surface_downward_mole_flux_of_carbon_dioxide' or ",
                "'surface_upward_mole_flux_of_carbon_dioxide'",
            ],
        ),
        (variable(unit="hpa"), ["cf_unit 'hpa'", "UDUNITS", "'hPa'"]),
        (variable(unit="C"), ["cf_unit 'C'", "canonical unit of 'air_temperature'", "'K'", "'degC'"]),
        (variable("wind_speed", "s m-1"), ["cf_unit 's m-1'", "'m s-1'"]),
        (variable("wind_speed", "days since 2000-01-01"), ["cf_unit 'days since 2000-01-01'", "'m s-1'"]),
        (variable("region", "m"), ["cf_unit 'm'", "has no unit", "'1'"]),
        (variable(method="average"), ["method 'average'", "mean", "point"]),
        (variable(from_unit="hPa"), ["from_unit 'hPa'", "'K'"]),
    ],
)
def test_each_problem(bad: CanonicalVariable, said: list[str]) -> None:
    """A problem names field and index, value, and remedy; the sound variable before it has none."""
    (problem,) = cf.problems([variable(), bad])
    assert problem.startswith("canonical_variables[1].")
    for words in said:
        assert words in problem


def test_suggested_names_are_names() -> None:
    """At most three names are proposed, each from the table, the likeliest first."""
    near = cf._near("relative_humidty")
    assert near[0] == "relative_humidity"
    assert len(near) <= 3
    assert all(cf.canonical_unit(name) is not None for name in near)
    assert "pm2p5" in cf._near("pm25")[0]


def test_several_problems_of_one_variable() -> None:
    """All that is wrong with a variable is said at once, in the order of its fields."""
    found = cf.problems([variable("nonsense_zq", "hpa", method="average", from_unit="C")])
    assert [problem.split()[0].partition(".")[2] for problem in found] == [
        "standard_name",
        "cf_unit",
        "method",
        "from_unit",
    ]


def test_endless_problems_are_cut_short() -> None:
    """A map of thousands of bad names is told the first ones, and that there are more."""
    found = cf.problems([variable(f"bad_{number}") for number in range(2000)])
    assert len(found) == cf.MAX_PROBLEMS + 1
    assert "more problems" in found[-1]
    assert len(cf.problems([variable(f"bad_{number}") for number in range(cf.MAX_PROBLEMS)])) == cf.MAX_PROBLEMS


def test_asked_again_costs_nothing() -> None:
    """The second command of a map finds every answer remembered."""
    variables = [variable(unit=f"{number} K") for number in range(1, 20)]
    cf.problems(variables)
    before = cf._problems.cache_info()
    cf.problems(variables)
    after = cf._problems.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + len(variables))


XML = """<?xml version="1.0"?><standard_name_table>
  <version_number>7</version_number><last_modified>2026-01-02T03:04:05Z</last_modified>
  <entry id="b_name"><canonical_units>m  s-1</canonical_units></entry>
  <entry id="a_name"><canonical_units/></entry>
  <alias id="old"><entry_id>b_name</entry_id><entry_id>a_name</entry_id></alias>
</standard_name_table>"""


def test_the_script_makes_the_same_bytes(tmp_path: Path) -> None:
    """The table is sorted, carries version, date and source, and does not depend on when it is made."""
    (tmp_path / "table.xml").write_text(XML)
    made = []
    for name in ("one.txt", "two.txt"):
        subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "table.xml"), str(tmp_path / name)], check=True)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    header, units, aliases = made[0].decode().split("\n\n")
    assert header.split()[:3] == ["#", "7", "2026-01-02T03:04:05Z"]
    assert "cfconventions.org" in header
    assert units == "a_name\t\nb_name\tm s-1"
    assert aliases == "old\ta_name,b_name\n"


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("<entry_id>b_name", "<entry_id>c_name", "c_name"),
        ("<version_number>7</version_number>", "", "version_number"),
        ('id="a_name"', 'id="b_name"', "canonical units"),
    ],
)
def test_the_script_refuses_a_broken_table(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    """A table without version, with a dangling alias or with two units for a name is refused."""
    spec = importlib.util.spec_from_file_location("make_cf_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    xml = tmp_path / "table.xml"
    xml.write_text(XML.replace(was, becomes))
    with pytest.raises(ValueError, match=said):
        script.compact(xml)
