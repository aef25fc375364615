"""Redis, with the commands of many callers in one round trip, and quick words when it is away.

Nothing that must not be lost lives in Redis: it gates and counts. So whoever asks decides what its
absence means, and is told within half a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis.asyncio
from redis.asyncio.retry import Retry as RedisRetry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from common.coalescer import Coalescer, CoalescerLimits
from common.errors import Outcome, Retry, UnavailableError

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

_log = logging.getLogger(__name__)

# Redis answers in a fraction of a millisecond; whoever has not had its answer by now has a flow
# with a deadline to finish without it.
TIMEOUT_SECONDS: Final = 0.5
# While it is away nobody's command is sent, for each would cost its caller the whole timeout: a
# probe of our own looks whether it is back.
_PROBE_EVERY_SECONDS: Final = 0.25
_COMMANDS_PER_PIPELINE_MAX: Final = 512
_AWAY: Final = (RedisConnectionError, RedisTimeoutError, OSError, asyncio.TimeoutError)


class Script:
    """A Lua script, sent whole once and named by its digest from then on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode()).hexdigest()  # noqa: S324 - Redis's own name


class RedisPipeline:
    """A process's way to Redis.

    `namespace` begins every key made by `key`. `when_away` is told whenever Redis turns out to be
    away, for a gauge or an alarm.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        namespace: str = "",
        when_away: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._when_away = when_away
        self._probe: asyncio.Task[None] | None = None
        self._lane: Coalescer[Command, object] = Coalescer(
            self._send,
            classify=lambda _: None,
            read_back=_know_nothing,
            limits=CoalescerLimits(batch_weight_max=_COMMANDS_PER_PIPELINE_MAX),
            name="redis",
        )

    def key(self, *parts: str) -> str:
        """Return a key of ours: the namespace and the parts, separated by colons."""
        return self._namespace + ":".join(parts)

    async def execute(self, *command: Argument) -> Any:
        """Run one command; return its answer, bytes undecoded.

        Raises:
            UnavailableError: Redis is away. NOT_EXECUTED when the command was surely not sent.
            redis.exceptions.ResponseError: the command is wrong, or its key holds something else.
        """
        answer = await self._lane.submit(command)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands; return their answers in order. Errors as `execute`, the first one."""
        answers = await self._lane.submit_all(commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def run_script(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> Any:
        """Run a Lua script on keys; return its answer. Errors as `execute`."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.execute("EVALSHA", script.digest, *rest)
        except NoScriptError:
            return await self.execute("EVAL", script.source, *rest)

    async def ping(self) -> bool:
        """Say whether Redis answers."""
        try:
            return bool(await self.execute("PING"))
        except UnavailableError:
            return False

    async def close(self) -> None:
        """Let what was sent be answered, then close the connections."""
        await self._lane.drain()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await self._client.aclose()

    async def _send(self, commands: Sequence[Command]) -> list[object]:
        """Send commands in one round trip; an error is an answer, so that nobody's is repeated."""
        if self._probe is not None:
            return [_away(Outcome.NOT_EXECUTED) for _ in commands]
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            async with asyncio.timeout(2 * TIMEOUT_SECONDS):
                answers: list[object] = await pipeline.execute(raise_on_error=False)
        except _AWAY as error:
            _log.warning("redis is away: %r", error)
            self._probe = asyncio.create_task(self._wait_until_back(), name="redis probe")
            self._when_away(error)
            return [_away(Outcome.UNKNOWN) for _ in commands]
        except RedisError as error:
            return [ResponseError(str(error)) for _ in commands]
        return answers

    async def _wait_until_back(self) -> None:
        """Ask until Redis answers; then commands are sent again."""
        try:
            while True:
                await asyncio.sleep(_PROBE_EVERY_SECONDS)
                try:
                    async with asyncio.timeout(TIMEOUT_SECONDS):
                        await self._client.ping()
                except (*_AWAY, RedisError):
                    continue
                _log.warning("redis is back")
                return
        finally:
            self._probe = None


def open_redis(
    url: str,
    *,
    namespace: str = "",
    connections_max: int = 4,
    when_away: Callable[[Exception], None] = lambda _: None,
) -> RedisPipeline:
    """Return a way to Redis; connects with the first command."""
    client = redis.asyncio.Redis.from_url(
        url,
        max_connections=connections_max,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        # A repeated command may count twice, so only its caller may repeat it.
        retry=RedisRetry(NoBackoff(), 0),
    )
    return RedisPipeline(client, namespace=namespace, when_away=when_away)


def _away(outcome: Outcome) -> UnavailableError:
    retry = Retry.SAME_ID if outcome is Outcome.UNKNOWN else Retry.AFTER_DELAY
    return UnavailableError(target="redis", outcome=outcome, retry=retry)


async def _know_nothing(commands: Sequence[Command]) -> list[object | None]:
    return [None] * len(commands)
