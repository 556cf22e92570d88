"""What every ObservationStore promises. A backend passes these tests by giving the fixture `open_store`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ionbeam.errors import IonbeamError
from ionbeam.ports.observations import ObservationStore, Share

OpenStore = Callable[[], ObservationStore]
"""One more view of the same store, as another process would have it."""

HOUR = 3_600 * 10**6
TEXTS = [
    None,
    "",
    "a",
    "é",
    "e\u0301",
    "\U0001f600",
    "a,b",
    "a b=c",
    'q"q',
    "back\\slash",
    "new\nline",
    "nul\x00",
    "\u202e",
    "x" * 70_000,
]
REALS = [None, 0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1, 1 / 3, -273.15]
SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.int64(), nullable=False),
        pa.field("latitude", pa.float64(), nullable=False),
        pa.field("longitude", pa.float64(), nullable=False),
        pa.field("air_temperature__degC__2.0__mean__PT10M", pa.float64()),
        pa.field('relative humidity, "odd"', pa.float32()),
        pa.field("count", pa.int64()),
        pa.field("most", pa.uint64()),
        pa.field("station", pa.string()),
        pa.field("note", pa.string()),
        pa.field("__row", pa.int64(), nullable=False),
    ]
)


def table_of(times: list[int], offset: int = 0) -> pa.Table:
    """Rows at `times` (nanoseconds) with every kind of value."""
    size = len(times)
    at = [n + offset for n in range(size)]
    columns: list[list[Any]] = [
        times,
        [(n % 180) - 90.0 for n in at],
        [0.1 * n for n in at],
        [REALS[n % len(REALS)] for n in at],
        [None if n % 3 == 0 else float(np.float32(0.1) * np.float32(n % 7)) for n in at],
        [None if n % 5 == 0 else -(2**63) + n for n in at],
        [None if n % 7 == 0 else 2**64 - 1 - n for n in at],
        [TEXTS[n % len(TEXTS)] for n in at],
        [None] * size,
        at,
    ]
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def bits(table: pa.Table) -> list[tuple[Any, ...]]:
    """The rows to the last bit."""

    def exact(value: Any) -> Any:
        return struct.pack("d", value) if isinstance(value, float) else value

    return [tuple(map(exact, row.values())) for row in table.to_pylist()]


class ObservationsContract:
    def write(self, store: ObservationStore, name: str, tables: list[pa.Table], dataset: str = "air") -> list[Share]:
        return store.write(dataset, name, HOUR, SCHEMA, iter(tables))

    def read(self, store: ObservationStore, name: str, share: Share, dataset: str = "air") -> pa.Table:
        return pa.concat_tables([table.select(SCHEMA.names) for table in store.read(dataset, name, share)])

    def test_whole_rows_come_back_exactly(self, open_store: OpenStore) -> None:
        """Bits of floats, −0.0, nulls, extreme integers, any text, an all-null column, the order: nothing changes."""
        table = table_of([n * 10**9 for n in range(200)])
        (share,) = self.write(open_store(), "i", [table])
        found = self.read(open_store(), "i", share)
        assert found.schema.types == SCHEMA.types
        assert bits(found) == bits(table)

    def test_shares_say_what_lies_where(self, open_store: OpenStore) -> None:
        """A share for each window with rows, in order of time, before 1970 too; a border is in the later window."""
        hour = HOUR * 1000
        times = [-2 * hour, -1, 0, 1, hour - 1, hour, 5 * hour]
        table = table_of(times)
        store = open_store()
        shares = self.write(store, "i", [table])
        assert [(s.window_start // HOUR, s.rows) for s in shares] == [(-2, 1), (-1, 1), (0, 3), (1, 1), (5, 1)]
        assert bits(pa.concat_tables([self.read(store, "i", share) for share in shares])) == bits(table)

    @pytest.mark.parametrize("cuts", [[], [50], [1, 2, 99], list(range(1, 100))])
    def test_tables_may_come_in_pieces(self, open_store: OpenStore, cuts: list[int]) -> None:
        """However the rows are cut into tables, and wherever a window's border lies, the shares hold the same rows."""
        table = table_of([n * HOUR * 100 for n in range(100)])
        pieces = [table.slice(a, b - a) for a, b in pairwise([0, *cuts, 100])]
        store = open_store()
        shares = self.write(store, "i", pieces)
        assert [s.rows for s in shares] == [10] * 10
        assert bits(pa.concat_tables([self.read(store, "i", share) for share in shares])) == bits(table)

    def test_pieces_are_bounded(self, open_store: OpenStore) -> None:
        """A window of many rows is read in pieces, in order, none of them much longer than 100,000 rows."""
        size = 300_000
        columns = {"timestamp": np.arange(size) * 10_000_000, "latitude": np.zeros(size), "longitude": np.zeros(size)}
        kinds = pa.schema([*list(SCHEMA)[:3], SCHEMA.field("__row")])
        table = pa.table({**columns, "__row": np.arange(size)}, schema=kinds)
        store = open_store()
        (share,) = store.write("air", "i", HOUR, kinds, [table])
        pieces = list(store.read("air", "i", share))
        assert share.rows == size == sum(map(len, pieces))
        assert max(map(len, pieces)) <= 131_072
        assert [n for piece in pieces for n in (piece["__row"][0].as_py(), piece["__row"][-1].as_py())][-1] == size - 1
        assert np.array_equal(pa.concat_tables(pieces)["__row"].to_numpy(), np.arange(size))

    def test_the_same_rows_may_be_written_again(self, open_store: OpenStore) -> None:
        """A write that is repeated shows through nowhere: either's shares give the rows once."""
        table = table_of([n * 10**9 for n in range(20)])
        first = self.write(open_store(), "i", [table])
        second = self.write(open_store(), "i", [table])
        for shares in (first, second):
            assert [s.rows for s in shares] == [20]
            assert bits(self.read(open_store(), "i", shares[0])) == bits(table)

    def test_ingestions_do_not_mix(self, open_store: OpenStore) -> None:
        """Rows of one time in two ingestions, and in two datasets, stay apart."""
        store, times = open_store(), [0, 1, 2]
        one, two, other = table_of(times), table_of(times, 5), table_of(times, 9)
        a, b = self.write(store, "a", [one])[0], self.write(store, "b", [two])[0]
        c = self.write(store, "a", [other], dataset="rail")[0]
        assert bits(self.read(store, "a", a)) == bits(one)
        assert bits(self.read(store, "b", b)) == bits(two)
        assert bits(self.read(store, "a", c, "rail")) == bits(other)

    def test_rows_of_one_time_all_stay(self, open_store: OpenStore) -> None:
        """Rows that agree in time and station are still rows of their own."""
        table = table_of([7] * (3 * len(TEXTS)))
        store = open_store()
        (share,) = self.write(store, "i", [table])
        assert bits(self.read(store, "i", share)) == bits(table)

    def test_a_write_that_breaks_off_is_never_read(self, open_store: OpenStore) -> None:
        """What was written of an ingestion that failed shows through nowhere, also when it comes again."""

        def breaking() -> Iterator[pa.Table]:
            yield table_of([1, 2])
            raise RuntimeError("the payload breaks off")

        store = open_store()
        with pytest.raises(RuntimeError, match="breaks off"):
            store.write("air", "i", HOUR, SCHEMA, breaking())
        table = table_of([3], 4)
        (share,) = self.write(store, "i", [table])
        assert share.rows == 1
        assert bits(self.read(open_store(), "i", share)) == bits(table)

    def test_no_rows_no_shares(self, open_store: OpenStore) -> None:
        """An ingestion without rows has no share in any window."""
        assert self.write(open_store(), "i", []) == []

    def test_what_is_forgotten_is_gone(self, open_store: OpenStore) -> None:
        """Rows that nothing needs can be removed, once or again, and others stay."""
        store = open_store()
        table = table_of([0, HOUR * 1000])
        gone, kept = self.write(store, "gone", [table]), self.write(store, "kept", [table])
        store.forget("air", "gone", gone)
        store.forget("air", "gone", gone)
        store.forget("air", "nothing", [])
        with pytest.raises(IonbeamError):
            list(store.read("air", "gone", gone[0]))
        assert [len(self.read(store, "kept", share)) for share in kept] == [1, 1]

    def test_rows_that_are_not_what_the_share_says(self, open_store: OpenStore) -> None:
        """A share that counts other rows than are there is an error, not a smaller window."""
        store = open_store()
        (share,) = self.write(store, "i", [table_of([0, 1])])
        wrong = Share(window_start=share.window_start, rows=3, placement=share.placement)
        with pytest.raises(IonbeamError):
            list(store.read("air", "i", wrong))

    def test_stored_columns_may_be_few(self, open_store: OpenStore) -> None:
        """An ingestion stores the columns of its own map."""
        store = open_store()
        few = pa.schema([*list(SCHEMA)[:3], SCHEMA.field("__row")])
        table = table_of([0]).select(few.names)
        (share,) = store.write("air", "i", HOUR, few, [table])
        assert next(iter(store.read("air", "i", share))).to_pylist() == table.to_pylist()
