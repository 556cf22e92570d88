"""`ionbeam ARGUMENTS` with an exporter that says on stdout that it has begun, and never returns."""

import sys
import threading

from ionbeam import parts
from ionbeam.cli import main
from ionbeam.client import DatasetRevision, Exporter
from ionbeam.config import Topology


class Stuck:
    name = "geoparquet"

    def apply(self, revision: DatasetRevision) -> None:
        print(f"stuck with {revision.event.id}", flush=True)
        threading.Event().wait()


def open_exporters(topology: Topology) -> list[Exporter]:
    return [Stuck()]


parts.open_exporters = open_exporters
sys.exit(main())
