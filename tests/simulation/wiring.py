"""How the services are wired into a simulated process: by their own `wiring.py`, with other parts.

All that the simulation knows of how services are put together is in this file: what a process's kit
holds, which names of theirs are replaced (`REPLACED`), and how their background work is driven.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from pydantic import BaseModel, SecretStr

import common.jobs.worker
import services.account.wiring
import services.channel.wiring
import services.payment.wiring
import services.trade.wiring
from common.clock import Clock
from common.db.pool import Pool
from common.events.consumer import Consumer
from common.events.relay import Relay
from common.ids import IdFactory
from common.mesh.calling import CallingChannel
from common.service import Background, BackgroundTask, Service
from common.settings import Settings
from services.account.config import AccountSettings
from services.channel.catalogue import Catalogue, Channel
from services.channel.config import ChannelSettings
from services.channel.guard import Guard
from services.channel.store.channels import ChannelRow
from services.payment.config import PaymentSettings
from services.trade.config import TradeSettings
from services.trade.rounds import run_rounds
from tests.simulation.bank import Bank
from tests.simulation.bank_adapter import BankAdapter
from tests.simulation.faults import seeded
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

WIRINGS: Final[dict[str, ModuleType]] = {
    "account": services.account.wiring,
    "channel": services.channel.wiring,
    "trade": services.trade.wiring,
    "payment": services.payment.wiring,
}
"""The simulated services; the others are played (neighbours.py)."""

REQUEST_LIFE_SECONDS: Final = 300
"""The shortest time that a bank's request surely lives: the bank's slowness stays far below."""

_QUIET_SECONDS: Final = 900.0
# Some worlds keep for the payer what a channel has refused once, and soon; some ask for long.
_DUE_SECONDS: Final = (60.0, 600.0, 3600.0)
_REPEATS_MAX: Final = (0, 1, 5)
_PRODUCTS: Final = {"simqr": "qr_pay", "simqr2": "qr_pay", "simcard": "quick_pay"}


class Polls:
    """How often rounds look whether there is work: often in a storm, seldom in the quiet after."""

    def __init__(self) -> None:
        self.seconds = 5.0

    def slow_down(self) -> None:
        """Look seldom: hours of quiet are to cost little."""
        self.seconds = _QUIET_SECONDS
        common.jobs.worker._POLL_SECONDS = _QUIET_SECONDS  # type: ignore[misc]


@cache
def _process_settings() -> Settings:
    return Settings(page_token_key=SecretStr("token key"))


class SimulatedKit:
    """`common.service.Kit` of one simulated process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self.settings = _process_settings()
        self.chain = world.chain()

    @property
    def clock(self) -> Clock:
        """The world's clock."""
        return self._world.clock

    @property
    def ids(self) -> IdFactory:
        """The world's ids."""
        return self._world.ids

    @property
    def broker(self) -> Any:
        """The world's broker."""
        return self._world.broker

    @property
    def redis(self) -> Any:
        """Not had by services that do not need it."""
        raise NotImplementedError

    async def pool(
        self,
        service: str,
        *,
        connections_max: int | None = None,
        plan_cache_mode: str | None = None,
    ) -> Pool:
        """Return a pool on the tables of a service."""
        return self._world.stores.pool(service)

    def channel(self, caller: str, target: str, *, repeat_unknown: bool = False) -> CallingChannel:
        """Return the channel on which `caller` reaches `target`."""
        return self._world.network.channel(
            caller, target, self.chain, repeat_unknown=repeat_unknown
        )


class SimulatedCatalogue(Catalogue):
    """The channels of the simulation's banks."""

    banks: dict[str, Bank]

    async def load(self) -> None:
        """Build them: there is neither file nor table."""
        self._channels = {code: self._guarded(code, bank) for code, bank in self.banks.items()}

    def _guarded(self, code: str, bank: Bank) -> Channel:
        row = ChannelRow(
            code=code,
            adapter=BankAdapter.code,
            products=(_PRODUCTS[code],),
            currency_codes=("USD", "CNY"),
            amount_min_minor=1,
            amount_max_minor=10**9,
            request_life_seconds=REQUEST_LIFE_SECONDS,
            timeout_seconds=10.0,
            suspended=False,
            credentials=code,
        )
        guard = Guard(BankAdapter(bank), clock=self._clock, hooks=self._hooks)
        return Channel(row, guard)

    async def run(self) -> None:
        """Nothing changes."""
        await asyncio.get_running_loop().create_future()


