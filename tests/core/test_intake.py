"""From the broker into a mailbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ionbeam.actors.core import Backoff, Delivery, Mailbox, Settled, intake
from ionbeam.errors import MalformedMessage, MessageTypeError, Unavailable
from ionbeam.ports.broker import Attempt, Broker, Consumer, Incoming

BACKOFF = Backoff(first=1, factor=2, most=8, jitter=0)


def incoming(body: str, attempt: int = 1, *, suspect: bool = False, history: tuple[Attempt, ...] = ()) -> Incoming:
    return Incoming(
        queue="q",
        message_id=body,
        body=body.encode(),
        attempt=attempt,
        suspect=suspect,
        history=history,
        receipt=None,
    )


def number(body: bytes) -> int:
    try:
        return int(body)
    except ValueError:
        raise MalformedMessage(f"not a number: {body!r}") from None


class FakeBroker:
    """Hands out a script of messages and faults, then waits; writes down in `done` how each was settled."""

    def __init__(self, *script: Incoming | Exception) -> None:
        self.script = list(script)
        self.done: list[tuple[str, ...]] = []
        self.opening: list[Exception] = []
        self.settling: list[Exception] = []
        self.consumers = 0

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[FakeBroker]:
        if self.opening:
            raise self.opening.pop(0)
        self.consumers += 1
        try:
            yield self
        finally:
            self.consumers -= 1
            # Leaving is async work: it must not be cancelled when only `stopping` is set.
            await trio.lowlevel.checkpoint()
            self.done.append(("left",))

    async def receive(self) -> Incoming:
        await trio.lowlevel.checkpoint()
        if not self.script:
            await trio.sleep_forever()
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    async def on_bury(self, message: Incoming, reason: str) -> None:
        self.done.append(("journalled", message.message_id, reason))

    async def _settle(self, what: str, message: Incoming, *more: str) -> bool:
        await trio.lowlevel.checkpoint()
        if self.settling:
            raise self.settling.pop(0)
        self.done.append((what, message.message_id, *more))
        return True

    async def ack(self, message: Incoming) -> bool:
        return await self._settle("ack", message)

    async def give_back(self, message: Incoming) -> bool:
        return await self._settle("give_back", message)

    async def retry(self, message: Incoming, error: str, delay: float) -> bool:
        return await self._settle("retry", message, error, str(delay))

    async def bury(self, message: Incoming, reason: str) -> bool:
        return await self._settle("bury", message, reason)


class Run:
    """An intake under way on a fake broker."""

    def __init__(self, broker: Any, *, capacity: int = 9, decode: Callable[[bytes], Any] = number) -> None:
        self.broker: Any = broker
        self.mailbox = Mailbox("numbers", int, capacity)
        self.stopping = trio.Event()
        self.decode = decode
        self.settled: list[Delivery[Any]] = []

    async def __call__(self) -> None:
        consumer_of: Callable[[], AbstractAsyncContextManager[Consumer]] = self.broker.consumer
        broker: Broker = self.broker
        await intake(
            consumer_of,
            self.decode,
            self.mailbox,
            broker,
            self.stopping,
            limit=3,
            backoff=BACKOFF,
            max_suspect_attempts=6,
            on_bury=self.broker.on_bury,
            on_settled=self.settled.append,
        )

    async def until_idle(self) -> None:
        """Let it take what there is, then stop it."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self)
            await wait_all_tasks_blocked()
            self.stopping.set()

    def taken(self) -> list[Delivery[int]]:
        return self.mailbox.remaining()


async def test_messages_come_decoded_with_their_attempt() -> None:
    """What the actor settles is settled at the broker; the consumer is left in peace."""
    broker = FakeBroker(incoming("1"), incoming("2", 2, suspect=True))
    run = Run(broker)
    await run.until_idle()
    first, second = run.taken()
    assert broker.done == [("left",)]
    async with first as message:
        assert message == 1
    async with second as message:
        assert (message, second.attempt, second.suspect) == (2, 2, True)
        raise OSError("slow")
    assert broker.done[1:] == [("ack", "1"), ("retry", "2", "OSError: slow", "2.0")]
    assert run.settled == [first, second]


async def test_a_malformed_message_is_journalled_then_buried_and_the_next_goes_on() -> None:
    """Bad input costs its sender, nobody else."""
    broker = FakeBroker(incoming("one"), incoming("2"))
    run = Run(broker)
    await run.until_idle()
    reason = "not a number: b'one'"
    assert broker.done == [("journalled", "one", reason), ("bury", "one", reason), ("left",)]
    assert [delivery.message for delivery in run.taken()] == [2]


async def test_an_actors_poison_is_journalled_too_and_once(autojump_clock: MockClock) -> None:
    """Also when the broker has to be asked again."""
    broker = FakeBroker(incoming("1"))
    run = Run(broker)
    await run.until_idle()
    broker.settling = [Unavailable("away"), Unavailable("away")]
    async with run.taken()[0]:
        raise MalformedMessage("bad payload")
    assert broker.done[1:] == [("journalled", "1", "bad payload"), ("bury", "1", "bad payload")]


