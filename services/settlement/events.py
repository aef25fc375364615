"""What settlement hears: payments and refunds whose money is booked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from paymesh.payment.v1 import PaymentSucceeded, RefundSucceeded

from common.clock import Clock
from common.db.types import Connection
from common.events.event import Event
from services.settlement.domain import ClearingEntry, ClearingKind, entry_id
from services.settlement.errors import ClearingMismatchError
from services.settlement.flows.clear_movements import clear_movements
from services.settlement.store import SettlementStore

_PAYMENT_SUCCEEDED: Final = "payment.payment.succeeded.v1"
_REFUND_SUCCEEDED: Final = "payment.refund.succeeded.v1"

BINDINGS: Final = (_PAYMENT_SUCCEEDED, _REFUND_SUCCEEDED)
"""Routing keys that settlement hears."""

# Orders of these types move money between a user and itself.
_TYPES_WITHOUT_ENTRY: Final = frozenset({"recharge"})


class MovementNews:
    """Turns booked payments and refunds into clearing entries."""

    def __init__(self, store: SettlementStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def handle(self, connection: Connection, events: Sequence[Event]) -> None:
        """Write the entries of a batch inside the inbox's transaction.

        Raises:
            ClearingMismatchError, PaymentNotClearedError: an event is parked, with the reason.
            google.protobuf.message.DecodeError: a payload is not what its type names.
        """
        now = self._clock.now()
        entries: list[ClearingEntry] = []
        exempt: list[tuple[str, str]] = []
        for event in events:
            if event.type == _PAYMENT_SUCCEEDED:
                message = PaymentSucceeded.FromString(event.payload)
                if message.order_type in _TYPES_WITHOUT_ENTRY:
                    exempt.append((message.payment.id, message.order_type))
                else:
                    entries.append(_payment_entry(event, message, now))
            elif event.type == _REFUND_SUCCEEDED:
                entries.append(_refund_entry(event, RefundSucceeded.FromString(event.payload), now))
        await clear_movements(self._store, connection, entries, exempt, now)


def _payment_entry(event: Event, message: PaymentSucceeded, now: datetime) -> ClearingEntry:
    payment = message.payment
    return ClearingEntry(
        id=entry_id(ClearingKind.PAYMENT, payment.id),
        kind=ClearingKind.PAYMENT,
        subject_id=payment.id,
        payment_id=payment.id,
        order_id=payment.order_id,
        tenant_id=event.principal.tenant_id,
        mode=event.principal.mode,
        merchant_id=payment.merchant_id,
        currency_code=payment.amount.currency_code,
        gross_minor=payment.amount.amount_minor,
        fee_minor=payment.fee_minor,
        net_minor=message.net_minor,
        business_date=_business_date(event, payment.business_date),
        biz_trace_id=event.biz_trace_id or payment.biz_trace_id,
        created_at=now,
    )


def _refund_entry(event: Event, message: RefundSucceeded, now: datetime) -> ClearingEntry:
    refund = message.refund
    gross, fee = -refund.amount.amount_minor, -refund.fee_returned_minor
    return ClearingEntry(
        id=entry_id(ClearingKind.REFUND, refund.id),
        kind=ClearingKind.REFUND,
        subject_id=refund.id,
        payment_id=refund.payment_id,
        order_id=message.order_id,
        tenant_id=event.principal.tenant_id,
        mode=event.principal.mode,
        merchant_id=message.merchant_id,
        currency_code=refund.amount.currency_code,
        gross_minor=gross,
        fee_minor=fee,
        net_minor=gross - fee,
        business_date=_business_date(event, refund.business_date),
        biz_trace_id=event.biz_trace_id,
        created_at=now,
    )


def _business_date(event: Event, told: str) -> date:
    """Return the ledger's date; an entry is never dated by a clock."""
    if told:
        return date.fromisoformat(told)
    if event.business_date is not None:
        return event.business_date
    raise ClearingMismatchError(f"{event.aggregate_id} is booked without a business date")
