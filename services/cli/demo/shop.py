"""The shop's own program: registers its customers, and takes every purchase to its end.

It knows nothing of the platform but its REST interface and its webhooks, and signs each request
with its own key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from services.cli.demo.merchant_api import MerchantApi, ShopError
from services.cli.demo.paying import WEBHOOK_PATIENCE_SECONDS, Paying, Scan
from services.cli.demo.plan import PlannedPurchase
from services.cli.demo.purchases import CURRENCY
from services.cli.demo.refunding import Refunding
from services.cli.demo.tally import Tally
from services.cli.demo.webhooks import WebhookReceiver

FLOWS_MAX: Final = 400
"""Purchases that are under way at a time, most of them waiting for a callback or a webhook."""

_ASK_EVERY_SECONDS: Final = 2.0

Reach = Callable[[int], Awaitable[None]]
"""Told before the shop begins a purchase, counted from 1; it begins when this returns."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as the platform knows it."""

    user_id: str
    good_card_id: str
    bad_card_id: str


class Shop:
    """The shop's program, over one REST connection."""

    def __init__(
        self,
        api: MerchantApi,
        webhooks: WebhookReceiver,
        scan: Scan,
        advance_date: Callable[[date], Awaitable[None]],
        card_number: Callable[[int, bool], str],
    ) -> None:
        self._api = api
        self._webhooks = webhooks
        self._advance_date = advance_date
        self._card_number = card_number
        self._customers: dict[str, Customer] = {}
        self._recharged: dict[str, asyncio.Task[None]] = {}
        self.tally = Tally()
        self.pays_twice: Callable[[PlannedPurchase], bool] = lambda _: False
        """Which customers pay by two codes at once; the money of one of them has to come back."""
        self._paying = Paying(api, webhooks, scan, self.tally)
        self._refunding = Refunding(api, webhooks, self.tally)

    async def register_webhooks(self) -> None:
        """Tell the platform where the shop's webhooks go."""
        body = {"url": self._webhooks.url}
        answer = await self._api.post("/v1/webhook_endpoints", body, "webhook-endpoint")
        self._webhooks.trust(answer["secret"])

    async def register_customer(
        self, serial: int, customer: str, *, needs_card: bool, needs_bad_card: bool
    ) -> None:
        """Register a customer as a user, with the cards that its purchases will need."""
        body = {"merchant_user_no": customer, "currency_codes": [CURRENCY]}
        user = (await self._api.post("/v1/users", body, f"user-{customer}"))["user"]
        good = await self._bind(user["id"], serial, customer, good=True) if needs_card else ""
        bad = await self._bind(user["id"], serial, customer, good=False) if needs_bad_card else ""
        self._customers[customer] = Customer(user["id"], good, bad)

    async def _bind(self, user_id: str, serial: int, customer: str, *, good: bool) -> str:
        body = {
            "card_number": self._card_number(serial, good),
            "holder_name": f"CUSTOMER {customer}",
        }
        key = f"card-{customer}-{'good' if good else 'bad'}"
        answer = await self._api.post(f"/v1/users/{user_id}/cards", body, key)
        return str(answer["card"]["id"])

    async def replay(
        self,
        plan: list[PlannedPurchase],
        recharges: Mapping[str, int],
        done: Callable[[], None],
        reach: Reach,
        flows_max: int = FLOWS_MAX,
    ) -> None:
        """Take all purchases to their ends, begun in the order of the plan."""
        flows: set[asyncio.Task[None]] = set()
        room = asyncio.Semaphore(flows_max)
        day: date | None = None

        async def run(planned: PlannedPurchase) -> None:
            try:
                await self._purchase(planned, recharges)
            except ShopError as error:
                self.tally.failures.append(f"line {planned.purchase.line}: {error}")
            finally:
                room.release()
                done()

        try:
            for place, planned in enumerate(plan, start=1):
                await reach(place)
                if planned.purchase.bought_on != day:
                    day = planned.purchase.bought_on
                    await self._advance_date(day)
                await room.acquire()
                flow = asyncio.create_task(run(planned))
                flows.add(flow)
                flow.add_done_callback(flows.discard)
            while flows:
                await asyncio.gather(*tuple(flows))
        finally:  # interrupted: nobody waits for the rest
            begun = [*flows, *self._recharged.values()]
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    async def _purchase(self, planned: PlannedPurchase, recharges: Mapping[str, int]) -> None:
        customer = self._customers[planned.purchase.customer]
        if planned.way == "balance":
            await self._recharge_once(planned.purchase.customer, recharges)
        order_no = planned.order_no
        order = await self._create_order(
            order_no, customer, planned.purchase.amount_minor, "purchase"
        )
        self.tally.orders += 1
        self.tally.expect("order.completed", order["id"])
        if planned.way:
            if planned.declined_first:
                await self._be_declined(planned, order, customer)
            windows = [self._pay(order_no, order, customer, planned.way)]
            if planned.way == "qr_pay" and self.pays_twice(planned):
                body = {"product": "qr_pay"}
                windows.append(self._paying.pay_beside(order, body, f"twin-{order_no}"))
            await asyncio.gather(*windows)
        await self._wait_completed(order["id"])
        if planned.way:
            self.tally.paid_minor += planned.purchase.amount_minor
            self.tally.by_product[planned.way] += 1
        if planned.refund_minor:
            await self._refunding.refund(order, order_no, planned.refund_minor)

    async def _recharge_once(self, name: str, recharges: Mapping[str, int]) -> None:
        """Let the customer's first balance purchase fill the wallet, and the others wait for it."""
        task = self._recharged.get(name)
        if task is None:
            task = asyncio.create_task(self._recharge(name, recharges[name]))
            self._recharged[name] = task
        await asyncio.shield(task)

    async def _recharge(self, name: str, amount_minor: int) -> None:
        customer = self._customers[name]
        order_no = f"recharge-{name}"
        order = await self._create_order(order_no, customer, amount_minor, "recharge")
        self.tally.expect("order.completed", order["id"])
        await self._pay(order_no, order, customer, "qr_pay")
        await self._wait_completed(order["id"])
        self.tally.recharges += 1
        self.tally.recharged_minor += amount_minor

    async def _create_order(
        self, order_no: str, customer: Customer, amount_minor: int, kind: str
    ) -> dict[str, Any]:
        body = {
            "merchant_order_no": order_no,
            "type": kind,
            "amount": {"currency_code": CURRENCY, "amount_minor": amount_minor},
            "user_id": customer.user_id,
            "subject": "compact discs" if kind == "purchase" else "wallet",
        }
        answer = await self._api.post("/v1/orders", body, f"order-{order_no}")
        return dict(answer["order"])

    async def _be_declined(
        self, planned: PlannedPurchase, order: dict[str, Any], customer: Customer
    ) -> None:
        body = {"product": "quick_pay", "card_id": customer.bad_card_id}
        await self._paying.be_declined(order, body, f"declined-{planned.order_no}")
        self.tally.declined += 1
        if planned.refund_minor and not self.tally.sample_order_id:
            self.tally.sample_order_id = order["id"]

    async def _pay(
        self, order_no: str, order: dict[str, Any], customer: Customer, way: str
    ) -> None:
        body: dict[str, Any] = {"product": way}
        if way == "quick_pay":
            body["card_id"] = customer.good_card_id
        await self._paying.pay(order, body, f"pay-{order_no}")

    async def _wait_completed(self, order_id: str) -> None:
        """Wait for the webhook; without one for long, ask whether the order is completed."""
        pause = WEBHOOK_PATIENCE_SECONDS
        state = ""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._api.patience.end_seconds
        while loop.time() < until:
            if await self._webhooks.wait_for("order.completed", order_id, pause):
                return
            state = (await self._api.get(f"/v1/orders/{order_id}"))["order"]["state"]
            if state == "COMPLETED":
                return
            if state == "CLOSED":
                break
            pause = _ASK_EVERY_SECONDS
        raise ShopError(f"order {order_id} is {state or 'unknown'}, not completed")
