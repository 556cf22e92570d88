"""Who may import whom: the order of the house, read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent / "src"
FOUNDATION = {"ionbeam.errors", "ionbeam.version"}

MAY: dict[str, set[str]] = {
    "schemas": set(),
    "domain": {"schemas"},
    "ports": {"schemas", "domain"},
    "actors": {"schemas", "domain", "ports"},
    "backends": {"schemas", "domain", "ports"},
    "client": {"schemas", "ports", "backends"},
    "sources": {"client"},
    "exporters": {"client"},
}
"""Each folder and the folders that it may import, beside itself and the foundation."""

THIRD_PARTIES_OF_DOMAIN = {"pyarrow", "numpy", "msgspec", "cf_units"}


class Import(NamedTuple):
    """`module` imports `target`; `top`: as soon as it is imported itself."""

    module: str
    target: str
    top: bool


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "ionbeam").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(module: str) -> Iterator[Import]:
    yield from _walk(module, ast.parse(MODULES[module].read_text(encoding="utf-8")), top=True)


def _walk(module: str, node: ast.AST, *, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(module, alias.name, top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}: imports are absolute"
            assert child.module
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield Import(module, inner if inner in MODULES else child.module, top)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _walk(module, ast.Module(body=[part], type_ignores=[]), top=False)
            for part in child.orelse:
                yield from _walk(module, ast.Module(body=[part], type_ignores=[]), top=top)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(module, child, top=top and not function)


ALL = [each for module in MODULES for each in imports_of(module)]
OURS = [each for each in ALL if each.target == "ionbeam" or each.target.startswith("ionbeam.")]


def folder(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY else None


def test_there_is_something_to_look_at() -> None:
    """The sources were found, and so were their imports."""
    assert {folder(module) for module in MODULES} >= set(MAY)
    assert Import("ionbeam.actors.building", "ionbeam.ports.ledger", True) in ALL
    assert len(OURS) > 200


@pytest.mark.parametrize("name", MAY)
def test_imports_run_one_way(name: str) -> None:
    """A folder imports only what stands before it, also inside of functions and for types only."""
    wrong = [
        f"{each.module} imports {each.target}"
        for each in OURS
        if folder(each.module) == name
        and each.target not in FOUNDATION
        and folder(each.target) not in {name, *MAY[name]}
    ]
    assert wrong == []


def test_the_actor_runtime_knows_nothing_of_observations() -> None:
    """actors/core can be embedded elsewhere: of ours it needs the errors and the broker's port only."""
    allowed = {"ionbeam.errors", "ionbeam.ports.broker"}
    wrong = [
        f"{each.module} imports {each.target}"
        for each in OURS
        if each.module.startswith("ionbeam.actors.core")
        and each.target not in allowed
        and not each.target.startswith("ionbeam.actors.core")
    ]
    assert wrong == []
    third = {each.target.split(".")[0] for each in ALL if each.module.startswith("ionbeam.actors.core")}
    assert not third & {"pyarrow", "numpy", "obstore", "cf_units"}


def test_actors_do_not_know_their_backends() -> None:
    """Nobody in actors/ imports a backend, or the place where backends are chosen."""
    wrong = [
        f"{each.module} imports {each.target}"
        for each in OURS
        if folder(each.module) == "actors"
        and each.target.startswith(
            ("ionbeam.backends", "ionbeam.node", "ionbeam.parts", "ionbeam.wiring", "ionbeam.config", "ionbeam.client")
        )
    ]
    assert wrong == []


def test_the_domain_is_pure() -> None:
    """domain/ has no I/O, no clock and no Trio."""
    wrong = [
        f"{each.module} imports {each.target}"
        for each in ALL
        if folder(each.module) == "domain"
        and each.target.split(".")[0]
        in {"trio", "time", "os", "pathlib", "socket", "sqlite3", "subprocess", "random", "obstore", "logging"}
    ]
    assert wrong == []
    for path in (ROOT / "ionbeam" / "domain").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\.(now|today)\(", text), f"{path.name} looks at a clock"


def test_the_foundation_stands_on_nothing() -> None:
    """errors and version import nothing of ours; schemas nothing but them."""
    assert [each for each in OURS if each.module in FOUNDATION] == []


def test_there_is_no_circle() -> None:
    """No module needs itself to be imported, by whatever way; the package's own __init__ included."""
    needs: dict[str, set[str]] = {module: set() for module in MODULES}
    for each in OURS:
        if each.top:
            parts = each.target.split(".")
            # Whoever imports a.b.c imports a and a.b before; a package may import its own parts.
            chain = {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & set(MODULES)
            needs[each.module] |= {name for name in chain if not each.module.startswith(f"{name}.")} - {each.module}
    assert _circle(needs) is None


def _circle(needs: dict[str, set[str]]) -> list[str] | None:
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str] | None:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return None
        for following in sorted(needs[module]):
            if found := visit(following, [*way, module]):
                return found
        done.add(module)
        return None

    for module in needs:
        if found := visit(module, []):
            return found
    return None


def test_a_circle_would_be_found() -> None:
    """The search finds a circle, and only where there is one."""
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_tests_are_not_needed_to_run() -> None:
    """Only ionbeam.testing may import what is for tests."""
    wrong = [
        f"{each.module} imports {each.target}"
        for each in ALL
        if not each.module.startswith("ionbeam.testing")
        and each.target.startswith(("ionbeam.testing", "hypothesis", "pytest", "trio.testing"))
    ]
    assert wrong == []
