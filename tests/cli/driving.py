"""How the tests of the command line drive it: in this process where that is enough, else in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ionbeam.cli import main

LONGEST = 60.0
"""Seconds after which a command that should have ended is a failure."""

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("IONBEAM_DATA") or ROOT / ".." / "shared" / "data").resolve()


class Ended(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout; fails where there is none, or more than one."""
        return json.loads(self.out)


def here(*arguments: object) -> Ended:
    """`ionbeam ARGUMENTS` in this process: the same code, without the start of an interpreter."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _own_logging(), _bounded():
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Ended(code, out.getvalue(), err.getvalue())


def good(*arguments: object) -> Ended:
    """`here`, for what must succeed."""
    ended = here(*arguments)
    assert ended.code == 0, ended
    return ended


def process(*arguments: object, script: Path | None = None, **env: str) -> subprocess.Popen[str]:
    """`ionbeam ARGUMENTS` (or `script` in its place), started in a process group of its own."""
    begin = ["-m", "ionbeam"] if script is None else [str(script)]
    return subprocess.Popen(
        [sys.executable, *begin, *(str(argument) for argument in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        start_new_session=True,
    )


def end_of(started: subprocess.Popen[str]) -> Ended:
    """Wait for a process to end; one that does not is killed, and the test fails."""
    try:
        out, err = started.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        started.kill()
        raise
    return Ended(started.returncode, out, err)


def apart(*arguments: object, **env: str) -> Ended:
    """`ionbeam ARGUMENTS` in a process of its own."""
    return end_of(process(*arguments, **env))


def line_of(started: subprocess.Popen[str], stream: str = "stdout") -> str:
    """The next line that the process writes."""
    reader = getattr(started, stream)
    return str(reader.readline())


def data(*parts: str) -> Path:
    """Real data; skips the test where it is absent."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"the real data is not at {DATA} (set IONBEAM_DATA to its folder)")
    return path


def hashes(home: object) -> dict[tuple[str, str], str]:
    """The content hash of each window's current revision."""
    found = good("datasets", "--home", home, "--json").json["datasets"]
    return {(one["dataset"], one["window_start"]): one["content_hash"] for one in found}


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """A command that does not end is stopped as by Ctrl-C, and its exit code says so."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Commands set the root logger up for their own stderr; afterwards it is pytest's again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
