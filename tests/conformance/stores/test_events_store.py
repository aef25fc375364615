"""Events wait, are told, heard once and in their order alike on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from common.backoff import Backoff
from common.db.history import HistoryRow, add_history, list_history
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection
from common.events.broker import Broker
from common.events.consumer import Consumer
from common.events.event import Event, NewEvent, event_from_bytes
from common.events.inbox import Order, count_unhandled, list_dead, revive_dead
from common.events.outbox import Outbox
from common.ids import derive
from tests.conformance.stores.test_jobs_store import PRINCIPAL
from tests.conformance.stores.trade_cases import IDS, START
from tests.conformance.stores.twins import Side, Twins, outcome_of, try_examples

SCHEMA = "trade"
QUERIES = load_queries("common.events")
NO_BROKER = cast("Broker", None)
AT_ONCE = Backoff(first_seconds=0, longest_seconds=0, spread=0)


@dataclass
class EventsSide:
    """An outbox and a consumer on one side; events in `failing` cannot be handled."""

    pool: Pool
    order: Order = Order.NEXT
    gap_seconds_max: float = 3600
    parent: str = field(default_factory=lambda: IDS.new("tst"))
    failing: frozenset[tuple[str, int]] = frozenset()
    handled: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outbox = Outbox()
        self.consumer = Consumer(
            pool=self.pool,
            broker=NO_BROKER,
            queue="cases",
            bindings=["case.#"],
            handler=self._handle,
            order=self.order,
            attempts_max=3,
            attempt_backoff=AT_ONCE,
            gap_seconds_max=self.gap_seconds_max,
        )

    async def _handle(self, connection: Connection, events: Sequence[Event]) -> None:
        for event in events:
            place = event.aggregate_id, event.aggregate_version
            if place in self.failing:
                raise ValueError("cannot")
            # In the transaction of the inbox, so that it is there exactly when the event is taken.
            row = HistoryRow(
                "effect", event.event_id, 1, "", "DONE", "SERVICE:case", START, reason=place[0]
            )
            await add_history(connection, [row])
        self.handled += [(event.aggregate_id, event.aggregate_version) for event in events]

    def event(self, aggregate: str, version: int) -> Event:
        """An event as a consumer hears it."""
        return Event(**self._fields(aggregate, version), recorded_at=START)

    def new_event(self, aggregate: str, version: int) -> NewEvent:
        """An event to be written."""
        return NewEvent(**self._fields(aggregate, version))

    def _fields(self, aggregate: str, version: int) -> dict[str, Any]:
        return {
            "event_id": derive("evt", self.parent, aggregate, version),
            "type": "case.noun.moved.v1",
            "aggregate_id": aggregate,
            "aggregate_version": version,
            "payload": b"payload",
            "principal": PRINCIPAL,
            "occurred_at": START,
            "biz_trace_id": "biz_case",
        }

    async def hear(self, *places: tuple[str, int]) -> None:
        """Hear events in one batch."""
        await self.consumer.handle([self.event(*place) for place in places])

    async def drain(self) -> int:
        """Handle parked events while any is due; return how many looks it took."""
        looks = 0
        while looks < 20 and await self.consumer.handle_parked():
            looks += 1
        return looks

    async def unhandled(self) -> tuple[int, int]:
        """Return how many are parked, and dead."""
        async with self.pool.acquire() as connection:
            return await count_unhandled(connection, "cases")


@pytest.fixture
def events(side: Side) -> EventsSide:
    """Events on one side."""
    return EventsSide(side.pool)


async def waiting(side: EventsSide, limit: int = 9) -> list[tuple[Any, int, str]]:
    async with side.pool.acquire() as connection:
        rows = await connection.fetch(QUERIES["find_waiting_events"], limit)
    assert all(event_from_bytes(row["body"]).payload == b"payload" for row in rows)
    return [(row["recorded_at"], row["position"], row["aggregate_id"]) for row in rows]


async def test_events_wait_in_their_order_until_they_are_told(events: EventsSide) -> None:
    async with events.pool.transaction() as connection:
        await events.outbox.add(connection, [events.new_event(one, 1) for one in "cab"])
        assert (await events.outbox.count_waiting(connection))[0] == 3
    assert [one[2] for one in await waiting(events, 2)] == ["c", "a"]
    told = (await waiting(events))[:2]
    async with events.pool.acquire() as connection:
        await connection.execute(
            QUERIES["mark_published"], [one[0] for one in told], [one[1] for one in told]
        )
    assert [one[2] for one in await waiting(events)] == ["b"]


async def test_events_of_a_lost_change_do_not_wait(events: EventsSide) -> None:
    async def write_and_fail() -> None:
        async with events.pool.transaction() as connection:
            await events.outbox.add(connection, [events.new_event("a", 1)])
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await write_and_fail()
    assert await waiting(events) == []


async def test_copies_are_dropped_and_gaps_are_waited_for(events: EventsSide) -> None:
    await events.hear(("a", 1), ("a", 1), ("a", 3))
    await events.hear(("a", 3), ("a", 1), ("b", 2))
    assert events.handled == [("a", 1)]
    assert await events.unhandled() == (2, 0)
    await events.hear(("a", 2))
    await events.drain()
    assert events.handled == [("a", 1), ("a", 2), ("a", 3)]
    assert await events.unhandled() == (1, 0)


@pytest.mark.parametrize(
    ("order", "handled"), [(Order.ANY, [2, 5, 3, 6]), (Order.NEWEST, [2, 5, 6])]
)
async def test_other_orders_take_all_or_the_newer(
    side: Side, order: Order, handled: list[int]
) -> None:
    events = EventsSide(side.pool, order)
    for version in (2, 5, 3, 6, 5):
        await events.hear(("a", version))
    assert events.handled == [("a", version) for version in handled]


async def test_a_failing_event_dies_alone_and_is_revived(events: EventsSide, side: Side) -> None:
    events.failing = frozenset({("b", 1)})
    await events.hear(("a", 1), ("b", 1), ("c", 1), ("b", 2))
    assert events.handled == [("a", 1), ("c", 1)]
    await events.drain()
    assert await events.unhandled() == (1, 1)
    async with side.pool.acquire() as connection:
        dead = await list_dead(connection, 9)
    assert [(row["aggregate_id"], row["attempts"], row["last_error"]) for row in dead] == [
        ("b", 3, "ValueError: cannot")
    ]
    events.failing = frozenset()
    async with side.pool.transaction() as connection:
        ids = [row["event_id"] for row in dead]
        assert await revive_dead(connection, "cases", ids, order=Order.NEXT) == 1
    await events.drain()
    assert events.handled[2:] == [("b", 1), ("b", 2)]
    assert await events.unhandled() == (0, 0)


async def test_a_gap_that_never_closes_is_given_up(side: Side) -> None:
    events = EventsSide(side.pool, gap_seconds_max=0)
    await events.hear(("a", 2))
    while await events.unhandled() == (1, 0):
        await events.consumer.handle_parked()
    assert await events.unhandled() == (0, 1)


async def test_old_events_are_forgotten_by_their_ids(events: EventsSide) -> None:
    await events.hear(("a", 1))
    assert await events.consumer._inbox.prune(-1, 9) == 1
    assert await events.consumer._inbox.prune(-1, 9) == 0


async def test_history_is_append_only_and_told_in_order(side: Side) -> None:
    rows = [
        HistoryRow("order", "trd_1", 2, "A", "B", "USER:u", START, "biz_1"),
        HistoryRow("order", "trd_1", 1, "", "A", "USER:u", START, "biz_1", "why", "request"),
        HistoryRow("refund", "rfd_1", 1, "", "A", "USER:u", START, "biz_1"),
    ]
    async with side.pool.transaction() as connection:
        await add_history(connection, rows)
        assert await list_history(connection, "order", "trd_1") == [rows[1], rows[0]]
        assert await list_history(connection, "refund", "rfd_1") == [rows[2]]


PLACES = st.tuples(st.sampled_from("abc"), st.integers(1, 5))
OPERATIONS = st.tuples(
    st.sampled_from(list(Order)),
    st.frozensets(PLACES, max_size=2),
    st.lists(
        st.one_of(st.lists(PLACES, min_size=1, max_size=4), st.just("drain"), st.just("heal")),
        min_size=3,
        max_size=15,
    ),
)


async def test_any_arrivals_leave_the_same_effects_and_rows(twins: Twins) -> None:
    async def compare(given: tuple[Order, frozenset[tuple[str, int]], list[Any]]) -> None:
        order, failing, operations = given
        await twins.clear()
        parent = IDS.new("tst")
        sides = [EventsSide(side.pool, order, parent=parent) for side in twins.sides]
        for side in sides:
            side.failing = failing
        for operation in operations:
            answers = []
            for side in sides:
                if operation == "heal":
                    side.failing = frozenset()
                elif operation == "drain":
                    answers.append(await outcome_of(side.drain()))
                else:
                    answers.append(await outcome_of(side.hear(*operation)))
            assert answers[:1] == answers[1:]
            assert sides[0].handled == sides[1].handled
        await twins.compare_rows()

    await try_examples(OPERATIONS, compare)
