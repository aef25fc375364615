"""The inner books beside the ledger, as wiring would build them, without the surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date

from common.clock import SystemClock
from common.events.outbox import Outbox
from common.ids import IdFactory
from services.account.chart_files import read_chart
from services.account.domain.accounts import Account, AccountSpec
from services.account.domain.days import Day, DayReport
from services.account.domain.proofs import Occasion, Proof
from services.account.domain.transfers import Transfer, TransferKind, TransferResult
from services.account.events import DayTeller
from services.account.flows.close_day import DayCloser, TellClosed, make_vouchers_up_to
from services.account.flows.cut_day import cut_day, open_book
from services.account.flows.prove_books import Prover
from services.account.store.charts import ChartStore
from services.account.store.days import BusinessDayStore
from services.account.store.proofs import ProofStore
from services.account.store.vouchers import VoucherStore
from tests.integration.account.conftest import LedgerKit, close_kit, open_kit

CLOCK = SystemClock()
IDS = IdFactory(CLOCK)
FIRST_DAY = date(1998, 1, 30)


@dataclass
class InnerBooks:
    """One process's inner books."""

    kit: LedgerKit
    accounts: dict[str, Account] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pool = self.kit.pool
        self.pool = pool
        self.days = BusinessDayStore(pool)
        self.proofs = ProofStore(pool)
        self.vouchers = VoucherStore(pool)
        self.teller = DayTeller(Outbox(), CLOCK)
        self.prover = Prover(pool, self.proofs, IDS, self.teller.tell_broken)
        self.closer = self.new_closer()

    def new_closer(self, tell_closed: TellClosed | None = None) -> DayCloser:
        """A closer of days, as each process has one."""
        return DayCloser(
            self.pool,
            self.kit.days,
            self.days,
            self.prover,
            CLOCK,
            make_up_to=self.make_up_to,
            tell_cut=_say_nothing,
            tell_closed=tell_closed or self.teller.tell_closed,
            tell_broken=self.teller.tell_broken,
        )

    async def make_up_to(self, book: int, written_in: int) -> bool:
        """Make vouchers up to a transaction; whether that was possible."""
        return await make_vouchers_up_to(self.pool, self.vouchers, book, written_in)

    async def open(self, **kinds: str) -> None:
        """Open accounts in USD: name → kind."""
        specs = [AccountSpec(IDS.new("acc"), name, kind, "USD") for name, kind in kinds.items()]
        opened = await self.kit.open(specs)
        self.accounts |= dict(zip(kinds, opened, strict=True))

    def move(self, debit: str, credit: str, amount: int, **more: object) -> Transfer:
        """A single transfer between two accounts by name."""
        order = Transfer(
            IDS.new("tfr"),
            TransferKind.SINGLE,
            self.accounts[debit].id,
            self.accounts[credit].id,
            "USD",
            amount,
            movement="test.move",
            reference_id="ref",
        )
        return Transfer(**({name: getattr(order, name) for name in order.__slots__} | more))

    async def pay(self, debit: str, credit: str, amount: int, **more: object) -> TransferResult:
        """Book one transfer."""
        [result] = await self.kit.ledger.post([self.move(debit, credit, amount, **more)])
        assert result.refusal is None, result
        return result

    async def cut(self, business_date: date) -> list[Day]:
        """Cut all books, without waiting."""
        return await cut_day(self.pool, self.kit.days, self.days, business_date, "OPERATOR:test")

    async def close_all(self) -> None:
        """Run the closer until nothing waits for vouchers."""
        while await self.closer.close_due():
            pass

    async def day(self, business_date: date, book: int = 0) -> DayReport:
        """Read a day."""
        [report] = await self.days.read_reports([(book, business_date)])
        return report

    async def prove(self) -> Proof:
        """Prove on demand."""
        return await self.prover.prove(Occasion.ON_DEMAND)

    async def sql(self, statement: str, *arguments: object) -> str:
        """Do what nobody but a test may."""
        async with self.pool.acquire() as connection:
            return await connection.execute(statement, *arguments)

    async def fetch(self, statement: str, *arguments: object) -> object:
        """Read one value."""
        async with self.pool.acquire() as connection:
            return await connection.fetchval(statement, *arguments)


async def _say_nothing(*_: object) -> None:
    """Tell nobody."""


_EMPTIED = (
    "accounts, account_changes, transfers, holds, resolutions, entries, buffered_credits,"
    " business_dates, business_date_changes, business_days, business_day_changes, proofs, periods,"
    " period_balances, voucher_cursors, voucher_reversals, voucher_numbers, subject_balances,"
    " outbox"
)
_MONTHS = """
SELECT i.inhrelid::regclass::text
FROM pg_inherits i
WHERE i.inhparent IN ('vouchers'::regclass, 'voucher_lines'::regclass,
                      'archived_vouchers'::regclass, 'archived_voucher_lines'::regclass)
"""


@asynccontextmanager
async def open_inner_books(url: str, first_day: date = FIRST_DAY) -> AsyncIterator[InnerBooks]:
    """Empty books with the chart and the accounts that tests move money between."""
    kit = await open_kit(url)
    try:
        async with kit.pool.transaction() as connection:
            await connection.execute(f"TRUNCATE {_EMPTIED}")
            for row in await connection.fetch(_MONTHS):
                await connection.execute(f"DROP TABLE {row[0]}")
        await kit.ledger.prepare()
        await open_book(kit.pool, kit.days, 0, first_day, "test")
        books = InnerBooks(kit)
        await ChartStore(kit.pool).put(read_chart())
        await books.open(
            bank="channel_receivable",
            user="user_available",
            other="user_available",
            shop="merchant_pending",
            fee="platform_fee",
            cost="channel_cost",
        )
        yield books
    finally:
        await close_kit(kit)
