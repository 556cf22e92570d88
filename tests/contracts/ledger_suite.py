"""What every Ledger promises. A backend passes these tests by giving the fixture `world`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Protocol

import msgspec
import pytest
import trio
import trio.testing

from ionbeam.domain.accounting import Counts, WindowCounts
from ionbeam.domain.contract import agree
from ionbeam.domain.windows import micros, moment
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.observations import Share
from ionbeam.ports.records import (
    Acceptance,
    AcceptOutcome,
    BuildOutcome,
    Built,
    Lease,
    MailboxState,
    NodeState,
    Published,
    Revision,
    WindowRules,
    WindowState,
)
from ionbeam.schemas.duration import Duration
from ionbeam.schemas.messages import Claim, DataSetAvailableEvent, dataset_event_id
from ionbeam.schemas.metadata import DataIngestionMap, DatasetMetadata, IngestionMetadata
from ionbeam.schemas.variables import CanonicalVariable, MetadataVariable

DAY = datetime(2024, 1, 1, tzinfo=UTC)
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = 3_600_000_000
ZERO = micros(DAY)
MESSAGE = Published(exchange="x", message_id="m", body=b"\x00body")


class World(Protocol):
    """One place where a ledger is kept, the nodes on it, and a clock that is turned by hand (it begins at START).

    `rules` are what nodes are started with, by dataset; other datasets have the defaults.
    """

    rules: dict[str, WindowRules]

    def open(self) -> AbstractAsyncContextManager[Ledger]:
        """One more node."""
        ...

    async def elapse(self, seconds: float) -> None:
        """Let time pass on the ledger's clock."""
        ...

    async def kill(self, ledger: Ledger) -> None:
        """End this node as kill -9 does; the others have noticed when this returns."""
        ...


def at(hours: float) -> datetime:
    return DAY + timedelta(hours=hours)


def metadata(dataset: str = "air", variables: str = "t", **about: Any) -> IngestionMetadata:
    """Metadata of a dataset in windows of an hour."""
    return IngestionMetadata(
        dataset=DatasetMetadata(**({"name": dataset, "aggregation_span": Duration("PT1H")} | about)),
        ingestion_map=DataIngestionMap(
            canonical_variables=tuple(
                CanonicalVariable(column=name, standard_name="air_temperature", cf_unit="K", level=float(ord(name)))
                for name in variables
            ),
            metadata_variables=(MetadataVariable(column="station"),),
        ),
    )


async def acceptance(
    ledger: Ledger,
    name: str,
    shares: dict[float, int] | None = None,
    claims: list[tuple[float, float]] | None = None,
    about: IngestionMetadata | None = None,
    **more: Any,
) -> Acceptance:
    """An acceptance with rows by window (in hours of DAY) and claims (in hours); the contract as it stands."""
    about = about or metadata()
    shares = {0: 10} if shares is None else shares
    rows = sum(shares.values())
    contract, version = await ledger.contract(about.dataset.name)
    made = Acceptance(
        id=name,
        metadata=about,
        issued_at=at(30),
        digest=f"digest of {name}",
        payload_location=f"raw/{name}",
        quarantine_location=None,
        start_time=at(0),
        end_time=at(1),
        claims=tuple(Claim(at(low), at(high)) for low, high in ([(0, 1)] if claims is None else claims)),
        replaces=(),
        counts=Counts(received=rows, accepted=rows),
        shares=tuple(
            Share(window_start=int(ZERO + h * HOUR), rows=n, placement=f"{name}@{h}") for h, n in shares.items()
        ),
        max_future=Duration("P1D"),
        contract=agree(contract, about),
        contract_version=version,
        record=f"record of {name}".encode(),
        messages=(MESSAGE,),
    )
    return msgspec.structs.replace(made, **more)


async def entered(ledger: Ledger, name: str, *args: Any, **more: Any) -> list[int]:
    """Accept and enter an ingestion; the windows touched."""
    accepted = await ledger.accept(await acceptance(ledger, name, *args, **more))
    assert accepted.outcome is AcceptOutcome.ACCEPTED
    return await ledger.enter(name)


async def leased(ledger: Ledger, ttl: float = 60) -> Lease:
    lease = await ledger.lease(ttl)
    assert lease is not None, "no window is due and free"
    return lease


