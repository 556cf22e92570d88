"""The benchmark is fair: the Polars script ends with the rows that ionbeam ends with."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ionbeam.sources.synthetic import DUPLICATE_AT, DUPLICATE_EVERY

pytest.importorskip("polars", reason="polars is not installed: the benchmark has no peer")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ROWS, STATIONS, HOURS = 30_000, 40, 6


def python(script: str, *words: object) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(BENCHMARKS / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dataset_files(home: Path) -> list[Path]:
    return sorted((home / "objects" / "synthetic").iterdir())


def read(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def dirty(path: Path) -> None:
    """Give the payload what the synthetic source lacks: corrected rows, infinities, longitudes beyond 180."""
    table = read(path)
    place = np.arange(len(table))
    temperature = table["temperature"].to_numpy() + (place % DUPLICATE_EVERY == DUPLICATE_AT)
    humidity = np.where(place % 7 == 0, np.inf, table["humidity"].to_numpy())
    longitude = table["longitude"].to_numpy()
    longitude = longitude + np.where((longitude < 0) & (place % 3 == 0), 360.0, 0.0)
    for name, values in (("temperature", temperature), ("humidity", humidity), ("longitude", longitude)):
        field = table.schema.get_field_index(name)
        absent = table[name].is_null().to_numpy()
        table = table.set_column(field, table.schema.field(field), pa.array(values, mask=absent))
    path.unlink()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5000)


def test_the_peer_builds_the_same_rows(tmp_path: Path) -> None:
    """Window by window, row by row, bit by bit: times, positions, converted values, nulls, texts and their order."""
    payload, home, theirs = tmp_path / "payload.arrow", tmp_path / "home", tmp_path / "peer"
    python("ours.py", "payload", payload, f"--rows={ROWS}", f"--stations={STATIONS}", f"--hours={HOURS}")
    dirty(payload)
    ours = json.loads(python("ours.py", "run", payload, home, f"--hours={HOURS}"))
    peer = json.loads(python("peer_polars.py", payload, theirs))
    assert ours["rows"] == peer["rows"] < ROWS
    windows, files = dataset_files(home), sorted(theirs.iterdir())
    assert len(windows) == len(files) == HOURS
    for window, file in zip(windows, files, strict=True):
        assert window.name.partition("_")[0] == file.stem
        expected = read(window)
        found = read(file).select(expected.column_names).cast(expected.schema)
        assert found.equals(expected), file.name


@pytest.mark.parametrize("peer", [True, False])
def test_the_report(tmp_path: Path, peer: bool) -> None:
    """`--json` is one document with the numbers that a program compares; without a peer there is no ratio."""
    sizes = ["--rows=3000", "--hours=2", "--stations=10", "--runs=1", f"--folder={tmp_path}"]
    report = json.loads(python("pipeline.py", "--json", *sizes, *([] if peer else ["--no-peer"])))
    assert report["rows"] == 3000
    assert set(report["ionbeam"]) == {"rows_per_s", "peak_mb", "loop_held_ms"}
    assert all(number > 0 for number in report["ionbeam"].values())
    assert ("ratio" in report, "polars" in report) == (peer, peer)
    if peer:
        assert set(report["polars"]) == {"rows_per_s", "peak_mb"}
        assert report["ratio"] > 0
    assert report["machine"]["cores"] >= 1
    assert "pyarrow" in report["machine"]["versions"]
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_the_watchdog_sees_a_step_that_holds_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest step counts, also when shorter ones follow; the time between steps does not."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("benchmark_ours", BENCHMARKS / "ours.py")
    assert spec is not None
    assert spec.loader is not None
    ours = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ours)
    clock = iter([1.0, 1.25, 7.0, 7.5, 9.0, 9.125])
    monkeypatch.setattr(ours.time, "perf_counter", lambda: next(clock))
    watchdog = ours.Watchdog()
    watchdog.after_task_step(None)
    for _ in range(3):
        watchdog.before_task_step(None)
        watchdog.after_task_step(None)
    assert watchdog.longest == 500.0
