"""Drain buffers: what was appended to buffered accounts is posted, soon after and when needed."""

from __future__ import annotations

from typing import Final

from services.account.store.buffers import DRAIN_CREDITS_MAX, BufferStore

ACCOUNTS_DEFAULT: Final = 100
"""Accounts of one round: after it, what was appended to others is found too."""


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


async def drain_round(store: BufferStore, book: int, accounts_max: int = ACCOUNTS_DEFAULT) -> int:
    """Drain up to `accounts_max` buffers of a book; return how many credits were posted."""
    drained = 0
    for account_id in await store.list_accounts(book, accounts_max):
        drained += await store.drain(book, account_id)
    return drained


async def drain_buffers(store: BufferStore, book: int) -> int:
    """Post all that waited in the buffers of a book when this began; return how many credits.

    What is appended meanwhile may be left: its transfers are younger than the call.
    """
    drained = 0
    while moved := await drain_round(store, book):
        drained += moved
    return drained
