"""Rows of the schema `notify` as domain objects, and batches of those as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.db.types import Record
from services.notify.domain.deliveries import (
    Claim,
    Delivery,
    DeliveryState,
    Endpoint,
    Outcome,
    Owner,
    Webhook,
)


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery as it is to be written."""

    id: str
    webhook: Webhook
    endpoint_id: str


def webhook_columns(webhooks: Sequence[Webhook]) -> list[list[str]]:
    """Return webhooks as columns."""
    return [
        [webhook.id for webhook in webhooks],
        [webhook.owner.tenant_id for webhook in webhooks],
        [webhook.owner.mode for webhook in webhooks],
        [webhook.owner.merchant_id for webhook in webhooks],
        [webhook.type for webhook in webhooks],
        [webhook.subject_id for webhook in webhooks],
        [webhook.biz_trace_id for webhook in webhooks],
        [webhook.body for webhook in webhooks],
        [webhook.cause for webhook in webhooks],
    ]


def delivery_columns(new: Sequence[NewDelivery]) -> list[list[str]]:
    """Return new deliveries as columns."""
    return [
        [one.id for one in new],
        [one.webhook.id for one in new],
        [one.endpoint_id for one in new],
        [one.webhook.owner.tenant_id for one in new],
        [one.webhook.owner.mode for one in new],
        [one.webhook.owner.merchant_id for one in new],
        [one.webhook.type for one in new],
        [one.webhook.subject_id for one in new],
        [one.webhook.biz_trace_id for one in new],
    ]


def outcome_columns(outcomes: Sequence[Outcome]) -> list[list[object]]:
    """Return outcomes as columns."""
    return [
        [one.claim.delivery_id for one in outcomes],
        [one.claim.version for one in outcomes],
        [str(one.state) for one in outcomes],
        [one.attempts for one in outcomes],
        [one.answer.http_status if one.answer else None for one in outcomes],
        [one.next_attempt_at for one in outcomes],
        [one.at for one in outcomes],
    ]


def attempt_columns(outcomes: Sequence[Outcome]) -> list[list[object]]:
    """Return the attempts of outcomes that had one, as columns."""
    sent = [(one, one.answer) for one in outcomes if one.answer is not None]
    return [
        [one.claim.delivery_id for one, _ in sent],
        [one.attempts for one, _ in sent],
        [answer.http_status for _, answer in sent],
        [answer.problem for _, answer in sent],
        [answer.took_ms for _, answer in sent],
        [one.at for one, _ in sent],
    ]


def owner_from(row: Record) -> Owner:
    """Return whose a row is."""
    return Owner(row["tenant_id"], row["mode"], row["merchant_id"])


def endpoint_from(row: Record) -> Endpoint:
    """Return the address of a row."""
    return Endpoint(
        id=row["id"],
        owner=owner_from(row),
        url=row["url"],
        types=tuple(row["types"]),
        disabled=row["disabled"],
        created_at=row["created_at"],
    )


def claim_from(row: Record) -> Claim:
    """Return the claim of a row."""
    return Claim(
        delivery_id=row["id"],
        version=row["version"],
        attempts=row["attempts"],
        tries=row["tries"],
        webhook_id=row["webhook_id"],
        endpoint_id=row["endpoint_id"],
        url=row["url"],
        sealed_secret=row["sealed_secret"],
        is_endpoint_disabled=row["disabled"],
        body=row["body"],
        biz_trace_id=row["biz_trace_id"],
    )


def delivery_from(row: Record) -> Delivery:
    """Return the delivery of a row."""
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        endpoint_id=row["endpoint_id"],
        owner=owner_from(row),
        type=row["type"],
        subject_id=row["subject_id"],
        biz_trace_id=row["biz_trace_id"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        last_http_status=row["last_http_status"],
        next_attempt_at=row["next_attempt_at"],
        created_at=row["created_at"],
        version=row["version"],
    )
