"""`ionbeam ARGUMENTS`, where reading the payload of the command `killer` ends the process that does it.

With `--isolated TOPOLOGY` it is the process that prepares one payload apart from the node.
"""

import os
import signal
import sys
from typing import Any

from ionbeam.actors import prepare as stage

_prepare = stage.prepare


def prepare(command: Any, *rest: Any) -> Any:
    if command.id == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    return _prepare(command, *rest)


stage.prepare = prepare  # before anybody imports it from there

from ionbeam import isolated, wiring  # noqa: E402
from ionbeam.cli import main  # noqa: E402
from ionbeam.config import Topology  # noqa: E402
from ionbeam.schemas.codec import encode  # noqa: E402


def isolated_command(topology: Topology) -> list[str]:
    return [sys.executable, __file__, "--isolated", encode(topology).decode()]


wiring.isolated_command = isolated_command

if sys.argv[1] == "--isolated":
    del sys.argv[1]
    isolated.main()
else:
    sys.exit(main())
