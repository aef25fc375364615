"""Processes that stand still, servers that are away, restarts in turn: the others go on."""

from __future__ import annotations

import asyncio
import signal

import pytest

from common.embedded.cluster import ServerName
from tests.system.battered import Battered

STALL_SECONDS = 10.0


@pytest.mark.parametrize(
    "service",
    [
        "account",
        pytest.param("payment", marks=pytest.mark.long),
        pytest.param("channel", marks=pytest.mark.long),
        pytest.param("trade", marks=pytest.mark.long),
        pytest.param("notify", marks=pytest.mark.long),
        pytest.param("sandbox", marks=pytest.mark.long),
        pytest.param("edge", marks=pytest.mark.long),
    ],
)
async def test_a_process_that_stands_still_holds_nobody_for_good(
    battered: Battered, service: str
) -> None:
    supervisor = battered.platform.deployment.supervisor

    async def stall() -> None:
        await supervisor.kill(service, signal.SIGSTOP)
        try:
            await asyncio.sleep(STALL_SECONDS)  # the length of the stall is the case
        finally:
            await supervisor.kill(service, signal.SIGCONT)

    await battered.shop_while(stall)
    await battered.check()


async def test_a_database_that_stands_still_holds_nobody_for_good(battered: Battered) -> None:
    """Whoever asks meanwhile is answered, if only that it was too late; then all recovers."""
    servers = battered.platform.deployment.servers

    async def stall() -> None:
        order_id = battered.completed[0]
        await servers.pause("postgres")
        loop = asyncio.get_running_loop()
        until = loop.time() + STALL_SECONDS
        try:
            while loop.time() < until:
                # More than a request has at the edge, on a machine that has other work.
                async with asyncio.timeout(40):
                    await battered.platform.rest.send("GET", f"/v1/orders/{order_id}", None, "")
                await asyncio.sleep(0.5)
        finally:
            await servers.resume("postgres")

    await battered.shop_while(stall)
    await battered.wait_serving()
    assert battered.refused_for_good == []
    await battered.check()


@pytest.mark.parametrize("manner", ["stalled", "dead"])
@pytest.mark.parametrize("server", ["amqp", "redis"])
@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.long)])
async def test_payments_go_on_while_a_server_is_away(
    battered: Battered, server: ServerName, manner: str, seconds: float
) -> None:
    """Broker: events and webhooks wait. Redis: no counters, no nonces, by the stated policy."""
    servers = battered.platform.deployment.servers
    done = len(battered.completed)

    async def pay_without() -> None:
        await (servers.pause(server) if manner == "stalled" else servers.kill(server))
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            # Asked, a payment says that it succeeded; the order's completion may wait for events.
            while True:
                await _pay_by_balance(battered)
                if loop.time() > until:
                    break
                await asyncio.sleep(seconds / 20)
        finally:
            await (servers.resume(server) if manner == "stalled" else servers.restart(server))

    await battered.shop_while(pay_without, purchases=9, before=1)
    assert len(battered.completed) == done + 9
    await battered.check()


async def _pay_by_balance(battered: Battered) -> None:
    number = next(battered.serial)
    body = {
        "merchant_order_no": f"away-{number}",
        "amount": {"currency_code": "USD", "amount_minor": 100},
        "user_id": battered.user_id,
    }
    order = (await battered.send("POST", "/v1/orders", body, f"away-{number}"))["order"]
    answer = await battered.send(
        "POST", f"/v1/orders/{order['id']}/payments", {"product": "balance"}, f"pay-{number}"
    )
    assert answer["payment"]["state"] == "SUCCEEDED"


async def test_restarting_every_process_in_turn_fails_no_request_for_good(
    battered: Battered,
) -> None:
    deployment = battered.platform.deployment
    supervisor = deployment.supervisor
    restarts = {name: supervisor.restarts(name) for name in deployment.topology.processes}

    async def restart_all() -> None:
        for name in deployment.topology.processes:
            await supervisor.kill(name, signal.SIGTERM)
            async with asyncio.timeout(60):
                while supervisor.restarts(name) == restarts[name]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await supervisor.wait_ready(name)

    await battered.shop_while(restart_all, purchases=60)
    assert battered.refused_for_good == []
    await battered.check()


@pytest.mark.long
async def test_a_process_that_dies_while_the_broker_is_away_works_again_without_it(
    battered: Battered,
) -> None:
    """Its queues are there already; its jobs and its calls need no broker."""
    deployment = battered.platform.deployment

    async def pay_without() -> None:
        await deployment.servers.kill("amqp")
        try:
            await deployment.supervisor.kill("payment")
            for _ in range(5):
                await _pay_by_balance(battered)
        finally:
            await deployment.servers.restart("amqp")

    await battered.shop_while(pay_without, purchases=9, before=1)
    await battered.wait_serving()
    await battered.check()
