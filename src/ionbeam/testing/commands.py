"""Makes the plan of a seed: a few commands that meet in a few windows, and a few that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from ionbeam.config import WindowSettings
from ionbeam.schemas.codec import encode
from ionbeam.schemas.messages import Claim, IngestDataCommand
from ionbeam.schemas.metadata import IngestionMetadata
from ionbeam.testing.load import (
    DISAGREES_AT,
    HOURS,
    UNSTAMPED_AT,
    Plan,
    Sent,
    Style,
    claim,
    moment,
    purpose,
    sending,
    style,
    topology,
)
from ionbeam.testing.raw import HOUR, SLOT, VARIABLES, Row, first_window, rows


def plan(seed: int) -> Plan:
    """What the world of `seed` is asked to do; always the same for the same seed."""
    chance = purpose(seed)
    far = chance.random() < 0.15
    styles = [style(name, chance, far) for name in ("air", "rail")[: chance.choice((1, 1, 2))]]
    sent = _accepted(styles, chance)
    killers: list[str] = []
    for make in chance.sample(_REFUSED, chance.choice((0, 0, 1, 1, 2))):
        refused = make(styles[0], sent, chance)
        if refused is not None:
            sent.append(refused)
            if make is _killer:
                killers.append(refused.id)
    return Plan(
        seed=seed,
        nodes=chance.choice((1, 1, 2, 3)),
        topology=topology(styles),
        sent=tuple(sent),
        until=chance.choice((5 * HOURS, 60 * HOURS)) if far else 5 * HOURS,
        newcomer=chance.random() < 0.2,
        killers=frozenset(killers),
    )


def small_plan() -> Plan:
    """One window, two commands that meet in it, and a poison body: what a sweep can try at every step."""
    chance = purpose(0, "small")
    each = msgspec.structs.replace(
        style("air", chance, False), windows=1, subject_to_change="PT0S", settings=WindowSettings()
    )
    sent = []
    for number, half in enumerate((0, 1)):
        metadata = each.map(chance)
        start = -2 * HOUR + half * HOUR // 2
        content = tuple(
            Row(
                second=-2 * HOUR + slot * SLOT,
                lat=1.0,
                lon=2.0,
                values={v.column: float(number) if v.column == "h" else 280 for v in VARIABLES},
                texts=dict.fromkeys((m.column for m in metadata.ingestion_map.metadata_variables), "a"),
            )
            for slot in (number, number + 1)
        )
        command = _command(f"c{number}", metadata, start, start + HOUR // 2, issued=-60.0 + number)
        sent.append(sending(command, content, 0.0))
    poison = Sent(id="poison", body=b"{", at=(0.0,), fate="dead", reason="not JSON")
    return Plan(seed=0, nodes=1, topology=topology([each]), sent=(*sent, poison), until=1.0)


def _command(
    name: str, metadata: IngestionMetadata, start: int, end: int, *, issued: float | None, **more: Any
) -> IngestDataCommand:
    return IngestDataCommand(
        id=name,
        metadata=metadata,
        payload_location=f"raw/{metadata.dataset.name}/{name}",
        start_time=moment(start),
        end_time=moment(end),
        issued_at=None if issued is None else moment(issued),
        **more,
    )


def _accepted(styles: list[Style], chance: Random) -> list[Sent]:
    sent: list[Sent] = []
    for number in range(chance.randint(3, 9)):
        sent.append(_ordinary(chance.choice(styles), number, sent, chance))
    for each in styles:
        if chance.random() < 0.7:
            sent.append(_sweep(each, chance))
        if chance.random() < 0.25:
            sent.append(_unstamped(each, sent, chance))
    return sent


def _name(chance: Random, number: int) -> str:
    """Ids whose order has nothing to do with the order of sending."""
    return f"{chance.choice('abcxyz')}{chance.randrange(1000):03d}-{number}"


def _ordinary(each: Style, number: int, sent: list[Sent], chance: Random) -> Sent:
    metadata = each.map(chance)
    before = _earlier(each, sent)
    content = rows(each.windows, metadata.ingestion_map, chance, [row for other in before for row in other.rows or ()])
    start, end = _span(each, chance)
    issued = float(chance.choice(range(-1800, 1201, 300)))
    claims = _claims(each, chance)
    replaces: tuple[str, ...] = ()
    if before and chance.random() < 0.25:
        old = chance.choice(before).command
        assert old is not None
        # The newcomer sweeps what the other swept, so a window once covered stays covered.
        replaces = (old.id,)
        claims = ((claim(start, end),) if claims is None else claims) + old.swept
    more: dict[str, Any] = {"claims": claims, "replaces": replaces}
    command = _command(_name(chance, number), metadata, start, end, issued=issued, **more)
    first = max(0.0, issued) + chance.choice((0.0, 0.0, 1.0, 30.0, 400.0, 1500.0, 7000.0))
    copies = [first + chance.choice((0.0, 0.1, 60.0, 3000.0)) for _ in range(chance.choice((0, 0, 0, 1, 2)))]
    return sending(command, content, first, *copies)


def _earlier(each: Style, sent: list[Sent]) -> list[Sent]:
    return [s for s in sent if s.command is not None and s.command.metadata.dataset.name == each.name]


def _span(each: Style, chance: Random) -> tuple[int, int]:
    first = first_window(each.windows)
    start = first + chance.randrange(each.windows) * HOUR
    return start, start + chance.choice((1, 1, 2, 3)) * HOUR // chance.choice((1, 1, 2))


def _claims(each: Style, chance: Random) -> tuple[Claim, ...] | None:
    if chance.random() < 0.6:
        return None
    return tuple(claim(*_span(each, chance)) for _ in range(chance.randrange(3)))


def _sweep(each: Style, chance: Random) -> Sent:
    """A command with no rows that says: I looked everywhere (or nearly)."""
    first = first_window(each.windows)
    end = first + each.windows * HOUR - chance.choice((0, 0, HOUR // 2))
    command = _command(f"{_name(chance, 90)}{each.name[0]}", each.map(chance), first, end, issued=-900.0)
    return sending(command, (), chance.choice((0.0, 500.0, 2000.0)))


def _unstamped(each: Style, sent: list[Sent], chance: Random) -> Sent:
    """Ranks by the moment at which it is handed to a node: after all that were issued."""
    metadata = each.map(chance)
    earlier = [row for other in _earlier(each, sent) for row in other.rows or ()]
    start, end = _span(each, chance)
    command = _command(f"{_name(chance, 91)}{each.name[0]}", metadata, start, end, issued=None)
    copies = (UNSTAMPED_AT, UNSTAMPED_AT + 50.0)[: chance.choice((1, 2))]
    return sending(command, rows(each.windows, metadata.ingestion_map, chance, earlier), *copies)


# -- what must be refused ------------------------------------------------------------------------------------------

_Maker = Callable[[Style, list[Sent], Random], Sent | None]


def _plain(each: Style, chance: Random, name: str) -> IngestDataCommand:
    return _command(name, each.map(chance), *_span(each, chance), issued=0.0)


def _bad_unit(each: Style, sent: list[Sent], chance: Random) -> Sent:
    command = _plain(each, chance, "bad-unit")
    columns = command.metadata.ingestion_map
    wrong = tuple(msgspec.structs.replace(v, from_unit="kg") for v in columns.canonical_variables)
    columns = msgspec.structs.replace(columns, canonical_variables=wrong)
    metadata = msgspec.structs.replace(command.metadata, ingestion_map=columns)
    return sending(msgspec.structs.replace(command, metadata=metadata), (), 20.0, 20.0, fate="dead", reason="'kg'")


def _poison(each: Style, sent: list[Sent], chance: Random) -> Sent:
    body = encode(_plain(each, chance, "poison"))
    return Sent(id="poison", body=body[: len(body) // 2], at=(1.0, 90.0), fate="dead", reason="not JSON")


def _no_payload(each: Style, sent: list[Sent], chance: Random) -> Sent:
    return sending(_plain(each, chance, "no-payload"), None, 5.0, fate="dead", reason="no-payload")


def _ahead(each: Style, sent: list[Sent], chance: Random) -> Sent:
    command = msgspec.structs.replace(_plain(each, chance, "ahead"), issued_at=moment(400 * HOURS))
    return sending(command, (), 0.0, fate="dead", reason="issued_at")


def _ambiguous(each: Style, sent: list[Sent], chance: Random) -> Sent:
    command = _plain(each, chance, "ambiguous")
    columns = command.metadata.ingestion_map
    content = tuple(
        Row(
            second=0,
            lat=1.0,
            lon=1.0,
            values={v.column: 1 + number for v in columns.canonical_variables},
            texts=dict.fromkeys((m.column for m in columns.metadata_variables), "a"),
        )
        for number in range(110)
    )
    return sending(command, content, 10.0, fate="dead", reason="contradict another row")


def _disagrees(each: Style, sent: list[Sent], chance: Random) -> Sent | None:
    """Comes when the contract of its dataset is fixed, if any command fixed it."""
    if not _earlier(each, sent):
        return None
    command = _plain(each, chance, "disagrees")
    fold = {"row": "value", "value": "row"}[each.fold]
    columns = msgspec.structs.replace(command.metadata.ingestion_map, fold=fold)
    metadata = msgspec.structs.replace(command.metadata, ingestion_map=columns)
    command = msgspec.structs.replace(command, metadata=metadata)
    return sending(command, (), DISAGREES_AT, fate="dead", reason="fold: the dataset has")


def _killer(each: Style, sent: list[Sent], chance: Random) -> Sent:
    return sending(_plain(each, chance, "killer"), (), 15.0, fate="dead", reason="at most")


_REFUSED: list[_Maker] = [_bad_unit, _poison, _no_payload, _ahead, _ambiguous, _disagrees, _killer]
