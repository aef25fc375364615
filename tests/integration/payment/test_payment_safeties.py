"""Rules that one step of a flow alone keeps: what is written first, and what is never guessed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flow_cases import AMOUNT, Case, paid
from payment_kit import REQUEST_LIFE_SECONDS, UNKNOWN_SECONDS, PaymentKit

from common.context import bound
from common.errors import Outcome, UnavailableError
from common.ids import channel_reference
from common.money import Money
from services.payment.domain.payments import ChargeNews, Payment, Refund
from services.payment.domain.states import PaymentState, RefundState
from services.payment.errors import RefundExceedsPaymentError
from services.payment.flows.advance_payment import advance_payment
from services.payment.flows.close_payments import close_payments
from services.payment.flows.parts import Parts
from services.payment.flows.refund_payment import advance_refund_by_id, refund_payment


class _Charging:
    """Peers whose way to the channel is the test's own."""

    def __init__(self, inner: Any, charge: Any) -> None:
        self._inner = inner
        self.charge = charge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _parts(payment: PaymentKit, charge: Any) -> Parts:
    parts = payment.parts()
    peers: Any = _Charging(parts.peers, charge)
    return replace(parts, peers=peers)


async def _case(payment: PaymentKit, product: str) -> Case:
    payment.bank.behave()
    return Case(payment, (await payment.new_order(AMOUNT)).id, product)


async def _now(payment: PaymentKit, payment_id: str) -> Payment:
    found = await payment.parts().store.find_payment(payment_id)
    assert found is not None
    return found


async def test_the_intent_stands_before_the_channel_is_called(payment: PaymentKit) -> None:
    """With its reference, and with the job that asks about it: whoever dies now is survived."""
    case = await _case(payment, "quick_pay")
    stood: list[tuple[str | None, int]] = []
    honest = payment.parts()

    async def charge(asked: Payment) -> ChargeNews:
        reference = channel_reference(asked.attempt_id)
        jobs = await payment.kit.rows(
            "payment", "SELECT 1 FROM jobs WHERE key = $1 AND state = 'OPEN'", asked.id
        )
        async with payment.kit.pools["payment"].acquire() as connection:
            found = await honest.store.find_payment_of_reference(connection, reference)
        stood.append((found and found.id, len(jobs)))
        return await honest.peers.charge(asked)

    made = await case.pay(_parts(payment, charge))
    assert stood == [(made.id, 1)]
    await payment.bring_to_rest()


async def test_an_unknown_outcome_is_never_tried_at_another_channel(payment: PaymentKit) -> None:
    case = await _case(payment, "quick_pay")
    charged: list[str] = []
    honest = payment.parts()

    async def charge(asked: Payment) -> ChargeNews:
        charged.append(asked.channel)
        if len(charged) == 1:
            await honest.peers.charge(asked)
            raise UnavailableError(target="bank", outcome=Outcome.UNKNOWN)
        return await honest.peers.charge(asked)

    made = await case.pay(_parts(payment, charge))
    assert len(charged) == 1
    await payment.bring_to_rest()
    assert (await _now(payment, made.id)).state is PaymentState.SUCCEEDED
    await payment.check_everything()


async def test_what_surely_did_not_happen_is_tried_at_the_next_channel(
    payment: PaymentKit,
) -> None:
    case = await _case(payment, "quick_pay")
    charged: list[str] = []
    honest = payment.parts()

    async def charge(asked: Payment) -> ChargeNews:
        charged.append(asked.channel)
        if len(charged) == 1:
            raise UnavailableError(target="bank", outcome=Outcome.NOT_EXECUTED)
        return await honest.peers.charge(asked)

    made = await case.pay(_parts(payment, charge))
    assert made.state is PaymentState.SUCCEEDED
    assert len(set(charged)) == len(charged) == 2
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_a_request_that_nobody_knows_stays_open_for_its_life(payment: PaymentKit) -> None:
    """Not even the channel service: it may be on its way to it, and after its life it is not."""
    case = await _case(payment, "quick_pay")

    async def charge(_: Payment) -> ChargeNews:
        return ChargeNews("UNKNOWN")  # on its way, and not there yet

    made = await case.pay(_parts(payment, charge))
    with bound(payment.call()):
        young = await advance_payment(payment.parts(), made.id)
        assert young is not None
        assert young.state is PaymentState.UNKNOWN
        payment.kit.clock.ahead += timedelta(seconds=REQUEST_LIFE_SECONDS + 1)
        old = await advance_payment(payment.parts(), made.id)
    assert old is not None
    assert old.state is PaymentState.FAILED
    await payment.bring_to_rest()


