"""What a dataset means, through a real node: precedence, folding, replacements, claims, revisions, contracts."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import trio
from at_home import DAY, Home, P, T, at, claim, command, ipc_file, metadata, row, rows, working
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ionbeam.client import DatasetRevision
from ionbeam.config import WindowSettings
from ionbeam.domain.accounting import WindowCounts
from ionbeam.parts import utc_now
from ionbeam.schemas import routes
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import IngestDataCommand
from ionbeam.schemas.metadata import IngestionMetadata

VALUE = metadata(fold="value")
Sent = tuple[IngestDataCommand, pa.Table]


def running(start: datetime) -> Callable[[], datetime]:
    """A clock that shows `start` now and runs on from there."""
    began = time.monotonic()
    return lambda: start + timedelta(seconds=time.monotonic() - began)


class Recorder:
    """An exporter that keeps what it is given, and rings."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[DatasetRevision] = []
        self.rung = trio.Event()

    def apply(self, revision: DatasetRevision) -> None:
        self.seen.append(revision)
        trio.from_thread.run_sync(self.rung.set)


async def ended(
    folder: Path, sent: list[Sent], together: bool = False
) -> tuple[str, WindowCounts, list[dict[str, Any]]]:
    """What the first window is in the end, when commands arrive in this order, one by one or all at once."""
    async with working(folder) as home:
        for asked, table in sent:
            await home.send(asked, table)
            if not together:
                await home.settle()
        await home.settle()
        assert [letter.reason for letter in await home.letters()] == []
        found = await home.revision()
        assert found.counts.balanced
        return found.content_hash, found.counts, (await home.table()).to_pylist()


# -- precedence and folding ----------------------------------------------------------------------------------------


async def test_precedence_beats_arrival(tmp_path: Path) -> None:
    """The row of the latest issued command stands, in whatever order the commands arrive: one hash for all orders."""
    sent = [
        (command("b", issued_at=at(7200)), rows(row(60, t=1.0), row(120, t=1.0))),
        (command("a", issued_at=at(7200)), rows(row(60, t=2.0), row(180, t=2.0))),
        (command("z", issued_at=at(7100)), rows(row(60, t=3.0), row(240, t=3.0), row(120, t=3.0))),
    ]
    ends = [
        await ended(tmp_path / f"{n}", list(order), together=n % 2 == 0) for n, order in enumerate(permutations(sent))
    ]
    assert len({content_hash for content_hash, _, _ in ends}) == 1
    assert [r[T] for r in ends[0][2]] == [1.0, 1.0, 2.0, 3.0]
    assert {counts for _, counts, _ in ends} == {WindowCounts(accepted=7, rows=4, conflict=3)}


async def test_fold_by_row(tmp_path: Path) -> None:
    """The row of highest precedence stands whole, nulls too."""
    sent = [(command("a"), rows(row(60, t=1.0, p=5.0))), (command("b"), rows(row(60, t=2.0, p=None)))]
    _, counts, (found,) = await ended(tmp_path, sent)
    assert (found[T], found[P]) == (2.0, None)
    assert counts == WindowCounts(accepted=2, rows=1, conflict=1)


async def test_fold_by_value(tmp_path: Path) -> None:
    """For each variable the non-null value of highest precedence; position from the row of highest precedence."""
    sent = [
        (command("c", VALUE), rows(row(60, t=None, p=6.0, latitude=9.0))),
        (command("a", VALUE), rows(row(60, t=1.0, p=5.0))),
        (command("b", VALUE), rows(row(60, t=2.0, p=None))),
    ]
    _, counts, (found,) = await ended(tmp_path, sent)
    assert (found[T], found[P], found["latitude"]) == (2.0, 6.0, 9.0)
    assert counts == WindowCounts(accepted=3, rows=1, merged=1, conflict=1)


@st.composite
def loads(draw: st.DrawFn) -> list[Sent]:
    """A few commands with overlaps and corrections, in an order of arrival of their own."""
    about = draw(st.sampled_from([metadata(), VALUE]))
    sent = []
    for number in range(draw(st.integers(2, 4))):
        cells = st.tuples(
            st.sampled_from([0, 600, 1200]), st.sampled_from(["a", None]), st.sampled_from([1.0, 2.0, None])
        )
        content = draw(st.lists(cells, min_size=1, max_size=5))
        table = rows(*(row(second, station, t=t, p=5.0) for second, station, t in content))
        issued = at(7200 + draw(st.integers(0, 2)))
        sent.append((command(f"{draw(st.sampled_from('xyz'))}{number}", about, issued_at=issued), table))
    return sent


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(loads(), st.randoms(use_true_random=False))
def test_any_order_any_cut_gives_one_hash(
    tmp_path_factory: pytest.TempPathFactory, sent: list[Sent], chance: Any
) -> None:
    """Delivered one by one or at once, shuffled, twice, with little memory: the same bytes and counts."""
    first = trio.run(ended, tmp_path_factory.mktemp("one"), sent)
    again = sent + sent
    chance.shuffle(again)
    assert trio.run(ended, tmp_path_factory.mktemp("two"), again, True) == first


