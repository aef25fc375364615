"""Puts the ledger together; the only file that names concrete classes."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from paymesh.account.v1 import (
    add_AccountServiceServicer_to_server,
    add_GeneralLedgerServiceServicer_to_server,
)

from common.context import CallContext
from common.db.types import Connection
from common.events.consumer import Consumer
from common.events.outbox import Outbox
from common.events.relay import Relay
from common.ids import BOOK_DEFAULT, book_of
from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.account.chart_files import read_chart
from services.account.config import AccountSettings
from services.account.events import (
    LEDGER,
    VOUCHER_BINDINGS,
    BusinessDateTeller,
    DayTeller,
    VoucherListener,
)
from services.account.flows.book_voucher import VoucherParts
from services.account.flows.close_day import DayCloser, make_vouchers_up_to
from services.account.flows.close_period import PeriodParts
from services.account.flows.cut_day import open_book
from services.account.flows.drain_buffers import drain_account, drain_buffers, drain_round
from services.account.flows.expire_holds import BATCH_DEFAULT, expire_holds
from services.account.flows.keep_vouchers import VoucherMaker
from services.account.flows.post_transfers import Ledger
from services.account.flows.prove_books import Prover
from services.account.server.accounts import AccountServicer, Parts
from services.account.server.business_days import DayParts
from services.account.server.general_ledger import GeneralLedgerParts, GeneralLedgerServicer
from services.account.server.vouchers import VoucherServicerParts
from services.account.store.accounts import AccountStore
from services.account.store.buffers import BufferStore
from services.account.store.charts import ChartStore
from services.account.store.days import BusinessDayStore, DayStore
from services.account.store.periods import PeriodStore
from services.account.store.proofs import ProofStore
from services.account.store.reading import ReadingStore
from services.account.store.register import RegisterStore
from services.account.store.statements import StatementStore
from services.account.store.vouchers import VoucherStore

NAME = "account"
MIGRATIONS = Path(__file__).parent / "migrations"

# Holds are for minutes or days; one that is given back a second late hurts nobody.
_EXPIRE_EVERY_SECONDS = 1.0
# Buffers are drained when this process appended to one; and now and then, because another process
# may have died before it drained what it appended. Between two drains some credits gather.
_DRAIN_EVERY_SECONDS = 1.0
_DRAIN_PAUSE_SECONDS = 0.05
_PARTITIONS_EVERY_SECONDS = 6 * 3600.0


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = AccountSettings()
    chart = read_chart(settings.chart_folder)
    pool = await kit.pool(NAME)
    outbox = Outbox()
    ledger = Ledger(pool, kit.clock, settings)
    days, reading, buffers = DayStore(pool), ReadingStore(pool), BufferStore(pool)
    zone = ZoneInfo(kit.settings.business_time_zone)
    first_day = settings.business_date_first or kit.clock.now().astimezone(zone).date()
    await ledger.prepare()
    await open_book(pool, days, BOOK_DEFAULT, first_day, "SERVICE:account")
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    inner_books = VoucherParts(pool, chart, VoucherStore(pool), RegisterStore(pool), BOOK_DEFAULT)

    async def drain(account_id: str) -> None:
        await drain_account(buffers, book_of(account_id), account_id)

    servicer = AccountServicer(
        Parts(
            pool=pool,
            ledger=ledger,
            accounts=AccountStore(pool, chart.kinds),
            days=days,
            reading=reading,
            statements=StatementStore(pool),
            drain=drain,
            tokens=tokens,
        )
    )
    day_parts = _wire_days(kit, inner_books, days, outbox, tokens, buffers)
    general_ledger = GeneralLedgerServicer(
        GeneralLedgerParts(
            vouchers=VoucherServicerParts(inner_books, days, tokens, kit.clock), days=day_parts
        )
    )
    requests = _hear_vouchers(kit, inner_books)
    inner_work: list[Background] = []
    if settings.inner_books:
        await ChartStore(pool).put(chart)
        maker = VoucherMaker(pool, inner_books.vouchers, days, ledger.booked, kit.clock)
        prove = partial(day_parts.prover.run, settings.proof_interval_seconds)
        inner_work = [
            Background("account vouchers of the journal", maker.run),
            Background("account vouchers of events", requests.run),
            Background("account close of days", day_parts.closer.run),
            Background("account proof", prove),
        ]
    relay = Relay(pool, kit.broker, outbox, holder=f"{NAME}-{os.getpid()}")
    return Service(
        NAME,
        register=[
            partial(add_AccountServiceServicer_to_server, servicer),
            partial(add_GeneralLedgerServiceServicer_to_server, general_ledger),
        ],
        background=[
            Background("account relay", relay.run, flush=relay.flush),
            *_outer_work(ledger, reading, buffers, BusinessDayStore(pool)),
            *inner_work,
        ],
        declare=[requests.declare] if settings.inner_books else [],
        close=ledger.drain,
    )


def _outer_work(
    ledger: Ledger, reading: ReadingStore, buffers: BufferStore, days: BusinessDayStore
) -> list[Background]:
    """Build what the outer accounts of every open book need beside their requests."""

    async def expire() -> None:
        while True:
            most = 0
            for book in await days.list_books():
                most = max(most, await expire_holds(ledger, reading, book))
            if most < BATCH_DEFAULT:
                await asyncio.sleep(_EXPIRE_EVERY_SECONDS)

    async def drain_all() -> None:
        for book in await days.list_books():
            await drain_buffers(buffers, book)

    async def keep_draining() -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN_EVERY_SECONDS):
                    await ledger.appended.wait()
            ledger.appended.clear()
            await drain_all()
            await asyncio.sleep(_DRAIN_PAUSE_SECONDS)

    async def make_partitions() -> None:
        while True:
            await asyncio.sleep(_PARTITIONS_EVERY_SECONDS)
            await ledger.prepare()

    return [
        Background("account expiry of holds", expire),
        Background("account drain of buffers", keep_draining, flush=drain_all),
        Background("account partitions", make_partitions),
    ]


def _hear_vouchers(kit: Kit, inner_books: VoucherParts) -> Consumer:
    """Build what makes vouchers of other services' events."""
    return Consumer(
        pool=inner_books.pool,
        broker=kit.broker,
        queue="account.vouchers",
        bindings=VOUCHER_BINDINGS,
        handler=VoucherListener(inner_books).handle,
    )