async def test_what_the_channel_service_knows_is_ended_by_it_alone(payment: PaymentKit) -> None:
    """The bank does not know it yet; how long that may last, only the channel service can say."""
    case = await _case(payment, "quick_pay")
    payment.bank.is_unseen = True
    made = await case.pay(payment.parts())
    assert made.state is PaymentState.UNKNOWN
    payment.kit.clock.ahead += timedelta(seconds=REQUEST_LIFE_SECONDS + 1)
    with bound(payment.call()):
        old = await advance_payment(payment.parts(), made.id)
    assert old is not None
    assert old.state is PaymentState.UNKNOWN
    payment.bank.is_unseen = False  # the request arrived at last
    await payment.bring_to_rest()
    assert (await _now(payment, made.id)).state is PaymentState.SUCCEEDED
    await payment.check_everything()


async def test_an_order_is_not_closed_while_a_channel_is_silent(payment: PaymentKit) -> None:
    case = await _case(payment, "qr_pay")
    payment.bank.scanned = False
    await case.pay(payment.parts())
    with bound(payment.call()):
        payment.bank.is_mute = True
        assert not await close_payments(payment.parts(), case.order_id)
        payment.bank.is_mute = False
        assert await close_payments(payment.parts(), case.order_id)
    await payment.bring_to_rest()


@pytest.mark.parametrize("product", ["balance", "quick_pay"])
async def test_refunds_at_once_never_exceed_what_was_paid(
    payment: PaymentKit, product: str
) -> None:
    """Each asked for at a process of its own; the cap is the payment's row."""
    case = await _case(payment, product)
    await paid(case)

    async def give(minor: int) -> Refund:
        refund_id = payment.kit.ids.new("rfd")
        parts, money = payment.parts(), Money("USD", minor)
        with bound(payment.call()) as call:
            return await refund_payment(parts, refund_id, case.payment_id, money, "", call)

    answers = await asyncio.gather(
        *(give(AMOUNT // 2 - 50) for _ in range(6)), return_exceptions=True
    )
    given = [one for one in answers if isinstance(one, Refund)]
    refused = [one for one in answers if isinstance(one, RefundExceedsPaymentError)]
    assert (len(given), len(refused)) == (2, 4)
    await payment.bring_to_rest()
    after = await _now(payment, case.payment_id)
    assert (after.refunded_minor, after.refunding_minor) == (AMOUNT - 100, 0)
    await payment.check_everything()


async def test_many_that_end_a_refund_at_once_end_it_once(payment: PaymentKit) -> None:
    case = await _case(payment, "quick_pay")
    await paid(case)
    payment.bank.is_silent = True
    assert (await case.give_back(payment.parts())).state is RefundState.UNKNOWN
    payment.bank.is_silent = False
    with bound(payment.call()):
        ended = await asyncio.gather(
            *(advance_refund_by_id(payment.parts(), case.refund_id) for _ in range(6))
        )
    assert {one.state for one in ended if one is not None} == {RefundState.SUCCEEDED}
    told = await payment.kit.events("payment", "payment.refund.succeeded.v1")
    assert [event.aggregate_id for event in told].count(case.refund_id) == 1
    await payment.bring_to_rest()
    after = await _now(payment, case.payment_id)
    assert (after.refunded_minor, after.refunding_minor) == (400, 0)
    await payment.check_everything()


async def test_many_that_end_a_payment_at_once_end_it_once(payment: PaymentKit) -> None:
    case = await _case(payment, "qr_pay")
    payment.bank.scanned = False
    made = await case.pay(payment.parts())
    payment.bank.scanned = True
    with bound(payment.call()):
        ended = await asyncio.gather(*(advance_payment(payment.parts(), made.id) for _ in range(6)))
    assert {one.state for one in ended if one is not None} == {PaymentState.SUCCEEDED}
    told = await payment.kit.events("payment", "payment.payment.succeeded.v1")
    assert [event.aggregate_id for event in told].count(made.id) == 1
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_a_channel_gives_nothing_back_without_the_merchants_money(
    payment: PaymentKit,
) -> None:
    case = await _case(payment, "quick_pay")
    await paid(case)
    taken = await payment.empty_merchant()
    given = dict(payment.bank.refunded)
    assert (await case.give_back(payment.parts())).state is RefundState.WAITING_FUNDS
    assert payment.bank.refunded == given
    await payment.fill_merchant(taken)
    await payment.bring_to_rest()
    assert len(payment.bank.refunded) == len(given) + 1
    await payment.check_everything()


async def test_what_nobody_knows_for_long_is_one_exception_however_often_it_is_met(
    payment: PaymentKit,
) -> None:
    case = await _case(payment, "quick_pay")
    await paid(case)
    payment.bank.is_silent = True
    await case.give_back(payment.parts())
    for _ in range(3):
        await payment.run_due(UNKNOWN_SECONDS + 60)
    assert len(await payment.exceptions(case.refund_id)) == 1
    payment.bank.is_silent = False
    await payment.bring_to_rest()
    await payment.check_everything()