async def test_columns_and_description_follow_precedence(tmp_path: Path) -> None:
    """Columns by ascending precedence of the maps; description, keywords and the rest from the highest."""
    late = metadata("p", about={"description": "late", "keywords": ("l",)})
    early = metadata("t", about={"description": "early", "keywords": ("e",)})
    async with working(tmp_path) as home:
        await home.ingest(command("a", late, issued_at=at(8000)), rows(row(60, p=5.0)))
        await home.ingest(command("b", early, issued_at=at(7000)), rows(row(120)))
        table = await home.table()
        assert table.column_names[3:5] == [T, P]
        assert table.schema.metadata[b"description"] == b"late"
        event = (await home.revision()).event
        assert (event.metadata.description, event.metadata.keywords) == ("late", ("l",))


# -- ids and stamps ------------------------------------------------------------------------------------------------


async def test_an_accepted_id_has_no_further_effect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same id again, with other content or another precedence, changes nothing, and somebody is told."""
    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(row(60, t=1.0)))
        before = await home.revisions()
        await home.ingest(command("a"))
        assert "accepted before" not in caplog.text
        await home.ingest(command("a", payload_location="raw/other"), rows(row(60, t=2.0), row(120)))
        assert "accepted before with another payload" in caplog.text
        await home.ingest(command("a", VALUE, payload_location="raw/more", issued_at=at(9000)), rows(row(60, t=3.0)))
        assert "accepted before with another content" in caplog.text
        assert await home.revisions() == before
        assert (await home.state("a")).issued_at == at(7200)
        assert await home.letters() == []


async def test_a_failed_id_may_come_again(tmp_path: Path) -> None:
    """What was refused claims nothing and may come again under the same id."""
    async with working(tmp_path) as home:
        await home.ingest(command("a", payload_location="raw/a1"), b"garbage")
        assert await home.windows() == []
        assert await home.ports.ledger.contract("air") == (None, 0)
        await home.ingest(command("a", VALUE, payload_location="raw/a2"), rows(row(60)))
        assert (await home.revision()).rows == 1


async def test_without_issued_at_the_first_handing_counts(tmp_path: Path) -> None:
    """A command without issued_at ranks by the moment at which a node first had it, and keeps that when tried again."""
    async with working(tmp_path) as home:
        before = await home.ports.ledger.now()
        await home.ingest(command("late", issued_at=None))
        between = await home.ports.ledger.now()
        await home.ingest(command("other", issued_at=None), rows(row(60, t=2.0)))
        await home.ingest(command("late", issued_at=None), rows(row(60, t=1.0)))
        assert before <= (await home.state("late")).issued_at <= between
        assert [r[T] for r in (await home.table()).to_pylist()] == [2.0]


async def test_issued_at_must_not_lie_ahead(tmp_path: Path) -> None:
    """Up to 5 minutes ahead of the ledger's clock is believed, more is refused."""
    async with working(tmp_path, clock=running(at(7200))) as home:
        await home.ingest(command("near", issued_at=at(7200 + 300)), rows(row(60)))
        await home.ingest(command("far", issued_at=at(7200 + 420)), rows(row(120)))
        (letter,) = await home.letters()
        assert "$.issued_at" in letter.reason
        assert "set the sender's clock" in letter.reason
        assert (await home.revision()).rows == 1


# -- replacing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["old new", "new old"])
async def test_replaces(tmp_path: Path, order: str) -> None:
    """What is replaced leaves with rows and claims, before or after it arrives; its counts stay."""
    sent = {
        "old": (command("old", end_time=at(7200), issued_at=at(9000)), rows(row(60, t=1.0), row(3700, t=1.0))),
        "new": (command("new", replaces=("old",), issued_at=at(8000)), rows(row(120, t=2.0))),
    }
    async with working(tmp_path) as home:
        for name in order.split():
            await home.ingest(*sent[name])
        assert [r[T] for r in (await home.table()).to_pylist()] == [2.0]
        old = await home.state("old")
        assert old.replaced
        assert old.counts.accepted == 2
        if order == "old new":
            emptied = await home.revision(3600)
            assert (emptied.number, emptied.rows, emptied.counts) == (2, 0, WindowCounts())
            table = await home.table(3600)
            assert (len(table), table.column_names) == (0, ["timestamp", "latitude", "longitude"])
        else:
            assert len(await home.windows()) == 1


