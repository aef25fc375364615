"""Where single flows meet: intents and news of many charges travel in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.coalescer import Coalescer, CoalescerLimits
from common.db.failures import classify
from services.channel.domain import Charge, ChargeState, Refund, RefundState
from services.channel.store.movements import ChannelStore, Opened, RefundOpened
from services.channel.store.news import Heard, Told

# Some seconds of writing: who waits longer has lost its caller.
_QUEUE_FACTOR: Final = 32


class ChannelWriter:
    """Writes of charges and refunds, coalesced.

    After a lost answer, intents are read back: a row whose `updated_at` is the item's own instant
    was stored by it. News is simply told again, since to hear it twice changes nothing.
    """

    def __init__(self, store: ChannelStore, flush_items_max: int) -> None:
        self._store = store
        limits = CoalescerLimits(
            batch_weight_max=flush_items_max, queue_weight_max=flush_items_max * _QUEUE_FACTOR
        )
        self._charges: Coalescer[Charge, Opened[Charge]] = Coalescer(
            store.open_charges,
            classify=classify,
            read_back=self._find_charges,
            limits=limits,
            name="channel charges",
        )
        self._refunds: Coalescer[Refund, RefundOpened] = Coalescer(
            store.open_refunds,
            classify=classify,
            read_back=self._find_refunds,
            limits=limits,
            name="channel refunds",
        )
        self._charge_news: Coalescer[Told, Heard[Charge]] = Coalescer(
            store.hear_charges,
            classify=classify,
            read_back=_nothing_known,
            limits=limits,
            name="channel charge news",
        )
        self._refund_news: Coalescer[Told, Heard[Refund]] = Coalescer(
            store.hear_refunds,
            classify=classify,
            read_back=_nothing_known,
            limits=limits,
            name="channel refund news",
        )

    async def open_charge(self, charge: Charge) -> Opened[Charge]:
        """Store an intent."""
        return await self._charges.submit(charge)

    async def open_refund(self, refund: Refund) -> RefundOpened:
        """Store the intent of a refund."""
        return await self._refunds.submit(refund)

    async def hear_charge(self, told: Told) -> Heard[Charge]:
        """Let news reach its charge."""
        return await self._charge_news.submit(told)

    async def hear_refund(self, told: Told) -> Heard[Refund]:
        """Let news reach its refund."""
        return await self._refund_news.submit(told)

    async def drain(self) -> None:
        """Take nothing new, and wait until everything taken is written."""
        for lane in (self._charges, self._refunds):
            await lane.drain()
        await self._charge_news.drain()
        await self._refund_news.drain()

    async def _find_charges(self, items: Sequence[Charge]) -> list[Opened[Charge] | None]:
        found = await self._store.find_charges([one.reference for one in items])
        answers: list[Opened[Charge] | None] = []
        for one in items:
            row = found.get(one.reference)
            ours = (
                row is not None
                and row.state is ChargeState.UNKNOWN
                and row.updated_at == one.updated_at
            )
            answers.append(Opened(row, is_new=True) if row is not None and ours else None)
        return answers

    async def _find_refunds(self, items: Sequence[Refund]) -> list[RefundOpened | None]:
        found = await self._store.find_refunds([one.reference for one in items])
        charges = await self._store.find_charges([one.charge_reference for one in items])
        answers: list[RefundOpened | None] = []
        for one in items:
            row = found.get(one.reference)
            if (
                row is not None
                and row.state is RefundState.UNKNOWN
                and row.updated_at == one.updated_at
            ):
                charge = charges.get(one.charge_reference)
                answers.append(RefundOpened(row, is_new=True, charge=charge))
            else:
                answers.append(None)
        return answers


async def _nothing_known(items: Sequence[Told]) -> list[None]:
    return [None for _ in items]
