"""`paymesh trace ID`: one order's whole story, found by any of its numbers, from rows alone."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import AddMerchantKeyRequest, MemberServiceStub, RegisterMerchantRequest
from paymesh.type.v1 import StoryItem
from rich.console import Console

from services.cli.demo.rest import RestClient
from services.cli.facts import find_stories, tell_story, wait_until_finished
from services.cli.trace import Wanted, trace
from services.sandbox.cards import CardBehaviour, test_card
from tests.running_platform import Json, Platform

KINDS = {
    "request",
    "call",
    "decision",
    "channel_call",
    "callback",
    "state",
    "posting",
    "voucher",
    "event",
    "job",
    "webhook",
}
"""What the story of this order has; nothing of it needs a person, so there is no exception."""


@dataclass
class Traced:
    """An order that was declined, then paid by code, then refunded in part."""

    order: Json
    declined: Json
    payment: Json
    refund: Json
    key: str
    qr_content: str
    card_serial: int
    story: str
    items: Sequence[StoryItem]

    def details(self, name: str, kind: str = "") -> list[str]:
        """Return the values of a detail, of one kind of items or of all."""
        return [
            item.details[name]
            for item in self.items
            if name in item.details and kind in ("", item.kind)
        ]

    def summaries(self, service: str, kind: str) -> list[str]:
        """Return what a service tells of a kind, in order."""
        return [i.summary for i in self.items if (i.service, i.kind) == (service, kind)]


@pytest.fixture(scope="module")
async def traced(platform: Platform) -> Traced:
    """The order, when everything about it has happened."""
    user = await platform.new_user()
    serial = next(platform.serial)
    body: Json = {
        "card_number": test_card(CardBehaviour.INSUFFICIENT_FUNDS, serial),
        "holder_name": "TEST HOLDER",
    }
    card = (await platform.post(f"/v1/users/{user}/cards", body))["card"]["id"]
    key = f"trace-order-{next(platform.serial)}"
    number = f"traced-{next(platform.serial)}"
    body = {
        "merchant_order_no": number,
        "amount": {"currency_code": "USD", "amount_minor": 4_200},
        "user_id": user,
    }
    order = (await platform.post("/v1/orders", body, key))["order"]
    await platform.post("/v1/orders", body, key)
    declined = await platform.pay(order, "quick_pay", card_id=card)
    payment = (await platform.post(f"/v1/orders/{order['id']}/payments", {"product": "qr_pay"}))[
        "payment"
    ]
    await platform.scan(payment)
    await platform.until(f"/v1/orders/{order['id']}", "order", "COMPLETED")
    asked = {
        "order_id": order["id"],
        "merchant_refund_no": f"refund-{number}",
        "amount": {"currency_code": "USD", "amount_minor": 1_200},
        "reason": "One of TEST HOLDER's two",
    }
    refund = (await platform.post("/v1/refunds", asked))["refund"]
    await platform.until(f"/v1/refunds/{refund['id']}", "refund", "COMPLETED")
    late = {"product": "qr_pay"}
    status, _ = await platform.rest.send("POST", f"/v1/orders/{order['id']}/payments", late, "late")
    assert status == 409
    assert await wait_until_finished(platform.operator, 30)
    return Traced(
        order=order,
        declined=declined,
        payment=payment,
        refund={**refund, "merchant_refund_no": asked["merchant_refund_no"]},
        key=key,
        card_serial=serial,
        qr_content=payment["next_action"]["show_qr"]["content"],
        story=order["biz_trace_id"],
        items=await _whole_story(platform, order["biz_trace_id"]),
    )


async def _whole_story(platform: Platform, story: str) -> Sequence[StoryItem]:
    """Tell a story once the vouchers of its movements are made, a moment after them."""
    async with asyncio.timeout(30):
        while True:
            items = await tell_story(platform.operator, story)
            moved = [
                item
                for item in items
                if (item.service, item.kind) == ("account", "posting")
                and re.search(r" (single|post) BOOKED ", item.summary)
            ]
            if len(moved) == sum(item.kind == "voucher" for item in items):
                return items
            await asyncio.sleep(0.1)


async def test_every_kind_of_item_is_there_in_order(traced: Traced) -> None:
    assert {item.kind for item in traced.items} == KINDS
    times = [(i.occurred_at.seconds, i.occurred_at.nanos // 1000) for i in traced.items]
    assert times == sorted(times)
    assert len({item.SerializeToString(deterministic=True) for item in traced.items}) == len(times)
    first = traced.items[0]
    assert (first.service, first.kind) == ("edge", "request")


async def test_requests_tell_how_each_ended(traced: Traced) -> None:
    payments = "POST /v1/orders/{order_id}/payments"
    assert traced.summaries("edge", "request") == [
        "POST /v1/orders → 200",
        "POST /v1/orders → 200 (replayed)",
        f"{payments} → 200",
        f"{payments} → 200",
        "POST /v1/refunds → 200",
        f"{payments} → 409 ORDER_NOT_PAYABLE",
    ]
    callbacks = traced.summaries("edge", "callback")
    assert len(callbacks) >= 2  # of the payment, and of the refund, which was known before it
    assert all(one.startswith("POST /callbacks/alipay_") for one in callbacks)


async def test_decisions_and_calls_have_their_reasons(traced: Traced) -> None:
    decisions = [item.summary for item in traced.items if item.kind == "decision"]
    for part in (
        "fee of ",
        "risk: PASS",
        "product qr_pay by alipay",
        "attempt 1 at ",
        "won by pay_",
    ):
        assert any(part in one for one in decisions), (part, decisions)
    calls = {item.summary for item in traced.items if item.kind == "call"}
    assert {"CreateOrder", "CreatePayment", "Charge", "AssessAction"} <= calls
    assert {"CreateRefund", "RefundPayment", "Refund"} <= calls
    assert any(one.startswith("CreateTransfers: ") for one in calls)
    raw_codes = traced.details("raw_code", "channel_call")
    assert any(code for code in raw_codes)
    answers = [one.partition(" ")[2] for one in traced.summaries("channel", "channel_call")]
    assert "answer: INSUFFICIENT_FUNDS → FAILED" in answers


async def test_events_name_who_heard_them(traced: Traced) -> None:
    events = [item for item in traced.items if item.kind == "event"]
    told = {i.details["event_id"]: i.details["type"] for i in events if "consumer" not in i.details}
    heard = [i for i in events if "consumer" in i.details]
    assert {"payment.payment.succeeded.v1", "trade.order.completed.v1"} <= set(told.values())
    assert all(item.details["type"] == told[item.details["event_id"]] for item in heard)
    consumers = {item.details["consumer"].partition(".")[0] for item in heard}
    assert {"trade", "notify", "settlement", "risk"} <= consumers


async def test_postings_name_both_sides_and_webhooks_every_attempt(traced: Traced) -> None:
    postings = [i for i in traced.items if i.kind == "posting" and i.service == "account"]
    assert all({"debit_kind", "credit_kind", "amount_minor"} <= set(i.details) for i in postings)
    assert any(
        i.service == "settlement" and "cleared back" in i.summary
        for i in traced.items
        if i.kind == "posting"
    )
    webhooks = traced.summaries("notify", "webhook")
    for type_ in ("payment.failed", "order.completed", "refund.completed"):
        assert any(one.startswith(f"{type_} attempt 1: HTTP 2") for one in webhooks), webhooks


Number = Callable[[Traced], str]
NUMBERS: dict[str, Number] = {
    "story": lambda t: t.story,
    "order": lambda t: t.order["id"],
    "order number": lambda t: t.order["merchant_order_no"],
    "declined payment": lambda t: t.declined["id"],
    "payment": lambda t: t.payment["id"],
    "refund": lambda t: t.refund["id"],
    "refund number": lambda t: t.refund["merchant_refund_no"],
    "idempotency key": lambda t: t.key,
    "request": lambda t: _id_of(t, "request", "edge"),
    "channel reference of the charge": lambda t: t.details("reference", "decision")[-1],
    "channel reference of the refund": lambda t: next(
        i.subject.split()[1] for i in t.items if i.subject.startswith("refund rfd")
    ),
    "channel's own number": lambda t: t.details("channel_transaction_no")[0],
    "callback": lambda t: t.details("callback_id")[0],
    "notice": lambda t: t.details("notice_id")[0],
    "delivery": lambda t: _id_of(t, "webhook", "notify"),
    "webhook": lambda t: t.details("webhook_id")[0],
    "event": lambda t: t.details("event_id", "event")[-1],
    "job": lambda t: _id_of(t, "job", "payment"),
    "transfer": lambda t: _id_of(t, "posting", "account"),
    "clearing entry": lambda t: _id_of(t, "posting", "settlement"),
}


def _id_of(traced: Traced, kind: str, service: str) -> str:
    return next(
        i.subject.split()[1] for i in traced.items if (i.kind, i.service) == (kind, service)
    )


@pytest.mark.parametrize("name", NUMBERS)
async def test_the_story_is_found_by_any_number(
    platform: Platform, traced: Traced, name: str
) -> None:
    found = await find_stories(platform.operator, NUMBERS[name](traced))
    assert found.stories == [traced.story]


async def test_nothing_personal_is_told(platform: Platform, traced: Traced) -> None:
    console = Console(file=io.StringIO(), width=10_000)
    assert await trace(platform.operator, traced.story, False, console, Wanted()) == 0
    assert await trace(platform.operator, traced.story, True, console, Wanted()) == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert traced.order["id"] in text
    card_number = test_card(CardBehaviour.INSUFFICIENT_FUNDS, traced.card_serial)
    for secret in ("TEST HOLDER", card_number, traced.qr_content, "whsec_", "PRIVATE KEY"):
        assert secret not in text
    # Merchants make keys as they like, so only their digests are told: of the request, and of the
    # order that it made.
    assert traced.key not in text
    assert "test-key-" not in text
    digest = hashlib.sha256(traced.key.encode()).hexdigest()
    told = [i for i in traced.items if i.details.get("idempotency_key_sha256") == digest]
    assert [(i.service, i.kind) for i in told] == [
        ("edge", "request"),
        ("trade", "call"),
        ("edge", "request"),
    ]


async def test_json_and_text_tell_the_same_and_filters_leave_out(
    platform: Platform, traced: Traced
) -> None:
    json_console = Console(file=io.StringIO(), width=10_000)
    await trace(platform.operator, traced.order["id"], True, json_console, Wanted())
    story = orjson.loads(json_console.file.getvalue())  # type: ignore[attr-defined]
    assert story["biz_trace_id"] == traced.story
    assert [one["summary"] for one in story["items"]] == [one.summary for one in traced.items]
    console = Console(file=io.StringIO(), width=10_000)
    wanted = Wanted(services=frozenset({"account"}), kinds=frozenset({"posting"}))
    await trace(platform.operator, traced.order["id"], False, console, wanted)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 2 + len(traced.summaries("account", "posting"))
    nobody = Console(file=io.StringIO())
    assert await trace(platform.operator, "nobody-knows-this", False, nobody, Wanted()) == 1


@pytest.fixture
async def other_merchant(platform: Platform) -> AsyncIterator[RestClient]:
    """A second merchant, who numbers orders as the first one does."""
    members = platform.operator.stub(MemberServiceStub, "member")
    answer = await members.RegisterMerchant(
        RegisterMerchantRequest(
            request_id="trace-merchant",
            merchant_no="traced",
            name="Traced",
            currency_codes=["USD"],
        )
    )
    private_key, public_key = generate_key()
    key = await members.AddMerchantKey(
        AddMerchantKeyRequest(
            request_id="trace-key",
            merchant_id=answer.merchant.id,
            public_key=public_key,
            mode="LIVE",
        )
    )
    signer = RequestSigner(key.key.id, private_key)
    rest = RestClient(platform.deployment.edge_url, signer, 4)
    yield rest
    await rest.close()


async def test_a_number_of_two_merchants_lists_both_stories(
    platform: Platform, traced: Traced, other_merchant: RestClient
) -> None:
    number = f"both-{next(platform.serial)}"
    body: dict[str, Any] = {
        "merchant_order_no": number,
        "amount": {"currency_code": "USD", "amount_minor": 100},
    }
    mine = (await platform.post("/v1/orders", body))["order"]
    status, answer = await other_merchant.send("POST", "/v1/orders", body, "both")
    assert status == 200

    found = await find_stories(platform.operator, number)
    console = Console(file=io.StringIO(), width=10_000)
    assert await trace(platform.operator, number, True, console, Wanted()) == 0

    stories = {mine["biz_trace_id"], answer["order"]["biz_trace_id"]}
    assert set(found.stories) == stories
    told = orjson.loads(console.file.getvalue())  # type: ignore[attr-defined]
    assert {one["biz_trace_id"] for one in told["stories"]} == stories
    assert len({one["merchant_id"] for one in told["stories"]}) == 2


async def test_a_posting_that_the_ledger_refused_is_told_with_its_reason(
    platform: Platform,
) -> None:
    user = await platform.new_user()
    order = await platform.new_order(1_999, user)
    assert (await platform.pay(order, "balance"))["state"] == "FAILED"
    items = await tell_story(platform.operator, order["biz_trace_id"])
    refused = [i for i in items if (i.service, i.kind) == ("account", "posting")]
    assert [i.details["reason"] for i in refused if "REFUSED" in i.summary] == [
        "INSUFFICIENT_FUNDS"
    ]
