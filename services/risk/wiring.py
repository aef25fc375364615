"""Puts risk together; the only file that names concrete classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from paymesh.risk.v1 import add_RiskServiceServicer_to_server

from common.events.consumer import Consumer
from common.paging import PageTokens
from common.service import Background, Kit, Service
from common.settings import DEVELOPMENT_SECRET, SettingMissingError
from services.risk.config import RiskSettings
from services.risk.counters import Counters
from services.risk.events import BINDINGS, PaymentNews
from services.risk.flows.parts import Parts, decision_lane
from services.risk.flows.resolve_reservations import keep_telling
from services.risk.rulebook import Rulebook, hasher
from services.risk.server import RiskServicer
from services.risk.store import RiskStore

NAME = "risk"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = RiskSettings()
    secret = settings.hash_key.get_secret_value()
    if kit.settings.environment == "production" and secret == DEVELOPMENT_SECRET:
        raise SettingMissingError("PAYMESH_RISK_HASH_KEY must be set in production")
    hash_value = hasher(secret)
    pool = await kit.pool(NAME)
    store = RiskStore(pool)
    rulebook = Rulebook(store, kit.clock, settings.rules_file, hash_value, settings.reload_seconds)
    await rulebook.load()
    parts = Parts(
        store=store,
        counters=Counters(kit.redis),
        rulebook=rulebook,
        decisions=decision_lane(store, settings.flush_items_max),
        clock=kit.clock,
        zone=ZoneInfo(kit.settings.business_time_zone),
        hash_value=hash_value,
    )
    consumer = Consumer(
        pool=pool,
        broker=kit.broker,
        queue="risk.payments",
        bindings=BINDINGS,
        handler=PaymentNews(parts).handle,
    )
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    return Service(
        NAME,
        register=[partial(add_RiskServiceServicer_to_server, RiskServicer(parts, tokens))],
        background=[
            Background("risk rules", rulebook.run),
            Background("risk payment news", consumer.run),
            Background("risk resolutions", partial(keep_telling, parts, settings.resolve_seconds)),
        ],
        close=parts.decisions.drain,
        declare=[consumer.declare],
    )
