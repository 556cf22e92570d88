"""Conversions agree with UDUNITS, and refusals say what to write."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import cf_units
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionbeam.domain import units
from ionbeam.domain.units import Conversion, apply, conversion, is_reference_time, suggestion, unit_problem
from ionbeam.errors import Refused

KINDS = [
    ("K", "degC", "degF", "celsius", "degR"),
    ("hPa", "Pa", "mbar", "inHg", "mmHg", "kPa"),
    ("m s-1", "knot", "km h-1", "mile h-1"),
    ("ug m-3", "kg m-3", "ug/m3", "mg m-3"),
    ("%", "1", "ppm"),
    ("mm", "inch", "m"),
    ("degrees", "radian", "degrees_north"),
]
PAIRS = [(a, b) for kind in KINDS for a in kind for b in kind]


@given(st.sampled_from(PAIRS), st.floats(-1e9, 1e9))
def test_agrees_with_udunits(pair: tuple[str, str], value: float) -> None:
    """A converted value is UDUNITS' own to a few units in the last place (of 500 by way of kelvin)."""
    source, target = pair
    ours = apply(conversion(source, target), np.array([value]))[0]
    theirs = cf_units.Unit(source).convert(value, target)
    heat = 500.0 if source in KINDS[0] and source != target else 0.0
    assert abs(ours - theirs) <= 8 * max(math.ulp(theirs), math.ulp(heat * 1.8) if heat else 0.0)


@given(st.sampled_from(PAIRS), st.floats(-1e6, 1e6))
def test_there_and_back(pair: tuple[str, str], value: float) -> None:
    """Converting back gives the value back."""
    source, target = pair
    there = apply(conversion(source, target), np.array([value]))
    back = apply(conversion(target, source), there)[0]
    assert back == pytest.approx(value, rel=1e-14, abs=1e-12)


@pytest.mark.parametrize(
    ("source", "target", "scale", "offset"),
    [
        ("degC", "degF", 1.8, 32.0),
        ("degF", "degC", 5 / 9, -160 / 9),
        ("K", "degC", 1.0, -273.15),
        ("kg m-3", "ug m-3", 1e9, 0.0),
        ("ug m-3", "kg m-3", 1e-9, 0.0),
        ("ug L-1", "kg m-3", 1e-6, 0.0),
        ("inch", "mm", 25.4, 0.0),
        ("mile h-1", "m s-1", 0.44704, 0.0),
        ("knot", "m s-1", 1852 / 3600, 0.0),
        ("hPa", "Pa", 100.0, 0.0),
        ("m", "-1 m", -1.0, 0.0),
    ],
)
def test_free_of_noise(source: str, target: str, scale: float, offset: float) -> None:
    """Where the exact factor is a simple fraction it is that, without UDUNITS' rounding noise."""
    assert conversion(source, target) == Conversion(scale, offset)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("degC", "celsius"),
        ("degC", "°C"),
        ("hPa", "mbar"),
        ("ug m-3", "µg/m3"),
        ("dBZ", "dBZ"),
        ("dB", "dB"),
        ("1", "1"),
    ],
)
def test_two_spellings_of_one_unit(source: str, target: str) -> None:
    """Two spellings of one unit, and a unit and itself, convert by the identity: the same array."""
    found = conversion(source, target)
    assert found.identity
    values = np.array([1.5, -0.0, math.nan])
    assert apply(found, values) is values


