"""Settlement hosted for real, and the events that payment tells it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import hosted_services
import pytest
from hosted_services import HostedKit, hosting
from paymesh.payment.v1 import Payment, PaymentRefund, PaymentSucceeded, RefundSucceeded
from paymesh.settlement.v1 import SettlementServiceStub
from paymesh.type.v1 import Money

import services.settlement.wiring
from common.context import ActorType, Mode, Principal
from common.events.consumer import Consumer
from common.events.event import NewEvent
from common.ids import derive
from common.money import fee_of
from services.settlement.events import MovementNews
from services.settlement.store import SettlementStore

DAY = "1997-01-02"


@dataclass
class SettlementKit:
    """Settlement as its callers see it."""

    kit: HostedKit
    consumer: Consumer
    edge: SettlementServiceStub
    trade: SettlementServiceStub
    operator: SettlementServiceStub
    merchant_id: str = ""

    def _event(self, kind: str, aggregate_id: str, payload: bytes) -> NewEvent:
        return NewEvent(
            event_id=derive("evt", aggregate_id, kind, self.kit.ids.new("rnd")),
            type=kind,
            aggregate_id=aggregate_id,
            aggregate_version=3,
            payload=payload,
            principal=Principal(
                mode=Mode.TEST,
                merchant_id=self.merchant_id,
                actor_type=ActorType.SERVICE,
                actor_id="payment",
            ),
            occurred_at=self.kit.clock.now(),
            biz_trace_id=f"biz_{aggregate_id}",
        )

    def paid(self, amount_minor: int, **changes: Any) -> NewEvent:
        """Return the news of a payment; `order_type` and `net_minor` may be changed too."""
        fee = fee_of(amount_minor, 6000)
        kind = changes.pop("order_type", "purchase")
        net = changes.pop("net_minor", amount_minor - fee)
        fields: dict[str, Any] = {
            "id": self.kit.ids.new("pay"),
            "order_id": self.kit.ids.new("trd"),
            "merchant_id": self.merchant_id,
            "amount": Money(currency_code="USD", amount_minor=amount_minor),
            "fee_minor": fee,
            "business_date": DAY,
        }
        body = PaymentSucceeded(
            payment=Payment(**(fields | changes)), net_minor=net, order_type=kind
        )
        return self._event(
            "payment.payment.succeeded.v1", body.payment.id, body.SerializeToString()
        )

    def given_back(self, payment_id: str, amount_minor: int, fee: int, **changes: Any) -> NewEvent:
        """Return the news of a refund."""
        fields: dict[str, Any] = {
            "id": self.kit.ids.new("rfd"),
            "payment_id": payment_id,
            "amount": Money(currency_code="USD", amount_minor=amount_minor),
            "fee_returned_minor": fee,
            "business_date": DAY,
        }
        refund = PaymentRefund(**(fields | changes))
        body = RefundSucceeded(refund=refund, merchant_id=self.merchant_id)
        return self._event("payment.refund.succeeded.v1", refund.id, body.SerializeToString())

    async def hear(self, *events: NewEvent) -> None:
        """Let settlement hear of events."""
        await self.consumer.handle([hosted_services.heard(event) for event in events])

    async def entries(self) -> list[tuple[str, int, int, int]]:
        """Return kind, gross, fee and net of the merchant's entries."""
        rows = await self.kit.rows(
            "settlement",
            "SELECT kind, gross_minor, fee_minor, net_minor FROM clearing_entries "
            "WHERE merchant_id = $1 ORDER BY kind, gross_minor",
            self.merchant_id,
        )
        return [tuple(row.values()) for row in rows]  # type: ignore[misc]

    async def parked(self, event: NewEvent) -> str:
        """Return why an event is parked; empty when it is not."""
        rows = await self.kit.rows(
            "settlement", "SELECT last_error FROM inbox_parked WHERE event_id = $1", event.event_id
        )
        return str(rows[0]["last_error"]) if rows else ""


@pytest.fixture(scope="module")
async def hosted(database_url: str) -> AsyncIterator[SettlementKit]:
    async with hosting(database_url, [services.settlement.wiring], {}) as kit:
        store = SettlementStore(kit.pools["settlement"])
        yield SettlementKit(
            kit,
            kit.consumer("settlement", "movements", MovementNews(store, kit.clock).handle),
            SettlementServiceStub(kit.channel("edge", "settlement")),
            SettlementServiceStub(kit.channel("trade", "settlement")),
            SettlementServiceStub(kit.channel("operator", "settlement")),
        )


@pytest.fixture
async def settlement(hosted: SettlementKit) -> SettlementKit:
    """Settlement with a merchant of its own."""
    hosted.merchant_id = hosted.kit.ids.new("mer")
    return hosted
