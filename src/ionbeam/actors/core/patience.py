"""Waiting in place while a port is unavailable: not a failure of the message in hand."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

import trio

from ionbeam.actors.core.backoff import Backoff
from ionbeam.errors import IonbeamError, Unavailable

P = TypeVar("P")
R = TypeVar("R")


async def wait_through(
    call: Callable[[], Awaitable[R]],
    backoff: Backoff,
    *,
    random: Callable[[], float],
    on_wait: Callable[[IonbeamError], None] | None = None,
) -> R:
    """What `call` returns, called again after each Unavailable, with back-off, for ever, until cancelled.

    `on_wait` hears of each Unavailable before the pause. Any other exception comes out at once.
    """
    attempt = 0
    while True:
        try:
            return await call()
        except Unavailable as error:
            if on_wait is not None:
                on_wait(error)
        attempt += 1
        await trio.sleep(backoff.delay(attempt, random))


def patient(
    port: P,
    backoff: Backoff,
    *,
    random: Callable[[], float],
    on_wait: Callable[[str, IonbeamError], None] | None = None,
) -> P:
    """`port`, with async methods that wait in place for as long as it raises Unavailable, until cancelled.

    Each call begins its back-off anew. `on_wait` gets the method (`Class.method`) and the error before each
    pause. Whatever else the port has passes through unchanged: sync methods, async generators, async context
    managers (and so what they yield), attributes. Special methods (`__aiter__`, `__len__`, …) do not pass:
    ports have none.
    """
    return cast(P, _Patient(port, backoff, random, on_wait))


class _Patient:
    __slots__ = ("_backoff", "_on_wait", "_port", "_random")

    def __init__(
        self,
        port: object,
        backoff: Backoff,
        random: Callable[[], float],
        on_wait: Callable[[str, IonbeamError], None] | None,
    ) -> None:
        self._port = port
        self._backoff = backoff
        self._random = random
        self._on_wait = on_wait

    def __repr__(self) -> str:
        return f"patient({self._port!r})"

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        return self._waiting(name, value) if inspect.iscoroutinefunction(value) else value

    def _waiting(self, name: str, method: Callable[..., Awaitable[R]]) -> Callable[..., Awaitable[R]]:
        def tell(error: IonbeamError) -> None:
            if self._on_wait is not None:
                self._on_wait(f"{type(self._port).__name__}.{name}", error)

        @wraps(method)
        async def call(*args: Any, **named: Any) -> R:
            return await wait_through(lambda: method(*args, **named), self._backoff, random=self._random, on_wait=tell)

        return call
