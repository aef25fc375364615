"""The postings of a business order, and the facts that audits compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from paymesh.account.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact

from common.db.queries import load_queries
from common.ids import BOOK_DEFAULT
from common.paging import PageTokens
from common.story import StoryTeller, page_facts
from services.account.domain.transfers import StoredTransfer
from services.account.store.reading import ReadingStore

_KINDS: Final = ("transfer", "unfinished")
_TELLER: Final = StoryTeller("account", load_queries("services.account", "story_queries.sql"))


async def list_story(
    reading: ReadingStore, tokens: PageTokens, request: ListStoryRequest
) -> ListStoryResponse:
    """Return a page of this service's part of a story."""
    return await _TELLER.tell(reading.pool, tokens, request, ListStoryResponse)


async def list_facts(
    reading: ReadingStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of transfers in the order of their ids; raises FieldInvalidError."""

    async def read(kind: str, after: str, limit: int) -> Sequence[tuple[str, Fact]]:
        if kind == "unfinished":
            return []  # open holds belong to nouns of other services
        transfers = await reading.list_transfers(BOOK_DEFAULT, after_id=after, limit=limit)
        return [(stored.transfer.id, _fact(stored)) for stored in transfers]

    return await page_facts("account", tokens, request, ListFactsResponse, _KINDS, read)


def _fact(stored: StoredTransfer) -> Fact:
    transfer = stored.transfer
    return Fact(
        key=transfer.reference_id,
        kind="transfer",
        values={
            "id": transfer.id,
            "kind": str(transfer.kind),
            "status": str(stored.status),
            "movement": transfer.movement,
            "debit_account_id": transfer.debit_account_id,
            "credit_account_id": transfer.credit_account_id,
            "currency_code": transfer.currency_code,
            "amount_minor": str(stored.booked_minor),
            "pending_id": transfer.pending_id,
            "business_date": stored.business_date.isoformat(),
        },
    )
