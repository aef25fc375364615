"""Real servers for every test: private ones, or those that the environment names.

No test is skipped for want of a server, and none shares data with another: a test module gets an
empty database, a key prefix of its own in Redis and a name prefix of its own in RabbitMQ. (A
virtual host per module would isolate better, but RabbitMQ's tools take seconds to make one.)
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import redis.asyncio
import uvloop

from common.embedded.cluster import ALL, Servers
from tests.forks import expect_programs_only

# Here, and not in a hook: a conftest below this one may import what has to hear it first.
expect_programs_only()


class StartServers(Protocol):
    """Starts private servers of the test module, which may be killed; stopped at its end."""

    async def __call__(self, *only: str) -> Servers:
        """The named servers ("postgres", "redis", "amqp"), or all three."""
        ...


def pytest_configure() -> None:
    """Run tests on the loop that the services run on.

    By policy, and not by pytest-asyncio's hook for loop factories: that one makes the loop a
    parameter of asynchronous tests alone, so that pytest puts the synchronous ones last and takes
    the servers, which depend on the loop, away from them.
    """
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[Servers]:
    """The three servers of this test run; do not break them (see `start_servers`)."""
    async with Servers("test", temporary=True, side_by_side=True) as started:
        yield started


@pytest.fixture(scope="session")
def postgres_url(servers: Servers) -> str:
    """The maintenance database, as a role that may create databases and roles."""
    return servers.postgres_url


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """The Redis-protocol server; use `redis_prefix` for keys."""
    return servers.redis_url


@pytest.fixture(scope="session")
def amqp_url(servers: Servers) -> str:
    """RabbitMQ's default virtual host; use `amqp_namespace` for names."""
    return servers.amqp_url


@pytest.fixture(scope="module")
async def new_database(postgres_url: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """A function that creates an empty database and returns its address; dropped at the end."""
    created: list[str] = []

    async def create() -> str:
        name = f"test_{secrets.token_hex(8)}"
        connection = await asyncpg.connect(postgres_url)
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        finally:
            await connection.close()
        created.append(name)
        return urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))

    yield create
    connection = await asyncpg.connect(postgres_url)
    try:
        for name in created:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="module")
async def database_url(new_database: Callable[[], Awaitable[str]]) -> str:
    """An empty database for this test module."""
    return await new_database()


@pytest.fixture(scope="module")
async def redis_prefix(redis_url: str) -> AsyncIterator[str]:
    """What the module's keys begin with; such keys are deleted at the end."""
    prefix = f"test-{secrets.token_hex(6)}:"
    yield prefix
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        async for key in client.scan_iter(match=f"{prefix}*", count=1000):
            await client.unlink(key)


@pytest.fixture(scope="module")
def amqp_namespace() -> str:
    """What the module's exchanges and queues begin with."""
    return f"test-{secrets.token_hex(6)}."


@pytest.fixture(scope="module")
async def start_servers() -> AsyncIterator[StartServers]:
    """Private servers for tests that kill, stall or restart them."""
    started: list[Servers] = []

    async def start(*only: str) -> Servers:
        wanted = [name for name in ALL if not only or name in only]
        one = Servers("fault", private=True, temporary=True, side_by_side=True, only=wanted)
        await one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        await one.stop()
