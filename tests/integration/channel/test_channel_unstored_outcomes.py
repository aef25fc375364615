"""A channel was asked, and the database was away when its answer was to be stored.

That nothing was written says nothing of the money. A caller who were told "not executed" would take
it a second time at another channel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import pytest
from channel_kit import PAYMENT, ChannelKit

from common.errors import Outcome, UnavailableError
from common.money import Money
from services.channel.flows.charge_payer import charge_payer
from services.channel.flows.parts import Parts
from services.channel.flows.query_charge import query_charge
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.channel.results import ChannelOutcomeUnknownError


class ForgetfulWriter:
    """Stores intents, and fails to store any outcome, as surely rolled back."""

    def __init__(self, writer: Any) -> None:
        self.open_charge = writer.open_charge
        self.open_refund = writer.open_refund

    async def _fail(self, told: object) -> NoReturn:
        raise UnavailableError(target="news", outcome=Outcome.NOT_EXECUTED)

    hear_charge = _fail
    hear_refund = _fail


def forgetful(parts: Parts) -> Parts:
    """Return the parts of a process whose database goes away after the intent."""
    writer: Any = ForgetfulWriter(parts.writer)
    return replace(parts, writer=writer)


async def test_charge_whose_outcome_could_not_be_stored_is_unknown_and_found_out(
    kit: ChannelKit,
) -> None:
    asked = kit.quick(700)
    with pytest.raises(ChannelOutcomeUnknownError) as caught:
        await charge_payer(forgetful(kit.parts), asked, PAYMENT)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert await kit.movements(asked.reference) == 1
    charge, _ = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state == "SUCCEEDED"


async def test_charge_that_was_never_sent_is_unknown_too_while_its_row_says_so(
    kit: ChannelKit,
) -> None:
    """Else its row would stay open for ever, for nobody asks about what surely did not happen."""
    asked = replace(kit.quick(700), card_id="crd_unknown")
    with pytest.raises(ChannelOutcomeUnknownError):
        await charge_payer(forgetful(kit.parts), asked, PAYMENT)
    assert await kit.movements(asked.reference) == 0


async def test_refund_whose_outcome_could_not_be_stored_is_unknown_and_found_out(
    kit: ChannelKit,
) -> None:
    charge = await kit.charge(kit.quick(700))
    asked = NewRefund(
        reference=kit.new_reference("rch"),
        charge_reference=charge.reference,
        subject_id=kit.parts.ids.new("rfd"),
        words="returned",
        amount=Money("USD", 300),
    )
    with pytest.raises(ChannelOutcomeUnknownError) as caught:
        await refund_payer(forgetful(kit.parts), asked, PAYMENT)
    assert caught.value.outcome is Outcome.UNKNOWN
    assert await kit.movements(asked.reference) == 1
    refund, _ = await query_refund(kit.parts, asked.reference, PAYMENT)
    assert refund.state == "SUCCEEDED"
