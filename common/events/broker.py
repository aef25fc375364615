"""One connection to RabbitMQ for a process, opened again by whoever needs it next.

Plain connections, not aio-pika's "robust" ones: relay and consumers must know when a channel is
lost, because what was in flight on it has to be published or read again by them, not restored
behind their back.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity
from yarl import URL

EXCHANGE: Final = "paymesh.events"
UNROUTED: Final = "paymesh.unrouted"
DEAD: Final = "paymesh.dead"

# A broker that says nothing for so long is gone; found by both sides.
_HEARTBEAT_SECONDS: Final = 10
_CONNECT_TIMEOUT_SECONDS: Final = 10.0
_CLOSE_TIMEOUT_SECONDS: Final = 5.0
# What nobody listened to is kept for a look and for late subscribers, not for ever.
_UNROUTED_BYTES_MAX: Final = 256 << 20
_UNROUTED_TTL_MS: Final = 7 * 24 * 3600 * 1000
# A message that comes back so often kills its reader each time: set aside by the broker itself.
_DELIVERY_LIMIT: Final = 20

NO_BROKER: Final = "none"
"""Address of a broker that there is none of: events wait where they were written."""

BROKER_ERRORS: Final = (
    AMQPError,
    ConnectionError,
    TimeoutError,
    OSError,
    asyncio.InvalidStateError,
)
"""What a lost or refusing broker raises; nothing more is known of the call."""


class BrokerAbsentError(ConnectionError):
    """There is no broker, and the process was told so."""


class Broker:
    """A process's way to RabbitMQ; `namespace` begins every exchange and queue.

    With the address NO_BROKER nothing is told and nothing heard, and nobody tries to.
    """

    def __init__(self, url: str, *, namespace: str = "", name: str = "paymesh") -> None:
        self.is_absent = url == NO_BROKER
        self._url = URL(url).update_query(heartbeat=str(_HEARTBEAT_SECONDS), name=name)
        self._namespace = namespace
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._seen: set[str] = set()
        self.adopting = asyncio.Lock()
        """Held while one queue of the process fetches what it missed (adoption.py)."""
        self.may_tell = asyncio.Event()
        self.may_tell.set()
        """Unset until the process's own queues are declared: events told before would miss them."""

    def full_name(self, name: str) -> str:
        """Return the name of an exchange or queue with the namespace before it."""
        return f"{self._namespace}{name}"

    async def channel(self, *, publisher_confirms: bool = True) -> AbstractChannel:
        """Open a channel, connecting first where that is needed; the caller closes it.

        Raises:
            one of BROKER_ERRORS: the broker cannot be reached; try again later.
        """
        if self.is_absent:
            raise BrokerAbsentError("there is no broker")
        async with self._opening:
            connection = self._connection
            # A lost connection does not count as closed until somebody closes it.
            if connection is None or not connection.connected.is_set():
                await self._drop()
                connection = self._connection = await aio_pika.connect(
                    self._url, timeout=_CONNECT_TIMEOUT_SECONDS
                )
        try:
            return await connection.channel(
                publisher_confirms=publisher_confirms, on_return_raises=publisher_confirms
            )
        except RuntimeError as error:
            # The client's word for a connection that was lost a moment ago.
            raise ConnectionError(str(error)) from error

    async def watch(self, channel: AbstractChannel, when_lost: Callable[[], None]) -> None:
        """Call `when_lost` once the channel is closed, or the broker takes a consumed queue away.

        The second happens when a queue is deleted; the channel lives on and stays silent.
        """
        channel.close_callbacks.add(lambda *_: when_lost())
        underlay: Any = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: when_lost())

    async def declare_exchange(self, channel: AbstractChannel) -> AbstractExchange:
        """Declare the exchange of all events, and the queue of those that nobody listens to.

        Without that queue the broker would confirm an event and drop it.
        """
        is_new = UNROUTED not in self._seen and not await self.has_queue(UNROUTED)
        unrouted = await channel.declare_exchange(
            self.full_name(UNROUTED), aio_pika.ExchangeType.FANOUT, durable=True
        )
        catch_all = await channel.declare_queue(
            self.full_name(UNROUTED),
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-max-length-bytes": _UNROUTED_BYTES_MAX,
                "x-overflow": "drop-head",
                "x-message-ttl": _UNROUTED_TTL_MS,
                # Each look of a new reader counts as a delivery of what it leaves.
                "x-delivery-limit": 1_000_000,
            },
        )
        if is_new:
            await self._seal(channel)
        self._seen.add(UNROUTED)
        await catch_all.bind(unrouted)
        return await channel.declare_exchange(
            self.full_name(EXCHANGE),
            aio_pika.ExchangeType.TOPIC,
            durable=True,
            arguments={"alternate-exchange": unrouted.name},
        )

    async def has_queue(self, name: str) -> bool:
        """Say whether a queue exists; raises one of BROKER_ERRORS."""
        channel = await self.channel()
        try:
            await channel.declare_queue(self.full_name(name), passive=True)
        except ChannelNotFoundEntity:
            return False
        else:
            return True
        finally:
            if not channel.is_closed:
                with contextlib.suppress(*BROKER_ERRORS):
                    async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                        await channel.close()

    async def declare_queue(
        self, channel: AbstractChannel, name: str, bindings: tuple[str, ...]
    ) -> AbstractQueue:
        """Declare a consumer's queue and bind it to routing keys.

        Bindings of earlier versions stay; they are taken away by hand, once no version needs them.
        """
        exchange = await self.declare_exchange(channel)
        is_new = not await self.has_queue(name)
        dead = await channel.declare_exchange(
            self.full_name(DEAD), aio_pika.ExchangeType.DIRECT, durable=True
        )
        full_name = self.full_name(name)
        queue = await channel.declare_queue(
            full_name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": _DELIVERY_LIMIT,
                "x-dead-letter-exchange": dead.name,
                "x-dead-letter-routing-key": full_name,
                # Dead letters are confirmed by their queue before they leave this one, which the
                # broker offers only where a full queue refuses instead of dropping.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        if is_new:
            await self._seal(channel)
        for binding in bindings:
            await queue.bind(exchange, routing_key=binding)
        return queue

    async def declare_dead_letters(self, channel: AbstractChannel, name: str) -> AbstractQueue:
        """Declare where a declared queue's dead letters go."""
        full_name = self.full_name(name)
        queue = await channel.declare_queue(
            f"{full_name}.dead", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await self._seal(channel)
        await queue.bind(self.full_name(DEAD), routing_key=full_name)
        return queue

    async def _seal(self, channel: AbstractChannel) -> None:
        """Make new quorum queues survive a crash of the broker, before anything is sent to them.

        The broker (3.10 at least) writes a queue's entry in its register with a delay, and a queue
        whose entry was lost in a crash never elects a leader again: what it had confirmed is gone,
        and every publish to it hangs. The entry is written when the next one is made. (A crash in
        the few milliseconds between the two leaves such a queue, without content or binding: the
        reader's declaration then fails until the queue is deleted and the broker restarted.)
        """
        name = self.full_name(f"paymesh.seal.{secrets.token_hex(8)}")
        seal = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        await seal.delete(if_unused=False, if_empty=False)

    async def close(self) -> None:
        """Close the connection, with whatever is open on it."""
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._seen.clear()
        if connection is not None and not connection.is_closed:
            with contextlib.suppress(*BROKER_ERRORS, RuntimeError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                    await connection.close()
