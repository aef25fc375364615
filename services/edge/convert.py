"""The edge's rows as messages of its contract."""

from __future__ import annotations

from paymesh.edge.v1 import Refusal as RefusalMessage

from services.edge.store import Refusal


def refusal_to_proto(refusal: Refusal) -> RefusalMessage:
    """Return the message of a refusal."""
    message = RefusalMessage(
        request_id=refusal.request_id,
        route=refusal.route,
        reason=refusal.reason,
        merchant_id=refusal.merchant_id,
    )
    message.refused_at.FromDatetime(refusal.refused_at)
    return message
