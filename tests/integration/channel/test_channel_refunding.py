"""A refund is given once per reference, and all of a charge's never exceed what it received."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from channel_kit import PAYMENT, ChannelKit

from common.errors import IdConflictError, NotFoundError, StateConflictError
from common.money import Money
from services.channel.domain import Charge, Refund, RefundState
from services.channel.errors import CurrencyMismatchError, RefundExceedsChargeError
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.channel.results import ChannelOutcomeUnknownError, ChannelRateLimitedError


def refund_of(kit: ChannelKit, charge: Charge, amount_minor: int, **changes: Any) -> NewRefund:
    """Return a refund of a charge."""
    values: dict[str, Any] = {
        "reference": kit.new_reference("rch"),
        "charge_reference": charge.reference,
        "subject_id": kit.parts.ids.new("rfd"),
        "words": "returned",
        "amount": Money("USD", amount_minor),
    }
    return NewRefund(**{**values, **changes})


async def give(kit: ChannelKit, asked: NewRefund) -> Refund:
    """Refund as payment would."""
    return await refund_payer(kit.parts, asked, PAYMENT)


@pytest.fixture(params=["card", "code"])
async def paid(kit: ChannelKit, request: pytest.FixtureRequest) -> Charge:
    """A charge of 10.00 that was paid, over each protocol."""
    if request.param == "card":
        return await kit.charge(kit.quick(1000))
    asked = kit.qr(1000)
    await kit.scan((await kit.charge(asked)).qr_content)
    return await kit.becomes(asked.reference, "SUCCEEDED")


async def test_giving_back_in_parts_ends_at_what_was_received(
    kit: ChannelKit, paid: Charge
) -> None:
    for part in (600, 400):
        asked = refund_of(kit, paid, part)
        refund = await give(kit, asked)
        assert refund.state is RefundState.SUCCEEDED
        assert refund.channel == paid.channel
        assert refund.owner.biz_trace_id == paid.owner.biz_trace_id
        assert (await give(kit, asked)) == refund
        assert await kit.movements(asked.reference) == 1
    over = refund_of(kit, paid, 1)
    with pytest.raises(RefundExceedsChargeError) as caught:
        await give(kit, over)
    assert caught.value.metadata["refundable_minor"] == "0"
    assert await kit.parts.store.find_refunds([over.reference]) == {}


async def test_refunds_at_once_never_exceed_the_charge(kit: ChannelKit, paid: Charge) -> None:
    asked = [refund_of(kit, paid, 600) for _ in range(4)]
    answers = await asyncio.gather(*(give(kit, one) for one in asked), return_exceptions=True)
    assert sum(1 for one in answers if isinstance(one, Refund)) == 1
    assert sum(1 for one in answers if isinstance(one, RefundExceedsChargeError)) == 3


async def test_lost_answer_of_a_refund_is_found_out(kit: ChannelKit, paid: Charge) -> None:
    kit.parts.catalogue._settings = kit.settings.model_copy(update={"callback_url": ""})
    asked = refund_of(kit, paid, 300)
    kit.proxy.plan = ["cut", "cut"]
    with pytest.raises(ChannelOutcomeUnknownError):
        await give(kit, asked)
    kit.proxy.plan = []
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert (refund.state, is_unseen) == (RefundState.SUCCEEDED, False)
    assert await kit.events(asked.reference) == [2]
    assert await give(kit, asked) == refund
    assert await kit.movements(asked.reference) == 1


async def test_refund_that_never_arrived_may_be_sent_again_after_its_life(
    kit: ChannelKit, paid: Charge
) -> None:
    asked = refund_of(kit, paid, 300)
    kit.proxy.plan = ["drop"]
    with pytest.raises(ChannelOutcomeUnknownError):
        await give(kit, asked)
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert (refund.state, is_unseen) == (RefundState.UNKNOWN, True)
    kit.clock.ahead = timedelta(seconds=121)
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert (refund.state, is_unseen) == (RefundState.NOT_SENT, True)
    assert (await give(kit, asked)).state is RefundState.SUCCEEDED
    assert await kit.movements(asked.reference) == 1


async def test_refund_that_was_not_sent_frees_its_part(kit: ChannelKit, paid: Charge) -> None:
    first = refund_of(kit, paid, 1000)
    kit.proxy.plan = ["429"]
    with pytest.raises(ChannelRateLimitedError):
        await give(kit, first)
    assert (await give(kit, refund_of(kit, paid, 700))).state is RefundState.SUCCEEDED
    with pytest.raises(RefundExceedsChargeError):
        await give(kit, first)


async def test_bad_refunds_leave_no_row(kit: ChannelKit, paid: Charge) -> None:
    pending = await kit.charge(kit.qr(1000))
    cases = [
        (refund_of(kit, paid, 100, charge_reference=kit.new_reference()), NotFoundError),
        (refund_of(kit, pending, 100), StateConflictError),
        (refund_of(kit, paid, 100, amount=Money("EUR", 100)), CurrencyMismatchError),
        (refund_of(kit, paid, 1001), RefundExceedsChargeError),
    ]
    for asked, error in cases:
        with pytest.raises(error):
            await give(kit, asked)
        assert await kit.parts.store.find_refunds([asked.reference]) == {}
    done = refund_of(kit, paid, 100)
    await give(kit, done)
    with pytest.raises(IdConflictError):
        await give(kit, refund_of(kit, paid, 101, reference=done.reference))
