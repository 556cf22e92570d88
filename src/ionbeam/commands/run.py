"""`ionbeam run`: a node that runs until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator

import trio

from ionbeam.commands.common import log_to_stderr, print_json, say, topology_of
from ionbeam.config import Topology
from ionbeam.node import Node, Stopped
from ionbeam.parts import open_exporters, open_ports


def run(arguments: argparse.Namespace) -> int:
    """Exit code 0 after a clean drain, 1 where something was cut off (and went back to its queue)."""
    log_to_stderr(arguments, logging.WARNING)
    topology = topology_of(arguments)
    stopped = trio.run(_run, topology, arguments.json)
    if stopped is None:
        print("ionbeam: stopped at once; what was under way goes back to its queues", file=sys.stderr)
        return 1
    _tell(stopped, arguments.json)
    return 0 if stopped.clean else 1


async def _run(topology: Topology, as_json: bool) -> Stopped | None:
    stopped: Stopped | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_ports(topology) as ports, trio.open_nursery() as nursery:
            node = Node(topology, ports, open_exporters(topology))
            nursery.start_soon(node.run)
            if not as_json:
                say(f"node {topology.node.name} runs on {topology.home} (process {os.getpid()}); Ctrl-C drains it")
                sys.stdout.flush()
            await anext(signals)
            print("ionbeam: draining; once more stops at once", file=sys.stderr)
            async with trio.open_nursery() as draining:
                draining.start_soon(_cancel_on_second, signals, nursery.cancel_scope)
                stopped = await node.drain()
                draining.cancel_scope.cancel()
    return stopped


async def _cancel_on_second(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()


def _tell(stopped: Stopped, as_json: bool) -> None:
    if as_json:
        print_json(stopped)
    elif stopped.clean:
        say("drained: nothing was left under way")
    else:
        if stopped.cut:
            say(f"not finished in time and stopped: {', '.join(stopped.cut)}")
        for label in stopped.returned:
            say(f"went back to be done again: {label}")
