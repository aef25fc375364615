"""The servicer of the inner books, made of its halves: vouchers; days, periods and proofs."""

from __future__ import annotations

from dataclasses import dataclass

from services.account.server.business_days import BusinessDayServicer, DayParts
from services.account.server.vouchers import VoucherServicer, VoucherServicerParts


@dataclass(frozen=True)
class GeneralLedgerParts:
    """What the servicer is made of."""

    vouchers: VoucherServicerParts
    days: DayParts


class GeneralLedgerServicer(VoucherServicer, BusinessDayServicer):
    """`paymesh.account.v1.GeneralLedgerService`."""

    def __init__(self, parts: GeneralLedgerParts) -> None:
        VoucherServicer.__init__(self, parts.vouchers)
        BusinessDayServicer.__init__(self, parts.days)
