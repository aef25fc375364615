"""Puts settlement together; the only file that names concrete classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from paymesh.settlement.v1 import add_SettlementServiceServicer_to_server

from common.events.consumer import Consumer
from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.settlement.config import SettlementSettings
from services.settlement.events import BINDINGS, MovementNews
from services.settlement.server import SettlementServicer
from services.settlement.store import SettlementStore

NAME: Final = "settlement"
MIGRATIONS: Final = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    store = SettlementStore(await kit.pool(NAME))
    consumer = Consumer(
        pool=await kit.pool(NAME),
        broker=kit.broker,
        queue="settlement.movements",
        bindings=BINDINGS,
        handler=MovementNews(store, kit.clock).handle,
    )
    servicer = SettlementServicer(
        store, kit.clock, SettlementSettings(), PageTokens(kit.settings.page_token_key)
    )
    return Service(
        NAME,
        register=[partial(add_SettlementServiceServicer_to_server, servicer)],
        background=[Background("settlement movements", consumer.run)],
        declare=[consumer.declare],
    )
