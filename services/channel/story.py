"""What the channel service tells of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paymesh.channel.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact

from common.db.queries import load_queries
from common.db.types import Record
from common.paging import PageTokens
from common.story import StoryTeller, page_facts, texts
from services.channel.store.movements import FACT_QUERIES, ChannelStore

_TELLER: Final = StoryTeller("channel", load_queries("services.channel", "story_queries.sql"))


async def list_story(
    store: ChannelStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of calls, callbacks and state changes of a story, oldest first."""
    return await _TELLER.tell(store.pool, tokens, request, ListStoryResponse)


async def list_facts(
    store: ChannelStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of one kind of facts, by key; raises FieldInvalidError for no such kind."""

    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        return [_fact(kind, row) for row in await store.list_facts(kind, after, limit)]

    return await page_facts("channel", tokens, request, ListFactsResponse, FACT_QUERIES, read)


def _fact(kind: str, row: Record) -> tuple[str, Fact]:
    values = texts(row)
    key = values.pop("key", "") or values.pop("reference")
    return key, Fact(key=key, kind=kind, values=values)