class _NoSession:
    """Stands for the HTTP session that no adapter of the simulation uses."""

    async def close(self) -> None:
        """Nothing to close."""


@cache
def _settings() -> dict[str, BaseModel]:
    """Return the settings of services, read once: a process starts often here."""
    return {
        # The model has no tables of the inner books.
        "account": AccountSettings(inner_books=False),
        "channel": ChannelSettings(),
        "trade": TradeSettings(),
    }


@cache
def _payment_settings(due_seconds: float, repeats_max: int) -> BaseModel:
    """What waits for people or funds is given up within hours, so that the end is near."""
    return PaymentSettings(
        request_life_seconds=REQUEST_LIFE_SECONDS,
        exception_due_seconds=due_seconds,
        exception_repeats_max=repeats_max,
    ).model_copy(update={"waiting_funds_days": 0.1})


@contextmanager
def replaced_parts(world: World) -> Iterator[None]:
    """Let wirings find simulated parts where they name what reaches out of the process."""
    catalogue = type("WorldCatalogue", (SimulatedCatalogue,), {"banks": world.banks})
    with ExitStack() as stack:
        for module, name, part in (
            (services.channel.wiring, "Catalogue", catalogue),
            (services.channel.wiring, "open_session", _NoSession),
            # Holds of refunds never expire, so nobody has to look for those that did.
            (services.account.wiring, "_EXPIRE_EVERY_SECONDS", 6 * 3600.0),
            # No account of the simulation is buffered.
            (services.account.wiring, "_DRAIN_EVERY_SECONDS", 6 * 3600.0),
            # Jobs are found by their time and by notifications; this is for lost ones.
            (common.jobs.worker, "_POLL_SECONDS", world.polls.seconds),
        ):
            stack.enter_context(patch.object(module, name, part))
        desk = seeded(world.seed, "desk")
        payment = _payment_settings(desk.choice(_DUE_SECONDS), desk.choice(_REPEATS_MAX))
        for service, settings in (*_settings().items(), ("payment", payment)):
            name = f"{service.capitalize()}Settings"
            stack.enter_context(patch.object(WIRINGS[service], name, partial(_given, settings)))
        yield


def _given(settings: BaseModel) -> BaseModel:
    return settings


async def wire_process(world: World, process: Process) -> Service:
    """Wire a process's service and let its background work begin; runs in the process."""
    kit = SimulatedKit(world, process)
    service: Service = await WIRINGS[process.service].wire(kit)
    for work in service.background:
        run = work.run if isinstance(work, Background) else work
        name = work.name if isinstance(work, Background) else "background"
        process.spawn(_keep(world, _driver(world, run)), name)
    world.network.serve(process, list(service.register), kit.chain)
    return service


def _driver(world: World, run: BackgroundTask) -> BackgroundTask:
    """Return what runs a piece of background work in the simulation."""
    owner = getattr(run, "__self__", None)
    if isinstance(owner, Relay):
        return partial(_relay, world.polls, owner)
    if isinstance(owner, Consumer):
        world.broker.declare(owner)
        return partial(world.broker.feed, owner, lambda: world.polls.seconds)
    if isinstance(run, partial) and run.func is run_rounds:
        return partial(_rounds, world.polls, run.args[1])
    return run


async def _relay(polls: Polls, relay: Relay) -> None:
    """Publish when there is something; two relays at a time only tell twice, so no lease."""
    while True:
        relay._outbox.forget_notifications()
        if await relay.publish_round() == 0:
            await relay._outbox.wait(polls.seconds)


async def _rounds(polls: Polls, once: Callable[[], Awaitable[int]]) -> None:
    while True:
        if await once() == 0:
            await asyncio.sleep(polls.seconds)


async def _keep(world: World, run: BackgroundTask) -> None:
    """Run background work again when it fails, as a process does."""
    while True:
        try:
            await run()
        except Exception as error:  # noqa: BLE001 - the world is meant to be bad
            world.loop.note(f"background work failed: {type(error).__name__}")
            await asyncio.sleep(1.0)
