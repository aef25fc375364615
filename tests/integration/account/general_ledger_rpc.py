"""The inner books as an accountant sees them: behind the contract, with the events they hear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import hosted_services
import pytest
from hosted_services import HostedKit, calling, hosting, operator_call
from ledger_rpc import LedgerRpc
from paymesh.account.v1 import (
    AccountServiceStub,
    BookVoucherRequest,
    GeneralLedgerServiceStub,
    GetTrialBalanceRequest,
    GetVoucherRequest,
    ListVouchersRequest,
    ReverseVoucherRequest,
    ReverseVoucherResponse,
    Voucher,
    VoucherLine,
    VoucherRequested,
)

import services.account.wiring
from common.context import ActorType, CallContext, Mode, Principal
from common.errors import RemoteError
from common.events.consumer import Consumer
from common.events.event import NewEvent
from common.ids import derive
from services.account.chart_files import read_chart
from services.account.domain.accounts import Side
from services.account.domain.rules import Rule, RuleLine
from services.account.events import VoucherListener
from services.account.flows.book_voucher import VoucherParts
from services.account.flows.make_vouchers import make_vouchers
from services.account.store.register import RegisterStore
from services.account.store.vouchers import VoucherStore

ACCOUNTANT = operator_call("operator", "accountant")
RENT, OWED = "6602", "2241.07"


@dataclass
class GeneralLedger:
    """The inner books as an accountant sees them, and the events that they hear."""

    kit: HostedKit
    stub: GeneralLedgerServiceStub
    outer: LedgerRpc
    consumer: Consumer
    parts: VoucherParts
    today: date
    number: int = 0

    def request_id(self) -> str:
        """Return a request id of its own."""
        self.number += 1
        return f"request-{self.number}"

    async def call(
        self, work: Callable[[], Awaitable[Any]], context: CallContext = ACCOUNTANT
    ) -> Any:
        """Call as an accountant, or as somebody else."""
        return await calling(context, work)

    async def book(self, context: CallContext = ACCOUNTANT, **changes: Any) -> Voucher:
        """Book a voucher by hand: rent that is owed, unless said otherwise."""
        request = self.order(**changes)
        answer = await self.call(lambda: self.stub.BookVoucher(request), context)
        voucher: Voucher = answer.voucher
        return voucher

    def order(self, **changes: Any) -> BookVoucherRequest:
        """Return an order for a voucher by hand."""
        fields: dict[str, Any] = {
            "request_id": self.request_id(),
            "summary": "Rent of January",
            "currency_code": "USD",
            "lines": lines((RENT, 500, 0), (OWED, 0, 500)),
        }
        return BookVoucherRequest(**(fields | changes))

    async def reverse(
        self, voucher_id: str, request_id: str = "", reason: str = "was wrong"
    ) -> ReverseVoucherResponse:
        """Take a voucher back."""
        request = ReverseVoucherRequest(
            request_id=request_id or self.request_id(), voucher_id=voucher_id, reason=reason
        )
        answer: ReverseVoucherResponse = await self.call(lambda: self.stub.ReverseVoucher(request))
        return answer

    async def get(self, voucher_id: str, context: CallContext = ACCOUNTANT) -> Voucher:
        """Read a voucher."""
        request = GetVoucherRequest(id=voucher_id)
        voucher: Voucher = (await self.call(lambda: self.stub.GetVoucher(request), context)).voucher
        return voucher

    async def register(self, **changes: Any) -> list[Voucher]:
        """Read the whole register of the current day, page by page."""
        fields: dict[str, Any] = {
            "from_on": self.today.isoformat(),
            "to_on": self.today.isoformat(),
        }
        found: list[Voucher] = []
        token = ""
        while True:
            request = ListVouchersRequest(**(fields | changes), page_token=token)
            answer = await self.call(lambda r=request: self.stub.ListVouchers(r))
            found += answer.vouchers
            token = answer.next_page_token
            if not token:
                return found

    async def balances(self, **days: str) -> dict[str, tuple[int, int, int, int]]:
        """Return opening, debits, credits and closing of each subject, in dollars."""
        request = GetTrialBalanceRequest(**days)
        answer = await self.call(lambda: self.stub.GetTrialBalance(request))
        assert not any(answer.difference_minor.values())
        return {
            one.subject_code: (
                one.opening_minor,
                one.debits_minor,
                one.credits_minor,
                one.closing_minor,
            )
            for one in answer.balances
            if one.currency_code == "USD"
        }

    async def make(self) -> None:
        """Let the vouchers of the journal be made."""
        last = (await self.rows("SELECT max(written_in)::text::bigint AS last FROM transfers"))[0]

        async def is_made() -> bool:
            pool, store = self.parts.pool, self.parts.vouchers
            return not (await make_vouchers(pool, store, 0, up_to=last["last"])).has_more

        await hosted_services.until(is_made)

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Return what a query finds."""
        return await self.kit.rows("account", query, *arguments)

    async def run(self, query: str, *arguments: object) -> None:
        """Change rows as no caller could."""
        async with self.parts.pool.acquire() as connection:
            await connection.execute(query, *arguments)

    async def forget_rules(self) -> None:
        """Take the rules away that a test has added."""
        await self.run("DELETE FROM accounting_rule_lines WHERE movement = 'test.move'")
        await self.run("DELETE FROM accounting_rules WHERE movement = 'test.move'")

    async def empty(self) -> None:
        """Begin anew, without vouchers."""
        for table in ("voucher_reversals", "voucher_lines", "vouchers", "voucher_numbers"):
            await self.run(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        await self.run("DELETE FROM subject_balances")
        await self.run("UPDATE business_days SET state = 'OPEN', cut_at = NULL, watermark = NULL,"
                         " closed_at = NULL")  # fmt: skip

    async def hear(self, *events: NewEvent) -> None:
        """Hear of events."""
        await self.consumer.handle([hosted_services.heard(event) for event in events])

    def event(self, noun: str = "", **changes: Any) -> NewEvent:
        """Return the news that a service wants a voucher."""
        aggregate = noun or self.kit.ids.new("set")
        on: date | None = changes.pop("business_date", self.today)
        fields: dict[str, Any] = {
            "summary": "Tax on the day's fees",
            "currency_code": "USD",
            "lines": lines(("6403", 40, 0), ("2221.01", 0, 40)),
            "reference_id": aggregate,
        }
        return NewEvent(
            event_id=derive("evt", aggregate, "voucher"),
            type="settlement.voucher.requested.v1",
            aggregate_id=aggregate,
            aggregate_version=1,
            payload=VoucherRequested(**(fields | changes)).SerializeToString(),
            principal=Principal(
                mode=Mode.TEST, actor_type=ActorType.SERVICE, actor_id="settlement"
            ),
            occurred_at=self.kit.clock.now(),
            biz_trace_id=f"biz_{aggregate}",
            business_date=on,
        )

    async def of_event(self, event: NewEvent) -> list[dict[str, Any]]:
        """Return the vouchers of an event."""
        return await self.rows(
            "SELECT business_date, value_on, number FROM vouchers WHERE source_id = $1",
            event.event_id,
        )


def lines(*told: tuple[str, int, int]) -> list[VoucherLine]:
    """Return lines by subject, debit and credit."""
    return [
        VoucherLine(subject_code=code, debit_minor=debit, credit_minor=credit)
        for code, debit, credit in told
    ]


@asynccontextmanager
async def serving_general_ledger(database_url: str) -> AsyncIterator[GeneralLedger]:
    """Host the account service for one module."""
    async with hosting(database_url, [services.account.wiring], {}) as kit:
        pool = kit.pools["account"]
        parts = VoucherParts(pool, read_chart(), VoucherStore(pool), RegisterStore(pool))
        outer = LedgerRpc(
            kit,
            AccountServiceStub(kit.channel("payment", "account")),
            AccountServiceStub(kit.channel("operator", "account")),
        )
        (row,) = await kit.rows("account", "SELECT business_date FROM business_dates")
        yield GeneralLedger(
            kit,
            GeneralLedgerServiceStub(kit.channel("operator", "account")),
            outer,
            kit.consumer("account", "account.vouchers", VoucherListener(parts).handle),
            parts,
            row["business_date"],
        )


def with_memo(movement: str, version: int) -> Rule:
    """Return a version of a rule that books a memo beside."""
    rule = read_chart().rules_latest[movement if movement != "test.move" else "*"]
    memo = (RuleLine(Side.DEBIT, None, RENT), RuleLine(Side.CREDIT, None, OWED))
    return Rule(movement, version, "With a memo", (*rule.lines, *memo))


async def refusal(call: Awaitable[Any]) -> tuple[str, str]:
    """Return the reason of a refused call, and the field that it names."""
    with pytest.raises(RemoteError) as raised:
        await call
    return raised.value.remote_reason, raised.value.metadata.get("field", "")
