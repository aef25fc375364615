"""Commands of many callers share a round trip; absence is said quickly and honestly."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.exceptions import ResponseError

from common.embedded.cluster import Servers
from common.errors import Outcome, UnavailableError
from common.redis import RedisPipeline, Script, open_redis
from tests.conftest import StartServers


async def test_commands_of_many_callers_get_their_own_answers(
    redis_url: str, redis_prefix: str
) -> None:
    redis = open_redis(redis_url, namespace=redis_prefix)
    answers = await asyncio.gather(
        *(redis.execute("INCRBY", redis.key("sum", str(n % 7)), n) for n in range(700))
    )
    assert len(answers) == 700
    totals = [int(await redis.execute("GET", redis.key("sum", str(n)))) for n in range(7)]
    assert totals == [sum(n for n in range(700) if n % 7 == rest) for rest in range(7)]
    await redis.close()


async def test_a_wrong_command_fails_alone(redis_url: str, redis_prefix: str) -> None:
    redis = open_redis(redis_url, namespace=redis_prefix)
    key = redis.key("text")
    answers: list[object] = await asyncio.gather(
        redis.execute("SET", key, "words"),
        redis.execute("INCR", key),
        redis.execute("GET", key),
        return_exceptions=True,
    )
    good, bad, after = answers
    assert good in (True, b"OK", "OK")
    assert isinstance(bad, ResponseError)
    assert after == b"words"
    with pytest.raises(ResponseError):
        await redis.execute_all([("GET", key), ("INCR", key)])
    await redis.close()


async def test_a_script_is_sent_once_and_named_from_then_on(
    redis_url: str, redis_prefix: str
) -> None:
    redis = open_redis(redis_url, namespace=redis_prefix)
    script = Script(f"-- {redis_prefix}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert await redis.run_script(script, [redis.key("n")], [2]) == 2
    assert await redis.run_script(script, [redis.key("n")], [3]) == 5
    assert await redis.execute("SCRIPT", "EXISTS", script.digest) == [1]
    await redis.close()


async def test_absence_is_said_quickly_and_ends_by_itself(start_servers: StartServers) -> None:
    servers: Servers = await start_servers("redis")
    told: list[Exception] = []
    redis = open_redis(servers.redis_url, when_away=told.append)
    assert await redis.ping()
    await servers.kill("redis")
    begun_at = time.monotonic()
    with pytest.raises(UnavailableError) as first:
        await redis.execute("INCR", "n")
    with pytest.raises(UnavailableError) as second:
        await redis.execute("INCR", "n")
    assert time.monotonic() - begun_at < 5
    assert first.value.outcome is Outcome.UNKNOWN
    assert second.value.outcome is Outcome.NOT_EXECUTED
    assert len(told) == 1
    assert not await redis.ping()
    await servers.restart("redis")
    await _until_back(redis)
    await redis.close()


async def test_a_stalled_server_holds_nobody_for_long(start_servers: StartServers) -> None:
    servers: Servers = await start_servers("redis")
    redis = open_redis(servers.redis_url)
    assert await redis.ping()
    await servers.pause("redis")
    try:
        async with asyncio.timeout(10):
            answers = await asyncio.gather(
                *(redis.execute("GET", "n") for _ in range(50)), return_exceptions=True
            )
    finally:
        await servers.resume("redis")
    assert all(isinstance(answer, UnavailableError) for answer in answers)
    await _until_back(redis)
    await redis.close()


async def _until_back(redis: RedisPipeline) -> None:
    async with asyncio.timeout(20):
        while not await redis.ping():  # noqa: ASYNC110 - the server does not call us
            await asyncio.sleep(0.05)
