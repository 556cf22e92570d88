"""What every Broker promises. A backend passes these tests by giving the fixture `world`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest
import trio
import trio.testing

from ionbeam.errors import SettlementError
from ionbeam.ports.broker import Broker, Incoming, QueueDepth

Q, X = "ionbeam.test.queue", "ionbeam.test.exchange"


class World(Protocol):
    """One place where messages are kept, and the nodes on it."""

    def open(self) -> AbstractAsyncContextManager[Broker]:
        """One more node."""
        ...

    async def elapse(self, seconds: float) -> None:
        """Let time pass for the broker's delays."""
        ...

    async def kill(self, broker: Broker) -> None:
        """End this node as kill -9 does; the others have noticed when this returns."""
        ...


async def received(broker: Broker, queue: str = Q) -> Incoming:
    """The next message of `queue`, handed out and not yet settled."""
    with trio.fail_after(20):
        async with broker.consume(queue, 1) as consumer:
            return await consumer.receive()


async def depth(broker: Broker, queue: str = Q) -> QueueDepth:
    return next(found for found in await broker.depths() if found.queue == queue)


class BrokerContract:
    async def test_a_published_message_arrives_in_every_bound_queue(self, world: World) -> None:
        """Each queue of an exchange gets its own copy; queues of other exchanges get none."""
        async with world.open() as broker:
            assert await broker.bind("a", X) is True
            assert await broker.bind("b", X) is True
            assert await broker.bind("other", "elsewhere") is True
            await broker.publish(X, "m1", b"body")
            for queue in ("a", "b"):
                incoming = await received(broker, queue)
                assert (incoming.queue, incoming.message_id, incoming.body) == (queue, "m1", b"body")
                assert (incoming.attempt, incoming.suspect, incoming.history) == (1, False, ())
            assert (await depth(broker, "other")).unsettled == 0

    async def test_binding_again_changes_nothing(self, world: World) -> None:
        """Only the first bind of a queue says that it is new, and a message still arrives once."""
        async with world.open() as broker:
            assert await broker.bind(Q, X) is True
            assert await broker.bind(Q, X) is False
            await broker.publish(X, "m1", b"")
            assert (await depth(broker)).ready == 1

    async def test_an_exchange_without_queues_swallows(self, world: World) -> None:
        """Nobody asked for the event: publishing it is no error."""
        async with world.open() as broker:
            await broker.publish("nobody.listens", "m1", b"")

    async def test_a_message_to_one_queue(self, world: World) -> None:
        """publish_to reaches the named queue alone, also when the queue is bound to nothing yet."""
        async with world.open() as broker:
            await broker.bind("other", X)
            await broker.publish_to(Q, "m1", b"\x00\xff")
            assert (await received(broker)).body == b"\x00\xff"
            assert (await depth(broker, "other")).unsettled == 0

    async def test_messages_outlive_the_node(self, world: World) -> None:
        """What was published before a stop is there after a start, bindings too."""
        async with world.open() as broker:
            await broker.bind(Q, X)
            await broker.publish(X, "m1", b"one")
        async with world.open() as broker:
            assert await broker.bind(Q, X) is False
            await broker.publish(X, "m2", b"two")
            assert (await received(broker)).body == b"one"
            assert (await received(broker)).body == b"two"

    async def test_acknowledged_messages_are_gone(self, world: World) -> None:
        """ack ends a message; a second settling of the same receipt is an event and changes nothing."""
        async with world.open() as broker:
            await broker.publish_to(Q, "m1", b"")
            incoming = await received(broker)
            assert await broker.ack(incoming) is True
            assert await broker.ack(incoming) is False
            assert await broker.retry(incoming, "late", 0) is False
            assert await broker.bury(incoming, "late") is False
            assert await broker.give_back(incoming) is False
            assert await depth(broker) == QueueDepth(queue=Q, ready=0, delayed=0, taken=0, dead=0)

    async def test_a_receipt_of_another_broker_is_refused(self, world: World) -> None:
        """Settling with something that was never a receipt here is a mistake of the caller."""
        async with world.open() as broker:
            await broker.publish_to(Q, "m1", b"")
            stranger = Incoming(queue=Q, message_id="m1", body=b"", attempt=1, suspect=False, history=(), receipt="?")
            with pytest.raises(SettlementError, match="another broker"):
                await broker.ack(stranger)

    async def test_given_back_is_first_again_and_unspent(self, world: World) -> None:
        """give_back puts a message before those that came after it, with its attempt unspent."""
        async with world.open() as broker:
            await broker.publish_to(Q, "m1", b"")
            await broker.publish_to(Q, "m2", b"")
            first = await received(broker)
            assert await broker.give_back(first) is True
            again = await received(broker)
            assert (again.message_id, again.attempt, again.history) == ("m1", 1, ())
            assert await broker.ack(first) is False, "the old receipt must not settle the new taking"
            assert await broker.ack(again) is True

    async def test_retry_spends_the_attempt_and_keeps_history(self, world: World) -> None:
        """A retried message comes back after its delay with one attempt more and the error in its history."""
        async with world.open() as broker:
            await broker.publish_to(Q, "m1", b"")
            assert await broker.retry(await received(broker), "first error", 30) is True
            assert await depth(broker) == QueueDepth(queue=Q, ready=0, delayed=1, taken=0, dead=0)
            await world.elapse(31)
            assert (await depth(broker)).ready == 1
            again = await received(broker)
            assert again.attempt == 2
            assert [attempt.error for attempt in again.history] == ["first error"]
            assert again.history[0].at.utcoffset() is not None

    async def test_a_delayed_message_holds_nobody_up(self, world: World) -> None:
        """Messages behind one that waits for its delay are handed out meanwhile."""
        async with world.open() as broker:
            await broker.publish_to(Q, "m1", b"")
            await broker.retry(await received(broker), "later", 1000)
            await broker.publish_to(Q, "m2", b"")
            assert (await received(broker)).message_id == "m2"

    async def test_history_is_bounded(self, world: World) -> None:
        """The newest 20 errors are kept, each of at most 2,000 characters; every attempt still counts."""
        async with world.open() as broker:
            await broker.publish_to(Q, "m1", b"")
            for number in range(23):
                assert await broker.retry(await received(broker), f"{number}:{'x' * 5000}", 0)
            last = await received(broker)
            assert last.attempt == 24
            assert [attempt.error.split(":")[0] for attempt in last.history] == [str(n) for n in range(3, 23)]
            assert max(len(attempt.error) for attempt in last.history) == 2000

    async def test_buried_messages_are_dead_letters(self, world: World) -> None:
        """A dead letter keeps body, reason, attempts, history and the times of its first and last failure."""
        async with world.open() as broker:
            for name in ("m1", "m2"):
                await broker.publish_to(Q, name, name.encode())
            await broker.publish_to("other", "m3", b"m3")
            await broker.retry(await received(broker), "boom", 5)
            await world.elapse(6)
            second = await received(broker)
            await broker.bury(second, "never decodes")
            await broker.bury(await received(broker), "gave up")
            await broker.bury(await received(broker, "other"), "elsewhere")
            letters = {letter.body: letter for letter in await broker.dead_letters(Q)}
            assert set(letters) == {b"m1", b"m2"}
            tried, never = letters[b"m1"], letters[b"m2"]
            assert [attempt.error for attempt in tried.history] == ["boom"]
            assert tried.attempts == 2 and never.attempts == 1
            assert tried.first_failed < tried.last_failed and never.first_failed == never.last_failed
            assert {tried.reason, never.reason} == {"never decodes", "gave up"}
            assert len({letter.id for letter in await broker.dead_letters()}) == 3
            assert await depth(broker) == QueueDepth(queue=Q, ready=0, delayed=0, taken=0, dead=2)

    async def test_dead_letters_come_oldest_first(self, world: World) -> None:
        """Dead letters are listed in the order in which they died."""
        async with world.open() as broker:
            for name in ("m1", "m2", "m3"):
                await broker.publish_to(Q, name, name.encode())
            for _ in range(3):
                await broker.bury(await received(broker), "no")
                await world.elapse(1)
            assert [letter.body for letter in await broker.dead_letters(Q)] == [b"m1", b"m2", b"m3"]

    async def test_one_holder_at_a_time(self, world: World) -> None:
        """Consumers of all nodes together get each message once."""
        names = {f"m{number}" for number in range(12)}
        got: list[str] = []

        async def drain(broker: Broker) -> None:
            async with broker.consume(Q, 2) as consumer:
                while len(got) < len(names):
                    incoming = await consumer.receive()
                    got.append(incoming.message_id)
                    assert await broker.ack(incoming)
                    if len(got) == len(names):
                        nursery.cancel_scope.cancel()

        with trio.fail_after(20):
            async with world.open() as one, world.open() as two:
                for name in sorted(names):
                    await one.publish_to(Q, name, b"")
                async with trio.open_nursery() as nursery:
                    for broker in (one, one, two, two):
                        nursery.start_soon(drain, broker)
                assert sorted(got) == sorted(names)
                assert (await depth(one)).unsettled == 0

    async def test_prefetch_bounds_what_is_unsettled(self, world: World) -> None:
        """A consumer with `prefetch` messages unsettled gets no more until one of them is settled."""
        async with world.open() as broker:
            for number in range(5):
                await broker.publish_to(Q, f"m{number}", b"")
            async with broker.consume(Q, 2) as consumer:
                first, second = await consumer.receive(), await consumer.receive()
                assert await depth(broker) == QueueDepth(queue=Q, ready=3, delayed=0, taken=2, dead=0)
                third: list[Incoming] = []

                async def one_more() -> None:
                    third.append(await consumer.receive())

                with trio.fail_after(20):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(one_more)
                        await trio.testing.wait_all_tasks_blocked()
                        assert third == []
                        await broker.ack(second)
                assert third[0].message_id == "m2"
                await broker.ack(first)

    async def test_what_was_taken_ahead_goes_back(self, world: World) -> None:
        """On leaving consume, what was taken and never handed out is free for others, the attempt unspent."""
        async with world.open() as broker:
            for number in range(4):
                await broker.publish_to(Q, f"m{number}", b"")
            async with broker.consume(Q, 4) as consumer:
                mine = await consumer.receive()
            assert await depth(broker) == QueueDepth(queue=Q, ready=3, delayed=0, taken=1, dead=0)
            following = await received(broker)
            assert (following.message_id, following.attempt) == ("m1", 1)
            assert await broker.ack(mine) is True

    async def test_publishing_wakes_a_waiting_consumer_of_another_node(self, world: World) -> None:
        """A consumer that waits on an empty queue gets what another node publishes."""
        async with world.open() as one, world.open() as two:
            await one.bind(Q, X)
            got: list[Incoming] = []

            async def wait() -> None:
                got.append(await received(two))

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    await one.publish(X, "m1", b"")
            assert got[0].message_id == "m1"

    async def test_giving_back_wakes_a_waiting_consumer(self, world: World) -> None:
        """A consumer that waits on an empty queue gets what another node gives back."""
        async with world.open() as one, world.open() as two:
            await one.publish_to(Q, "m1", b"")
            held = await received(one)
            got: list[Incoming] = []

            async def wait() -> None:
                got.append(await received(two))

            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    assert await one.give_back(held)
            assert got[0].message_id == "m1"

    async def test_cancelling_receive_loses_nothing(self, world: World) -> None:
        """Whenever a receive is cancelled, each message is either handed out or still in the queue."""
        async with world.open() as broker:
            for number in range(8):
                await broker.publish_to(Q, f"m{number}", b"")
            got: list[str] = []
            for steps in range(12):
                with trio.CancelScope() as scope:
                    async with broker.consume(Q, 2) as consumer, trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_after, steps, scope)
                        incoming = await consumer.receive()
                        got.append(incoming.message_id)
                        with trio.CancelScope(shield=True):
                            assert await broker.ack(incoming)
                        nursery.cancel_scope.cancel()
            assert len(got) == len(set(got))
            found = await depth(broker)
            assert (found.ready, found.taken) == (8 - len(got), 0)

    async def test_a_dead_node_gives_its_messages_up_as_suspect(self, world: World) -> None:
        """What a killed node held comes again: suspect, the attempt spent, the death in its history."""
        async with world.open() as survivor:
            async with world.open() as victim:
                await victim.publish_to(Q, "m1", b"")
                held = await received(victim)
                await world.kill(victim)
            again = await received(survivor)
            assert (again.message_id, again.attempt, again.suspect) == (held.message_id, 2, True)
            assert "died" in again.history[0].error
            assert await survivor.ack(again) is True


async def _cancel_after(steps: int, scope: trio.CancelScope) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()
