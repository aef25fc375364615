"""Webhooks from the event to the merchant's server, and what happens when that server misbehaves.

Proves: one event is one webhook; it is sent until it is taken, by the schedule, under one id and
a signature that the Standard Webhooks library accepts; slow, broken and moved servers hurt nobody
else; nothing is sent to addresses that are not the public's.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from notify_kit import Kit, MakeKit, Receiver, ShiftedClock, body_of, running, until

from services.notify.domain.deliveries import (
    ATTEMPTS_MAX,
    RETRY_DELAYS_SECONDS,
    DeliveryState,
    Outcome,
)
from services.notify.events import webhook_id_of


async def test_hearing_an_event_sends_a_webhook_that_the_library_verifies(
    kit: Kit, receiver: Receiver
) -> None:
    _, verifier = await kit.add_endpoint(receiver.url)
    event = kit.completed()
    async with running(kit.sender):
        await kit.hear(event)
        (delivery,) = await kit.until_state(DeliveryState.DELIVERED)
    (heard,) = receiver.heard
    verifier.verify(heard.body, heard.headers)
    assert heard.webhook_id == webhook_id_of(event.event_id) == delivery.webhook_id
    assert heard.headers["paymesh-biz-trace-id"] == event.biz_trace_id
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["user-agent"].startswith("paymesh")
    content = body_of(heard)
    assert content["type"] == "order.completed"
    assert content["timestamp"].endswith("Z")
    data = content["data"]
    assert data["id"] == event.aggregate_id == delivery.subject_id
    assert data["state"] == "COMPLETED"
    assert data["amount"] == {"currency_code": "USD", "amount_minor": 1234}
    assert data["biz_trace_id"] == event.biz_trace_id
    assert (delivery.attempts, delivery.last_http_status) == (1, 204)
    assert delivery.next_attempt_at is None


async def test_hearing_an_event_again_sends_nothing_again(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    event = kit.completed()
    async with running(kit.sender):
        await kit.hear(event, event)
        await kit.until_state(DeliveryState.DELIVERED)
        await kit.hear(event)
        await kit.hear(kit.completed())
        await kit.until_state(DeliveryState.DELIVERED, 2)
    assert len(await kit.deliveries()) == 2
    assert len(receiver.heard) == 2


async def test_hearing_without_an_address_or_interest_sends_nothing(
    kit: Kit, new_kit: MakeKit, receiver: Receiver
) -> None:
    other = new_kit()
    await other.add_endpoint(receiver.url)
    await kit.add_endpoint(receiver.url, ["refund.completed"])
    await kit.hear(kit.completed())
    assert await kit.deliveries() == []
    assert await other.deliveries() == []


async def test_failing_keeps_the_schedule_then_parks(kit: Kit, receiver: Receiver) -> None:
    """The clock is moved to each due instant; every attempt carries the same id."""
    kit.clock.stop()
    _, verifier = await kit.add_endpoint(receiver.url)
    receiver.say(500)
    await kit.hear(kit.completed())
    async with running(kit.sender):
        for attempt in range(1, ATTEMPTS_MAX):
            delivery = await kit.until_attempts(attempt)
            assert delivery.state is DeliveryState.PENDING
            assert delivery.last_http_status == 500
            assert delivery.next_attempt_at is not None
            delay = delivery.next_attempt_at - kit.clock.now()
            assert delay == timedelta(seconds=RETRY_DELAYS_SECONDS[attempt])
            kit.clock.ahead += delay
        (parked,) = await kit.until_state(DeliveryState.PARKED)
    assert parked.attempts == len(receiver.heard) == ATTEMPTS_MAX
    assert len({heard.webhook_id for heard in receiver.heard}) == 1
    assert len({heard.headers["webhook-timestamp"] for heard in receiver.heard}) > 5
    verifier.verify(receiver.heard[0].body, receiver.heard[0].headers)


async def test_answering_with_retry_after_is_honoured(kit: Kit, receiver: Receiver) -> None:
    kit.clock.stop()
    await kit.add_endpoint(receiver.url)
    receiver.say(503, retry_after="900")
    async with running(kit.sender):
        await kit.hear(kit.completed())
        delivery = await kit.until_attempts(1)
        assert delivery.next_attempt_at is not None
        assert delivery.next_attempt_at - kit.clock.now() == timedelta(seconds=900)
        at = format_datetime(kit.clock.now() + timedelta(hours=3))
        receiver.say(429, retry_after=at)
        kit.clock.ahead += timedelta(seconds=900)
        delivery = await kit.until_attempts(2)
        assert delivery.next_attempt_at is not None
        assert format_datetime(delivery.next_attempt_at) == at


async def test_answering_410_switches_the_address_off(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    receiver.say(500)
    async with running(kit.sender):
        await kit.hear(kit.completed())
        await kit.until_attempts(1)
        receiver.say(410)
        await kit.hear(kit.completed())
        parked = await kit.until_state(DeliveryState.PARKED, 2)
        assert {one.next_attempt_at for one in parked} == {None}
        await kit.hear(kit.completed())
    assert len(await kit.deliveries()) == 2
    (endpoint,) = await kit.endpoints.list_endpoints(kit.owner, 10)
    assert endpoint.disabled


async def test_redirecting_is_a_failure_and_is_not_followed(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    receiver.say(307, location=receiver.url)
    async with running(kit.sender):
        await kit.hear(kit.completed())
        delivery = await kit.until_attempts(1)
    assert (delivery.state, delivery.last_http_status) == (DeliveryState.PENDING, 307)
    assert len(receiver.heard) == 1


async def test_a_slow_address_holds_no_other_up(new_kit: MakeKit, receiver: Receiver) -> None:
    kit = new_kit(in_flight_max=4, in_flight_per_endpoint_max=2, attempt_timeout_seconds=10)
    other = new_kit(clock=kit.clock)
    stuck = asyncio.Event()

    async def respond(request: web.Request) -> web.Response:
        if request.query_string == "slow":
            await stuck.wait()
        return web.Response(status=200)

    receiver.respond = respond
    await kit.add_endpoint(f"{receiver.url}?slow")
    await other.add_endpoint(receiver.url)
    async with running(kit.sender):
        await kit.hear(*(kit.completed() for _ in range(20)))
        await other.hear(*(other.completed() for _ in range(20)))
        kit.sender.wake()
        await other.until_state(DeliveryState.DELIVERED, 20)
        assert len(await kit.deliveries()) == 20
        stuck.set()
        await kit.until_state(DeliveryState.DELIVERED, 20)


async def test_not_answering_in_time_is_tried_again(new_kit: MakeKit, receiver: Receiver) -> None:
    kit = new_kit(attempt_timeout_seconds=0.3)
    stuck = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        await stuck.wait()
        return web.Response(status=200)

    receiver.respond = respond
    await kit.add_endpoint(receiver.url)
    async with running(kit.sender):
        await kit.hear(kit.completed())
        delivery = await kit.until_attempts(1)
        assert (delivery.state, delivery.last_http_status) == (DeliveryState.PENDING, 0)
        stuck.set()
        kit.clock.ahead += timedelta(seconds=20)
        await kit.until_state(DeliveryState.DELIVERED)
    assert await kit.pool_value("SELECT problem FROM attempts WHERE delivery_id = $1") == "timeout"


async def test_crashing_between_send_and_note_sends_again_with_the_same_id(
    kit: Kit, new_kit: MakeKit, receiver: Receiver
) -> None:
    """The first process dies after the merchant has taken it; its lease runs out."""
    sent = asyncio.Event()

    async def die(_: Outcome) -> bool:
        sent.set()
        return await asyncio.Future[bool]()

    first = new_kit(
        principal=kit.principal, clock=kit.clock, save=die, poll_seconds=1000, lease_seconds=30
    )
    await kit.add_endpoint(receiver.url)
    await kit.hear(kit.completed())
    task = asyncio.create_task(first.sender.run())
    await asyncio.wait_for(sent.wait(), 10)
    async with running(kit.sender):
        # Claimed by the first one: nobody else sends it before the lease is over.
        await kit.hear(kit.completed())
        await kit.until_state(DeliveryState.DELIVERED)
        assert len(receiver.heard) == 2
        kit.clock.ahead += timedelta(seconds=31)
        await kit.until_state(DeliveryState.DELIVERED, 2)
    assert len(receiver.heard) == 3
    assert receiver.heard[0].webhook_id == receiver.heard[2].webhook_id
    assert receiver.heard[0].body == receiver.heard[2].body
    task.cancel()
    for one in list(first.sender._tasks):
        one.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_stopping_gives_back_what_was_not_sent(new_kit: MakeKit, receiver: Receiver) -> None:
    kit = new_kit(in_flight_per_endpoint_max=1, attempt_timeout_seconds=10)
    stuck = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        await stuck.wait()
        return web.Response(status=200)

    receiver.respond = respond
    await kit.add_endpoint(receiver.url)
    await kit.hear(*(kit.completed() for _ in range(2)))
    async with running(kit.sender):

        async def is_sending() -> bool:
            return len(receiver.heard) == 1

        await until(is_sending)
        stuck.set()
    other = new_kit(principal=kit.principal, clock=kit.clock)
    async with running(other.sender):
        await other.until_state(DeliveryState.DELIVERED, 2)
    assert len(receiver.heard) == 2


async def test_failing_often_opens_the_breaker_and_one_probe_closes_it(
    kit: Kit, receiver: Receiver
) -> None:
    kit.clock.stop()
    await kit.add_endpoint(receiver.url)
    receiver.say(500)
    async with running(kit.sender):
        await kit.hear(*(kit.completed() for _ in range(5)))

        async def all_failed() -> bool:
            return len(receiver.heard) == 5 and all(d.attempts for d in await kit.deliveries())

        await until(all_failed)
        receiver.say(200)
        await kit.hear(kit.completed())
        kit.clock.ahead += timedelta(seconds=4)
        kit.sender.wake()
        assert len(receiver.heard) == 5
        kit.clock.ahead += timedelta(seconds=1)
        await kit.until_state(DeliveryState.DELIVERED)
        assert len(receiver.heard) == 6
        kit.clock.ahead += timedelta(seconds=15)
        await kit.until_state(DeliveryState.DELIVERED, 6)


class _LyingResolver(AbstractResolver):
    """Resolves every name to this machine, as a merchant's own name server may."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        pass


