"""One world: four services, their banks and customers, and a seed that says what befalls them."""

from __future__ import annotations

import random
from asyncio import all_tasks, sleep
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from paymesh.channel.v1 import ChannelServiceStub, HandleCallbackRequest

from common.errors import PaymeshError
from common.ids import IdFactory
from common.mesh.chain import Chain, production_chain
from common.mesh.middleware.authorisation import AccessTable, load_access
from common.mesh.settings import MeshSettings
from tests.simulation.bank import Bank
from tests.simulation.broker import SimulatedBroker
from tests.simulation.faults import Faults, seeded
from tests.simulation.invariants import InvariantError, Watch
from tests.simulation.loop import SimulatedClock, SimulatedLoop, StalledError
from tests.simulation.neighbours import neighbours
from tests.simulation.network import Network, later
from tests.simulation.process import Process, check_alive
from tests.simulation.stores import SERVICES, ModelStores, OpenStores
from tests.simulation.wiring import Polls, replaced_parts, wire_process

_ACCESS: Final = Path(__file__).parents[2] / "topology" / "access.toml"
_TWO_PROCESSES: Final = 0.25
_REBOOT_SECONDS: Final = (0.2, 20.0)
_QUIET_LOOK_SECONDS: Final = 300.0
_QUIET_DAYS_MAX: Final = 4
"""Longer than everything that a flow waits for."""


@dataclass
class Outcome:
    """What became of one seed."""

    seed: int
    digest: str
    steps: int
    hours: float
    """Virtual time that passed."""
    kills: int
    faults: dict[str, int]
    """How often what went wrong."""
    ends: dict[str, int]
    """How orders, payments, refunds and exceptions ended."""
    violation: str = ""
    """What broke; empty when all held."""
    notes: list[str] = field(default_factory=list)


