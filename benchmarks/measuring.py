"""What is measured of a process: wall time, user CPU time, peak memory; and what machine it ran on."""

from __future__ import annotations

import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("ionbeam", "pyarrow", "numpy", "trio", "obstore", "polars")


class Stopwatch:
    """Runs from its making to `stopped`."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def stopped(self) -> dict[str, float]:
        """Seconds on the wall and of this process's CPU since then, and MB that it held at most since it began."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"seconds": wall, "cpu_s": cpu, "peak_mb": round(peak, 1)}


def machine() -> dict[str, object]:
    """The machine and the versions that the numbers hold for."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str | None:
    if name == "ionbeam":
        from ionbeam.version import VERSION

        return VERSION
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
