"""The edge's rows as messages of its contract."""

from __future__ import annotations

from paymesh.edge.v1 import Refusal as RefusalMessage
from paymesh.type.v1 import StoryItem

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


def refusal_to_story(refusal: Refusal) -> StoryItem:
    """Return a refusal as a part of a story."""
    item = StoryItem(
        service="edge",
        kind="request",
        subject=f"request {refusal.request_id}",
        summary=f"{refusal.route} refused: {refusal.reason}",
        details={"merchant_id": refusal.merchant_id},
    )
    item.occurred_at.FromDatetime(refusal.refused_at)
    return item
