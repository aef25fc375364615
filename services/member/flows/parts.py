"""What the flows stand on, and the lanes in which single callers meet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from common.clock import Clock
from common.coalescer import Coalescer, CoalescerLimits
from common.context import ActorType, Principal
from common.db.failures import Failure, classify
from common.db.history import HistoryRow
from common.errors import CurrencyUnknownError, RemoteError
from common.ids import IdFactory
from common.money import UnknownCurrencyError, exponent_of
from services.member.domain import Card, Opening, User
from services.member.store import MemberStore

# The ledger takes so many accounts in one call.
_ACCOUNTS_PER_CALL_MAX: Final = 1_000

OpenAccounts = Callable[[Sequence[Opening]], Awaitable[None]]


class Parts:
    """Store, clock, ids, and a lane for each thing that comes in crowds."""

    def __init__(
        self, store: MemberStore, open_accounts: OpenAccounts, clock: Clock, ids: IdFactory
    ) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        self._open_accounts = open_accounts
        self.users: Coalescer[tuple[User, HistoryRow], tuple[User, bool]] = Coalescer(
            self._add_users, classify=classify, read_back=_all_again, name="users"
        )
        self.cards: Coalescer[tuple[Card, HistoryRow], tuple[Card, bool]] = Coalescer(
            self._add_cards, classify=classify, read_back=_all_again, name="cards"
        )
        self.openings: Coalescer[Opening, bool] = Coalescer(
            self._open,
            classify=_classify_call,
            read_back=_all_again,
            weigh=lambda opening: opening.weight,
            limits=CoalescerLimits(batch_weight_max=_ACCOUNTS_PER_CALL_MAX),
            name="accounts",
        )
        self.activations: Coalescer[str, User] = Coalescer(
            self._activate, classify=classify, read_back=_all_again, name="activations"
        )

    async def drain(self) -> None:
        """Finish what was taken, in the order in which one thing leads to the next."""
        for lane in (self.users, self.cards, self.openings, self.activations):
            await lane.drain()

    async def _add_users(self, items: Sequence[tuple[User, HistoryRow]]) -> list[tuple[User, bool]]:
        return await self.store.add_users([one[0] for one in items], [one[1] for one in items])

    async def _add_cards(self, items: Sequence[tuple[Card, HistoryRow]]) -> list[tuple[Card, bool]]:
        return await self.store.add_cards([one[0] for one in items], [one[1] for one in items])

    async def _open(self, openings: Sequence[Opening]) -> list[bool]:
        await self._open_accounts(openings)
        return [True] * len(openings)

    async def _activate(self, user_ids: Sequence[str]) -> list[User]:
        found = await self.store.activate_users(user_ids, self.clock.now())
        return [found[user_id] for user_id in user_ids]


def _classify_call(error: Exception) -> Failure | None:
    if isinstance(error, RemoteError) and error.remote_reason in _OF_THE_WAY:
        return Failure.RETRY_WHOLE
    return Failure.SPLIT


_OF_THE_WAY: Final = frozenset(
    {"UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL"}
)


async def _all_again(items: Sequence[object]) -> list[None]:
    """Nothing to read back: the repeat collides with what was written, and answers with that."""
    return [None] * len(items)


def check_currencies(currency_codes: Sequence[str]) -> None:
    """Raise CurrencyUnknownError for a currency that is not in the registry."""
    for code in currency_codes:
        try:
            exponent_of(code)
        except UnknownCurrencyError:
            raise CurrencyUnknownError(currency_code=code) from None


def may_see(principal: Principal, merchant_id: str) -> bool:
    """Say whether a merchant's row is the principal's to see; queries judge tenant and mode."""
    if principal.merchant_id or principal.actor_type is ActorType.MERCHANT:
        return principal.merchant_id == merchant_id
    return True
