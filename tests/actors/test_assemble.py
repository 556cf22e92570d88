"""From stored rows to a dataset file: the members and their precedence decide, and nothing else."""

from __future__ import annotations

import hashlib
import io
from datetime import datetime
from random import Random
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from at_home import DAY, P, T, at, command, ipc_file, metadata, row, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from ionbeam.actors.assemble import HashingFile, assemble, write_dataset
from ionbeam.actors.prepare import PrepareRules, prepare
from ionbeam.backends.embedded.observations import SegmentStore
from ionbeam.backends.memory_objects import MemoryObjects
from ionbeam.domain.accounting import WindowCounts
from ionbeam.domain.contract import agree
from ionbeam.domain.windows import micros
from ionbeam.errors import PayloadMissing
from ionbeam.ports.records import Member
from ionbeam.schemas.metadata import IngestionMetadata

WINDOW = micros(DAY)


class Bench:
    """A store in memory with ingestions in it."""

    def __init__(self, chunk_rows: int = 10**6, cut: int | None = None) -> None:
        self.objects = MemoryObjects()
        self.store = SegmentStore(self.objects)
        self.members: list[Member] = []
        self._chunk_rows, self._cut = chunk_rows, cut

    def add(self, name: str, table: pa.Table, about: IngestionMetadata, issued_at: datetime | None = None) -> None:
        """Ingest `table`; its share of the first window takes part."""
        asked = command(name, about)
        self.objects.place(asked.payload_location, ipc_file(table, self._cut))
        rules = PrepareRules(chunk_rows=self._chunk_rows)
        prepared = prepare(asked, at(7200), rules, self.objects, self.store, iter(name * 3).__next__)
        for share in prepared.shares:
            if share.window_start == WINDOW:
                self.members.append(Member(id=name, issued_at=issued_at or at(7200), metadata=about, share=share))

    def build(self, chunk_rows: int = 10**6) -> tuple[pa.Table, WindowCounts, str]:
        members = tuple(sorted(self.members, key=lambda member: member.precedence))
        contract = None
        for member in members:
            contract = agree(contract, member.metadata)
        assert contract is not None
        file = HashingFile(sink := io.BytesIO())
        counts = write_dataset(file, contract, WINDOW, members, self.store, chunk_rows)
        assert hashlib.sha256(sink.getvalue()).hexdigest() == file.hexdigest()
        assembled = assemble(contract, WINDOW, members, self.store, self.objects, chunk_rows)
        assert (assembled.content_hash, assembled.counts) == (file.hexdigest(), counts)
        assert assembled.location == f"air/20240101T000000Z_PT1H_{assembled.content_hash}"
        with self.objects.open(assembled.location) as stored:
            assert stored.read() == sink.getvalue()
        return pa.ipc.open_file(sink.getvalue()).read_all(), counts, assembled.content_hash


def ingestions(seed: int, fold: str) -> list[tuple[str, pa.Table, IngestionMetadata, datetime]]:
    """Ingestions that overlap and contradict each other, with different variables."""
    chance = Random(seed)
    made = []
    for number in range(chance.randint(1, 5)):
        about = metadata(chance.choice(["t", "p", "tp", "pt"]), fold=fold)
        content = [
            row(
                chance.randrange(0, 3600, 300),
                chance.choice(["a", "b", None]),
                t=chance.choice([280.0, 281.0, None]),
                p=chance.choice([1e5, None]),
                latitude=chance.choice([1.0, 1.5]),
            )
            for _ in range(chance.randint(0, 40))
        ]
        made.append((f"{chance.choice('abc')}{number}", rows(*content), about, at(chance.choice([7200, 7200, 7300]))))
    return made


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["row", "value"]),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 4, 20]),
)
def test_nothing_but_members_and_precedence_counts(seed: int, fold: str, chance: Random, chunk_rows: int) -> None:
    """Order of arrival, cuts of payloads and memory leave no mark on the bytes or the counts."""
    made = ingestions(seed, fold)
    one, other = Bench(), Bench(chunk_rows, cut=3)
    for each in made:
        one.add(*each)
    chance.shuffle(made)
    for each in made:
        other.add(*each)
    if one.members:
        table, counts, content_hash = one.build()
        assert other.build(chunk_rows)[1:] == (counts, content_hash)
        assert counts.balanced
        assert counts.rows == len(table)
        assert counts.accepted == sum(member.share.rows for member in one.members)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["row", "value"]), st.sampled_from([1, 7, 10**6]))