class World:
    """Everything of one seed."""

    def __init__(
        self, seed: int, open_stores: OpenStores = ModelStores, *, traced: bool = False
    ) -> None:
        self.seed = seed
        # Pauses between tries are drawn from Python's own generator.
        random.seed(f"{seed}/pauses")
        self.loop = SimulatedLoop(seeded(seed, "order"))
        if traced:
            self.loop.notes = []
        self.clock = SimulatedClock(self.loop)
        self.faults = Faults(seeded(seed, "faults"))
        self.ids = IdFactory(self.clock, seeded(seed, "ids").getrandbits)
        self.chance = seeded(seed, "customers")
        self.network = Network(self.loop, self.clock, self.faults)
        self.broker = SimulatedBroker(self.loop, self.faults)
        # Half of the worlds have banks that give back whatever they are asked for.
        caps_refunds = self.faults.chance.random() < 0.5
        self.stores = open_stores(self.clock, self._step)
        self.banks = {
            code: Bank(
                code,
                is_scanned=code.startswith("simqr"),
                caps_refunds=caps_refunds,
                loop=self.loop,
                clock=self.clock,
                faults=self.faults,
                deliver=self._deliver,
            )
            for code in ("simqr", "simqr2", "simcard")
        }
        self.polls = Polls()
        self.watch = Watch(self)
        self.processes: dict[str, Process] = {}
        """Those that live, by their names."""
        # Some services have two processes, which know nothing of each other.
        self._copies = {
            service: 2 if self.faults.chance.random() < _TWO_PROCESSES else 1
            for service in SERVICES
        }
        self.kills = 0
        self.violation: InvariantError | None = None
        self._lives = dict.fromkeys(SERVICES, 0)
        self._kill_at = self._next_kill()
        self._edge = self.chain()

    def chain(self) -> Chain:
        """Return the middleware of one process."""
        return production_chain(
            settings=_mesh_settings(),
            principal_key="a key that all processes share",
            access=_access(),
            clock=self.clock,
            chance=random.random,
        )

    def edge(self, target: str, caller: str = "edge") -> Any:
        """Return the channel on which the world outside reaches a service."""
        return self.network.channel(caller, target, self._edge)

    # Processes: booted, killed, booted again.

    def boot(self, service: str) -> None:
        """Start a process of a service."""
        self._lives[service] += 1
        process = Process(self.loop, service, self._lives[service])
        self.processes[str(process)] = process
        self.loop.note(f"boot {process}")
        process.spawn(self._boot(process), f"boot {process}")

    async def _boot(self, process: Process) -> None:
        try:
            await wire_process(self, process)
        except Exception as error:  # noqa: BLE001 - a process that cannot start ends
            self.loop.note(f"{process} cannot start: {type(error).__name__}")
            process.is_doomed = True

    def kill(self, process: Process) -> None:
        """End a process where it stands; another is started after a while."""
        self.kills += 1
        self.loop.note(f"kill {process}")
        process.kill()
        del self.processes[str(process)]
        pause = self.faults.between(*_REBOOT_SECONDS)
        later(self.loop, pause, self.boot, process.service)

    def _next_kill(self) -> float:
        rate = self.faults.rates["killed at a step"]
        return self.faults.chance.expovariate(rate) if rate else float("inf")

    def _between_steps(self) -> None:
        if self.violation is not None:
            raise self.violation
        for process in list(self.processes.values()):
            if process.is_doomed:
                self.kill(process)
        if self.loop.steps_run >= self._kill_at:
            self._kill_at = self.loop.steps_run + self._next_kill()
            if self.processes and not self.faults.is_over:
                self.faults.counted["killed at a step"] += 1
                self.kill(self.faults.chance.choice(list(self.processes.values())))

    # What happens around every transaction of a process.

    async def _step(self, statement: str, moment: Literal["before", "after"]) -> None:
        process = check_alive()
        if process is None:
            return
        faults, loop = self.faults, self.loop
        if moment == "after":
            try:
                self.watch.committed(statement)
            except InvariantError as error:
                self.violation = error
        loop.note(f"{process} {moment} {statement}")
        if faults.happens(f"killed {moment}"):
            await process.die_here()
        if faults.happens(f"connection lost {moment}"):
            raise ConnectionError(f"lost {moment} {statement}")
        if moment == "before":
            await sleep(faults.between(0.05, 3.0) if faults.happens("transaction slow") else 0.0)

    async def _deliver(self, channel: str, body: bytes) -> bool:
        """Bring a bank's callback to the platform, as the edge does."""
        stub = ChannelServiceStub(self.edge("channel"))
        request = HandleCallbackRequest(channel=channel, body=body)
        try:
            answer = await stub.HandleCallback(request)
        except PaymeshError:
            return False
        return bool(answer.http_status == 200)

    # A whole life.

    def run(self, customers: Callable[[World], Any]) -> Outcome:
        """Let customers do what they want, and all of it come to its end."""
        self.faults.is_over = True
        self.loop.between_steps = self._between_steps
        violation = ""
        try:
            with replaced_parts(self):
                self.loop.run_until_complete(self._live(customers))
        except InvariantError as error:
            violation = str(error)
        except StalledError as error:
            violation = f"stalled: {error}"
        finally:
            for process in self.processes.values():
                process.kill()
            self._end_loop()
        return Outcome(
            self.seed,
            self.loop.digest(),
            self.loop.steps_run,
            self.loop.time() / 3600,
            self.kills,
            dict(self.faults.counted),
            self.watch.ends(),
            violation,
            self.loop.notes or [],
        )

    async def _live(self, customers: Callable[[World], Any]) -> None:
        for name, register in neighbours().items():
            process = Process(self.loop, name, 1)
            self.network.serve(process, [register], self.chain())
        for service, copies in self._copies.items():
            for _ in range(copies):
                self.boot(service)
        while any(self.network.find(service) is None for service in SERVICES):  # noqa: ASYNC110
            await sleep(0.1)  # virtual: polling costs nothing
        shop = customers(self)
        await shop.open()
        self.faults.is_over = False
        await shop.trade()
        self.faults.end()
        self.loop.note("all faults are over")
        await self._come_to_rest()
        self.watch.at_the_end()

    async def _come_to_rest(self) -> None:
        """Wait until nothing is under way any more; raises InvariantError when that never comes."""
        until = self.loop.time() + _QUIET_DAYS_MAX * 86_400
        self.polls.slow_down()
        while (busy := self.watch.under_way()) is not None:
            if self.loop.time() > until:
                raise InvariantError(f"never ends: {busy}")
            await sleep(_QUIET_LOOK_SECONDS)

    def _end_loop(self) -> None:
        world = Process(self.loop, "world", 0)
        for task in all_tasks(self.loop):
            world.took(task)
        world.kill()
        self.loop.close()


@cache
def _access() -> AccessTable:
    return load_access(_ACCESS)


@cache
def _mesh_settings() -> MeshSettings:
    return MeshSettings()
