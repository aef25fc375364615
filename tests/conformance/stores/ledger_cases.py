"""The ledger on one side, as its flows use it, and the accounts that cases move money between."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from common.clock import SystemClock
from common.ids import IdFactory, derive
from services.account.chart_files import read_chart
from services.account.domain.accounts import Account, AccountSpec
from services.account.domain.transfers import Transfer, TransferResult
from services.account.flows.cut_day import open_book
from services.account.flows.open_accounts import open_accounts
from services.account.flows.post_transfers import Ledger
from services.account.store.accounts import AccountStore
from services.account.store.buffers import BufferStore
from services.account.store.days import DayStore
from services.account.store.reading import ReadingStore
from tests.conformance.stores.twins import Side

IDS = IdFactory(SystemClock())
FIRST_DAY = date(2030, 1, 1)
ACCOUNTS = {
    "R": ("channel_receivable", 0),
    "A": ("user_available", 0),
    "B": ("merchant_pending", 0),
    "C": ("credit", 50),
    "U": ("unclaimed", 0),
    "H": ("merchant_settled", 0),
}
BUFFERED = frozenset({"H"})


@dataclass
class LedgerSide:
    """The ledger's stores and flows on one side."""

    side: Side
    parent: str = field(default_factory=lambda: IDS.new("tst"))

    def __post_init__(self) -> None:
        pool = self.side.pool
        self.pool = pool
        self.ledger = Ledger(pool, SystemClock())
        self.accounts = AccountStore(pool, read_chart().kinds)
        self.buffers = BufferStore(pool)
        self.days = DayStore(pool)
        self.reading = ReadingStore(pool)

    async def begin(self) -> None:
        """Open the book and the accounts."""
        await self.ledger.prepare()
        await open_book(self.pool, self.days, 0, FIRST_DAY, "test")
        await self.open([self.spec(name) for name in ACCOUNTS])

    async def open(self, specs: Sequence[AccountSpec]) -> list[Account]:
        """Open accounts."""
        return await open_accounts(self.pool, self.accounts, specs)

    def spec(self, name: str) -> AccountSpec:
        """An account of the cast."""
        kind, limit = ACCOUNTS[name]
        account_id, is_buffered = self.account_id(name), name in BUFFERED
        return AccountSpec(account_id, f"owner-{name}", kind, "USD", limit, is_buffered=is_buffered)

    def account_id(self, name: str) -> str:
        """Its id."""
        return derive("acc", self.parent, name)

    def transfer_id(self, number: int) -> str:
        """The id of a transfer of the case."""
        return derive("tfr", self.parent, number)

    def move(
        self, number: int, debit: str, credit: str, amount_minor: int, **changes: object
    ) -> Transfer:
        """A movement between two of the cast."""
        made = Transfer(
            id=self.transfer_id(number),
            debit_account_id=self.account_id(debit),
            credit_account_id=self.account_id(credit),
            currency_code="USD",
            amount_minor=amount_minor,
            movement="case.move",
            reference_id=f"ref-{number}",
            biz_trace_id="biz_case",
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    async def close(self) -> None:
        """End the sessions."""
        await self.ledger.drain()


def without_clock(results: Sequence[TransferResult]) -> list[TransferResult]:
    """Results without the server's clock."""
    return [replace(result, booked_at=None) for result in results]


def twin_sides(first: Side, second: Side) -> tuple[LedgerSide, LedgerSide]:
    """The ledger on two sides, with the same ids."""
    parent = derive("tst", IDS.new("tst"), secrets.token_hex(4))
    return LedgerSide(first, parent), LedgerSide(second, parent)
