"""`paymesh demo`: boots everything, replays the purchases, proves the books."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from time import monotonic
from typing import Final

import aiohttp
from paymesh.account.v1 import AccountServiceStub, AdvanceBusinessDateRequest
from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import (
    AddMerchantKeyRequest,
    MemberServiceStub,
    RegisterMerchantRequest,
)
from rich.console import Console

from services.cli.audit import audit, show
from services.cli.demo.plan import PlannedPurchase, plan_purchases, recharges_of
from services.cli.demo.progress import meter
from services.cli.demo.purchases import CURRENCY, Purchase, read_purchases
from services.cli.demo.report import make_report, print_report, write_report
from services.cli.demo.rest import RestClient
from services.cli.demo.shop import IN_FLIGHT_MAX, Shop
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import ROOT, TOPOLOGY_DEFAULT, Deployment, Plan
from services.cli.facts import tell_story, wait_until_finished
from services.cli.operator import Operator, operate
from services.cli.trace import print_story
from services.sandbox.cards import CardBehaviour, test_card

INPUT_DEFAULT: Final = ROOT / "data" / "cdnow_sample.txt"
REPORT_FILE: Final = ROOT / "build" / "demo-report.json"

# Webhooks and events that are still on their way when the last purchase has ended.
_SETTLE_SECONDS: Final = 60.0

_SETTINGS: Final = {
    # The shop's webhook server and the sandbox are on this machine's loopback.
    "PAYMESH_NOTIFY_PRIVATE_ADDRESSES_ALLOWED": "true",
    "PAYMESH_ACCOUNT_BUSINESS_DATE_FIRST": "1997-01-01",
    "PAYMESH_LOG_LEVEL": "WARNING",
}


async def run_demo(
    input_file: Path | None, limit: int | None, topology: Path | None, console: Console
) -> int:
    """Run the demo; return the exit status: 0 when everything holds."""
    begun_at = monotonic()
    purchases, refused = _read(input_file or INPUT_DEFAULT, limit, console)
    plan = Plan(
        instance="demo",
        topology=topology or TOPOLOGY_DEFAULT,
        fresh_database=True,
        settings=_SETTINGS,
        say=lambda words: console.print(f"  {words}"),
    )
    console.print(f"paymesh demo: {len(purchases):,} purchases")
    async with Deployment(plan) as deployment, operate(deployment.environment) as operator:
        console.print(f"  everything serves after {monotonic() - begun_at:.1f} s")
        status = await _replay(deployment, operator, purchases, console)
    if refused:
        console.print(f"{refused} lines of the input could not be read (see above)")
    return status


def _read(file: Path, limit: int | None, console: Console) -> tuple[list[Purchase], int]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        purchases, unreadable = read_purchases(lines, limit)
    for one in unreadable:
        console.print(f"  line {one.line} cannot be read: {one.reason}", highlight=False)
    return purchases, len(unreadable)


async def _replay(
    deployment: Deployment, operator: Operator, purchases: Sequence[Purchase], console: Console
) -> int:
    webhooks = WebhookReceiver()
    await webhooks.start()
    merchant_id, signer = await register_merchant(operator)
    rest = RestClient(deployment.edge_url, signer, IN_FLIGHT_MAX)
    payer = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT_MAX))
    try:
        shop = _open_shop(deployment, operator, rest, webhooks, payer)
        await shop.register_webhooks()
        plan = plan_purchases(purchases)
        await _register_customers(shop, plan, console)
        begun_at = monotonic()
        with meter(console, "purchases", len(plan)) as progress:
            await shop.replay(plan, recharges_of(plan), progress.advance)
        seconds = monotonic() - begun_at
        await _settle(operator, shop, webhooks)
        findings = await audit(operator)
        report = await make_report(
            operator,
            shop.tally,
            merchant_id,
            webhooks.unique.total(),
            sum(purchase.amount_minor for purchase in purchases),
            shop.tally.payments / seconds if seconds else 0.0,
            findings,
        )
        write_report(report, REPORT_FILE)
        await _print_sample(operator, shop, rest, console)
        print_report(report, webhooks.unique, console)
        show(findings, console)
    finally:
        await rest.close()
        await payer.close()
        await webhooks.stop()
    for problem in report.problems[:20]:
        console.print(f"  wrong: {problem}", highlight=False)
    console.print("demo: all holds" if not report.problems else "demo: FAILED")
    return 1 if report.problems else 0


def _open_shop(
    deployment: Deployment,
    operator: Operator,
    rest: RestClient,
    webhooks: WebhookReceiver,
    payer: aiohttp.ClientSession,
) -> Shop:
    accounts = operator.stub(AccountServiceStub, "account")

    async def advance(day: date) -> None:
        await accounts.AdvanceBusinessDate(AdvanceBusinessDateRequest(business_date=str(day)))

    async def scan(content: str) -> None:
        body = {"qr_code": content, "outcome": "pay"}
        url = f"{deployment.sandbox_url}/payer/alipay/pay"
        async with payer.post(url, json=body) as response:
            response.raise_for_status()

    def card_number(serial: int, good: bool) -> str:
        behaviour = CardBehaviour.APPROVE if good else CardBehaviour.INSUFFICIENT_FUNDS
        return test_card(behaviour, serial)

    return Shop(rest.send, webhooks, scan, advance, card_number)


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


async def _settle(operator: Operator, shop: Shop, webhooks: WebhookReceiver) -> None:
    """Wait until the last events, webhooks and jobs have ended; what has not is reported."""
    await webhooks.wait_for_total(shop.tally.expected.total(), _SETTLE_SECONDS)
    await wait_until_finished(operator, _SETTLE_SECONDS)


async def _print_sample(operator: Operator, shop: Shop, rest: RestClient, console: Console) -> None:
    """Show the time line of one order: declined first, paid another way, refunded."""
    order_id = shop.tally.sample_order_id
    if not order_id:
        return
    status, answer = await rest.send("GET", f"/v1/orders/{order_id}", None, "")
    if status == 200:
        story = answer["order"]["biz_trace_id"]
        print_story(story, await tell_story(operator, story), console)
