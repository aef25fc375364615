"""The surface of notify: addresses, deliveries, resending, stories and facts, each to its owner."""

from __future__ import annotations

from typing import Any

import pytest
from notify_kit import Kit, MakeKit, Receiver, running
from paymesh.notify.v1 import (
    CreateWebhookEndpointRequest,
    ListFactsRequest,
    ListStoryRequest,
    ListWebhookDeliveriesRequest,
    ListWebhookEndpointsRequest,
    ResendWebhookRequest,
)

from common import context
from common.context import ActorType, CallContext, Mode, Principal
from common.errors import (
    FieldInvalidError,
    IdConflictError,
    NotFoundError,
    PageTokenInvalidError,
    PermissionDeniedError,
    StateConflictError,
)
from services.notify.domain.deliveries import ATTEMPTS_MAX, DeliveryState
from services.notify.errors import WebhookUrlRefusedError

NO_CONTEXT: Any = None
OPERATOR = CallContext(
    principal=Principal(mode=Mode.TEST, actor_type=ActorType.OPERATOR, roles=("operator",))
)


async def test_creating_an_endpoint_twice_tells_the_secret_once(kit: Kit) -> None:
    request = CreateWebhookEndpointRequest(
        request_id="r1", url="http://127.0.0.1/x", types=["order.completed"]
    )
    with kit.acting():
        first = await kit.servicer.CreateWebhookEndpoint(request, NO_CONTEXT)
        again = await kit.servicer.CreateWebhookEndpoint(request, NO_CONTEXT)
        listed = await kit.servicer.ListWebhookEndpoints(ListWebhookEndpointsRequest(), NO_CONTEXT)
    assert first.secret.startswith("whsec_")
    assert again.secret == ""
    assert first.endpoint == again.endpoint == listed.endpoints[0]
    stored = await _value(
        kit, "SELECT sealed_secret FROM webhook_endpoints WHERE id = $1", first.endpoint.id
    )
    assert bytes(range(32)) not in stored


async def test_creating_an_endpoint_with_a_used_id_is_refused(kit: Kit) -> None:
    request = CreateWebhookEndpointRequest(request_id="r1", url="http://127.0.0.1/x")
    with kit.acting():
        await kit.servicer.CreateWebhookEndpoint(request, NO_CONTEXT)
        request.types.append("order.closed")
        with pytest.raises(IdConflictError) as types:
            await kit.servicer.CreateWebhookEndpoint(request, NO_CONTEXT)
        request.url = "http://127.0.0.1/y"
        with pytest.raises(IdConflictError) as url:
            await kit.servicer.CreateWebhookEndpoint(request, NO_CONTEXT)
    assert (types.value.field, url.value.field) == ("types", "url")


async def test_creating_a_bad_endpoint_is_refused(kit: Kit, new_kit: MakeKit) -> None:
    strict = new_kit(private_allowed=False)
    with strict.acting(), pytest.raises(WebhookUrlRefusedError) as refused:
        await strict.servicer.CreateWebhookEndpoint(
            CreateWebhookEndpointRequest(request_id="r1", url="https://10.0.0.1/"), NO_CONTEXT
        )
    assert refused.value.field == "url"
    with kit.acting():
        with pytest.raises(FieldInvalidError) as invalid:
            await kit.servicer.CreateWebhookEndpoint(
                CreateWebhookEndpointRequest(
                    request_id="r2", url="http://127.0.0.1/", types=["order.eaten"]
                ),
                NO_CONTEXT,
            )
        assert invalid.value.field == "types[0]"
        for number in range(5):
            await kit.add_endpoint(f"http://127.0.0.1/{number}")
        with pytest.raises(FieldInvalidError):
            await kit.add_endpoint("http://127.0.0.1/6")
    with context.bound(OPERATOR), pytest.raises(PermissionDeniedError):
        await kit.servicer.CreateWebhookEndpoint(
            CreateWebhookEndpointRequest(request_id="r3", url="http://127.0.0.1/"), NO_CONTEXT
        )


async def test_listing_shows_a_merchant_its_own_only(
    kit: Kit, new_kit: MakeKit, receiver: Receiver
) -> None:
    other = new_kit()
    await kit.add_endpoint(receiver.url)
    await kit.hear(kit.completed())
    request = ListWebhookDeliveriesRequest()
    with other.acting():
        assert not (await kit.servicer.ListWebhookDeliveries(request, NO_CONTEXT)).deliveries
        endpoints = await kit.servicer.ListWebhookEndpoints(
            ListWebhookEndpointsRequest(), NO_CONTEXT
        )
        assert not endpoints.endpoints
        (delivery,) = await kit.deliveries()
        with pytest.raises(NotFoundError):
            await kit.servicer.ResendWebhook(
                ResendWebhookRequest(request_id="r1", delivery_id=delivery.id), NO_CONTEXT
            )
    with context.bound(OPERATOR):
        seen = await kit.servicer.ListWebhookDeliveries(request, NO_CONTEXT)
    assert delivery.id in {one.id for one in seen.deliveries}


