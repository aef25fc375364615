"""What notify listens to, and what becomes a webhook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError
from paymesh.payment.v1 import (
    PaymentConflicted,
    PaymentFailed,
    PaymentReturned,
    PaymentUnclaimed,
)
from paymesh.trade.v1 import (
    OrderClosed,
    OrderCompleted,
    RefundCompleted,
    RefundFailed,
    RefundWaiting,
)

from common.clock import Clock
from common.db.types import Connection
from common.events.consumer import AfterCommit
from common.events.event import Event
from common.ids import derive
from services.notify.convert import format_instant, render, timestamp
from services.notify.domain.deliveries import Owner, Webhook
from services.notify.store.deliveries import DeliveryStore
from services.notify.store.endpoints import EndpointStore
from services.notify.store.rows import NewDelivery


@dataclass(frozen=True, slots=True)
class _Source:
    """How one type of event becomes a webhook."""

    message: type[Any]
    noun: str
    """The field that holds what merchants see."""
    webhook_type: str


_SOURCES: Final = {
    "trade.order.completed.v1": _Source(OrderCompleted, "order", "order.completed"),
    "trade.order.closed.v1": _Source(OrderClosed, "order", "order.closed"),
    "trade.refund.completed.v1": _Source(RefundCompleted, "refund", "refund.completed"),
    "trade.refund.failed.v1": _Source(RefundFailed, "refund", "refund.failed"),
    "trade.refund.waiting.v1": _Source(RefundWaiting, "refund", "refund.waiting"),
    "payment.payment.failed.v1": _Source(PaymentFailed, "payment", "payment.failed"),
    "payment.payment.conflicted.v1": _Source(PaymentConflicted, "payment", "payment.conflicted"),
    "payment.payment.returned.v1": _Source(PaymentReturned, "payment", "payment.returned"),
    "payment.payment.unclaimed.v1": _Source(PaymentUnclaimed, "payment", "payment.unclaimed"),
}

BINDINGS: Final = tuple(_SOURCES)
"""Routing keys that notify hears."""


def webhook_id_of(event_id: str) -> str:
    """Return the id of the webhook that an event becomes: the same for ever."""
    return derive("msg", event_id, "webhook")


def webhook_of(event: Event) -> Webhook | None:
    """Return what merchants hear of an event; None for nothing.

    Raises:
        DecodeError: the payload is not what the type names.
    """
    source = _SOURCES.get(event.type)
    if source is None:
        return None
    noun = getattr(source.message.FromString(event.payload), source.noun)
    if not noun.id:
        raise DecodeError(f"{event.event_id} tells of no {source.noun}")
    data = render(noun)
    # Orders and payments name their merchant; a refund is its event's principal's.
    merchant_id = data.get("merchant_id") or event.principal.merchant_id
    story = data.setdefault("biz_trace_id", "") or event.biz_trace_id
    data["biz_trace_id"] = story
    at = timestamp(event.occurred_at)
    content = {
        "type": source.webhook_type,
        "timestamp": format_instant(at.seconds, at.nanos),
        "data": data,
    }
    return Webhook(
        id=webhook_id_of(event.event_id),
        owner=Owner(event.principal.tenant_id, str(event.principal.mode), merchant_id),
        type=source.webhook_type,
        subject_id=noun.id,
        biz_trace_id=story,
        body=orjson.dumps(content).decode(),
        cause=event.event_id,
    )


class News:
    """Hears what has ended, and writes a delivery for each address of the merchant."""

    def __init__(
        self,
        endpoints: EndpointStore,
        deliveries: DeliveryStore,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._clock = clock
        self._wake = wake

    async def handle(
        self, connection: Connection, events: Sequence[Event]
    ) -> Sequence[AfterCommit]:
        """Write webhooks and deliveries in the inbox's transaction.

        Raises:
            DecodeError: a payload is not what its type names.
        """
        found = [one for event in events if (one := webhook_of(event)) is not None]
        webhooks = list({webhook.id: webhook for webhook in found}.values())
        listeners = await self._endpoints.find_listeners(
            connection, {webhook.owner for webhook in webhooks}
        )
        new = [
            NewDelivery(derive("dlv", webhook.id, endpoint.id), webhook, endpoint.id)
            for webhook in webhooks
            for endpoint in listeners.get(webhook.owner, ())
            if endpoint.wants(webhook.type)
        ]
        if not new:
            return ()
        await self._deliveries.add_deliveries(connection, new, self._clock.now())
        return [self._send]

    async def _send(self) -> None:
        self._wake()
