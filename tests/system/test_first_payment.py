"""One purchase from signed REST call to postings, clearing entry, event and signed webhook."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from services.cli.audit import audit
from services.cli.facts import (
    list_facts,
    list_unfinished,
    tell_story,
    wait_until_finished,
)
from services.sandbox.cards import CardBehaviour
from tests.running_platform import Platform


async def test_paying_from_the_balance_moves_the_money_and_tells_the_merchant(
    platform: Platform,
) -> None:
    user = await platform.new_user()
    await platform.recharge(user, 10_000)
    before = await platform.balance(platform.merchant_id)
    order = await platform.new_order(2_500, user)
    assert order["fee"]["fee_minor"] == 15  # 0.60 % of 25.00, half-up

    payment = await platform.pay(order, "balance")

    assert payment["state"] == "SUCCEEDED"
    assert payment["fee_minor"] == 15
    assert await platform.balance(user) == {"user_available": 7_500}
    after = await platform.balance(platform.merchant_id)
    assert after["merchant_pending"] - before["merchant_pending"] == 2_485
    done = await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    assert done["payment_id"] == payment["id"]
    assert done["business_date"] == payment["business_date"]
    assert await platform.webhooks.wait_for("order.completed", order["id"], 30)


async def test_paying_with_too_little_balance_is_declined_and_another_way_works(
    platform: Platform,
) -> None:
    user = await platform.new_user()
    card = await platform.new_card(user)
    order = await platform.new_order(1_999, user)

    declined = await platform.pay(order, "balance")

    assert declined["state"] == "FAILED"
    assert declined["failure"]["decline_code"] == "INSUFFICIENT_FUNDS"
    assert await platform.balance(user) == {"user_available": 0}
    paid = await platform.pay(order, "quick_pay", card_id=card)
    assert paid["state"] == "SUCCEEDED"
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    assert await platform.webhooks.wait_for("payment.failed", declined["id"], 30)


async def test_scanning_a_code_pays_by_callback(platform: Platform) -> None:
    order = await platform.new_order(777)
    body = {"product": "qr_pay"}
    payment = (await platform.post(f"/v1/orders/{order['id']}/payments", body))["payment"]
    assert payment["state"] == "REQUIRES_ACTION"
    assert payment["channel"] in ("alipay_a", "alipay_b")
    assert payment["channel_reason"]

    await platform.scan(payment)

    done = await platform.until(f"/v1/payments/{payment['id']}", "payment", "SUCCEEDED")
    assert done["fee_minor"] == 5  # 4.662 cents, half-up
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")


async def test_a_declined_card_leaves_the_order_open(platform: Platform) -> None:
    user = await platform.new_user()
    card = await platform.new_card(user, CardBehaviour.INSUFFICIENT_FUNDS)
    order = await platform.new_order(1_000, user)

    payment = await platform.pay(order, "quick_pay", card_id=card)

    assert payment["state"] == "FAILED"
    assert payment["failure"]["reason"] == "DECLINED"
    order = (await platform.get(f"/v1/orders/{order['id']}"))["order"]
    assert order["state"] == "CREATED"


async def test_closing_an_order_closes_its_open_payment_at_the_channel(
    platform: Platform,
) -> None:
    order = await platform.new_order(650)
    path = f"/v1/orders/{order['id']}"
    payment = (await platform.post(f"{path}/payments", {"product": "qr_pay"}))["payment"]

    await platform.post(f"{path}/close", {})

    await platform.until(path, "order", "CLOSED")
    await platform.until(f"/v1/payments/{payment['id']}", "payment", "CLOSED")
    body = {"qr_code": payment["next_action"]["show_qr"]["content"], "outcome": "pay"}
    url = f"{platform.deployment.sandbox_url}/payer/alipay/pay"
    async with platform.session.post(url, json=body) as response:
        assert response.status == 409  # the party does not take the money any more
    assert await platform.webhooks.wait_for("order.closed", order["id"], 30)


async def test_an_order_for_nothing_completes_without_a_payment(platform: Platform) -> None:
    order = await platform.new_order(0)
    assert order["state"] == "COMPLETED"
    status, answer = await platform.rest.send(
        "POST", f"/v1/orders/{order['id']}/payments", {"product": "qr_pay"}, "pay-nothing"
    )
    assert (status, answer["reason"]) == (409, "ORDER_NOT_PAYABLE")
    assert await platform.webhooks.wait_for("order.completed", order["id"], 30)


async def test_refunds_in_parts_return_the_whole_fee_and_never_more(platform: Platform) -> None:
    user = await platform.new_user()
    await platform.recharge(user, 1_001)
    order = await platform.new_order(1_001, user)
    await platform.pay(order, "balance")
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    fees = 0
    for part in (333, 333, 335):
        refund = (await platform.post("/v1/refunds", _refund(order, part)))["refund"]
        done = await platform.until(f"/v1/refunds/{refund['id']}", "refund", "COMPLETED")
        fees += done["fee_returned_minor"]
    assert fees == order["fee"]["fee_minor"] == 6
    assert await platform.balance(user) == {"user_available": 1_001}

    status, answer = await platform.rest.send(
        "POST", "/v1/refunds", _refund(order, 1), "one-cent-too-much"
    )

    assert (status, answer["reason"]) == (422, "REFUND_EXCEEDS_PAYMENT")


@pytest.mark.parametrize("way", ["qr_pay", "quick_pay"])
async def test_refunding_a_channel_payment_gives_the_money_back_at_the_channel(
    platform: Platform, way: str
) -> None:
    user = await platform.new_user()
    fields: dict[str, Any] = {}
    if way == "quick_pay":
        fields["card_id"] = await platform.new_card(user)
    order = await platform.new_order(4_200, user)
    await platform.pay(order, way, **fields)
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")

    refund = (await platform.post("/v1/refunds", _refund(order, 1_200)))["refund"]

    await platform.until(f"/v1/refunds/{refund['id']}", "refund", "COMPLETED")
    order = (await platform.get(f"/v1/orders/{order['id']}"))["order"]
    assert order["refunded_minor"] == 1_200
    assert await platform.webhooks.wait_for("refund.completed", refund["id"], 30)


async def test_concurrent_refunds_never_exceed_the_payment(platform: Platform) -> None:
    order = await platform.new_order(1_000)
    await platform.pay(order, "qr_pay")
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    answers = await asyncio.gather(
        *(
            platform.rest.send(
                "POST", "/v1/refunds", _refund(order, 400), f"race-{order['id']}-{n}"
            )
            for n in range(6)
        )
    )
    accepted = [a["refund"]["id"] for status, a in answers if status < 400]
    refused = {a["reason"] for status, a in answers if status >= 400}
    completed = 0
    for refund_id in accepted:
        found = (await platform.get(f"/v1/refunds/{refund_id}"))["refund"]
        for _ in range(200):
            if found["state"] in ("COMPLETED", "FAILED"):
                break
            await asyncio.sleep(0.05)
            found = (await platform.get(f"/v1/refunds/{refund_id}"))["refund"]
        completed += found["state"] == "COMPLETED"
    assert completed == 2
    assert refused <= {"REFUND_EXCEEDS_PAYMENT"}


async def test_repeating_a_request_gets_the_first_answer_and_moves_nothing(
    platform: Platform,
) -> None:
    user = await platform.new_user()
    await platform.recharge(user, 5_000)
    order = await platform.new_order(1_200, user)
    path, body = f"/v1/orders/{order['id']}/payments", {"product": "balance"}
    first = await platform.post(path, body, "same-key-every-time")
    second = await platform.post(path, body, "same-key-every-time")
    assert second["payment"]["id"] == first["payment"]["id"]
    assert await platform.balance(user) == {"user_available": 3_800}


async def test_two_payments_at_once_win_an_order_once(platform: Platform) -> None:
    user = await platform.new_user()
    await platform.recharge(user, 3_000)
    order = await platform.new_order(1_000, user)
    path = f"/v1/orders/{order['id']}/payments"
    answers = await asyncio.gather(
        *(
            platform.rest.send("POST", path, {"product": "balance"}, f"twice-{order['id']}-{n}")
            for n in range(3)
        )
    )
    states = []
    for status, answer in answers:
        if status < 400:
            payment = answer["payment"]
            for _ in range(200):
                if payment["state"] in ("SUCCEEDED", "RETURNED", "FAILED"):
                    break
                await asyncio.sleep(0.05)
                payment = (await platform.get(f"/v1/payments/{payment['id']}"))["payment"]
            states.append(payment["state"])
        else:
            assert answer["reason"] == "ORDER_NOT_PAYABLE"
    assert states.count("SUCCEEDED") == 1
    assert set(states) <= {"SUCCEEDED", "RETURNED"}
    assert await platform.balance(user) == {"user_available": 2_000}


async def test_one_id_tells_the_whole_story(platform: Platform) -> None:
    user = await platform.new_user()
    card = await platform.new_card(user)
    order = await platform.new_order(3_100, user)
    await platform.pay(order, "quick_pay", card_id=card)
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    assert await platform.webhooks.wait_for("order.completed", order["id"], 30)

    async def told() -> set[str]:
        return {i.service for i in await tell_story(platform.operator, order["biz_trace_id"])}

    wanted = {"trade", "payment", "channel", "account", "risk", "settlement", "notify"}
    for _ in range(100):
        if wanted <= await told():
            break
        await asyncio.sleep(0.1)
    assert wanted <= await told()


async def test_the_books_balance_after_all_of_this(platform: Platform) -> None:
    for fact in await list_facts(platform.operator, "trade", "unfinished"):
        await platform.post(f"/v1/orders/{fact.key}/close", {})  # nobody has paid these
    await wait_until_finished(platform.operator, 60)
    unfinished = await list_unfinished(platform.operator)
    deliveries = (await platform.get("/v1/webhook_deliveries"))["deliveries"]
    assert [one for one in deliveries if one["state"] != "DELIVERED"] == []
    assert {s: [dict(f.values) for f in facts] for s, facts in unfinished.items()} == {}
    findings = await audit(platform.operator)
    assert findings.off == []
    assert findings.counted["payments"] == len(
        await list_facts(platform.operator, "payment", "payment")
    )


_REFUND_NUMBERS = itertools.count(1)


def _refund(order: dict[str, Any], amount_minor: int) -> dict[str, Any]:
    return {
        "order_id": order["id"],
        "merchant_refund_no": f"refund-{next(_REFUND_NUMBERS)}",
        "amount": {"currency_code": "USD", "amount_minor": amount_minor},
    }
