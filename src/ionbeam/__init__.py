"""ionbeam: streams of IoT observations into time-windowed, CF-described Arrow datasets.

    async with ionbeam.open("ionbeam-home") as client:
        await client.ingest(table, metadata, start, end, command_id=str(uuid.uuid4()))

`open` gives a Client to a home or a topology; `IonbeamError` is the base of all errors. Importing ionbeam is light:
what it stands on is imported when it is used.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from ionbeam.errors import IonbeamError
from ionbeam.version import VERSION

__version__ = VERSION

if TYPE_CHECKING:
    from ionbeam.client import Client
    from ionbeam.config import Topology

__all__ = ["IonbeamError", "__version__", "open"]


def open(where: str | Path | Topology) -> AbstractAsyncContextManager[Client]:
    """A Client to the home folder, topology file (`*.toml`) or Topology `where`.

    Commands sent through it wait durably for a node. Raises TopologyError or HomeError.
    """
    from ionbeam.parts import open_client

    return open_client(where)
