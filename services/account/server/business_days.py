"""The servicer of the inner books, the half of days, periods and proofs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import grpc.aio
from paymesh.account.v1 import (
    ArchivePeriodRequest,
    ArchivePeriodResponse,
    ClosePeriodRequest,
    ClosePeriodResponse,
    CutDayRequest,
    CutDayResponse,
    GeneralLedgerServiceServicer,
    GetBusinessDayRequest,
    GetBusinessDayResponse,
    GetProofRequest,
    GetProofResponse,
    ListBusinessDaysRequest,
    ListBusinessDaysResponse,
    ListPeriodsRequest,
    ListPeriodsResponse,
    ProveBooksRequest,
    ProveBooksResponse,
)

from common.clock import Clock
from common.context import CallContext, current
from common.db.pool import Pool
from common.db.types import Connection
from common.errors import FieldInvalidError, NotFoundError
from common.events.outbox import Outbox
from common.paging import PageTokens
from services.account.convert.business_days import (
    business_date_from_text,
    day_to_proto,
    month_from_text,
    period_to_proto,
    proof_to_proto,
)
from services.account.domain.chart import Chart
from services.account.domain.days import Day, DayReport
from services.account.events import BusinessDateTeller
from services.account.flows.archive_period import archive_period
from services.account.flows.close_day import DayCloser
from services.account.flows.close_period import PeriodParts, close_period
from services.account.flows.cut_day import DrainAhead, Tell, cut_day
from services.account.flows.prove_books import Prover
from services.account.store.days import BusinessDayStore, DayStore
from services.account.store.proofs import ProofStore

_PAGE_DEFAULT: Final = 100
_DAYS: Final = "account.business_days"
_PERIODS: Final = "account.periods"
# The answer has to be made and sent within the call's deadline.
_ANSWER_SECONDS: Final = 0.1
_AHEAD_MAX: Final = timedelta(days=366)


@dataclass(frozen=True)
class DayParts:
    """What this half is made of."""

    pool: Pool
    clock: Clock
    chart: Chart
    dates: DayStore
    days: BusinessDayStore
    proofs: ProofStore
    periods: PeriodParts
    prover: Prover
    closer: DayCloser
    teller: BusinessDateTeller
    outbox: Outbox
    tokens: PageTokens
    drain_ahead: DrainAhead


class BusinessDayServicer(GeneralLedgerServiceServicer):
    """Days, periods and proofs of `paymesh.account.v1.GeneralLedgerService`."""

    def __init__(self, parts: DayParts) -> None:
        self._day_parts = parts

    async def CutDay(  # noqa: N802 - named by the contract
        self, request: CutDayRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CutDayResponse:
        """End the business day and begin the next."""
        parts, call = self._day_parts, current()
        wanted = business_date_from_text(request.next_business_date, "next_business_date")
        # A slip of the pen must not take the books years ahead: no date ever goes back.
        latest = parts.clock.now().date() + _AHEAD_MAX
        if wanted > latest:
            raise FieldInvalidError(
                field="next_business_date", rule=f"must not be after {latest}, a year from now"
            )
        ended = await cut_day(
            parts.pool,
            parts.dates,
            parts.days,
            wanted,
            call.principal.actor,
            _teller_of(parts.teller, call),
            parts.drain_ahead,
        )
        parts.outbox.notify()
        days = sorted(
            {*ended, *(day.day for day in await parts.days.list_unclosed())}, key=_by_date
        )
        if request.without_waiting:
            reports = [DayReport(day, 0, 0) for day in await parts.days.read(days)]
        else:
            until = (call.deadline_at or parts.clock.monotonic()) - _ANSWER_SECONDS
            reports = await parts.closer.wait_closed(days, until)
        proofs = await parts.proofs.read_of_days(r.day.business_date for r in reports)
        return CutDayResponse(
            business_date=wanted.isoformat(),
            days=[day_to_proto(r, proofs.get(r.day.business_date)) for r in reports],
        )

    async def GetBusinessDay(  # noqa: N802 - named by the contract
        self, request: GetBusinessDayRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetBusinessDayResponse:
        """Read one business day."""
        parts = self._day_parts
        business_date = business_date_from_text(request.business_date, "business_date")
        reports = await parts.days.read_reports([(request.book, business_date)])
        if not reports:
            raise NotFoundError(resource="business day")
        proofs = await parts.proofs.read_of_days([business_date])
        return GetBusinessDayResponse(day=day_to_proto(reports[0], proofs.get(business_date)))

    async def ListBusinessDays(  # noqa: N802 - named by the contract
        self, request: ListBusinessDaysRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListBusinessDaysResponse:
        """List business days, latest first."""
        parts = self._day_parts
        limit = request.page_size or _PAGE_DEFAULT
        position = parts.tokens.read(_DAYS, request.page_token, {})
        before: Day | None = None
        if position:
            before = int(position[1] or 0), date.fromisoformat(str(position[0]))
        reports = await parts.days.list_reports(before, limit + 1)
        token = ""
        if len(reports) > limit:
            reports.pop()
            last = reports[-1].day
            token = parts.tokens.issue(_DAYS, [last.business_date.isoformat(), last.book], {})
        proofs = await parts.proofs.read_of_days(r.day.business_date for r in reports)
        return ListBusinessDaysResponse(
            days=[
                day_to_proto(r, proofs.get(r.day.business_date), with_lines=False) for r in reports
            ],
            next_page_token=token,
        )

    async def ClosePeriod(  # noqa: N802 - named by the contract
        self, request: ClosePeriodRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ClosePeriodResponse:
        """Close an accounting period."""
        parts, month = self._day_parts, month_from_text(request.period)
        period = await close_period(parts.periods, month, current(), parts.clock.now())
        return ClosePeriodResponse(period=period_to_proto(period, parts.chart))

    async def ArchivePeriod(  # noqa: N802 - named by the contract
        self, request: ArchivePeriodRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ArchivePeriodResponse:
        """Set the vouchers of a closed period aside."""
        parts, month = self._day_parts, month_from_text(request.period)
        period = await archive_period(parts.periods, month, current(), parts.clock.now())
        return ArchivePeriodResponse(period=period_to_proto(period, parts.chart))

    async def ListPeriods(  # noqa: N802 - named by the contract
        self, request: ListPeriodsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListPeriodsResponse:
        """List accounting periods, latest first."""
        parts = self._day_parts
        limit = request.page_size or _PAGE_DEFAULT
        position = parts.tokens.read(_PERIODS, request.page_token, {})
        periods = await parts.periods.periods.list_page(
            str(position[0]) if position else "", limit + 1
        )
        token = ""
        if len(periods) > limit:
            periods.pop()
            token = parts.tokens.issue(_PERIODS, [str(periods[-1].month)], {})
        return ListPeriodsResponse(
            periods=[period_to_proto(period, parts.chart) for period in periods],
            next_page_token=token,
        )

    async def ProveBooks(  # noqa: N802 - named by the contract
        self, request: ProveBooksRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ProveBooksResponse:
        """Prove the books now."""
        return ProveBooksResponse(proof=proof_to_proto(await self._day_parts.prover.prove()))

    async def GetProof(  # noqa: N802 - named by the contract
        self, request: GetProofRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetProofResponse:
        """Read the last proof."""
        proof = await self._day_parts.proofs.read_last()
        if proof is None:
            raise NotFoundError(resource="proof")
        return GetProofResponse(proof=proof_to_proto(proof))


def _by_date(day: Day) -> tuple[date, int]:
    book, business_date = day
    return business_date, book


def _teller_of(teller: BusinessDateTeller, call: CallContext) -> Tell:
    async def tell(connection: Connection, book: int, previous: date, now: date) -> None:
        await teller.tell(connection, book, previous, now, call)

    return tell
