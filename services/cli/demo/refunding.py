"""How the shop gives money back: it asks again, under a new number, when the channel refuses."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from services.cli.demo.merchant_api import MerchantApi, RefusedError, ShopError
from services.cli.demo.paying import WEBHOOK_PATIENCE_SECONDS
from services.cli.demo.purchases import CURRENCY
from services.cli.demo.tally import Tally
from services.cli.demo.webhooks import WebhookReceiver

Json = dict[str, Any]

_ASK_EVERY_SECONDS: Final = 1.0
_NOT_NOW: Final = frozenset({"ORDER_NOT_REFUNDABLE", "REFUND_EXCEEDS_PAYMENT"})
"""Refusals that a refund which failed just now explains: what it took is given free in a moment."""


class Refunding:
    """Gives money back on completed orders."""

    def __init__(self, api: MerchantApi, webhooks: WebhookReceiver, tally: Tally) -> None:
        self._api = api
        self._webhooks = webhooks
        self._tally = tally

    async def refund(self, order: Json, order_no: str, amount_minor: int) -> None:
        """Give back an amount, in cents. Raises ShopError when it cannot be."""
        reason = ""
        for number in range(1, self._api.patience.refunds_max + 1):
            suffix = "" if number == 1 else f"-{number}"
            refund = await self._begin(order, f"{order_no}{suffix}", amount_minor, number)
            if refund is not None:
                refund = await self._follow(refund)
                if refund["state"] == "COMPLETED":
                    self._tally.refunds += 1
                    self._tally.refunded_minor += amount_minor
                    return
                reason = f"{refund['state']} {refund.get('failure_reason', '')}"
            self._tally.refunds_again += 1
        raise ShopError(f"the refund of order {order['id']} failed: {reason}")

    async def _begin(
        self, order: Json, order_no: str, amount_minor: int, number: int
    ) -> Json | None:
        body = {
            "order_id": order["id"],
            "merchant_refund_no": f"back-{order_no}",
            "amount": {"currency_code": CURRENCY, "amount_minor": amount_minor},
            "reason": "sent back",
        }
        try:
            return dict((await self._api.post("/v1/refunds", body, f"refund-{order_no}"))["refund"])
        except RefusedError as error:
            if number == 1 or error.reason not in _NOT_NOW:
                raise
            await asyncio.sleep(_ASK_EVERY_SECONDS)
            return None

    async def _follow(self, refund: Json) -> Json:
        """Return a refund once it has ended."""
        news = (("refund.completed", refund["id"]), ("refund.failed", refund["id"]))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._api.patience.end_seconds
        pause = WEBHOOK_PATIENCE_SECONDS
        while refund["state"] not in ("COMPLETED", "FAILED"):
            if loop.time() > until:
                raise ShopError(f"refund {refund['id']} is still {refund['state']}")
            if await self._webhooks.wait_for_any(news, pause):
                is_done = news[0] in self._webhooks.heard
                refund = {**refund, "state": "COMPLETED" if is_done else "FAILED"}
                break
            pause = _ASK_EVERY_SECONDS
            refund = (await self._api.get(f"/v1/refunds/{refund['id']}"))["refund"]
        kind = "refund.completed" if refund["state"] == "COMPLETED" else "refund.failed"
        self._tally.expect(kind, refund["id"])
        return refund
