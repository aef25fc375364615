"""Which webhooks are owed follows from facts; what the shop's server heard is compared with it."""

from __future__ import annotations

import asyncio

from paymesh.type.v1 import Fact

from services.cli.demo.owed import webhooks_owed
from services.cli.demo.webhooks import WebhookReceiver


def _fact(key: str, **values: str) -> Fact:
    return Fact(key=key, values=values)


def test_every_end_is_owed_and_nothing_else() -> None:
    orders = ("COMPLETED", "CLOSED", "CREATED", "PAID")
    refunds = ("COMPLETED", "FAILED", "WAITING_FUNDS")
    payments = ("FAILED", "CLOSED", "SUCCEEDED", "CONFLICTED", "RETURNED", "UNCLAIMED", "UNKNOWN")
    owed = webhooks_owed(
        [_fact(f"trd_{state}", state=state) for state in orders],
        [_fact(f"rfd_{state}", state=state) for state in refunds],
        [_fact(f"pay_{state}", state=state) for state in payments],
        deliveries=[],
    )
    assert owed == {
        ("order.completed", "trd_COMPLETED"),
        ("order.closed", "trd_CLOSED"),
        ("refund.completed", "rfd_COMPLETED"),
        ("refund.failed", "rfd_FAILED"),
        ("payment.failed", "pay_FAILED"),
        ("payment.failed", "pay_CLOSED"),
        ("payment.conflicted", "pay_CONFLICTED"),
        ("payment.returned", "pay_RETURNED"),
        ("payment.unclaimed", "pay_UNCLAIMED"),
    }


def test_what_notify_has_on_its_list_is_owed_too() -> None:
    """A payment that failed and was received late is told of as failed, whatever it is now."""
    payments = [_fact("pay_1", state="SUCCEEDED")]
    delivery = _fact("dlv_1", type="payment.failed", subject_id="pay_1", state="DELIVERED")
    assert webhooks_owed([], [], payments, [delivery]) == {("payment.failed", "pay_1")}


async def test_waiting_for_any_ends_with_the_first_that_comes() -> None:
    receiver = WebhookReceiver()
    wanted = [("order.completed", "trd_1"), ("payment.failed", "pay_1")]
    waiting = asyncio.create_task(receiver.wait_for_any(wanted, 20))
    await asyncio.sleep(0)
    receiver._count("msg_1", {"type": "order.completed", "data": {"id": "trd_2"}})
    await asyncio.sleep(0)
    assert not waiting.done()
    receiver._count("msg_2", {"type": "payment.failed", "data": {"id": "pay_1"}})
    assert await waiting
    assert not receiver._waiting
    assert not await receiver.wait_for("order.completed", "trd_1", 0.001)


async def test_waiting_for_all_ends_with_the_last_and_repeats_count_once() -> None:
    receiver = WebhookReceiver()
    wanted = {("order.completed", "trd_1"), ("order.completed", "trd_2")}
    waiting = asyncio.create_task(receiver.wait_for_all(wanted, 20))
    for serial in ("1", "1", "2"):
        assert not waiting.done()
        body = {"type": "order.completed", "data": {"id": f"trd_{serial}"}}
        receiver._count(f"msg_{serial}", body)
        await asyncio.sleep(0)
    assert await waiting
    assert (receiver.unique.total(), receiver.repeated) == (2, 1)
    assert not await receiver.wait_for_all({("order.closed", "trd_3")}, 0.001)
