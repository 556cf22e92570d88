"""The one codec: JSON on the wire, strict about what is needed, tolerant of fields it does not know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ionbeam.errors import MalformedMessage
from ionbeam.schemas.duration import Duration

T = TypeVar("T")

MAX_MESSAGE_BYTES = 4 << 20
_PATH = re.compile(r" - at `(?:key in )?(\$.*?)`$", re.S)
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\[(\d+)\]|\[\.\.\.\]")


def encode(message: msgspec.Struct) -> bytes:
    """`message` as JSON. Times are written in UTC, durations in their canonical spelling."""
    return _encoder.encode(message)


def decode(body: bytes | memoryview, kind: type[T]) -> T:
    """The `kind` that `body` spells. Raises MalformedMessage naming the path, the value and the remedy."""
    if len(body) > MAX_MESSAGE_BYTES:
        raise MalformedMessage(
            f"the message is {len(body)} bytes long, at most {MAX_MESSAGE_BYTES} are allowed:"
            " a message carries the location of data, never the data"
        )
    try:
        try:
            message: T = _decoder(cast(Hashable, kind)).decode(body)
            return message
        except msgspec.ValidationError as error:
            # To explain it the whole body is read: what lies behind the fault may be no JSON either.
            raise MalformedMessage(_explain(str(error), body, kind)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessage(f"not JSON: {error}; the message must be one JSON object in UTF-8") from None


def from_builtins(value: Any, kind: Any) -> Any:
    """`value`, as a TOML or JSON parser gives it, as a `kind`. Raises msgspec.ValidationError."""
    return msgspec.convert(value, kind, dec_hook=_decode_hook)


def json_schema(kinds: list[type[msgspec.Struct]]) -> dict[str, Any]:
    """JSON Schema (2020-12) of `kinds` and all that they contain, under `$defs`."""
    _, components = msgspec.json.schema_components(kinds, schema_hook=_schema_hook, ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$defs": components}


def unknown_fields(content: Any, kind: Any, path: str = "$") -> list[str]:
    """Fields of parsed JSON that a `kind` does not know, each with its path and the nearest that it knows.

    They are no error (newer peers may send more), but a person who mistyped one wants to hear of it.
    """
    structs = [part for part in _parts(kind) if hasattr(part, "__struct_fields__")]
    if isinstance(content, list):
        return [note for place, item in enumerate(content) for note in unknown_fields(item, kind, f"{path}[{place}]")]
    if not isinstance(content, dict) or not structs:
        return []
    hints = get_type_hints(structs[0], include_extras=True)
    notes = []
    for name, value in content.items():
        if name in hints:
            notes += unknown_fields(value, hints[name], f"{path}.{name}")
        else:
            near = difflib.get_close_matches(name, hints, n=1)
            remedy = f"; did you mean {near[0]!r}?" if near else ""
            notes.append(f"{path}.{name[:120]}: unknown field, ignored{remedy}")
    return notes


def _encode_hook(value: object) -> str:
    if isinstance(value, Duration):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no wire form")


def _decode_hook(kind: type, value: object) -> Any:
    if kind is Duration:
        if not isinstance(value, str):
            raise ValueError(f"Expected an ISO 8601 duration such as `PT1H`, got `{type(value).__name__}`")
        return Duration(value)
    raise NotImplementedError(f"{kind.__name__} has no wire form")


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is Duration:
        return {"type": "string", "format": "duration"}
    raise NotImplementedError(f"{kind.__name__} has no schema")


_encoder = msgspec.json.Encoder(enc_hook=_encode_hook)


@lru_cache(maxsize=64)
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=_decode_hook)


def _explain(message: str, body: bytes | memoryview, kind: Any) -> str:
    """msgspec's message with the offending value beside the path, and what may stand there."""
    content = msgspec.json.decode(body)
    version = _at(content, "$.metadata.version")
    if isinstance(version, int) and version != 1:
        return f"`version` {version} is not supported: this node speaks version 1 - at `$.metadata.version`"
    match = _PATH.search(message)
    if match is None or match[1] == "$":
        return message
    value = _at(content, match[1])
    remedy = _remedy(kind, match[1])
    return message + remedy if value is _ABSENT else f"{message} (got {_shorten(value)}){remedy}"


def _remedy(kind: Any, path: str) -> str:
    """What may stand at `path` of a `kind`, as the structs' own annotations say."""
    for name, _ in _STEP.findall(path):
        structs = [part for part in _parts(kind) if hasattr(part, "__struct_fields__")]
        if name and structs:
            kind = get_type_hints(structs[0], include_extras=True).get(name)
    for part in _parts(kind):
        if get_origin(part) is Literal:
            return f"; choose from {', '.join(map(repr, get_args(part)))}"
        if isinstance(part, Meta) and part.description:
            return f"; write {part.description}"
    return ""


def _parts(kind: Any) -> list[Any]:
    """`kind` and all that it is made of: members of unions, items of tuples, annotations."""
    metadata = getattr(kind, "__metadata__", ())
    inner = () if get_origin(kind) is Literal else get_args(kind)
    return [kind, *metadata, *(deeper for part in inner for deeper in _parts(part))]


_ABSENT = object()


def _at(content: Any, path: str) -> Any:
    for name, index in _STEP.findall(path):
        if name and isinstance(content, dict) and name in content:
            content = content[name]
        elif index and isinstance(content, list) and int(index) < len(content):
            content = content[int(index)]
        else:
            return _ABSENT
    return content


def _shorten(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 120 else f"{text[:100]}… ({len(text)} characters)"
