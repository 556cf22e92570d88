"""Children are started in order, restarted within a budget, and stopped in reverse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ionbeam.actors.core import (
    Backoff,
    Change,
    Child,
    ChildEvent,
    Drained,
    Intensity,
    Supervisor,
    steady,
)
from ionbeam.errors import NodeFailed

BACKOFF = Backoff(first=1, factor=2, most=60, jitter=0)
MANY = Intensity(restarts=1000, seconds=10)


class Story:
    """What happened, and when."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[ChildEvent] = []
        self.times: list[float] = []

    def hear(self, event: ChildEvent) -> None:
        self.events.append(event)
        self.lines.append(f"{event.child} {event.change.name}")
        if event.change is Change.STARTED:
            self.times.append(trio.current_time())

    def since_first(self) -> list[float]:
        return [at - self.times[0] for at in self.times]


def supervise(story: Story, *children: Child, intensity: Intensity = MANY) -> Supervisor:
    return Supervisor(children, intensity=intensity, backoff=BACKOFF, random=steady, on_event=story.hear)


def scripted(*outcomes: Exception | float | None) -> Callable[[], Awaitable[None]]:
    """Each incarnation raises its outcome, returns (None) or fails after so many seconds; then for ever."""
    left = list(outcomes)

    async def run() -> None:
        if not left:
            await trio.sleep_forever()
        match left.pop(0):
            case Exception() as error:
                raise error
            case float(seconds):
                await trio.sleep(seconds)
                raise OSError("lived long")

    return run


