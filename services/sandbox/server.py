"""The servicer of `paymesh.sandbox.v1`: the parties' own ledger, page by page."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio
from paymesh.sandbox.v1 import (
    ListMovementsRequest,
    ListMovementsResponse,
    SandboxServiceServicer,
)

from common.errors import PageTokenInvalidError
from services.sandbox.convert import movement_to_proto
from services.sandbox.movements import list_movements
from services.sandbox.store import Store

PAGE_SIZE_DEFAULT: Final = 1000


class SandboxServicer(SandboxServiceServicer):
    """Lists what the parties did."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListMovements(  # noqa: N802 - the contract's name
        self, request: ListMovementsRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListMovementsResponse:
        """Return one page; its token is the number of the last movement."""
        after = 0
        if request.page_token:
            if not (request.page_token.isascii() and request.page_token.isdigit()):
                raise PageTokenInvalidError
            after = int(request.page_token)
        limit = request.page_size or PAGE_SIZE_DEFAULT
        party = request.party
        found = await self._store.run(
            lambda db: list_movements(db, after=after, limit=limit + 1, party=party)
        )
        page = found[:limit]
        return ListMovementsResponse(
            movements=[movement_to_proto(one) for one in page],
            next_page_token=str(page[-1].movement_id) if len(found) > limit else "",
        )
