"""What settlement tells of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paymesh.settlement.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact

from common.context import current
from common.db.queries import load_queries
from common.paging import PageTokens
from common.story import StoryTeller, page_facts
from services.settlement.store import FACT_QUERIES, SettlementStore

_TELLER: Final = StoryTeller("settlement", load_queries("services.settlement", "story_queries.sql"))


async def list_story(
    store: SettlementStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of this service's part of a story."""
    return await _TELLER.tell(store.pool, tokens, request, ListStoryResponse)


async def list_facts(
    store: SettlementStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of one kind of facts of the caller's world; raises FieldInvalidError."""
    principal = current().principal

    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        rows = await store.list_facts(kind, principal.tenant_id, principal.mode, after, limit)
        return [(row["key"], Fact(key=row["key"], kind=kind, values=row["facts"])) for row in rows]

    return await page_facts("settlement", tokens, request, ListFactsResponse, FACT_QUERIES, read)
