"""What member tells of a business story, and what has not ended.

Merchants, users and cards mostly belong to no order's story: what became of them is told by their
ids and numbers as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paymesh.member.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact, StoryItem

from common.context import current
from common.db.history import HistoryRow
from common.db.queries import load_queries
from common.paging import PageTokens
from common.story import StoryTeller, check_reader, page_facts, timestamp
from services.member.store import MemberStore

_KINDS: Final = ("unfinished",)
_TELLER: Final = StoryTeller("member", load_queries("services.member", "story_queries.sql"))


async def list_story(
    store: MemberStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of this service's part of a story; a noun without one fits a page."""
    check_reader("ListStory")
    if not request.subject_id:
        return await _TELLER.tell(store.pool, tokens, request, ListStoryResponse)
    rows = await store.list_subject(current().principal.tenant_id, request.subject_id)
    story = next((row.biz_trace_id for row in rows if row.biz_trace_id), "")
    return ListStoryResponse(biz_trace_id=story, items=[_item(row) for row in rows])


async def list_facts(
    store: MemberStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of what has not ended; raises FieldInvalidError."""

    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        rows = await store.list_unfinished(after, limit)
        return [
            (key, Fact(key=key, kind=kind, values={"noun": noun, "state": state}))
            for key, noun, state in rows
        ]

    return await page_facts("member", tokens, request, ListFactsResponse, _KINDS, read)


def _item(row: HistoryRow) -> StoryItem:
    before = f"{row.from_state} → " if row.from_state else ""
    return StoryItem(
        occurred_at=timestamp(row.at),
        service="member",
        kind="state",
        subject=f"{row.noun} {row.id}",
        summary=f"{before}{row.to_state}",
        details={"actor": row.actor, "cause": row.cause, "version": str(row.version)},
    )
