"""The webhooks of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paymesh.notify.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact

from common.db.queries import load_queries
from common.paging import PageTokens
from common.story import StoryTeller, page_facts, texts
from services.notify.store.deliveries import DeliveryStore

_KINDS: Final = {"delivery": "list_delivery_facts", "unfinished": "list_unfinished"}
_TELLER: Final = StoryTeller("notify", load_queries("services.notify", "story_queries.sql"))


async def list_story(
    store: DeliveryStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of the deliveries of a story and their attempts, oldest first."""
    return await _TELLER.tell(store.pool, tokens, request, ListStoryResponse)


async def list_facts(
    store: DeliveryStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of deliveries, or of what has not ended; raises FieldInvalidError."""

    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        rows = await store.list_rows(_KINDS[kind], after, limit)
        return [(row["id"], Fact(key=row["id"], kind=kind, values=texts(row))) for row in rows]

    return await page_facts("notify", tokens, request, ListFactsResponse, _KINDS, read)
