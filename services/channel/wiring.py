"""Puts the channel service together; the only file that names concrete classes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from paymesh.channel.v1 import add_ChannelServiceServicer_to_server

from common.events.outbox import Outbox
from common.events.relay import Relay
from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.channel.breakers import Breakers
from services.channel.catalogue import Catalogue
from services.channel.config import ChannelSettings
from services.channel.events import announcer
from services.channel.flows.parts import Parts
from services.channel.guard import Hook
from services.channel.hooks import Measured, Traced
from services.channel.peers import MemberCards
from services.channel.server import ChannelServicer
from services.channel.store.channels import ChannelTable
from services.channel.store.movements import ChannelStore
from services.channel.transport import open_session
from services.channel.writer import ChannelWriter

NAME = "channel"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = ChannelSettings()
    pool = await kit.pool(NAME)
    outbox = Outbox()
    store = ChannelStore(pool, outbox, announcer(kit.ids))
    session = open_session()
    breakers = Breakers(kit.clock, settings.breaker_failures, settings.breaker_open_seconds)
    # The breaker last, so that what it refuses is measured, too.
    hooks: list[Hook] = [Traced(), Measured(kit.clock), breakers]
    catalogue = Catalogue(ChannelTable(pool), session, kit.clock, settings, hooks)
    await catalogue.load()
    parts = Parts(
        store=store,
        writer=ChannelWriter(store, settings.flush_items_max),
        catalogue=catalogue,
        cards=MemberCards(kit.channel(NAME, "member")),
        clock=kit.clock,
        ids=kit.ids,
        callback_question_seconds=settings.callback_question_seconds,
    )
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    relay = Relay(pool, kit.broker, outbox, holder=f"{NAME}-{os.getpid()}")

    async def flush() -> None:
        await relay.flush()

    async def close() -> None:
        await parts.drain()
        await session.close()

    return Service(
        NAME,
        register=[
            partial(add_ChannelServiceServicer_to_server, ChannelServicer(parts, tokens)),
        ],
        background=[
            Background("channel relay", relay.run, flush),
            Background("channel catalogue", catalogue.run),
        ],
        close=close,
    )
