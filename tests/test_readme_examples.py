"""The README's Python is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_examples_run(tmp_path: Path) -> None:
    """The first sends, a node works, the second reads what came of it: 41 °F are 5 °C."""
    send, read = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    ionbeam = tmp_path / "ionbeam"
    ionbeam.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ionbeam "$@"\n')
    ionbeam.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    environment.pop("IONBEAM_HOME", None)

    def run(*argv: str) -> str:
        done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-c", send)
    run("ionbeam", "windows", "retry")
    shown = run(sys.executable, "-c", read + "\nprint(table.column(3).to_pylist(), table.column(4).to_pylist())")
    assert shown.strip() == "[5.0, 4.0] ['Berlin', 'München']"