async def test_listing_deliveries_pages_newest_first(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    events = [kit.completed() for _ in range(7)]
    for event in events[:3]:
        await kit.hear(event)
    await kit.hear(*events[3:])
    seen: list[str] = []
    request = ListWebhookDeliveriesRequest(page_size=2)
    with kit.acting():
        while True:
            page = await kit.servicer.ListWebhookDeliveries(request, NO_CONTEXT)
            seen += [one.subject_id for one in page.deliveries]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        assert len(seen) == len(set(seen)) == 7
        assert seen[-3:] == [event.aggregate_id for event in reversed(events[:3])]
        one = await kit.servicer.ListWebhookDeliveries(
            ListWebhookDeliveriesRequest(subject_id=seen[0]), NO_CONTEXT
        )
        assert [found.subject_id for found in one.deliveries] == [seen[0]]
        with pytest.raises(PageTokenInvalidError):
            await kit.servicer.ListWebhookDeliveries(
                ListWebhookDeliveriesRequest(page_token="bm8"), NO_CONTEXT
            )


async def test_resending_sends_once_more_per_request(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    async with running(kit.sender):
        await kit.hear(kit.completed())
        (delivery,) = await kit.until_state(DeliveryState.DELIVERED)
        request = ResendWebhookRequest(request_id="r1", delivery_id=delivery.id)
        with kit.acting():
            answer = await kit.servicer.ResendWebhook(request, NO_CONTEXT)
            assert answer.delivery.id == delivery.id
            await kit.until_attempts(2)
            await kit.until_state(DeliveryState.DELIVERED)
            again = await kit.servicer.ResendWebhook(request, NO_CONTEXT)
            assert again.delivery.attempts == 2
            await kit.hear(kit.completed())
            await kit.until_state(DeliveryState.DELIVERED, 2)
            newest = (await kit.deliveries())[0]
            request.delivery_id = newest.id
            with pytest.raises(IdConflictError):
                await kit.servicer.ResendWebhook(request, NO_CONTEXT)
    assert len(receiver.heard) == 3
    assert receiver.heard[0].webhook_id == receiver.heard[1].webhook_id


async def test_resending_a_parked_one_starts_the_schedule_again(
    kit: Kit, receiver: Receiver
) -> None:
    await kit.add_endpoint(receiver.url)
    await kit.hear(kit.completed())
    (delivery,) = await kit.deliveries()
    async with kit.pool.acquire() as connection:
        await connection.execute(
            "UPDATE deliveries SET state = 'PARKED', next_attempt_at = NULL, attempts = $2, "
            "tries = $2 WHERE id = $1",
            delivery.id,
            ATTEMPTS_MAX,
        )
    assert await _unfinished(kit, delivery.id) == "PARKED"
    receiver.say(500)
    async with running(kit.sender):
        with kit.acting():
            await kit.servicer.ResendWebhook(
                ResendWebhookRequest(request_id="r1", delivery_id=delivery.id), NO_CONTEXT
            )
        after = await kit.until_attempts(ATTEMPTS_MAX + 1)
    assert after.state is DeliveryState.PENDING


async def test_resending_to_a_switched_off_address_is_refused(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    receiver.say(410)
    async with running(kit.sender):
        await kit.hear(kit.completed())
        (parked,) = await kit.until_state(DeliveryState.PARKED)
    with kit.acting(), pytest.raises(StateConflictError):
        await kit.servicer.ResendWebhook(
            ResendWebhookRequest(request_id="r1", delivery_id=parked.id), NO_CONTEXT
        )


async def test_telling_a_story_shows_states_and_attempts(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    event = kit.completed()
    async with running(kit.sender):
        await kit.hear(event)
        (delivery,) = await kit.until_state(DeliveryState.DELIVERED)
    with context.bound(OPERATOR):
        told = [
            await kit.servicer.ListStory(request, NO_CONTEXT)
            for request in (
                ListStoryRequest(biz_trace_id=event.biz_trace_id),
                ListStoryRequest(subject_id=event.aggregate_id),
                ListStoryRequest(subject_id=delivery.id),
                ListStoryRequest(subject_id=delivery.webhook_id),
            )
        ]
        unknown = await kit.servicer.ListStory(ListStoryRequest(subject_id="trd_0"), NO_CONTEXT)
    assert all(story == told[0] for story in told)
    assert told[0].biz_trace_id == event.biz_trace_id
    assert [item.summary for item in told[0].items] == [
        "order.completed is to be sent",
        "PENDING",
        "order.completed attempt 1: HTTP 204",
        "PENDING → DELIVERED",
    ]
    assert unknown.biz_trace_id == ""


async def test_listing_facts_pages_all_deliveries(kit: Kit, receiver: Receiver) -> None:
    await kit.add_endpoint(receiver.url)
    await kit.hear(*(kit.completed() for _ in range(5)))
    wanted = {one.id for one in await kit.deliveries()}
    request = ListFactsRequest(kind="delivery", page_size=2)
    facts = []
    with context.bound(OPERATOR):
        while True:
            page = await kit.servicer.ListFacts(request, NO_CONTEXT)
            facts += list(page.facts)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        with pytest.raises(FieldInvalidError):
            await kit.servicer.ListFacts(ListFactsRequest(kind="nothing"), NO_CONTEXT)
    keys = [fact.key for fact in facts]
    assert keys == sorted(keys)
    assert wanted <= set(keys)
    mine = [fact.values for fact in facts if fact.key in wanted]
    assert {values["state"] for values in mine} == {"PENDING"}
    assert {values["type"] for values in mine} == {"order.completed"}
    assert await _unfinished(kit, mine[0]["id"]) == "PENDING"


async def _unfinished(kit: Kit, delivery_id: str) -> str:
    with context.bound(OPERATOR):
        page = await kit.servicer.ListFacts(ListFactsRequest(kind="unfinished"), NO_CONTEXT)
    return next(fact.values["state"] for fact in page.facts if fact.key == delivery_id)


async def _value(kit: Kit, query: str, *arguments: object) -> Any:
    async with kit.pool.acquire() as connection:
        return await connection.fetchval(query, *arguments)
