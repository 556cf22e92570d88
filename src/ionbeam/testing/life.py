"""One incarnation of a simulated node, from its start to its crash or its drain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from ionbeam.actors.prepare import Prepared, PrepareRules, prepare
from ionbeam.backends.embedded import broker as broker_backend
from ionbeam.backends.embedded import ledger as ledger_backend
from ionbeam.backends.embedded.broker import EmbeddedBroker
from ionbeam.backends.embedded.database import Database, open_database
from ionbeam.backends.embedded.ledger import EmbeddedLedger
from ionbeam.backends.embedded.observations import SegmentStore
from ionbeam.errors import IonbeamError, Unavailable
from ionbeam.node import Node, Stopped
from ionbeam.parts import Ports, window_rules
from ionbeam.ports.broker import Broker
from ionbeam.ports.ledger import Ledger
from ionbeam.ports.objects import ObjectStore
from ionbeam.schemas import routes
from ionbeam.schemas.messages import IngestDataCommand
from ionbeam.testing.faults import SETTLING, Again, Away, ClockJump, Crash, Delay, Fail, Fault, Freeze
from ionbeam.testing.proxies import BrokerProxy, ObjectsProxy, Proxy, WorkersProxy, spell
from ionbeam.testing.scheduling import chances

if TYPE_CHECKING:
    from ionbeam.testing.world import Recorder, World

T = TypeVar("T")

PARTS = (broker_backend.PART, ledger_backend.PART)
QUIET = {"ledger.now", "ledger.outbox", "ledger.next_due", "ledger.pending", "ledger.standing", "ledger.contract"}
QUIET |= {"ledger.report", "ledger.current", "ledger.recall", "workers.run", "objects.open", "objects.size"}


class Gone(IonbeamError):
    """What a killed node gets from every port: nothing it does reaches the world any more."""


class Life:
    """A node on proxies of the embedded backends' twins. `dead` once it was killed."""

    def __init__(self, world: World, session: str, exporters: Sequence[Recorder]) -> None:
        self.session = session
        self.dead = False
        self.restart_after = 1.0
        self._world = world
        self._exporters = exporters
        self._scope = trio.CancelScope()
        self._thaw = 0.0
        self._away: dict[str, float] = {}
        self._chance = chances(world.plan.seed, "life", session)
        self._database: Database | None = None
        self._node: Node | None = None
        self._ended = trio.Event()

    @property
    def at_work(self) -> bool:
        if self._node is None or self.dead or self._scope.cancel_called:
            return False
        return trio.current_time() >= self._thaw

    async def live(self, killed: Sequence[str]) -> bool:
        """Live until a crash, a failure or a drain; whether it was a drain. `killed` sessions are reclaimed first."""
        world = self._world
        world.note(self.session, "starts")
        try:
            with self._scope:
                async with open_database(
                    None,
                    clock=world.clock,
                    parts=PARTS,
                    connection=world.connection,
                    bells=world.bells,
                    session=self.session,
                    dead=killed,
                ) as self._database:
                    ports = self._ports(self._database)
                    for queue, exchange in routes.BINDINGS.items():
                        await ports.broker.bind(queue, exchange)
                    self._node = self._make_node(ports)
                    await self._node.run()
                    world.note(self.session, "drained")
                    return True
        except Exception as error:
            if not self.dead:
                world.note(self.session, f"fails: {error!r}")
        finally:
            self._node = None
            self._ended.set()
        return False

    async def drain(self) -> Stopped:
        assert self._node is not None, f"{self.session} does not live"
        stopped = await self._node.drain()
        await self._ended.wait()
        return stopped

    def crash(self, restart_after: float = 1.0) -> None:
        """kill -9: from this moment nothing that it still does has an effect."""
        if self.dead:
            return
        self.dead = True
        self.restart_after = restart_after
        self._world.note(self.session, "is killed")
        if self._database is not None:
            self._database.sever()
        self._scope.cancel()

    def cancel(self, restart_after: float = 0.0) -> None:
        """Stop it from outside; unlike a killed one it can still give back what it holds."""
        self.restart_after = restart_after
        self._world.note(self.session, "is cancelled")
        self._scope.cancel()

    # -- parts -----------------------------------------------------------------------------------------------------
    def _ports(self, database: Database) -> Ports:
        world = self._world
        self._objects = cast(ObjectStore, ObjectsProxy(self, world.objects))
        self._store = SegmentStore(self._objects, token=self._token)
        ledger = EmbeddedLedger(database, world.clock, partial(window_rules, world.plan.topology), token=self._token)
        return Ports(
            broker=cast(Broker, BrokerProxy(self, "broker", EmbeddedBroker(database, world.clock))),
            ledger=cast(Ledger, Proxy(self, "ledger", ledger)),
            store=self._store,
            objects=self._objects,
            workers=WorkersProxy(self),
            session=self.session,
        )

    def _make_node(self, ports: Ports) -> Node:
        return Node(
            self._world.plan.topology,
            ports,
            self._exporters,
            random=self._chance.random,
            prepare=self._prepare,
            run_exporter=self._run_exporter,
        )

    def _token(self) -> str:
        return f"{self._chance.getrandbits(64):016x}"

    async def _prepare(self, command: IngestDataCommand, issued_at: datetime, suspect: bool) -> Prepared:
        topology = self._world.plan.topology
        if command.id in self._world.plan.killers:
            if suspect:
                raise IonbeamError(f"the process that read {command.payload_location} was ended by SIGSEGV")
            self.crash()
            await self._gone()
        rules = PrepareRules(max_future=topology.rules.max_future, chunk_rows=topology.memory.chunk_rows)
        return await WorkersProxy(self).run(prepare, command, issued_at, rules, self._objects, self._store, self._token)

    async def _run_exporter(self, function: Callable[..., None], *args: object) -> None:
        async def here() -> None:
            function(*args)

        await self.pass_through("exporter.apply", here)

    # -- where calls pass ------------------------------------------------------------------------------------------
    async def pass_through(self, call: str, method: Callable[..., Awaitable[Any]], *args: Any, **named: Any) -> Any:
        """Make the call, with what the script has for it."""
        await self._present(call)
        number = self._world.script.begin(call)
        for fault in self._world.script.due(call, number, "before"):
            await self._suffer(call, fault)
        if call in SETTLING:
            self._world.settling(call, args[0])
        result = await method(*args, **named)
        self._world.happened(call, args, result)
        if call not in QUIET and not (call == "ledger.lease" and result is None):
            self._world.note(self.session, f"{call} {spell(args)} → {spell((result,))}")
        for fault in self._world.script.due(call, number, "after"):
            if isinstance(fault.effect, Again):
                self._world.nursery.start_soon(self._world.repeat, fault.effect.seconds, *args)
            await self._suffer(call, fault)
        return result

    def pass_through_sync(self, call: str, method: Callable[..., T], *args: Any) -> T:
        """As `pass_through`, where nothing can wait: only crashes and failures strike."""
        if self.dead:
            raise Gone(f"{self.session} was killed")
        number = self._world.script.begin(call)
        self._strike(call, self._world.script.due(call, number, "before"))
        result = method(*args)
        if call not in QUIET:
            self._world.note(self.session, f"{call} {spell(args)}")
        self._strike(call, self._world.script.due(call, number, "after"))
        return result

    def _strike(self, call: str, faults: Sequence[Fault]) -> None:
        for fault in faults:
            self._world.note(self.session, f"FAULT {fault}")
            if isinstance(fault.effect, Crash):
                self.crash(fault.effect.restart_after)
                raise Gone(f"{self.session} was killed")
            raise RuntimeError(f"scripted failure of {call}")

    async def _present(self, call: str) -> None:
        if self.dead:
            await self._gone()
        # A process that stands still stops within a call of settling, not before it: its grace would run out.
        while call not in SETTLING and trio.current_time() < self._thaw:
            await trio.sleep_until(self._thaw)
            if self.dead:
                await self._gone()
        if trio.current_time() < self._away.get(call, 0.0):
            await trio.lowlevel.checkpoint()
            raise Unavailable(f"scripted: {call} is away")

    async def _gone(self) -> None:
        await trio.lowlevel.checkpoint()
        raise Gone(f"{self.session} was killed")

    async def _suffer(self, call: str, fault: Fault) -> None:
        world = self._world
        world.note(self.session, f"FAULT {fault}")
        match fault.effect:
            case Crash(restart_after, 0):
                self.crash(restart_after)
                await self._gone()
            case Crash(restart_after, ticks):
                world.nursery.start_soon(self._crash_in, ticks, restart_after)
            case Fail():
                raise RuntimeError(f"scripted failure of {call}")
            case Away(seconds):
                self._away[call] = trio.current_time() + seconds
                raise Unavailable(f"scripted: {call} is away")
            case Delay(seconds):
                await trio.sleep(seconds)
            case Freeze(seconds, missed_after):
                self._thaw = trio.current_time() + seconds
                if missed_after is not None and missed_after < seconds:
                    world.nursery.start_soon(world.declare_dead, self, missed_after)
                await self._present(call)
            case ClockJump(seconds):
                world.clock_offset += seconds

    async def _crash_in(self, ticks: int, restart_after: float) -> None:
        for _ in range(ticks):
            await trio.lowlevel.checkpoint()
        self.crash(restart_after)
