"""Broker and database are killed in mid-work: nothing is lost, nothing takes effect twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aio_pika.abc import AbstractExchange

from common.db.pool import Pool
from common.db.types import Connection
from common.embedded.cluster import Servers
from common.events.broker import BROKER_ERRORS, Broker
from common.events.consumer import Consumer, QueueSilentError
from common.events.event import Event
from common.events.inbox import Order
from common.events.outbox import Outbox
from common.events.relay import Relay
from tests.conftest import StartServers
from tests.integration.events.conftest import (
    effects_of,
    new_event,
    note_effects,
    open_shop,
    running,
    until,
)


@pytest.fixture(scope="module")
async def own_servers(start_servers: StartServers) -> Servers:
    return await start_servers("postgres", "amqp")


@pytest.fixture
async def shop(own_servers: Servers) -> AsyncIterator[Pool]:
    pool = await open_shop(own_servers.postgres_url)
    async with pool.acquire() as connection:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS effects (event_id text, aggregate_id text, "
            "version bigint, position bigint GENERATED ALWAYS AS IDENTITY)"
        )
    yield pool
    pool.terminate()


@pytest.fixture
async def broker(own_servers: Servers) -> AsyncIterator[Broker]:
    one = Broker(own_servers.amqp_url, name="fault test")
    yield one
    await one.close()


def consumer_of(pool: Pool, broker: Broker, queue: str, key: str) -> Consumer:
    return Consumer(
        pool=pool,
        broker=broker,
        queue=queue,
        bindings=[key],
        handler=note_effects,
        order=Order.NEXT,
        prefetch=4,
    )


async def sell(pool: Pool, outbox: Outbox, prefix: str, key: str, versions: Sequence[int]) -> None:
    for version in versions:
        async with pool.transaction() as connection:
            await outbox.add(
                connection, [new_event(f"{prefix}_{n}", version, key) for n in range(20)]
            )
        outbox.notify()


async def assert_each_once_and_in_order(pool: Pool, prefix: str, versions: int) -> None:
    names = [f"{prefix}_{n}" for n in range(20)]

    async def all_there() -> bool:
        return len(await effects_of(pool, *names)) >= 20 * versions

    await until(all_there, 90)
    for name in names:
        assert await effects_of(pool, name) == [(name, v) for v in range(1, versions + 1)]


async def test_killing_the_broker_in_mid_work_loses_and_doubles_nothing(
    own_servers: Servers, shop: Pool, broker: Broker
) -> None:
    outbox = Outbox()
    consumer = consumer_of(shop, broker, "killed.broker", "shop.kill.a.v1")
    relay = Relay(shop, broker, outbox)
    await consumer.declare()
    async with running(relay.run, consumer.run):
        await sell(shop, outbox, "kill", "shop.kill.a.v1", range(1, 20))
        selling = asyncio.create_task(sell(shop, outbox, "kill", "shop.kill.a.v1", range(20, 120)))
        await own_servers.kill("amqp")
        await selling
        await own_servers.restart("amqp")
        await sell(shop, outbox, "kill", "shop.kill.a.v1", range(120, 130))
        await assert_each_once_and_in_order(shop, "kill", 129)


async def test_killing_the_database_in_mid_work_loses_and_doubles_nothing(
    own_servers: Servers, shop: Pool, broker: Broker
) -> None:
    outbox = Outbox()
    consumer = consumer_of(shop, broker, "killed.database", "shop.base.a.v1")
    relay = Relay(shop, broker, outbox)
    async with running(relay.run, consumer.run):
        await sell(shop, outbox, "base", "shop.base.a.v1", range(1, 60))
        await own_servers.kill("postgres")
        await own_servers.restart("postgres")
        await sell(shop, outbox, "base", "shop.base.a.v1", range(60, 70))
        await assert_each_once_and_in_order(shop, "base", 69)


async def test_killing_the_broker_just_after_a_queue_was_made_keeps_the_queue(
    own_servers: Servers, shop: Pool, broker: Broker
) -> None:
    outbox = Outbox()
    consumer = consumer_of(shop, broker, "just.made", "shop.made.a.v1")
    await consumer.declare()
    await sell(shop, outbox, "made", "shop.made.a.v1", [1])
    await Relay(shop, broker, outbox).publish_round()
    await own_servers.kill("amqp")
    await own_servers.restart("amqp")
    async with running(consumer.run):
        await assert_each_once_and_in_order(shop, "made", 1)


async def test_a_declaration_that_was_broken_off_still_fetches_what_was_missed(
    shop: Pool, broker: Broker
) -> None:
    outbox = Outbox()
    await sell(shop, outbox, "broken", "shop.broken.a.v1", [1])
    await Relay(shop, broker, outbox).publish_round()
    consumer = consumer_of(shop, broker, "broken.off", "shop.broken.a.v1")
    await consumer._declare_queue()
    async with running(consumer.run):
        await assert_each_once_and_in_order(shop, "broken", 1)


async def test_a_crash_between_publish_and_mark_tells_again_and_takes_effect_once(
    shop: Pool, broker: Broker
) -> None:
    """The relay is stopped after every confirm and before every mark, five times."""

    class Crashing(Relay):
        async def _mark(self, rows: Sequence[Any]) -> None:
            raise ZeroDivisionError("kill -9 would be here")

    outbox = Outbox()
    heard: list[str] = []

    async def note(connection: Connection, events: Sequence[Event]) -> None:
        heard.extend(event.event_id for event in events)
        await note_effects(connection, events)

    consumer = Consumer(
        pool=shop, broker=broker, queue="marked", bindings=["shop.mark.a.v1"], handler=note
    )
    await consumer.declare()
    await sell(shop, outbox, "mark", "shop.mark.a.v1", [1])
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await Crashing(shop, broker, outbox).publish_round()
    assert await Relay(shop, broker, outbox).publish_round() == 20
    channel = await broker.channel()
    queue = await channel.get_queue(broker.full_name("marked"))
    assert (await queue.declare()).message_count == 6
    async with running(consumer.run):
        await assert_each_once_and_in_order(shop, "mark", 1)

        async def is_empty() -> bool:
            return (await queue.declare()).message_count == 0

        await until(is_empty)
    assert len(heard) == 20
    await channel.close()


async def test_a_refused_envelope_waits_and_the_others_are_marked(
    shop: Pool, broker: Broker
) -> None:
    class Refusing(Relay):
        async def _publish(self, exchange: AbstractExchange, envelope: Any) -> None:
            if envelope.type == "shop.refused.b.v1":
                raise ConnectionError("no confirm")
            await super()._publish(exchange, envelope)

    outbox = Outbox()
    async with shop.transaction() as connection:
        await outbox.add(
            connection,
            [new_event("ref_1", 1, f"shop.refused.{kind}.v1") for kind in ("a", "b", "c")],
        )
    with pytest.raises(ConnectionError):
        await Refusing(shop, broker, outbox).publish_round()
    async with shop.acquire() as connection:
        rows = await connection.fetch("SELECT type FROM outbox WHERE published_at IS NULL")
    assert [row["type"] for row in rows] == ["shop.refused.b.v1"]
    assert await Relay(shop, broker, outbox).flush() == 1


async def test_a_stalled_broker_delays_events_and_stops_nobody(
    own_servers: Servers, shop: Pool, broker: Broker
) -> None:
    outbox = Outbox()
    consumer = consumer_of(shop, broker, "stalled", "shop.stall.a.v1")
    async with running(Relay(shop, broker, outbox).run, consumer.run):
        await sell(shop, outbox, "stall", "shop.stall.a.v1", [1])
        await assert_each_once_and_in_order(shop, "stall", 1)
        await own_servers.pause("amqp")
        try:
            async with asyncio.timeout(10):
                await sell(shop, outbox, "stall", "shop.stall.a.v1", range(2, 6))
        finally:
            await own_servers.resume("amqp")
        await assert_each_once_and_in_order(shop, "stall", 5)


async def test_a_queue_that_does_not_answer_is_named_with_what_to_do(
    own_servers: Servers, shop: Pool, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was lost in a crash of the broker, which stays silent for ever."""
    monkeypatch.setattr("common.events.consumer._QUEUE_SILENCE_SECONDS", 0.5)
    silent = consumer_of(shop, broker, "silent", "shop.silent.a.v1")
    await broker.channel()
    await own_servers.pause("amqp")
    try:
        with pytest.raises(QueueSilentError, match="delete_queue"):
            await silent.declare()
    finally:
        await own_servers.resume("amqp")


async def test_reaching_an_absent_broker_fails_as_such() -> None:
    with pytest.raises(BROKER_ERRORS):
        await Broker("amqp://a:b@127.0.0.1:1/").channel()
