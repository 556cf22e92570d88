"""Write the JSON Schema of the messages: `make_schemas.py docs/schemas.json`. A test checks that it is current."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from ionbeam.schemas.codec import json_schema
from ionbeam.schemas.messages import (
    DataAvailableEvent,
    DataSetAvailableEvent,
    IngestDataCommand,
    StartSourceCommand,
)

MESSAGES = [StartSourceCommand, IngestDataCommand, DataAvailableEvent, DataSetAvailableEvent]


def schemas() -> bytes:
    return msgspec.json.format(msgspec.json.encode(json_schema(MESSAGES), order="deterministic"), indent=2) + b"\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(schemas())
