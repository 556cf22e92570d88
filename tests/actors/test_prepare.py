"""From a payload to stored rows, quarantine and counts: whatever its form, however it is cut, however little memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from itertools import count, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trio
from at_home import P, T, at, command, ipc_file, ipc_stream, metadata, row, rows, variable
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.actors.prepare import MOST_REASONS, OTHER, Prepared, PrepareRules, prepare
from ionbeam.backends.embedded.observations import SegmentStore
from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.domain.digest import RowsDigest
from ionbeam.errors import PayloadMissing, Refused
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import IngestDataCommand

ISSUED = at(7200)


class Bench:
    """A store in memory, with tokens that count."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        numbers = count(1)
        self.token = lambda: f"token{next(numbers)}"
        self.store = SegmentStore(self.objects, self.token)

    def prepare(self, payload: bytes | pa.Table, asked: IngestDataCommand | None = None, **rules: Any) -> Prepared:
        asked = asked or command("c")
        self.objects.place(asked.payload_location, payload if isinstance(payload, bytes) else ipc_file(payload))
        return prepare(asked, ISSUED, PrepareRules(**rules), self.objects, self.store, self.token)

    def stored(self, prepared: Prepared) -> list[dict[str, Any]]:
        tables = [table for share in prepared.shares for table in self.store.read("air", "c", share)]
        return [row for table in tables for row in table.to_pylist()]

    def digest(self, prepared: Prepared) -> str:
        found = RowsDigest()
        for share in prepared.shares:
            for table in self.store.read("air", "c", share):
                found.update(table)
        return found.hexdigest()

    def quarantined(self, prepared: Prepared) -> pa.Table:
        assert prepared.quarantine_location is not None
        return pa.ipc.open_stream(self.objects.open(prepared.quarantine_location)).read_all()

    def listed(self) -> set[str]:
        async def walk() -> set[str]:
            return {key async for key in self.objects.list("")}

        return trio.run(walk)


def content(size: int, seed: int, fold: str = "row") -> pa.Table:
    """Rows with duplicates, conflicts, rejections and nulls, in no order."""
    chance = Random(seed)
    made = []
    for _ in range(size):
        made.append(
            row(
                chance.randrange(0, 9000, 600 if size < 200 else 20),
                chance.choice(["a", "b", None, "é", "\U0001f600"]),
                t=chance.choice([280.0, 281.0, 282.5, None, float("nan"), -999.0]),
                p=chance.choice([None, 1e5, float("inf")]),
                latitude=chance.choice([1.0, 1.0, 1.0, 1.0, 1.5, None, 91.0]),
                longitude=chance.choice([2.0, 2.0, 200.0]),
            )
        )
    return rows(*made)


MISSING = metadata(canonical_variables=(variable("t", missing_values=(-999.0,)), variable("p", dtype="float32")))
VALUE = metadata(canonical_variables=MISSING.ingestion_map.canonical_variables, fold="value")


