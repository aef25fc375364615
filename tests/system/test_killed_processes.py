"""kill -9 of any process or server while purchases are under way: nothing is lost, all ends."""

from __future__ import annotations

import asyncio

import pytest

from common.embedded.cluster import ServerName
from tests.system.battered import Battered

SERVICES = (
    "payment",
    "account",
    "channel",
    "trade",
    "edge",
    "sandbox",
    "notify",
    "risk",
    "routing",
    "settlement",
    "member",
)
# The others take the same ways; they are killed by the long tests, and by `make chaos`.
QUICK = ("payment", "channel")
SERVERS: tuple[ServerName, ...] = ("postgres", "redis", "amqp")


@pytest.mark.parametrize(
    "service",
    [pytest.param(one, marks=() if one in QUICK else pytest.mark.long) for one in SERVICES],
)
async def test_killing_a_process_under_load_loses_nothing(battered: Battered, service: str) -> None:
    supervisor = battered.platform.deployment.supervisor
    restarts = supervisor.restarts(service)

    async def kill() -> None:
        await supervisor.kill(service)

    await battered.shop_while(kill)
    await battered.wait_serving()
    assert supervisor.restarts(service) == restarts + 1
    await battered.check()


@pytest.mark.parametrize(
    "server", ["postgres", *(pytest.param(one, marks=pytest.mark.long) for one in SERVERS[1:])]
)
async def test_killing_a_server_under_load_loses_nothing(
    battered: Battered, server: ServerName
) -> None:
    servers = battered.platform.deployment.servers

    async def kill() -> None:
        await servers.kill(server)
        await servers.restart(server)

    await battered.shop_while(kill)
    await battered.wait_serving()
    await battered.check()


@pytest.mark.long
async def test_killing_everything_one_after_the_other_loses_nothing(battered: Battered) -> None:
    deployment = battered.platform.deployment

    async def kill_all() -> None:
        for service in SERVICES:
            await deployment.supervisor.kill(service)
            await asyncio.sleep(0.5)  # so that several are away at a time, not all
        for server in SERVERS:
            await deployment.servers.kill(server)
            await deployment.servers.restart(server)

    await battered.shop_while(kill_all, purchases=48)
    await battered.wait_serving()
    await battered.check()
