"""What the README of the actor runtime shows is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ionbeam.actors import core

README = Path(core.__file__).with_name("README.md")


def test_the_example_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Run as it stands there."""
    code, said = re.findall(r"^```(?:python|text)\n(.*?)^```$", README.read_text("utf-8"), re.S | re.M)
    exec(compile(code, README.name, "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out == said
