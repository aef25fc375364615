"""The private servers come up, keep what they were told through a crash, and do not collide."""

from __future__ import annotations

import asyncio
import secrets

import aio_pika
import asyncpg
import redis.asyncio

from common.embedded.cluster import Servers


async def test_asking_each_server_gets_an_answer(
    servers: Servers, database_url: str, redis_prefix: str, amqp_namespace: str
) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
    async with redis.asyncio.Redis.from_url(servers.redis_url) as client:
        await client.set(f"{redis_prefix}a", "1")
        assert await client.get(f"{redis_prefix}a") == b"1"
    broker = await aio_pika.connect(servers.amqp_url)
    async with broker:
        channel = await broker.channel()
        queue = await channel.declare_queue(
            f"{amqp_namespace}q", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), queue.name)
        message = await queue.get(timeout=5)
        assert message is not None
        assert message.body == b"hello"
        await message.ack()
        await queue.delete(if_unused=False, if_empty=False)