async def test_chains_of_replacements(tmp_path: Path) -> None:
    """A file that changed twice: only its last version is in the dataset, whatever arrives when."""
    sent = [
        (command("v1"), rows(row(60, t=1.0))),
        (command("v2", replaces=("v1",)), rows(row(60, t=2.0))),
        (command("v3", replaces=("v2",)), rows(row(60, t=3.0), row(120, t=3.0))),
    ]
    ends = {(await ended(tmp_path / f"{n}", list(order)))[0] for n, order in enumerate(permutations(sent))}
    assert len(ends) == 1


async def test_a_replaced_claim_opens_a_gap(tmp_path: Path) -> None:
    """A window whose coverage left is not rebuilt until it is covered again; the old revision stays meanwhile."""
    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(row(60, t=1.0)))
        await home.ingest(command("b", claims=(claim(0, 1800),), replaces=("a",)), rows(row(60, t=2.0)))
        state = await home.window()
        assert state.pending
        assert state.missing == (claim(1800, 3600),)
        assert state.due is None
        assert state.current is not None
        assert state.current.number == 1
        await home.ingest(command("c", claims=(claim(1800, 3600),)), rows())
        assert (await home.revision()).number == 2


# -- claims and windows --------------------------------------------------------------------------------------------


async def test_claims_with_gaps(tmp_path: Path) -> None:
    """A window waits until the claims of all ingestions cover it, also claims outside of start and end."""
    async with working(tmp_path) as home:
        await home.ingest(command("a", claims=(claim(2400, 3600), claim(0, 1200))), rows(row(60), row(3700)))
        state = await home.window()
        assert state.missing == (claim(1200, 2400),)
        assert not state.covered
        assert state.current is None
        assert (await home.window(3600)).missing == (claim(3600, 7200),)
        await home.ingest(command("b", claims=(claim(-9000, 1300), claim(1300, 2400), claim(3600, 90_000))), rows())
        assert (await home.revision()).rows == (await home.revision(3600)).rows == 1
        assert len(await home.windows()) == 2, "a claim makes no window"


async def test_no_claims_at_all(tmp_path: Path) -> None:
    """An empty list of claims claims nothing."""
    async with working(tmp_path) as home:
        await home.ingest(command("a", claims=()), rows(row(60)))
        assert (await home.window()).missing == (claim(0, 3600),)


async def test_incomplete_windows_may_be_allowed(tmp_path: Path) -> None:
    """allow_incomplete_windows lifts the rule of coverage, for all datasets or for one."""
    settings_ = {"rail": WindowSettings(allow_incomplete_windows=True)}
    async with working(tmp_path, datasets=settings_) as home:
        await home.ingest(command("a", claims=()), rows(row(60)))
        await home.ingest(command("b", metadata(about={"name": "rail"}), claims=()), rows(row(60)))
        assert (await home.window()).current is None
        assert (await home.revision(dataset="rail")).rows == 1


async def test_a_window_is_built_when_due(tmp_path: Path) -> None:
    """A complete window that is not due yet is built at that moment, with no further message; not before."""
    recorder = Recorder()
    clock = running(at(3600 + 600 - 0.5))
    about = metadata(about={"subject_to_change_window": Duration("PT10M")})
    async with working(tmp_path, clock=clock, exporters=[recorder]) as home:
        await home.ingest(command("a", about, issued_at=at(3600)), rows(row(60)))
        state = await home.window()
        assert state.due == at(4200)
        if clock() < at(4200):
            assert state.current is None
        with trio.fail_after(30):
            await recorder.rung.wait()
        assert (await home.revision()).built_at >= at(4200)


async def test_a_window_is_not_due_before_its_end(tmp_path: Path) -> None:
    """Also a window that is claimed in advance waits for its end."""
    async with working(tmp_path, clock=running(at(1800))) as home:
        await home.ingest(command("a", issued_at=at(1700)), rows(row(60)))
        state = await home.window()
        assert (state.covered, state.current, state.due) == (True, None, at(3600))