def busy(seconds: float, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
    """Cannot be cancelled for so many seconds, then returns or raises."""

    async def run() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        if error is not None:
            raise error

    return run


def obedient(name: str, story: Story, last_wish: float = 0) -> Child:
    """A child that ends `last_wish` seconds after it was asked to, and tells of it."""
    asked = trio.Event()

    async def run() -> None:
        try:
            await asked.wait()
            await trio.sleep(last_wish)
            story.lines.append(f"{name} finished")
        except trio.Cancelled:
            story.lines.append(f"{name} cancelled")
            raise

    def stop() -> None:
        story.lines.append(f"{name} asked")
        asked.set()

    return Child(name, run, stop)


async def drained(supervisor: Supervisor, deadline: float = 100) -> Drained:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_all_tasks_blocked()
        return await supervisor.drain(deadline)
    raise AssertionError


async def test_children_start_in_order_and_drain_in_reverse(autojump_clock: MockClock) -> None:
    """Each is asked only when the one after it has ended."""
    story = Story()
    children = [obedient(name, story, last_wish=2) for name in "abc"]
    assert await drained(supervise(story, *children)) == Drained(clean=True, cut=())
    assert story.lines == [
        *("a STARTED", "b STARTED", "c STARTED"),
        *("c asked", "c finished", "c ENDED"),
        *("b asked", "b finished", "b ENDED"),
        *("a asked", "a finished", "a ENDED"),
    ]


async def test_a_child_begins_before_the_next_is_started() -> None:
    """In order means: up to its first wait, not only scheduled."""
    began: list[str] = []

    def child(name: str) -> Child:
        async def run() -> None:
            began.append(name)
            await trio.sleep_forever()

        return Child(name, run)

    names = list("abcdefgh")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise(Story(), *map(child, names)).run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert began == names


async def test_a_failing_child_is_restarted_with_growing_pauses(autojump_clock: MockClock) -> None:
    """1, 2, 4 seconds; a child that lived as long as the budget's window begins its back-off anew."""
    story = Story()
    run = scripted(OSError("x"), OSError("x"), OSError("x"), 10.0)
    with trio.move_on_after(100):
        await supervise(story, Child("a", run)).run()
    assert story.since_first() == [0, 1, 3, 7, 18]
    assert [event.delay for event in story.events if event.change is Change.FAILED] == [1, 2, 4, 1]


async def test_returning_unasked_is_a_failure_unless_the_child_is_made_so(autojump_clock: MockClock) -> None:
    """`restart=False`: returning is its end, raising still is not; the others go on."""
    story = Story()
    with trio.move_on_after(100):
        await supervise(
            story,
            Child("a", scripted(None)),
            Child("b", scripted(OSError("x"), None), restart=False),
        ).run()
    assert [line for line in story.lines if line.startswith("a")] == ["a STARTED", "a FAILED", "a STARTED"]
    assert [line for line in story.lines if line.startswith("b")] == [
        *("b STARTED", "b FAILED", "b STARTED", "b ENDED"),
    ]
    assert "returned though nobody asked" in str(next(e.error for e in story.events if e.child == "a" and e.error))


async def test_run_returns_when_all_children_have_ended() -> None:
    """Nothing is left to supervise."""
    with trio.fail_after(1):
        await supervise(Story(), Child("a", scripted(None), restart=False)).run()


async def test_beyond_the_budget_the_node_fails(autojump_clock: MockClock) -> None:
    """One budget for all; the others are cancelled in reverse order; the last error is the cause."""
    story = Story()
    last = OSError("disk on fire")
    supervisor = supervise(
        story,
        obedient("x", story),
        Child("a", scripted(OSError("1"), last)),
        Child("b", scripted(0.5)),
        obedient("y", story),
        intensity=Intensity(restarts=2, seconds=10),
    )
    with trio.fail_after(100), pytest.raises(NodeFailed, match=r"'a' with 'OSError: disk on fire'") as caught:
        await supervisor.run()
    assert caught.value.__cause__ is last
    end = story.lines.index("y CUT")
    assert story.lines[end - 1 :] == ["a FAILED", "y CUT", "y cancelled", "b CUT", "x CUT", "x cancelled"]
    assert story.events[-4].delay is None


async def test_a_failing_node_starts_nothing_any_more(autojump_clock: MockClock) -> None:
    """Not even a child whose pause ends while another takes its time to go."""
    story = Story()
    supervisor = supervise(
        story,
        Child("pausing", scripted(0.5)),
        Child("failing", scripted(OSError("1"), OSError("2"))),
        Child("slow", busy(20)),
        intensity=Intensity(restarts=2, seconds=10),
    )
    with trio.fail_after(100), pytest.raises(NodeFailed):
        await supervisor.run()
    assert story.lines.count("pausing STARTED") == 1
    assert story.lines[-2:] == ["slow CUT", "slow ENDED"]


@pytest.mark.parametrize("error", [None, OSError("too late")])
async def test_one_that_ends_only_after_it_was_cut_is_named(error: Exception | None, autojump_clock: MockClock) -> None:
    """It ends as it will behind its shield: that is no unasked return, and a late error costs no budget."""
    story = Story()
    supervisor = supervise(
        story, Child("busy", busy(20, error)), Child("stuck", scripted()), intensity=Intensity(0, 10)
    )
    assert await drained(supervisor, 5) == Drained(clean=False, cut=("stuck", "busy"))
    assert story.lines[2:] == ["stuck CUT", "busy CUT", "busy ENDED" if error is None else "busy FAILED"]


@pytest.mark.parametrize(("lives", "fails"), [(9.0, True), (10.0, False), (11.0, False)])
async def test_the_budget_is_a_sliding_window(lives: float, fails: bool, autojump_clock: MockClock) -> None:
    """A restart that lies `seconds` back is forgotten: one per 10 s is allowed, for ever."""
    supervisor = supervise(
        Story(),
        Child("a", scripted(*[lives - 1.0] * 50)),  # the pause of 1 s makes `lives` between two failures
        intensity=Intensity(restarts=1, seconds=10),
    )
    with trio.move_on_after(400) as scope:
        try:
            await supervisor.run()
        except NodeFailed:
            assert fails
            return
    assert scope.cancelled_caught
    assert not fails


async def test_no_restarts_means_the_first_failure_is_the_last(autojump_clock: MockClock) -> None:
    """Also while the children are still being started: the later ones never begin."""
    story = Story()
    supervisor = supervise(
        story, Child("a", scripted(OSError("x"))), Child("b", scripted()), intensity=Intensity(0, 10)
    )
    with trio.fail_after(1), pytest.raises(NodeFailed):
        await supervisor.run()
    assert story.lines[:2] == ["a STARTED", "a FAILED"]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 3.0]), max_size=5), min_size=1, max_size=4),
    st.integers(0, 6),
    st.random_module(),
)
def test_incarnations_never_overlap(lives: list[list[float]], restarts: int, chance: object) -> None:
    """Also when an incarnation takes its time to go; and a node fails exactly when the budget is spent."""
    alive = [0] * len(lives)

    def child(index: int) -> Child:
        left = list(lives[index])

        async def run() -> None:
            alive[index] += 1
            assert alive[index] == 1
            try:
                if not left:
                    await trio.sleep_forever()
                await trio.sleep(left.pop(0))
                raise OSError("x")
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.7)
                alive[index] -= 1

        return Child(str(index), run)

    async def main() -> None:
        supervisor = supervise(Story(), *map(child, range(len(lives))), intensity=Intensity(restarts, seconds=10_000))
        failed = False
        with trio.move_on_after(1000):
            try:
                await supervisor.run()
            except NodeFailed:
                failed = True
        assert failed == (sum(map(len, lives)) > restarts)
        assert alive == [0] * len(lives)

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_stuck_child_is_cut_at_the_deadline(autojump_clock: MockClock) -> None:
    """One deadline for all: the stuck one and those not yet asked are cancelled in reverse and named."""
    story = Story()
    stuck = Child("stuck", scripted())
    children = (obedient("a", story), obedient("b", story), stuck, obedient("c", story, last_wish=3))
    start = trio.current_time()
    assert await drained(supervise(story, *children), 5) == Drained(clean=False, cut=("stuck", "b", "a"))
    assert trio.current_time() - start == 5
    assert story.lines[4:] == [
        *("c asked", "c finished", "c ENDED"),
        *("stuck CUT", "b CUT", "b cancelled", "a CUT", "a cancelled"),
    ]