def test_apply_leaves_its_input_alone() -> None:
    """The input keeps its values; the result is float64, whatever went in; NaN and infinities pass."""
    values = np.array([0.0, 100.0, math.nan, math.inf])
    before = values.copy()
    np.testing.assert_array_equal(apply(conversion("degC", "degF"), values), [32.0, 212.0, math.nan, math.inf])
    np.testing.assert_array_equal(values, before)
    whole = np.array([1, 2], dtype=np.int32)
    assert apply(Conversion(2.0, 0.0), whole).dtype == np.float64  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "target", "blamed", "near"),
    [
        ("C", "K", "C", "degC"),
        ("K", "C", "C", "degC"),
        ("F", "degC", "F", "degF"),
        ("hpa", "Pa", "hpa", "hPa"),
        ("m_s-1", "knot", "m_s-1", "m s-1"),
        ("ms-1", "m s-1", "ms-1", "m s-1"),
        ("ug/m^3.", "kg m-3", "ug/m^3.", "ug m-3"),
        ("g_cm-3", "kg m-3", "g_cm-3", "g cm-3"),
        ("mb", "Pa", "mb", "mbar"),
        ("mph", "m s-1", "mph", "mile h-1"),
        ("Wm-2", "W m-2", "Wm-2", "W m-2"),
        ("deg C", "K", "deg C", "degC"),
        ("degrees Celsius", "K", "degrees Celsius", "degC"),
        ("Pa", "hpa", "hpa", "hPa"),
        ("pct", "1", "pct", "%"),
        ("kg", "m", "kg", "mm"),
    ],
)
def test_refusal_names_units_and_remedy(source: str, target: str, blamed: str, near: str) -> None:
    """A refusal names both units, blames one, and proposes a spelling that works."""
    with pytest.raises(Refused) as refusal:
        conversion(source, target)
    text = str(refusal.value)
    assert text.startswith(f"cannot convert {source!r} to {target!r}: ")
    assert repr(blamed) in text.partition(": ")[2]
    assert repr(near) in text.partition("did you mean")[2]
    conversion(near, near)


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("dBZ", "m3", "logarithmic"),
        ("K", "dBm", "logarithmic"),
        ("ln(re 1 K)", "K", "logarithmic"),
        ("days since 2000-01-01", "s", "reference time"),
        ("s @ 20000101", "s", "reference time"),
        ("s", "Hz", "does not measure"),
        ("s m-1", "m s-1", "does not measure"),
        ("dB", "1", "UDUNITS cannot convert"),
        ("degrees Celsius", "degrees Celsius", "an angle times a temperature"),
    ],
)
def test_only_straight_lines(source: str, target: str, why: str) -> None:
    """Logarithms, reference times and reciprocals, which UDUNITS also converts, are refused."""
    with pytest.raises(Refused, match=why):
        conversion(source, target)


@pytest.mark.parametrize(
    "unit",
    ["", "foo", " m", "m utc", "unknown", "no_unit", "#", "m\0x", "0 m", "1e400 m", "m" * 300, "\ud800"],
)
def test_what_is_no_unit(unit: str) -> None:
    """What UDUNITS' grammar does not have is refused, also where cf_units would let it pass."""
    assert unit_problem(unit) is not None
    with pytest.raises(Refused, match="not a unit that UDUNITS knows"):
        conversion(unit, "m")
    with pytest.raises(Refused, match="not a unit that UDUNITS knows"):
        conversion(unit, unit)


@given(st.text(max_size=40), st.sampled_from(["m", "degC", "1"]))
def test_any_text_converts_or_is_refused(unit: str, target: str) -> None:
    """No text does anything but convert or be refused with both units named."""
    if unit_problem(unit) is not None:
        with pytest.raises(Refused) as refusal:
            conversion(unit, target)
        assert repr(unit) in str(refusal.value)
        assert repr(target) in str(refusal.value)
    else:
        assert conversion(unit, unit).identity


def test_reference_times_are_told() -> None:
    """`since` makes a reference time; other units, and what is no unit, are none."""
    assert is_reference_time("days since 2000-01-01")
    assert not any(map(is_reference_time, ["s", "day", "dB", "foo", "degC"]))


def test_suggestion() -> None:
    """A suggestion converts to what is asked for."""
    assert suggestion("C", "K") == "did you mean 'degC'?"


def test_many_threads() -> None:
    """Threads that ask at once, for good and bad units, all get the right answer."""
    wrong: list[object] = []
    start = threading.Barrier(8)

    def ask(number: int) -> None:
        start.wait()
        for step in range(50):
            factor = 2 + number * 50 + step
            found = conversion(f"{factor} m", "m")
            if found != Conversion(float(factor), 0.0) or unit_problem(f"nonsense{factor}") is None:
                wrong.append((factor, found))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """UDUNITS, which has global state, is only ever asked under the lock."""
    held: list[bool] = []
    lock, parse = threading.RLock(), units._parse
    depth = 0

    class Counting:
        def __enter__(self) -> None:
            nonlocal depth
            lock.acquire()
            depth += 1

        def __exit__(self, *_: object) -> None:
            nonlocal depth
            depth -= 1
            lock.release()

    def watched(unit: str) -> object:
        held.append(depth > 0)
        return parse(unit)

    monkeypatch.setattr(units, "_lock", Counting())
    monkeypatch.setattr(units, "_parse", watched)
    conversion("3.25 degC", "3.25 K")
    unit_problem("3.25 mbar")
    is_reference_time("3.25 s")
    suggestion("3.25 C", "K")
    assert len(held) >= 4
    assert all(held)


def test_the_import_is_light() -> None:
    """Importing the module does not import cf_units."""
    code = "import ionbeam.domain.cf, ionbeam.domain.units, sys; sys.exit('cf_units' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