def cut(table: pa.Table, borders: list[int]) -> bytes:
    """An IPC file whose batches end at `borders`."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for low, high in pairwise([0, *sorted(min(b, len(table)) for b in borders), len(table)]):
            for batch in table.slice(low, high - low).combine_chunks().to_batches() or []:
                writer.write_batch(batch)
    return sink.getvalue()


def outcome(bench: Bench, prepared: Prepared) -> tuple[Any, ...]:
    quarantined = None
    if prepared.quarantine_location is not None:
        quarantined = [repr(row) for row in bench.quarantined(prepared).to_pylist()]
    shares = [(share.window_start, share.rows) for share in prepared.shares]
    return prepared.counts, shares, prepared.first, prepared.last, bench.digest(prepared), quarantined


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 80),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 80), max_size=6),
    st.sampled_from([1, 3, 10, 50, 10**6]),
    st.sampled_from([MISSING, VALUE]),
)
def test_cuts_and_memory_do_not_matter(size: int, seed: int, borders: list[int], chunk_rows: int, about: Any) -> None:
    """Stored rows, counts, shares and quarantine depend on the rows of the payload alone."""
    table, asked = content(size, seed), command("c", about)
    one, other = Bench(), Bench()
    whole = outcome(one, one.prepare(ipc_file(table), asked))
    again = outcome(other, other.prepare(cut(table, borders), asked, chunk_rows=chunk_rows))
    assert again == whole
    assert whole[0].balanced


@pytest.mark.parametrize("chunk_rows", [100, 1_000, 10_000, 1_000_000])
def test_big_payloads_in_little_memory(chunk_rows: int) -> None:
    """From 100 rows at a time to all at once: the same."""
    table = content(12_000, 5)
    bench = Bench()
    found = outcome(bench, bench.prepare(ipc_file(table, 97), command("c", VALUE), chunk_rows=chunk_rows))
    reference = Bench()
    assert found == outcome(reference, reference.prepare(ipc_stream(table), command("c", VALUE)))
    assert found[0].received == 12_000
    assert found[0].balanced
    assert min(found[0].accepted, found[0].duplicate, found[0].merged, found[0].conflict, found[0].rejected) > 0


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=70)
    return sink.getvalue()


def encoded(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("station")
    return table.set_column(place, "station", table["station"].dictionary_encode())


@pytest.mark.parametrize(
    "form",
    [
        ipc_stream,
        parquet,
        lambda table: ipc_file(table, 50, compression="lz4"),
        lambda table: ipc_stream(table, 50, compression="zstd"),
        lambda table: ipc_file(encoded(table), 1000),
        lambda table: ipc_stream(encoded(table), 50, emit_dictionary_deltas=True),
    ],
)
def test_the_form_does_not_matter(form: Any) -> None:
    """IPC file, stream, Parquet, compression, dictionaries: what is stored and counted is the same."""
    table, one, other = content(500, 3), Bench(), Bench()
    assert outcome(one, one.prepare(form(table))) == outcome(other, other.prepare(ipc_file(table)))


def test_dictionaries_that_differ_between_batches() -> None:
    """Each batch may bring its own dictionary, for stations and for numbers."""
    parts = []
    for names in (["a", "b"], ["c", "a", None]):
        part = rows(*(row(60 * n, name, t=280.0 + n) for n, name in enumerate(names)))
        for column in ("station", "t"):
            part = part.set_column(part.schema.get_field_index(column), column, part[column].dictionary_encode())
        parts.append(part)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, parts[0].schema) as writer:
        for part in parts:
            writer.write_table(part)
    for chunk_rows in (1, 1000):
        bench = Bench()
        stored = bench.stored(bench.prepare(sink.getvalue(), chunk_rows=chunk_rows))
        assert [(r["station"], r[T]) for r in stored] == [
            ("a", 280.0),
            ("c", 280.0),
            ("a", 281.0),
            ("b", 281.0),
            (None, 282.0),
        ]


# -- counts, shares, quarantine ------------------------------------------------------------------------------------


def test_shares_say_which_windows_have_rows() -> None:
    """A share for each window, in order of time, with the rows in it; first and last stored time beside."""
    bench = Bench()
    prepared = bench.prepare(rows(row(-1), row(0), row(3599.999999), row(3600), row(7201, t=None)))
    hour, start = 3600 * 10**6, int(at(0).timestamp()) * 10**6
    assert [(s.window_start - start, s.rows) for s in prepared.shares] == [(-hour, 1), (0, 2), (hour, 1)]
    assert (prepared.first, prepared.last) == (start * 1000 - 10**9, start * 1000 + hour * 1000)
    assert prepared.counts.reasons == {"no_value": 1}


def test_the_quarantine_keeps_raw_rows_with_reasons() -> None:
    """Rejected rows are kept as they came, ignored columns included, with their place and their reason."""
    bench = Bench()
    schema = rows().schema.append(pa.field("extra", pa.list_(pa.int8())))
    table = rows(
        row(0, extra=[1]), row(60, latitude=None, extra=[2, 3]), row(120, "x", t=None, extra=None), schema=schema
    )
    prepared = bench.prepare(table)
    kept = bench.quarantined(prepared)
    assert kept.column_names == ["__row", "__reason", *table.column_names]
    assert kept["__row"].to_pylist() == [1, 2]
    assert kept["__reason"].to_pylist() == ["position_missing", "no_value"]
    assert kept.select(table.column_names).to_pylist() == table.slice(1).to_pylist()
    assert prepared.counts.ignored_columns == 1
    assert (prepared.counts.received, prepared.counts.accepted, prepared.counts.rejected) == (3, 1, 2)


def test_ignored_columns_of_any_type_go_into_quarantine() -> None:
    """A column that the map does not name may be of a type that nothing here computes with."""
    extras = {
        "list": pa.array([[1], None]),
        "struct": pa.array([{"a": 1}, None]),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
        "binary": pa.array([b"\xff", None]),
        "binary_view": pa.array([b"\xff", None], pa.binary_view()),
        "list_view": pa.array([[1], None], pa.list_view(pa.int8())),
        "fixed": pa.array([b"ab", None], pa.binary(2)),
        "duration": pa.array([1, None], pa.duration("s")),
        "interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        "run": pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["x"])),
        "union": pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([5]), pa.array(["x"])]
        ),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "string_view": pa.array(["x", None], pa.string_view()),
        "list of views": pa.array([["x"], None], pa.list_(pa.string_view())),
    }
    for name, extra in extras.items():
        table = rows(row(0), row(60, t=None)).append_column(name, extra)
        bench = Bench()
        prepared = bench.prepare(table)
        assert prepared.counts.reasons == {"no_value": 1}, name
        assert bench.quarantined(prepared).num_rows == 1, name


def test_text_views_with_rejected_rows() -> None:
    """Text of the newest kind of column is read, and kept where its row is rejected."""
    table = rows(row(0, "a"), row(60, "b", t=None), row(120, None), row(180, "d", t=None))
    place = table.schema.get_field_index("station")
    table = table.set_column(place, "station", table["station"].cast(pa.string_view()))
    bench = Bench()
    prepared = bench.prepare(table)
    assert [r["station"] for r in bench.stored(prepared)] == ["a", None]
    assert bench.quarantined(prepared)["station"].to_pylist() == ["b", "d"]


def test_nothing_rejected_nothing_in_quarantine() -> None:
    """An object is made only when there is a row to keep."""
    bench = Bench()
    assert bench.prepare(rows(row(0))).quarantine_location is None
    assert {key.split("/")[0] for key in bench.listed()} == {"raw", "observations"}


@pytest.mark.parametrize("payload", [rows(), rows(row(0, t=None))])
def test_nothing_accepted_nothing_stored(payload: pa.Table) -> None:
    """Zero rows, or only rejected ones: no shares, no first and last time, no segment."""
    bench = Bench()
    prepared = bench.prepare(payload)
    assert (prepared.shares, prepared.first, prepared.last, prepared.counts.accepted) == ((), None, None, 0)
    assert prepared.counts.balanced
    assert not any(key.startswith("observations") for key in bench.listed())


def test_times_beyond_max_future_are_rejected() -> None:
    """The border lies max_future after the command's precedence, to the microsecond."""
    bench = Bench()
    prepared = bench.prepare(rows(row(10_800), row(10_800.000001)), max_future=Duration("PT1H"))
    assert prepared.counts.reasons == {"time_in_future": 1}
    assert prepared.counts.accepted == 1