async def test_a_child_that_fails_while_draining_runs_dry_in_a_new_incarnation(
    autojump_clock: MockClock,
) -> None:
    """A pause that was running when it was asked to stop is cut short."""
    story = Story()
    asked, incarnations = trio.Event(), []

    async def run() -> None:
        incarnations.append(trio.current_time())
        if len(incarnations) == 1:
            raise OSError("x")
        await asked.wait()

    supervisor = Supervisor(
        [Child("a", run, asked.set)],
        intensity=MANY,
        backoff=Backoff(first=50, jitter=0),
        on_event=story.hear,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_all_tasks_blocked()
        assert await supervisor.drain(1) == Drained(clean=True, cut=())
    assert incarnations == [incarnations[0]] * 2


async def test_a_child_that_cannot_be_asked_does_not_stop_the_drain() -> None:
    """Its stop raises: it is cancelled and named, the others drain."""
    story = Story()

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    children = (obedient("a", story), Child("b", scripted(), broken), obedient("c", story))
    assert await drained(supervise(story, *children)) == Drained(clean=False, cut=("b",))
    assert "a finished" in story.lines


async def test_an_error_raised_beside_the_cancellation_is_reported() -> None:
    """A child that fails while it is being cut is not restarted, and its error reaches the observer."""
    story = Story()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while cleaning up")

    assert await drained(supervise(story, Child("a", run)), 0) == Drained(clean=False, cut=("a",))
    assert story.lines == ["a STARTED", "a CUT", "a FAILED"]


async def test_draining_before_or_while_starting_starts_no_more() -> None:
    """A signal may come at any moment."""
    story = Story()
    supervisor = supervise(story, obedient("a", story))
    assert await supervisor.drain(1) == Drained(clean=True, cut=())
    with trio.fail_after(1):
        await supervisor.run()
    assert story.lines == []
    with pytest.raises(RuntimeError, match="make a new one"):
        await supervisor.run()


async def test_a_second_drain_shortens_the_first(autojump_clock: MockClock) -> None:
    """An impatient second Ctrl-C; no child is asked twice."""
    story = Story()
    supervisor = supervise(story, Child("stuck", scripted(), lambda: story.lines.append("asked")))
    results: list[Drained] = []

    async def drain(deadline: float) -> None:
        results.append(await supervisor.drain(deadline))

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervisor.run)
        await wait_all_tasks_blocked()
        nursery.start_soon(drain, 1000)
        await trio.sleep(1)
        await drain(0)
    assert trio.current_time() - start == 1
    assert results == [Drained(clean=False, cut=("stuck",))] * 2
    assert story.lines.count("asked") == 1


async def test_a_node_that_fails_while_draining_says_so(autojump_clock: MockClock) -> None:
    """Its children back off as ever; the drain ends early, unclean, and run raises."""
    asked = trio.Event()

    async def run() -> None:
        await asked.wait()
        raise OSError("x")

    supervisor = supervise(
        Story(),
        Child("other", scripted()),
        Child("a", run, asked.set),
        intensity=Intensity(restarts=2, seconds=100),
    )
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                with pytest.raises(NodeFailed):
                    await supervisor.run()

            nursery.start_soon(fail)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            assert await supervisor.drain(50) == Drained(clean=False, cut=("a", "other"))
            assert trio.current_time() - start == 1 + 2


async def test_a_failure_beside_the_cancellation_of_run_is_reported_and_not_raised() -> None:
    """The canceller gets what it asked for; the observer hears of the error."""
    story = Story()

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while cleaning up")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervise(story, Child("a", run)).run)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert story.lines == ["a STARTED", "a FAILED"]


async def test_what_is_no_exception_ends_the_supervisor() -> None:
    """Ctrl-C in a child is no failure to restart after."""

    async def run() -> None:
        raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt):
        await supervise(Story(), Child("a", run), Child("b", scripted())).run()


async def test_cancelling_run_cancels_all_children() -> None:
    """And nothing is restarted."""
    story = Story()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise(story, obedient("a", story), obedient("b", story)).run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(story.lines) == ["a STARTED", "a cancelled", "b STARTED", "b cancelled"]


def test_mistakes_are_named() -> None:
    """Equal names, impossible intensities."""
    with pytest.raises(ValueError, match="repeated: 'a'"):
        supervise(Story(), Child("a", scripted()), Child("b", scripted()), Child("a", scripted()))
    with pytest.raises(ValueError, match="`restarts` must not be negative, got -1"):
        Intensity(-1, 10)
    with pytest.raises(ValueError, match="`seconds` must be above 0, got 0"):
        Intensity(1, 0)
