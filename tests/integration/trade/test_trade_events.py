"""Over the real broker: a booked payment completes its order and clears, whatever is repeated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hosted_services import HostedKit, hosting, until
from paymesh.trade.v1 import ORDER_STATE_COMPLETED
from trade_kit import TradeKit, wirings_and_plays

from common.background import BackgroundRunner
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.events.relay import Relay


@pytest.fixture(scope="module")
async def running(database_url: str, amqp_url: str, amqp_namespace: str) -> AsyncIterator[TradeKit]:
    """Trade and settlement with all that runs beside them."""
    script, wirings, plays = wirings_and_plays()
    async with hosting(
        database_url, wirings, plays, amqp_url=amqp_url, amqp_namespace=amqp_namespace
    ) as kit:
        # Both queues before the first event: the broker keeps for late ones only what nobody heard.
        for service in kit.services:
            for declare in service.declare:
                await declare()
        runner = BackgroundRunner(kit.services, stop_seconds=5)
        runner.start()
        try:
            yield TradeKit.of(kit, script)
        finally:
            await runner.stop()


async def tell(kit: HostedKit, events: list[NewEvent]) -> None:
    """Publish events as payment's relay would; its outbox is played by settlement's."""
    outbox = Outbox()
    pool = kit.pools["settlement"]
    async with pool.transaction() as connection:
        await outbox.add(connection, events)
    await Relay(pool, kit.broker, outbox, "test").flush()


async def test_booked_payments_complete_orders_and_clear(running: TradeKit) -> None:
    running.merchant_id = running.kit.ids.new("mer")
    orders = await asyncio.gather(*(running.create(running.new_order()) for _ in range(30)))
    payments = [running.new_payment_id() for _ in orders]
    won = await asyncio.gather(
        *(running.claim(order.id, one) for order, one in zip(orders, payments, strict=True))
    )
    assert all(won)
    events = [running.succeeded(order, one) for order, one in zip(orders, payments, strict=True)]
    await tell(running.kit, events)
    await tell(running.kit, events[:10])

    async def all_done() -> bool:
        after = await asyncio.gather(*(running.get(order.id) for order in orders))
        return all(order.state == ORDER_STATE_COMPLETED for order in after)

    async def all_cleared() -> bool:
        rows = await running.kit.rows(
            "settlement",
            "SELECT count(*) AS n, sum(net_minor) AS net FROM clearing_entries "
            "WHERE merchant_id = $1",
            running.merchant_id,
        )
        return rows[0]["n"] == 30 and rows[0]["net"] == 30 * (1200 - 7)

    async def all_told() -> bool:
        rows = await running.kit.rows(
            "trade",
            "SELECT count(*) AS n FROM outbox WHERE merchant_id = $1 "
            "AND type = 'trade.order.completed.v1' AND published_at IS NOT NULL",
            running.merchant_id,
        )
        return rows[0]["n"] == 30

    for condition in (all_done, all_cleared, all_told):
        await until(condition)
