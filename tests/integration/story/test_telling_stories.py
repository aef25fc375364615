"""The shared part of stories and facts, over real rows of the tables that every schema has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from paymesh.risk.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact, StoryItem

from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal, bound
from common.db.history import HistoryRow, add_history
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.errors import FieldInvalidError, PageTokenInvalidError, PermissionDeniedError
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.ids import IdFactory
from common.jobs.job import NewJob
from common.jobs.jobs import Jobs
from common.paging import PageTokens
from common.story import StoryTeller, page_facts

IDS = IdFactory(SystemClock())
TOKENS = PageTokens("secret")
OPERATOR = Principal("t1", actor_type=ActorType.OPERATOR, actor_id="ada")
AT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
# A service's own statement, of the form that common/story_queries.sql asks for.
STATEMENTS = {
    "list_story": """
        SELECT at, 'call' AS kind, 'order ' || id AS subject, 'CreateOrder' AS summary,
            jsonb_build_object('actor', actor, 'nothing', '') AS details
        FROM history
        WHERE biz_trace_id = $1 AND version = 1 AND at >= $2
        ORDER BY at FETCH FIRST ($3) ROWS WITH TIES""",
    "find_story": """
        SELECT biz_trace_id FROM jobs WHERE key = $1 AND tenant_id = $2 ORDER BY created_at DESC""",
    "find_story_thoroughly": """
        SELECT biz_trace_id FROM history WHERE reason = $1 AND $2 <> ''""",
    "list_related": """
        SELECT at, 'call' AS kind, 'order ' || id AS subject, reason AS summary,
            '{}'::jsonb AS details
        FROM history WHERE id = ANY ($1::text[])""",
}
TELLER = StoryTeller("shop", STATEMENTS)


@dataclass
class Rows:
    """Writes the rows that a service writes."""

    pool: Pool
    outbox: Outbox
    jobs: Jobs

    async def moves(
        self, biz_trace_id: str, noun_id: str, count: int, *, reason: str = "", apart: int = 1
    ) -> None:
        """Move a noun through `count` states, microseconds apart."""
        rows = [
            HistoryRow(
                noun="order",
                id=noun_id,
                version=version,
                from_state="" if version == 1 else f"S{version - 1}",
                to_state=f"S{version}",
                actor="MERCHANT:key_1",
                at=AT + timedelta(microseconds=apart * version),
                biz_trace_id=biz_trace_id,
                reason=reason,
                cause="req_1",
            )
            for version in range(1, count + 1)
        ]
        async with self.pool.transaction() as connection:
            await add_history(connection, rows)

    async def event(self, biz_trace_id: str) -> str:
        """Write an event that waits to be told; return its id."""
        event = NewEvent(
            event_id=IDS.new("evt"),
            type="shop.order.paid.v1",
            aggregate_id=IDS.new("trd"),
            aggregate_version=1,
            payload=b"4111111111111111",
            principal=OPERATOR,
            occurred_at=AT,
            biz_trace_id=biz_trace_id,
        )
        async with self.pool.transaction() as connection:
            await self.outbox.add(connection, [event])
        return event.event_id

    async def job(self, biz_trace_id: str, key: str) -> str:
        """Write an open job; return its id."""
        job = NewJob(
            job_id=IDS.new("job"),
            kind="shop.close",
            key=key,
            run_at=AT,
            principal=OPERATOR,
            biz_trace_id=biz_trace_id,
        )
        async with self.pool.transaction() as connection:
            await self.jobs.add(connection, [job])
        return job.job_id

    async def run(self, statement: str, *values: Any) -> None:
        """Change rows as another party of the platform would."""
        async with self.pool.acquire() as connection:
            await connection.execute(statement, *values)


@pytest.fixture(scope="module")
async def rows(database_url: str) -> AsyncIterator[Rows]:
    url = await prepare_schema(database_url, "shop")
    await migrate(url, "shop")
    pool = await open_pool(url, SessionSettings("shop"), connections_max=4)
    yield Rows(pool, Outbox(), Jobs())
    await pool.close()


@pytest.fixture(autouse=True)
def _operator() -> Iterator[None]:
    with bound(CallContext(principal=OPERATOR)):
        yield


async def tell(rows: Rows, teller: StoryTeller = TELLER, **asked: Any) -> ListStoryResponse:
    return await teller.tell(rows.pool, TOKENS, ListStoryRequest(**asked), ListStoryResponse)


async def read_whole(rows: Rows, story: str, page_size: int) -> list[StoryItem]:
    items: list[StoryItem] = []
    token = ""
    while True:
        page = await tell(rows, biz_trace_id=story, page_size=page_size, page_token=token)
        assert page.biz_trace_id == story
        assert len(page.items) <= page_size
        items += page.items
        token = page.next_page_token
        if not token:
            return items


async def test_telling_joins_what_every_schema_has_with_what_the_service_adds(rows: Rows) -> None:
    order = IDS.new("trd")
    await rows.moves("biz_joined", order, 2)
    event_id = await rows.event("biz_joined")
    job_id = await rows.job("biz_joined", order)

    told = await tell(rows, biz_trace_id="biz_joined")

    assert [(item.kind, item.subject, item.summary) for item in told.items] == [
        ("call", f"order {order}", "CreateOrder"),
        ("state", f"order {order}", "S1"),
        ("state", f"order {order}", "S1 → S2"),
        ("event", f"event {event_id}", "shop.order.paid.v1 waits to be told"),
        ("job", f"job {job_id}", f"shop.close of {order} begun"),
    ]
    assert {item.service for item in told.items} == {"shop"}
    assert dict(told.items[0].details) == {"actor": "MERCHANT:key_1"}
    assert told.items[0].occurred_at.ToDatetime(UTC) == AT + timedelta(microseconds=1)
    assert told.items[1].details["cause"] == "req_1"
    assert told.items[4].details["state"] == "OPEN"


async def test_what_was_told_and_what_ended_is_said(rows: Rows) -> None:
    event_id = await rows.event("biz_ended")
    job_id = await rows.job("biz_ended", "ended")
    await rows.run(
        "UPDATE outbox SET published_at = clock_timestamp() WHERE event_id = $1", event_id
    )
    await rows.run(
        "UPDATE jobs SET state = 'DONE', attempts = 3, ended_at = clock_timestamp(), "
        "last_error = 'card 4111111111111111 of postgresql://u:pass@db refused' WHERE job_id = $1",
        job_id,
    )

    told = await tell(rows, biz_trace_id="biz_ended")

    assert [item.summary for item in told.items] == [
        "shop.order.paid.v1 told",
        "shop.close of ended begun",
        "shop.close of ended done",
    ]
    done = told.items[2].details
    assert (done["state"], done["attempts"]) == ("DONE", "3")
    assert done["last_answer"] == "card ****1111 of postgresql://u:[redacted]@db refused"
    assert "4111" not in str(told)


@pytest.mark.parametrize("apart", [0, 1])
async def test_a_long_story_is_told_whole_in_pages(rows: Rows, apart: int) -> None:
    """Also when all of it happened at one instant."""
    story = f"biz_long_{apart}"
    await rows.moves(story, IDS.new("trd"), 25, apart=apart)
    at_once = (await tell(rows, biz_trace_id=story)).items
    assert len(at_once) == 26  # with the call
    for page_size in (1, 7, 26, 1000):
        assert await read_whole(rows, story, page_size) == list(at_once)


async def test_a_thousand_items_take_another_page_by_default(rows: Rows) -> None:
    await rows.moves("biz_huge", IDS.new("trd"), 1_100)
    first = await tell(rows, biz_trace_id="biz_huge")
    rest = await tell(rows, biz_trace_id="biz_huge", page_token=first.next_page_token)
    assert (len(first.items), len(rest.items), rest.next_page_token) == (1_000, 101, "")


async def test_a_token_of_another_story_is_refused(rows: Rows) -> None:
    await rows.moves("biz_mine", IDS.new("trd"), 3)
    token = (await tell(rows, biz_trace_id="biz_mine", page_size=1)).next_page_token
    with pytest.raises(PageTokenInvalidError):
        await tell(rows, biz_trace_id="biz_other", page_token=token)


async def test_a_story_is_found_by_noun_job_event_and_the_services_own_numbers(rows: Rows) -> None:
    order = IDS.new("trd")
    await rows.moves("biz_found", order, 1, reason="by-a-slow-number")
    numbers = [
        order,
        await rows.event("biz_found"),
        await rows.job("biz_found", "by-key"),
        "by-key",
    ]
    for number in numbers:
        assert (await tell(rows, subject_id=number)).biz_trace_id == "biz_found"
    assert (await tell(rows, subject_id="by-a-slow-number")).biz_trace_id == ""
    found = await tell(rows, subject_id="by-a-slow-number", thorough=True)
    assert found.biz_trace_id == "biz_found"
    for nothing in ("", "unknown", IDS.new("evt")):
        assert await tell(rows, subject_id=nothing, thorough=True) == ListStoryResponse()


async def test_a_number_of_several_stories_names_them_all(rows: Rows) -> None:
    for story in ("biz_one", "biz_two", "biz_three"):
        await rows.job(story, "shared-number")
        await rows.run(
            "UPDATE jobs SET state = 'DONE', ended_at = now() WHERE biz_trace_id = $1", story
        )
    told = await tell(rows, subject_id="shared-number")
    assert told.biz_trace_id == "biz_three"
    assert list(told.other_biz_trace_ids) == ["biz_two", "biz_one"]


async def test_related_ids_tell_who_heard_and_what_the_service_knows_alone(rows: Rows) -> None:
    order = IDS.new("trd")
    await rows.moves("", order, 1, reason="beside the story")
    taken, waiting, dead, other = (IDS.new("evt") for _ in range(4))
    for consumer in ("shop.first", "shop.second", "shop.third"):
        for event_id in (taken, other):
            await rows.run(
                "INSERT INTO inbox (consumer, event_id) VALUES ($1, $2)", consumer, event_id
            )
    await rows.run(
        "INSERT INTO inbox_parked (consumer, event_id, aggregate_id, aggregate_version, attempts, "
        "due_at, last_error, event) VALUES ('shop.first', $1, 'a', 2, 1, now(), 'a gap', '')",
        waiting,
    )
    await rows.run(
        "INSERT INTO inbox_dead (consumer, event_id, type, aggregate_id, aggregate_version, "
        "biz_trace_id, attempts, last_error, event) "
        "VALUES ('shop.first', $1, 't', 'a', 2, 'biz_dead', 5, 'broken', '')",
        dead,
    )

    told = await tell(rows, biz_trace_id="biz_any", related_ids=[taken, waiting, dead, order])

    assert sorted((item.subject, item.summary) for item in told.items) == sorted(
        [
            (f"event {taken}", "shop.first heard it"),
            (f"event {taken}", "shop.second heard it"),
            (f"event {taken}", "shop.third heard it"),
            (f"event {waiting}", "shop.first lets it wait"),
            (f"event {dead}", "shop.first could not handle it"),
            (f"order {order}", "beside the story"),
        ]
    )
    assert (await tell(rows, subject_id=dead)).biz_trace_id in ("", "biz_dead")
    assert await tell(rows, biz_trace_id="b", related_ids=["evt_none"]) == ListStoryResponse()


@pytest.mark.parametrize("actor", [ActorType.MERCHANT, ActorType.USER, ActorType.CHANNEL])
async def test_stories_and_facts_are_not_for_merchants(rows: Rows, actor: ActorType) -> None:
    with bound(CallContext(principal=Principal("t1", actor_type=actor))):
        with pytest.raises(PermissionDeniedError):
            await tell(rows, biz_trace_id="biz_joined")
        with pytest.raises(PermissionDeniedError):
            await facts(kind="number")


async def test_facts_are_paged_by_position_and_kind() -> None:
    keys: list[str] = []
    token = ""
    while True:
        page = await facts(kind="number", page_size=4, page_token=token)
        keys += [fact.key for fact in page.facts]
        token = page.next_page_token
        if not token:
            break
    assert keys == [f"key {number}" for number in range(10)]
    assert len((await facts(kind="number")).facts) == 10
    first = await facts(kind="number", page_size=4)
    with pytest.raises(PageTokenInvalidError):
        await facts(kind="other", page_token=first.next_page_token)
    with pytest.raises(FieldInvalidError, match="number, other"):
        await facts(kind="unknown")


async def facts(**asked: Any) -> ListFactsResponse:
    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        numbers = [number for number in range(10) if str(number) > after]
        return [(str(n), Fact(key=f"key {n}", kind=kind)) for n in numbers[:limit]]

    request = ListFactsRequest(**asked)
    return await page_facts("shop", TOKENS, request, ListFactsResponse, ("number", "other"), read)
