"""Preparing a payload in a process of its own: the same answer, the same errors, and its death is one error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from at_home import at, command, ipc_file, row, rows, working

import ionbeam.wiring
from ionbeam.actors.isolation import Answer, prepare_apart
from ionbeam.actors.prepare import PrepareRules, prepare
from ionbeam.config import Topology
from ionbeam.errors import IonbeamError, PayloadMissing, Refused, Unavailable
from ionbeam.parts import open_ports, open_stores
from ionbeam.schemas import routes
from ionbeam.schemas.codec import encode
from ionbeam.schemas.duration import Duration
from ionbeam.wiring import isolated_command

RULES = PrepareRules(max_future=Duration("PT1H"), chunk_rows=100)


def says(text: str) -> list[str]:
    """A process that runs `text`."""
    return [sys.executable, "-c", text]


async def test_the_answer_is_the_same(tmp_path: Path) -> None:
    """Counts, shares and times are those of preparing here; rows and quarantine are durable in the home's store."""
    topology = Topology(home=str(tmp_path))
    objects, store = open_stores(topology)
    table = rows(row(60), row(60), row(3700), row(120, t=None), row(10_801 + 7200))
    await objects.put("raw/c", ipc_file(table))
    here = await trio.to_thread.run_sync(
        prepare, command("c"), at(7200), RULES, objects, store, iter(["t1", "t2"]).__next__
    )
    there = await prepare_apart(isolated_command(topology), command("c"), at(7200), RULES)
    assert (there.counts, there.first, there.last) == (here.counts, here.first, here.last)
    assert there.counts.reasons == {"no_value": 1, "time_in_future": 1}
    assert [(s.window_start, s.rows) for s in there.shares] == [(s.window_start, s.rows) for s in here.shares]
    for ours, theirs in zip(here.shares, there.shares, strict=True):
        assert [t.to_pylist() for t in store.read("air", "c", ours)] == [
            t.to_pylist() for t in store.read("air", "c", theirs)
        ]
    assert there.quarantine_location is not None
    assert await objects.exists(there.quarantine_location)


async def test_a_refusal_comes_through(tmp_path: Path) -> None:
    """A payload that is refused there is refused here, in the same words."""
    topology = Topology(home=str(tmp_path))
    objects, _ = open_stores(topology)
    await objects.put("raw/c", b"garbage \xe2\x80\x8f\n")
    with pytest.raises(Refused, match="neither whole Arrow IPC nor Parquet"):
        await prepare_apart(isolated_command(topology), command("c"), at(7200), RULES)


async def test_a_missing_payload_comes_through(tmp_path: Path) -> None:
    """A payload that is not there may still come: no refusal."""
    with pytest.raises(PayloadMissing, match="raw/c"):
        await prepare_apart(isolated_command(Topology(home=str(tmp_path))), command("c"), at(7200), RULES)


@pytest.mark.parametrize(
    ("kind", "error"), [("Unavailable", Unavailable), ("IonbeamError", IonbeamError), ("SomethingElse", IonbeamError)]
)
async def test_errors_by_name(kind: str, error: type[IonbeamError]) -> None:
    """What the process names is raised here; a name that nobody knows is a plain error."""
    answer = encode(Answer(error=kind, text="what happened")).decode()
    with pytest.raises(error, match="what happened") as caught:
        await prepare_apart(says(f"print({answer!r})"), command("c"), at(0), RULES)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
    ],
)
async def test_a_process_that_dies(text: str, ended: str) -> None:
    """Its death is an error that names the payload, how it ended and what to do; this process goes on."""
    with pytest.raises(IonbeamError, match=ended) as caught:
        await prepare_apart(says(text), command("c"), at(0), RULES)
    assert not isinstance(caught.value, Refused | Unavailable)
    assert "raw/c" in str(caught.value)
    assert "write it again" in str(caught.value)


async def test_a_suspect_message_is_prepared_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command whose holder died with it in hand is prepared in a process of its own, and accepted all the same."""
    asked: list[Topology] = []

    def recorded(topology: Topology) -> list[str]:
        asked.append(topology)
        return isolated_command(topology)

    monkeypatch.setattr(ionbeam.wiring, "isolated_command", recorded)
    async with open_ports(Topology(home=str(tmp_path))) as ports:
        await ports.objects.put("raw/c", ipc_file(rows(row(60))))
        await ports.broker.publish(routes.INGESTION, "c", encode(command("c")))
        await ports.broker.publish(routes.INGESTION, "d", encode(command("d", payload_location="raw/c")))
        async with ports.broker.consume(routes.INGESTION, 1) as consumer:
            assert (await consumer.receive()).message_id == "c"
        # The session ends with the message in hand: the next holder gets it as a suspect.
    async with working(tmp_path) as home:
        await home.settle()
        assert [(await home.state(name)).counts.accepted for name in "cd"] == [1, 1]
    assert len(asked) == 1
