"""A pipeline stopped at any scheduler step leaves each delivery settled exactly once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from ionbeam.actors.core import Backoff, Child, Delivery, Inbox, Intensity, Mailbox, Supervisor, intake
from ionbeam.errors import MalformedMessage, Unavailable
from ionbeam.ports.broker import Incoming

BACKOFF = Backoff(first=1, most=4, jitter=0)


class TwinBroker:
    """A queue in memory that knows who holds what, and in what way each message was let go."""

    def __init__(self, bodies: list[str]) -> None:
        self.queue = list(bodies)
        self.held: set[str] = set()
        self.settled: Counter[str] = Counter()
        self.ways: Counter[str] = Counter()

    @asynccontextmanager
    async def consumer(self) -> AsyncIterator[TwinBroker]:
        yield self

    async def receive(self) -> Incoming:
        await trio.lowlevel.checkpoint()
        if not self.queue:
            await trio.sleep_forever()
        body = self.queue.pop(0)
        self.held.add(body)
        return Incoming(
            queue="q",
            message_id=body,
            body=body.encode(),
            attempt=1,
            suspect=False,
            history=(),
            receipt=None,
        )

    async def _settle(self, way: str, message: Incoming) -> bool:
        await trio.lowlevel.checkpoint()
        self.held.remove(message.message_id)
        self.settled[message.message_id] += 1
        self.ways[way] += 1
        return True

    async def ack(self, message: Incoming) -> bool:
        return await self._settle("ack", message)

    async def give_back(self, message: Incoming) -> bool:
        return await self._settle("give_back", message)

    async def retry(self, message: Incoming, error: str, delay: float) -> bool:
        return await self._settle("retry", message)

    async def bury(self, message: Incoming, reason: str) -> bool:
        return await self._settle("bury", message)

    async def on_bury(self, message: Incoming, reason: str) -> None:
        await trio.lowlevel.checkpoint()


class AtStep(trio.abc.Instrument):
    """Does something before scheduler step `k`."""

    def __init__(self, k: int, act: Callable[[], None]) -> None:
        self.left = k
        self.act = act

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.left == 0:
            self.act()
        self.left -= 1


def decode(body: bytes) -> str:
    if body == b"malformed":
        raise MalformedMessage("malformed")
    return body.decode()


class Node:
    """Intake → sorting → working, two workers on the second stage, small mailboxes; bad messages."""

    def __init__(self) -> None:
        self.broker = TwinBroker(["a", "malformed", "poison", "b", "fails", "away", "crash", "c", "d", "e"])
        self.first = Mailbox("first", str, 1)
        self.second = Mailbox("second", str, 2)
        self.stopping = trio.Event()
        self.crashed = False
        self.supervisor = Supervisor(
            [
                Child("working", self.working, self.second.close),
                Child("sorting", self.sorting, self.first.close),
                Child("intake", self.take_in, self.stopping.set),
            ],
            intensity=Intensity(3, 1000),
            backoff=BACKOFF,
        )

    async def take_in(self) -> None:
        broker: Any = self.broker  # a twin of what intake uses of a broker
        await intake(
            broker.consumer,
            decode,
            self.first,
            broker,
            self.stopping,
            backoff=BACKOFF,
            on_bury=self.broker.on_bury,
        )

    async def sorting(self) -> None:
        """Hands on unopened what the next stage shall open."""
        async for delivery in self.first.inbox:
            if delivery.message == "poison":
                async with delivery:
                    raise MalformedMessage("poison")
            else:
                await self.hand_on(delivery)

    async def hand_on(self, delivery: Delivery[str]) -> None:
        try:
            await self.second.put(delivery)
        except BaseException:
            await delivery.give_back()
            raise

    async def working(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.work, self.second.inbox)
            nursery.start_soon(self.work, self.second.inbox)

    async def work(self, inbox: Inbox[str]) -> None:
        async for delivery in inbox:
            async with delivery as message:
                await trio.sleep(0.1)
                if message == "fails":
                    raise OSError("fails")
                if message == "away":
                    raise Unavailable("away")
            if message == "crash" and not self.crashed:
                self.crashed = True
                raise RuntimeError("the actor itself fails")

    async def end(self) -> None:
        """What a node does last: give back what was never read; then nothing may be held."""
        for mailbox in (self.first, self.second):
            for delivery in mailbox.remaining():
                await delivery.give_back()
        assert self.broker.held == set()
        assert set(self.broker.settled.values()) <= {1}
        assert len(self.broker.settled) + len(self.broker.queue) == 10


def stopped_at(step: int, *, drain: float | None, seed: int = 0) -> tuple[Node, bool]:
    """Run a node that is cancelled, or begins to drain, at `step`; and whether `step` was reached."""
    random.seed(seed)

    async def main() -> tuple[Node, bool]:
        node, now = Node(), trio.Event()
        instrument = AtStep(step, now.set)
        trio.lowlevel.add_instrument(instrument)
        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                if drain is None:
                    instrument.act = nursery.cancel_scope.cancel
                nursery.start_soon(node.supervisor.run)
                with trio.move_on_after(50):
                    await now.wait()
                await node.supervisor.drain(20 if drain is None else drain)
        await node.end()
        return node, instrument.left < 0

    return trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("drain", [None, 0, 0.25, 20])
def test_stopped_at_every_step_each_delivery_is_settled_once(drain: float | None) -> None:
    """Cancelled from outside, or drained with deadlines that cut and that do not."""
    ways: Counter[str] = Counter()
    step = 0
    while True:
        node, reached = stopped_at(step, drain=drain)
        ways += node.broker.ways
        if not reached:
            break
        step += 1
    assert step > 60
    assert set(ways) == {"ack", "give_back", "retry", "bury"}


@settings(max_examples=60)
@given(st.integers(0, 150), st.sampled_from([None, 0.0, 0.15, 3.0]), st.integers(0, 2**32), st.random_module())
def test_stopped_anywhere_in_any_schedule(step: int, drain: float | None, seed: int, chance: object) -> None:
    """The same law, with the scheduler's choices drawn too."""
    stopped_at(step, drain=drain, seed=seed)


def test_left_alone_all_is_settled_as_it_should_be() -> None:
    """Six messages done, two dead, one retried, one given back by an outage; a restart loses nothing."""
    node, _ = stopped_at(10**9, drain=20)
    assert node.broker.ways == {"ack": 6, "bury": 2, "retry": 1, "give_back": 1}
    assert node.crashed
    assert node.broker.queue == []
