"""Telling the broker of what the outbox holds, until it has confirmed.

One relay per schema works at a time (a lease); a second would only tell twice. The row's mark is
set after the confirm, so a crash in between tells again: at least once, and inboxes drop copies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import aio_pika
import asyncpg
from aio_pika.abc import AbstractChannel, AbstractExchange

from common.backoff import Backoff
from common.cancellation import heed_cancellation
from common.db.leases import Lease
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Record
from common.events.broker import BROKER_ERRORS, Broker
from common.events.event import envelope_to_bytes
from common.events.outbox import Outbox
from common.telemetry import metrics

_QUERIES: Final = load_queries("common.events")
_log = logging.getLogger(__name__)

# A batch costs the broker 4 µs an event, single messages 150 µs; beyond some hundreds nothing is
# gained, and a consumer's transaction becomes long.
_EVENTS_PER_ENVELOPE_MAX: Final = 500
_BYTES_PER_ENVELOPE_MAX: Final = 256 << 10
_EVENTS_PER_ROUND_MAX: Final = 2000
# The events of other processes of the service, and those whose writer forgot to notify.
_POLL_SECONDS: Final = 0.25
_PUBLISH_TIMEOUT_SECONDS: Final = 20.0
_LEASE_SECONDS: Final = 10.0
_PARTITION_ROUND_SECONDS: Final = 3600.0
_PARTITION_DAYS_AHEAD: Final = 3
# Locks every insert out for the moment that it takes, so it must not wait for its turn.
_PARTITION_LOCK_TIMEOUT: Final = "1s"

_PUBLISHED = metrics.counter("paymesh.outbox.published", "Events confirmed by the broker")
_FAILED = metrics.counter("paymesh.outbox.failed", "Envelopes that the broker did not confirm")


@dataclass
class _Envelope:
    """Events of one routing key that travel in one message."""

    type: str
    rows: list[Record] = field(default_factory=list)
    size: int = 0

    def takes(self, size: int) -> bool:
        return (
            len(self.rows) < _EVENTS_PER_ENVELOPE_MAX
            and self.size + size <= _BYTES_PER_ENVELOPE_MAX
        )


class Relay:
    """Publishes the outbox of one schema; `run` until cancelled.

    `holder` names it in the table of leases. Told events are kept for `keep_days`.
    """

    def __init__(
        self,
        pool: Pool,
        broker: Broker,
        outbox: Outbox,
        holder: str = "relay",
        *,
        keep_days: int = 7,
    ) -> None:
        self._pool = pool
        self._broker = broker
        self._outbox = outbox
        self._keep_days = keep_days
        # Process ids repeat from container to container; the random part does not.
        holder = f"{holder}-{secrets.token_hex(6)}"
        self._lease = Lease(pool, "relay", holder, seconds=_LEASE_SECONDS)
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._backoff = Backoff()
        self._partitions_due_at = 0.0

    async def run(self) -> None:
        """Publish whatever comes, until cancelled; gives the lease back at the end.

        Without a broker, only see to it that there is room for what comes.
        """
        failures = 0
        await self._broker.may_tell.wait()
        try:
            while True:
                heed_cancellation()
                self._outbox.forget_notifications()
                try:
                    if not await self._lease.hold():
                        await asyncio.sleep(_LEASE_SECONDS / 4)
                        continue
                    await self._keep_partitions()
                    if self._broker.is_absent:
                        await asyncio.sleep(_LEASE_SECONDS / 4)
                        continue
                    published = await self.publish_round()
                except Exception as error:  # noqa: BLE001 - events wait until things are well again
                    failures += 1
                    pause = self._backoff.pause(failures)
                    _log.warning("relay %s: %r; again in %.1f s", self._pool.schema, error, pause)
                    await self._close_channel()
                    heed_cancellation()
                    await asyncio.sleep(pause)
                    continue
                failures = 0
                if published == 0:
                    await self._outbox.wait(_POLL_SECONDS)
        finally:
            await self._close_channel()
            with contextlib.suppress(Exception):
                await self._lease.give_back()

    async def flush(self) -> int:
        """Publish what waits now and return how many events; for the end of a process.

        Done without the lease: `run` has ended, and telling twice is harmless.

        Raises:
            one of BROKER_ERRORS, asyncpg.PostgresError: the events keep waiting.
        """
        total = 0
        if self._broker.is_absent or not self._broker.may_tell.is_set():
            # There is nobody to tell; or the process ends before its own queues were ever declared,
            # and its next start tells.
            return total
        try:
            while published := await self.publish_round():
                total += published
        finally:
            await self._close_channel()
        return total

    async def publish_round(self) -> int:
        """Publish the oldest events that wait, bounded; return how many.

        Raises:
            one of BROKER_ERRORS, asyncpg.PostgresError: what was confirmed is marked, if it can be.
        """
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_QUERIES["find_waiting_events"], _EVENTS_PER_ROUND_MAX)
        if not rows:
            return 0
        exchange = await self._open_exchange()
        envelopes = fill_envelopes(rows)
        # Published in order on one channel, and confirmed all together.
        answers = await asyncio.gather(
            *(self._publish(exchange, envelope) for envelope in envelopes), return_exceptions=True
        )
        told = [
            row
            for envelope, answer in zip(envelopes, answers, strict=True)
            if answer is None
            for row in envelope.rows
        ]
        if told:
            await self._mark(told)
        for answer in answers:
            if isinstance(answer, BaseException):
                _FAILED.add(1, {"schema": self._pool.schema})
                raise answer
        return len(told)

    async def _publish(self, exchange: AbstractExchange, envelope: _Envelope) -> None:
        body = envelope_to_bytes((row["body"], row["recorded_at"]) for row in envelope.rows)
        await exchange.publish(
            aio_pika.Message(
                body,
                content_type="application/x-protobuf",
                type="paymesh.event.v1.Envelope",
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            ),
            routing_key=envelope.type,
            mandatory=True,
            timeout=_PUBLISH_TIMEOUT_SECONDS,
        )

    async def _mark(self, rows: Sequence[Record]) -> None:
        recorded: list[datetime] = [row["recorded_at"] for row in rows]
        async with self._pool.acquire() as connection:
            await connection.execute(
                _QUERIES["mark_published"], recorded, [row["position"] for row in rows]
            )
        _PUBLISHED.add(len(rows), {"schema": self._pool.schema})

    async def _open_exchange(self) -> AbstractExchange:
        if self._exchange is None or self._channel is None or self._channel.is_closed:
            await self._close_channel()
            self._channel = await self._broker.channel()
            self._exchange = await self._broker.declare_exchange(self._channel)
        return self._exchange

    async def _close_channel(self) -> None:
        channel, self._channel, self._exchange = self._channel, None, None
        if channel is not None and not channel.is_closed:
            with contextlib.suppress(*BROKER_ERRORS):
                async with asyncio.timeout(_LEASE_SECONDS / 4):
                    await channel.close()

    async def _keep_partitions(self) -> None:
        """Make the days ahead and drop those behind, once an hour; trouble is for later."""
        now = asyncio.get_running_loop().time()
        if now < self._partitions_due_at:
            return
        self._partitions_due_at = now + _PARTITION_ROUND_SECONDS
        try:
            for query, days in (
                ("make_partitions", _PARTITION_DAYS_AHEAD),
                ("drop_partitions", self._keep_days),
            ):
                async with self._pool.transaction() as connection:
                    await connection.execute(
                        f"SET LOCAL lock_timeout = '{_PARTITION_LOCK_TIMEOUT}'"
                    )
                    await connection.execute(_QUERIES[query], days)
        except asyncpg.PostgresError as error:
            self._partitions_due_at = now + _PARTITION_ROUND_SECONDS / 60
            _log.warning("partitions of %s.outbox: %s", self._pool.schema, error)


def fill_envelopes(rows: Sequence[Record]) -> list[_Envelope]:
    """Put events, oldest first, into envelopes of one routing key each.

    An event joins an envelope that was begun before it only while no later envelope holds the same
    aggregate, so that an aggregate's events leave in their order, whatever their keys.
    """
    envelopes: list[_Envelope] = []
    open_ones: dict[str, int] = {}
    last_of_aggregate: dict[str, int] = {}
    for row in rows:
        size = len(row["body"])
        place = open_ones.get(row["type"], -1)
        if (
            place < 0
            or place < last_of_aggregate.get(row["aggregate_id"], -1)
            or not envelopes[place].takes(size)
        ):
            place = len(envelopes)
            envelopes.append(_Envelope(row["type"]))
            open_ones[row["type"]] = place
        envelopes[place].rows.append(row)
        envelopes[place].size += size
        last_of_aggregate[row["aggregate_id"]] = place
    return envelopes
