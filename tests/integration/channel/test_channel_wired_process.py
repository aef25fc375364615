"""Channel, routing and risk wired as a process runs them: over the mesh, with real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aio_pika
import pytest
from paymesh.channel.v1 import (
    CHARGE_STATE_CLOSED,
    CHARGE_STATE_PENDING,
    CHARGE_STATE_SUCCEEDED,
    ChannelServiceStub,
    ChargeChanged,
    ChargeRequest,
    CloseChargeRequest,
    HandleCallbackRequest,
    QueryChargeRequest,
)
from paymesh.risk.v1 import (
    VERDICT_PASS,
    AssessActionRequest,
    ListFactsRequest,
    ListStoryRequest,
    RiskServiceStub,
)
from paymesh.routing.v1 import ChooseChannelRequest, RoutingServiceStub
from paymesh.type.v1 import Money

import services.risk.wiring as risk
import services.routing.wiring as routing
from common import context
from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal
from common.embedded.cluster import Servers
from common.errors import RemoteError
from common.events.broker import EXCHANGE, Broker
from common.events.event import NewEvent, envelope_from_bytes, envelope_to_bytes, event_to_bytes
from common.ids import IdFactory, channel_reference
from common.mesh.host import Host
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from common.process import ProcessParts, run_process
from common.service import ServiceSource
from common.settings import Settings
from services.channel import wiring as channel
from services.sandbox.credentials import SandboxCredentials
from services.sandbox.serving import Sandbox

ROOT = Path(__file__).parents[3]
SOURCES = [ServiceSource(one.NAME, one.wire, one.MIGRATIONS) for one in (routing, risk, channel)]
MERCHANT = CallContext(
    principal=Principal(merchant_id="mer_1", actor_type=ActorType.MERCHANT, actor_id="key_1"),
    biz_trace_id="biz_wired",
)
OPERATOR = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("operator",))
)
USD = Money(currency_code="USD", amount_minor=1234)


@dataclass
class Running:
    """A process, and the ways into it."""

    host: Host
    broker: Broker
    ids: IdFactory
    news: aio_pika.abc.AbstractQueue
    """What the process told of charges."""

    async def next_charge(self) -> ChargeChanged:
        """Wait for the next event of a charge."""
        async with asyncio.timeout(20):
            while True:
                message = await self.news.get(no_ack=True, fail=False)
                if message is not None:
                    (event,) = envelope_from_bytes(message.body)
                    assert event.biz_trace_id == "biz_wired"
                    return ChargeChanged.FromString(event.payload)
                await asyncio.sleep(0.02)


@pytest.fixture
async def running(
    monkeypatch: pytest.MonkeyPatch,
    servers: Servers,
    database_url: str,
    redis_prefix: str,
    amqp_namespace: str,
    credentials: SandboxCredentials,
    sandbox: Sandbox,
) -> AsyncIterator[Running]:
    """A process with the three services."""
    variables = {
        **servers.environment,
        "PAYMESH_POSTGRES_URL": database_url,
        "PAYMESH_REDIS_NAMESPACE": redis_prefix,
        "PAYMESH_AMQP_NAMESPACE": amqp_namespace,
        "PAYMESH_CHANNEL_CREDENTIALS_FILE": str(
            credentials.parties_file.with_name("channels.json")
        ),
        "PAYMESH_CHANNEL_SANDBOX_URL": sandbox.url,
        "PAYMESH_CHANNEL_CALLBACK_URL": "",
        "PAYMESH_PORTS": json.dumps(dict.fromkeys(("routing", "risk", "channel"), 0)),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hosts: asyncio.Future[Host] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    parts = ProcessParts(
        settings=Settings(),
        mesh_settings=MeshSettings(),
        topology=load_topology(ROOT / "topology" / "processes.toml"),
        access_path=ROOT / "topology" / "access.toml",
        started=hosts.set_result,
    )
    process = asyncio.create_task(run_process(SOURCES, parts, stop))
    broker = Broker(servers.amqp_url, namespace=amqp_namespace)
    listening = await broker.channel()
    news = await broker.declare_queue(listening, "test.news", ("channel.charge.changed.v1",))
    await asyncio.wait([process, hosts], return_when=asyncio.FIRST_COMPLETED)
    if process.done():
        process.result()
    yield Running(hosts.result(), broker, IdFactory(SystemClock()), news)
    stop.set()
    async with asyncio.timeout(30):
        await process
    await broker.close()


async def test_payment_finds_its_channel_and_is_charged(running: Running, sandbox: Sandbox) -> None:
    """Choose, assess, charge, call back, query and close, each by the caller that may."""
    by_payment = RoutingServiceStub(running.host.channel("payment", "routing"))
    charges = ChannelServiceStub(running.host.channel("payment", "channel"))
    doors = ChannelServiceStub(running.host.channel("edge", "channel"))
    risks = RiskServiceStub(running.host.channel("payment", "risk"))
    payment_id, reference = running.ids.new("pay"), channel_reference(running.ids.new("att"))
    with context.bound(MERCHANT):
        choice = await by_payment.ChooseChannel(
            ChooseChannelRequest(payment_id=payment_id, product="qr_pay", amount=USD)
        )
        code = choice.candidates[0].channel
        verdict = await risks.AssessAction(
            AssessActionRequest(action_id=payment_id, action="pay", amount=USD, product="qr_pay")
        )
        assert verdict.verdict == VERDICT_PASS
        request = ChargeRequest(
            reference=reference, channel=code, payment_id=payment_id, amount=USD, product="qr_pay"
        )
        charge = (await charges.Charge(request)).charge
        assert charge.state == CHARGE_STATE_PENDING
        # The payer has paid, and the channel tells us.
        trade = await sandbox._alipay.play_payer(charge.qr_content, pays=True)
        assert trade.state == "TRADE_SUCCESS"
        question = QueryChargeRequest(reference=reference)
        charge = (await charges.QueryCharge(question)).charge
        assert charge.state == CHARGE_STATE_SUCCEEDED
        assert (await running.next_charge()).charge == charge

        request.reference = channel_reference(running.ids.new("att"))
        await charges.Charge(request)
        closing = CloseChargeRequest(reference=request.reference)
        assert (await charges.CloseCharge(closing)).charge.state == CHARGE_STATE_CLOSED

        with pytest.raises(RemoteError) as refused:
            await doors.HandleCallback(HandleCallbackRequest(channel=code, body=b"forged"))
        assert refused.value.remote_reason == "CALLBACK_SIGNATURE_INVALID"
        request.channel = "nothing"
        request.reference = channel_reference(running.ids.new("att"))
        with pytest.raises(RemoteError) as refused:
            await charges.Charge(request)
        assert refused.value.remote_reason == "CHANNEL_UNKNOWN"
        assert refused.value.outcome == "NOT_EXECUTED"
        with pytest.raises(RemoteError) as refused:
            await by_payment.ChooseChannel(
                ChooseChannelRequest(payment_id=payment_id, product="cheque", amount=USD)
            )
        assert refused.value.remote_reason == "CHANNEL_NOT_ELIGIBLE"


async def test_success_of_a_payment_reaches_risk_by_the_broker(running: Running) -> None:
    risks = RiskServiceStub(running.host.channel("payment", "risk"))
    operator = RiskServiceStub(running.host.channel("operator", "risk"))
    payment_id = running.ids.new("pay")
    with context.bound(MERCHANT):
        await risks.AssessAction(
            AssessActionRequest(action_id=payment_id, action="pay", amount=USD, user_id="usr_1")
        )
    now = SystemClock().now()
    event = NewEvent(
        event_id=running.ids.new("evt"),
        type="payment.payment.succeeded.v1",
        aggregate_id=payment_id,
        aggregate_version=3,
        payload=b"",
        principal=MERCHANT.principal,
        occurred_at=now,
        biz_trace_id="biz_wired",
    )
    channel_to_broker = await running.broker.channel()
    exchange = await running.broker.declare_exchange(channel_to_broker)
    assert exchange.name.endswith(EXCHANGE)
    body = envelope_to_bytes([(event_to_bytes(event), now)])
    await exchange.publish(aio_pika.Message(body), routing_key=event.type)
    with context.bound(OPERATOR):
        async with asyncio.timeout(20):
            while True:
                story = await operator.ListStory(ListStoryRequest(subject_id=payment_id))
                if any(item.summary.endswith("CONFIRMED") for item in story.items):
                    break
                await asyncio.sleep(0.02)
            while (await operator.ListFacts(ListFactsRequest(kind="unfinished"))).facts:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
