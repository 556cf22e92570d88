"""Runs on disk: what was kept comes back, through one descriptor, and a full disk is something to wait for."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from ionbeam.actors.spill import Spill
from ionbeam.errors import Unavailable


def test_runs_come_back_in_turn_through_one_descriptor(tmp_path: Path) -> None:
    """Many runs, read in turns, are what was kept; the file has no name and goes with the spill."""
    before = len(os.listdir("/dev/fd"))
    tables = [
        pa.table({"n": range(k, k + 5000), "s": pa.array([f"s{k}"] * 5000).dictionary_encode()}) for k in range(40)
    ]
    with Spill(str(tmp_path)) as spill:
        runs = [spill.keep(table) for table in tables]
        pieces: list[list[pa.Table]] = [[] for _ in tables]
        for _ in range(4):  # 5,000 rows are a few pieces; the last round finds all ended
            for run, kept in zip(runs, pieces, strict=True):
                kept.extend(piece for piece in [next(run, None)] if piece is not None)
        assert len(os.listdir("/dev/fd")) <= before + 2
        assert os.listdir(tmp_path) == []
    for table, kept in zip(tables, pieces, strict=True):
        assert pa.concat_tables(kept).unify_dictionaries().to_pydict() == table.to_pydict()


def test_a_full_disk_is_unavailable() -> None:
    """Not a failure of the message: the disk may have room later."""
    with Spill(None) as spill:
        spill.keep(pa.table({"n": [1]}))
        assert spill._file is not None
        with open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), spill._file.fileno())
        with pytest.raises(Unavailable, match="free some"):
            spill.keep(pa.table({"n": range(100_000)}))
