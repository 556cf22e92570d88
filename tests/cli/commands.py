"""Commands and payloads as somebody outside would write them: JSON files and Arrow files beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa

START = datetime(2024, 5, 1, tzinfo=timezone.utc)
SLOT = timedelta(minutes=5)

Row = tuple[int, str, float | None]
"""Slot of five minutes from START, station, temperature in degC."""


def iso(hours: float) -> str:
    return (START + timedelta(hours=hours)).isoformat()


def command(name: str, start: float, end: float, **more: Any) -> dict[str, Any]:
    """A valid command that sweeps the hours `[start, end)` from START; `more` replaces its fields.

    `payload_location` is `{name}.arrow`. Keys of `dataset` and `map` go into the metadata.
    """
    dataset = {"name": "air", "aggregation_span": "PT1H", **more.pop("dataset", {})}
    columns = {
        "canonical_variables": [{"column": "t", "standard_name": "air_temperature", "cf_unit": "degC"}],
        "metadata_variables": [{"column": "station"}],
        "identity": ["station"],
        **more.pop("map", {}),
    }
    return {
        "id": name,
        "metadata": {"dataset": dataset, "ingestion_map": columns, "version": 1},
        "payload_location": f"{name}.arrow",
        "start_time": iso(start),
        "end_time": iso(end),
        **more,
    }


def table(rows: Sequence[Row]) -> pa.Table:
    times = [START + slot * SLOT for slot, _, _ in rows]
    return pa.table(
        {
            "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
            "latitude": pa.array([50.0] * len(rows), pa.float64()),
            "longitude": pa.array([8.0] * len(rows), pa.float64()),
            "t": pa.array([value for _, _, value in rows], pa.float64()),
            "station": pa.array([station for _, station, _ in rows], pa.string()),
        }
    )


def filled(start: float, end: float, station: str = "a", base: float = 10.0) -> list[Row]:
    """A row every five minutes of the hours `[start, end)`."""
    return [(slot, station, base + slot / 10) for slot in range(int(start * 12), int(end * 12))]


class Folder:
    """A folder of COMMAND.json and payload files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def payload(self, name: str, rows: Sequence[Row]) -> Path:
        path = self.path / f"{name}.arrow"
        content = table(rows)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, content.schema) as writer:
            writer.write_table(content)
        return path

    def write(self, content: dict[str, Any] | str, name: str | None = None) -> Path:
        """The command's file; text is written as it is."""
        if isinstance(content, str):
            path = self.path / f"{name}.json"
            path.write_text(content, encoding="utf-8")
            return path
        path = self.path / f"{name or content['id']}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def add(self, name: str, start: float, end: float, rows: Sequence[Row] | None = None, **more: Any) -> Path:
        """A valid command with its payload; by default a row every five minutes."""
        self.payload(name, filled(start, end) if rows is None else rows)
        return self.write(command(name, start, end, **more))
