"""A platform that is being battered, and shoppers who do not give up.

Every test of this kind does the same: a number of purchases is begun, something is broken while
they are under way, and in the end each has ended, the books balance, nothing is unfinished, and the
outside parties' own ledger says what ours says.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from paymesh.account.v1 import AccountServiceStub, SumAccountsRequest
from paymesh.sandbox.v1 import MOVEMENT_KIND_PAYMENT

from services.cli.audit import audit
from services.cli.demo.rest import RestClient
from services.cli.demo.run import register_merchant
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import Deployment, Plan
from services.cli.facts import list_movements, list_unfinished, wait_until_finished
from services.cli.operator import operate
from tests.running_platform import Json, Platform

WAYS: Final = ("quick_pay", "qr_pay", "balance")
AMOUNT_MINOR: Final = 1_000
# Longer than any lease, breaker or janitor's pause that a broken process leaves behind.
_PATIENCE_SECONDS: Final = 120.0
# A payer who sees nothing to scan for so long pays anew, as people do.
_PAYER_PATIENCE_SECONDS: Final = 15.0
_REPEATABLE: Final = ("SAME_ID", "AFTER_DELAY")
_OVER: Final = ("FAILED", "CLOSED", "RETURNED", "UNCLAIMED")


@dataclass
class Battered:
    """The platform, with a customer whose wallet is full and who has a card."""

    platform: Platform
    user_id: str = ""
    card_id: str = ""
    completed: list[str] = field(default_factory=list)
    """Orders that were seen to be completed."""
    refused_for_good: list[str] = field(default_factory=list)
    """Requests that failed although a careful program would not have expected it, in words."""
    serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def send(
        self, method: str, path: str, body: Json | None, key: str, *, expected: str = ""
    ) -> Json:
        """Send a request, and again under the same key while the answer says that it may help.

        A problem is returned only for the reason that is `expected`.
        """
        status, answer = 0, Json()
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_SECONDS
        while loop.time() < until:
            status, answer = await self.platform.rest.send(method, path, body, key)
            if status < 400 or (expected and answer.get("reason") == expected):
                return answer
            if answer.get("retry") not in _REPEATABLE:
                break
            await asyncio.sleep(0.2)
        words = f"{method} {path}: {status} {answer}"
        self.refused_for_good.append(words)
        raise AssertionError(words)

    async def prepare(self) -> None:
        """Register the customer, bind a card, fill the wallet."""
        self.user_id = await self.platform.new_user()
        self.card_id = await self.platform.new_card(self.user_id)
        await self.platform.recharge(self.user_id, 1_000 * AMOUNT_MINOR)

    async def purchase(self, way: str) -> None:
        """Buy something and stay with it until the order is completed."""
        number = next(self.serial)
        order_no = f"battered-{number}"
        body = {
            "merchant_order_no": order_no,
            "amount": {"currency_code": "USD", "amount_minor": AMOUNT_MINOR},
            "user_id": self.user_id,
        }
        order = (await self.send("POST", "/v1/orders", body, order_no))["order"]
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for attempt in itertools.count(1):
                if await self._try_to_pay(order["id"], way, f"{order_no}-{attempt}"):
                    break
        self.completed.append(order["id"])

    async def _try_to_pay(self, order_id: str, way: str, key: str) -> bool:
        """Pay once; return whether the order is completed, by this payment or another.

        False as well when the payment gets nowhere: another is then tried beside it.
        """
        body = {"product": way, "card_id": self.card_id if way == "quick_pay" else ""}
        path = f"/v1/orders/{order_id}/payments"
        answer = await self.send("POST", path, body, key, expected="ORDER_NOT_PAYABLE")
        if "payment" not in answer:
            # An earlier attempt has got there meanwhile.
            return await self._is_completed(order_id)
        payment = answer["payment"]
        loop = asyncio.get_running_loop()
        until = loop.time() + _PAYER_PATIENCE_SECONDS
        while loop.time() < until:
            if payment["state"] in _OVER:
                return False
            if "show_qr" in payment.get("next_action", {}):
                await self._scan(payment["next_action"]["show_qr"]["content"])
            if await self._is_completed(order_id):
                return True
            path = f"/v1/payments/{payment['id']}"
            payment = (await self.send("GET", path, None, ""))["payment"]
        return False

    async def _is_completed(self, order_id: str) -> bool:
        """Look at an order; leave it a moment when it is not completed."""
        order = (await self.send("GET", f"/v1/orders/{order_id}", None, ""))["order"]
        if order["state"] == "COMPLETED":
            return True
        await asyncio.sleep(0.2)
        return False

    async def _scan(self, content: str) -> None:
        """Play the payer; a code that is paid already, or a party that is away, is no matter."""
        url = f"{self.platform.deployment.sandbox_url}/payer/alipay/pay"
        body = {"qr_code": content, "outcome": "pay"}
        try:
            async with self.platform.session.post(url, json=body) as response:
                assert response.status in (200, 409), await response.text()
        except aiohttp.ClientError:
            return

    async def shop_while(
        self, trouble: Callable[[], Awaitable[None]], *, purchases: int = 24, before: int = 6
    ) -> None:
        """Buy, and let the trouble begin once a few purchases have been completed."""
        done = len(self.completed)
        # A few at a time: more would only wait for each other on a small machine.
        room = asyncio.Semaphore(8)

        async def buy(number: int) -> None:
            async with room:
                await self.purchase(WAYS[number % len(WAYS)])

        async with asyncio.TaskGroup() as group:
            for number in range(purchases):
                group.create_task(buy(number))
            while len(self.completed) < done + before:  # noqa: ASYNC110 - a list tells nobody
                await asyncio.sleep(0.01)
            await trouble()
        assert len(self.completed) == done + purchases

    async def check(self) -> None:
        """Everything has ended, balances, agrees with the outside, and the shop has heard of it."""
        operator = self.platform.operator
        finished = await wait_until_finished(operator, _PATIENCE_SECONDS)
        unfinished = await list_unfinished(operator)
        assert finished, unfinished
        findings = await audit(operator)
        assert findings.off == []
        assert await self._sandbox_difference() == 0
        for order_id in self.completed:
            assert await self.platform.webhooks.wait_for("order.completed", order_id, 30.0), (
                order_id
            )

    async def _sandbox_difference(self) -> int:
        operator = self.platform.operator
        theirs = sum(
            one.money.amount_minor * (1 if one.kind == MOVEMENT_KIND_PAYMENT else -1)
            for one in await list_movements(operator)
        )
        stub = operator.stub(AccountServiceStub, "account")
        balance = await stub.SumAccounts(SumAccountsRequest())
        ours = sum(
            line.debits_posted_minor - line.credits_posted_minor
            for line in balance.totals
            if line.kind == "channel_receivable"
        )
        return int(theirs - ours)

    async def wait_serving(self) -> None:
        """Wait until every process does its work again."""
        supervisor = self.platform.deployment.supervisor
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for name in self.platform.deployment.topology.processes:
                await supervisor.wait_ready(name)


@asynccontextmanager
async def battering(instance: str, **settings: str) -> AsyncIterator[Battered]:
    """Run a platform on servers of its own, which may be killed."""
    plan = Plan(
        instance=instance,
        fresh_database=True,
        private_servers=True,
        settings={
            "PAYMESH_NOTIFY_PRIVATE_ADDRESSES_ALLOWED": "true",
            "PAYMESH_NOTIFY_ATTEMPT_TIMEOUT_SECONDS": "3",
            "PAYMESH_NOTIFY_LEASE_SECONDS": "6",
            "PAYMESH_PAYMENT_JANITOR_FIRST_SECONDS": "1",
            "PAYMESH_PAYMENT_REQUEST_LIFE_SECONDS": "20",
            "PAYMESH_LOG_LEVEL": "WARNING",
            **settings,
        },
    )
    webhooks = WebhookReceiver()
    async with Deployment(plan) as deployment, operate(deployment.environment) as operator:
        merchant_id, signer = await register_merchant(operator)
        rest = RestClient(deployment.edge_url, signer, 64)
        await webhooks.start()
        try:
            async with aiohttp.ClientSession() as session:
                platform = Platform(
                    deployment, operator, merchant_id, signer, rest, session, webhooks
                )
                endpoint: dict[str, Any] = await platform.post(
                    "/v1/webhook_endpoints", {"url": webhooks.url}
                )
                webhooks.trust(endpoint["secret"])
                battered = Battered(platform)
                await battered.prepare()
                yield battered
        finally:
            await rest.close()
            await webhooks.stop()
