"""What a new queue missed: events that were told before anybody listened.

Services start in any order, so one may tell events before the first process of their reader has
declared its queue. The broker keeps those aside (`paymesh.unrouted`); the reader fetches its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelLockedResource

from common.events.broker import BROKER_ERRORS, UNROUTED, Broker

# More than a first start can have told; what is beyond it stays where it is.
_MESSAGES_MAX: Final = 20_000
_PATIENCE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_LOCK: Final = "paymesh.adoption"


async def adopt_unrouted(broker: Broker, bindings: Sequence[str]) -> int:
    """Tell again what nobody heard and these bindings would have; return how many messages.

    Told to everybody, whose inboxes drop what they had. The queue must be bound already.

    Raises:
        one of BROKER_ERRORS: what was not told again stays where it is.
    """
    channel = await broker.channel()
    try:
        exchange = await broker.declare_exchange(channel)
        async with _alone(broker):
            kept = await channel.get_queue(broker.full_name(UNROUTED))
            count = 0
            waiting = (await kept.declare()).message_count or 0
            for _ in range(min(waiting, _MESSAGES_MAX)):
                message = await kept.get(fail=False)
                if message is None:
                    break
                key = message.routing_key or ""
                if not any(matches(binding, key) for binding in bindings):
                    continue  # left unacknowledged: it returns when the channel closes
                await exchange.publish(
                    aio_pika.Message(
                        message.body,
                        content_type=message.content_type,
                        type=message.type,
                        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    ),
                    routing_key=key,
                )
                await message.ack()
                count += 1
            # Inside the lock: the next one must find what is left, not wait for its return.
            await channel.close()
            return count
    finally:
        if not channel.is_closed:
            with contextlib.suppress(*BROKER_ERRORS):
                await channel.close()


@contextlib.asynccontextmanager
async def _alone(broker: Broker) -> AsyncIterator[None]:
    """Keep others from looking at the same time, who would miss what this one holds.

    The broker grants an exclusive queue to one connection; within a process a lock does.
    """
    async with broker.adopting, asyncio.timeout(_PATIENCE_SECONDS):
        lock = await _take_lock(broker)
        try:
            yield
        finally:
            with contextlib.suppress(*BROKER_ERRORS):
                await lock.queue_delete(broker.full_name(_LOCK))
                await lock.close()


async def _take_lock(broker: Broker) -> AbstractChannel:
    while True:
        channel = await broker.channel()
        try:
            await channel.declare_queue(broker.full_name(_LOCK), exclusive=True)
        except ChannelLockedResource:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return channel


def matches(binding: str, key: str) -> bool:
    """Say whether a topic binding takes a routing key: `*` is one word, `#` any number."""
    return _matches(binding.split("."), key.split("."))


def _matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, rest = pattern[0], pattern[1:]
    if head == "#":
        return any(_matches(rest, words[skip:]) for skip in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and _matches(rest, words[1:])
