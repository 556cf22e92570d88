"""Faults as values: what goes wrong, at which call of which port. A script of them is played by the twins' proxies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Literal

from msgspec import Struct

Place = Literal["before", "after"]


class Crash(Struct, frozen=True, tag=True):
    """kill -9 of the node, `ticks` scheduler ticks from then on, in the midst of whatever it does; after
    `restart_after` seconds the next incarnation begins."""

    restart_after: float = 1.0
    ticks: int = 0


class Fail(Struct, frozen=True, tag=True):
    """The call raises an error that nobody expects."""


class Away(Struct, frozen=True, tag=True):
    """The port raises Unavailable, for `seconds` to come or for this one call (0)."""

    seconds: float = 0.0


class Delay(Struct, frozen=True, tag=True):
    """The call takes `seconds` longer."""

    seconds: float


class Again(Struct, frozen=True, tag=True):
    """What the call published is delivered a second time, `seconds` later."""

    seconds: float


class Freeze(Struct, frozen=True, tag=True):
    """The node stands still for `seconds` (SIGSTOP, a suspended machine), then goes on as if nothing had been.

    After `missed_after` seconds the others declare it dead; None: nobody notices.
    """

    seconds: float
    missed_after: float | None = None


class ClockJump(Struct, frozen=True, tag=True):
    """The wall clock of all nodes is set on, or back, by `seconds`."""

    seconds: float


Effect = Crash | Fail | Away | Delay | Again | Freeze | ClockJump


class Fault(Struct, frozen=True):
    """`effect` strikes before or after the `number`th call (from 1) of `call`, such as `ledger.accept`."""

    call: str
    number: int
    place: Place
    effect: Effect

    def __str__(self) -> str:
        return f"{self.effect} {self.place} call {self.number} of {self.call}"


class Script:
    """Counts calls and says which faults are due. Each fault strikes once."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._waiting: dict[str, list[Fault]] = {}
        for fault in faults:
            self._waiting.setdefault(fault.call, []).append(fault)
        self.calls: Counter[str] = Counter()

    def begin(self, call: str) -> int:
        """The number of this call."""
        self.calls[call] += 1
        return self.calls[call]

    def due(self, call: str, number: int, place: Place) -> list[Fault]:
        """The faults that strike here."""
        waiting = self._waiting.get(call)
        if not waiting:
            return []
        struck = [fault for fault in waiting if fault.number == number and fault.place == place]
        self._waiting[call] = [fault for fault in waiting if fault not in struck]
        return struck


_HOLDING = ("ledger.lease", "ledger.built", "ledger.built", "workers.run", "ledger.accept", "ledger.outbox")
SETTLING = ("broker.ack", "broker.give_back", "broker.retry", "broker.bury")
TAKING = ("broker.receive",)
SYNC = ("objects.commit", "objects.open")
WORKING = (
    "broker.bind",
    "broker.publish",
    "broker.publish_to",
    "exporter.apply",
    "ledger.accept",
    "ledger.built",
    "ledger.clear",
    "ledger.contract",
    "ledger.current",
    "ledger.enter",
    "ledger.first_handed",
    "ledger.lease",
    "ledger.next_due",
    "ledger.outbox",
    "ledger.pending",
    "ledger.recall",
    "ledger.reconsider",
    "ledger.record",
    "ledger.remember",
    "ledger.renew",
    "ledger.standing",
    "objects.put",
    "workers.run",
)
_OFTEN = (
    "ledger.accept",
    "ledger.built",
    "ledger.enter",
    "ledger.clear",
    "broker.publish",
    "broker.ack",
    "objects.put",
)


def draw(chance: Random, crashes: int, failures: int, others: int) -> tuple[Fault, ...]:
    """That many faults of each sort. What may strike where:

    - a message that was taken, or settled, by a call that then fails stays with its session: only crashes and
      outages strike there, outages only where the call had no effect yet;
    - blocking calls cannot wait, so nothing is delayed there.
    """
    return (
        *(_crash(chance) for _ in range(crashes)),
        *(_failure(chance) for _ in range(failures)),
        *(_other(chance) for _ in range(others)),
    )


def _number(chance: Random) -> int:
    return 1 + min(int(chance.expovariate(0.2)), 40)


def _crash(chance: Random) -> Fault:
    call = chance.choice((*_OFTEN, *_OFTEN, *WORKING, *SETTLING, *TAKING, *SYNC))
    effect = Crash(restart_after=chance.choice((0.0, 1.0, 90.0)), ticks=chance.choice((0, 0, 1, 2, 3, 8)))
    return Fault(call, _number(chance), chance.choice(("before", "after")), effect)


def _failure(chance: Random) -> Fault:
    call = chance.choice((*_OFTEN[:4], *WORKING, *SYNC, *["exporter.apply"] * 6))
    return Fault(call, _number(chance), chance.choice(("before", "after")), Fail())


def _other(chance: Random) -> Fault:
    number, sort = _number(chance), chance.randrange(14)
    if sort < 3:
        away = Away(chance.choice((0.0, 0.5, 2.0)))
        call = chance.choice((*WORKING, *SETTLING, *TAKING))
        safe: Place = "before" if call in (*SETTLING, *TAKING) else chance.choice(("before", "after"))
        return Fault(call, number, safe, away)
    if sort < 6:
        wait = Delay(chance.choice((0.01, 0.5, 4.0, 30.0, 100.0)))
        return Fault(chance.choice((*WORKING, "exporter.apply", "workers.run")), number, "before", wait)
    if sort < 9:
        return Fault("broker.publish", chance.randint(1, 25), "after", Again(chance.choice((0.0, 1.0, 600.0, 7200.0))))
    if sort < 13:
        freeze = Freeze(chance.choice((30.0, 65.0, 150.0, 150.0)), chance.choice((None, 60.0)))
        call = chance.choice(_HOLDING)
        return Fault(call, number, chance.choice(("before", "after")), freeze)
    return Fault(chance.choice(WORKING), number, "before", ClockJump(chance.choice((-20.0, 70.0, 130.0))))