@pytest.mark.parametrize("cuts", [[], [30, 90, 130, 170]])
def test_reasons_of_sources_are_bounded(cuts: list[int]) -> None:
    """A source with a reason of its own for each row fills no ledger; all other reasons keep their names."""
    bench, schema = Bench(), rows().schema.append(pa.field("why", pa.string()))
    made = [row(n, why=f"line {n}") for n in range(150)] + [row(200, t=None, why=None)] * 5 + [row(201, "ok", why=None)]
    made += [row(300, why="line 3"), row(301, why="never seen")]
    prepared = bench.prepare(cut(rows(*made, schema=schema), cuts), command("c", metadata(reject_column="why")))
    assert prepared.counts.reasons == {
        **{f"source:line {n}": 1 + (n == 3) for n in range(MOST_REASONS)},
        OTHER: 51,
        "no_value": 5,
    }
    assert prepared.counts.balanced
    kept = Counter(bench.quarantined(prepared)["__reason"].to_pylist())
    assert kept["source:line 149"] == 1
    assert kept["source:line 3"] == 2


def test_nulls_are_counted_in_every_column() -> None:
    """However many columns there are, each keeps its own counts."""
    names = [f"v{n}" for n in range(150)]
    about = metadata(
        canonical_variables=tuple(variable("t", column=name, level=float(n)) for n, name in enumerate(names))
    )
    table = rows(row(0)).append_column("ok", pa.array([1.0]))
    for name in names:
        table = table.append_column(name, pa.array([1.0 if name == "v0" else float("nan")]))
    prepared = Bench().prepare(table, command("c", about))
    assert prepared.counts.values == {f"{name}: not_a_number": 1 for name in names[1:]}


# -- folding -------------------------------------------------------------------------------------------------------


def test_the_place_in_the_payload_decides() -> None:
    """Of two rows of one identity the later one stands, also when they lie in different runs."""
    made = [row(600, "a", t=281.0), *(row(60 * n, "b") for n in range(50)), row(600, "a", t=282.0)]
    for chunk_rows in (1, 7, 1000):
        bench = Bench()
        prepared = bench.prepare(ipc_file(rows(*made), 1), chunk_rows=chunk_rows)
        assert [r[T] for r in bench.stored(prepared) if r["station"] == "a"] == [282.0]
        assert prepared.counts.conflict == 1