def test_a_window_holds_what_the_rules_say(seed: int, fold: str, chunk_rows: int) -> None:
    """Rows of all members in ascending precedence, folded one by one in plain Python."""
    bench = Bench()
    for each in ingestions(seed, fold):
        bench.add(*each)
    if not bench.members:
        return
    stand: dict[tuple[Any, ...], dict[str, Any]] = {}
    for member in sorted(bench.members, key=lambda m: (m.issued_at, m.id)):
        for table in bench.store.read("air", member.id, member.share):
            for new in table.to_pylist():
                key = (new["timestamp"], new["station"] is not None, new["station"])
                old = stand.get(key, {})
                values = {name: new.get(name) for name in (T, P)}
                if fold == "value":
                    values = {name: old.get(name) if value is None else value for name, value in values.items()}
                stand[key] = {**{k: v for k, v in new.items() if k != "__row"}, **values}
    table, _, _ = bench.build(chunk_rows)
    found = table.set_column(0, "timestamp", table["timestamp"].cast(pa.int64())).to_pylist()
    names = [*table.column_names]
    assert found == [
        {n: stand[key].get(n) for n in names} for key in sorted(stand, key=lambda k: (k[0], k[1], k[2] or ""))
    ]


def test_slices_without_some_of_the_variables() -> None:
    """Where little memory cuts a window into slices, a slice may lie where a variable was never measured."""
    bench = Bench()
    early = [row(n, "a", t=280.0 + n) for n in range(60)]
    bench.add("a", rows(*early), metadata("t", fold="value"))
    bench.add("b", rows(*(r | {"t": r["t"] + 1} for r in early)), metadata("t", fold="value"), at(7201))
    bench.add("c", rows(*(row(3000 + n, "a", t=None, p=1e5) for n in range(60))), metadata("p", fold="value"), at(7202))
    whole = bench.build()
    assert bench.build(chunk_rows=10)[1:] == whole[1:]
    assert whole[1] == WindowCounts(accepted=180, rows=120, conflict=60)


def test_equal_precedence_goes_by_id() -> None:
    """Of two commands issued at one moment the greater id has precedence."""
    for names in (("x1", "x2"), ("x2", "x1")):
        bench = Bench()
        for name in names:
            bench.add(name, rows(row(0, t=float(name[1]))), metadata("t"))
        assert bench.build()[0][T].to_pylist() == [2.0]


def test_columns_in_the_order_of_precedence() -> None:
    """Variables stand as the maps name them by ascending precedence, whoever came first."""
    bench = Bench()
    bench.add("b", rows(row(0, p=1.0)), metadata("tp"), at(7300))
    bench.add("a", rows(row(60, p=1.0)), metadata("p"), at(7200))
    assert bench.build()[0].column_names[3:5] == [P, T]


def test_a_window_without_members() -> None:
    """A window that everyone left is a file without rows and variables."""
    objects = MemoryObjects()
    contract = agree(None, metadata())
    assembled = assemble(contract, WINDOW, (), SegmentStore(objects), objects, 10)
    with objects.open(assembled.location) as file:
        table = pa.ipc.open_file(file).read_all()
    assert (table.num_rows, table.column_names) == (0, ["timestamp", "latitude", "longitude"])
    assert assembled.counts == WindowCounts()


def test_the_same_content_is_the_same_object() -> None:
    """Assembling twice gives one key and one content: the second commit finds the first."""
    bench = Bench()
    bench.add("a", rows(row(0)), metadata())
    assert bench.build()[2] == bench.build(chunk_rows=1)[2]


def test_rows_that_are_gone_fail_the_build() -> None:
    """A segment that is missing is an error, not an empty window."""
    bench = Bench()
    bench.add("a", rows(row(0)), metadata())
    bench.store.forget("air", "a", [member.share for member in bench.members])
    with pytest.raises(PayloadMissing):
        bench.build()


def test_a_single_ingestion_is_not_folded_again() -> None:
    """One member's rows were folded when they were stored: they are counted as they are."""
    bench = Bench()
    bench.add("a", rows(row(0), row(0), row(60)), metadata())
    _, counts, _ = bench.build()
    assert counts == WindowCounts(accepted=2, rows=2)


def test_a_null_by_sentinel_and_a_plain_null_give_one_file() -> None:
    """How a value came to be missing leaves no trace in the bytes."""
    hashes = set()
    for gone in (None, -999.0, float("nan"), float("inf")):
        bench = Bench()
        about = metadata("tp")
        variables = tuple(
            msgspec.structs.replace(v, missing_values=(-999.0,)) for v in about.ingestion_map.canonical_variables
        )
        about = msgspec.structs.replace(
            about, ingestion_map=msgspec.structs.replace(about.ingestion_map, canonical_variables=variables)
        )
        bench.add("a", rows(row(0, t=gone, p=1.0), row(60)), about)
        hashes.add(bench.build()[2])
    assert len(hashes) == 1


def test_a_hashing_file_counts_and_hashes() -> None:
    """What passes is hashed, counted and handed on; without an inner file it is only hashed."""
    sink = io.BytesIO()
    for inner in (sink, None):
        file = HashingFile(inner)
        assert file.write(b"abc") == 3
        assert file.write(memoryview(b"def")) == 3
        assert file.write(pa.py_buffer(b"g")) == 1
        assert file.tell() == 7
        assert file.hexdigest() == hashlib.sha256(b"abcdefg").hexdigest()
    assert sink.getvalue() == b"abcdefg"
