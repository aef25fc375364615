"""Puts notify together; the only file that names concrete classes."""

from __future__ import annotations

import random
import secrets
from functools import partial
from pathlib import Path

from paymesh.notify.v1 import add_NotifyServiceServicer_to_server

from common.events.consumer import Consumer
from common.paging import PageTokens
from common.sealing import Sealer
from common.service import Background, Kit, Service
from common.settings import check_production
from services.notify.config import NotifySettings
from services.notify.events import BINDINGS, News
from services.notify.flows.create_endpoint import EndpointParts
from services.notify.sender import Sender
from services.notify.server import NotifyServicer
from services.notify.store.deliveries import DeliveryStore
from services.notify.store.endpoints import EndpointStore
from services.notify.transport import Courier, open_session
from services.notify.writer import OutcomeWriter

NAME = "notify"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = NotifySettings()
    check_production(kit.settings, settings)
    # Plans made while the tables were empty would read them whole for as long as they are kept.
    pool = await kit.pool(NAME, plan_cache_mode="force_custom_plan")
    endpoints, deliveries = EndpointStore(pool), DeliveryStore(pool)
    sealer = Sealer.parse(settings.sealing_key.get_secret_value())
    writer = OutcomeWriter(deliveries, settings.flush_items_max)
    session = open_session(private_allowed=settings.private_addresses_allowed)
    sender = Sender(
        deliveries,
        Courier(session, kit.clock, timeout_seconds=settings.attempt_timeout_seconds),
        writer.save,
        sealer,
        kit.clock,
        settings,
        random.random,
    )
    consumer = Consumer(
        pool=pool,
        broker=kit.broker,
        queue="notify.webhooks",
        bindings=BINDINGS,
        handler=News(endpoints, deliveries, kit.clock, sender.wake).handle,
    )
    parts = EndpointParts(
        store=endpoints,
        sealer=sealer,
        clock=kit.clock,
        ids=kit.ids,
        random_bytes=secrets.token_bytes,
        private_allowed=settings.private_addresses_allowed,
        endpoints_max=settings.endpoints_per_merchant_max,
    )
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    servicer = NotifyServicer(parts, deliveries, tokens, sender.wake)

    async def close() -> None:
        await writer.drain()
        await session.close()

    return Service(
        NAME,
        register=[partial(add_NotifyServiceServicer_to_server, servicer)],
        background=[
            Background("notify webhooks heard", consumer.run),
            Background("notify webhooks sent", sender.run),
        ],
        close=close,
        declare=[consumer.declare],
    )