def _wire_days(
    kit: Kit,
    inner_books: VoucherParts,
    dates: DayStore,
    outbox: Outbox,
    tokens: PageTokens,
    buffers: BufferStore,
) -> DayParts:
    """Build what cuts, closes and proves days."""
    pool, vouchers = inner_books.pool, inner_books.vouchers
    days, proofs = BusinessDayStore(pool), ProofStore(pool)
    date_teller, teller = BusinessDateTeller(outbox, kit.clock), DayTeller(outbox, kit.clock)
    prover = Prover(pool, proofs, kit.ids, teller.tell_broken, outbox.notify)

    async def tell_cut(connection: Connection, book: int, before: date, now: date) -> None:
        await date_teller.tell(connection, book, before, now, CallContext(principal=LEDGER))

    closer = DayCloser(
        pool,
        dates,
        days,
        prover,
        kit.clock,
        make_up_to=partial(make_vouchers_up_to, pool, vouchers),
        tell_cut=tell_cut,
        tell_closed=teller.tell_closed,
        tell_broken=teller.tell_broken,
        told=outbox.notify,
    )
    return DayParts(
        pool=pool,
        clock=kit.clock,
        chart=inner_books.chart,
        dates=dates,
        days=days,
        proofs=proofs,
        periods=PeriodParts(pool, PeriodStore(pool), vouchers, inner_books.chart.profit_subject),
        prover=prover,
        closer=closer,
        teller=date_teller,
        outbox=outbox,
        tokens=tokens,
        drain_ahead=partial(drain_round, buffers),
    )
