"""Hearing of other services' events: in batches, in one transaction with what they cause.

A message is acknowledged after the commit, so a crash in between brings it again and the inbox
drops it. A batch that fails is halved until the culprit stands alone; that one is tried again
later, then kept for a person, and never holds its neighbours up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Final

from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from opentelemetry import trace

from common import context
from common.backoff import Backoff
from common.cancellation import heed_cancellation
from common.db.failures import Failure, classify, is_away
from common.db.pool import Pool
from common.db.types import Connection
from common.events.adoption import adopt_unrouted
from common.events.broker import BROKER_ERRORS, Broker
from common.events.event import (
    Event,
    MalformedEventError,
    envelope_from_bytes,
    event_from_proto,
)
from common.events.inbox import Inbox, Order
from common.telemetry import metrics
from common.telemetry.propagation import parse_traceparent

AfterCommit = Callable[[], Awaitable[None]]
"""Work for after the commit that may be lost in a crash: a nudge, a cache. What must happen is a
job, written in the transaction."""

Handler = Callable[[Connection, Sequence[Event]], Awaitable[Sequence[AfterCommit] | None]]
"""Handles new events inside the open transaction in which they are noted as taken.

All or nothing: an exception undoes the transaction. It makes no call to another service.
"""

_log = logging.getLogger(__name__)
_TRACER: Final = trace.get_tracer("paymesh")
_HANDLED = metrics.counter("paymesh.inbox.handled", "Events handled")
_DROPPED = metrics.counter("paymesh.inbox.dropped", "Events heard before or out of date")
_PARKED = metrics.counter("paymesh.inbox.parked", "Events parked for a missing version")
_FAILED = metrics.counter("paymesh.inbox.failed", "Attempts to handle an event that failed")
_DEAD = metrics.counter("paymesh.inbox.dead", "Events given up, for a person to look at")

# How often parked events are looked at; those woken by a batch are looked at after it.
_PARKED_POLL_SECONDS: Final = 1.0
# Longer than any copy of an event can be on its way: the broker's queues and a relay that was away.
_INBOX_KEEP_DAYS: Final = 14
_PRUNE_EVERY_SECONDS: Final = 3600.0
_PRUNE_ROWS_MAX: Final = 10_000
# A conflict with other transactions is not the batch's fault, but one that never ends is.
_WHOLE_TRIES_MAX: Final = 5
# A handler's own trouble (a row not there yet) is often over in seconds; a bug is not in hours.
_ATTEMPT_BACKOFF: Final = Backoff(first_seconds=1, longest_seconds=300, factor=3)
# A broker that is well declares a queue in milliseconds; one that stalls is dropped before this,
# because its heartbeat is missing.
_QUEUE_SILENCE_SECONDS: Final = 45.0
# W3C says nothing on links; more of them than this tell nobody anything.
_LINKS_MAX: Final = 32


def each(handle: Callable[[Connection, Event], Awaitable[None]]) -> Handler:
    """Return a handler of batches that handles each event by itself, in its own circumstances."""

    async def handle_all(connection: Connection, events: Sequence[Event]) -> None:
        for event in events:
            with context.bound(event.call()):
                await handle(connection, event)

    return handle_all


class Consumer:
    """One queue's reader in one process; `run` until cancelled.

    Args:
        pool: the schema whose inbox notes what was taken.
        broker: the process's broker.
        queue: name of the queue, and of the consumer in the inbox: `notify.orders`.
        bindings: routing keys it hears, `trade.order.*.v1`.
        handler: what it does with new events.
        order: what it asks of versions.
        prefetch: most messages that are on their way to it.
        events_max: about the most events of one transaction; one message is never divided.
        attempts_max: attempts at one event before it is given up.
        attempt_backoff: pauses between them.
        gap_seconds_max: longest a parked event waits for the versions before it.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        broker: Broker,
        queue: str,
        bindings: Sequence[str],
        handler: Handler,
        order: Order = Order.ANY,
        prefetch: int = 32,
        events_max: int = 1000,
        attempts_max: int = 8,
        attempt_backoff: Backoff = _ATTEMPT_BACKOFF,
        gap_seconds_max: float = 3600,
    ) -> None:
        self.queue = queue
        self.bindings = tuple(bindings)
        self._pool = pool
        self._broker = broker
        self._handler = handler
        self._prefetch = prefetch
        self._events_max = events_max
        self._inbox = Inbox(
            pool,
            queue,
            order,
            attempts_max=attempts_max,
            attempt_backoff=attempt_backoff,
            gap_seconds_max=gap_seconds_max,
        )
        self._backoff = Backoff()
        self._attributes = {"queue": queue}
        # Parked events may be left from an earlier life, so the first look comes at once.
        self._parked_due_at = 0.0
        self._prune_due_at = 0.0

    async def declare(self) -> None:
        """Declare the queue and its bindings; from now on no event is missed.

        Done for all consumers of a process before any of its services begins. A queue that is new
        also gets what was told before and nobody heard.

        Raises:
            one of BROKER_ERRORS: the broker is away, or has the queue with other arguments.
        """
        # The dead letters' queue comes last, so that a declaration that was broken off is seen.
        async with self._answering():
            is_complete = await self._broker.has_queue(f"{self.queue}.dead")
        if is_complete:
            await self._declare_queue()
            return
        await self._declare_queue()
        adopted = await adopt_unrouted(self._broker, self.bindings)
        if adopted:
            _log.info("consumer %s fetched %d early messages", self.queue, adopted)
        channel = await self._broker.channel()
        try:
            await self._broker.declare_dead_letters(channel, self.queue)
        finally:
            await _close(channel)

    async def _declare_queue(self) -> None:
        async with self._answering():
            channel = await self._broker.channel()
            try:
                await self._broker.declare_queue(channel, self.queue, self.bindings)
            finally:
                await _close(channel)

    @contextlib.asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        """Let the block take only so long; raises QueueSilentError."""
        limit = asyncio.timeout(_QUEUE_SILENCE_SECONDS)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise QueueSilentError(self._broker.full_name(self.queue)) from None
            raise

    async def run(self) -> None:
        """Hear and handle until cancelled; connects again when the broker was away."""
        if self._broker.is_absent:
            await asyncio.Event().wait()
        failures = 0
        while True:
            begun_at = asyncio.get_running_loop().time()
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001 - events wait in the queue meanwhile
                heed_cancellation()
                if asyncio.get_running_loop().time() - begun_at > self._backoff.longest_seconds:
                    failures = 0
                failures += 1
                pause = self._backoff.pause(failures)
                level = logging.ERROR if isinstance(error, QueueSilentError) else logging.WARNING
                _log.log(level, "consumer %s: %r; again in %.1f s", self.queue, error, pause)
                await asyncio.sleep(pause)

    async def handle(self, events: Sequence[Event]) -> None:
        """Handle events as if they came from the broker; returns when each one is settled.

        Settled: taken, dropped or parked. While the database is away this waits.
        """
        await self._process(events, parked=False)

    async def handle_parked(self) -> int:
        """Handle the parked events whose time has come; return how many were looked at."""
        due = await self._inbox.find_due()
        overdue = frozenset(one.event.event_id for one in due if one.is_overdue)
        await self._process([one.event for one in due], parked=True, overdue=overdue)
        return len(due)

    async def _listen(self) -> None:
        await self.declare()
        channel = await self._broker.channel(publisher_confirms=False)
        arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        try:
            async with self._answering():
                await self._broker.watch(channel, lambda: arrived.put_nowait(None))
                await channel.set_qos(prefetch_count=self._prefetch)
                queue = await channel.get_queue(self._broker.full_name(self.queue))
                await queue.consume(arrived.put)
            while True:
                heed_cancellation()
                messages = await self._next_messages(arrived)
                if messages:
                    await self._handle_messages(messages)
                await self._look_at_parked()
        finally:
            await _close(channel)

    async def _next_messages(
        self, arrived: asyncio.Queue[AbstractIncomingMessage | None]
    ) -> list[AbstractIncomingMessage]:
        """Wait a little for messages; return all that are there, up to the size of a batch."""
        messages: list[AbstractIncomingMessage] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARKED_POLL_SECONDS):
                messages.append(_present(await arrived.get()))
        size = 0
        while messages and not arrived.empty() and size < self._events_max:
            message = _present(arrived.get_nowait())
            messages.append(message)
            # An event is some hundred bytes; counting them exactly would mean to parse twice.
            size += 1 + len(message.body) // 256
        return messages

    async def _handle_messages(self, messages: Sequence[AbstractIncomingMessage]) -> None:
        events: list[Event] = []
        last_good: AbstractIncomingMessage | None = None
        for message in messages:
            try:
                events += [event_from_proto(one) for one in envelope_from_bytes(message.body)]
            except MalformedEventError as error:
                _log.error("consumer %s: a message is no envelope: %s", self.queue, error)
                await message.reject(requeue=False)
            else:
                last_good = message
        if last_good is not None:
            await self._process(events, parked=False)
            await last_good.ack(multiple=True)

    async def _look_at_parked(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._parked_due_at:
            return
        self._parked_due_at = loop.time() + _PARKED_POLL_SECONDS
        while await self.handle_parked():
            pass
        if loop.time() >= self._prune_due_at:
            self._prune_due_at = loop.time() + _PRUNE_EVERY_SECONDS
            while await self._inbox.prune(_INBOX_KEEP_DAYS, _PRUNE_ROWS_MAX) == _PRUNE_ROWS_MAX:
                pass

    async def _process(
        self, events: Sequence[Event], *, parked: bool, overdue: Collection[str] = ()
    ) -> None:
        """Take events through the inbox and the handler; halve them when one is to blame."""
        if not events:
            return
        error = await self._try_whole(events, parked=parked, overdue=overdue)
        if error is None:
            return
        _FAILED.add(1, self._attributes)
        if len(events) > 1:
            middle = len(events) // 2
            await self._process(events[:middle], parked=parked, overdue=overdue)
            await self._process(events[middle:], parked=parked, overdue=overdue)
            return
        await self._note_failure(events[0], error, parked=parked)

    async def _try_whole(
        self, events: Sequence[Event], *, parked: bool, overdue: Collection[str]
    ) -> Exception | None:
        """Return None when the events are settled, else what made them fail."""
        conflicts = 0
        failures = 0
        while True:
            try:
                await self._apply(events, parked=parked, overdue=overdue)
            except Exception as error:  # noqa: BLE001 - the handler's own failure is the question
                heed_cancellation()
                if is_away(error):
                    failures += 1
                elif classify(error) is Failure.RETRY_WHOLE and conflicts < _WHOLE_TRIES_MAX:
                    failures += 1
                    conflicts += 1
                else:
                    return error
                _log.warning("consumer %s: %r; the batch again", self.queue, error)
                await asyncio.sleep(self._backoff.pause(failures))
            else:
                return None

    async def _apply(
        self, events: Sequence[Event], *, parked: bool, overdue: Collection[str]
    ) -> None:
        follow: Sequence[AfterCommit] | None = None
        async with self._pool.transaction() as connection:
            admission = await self._inbox.admit(connection, events, parked=parked)
            if admission.ready:
                with _TRACER.start_as_current_span(
                    f"process {self.queue}",
                    kind=trace.SpanKind.CONSUMER,
                    links=_links(admission.ready),
                ):
                    follow = await self._handler(connection, admission.ready)
            woken = await self._inbox.settle(connection, admission, parked=parked, overdue=overdue)
        if woken:
            self._parked_due_at = 0.0
        _HANDLED.add(len(admission.ready), self._attributes)
        _DROPPED.add(len(admission.dropped), self._attributes)
        _PARKED.add(len(admission.early), self._attributes)
        for work in follow or ():
            try:
                await work()
            except Exception:  # noqa: BLE001 - it may be lost, and the next may not suffer
                _log.exception("consumer %s: work after the commit failed", self.queue)

    async def _note_failure(self, event: Event, error: Exception, *, parked: bool) -> None:
        attempts = await self._inbox.note_failure(event, error, parked=parked)
        if attempts is None:
            _DEAD.add(1, self._attributes)
            _log.error(
                "consumer %s gives %s of %s up: %r",
                self.queue,
                event.event_id,
                event.aggregate_id,
                error,
                exc_info=error,
            )
        else:
            _log.warning("consumer %s: %s failed: %r", self.queue, event.event_id, error)


class QueueSilentError(ConnectionError):
    """A queue does not answer, though its broker may."""

    def __init__(self, full_name: str) -> None:
        super().__init__(
            f"the queue {full_name} does not answer; if its broker was killed just after it was"
            " made and this goes on, it is lost: delete it (rabbitmqctl delete_queue"
            f" {full_name}), and it is made again"
        )


class _ChannelLostError(ConnectionError):
    """The channel was closed, or the broker took the queue away."""


def _present(message: AbstractIncomingMessage | None) -> AbstractIncomingMessage:
    if message is None:
        raise _ChannelLostError("the channel was lost")
    return message


def _links(events: Sequence[Event]) -> list[trace.Link]:
    spans = (parse_traceparent(event.traceparent) for event in events[:_LINKS_MAX])
    return [trace.Link(span) for span in spans if span is not None]


async def _close(channel: AbstractChannel) -> None:
    if not channel.is_closed:
        with contextlib.suppress(*BROKER_ERRORS):
            async with asyncio.timeout(2):
                await channel.close()
