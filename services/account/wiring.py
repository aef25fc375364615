"""Puts the ledger together; the only file that names concrete classes."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from paymesh.account.v1 import (
    add_AccountServiceServicer_to_server,
    add_GeneralLedgerServiceServicer_to_server,
)

from common.events.outbox import Outbox
from common.events.relay import Relay
from common.ids import BOOK_DEFAULT
from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.account.chart_files import read_chart
from services.account.config import AccountSettings
from services.account.events import BusinessDateTeller
from services.account.flows.advance_business_date import open_book
from services.account.flows.expire_holds import BATCH_DEFAULT, expire_holds
from services.account.flows.post_transfers import Ledger
from services.account.server.accounts import AccountServicer, Parts
from services.account.server.general_ledger import GeneralLedgerParts, GeneralLedgerServicer
from services.account.store.accounts import AccountStore
from services.account.store.days import DayStore
from services.account.store.reading import ReadingStore
from services.account.store.statements import StatementStore

NAME = "account"
MIGRATIONS = Path(__file__).parent / "migrations"

# Holds are for minutes or days; one that is given back a second late hurts nobody.
_EXPIRE_EVERY_SECONDS = 1.0
_PARTITIONS_EVERY_SECONDS = 6 * 3600.0


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = AccountSettings()
    chart = read_chart(settings.chart_folder)
    pool = await kit.pool(NAME)
    outbox = Outbox()
    ledger = Ledger(pool, kit.clock, settings)
    days, reading = DayStore(pool), ReadingStore(pool)
    zone = ZoneInfo(kit.settings.business_time_zone)
    first_day = settings.business_date_first or kit.clock.now().astimezone(zone).date()
    await ledger.prepare()
    await open_book(pool, days, BOOK_DEFAULT, first_day, "SERVICE:account")

    async def drain(account_id: str) -> None:
        """Drain the buffer of one account."""

    servicer = AccountServicer(  # type: ignore[abstract]
        Parts(
            pool=pool,
            ledger=ledger,
            accounts=AccountStore(pool, chart.kinds),
            days=days,
            reading=reading,
            statements=StatementStore(pool),
            drain=drain,
            tokens=PageTokens(kit.settings.page_token_key.get_secret_value()),
        )
    )
    general_ledger = GeneralLedgerServicer(  # type: ignore[abstract]
        GeneralLedgerParts(
            pool=pool, days=days, outbox=outbox, teller=BusinessDateTeller(outbox, kit.clock)
        )
    )

    async def expire() -> None:
        while True:
            if await expire_holds(ledger, reading, BOOK_DEFAULT) < BATCH_DEFAULT:
                await asyncio.sleep(_EXPIRE_EVERY_SECONDS)

    async def make_partitions() -> None:
        while True:
            await asyncio.sleep(_PARTITIONS_EVERY_SECONDS)
            await ledger.prepare()

    relay = Relay(pool, kit.broker, outbox, holder=f"{NAME}-{os.getpid()}")
    return Service(
        NAME,
        register=[
            partial(add_AccountServiceServicer_to_server, servicer),
            partial(add_GeneralLedgerServiceServicer_to_server, general_ledger),
        ],
        background=[
            Background("account relay", relay.run, flush=relay.flush),
            Background("account expiry of holds", expire),
            Background("account partitions", make_partitions),
        ],
        close=ledger.drain,
    )