def revision(lease: Lease, content: str = "a", rows: int = 10) -> Revision:
    """What a builder of `lease` would record for `content`."""
    number = 1 if lease.current is None else lease.current.number + 1
    if lease.current is not None and lease.current.content_hash == content:
        number = lease.current.number
    event = DataSetAvailableEvent(
        id=dataset_event_id(lease.dataset, moment(lease.window_start), number),
        metadata=metadata(lease.dataset).dataset,
        dataset_location=f"{lease.dataset}/{content}",
        start_time=moment(lease.window_start),
        end_time=moment(lease.window_start + HOUR),
        revision=number,
        supersedes=None if lease.current is None else lease.current.event.id,
        row_count=rows,
        content_hash=content,
    )
    return Revision(
        dataset=lease.dataset,
        window_start=lease.window_start,
        number=number,
        rows=rows,
        content_hash=content,
        ingestion_set_hash=",".join(member.id for member in lease.members),
        counts=WindowCounts(accepted=rows, rows=rows),
        event=event,
        built_at=START,
    )


async def build(ledger: Ledger, lease: Lease, content: str = "a", rows: int = 10) -> Built:
    return await ledger.built(lease, revision(lease, content, rows), f"built {content}".encode(), (MESSAGE,))


async def window(ledger: Ledger, hour: float = 0, dataset: str = "air") -> WindowState:
    (found,) = [w for w in await ledger.windows(dataset, None, 1000) if w.window_start == ZERO + hour * HOUR]
    return found


async def emptied(ledger: Ledger) -> None:
    """Everything in the outbox has been relayed."""
    await ledger.clear([entry.number for entry in await ledger.outbox(1000)], "journal/test/000000000001")


