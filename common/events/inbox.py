"""What a consumer has heard: copies dropped, versions in order, gaps and failures parked.

Everything here happens in the transaction in which the consumer's handler writes, so that an event
has taken effect exactly when it is noted as taken.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from common.backoff import Backoff
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.events.event import Event, event_from_bytes, event_to_bytes
from common.ids import encode_time

_QUERIES: Final = load_queries("common.events")
_ERROR_LENGTH_MAX: Final = 500
_PARKED_PER_ROUND_MAX: Final = 200


class Order(enum.Enum):
    """What a consumer asks of the versions of one aggregate."""

    ANY = "ANY"
    """Each event stands for itself; versions are not looked at."""

    NEWEST = "NEWEST"
    """Newer states only: older versions are dropped, missing ones are not waited for. For
    consumers of some of an aggregate's event types, because events are facts."""

    NEXT = "NEXT"
    """Every version, one after the other: gaps are parked until they close. Only for consumers
    bound to all event types of the aggregate from its first version on."""


@dataclass
class Admission:
    """What becomes of a batch of events."""

    ready: list[Event] = field(default_factory=list)
    """To be handled now, an aggregate's in order."""
    early: list[Event] = field(default_factory=list)
    """An earlier version is missing: parked."""
    dropped: list[Event] = field(default_factory=list)
    """Heard before, or older than what was applied."""
    versions: dict[str, int] = field(default_factory=dict)
    """How far each aggregate will be."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event whose time has come again."""

    event: Event
    is_overdue: bool
    """It has waited longer than gaps are waited for."""


