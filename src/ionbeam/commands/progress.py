"""Progress on a terminal: one line on stderr that says what has been sent, ingested, built and exported so far."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ionbeam.actors.core import Delivery, Settled


class Progress:
    """Shows nothing where stderr is not a terminal."""

    def __init__(self) -> None:
        self._counts = {"sent": 0, "ingested": 0, "built": 0, "exported": 0}
        self._total: int | None = None
        self._what = "reading"
        self._status: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from ionbeam.commands.common import console

            self._status = console(stderr=True).status(self._text())
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, what: str, done: int, total: int | None) -> None:
        """A source has done `done` of `total` steps, now at `what`."""
        self._what, self._total = what, total
        self._counts["sent"] = done
        self._show()

    def wait(self) -> None:
        """Everything is sent; the node works on."""
        self._what = "working"
        self._show()

    def settled(self, delivery: Delivery[Any]) -> None:
        """A message or a window is done with."""
        kind = {
            "IngestDataCommand": "ingested",
            "Lease": "built",
            "DataSetAvailableEvent": "exported",
        }.get(type(delivery.message).__name__)
        if kind is not None and delivery.settled is Settled.ACKED:
            self._counts[kind] += 1
            self._show()

    def _show(self) -> None:
        if self._status is not None:
            self._status.update(self._text())

    def _text(self) -> str:
        from rich.markup import escape

        counts = self._counts
        of = f" of {self._total:,}" if self._total else ""
        return (
            f"{escape(self._what)}: sent {counts['sent']:,}{of}, ingested {counts['ingested']:,},"
            f" windows built {counts['built']:,}, exported {counts['exported']:,}"
        )
