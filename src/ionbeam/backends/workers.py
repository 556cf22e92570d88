"""Where blocking work runs: in worker threads under a limiter, or in the loop for simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BIG_BLOCK = 31 << 20


class ThreadWorkers:
    """Worker threads, at most as many at a time as the limiter has tokens."""

    def __init__(self, limiter: trio.CapacityLimiter) -> None:
        self.limiter = limiter
        _keep_freed_memory()

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=False, limiter=self.limiter)


class InlineWorkers:
    """The event loop itself, after a checkpoint: no threads, so a virtual clock and a seed decide all."""

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)


def _keep_freed_memory() -> None:
    """Let the C library keep a few MB that columns were freed from, for the next columns.

    glibc takes a block as big as the largest one that was freed so far (up to 32 MB) from its heap, and gives memory
    back to the system only from twice that size on (see `M_MMAP_THRESHOLD` in mallopt(3)). Left alone it does so from
    128 kB on, and the kernel clears fresh pages for every column of every batch. Elsewhere this has no effect.
    """
    bytearray(_BIG_BLOCK)  # never written to, so it takes no memory
