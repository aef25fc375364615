"""A broker of events: at least once, late, twice, in any order, and it never forgets what it took.

It stands where RabbitMQ stands. The real relay publishes to it and waits for its confirms; the real
consumers are handed its messages, which it keeps until they are acknowledged, so a consumer that
dies with a message gets it again in its next life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from common.events.consumer import Consumer
from common.events.event import envelope_from_bytes, event_from_proto
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulatedLoop
from tests.simulation.process import check_alive

_MESSAGES_AT_ONCE: Final = 8


@dataclass(eq=False)
class _Message:
    body: bytes
    due_at: float


@dataclass
class _Queue:
    bindings: Sequence[str]
    messages: list[_Message] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    def hears(self, routing_key: str) -> bool:
        return any(_matches(pattern, routing_key) for pattern in self.bindings)


class SimulatedBroker:
    """What services know as `common.events.broker.Broker`, as far as the relay uses it."""

    def __init__(self, loop: SimulatedLoop, faults: Faults) -> None:
        self._loop = loop
        self._faults = faults
        self._queues: dict[str, _Queue] = {}
        self.is_closed = False

    @property
    def waiting(self) -> int:
        """Messages that no consumer has acknowledged."""
        return sum(len(queue.messages) for queue in self._queues.values())

    # The part of a channel and of an exchange that the relay uses.

    async def channel(self, *, publisher_confirms: bool = True) -> SimulatedBroker:
        """Return what exchanges are declared on."""
        check_alive()
        return self

    async def declare_exchange(self, channel: SimulatedBroker) -> SimulatedBroker:
        """Return what is published to."""
        return self

    async def close(self) -> None:
        """Nothing to close."""

    async def publish(
        self, message: Any, routing_key: str, *, mandatory: bool = False, timeout: float = 20.0
    ) -> None:
        """Take a message and confirm it; raises ConnectionError when it or its confirm is lost."""
        check_alive()
        await asyncio.sleep(self._faults.between(0.0005, 0.01))
        if self._faults.happens("publish lost"):
            raise ConnectionError("the broker went away before it had the message")
        self._loop.note(f"published {routing_key}")
        for queue in self._queues.values():
            if queue.hears(routing_key):
                self._enqueue(queue, message.body)
                if self._faults.happens("event repeated"):
                    self._enqueue(queue, message.body)
        await asyncio.sleep(self._faults.between(0.0005, 0.01))
        if self._faults.happens("confirm lost"):
            raise ConnectionError("the broker went away before it had confirmed")

    def _enqueue(self, queue: _Queue, body: bytes) -> None:
        pause = self._faults.between(0.0005, 0.02)
        if self._faults.happens("event late"):
            pause += self._faults.between(0.1, 120.0)
        queue.messages.append(_Message(body, self._loop.time() + pause))
        queue.bell.set()

    # Consumers.

    def declare(self, consumer: Consumer) -> None:
        """Keep messages for a consumer from now on."""
        if consumer.queue not in self._queues:
            self._queues[consumer.queue] = _Queue(consumer.bindings)

    async def feed(self, consumer: Consumer, poll_seconds: Callable[[], float]) -> None:
        """Hand a consumer its messages until its process dies; look at parked ones now and then."""
        queue = self._queues[consumer.queue]
        parked_due_at = self._loop.time()
        while True:
            messages = self._due(queue)
            if messages:
                events = [
                    event_from_proto(one)
                    for message in messages
                    for one in envelope_from_bytes(message.body)
                ]
                await consumer.handle(events)
                check_alive()
                queue.messages = [one for one in queue.messages if one not in messages]
            if self._now() >= parked_due_at:
                while await consumer.handle_parked():
                    pass
                parked_due_at = self._loop.time() + poll_seconds()
            await self._wait(queue, parked_due_at)

    def _now(self) -> float:
        """Return the time, with what floats may lack of it: a timer that fired is due."""
        return self._loop.time() + 1e-6

    def _due(self, queue: _Queue) -> list[_Message]:
        now = self._now()
        due = [message for message in queue.messages if message.due_at <= now]
        self._faults.chance.shuffle(due)
        return due[:_MESSAGES_AT_ONCE]

    async def _wait(self, queue: _Queue, until: float) -> None:
        queue.bell.clear()
        until = min([until, *(message.due_at for message in queue.messages)])
        try:
            async with asyncio.timeout_at(until):
                await queue.bell.wait()
        except TimeoutError:
            return


def _matches(pattern: str, key: str) -> bool:
    """Compare a routing key with a binding; `*` stands for one word."""
    wanted, words = pattern.split("."), key.split(".")
    return len(wanted) == len(words) and all(
        one in ("*", word) for one, word in zip(wanted, words, strict=True)
    )
