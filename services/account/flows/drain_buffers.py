"""Drain buffers: what was appended to buffered accounts is posted, soon after and when needed."""

from __future__ import annotations

from typing import Final

from services.account.store.buffers import DRAIN_CREDITS_MAX, BufferStore

ACCOUNTS_DEFAULT: Final = 100
"""Accounts that are listed at a time."""


async def drain_account(store: BufferStore, book: int, account_id: str) -> int:
    """Post all that waited in an account's buffer when this began; return how many credits.

    Safe side by side and after a crash: a credit leaves the buffer in the transaction that enters
    it, and each transaction locks the account.
    """
    drained = 0
    while True:
        moved = await store.drain(book, account_id)
        drained += moved
        if moved < DRAIN_CREDITS_MAX:
            return drained


async def drain_round(
    store: BufferStore, book: int, accounts_max: int = ACCOUNTS_DEFAULT
) -> tuple[int, bool]:
    """Drain each buffer of a book once; return how many credits, and whether one may hold more.

    One after the other by their ids, so that those that are always filled again keep none waiting.
    """
    drained, is_more, after_id = 0, False, ""
    while account_ids := await store.list_accounts(book, after_id, accounts_max):
        for account_id in account_ids:
            moved = await store.drain(book, account_id)
            drained += moved
            is_more = is_more or moved == DRAIN_CREDITS_MAX
        after_id = account_ids[-1]
    return drained, is_more


async def drain_buffers(store: BufferStore, book: int, accounts_max: int = ACCOUNTS_DEFAULT) -> int:
    """Post all that waited in the buffers of a book when this began; return how many credits.

    What is appended meanwhile may be left: its transfers are younger than the call.
    """
    drained, is_more = 0, True
    while is_more:
        moved, is_more = await drain_round(store, book, accounts_max)
        drained += moved
    return drained
