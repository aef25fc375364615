"""The postings of a business order, and the facts that audits compare."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.account.v1 import (
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
)
from paymesh.type.v1 import Fact, StoryItem

from common.errors import FieldInvalidError
from common.ids import BOOK_DEFAULT
from common.paging import PageTokens
from services.account.domain.transfers import StoredTransfer
from services.account.store.reading import ReadingStore

_PAGE_DEFAULT: Final = 5000


async def list_story(reading: ReadingStore, request: ListStoryRequest) -> ListStoryResponse:
    """Return the transfers of a story; a story fits one page."""
    story: str | None = request.biz_trace_id
    if request.WhichOneof("subject") == "subject_id":
        story = await reading.find_story(request.subject_id)
    if not story:
        return ListStoryResponse()
    transfers = await reading.list_transfers_of_story(story)
    return ListStoryResponse(
        biz_trace_id=story if transfers else "", items=[_item(stored) for stored in transfers]
    )


async def list_facts(
    reading: ReadingStore, tokens: PageTokens, request: ListFactsRequest
) -> ListFactsResponse:
    """Return a page of transfers in the order of their ids.

    Raises:
        FieldInvalidError: no such kind.
    """
    if request.kind == "unfinished":
        return ListFactsResponse()  # open holds belong to nouns of other services
    if request.kind != "transfer":
        raise FieldInvalidError(field="kind", rule="must be one of transfer, unfinished")
    limit = request.page_size or _PAGE_DEFAULT
    filters = {"kind": request.kind}
    position = tokens.read("account.facts", request.page_token, filters)
    after = str(position[0]) if position else ""
    transfers = await reading.list_transfers(BOOK_DEFAULT, after_id=after, limit=limit)
    token = ""
    if len(transfers) == limit:
        token = tokens.issue("account.facts", [transfers[-1].transfer.id], filters)
    return ListFactsResponse(facts=[_fact(stored) for stored in transfers], next_page_token=token)


def _item(stored: StoredTransfer) -> StoryItem:
    transfer = stored.transfer
    at = Timestamp()
    at.FromDatetime(stored.booked_at)
    details = {
        "debit": transfer.debit_account_id,
        "credit": transfer.credit_account_id,
        "amount_minor": str(stored.booked_minor),
        "currency": transfer.currency_code,
        "business_date": stored.business_date.isoformat(),
        "reference": transfer.reference_id,
    }
    outcome = str(stored.status)
    if stored.refusal is not None:
        outcome = f"{outcome}: {stored.refusal.reason}"
    return StoryItem(
        occurred_at=at,
        service="account",
        kind="posting",
        subject=f"transfer {transfer.id}",
        summary=f"{transfer.movement} {transfer.kind} {outcome}",
        details=details,
    )


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
