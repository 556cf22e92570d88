"""Whole nodes under faults keep every promise, whatever the seed; and the simulation itself can be trusted."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import pytest
import trio

from ionbeam.testing.commands import plan, small_plan
from ionbeam.testing.faults import Again, Away, ClockJump, Crash, Delay, Fail, Fault, Freeze
from ionbeam.testing.load import Plan
from ionbeam.testing.oracle import Window, expect
from ionbeam.testing.scheduling import run_seeded
from ionbeam.testing.simulation import faults_of, play, simulate
from ionbeam.testing.verdict import hashes, problems

SEEDS = int(os.environ.get("IONBEAM_SEEDS", "300"))
BLOCK = 20


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Nodes that are killed on purpose have a lot to say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_seed_keeps_every_promise(first: int) -> None:
    """Crashes, outages, freezes, duplicates and late commands change nothing of what is built and told."""
    failed = [report for seed in range(first, min(first + BLOCK, SEEDS)) if (report := simulate(seed)).problems]
    assert not failed, "\n".join(
        f"python -m ionbeam.testing.simulation --seed {report.seed}\n    " + "\n    ".join(report.problems)
        for report in failed
    )


@pytest.mark.parametrize("seed", [806, 1050])
def test_seeds_that_once_failed(seed: int) -> None:
    """A command that another node had accepted, and died, was acknowledged before the journal had it."""
    assert simulate(seed).problems == []


def test_the_same_seed_gives_the_same_run() -> None:
    """Every message, transition and fault, in order and at the same moment; other seeds give others."""
    traces = {seed: tuple(simulate(seed).trace) for seed in (2, 3, 5)}
    assert {seed: tuple(simulate(seed).trace) for seed in (2, 3, 5)} == traces
    assert len(set(traces.values())) == 3


def test_the_same_seed_gives_the_same_run_in_another_process() -> None:
    """Neither the order of sets nor anything else of a process has a say; the report ends with a verdict."""
    told = {
        subprocess.run(
            [sys.executable, "-m", "ionbeam.testing.simulation", "--seed", "3"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert told.pop().rstrip().endswith("every promise was kept")


def test_the_scheduler_is_left_as_it_was() -> None:
    """A seeded run neither draws from nor reseeds the generators that others use."""

    async def nothing() -> float:
        return trio.current_time()

    random.seed(4)
    before = random.getstate()
    assert run_seeded(1, nothing, at_most=1) == 0.0
    assert random.getstate() == before


def test_a_deadlock_is_found_at_once() -> None:
    """With nothing left to run the clock jumps to the end of patience."""
    with pytest.raises(trio.TooSlowError):
        run_seeded(1, trio.sleep_forever, at_most=1e9)


# -- the load and the faults are as varied as they should be -----------------------------------------------------------


def test_the_seeds_together_try_everything() -> None:
    """Both folds, all sorts of identity, windows of every fate, every refusal, every fault, one to three nodes."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        seen.update(_features(plan(seed)))
        seen.update(type(fault.effect).__name__ for fault in faults_of(seed))
    wanted = {"row", "value", "1 nodes", "2 nodes", "3 nodes", "newcomer", "replaced", "replaced before it came"}
    wanted |= {"duplicate", "conflict", "merged", "rejected", "copies", "unstamped", "zero rows", "corrected"}
    wanted |= {"ready", "not ready", "emptied", "incomplete allowed", "paced", "too early", "many in one window"}
    wanted |= {"bad-unit", "poison", "no-payload", "ahead", "ambiguous", "disagrees", "killer", "by position"}
    wanted |= {kind.__name__ for kind in (Again, Away, ClockJump, Crash, Delay, Fail, Freeze)}
    assert {name: seen[name] for name in wanted if seen[name] < 5} == {}


def _features(load: Plan) -> set[str]:
    expected = expect(load)
    found = {f"{load.nodes} nodes"} | ({"newcomer"} if load.newcomer else set())
    for sent in load.sent:
        found |= {sent.id} if sent.fate == "dead" else set()
        found |= {"copies"} if len(sent.at) > 1 else set()
        if sent.command is None or sent.fate == "dead":
            continue
        columns = sent.command.metadata.ingestion_map
        found |= {columns.fold} | ({"by position"} if not columns.metadata_variables else set())
        found |= {"zero rows"} if not sent.rows else set()
        found |= {"unstamped"} if sent.command.issued_at is None else set()
        for name in sent.command.replaces:
            (old,) = [other for other in load.sent if other.id == name]
            found |= {"replaced"} | ({"replaced before it came"} if min(old.at) > min(sent.at) else set())
    for rules in load.topology.datasets.values():
        found |= {"incomplete allowed"} if rules.allow_incomplete_windows else set()
        found |= {"paced"} if rules.min_rebuild_interval else set()
    for ingestion in expected.ingestions.values():
        found |= {name for name, count in ingestion.counts.items() if count}
    for window in expected.windows.values():
        found |= _window_features(window, load)
    return found


def _window_features(window: Window, load: Plan) -> set[str]:
    found = {"ready" if window.ready else "not ready"} | ({"emptied"} if window.was_touched else set())
    found |= {"too early"} if window.earliest > load.until else set()
    found |= {"corrected"} if window.counts["conflict"] or window.counts["merged"] else set()
    return found | ({"many in one window"} if window.counts["accepted"] > window.counts["rows"] + 2 else set())


# -- stopped at every step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stroke", ["crash", "cancel"])
def test_a_node_stopped_at_any_step_is_finished_by_the_next(stroke: Literal["crash", "cancel"]) -> None:
    """Killed, or cancelled, before every single scheduler step of a small run: the same datasets, nothing left."""
    load = small_plan()
    expected, undisturbed = expect(load), play(load)
    assert problems(load, expected, undisturbed) == []
    step, wrong = 0, []
    while True:
        outcome = play(load, at_step=(step, stroke))
        found = problems(load, expected, outcome)
        if found or hashes(outcome) != hashes(undisturbed):
            wrong.append((step, found, hashes(outcome)))
        if not outcome.struck:
            break
        step += 1
    assert not wrong
    assert step > 150


# -- single faults, told apart -----------------------------------------------------------------------------------------


def test_a_builder_that_slept_through_its_lease_changes_nothing() -> None:
    """It wakes when another node has built the window with newer rows; its own result is refused."""
    load = next(load for load in map(plan, range(1000)) if load.nodes > 1 and not load.killers)
    sleeper = Fault("ledger.built", 1, "before", Freeze(seconds=4000.0, missed_after=60.0))
    outcome = play(load, [sleeper])
    assert problems(load, expect(load), outcome) == []
    assert any("STALE" in line for line in outcome.trace)


def test_a_payload_that_kills_its_process_ends_as_a_dead_letter() -> None:
    """It is tried apart from the node after it killed it once, and the node goes on with the others."""
    load = next(load for load in map(plan, range(1000)) if load.killers)
    outcome = play(load)
    assert problems(load, expect(load), outcome) == []
    assert sum("is killed" in line for line in outcome.trace) == 1
    (letter,) = [letter for letter in outcome.dead if b'"killer"' in letter.body]
    assert letter.attempts == load.topology.attempts.limit
