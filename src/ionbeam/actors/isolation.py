"""Preparing a payload in a process of its own: a decoder that dies takes only its attempt with it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from datetime import datetime

import trio
from msgspec import Struct

from ionbeam.actors.prepare import Prepared, PrepareRules
from ionbeam.errors import IonbeamError, PayloadMissing, Refused, Unavailable
from ionbeam.schemas.codec import decode, encode
from ionbeam.schemas.messages import IngestDataCommand


class Request(Struct, frozen=True, kw_only=True):
    """What the process is asked, on its standard input."""

    command: IngestDataCommand
    issued_at: datetime
    rules: PrepareRules


class Answer(Struct, frozen=True, kw_only=True):
    """What the process answers, on its standard output: what it prepared, or the error by class name and text."""

    prepared: Prepared | None = None
    error: str | None = None
    text: str = ""


_ERRORS: dict[str, type[IonbeamError]] = {
    kind.__name__: kind for kind in (Refused, PayloadMissing, Unavailable, IonbeamError)
}


async def prepare_apart(
    argv: Sequence[str], command: IngestDataCommand, issued_at: datetime, rules: PrepareRules
) -> Prepared:
    """As `prepare`, in the process `argv`. Raises IonbeamError that says how it ended when it died."""
    request = encode(Request(command=command, issued_at=issued_at, rules=rules))
    done = await trio.run_process(list(argv), stdin=request, capture_stdout=True, check=False)
    if done.returncode != 0:
        raise IonbeamError(
            f"the process that read the payload {command.payload_location} {_ended(done)};"
            " the payload cannot be read safely: look at it, write it again and send it as a new command"
        )
    answer = decode(done.stdout, Answer)
    if answer.prepared is None:
        raise _ERRORS.get(answer.error or "", IonbeamError)(answer.text)
    return answer.prepared


def _ended(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode >= 0:
        return f"ended with exit code {done.returncode}"
    try:
        return f"was ended by {signal.Signals(-done.returncode).name}"
    except ValueError:
        return f"was ended by signal {-done.returncode}"
