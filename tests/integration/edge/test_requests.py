"""Signed requests that are as they should be, over a real socket."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from common.context import ActorType, Mode
from tests.integration.edge.conftest import IDS, Edge

ORDER = {
    "merchant_order_no": "line-1",
    "amount": {"currency_code": "USD", "amount_minor": 1177},
    "subject": "two CDs",
    "metadata": {"line": "1"},
}


async def test_creating_an_order_reaches_trade_as_the_merchant(edge: Edge) -> None:
    reply = await edge.post("/v1/orders", ORDER, key="idem-1")

    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    order = reply.json["order"]
    assert order["state"] == "CREATED"
    assert order["amount"] == {"currency_code": "USD", "amount_minor": 1177}
    assert order["metadata"] == {"line": "1"}
    assert "expires_at" not in order
    [(request, call)] = edge.behind.seen
    assert request.request_id == "idem-1"
    assert request.merchant_order_no == "line-1"
    assert call.caller == "edge"
    assert call.principal.merchant_id == edge.merchant_id
    assert call.principal.mode is Mode.TEST
    assert call.principal.actor_type is ActorType.MERCHANT
    assert call.principal.actor_id == edge.signer.key_id
    assert call.principal.roles == ("merchant",)
    assert re.fullmatch(r"biz_[0-9a-z]{26}", call.biz_trace_id)
    assert reply.headers["paymesh-biz-trace-id"] == call.biz_trace_id
    assert re.fullmatch(r"req_[0-9a-z]{26}", reply.headers["paymesh-request-id"])
    assert call.causation_id == reply.headers["paymesh-request-id"]


async def test_creating_an_order_with_an_own_story_keeps_it(edge: Edge) -> None:
    reply = await edge.post("/v1/orders", {**ORDER, "biz_trace_id": "shop-77"})

    assert reply.headers["paymesh-biz-trace-id"] == "shop-77"
    [(request, call)] = edge.behind.seen
    assert (request.biz_trace_id, call.biz_trace_id) == ("shop-77", "shop-77")


async def test_listing_takes_the_query_by_type(edge: Edge) -> None:
    reply = await edge.get("/v1/orders?merchant_order_no=a%20b%2Bc&page_size=7&page_token=")

    assert reply.status == 200
    assert reply.json["next_page_token"] == "next"
    [(request, call)] = edge.behind.seen
    assert (request.merchant_order_no, request.page_size) == ("a b+c", 7)
    assert call.biz_trace_id == ""


async def test_reading_a_path_variable_fills_the_request(edge: Edge) -> None:
    user_id = IDS.new("usr")

    reply = await edge.get(f"/v1/balances/{user_id}")

    assert edge.behind.seen[0][0].owner_id == user_id
    # Amounts are integers to the last digit, also where a float would lose it.
    assert b'"amount_minor":9007199254740993' in reply.body


async def test_a_refusal_of_a_service_is_a_problem_with_its_reason(edge: Edge) -> None:
    order_id = IDS.new("trd")

    reply = await edge.get(f"/v1/orders/{order_id}")

    assert reply.status == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json == {
        "type": "urn:paymesh:error:NOT_FOUND",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no order with this id.",
        "reason": "NOT_FOUND",
        "outcome": "NOT_EXECUTED",
        "retry": "NEVER",
        "request_id": reply.headers["paymesh-request-id"],
        "metadata": {"resource": "order", "id": order_id},
    }


async def test_a_connection_carries_many_requests(edge: Edge) -> None:
    from tests.integration.edge.conftest import compose, read_reply

    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    for number in range(3):
        body = json.dumps({**ORDER, "merchant_order_no": f"n-{number}"}).encode()
        headers = edge.signer.sign("POST", "/v1/orders", body, idempotency_key=IDS.new("idk"))
        writer.write(compose("POST", "/v1/orders", body, headers))
    numbers = []
    for _ in range(3):
        reply = await read_reply(reader)
        assert reply is not None
        numbers.append(reply.json["order"]["merchant_order_no"])
    writer.close()
    assert numbers == ["n-0", "n-1", "n-2"]


async def test_the_probe_answers(edge: Edge) -> None:
    assert (await edge.send("GET", "/healthz")).status == 200


async def test_a_channels_callback_is_passed_on_as_it_came(edge: Edge) -> None:
    edge.behind.callback.CopyFrom(
        type(edge.behind.callback)(http_status=202, content_type="text/xml", body=b"<ok/>")
    )

    reply = await edge.send(
        "POST", "/callbacks/alipay_a?x=%20y&x=2", b"a=1&b=%ff", {"X-Sign": "s", "x-sign2": "t"}
    )

    assert (reply.status, reply.headers["content-type"], reply.body) == (202, "text/xml", b"<ok/>")
    [(request, call)] = edge.behind.seen
    assert request.channel == "alipay_a"
    assert request.query == "x=%20y&x=2"
    assert request.body == b"a=1&b=%ff"
    assert request.headers["x-sign"] == "s"
    assert call.principal.actor == "CHANNEL:alipay_a"


async def test_a_callback_to_a_strange_path_or_by_get_is_refused(edge: Edge) -> None:
    replies: list[Any] = [
        await edge.send("POST", "/callbacks/alipay_a/more", b"x"),
        await edge.send("POST", "/callbacks/", b"x"),
        await edge.send("POST", "/callbacks/..%2f", b"x"),
        await edge.send("GET", "/callbacks/alipay_a"),
    ]

    assert [one.json["reason"] for one in replies] == [
        "ROUTE_NOT_FOUND",
        "ROUTE_NOT_FOUND",
        "ROUTE_NOT_FOUND",
        "METHOD_NOT_ALLOWED",
    ]
    assert replies[-1].headers["allow"] == "POST"
    assert edge.behind.seen == []
