"""Events are told at least once, whatever dies, and their rows are the truth of it."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue

from common.db.pool import Pool
from common.events.broker import UNROUTED, Broker
from common.events.event import Event, envelope_from_bytes, event_from_proto
from common.events.outbox import Outbox
from common.events.relay import Relay, fill_envelopes
from tests.integration.events.conftest import new_event, running, until


async def read_all(queue: AbstractQueue) -> list[list[Event]]:
    envelopes = []
    while (message := await queue.get(fail=False, timeout=5)) is not None:
        envelopes.append([event_from_proto(one) for one in envelope_from_bytes(message.body)])
        await message.ack()
    return envelopes


async def waiting(pool: Pool) -> int:
    async with pool.acquire() as connection:
        return int(
            await connection.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
        )


async def listen(broker: Broker, channel: AbstractChannel, binding: str) -> AbstractQueue:
    exchange = await broker.declare_exchange(channel)
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(exchange, routing_key=binding)
    return queue


async def test_a_written_event_arrives_as_it_was(pool: Pool, broker: Broker) -> None:
    outbox = Outbox()
    relay = Relay(pool, broker, outbox, "one")
    channel = await broker.channel()
    queue = await listen(broker, channel, "shop.order.*.v1")
    event = new_event("ord_1", 1)
    async with pool.transaction() as connection:
        await outbox.add(connection, [event])
    assert await relay.publish_round() == 1
    ((arrived,),) = await read_all(queue)
    for name in type(event).__slots__:
        assert getattr(arrived, name) == getattr(event, name), name
    assert arrived.recorded_at.year >= 2024
    assert arrived.business_date is None
    assert await waiting(pool) == 0
    await channel.close()


async def test_an_undone_transaction_tells_nothing(pool: Pool, broker: Broker) -> None:
    outbox = Outbox()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is the case
        async with pool.transaction() as connection:
            await outbox.add(connection, [new_event("ord_2", 1)])
            raise ZeroDivisionError
    assert await Relay(pool, broker, outbox, "one").publish_round() == 0


async def test_a_late_commit_with_a_smaller_position_is_told_too(
    pool: Pool, broker: Broker
) -> None:
    """Positions become visible in the order of commits; a remembered position would skip one."""
    outbox = Outbox()
    relay = Relay(pool, broker, outbox, "one")
    channel = await broker.channel()
    queue = await listen(broker, channel, "shop.late.*.v1")
    async with pool.transaction() as slow:
        await outbox.add(slow, [new_event("late_slow", 1, "shop.late.paid.v1")])
        async with pool.transaction() as quick:
            await outbox.add(quick, [new_event("late_quick", 1, "shop.late.paid.v1")])
        assert await relay.publish_round() == 1
    assert await relay.publish_round() == 1
    told = [one.aggregate_id for envelope in await read_all(queue) for one in envelope]
    assert told == ["late_quick", "late_slow"]
    await channel.close()


async def test_a_notification_wakes_the_relay(pool: Pool, broker: Broker) -> None:
    outbox = Outbox()
    relay = Relay(pool, broker, outbox, "woken")
    async with running(relay.run):
        for number in range(3):
            async with pool.transaction() as connection:
                await outbox.add(connection, [new_event(f"woken_{number}", 1)])
            outbox.notify()
            await until(lambda: _none_waiting(pool))


async def _none_waiting(pool: Pool) -> bool:
    return await waiting(pool) == 0


async def test_what_nobody_listens_to_is_kept_by_the_broker(pool: Pool, broker: Broker) -> None:
    outbox = Outbox()
    relay = Relay(pool, broker, outbox, "one")
    channel = await broker.channel()
    await broker.declare_exchange(channel)
    unrouted = await channel.get_queue(broker.full_name(UNROUTED))
    await unrouted.purge()
    async with pool.transaction() as connection:
        await outbox.add(connection, [new_event("lonely", 1, "shop.nobody.listens.v1")])
    assert await relay.publish_round() == 1
    ((kept,),) = await read_all(unrouted)
    assert kept.aggregate_id == "lonely"
    await channel.close()


async def test_of_two_relays_one_works_and_the_other_takes_over(pool: Pool, broker: Broker) -> None:
    first, second = Outbox(), Outbox()
    relays = [Relay(pool, broker, first, "first"), Relay(pool, broker, second, "second")]
    channel = await broker.channel()
    queue = await listen(broker, channel, "shop.shared.*.v1")
    async with running(*(relay.run for relay in relays)) as tasks:
        for number in range(20):
            async with pool.transaction() as connection:
                await first.add(
                    connection, [new_event(f"shared_{number}", 1, "shop.shared.paid.v1")]
                )
            first.notify()
            second.notify()
        await until(lambda: _none_waiting(pool))
        async with pool.acquire() as connection:
            holder = await connection.fetchval("SELECT holder FROM leases WHERE name = 'relay'")
        tasks[0 if holder.startswith("first") else 1].cancel()
        async with pool.transaction() as connection:
            await first.add(connection, [new_event("shared_20", 1, "shop.shared.paid.v1")])
        await until(lambda: _none_waiting(pool))
    told = [one.aggregate_id for envelope in await read_all(queue) for one in envelope]
    assert sorted(told) == sorted(f"shared_{number}" for number in range(21))
    await channel.close()


async def test_a_stolen_lease_tells_twice_and_loses_nothing(pool: Pool, broker: Broker) -> None:
    """Two relays that both believe to hold the lease: at least once, never less."""
    outbox = Outbox()
    relays = [Relay(pool, broker, outbox, f"thief_{number}") for number in range(2)]
    channel = await broker.channel()
    queue = await listen(broker, channel, "shop.stolen.*.v1")
    events = [new_event(f"stolen_{number}", 1, "shop.stolen.paid.v1") for number in range(300)]
    async with pool.transaction() as connection:
        await outbox.add(connection, events)
    await asyncio.gather(*(relay.publish_round() for relay in relays))
    told = [one.event_id for envelope in await read_all(queue) for one in envelope]
    assert set(told) == {event.event_id for event in events}
    assert await waiting(pool) == 0
    await channel.close()


async def test_many_events_travel_in_few_messages_in_each_aggregates_order(
    pool: Pool, broker: Broker
) -> None:
    outbox = Outbox()
    relay = Relay(pool, broker, outbox, "one")
    channel = await broker.channel()
    queue = await listen(broker, channel, "shop.many.*.v1")
    events = [
        new_event(f"many_{aggregate}", version, f"shop.many.step{version % 2}.v1")
        for version in range(1, 6)
        for aggregate in range(200)
    ]
    async with pool.transaction() as connection:
        await outbox.add(connection, events)
    assert await relay.publish_round() == 1000
    envelopes = await read_all(queue)
    assert len(envelopes) == 5
    for aggregate in range(200):
        versions = [
            one.aggregate_version
            for envelope in envelopes
            for one in envelope
            if one.aggregate_id == f"many_{aggregate}"
        ]
        assert versions == [1, 2, 3, 4, 5]
    await channel.close()


async def test_an_event_that_is_too_large_is_refused_before_it_is_written(pool: Pool) -> None:
    with pytest.raises(ValueError, match="bytes long"):
        async with pool.transaction() as connection:
            await Outbox().add(connection, [new_event("huge", 1, payload=b"x" * (1 << 20))])


async def test_partitions_are_made_ahead_and_dropped_once_told_and_old(pool: Pool) -> None:
    async with pool.transaction() as connection:
        today: date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
        old = f"outbox_{today.replace(year=today.year - 1, day=1):%Y%m%d}"
        first = f"{today.replace(year=today.year - 1, day=1)}"
        await connection.execute(
            f"CREATE TABLE {old} PARTITION OF outbox FOR VALUES FROM ('{first} 00:00+00') "
            f"TO ('{first} 23:59+00')"
        )
        assert await connection.fetchval("SELECT outbox_make_partitions(5)") == 2
        assert await connection.fetchval("SELECT outbox_make_partitions(5)") == 0
        await connection.execute(
            "INSERT INTO outbox (recorded_at, event_id, type, aggregate_id, aggregate_version, "
            "tenant_id, mode, merchant_id, biz_trace_id, body) "
            "VALUES ($1::date + interval '12 hours', 'e', 't', 'a', 1, '', '', '', '', '')",
            today.replace(year=today.year - 1, day=1),
        )
        assert await connection.fetchval("SELECT outbox_drop_partitions(7)") == 0
        await connection.execute("UPDATE outbox SET published_at = now() WHERE event_id = 'e'")
        assert await connection.fetchval("SELECT outbox_drop_partitions(7)") == 1


def test_envelopes_never_overtake_within_an_aggregate() -> None:
    """X1 (a), X2 (b), X3 (a): the third may not join the envelope of the first."""

    def row(kind: str, aggregate: str, size: int = 1) -> Any:
        return {"type": kind, "aggregate_id": aggregate, "body": b"x" * size}

    rows = [row("a", "X"), row("b", "X"), row("a", "Y"), row("a", "X"), row("b", "Y")]
    filled = fill_envelopes(rows)
    assert [(one.type, [r["aggregate_id"] for r in one.rows]) for one in filled] == [
        ("a", ["X", "Y"]),
        ("b", ["X", "Y"]),
        ("a", ["X"]),
    ]
    large = fill_envelopes([row("a", str(n), 200_000) for n in range(3)])
    assert len(large) == 3