async def test_the_highest_precedence_says_when_a_window_is_final(tmp_path: Path) -> None:
    """subject_to_change_window comes from the ingestion of highest precedence in the window."""
    never = metadata(about={"subject_to_change_window": Duration("P90000D")})
    async with working(tmp_path) as home:
        await home.ingest(command("b", never, issued_at=at(8000)), rows(row(60)))
        await home.ingest(command("a", metadata(), issued_at=at(7000)), rows(row(120)))
        assert (await home.window()).current is None
        await home.ingest(command("c", metadata(), issued_at=at(9000)), rows(row(180)))
        assert (await home.revision()).rows == 3


async def test_rebuilds_keep_their_distance(tmp_path: Path) -> None:
    """min_rebuild_interval puts the next build off; the news are built together then."""
    async with working(tmp_path, windows=WindowSettings(min_rebuild_interval=Duration("PT1H"))) as home:
        await home.ingest(command("a"), rows(row(60)))
        await home.ingest(command("b"), rows(row(120)))
        state = await home.window()
        assert state.pending
        assert state.current is not None
        assert state.current.rows == 1
        assert state.due is not None
        assert timedelta(minutes=59) < state.due - await home.ports.ledger.now() <= timedelta(hours=1)
        current = state.current
    async with working(tmp_path, clock=running(utc_now() + timedelta(hours=2))) as home:
        await home.settle()
        assert (await home.revision()).rows == 2
        assert (await home.revision()).event.supersedes == current.event.id


async def test_a_row_belongs_to_a_window_by_its_own_time(tmp_path: Path) -> None:
    """Whatever was claimed: a row at a border lies in the window that begins there, before 1970 too."""
    seconds = [-0.000001, 0, 3599.999999, 3600, -DAY.timestamp() - 0.000001, -DAY.timestamp()]
    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(*(row(second) for second in seconds)))
        found = {w.window_start // 10**6 - int(DAY.timestamp()): w.rows for w in await home.windows()}
        epoch = -int(DAY.timestamp())
        assert found == {-3600: 1, 0: 2, 3600: 1, epoch - 3600: 1, epoch: 1}


# -- revisions -----------------------------------------------------------------------------------------------------


async def test_a_b_a(tmp_path: Path) -> None:
    """A correction and its withdrawal: revisions 1, 2, 3, the third with the content of the first."""
    recorder = Recorder()
    async with working(tmp_path, exporters=[recorder]) as home:
        await home.ingest(command("a"), rows(row(60, t=1.0)))
        await home.ingest(command("b"), rows(row(60, t=2.0)))
        await home.ingest(command("c"), rows(row(60, t=1.0)))
        first, second, third = await home.revisions()
        assert [r.number for r in (first, second, third)] == [1, 2, 3]
        assert first.content_hash == third.content_hash != second.content_hash
        assert [r.event.supersedes for r in (first, second, third)] == [None, first.event.id, second.event.id]
        assert len({r.event.id for r in (first, second, third)}) == 3
        assert [seen.event.revision for seen in recorder.seen] == [1, 2, 3]
        assert third.event.dataset_location == first.event.dataset_location


async def test_the_same_content_is_no_news(tmp_path: Path) -> None:
    """Rows that say the same again make no revision and no event, but they are counted."""
    recorder = Recorder()
    async with working(tmp_path, exporters=[recorder]) as home:
        await home.ingest(command("a"), rows(row(60)))
        await home.ingest(command("b"), rows(row(60)))
        await home.ingest(command("zero"), rows())
        (revision,) = await home.revisions()
        assert len(recorder.seen) == 1
        current = await home.revision()
        assert (current.number, current.event) == (1, revision.event)
        assert current.counts == WindowCounts(accepted=2, rows=1, duplicate=1)


async def test_an_old_event_changes_nothing(tmp_path: Path) -> None:
    """An exporter is not given a revision that a newer one has overtaken, however late its event comes."""
    recorder = Recorder()
    async with working(tmp_path, exporters=[recorder]) as home:
        await home.ingest(command("a"), rows(row(60, t=1.0)))
        await home.ingest(command("b"), rows(row(60, t=2.0)))
        old = recorder.seen[0].event
        await home.ports.broker.publish(routes.DATASET_AVAILABLE, old.id, msgspec.json.encode(old, enc_hook=str))
        await home.settle()
        assert [seen.event.revision for seen in recorder.seen] == [1, 2]
        assert await home.letters() == []


async def test_a_new_exporter_begins_with_what_is_current(tmp_path: Path) -> None:
    """An exporter that comes later gets the current revision of every window, once."""
    async with working(tmp_path) as home:
        await home.ingest(command("a", end_time=at(7200)), rows(row(60, t=1.0), row(3700)))
        await home.ingest(command("b"), rows(row(60, t=2.0)))
    recorder = Recorder()
    for _ in range(2):
        async with working(tmp_path, exporters=[recorder]) as home:
            with trio.fail_after(30):
                await recorder.rung.wait()
            await home.settle()
    assert sorted((s.event.start_time, s.event.revision) for s in recorder.seen) == [(at(0), 2), (at(3600), 1)]


async def test_an_event_says_what_it_announces(tmp_path: Path) -> None:
    """Window, rows, hash and location; its id follows from dataset, window and revision."""
    from ionbeam.schemas.messages import dataset_event_id

    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(row(60)))
        event = (await home.revision()).event
        assert (event.start_time, event.end_time, event.row_count, event.revision) == (at(0), at(3600), 1, 1)
        assert event.id == dataset_event_id("air", at(0), 1)
        assert event.dataset_location == f"air/20240101T000000Z_PT1H_{event.content_hash}"


