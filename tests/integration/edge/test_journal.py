"""The journal: what each changing request and callback came to, and nothing that they contained."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from paymesh.edge.v1 import EdgeServiceStub, ListStoryRequest, ListStoryResponse
from paymesh.trade.v1 import CreateOrderRequest, CreateOrderResponse
from paymesh.type.v1 import StoryItem

from common.context import ActorType, CallContext, Principal, bound
from common.errors import Outcome, Retry, StateConflictError
from services.edge.rest.written_behind import WrittenBehind
from services.edge.store import EdgeStore, JournalEntry
from tests.integration.edge.conftest import IDS, Edge

USD = {"currency_code": "USD", "amount_minor": 100}
OPERATOR = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ada", roles=("operator",)),
    caller="cli",
)


async def story(
    edge: Edge, until: Callable[[Sequence[StoryItem]], bool], **asked: Any
) -> ListStoryResponse:
    """Ask for a story until it is as it should be: the journal is written behind the answers."""
    stub: Any = EdgeServiceStub(edge.kit.channel("operator", "edge"))
    async with asyncio.timeout(20):
        while True:
            with bound(OPERATOR):
                told: ListStoryResponse = await stub.ListStory(ListStoryRequest(**asked))
            if until(told.items):
                return told
            await asyncio.sleep(0.02)


async def test_a_request_and_its_repeat_are_found_by_story_number_and_key(edge: Edge) -> None:
    key = IDS.new("idk")
    content = {"merchant_order_no": "n1", "amount": USD, "metadata": {"note": "4111111111111111"}}

    first = await edge.post("/v1/orders", content, key=key)
    again = await edge.post("/v1/orders", content, key=key)
    biz_trace_id = first.headers["paymesh-biz-trace-id"]
    told = await story(edge, lambda items: len(items) == 2, biz_trace_id=biz_trace_id)

    assert [item.summary for item in told.items] == [
        "POST /v1/orders → 200",
        "POST /v1/orders → 200 (replayed)",
    ]
    assert [item.subject for item in told.items] == [
        f"request {reply.headers['paymesh-request-id']}" for reply in (first, again)
    ]
    assert {item.kind for item in told.items} == {"request"}
    assert told.items[0].details["noun_id"] == first.json["order"]["id"]
    assert told.items[0].details["merchant_id"] == edge.merchant_id
    assert "4111" not in str(told)
    assert key not in str(told)
    for subject_id in (key, again.headers["paymesh-request-id"]):
        found = await story(edge, lambda items: len(items) == 2, subject_id=subject_id)
        assert found == told


async def test_a_refused_request_is_found_by_its_number_and_its_noun(edge: Edge) -> None:
    async def refuse(request: CreateOrderRequest) -> CreateOrderResponse:
        raise StateConflictError(
            resource="order", state="CLOSED", outcome=Outcome.NOT_EXECUTED, retry=Retry.NEVER
        )

    edge.behind.create_order = refuse
    refused = await edge.post("/v1/orders", {"merchant_order_no": "n2", "amount": USD})
    edge.behind.create_order = None
    number = refused.headers["paymesh-request-id"]

    told = await story(edge, lambda items: len(items) == 1, subject_id=number)

    assert refused.status == 409
    assert [item.summary for item in told.items] == ["POST /v1/orders → 409 STATE_CONFLICT"]


async def test_reads_are_not_taken_down_and_callbacks_are(edge: Edge) -> None:
    read = await edge.get("/v1/orders")
    body = b"secret=4111111111111111"
    called = await edge.send("POST", "/callbacks/alipay_main?query=secret", body)
    numbers = [reply.headers["paymesh-request-id"] for reply in (read, called)]

    told = await story(edge, bool, biz_trace_id="biz_any", related_ids=numbers)
    digest = hashlib.sha256(body).hexdigest()
    by_body = await story(edge, bool, biz_trace_id="biz_any", related_ids=[digest])

    assert [(item.kind, item.summary) for item in told.items] == [
        ("callback", "POST /callbacks/alipay_main → 200")
    ]
    assert told.items[0].details["channel"] == "alipay_main"
    assert told.items[0].details["body_sha256"] == digest
    assert by_body == told
    assert "secret" not in str(told)
    assert "4111" not in str(told)


async def test_old_days_go_and_days_ahead_come(edge: Edge) -> None:
    store = EdgeStore(await edge.kit.pool("edge"), "default")
    now = edge.kit.clock.now()
    entries = [_entry(now - timedelta(days=age)) for age in (0, 1, 50)]
    await store.add_entries(entries)
    await store.add_entries(entries)

    await store.keep_partitions(35)
    await store.keep_partitions(35)

    async with store.pool.acquire() as connection:
        rows = await connection.fetch(
            "SELECT request_id FROM requests WHERE request_id = ANY ($1::text[]) "
            "ORDER BY began_at DESC",
            [one.request_id for one in entries],
        )
        days = await connection.fetchval(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'requests'::regclass"
        )
    assert [row["request_id"] for row in rows] == [one.request_id for one in entries[:2]]
    assert days >= 5


async def test_an_entry_that_can_never_be_written_holds_up_no_other(edge: Edge) -> None:
    """Its values are refused, by the server, its index or the driver: it alone is dropped."""
    store = EdgeStore(await edge.kit.pool("edge"), "default")
    good = [_entry(edge.kit.clock.now()) for _ in range(9)]
    bad = [
        replace(good[0], request_id=IDS.new("req"), reason="a\0b"),
        replace(good[0], request_id=IDS.new("req"), noun_id=secrets.token_hex(6000)),
        replace(good[0], request_id=IDS.new("req"), reason="\ud800"),
    ]
    refused: list[JournalEntry] = []
    rows: WrittenBehind[JournalEntry] = WrittenBehind(
        store.add_entries, waiting_max=100, name="entries", when_refused=refused.append
    )
    waiting = [*good[:4], bad[0], *good[4:6], bad[1], *good[6:], bad[2]]

    for row in waiting:
        assert rows.add(row)
    await rows.flush()

    assert refused == bad
    async with store.pool.acquire() as connection:
        written = await connection.fetchval(
            "SELECT count(*) FROM requests WHERE request_id = ANY ($1::text[])",
            [row.request_id for row in waiting],
        )
    assert written == len(good)


async def test_a_schema_that_is_not_right_loses_no_entry(edge: Edge) -> None:
    """What is wrong with the database and not with the rows is waited for."""
    rows: WrittenBehind[str] = WrittenBehind(_write_nowhere(edge), waiting_max=9, name="entries")
    rows.add("one")
    for _ in range(2):
        with pytest.raises(asyncpg.UndefinedTableError):
            await rows.flush()


def _write_nowhere(edge: Edge) -> Callable[[Sequence[str]], Awaitable[None]]:
    async def write(_: Sequence[str]) -> None:
        pool = await edge.kit.pool("edge")
        async with pool.acquire() as connection:
            await connection.execute("SELECT nothing FROM nowhere")

    return write


def _entry(at: Any) -> JournalEntry:
    return JournalEntry(
        began_at=at,
        ended_at=at,
        http_status=200,
        replayed=False,
        request_id=IDS.new("req"),
        kind="request",
        route="POST /v1/orders",
        mode="TEST",
        merchant_id="mer_1",
        key_id="key_1",
        channel="",
        idempotency_key_hash=b"",
        noun_id="",
        biz_trace_id="",
        reason="",
    )


async def test_what_is_no_id_is_not_taken_down_and_holds_up_no_other(edge: Edge) -> None:
    """What a caller writes where an id belongs may be too long for any index."""
    long = secrets.token_hex(6000)
    order = {"merchant_order_no": "n3", "amount": USD, "biz_trace_id": long}
    refund = {"order_id": long, "merchant_refund_no": "n4", "amount": USD}
    strange = [
        await edge.post("/v1/orders", order),
        await edge.post("/v1/refunds", refund),
    ]
    good = await edge.post("/v1/orders", {"merchant_order_no": "n5", "amount": USD})

    for reply in (*strange, good):
        number = reply.headers["paymesh-request-id"]
        told = await story(edge, lambda items: len(items) == 1, subject_id=number)
        assert f"→ {reply.status}" in told.items[0].summary
        assert long not in str(told)
