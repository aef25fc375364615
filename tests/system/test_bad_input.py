"""Bad input against the whole platform: a typed refusal, no money moved, no row left behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from paymesh.trade.v1 import CreateOrderRequest, TradeServiceStub
from paymesh.type.v1 import Money

from common.errors import RemoteError
from services.cli.facts import list_facts
from tests.running_platform import Platform


@dataclass(frozen=True)
class Case:
    """A body that is refused, and how."""

    name: str
    status: int
    reason: str
    body: dict[str, Any] = field(default_factory=dict)
    raw: bytes = b""


def _order(**fields: Any) -> dict[str, Any]:
    order = {
        "merchant_order_no": "bad-input",
        "amount": {"currency_code": "USD", "amount_minor": 100},
    }
    return {**order, **fields}


def _amount(minor: Any, currency: str = "USD") -> dict[str, Any]:
    return _order(amount={"currency_code": currency, "amount_minor": minor})


ORDERS = [
    Case("negative amount", 400, "FIELD_INVALID", _amount(-1)),
    Case("amount above the largest", 400, "FIELD_INVALID", _amount(10**15 + 1)),
    Case("amount above 64 bits", 400, "JSON_INVALID", _amount(2**63)),
    Case("amount as text", 400, "JSON_INVALID", _amount("100")),
    Case("amount as fraction", 400, "JSON_INVALID", _amount(1.5)),
    Case("amount as truth", 400, "JSON_INVALID", _amount(True)),
    Case("amount missing", 400, "FIELD_INVALID", {"merchant_order_no": "bad-input"}),
    Case("currency unknown", 400, "CURRENCY_UNKNOWN", _amount(100, "QQQ")),
    Case("currency malformed", 400, "FIELD_INVALID", _amount(100, "usd")),
    Case("recharge of nothing", 400, "", {**_amount(0), "type": "recharge"}),
    Case("unknown field", 400, "JSON_FIELD_UNKNOWN", _order(colour="red")),
    Case("unknown field inside", 400, "JSON_FIELD_UNKNOWN", _order(amount={"value": 1})),
    Case("number malformed", 400, "FIELD_INVALID", _order(merchant_order_no="no spaces please")),
    Case("user of nobody", 404, "NOT_FOUND", _order(user_id="usr_" + "0" * 26)),
    Case("user malformed", 400, "FIELD_INVALID", _order(user_id="usr_1")),
    Case("not JSON", 400, "JSON_INVALID", raw=b"{"),
    Case("not an object", 400, "JSON_INVALID", raw=b"[]"),
    Case("key twice", 400, "JSON_INVALID", raw=b'{"subject":"a","subject":"b"}'),
    Case("huge body", 413, "BODY_TOO_LARGE", _order(subject="x" * 70_000)),
]


async def _rows(platform: Platform) -> dict[str, int]:
    counts = {}
    for service, kind in (
        ("trade", "order"),
        ("trade", "refund"),
        ("payment", "payment"),
        ("payment", "refund"),
        ("account", "transfer"),
    ):
        counts[f"{service} {kind}"] = len(await list_facts(platform.operator, service, kind))
    return counts


@pytest.mark.parametrize("case", ORDERS, ids=lambda case: case.name)
async def test_making_a_bad_order_is_refused_and_writes_nothing(
    platform: Platform, case: Case
) -> None:
    before = await _rows(platform)
    payload = case.raw or orjson.dumps(case.body)
    headers = platform.signer.sign(
        "POST", "/v1/orders", payload, idempotency_key=f"bad {case.name}".replace(" ", "-")
    )
    async with platform.session.post(
        platform.deployment.edge_url + "/v1/orders", data=payload, headers=headers
    ) as response:
        answer = orjson.loads(await response.read())
        assert response.headers["Content-Type"].startswith("application/problem+json")
        assert response.status == case.status, answer
    if case.reason:
        assert answer["reason"] == case.reason
    assert answer["outcome"] == "NOT_EXECUTED"
    assert await _rows(platform) == before


async def test_refunding_nothing_or_in_another_currency_is_refused(platform: Platform) -> None:
    order = await platform.new_order(500)
    await platform.pay(order, "qr_pay")
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    before = await _rows(platform)
    for number, (amount, reason) in enumerate(
        [
            ({"currency_code": "USD", "amount_minor": 0}, "FIELD_INVALID"),
            ({"currency_code": "USD", "amount_minor": -5}, "FIELD_INVALID"),
            ({"currency_code": "EUR", "amount_minor": 5}, "CURRENCY_MISMATCH"),
            ({"currency_code": "USD", "amount_minor": 501}, "REFUND_EXCEEDS_PAYMENT"),
        ]
    ):
        body = {
            "order_id": order["id"],
            "merchant_refund_no": f"bad-refund-{number}",
            "amount": amount,
        }
        status, answer = await platform.rest.send("POST", "/v1/refunds", body, f"bad-{number}-rf")
        assert status >= 400
        assert answer["reason"] == reason
        assert answer["outcome"] == "NOT_EXECUTED"
    assert await _rows(platform) == before


async def test_paying_by_an_unknown_product_or_without_a_card_is_refused(
    platform: Platform,
) -> None:
    user = await platform.new_user()
    order = await platform.new_order(500, user)
    before = await _rows(platform)
    path = f"/v1/orders/{order['id']}/payments"
    for number, (body, reason) in enumerate(
        [
            ({"product": "cheque"}, "PRODUCT_UNKNOWN"),
            ({"product": "quick_pay"}, "PRODUCT_FIELD_MISSING"),
            ({"product": "qr_pay", "client_ip": "not an address"}, "FIELD_INVALID"),
            ({}, "FIELD_INVALID"),
        ]
    ):
        key = f"bad-{order['id']}-{number}"
        status, answer = await platform.rest.send("POST", path, body, key)
        assert status == 400, answer
        assert answer["reason"] == reason
    assert await _rows(platform) == before


async def test_a_merchant_sees_nothing_of_another(platform: Platform) -> None:
    status, answer = await platform.rest.send("GET", "/v1/orders/trd_" + "0" * 26, None, "")
    assert (status, answer["reason"]) == (404, "NOT_FOUND")
    status, answer = await platform.rest.send("GET", "/v1/balances/mer_" + "0" * 26, None, "")
    assert (status, answer["reason"]) == (404, "NOT_FOUND")


async def test_bad_input_inside_the_mesh_is_a_typed_status(platform: Platform) -> None:
    stub = platform.operator.stub(TradeServiceStub, "trade")
    with pytest.raises(RemoteError) as refused:
        await stub.CreateOrder(
            CreateOrderRequest(
                request_id="inside",
                merchant_order_no="inside",
                amount=Money(currency_code="USD", amount_minor=-1),
            )
        )
    assert refused.value.remote_reason == "FIELD_INVALID"
    assert refused.value.metadata["field"].startswith("amount")
