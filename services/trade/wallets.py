"""Which users a merchant has and in which currencies they hold money, kept in memory for a while.

An order for a user that is not there, or a recharge of a wallet that is not there, would take money
in that could not be brought where it belongs; so it is refused before it is written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from common.clock import Clock
from common.errors import NotFoundError

# Wallets are opened and practically never taken away; a new currency is seen at once, because
# only what was found is kept.
_KEPT_SECONDS: Final = 300.0

Key = tuple[str, str, str, str]
"""Tenant, mode, merchant, user."""


class Wallets:
    """The wallets of users, asked of the ledger in the caller's name."""

    def __init__(
        self, ask: Callable[[str], Awaitable[frozenset[str]]], clock: Clock, users_max: int
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._users_max = users_max
        self._kept: dict[Key, tuple[frozenset[str], float]] = {}

    async def check(self, key: Key, currency_code: str, *, needs_currency: bool) -> None:
        """Return when the user is there (with a wallet in the currency, where one is needed).

        Raises:
            NotFoundError: no such user of this merchant, or no such wallet.
            UnavailableError: the ledger cannot be asked; nothing was done.
        """
        kept = self._kept.get(key)
        is_fresh = kept is not None and self._clock.monotonic() < kept[1]
        if kept is not None and is_fresh and (currency_code in kept[0] or not needs_currency):
            return
        currencies = await self._ask(key[3])
        if not currencies:
            raise NotFoundError(resource="user", field="user_id")
        if needs_currency and currency_code not in currencies:
            raise NotFoundError(resource="wallet in this currency", field="amount.currency_code")
        while len(self._kept) >= self._users_max:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = (currencies, self._clock.monotonic() + _KEPT_SECONDS)