class LedgerContract:
    # -- sources ---------------------------------------------------------------------------------------------------
    async def test_stamps_only_rise(self, world: World) -> None:
        """Each stamp is later than all before it, on every node and after a restart, and never before now."""
        async with world.open() as one, world.open() as two:
            stamps = [await ledger.stamp(f"c{place}") for place, ledger in enumerate((one, two, one, two))]
            assert stamps == sorted(set(stamps))
            assert stamps[0] >= START
            await world.elapse(5)
            stamps.append(await two.stamp("late"))
            assert stamps[-1] == START + timedelta(seconds=5)
        async with world.open() as again:
            assert await again.stamp("later") > stamps[-1]

    async def test_a_command_keeps_its_stamp_until_it_is_accepted(self, world: World) -> None:
        """A sender that was interrupted and repeats itself does not change the order of its commands."""
        async with world.open() as one, world.open() as two:
            first = await one.stamp("a")
            assert await one.stamp("b") > first
            await world.elapse(5)
            assert await two.stamp("a") == first

    async def test_memory(self, world: World) -> None:
        """What was remembered under a key is recalled, by any node, the latest value; nothing under other keys."""
        async with world.open() as ledger:
            assert await ledger.recall("k") is None
            await ledger.remember("k", b"1")
            await ledger.remember("k", b"\x00\xff")
        async with world.open() as ledger:
            assert await ledger.recall("k") == b"\x00\xff"
            assert await ledger.recall("other") is None

    # -- ingestion -------------------------------------------------------------------------------------------------
    async def test_the_first_handing_is_recorded_once(self, world: World) -> None:
        """A command without issued_at ranks by the moment at which any node first had it, kept until acceptance."""
        async with world.open() as one, world.open() as two:
            assert await one.first_handed("c") == START
            await world.elapse(10)
            assert await two.first_handed("c") == START
            assert (await two.standing("c")).issued_at == START
            assert await two.first_handed("d") == START + timedelta(seconds=10)
            assert (await one.standing("never seen")).issued_at is None

    async def test_a_command_is_accepted_once(self, world: World) -> None:
        """A second acceptance, with other content or by another node, changes nothing and names the first entry."""
        async with world.open() as one, world.open() as two:
            assert not (await one.standing("c")).accepted
            first = await acceptance(one, "c")
            accepted = await one.accept(first)
            assert accepted.outcome is AcceptOutcome.ACCEPTED
            other = msgspec.structs.replace(first, digest="other", shares=(), record=b"other", issued_at=at(40))
            for ledger in (one, two):
                again = await ledger.accept(other)
                assert (again.outcome, again.entry) == (AcceptOutcome.ALREADY, accepted.entry)
            standing = await two.standing("c")
            assert (standing.accepted, standing.issued_at, standing.digest) == (True, at(30), "digest of c")
            assert (standing.payload_location, standing.entry) == ("raw/c", accepted.entry)
            assert [entry.record for entry in await one.outbox(10)] == [b"record of c"]

    async def test_an_acceptance_is_kept_as_it_is(self, world: World) -> None:
        """Everything that was recorded comes back, after a restart too."""
        async with world.open() as ledger:
            made = await acceptance(
                ledger,
                "c",
                {0: 3, 5: 4},
                [(0, 1), (3, 4.5)],
                quarantine_location="quarantine/c",
                replaces=("b", "a"),
                counts=Counts(received=9, accepted=7, rejected=2, reasons={"no_value": 2}, values={"t: not_finite": 1}),
            )
            await ledger.accept(made)
        async with world.open() as ledger:
            state = await ledger.ingestion("c")
            assert state is not None
            for name in (
                "id",
                "metadata",
                "issued_at",
                "payload_location",
                "quarantine_location",
                "start_time",
                "end_time",
                "claims",
                "replaces",
                "counts",
                "shares",
                "max_future",
            ):
                assert getattr(state, name) == getattr(made, name), name
            assert (state.dataset, state.accepted_at, state.entered, state.replaced) == ("air", START, False, False)
            assert await ledger.ingestion("unknown") is None

    async def test_contracts_are_compared_and_set(self, world: World) -> None:
        """Of two commands that read the same contract and extend it, the second must read it again."""
        async with world.open() as one, world.open() as two:
            assert await one.contract("air") == (None, 0)
            a = await acceptance(one, "a", about=metadata(variables="t"))
            b = await acceptance(two, "b", about=metadata(variables="tu"))
            assert (await one.accept(a)).outcome is AcceptOutcome.ACCEPTED
            assert (await two.accept(b)).outcome is AcceptOutcome.CONTRACT_MOVED
            assert not (await one.standing("b")).accepted
            assert len(await one.outbox(10)) + len(await two.outbox(10)) == 1
            again = await acceptance(two, "b", about=metadata(variables="tu"))
            assert (await two.accept(again)).outcome is AcceptOutcome.ACCEPTED
            assert (await one.contract("air"))[0] == again.contract
            same = await acceptance(one, "c", about=metadata(variables="u"))
            assert (await one.accept(same)).outcome is AcceptOutcome.ACCEPTED
            assert await one.contract("air") == (again.contract, same.contract_version)
            assert await one.datasets() == ["air"]

    async def test_records_wait_in_the_outbox(self, world: World) -> None:
        """A refusal or an operator's action is an entry like any other, with its messages."""
        async with world.open() as ledger:
            number = await ledger.record(b"refused", MESSAGE)
            (entry,) = await ledger.outbox(10)
            assert (entry.number, entry.record, entry.messages) == (number, b"refused", (MESSAGE,))

    # -- coordination ----------------------------------------------------------------------------------------------
    async def test_entering_is_done_once(self, world: World) -> None:
        """An ingestion adds its rows and claims once, however often it is asked; an unknown one does nothing."""
        async with world.open() as one, world.open() as two:
            assert await entered(one, "a", {0: 3, 2: 4}, [(0, 1)]) == [ZERO, ZERO + 2 * HOUR]
            before = await one.windows("air", None, 10)
            assert await one.enter("a") == [] == await two.enter("a")
            assert await two.enter("unknown") == []
            assert await one.windows("air", None, 10) == before
            assert [(w.rows, w.desired, w.built, w.pending) for w in before] == [(3, 1, 0, True), (4, 1, 0, True)]
            assert [w.covered for w in before] == [True, False]
            assert before[1].missing == (Claim(at(2), at(3)),)
            state = await one.ingestion("a")
            assert state is not None
            assert state.entered

    async def test_accepting_alone_has_no_effect_on_windows(self, world: World) -> None:
        """Until it enters, an ingestion is nobody's member and claims nothing."""
        async with world.open() as ledger:
            await ledger.accept(await acceptance(ledger, "a"))
            assert await ledger.windows(None, None, 10) == []
            assert await ledger.members("air", ZERO) == ()
            assert await ledger.lease(60) is None

    async def test_members_by_ascending_precedence(self, world: World) -> None:
        """issued_at, then id; each with its own metadata and share."""
        async with world.open() as ledger:
            for name, hours in (("b", 30), ("z", 20), ("a", 30)):
                await entered(ledger, name, issued_at=at(hours), about=metadata(description=name))
            members = await ledger.members("air", ZERO)
            assert [member.id for member in members] == ["z", "a", "b"]
            assert [member.metadata.dataset.description for member in members] == ["z", "a", "b"]
            assert [member.share.placement for member in members] == ["z@0", "a@0", "b@0"]
            assert (await leased(ledger)).members == members
            assert await ledger.members("air", ZERO + HOUR) == ()

    async def test_claims_of_all_cover_together(self, world: World) -> None:
        """A window is covered by the union of all claims, gaps between them are told exactly."""
        async with world.open() as ledger:
            await entered(ledger, "a", {0: 1}, [(0, 0.25), (0.5, 0.75)])
            assert (await window(ledger)).missing == (Claim(at(0.25), at(0.5)), Claim(at(0.75), at(1)))
            assert (await window(ledger)).due is None
            await entered(ledger, "b", {}, [(0.7, 3)])
            await entered(ledger, "c", {}, [(-2, 0.5)])
            state = await window(ledger)
            assert state.covered
            assert state.missing == ()
            assert state.due == at(1)

    async def test_zero_rows_make_no_window(self, world: World) -> None:
        """A claim without rows covers, and nothing is built for it alone."""
        async with world.open() as ledger:
            assert await entered(ledger, "a", {}, [(0, 5)]) == []
            assert await ledger.windows(None, None, 10) == []
            assert await ledger.next_due() is None

    @pytest.mark.parametrize("replacer_first", [False, True])
    @pytest.mark.parametrize("accepted_first", [False, True])
    async def test_replaced_ingestions_leave(self, world: World, replacer_first: bool, accepted_first: bool) -> None:
        """What a later command replaces leaves with rows and claims, or never enters, whoever comes first."""
        async with world.open() as ledger:
            old = ("old", {0: 5, 1: 5}, [(0, 2)])
            new = ("new", {0: 2}, [(0, 1)])
            if replacer_first:
                if accepted_first:
                    await ledger.accept(await acceptance(ledger, *old))
                await entered(ledger, *new, replaces=("old",))
                if not accepted_first:
                    await ledger.accept(await acceptance(ledger, *old))
                assert await ledger.enter("old") == []
            else:
                await entered(ledger, *old)
                await entered(ledger, *new, replaces=("old",))
            assert [m.id for m in await ledger.members("air", ZERO)] == ["new"]
            assert (await window(ledger)).rows == 2
            assert (await window(ledger)).covered
            gone, kept = await ledger.ingestion("old"), await ledger.ingestion("new")
            assert gone is not None
            assert gone.replaced
            assert gone.counts.accepted == 10
            assert kept is not None
            assert not kept.replaced
            if not replacer_first:
                left = await window(ledger, 1)
                assert (left.rows, left.covered, left.due) == (0, False, None)

    async def test_chains_of_replacements(self, world: World) -> None:
        """b replaces a, c replaces b: only c is left; a does not come back."""
        async with world.open() as ledger:
            for name, replaces in (("a", ()), ("c", ("b",)), ("b", ("a",))):
                await entered(ledger, name, {0: 1}, [(0, 1)], replaces=replaces)
            assert [m.id for m in await ledger.members("air", ZERO)] == ["c"]
            state = await window(ledger)
            assert (state.rows, state.covered) == (1, True)

    async def test_retracting(self, world: World) -> None:
        """An operator takes an ingestion back, once, known or not yet known; each time is recorded."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            await emptied(ledger)
            number = await ledger.retract("a", b"retracted a")
            assert [(e.number, e.record) for e in await ledger.outbox(10)] == [(number, b"retracted a")]
            desired = (await window(ledger)).desired
            await ledger.retract("a", b"again")
            assert (await window(ledger)).desired == desired
            assert await ledger.members("air", ZERO) == ()
            await ledger.retract("b", b"retracted b")
            assert await entered(ledger, "b") == []
            assert await ledger.members("air", ZERO) == ()

    async def test_reconsidering(self, world: World) -> None:
        """A node with other rules judges the windows that wait by them."""
        async with world.open() as ledger:
            await entered(ledger, "a", {0: 1}, [])
            assert await ledger.lease(60) is None
        world.rules["air"] = WindowRules(allow_incomplete=True)
        async with world.open() as ledger:
            assert await ledger.lease(60) is None
            await ledger.reconsider()
            await ledger.reconsider()
            assert (await leased(ledger)).window_start == ZERO
            assert await ledger.lease(60) is None

    # -- building --------------------------------------------------------------------------------------------------
    async def test_windows_are_leased_longest_due_first(self, world: World) -> None:
        """One lease a window, oldest due first, across datasets."""
        async with world.open() as one, world.open() as two:
            await entered(one, "a", {2: 1, 0: 1}, [(0, 9)])
            await entered(one, "b", {1: 1}, [(0, 9)], about=metadata("rail"))
            got = [await leased(ledger) for ledger in (one, two, one)]
            assert [(g.dataset, (g.window_start - ZERO) // HOUR) for g in got] == [("air", 0), ("rail", 1), ("air", 2)]
            assert await one.lease(60) is None
            assert await two.lease(60) is None
            assert len({g.token for g in got}) == 3
            first = got[0]
            assert (first.span, first.desired, first.failures, first.current) == (Duration("PT1H"), 1, 0, None)
            assert first.expires == START + timedelta(seconds=60)
            assert first.contract == (await one.contract("air"))[0]

    async def test_a_window_is_due_when_it_is_final(self, world: World) -> None:
        """Not before its end plus the time for which the ingestion of highest precedence lets it change."""
        final = (START - at(1)) + timedelta(seconds=100)
        async with world.open() as ledger:
            about = metadata(subject_to_change_window=Duration(final))
            await entered(ledger, "a", issued_at=at(20), about=metadata(subject_to_change_window=Duration("P9000D")))
            await entered(ledger, "b", about=about)
            assert await ledger.next_due() == START + timedelta(seconds=100)
            assert (await window(ledger)).due == START + timedelta(seconds=100)
            await world.elapse(99.9)
            assert await ledger.lease(60) is None
            await world.elapse(0.1)
            assert (await leased(ledger)).window_start == ZERO

    async def test_building_makes_a_revision(self, world: World) -> None:
        """The revision is current, in the feed, and its record and messages are in the outbox; the window is done."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            await emptied(ledger)
            lease = await leased(ledger)
            made = revision(lease)
            built = await ledger.built(lease, made, b"built", (MESSAGE,))
            assert built.outcome is BuildOutcome.REVISED
            (entry,) = await ledger.outbox(10)
            assert (entry.number, entry.record, entry.messages) == (built.entry, b"built", (MESSAGE,))
            assert await ledger.current("air", ZERO) == made == await ledger.latest("air")
            state = await window(ledger)
            assert (state.pending, state.built, state.current, state.due, state.leased_until) == (
                False,
                1,
                made,
                None,
                None,
            )
            assert await ledger.lease(60) is None
            assert await ledger.next_due() is None

    async def test_the_same_content_makes_no_revision(self, world: World) -> None:
        """The window is done and what was counted is recorded, but there is no revision and no message."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            await build(ledger, await leased(ledger))
            await emptied(ledger)
            await entered(ledger, "b")
            await emptied(ledger)
            lease = await leased(ledger)
            assert lease.current is not None
            assert lease.current.number == 1
            same = msgspec.structs.replace(revision(lease), counts=WindowCounts(accepted=20, rows=10, duplicate=10))
            built = await ledger.built(lease, same, b"the same", (MESSAGE,))
            assert built.outcome is BuildOutcome.UNCHANGED
            (entry,) = await ledger.outbox(10)
            assert (entry.record, entry.messages) == (b"the same", ())
            assert len(await ledger.revisions(0, 10)) == 1
            assert await ledger.last_revision() == 1
            state = await window(ledger)
            assert state.current is not None
            assert not state.pending
            assert (state.current.number, state.current.counts.duplicate) == (1, 10)

    async def test_a_b_a_is_revision_three(self, world: World) -> None:
        """Order is the number: content that comes back is a new revision that supersedes the one between."""
        async with world.open() as ledger:
            for name, content in (("a", "A"), ("b", "B"), ("c", "A")):
                await entered(ledger, name)
                assert (await build(ledger, await leased(ledger), content)).outcome is BuildOutcome.REVISED
            feed = [r for _, r in await ledger.revisions(0, 10)]
            assert [(r.number, r.content_hash) for r in feed] == [(1, "A"), (2, "B"), (3, "A")]
            assert [r.event.supersedes for r in feed] == [None, feed[0].event.id, feed[1].event.id]

    async def test_news_during_a_build_is_built_next(self, world: World) -> None:
        """What enters while a window is leased makes it due again when the build is recorded, and not before."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            lease = await leased(ledger)
            await entered(ledger, "b")
            assert await ledger.lease(60) is None
            assert (await build(ledger, lease, "A")).outcome is BuildOutcome.REVISED
            assert (await window(ledger)).pending
            again = await leased(ledger)
            assert [m.id for m in again.members] == ["a", "b"]
            assert again.current is not None

    async def test_a_lost_lease_records_nothing(self, world: World) -> None:
        """A zombie, whose lease expired and went to another, can do nothing at all."""
        async with world.open() as one, world.open() as two:
            await entered(one, "a")
            zombie = await leased(one, ttl=10)
            await world.elapse(9)
            assert await two.lease(60) is None
            await world.elapse(1)
            lease = await leased(two)
            await emptied(one)
            assert (await build(one, zombie, "Z")).outcome is BuildOutcome.STALE
            assert await one.renew(zombie, 60) is False
            await one.failed(zombie, "zombie", None)
            await one.release(zombie)
            assert await one.outbox(10) == []
            assert await one.last_revision() == 0
            state = await window(two)
            assert (state.failures, state.parked, state.leased_until) == (0, None, lease.expires)
            assert (await build(two, lease, "A")).outcome is BuildOutcome.REVISED
            assert (await build(two, lease, "B")).outcome is BuildOutcome.STALE
            assert (await build(one, zombie, "Z")).outcome is BuildOutcome.STALE
            assert [r.content_hash for _, r in await one.revisions(0, 10)] == ["A"]

    async def test_renewing_keeps_a_lease(self, world: World) -> None:
        """A renewed lease lasts from the moment of renewal."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            lease = await leased(ledger, ttl=10)
            await world.elapse(8)
            assert await ledger.renew(lease, 10) is True
            await world.elapse(8)
            assert await ledger.lease(60) is None
            assert (await window(ledger)).leased_until == START + timedelta(seconds=18)
            assert await ledger.next_due() == START + timedelta(seconds=18)
            assert (await build(ledger, lease)).outcome is BuildOutcome.REVISED

    async def test_a_released_window_is_free(self, world: World) -> None:
        """release hands the window back unbuilt, without a failure; the old lease is worth nothing then."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            lease = await leased(ledger)
            await ledger.release(lease)
            await ledger.release(lease)
            again = await leased(ledger)
            assert (again.failures, again.token == lease.token) == (0, False)
            assert (await build(ledger, lease)).outcome is BuildOutcome.STALE

    async def test_a_failing_window_backs_off(self, world: World) -> None:
        """It is tried again after the pause, its failures counted; others go on; success forgets them."""
        async with world.open() as ledger:
            await entered(ledger, "a", {0: 1, 1: 1}, [(0, 2)])
            await ledger.failed(await leased(ledger), "boom", 30)
            other = await leased(ledger)
            assert other.window_start == ZERO + HOUR
            await build(ledger, other)
            assert await ledger.lease(60) is None
            assert await ledger.next_due() == START + timedelta(seconds=30)
            assert (await ledger.unsettled()).windows > 0
            await world.elapse(30)
            again = await leased(ledger)
            assert (again.window_start, again.failures) == (ZERO, 1)
            await build(ledger, again)
            assert (await window(ledger)).failures == 0

    async def test_a_parked_window_waits_for_somebody(self, world: World) -> None:
        """It keeps its reason and is not tried; `retry_windows` frees it, of one dataset or of all."""
        async with world.open() as ledger:
            for dataset in ("air", "rail"):
                await entered(ledger, dataset, about=metadata(dataset))
                await ledger.failed(await leased(ledger), f"{dataset} is broken", None)
            assert await ledger.lease(60) is None
            assert await ledger.next_due() is None
            assert (await ledger.unsettled()).windows == 0
            assert (await window(ledger)).parked == "air is broken"
            await emptied(ledger)
            assert await ledger.retry_windows("air", b"freed") == 1
            assert [entry.record for entry in await ledger.outbox(10)] == [b"freed"]
            lease = await leased(ledger)
            assert (lease.dataset, lease.failures) == ("air", 0)
            assert (await window(ledger)).parked is None
            assert await ledger.retry_windows(None, b"freed") == 1
            assert await ledger.retry_windows(None, b"freed") == 0
            assert (await leased(ledger)).dataset == "rail"

    async def test_new_data_frees_a_parked_window(self, world: World) -> None:
        """An ingestion that enters a parked window makes it due again, its failures forgotten."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            await ledger.failed(await leased(ledger), "broken", None)
            await entered(ledger, "b")
            lease = await leased(ledger)
            assert (lease.failures, len(lease.members)) == (0, 2)

    async def test_a_window_that_everyone_left(self, world: World) -> None:
        """Built before, it is due again without any member; never built, it is not."""
        async with world.open() as ledger:
            await entered(ledger, "a", {0: 1, 1: 1}, [(0, 2)])
            await build(ledger, await leased(ledger), "A", rows=1)
            await ledger.retract("a", b"retracted")
            lease = await leased(ledger)
            assert (lease.window_start, lease.members) == (ZERO, ())
            assert (await build(ledger, lease, "empty", rows=0)).outcome is BuildOutcome.REVISED
            assert await ledger.lease(60) is None
            assert (await window(ledger)).current is not None
            assert (await window(ledger, 1)).current is None

    async def test_rebuilds_keep_their_distance(self, world: World) -> None:
        """Not more often than the dataset's min_rebuild_interval."""
        world.rules["air"] = WindowRules(min_rebuild_interval=Duration("PT1M"))
        async with world.open() as ledger:
            await entered(ledger, "a")
            await build(ledger, await leased(ledger), "A")
            await entered(ledger, "b")
            assert await ledger.lease(60) is None
            assert await ledger.next_due() == START + timedelta(minutes=1)
            await world.elapse(60)
            await build(ledger, await leased(ledger), "B")

    async def test_work_under_way(self, world: World) -> None:
        """Windows due or leased and decisions not yet relayed are unsettled; a window that is not due is not."""
        async with world.open() as ledger:
            await entered(ledger, "a")
            assert ((await ledger.unsettled()).windows > 0, (await ledger.unsettled()).decisions) == (True, 1)
            lease = await leased(ledger)
            assert (await ledger.unsettled()).windows > 0
            await build(ledger, lease)
            await emptied(ledger)
            assert (await ledger.unsettled()).windows == (await ledger.unsettled()).decisions == 0
            await entered(ledger, "b", {1: 1}, [])
            await emptied(ledger)
            assert (await ledger.unsettled()).windows == 0

    async def test_a_dead_node_loses_its_leases(self, world: World) -> None:
        """What a killed node was building is free at once for the others."""
        async with world.open() as two:
            async with world.open() as one:
                await entered(one, "a")
                lease = await leased(one, ttl=1000)
                await world.kill(one)
            again = await leased(two)
            assert again.window_start == ZERO
            assert (await build(two, lease, "Z")).outcome is BuildOutcome.STALE

    # -- exports ---------------------------------------------------------------------------------------------------
    async def test_the_feed_of_revisions(self, world: World) -> None:
        """All revisions in the order in which they were recorded, by pages, counted from 1 without a hole behind."""
        async with world.open() as ledger:
            assert (await ledger.last_revision(), await ledger.revisions(0, 10)) == (0, [])
            assert await ledger.latest("air") is None
            assert await ledger.current("air", ZERO) is None
            await entered(ledger, "a", {1: 1, 0: 1}, [(0, 2)])
            await entered(ledger, "b", {0: 1}, about=metadata("rail"))
            for _ in range(3):
                await build(ledger, await leased(ledger))
            feed = await ledger.revisions(0, 10)
            assert [(r.dataset, (r.window_start - ZERO) // HOUR) for _, r in feed] == [
                ("air", 0),
                ("rail", 0),
                ("air", 1),
            ]
            places = [place for place, _ in feed]
            assert places == sorted(set(places))
            assert places[-1] == await ledger.last_revision()
            assert await ledger.revisions(places[0], 1) == feed[1:2]
            assert await ledger.revisions(places[-1], 10) == []
            latest = await ledger.latest("rail")
            assert latest is not None
            assert latest.dataset == "rail"

    # -- outbox ----------------------------------------------------------------------------------------------------
    async def test_the_outbox_is_relayed_in_order(self, world: World) -> None:
        """Oldest first, as many as asked; cleared entries are gone, once and for all, for everybody."""
        async with world.open() as one, world.open() as two:
            numbers = [await one.record(f"r{n}".encode()) for n in range(5)]
            assert numbers == sorted(set(numbers))
            assert [e.number for e in await one.outbox(3)] == numbers[:3]
            assert await two.outbox(10) == []
            assert await two.pending([*numbers, 10_000]) == set(numbers)
            await one.clear(numbers[:2], "journal/one/000000000001")
            await one.clear(numbers[:2], "journal/one/000000000001")
            assert [e.number for e in await one.outbox(10)] == numbers[2:]
            assert await one.pending(numbers) == set(numbers[2:])
            assert await one.record(b"later") > numbers[-1]

    async def test_the_outbox_of_a_dead_node_is_adopted(self, world: World) -> None:
        """Decisions of a node that died, or ended, are relayed by another, in order with its own."""
        async with world.open() as two:
            async with world.open() as ended:
                await ended.record(b"ended")
            async with world.open() as one:
                await one.record(b"one")
                await two.record(b"two")
                await world.kill(one)
            assert [entry.record for entry in await two.outbox(10)] == [b"ended", b"one", b"two"]

    # -- nodes and looking -----------------------------------------------------------------------------------------
    async def test_nodes_report_until_they_end(self, world: World) -> None:
        """Each node's last report is there as long as the node is."""

        def report(name: str, waiting: int = 0) -> NodeState:
            boxes = (MailboxState(name="ingestion", waiting=waiting, capacity=4),)
            return NodeState(session=name, name=name, pid=1, seen=START, mailboxes=boxes)

        async with world.open() as two:
            await two.report(report("two"))
            async with world.open() as one:
                await one.report(report("one"))
                await one.report(report("one", 3))
                assert sorted(await two.nodes(), key=lambda n: n.name) == [report("one", 3), report("two")]
            assert await two.nodes() == [report("two")]
            async with world.open() as killed:
                await killed.report(report("killed"))
                await world.kill(killed)
            assert await two.nodes() == [report("two")]

    async def test_ingestions_by_pages(self, world: World) -> None:
        """Accepted ingestions in the order of acceptance, none twice, none left out."""
        async with world.open() as ledger:
            names = ["m", "a", "z", "b", "y"]
            for name in names:
                await ledger.accept(await acceptance(ledger, name))
            found: list[str] = []
            while page := await ledger.ingestions(found[-1] if found else None, 2):
                assert len(page) <= 2
                found += [state.id for state in page]
            assert found == names

    async def test_windows_by_pages(self, world: World) -> None:
        """By dataset and start, those before 1970 too; of one dataset, or those with news only."""
        async with world.open() as ledger:
            away = float(-(ZERO // HOUR) - 7)
            await entered(ledger, "a", {2: 1, 0: 1, away: 1}, [(away, 3)])
            await entered(ledger, "b", {0: 1}, about=metadata("rail"))
            await build(ledger, await leased(ledger))
            for wanted in (None, "air", "rail", "none"):
                for pending in (False, True):
                    everything = await ledger.windows(wanted, None, 100, pending=pending)
                    keys = [(w.dataset, w.window_start) for w in everything]
                    assert keys == sorted(keys)
                    assert len(keys) == {None: 4, "air": 3, "rail": 1, "none": 0}[wanted] - (
                        pending and wanted in (None, "air")
                    )
                    found: list[WindowState] = []
                    after = None
                    while page := await ledger.windows(wanted, after, 1, pending=pending):
                        found += page
                        after = (page[-1].dataset, page[-1].window_start)
                    assert found == everything
            assert (await ledger.windows("air", None, 1))[0].window_start == -7 * HOUR

    async def test_watches_are_rung(self, world: World) -> None:
        """A watch opened before news ends its wait, on the other node too."""
        numbers = count()

        async def news(topic: str, ledger: Ledger) -> None:
            if topic == "windows":
                await entered(ledger, f"c{next(numbers)}")
            else:
                await ledger.record(b"r")

        async with world.open() as one, world.open() as two:
            for topic in ("windows", "outbox"):
                for watching, acting in ((one, one), (one, two)):
                    watch = watching.watch(topic)  # type: ignore[arg-type]
                    await news(topic, acting)
                    with trio.fail_after(20):
                        await watch.wait()

    async def test_the_clock(self, world: World) -> None:
        """now is the ledger's own clock, in UTC."""
        async with world.open() as ledger:
            await world.elapse(7)
            now = await ledger.now()
            assert now == START + timedelta(seconds=7)
            assert now.utcoffset() == timedelta(0)
