"""Every way out of a delivery settles it, once."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ionbeam.actors.core import Backoff, Delivery, Settled
from ionbeam.errors import MalformedMessage, PayloadMissing, Poison, Refused, SettlementError, Unavailable

BACKOFF = Backoff(first=1, factor=2, most=60, jitter=0)


class Recorder:
    """A settler that writes down what was asked of it, after raising its scripted faults."""

    def __init__(self, *faults: Exception, held: bool = True) -> None:
        self.faults = list(faults)
        self.held = held
        self.done: list[tuple[object, ...]] = []

    async def _do(self, *what: object) -> bool:
        await trio.lowlevel.checkpoint()
        if self.faults:
            raise self.faults.pop(0)
        self.done.append(what)
        return self.held

    async def ack(self) -> bool:
        return await self._do("ack")

    async def give_back(self) -> bool:
        return await self._do("give_back")

    async def retry(self, error: str, delay: float) -> bool:
        return await self._do("retry", error, delay)

    async def bury(self, reason: str) -> bool:
        return await self._do("bury", reason)


def delivery(settler: Recorder, attempt: int = 1, **options: object) -> Delivery[str]:
    return Delivery("hello", settler, attempt=attempt, limit=3, backoff=BACKOFF, **options)  # type: ignore[arg-type]


async def test_a_normal_end_acks() -> None:
    """The body gets the message; `settled` is unknown until the end; the observer is told once."""
    settler = Recorder()
    heard: list[Delivery[str]] = []
    held = delivery(settler, on_settled=heard.append)
    async with held as message:
        assert message == "hello"
        assert held.settled is None
        assert settler.done == []
    assert settler.done == [("ack",)]
    assert held.settled is Settled.ACKED
    assert heard == [held]


@pytest.mark.parametrize(
    "error",
    [
        Refused("no such unit"),
        ExceptionGroup("both", [Poison("no such unit")]),
        ExceptionGroup("deep", [ExceptionGroup("er", [MalformedMessage("no such unit")])]),
    ],
)
async def test_poison_is_buried_with_its_text(error: Exception) -> None:
    """Alone or in a group, at the first attempt, and the actor goes on."""
    settler = Recorder()
    held = delivery(settler)
    async with held:
        raise error
    assert settler.done == [("bury", "no such unit")]
    assert held.settled is Settled.BURIED


async def test_poison_beside_another_error_spends_an_attempt() -> None:
    """Only what is nothing but poison can never succeed."""
    settler = Recorder()
    async with delivery(settler):
        raise ExceptionGroup("mixed", [Poison("bad"), OSError("slow")])
    assert settler.done == [("retry", "Poison: bad; OSError: slow", 1.0)]


@pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (2, 2.0)])
async def test_a_failure_spends_an_attempt(attempt: int, delay: float, caplog: pytest.LogCaptureFixture) -> None:
    """Retried after the back-off of its attempt; swallowed, but told in the log with its traceback."""
    settler = Recorder()
    held = delivery(settler, attempt, label="q/7")
    with caplog.at_level(logging.ERROR):
        async with held:
            raise PayloadMissing("raw/x")
    assert settler.done == [("retry", "PayloadMissing: raw/x", delay)]
    assert held.settled is Settled.RETRIED
    assert f"'q/7': attempt {attempt} of 3 failed" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("attempt", [3, 4])
async def test_the_last_attempt_ends_as_a_dead_letter(attempt: int) -> None:
    """The reason says how often it was tried and what went wrong last."""
    settler = Recorder()
    async with delivery(settler, attempt):
        raise ValueError("boom")
    assert settler.done == [("bury", f"attempt {attempt} failed and at most 3 are made: ValueError: boom")]


async def test_cancellation_gives_back_under_a_shield() -> None:
    """The settler completes although its scope is cancelled, and the cancellation goes on."""
    settler = Recorder()
    held = delivery(settler)
    with trio.CancelScope() as scope:
        async with held:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert settler.done == [("give_back",)]
    assert held.settled is Settled.RETURNED


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2)])
async def test_what_is_no_exception_gives_back_and_comes_out(error: BaseException) -> None:
    """The message is not to blame for Ctrl-C."""
    settler = Recorder()
    with pytest.raises(type(error)):
        async with delivery(settler):
            raise error
    assert settler.done == [("give_back",)]


async def test_a_failure_beside_a_cancellation_counts_as_cancellation() -> None:
    """A group of both gives back; what was beside the cancellation is not lost."""
    settler = Recorder()

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while cleaning up")

    with pytest.RaisesGroup(OSError, flatten_subgroups=True), trio.CancelScope() as scope:
        async with delivery(settler), trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert settler.done == [("give_back",)]


@pytest.mark.parametrize("error", [Unavailable("full"), ExceptionGroup("", [Unavailable("full")])])
async def test_unavailable_gives_back_and_pauses(error: Exception, autojump_clock: MockClock) -> None:
    """No attempt is spent; the message is back before the pause begins."""
    settler = Recorder()
    held = delivery(settler, 2)
    start = trio.current_time()
    seen: list[float] = []
    held._on_settled = lambda _: seen.append(trio.current_time() - start)
    async with held:
        raise error
    assert settler.done == [("give_back",)]
    assert seen == [0]
    assert trio.current_time() - start == 2


async def test_settling_waits_through_an_unavailable_broker(autojump_clock: MockClock) -> None:
    """Also when cancelled meanwhile: the shield holds within the grace."""
    settler = Recorder(Unavailable("away"), Unavailable("away"))
    held = delivery(settler, grace=10)
    with trio.move_on_after(0.5):
        async with held:
            pass
    assert settler.done == [("ack",)]
    assert held.settled is Settled.ACKED


async def test_settling_outlasts_an_outage(autojump_clock: MockClock) -> None:
    """A broker that stays away longer than the grace is waited for: nothing that is done is left unsettled."""
    settler = Recorder(*[Unavailable("away")] * 99)
    held = delivery(settler, grace=10)
    start = trio.current_time()
    async with held:
        pass
    assert trio.current_time() - start > 10
    assert held.settled is Settled.ACKED


async def test_settling_of_a_cancelled_holder_ends_with_the_grace(autojump_clock: MockClock) -> None:
    """A broker that stays away costs the grace and no more; the delivery is lost, which is no error."""
    settler = Recorder(*[Unavailable("away")] * 99)
    heard: list[Delivery[str]] = []
    held = delivery(settler, grace=10, on_settled=heard.append)
    start = trio.current_time()
    with trio.move_on_after(3):
        async with held:
            await trio.sleep_forever()
    assert trio.current_time() - start == 13
    assert held.settled is Settled.LOST
    assert heard == [held]


async def test_a_settler_that_hangs_is_cut_at_the_grace(autojump_clock: MockClock) -> None:
    """Cancelled from outside, a hanging broker cannot keep the node from stopping."""

    class Hanging(Recorder):
        async def give_back(self) -> bool:
            await trio.sleep_forever()
            raise AssertionError

    held = delivery(Hanging(), grace=4)
    start = trio.current_time()
    with trio.move_on_after(1):
        async with held:
            await trio.sleep_forever()
    assert trio.current_time() - start == 5
    assert held.settled is Settled.LOST


async def test_a_message_no_longer_held_is_an_event_and_no_error() -> None:
    """The settler answers False: lost, and nothing is raised."""
    held = delivery(Recorder(held=False))
    async with held:
        pass
    assert held.settled is Settled.LOST


async def test_a_faulty_settler_is_not_hidden() -> None:
    """Its error comes out, and the message goes back, so that somebody gets it while the process lives."""
    held = delivery(Recorder(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        async with held:
            pass
    assert held.settled is Settled.RETURNED


async def test_give_back_settles_what_was_never_opened() -> None:
    """As at the deadline of a drain, in a cancelled scope too."""
    settler = Recorder()
    held = delivery(settler)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await held.give_back() is Settled.RETURNED
    assert settler.done == [("give_back",)]


MOVES: dict[str, Callable[[Delivery[str]], None]] = {"hand_over": Delivery.hand_over, "take": Delivery.take}


@given(st.lists(st.sampled_from(["open", "leave", "give_back", "hand_over", "take"]), max_size=12))
def test_a_delivery_has_one_holder_and_is_settled_once(steps: list[str]) -> None:
    """Whatever is tried in whatever order: each step works exactly where its holder may do it."""
    allowed = {
        ("held", "open"): "open",
        ("open", "leave"): "settled",
        ("held", "give_back"): "settled",
        ("held", "hand_over"): "queued",
        ("queued", "take"): "held",
    }

    async def step(held: Delivery[str], name: str) -> None:
        if name == "open":
            await held.__aenter__()
        elif name == "leave":
            await held.__aexit__(None, None, None)
        elif name == "give_back":
            await held.give_back()
        else:
            MOVES[name](held)

    async def main() -> None:
        settler, place = Recorder(), "held"
        held = delivery(settler)
        for name in steps:
            after = allowed.get((place, name))
            if after is None:
                with pytest.raises(SettlementError, match="one holder"):
                    await step(held, name)
            else:
                await step(held, name)
                place = after
        assert len(settler.done) == (place == "settled")

    trio.run(main)