async def test_a_faulty_decoder_spends_an_attempt() -> None:
    """Any other error is not the message's fault for certain: it is tried again, and in the end buried."""

    def decode(body: bytes) -> int:
        raise ZeroDivisionError("a bug")

    broker = FakeBroker(incoming("1"), incoming("2", 3))
    await Run(broker, decode=decode).until_idle()
    assert broker.done[0] == ("retry", "1", "ZeroDivisionError: a bug", "1.0")
    assert broker.done[2] == (
        "bury",
        "2",
        "attempt 3 failed and at most 3 are made: ZeroDivisionError: a bug",
    )


@pytest.mark.parametrize(
    ("attempt", "suspect", "buried"),
    [(3, False, False), (4, False, True), (4, True, False), (6, True, False), (7, True, True)],
)
async def test_what_repeatedly_ended_its_process_is_buried_undecoded(attempt: int, suspect: bool, buried: bool) -> None:
    """Beyond the limit; suspects, who may only have been near, have more tries. The history is quoted."""
    decoded: list[bytes] = []

    def decode(body: bytes) -> int:
        decoded.append(body)
        return 1

    past = Attempt(datetime(2026, 1, 2, tzinfo=UTC), "OSError: slow")
    broker = FakeBroker(incoming("1", attempt, suspect=suspect, history=(past,)))
    await Run(broker, decode=decode).until_idle()
    assert bool(decoded) != buried
    assert [done[0] for done in broker.done] == [*(["journalled", "bury"] if buried else []), "left"]
    if buried:
        reason = broker.done[1][2]
        assert f"would be attempt {attempt}" in reason
        assert "ended with its process" in reason
        assert "2026-01-02T00:00:00+00:00 OSError: slow" in reason


async def test_what_waits_for_room_is_given_back_on_stopping() -> None:
    """A full mailbox holds the intake; what did not get in goes back, what got in stays."""
    broker = FakeBroker(incoming("1"), incoming("2"), incoming("3"))
    run = Run(broker, capacity=1)
    await run.until_idle()
    assert broker.done == [("give_back", "2"), ("left",)]
    assert [delivery.message for delivery in run.taken()] == [1]
    assert run.settled[0].settled is Settled.RETURNED
    assert len(broker.script) == 1


async def test_cancellation_gives_back_too() -> None:
    """As at the deadline of a drain."""
    broker = FakeBroker(incoming("1"), incoming("2"))
    run = Run(broker, capacity=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert broker.done == [("give_back", "2")]
    assert broker.consumers == 0


async def test_closing_mailbox_and_intake_at_once_is_no_failure() -> None:
    """In whatever order the two take effect, the message goes back; a mailbox closed alone is a failure."""
    broker = FakeBroker(incoming("1"), incoming("2"))
    run = Run(broker, capacity=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await wait_all_tasks_blocked()
        run.mailbox.close()
        run.stopping.set()
    assert broker.done == [("give_back", "2"), ("left",)]
    broker = FakeBroker(incoming("1"))
    run = Run(broker)
    run.mailbox.close()
    with pytest.RaisesGroup(trio.ClosedResourceError):
        await run()
    assert broker.done[0] == ("give_back", "1")


async def test_a_stopped_intake_does_not_begin() -> None:
    """A restart while draining takes nothing more from the broker."""
    broker = FakeBroker(incoming("1"))
    run = Run(broker)
    run.stopping.set()
    await run()
    assert broker.done == []


async def test_an_unavailable_broker_is_waited_for_on_opening_and_in_place(autojump_clock: MockClock) -> None:
    """The consumer is opened again after a failed opening, and kept through a failed receive."""
    broker = FakeBroker(Unavailable("away"), incoming("1"), Unavailable("away"), Unavailable("away"), incoming("2"))
    broker.opening = [Unavailable("no"), Unavailable("no")]
    run = Run(broker)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await anext(run.mailbox.inbox)
        assert trio.current_time() - start == 1 + 2 + 1
        await anext(run.mailbox.inbox)
        assert trio.current_time() - start == 4 + 1 + 2
        run.stopping.set()
    assert broker.done == [("left",)]


async def test_stopping_ends_the_wait_for_a_broker(autojump_clock: MockClock) -> None:
    """A broker that is away does not hold up a drain."""
    broker = FakeBroker()
    broker.opening = [Unavailable("no")] * 99
    run = Run(broker)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(1.5)
        run.stopping.set()
    assert trio.current_time() - start == 1.5


async def test_a_decoder_of_another_type_is_a_failure_that_loses_nothing() -> None:
    """A mistake of wiring comes out; the message is given back."""
    broker = FakeBroker(incoming("1"))
    with pytest.RaisesGroup(MessageTypeError):
        await Run(broker, decode=lambda body: body.decode())()
    assert broker.done[0] == ("give_back", "1")
