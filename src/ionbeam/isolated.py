"""The process behind `actors.isolation`: reads a request, prepares one payload, answers, ends."""

from __future__ import annotations

import os
import sys
import uuid

from ionbeam.actors.isolation import Answer, Request
from ionbeam.actors.prepare import prepare
from ionbeam.config import Topology
from ionbeam.errors import IonbeamError, PayloadMissing, Refused, Unavailable
from ionbeam.parts import open_stores
from ionbeam.schemas.codec import decode, encode


def main() -> None:
    objects, store = open_stores(decode(sys.argv[1].encode(), Topology))
    request = decode(sys.stdin.buffer.read(), Request)
    try:
        prepared = prepare(request.command, request.issued_at, request.rules, objects, store, lambda: uuid.uuid4().hex)
        answer = Answer(prepared=prepared)
    except (Refused, PayloadMissing, Unavailable) as error:
        kinds = [kind.__name__ for kind in (Refused, PayloadMissing, Unavailable) if isinstance(error, kind)]
        answer = Answer(error=kinds[0], text=str(error))
    except IonbeamError as error:
        answer = Answer(error="IonbeamError", text=str(error))
    try:
        sys.stdout.buffer.write(encode(answer))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # the node that asked is gone; closed here, or Python would complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
