"""Export dispatch: each revision that is current goes to the exporter, older ones are passed over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ionbeam.actors.core import Inbox
from ionbeam.domain.windows import micros
from ionbeam.ports.ledger import Ledger
from ionbeam.schemas.messages import DataSetAvailableEvent

Apply = Callable[[DataSetAvailableEvent], Awaitable[None]]
"""Puts one revision where the exporter puts them; durable when it returns."""


async def export(inbox: Inbox[DataSetAvailableEvent], ledger: Ledger, apply: Apply) -> None:
    """Dispatch events to one exporter until the inbox ends.

    An event that a newer revision has overtaken is done with: the newer one's event is on its way or was here.
    """
    async for delivery in inbox:
        async with delivery as event:
            current = await ledger.current(event.metadata.name, micros(event.start_time))
            if current is None or event.revision >= current.number:
                await apply(event)
