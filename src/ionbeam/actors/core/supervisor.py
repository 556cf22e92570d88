"""Keeps children running: started in order, restarted with back-off within one budget, stopped in reverse.

Time is trio.current_time(), so a whole node runs under a virtual clock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

import trio
from msgspec import Struct

from ionbeam.actors.core.backoff import Backoff, steady
from ionbeam.actors.core.reason import reason_of
from ionbeam.errors import IonbeamError, NodeFailed

_log = logging.getLogger(__name__)


def _nothing() -> None:
    pass


class Child(Struct, frozen=True):
    """Something to keep running under a name of its own.

    `run` is called anew for each incarnation; state in its locals begins fresh. `stop` asks it, without
    waiting, to end soon (set an event, close a mailbox); it is called once. `restart`: whether to run it
    again when it returns though nobody asked it to stop; a child that raises is run again in any case.
    """

    name: str
    run: Callable[[], Awaitable[None]]
    stop: Callable[[], None] = _nothing
    restart: bool = True


class Intensity(Struct, frozen=True):
    """At most `restarts` restarts, of all children together, in any `seconds`."""

    restarts: int
    seconds: float

    def __post_init__(self) -> None:
        if self.restarts < 0:
            raise ValueError(f"`restarts` must not be negative, got {self.restarts}")
        if not self.seconds > 0:
            raise ValueError(f"`seconds` must be above 0, got {self.seconds}")


class Change(Enum):
    """What happened to a child."""

    STARTED = "an incarnation begins"
    FAILED = "it raised, or returned unasked"
    ENDED = "it returned as it should"
    CUT = "it is being cancelled"


class ChildEvent(Struct, frozen=True):
    """A change of a child. After FAILED it is started again in `delay` seconds, or never (None)."""

    child: str
    change: Change
    error: Exception | None = None
    delay: float | None = None


class Drained(Struct, frozen=True):
    """How a drain ended. `cut` names, in reverse order, the children that did not end by themselves."""

    clean: bool
    cut: tuple[str, ...]


class _Slot:
    """A child's place under the supervisor."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.scope = trio.CancelScope()
        self.asked = trio.Event()
        self.ended = trio.Event()
        self.started = False
        self.clean = False

    @property
    def running(self) -> bool:
        return self.started and not self.ended.is_set()


