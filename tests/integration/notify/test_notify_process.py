"""The whole service as its process runs it: contract, broker, sending, stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
import pytest
from notify_kit import Receiver, until
from paymesh.notify.v1 import (
    CreateWebhookEndpointRequest,
    ListFactsRequest,
    ListWebhookDeliveriesRequest,
    NotifyServiceStub,
)
from paymesh.trade.v1 import Refund, RefundWaiting
from pydantic import SecretStr
from standardwebhooks import Webhook as Verifier

from common import context
from common.clock import SystemClock
from common.context import ActorType, CallContext, Mode, Principal
from common.events.broker import DEAD, EXCHANGE, UNROUTED, Broker
from common.events.event import NewEvent, envelope_to_bytes, event_to_bytes
from common.ids import IdFactory
from common.mesh.host import Host
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from common.process import ProcessParts, run_process
from common.settings import Settings
from services.cli.sources import find_source

ROOT = Path(__file__).resolve().parents[3]
IDS = IdFactory(SystemClock())
MERCHANT = Principal(
    merchant_id=IDS.new("mer"), mode=Mode.TEST, actor_type=ActorType.MERCHANT, actor_id="key_1"
)
OPERATOR = Principal(
    mode=Mode.TEST, actor_type=ActorType.OPERATOR, actor_id="op_1", roles=("operator",)
)


@pytest.fixture
async def broker(amqp_url: str, amqp_namespace: str) -> AsyncIterator[Broker]:
    one = Broker(amqp_url, namespace=amqp_namespace)
    yield one
    channel = await one.channel()
    for queue in ("notify.webhooks", "notify.webhooks.dead", UNROUTED):
        await channel.queue_delete(one.full_name(queue))
    for exchange in (EXCHANGE, UNROUTED, DEAD):
        await channel.exchange_delete(one.full_name(exchange))
    await one.close()


@pytest.fixture
async def host(
    new_database: object,
    database_url: str,
    redis_url: str,
    amqp_url: str,
    amqp_namespace: str,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Host]:
    monkeypatch.setenv("PAYMESH_NOTIFY_PRIVATE_ADDRESSES_ALLOWED", "true")
    monkeypatch.setenv("PAYMESH_PORTS", '{"notify": 0}')
    topology = ROOT / "topology" / "processes.toml"
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    parts = ProcessParts(
        settings=Settings(
            postgres_url=SecretStr(database_url),
            redis_url=SecretStr(redis_url),
            amqp_url=SecretStr(amqp_url),
            amqp_namespace=amqp_namespace,
        ),
        mesh_settings=MeshSettings(),
        topology=load_topology(topology),
        access_path=topology.parent / "access.toml",
        started=started.set_result,
    )
    task = asyncio.create_task(run_process([find_source("notify")], parts, stop))
    await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED, timeout=60)
    if task.done():
        await task
    yield started.result()
    stop.set()
    async with asyncio.timeout(60):
        await task


async def publish(broker: Broker, *events: NewEvent) -> None:
    """Tell events as a relay does."""
    channel = await broker.channel()
    exchange = await broker.declare_exchange(channel)
    body = envelope_to_bytes([(event_to_bytes(event), datetime.now(UTC)) for event in events])
    await exchange.publish(aio_pika.Message(body), routing_key=events[0].type)
    await channel.close()


def waiting(refund_id: str) -> NewEvent:
    """Return the event of a refund that waits for funds."""
    refund = Refund(id=refund_id, order_id=IDS.new("trd"), state=4)
    return NewEvent(
        event_id=IDS.new("evt"),
        type="trade.refund.waiting.v1",
        aggregate_id=refund_id,
        aggregate_version=2,
        payload=RefundWaiting(refund=refund).SerializeToString(),
        principal=MERCHANT,
        occurred_at=datetime.now(UTC),
        biz_trace_id="biz_1",
    )


async def test_running_the_service_turns_events_into_webhooks(
    host: Host, broker: Broker, receiver: Receiver
) -> None:
    merchant = NotifyServiceStub(host.channel("edge", "notify"))
    operator = NotifyServiceStub(host.channel("operator", "notify"))
    with context.bound(CallContext(principal=MERCHANT)):
        created = await merchant.CreateWebhookEndpoint(
            CreateWebhookEndpointRequest(request_id="r1", url=receiver.url), timeout=10
        )
    event = waiting(IDS.new("rfd"))
    await publish(broker, event)
    await publish(broker, event, event)

    async def arrived() -> bool:
        return len(receiver.heard) >= 1

    async def finished() -> bool:
        with context.bound(CallContext(principal=OPERATOR)):
            page = await operator.ListFacts(ListFactsRequest(kind="unfinished"), timeout=10)
        return not page.facts

    await until(arrived)
    await until(finished)
    with context.bound(CallContext(principal=MERCHANT)):
        listed = await merchant.ListWebhookDeliveries(ListWebhookDeliveriesRequest(), timeout=10)
    (delivery,) = listed.deliveries
    (heard,) = receiver.heard
    content = Verifier(created.secret).verify(heard.body, heard.headers)
    assert content["type"] == "refund.waiting" == delivery.type
    assert content["data"]["id"] == event.aggregate_id == delivery.subject_id
    assert content["data"]["state"] == "WAITING_FUNDS"
