"""How the shop gets an order paid: what it does next in each state of a payment.

The order decides what is paid, never a payment alone: money that came twice, too late or in the
wrong amount goes back by itself, and such a payment pays nothing.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from services.cli.demo.merchant_api import MerchantApi, RefusedError, ShopError
from services.cli.demo.tally import Tally
from services.cli.demo.webhooks import WebhookReceiver

Json = dict[str, Any]

Scan = Callable[[str], Awaitable[bool]]
"""The person who scans a QR code and pays; False when the code could not be read this time."""

WEBHOOK_PATIENCE_SECONDS: Final = 5.0
"""After this long without a webhook the shop asks, as any program should."""
CODE_PATIENCE_SECONDS: Final = 8.0
"""After this long without a code to show the shop makes another payment."""

_ASK_EVERY_SECONDS: Final = 1.0
# Its payer needs a code to be shown.
_CODE_PRODUCT: Final = "qr_pay"
_PAUSE_FIRST_SECONDS: Final = 0.25
_PAUSE_LONGEST_SECONDS: Final = 8.0

# These the shop has brought about itself; repeating changes nothing.
_OWN_MISTAKES: Final = frozenset({400, 401, 403, 404})


class Step(enum.Enum):
    """What the shop does next about a payment."""

    SCAN = "scan"
    """The payer is shown the code."""
    WAIT = "wait"
    """It is not known yet whether it pays: paying again could take the money twice."""
    PAID = "paid"
    """It pays the order."""
    PAY_AGAIN = "pay again"
    """It does not pay the order, whatever became of its money: another one has to."""


_STEPS: Final[Mapping[str, Step]] = {
    "PENDING": Step.WAIT,
    "REQUIRES_ACTION": Step.WAIT,
    "UNKNOWN": Step.WAIT,
    "RECEIVED": Step.WAIT,
    "SUCCEEDED": Step.PAID,
    "FAILED": Step.PAY_AGAIN,
    "CLOSED": Step.PAY_AGAIN,
    "RETURNING": Step.PAY_AGAIN,
    "RETURNED": Step.PAY_AGAIN,
    "CONFLICTED": Step.PAY_AGAIN,
    "UNCLAIMED": Step.PAY_AGAIN,
}


def step_after(payment: Mapping[str, Any], waited_seconds: float = 0.0) -> Step:
    """Return what the shop does about a payment as the platform shows it.

    A state that the shop does not know is newer than its program: it waits. A code that does not
    come was lost on its way from the channel: nobody has seen it, so nobody can pay by it any more.
    """
    if payment["state"] == "REQUIRES_ACTION":
        if code_of(payment):
            return Step.SCAN
        is_code_lost = waited_seconds > CODE_PATIENCE_SECONDS
        if payment.get("product") == _CODE_PRODUCT and is_code_lost:
            return Step.PAY_AGAIN
    return _STEPS.get(payment["state"], Step.WAIT)


def pause_after(attempt: int) -> float:
    """Return the seconds that the shop leaves a payer, and the platform, after an attempt failed.

    Short after the first, which may have been bad luck; growing, since what is away stays away.
    """
    return min(_PAUSE_FIRST_SECONDS * 2.0 ** (attempt - 1), _PAUSE_LONGEST_SECONDS)


def code_of(payment: Mapping[str, Any]) -> str:
    """Return what the QR code of a payment says; empty when there is none to show."""
    return str(payment.get("next_action", {}).get("show_qr", {}).get("content", ""))


class Paying:
    """Pays orders until they are paid."""

    def __init__(
        self, api: MerchantApi, webhooks: WebhookReceiver, scan: Scan, tally: Tally
    ) -> None:
        self._api = api
        self._webhooks = webhooks
        self._scan = scan
        self._tally = tally

    async def pay(self, order: Json, body: Mapping[str, Any], key: str) -> None:
        """Pay an order by one product, again and again until a payment pays it.

        Raises:
            ShopError: no payment did, or the order can no longer be paid.
        """
        reason = ""
        for number in range(1, self._api.patience.payments_max + 1):
            payment = await self._begin(order, body, key if number == 1 else f"{key}-{number}")
            if payment is not None:
                payment = await self._follow(order, payment)
                reason = f"{payment['state']} {payment.get('failure', '')}"
            if await self._is_paid(order, payment):
                self._tally.payments += 1
                return
            self._tally.paid_again += 1
            await asyncio.sleep(pause_after(number))
        raise ShopError(f"order {order['id']} could not be paid by {body['product']}: {reason}")

    async def pay_beside(self, order: Json, body: Mapping[str, Any], key: str) -> None:
        """Pay an order by a code in a second window, and forget about it.

        At most one of an order's payments pays it; what this one brings beside another goes back.
        """
        payment = await self._begin(order, body, key)
        if payment is not None and step_after(payment) is Step.SCAN:
            self._tally.paid_twice += await self._scan(code_of(payment))

    async def be_declined(self, order: Json, body: Mapping[str, Any], key: str) -> None:
        """Pay with what must not pay. Raises ShopError when it did."""
        for number in range(1, self._api.patience.payments_max + 1):
            payment = await self._begin(order, body, key if number == 1 else f"{key}-{number}")
            if payment is None:
                await asyncio.sleep(pause_after(number))
                continue
            payment = await self._follow(order, payment)
            if step_after(payment) is Step.PAID:
                raise ShopError(f"the bad card was not declined: {payment['state']}")
            return
        raise ShopError(f"the bad card of order {order['id']} could not be tried")

    async def _begin(self, order: Json, body: Mapping[str, Any], key: str) -> Json | None:
        """Make a payment; None when the platform takes none now."""
        try:
            answer = await self._api.post(f"/v1/orders/{order['id']}/payments", body, key)
        except RefusedError as error:
            if error.status in _OWN_MISTAKES or self._api.patience.payments_max == 1:
                raise
            return None
        return dict(answer["payment"])

    async def _follow(self, order: Json, payment: Json) -> Json:
        """Return a payment once it pays its order or surely does not."""
        paid, failed = ("order.completed", order["id"]), ("payment.failed", payment["id"])
        news = [paid, failed]
        loop = asyncio.get_running_loop()
        begun_at = loop.time()
        until = begun_at + self._api.patience.end_seconds
        pause = WEBHOOK_PATIENCE_SECONDS
        while True:
            step = step_after(payment, loop.time() - begun_at)
            if step is Step.PAY_AGAIN:
                if payment["state"] in ("FAILED", "CLOSED"):
                    self._tally.expect("payment.failed", payment["id"])
                return payment
            if step is Step.PAID:
                return payment
            if loop.time() > until:
                raise ShopError(f"payment {payment['id']} is still {payment['state']}")
            # A code that was read may be shown again: the party takes its money once.
            if step is Step.SCAN and not await self._scan(code_of(payment)):
                pause = _ASK_EVERY_SECONDS
            await self._webhooks.wait_for_any(news, pause)
            if paid in self._webhooks.heard:
                return {**payment, "state": "SUCCEEDED"}
            if failed in self._webhooks.heard:
                news = [paid]  # what failed may still turn out to have succeeded
            pause = _ASK_EVERY_SECONDS
            payment = (await self._api.get(f"/v1/payments/{payment['id']}"))["payment"]

    async def _is_paid(self, order: Json, payment: Json | None) -> bool:
        """Say whether an order is paid, by this payment or another one."""
        if payment is not None and step_after(payment) is Step.PAID:
            return True
        state = (await self._api.get(f"/v1/orders/{order['id']}"))["order"]["state"]
        if state in ("CLOSING", "CLOSED"):
            raise ShopError(f"order {order['id']} is {state}")
        return state in ("PAID", "COMPLETED")
