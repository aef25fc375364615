"""Idempotency-Key at the door: copies meet, repeats get the first answer, Redis is no record."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from paymesh.trade.v1 import CreateOrderRequest, CreateOrderResponse

from common.errors import (
    IdConflictError,
    Outcome,
    OverloadedError,
    PaymeshError,
    Retry,
    StateConflictError,
    UnavailableError,
)
from tests.conftest import StartServers
from tests.integration.edge.conftest import IDS, Edge, StartEdge, order_of

USD = {"currency_code": "USD", "amount_minor": 100}


def order(**changed: Any) -> dict[str, Any]:
    return {"merchant_order_no": "n1", "amount": USD, **changed}


async def test_a_repeat_gets_the_first_answer_marked_as_such(edge: Edge) -> None:
    key = IDS.new("idk")

    first = await edge.post("/v1/orders", order(), key=key)
    # Written otherwise, the same in content.
    again = await edge.post("/v1/orders", json.dumps(order(), indent=4).encode(), key=key)

    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["paymesh-biz-trace-id"] == first.headers["paymesh-biz-trace-id"]
    assert again.headers["paymesh-request-id"] != first.headers["paymesh-request-id"]
    assert len(edge.behind.seen) == 1


async def test_copies_at_once_run_once(edge: Edge) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def create(request: CreateOrderRequest) -> CreateOrderResponse:
        begun.set()
        await go_on.wait()
        return CreateOrderResponse(order=order_of(request))

    edge.behind.create_order = create
    key = IDS.new("idk")
    first = asyncio.create_task(edge.post("/v1/orders", order(), key=key))
    await begun.wait()

    copy = await edge.post("/v1/orders", order(), key=key)
    go_on.set()

    assert (copy.status, copy.json["reason"]) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert copy.json["retry"] == "AFTER_DELAY"
    assert copy.headers["retry-after"] == "1"
    assert (await first).status == 200
    assert (await edge.post("/v1/orders", order(), key=key)).headers["idempotent-replayed"]
    assert len(edge.behind.seen) == 1


async def test_the_same_key_with_other_content_is_judged_by_the_service(edge: Edge) -> None:
    key = IDS.new("idk")
    await edge.post("/v1/orders", order(), key=key)

    async def refuse(_: CreateOrderRequest) -> CreateOrderResponse:
        raise IdConflictError(id=key, field="merchant_order_no")

    edge.behind.create_order = refuse
    other = await edge.post("/v1/orders", order(merchant_order_no="n2"), key=key)
    repeat = await edge.post("/v1/orders", order(), key=key)

    assert (other.status, other.json["reason"]) == (409, "ID_CONFLICT")
    assert other.json["field"] == "merchant_order_no"
    # The first answer still stands.
    assert (repeat.status, repeat.headers["idempotent-replayed"]) == (200, "true")


async def test_a_key_belongs_to_one_merchant_and_method(edge: Edge) -> None:
    from paymesh.edge import RequestSigner, generate_key

    private_key, public_key = generate_key()
    other = RequestSigner(edge.behind.add_key(public_key), private_key)
    key = IDS.new("idk")

    await edge.post("/v1/orders", order(), key=key)
    reply = await edge.post("/v1/orders", order(), key=key, signer=other)

    assert "idempotent-replayed" not in reply.headers
    assert len(edge.behind.seen) == 2


@pytest.mark.parametrize(
    ("error", "status", "is_kept"),
    [
        (StateConflictError(resource="order", state="CLOSED"), 409, True),
        (StateConflictError(resource="order", state="NEW", retry=Retry.AFTER_DELAY), 409, False),
        (OverloadedError(limit=1, retry=Retry.NEVER), 503, False),
        (
            UnavailableError(target="account", outcome=Outcome.UNKNOWN, retry=Retry.NEVER),
            503,
            False,
        ),
        (PaymeshError(), 500, False),
    ],
    ids=["final", "later", "overloaded", "away", "internal"],
)
async def test_only_final_refusals_are_kept(
    edge: Edge, error: PaymeshError, status: int, is_kept: bool
) -> None:
    async def refuse(_: CreateOrderRequest) -> CreateOrderResponse:
        raise error

    edge.behind.create_order = refuse
    key = IDS.new("idk")
    first = await edge.post("/v1/orders", order(), key=key)
    edge.behind.create_order = None
    again = await edge.post("/v1/orders", order(), key=key)

    assert first.status == status
    if is_kept:
        assert (again.status, again.headers["idempotent-replayed"]) == (status, "true")
        assert again.body == first.body
    else:
        assert again.status == 200


async def test_an_invalid_request_may_be_corrected_under_its_key(edge: Edge) -> None:
    key = IDS.new("idk")

    wrong = await edge.post("/v1/orders", order(merchant_order_no="a b"), key=key)
    right = await edge.post("/v1/orders", order(), key=key)

    assert (wrong.status, right.status) == (400, 200)
    assert "idempotent-replayed" not in right.headers


async def test_a_repeat_without_redis_memory_goes_through_to_the_service(edge: Edge) -> None:
    key = IDS.new("idk")
    await edge.post("/v1/orders", order(), key=key)
    redis = edge.kit.redis
    for name in await redis.execute("KEYS", redis.key("edge", "once", "*")):
        await redis.execute("DEL", name)

    again = await edge.post("/v1/orders", order(), key=key)

    assert again.status == 200
    assert [request.request_id for request, _ in edge.behind.seen] == [key, key]


async def test_answers_are_kept_for_a_day_and_nonces_for_the_window(edge: Edge) -> None:
    await edge.post("/v1/orders", order())
    redis = edge.kit.redis

    for part, seconds in (("once", 86_400), ("nonce", 600)):
        for name in await redis.execute("KEYS", redis.key("edge", part, "*")):
            left = await redis.execute("TTL", name)
            assert 0 < left <= seconds
            assert part == "nonce" or left > 86_000


async def test_without_redis_requests_go_on_unless_configured_otherwise(
    start_edge: StartEdge, start_servers: StartServers
) -> None:
    """Both policies, while the server is really down."""
    servers = await start_servers("redis")
    careful = await start_edge(redis=servers.redis_url, redis_away="refuse")
    bold = await start_edge(redis=servers.redis_url)
    assert (await careful.get("/v1/orders")).status == 200
    await servers.stop()

    refused = await careful.post("/v1/orders", order())
    passed = await bold.post("/v1/orders", order())

    assert (refused.status, refused.json["reason"]) == (503, "UNAVAILABLE")
    assert (refused.json["outcome"], refused.json["retry"]) == ("NOT_EXECUTED", "AFTER_DELAY")
    assert b"redis" not in refused.body
    assert refused.headers["retry-after"] == "1"
    assert passed.status == 200
    assert [len(one.behind.seen) for one in (careful, bold)] == [1, 1]


async def test_a_lock_left_by_a_dead_process_falls_away_and_a_held_one_stays(edge: Edge) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def create(request: CreateOrderRequest) -> CreateOrderResponse:
        begun.set()
        await go_on.wait()
        return CreateOrderResponse(order=order_of(request))

    edge.behind.create_order = create
    redis = edge.kit.redis
    first = asyncio.create_task(edge.post("/v1/orders", order(), key=IDS.new("idk")))
    await begun.wait()
    (name,) = [
        name
        for name in await redis.execute("KEYS", redis.key("edge", "once", "*"))
        if (await redis.execute("GET", name)).startswith(b"busy")
    ]
    # Renewed while its request runs: set back, its life grows again.
    await redis.execute("PEXPIRE", name, 2_500)
    async with asyncio.timeout(10):
        while await redis.execute("PTTL", name) < 2_600:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.05)
    assert await redis.execute("PTTL", name) <= 4_000
    go_on.set()
    assert (await first).status == 200


async def test_a_stalled_request_leaves_a_later_holders_turn_alone(edge: Edge) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def create(request: CreateOrderRequest) -> CreateOrderResponse:
        begun.set()
        await go_on.wait()
        return CreateOrderResponse(order=order_of(request))

    edge.behind.create_order = create
    redis = edge.kit.redis
    first = asyncio.create_task(edge.post("/v1/orders", order(), key=IDS.new("idk")))
    await begun.wait()
    for name in await redis.execute("KEYS", redis.key("edge", "once", "*")):
        if (await redis.execute("GET", name)).startswith(b"busy"):
            await redis.execute("SET", name, b"busy another", "PX", 4_000)
            held = name
    go_on.set()
    assert (await first).status == 200
    assert await redis.execute("GET", held) == b"busy another"
