"""`paymesh demo`: boots everything, replays the purchases, proves the books."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

import aiohttp
from paymesh.account.v1 import AccountServiceStub, AdvanceBusinessDateRequest
from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import (
    AddMerchantKeyRequest,
    MemberServiceStub,
    RegisterMerchantRequest,
)
from rich.console import Console

from common.errors import PaymeshError
from services.cli.audit import audit, show
from services.cli.demo import settings
from services.cli.demo.desk import Desk
from services.cli.demo.faults import NO_FAULTS, SERVERS, FaultPlan, What, add_kills, plan_faults
from services.cli.demo.merchant_api import (
    IN_FLIGHT_MAX,
    QUIET,
    UNDER_FIRE,
    MerchantApi,
    ShopError,
)
from services.cli.demo.persistence import persist
from services.cli.demo.plan import PlannedPurchase, plan_purchases, recharges_of
from services.cli.demo.progress import Meter, meter
from services.cli.demo.purchases import CURRENCY, Purchase, read_purchases
from services.cli.demo.report import (
    Report,
    Trouble,
    make_report,
    print_report,
    words_of,
    write_report,
)
from services.cli.demo.rest import RestClient
from services.cli.demo.saboteur import NotRecoveredError, Saboteur
from services.cli.demo.shop import FLOWS_MAX, Shop
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import ROOT, TOPOLOGY_DEFAULT, Deployment, Plan
from services.cli.facts import list_unfinished, tell_story, wait_until_finished
from services.cli.operator import Operator, operate
from services.cli.sources import SERVICES
from services.cli.trace import print_story
from services.sandbox.cards import CardBehaviour, test_card

INPUT_DEFAULT: Final = ROOT / "data" / "cdnow_sample.txt"
REPORT_FILE: Final = ROOT / "build" / "demo-report.json"

# Webhooks and events that are still on their way when the last purchase has ended; under fire,
# also what the channels refuse to give back and what waits for a deadline at the desk.
_SETTLE_SECONDS: Final = 60.0
_SETTLE_UNDER_FIRE_SECONDS: Final = 180.0
_LOOKS_SECONDS: Final = 5.0
_SAY_EVERY_SECONDS: Final = 10.0

# Few enough that purchases are begun all through the run, many enough that each incident meets
# some in every state.
_FLOWS_UNDER_FIRE_MAX: Final = 64

_SERVER_VARIABLES: Final = ("PAYMESH_POSTGRES_URL", "PAYMESH_REDIS_URL", "PAYMESH_AMQP_URL")

_SCAN_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)

Result = TypeVar("Result")


class GivenUpError(Exception):
    """A process of the platform does not come up any more; the message says which and why."""


@dataclass(frozen=True)
class Wishes:
    """What the demo is asked to do."""

    input_file: Path = INPUT_DEFAULT
    limit: int | None = None
    topology: Path = TOPOLOGY_DEFAULT
    seed: int | None = None
    """Seed of the faults; None for none."""
    kills: Sequence[str] = field(default_factory=tuple)
    """Further kills, `SERVICE@ORDER` each."""

    @property
    def is_under_fire(self) -> bool:
        """Whether anything goes wrong on purpose."""
        return self.seed is not None or bool(self.kills)

    @property
    def command(self) -> str:
        """What to type to do the same again."""
        words = ["paymesh demo"]
        if self.seed is not None:
            words.append(f"--faults {self.seed}")
        words += [f"--kill {kill}" for kill in self.kills]
        if self.limit is not None:
            words.append(f"--limit {self.limit}")
        if self.input_file != INPUT_DEFAULT:
            words.append(f"--input {self.input_file}")
        if self.topology != TOPOLOGY_DEFAULT:
            words.append(f"--topology {self.topology}")
        return " ".join(words)


async def run_demo(wishes: Wishes, console: Console) -> int:
    """Run the demo; return the exit status: 0 when everything holds.

    Raises:
        KillError: a wished kill names no service or purchase that there is.
    """
    begun_at = monotonic()
    purchases, refused = _read(wishes.input_file, wishes.limit, console)
    faults = _plan(wishes, len(purchases))
    console.print(f"paymesh demo: {len(purchases):,} purchases")
    async with (
        Deployment(_deployment_plan(wishes, console)) as deployment,
        operate(deployment.environment) as operator,
    ):
        console.print(f"  everything serves after {monotonic() - begun_at:.1f} s")
        replay = Replay(deployment, operator, faults, wishes.is_under_fire, console)
        try:
            problems = (await _while_alive(deployment, replay.run(purchases))).problems
        except (GivenUpError, NotRecoveredError, PaymeshError, ShopError) as error:
            problems = [f"{type(error).__name__}: {error}"]
    if refused:
        console.print(f"{refused} lines of the input could not be read (see above)")
    for problem in problems[:20]:
        console.print(f"  wrong: {problem}", highlight=False)
    if problems:
        console.print(f"demo: FAILED; again with: {wishes.command}", highlight=False)
        return 1
    console.print("demo: all holds")
    return 0


def _plan(wishes: Wishes, purchases: int) -> FaultPlan:
    plan = NO_FAULTS if wishes.seed is None else plan_faults(wishes.seed, purchases)
    return add_kills(plan, wishes.kills, purchases)


def _deployment_plan(wishes: Wishes, console: Console) -> Plan:
    def say(words: str) -> None:
        console.print(f"  {words}")

    if not wishes.is_under_fire:
        return Plan(
            instance="demo",
            topology=wishes.topology,
            fresh_database=True,
            settings=settings.QUIET,
            say=say,
        )
    configured = [name for name in _SERVER_VARIABLES if os.environ.get(name)]
    if configured:
        say(f"on private servers, though {', '.join(configured)} are set: only those are killed")
    return Plan(
        instance="demo",
        topology=wishes.topology,
        fresh_database=True,
        private_servers=True,
        settings=settings.UNDER_FIRE,
        files=settings.under_fire_files(),
        say=say,
    )


async def _while_alive(deployment: Deployment, work: Awaitable[Result]) -> Result:
    """Do some work; raises GivenUpError when a process is given up meanwhile."""
    failed = asyncio.ensure_future(deployment.supervisor.wait_failed())
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({failed, working}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GivenUpError(failed.result())
        return working.result()
    finally:
        failed.cancel()
        working.cancel()
        await asyncio.gather(failed, working, return_exceptions=True)


def _read(file: Path, limit: int | None, console: Console) -> tuple[list[Purchase], int]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        purchases, unreadable = read_purchases(lines, limit)
    for one in unreadable:
        console.print(f"  line {one.line} cannot be read: {one.reason}", highlight=False)
    return purchases, len(unreadable)


class Replay:
    """One replay of purchases on a running platform, and the proof of its books."""

    def __init__(
        self,
        deployment: Deployment,
        operator: Operator,
        faults: FaultPlan,
        is_under_fire: bool,
        console: Console,
    ) -> None:
        self._deployment = deployment
        self._operator = operator
        self._is_under_fire = is_under_fire
        self._console = console
        self._meter: Meter | None = None
        self._saboteur = Saboteur(deployment, operator, faults, self._say_fault)
        self._desk = Desk(operator, faults.seed)

    def _say_fault(self, words: str) -> None:
        if self._meter is not None:
            self._meter.note(words)

    async def run(self, purchases: Sequence[Purchase]) -> Report:
        """Replay the purchases to their ends; print and return the report."""
        webhooks = WebhookReceiver()
        await webhooks.start()
        merchant_id, signer = await register_merchant(self._operator)
        rest = RestClient(self._deployment.edge_url, signer, IN_FLIGHT_MAX)
        payer = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT_MAX))
        try:
            shop = self._open_shop(rest, webhooks, payer)
            await shop.register_webhooks()
            plan = plan_purchases(purchases)
            await _register_customers(shop, plan, self._console)
            async with self._desk_at_work():
                seconds = await self._buy(shop, plan)
                await self._settle(shop, webhooks)
            findings = await audit(self._operator)
            report = await make_report(
                self._operator,
                shop.tally,
                merchant_id,
                webhooks.heard,
                sum(purchase.amount_minor for purchase in purchases),
                shop.tally.payments / seconds if seconds else 0.0,
                findings,
                await self._trouble(),
            )
            write_report(report, REPORT_FILE)
            await _print_sample(self._operator, shop, rest, self._console)
            print_report(report, webhooks.unique, self._console)
            show(findings, self._console)
            return report
        finally:
            await rest.close()
            await payer.close()
            await webhooks.stop()

    async def _buy(self, shop: Shop, plan: list[PlannedPurchase]) -> float:
        """Let the shop take all purchases to their ends, under fire or not; return the seconds."""
        begun_at = monotonic()
        await self._saboteur.begin()
        try:
            with meter(self._console, "purchases", len(plan)) as self._meter:
                await shop.replay(
                    plan,
                    recharges_of(plan),
                    self._meter.advance,
                    self._saboteur.reach,
                    _FLOWS_UNDER_FIRE_MAX if self._is_under_fire else FLOWS_MAX,
                )
                await self._saboteur.finish()
            return monotonic() - begun_at
        finally:
            await self._saboteur.close()

    @asynccontextmanager
    async def _desk_at_work(self) -> AsyncIterator[None]:
        desk = asyncio.create_task(self._desk.work()) if self._is_under_fire else None
        try:
            yield
        finally:
            if desk is not None:
                desk.cancel()
                await asyncio.gather(desk, return_exceptions=True)

    async def _settle(self, shop: Shop, webhooks: WebhookReceiver) -> None:
        """Wait until the last events, webhooks and jobs have ended; what has not is reported."""
        seconds = _SETTLE_UNDER_FIRE_SECONDS if self._is_under_fire else _SETTLE_SECONDS
        until = monotonic() + seconds
        said_at = monotonic()
        while monotonic() < until:
            # What is in the broker is in no row, so a round of looks is wanted each time.
            if await persist(lambda: wait_until_finished(self._operator, _LOOKS_SECONDS)):
                left = until - monotonic()
                if await webhooks.wait_for_all(shop.tally.expected, min(left, _LOOKS_SECONDS)):
                    return
            if monotonic() - said_at > _SAY_EVERY_SECONDS:
                said_at = monotonic()
                waiting = await persist(lambda: list_unfinished(self._operator))
                self._console.print(f"  waiting for {words_of(waiting)}", highlight=False)

    async def _trouble(self) -> Trouble:
        done = self._saboteur.done
        names = (*SERVICES, *SERVERS)
        return Trouble(
            faults_injected=await self._saboteur.count_hits(),
            kills={name: done[What.KILL][name] for name in names},
            pauses={name: done[What.PAUSE][name] for name in names},
            restarts=dict(done[What.RESTART]),
            decided_by_hand=self._desk.decided,
        )

    def _open_shop(
        self, rest: RestClient, webhooks: WebhookReceiver, payer: aiohttp.ClientSession
    ) -> Shop:
        accounts = self._operator.stub(AccountServiceStub, "account")
        url = f"{self._deployment.sandbox_url}/payer/alipay/pay"

        async def advance(day: date) -> None:
            request = AdvanceBusinessDateRequest(business_date=str(day))
            await persist(lambda: accounts.AdvanceBusinessDate(request, timeout=5.0))

        async def scan(content: str) -> bool:
            body = {"qr_code": content, "outcome": "pay"}
            try:
                async with payer.post(url, json=body, timeout=_SCAN_TIMEOUT) as response:
                    # A code that was paid or closed meanwhile is refused: it has been read.
                    return response.status in (200, 409)
            except (aiohttp.ClientError, TimeoutError):
                return False

        def card_number(serial: int, good: bool) -> str:
            behaviour = CardBehaviour.APPROVE if good else CardBehaviour.INSUFFICIENT_FUNDS
            return test_card(behaviour, serial)

        api = MerchantApi(rest.exchange, UNDER_FIRE if self._is_under_fire else QUIET)
        return Shop(api, webhooks, scan, advance, card_number)


async def register_merchant(operator: Operator) -> tuple[str, RequestSigner]:
    """Register the shop as a merchant, with a key of its own making."""
    members = operator.stub(MemberServiceStub, "member")
    answer = await members.RegisterMerchant(
        RegisterMerchantRequest(
            request_id="demo-merchant",
            merchant_no="cdnow",
            name="CDNOW",
            currency_codes=[CURRENCY],
        )
    )
    private_key, public_key = generate_key()
    key = await members.AddMerchantKey(
        AddMerchantKeyRequest(
            request_id="demo-key",
            merchant_id=answer.merchant.id,
            public_key=public_key,
            mode="LIVE",
        )
    )
    return answer.merchant.id, RequestSigner(key.key.id, private_key)


async def _register_customers(
    shop: Shop, plan: Sequence[PlannedPurchase], console: Console
) -> None:
    needs_card = {p.purchase.customer for p in plan if p.way == "quick_pay"}
    needs_bad = {p.purchase.customer for p in plan if p.declined_first}
    customers = sorted({p.purchase.customer for p in plan})
    gate = asyncio.Semaphore(IN_FLIGHT_MAX)
    with meter(console, "customers", len(customers)) as progress:

        async def register(serial: int, customer: str) -> None:
            async with gate:
                await shop.register_customer(
                    serial,
                    customer,
                    needs_card=customer in needs_card,
                    needs_bad_card=customer in needs_bad,
                )
            progress.advance()

        async with asyncio.TaskGroup() as group:
            for serial, customer in enumerate(customers):
                group.create_task(register(serial, customer))


async def _print_sample(operator: Operator, shop: Shop, rest: RestClient, console: Console) -> None:
    """Show the time line of one order: declined first, paid another way, refunded."""
    order_id = shop.tally.sample_order_id
    if not order_id:
        return
    status, answer = await rest.send("GET", f"/v1/orders/{order_id}", None, "")
    if status == 200:
        story = answer["order"]["biz_trace_id"]
        print_story(story, await tell_story(operator, story), console)
