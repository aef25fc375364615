"""Days, periods and proofs through the contract, and from the command line."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import orjson
import pytest
from hosted_services import HostedKit, calling, hosting, operator_call
from ledger_rpc import LedgerRpc
from paymesh.account.v1 import (
    BUSINESS_DAY_STATE_CLOSED,
    BUSINESS_DAY_STATE_CUTTING,
    BUSINESS_DAY_STATE_OPEN,
    PERIOD_STATE_ARCHIVED,
    PERIOD_STATE_CLOSED,
    PERIOD_STATE_OPEN,
    PROOF_OCCASION_DAY_CUT,
    PROOF_OCCASION_ON_DEMAND,
    AccountServiceStub,
    ArchivePeriodRequest,
    BusinessDay,
    BusinessDayClosed,
    ClosePeriodRequest,
    CutDayRequest,
    CutDayResponse,
    GeneralLedgerServiceStub,
    GetBusinessDateRequest,
    GetBusinessDayRequest,
    GetProofRequest,
    ListBusinessDaysRequest,
    ListPeriodsRequest,
    ProveBooksRequest,
)

import services.account.wiring
from common.context import CallContext, bound
from common.errors import RemoteError
from services.cli.bookkeeping import VERBS
from services.cli.operator import Operator
from services.cli.printing import open_console

OPERATOR = operator_call("operator")
ACCOUNTANT = operator_call("operator", "accountant")
_WORK = ("account close of days", "account vouchers of the journal")


@dataclass
class DayBooks:
    """The inner books as operators see them, with what runs beside."""

    kit: HostedKit
    stub: GeneralLedgerServiceStub
    outer: LedgerRpc

    async def call(
        self, work: Callable[[], Awaitable[Any]], context: CallContext = OPERATOR
    ) -> Any:
        """Call as an operator, or as somebody else."""
        return await calling(context, work)

    async def today(self) -> date:
        """The business date."""
        answer = await self.call(
            lambda: self.outer.operator.GetBusinessDate(GetBusinessDateRequest())
        )
        return date.fromisoformat(answer.business_date)

    async def cut(self, to: date, *, without_waiting: bool = False) -> CutDayResponse:
        """Cut the day."""
        request = CutDayRequest(next_business_date=str(to), without_waiting=without_waiting)
        answer: CutDayResponse = await self.call(lambda: self.stub.CutDay(request, timeout=60))
        return answer

    async def day(self, on: date) -> BusinessDay:
        """Read a day."""
        request = GetBusinessDayRequest(business_date=str(on))
        found: BusinessDay = (await self.call(lambda: self.stub.GetBusinessDay(request))).day
        return found

    async def type(self, verb: str, context: CallContext = OPERATOR, **asked: object) -> Any:
        """Give a command; return its status and what it printed (JSON values, or words)."""
        out = io.StringIO()
        with bound(context):
            status = await VERBS[verb](
                Operator(self.kit.host, context.principal), open_console(out, width=20), **asked
            )
        text = out.getvalue()
        return status, orjson.loads(text) if asked["as_json"] else text


@pytest.fixture(scope="module")
async def books(database_url: str) -> AsyncIterator[DayBooks]:
    """The account service with its maker and closer at work, for this module."""
    async with hosting(database_url, [services.account.wiring], {}) as kit:
        work = [asyncio.create_task(kit.background(name).run()) for name in _WORK]  # type: ignore[arg-type]
        outer = LedgerRpc(
            kit,
            AccountServiceStub(kit.channel("payment", "account")),
            AccountServiceStub(kit.channel("operator", "account")),
        )
        await outer.open_cast()
        try:
            yield DayBooks(kit, GeneralLedgerServiceStub(kit.channel("operator", "account")), outer)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)


async def test_cutting_waits_for_the_close_and_tells_of_it(books: DayBooks) -> None:
    today = await books.today()
    await books.outer.post_one(books.outer.move("first"))
    answer = await books.cut(today + timedelta(days=1))
    assert answer.business_date == str(today + timedelta(days=1))
    [day] = answer.days
    assert (day.business_date, day.state) == (str(today), BUSINESS_DAY_STATE_CLOSED)
    assert (day.vouchers_count, day.transfers_in_flight) == (1, 0)
    assert day.proof.holds
    assert day.proof.occasion == PROOF_OCCASION_DAY_CUT
    assert day.proof.business_date == str(today)
    assert day.cut_at.ToDatetime() <= day.closed_at.ToDatetime()
    assert await books.day(today) == day
    assert (await books.day(today + timedelta(days=1))).state == BUSINESS_DAY_STATE_OPEN
    told = await books.kit.events("account", "account.business_day.closed.v1")
    closed = [BusinessDayClosed.FromString(event.payload) for event in told]
    assert BusinessDayClosed(business_date=str(today), book=0, vouchers_count=1) in closed
    again = await books.cut(today + timedelta(days=1))
    assert list(again.days) == []


async def test_cutting_without_waiting_answers_at_once(books: DayBooks) -> None:
    today = await books.today()
    answer = await books.cut(today + timedelta(days=1), without_waiting=True)
    [day] = answer.days
    assert day.state in (BUSINESS_DAY_STATE_CUTTING, BUSINESS_DAY_STATE_CLOSED)


async def test_cutting_back_or_to_no_date_is_refused(books: DayBooks) -> None:
    today = await books.today()
    with pytest.raises(RemoteError) as refused:
        await books.cut(today - timedelta(days=1))
    assert refused.value.remote_reason == "BUSINESS_DATE_NOT_LATER"
    with pytest.raises(RemoteError) as refused:
        await books.call(lambda: books.stub.CutDay(CutDayRequest(next_business_date="1998-02-30")))
    assert refused.value.remote_reason == "FIELD_INVALID"


async def test_cutting_by_a_slip_of_the_pen_is_refused(books: DayBooks) -> None:
    """A date years ahead could never be taken back, and at the end of time there are no months."""
    today = await books.today()
    for slip in (today + timedelta(days=400), date(9999, 12, 31)):
        with pytest.raises(RemoteError) as refused:
            await books.cut(slip)
        assert refused.value.remote_reason == "FIELD_INVALID"
        assert refused.value.metadata["field"] == "next_business_date"
    assert await books.today() == today


async def test_a_day_that_never_was_is_not_found(books: DayBooks) -> None:
    with pytest.raises(RemoteError) as refused:
        await books.day(date(1990, 1, 1))
    assert refused.value.remote_reason == "NOT_FOUND"


async def test_days_are_listed_in_pages(books: DayBooks) -> None:
    for _ in range(3):
        await books.cut(await books.today() + timedelta(days=1), without_waiting=True)
    dates: list[str] = []
    token = ""
    while True:
        request = ListBusinessDaysRequest(page_size=2, page_token=token)
        answer = await books.call(lambda r=request: books.stub.ListBusinessDays(r))  # type: ignore[misc]
        dates += [day.business_date for day in answer.days]
        assert not any(day.proof.lines for day in answer.days)
        token = answer.next_page_token
        if not token:
            break
    assert dates == sorted(set(dates), reverse=True)
    assert len(dates) >= 4


async def test_proofs_are_made_and_read(books: DayBooks) -> None:
    await books.outer.post_one(books.outer.move("proved"))
    made = (await books.call(lambda: books.stub.ProveBooks(ProveBooksRequest()))).proof
    assert made.holds
    assert made.occasion == PROOF_OCCASION_ON_DEMAND
    assert {line.subject_code for line in made.lines} >= {"1122.01", "2203.01"}
    assert all(line.difference_minor == 0 for line in made.lines)
    last = (await books.call(lambda: books.stub.GetProof(GetProofRequest()))).proof
    assert last.proved_at.ToDatetime() >= made.proved_at.ToDatetime()


async def test_periods_are_closed_and_archived_by_accountants_only(books: DayBooks) -> None:
    today = await books.today()
    month = f"{today:%Y-%m}"
    close, archive = ClosePeriodRequest(period=month), ArchivePeriodRequest(period=month)
    with pytest.raises(RemoteError) as refused:
        await books.call(lambda: books.stub.ClosePeriod(close))
    assert refused.value.remote_reason == "PERMISSION_DENIED"
    with pytest.raises(RemoteError) as refused:
        await books.call(lambda: books.stub.ClosePeriod(close), ACCOUNTANT)
    assert refused.value.remote_reason == "PERIOD_NOT_CLOSABLE"
    with pytest.raises(RemoteError) as refused:
        await books.call(lambda: books.stub.ArchivePeriod(archive), ACCOUNTANT)
    assert refused.value.remote_reason == "STATE_CONFLICT"
    await books.cut((today.replace(day=1) + timedelta(days=40)).replace(day=1))
    closed = (await books.call(lambda: books.stub.ClosePeriod(close), ACCOUNTANT)).period
    assert closed.state == PERIOD_STATE_CLOSED
    assert {one.subject_code for one in closed.balances} >= {"1122.01", "2203.01"}
    with pytest.raises(RemoteError) as refused:
        await books.call(lambda: books.stub.ArchivePeriod(archive))
    assert refused.value.remote_reason == "PERMISSION_DENIED"
    archived = (await books.call(lambda: books.stub.ArchivePeriod(archive), ACCOUNTANT)).period
    assert archived.state == PERIOD_STATE_ARCHIVED
    assert archived.balances == closed.balances
    listed = (await books.call(lambda: books.stub.ListPeriods(ListPeriodsRequest()))).periods
    assert [one.state for one in listed] == [PERIOD_STATE_OPEN, PERIOD_STATE_ARCHIVED]
    assert all(not one.balances for one in listed)
    first = await books.call(lambda: books.stub.ListPeriods(ListPeriodsRequest(page_size=1)))
    rest = ListPeriodsRequest(page_size=1, page_token=first.next_page_token)
    second = await books.call(lambda: books.stub.ListPeriods(rest))
    assert [*first.periods, *second.periods] == list(listed)
    audited = await books.kit.rows(
        "account",
        "SELECT action, subject FROM audit WHERE action LIKE 'period.%' ORDER BY position",
    )
    assert audited == [
        {"action": "period.close", "subject": f"period {month}"},
        {"action": "period.archive", "subject": f"period {month}"},
    ]


async def test_the_books_are_kept_from_the_command_line(books: DayBooks) -> None:
    today = await books.today()
    await books.outer.post_one(books.outer.move("typed", amount=1234))
    status, cut = await books.type("cut", next_day="", without_waiting=False, as_json=True)
    assert (status, cut["business_date"]) == (0, str(today + timedelta(days=1)))
    assert [day["state"] for day in cut["days"]] == ["BUSINESS_DAY_STATE_CLOSED"]
    for as_json in (True, False):
        status, days = await books.type("days", limit=2, as_json=as_json)
        assert status == 0
        status, proof = await books.type("proof", day="", last=False, as_json=as_json)
        assert status == 0
        status, balance = await books.type("trial-balance", from_on="", to_on="", as_json=as_json)
        assert status == 0
        asked = {"from_on": str(today), "to_on": str(today), "subject": "", "limit": 10}
        status, register = await books.type("register", **asked, as_json=as_json)
        assert status == 0
        status, periods = await books.type("periods", limit=3, as_json=as_json)
        assert status == 0
        if as_json:
            assert [day["business_date"] for day in days] == [
                str(today + timedelta(days=1)),
                str(today),
            ]
            assert proof["holds"] is True
            assert balance["difference_minor"] == {"USD": 0}
            assert [one["number"] for one in register] == list(range(1, len(register) + 1))
            assert register[-1]["lines"][0]["debit_minor"] == 1234
        else:
            assert str(today) in days
            assert "CLOSED" in days
            assert "proof: holds" in proof
            assert "entries without a transfer" in proof
            assert "debits − credits: 0.00 USD" in balance
            assert "12.34 USD" in register
            # On a terminal of twenty places.
            [row] = [line for line in balance.splitlines() if line.startswith("1122.01")]
            assert row.count(" USD") == 4
            assert "…" not in balance + register + days + proof + periods
            assert "OPEN" in periods
    status, shown = await books.type("proof", day=str(today), last=False, as_json=True)
    assert (status, shown["business_date"]) == (0, str(today))
