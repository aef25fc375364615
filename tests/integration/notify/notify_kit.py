"""The notify service before a merchant's server that does what it is told, on a clock of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import orjson
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver
from paymesh.trade.v1 import Order, OrderCompleted
from standardwebhooks import Webhook as Verifier

import services.notify
from common import context
from common.clock import SystemClock
from common.context import ActorType, CallContext, Mode, Principal
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.events.event import Event
from common.ids import IdFactory, derive
from common.paging import PageTokens
from common.sealing import Sealer
from services.notify.config import NotifySettings
from services.notify.domain.deliveries import Delivery, DeliveryState, Outcome, Owner
from services.notify.events import News
from services.notify.flows.create_endpoint import EndpointParts, create_endpoint
from services.notify.sender import Sender
from services.notify.server import NotifyServicer
from services.notify.store.deliveries import DeliveryStore
from services.notify.store.endpoints import EndpointStore
from services.notify.transport import Courier, open_session
from services.notify.writer import OutcomeWriter

FOLDER = Path(services.notify.__file__).parent


class ShiftedClock(SystemClock):
    """The machine's clock, stopped or set ahead at will."""

    ahead = timedelta()
    _stopped: tuple[datetime, float] | None = None

    def stop(self) -> None:
        """Move only when `ahead` does."""
        self._stopped = (datetime.now(UTC), super().monotonic())

    def now(self) -> datetime:
        """Return the shifted time."""
        return (self._stopped[0] if self._stopped else datetime.now(UTC)) + self.ahead

    def monotonic(self) -> float:
        """Return shifted seconds."""
        seconds = self._stopped[1] if self._stopped else super().monotonic()
        return seconds + self.ahead.total_seconds()


@dataclass
class Heard:
    """One request at the merchant's server."""

    headers: dict[str, str]
    body: bytes

    @property
    def webhook_id(self) -> str:
        """Its id."""
        return self.headers["webhook-id"]


Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A merchant's server."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    respond: Respond | None = None
    """What it answers; 204 by itself."""

    def say(self, status: int, **headers: str) -> None:
        """Answer so from now on."""

        async def respond(_: web.Request) -> web.Response:
            return web.Response(
                status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )

        self.respond = respond

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Note a request, then answer."""
        self.heard.append(
            Heard({k.lower(): v for k, v in request.headers.items()}, await request.read())
        )
        if self.respond is not None:
            return await self.respond(request)
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    one = Receiver("")
    app.router.add_post("/webhooks", one.receive)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks"
    yield one
    await runner.cleanup()


@dataclass
class Kit:
    """The service's parts, for one test with a merchant of its own."""

    pool: Pool
    endpoints: EndpointStore
    store: DeliveryStore
    sender: Sender
    news: News
    parts: EndpointParts
    servicer: NotifyServicer
    clock: ShiftedClock
    ids: IdFactory
    principal: Principal
    session: aiohttp.ClientSession
    writer: OutcomeWriter

    @property
    def owner(self) -> Owner:
        """The merchant as rows name it."""
        return Owner("default", str(self.principal.mode), self.principal.merchant_id)

    @property
    def call(self) -> CallContext:
        """A call of the merchant."""
        return CallContext(principal=self.principal, biz_trace_id="biz_call")

    async def add_endpoint(self, url: str, types: Sequence[str] = ()) -> tuple[str, Verifier]:
        """Register an address; return its id and the library that verifies what it gets."""
        request_id = self.ids.new("req")
        endpoint, secret = await create_endpoint(self.parts, request_id, url, types, self.call)
        return endpoint.id, Verifier(secret)

    def completed(self, order_id: str = "") -> Event:
        """Return the event of an order that was completed."""
        order_id = order_id or self.ids.new("trd")
        order = Order(id=order_id, merchant_id=self.principal.merchant_id, state=3, version=3)
        order.amount.currency_code, order.amount.amount_minor = "USD", 1234
        order.biz_trace_id = f"biz_{order_id[4:]}"
        return self.event(
            "trade.order.completed.v1",
            order_id,
            OrderCompleted(order=order).SerializeToString(),
            order.biz_trace_id,
        )

    def event(self, kind: str, noun_id: str, payload: bytes, story: str) -> Event:
        """Return an event of the merchant's."""
        now = self.clock.now()
        return Event(
            event_id=derive("evt", noun_id, kind, 3),
            type=kind,
            aggregate_id=noun_id,
            aggregate_version=3,
            payload=payload,
            principal=self.principal,
            occurred_at=now,
            biz_trace_id=story,
            recorded_at=now,
        )

    async def hear(self, *events: Event) -> None:
        """Take events as the consumer does: in a transaction, then what follows."""
        async with self.pool.transaction() as connection:
            follow = await self.news.handle(connection, events)
        for work in follow or ():
            await work()

    async def deliveries(self) -> list[Delivery]:
        """Return the merchant's deliveries, newest first."""
        return await self.store.list_deliveries(self.owner, "", None, 1000)

    async def pool_value(self, query: str) -> Any:
        """Return a value that belongs to the newest delivery ($1)."""
        newest = (await self.deliveries())[0]
        async with self.pool.acquire() as connection:
            return await connection.fetchval(query, newest.id)

    async def until_state(self, state: DeliveryState, count: int = 1) -> list[Delivery]:
        """Wait until so many deliveries are in a state."""
        found: list[Delivery] = []

        async def reached() -> bool:
            nonlocal found
            found = [one for one in await self.deliveries() if one.state is state]
            return len(found) >= count

        await until(reached)
        return found

    async def until_attempts(self, attempts: int) -> Delivery:
        """Wait until the newest delivery has had so many attempts."""
        found: list[Delivery] = []

        async def reached() -> bool:
            nonlocal found
            found = await self.deliveries()
            return bool(found) and found[0].attempts >= attempts

        await until(reached)
        return found[0]

    def acting(self) -> context.bound:
        """Run a block as the merchant's call."""
        return context.bound(self.call)


