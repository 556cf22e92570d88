"""Where blocking work runs: in worker threads under a limiter, or in the loop for simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadWorkers:
    """Worker threads, at most as many at a time as the limiter has tokens."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self.limiter = limiter

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=False, limiter=self.limiter)


class InlineWorkers:
    """The event loop itself, after a checkpoint: no threads, so a virtual clock and a seed decide all."""

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)
