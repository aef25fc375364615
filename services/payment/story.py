"""What payment tells of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from paymesh.payment.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact

from common.db.queries import load_queries
from common.db.types import Record
from common.ids import channel_reference, derive
from common.paging import PageTokens
from common.story import StoryTeller, page_facts, texts
from services.payment.domain.payments import refund_reference
from services.payment.store.reading import ReadingStore

_TELLER: Final = StoryTeller("payment", load_queries("services.payment", "story_queries.sql"))


async def list_story(
    store: ReadingStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of the decisions and state changes of a story, oldest first."""
    return await _TELLER.tell(store.pool, tokens, request, ListStoryResponse)


async def list_facts(
    store: ReadingStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of payments, refunds, or of what has not ended; raises FieldInvalidError."""
    kinds: dict[str, tuple[str, Callable[[Record], dict[str, str]]]] = {
        "payment": ("list_payment_facts", _payment_values),
        "refund": ("list_refund_facts", _refund_values),
        "exception": ("list_exception_facts", texts),
        "recovered": ("list_recovered_facts", texts),
        "unfinished": ("list_unfinished", texts),
    }

    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        query, values = kinds[kind]
        rows = await store.list_rows(query, after, limit)
        return [(row["id"], Fact(key=row["id"], kind=kind, values=values(row))) for row in rows]

    return await page_facts("payment", tokens, request, ListFactsResponse, kinds, read)


def _payment_values(row: Record) -> dict[str, str]:
    reference = channel_reference(derive("att", row["id"], "attempt", row["attempt"]))
    return texts(row) | {"reference": reference}


def _refund_values(row: Record) -> dict[str, str]:
    return texts(row) | {"reference": refund_reference(row["id"])}
