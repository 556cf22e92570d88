"""Mailboxes: bounded, typed, and losing nothing."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ionbeam.actors.core import Delivery, Inbox, Mailbox
from ionbeam.errors import MessageTypeError, SettlementError


class Agreeable:
    """A settler to whom everything is fine."""

    async def ack(self) -> bool:
        return True

    async def give_back(self) -> bool:
        return True

    async def retry(self, error: str, delay: float) -> bool:
        return True

    async def bury(self, reason: str) -> bool:
        return True


def of(message: int) -> Delivery[int]:
    return Delivery(message, Agreeable())


async def filled(*messages: int, capacity: int = 9) -> Mailbox[int]:
    mailbox = Mailbox("numbers", int, capacity)
    for message in messages:
        await mailbox.put(of(message))
    return mailbox


async def test_a_full_mailbox_makes_the_sender_wait() -> None:
    """Back-pressure: the third put ends when a reader has made room."""
    mailbox = await filled(1, 2, capacity=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.put, of(3))
        await wait_all_tasks_blocked()
        assert mailbox.statistics().blocked_senders == 1
        assert mailbox.statistics().put == 2
        assert (await anext(mailbox.inbox)).message == 1
        await wait_all_tasks_blocked()
        assert mailbox.statistics().blocked_senders == 0
        assert mailbox.statistics().put == 3


async def test_statistics_tell_what_is_going_on() -> None:
    """All fields, by name."""
    mailbox = await filled(1, 2, capacity=3)
    await anext(mailbox.inbox)
    mailbox.close()
    seen = mailbox.statistics()
    assert (seen.name, seen.capacity, seen.waiting, seen.blocked_senders) == ("numbers", 3, 1, 0)
    assert (seen.put, seen.taken, seen.closed) == (2, 1, True)


async def test_a_message_of_another_kind_is_refused_where_it_is_put(autojump_clock: MockClock) -> None:
    """Before waiting for room, and the sender still holds the delivery."""
    mailbox = await filled(1, capacity=1)
    wrong: Delivery[str] = Delivery("two", Agreeable())
    with trio.fail_after(1), pytest.raises(MessageTypeError, match="'numbers' takes int, got str"):
        await mailbox.put(wrong)  # type: ignore[arg-type]
    await wrong.give_back()


async def test_closed_intake_refuses_and_iteration_runs_dry() -> None:
    """Blocked senders are refused too and keep their deliveries; readers get what is queued, then the end."""
    mailbox = await filled(1, 2, capacity=2)
    blocked = of(3)

    async def put_blocked() -> None:
        with pytest.raises(trio.ClosedResourceError, match="'numbers' has closed its intake"):
            await mailbox.put(blocked)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put_blocked)
        await wait_all_tasks_blocked()
        mailbox.close()
        mailbox.close()
    with pytest.raises(trio.ClosedResourceError):
        await mailbox.put(of(4))
    await blocked.give_back()
    assert [delivery.message async for delivery in mailbox.inbox] == [1, 2]


async def test_closing_ends_readers_that_wait() -> None:
    """Every worker on the inbox ends."""
    mailbox = await filled()

    async def read() -> None:
        async for _ in mailbox.inbox:
            raise AssertionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        mailbox.close()


async def test_cancelled_senders_and_readers_lose_nothing() -> None:
    """A cancelled put leaves the delivery with its sender; a cancelled read takes none."""
    mailbox = await filled(capacity=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(anext, mailbox.inbox)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await mailbox.put(of(1))
    waiting = of(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailbox.put, waiting)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    await waiting.give_back()
    assert [left.message for left in mailbox.remaining()] == [1]


async def test_a_delivery_is_in_one_place_only() -> None:
    """Not in two mailboxes, not handed on while open, not opened while queued; taken, it can be handed on."""
    first, second, delivery = await filled(), await filled(), of(1)
    await first.put(delivery)
    for forbidden in (second.put(delivery), delivery.__aenter__(), delivery.give_back()):
        with pytest.raises(SettlementError, match="in a mailbox"):
            await forbidden
    taken = await anext(first.inbox)
    await second.put(taken)
    async with await anext(second.inbox):
        with pytest.raises(SettlementError, match="it is open"):
            await first.put(delivery)
    with pytest.raises(SettlementError, match="it is settled"):
        await first.put(delivery)
    assert first.statistics().waiting == second.statistics().waiting == 0


async def test_remaining_takes_out_what_was_never_read() -> None:
    """Oldest first, to be held by the caller; intake is closed, and senders keep what did not get in."""
    mailbox = await filled(1, 2, 3, capacity=3)
    async with trio.open_nursery() as nursery:
        late = of(4)

        async def put_late() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await mailbox.put(late)

        nursery.start_soon(put_late)
        await wait_all_tasks_blocked()
        left = mailbox.remaining()
    assert [delivery.message for delivery in left] == [1, 2, 3]
    for delivery in (*left, late):
        await delivery.give_back()
    assert mailbox.remaining() == []
    assert mailbox.statistics().closed


def test_a_mailbox_holds_at_least_one() -> None:
    """Capacity 0 is a mistake in a topology."""
    with pytest.raises(ValueError, match="'numbers': capacity must be at least 1, got 0"):
        Mailbox("numbers", int, 0)


@given(
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(1, 3),
    st.lists(st.integers(0, 40)),
    st.random_module(),
)
def test_each_message_is_read_once_in_order_through_any_restarts(
    capacity: int, count: int, workers: int, cancels: list[int], chance: object
) -> None:
    """Readers come and go at any step: what each reads is in order, and together they read all, once."""

    async def main() -> None:
        mailbox = Mailbox("numbers", int, capacity)
        read: list[int] = []

        async def worker(inbox: Inbox[int]) -> None:
            own: list[int] = []
            async for delivery in inbox:
                own.append(delivery.message)
                read.append(delivery.message)
                async with delivery:
                    pass
            assert own == sorted(own)

        async def produce() -> None:
            for message in range(count):
                await mailbox.put(of(message))
            mailbox.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            for steps in cancels:
                async with trio.open_nursery() as incarnation:
                    for _ in range(workers):
                        incarnation.start_soon(worker, mailbox.inbox)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    incarnation.cancel_scope.cancel()
            nursery.start_soon(worker, mailbox.inbox)
        assert sorted(read) == list(range(count))
        seen = mailbox.statistics()
        assert (seen.put, seen.taken, seen.waiting) == (count, count, 0)

    trio.run(main)
