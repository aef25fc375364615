"""The inner books on a database of their own, as wiring would build them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import date

from hosted_services import until

from common.clock import SystemClock
from common.ids import IdFactory, derive_timeless
from services.account.chart_files import read_chart
from services.account.domain.accounts import AccountSpec, Side
from services.account.domain.chart import Chart
from services.account.domain.rules import Rule, RuleLine
from services.account.domain.transfers import Transfer, TransferStatus
from services.account.flows.make_vouchers import make_vouchers
from services.account.store.charts import ChartStore
from services.account.store.vouchers import VoucherStore
from tests.integration.account.conftest import LedgerKit
from tests.scenarios.account.language import BASE_DATE

IDS = IdFactory(SystemClock())

_EMPTYING = (
    "DELETE FROM voucher_reversals",
    "DELETE FROM voucher_lines",
    "DELETE FROM vouchers",
    "DELETE FROM voucher_numbers",
    "DELETE FROM subject_balances",
    "DELETE FROM accounting_rules WHERE version > 1",
    "DELETE FROM accounting_rule_lines WHERE version > 1",
)


def account(kind: str, owner: str = "platform", currency: str = "USD") -> str:
    """Return the id of an account that tests name by kind and owner."""
    return derive_timeless("acc", "books", kind, owner, currency)


@dataclass
class Books:
    """The general ledger of one book, seen from one world."""

    ledger: LedgerKit
    chart: Chart
    vouchers: VoucherStore
    tenant_id: str = "default"
    mode: str = "LIVE"

    async def open(self, *accounts: tuple[str, str], currency: str = "USD") -> None:
        """Open accounts by kind and owner."""
        await self.ledger.open(
            [
                AccountSpec(
                    id=self.account(kind, owner, currency),
                    owner_id=owner,
                    kind=kind,
                    currency_code=currency,
                    tenant_id=self.tenant_id,
                    mode=self.mode,
                )
                for kind, owner in accounts
            ]
        )

    async def open_unclaimed(self, account_id: str) -> None:
        """Open the platform's account for credits that nobody takes."""
        await self.ledger.open([AccountSpec(account_id, "platform", "unclaimed", "USD")])

    def account(self, kind: str, owner: str = "platform", currency: str = "USD") -> str:
        """Return the id of an account of this world."""
        if (self.tenant_id, self.mode) == ("default", "LIVE"):
            return account(kind, owner, currency)
        return derive_timeless("acc", "books", kind, owner, currency, self.tenant_id, self.mode)

    async def in_world(self, tenant_id: str, mode: str) -> Books:
        """Return the same books seen from another world."""
        return replace(self, tenant_id=tenant_id, mode=mode)

    def transfer(
        self, debit: tuple[str, str], credit: tuple[str, str], amount_minor: int, **more: object
    ) -> Transfer:
        """Return a transfer between accounts that are named by kind and owner."""
        currency = str(more.pop("currency_code", "USD"))
        values: dict[str, object] = {
            "movement": "payment.receive",
            "reference_id": "pay_books",
            "tenant_id": self.tenant_id,
            "mode": self.mode,
        }
        return Transfer(
            id=IDS.new("tfr"),
            debit_account_id=self.account(*debit, currency),
            credit_account_id=self.account(*credit, currency),
            currency_code=currency,
            amount_minor=amount_minor,
            **(values | more),  # type: ignore[arg-type]
        )

    async def book(self, *transfers: Transfer) -> None:
        """Book transfers, all of which must be booked."""
        results = await self.ledger.ledger.post(transfers)
        assert [one.status for one in results] == [TransferStatus.BOOKED] * len(results), results

    async def make(self) -> int:
        """Make the vouchers of all that is booked; return how many.

        Others' transactions on the same server may hold the horizon up for a while.
        """
        async with self.ledger.pool.acquire() as connection:
            last = await connection.fetchval(
                "SELECT coalesce(max(written_in)::text::bigint, 0) FROM transfers"
            )
        made = 0
        async with asyncio.timeout(30):
            while True:
                progress = await make_vouchers(self.ledger.pool, self.vouchers, 0, up_to=last)
                made += progress.made
                if not progress.has_more:
                    return made
                await asyncio.sleep(0.02)

    async def past_others(self) -> None:
        """Wait until no other transaction of the database is writing."""
        async with self.ledger.pool.acquire() as connection:
            await until(
                lambda: connection.fetchval(
                    "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL"
                    " AND datname = current_database() AND pid <> pg_backend_pid())"
                )
            )

    async def advance(self, business_date: date) -> None:
        """Let the business date be another: a test may also go back."""
        async with self.ledger.pool.transaction() as connection:
            await connection.execute(
                "UPDATE business_dates SET business_date = $1 WHERE book = 0", business_date
            )

    async def empty(self) -> None:
        """Begin anew: no vouchers, and a cursor that has passed what was booked before."""
        await self.advance(BASE_DATE)
        await self.make()
        async with self.ledger.pool.transaction() as connection:
            for statement in _EMPTYING:
                await connection.execute(statement)

    def with_memo_rule(self, movement: str, version: int) -> Chart:
        """Return the chart with another version of a rule, which books a memo beside."""
        rule = self.chart.rules_latest[movement]
        lines = (
            *rule.lines,
            RuleLine(Side.DEBIT, None, "6602"),
            RuleLine(Side.CREDIT, None, "2241.07"),
        )
        changed = Rule(movement, version, f"{rule.summary}, with a memo", lines)
        return replace(self.chart, rules=(*self.chart.rules, changed))


async def open_books(kit: LedgerKit, chart: Chart | None = None) -> Books:
    """Build the inner books beside a ledger."""
    chart = chart or read_chart()
    await ChartStore(kit.pool).put(chart)
    return Books(kit, chart, VoucherStore(kit.pool))
