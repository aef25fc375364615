"""The inner books on a database of their own, as wiring would build them."""

from __future__ import annotations

from dataclasses import dataclass

from common.clock import SystemClock
from common.ids import IdFactory, derive_timeless
from services.account.chart_files import read_chart
from services.account.domain.accounts import AccountSpec
from services.account.domain.chart import Chart
from services.account.domain.transfers import Transfer, TransferStatus
from services.account.flows.make_vouchers import make_vouchers
from services.account.store.charts import ChartStore
from services.account.store.vouchers import VoucherStore
from tests.integration.account.conftest import LedgerKit

IDS = IdFactory(SystemClock())


def account(kind: str, owner: str = "platform", currency: str = "USD") -> str:
    """Return the id of an account that tests name by kind and owner."""
    return derive_timeless("acc", "books", kind, owner, currency)


@dataclass
class Books:
    """The general ledger of one book."""

    ledger: LedgerKit
    chart: Chart
    vouchers: VoucherStore
    tenant_id: str = "default"

    async def open(self, *accounts: tuple[str, str], currency: str = "USD") -> None:
        """Open accounts by kind and owner; such that may go negative pay for the others."""
        await self.ledger.open(
            [
                AccountSpec(
                    account(kind, owner, currency), owner, kind, currency, tenant_id=self.tenant_id
                )
                for kind, owner in accounts
            ]
        )

    def transfer(
        self, debit: tuple[str, str], credit: tuple[str, str], amount_minor: int, **more: object
    ) -> Transfer:
        """Return a transfer between accounts that are named by kind and owner."""
        currency = str(more.pop("currency_code", "USD"))
        values: dict[str, object] = {
            "movement": "payment.receive",
            "reference_id": "pay_books",
            "tenant_id": self.tenant_id,
        }
        return Transfer(
            id=IDS.new("tfr"),
            debit_account_id=account(*debit, currency),
            credit_account_id=account(*credit, currency),
            currency_code=currency,
            amount_minor=amount_minor,
            **(values | more),  # type: ignore[arg-type]
        )

    async def book(self, *transfers: Transfer) -> None:
        """Book transfers, all of which must be booked."""
        results = await self.ledger.ledger.post(transfers)
        assert [one.status for one in results] == [TransferStatus.BOOKED] * len(results), results

    async def make(self) -> int:
        """Make vouchers until there is nothing left; return how many."""
        made = 0
        while (progress := await make_vouchers(self.ledger.pool, self.vouchers, 0)).has_more:
            made += progress.made
        return made + progress.made


async def open_books(kit: LedgerKit, chart: Chart | None = None) -> Books:
    """Build the inner books beside a ledger."""
    chart = chart or read_chart()
    await ChartStore(kit.pool).put(chart)
    return Books(kit, chart, VoucherStore(kit.pool))