class Supervisor:
    """Runs `children` once; one budget of restarts for all of them."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        intensity: Intensity,
        backoff: Backoff,
        random: Callable[[], float] = steady,
        on_event: Callable[[ChildEvent], None] | None = None,
    ) -> None:
        """`on_event` hears of each change; it must not raise. Raises ValueError for children of one name."""
        names = [child.name for child in children]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"children need names of their own, repeated: {', '.join(map(repr, repeated))}")
        self._slots = [_Slot(child) for child in children]
        self._intensity = intensity
        self._backoff = backoff
        self._random = random
        self._on_event = on_event
        self._restarts: deque[float] = deque()
        self._failure: NodeFailed | None = None
        self._draining = False
        self._ran = False

    async def run(self) -> None:
        """Start the children in order; return when all have ended, as after a drain.

        A child that fails is run again after a back-off, and only when its earlier incarnation is wholly
        gone. When the budget is spent, the others are cancelled one by one in reverse order, and NodeFailed
        is raised, with the last error as its cause. Cancelling `run` cancels all children at once.
        """
        if self._ran:
            raise RuntimeError("a supervisor runs once: make a new one")
        self._ran = True
        async with trio.open_nursery() as nursery:
            for slot in self._slots:
                await nursery.start(self._keep, slot)
        if self._failure is not None:
            raise self._failure

    async def drain(self, deadline_seconds: float) -> Drained:
        """Stop the children in reverse order: ask one to stop, wait until it has ended, go on to the next.

        Those that have not ended `deadline_seconds` from now are cancelled, again in reverse order. Returns
        when all are gone; `run` returns then. Meanwhile a child that fails is still restarted, at once when
        it was pausing: what is queued for it runs dry. To be called from outside the children; a second call
        may shorten the first.
        """
        self._draining = True
        with trio.move_on_after(deadline_seconds):
            for slot in reversed(self._slots):
                if slot.running:
                    self._ask(slot)
                    await slot.ended.wait()
        await self._cut_all()
        cut = tuple(slot.child.name for slot in reversed(self._slots) if slot.started and not slot.clean)
        return Drained(clean=not cut, cut=cut)

    async def _keep(self, slot: _Slot, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self._draining or self._failure is not None:
            return
        slot.started = True
        try:
            with slot.scope:
                await self._incarnations(slot)
        except Exception as error:
            # What came out beside a cancellation cannot be restarted, and must not be lost.
            self._failed(slot, error, None)
        except BaseExceptionGroup as group:
            errors, rest = group.split(Exception)
            if errors is not None:
                self._failed(slot, errors, None)
            if rest is not None:
                raise rest from None
        finally:
            slot.ended.set()
        if self._failure is not None:
            await self._cut_all()

    async def _incarnations(self, slot: _Slot) -> None:
        failures = 0
        while self._failure is None:
            self._tell(ChildEvent(slot.child.name, Change.STARTED))
            born = trio.current_time()
            error = await _outcome(slot)
            if error is None:
                slot.clean = not slot.scope.cancel_called
                self._tell(ChildEvent(slot.child.name, Change.ENDED))
                return
            if slot.scope.cancel_called or not self._may_restart(slot.child, error):
                self._failed(slot, error, None)
                return
            failures = 1 if trio.current_time() - born >= self._intensity.seconds else failures + 1
            delay = self._backoff.delay(failures, self._random)
            self._failed(slot, error, delay)
            await _pause(slot, delay)

    def _may_restart(self, child: Child, error: Exception) -> bool:
        if self._failure is not None:
            return False
        now = trio.current_time()
        while self._restarts and now - self._restarts[0] >= self._intensity.seconds:
            self._restarts.popleft()
        self._restarts.append(now)
        if len(self._restarts) <= self._intensity.restarts:
            return True
        self._failure = NodeFailed(
            f"more than {self._intensity.restarts} restarts in {self._intensity.seconds:g} s;"
            f" the last to fail was {child.name!r} with {reason_of(error)!r};"
            " mend that and start the process again"
        )
        self._failure.__cause__ = error
        return False

    def _ask(self, slot: _Slot) -> None:
        if slot.asked.is_set():
            return
        slot.asked.set()
        try:
            slot.child.stop()
        except Exception as error:
            # A child that cannot be asked must not keep the others from draining.
            self._failed(slot, error, None)
            slot.scope.cancel()

    async def _cut_all(self) -> None:
        for slot in reversed(self._slots):
            if not slot.running:
                continue
            if not slot.scope.cancel_called:  # a drain and a failing node may both be at it
                self._tell(ChildEvent(slot.child.name, Change.CUT))
                slot.scope.cancel()
            await slot.ended.wait()

    def _failed(self, slot: _Slot, error: Exception, delay: float | None) -> None:
        then = "not restarted" if delay is None else f"restart in {delay:.3g} s"
        _log.error("child %r failed, %s", slot.child.name, then, exc_info=error)
        self._tell(ChildEvent(slot.child.name, Change.FAILED, error, delay))

    def _tell(self, event: ChildEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


async def _outcome(slot: _Slot) -> Exception | None:
    """Run one incarnation to its end: None where that was as it should be, else what was wrong."""
    try:
        await slot.child.run()
    except Exception as error:
        return error
    if slot.asked.is_set() or slot.scope.cancel_called or not slot.child.restart:
        return None
    return IonbeamError(f"child {slot.child.name!r} returned though nobody asked it to stop")


async def _pause(slot: _Slot, delay: float) -> None:
    """Wait `delay` seconds, or until the child is asked to stop: then it can still run dry in time."""
    if slot.asked.is_set():
        await trio.sleep(delay)
        return
    with trio.move_on_after(delay):
        await slot.asked.wait()
