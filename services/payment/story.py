"""What payment tells of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.payment.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact, StoryItem

from common.db.history import HistoryRow
from common.db.types import Record
from common.errors import FieldInvalidError
from common.ids import channel_reference, derive
from common.paging import PageTokens
from services.payment.peers import refund_reference
from services.payment.store import PaymentStore

_PAGE_DEFAULT: Final = 5000


async def list_story(store: PaymentStore, request: ListStoryRequest) -> ListStoryResponse:
    """Return the decisions and state changes of a story; a story fits one page."""
    story = request.biz_trace_id
    if request.WhichOneof("subject") == "subject_id":
        story = await store.find_story(request.subject_id)
    if not story:
        return ListStoryResponse()
    moves, payments = await store.list_story(story)
    items = [_decision(row) for row in payments] + [_move(row) for row in moves]
    items.sort(key=lambda item: (item.occurred_at.seconds, item.occurred_at.nanos))
    return ListStoryResponse(biz_trace_id=story if items else "", items=items)


async def list_facts(
    store: PaymentStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of payments, refunds, or of what has not ended.

    Raises:
        FieldInvalidError: no such kind.
    """
    kinds: dict[str, tuple[str, Callable[[Record], Fact]]] = {
        "payment": ("list_payment_facts", _payment_fact),
        "refund": ("list_refund_facts", _refund_fact),
        "unfinished": ("list_unfinished", _unfinished_fact),
    }
    if request.kind not in kinds:
        raise FieldInvalidError(field="kind", rule=f"must be one of {', '.join(kinds)}")
    query, to_fact = kinds[request.kind]
    limit = request.page_size or _PAGE_DEFAULT
    filters = {"kind": request.kind}
    position = tokens.read("payment.facts", request.page_token, filters)
    rows = await store.list_rows(query, str(position[0]) if position else "", limit)
    token = ""
    if len(rows) == limit:
        token = tokens.issue("payment.facts", [rows[-1]["id"]], filters)
    return ListFactsResponse(facts=[to_fact(row) for row in rows], next_page_token=token)


def _decision(row: Record) -> StoryItem:
    details = {"risk": row["risk_verdict"], "attempt": str(row["attempt"])}
    if row["risk_rules"]:
        details["risk_rules"] = row["risk_rules"]
    at = Timestamp()
    at.FromDatetime(row["created_at"])
    return StoryItem(
        occurred_at=at,
        service="payment",
        kind="decision",
        subject=f"payment {row['id']}",
        summary=f"{row['product']} by {row['channel']}: {row['channel_reason']}",
        details=details,
    )


def _move(row: HistoryRow) -> StoryItem:
    at = Timestamp()
    at.FromDatetime(row.at)
    before = f"{row.from_state} → " if row.from_state else ""
    return StoryItem(
        occurred_at=at,
        service="payment",
        kind="state",
        subject=f"{row.noun} {row.id}",
        summary=f"{before}{row.to_state}",
        details={"reason": row.reason, "actor": row.actor, "version": str(row.version)},
    )


def _payment_fact(row: Record) -> Fact:
    reference = channel_reference(derive("att", row["id"], "attempt", row["attempt"]))
    return Fact(key=row["id"], kind="payment", values=_texts(row) | {"reference": reference})


def _refund_fact(row: Record) -> Fact:
    values = _texts(row) | {"reference": refund_reference(row["id"])}
    return Fact(key=row["id"], kind="refund", values=values)


def _unfinished_fact(row: Record) -> Fact:
    return Fact(key=row["id"], kind="unfinished", values=_texts(row))


def _texts(row: Record) -> dict[str, str]:
    return {name: str(value) for name, value in row.items()}
