"""The one place that names an exchange, a queue or an object key."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ionbeam.errors import Refused
from ionbeam.schemas.duration import Duration

INGESTION = "ionbeam.ingestion"
DATA_AVAILABLE = "ionbeam.data.available"
DATASET_AVAILABLE = "ionbeam.dataset.available"
COORDINATION = f"{DATA_AVAILABLE}.coordination"

BINDINGS = {INGESTION: INGESTION, COORDINATION: DATA_AVAILABLE}
"""The queues that every deployment has, each with the exchange that feeds it."""

_KEY = re.compile(r"(?!/)(?!.*//)(?!.*(^|/)\.{1,2}(/|$))[A-Za-z0-9_.\-/]{1,1024}(?<!/)")


def exporter_queue(exporter: str) -> str:
    return f"{DATASET_AVAILABLE}.{exporter}"


def source_queue(source: str) -> str:
    return f"ionbeam.source.{source}.start"


def spell(moment: datetime) -> str:
    """`moment` as it stands in object keys: `20240101T120000Z`, UTC, to the second."""
    moment = moment.astimezone(timezone.utc)
    return f"{moment.year:04d}{moment:%m%dT%H%M%SZ}"


def raw_key(dataset: str, start: datetime, end: datetime, ingested_at: datetime, command_id: str) -> str:
    return f"raw/{dataset}/{spell(start)}-{spell(end)}_{spell(ingested_at)}_{command_id}"


def dataset_key(dataset: str, window_start: datetime, span: Duration, content_hash: str) -> str:
    return f"{dataset}/{spell(window_start)}_{span}_{content_hash}"


def observations_key(dataset: str, command_id: str, digest: str) -> str:
    return f"observations/{dataset}/{command_id}_{digest}"


def quarantine_key(dataset: str, command_id: str, digest: str) -> str:
    return f"quarantine/{dataset}/{command_id}_{digest}"


def journal_key(node: str, number: int) -> str:
    return f"journal/{node}/{number:012d}"


def checked_key(key: str) -> str:
    """`key`, when it names an object inside the store; Refused when it could lead out of it."""
    if not _KEY.fullmatch(key):
        raise Refused(
            f"not an object key: {key[:120]!r}; a key has letters, digits, '_', '-', '.' and '/' between parts,"
            " and no part '.' or '..'"
        )
    return key
