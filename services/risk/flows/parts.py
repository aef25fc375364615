"""What every flow of risk stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

from common.clock import Clock
from common.coalescer import Coalescer, CoalescerLimits
from common.db.failures import classify
from services.risk.counters import Counters
from services.risk.domain import Action, Decision
from services.risk.rulebook import Hash, Rulebook
from services.risk.store import Kept, RiskStore


@dataclass(frozen=True)
class Parts:
    """Given by wiring."""

    store: RiskStore
    counters: Counters
    rulebook: Rulebook
    decisions: Coalescer[Decision, Kept]
    clock: Clock
    zone: tzinfo
    """The business zone, in which days begin."""
    hash_value: Hash
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when resolutions were written that the counters have to be told of."""


def decision_lane(store: RiskStore, flush_items_max: int) -> Coalescer[Decision, Kept]:
    """Return where decisions meet on their way to the table."""

    async def read_back(decisions: Sequence[Decision]) -> list[Kept | None]:
        found = await store.find_decisions([one.action.action_id for one in decisions])
        # Whose insert it was does not matter: the row's verdict is the answer.
        rows = (found.get(one.action.action_id) for one in decisions)
        return [None if row is None else Kept(row, is_new=False) for row in rows]

    return Coalescer(
        store.keep_decisions,
        classify=classify,
        read_back=read_back,
        limits=CoalescerLimits(
            batch_weight_max=flush_items_max, queue_weight_max=flush_items_max * 32
        ),
        name="risk decisions",
    )


def with_hashes(action: Action, hash_value: Hash) -> Action:
    """Return an action with the hashes of its user and card beside those it has."""
    named = {"user": action.user_id, "card": action.card_id}
    hashes = {name: hash_value(name, value) for name, value in named.items() if value}
    return replace(action, hashes={**hashes, **action.hashes})
