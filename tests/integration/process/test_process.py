"""A process starts beside others, serves, drains at SIGTERM and loses nothing at kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import grpc.aio
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.db.roles import role_url
from common.embedded.cluster import Servers
from common.events.broker import DEAD, EXCHANGE, UNROUTED, Broker

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "tests.integration.process.shop_process"


class Shop:
    """One run of the program."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.port = 0

    async def wait_until_ready(self) -> None:
        """Wait until it serves."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while line := (await self.process.stderr.readline()).decode():
                if line.startswith("ready "):
                    self.port = int(line.split()[1])
                    return
        raise AssertionError(f"it ended: {self.log.read_text()}")

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(40):
            return await self.process.wait()

    def lines(self) -> list[dict[str, object]]:
        """Its log."""
        return [orjson.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., "asyncio.Future[Shop]"]


@pytest.fixture
async def start(
    database_url: str, amqp_namespace: str, servers: Servers, tmp_path: Path
) -> AsyncIterator[object]:
    shops: list[Shop] = []

    async def begin(*, sells: bool = False, **variables: str) -> Shop:
        environment = {
            **os.environ,
            **servers.environment,
            "PAYMESH_POSTGRES_URL": database_url,
            "PAYMESH_AMQP_NAMESPACE": amqp_namespace,
            "PAYMESH_TOPOLOGY_PATH": str(ROOT / "topology" / "processes.toml"),
            "PAYMESH_PORTS": '{"account": 0}',
            "SHOP_SELLS": "1" if sells else "",
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        log = tmp_path / f"{secrets.token_hex(4)}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                PROGRAM,
                stdout=file,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd=ROOT,
            )
        shop = Shop(process, log)
        shops.append(shop)
        return shop

    yield begin
    for shop in shops:
        if shop.process.returncode is None:
            await shop.end(signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
async def clean_broker(amqp_url: str, amqp_namespace: str) -> AsyncIterator[None]:
    yield
    broker = Broker(amqp_url, namespace=amqp_namespace)
    channel = await broker.channel()
    for queue in ("shop.sold", "shop.sold.dead", UNROUTED):
        await channel.queue_delete(broker.full_name(queue))
    for exchange in (EXCHANGE, UNROUTED, DEAD):
        await channel.exchange_delete(broker.full_name(exchange))
    await broker.close()


async def ask(database_url: str, query: str) -> int:
    connection = await asyncpg.connect(role_url(database_url, "account"))
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def until_zero(database_url: str, query: str) -> None:
    async with asyncio.timeout(60):
        while await ask(database_url, query):  # noqa: ASYNC110 - the server has the state
            await asyncio.sleep(0.05)


async def health_of(port: int) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        return int(answer.status)


UNSHIPPED = "SELECT count(*) FROM account.jobs WHERE state = 'OPEN'"
UNTOLD = "SELECT count(*) FROM account.outbox WHERE published_at IS NULL"
UNHEARD = (
    "SELECT count(*) FROM account.orders WHERE order_id NOT IN (SELECT order_id FROM account.heard)"
)
HEARD_TWICE = "SELECT count(*) - count(DISTINCT order_id) FROM account.heard"


async def test_processes_started_at_once_migrate_once_and_serve(
    start: Start, database_url: str
) -> None:
    shops = await asyncio.gather(*(start() for _ in range(3)))
    await asyncio.gather(*(shop.wait_until_ready() for shop in shops))
    for shop in shops:
        assert await health_of(shop.port) == health_pb2.HealthCheckResponse.SERVING
    applied = [line for shop in shops for line in shop.lines() if "applied" in str(line["event"])]
    assert len(applied) == 1, [s.log.read_text() for s in shops]
    statuses = await asyncio.gather(*(shop.end() for shop in shops))
    assert statuses == [0, 0, 0]
    for shop in shops:
        last = shop.lines()[-1]
        assert last["event"] == "stopped"
        assert last["process"] == "account"
        bad = [line for line in shop.lines() if line["level"] in ("error", "warning")]
        assert [(line["event"], line.get("exception")) for line in bad] == []


async def test_sigterm_in_mid_work_leaves_every_event_told(start: Start, database_url: str) -> None:
    shop = await start(sells=True)
    await shop.wait_until_ready()
    async with asyncio.timeout(60):
        while await ask(database_url, "SELECT count(*) FROM account.orders") < 50:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await shop.end() == 0
    assert await ask(database_url, UNTOLD) == 0


async def test_kill_in_mid_work_loses_nothing_and_doubles_nothing(
    start: Start, database_url: str
) -> None:
    """Three times: sell, kill -9, start again; in the end all is told, heard once and shipped."""
    for _ in range(3):
        before = await ask(database_url, "SELECT count(*) FROM account.orders")
        shop = await start(sells=True)
        await shop.wait_until_ready()
        async with asyncio.timeout(60):
            query = "SELECT count(*) FROM account.orders"
            while await ask(database_url, query) < before + 60:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await shop.end(signal.SIGKILL) == -signal.SIGKILL
    shop = await start()
    await shop.wait_until_ready()
    for query in (UNTOLD, UNHEARD, UNSHIPPED):
        await until_zero(database_url, query)
    assert await ask(database_url, HEARD_TWICE) == 0
    assert await shop.end() == 0


async def test_a_process_without_its_broker_serves_all_the_same(start: Start) -> None:
    shop = await start(PAYMESH_AMQP_URL="amqp://nobody:x@127.0.0.1:1/")
    await shop.wait_until_ready()
    assert await health_of(shop.port) == health_pb2.HealthCheckResponse.SERVING
    assert await shop.end() == 0


async def test_a_process_that_cannot_start_says_why(start: Start) -> None:
    shop = await start(PAYMESH_PORTS="nonsense")
    async with asyncio.timeout(30):
        assert await shop.process.wait() == 1
    assert shop.process.stderr is not None


async def test_production_refuses_secrets_of_development(start: Start) -> None:
    shop = await start(PAYMESH_ENVIRONMENT="production")
    assert shop.process.stderr is not None
    async with asyncio.timeout(30):
        said = (await shop.process.stderr.read()).decode()
        assert await shop.process.wait() == 1
    assert "PAYMESH_PRINCIPAL_KEY must be set" in said
