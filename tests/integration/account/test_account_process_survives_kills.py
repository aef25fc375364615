"""Killed at any moment, the account process loses nothing and books nothing twice.

As `test_ledger_survives_kills`, but through the contract over streams, against real processes with
all that runs in them: buffers are drained, vouchers made and books proved while they are killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.db.roles import role_url
from common.embedded.cluster import Servers
from common.events.broker import DEAD, EXCHANGE, UNROUTED, Broker
from common.ids import IdFactory
from tests.conftest import StartServers
from tests.integration.account.conftest import close_kit, open_kit
from tests.integration.account.load import Load, send
from tests.integration.account.served_ledger import ServedLedger, serving
from tests.integration.account.test_ledger_survives_kills import Heard, assert_kept, note


@pytest.fixture(scope="module", autouse=True)
async def clean_broker(amqp_url: str, amqp_namespace: str) -> AsyncIterator[None]:
    yield
    broker = Broker(amqp_url, namespace=amqp_namespace)
    channel = await broker.channel()
    for queue in ("account.vouchers", "account.vouchers.dead", UNROUTED):
        await channel.queue_delete(broker.full_name(queue))
    for exchange in (EXCHANGE, UNROUTED, DEAD):
        await channel.exchange_delete(broker.full_name(exchange))
    await broker.close()


async def test_killing_the_account_process_in_mid_load_loses_and_doubles_nothing(
    database_url: str, servers: Servers, amqp_namespace: str, tmp_path: Path
) -> None:
    environment = {**servers.environment, "PAYMESH_POSTGRES_URL": database_url}
    await _batter_processes(environment, amqp_namespace, tmp_path, count=300, kills=2)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_killing_two_account_processes_again_and_again_loses_and_doubles_nothing(
    new_database: Callable[[], Awaitable[str]],
    servers: Servers,
    amqp_namespace: str,
    tmp_path: Path,
) -> None:
    environment = {**servers.environment, "PAYMESH_POSTGRES_URL": await new_database()}
    await _batter_processes(
        environment, amqp_namespace, tmp_path, count=12_000, kills=16, processes=2
    )


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_killing_postgresql_under_the_account_process_loses_and_doubles_nothing(
    start_servers: StartServers, servers: Servers, amqp_namespace: str, tmp_path: Path
) -> None:
    private = await start_servers("postgres")
    environment = {**servers.environment, "PAYMESH_POSTGRES_URL": private.postgres_url}
    async with serving(environment, amqp_namespace, tmp_path, processes=2) as ledger:

        async def kill(_: int) -> None:
            await private.kill("postgres")
            await private.restart("postgres")

        heard = await _load_while(ledger, kill, count=12_000, kills=8)
        await _assert_whole(ledger, private.postgres_url, heard)


async def _batter_processes(
    environment: dict[str, str],
    namespace: str,
    folder: Path,
    *,
    count: int,
    kills: int,
    processes: int = 1,
) -> None:
    async with serving(environment, namespace, folder, processes=processes) as ledger:

        async def kill(number: int) -> None:
            name = ledger.names[number % processes]
            restarts = ledger.supervisor.restarts(name)
            await ledger.supervisor.kill(name)
            await ledger.supervisor.wait_restarted(name, restarts)

        heard = await _load_while(ledger, kill, count=count, kills=kills)
        await _assert_whole(ledger, environment["PAYMESH_POSTGRES_URL"], heard)


async def _load_while(
    ledger: ServedLedger, kill: Callable[[int], Awaitable[None]], *, count: int, kills: int
) -> Heard:
    """Send loads, and kill whenever another share of them was answered; return all answers."""
    heard: Heard = {}
    share = max(1, 2 * count // (kills + 1))
    sending = await _begin_load(ledger, heard, count)
    for number in range(kills):
        before = len(heard)
        while len(heard) < before + share:
            if sending.done():  # those that live go on while others start again
                await sending
                sending = await _begin_load(ledger, heard, count)
            await asyncio.sleep(0.001)
        await kill(number)
    await sending
    return heard


async def _begin_load(ledger: ServedLedger, heard: Heard, count: int) -> asyncio.Task[None]:
    load = Load(IdFactory(SystemClock()).new("tst"), count)
    await ledger.open(load.specs)

    async def run() -> None:
        await send(ledger.post, load, partial(note, heard))
        assert heard.keys() >= set(load.ids)

    return asyncio.create_task(run())


async def _assert_whole(ledger: ServedLedger, url: str, heard: Heard) -> None:
    assert await ledger.findings() == []
    kit = await open_kit(role_url(url, "account"))
    await assert_kept(kit, heard)
    await close_kit(kit)
    # After the drain by the test's own hand as well.
    assert await ledger.findings() == []
