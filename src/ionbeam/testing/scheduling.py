"""Trio runs that a seed decides wholly: the order of tasks, the clock, and so everything that follows."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
from trio.testing import MockClock

T = TypeVar("T")


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Within it Trio orders the tasks that are ready at one time by `seed` alone; outside all is as it was.

    Trio has no public switch for this. It offers the two names used here to Hypothesis, in
    `trio._core._run._hypothesis_plugin_setup`: a flag that sorts tasks by age before they are shuffled, and the
    generator that shuffles them.
    """
    internals: Any = trio._core._run
    flag, state = internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r.getstate()
    internals._ALLOW_DETERMINISTIC_SCHEDULING = True
    internals._r.seed(seed)
    try:
        yield
    finally:
        internals._ALLOW_DETERMINISTIC_SCHEDULING = flag
        internals._r.setstate(state)


def run_seeded(seed: int, main: Callable[[], Awaitable[T]], *, at_most: float) -> T:
    """What `main` returns, under a virtual clock that jumps whenever nothing can run.

    Raises trio.TooSlowError after `at_most` simulated seconds, which is how a deadlock shows: at once.
    """

    async def limited() -> T:
        with trio.fail_after(at_most):
            return await main()

    with seeded_scheduler(seed):
        return trio.run(limited, clock=MockClock(autojump_threshold=0))


class AtStep(trio.abc.Instrument):
    """Does something once, before scheduler step `step` of the run that it is added to."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self._left = step
        self._act = act
        self.steps = 0

    @property
    def reached(self) -> bool:
        return self._left < 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self._left == 0:
            self._act()
        self._left -= 1


def chances(seed: int, *purpose: object) -> random.Random:
    """A generator of its own for each purpose, so that one more draw for one does not change another."""
    return random.Random(f"{seed}/{'/'.join(map(str, purpose))}")  # noqa: S311 - repeatable, not secret
