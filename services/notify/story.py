"""The webhooks of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from paymesh.notify.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact, StoryItem

from common.db.history import HistoryRow
from common.db.types import Record
from common.errors import FieldInvalidError
from common.paging import PageTokens
from services.notify.convert import timestamp
from services.notify.store.deliveries import DeliveryStore

_PAGE_DEFAULT: Final = 5000


async def list_story(store: DeliveryStore, request: ListStoryRequest) -> ListStoryResponse:
    """Return the deliveries of a story and their attempts; a story fits one page."""
    story = request.biz_trace_id
    if request.WhichOneof("subject") == "subject_id":
        story = await store.find_story(request.subject_id)
    if not story:
        return ListStoryResponse()
    moves, attempts = await store.list_story(story)
    # At one instant the attempt comes before the change that it makes.
    items = [_attempt(row) for row in attempts] + [_move(row) for row in moves]
    items.sort(key=lambda item: (item.occurred_at.seconds, item.occurred_at.nanos))
    return ListStoryResponse(biz_trace_id=story if items else "", items=items)


async def list_facts(
    store: DeliveryStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of deliveries, or of what has not ended.

    Raises:
        FieldInvalidError: no such kind.
    """
    kinds: dict[str, tuple[str, Callable[[Record], Fact]]] = {
        "delivery": ("list_delivery_facts", _delivery_fact),
        "unfinished": ("list_unfinished", _unfinished_fact),
    }
    if request.kind not in kinds:
        raise FieldInvalidError(field="kind", rule=f"must be one of {', '.join(kinds)}")
    query, to_fact = kinds[request.kind]
    limit = request.page_size or _PAGE_DEFAULT
    filters = {"kind": request.kind}
    position = tokens.read("notify.facts", request.page_token, filters)
    rows = await store.list_rows(query, str(position[0]) if position else "", limit)
    token = ""
    if len(rows) == limit:
        token = tokens.issue("notify.facts", [rows[-1]["id"]], filters)
    return ListFactsResponse(facts=[to_fact(row) for row in rows], next_page_token=token)


def _attempt(row: Record) -> StoryItem:
    end = row["problem"] or f"HTTP {row['http_status']}"
    return StoryItem(
        occurred_at=timestamp(row["at"]),
        service="notify",
        kind="webhook",
        subject=f"delivery {row['delivery_id']}",
        summary=f"{row['type']} attempt {row['attempt']}: {end}",
        details={
            "webhook_id": row["webhook_id"],
            "endpoint_id": row["endpoint_id"],
            "subject_id": row["subject_id"],
            "took_ms": str(row["took_ms"]),
        },
    )


def _move(row: HistoryRow) -> StoryItem:
    before = f"{row.from_state} → " if row.from_state else ""
    return StoryItem(
        occurred_at=timestamp(row.at),
        service="notify",
        kind="state",
        subject=f"{row.noun} {row.id}",
        summary=f"{before}{row.to_state}",
        details={
            "reason": row.reason,
            "cause": row.cause,
            "actor": row.actor,
            "version": str(row.version),
        },
    )


def _delivery_fact(row: Record) -> Fact:
    return Fact(key=row["id"], kind="delivery", values=_texts(row))


def _unfinished_fact(row: Record) -> Fact:
    return Fact(key=row["id"], kind="unfinished", values=_texts(row))


def _texts(row: Record) -> dict[str, str]:
    return {name: str(value) for name, value in row.items()}
