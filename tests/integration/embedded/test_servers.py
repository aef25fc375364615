"""The private servers come up, keep what they were told through a crash, and do not collide."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import asyncpg
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from common.embedded import ports
from common.embedded.amqp_handshake import broker_answers
from common.embedded.cluster import ServerName, Servers
from common.embedded.instances import InstanceBusyError
from tests.conftest import StartServers
from tests.integration.embedded.conftest import WaitUntil


async def publish(url: str, queue_name: str, body: bytes) -> None:
    """Put a message into a quorum queue, confirmed."""
    async with await aio_pika.connect(url) as broker:
        channel = await broker.channel(publisher_confirms=True)
        queue = await channel.declare_queue(
            queue_name, durable=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.default_exchange.publish(
            aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), queue.name
        )


async def take(url: str, queue_name: str) -> bytes:
    """Take one message from a queue, and remove the queue."""
    async with await aio_pika.connect(url) as broker:
        channel = await broker.channel()
        queue = await channel.get_queue(queue_name)
        message = await queue.get(timeout=5)
        assert message is not None
        await message.ack()
        await queue.delete(if_unused=False, if_empty=False)
        return message.body


def parts_of(url: str) -> tuple[int, str, str]:
    """Port, user and password of an address."""
    parts = urlsplit(url)
    assert parts.port is not None
    return parts.port, parts.username or "", parts.password or ""


async def test_asking_each_server_gets_an_answer(
    servers: Servers, database_url: str, redis_prefix: str, amqp_namespace: str
) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        await client.set(f"{redis_prefix}a", "1")
        assert await client.get(f"{redis_prefix}a") == b"1"
    await publish(servers.amqp_url, f"{amqp_namespace}asked", b"hello")
    assert await take(servers.amqp_url, f"{amqp_namespace}asked") == b"hello"


async def test_killing_and_restarting_postgres_keeps_what_was_committed(
    start_servers: StartServers,
) -> None:
    servers = await start_servers("postgres")
    connection = await asyncpg.connect(servers.postgres_url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    url = servers.postgres_url

    await servers.kill("postgres")
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await asyncpg.connect(url, timeout=5)
    connection.terminate()
    await servers.restart("postgres")

    assert servers.postgres_url == url
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT number FROM kept") == 7
    await connection.close()


async def test_postgres_has_the_settings_that_benches_assume(start_servers: StartServers) -> None:
    servers = await start_servers("postgres")
    connection = await asyncpg.connect(servers.postgres_url)
    shown = {
        name: await connection.fetchval(f"SHOW {name}")
        for name in ("fsync", "synchronous_commit", "shared_buffers", "jit", "listen_addresses")
    }
    await connection.execute("CREATE EXTENSION pg_stat_statements")
    await connection.close()
    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "shared_buffers": "1GB",
        "jit": "off",
        "listen_addresses": "127.0.0.1",
    }


async def test_killing_and_restarting_redis_keeps_what_is_on_disk(
    start_servers: StartServers,
) -> None:
    servers = await start_servers("redis")
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        await client.set("kept", "7")
    # The file is written at once and forced to disk each second: only a machine without power
    # would lose anything.
    await servers.kill("redis")
    await servers.restart("redis")
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        assert await client.get("kept") == b"7"


async def test_killing_and_restarting_the_broker_keeps_confirmed_messages(
    start_servers: StartServers, wait_until: WaitUntil
) -> None:
    servers = await start_servers("amqp")
    port, user, password = parts_of(servers.amqp_url)
    assert await broker_answers(port, user, password, timeout_seconds=5)
    # A broker of somebody else on the port would not be taken for ours.
    assert not await broker_answers(port, user, "wrong", timeout_seconds=5)
    await publish(servers.amqp_url, "kept", b"seven")
    # The broker notes the names of new queues lazily: one that is killed in the second after a
    # declaration has lost the queue, whatever it confirmed.
    names = next(servers.folder.glob("amqp/data/*/quorum/*/names.dets"))
    await wait_until(lambda: b"kept" in names.read_bytes())
    await servers.kill("amqp")
    assert not await broker_answers(port, user, password, timeout_seconds=5)
    await servers.restart("amqp")
    assert await take(servers.amqp_url, "kept") == b"seven"


async def test_pausing_a_server_stalls_it_until_it_is_resumed(start_servers: StartServers) -> None:
    servers = await start_servers("redis", "postgres")
    client = redis.asyncio.Redis.from_url(servers.redis_url, retry=Retry(NoBackoff(), 0))
    connection = await asyncpg.connect(servers.postgres_url)
    await client.ping()
    await servers.pause("redis")
    await servers.pause("postgres")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.ping(), 0.3)
    asked = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    await asyncio.wait([asked], timeout=0.3)
    assert not asked.done()
    await servers.resume("redis")
    await servers.resume("postgres")
    await client.ping()
    assert await asked == 1
    await client.aclose()
    await connection.close()


async def test_running_two_at_once_keeps_them_apart(tmp_path: Path) -> None:
    """Each has its own folder, ports and password; and a name that is taken is refused."""
    first = Servers("same", private=True, side_by_side=True, local_folder=tmp_path, only=["redis"])
    second = Servers("same", private=True, side_by_side=True, local_folder=tmp_path, only=["redis"])
    third = Servers("same", private=True, local_folder=tmp_path, only=["redis"])
    async with first, second:
        assert first.folder != second.folder
        assert first.redis_url != second.redis_url
        async with (
            redis.asyncio.Redis.from_url(first.redis_url) as one,
            redis.asyncio.Redis.from_url(second.redis_url) as other,
        ):
            await one.set("mine", "1")
            assert await other.get("mine") is None
        with pytest.raises(InstanceBusyError, match="make stop"):
            await third.start()
        # Nobody else on the machine may read the passwords.
        for path in (first.folder / "password", first.folder / "redis/server.conf"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_starting_again_after_a_stop_keeps_data_ports_and_password(tmp_path: Path) -> None:
    async with Servers("again", private=True, local_folder=tmp_path, only=["postgres"]) as servers:
        url = servers.postgres_url
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept ()")
        await connection.close()
    async with Servers("again", private=True, local_folder=tmp_path, only=["postgres"]) as servers:
        assert servers.postgres_url == url
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT to_regclass('kept') IS NOT NULL")
        await connection.close()


async def test_stopping_temporary_servers_leaves_no_data(tmp_path: Path) -> None:
    async with Servers(
        "gone", private=True, temporary=True, local_folder=tmp_path, only=["redis"]
    ) as servers:
        folder = servers.folder
        assert (folder / "redis").exists()
    assert not (folder / "redis").exists()
    assert (folder / "log").exists()


async def test_starting_where_strangers_listen_takes_other_ports(tmp_path: Path) -> None:
    """A server that somebody else left on our ports of last time is not taken for ours."""
    async with Servers("stale", private=True, local_folder=tmp_path, only=["redis"]) as servers:
        url = servers.redis_url
    stranger = socket.create_server(("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0])))
    with stranger:
        async with Servers("stale", private=True, local_folder=tmp_path, only=["redis"]) as servers:
            assert servers.redis_url != url
            async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
                assert await client.ping()


async def test_losing_the_race_for_a_port_starts_on_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between the choice of a port and its use, another program may take it."""
    really_choose = ports.choose
    strangers: list[socket.socket] = []

    def choose_and_lose(count: int) -> list[int]:
        chosen = really_choose(count)
        if not strangers:
            strangers.append(socket.create_server(("127.0.0.1", chosen[1])))
        return chosen

    monkeypatch.setattr(ports, "choose", choose_and_lose)
    async with (
        Servers("race", private=True, local_folder=tmp_path, only=["redis"]) as servers,
        redis.asyncio.Redis.from_url(servers.redis_url) as client,
    ):
        assert await client.ping()
    strangers[0].close()