# -- contracts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        (
            metadata(about={"aggregation_span": Duration("P1D")}),
            "aggregation_span: the dataset has PT1H, the command P1D",
        ),
        (metadata(fold="value"), "fold: the dataset has row, the command value"),
        (metadata(identity=("latitude",)), "identity: the dataset has (station), the command (latitude)"),
    ],
)
async def test_a_command_that_disagrees_is_refused(tmp_path: Path, theirs: IngestionMetadata, says: str) -> None:
    """What the first accepted command fixed stands; the dead letter names both sides."""
    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(row(60)))
        await home.ingest(command("b", theirs), rows(row(120)))
        (letter,) = await home.letters()
        assert says in letter.reason
        assert letter.attempts == 1
        assert (await home.revision()).rows == 1


async def test_a_refused_command_fixes_nothing(tmp_path: Path) -> None:
    """Only an accepted command makes the contract."""
    async with working(tmp_path) as home:
        await home.ingest(command("a", VALUE), b"garbage")
        await home.ingest(command("b"), rows(row(60)))
        assert (await home.revision()).rows == 1


async def test_commands_that_extend_the_contract_together(tmp_path: Path) -> None:
    """Commands with new variables, at the same time: all are accepted, the contract knows them all."""
    async with working(tmp_path) as home:
        for name, variables in (("a", "t"), ("b", "p"), ("c", "tp"), ("d", "h")):
            table = rows(row(60, name, p=5.0)).append_column("h", pa.array([50.0]))
            await home.send(command(name, metadata(variables)), table)
        await home.settle()
        assert await home.letters() == []
        contract, _ = await home.ports.ledger.contract("air")
        assert contract is not None
        assert len(contract.dtypes) == 4
        assert (await home.revision()).rows == 4


# -- accounting ----------------------------------------------------------------------------------------------------


async def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    """Both identities hold for what was accepted and what was built, and the audit says so."""
    from ionbeam.audit import audit_ingestions, audit_windows

    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(row(60), row(60), row(60, t=5.0), row(120, t=None), row(180)))
        await home.ingest(command("b"), rows(row(60, t=7.0), row(180), row(3000, latitude=None)))
        for name, counted in (("a", (5, 2, 0, 2, 1)), ("b", (3, 2, 0, 0, 1))):
            counts = (await home.state(name)).counts
            assert counts.balanced
            assert (counts.received, counts.accepted, counts.duplicate, counts.conflict, counts.rejected) == counted
        assert (await home.revision()).counts == WindowCounts(accepted=4, rows=2, duplicate=1, conflict=1)
        verdicts: list[Any] = [v async for v in audit_ingestions(home.ports, None, 1000)]
        verdicts += [v async for v in audit_windows(home.ports, None, 1000)]
        assert len(verdicts) == 3
        assert [v.problems for v in verdicts] == [()] * 3


async def test_retracting(tmp_path: Path) -> None:
    """An ingestion that an operator takes back leaves its windows."""

    async def retract(home: Home, name: str) -> None:
        await home.ports.ledger.retract(name, b'{"kind":"retracted"}')
        await home.settle()

    async with working(tmp_path) as home:
        await home.ingest(command("a"), rows(row(60, t=1.0)))
        await home.ingest(command("b"), rows(row(60, t=2.0)))
        await retract(home, "b")
        assert [r[T] for r in (await home.table()).to_pylist()] == [1.0]
        assert (await home.revision()).number == 3
        await retract(home, "a")
        assert ((await home.revision()).number, (await home.revision()).rows) == (4, 0)


def test_payloads_of_the_tests_are_what_they_seem() -> None:
    """The helper's rows survive their own file."""
    assert pa.ipc.open_file(ipc_file(rows(row(60)))).read_all().to_pylist() == [row(60)]
