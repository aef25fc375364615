"""What the edge tells of a business order: the requests and callbacks that moved it."""

from __future__ import annotations

from typing import Final

from paymesh.edge.v1 import ListStoryRequest, ListStoryResponse

from common.db.queries import load_queries
from common.paging import PageTokens
from common.story import StoryTeller
from services.edge.store import EdgeStore

_TELLER: Final = StoryTeller("edge", load_queries("services.edge", "story_queries.sql"))


async def list_story(
    store: EdgeStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of the requests of a story, oldest first.

    A request that belongs to no story (it was refused, say) is told by its own number.
    """
    answer = await _TELLER.tell(store.pool, tokens, request, ListStoryResponse)
    if answer.biz_trace_id or not request.subject_id:
        return answer
    alone = ListStoryRequest(subject_id=request.subject_id, related_ids=[request.subject_id])
    return await _TELLER.tell(store.pool, tokens, alone, ListStoryResponse)
