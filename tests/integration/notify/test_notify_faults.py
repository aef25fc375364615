"""PostgreSQL is killed while webhooks are sent: sending waits, and every webhook arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from notify_kit import FOLDER, MakeKit, Receiver, running, until

from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.embedded.cluster import Servers
from services.notify.domain.deliveries import DeliveryState

WEBHOOKS = 200


@pytest.fixture(scope="module")
async def own_servers(start_servers: Any) -> Servers:
    servers: Servers = await start_servers("postgres")
    return servers


@pytest.fixture(scope="module")
async def pool(own_servers: Servers) -> AsyncIterator[Pool]:
    url = await prepare_schema(own_servers.postgres_url, "notify")
    await migrate(url, "notify", {"notify": FOLDER / "migrations"})
    one = await open_pool(url, SessionSettings("notify"), connections_max=6)
    yield one
    one.terminate()


async def test_killing_the_database_in_mid_sending_loses_no_webhook(
    own_servers: Servers, new_kit: MakeKit, receiver: Receiver
) -> None:
    kit = new_kit(attempt_timeout_seconds=1, lease_seconds=2)
    await kit.add_endpoint(receiver.url)
    await kit.hear(*(kit.completed() for _ in range(WEBHOOKS)))
    killed = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        if len(receiver.heard) == 20:
            await own_servers.kill("postgres")
            killed.set()
        return web.Response(status=200)

    receiver.respond = respond
    async with running(kit.sender):
        await asyncio.wait_for(killed.wait(), 30)
        await own_servers.restart("postgres")

        async def all_delivered() -> bool:
            try:
                states = [one.state for one in await kit.deliveries()]
            except Exception:  # noqa: BLE001 - connections of before the kill
                return False
            return states == [DeliveryState.DELIVERED] * WEBHOOKS

        await until(all_delivered, 60)
    assert len({heard.webhook_id for heard in receiver.heard}) == WEBHOOKS
