"""A service's schema and a broker, for tests of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest

from common.backoff import Backoff
from common.clock import SystemClock
from common.context import ActorType, Mode, Principal
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.db.types import Connection
from common.events.broker import DEAD, EXCHANGE, UNROUTED, Broker
from common.events.consumer import Consumer, Handler
from common.events.event import Event, NewEvent
from common.events.inbox import Order
from common.ids import IdFactory

IDS = IdFactory(SystemClock())
PRINCIPAL = Principal(
    tenant_id="t1",
    mode=Mode.TEST,
    merchant_id="mer_1",
    actor_type=ActorType.MERCHANT,
    actor_id="key_1",
    on_behalf_of="usr_1",
)


def new_event(
    aggregate_id: str, version: int, kind: str = "shop.order.paid.v1", payload: bytes = b"facts"
) -> NewEvent:
    return NewEvent(
        event_id=IDS.new("evt"),
        type=kind,
        aggregate_id=aggregate_id,
        aggregate_version=version,
        payload=payload,
        principal=PRINCIPAL,
        occurred_at=datetime.now(UTC),
        biz_trace_id=f"biz_{aggregate_id}",
    )


def heard(event: NewEvent) -> Event:
    fields = {name: getattr(event, name) for name in NewEvent.__slots__}
    return Event(**fields, recorded_at=datetime.now(UTC))


async def until(condition: Callable[[], Awaitable[Any] | Any], timeout_seconds: float = 30) -> None:
    """Poll until the condition holds."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run endless works beside a block."""

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        await work()

    tasks = [asyncio.create_task(run(work)) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def open_shop(url: str, schema: str = "shop") -> Pool:
    own = await prepare_schema(url, schema)
    await migrate(own, schema)
    return await open_pool(own, SessionSettings(schema), connections_max=8)


class MakeConsumer(Protocol):
    """Makes a consumer whose queues are deleted at the module's end."""

    def __call__(
        self,
        queue: str,
        handler: Handler,
        *,
        bindings: Sequence[str] = ...,
        order: Order = ...,
        attempts_max: int = ...,
        gap_seconds_max: float = ...,
        broker: Broker | None = ...,
        pool: Pool | None = ...,
    ) -> Consumer:
        """Short pauses and few attempts, so that tests end."""
        ...


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[Pool]:
    one = await open_shop(database_url)
    async with one.acquire() as connection:
        await connection.execute(
            "CREATE TABLE effects (event_id text, aggregate_id text, version bigint, "
            "position bigint GENERATED ALWAYS AS IDENTITY)"
        )
    yield one
    await one.close()


@pytest.fixture(scope="module")
async def broker(amqp_url: str, amqp_namespace: str) -> AsyncIterator[Broker]:
    one = Broker(amqp_url, namespace=amqp_namespace, name="test")
    yield one
    channel = await one.channel()
    await channel.queue_delete(one.full_name(UNROUTED))
    for exchange in (EXCHANGE, UNROUTED, DEAD):
        await channel.exchange_delete(one.full_name(exchange))
    await one.close()


@pytest.fixture(scope="module")
async def make_consumer(pool: Pool, broker: Broker) -> AsyncIterator[MakeConsumer]:
    names: list[str] = []
    own_pool, own_broker = pool, broker

    def make(
        queue: str,
        handler: Handler,
        *,
        bindings: Sequence[str] = ("shop.order.*.v1",),
        order: Order = Order.ANY,
        attempts_max: int = 3,
        gap_seconds_max: float = 3600,
        broker: Broker | None = None,
        pool: Pool | None = None,
    ) -> Consumer:
        if broker is None:
            names.append(queue)
        return Consumer(
            pool=pool or own_pool,
            broker=broker or own_broker,
            queue=queue,
            bindings=bindings,
            handler=handler,
            order=order,
            attempts_max=attempts_max,
            attempt_backoff=Backoff(first_seconds=0.05, longest_seconds=0.05),
            gap_seconds_max=gap_seconds_max,
        )

    yield make
    channel = await broker.channel()
    for name in names:
        await channel.queue_delete(broker.full_name(name))
        await channel.queue_delete(broker.full_name(f"{name}.dead"))
    await channel.close()


async def note_effects(connection: Connection, events: Sequence[Event]) -> None:
    """A handler whose effect is a row for each event."""
    await connection.execute(
        "INSERT INTO effects (event_id, aggregate_id, version) "
        "SELECT e, a, v FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (e, a, v)",
        [event.event_id for event in events],
        [event.aggregate_id for event in events],
        [event.aggregate_version for event in events],
    )


async def effects_of(pool: Pool, *aggregate_ids: str) -> list[tuple[str, int]]:
    async with pool.acquire() as connection:
        rows = await connection.fetch(
            "SELECT aggregate_id, version FROM effects WHERE aggregate_id = ANY ($1) "
            "ORDER BY position",
            list(aggregate_ids),
        )
    return [(row["aggregate_id"], row["version"]) for row in rows]