def test_values_of_one_identity_are_merged() -> None:
    """fold = value: one variable a message becomes one row, the messages that went into it count as merged."""
    bench = Bench()
    prepared = bench.prepare(rows(row(0, t=281.0), row(0, t=None, p=1e5), row(0, t=281.0)), command("c", VALUE))
    (stored,) = bench.stored(prepared)
    assert (stored[T], stored[P], stored["__row"]) == (281.0, 1e5, 2)
    counts = prepared.counts
    assert (counts.accepted, counts.duplicate, counts.merged, counts.conflict) == (1, 1, 1, 0)


def conflicting(conflicts: int, others: int, fold: str = "row") -> pa.Table:
    made = [row(0, "a", t=200.0 + n) for n in range(conflicts + 1)]
    return rows(*made, *(row(60 + n, "b") for n in range(others - 1)))


@pytest.mark.parametrize("fold", ["row", "value"])
def test_many_conflicts_refuse_the_payload(fold: str) -> None:
    """100 conflicts that are more than half of the rows: the error names the identity, and nothing is left stored."""
    bench, asked = Bench(), command("c", metadata(fold=fold))
    with pytest.raises(Refused, match=r"100 of 199 rows .*\(timestamp, station\).*`metadata_variables` or `identity`"):
        bench.prepare(conflicting(100, 99), asked)
    assert bench.listed() == {"raw/c"}


@pytest.mark.parametrize(("conflicts", "others"), [(99, 1), (100, 100), (150, 200)])
def test_some_conflicts_are_accepted(conflicts: int, others: int) -> None:
    """Fewer than 100, or not more than half, are counted and accepted."""
    counts = Bench().prepare(conflicting(conflicts, others)).counts
    assert (counts.conflict, counts.accepted) == (conflicts, others)


def test_many_duplicates_are_no_conflict() -> None:
    """A payload that says everything twice is fine."""
    counts = Bench().prepare(rows(*[row(0)] * 500)).counts
    assert (counts.accepted, counts.duplicate) == (1, 499)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_payload_that_is_not_there() -> None:
    """Missing is not refused: it may still come."""
    bench = Bench()
    with pytest.raises(PayloadMissing, match="raw/c"):
        prepare(command("c"), ISSUED, PrepareRules(), bench.objects, bench.store, bench.token)


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "a//b", "a/./b", "raw/é", "a b", "raw/"])
def test_locations_that_lead_elsewhere_are_refused(key: str) -> None:
    """A location is a key inside the store, or nothing."""
    bench = Bench()
    with pytest.raises(Refused, match="not an object key"):
        prepare(command("c", payload_location=key), ISSUED, PrepareRules(), bench.objects, bench.store, bench.token)


def test_a_payload_that_breaks_off_leaves_nothing_behind() -> None:
    """Damage in a later batch refuses the whole: no segment, no quarantine."""
    data, bench = ipc_stream(content(1000, 1), 100), Bench()
    with pytest.raises(Refused):
        bench.prepare(data[: len(data) * 2 // 3])
    assert bench.listed() == {"raw/c"}


FLIPPED = {
    "file": lambda table: ipc_file(table, 20),
    "stream": lambda table: ipc_stream(encoded(table), 20),
    "lz4": lambda table: ipc_file(encoded(table), 60, compression="lz4"),
    "parquet": parquet,
}


@pytest.mark.parametrize("form", FLIPPED)
def test_flipped_bits_never_kill(form: str) -> None:
    """A payload with flipped bits is refused or accepted; it never ends the process, and never fails otherwise."""
    argv = [sys.executable, __file__, form, "500"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    assert answer["refused"] + answer["accepted"] == 500
    assert min(answer["refused"], answer["accepted"]) >= 20, "flips must hit both what matters and what does not"


def flip(form: str, times: int) -> dict[str, int]:
    """Prepare `times` payloads with a few bits flipped in each."""
    schema = rows().schema.append(pa.field("extra", pa.list_(pa.string())))
    made = [row(60 * n, f"station {n % 4}", t=None if n % 5 == 0 else 280.0, extra=["x", None, "é"]) for n in range(60)]
    data = FLIPPED[form](rows(*made, schema=schema))
    counted = {"refused": 0, "accepted": 0}
    for seed in range(times):
        chance, spoilt = Random(seed), bytearray(data)
        for _ in range(chance.choice((1, 1, 3))):
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        print(f"seed {seed}", file=sys.stderr, flush=True)
        try:
            prepared = Bench().prepare(bytes(spoilt), chunk_rows=chance.choice((10, 1000)))
            assert prepared.counts.balanced
            counted["accepted"] += 1
        except Refused:
            counted["refused"] += 1
    return counted


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(flip(sys.argv[1], int(sys.argv[2]))))
