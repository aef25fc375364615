"""The servicer of the inner books, the half of the chart, the vouchers and the trial balance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
from paymesh.account.v1 import (
    BookVoucherRequest,
    BookVoucherResponse,
    GeneralLedgerServiceServicer,
    GetTrialBalanceRequest,
    GetTrialBalanceResponse,
    GetVoucherRequest,
    GetVoucherResponse,
    ListSubjectsRequest,
    ListSubjectsResponse,
    ListVouchersRequest,
    ListVouchersResponse,
    ReverseVoucherRequest,
    ReverseVoucherResponse,
)

from common.clock import Clock
from common.context import current
from common.errors import NotFoundError
from common.paging import PageTokens
from services.account.convert.vouchers import (
    date_from_text,
    days_from_text,
    lines_from_proto,
    source_from_proto,
    subject_to_proto,
    trial_balance_to_proto,
    voucher_to_proto,
)
from services.account.flows.book_voucher import VoucherOrder, VoucherParts, book_voucher
from services.account.flows.read_vouchers import find_voucher, list_register
from services.account.flows.reverse_voucher import ReversalOrder, reverse_voucher
from services.account.store.days import DayStore
from services.account.store.register import RegisterQuery

_PAGE_DEFAULT: Final = 100
_LIST: Final = "account.vouchers"


@dataclass(frozen=True)
class VoucherServicerParts:
    """What this half is made of."""

    flows: VoucherParts
    days: DayStore
    tokens: PageTokens
    clock: Clock


class VoucherServicer(GeneralLedgerServiceServicer):
    """Subjects, vouchers and trial balance of `paymesh.account.v1.GeneralLedgerService`."""

    def __init__(self, parts: VoucherServicerParts) -> None:
        self._voucher_parts = parts

    async def ListSubjects(  # noqa: N802 - named by the contract
        self, request: ListSubjectsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListSubjectsResponse:
        """List the chart of accounts."""
        chart = self._voucher_parts.flows.chart
        return ListSubjectsResponse(
            subjects=[subject_to_proto(chart, subject) for subject in chart.subjects.values()]
        )

    async def GetVoucher(  # noqa: N802 - named by the contract
        self, request: GetVoucherRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetVoucherResponse:
        """Read one voucher."""
        principal = current().principal
        voucher = await find_voucher(
            self._voucher_parts.flows, request.id, principal.tenant_id, str(principal.mode)
        )
        return GetVoucherResponse(voucher=voucher_to_proto(voucher))

    async def ListVouchers(  # noqa: N802 - named by the contract
        self, request: ListVouchersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListVouchersResponse:
        """List the journal register."""
        parts, principal = self._voucher_parts, current().principal
        from_on, to_on = days_from_text(request.from_on, request.to_on)
        source = source_from_proto(request.source)
        world = principal.tenant_id, str(principal.mode)
        filters = {
            "world": "/".join(world),
            "from": request.from_on,
            "to": request.to_on,
            "subject": request.subject_code,
            "source": source,
        }
        query = RegisterQuery(
            book=parts.flows.book,
            tenant_id=world[0],
            mode=world[1],
            from_on=from_on,
            to_on=to_on,
            source=source,
            subject_code=request.subject_code,
            limit=request.page_size or _PAGE_DEFAULT,
        )
        position = parts.tokens.read(_LIST, request.page_token, filters)
        vouchers, after = await list_register(parts.flows, query, position)
        return ListVouchersResponse(
            vouchers=[voucher_to_proto(voucher) for voucher in vouchers],
            next_page_token=parts.tokens.issue(_LIST, after, filters) if after else "",
        )

    async def BookVoucher(  # noqa: N802 - named by the contract
        self, request: BookVoucherRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> BookVoucherResponse:
        """Make a voucher by hand."""
        parts = self._voucher_parts
        order = VoucherOrder(
            request_id=request.request_id,
            summary=request.summary,
            currency_code=request.currency_code,
            lines=lines_from_proto(request.lines),
            value_on=date_from_text(request.value_on, "value_on") if request.value_on else None,
            call=current(),
            at=parts.clock.now(),
        )
        return BookVoucherResponse(voucher=voucher_to_proto(await book_voucher(parts.flows, order)))

    async def ReverseVoucher(  # noqa: N802 - named by the contract
        self, request: ReverseVoucherRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ReverseVoucherResponse:
        """Take a voucher back."""
        parts = self._voucher_parts
        order = ReversalOrder(
            request_id=request.request_id,
            voucher_id=request.voucher_id,
            reason=request.reason,
            call=current(),
            at=parts.clock.now(),
        )
        made = await reverse_voucher(parts.flows, order)
        return ReverseVoucherResponse(
            reversal=voucher_to_proto(made.reversal),
            replacement=voucher_to_proto(made.replacement) if made.replacement else None,
        )

    async def GetTrialBalance(  # noqa: N802 - named by the contract
        self, request: GetTrialBalanceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetTrialBalanceResponse:
        """Read the trial balance."""
        parts, principal = self._voucher_parts, current().principal
        today = await parts.days.read(parts.flows.book)
        if today is None:
            raise NotFoundError(resource="business date")
        from_on, to_on = days_from_text(request.from_on, request.to_on, today)
        sums = await parts.flows.register.sum_subjects(
            principal.tenant_id, str(principal.mode), from_on, to_on
        )
        return trial_balance_to_proto(sums)
