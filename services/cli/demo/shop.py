"""The shop's own program: registers its customers, and takes every purchase to its end.

It knows nothing of the platform but its REST interface and its webhooks, and signs each request
with its own key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Protocol

from services.cli.demo.plan import PlannedPurchase
from services.cli.demo.purchases import CURRENCY
from services.cli.demo.webhooks import WebhookReceiver

IN_FLIGHT_MAX: Final = 128
"""Requests of the shop that are under way at a time."""

FLOWS_MAX: Final = 400
"""Purchases that are under way at a time, most of them waiting for a callback or a webhook."""

_WEBHOOK_PATIENCE_SECONDS: Final = 5.0
"""After this long without a webhook the shop asks, as any program should."""
_ASK_EVERY_SECONDS: Final = 2.0
_END_PATIENCE_SECONDS: Final = 120.0
_TRIES_MAX: Final = 6


class Rest(Protocol):
    """A signed request to the platform; answers the status and the JSON body."""

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None, idempotency_key: str
    ) -> tuple[int, dict[str, Any]]:
        """Send it."""
        ...


Payer = Callable[[str], Awaitable[None]]
"""The person who scans a QR code and pays."""


class ShopError(Exception):
    """The platform answered something that the shop's program cannot go on from."""


@dataclass
class Tally:
    """What the shop itself knows of its business; the report is checked against it."""

    orders: int = 0
    recharges: int = 0
    recharged_minor: int = 0
    paid_minor: int = 0
    refunds: int = 0
    refunded_minor: int = 0
    declined: int = 0
    by_product: Counter[str] = field(default_factory=Counter)
    payments: int = 0
    """Payments that succeeded, recharges among them."""
    expected: Counter[str] = field(default_factory=Counter)
    """Webhooks by type that must come."""
    failures: list[str] = field(default_factory=list)
    """Purchases that did not go as planned, in words."""
    sample_order_id: str = ""
    """A refunded order that was declined first: the longest story there is."""


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
        rest: Rest,
        webhooks: WebhookReceiver,
        scan: Payer,
        advance_date: Callable[[date], Awaitable[None]],
        card_number: Callable[[int, bool], str],
    ) -> None:
        self._rest = rest
        self._webhooks = webhooks
        self._scan = scan
        self._advance_date = advance_date
        self._card_number = card_number
        self._gate = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._customers: dict[str, Customer] = {}
        self._recharged: dict[str, asyncio.Task[None]] = {}
        self.tally = Tally()

    async def register_webhooks(self) -> None:
        """Tell the platform where the shop's webhooks go."""
        body = {"url": self._webhooks.url}
        answer = await self._post("/v1/webhook_endpoints", body, "webhook-endpoint")
        self._webhooks.trust(answer["secret"])

    async def register_customer(
        self, serial: int, customer: str, *, needs_card: bool, needs_bad_card: bool
    ) -> None:
        """Register a customer as a user, with the cards that its purchases will need."""
        body = {"merchant_user_no": customer, "currency_codes": [CURRENCY]}
        user = (await self._post("/v1/users", body, f"user-{customer}"))["user"]
        good = await self._bind(user["id"], serial, customer, good=True) if needs_card else ""
        bad = await self._bind(user["id"], serial, customer, good=False) if needs_bad_card else ""
        self._customers[customer] = Customer(user["id"], good, bad)

    async def _bind(self, user_id: str, serial: int, customer: str, *, good: bool) -> str:
        body = {
            "card_number": self._card_number(serial, good),
            "holder_name": f"CUSTOMER {customer}",
        }
        key = f"card-{customer}-{'good' if good else 'bad'}"
        answer = await self._post(f"/v1/users/{user_id}/cards", body, key)
        return str(answer["card"]["id"])

    async def replay(
        self,
        plan: list[PlannedPurchase],
        recharges: Mapping[str, int],
        done: Callable[[], None],
    ) -> None:
        """Take all purchases to their ends, begun in the order of the plan."""
        flows: set[asyncio.Task[None]] = set()
        room = asyncio.Semaphore(FLOWS_MAX)
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
            for planned in plan:
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
        order = await self._create_order(
            planned.order_no, customer, planned.purchase.amount_minor, "purchase"
        )
        self.tally.orders += 1
        self.tally.expected["order.completed"] += 1
        if planned.way:
            if planned.declined_first:
                await self._be_declined(planned, order, customer)
            await self._pay(planned.order_no, order, customer, planned.way)
            self.tally.paid_minor += planned.purchase.amount_minor
            self.tally.by_product[planned.way] += 1
        await self._wait_completed(order["id"])
        if planned.refund_minor:
            await self._refund(planned, order)

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
        self.tally.expected["order.completed"] += 1
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
        answer = await self._post("/v1/orders", body, f"order-{order_no}")
        return dict(answer["order"])

    async def _be_declined(
        self, planned: PlannedPurchase, order: dict[str, Any], customer: Customer
    ) -> None:
        body = {"product": "quick_pay", "card_id": customer.bad_card_id}
        key = f"declined-{planned.order_no}"
        answer = await self._post(f"/v1/orders/{order['id']}/payments", body, key)
        payment = await self._settle_state(answer["payment"], ("FAILED", "SUCCEEDED"))
        if payment["state"] != "FAILED":
            raise ShopError(f"the bad card was not declined: {payment['state']}")
        self.tally.declined += 1
        self.tally.expected["payment.failed"] += 1
        if planned.refund_minor and not self.tally.sample_order_id:
            self.tally.sample_order_id = order["id"]

    async def _pay(
        self, order_no: str, order: dict[str, Any], customer: Customer, way: str
    ) -> None:
        body: dict[str, Any] = {"product": way}
        if way == "quick_pay":
            body["card_id"] = customer.good_card_id
        answer = await self._post(f"/v1/orders/{order['id']}/payments", body, f"pay-{order_no}")
        payment = answer["payment"]
        if payment["state"] == "REQUIRES_ACTION" and "show_qr" in payment.get("next_action", {}):
            await self._scan(payment["next_action"]["show_qr"]["content"])
        elif payment["state"] == "FAILED":
            raise ShopError(f"payment by {way} failed: {payment.get('failure')}")
        self.tally.payments += 1

    async def _settle_state(
        self, payment: dict[str, Any], wanted: tuple[str, ...]
    ) -> dict[str, Any]:
        """Ask about a payment until it is in one of some states."""
        async with asyncio.timeout(_END_PATIENCE_SECONDS):
            while payment["state"] not in wanted:
                await asyncio.sleep(_ASK_EVERY_SECONDS)
                payment = (await self._get(f"/v1/payments/{payment['id']}"))["payment"]
        return payment

    async def _wait_completed(self, order_id: str) -> None:
        await self._wait_for("order.completed", order_id, f"/v1/orders/{order_id}", "order")

    async def _refund(self, planned: PlannedPurchase, order: dict[str, Any]) -> None:
        body = {
            "order_id": order["id"],
            "merchant_refund_no": f"back-{planned.order_no}",
            "amount": {"currency_code": CURRENCY, "amount_minor": planned.refund_minor},
            "reason": "sent back",
        }
        answer = await self._post("/v1/refunds", body, f"refund-{planned.order_no}")
        refund = answer["refund"]
        self.tally.expected["refund.completed"] += 1
        await self._wait_for(
            "refund.completed", refund["id"], f"/v1/refunds/{refund['id']}", "refund"
        )
        self.tally.refunds += 1
        self.tally.refunded_minor += planned.refund_minor

    async def _wait_for(self, kind: str, noun_id: str, path: str, noun: str) -> None:
        """Wait for a webhook; without one for long, ask whether the noun is completed."""
        patience = _WEBHOOK_PATIENCE_SECONDS
        state = ""
        for _ in range(int(_END_PATIENCE_SECONDS / _ASK_EVERY_SECONDS)):
            if await self._webhooks.wait_for(kind, noun_id, patience):
                return
            state = (await self._get(path))[noun]["state"]
            if state == "COMPLETED":
                return
            if state in ("FAILED", "CLOSED"):
                break
            patience = _ASK_EVERY_SECONDS
        raise ShopError(f"{noun} {noun_id} is {state or 'unknown'}, not completed")

    async def _post(self, path: str, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        return await self._send("POST", path, body, hashlib.sha256(key.encode()).hexdigest()[:40])

    async def _get(self, path: str) -> dict[str, Any]:
        return await self._send("GET", path, None, "")

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, key: str
    ) -> dict[str, Any]:
        """Send a request; what may be repeated is repeated under the same key."""
        status = 0
        answer: dict[str, Any] = {}
        for attempt in range(_TRIES_MAX):
            if attempt:
                await asyncio.sleep(0.2 * 2**attempt)
            async with self._gate:
                status, answer = await self._rest(method, path, body, key)
            if status < 400:
                return answer
            if answer.get("retry") not in ("SAME_ID", "AFTER_DELAY"):
                break
        raise ShopError(f"{method} {path}: {status} {answer.get('reason')} {answer.get('detail')}")
