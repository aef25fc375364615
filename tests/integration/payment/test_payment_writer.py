"""Reading back what a lost answer has left: only what was written by oneself counts as written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from desk_kit import new_case
from flow_cases import waits_for_the_payer
from payment_kit import PaymentKit

from services.payment.domain.payments import Payment
from services.payment.flows.parts import call_of
from services.payment.store.rows import Change
from services.payment.writer import PaymentWriter


class _LosingStore:
    """A store whose first answer is lost, after `written` was, whoever had asked for it."""

    def __init__(self, inner: Any, written: Change) -> None:
        self._inner = inner
        self._written = written
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def save_changes(self, changes: Sequence[Change]) -> list[bool]:
        """Save the one that is to be written; lose the answer."""
        if self.lost:
            saved: list[bool] = await self._inner.save_changes(changes)
            return saved
        self.lost = True
        await self._inner.save_changes([self._written])
        raise ConnectionError("the answer is lost")


def _to_channel(payment: Payment, channel: str) -> Change:
    after = replace(
        payment, version=payment.version + 1, channel=channel, attempt=payment.attempt + 1
    )
    return Change(payment, after, (), f"to {channel}", call_of(payment), payment.created_at)


@pytest.mark.parametrize("ours", [True, False])
async def test_reading_back_tells_ones_own_version_from_anothers(
    payment: PaymentKit, ours: bool
) -> None:
    case = await new_case(payment)
    await waits_for_the_payer(case)
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    change = _to_channel(found, "alipay_b")
    other = _to_channel(found, "alipay_c")
    store: Any = _LosingStore(payment.parts().store, change if ours else other)
    assert await PaymentWriter(store, 16).save_change(change) is ours
    assert store.lost
    await payment.kit.rows(
        "payment", "UPDATE payments SET state = 'CLOSED' WHERE id = $1 RETURNING id", found.id
    )
    await payment.bring_to_rest()
