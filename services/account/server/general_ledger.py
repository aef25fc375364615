"""The servicer of the inner books: converts, calls a flow, converts back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import grpc.aio
from paymesh.account.v1 import CutDayRequest, CutDayResponse

from common.context import current
from common.db.pool import Pool
from common.errors import FieldInvalidError
from common.events.outbox import Outbox
from common.ids import BOOK_DEFAULT
from services.account.events import BusinessDateTeller
from services.account.flows.advance_business_date import advance_business_date
from services.account.server.vouchers import VoucherServicer, VoucherServicerParts
from services.account.store.days import DayStore


@dataclass(frozen=True)
class GeneralLedgerParts:
    """What the servicer is made of."""

    pool: Pool
    days: DayStore
    outbox: Outbox
    teller: BusinessDateTeller
    vouchers: VoucherServicerParts


class GeneralLedgerServicer(VoucherServicer):
    """`paymesh.account.v1.GeneralLedgerService`."""

    def __init__(self, parts: GeneralLedgerParts) -> None:
        super().__init__(parts.vouchers)
        self._parts = parts

    async def CutDay(  # noqa: N802 - named by the contract
        self, request: CutDayRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CutDayResponse:
        """End the business day and begin the next."""
        parts, call = self._parts, current()
        try:
            wanted = date.fromisoformat(request.next_business_date)
        except ValueError as error:
            raise FieldInvalidError(field="next_business_date", rule="must be a date") from error

        _, now = await advance_business_date(
            parts.pool,
            parts.days,
            BOOK_DEFAULT,
            wanted,
            call.principal.actor,
            lambda connection, before, after: parts.teller.tell(
                connection, BOOK_DEFAULT, before, after, call
            ),
        )
        parts.outbox.notify()
        return CutDayResponse(business_date=now.isoformat())