class Inbox:
    """The inbox of one consumer in its service's schema."""

    def __init__(
        self,
        pool: Pool,
        consumer: str,
        order: Order,
        *,
        attempts_max: int,
        attempt_backoff: Backoff,
        gap_seconds_max: float,
    ) -> None:
        self._pool = pool
        self._consumer = consumer
        self._order = order
        self._attempts_max = attempts_max
        self._attempt_backoff = attempt_backoff
        self._gap_seconds_max = gap_seconds_max

    async def admit(
        self, connection: Connection, events: Sequence[Event], *, parked: bool
    ) -> Admission:
        """Decide what becomes of events, new ones from the broker or `parked` ones.

        Locks the aggregates until the transaction ends.
        """
        unique = {event.event_id: event for event in events}
        if parked:
            rows = await connection.fetch(_QUERIES["lock_parked"], self._consumer, list(unique))
        else:
            # In one order everywhere, or two copies of the consumer deadlock on common events.
            rows = await connection.fetch(_QUERIES["take_events"], self._consumer, sorted(unique))
        fresh = {row["event_id"] for row in rows}
        admission = Admission(
            dropped=[] if parked else [one for one in unique.values() if one.event_id not in fresh]
        )
        wanted = [one for one in unique.values() if one.event_id in fresh]
        if self._order is Order.ANY:
            admission.ready = wanted
        elif wanted:
            known = await self._lock_versions(connection, wanted)
            _sort_by_version(wanted, known, admission, wait=self._order is Order.NEXT)
        return admission

    async def settle(
        self,
        connection: Connection,
        admission: Admission,
        *,
        parked: bool,
        overdue: Collection[str] = (),
    ) -> bool:
        """Note what was decided; return whether parked events became due by it.

        Events whose gap is still open though they are `overdue` are given up.
        """
        woken = False
        if admission.versions:
            await connection.execute(
                _QUERIES["advance_versions"],
                self._consumer,
                list(admission.versions),
                list(admission.versions.values()),
            )
        if parked:
            done = [one.event_id for one in (*admission.ready, *admission.dropped)]
            await connection.execute(_QUERIES["unpark_events"], self._consumer, done)
        if self._order is Order.NEXT and admission.versions:
            rows = await connection.fetch(
                _QUERIES["wake_parked"], self._consumer, list(admission.versions)
            )
            woken = bool(rows)
        waiting = [one for one in admission.early if one.event_id not in overdue]
        if waiting:
            await self._park(connection, waiting, 0, self._gap_seconds_max, "")
        for event in admission.early:
            if event.event_id in overdue:
                await self._bury(connection, event, 0, "an earlier version never came")
        return woken

    async def find_due(self) -> list[ParkedEvent]:
        """Return parked events whose time has come, an aggregate's in order."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _QUERIES["find_due_parked"],
                self._consumer,
                _PARKED_PER_ROUND_MAX,
                self._gap_seconds_max,
            )
        return [ParkedEvent(event_from_bytes(row["event"]), row["is_overdue"]) for row in rows]

    async def note_failure(self, event: Event, error: BaseException, *, parked: bool) -> int | None:
        """Note that handling one event failed; return how often so far, None when it is dead now.

        Another copy of the consumer may have taken it in between; then nothing is noted.
        """
        text = f"{type(error).__name__}: {error}"[:_ERROR_LENGTH_MAX]
        async with self._pool.transaction() as connection:
            query = "lock_parked" if parked else "take_events"
            if not await connection.fetch(_QUERIES[query], self._consumer, [event.event_id]):
                return 0
            (attempts,) = await self._park(
                connection, [event], 1, self._attempt_backoff.pause(1), text
            )
            if attempts >= self._attempts_max:
                await self._bury(connection, event, attempts, text)
                return None
            if attempts > 1:
                pause = self._attempt_backoff.pause(attempts)
                await self._park(connection, [event], 0, pause, text)
            return attempts

    async def prune(self, keep_days: int, rows_max: int) -> int:
        """Forget events taken more than `keep_days` ago; return how many.

        Event ids begin with their time, so that only old ones are looked at.
        """
        before = await self._pool.fetch_now() - timedelta(days=keep_days)
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _QUERIES["prune_inbox"],
                self._consumer,
                f"evt_{encode_time(before)}",
                before,
                rows_max,
            )
        return len(rows)

    async def _lock_versions(
        self, connection: Connection, events: Sequence[Event]
    ) -> dict[str, int]:
        aggregates = sorted({event.aggregate_id for event in events})
        await connection.execute(_QUERIES["begin_versions"], self._consumer, aggregates)
        rows = await connection.fetch(_QUERIES["lock_versions"], self._consumer, aggregates)
        return {row["aggregate_id"]: row["version"] for row in rows}

    async def _park(
        self,
        connection: Connection,
        events: Sequence[Event],
        attempts: int,
        pause_seconds: float,
        error: str,
    ) -> list[int]:
        rows = await connection.fetch(
            _QUERIES["park_events"],
            self._consumer,
            [event.event_id for event in events],
            [event.aggregate_id for event in events],
            [event.aggregate_version for event in events],
            [event_to_bytes(event) for event in events],
            attempts,
            pause_seconds,
            error,
        )
        return [row["attempts"] for row in rows]

    async def _bury(self, connection: Connection, event: Event, attempts: int, error: str) -> None:
        await connection.execute(
            _QUERIES["bury_event"],
            self._consumer,
            event.event_id,
            event.type,
            event.aggregate_id,
            event.aggregate_version,
            event.biz_trace_id,
            attempts,
            error,
            event_to_bytes(event),
        )
        await connection.execute(_QUERIES["unpark_events"], self._consumer, [event.event_id])


def _sort_by_version(
    events: Sequence[Event], known: dict[str, int], admission: Admission, *, wait: bool
) -> None:
    """Sort events into ready, early and dropped; a later one of the batch may close a gap."""
    early: dict[tuple[str, int], Event] = {}
    versions = dict(known)
    for event in events:
        current: Event | None = event
        while current is not None:
            aggregate, version = current.aggregate_id, current.aggregate_version
            if version <= versions[aggregate]:
                admission.dropped.append(current)
                break
            if wait and version > versions[aggregate] + 1:
                key = (aggregate, version)
                if key in early:
                    admission.dropped.append(early[key])
                early[key] = current
                break
            admission.ready.append(current)
            admission.versions[aggregate] = versions[aggregate] = version
            current = early.pop((aggregate, version + 1), None)
    admission.early.extend(early.values())


async def list_dead(connection: Connection, limit: int) -> list[Record]:
    """Return events of all consumers of a schema that a person must decide on, oldest first.

    Columns: consumer, event_id, type, aggregate_id, aggregate_version, biz_trace_id, attempts,
    last_error, died_at.
    """
    return await connection.fetch(_QUERIES["list_dead"], limit)


async def count_unhandled(connection: Connection, consumer: str) -> tuple[int, int]:
    """Return how many events of a consumer are parked, and how many are dead."""
    row = await connection.fetchrow(_QUERIES["count_parked"], consumer)
    return (0, 0) if row is None else (row["parked"], row["dead"])


async def revive_dead(
    connection: Connection, consumer: str, event_ids: Sequence[str], *, order: Order = Order.ANY
) -> int:
    """Let dead events be handled again, at once, as if new; return how many there were.

    For an ordered consumer the lowest version is made the next one, whatever is missing before it:
    the person who revives it has decided that.
    """
    rows = await connection.fetch(_QUERIES["exhume_events"], consumer, list(event_ids))
    lowest: dict[str, int] = {}
    for row in rows:
        version = row["aggregate_version"]
        lowest[row["aggregate_id"]] = min(version, lowest.get(row["aggregate_id"], version))
    if order is not Order.ANY:
        for aggregate_id, version in lowest.items():
            await connection.execute(_QUERIES["set_version"], consumer, aggregate_id, version - 1)
    if rows:
        await connection.fetch(
            _QUERIES["park_events"],
            consumer,
            [row["event_id"] for row in rows],
            [row["aggregate_id"] for row in rows],
            [row["aggregate_version"] for row in rows],
            [row["event"] for row in rows],
            0,
            0.0,
            "",
        )
    return len(rows)