async def until(condition: Callable[[], Awaitable[bool]], timeout_seconds: float = 30) -> None:
    """Poll until the condition holds."""
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110 - rows have no event to wait for
            await asyncio.sleep(0.01)


class running:  # noqa: N801 - reads as a verb: `async with running(sender):`
    """Run a sender beside a block."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._sender.run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class MakeKit(Protocol):
    """Makes another process of the service, on the same tables."""

    def __call__(
        self,
        *,
        private_allowed: bool = ...,
        resolver: AbstractResolver | None = ...,
        principal: Principal | None = ...,
        clock: ShiftedClock | None = ...,
        save: Callable[[Outcome], Awaitable[bool]] | None = ...,
        **settings: Any,
    ) -> Kit:
        """Settings as those of the service."""
        ...


@pytest.fixture(scope="module")
async def notify_url(database_url: str) -> str:
    """The service's schema, up to date."""
    url = await prepare_schema(database_url, "notify")
    await migrate(url, "notify", {"notify": FOLDER / "migrations"})
    return url


@pytest.fixture(scope="module")
async def pool(notify_url: str) -> AsyncIterator[Pool]:
    one = await open_pool(notify_url, SessionSettings("notify"), connections_max=6)
    yield one
    await one.close()


@pytest.fixture
async def new_kit(pool: Pool) -> AsyncIterator[MakeKit]:
    made: list[Kit] = []

    def make(
        *,
        private_allowed: bool = True,
        resolver: AbstractResolver | None = None,
        principal: Principal | None = None,
        clock: ShiftedClock | None = None,
        save: Callable[[Outcome], Awaitable[bool]] | None = None,
        **settings: Any,
    ) -> Kit:
        clock = clock or ShiftedClock()
        ids = IdFactory(clock)
        chosen = NotifySettings(**{"poll_seconds": 0.05, **settings})
        endpoints, store = EndpointStore(pool), DeliveryStore(pool)
        writer = OutcomeWriter(store, 256)
        sealer = Sealer.parse("k1:test-secret")
        session = open_session(private_allowed=private_allowed, resolver=resolver)
        sender = Sender(
            store,
            Courier(session, clock, timeout_seconds=chosen.attempt_timeout_seconds),
            save or writer.save,
            sealer,
            clock,
            chosen,
            lambda: 0.5,
        )
        parts = EndpointParts(
            store=endpoints,
            sealer=sealer,
            clock=clock,
            ids=ids,
            random_bytes=lambda size: bytes(range(size)),
            private_allowed=private_allowed,
            endpoints_max=5,
        )
        merchant = Principal(
            merchant_id=ids.new("mer"),
            mode=Mode.TEST,
            actor_type=ActorType.MERCHANT,
            actor_id="key_1",
        )
        kit = Kit(
            pool=pool,
            endpoints=endpoints,
            store=store,
            sender=sender,
            news=News(endpoints, store, clock, sender.wake),
            parts=parts,
            servicer=NotifyServicer(parts, store, PageTokens("secret"), sender.wake),
            clock=clock,
            ids=ids,
            principal=principal or merchant,
            session=session,
            writer=writer,
        )
        made.append(kit)
        return kit

    yield make
    for kit in made:
        await kit.writer.drain()
        await kit.session.close()
    # What a test left must not be sent by the next one.
    async with pool.acquire() as connection:
        await connection.execute(
            "UPDATE deliveries SET state = 'PARKED', next_attempt_at = NULL WHERE state = 'PENDING'"
        )


@pytest.fixture
async def kit(new_kit: MakeKit) -> Kit:
    return new_kit()


def body_of(heard: Heard) -> Any:
    """Return what a webhook says."""
    return orjson.loads(heard.body)
