"""What the actor runtime offers, and what it may lean on."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest

from ionbeam.actors import core

FOLDER = Path(core.__file__).parent
ALLOWED = {"trio", "msgspec", "ionbeam.errors", "ionbeam.ports.broker"}


@pytest.mark.parametrize("name", core.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    """With a docstring of its own, and so are its public methods; a settler's are its protocol's."""
    thing = getattr(core, name)
    assert thing.__doc__ if inspect.isfunction(thing) else vars(thing).get("__doc__")
    if not inspect.isclass(thing) or name == "BrokerSettler":
        return
    for member, value in vars(thing).items():
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            assert value.__doc__, f"{name}.{member}"


def test_all_names_are_sorted_and_there() -> None:
    """What a module of the package defines in public is either offered or used inside only."""
    assert core.__all__ == sorted(core.__all__)
    assert len(set(core.__all__)) == len(core.__all__)


def test_the_readme_names_the_main_parts() -> None:
    """A reader finds each class that one constructs."""
    text = (FOLDER / "README.md").read_text("utf-8")
    for name in (
        "Mailbox",
        "Inbox",
        "Delivery",
        "Settler",
        "intake",
        "patient",
        "Backoff",
        "Supervisor",
        "Child",
    ):
        assert name in text


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_it_can_be_embedded_elsewhere(path: Path) -> None:
    """It imports the standard library, trio, msgspec, the errors and the broker's port, no more."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module or ""]
        else:
            continue
        for name in names:
            inside = name.startswith("ionbeam.actors.core")
            assert inside or name in ALLOWED or name.split(".")[0] in sys.stdlib_module_names, name
