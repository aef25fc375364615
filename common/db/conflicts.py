"""Transactions that the server ended because they met others: the same again will do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from common.backoff import Backoff
from common.db.failures import Failure, classify

T = TypeVar("T")

_TRIES_MAX: Final = 5
"""A deadlock is found after a second, so that is as long as a caller may be kept."""
# Spread, because two that met in a deadlock should not meet again.
_BACKOFF: Final = Backoff(first_seconds=0.01, longest_seconds=0.5, spread=0.5)


async def settle_conflicts(transact: Callable[[], Awaitable[T]]) -> T:
    """Run a whole transaction, and again when a deadlock or the like undid it.

    Raises:
        Exception: whatever `transact` raises for another reason, or at its last try.
    """
    for tries in range(1, _TRIES_MAX):
        try:
            return await transact()
        except Exception as error:
            if classify(error) is not Failure.RETRY_WHOLE:
                raise
        await asyncio.sleep(_BACKOFF.pause(tries))
    return await transact()
