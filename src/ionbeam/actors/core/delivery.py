"""A message with its debt to the broker, settled exactly once on every way out.

One holder at a time. A delivery is at every moment in one of these places, and only its holder can move it:

    held     by its maker, or who took it out of a mailbox: may put it into a mailbox, open it, give it back
    queued   in a mailbox, or on its way into one: the mailbox gives it to one reader
    open     in an `async with`: leaves it by being settled, in no other way
    settled  the debt is paid, or lost: nothing more can be done with it

Whatever else is tried raises SettlementError: to open or settle it twice, to put it into two mailboxes, to
hand it on while it is open.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import trio

from ionbeam.actors.core.backoff import Backoff, steady
from ionbeam.actors.core.patience import wait_through
from ionbeam.actors.core.reason import leaves, reason_of
from ionbeam.errors import IonbeamError, Poison, SettlementError, Unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Settler(Protocol):
    """Pays the debt of one message. Durable when it returns.

    Each method returns False where the message was no longer held (its lease or connection is gone): an
    event, not an error. Raises Unavailable while the broker cannot serve; the call is then made again.
    """

    async def ack(self) -> bool:
        """The message is done with."""
        ...

    async def give_back(self) -> bool:
        """Back to the queue, its attempt unspent."""
        ...

    async def retry(self, error: str, delay: float) -> bool:
        """Back to the queue in `delay` seconds, its attempt spent, `error` in its history."""
        ...

    async def bury(self, reason: str) -> bool:
        """To the dead letters."""
        ...


class Settled(Enum):
    """How a delivery ended."""

    ACKED = "done"
    RETURNED = "back in the queue, the attempt unspent"
    RETRIED = "back in the queue after a delay, the attempt spent"
    BURIED = "a dead letter"
    LOST = "no longer held, or not confirmed before its holder was cancelled: the broker will hand it out again"


class _Place(Enum):
    HELD = "held"
    QUEUED = "in a mailbox"
    OPEN = "open"
    SETTLED = "settled"


class Delivery(Generic[T]):
    """`message`, and how to settle it. `async with delivery as message:` settles it exactly once:

    - normal end → ack: make the effect durable before leaving the block;
    - Poison → bury with its text, swallowed;
    - Unavailable → give back, then the back-off's pause in place, swallowed;
    - cancellation, or anything else that is not an Exception → give back, re-raised;
    - any other exception → an attempt is spent: retry after the back-off's delay, or bury when `attempt` has
      reached
      `limit`; swallowed and logged, the actor goes on with its next message.

    A group of exceptions counts as Poison or Unavailable when all of its members are, as cancellation when
    any member is. Settling waits through Unavailable for as long as it takes, and tries again when it takes longer
    than `grace` seconds. It is shielded from cancellation for at most `grace` seconds; after that the delivery is
    LOST. Should the settler raise anything else, the message is given back, so that somebody gets it while this
    process lives, and that error comes out. `on_settled` is called once, when `settled` is known; it must not raise.
    `label` names the message in logs and errors. `attempt` counts from 1; `suspect`: an earlier holder's
    process died with the message in hand.
    """

    def __init__(
        self,
        message: T,
        settler: Settler,
        *,
        attempt: int = 1,
        suspect: bool = False,
        limit: int = 5,
        backoff: Backoff | None = None,
        random: Callable[[], float] = steady,
        grace: float = 5.0,
        on_settled: Callable[[Delivery[Any]], None] | None = None,
        label: str = "",
    ) -> None:
        self.message = message
        self.attempt = attempt
        self.suspect = suspect
        self.limit = limit
        self.label = label or type(message).__name__
        self._settler = settler
        self._backoff = backoff or Backoff()
        self._random = random
        self._grace = grace
        self._on_settled = on_settled
        self._place = _Place.HELD
        self._settled: Settled | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self.label!r}, attempt {self.attempt} of {self.limit}, {self._place.value}>"

    @property
    def settled(self) -> Settled | None:
        """How it ended; None as long as it has not."""
        return self._settled

    def hand_over(self) -> None:
        """The holder lets go; for mailboxes. Raises SettlementError unless the delivery is held."""
        self._move(_Place.HELD, _Place.QUEUED, "put it into a mailbox")

    def take(self) -> None:
        """The next holder takes over; for mailboxes. Raises SettlementError unless it was handed over."""
        self._move(_Place.QUEUED, _Place.HELD, "take it")

    async def give_back(self) -> Settled:
        """Settle a delivery that was never opened: back to the queue, its attempt unspent. Shielded."""
        self._move(_Place.HELD, _Place.SETTLED, "give it back")
        return await self._settle(Settled.RETURNED, self._settler.give_back)

    async def __aenter__(self) -> T:
        # No checkpoint here: a reader cancelled between taking and opening would leak the delivery.
        self._move(_Place.HELD, _Place.OPEN, "open it")
        return self.message

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._move(_Place.OPEN, _Place.SETTLED, "settle it")
        if error is None:
            await self._settle(Settled.ACKED, self._settler.ack)
            return True
        causes = list(leaves(error))
        if not all(isinstance(cause, Exception) for cause in causes):
            await self._settle(Settled.RETURNED, self._settler.give_back)
            return False
        if all(isinstance(cause, Poison) for cause in causes):
            await self._bury(reason_of(error, with_type=False))
        elif all(isinstance(cause, Unavailable) for cause in causes):
            await self._step_back(error)
        else:
            await self._spend(error)
        return True

    async def _step_back(self, error: BaseException) -> None:
        delay = self._backoff.delay(self.attempt, self._random)
        _log.warning("%r: given back, pausing %.3g s: %r", self.label, delay, reason_of(error))
        await self._settle(Settled.RETURNED, self._settler.give_back)
        await trio.sleep(delay)

    async def _spend(self, error: BaseException) -> None:
        reason = reason_of(error)
        _log.error("%r: attempt %d of %d failed", self.label, self.attempt, self.limit, exc_info=error)
        if self.attempt >= self.limit:
            await self._bury(f"attempt {self.attempt} failed and at most {self.limit} are made: {reason}")
            return
        delay = self._backoff.delay(self.attempt, self._random)
        await self._settle(Settled.RETRIED, lambda: self._settler.retry(reason, delay))

    async def _bury(self, reason: str) -> None:
        _log.error("%r: buried: %r", self.label, reason)
        await self._settle(Settled.BURIED, lambda: self._settler.bury(reason))

    async def _settle(self, how: Settled, act: Callable[[], Awaitable[bool]]) -> Settled:
        outcome = Settled.LOST
        try:
            answered = False
            while not answered:
                with trio.move_on_after(self._grace, shield=True):
                    if await wait_through(act, self._backoff, random=self._random, on_wait=self._tell_wait):
                        outcome = how
                    answered = True
                if trio.current_effective_deadline() <= trio.current_time():
                    break  # the holder is being cancelled: the grace was all that it had
        except Exception:
            # Settling itself failed: unless it goes back, nobody gets it for as long as this process lives.
            with trio.move_on_after(self._grace, shield=True), suppress(Exception):
                if await wait_through(self._settler.give_back, self._backoff, random=self._random):
                    outcome = Settled.RETURNED
            raise
        finally:
            self._settled = outcome
            if outcome is Settled.LOST:
                _log.warning("%r: lost: it should have been %s", self.label, how.value)
            if self._on_settled is not None:
                self._on_settled(self)
        return outcome

    def _tell_wait(self, error: IonbeamError) -> None:
        _log.warning("%r: waiting to settle: %r", self.label, reason_of(error))

    def _move(self, there: _Place, to: _Place, what: str) -> None:
        if self._place is not there:
            raise SettlementError(
                f"{self!r}: cannot {what}: it is {self._place.value} and must be {there.value};"
                " a delivery has one holder and is settled once"
            )
        self._place = to