async def test_configuring_addresses_starts_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAYMESH_POSTGRES_URL", "postgresql://configured/a")
    monkeypatch.setenv("PAYMESH_REDIS_URL", "redis://configured/0")
    monkeypatch.setenv("PAYMESH_AMQP_URL", "amqp://configured/")
    async with Servers("configured", local_folder=tmp_path) as servers:
        assert servers.environment == {
            "PAYMESH_POSTGRES_URL": "postgresql://configured/a",
            "PAYMESH_REDIS_URL": "redis://configured/0",
            "PAYMESH_AMQP_URL": "amqp://configured/",
        }
        with pytest.raises(RuntimeError, match="not a private server"):
            servers.pid("postgres")


async def test_configuring_one_address_starts_the_others_and_private_ignores_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAYMESH_POSTGRES_URL", "postgresql://configured/a")
    monkeypatch.delenv("PAYMESH_REDIS_URL", raising=False)
    wanted: list[ServerName] = ["postgres", "redis"]
    async with Servers("mixed", local_folder=tmp_path, only=wanted) as servers:
        assert servers.postgres_url == "postgresql://configured/a"
        assert "127.0.0.1" in servers.redis_url
    async with Servers("own", private=True, local_folder=tmp_path, only=wanted) as servers:
        assert "127.0.0.1" in servers.postgres_url
