"""Give back what holds keep whose time is over: by ordinary transfers, so that it happens once."""

from __future__ import annotations

from services.account.domain.bookings import expiry_of
from services.account.domain.transfers import TransferStatus
from services.account.flows.post_transfers import Ledger
from services.account.store.reading import ReadingStore

BATCH_DEFAULT = 500
"""Holds of one round: some milliseconds of the lane that payments travel in too."""


async def expire_holds(
    ledger: Ledger, store: ReadingStore, book: int, batch_max: int = BATCH_DEFAULT
) -> int:
    """Expire up to `batch_max` holds of a book; return how many were given back.

    Safe side by side and after a crash: the id of a hold's expiry is derived from the hold's, and
    what was posted or voided in the meantime is left alone.
    """
    due = await store.list_due_holds(book, batch_max)
    results = await ledger.expire([expiry_of(hold) for hold in due])
    return sum(1 for r in results if r.status == TransferStatus.BOOKED and not r.replayed)
