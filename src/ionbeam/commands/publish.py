"""`ionbeam publish`: commands made elsewhere, sent as they are, valid or not."""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path
from typing import Any

import msgspec

from ionbeam.client import Client, IngestDataCommand
from ionbeam.commands.common import log_to_stderr
from ionbeam.commands.progress import Progress
from ionbeam.commands.summary import finish
from ionbeam.commands.work import Sent, send_and_work
from ionbeam.errors import MalformedMessage
from ionbeam.parts import Ports
from ionbeam.ports.objects import ObjectStore
from ionbeam.schemas import routes
from ionbeam.schemas.codec import MAX_MESSAGE_BYTES, decode, unknown_fields
from ionbeam.schemas.messages import one_spelling

COPY_BYTES = 8 << 20


def publish(arguments: argparse.Namespace) -> int:
    log_to_stderr(arguments)
    wanted = [*arguments.files, *([arguments.payload] if arguments.payload else [])]
    absent = [str(path) for path in wanted if not path.is_file()]
    if arguments.payloads is not None and not arguments.payloads.is_dir():
        absent.append(str(arguments.payloads))
    if absent:
        print(f"ionbeam: no such file or folder: {', '.join(absent)}", file=sys.stderr)
        return 2

    notes: list[str] = []

    async def submit(client: Client, ports: Ports, progress: Progress) -> Sent:
        ids = []
        for done, path in enumerate(arguments.files):
            progress.step(path.name, done, len(arguments.files))
            ids.append(await _send(path.read_bytes(), arguments, ports, notes))
        return Sent(ids=ids)

    return finish(arguments, send_and_work(arguments, submit, work=not arguments.publish_only), notes)


async def _send(body: bytes, arguments: argparse.Namespace, ports: Ports, notes: list[str]) -> str:
    """Send one command; the id under which it goes."""
    try:
        # what is too large is refused unread
        content = msgspec.json.decode(body) if len(body) <= MAX_MESSAGE_BYTES else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        content = None
    message_id = _message_id(content)
    if (await ports.ledger.standing(message_id)).accepted:
        notes.append(f"{message_id} was accepted before: an id is accepted once, so it has no effect now")
    if isinstance(content, dict):
        notes += [f"{message_id}: {note}" for note in unknown_fields(content, IngestDataCommand)]
        payload = _payload(content, arguments)
        if payload is not None:
            content["payload_location"] = await _upload(payload, content, message_id, ports)
        if content.get("issued_at") is None:
            content["issued_at"] = await ports.ledger.stamp(message_id)
        body = msgspec.json.encode(content)
    await ports.broker.publish(routes.INGESTION, message_id, body)
    return message_id


def _message_id(content: Any) -> str:
    """The command's own id, or a new one where it has none that can be read."""
    name = content.get("id") if isinstance(content, dict) else None
    return one_spelling(name) if isinstance(name, str) and 0 < len(name) <= 100 else str(uuid.uuid4())


def _payload(content: dict[str, Any], arguments: argparse.Namespace) -> Path | None:
    """The file to upload for this command, if there is one."""
    if arguments.payload is not None:
        payload: Path = arguments.payload
        return payload
    location = content.get("payload_location")
    if arguments.payloads is None or not isinstance(location, str) or not location:
        return None
    folder: Path = arguments.payloads.resolve()
    try:
        path = (folder / location).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None
    except (OSError, ValueError):  # a name that no file system takes
        return None


async def _upload(payload: Path, content: dict[str, Any], message_id: str, ports: Ports) -> str:
    """Upload `payload` under the command's raw key; under a key of its own where the command cannot be read."""
    try:
        probe = {**content, "payload_location": "-"}
        command = decode(msgspec.json.encode(probe), IngestDataCommand)
        now = await ports.ledger.now()
        key = routes.raw_key(command.metadata.dataset.name, command.start_time, command.end_time, now, command.id)
    except MalformedMessage:
        key = f"raw/unreadable/{uuid.uuid4()}"
    await ports.workers.run(_copy, payload, ports.objects, key)
    return key


def _copy(payload: Path, objects: ObjectStore, key: str) -> None:
    with payload.open("rb") as source, objects.upload() as upload:
        while piece := source.read(COPY_BYTES):
            upload.file.write(piece)
        upload.commit(key)
