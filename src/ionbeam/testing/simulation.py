"""Whole nodes under a virtual clock, with a seeded scheduler, load and faults: the same seed, the same run.

python -m ionbeam.testing.simulation --seed 7      the run of seed 7, told step by step
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec
import trio
from msgspec import Struct

from ionbeam import node
from ionbeam.schemas import routes
from ionbeam.testing.commands import plan as plan_of
from ionbeam.testing.faults import Fault, draw
from ionbeam.testing.load import Plan
from ionbeam.testing.oracle import expect
from ionbeam.testing.raw import payload
from ionbeam.testing.scheduling import AtStep, chances, run_seeded
from ionbeam.testing.verdict import hashes, problems
from ionbeam.testing.world import Outcome, World

LONGEST = 30 * 86_400.0
REPORT_SECONDS = 7200.0
NEWCOMER_SECONDS = 600.0
Stroke = Literal["crash", "cancel"]


class Report(Struct, frozen=True, kw_only=True):
    """What a seed's run came to. `problems` is empty when every promise was kept."""

    seed: int
    problems: list[str]
    trace: list[str]
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        lines = [f"seed {self.seed}", *self.trace, "", *(self.problems or ["every promise was kept"])]
        return "\n".join(lines)


def simulate(seed: int) -> Report:
    """Play the seed's plan with its faults, and again undisturbed; hold both against what must come out."""
    plan, faults = plan_of(seed), faults_of(seed)
    disturbed, calm = play(plan, faults), play(plan.calm())
    expected = expect(plan)
    found = problems(plan, expected, disturbed)
    found += [f"undisturbed: {problem}" for problem in problems(plan.calm(), expect(plan.calm()), calm)]
    ours, theirs = hashes(disturbed), hashes(calm)
    for key, window in sorted(expected.windows.items()):
        if window.ready and ours.get(key) != theirs.get(key):
            found.append(f"{key} has other bytes than undisturbed")
    return Report(seed=seed, problems=found, trace=disturbed.trace, faults=faults)


def faults_of(seed: int) -> tuple[Fault, ...]:
    """What goes wrong under `seed`: most often a little of everything."""
    chance = chances(seed, "faults")
    return draw(chance, chance.choice((0, 1, 1, 2, 3)), chance.choice((0, 1, 2)), chance.choice((1, 2, 4, 6)))


def play(plan: Plan, faults: Sequence[Fault] = (), *, at_step: tuple[int, Stroke] | None = None) -> Outcome:
    """Run the world of `plan` until it has come to rest and its nodes have drained.

    `at_step`: at that scheduler step every node is killed, or cancelled from outside, and begins anew.
    """
    with _seldom_reports():
        return run_seeded(plan.seed, lambda: _play(World(plan, faults), at_step), at_most=LONGEST)


@contextmanager
def _seldom_reports() -> Iterator[None]:
    """A node tells how its mailboxes are every two seconds: most of what happens in a simulated day."""
    usual = node.REPORT_SECONDS
    node.REPORT_SECONDS = REPORT_SECONDS
    try:
        yield
    finally:
        node.REPORT_SECONDS = usual


async def _play(world: World, at_step: tuple[int, Stroke] | None) -> Outcome:
    plan = world.plan
    step, stroke = at_step or (-1, "crash")

    def strike() -> None:
        for life in world.lives.values():
            getattr(life, stroke)(restart_after=0.0)

    instrument = AtStep(step, strike)
    async with world.opened():
        for number in range(plan.nodes):
            world.begin(f"node{number + 1}", ["recorder"] if number == 0 else [])
        for sent in plan.sent:
            if sent.command is not None and sent.rows is not None:
                stream = len(sent.rows) % 2 == 1
                body = payload(sent.command.metadata.ingestion_map, sent.rows, stream)
                world.objects.place(sent.command.payload_location, body)
        if at_step is not None:
            trio.lowlevel.add_instrument(instrument)
        await _send(world)
        await trio.sleep_until(plan.until)
        await world.rest()
        if at_step is not None:
            trio.lowlevel.remove_instrument(instrument)
            await world.rest()
        if plan.newcomer:
            world.begin("node9", ["newcomer"])
            await trio.sleep(NEWCOMER_SECONDS)
            await world.rest()
        await world.drain()
        return msgspec.structs.replace(await world.outcome(), struck=instrument.reached)


async def _send(world: World) -> None:
    """Publish every copy of every message when its time has come."""
    copies = sorted((at, sent.id, sent.body) for sent in world.plan.sent for at in sent.at)
    for at, name, body in copies:
        await trio.sleep_until(at)
        world.note("source", f"sends {name}")
        await world.broker.publish(routes.INGESTION, name, body)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ionbeam.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--verbose", action="store_true", help="with the nodes' own log")
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.CRITICAL, stream=sys.stdout)
    report = simulate(options.seed)
    sys.stdout.write(f"{report}\n")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
