"""Each event takes effect once; a failure holds nobody else up; versions are kept in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import aio_pika
import asyncpg

from common import context
from common.db.pool import Pool
from common.db.types import Connection
from common.events.broker import EXCHANGE, Broker
from common.events.consumer import AfterCommit, each
from common.events.event import Event
from common.events.inbox import Order, revive_dead
from common.events.outbox import Outbox
from common.events.relay import Relay
from tests.integration.events.conftest import (
    PRINCIPAL,
    MakeConsumer,
    effects_of,
    heard,
    new_event,
    note_effects,
    running,
    until,
)


async def counts(pool: Pool, queue: str) -> tuple[int, int]:
    async with pool.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM inbox_parked WHERE consumer = $1), "
            "(SELECT count(*) FROM inbox_dead WHERE consumer = $1)",
            queue,
        )
    assert row is not None
    return row[0], row[1]


async def drain_parked(consumer: object) -> None:
    while await consumer.handle_parked():  # type: ignore[attr-defined]
        pass


async def test_events_travel_from_outbox_to_effects_once(
    pool: Pool, broker: Broker, make_consumer: MakeConsumer
) -> None:
    outbox = Outbox()
    consumer = make_consumer("whole.way", note_effects)
    await consumer.declare()
    async with running(Relay(pool, broker, outbox, "whole").run, consumer.run):
        for number in range(0, 100, 10):
            async with pool.transaction() as connection:
                await outbox.add(
                    connection, [new_event(f"way_{n}", 1) for n in range(number, number + 10)]
                )
            outbox.notify()
        ids = [f"way_{n}" for n in range(100)]

        async def all_there() -> bool:
            return len(await effects_of(pool, *ids)) >= 100

        await until(all_there)
    assert sorted(await effects_of(pool, *ids)) == sorted((one, 1) for one in ids)


async def test_copies_of_an_event_are_dropped(pool: Pool, make_consumer: MakeConsumer) -> None:
    consumer = make_consumer("copies", note_effects)
    event = heard(new_event("copy", 1))
    await consumer.handle([event, event])
    await asyncio.gather(*(consumer.handle([event]) for _ in range(5)))
    assert await effects_of(pool, "copy") == [("copy", 1)]


async def test_versions_out_of_order_are_parked_until_the_gap_closes(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    consumer = make_consumer("gaps", note_effects, order=Order.NEXT)
    versions = {n: heard(new_event("gap", n)) for n in range(1, 6)}
    await consumer.handle([versions[3]])
    await consumer.handle([versions[5], versions[2]])
    assert await effects_of(pool, "gap") == []
    assert await counts(pool, "gaps") == (3, 0)
    await consumer.handle([versions[1]])
    await drain_parked(consumer)
    assert await effects_of(pool, "gap") == [("gap", n) for n in (1, 2, 3)]
    await consumer.handle([versions[4], versions[2]])
    await drain_parked(consumer)
    assert await effects_of(pool, "gap") == [("gap", n) for n in (1, 2, 3, 4, 5)]
    assert await counts(pool, "gaps") == (0, 0)


async def test_versions_in_any_order_over_copies_of_a_consumer_are_applied_in_order(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    """Four copies race over shuffled and repeated events of ten aggregates."""
    copies = [make_consumer("racing", note_effects, order=Order.NEXT) for _ in range(4)]
    events = [heard(new_event(f"race_{a}", v)) for a in range(10) for v in range(1, 9)]
    chance = random.Random(7)  # noqa: S311 - the same shuffle each time

    async def feed(consumer: object) -> None:
        mine = list(events)
        chance.shuffle(mine)
        for start in range(0, len(mine), 7):
            await consumer.handle(mine[start : start + 7])  # type: ignore[attr-defined]
            await consumer.handle_parked()  # type: ignore[attr-defined]

    await asyncio.gather(*(feed(consumer) for consumer in copies))
    await drain_parked(copies[0])
    for aggregate in range(10):
        name = f"race_{aggregate}"
        assert await effects_of(pool, name) == [(name, v) for v in range(1, 9)]
    assert await counts(pool, "racing") == (0, 0)


async def test_the_newest_state_wins_where_gaps_do_not_matter(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    consumer = make_consumer("newest", note_effects, order=Order.NEWEST)
    for version in (2, 5, 3, 6):
        await consumer.handle([heard(new_event("new", version))])
    assert await effects_of(pool, "new") == [("new", 2), ("new", 5), ("new", 6)]


async def test_a_gap_that_never_closes_ends_with_a_person_who_may_go_on_without_it(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    consumer = make_consumer("overdue", note_effects, order=Order.NEXT, gap_seconds_max=0.0)
    event = heard(new_event("hole", 3))
    await consumer.handle([event])
    await until(lambda: _has_counts(pool, "overdue", (1, 0)))
    await drain_parked(consumer)
    assert await counts(pool, "overdue") == (0, 1)
    async with pool.transaction() as connection:
        assert await revive_dead(connection, "overdue", [event.event_id], order=Order.NEXT) == 1
    await drain_parked(consumer)
    await consumer.handle([heard(new_event("hole", 4))])
    assert await effects_of(pool, "hole") == [("hole", 3), ("hole", 4)]


async def _has_counts(pool: Pool, queue: str, wanted: tuple[int, int]) -> bool:
    return await counts(pool, queue) == wanted


async def test_a_poisonous_event_is_tried_alone_and_then_set_aside(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    attempts = 0

    async def refuse_one(connection: Connection, events: Sequence[Event]) -> None:
        nonlocal attempts
        await note_effects(connection, events)
        if any(event.payload == b"poison" for event in events):
            attempts += len(events) == 1
            raise ZeroDivisionError("poison")

    consumer = make_consumer("poison", refuse_one, attempts_max=3)
    events = [heard(new_event(f"poison_{n}", 1)) for n in range(20)]
    bad = heard(new_event("poison_bad", 1, payload=b"poison"))
    await consumer.handle([*events[:13], bad, *events[13:]])
    ids = [event.aggregate_id for event in events]
    assert sorted(await effects_of(pool, *ids)) == sorted((one, 1) for one in ids)

    async def is_dead() -> bool:
        await drain_parked(consumer)
        return await counts(pool, "poison") == (0, 1)

    await until(is_dead)
    assert attempts == 3
    assert await effects_of(pool, "poison_bad") == []
    async with pool.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT attempts, last_error, biz_trace_id FROM inbox_dead WHERE consumer = 'poison'"
        )
    assert row is not None
    assert tuple(row) == (3, "ZeroDivisionError: poison", "biz_poison_bad")


async def test_a_failing_version_holds_its_own_aggregate_and_no_other(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    well = False

    async def refuse_for_now(connection: Connection, events: Sequence[Event]) -> None:
        await note_effects(connection, events)
        if not well and any(event.payload == b"ill" for event in events):
            raise asyncpg.CheckViolationError("ill")

    consumer = make_consumer("held", refuse_for_now, order=Order.NEXT, attempts_max=1000)
    await consumer.handle(
        [
            heard(new_event("held_a", 1)),
            heard(new_event("held_b", 1, payload=b"ill")),
            heard(new_event("held_b", 2)),
            heard(new_event("held_a", 2)),
        ]
    )
    assert await effects_of(pool, "held_a", "held_b") == [("held_a", 1), ("held_a", 2)]
    well = True

    async def is_done() -> bool:
        await drain_parked(consumer)
        return await counts(pool, "held") == (0, 0)

    await until(is_done)
    assert await effects_of(pool, "held_b") == [("held_b", 1), ("held_b", 2)]


async def test_a_conflict_of_transactions_is_tried_again_whole(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    tries = 0

    async def conflict_once(connection: Connection, events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        await note_effects(connection, events)
        if tries == 1:
            raise asyncpg.DeadlockDetectedError("once")

    consumer = make_consumer("conflict", conflict_once)
    await consumer.handle([heard(new_event(f"con_{n}", 1)) for n in range(4)])
    assert tries == 2
    assert len(await effects_of(pool, *(f"con_{n}" for n in range(4)))) == 4


async def test_each_event_is_handled_in_its_own_circumstances(
    make_consumer: MakeConsumer,
) -> None:
    seen: list[context.CallContext] = []

    async def look(_: Connection, event: Event) -> None:
        assert context.current().causation_id == event.event_id
        seen.append(context.current())

    consumer = make_consumer("circumstances", each(look))
    await consumer.handle([heard(new_event("cir_1", 1)), heard(new_event("cir_2", 1))])
    assert [call.biz_trace_id for call in seen] == ["biz_cir_1", "biz_cir_2"]
    assert {call.principal for call in seen} == {PRINCIPAL}
    assert context.current().biz_trace_id == ""


async def test_work_after_the_commit_sees_it_and_may_fail(
    pool: Pool, make_consumer: MakeConsumer
) -> None:
    seen: list[int] = []

    async def handle(connection: Connection, events: Sequence[Event]) -> Sequence[AfterCommit]:
        await note_effects(connection, events)

        async def fail() -> None:
            raise ZeroDivisionError

        async def look() -> None:
            seen.append(len(await effects_of(pool, "after")))

        return [fail, look]

    await make_consumer("after", handle).handle([heard(new_event("after", 1))])
    assert seen == [1]


async def test_an_event_in_the_hands_of_a_dying_consumer_is_heard_by_another(
    pool: Pool, broker: Broker, make_consumer: MakeConsumer
) -> None:
    """The broker keeps an event until what it causes is committed, not until it is read."""
    holding = asyncio.Event()

    async def hold(_: Connection, __: Sequence[Event]) -> None:
        holding.set()
        await asyncio.Future()

    dying = make_consumer("hands", hold, bindings=["shop.hands.*.v1"])
    await dying.declare()
    outbox = Outbox()
    async with pool.transaction() as connection:
        await outbox.add(connection, [new_event("hands", 1, "shop.hands.x.v1")])
    await Relay(pool, broker, outbox, "hands").publish_round()
    async with running(dying.run):
        await asyncio.wait_for(holding.wait(), 30)
    async with running(make_consumer("hands", note_effects, bindings=["shop.hands.*.v1"]).run):

        async def arrived() -> bool:
            return bool(await effects_of(pool, "hands"))

        await until(arrived, 10)
    assert await effects_of(pool, "hands") == [("hands", 1)]


async def test_a_message_that_is_no_envelope_goes_to_the_dead_letters(
    pool: Pool, broker: Broker, make_consumer: MakeConsumer
) -> None:
    consumer = make_consumer("garbage", note_effects, bindings=["shop.garbage.*.v1"])
    await consumer.declare()
    outbox = Outbox()
    channel = await broker.channel()
    exchange = await channel.get_exchange(broker.full_name(EXCHANGE), ensure=False)
    for body in (b"\xff\xff", b"", b"\x0a\x02\x0a\x00"):
        await exchange.publish(aio_pika.Message(body), routing_key="shop.garbage.x.v1")
    async with running(consumer.run, Relay(pool, broker, outbox, "garbage").run):
        async with pool.transaction() as connection:
            await outbox.add(connection, [new_event("good", 1, "shop.garbage.x.v1")])
        outbox.notify()

        async def arrived() -> bool:
            return bool(await effects_of(pool, "good"))

        await until(arrived)
        dead = await channel.get_queue(broker.full_name("garbage.dead"))

        async def buried() -> bool:
            return (await dead.declare()).message_count == 3

        await until(buried)
    await channel.close()


async def test_a_deleted_queue_is_declared_again(
    pool: Pool, broker: Broker, make_consumer: MakeConsumer
) -> None:
    """The broker takes a consumer away without closing its channel; silence would be for ever."""
    consumer = make_consumer("deleted", note_effects, bindings=["shop.deleted.*.v1"])
    await consumer.declare()
    outbox = Outbox()
    channel = await broker.channel()
    async with running(consumer.run):
        queue = await channel.get_queue(broker.full_name("deleted"))

        async def consumed() -> bool:
            return bool((await queue.declare()).consumer_count)

        await until(consumed)
        await queue.delete(if_unused=False, if_empty=False)

        async def exists_again() -> bool:
            try:
                one = await channel.get_queue(broker.full_name("deleted"))
            except aio_pika.exceptions.ChannelClosed:
                await channel.reopen()
                return False
            return bool((await one.declare()).consumer_count)

        await until(exists_again)
        async with pool.transaction() as connection:
            await outbox.add(connection, [new_event("deleted", 1, "shop.deleted.x.v1")])
        await Relay(pool, broker, outbox, "deleted").publish_round()

        async def arrived() -> bool:
            return bool(await effects_of(pool, "deleted"))

        await until(arrived)
    await channel.close()


async def test_a_new_queue_fetches_what_was_told_before_it_was_there(
    pool: Pool, broker: Broker, make_consumer: MakeConsumer
) -> None:
    """The sender starts first; two readers come at once, and events of others stay aside."""
    outbox = Outbox()
    async with pool.transaction() as connection:
        await outbox.add(
            connection,
            [
                *(new_event(f"early_{n}", 1, "shop.early.a.v1") for n in range(5)),
                *(new_event(f"early_{n}", 2, "shop.early.b.v1") for n in range(5)),
                new_event("early_other", 1, "shop.elsewhere.c.v1"),
            ],
        )
    await Relay(pool, broker, outbox).publish_round()
    one = make_consumer("early.one", note_effects, bindings=["shop.early.a.v1"])
    two = make_consumer("early.two", note_effects, bindings=["shop.early.b.v1"])
    async with running(one.run, two.run):
        names = [f"early_{n}" for n in range(5)]

        async def all_there() -> bool:
            return len(await effects_of(pool, *names)) == 10

        await until(all_there)
    assert await effects_of(pool, "early_other") == []


async def test_pruning_forgets_old_events_only(pool: Pool, make_consumer: MakeConsumer) -> None:
    consumer = make_consumer("pruned", note_effects)
    old, derived, new = (heard(new_event(f"prune_{n}", 1)) for n in range(3))
    await consumer.handle([old, derived, new])
    async with pool.acquire() as connection:
        # Taken long ago with a new id, taken lately with an old id (derived from an old parent).
        await connection.execute(
            "UPDATE inbox SET received_at = received_at - interval '20 days', "
            "event_id = 'evt_00' || event_id WHERE event_id = $1",
            old.event_id,
        )
        await connection.execute(
            "UPDATE inbox SET event_id = 'evt_00' || event_id WHERE event_id = $1", derived.event_id
        )
        await connection.execute(
            "UPDATE inbox SET received_at = received_at - interval '20 days' WHERE event_id = $1",
            new.event_id,
        )
    assert await consumer._inbox.prune(14, 100) == 1
    assert await consumer._inbox.prune(14, 100) == 0


async def test_a_reader_that_comes_later_hears_what_is_told_again_and_others_hear_it_once(
    pool: Pool, broker: Broker, make_consumer: MakeConsumer
) -> None:
    """Others had heard it, so the broker kept nothing for it: told rows are told again by hand."""
    outbox = Outbox()
    relay = Relay(pool, broker, outbox, "again")
    bindings = ("shop.again.*.v1",)
    first = make_consumer("again_first", note_effects, bindings=bindings)
    await first.declare()
    async with pool.transaction() as connection:
        await outbox.add(
            connection, [new_event("again", one, "shop.again.paid.v1") for one in (1, 2, 3)]
        )
    assert await relay.flush() == 3
    late_events: list[str] = []

    async def note_late(_: Connection, events: Sequence[Event]) -> None:
        late_events.extend(event.event_id for event in events)

    late = make_consumer("again_late", note_late, bindings=bindings)
    await late.declare()
    async with pool.acquire() as connection:
        # As docs/resilience.md says it.
        await connection.execute(
            "UPDATE outbox SET published_at = NULL "
            "WHERE type LIKE 'shop.again.%' AND recorded_at >= now() - interval '1 hour'"
        )
    assert await relay.flush() == 3
    async with running(first.run, late.run):
        await until(lambda: len(late_events) == 3)

        async def first_is_done() -> bool:
            return [one for one, _ in await effects_of(pool, "again")] == ["again"] * 3

        await until(first_is_done)
        channel = await broker.channel()
        queue = await channel.get_queue(broker.full_name("again_first"))

        async def nothing_is_left() -> bool:
            return (await queue.declare()).message_count == 0

        await until(nothing_is_left)
        await channel.close()
    assert await effects_of(pool, "again") == [("again", 1), ("again", 2), ("again", 3)]
