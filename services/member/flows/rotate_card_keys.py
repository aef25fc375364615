"""Puts all cards under the master key that seals now, so that an old one can be destroyed."""

from __future__ import annotations

from typing import Final

from services.member.flows.bind_card import CardVault, context_of
from services.member.store import MemberStore

_CARDS_PER_STEP: Final = 500


async def rotate_card_keys(store: MemberStore, vault: CardVault) -> int:
    """Reseal the data keys of all cards; return how many. Their elements are not opened.

    Raises:
        SealBrokenError: a card is sealed under a key that is not configured any more.
    """
    sealer = vault.sealer
    total, after = 0, ""
    while True:
        cards = await store.list_cards_of_other_keys(sealer.current, after, _CARDS_PER_STEP)
        if not cards:
            return total
        resealed = [(one, old, sealer.reseal(old, context_of(one))) for one, old in cards]
        await store.reseal_cards(sealer.current, resealed)
        total, after = total + len(cards), cards[-1][0]
