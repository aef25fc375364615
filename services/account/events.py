"""What the ledger tells: of business days, and of proofs that do not hold. What it hears: vouchers.

(Its journal is the table of transfers.)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from paymesh.account.v1 import (
    BusinessDateAdvanced,
    BusinessDayClosed,
    ProofBroken,
    VoucherRequested,
)

from common.clock import Clock
from common.context import CallContext, Principal
from common.db.types import Connection
from common.events.event import Event, NewEvent
from common.events.outbox import Outbox
from common.ids import derive, derive_timeless
from services.account.convert.vouchers import lines_from_proto
from services.account.domain.days import Day
from services.account.domain.proofs import FINDINGS_TOLD_MAX, Proof
from services.account.flows.book_voucher import VoucherParts
from services.account.flows.hear_vouchers import VoucherNews, hear_vouchers

BUSINESS_DATE_ADVANCED = "account.business_date.advanced.v1"
BUSINESS_DAY_CLOSED = "account.business_day.closed.v1"
PROOF_BROKEN = "account.proof.broken.v1"

VOUCHER_BINDINGS = ("*.voucher.requested.v1",)
"""Routing keys under which any service asks for a voucher."""

LEDGER = Principal(actor_id="account")
"""The service itself, where nobody asked."""


class BusinessDateTeller:
    """Writes the event with the move."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    async def tell(
        self, connection: Connection, book: int, previous: date, now: date, call: CallContext
    ) -> None:
        """Write the event in the transaction of the move; dates count up, so they are versions."""
        event = NewEvent(
            event_id=derive_timeless("evt", BUSINESS_DATE_ADVANCED, now.isoformat(), book=book),
            type=BUSINESS_DATE_ADVANCED,
            aggregate_id=derive_timeless("day", "business date", book=book),
            aggregate_version=now.toordinal(),
            payload=BusinessDateAdvanced(
                business_date=now.isoformat(), previous_date=previous.isoformat()
            ).SerializeToString(),
            principal=call.principal,
            biz_trace_id=call.biz_trace_id,
            causation_id=call.causation_id,
            business_date=now,
            occurred_at=self._clock.now(),
        )
        await self._outbox.add(connection, [event])


class DayTeller:
    """Writes what becomes of days and proofs with what it tells of."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox = outbox
        self._clock = clock

    async def tell_closed(self, connection: Connection, day: Day, vouchers_count: int) -> None:
        """Write that a day was closed, which happens once."""
        book, business_date = day
        on = business_date.isoformat()
        event = NewEvent(
            event_id=derive_timeless("evt", BUSINESS_DAY_CLOSED, on, book=book),
            type=BUSINESS_DAY_CLOSED,
            aggregate_id=derive_timeless("day", on, book=book),
            aggregate_version=1,
            payload=BusinessDayClosed(
                business_date=on, book=book, vouchers_count=vouchers_count
            ).SerializeToString(),
            principal=LEDGER,
            business_date=business_date,
            occurred_at=self._clock.now(),
        )
        await self._outbox.add(connection, [event])

    async def tell_broken(self, connection: Connection, proof: Proof) -> None:
        """Write that a proof does not hold."""
        event = NewEvent(
            event_id=derive("evt", proof.id, PROOF_BROKEN),
            type=PROOF_BROKEN,
            aggregate_id=proof.id,
            aggregate_version=1,
            payload=ProofBroken(
                business_date=proof.business_date.isoformat(),
                findings=proof.findings[:FINDINGS_TOLD_MAX],
            ).SerializeToString(),
            principal=LEDGER,
            business_date=proof.business_date,
            occurred_at=self._clock.now(),
        )
        await self._outbox.add(connection, [event])


class VoucherListener:
    """Makes vouchers of what other services tell."""

    def __init__(self, parts: VoucherParts) -> None:
        self._parts = parts

    async def handle(self, connection: Connection, events: Sequence[Event]) -> None:
        """Book the vouchers of a batch inside the inbox's transaction.

        Raises:
            PaymeshError: an event asks for what no voucher may say; it is parked, with the reason.
            google.protobuf.message.DecodeError: a payload is not what its type names.
        """
        await hear_vouchers(self._parts, connection, [_news(event) for event in events])


def _news(event: Event) -> VoucherNews:
    message = VoucherRequested.FromString(event.payload)
    principal = event.principal
    return VoucherNews(
        event_id=event.event_id,
        business_date=event.business_date,
        summary=message.summary,
        currency_code=message.currency_code,
        lines=lines_from_proto(message.lines),
        tenant_id=principal.tenant_id,
        mode=str(principal.mode),
        biz_trace_id=event.biz_trace_id,
        actor=principal.actor,
    )
