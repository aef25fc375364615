"""What risk tells of a business order, and the facts that audits compare."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.risk.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact, StoryItem

from common.context import ActorType, current
from common.db.types import Record
from common.errors import FieldInvalidError, PermissionDeniedError
from common.paging import PageTokens
from services.risk.store import FACT_QUERIES, RiskStore

_STORY_ITEMS_MAX: Final = 1000
_FACTS_MAX: Final = 5000


async def list_story(
    store: RiskStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of verdicts and their ends of a story, oldest first."""
    _check_reader("ListStory")
    story = request.biz_trace_id
    if request.WhichOneof("subject") == "subject_id":
        story = await store.find_story(request.subject_id)
    if not story:
        return ListStoryResponse()
    filters = {"story": story}
    position = tokens.read("risk.story", request.page_token, filters)
    offset = int(position[0] or 0) if position else 0
    limit = request.page_size or _STORY_ITEMS_MAX
    rows = await store.list_story(story, offset, limit)
    token = tokens.issue("risk.story", [offset + limit], filters) if len(rows) == limit else ""
    return ListStoryResponse(
        biz_trace_id=story if rows or offset else "",
        items=[_item(row) for row in rows],
        next_page_token=token,
    )


async def list_facts(
    store: RiskStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of one kind of facts, by key; raises FieldInvalidError for no such kind."""
    _check_reader("ListFacts")
    if request.kind not in FACT_QUERIES:
        raise FieldInvalidError(field="kind", rule=f"must be one of {', '.join(FACT_QUERIES)}")
    limit = request.page_size or _FACTS_MAX
    filters = {"kind": request.kind}
    position = tokens.read("risk.facts", request.page_token, filters)
    rows = await store.list_facts(request.kind, str(position[0]) if position else "", limit)
    facts = [_fact(request.kind, row) for row in rows]
    token = tokens.issue("risk.facts", [facts[-1].key], filters) if len(facts) == limit else ""
    return ListFactsResponse(facts=facts, next_page_token=token)


def _check_reader(method: str) -> None:
    """Stories and facts are of all merchants."""
    principal = current().principal
    if principal.actor_type not in (ActorType.OPERATOR, ActorType.SERVICE):
        raise PermissionDeniedError(method=method)


def _item(row: Record) -> StoryItem:
    at = Timestamp()
    at.FromDatetime(row["at"])
    details = {name: row[name] for name in ("detail", "actor") if row[name]}
    return StoryItem(
        occurred_at=at,
        service="risk",
        kind=row["kind"],
        subject=f"action {row['subject']}",
        summary=row["summary"],
        details=details,
    )


def _fact(kind: str, row: Record) -> Fact:
    values = {name: str(value) for name, value in row.items()}
    return Fact(key=values.pop("key"), kind=kind, values=values)
