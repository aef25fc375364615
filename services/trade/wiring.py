"""Puts trade together; the only file that names concrete classes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Final

from paymesh.trade.v1 import add_TradeServiceServicer_to_server

from common.events.consumer import Consumer
from common.events.outbox import Outbox
from common.events.relay import Relay
from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.trade.config import TradeSettings
from services.trade.events import BINDINGS, Announcements, PaymentNews
from services.trade.fee_plans import FeePlans
from services.trade.flows.ask_on_read import Readers
from services.trade.flows.close_order import close_due_orders
from services.trade.flows.create_refund import repeat_due_refunds
from services.trade.flows.parts import OrderLanes, Parts
from services.trade.peers import Peers
from services.trade.rounds import run_rounds
from services.trade.server import TradeServicer
from services.trade.store.facts import FactStore
from services.trade.store.orders import OrderStore
from services.trade.store.refunds import RefundStore
from services.trade.wallets import Wallets

NAME: Final = "trade"
MIGRATIONS: Final = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = TradeSettings()
    pool = await kit.pool(NAME)
    outbox = Outbox()
    announcements = Announcements()
    orders = OrderStore(pool, outbox, announcements, kit.clock)
    refunds = RefundStore(pool, outbox, announcements, kit.clock)
    peers = Peers(
        payment=kit.channel(NAME, "payment"),
        settlement=kit.channel(NAME, "settlement"),
        account=kit.channel(NAME, "account"),
    )
    parts = Parts(
        orders=orders,
        refunds=refunds,
        lanes=OrderLanes(orders, settings.flush_items_max),
        peers=peers,
        fee_plans=FeePlans(peers.find_fee_plan, kit.clock, settings.fee_plans_max),
        wallets=Wallets(peers.find_wallet_currencies, kit.clock, settings.wallets_max),
        clock=kit.clock,
        ids=kit.ids,
        settings=settings,
    )
    relay = Relay(pool, kit.broker, outbox, holder=f"{NAME}-{os.getpid()}-{kit.ids.new('prc')}")
    consumer = Consumer(
        pool=pool,
        broker=kit.broker,
        queue="trade.payments",
        bindings=BINDINGS,
        handler=PaymentNews(orders, refunds, outbox).handle,
    )
    poll = settings.expiry_poll_seconds
    readers = Readers(parts, kit.clock, settings)
    servicer = TradeServicer(
        parts, FactStore(pool), readers, PageTokens(kit.settings.page_token_key)
    )

    async def close() -> None:
        await readers.drain()
        await parts.lanes.drain()

    async def flush() -> None:
        await relay.flush()

    return Service(
        NAME,
        register=[partial(add_TradeServiceServicer_to_server, servicer)],
        background=[
            Background("trade relay", relay.run, flush),
            Background("trade payment news", consumer.run),
            Background(
                "trade expiry",
                partial(run_rounds, "trade expiry", partial(close_due_orders, parts), poll),
            ),
            Background(
                "trade refunds",
                partial(run_rounds, "trade refunds", partial(repeat_due_refunds, parts), poll),
            ),
        ],
        close=close,
        declare=[consumer.declare],
    )
