"""ionbeam from a payload on disk to durable datasets, beside a one-shot Polars script that does the same job.

    python benchmarks/pipeline.py --rows 2000000 [--json] [--hours 24] [--stations 2000] [--runs 3] [--no-peer]

Each run is a fresh process, ours and the peer's in turn; medians are shown. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import machine

HERE = Path(__file__).resolve().parent
Measured = dict[str, float]


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="ionbeam-benchmark-", dir=arguments.folder) as folder:
        payload = Path(folder) / "payload.arrow"
        sizes = [f"--{name}={getattr(arguments, name)}" for name in ("rows", "stations", "hours", "seed")]
        _python("ours.py", "payload", payload, *sizes)
        ours, peers = [], []
        for _ in range(arguments.runs):
            ours.append(_run_ours(payload, Path(folder) / "home", arguments.hours))
            if arguments.peer:
                peers.append(_run_peer(payload, Path(folder) / "peer"))
        export = None
        if arguments.export:
            export = _run_ours(payload, Path(folder) / "home", arguments.hours, "--export")
    result = _result(arguments.rows, ours, peers)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result, ours, peers, export)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 2_000_000), ("stations", 2000), ("hours", 24), ("runs", 3), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="ionbeam alone")
    parser.add_argument("--export", action="store_true", help="one more run, with a GeoParquet exporter")
    parser.add_argument("--folder", type=Path, help="where payload and homes lie meanwhile")
    arguments = parser.parse_args()
    for name in ("rows", "stations", "hours", "runs"):
        if getattr(arguments, name) < 1:
            parser.error(f"argument --{name}: must be at least 1")
    return arguments


def _python(script: str, *words: object) -> str:
    # This process stays small: Linux hands a parent's peak memory on to the children's count.
    done = subprocess.run(
        [sys.executable, str(HERE / script), *map(str, words)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{script} {words[0]} failed with exit code {done.returncode}")
    return done.stdout


def _run_ours(payload: Path, home: Path, hours: int, *options: str) -> Measured:
    measured: Measured = json.loads(_python("ours.py", "run", payload, home, f"--hours={hours}", *options))
    shutil.rmtree(home)
    return measured


def _run_peer(payload: Path, folder: Path) -> Measured:
    measured: Measured = json.loads(_python("peer_polars.py", payload, folder))
    shutil.rmtree(folder)
    return measured


def _result(rows: int, ours: list[Measured], peers: list[Measured]) -> dict[str, object]:
    ionbeam: dict[str, float] = {**_summary(rows, ours), "loop_held_ms": max(run["loop_held_ms"] for run in ours)}
    result: dict[str, object] = {"rows": rows, "ionbeam": ionbeam}
    if peers:
        if {run["rows"] for run in ours} != {run["rows"] for run in peers}:
            raise SystemExit(f"the two sides disagree: {ours[0]['rows']} rows here, {peers[0]['rows']} there")
        polars = _summary(rows, peers)
        result |= {"polars": polars, "ratio": round(ionbeam["rows_per_s"] / polars["rows_per_s"], 3)}
    return {**result, "machine": machine()}


def _summary(rows: int, runs: list[Measured]) -> dict[str, float]:
    seconds = statistics.median(run["seconds"] for run in runs)
    return {"rows_per_s": round(rows / seconds), "peak_mb": statistics.median(run["peak_mb"] for run in runs)}


def _show(result: dict[str, object], ours: list[Measured], peers: list[Measured], export: Measured | None) -> None:
    print(f"{result['rows']:,} rows")
    for name, runs in (("ionbeam", ours), ("polars", peers)):
        for run in runs:
            held = f", loop held {run['loop_held_ms']:.1f} ms" if "loop_held_ms" in run else ""
            numbers = f"{run['seconds']:6.2f} s, {run['cpu_s']:6.2f} s of CPU, peak {run['peak_mb']:5.0f} MB"
            print(f"  {name:8} {numbers}{held}")
    if export is not None:
        more = export["seconds"] - statistics.median(run["seconds"] for run in ours)
        print(
            f"  with a GeoParquet exporter: {export['seconds']:.2f} s, {more:+.2f} s, peak {export['peak_mb']:.0f} MB"
        )
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2))


if __name__ == "__main__":
    main()