async def test_a_name_that_resolves_to_a_private_address_is_not_connected(
    new_kit: MakeKit, receiver: Receiver
) -> None:
    kit = new_kit(private_allowed=False, resolver=_LyingResolver())
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    await kit.add_endpoint(f"https://shop.example.com:{port}/webhooks")
    async with running(kit.sender):
        await kit.hear(kit.completed())
        delivery = await kit.until_attempts(1)
    assert (delivery.state, delivery.last_http_status) == (DeliveryState.PENDING, 0)
    problem = await kit.pool_value("SELECT problem FROM attempts WHERE delivery_id = $1")
    assert problem == "address_refused"
    assert receiver.heard == []


async def test_an_address_that_was_allowed_once_is_refused_at_connect(
    kit: Kit, new_kit: MakeKit, receiver: Receiver
) -> None:
    """Registered while private addresses were allowed; a literal is never looked up."""
    await kit.add_endpoint(receiver.url)
    await kit.hear(kit.completed())
    strict = new_kit(private_allowed=False, principal=kit.principal)
    async with running(strict.sender):
        await strict.until_attempts(1)
    problem = await kit.pool_value("SELECT problem FROM attempts WHERE delivery_id = $1")
    assert problem == "address_refused"
    assert receiver.heard == []


async def test_sending_many_delivers_each_once(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    async with running(kit.sender):
        for _ in range(4):
            await kit.hear(*(kit.completed() for _ in range(100)))
        await kit.until_state(DeliveryState.DELIVERED, 400)
    assert len({heard.webhook_id for heard in receiver.heard}) == len(receiver.heard) == 400


@pytest.mark.parametrize("copies", [3])
async def test_several_processes_send_each_webhook_once(
    kit: Kit, new_kit: MakeKit, receiver: Receiver, copies: int
) -> None:
    clock = ShiftedClock()
    others = [new_kit(principal=kit.principal, clock=clock) for _ in range(copies)]
    await kit.add_endpoint(receiver.url)
    await kit.hear(*(kit.completed() for _ in range(300)))
    async with running(others[0].sender), running(others[1].sender), running(others[2].sender):
        await kit.until_state(DeliveryState.DELIVERED, 300)
    assert len({heard.webhook_id for heard in receiver.heard}) == len(receiver.heard) == 300


async def test_attempt_that_outlasts_the_lease_is_not_sent_twice(
    new_kit: MakeKit, receiver: Receiver
) -> None:
    """The claim is renewed while the merchant's server thinks."""
    kit = new_kit(lease_seconds=1)
    thinks = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        await thinks.wait()
        return web.Response(status=200)

    receiver.respond = respond
    await kit.add_endpoint(receiver.url)
    await kit.hear(kit.completed())
    other = new_kit(principal=kit.principal, clock=kit.clock)
    async with running(kit.sender):

        async def is_sent() -> bool:
            return bool(receiver.heard)

        await until(is_sent)
        claimed_until = await kit.pool_value("SELECT claimed_until FROM deliveries WHERE id = $1")
        async with running(other.sender):

            async def is_renewed() -> bool:
                now = await kit.pool_value("SELECT claimed_until FROM deliveries WHERE id = $1")
                return bool(now > claimed_until + timedelta(seconds=1.5))

            await until(is_renewed)
            thinks.set()
            await kit.until_state(DeliveryState.DELIVERED)
    assert len(receiver.heard) == 1


async def test_claim_that_ran_out_takes_nothing_from_its_successor(
    kit: Kit, receiver: Receiver
) -> None:
    """A process that stood still can neither give back nor renew what another has claimed."""
    await kit.add_endpoint(receiver.url)
    await kit.hear(kit.completed())
    store, now = kit.store, kit.clock.now() + timedelta(seconds=1)

    async def claim(at: datetime, until_at: datetime) -> list[str]:
        claims = await store.claim_deliveries(
            at, until_at, rooms={}, room_per_endpoint=100, room=100
        )
        mine = {one.id for one in await kit.deliveries()}
        return [one.delivery_id for one in claims if one.delivery_id in mine]

    first_until, second_until = now + timedelta(seconds=10), now + timedelta(seconds=21)
    (delivery_id,) = await claim(now, first_until)
    assert await store.renew_deliveries([(delivery_id, first_until)], first_until) == {delivery_id}
    later = now + timedelta(seconds=11)
    assert await claim(later, second_until) == [delivery_id]
    stale = [(delivery_id, first_until)]
    await store.release_deliveries(stale)
    assert await store.renew_deliveries(stale, later) == frozenset()
    assert await claim(later, second_until) == []
    await store.release_deliveries([(delivery_id, second_until)])
    assert await claim(later, second_until) == [delivery_id]
