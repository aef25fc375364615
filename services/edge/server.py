"""The servicer of the edge: what was refused at the door, and what was let in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import grpc.aio
from paymesh.edge.v1 import (
    EdgeServiceServicer,
    ListRefusalsRequest,
    ListRefusalsResponse,
    ListStoryRequest,
    ListStoryResponse,
)

from common.audit import require_role
from common.context import current
from common.paging import PageTokens
from services.edge.convert import refusal_to_proto
from services.edge.store import EdgeStore
from services.edge.story import list_story

_PAGE_SIZE: Final = 100
_LIST: Final = "edge.refusals"
_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_OPERATOR: Final = "operator"


class EdgeServicer(EdgeServiceServicer):
    """`paymesh.edge.v1.EdgeService`."""

    def __init__(self, store: EdgeStore, tokens: PageTokens) -> None:
        self._store = store
        self._tokens = tokens

    async def ListRefusals(  # noqa: N802 - named by the contract
        self, request: ListRefusalsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListRefusalsResponse:
        """List refusals, newest first."""
        principal = current().principal
        require_role(principal, _OPERATOR)
        filters = {"tenant_id": principal.tenant_id}
        position = self._tokens.read(_LIST, request.page_token, filters)
        before_at, before_id = _LAST, ""
        if position is not None:
            before_at, before_id = datetime.fromisoformat(str(position[0])), str(position[1])
        size = request.page_size or _PAGE_SIZE
        found = await self._store.list_refusals(principal.tenant_id, before_at, before_id, size + 1)
        page = found[:size]
        token = ""
        if len(found) > size:
            last = page[-1]
            token = self._tokens.issue(
                _LIST, (last.refused_at.isoformat(), last.request_id), filters
            )
        return ListRefusalsResponse(
            refusals=[refusal_to_proto(one) for one in page], next_page_token=token
        )

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListStoryResponse:
        """Tell this service's part of a story, or of a request by its number."""
        require_role(current().principal, _OPERATOR)
        return await list_story(self._store, self._tokens, request)
