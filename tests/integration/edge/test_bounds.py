"""Bounds of the door: rates, requests in flight, time, the record of refusals, and its end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from paymesh.edge.v1 import EdgeServiceStub, ListRefusalsRequest, ListStoryRequest
from paymesh.trade.v1 import CreateOrderRequest, CreateOrderResponse

from common.context import CallContext, Principal, bound
from common.errors import PageTokenInvalidError, PermissionDeniedError, RemoteError
from tests.integration.edge.conftest import (
    IDS,
    Edge,
    StartEdge,
    compose,
    order_of,
    read_reply,
)

ORDER = {"merchant_order_no": "n1", "amount": {"currency_code": "USD", "amount_minor": 100}}
OPERATOR = CallContext(Principal(actor_id="ada", roles=("operator",)), caller="operator")


async def test_a_merchant_that_comes_too_fast_is_told_when_to_come_again(
    start_edge: StartEdge,
) -> None:
    edge = await start_edge(rate_per_second=1, rate_burst=2)

    replies = [await edge.get("/v1/orders") for _ in range(3)]

    assert [one.status for one in replies] == [200, 200, 429]
    assert replies[2].json["reason"] == "RATE_LIMITED"
    assert replies[2].json["metadata"] == {"limit_per_second": "1"}
    assert replies[2].headers["retry-after"] == "1"


async def test_requests_beyond_the_bound_are_shed_with_nothing_begun(
    start_edge: StartEdge,
) -> None:
    edge = await start_edge(requests_in_flight_max=2)
    go_on = asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def create(request: CreateOrderRequest) -> CreateOrderResponse:
        begun.release()
        await go_on.wait()
        return CreateOrderResponse(order=order_of(request))

    edge.behind.create_order = create
    held = [asyncio.create_task(edge.post("/v1/orders", ORDER)) for _ in range(2)]
    for _ in held:
        await begun.acquire()

    shed = await edge.post("/v1/orders", ORDER)
    go_on.set()

    assert (shed.status, shed.json["reason"]) == (503, "OVERLOADED")
    assert shed.json["outcome"] == "NOT_EXECUTED"
    assert shed.headers["retry-after"] == "1"
    assert [(await one).status for one in held] == [200, 200]


async def test_a_service_that_stands_still_leaves_room_for_the_others(
    start_edge: StartEdge,
) -> None:
    edge = await start_edge(requests_in_flight_max=8)
    go_on = asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def create(request: CreateOrderRequest) -> CreateOrderResponse:
        begun.release()
        await go_on.wait()
        return CreateOrderResponse(order=order_of(request))

    edge.behind.create_order = create
    held = [asyncio.create_task(edge.post("/v1/orders", ORDER)) for _ in range(6)]
    for _ in held:
        await begun.acquire()

    shed = await edge.post("/v1/orders", ORDER)
    other = await edge.get(f"/v1/balances/{IDS.new('usr')}")
    go_on.set()

    assert (shed.status, shed.json["reason"]) == (503, "OVERLOADED")
    assert shed.json["outcome"] == "NOT_EXECUTED"
    assert other.status == 200
    assert [(await one).status for one in held] == [200] * 6


async def test_a_service_that_does_not_answer_in_time_leaves_the_outcome_unknown(
    start_edge: StartEdge,
) -> None:
    edge = await start_edge(request_seconds=0.3)

    async def never(_: CreateOrderRequest) -> CreateOrderResponse:
        await asyncio.Event().wait()
        raise AssertionError

    edge.behind.create_order = never
    key = IDS.new("idk")
    late = await edge.post("/v1/orders", ORDER, key=key)
    edge.behind.create_order = None
    again = await edge.post("/v1/orders", ORDER, key=key)

    assert (late.status, late.json["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert (late.json["outcome"], late.json["retry"]) == ("UNKNOWN", "SAME_ID")
    assert again.status == 200


async def test_a_body_that_does_not_come_is_given_up(start_edge: StartEdge) -> None:
    edge = await start_edge(body_seconds=0.2)

    reply = await edge.raw(b"POST /v1/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: 50\r\n\r\n{")

    assert reply is not None
    assert (reply.status, reply.json["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert (reply.json["outcome"], reply.headers["connection"]) == ("NOT_EXECUTED", "close")


@pytest.mark.parametrize("begun", [b"", b"GET /v1/or"])
async def test_a_head_that_does_not_come_is_given_up(start_edge: StartEdge, begun: bytes) -> None:
    edge = await start_edge(head_seconds=0.2)

    assert await edge.raw(begun) is None


async def test_an_error_of_the_services_own_leaks_nothing(edge: Edge) -> None:
    async def fail(_: CreateOrderRequest) -> CreateOrderResponse:
        raise RuntimeError("password is hunter2")

    edge.behind.create_order = fail
    reply = await edge.post("/v1/orders", ORDER)

    assert (reply.status, reply.json["reason"]) == (500, "INTERNAL")
    assert (reply.json["outcome"], reply.json["retry"]) == ("UNKNOWN", "SAME_ID")
    assert b"hunter2" not in reply.body
    assert "metadata" not in reply.json


async def list_refusals(edge: Edge, **request: Any) -> Any:
    stub: Any = EdgeServiceStub(edge.kit.channel("operator", "edge"))
    with bound(OPERATOR):
        return await stub.ListRefusals(ListRefusalsRequest(**request))


async def test_refusals_at_the_door_are_recorded_without_what_was_sent(
    start_edge: StartEdge,
) -> None:
    edge = await start_edge()
    body = json.dumps({**ORDER, "card": "6222021234567890123"}).encode()

    unknown = await edge.get("/v1/secret-name?card=6222021234567890123")
    unsigned = await edge.send("GET", "/v1/orders")
    wrong = await edge.post("/v1/orders", body)
    await edge.get(f"/v1/orders/{IDS.new('trd')}")  # refused by trade: its own affair

    async with asyncio.timeout(10):
        found: list[Any] = []
        while len(found) < 3:
            await asyncio.sleep(0.01)
            found = [
                one
                for one in (await list_refusals(edge)).refusals
                if one.request_id
                in {r.headers["paymesh-request-id"] for r in (unknown, unsigned, wrong)}
            ]
    assert [(one.route, one.reason, one.merchant_id) for one in found] == [
        ("POST /v1/orders", "JSON_FIELD_UNKNOWN", edge.merchant_id),
        ("GET /v1/orders", "SIGNATURE_MISSING", ""),
        ("GET", "ROUTE_NOT_FOUND", ""),
    ]
    assert b"6222" not in b"".join(one.SerializeToString() for one in found)


async def test_refusals_are_paged_newest_first(start_edge: StartEdge) -> None:
    edge = await start_edge()
    sent = [(await edge.send("GET", "/v1/orders")).headers["paymesh-request-id"] for _ in range(5)]
    await edge.refusals.flush()

    seen: list[str] = []
    token = ""
    while True:
        page = await list_refusals(edge, page_size=2, page_token=token)
        assert len(page.refusals) <= 2
        seen += [one.request_id for one in page.refusals]
        token = page.next_page_token
        if not token:
            break
    assert [one for one in seen if one in sent] == sent[::-1]
    assert len(set(seen)) == len(seen)
    with pytest.raises(RemoteError) as refused:
        await list_refusals(edge, page_token="made up")
    assert refused.value.remote_reason == PageTokenInvalidError.reason


async def test_a_refusals_story_is_found_by_its_number(start_edge: StartEdge) -> None:
    edge = await start_edge()
    number = (await edge.send("GET", "/v1/orders")).headers["paymesh-request-id"]
    await edge.refusals.flush()
    stub: Any = EdgeServiceStub(edge.kit.channel("operator", "edge"))

    with bound(OPERATOR):
        story = await stub.ListStory(ListStoryRequest(subject_id=number))
        nothing = await stub.ListStory(ListStoryRequest(subject_id="trd_1"))

    assert [item.summary for item in story.items] == ["GET /v1/orders refused: SIGNATURE_MISSING"]
    assert list(nothing.items) == []


async def test_refusals_are_for_operators(edge: Edge) -> None:
    stub: Any = EdgeServiceStub(edge.kit.channel("operator", "edge"))

    with pytest.raises(RemoteError) as refused:
        await stub.ListRefusals(ListRefusalsRequest())

    assert refused.value.remote_reason == PermissionDeniedError.reason


async def test_a_flood_of_refusals_is_bounded(start_edge: StartEdge) -> None:
    edge = await start_edge(refusals_per_second_max=3)

    sent = {(await edge.send("GET", "/v1/x")).headers["paymesh-request-id"] for _ in range(20)}
    await edge.refusals.flush()

    recorded = {one.request_id for one in (await list_refusals(edge, page_size=1000)).refusals}
    # Twenty come in well under two seconds.
    assert 3 <= len(sent & recorded) < 20


async def test_stopping_finishes_what_is_under_way(start_edge: StartEdge) -> None:
    edge = await start_edge()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def create(request: CreateOrderRequest) -> CreateOrderResponse:
        begun.set()
        await go_on.wait()
        return CreateOrderResponse(order=order_of(request))

    edge.behind.create_order = create
    request = asyncio.create_task(edge.post("/v1/orders", ORDER))
    await begun.wait()
    edge.serving.cancel()
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
            except OSError:
                break
            writer.close()
            await asyncio.sleep(0.01)
    go_on.set()

    assert (await request).status == 200
    with pytest.raises(asyncio.CancelledError):
        await edge.serving


@pytest.mark.parametrize("cut", [0, 20])
async def test_stopping_answers_what_comes_on_an_open_connection(
    start_edge: StartEdge, cut: int
) -> None:
    """Its sender could not know yet; the answer says that the connection ends."""
    edge = await start_edge()

    def request() -> bytes:
        headers = edge.signer.sign("GET", "/v1/orders")
        return compose("GET", "/v1/orders", b"", headers)

    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(request())
        first = await read_reply(reader)
        bytes_of_second = request()
        writer.write(bytes_of_second[:cut])
        edge.serving.cancel()
        await until_closed(edge.port)
        writer.write(bytes_of_second[cut:])
        second = await read_reply(reader)
        assert await reader.read() == b""
        writer.close()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 200)
    assert "connection" not in first.headers
    assert second.headers["connection"] == "close"


async def test_stopping_closes_idle_connections(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(compose("GET", "/v1/orders", b"", edge.signer.sign("GET", "/v1/orders")))
        assert await read_reply(reader) is not None
        edge.serving.cancel()
        assert await reader.read() == b""
        writer.close()
        await asyncio.gather(edge.serving, return_exceptions=True)


async def until_closed(port: int) -> None:
    """Return when the port takes no connections any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.005)
