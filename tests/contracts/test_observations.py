"""Arrow segments keep the observation store's contract, in a folder and in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from observations_suite import HOUR, SCHEMA, ObservationsContract, OpenStore, table_of

from ionbeam.backends.embedded.observations import SegmentStore
from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.config import Topology
from ionbeam.errors import IonbeamError
from ionbeam.parts import open_stores


class TestSegmentsOnDisk(ObservationsContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: open_stores(Topology(home=str(tmp_path)))[1]


class TestSegmentsInMemory(ObservationsContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        objects = MemoryObjects()
        return lambda: SegmentStore(objects)


def test_one_segment_an_ingestion() -> None:
    """All rows of an ingestion lie in one object under its own name, whatever the number of windows."""
    objects = MemoryObjects()
    store = SegmentStore(objects, iter(["t1", "t2"]).__next__)
    shares = store.write("air", "c", HOUR, SCHEMA, [table_of([n * HOUR * 1000 for n in range(4)])])
    assert [share.placement for share in shares] == [f"observations/air/c_t1#{n}:1" for n in range(4)]
    again = store.write("air", "c", HOUR, SCHEMA, [table_of([0])])
    assert again[0].placement.startswith("observations/air/c_t2#")


def test_a_damaged_segment_is_an_error() -> None:
    """A segment that holds other rows than the ledger counted is told by its key."""
    objects = MemoryObjects()
    store = SegmentStore(objects, lambda: "t")
    (share,) = store.write("air", "c", HOUR, SCHEMA, [table_of([0, 1])])
    lesser = type(share)(window_start=0, rows=1, placement=share.placement)
    with pytest.raises(IonbeamError, match="observations/air/c_t holds 2 rows where the ledger has 1"):
        list(store.read("air", "c", lesser))
