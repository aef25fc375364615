"""One replay of purchases on a running platform, under fire or not, and the proof of its books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from time import monotonic
from typing import Final

import aiohttp
from paymesh.account.v1 import CutDayRequest, GeneralLedgerServiceStub
from paymesh.edge import RequestSigner
from rich.console import Console

from services.cli.audit import audit, show
from services.cli.demo.closing import close_last_day
from services.cli.demo.desk import Desk
from services.cli.demo.faults import SERVERS, FaultPlan, What, pays_twice
from services.cli.demo.merchant_api import (
    IN_FLIGHT_MAX,
    QUIET,
    UNDER_FIRE,
    MerchantApi,
)
from services.cli.demo.persistence import persist
from services.cli.demo.plan import PlannedPurchase, plan_purchases, recharges_of
from services.cli.demo.progress import Meter, meter
from services.cli.demo.purchases import Purchase
from services.cli.demo.report import (
    Report,
    Trouble,
    make_report,
    print_report,
    words_of,
)
from services.cli.demo.rest import RestClient
from services.cli.demo.saboteur import NotRecoveredError, Saboteur
from services.cli.demo.shop import FLOWS_MAX, Shop
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import Deployment
from services.cli.facts import list_unfinished, tell_story, wait_until_finished
from services.cli.operator import Operator
from services.cli.sources import SERVICES
from services.cli.trace import print_story
from services.sandbox.cards import CardBehaviour, test_card

# Webhooks and events that are still on their way when the last purchase has ended; under fire,
# also what the channels refuse to give back and what waits for a deadline at the desk.
_SETTLE_SECONDS: Final = 60.0
_SETTLE_UNDER_FIRE_SECONDS: Final = 180.0
_LOOKS_SECONDS: Final = 5.0
_SAY_EVERY_SECONDS: Final = 10.0

# Few enough that purchases are begun all through the run, many enough that each incident meets
# some in every state, and that those which wait to be found out do not hold up the others.
_FLOWS_UNDER_FIRE_MIN: Final = 64
_FLOWS_UNDER_FIRE_MAX: Final = 256
_FLOWS_SHARE: Final = 20

_SCAN_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)


class Replay:
    """One replay of purchases on a running platform, and the proof of its books."""

    def __init__(
        self,
        deployment: Deployment,
        operator: Operator,
        faults: FaultPlan,
        console: Console,
        *,
        is_under_fire: bool,
    ) -> None:
        self._deployment = deployment
        self._operator = operator
        self._is_under_fire = is_under_fire
        self._console = console
        self._meter: Meter | None = None
        self._saboteur = Saboteur(deployment, operator, faults, self._say_fault)
        self._seed = faults.seed
        self._desk = Desk(operator, faults.seed)

    def _say_fault(self, words: str) -> None:
        if self._meter is not None:
            self._meter.note(words)

    async def run(
        self, merchant_id: str, signer: RequestSigner, purchases: Sequence[Purchase]
    ) -> Report:
        """Replay the purchases of a merchant to their ends; print and return the report."""
        webhooks = WebhookReceiver()
        await webhooks.start()
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
            books = await close_last_day(self._operator)
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
                books,
            )
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
                await self._while_alive(self._replay(shop, plan, self._meter))
            return monotonic() - begun_at
        finally:
            await self._saboteur.close()

    async def _replay(self, shop: Shop, plan: list[PlannedPurchase], progress: Meter) -> None:
        await shop.replay(
            plan,
            recharges_of(plan),
            progress.advance,
            self._saboteur.reach,
            self._flows_max(len(plan)),
        )
        await self._saboteur.finish()

    def _flows_max(self, purchases: int) -> int:
        if not self._is_under_fire:
            return FLOWS_MAX
        return min(_FLOWS_UNDER_FIRE_MAX, max(_FLOWS_UNDER_FIRE_MIN, purchases // _FLOWS_SHARE))

    async def _while_alive(self, work: Awaitable[None]) -> None:
        """Do some work; raises NotRecoveredError as soon as a process is not coming back."""
        working = asyncio.ensure_future(work)
        alarms = [
            asyncio.ensure_future(self._deployment.supervisor.wait_failed()),
            asyncio.ensure_future(self._saboteur.wait_failed()),
        ]
        try:
            await asyncio.wait([working, *alarms], return_when=asyncio.FIRST_COMPLETED)
            for alarm in alarms:
                if alarm.done():
                    raise NotRecoveredError(alarm.result())
            await working
        finally:
            for task in (working, *alarms):
                task.cancel()
            await asyncio.gather(working, *alarms, return_exceptions=True)

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
        books = self._operator.stub(GeneralLedgerServiceStub, "account")
        url = f"{self._deployment.sandbox_url}/payer/alipay/pay"

        async def advance(day: date) -> None:
            request = CutDayRequest(next_business_date=str(day), without_waiting=True)
            await persist(lambda: books.CutDay(request, timeout=5.0))

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
        shop = Shop(api, webhooks, scan, advance, card_number)
        if self._is_under_fire:
            shop.pays_twice = lambda planned: pays_twice(self._seed, planned.purchase.line)
        return shop


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
