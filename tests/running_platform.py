"""A running platform with a merchant's program in front of it, for system tests."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from paymesh.edge import RequestSigner

from services.cli.demo.rest import RestClient
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import Deployment
from services.cli.operator import Operator
from services.sandbox.cards import CardBehaviour, test_card

Json = dict[str, Any]


@dataclass
class Platform:
    """A running platform, and a merchant's program in front of it."""

    deployment: Deployment
    operator: Operator
    merchant_id: str
    signer: RequestSigner
    rest: RestClient
    session: aiohttp.ClientSession
    webhooks: WebhookReceiver
    serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def post(self, path: str, body: Json, key: str | None = None) -> Json:
        """Send a request that has to be accepted."""
        status, answer = await self.rest.send(
            "POST", path, body, key or f"test-key-{next(self.serial)}"
        )
        assert status < 400, (path, status, answer)
        return answer

    async def get(self, path: str) -> Json:
        """Read something that has to be there."""
        status, answer = await self.rest.send("GET", path, None, "")
        assert status == 200, (path, status, answer)
        return answer

    async def new_user(self) -> str:
        """Register a user with a wallet in USD."""
        body = {"merchant_user_no": f"user-{next(self.serial)}", "currency_codes": ["USD"]}
        return str((await self.post("/v1/users", body))["user"]["id"])

    async def new_card(self, user_id: str, behaviour: CardBehaviour = CardBehaviour.APPROVE) -> str:
        """Bind a test card to a user."""
        body = {
            "card_number": test_card(behaviour, next(self.serial)),
            "holder_name": "TEST HOLDER",
        }
        return str((await self.post(f"/v1/users/{user_id}/cards", body))["card"]["id"])

    async def new_order(self, amount_minor: int, user_id: str = "", **fields: Any) -> Json:
        """Make an order in USD."""
        body = {
            "merchant_order_no": f"order-{next(self.serial)}",
            "amount": {"currency_code": "USD", "amount_minor": amount_minor},
            "user_id": user_id,
            **fields,
        }
        return dict((await self.post("/v1/orders", body))["order"])

    async def pay(self, order: Json, product: str, **fields: Any) -> Json:
        """Pay an order; scan the code when the product shows one. Returns the payment."""
        body = {"product": product, **fields}
        payment = (await self.post(f"/v1/orders/{order['id']}/payments", body))["payment"]
        if payment["state"] == "REQUIRES_ACTION":
            await self.scan(payment)
        return dict(payment)

    async def scan(self, payment: Json, outcome: str = "pay") -> None:
        """Play the person who scans the code."""
        body = {"qr_code": payment["next_action"]["show_qr"]["content"], "outcome": outcome}
        url = f"{self.deployment.sandbox_url}/payer/alipay/pay"
        async with self.session.post(url, json=body) as response:
            assert response.status == 200, await response.text()

    async def recharge(self, user_id: str, amount_minor: int) -> None:
        """Fill a user's wallet through the sandbox."""
        order = await self.new_order(amount_minor, user_id, type="recharge")
        await self.pay(order, "qr_pay")
        await self.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")

    async def until(self, path: str, noun: str, state: str, seconds: float = 30) -> Json:
        """Ask until a noun has reached a state."""
        found: Json = {}
        try:
            async with asyncio.timeout(seconds):
                while found.get("state") != state:
                    found = (await self.get(path))[noun]
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{path} is {found.get('state')}, not {state}")
        return found

    async def balance(self, owner_id: str) -> dict[str, int]:
        """Read what an owner has available, by kind of account."""
        answer = await self.get(f"/v1/balances/{owner_id}")
        return {one["kind"]: int(one["available"]["amount_minor"]) for one in answer["balances"]}
