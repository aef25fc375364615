"""A process that is told that there is no broker lets events wait, and waits for nobody itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from common.background import BackgroundRunner
from common.db.pool import Pool
from common.db.types import Connection
from common.events.broker import NO_BROKER, Broker, BrokerAbsentError
from common.events.consumer import Consumer
from common.events.event import Event
from common.events.outbox import Outbox
from common.events.relay import Relay
from common.service import Background, Service
from tests.integration.events.conftest import new_event


async def _never(_: Connection, __: Sequence[Event]) -> None:
    raise AssertionError("nothing can be heard")


async def _days(pool: Pool) -> list[str]:
    """The partitions that there are for events, one a day."""
    query = "SELECT relname::text FROM pg_class WHERE relname ~ '^outbox_[0-9]{8}$' ORDER BY 1"
    async with pool.acquire() as connection:
        return [row[0] for row in await connection.fetch(query)]


async def test_process_without_a_broker_begins_at_once_and_lets_events_wait(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    broker, outbox = Broker(NO_BROKER), Outbox()
    relay = Relay(pool, broker, outbox, "alone")
    consumer = Consumer(
        pool=pool, broker=broker, queue="shop.sold", bindings=("shop.#",), handler=_never
    )
    service = Service(
        "shop",
        background=[
            Background("shop relay", relay.run, flush=relay.flush),
            Background("shop consumer", consumer.run),
        ],
        declare=[consumer.declare],
    )
    before = await _days(pool)
    async with pool.transaction() as connection:
        await connection.execute("DELETE FROM outbox")
        await connection.execute(f"DROP TABLE {before[-1]}")
        await outbox.add(connection, [new_event("ord_1", 1)])
    runner = BackgroundRunner([service], stop_seconds=5, broker=broker)
    async with asyncio.timeout(5):  # far below the patience for a broker that is away
        await runner.declare(60)
    runner.start()
    # Room for the events of days to come is made all the same.
    async with asyncio.timeout(30):
        while await _days(pool) != before:  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.02)
    await runner.stop()
    await runner.flush()
    async with pool.acquire() as connection:
        waiting = await connection.fetchval(
            "SELECT count(*) FROM outbox WHERE published_at IS NULL"
        )
    assert waiting == 1
    assert not [record for record in caplog.records if record.levelname != "INFO"]


async def test_opening_a_channel_without_a_broker_fails_as_one_that_is_away() -> None:
    with pytest.raises(BrokerAbsentError):
        await Broker(NO_BROKER).channel()
