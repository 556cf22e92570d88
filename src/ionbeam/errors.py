"""Every exception that leaves ionbeam's public API.

IonbeamError
├── Poison                 a message that can never succeed: straight to the dead letters
│   ├── MalformedMessage   it does not decode: names the path and the value
│   ├── Refused            it decodes, and asks for what is not allowed or not possible
│   └── ContractDisagreement   it contradicts the dataset's contract: names both sides
├── PayloadMissing         the object is not there (yet): tried again, then a dead letter
├── Unavailable            a port does not answer for now: the caller waits, nothing has failed
├── TopologyError          what is wrong with a topology, all of it, by key path
├── HomeError              a home folder that cannot be used, and why
├── MessageTypeError       a message of the wrong type was put into a mailbox
├── SettlementError        a delivery was settled twice or handed on while owned
└── NodeFailed             the restart budget is spent: the process must end
"""

from __future__ import annotations

from collections.abc import Sequence


class IonbeamError(Exception):
    """Base of all errors raised by ionbeam."""


class Poison(IonbeamError):
    """The message can never succeed. Its delivery becomes a dead letter with this text as the reason."""


class MalformedMessage(Poison):
    """The message does not decode."""


class Refused(Poison):
    """The message is well formed, but what it asks for is not allowed or not possible."""


class ContractDisagreement(Refused):
    """A command contradicts what the dataset's first accepted command fixed."""


class PayloadMissing(IonbeamError):
    """The payload is not in the object store; it may still be on its way."""


class Unavailable(IonbeamError):
    """A port cannot serve right now (disk full, server away). Not a failure of the message in hand."""


class TopologyError(IonbeamError):
    """A topology that cannot run. `problems` holds every mistake found, each with its key path."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class HomeError(IonbeamError):
    """A home folder that this version cannot use."""


class MessageTypeError(IonbeamError, TypeError):
    """Something other than the mailbox's message type was put into it."""


class SettlementError(IonbeamError):
    """A delivery was settled more than once, or used without being held."""


class NodeFailed(IonbeamError):
    """An actor kept failing beyond its restart budget; the process must end and be restarted from outside."""
