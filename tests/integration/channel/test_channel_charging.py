"""A charge is executed at most once per reference, and its outcome is found out, never guessed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from channel_kit import PAYMENT, ChannelKit, NewKit

from common.context import ActorType, CallContext, Principal
from common.errors import (
    AmountOutOfRangeError,
    CurrencyUnknownError,
    IdConflictError,
    NotFoundError,
    UnavailableError,
)
from common.money import Money
from services.channel.config import ChannelSettings
from services.channel.domain import Charge, ChargeState
from services.channel.errors import ChannelUnknownError, RefusedByChannelError
from services.channel.flows.close_charge import close_charge
from services.channel.flows.parts import owner_of
from services.channel.flows.query_charge import query_charge
from services.channel.results import (
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelRateLimitedError,
    ChannelUnavailableError,
)
from services.sandbox.cards import CardBehaviour

MISDEEDS_EXECUTED = ("swallow", "cut", "tamper")
MISDEEDS_NOT_EXECUTED = ("drop", "500", "garbage")


async def test_charging_a_card_stores_what_the_bank_said(kit: ChannelKit) -> None:
    asked = kit.quick(2500)
    charge = await kit.charge(asked)
    assert charge.state is ChargeState.SUCCEEDED
    assert charge.received == Money("USD", 2500)
    assert charge.channel_transaction_no
    assert charge.owner.merchant_id == "mer_1"
    assert await kit.stored(asked.reference) == charge
    history = await kit.rows(
        "SELECT from_state, to_state FROM history WHERE id = $1 ORDER BY version", asked.reference
    )
    moves = [(row["from_state"], row["to_state"]) for row in history]
    assert moves == [("", "UNKNOWN"), ("UNKNOWN", "SUCCEEDED")]


async def test_card_number_is_nowhere_in_the_rows(kit: ChannelKit) -> None:
    asked = kit.quick()
    await kit.charge(asked)
    number = kit.cards.numbers[asked.card_id]
    for table in ("charges", "history", "callbacks", "outbox"):
        statement = f"SELECT row_to_json({table})::text AS text FROM {table}"  # noqa: S608
        rows = await kit.rows(statement)
        assert not any(number in row["text"] for row in rows)


async def test_channel_that_is_not_to_call_back_is_known_by_asking(
    kit: ChannelKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYMESH_CHANNEL_CALLBACK_URL", "nowhere")
    nowhere = ChannelSettings().callback_url
    kit.parts.catalogue._settings = kit.settings.model_copy(update={"callback_url": nowhere})
    assert kit.parts.catalogue.callback_url_of("alipay_a") == ""
    asked = kit.qr()
    await kit.scan((await kit.charge(asked)).qr_content)

    charge, _ = await query_charge(kit.parts, asked.reference, PAYMENT)

    assert charge.state is ChargeState.SUCCEEDED
    assert await kit.verdicts(asked.reference) == []
    owed = await kit.sandbox.store.run(
        lambda db: db.execute(
            "SELECT count(*) FROM notices WHERE fields LIKE ?", (f"%{asked.reference}%",)
        ).fetchone()[0]
    )
    assert owed == 0


async def test_same_reference_at_once_is_executed_once(new_kit: NewKit) -> None:
    one, other = await new_kit(), await new_kit()
    asked = one.quick()
    other.cards.numbers.update(one.cards.numbers)
    calls = [kit.charge(asked) for kit in (one, other) for _ in range(10)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    # The other process may find the first one's call under way: unknown, never a second call.
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, ChannelOutcomeUnknownError)
        else:
            assert answer.state is ChargeState.SUCCEEDED
    assert await one.movements(asked.reference) == 1
    rows = await one.rows("SELECT 1 FROM history WHERE id = $1", asked.reference)
    assert len(rows) == 2
    assert (await other.charge(asked)).state is ChargeState.SUCCEEDED


async def test_same_reference_for_something_else_is_refused(kit: ChannelKit) -> None:
    asked = kit.quick(100)
    await kit.charge(asked)
    with pytest.raises(IdConflictError) as caught:
        await kit.charge(replace(asked, amount=Money("USD", 101)))
    assert caught.value.field == "amount.amount_minor"
    with pytest.raises(IdConflictError) as caught:
        await kit.charge(replace(asked, channel="unionpay_b"))
    assert caught.value.field == "channel"


async def test_declined_charge_is_refused_the_same_for_ever(kit: ChannelKit) -> None:
    asked = kit.quick(behaviour=CardBehaviour.INSUFFICIENT_FUNDS)
    for _ in range(2):
        with pytest.raises(RefusedByChannelError) as caught:
            await kit.charge(asked)
        assert caught.value.metadata["code"] == "INSUFFICIENT_FUNDS"
        assert caught.value.metadata["raw_code"] == "64"
        assert caught.value.metadata["advice"] == "OTHER_METHOD"
        assert caught.value.outcome == "NOT_EXECUTED"
    assert (await kit.stored(asked.reference)).state is ChargeState.FAILED
    assert await kit.movements(asked.reference) == 0


async def test_card_that_is_not_bound_any_more_is_declined(kit: ChannelKit) -> None:
    asked = kit.quick()
    kit.cards.numbers.clear()
    with pytest.raises(RefusedByChannelError) as caught:
        await kit.charge(asked)
    assert caught.value.metadata["code"] == "CARD_INVALID"


async def test_what_was_never_sent_may_be_sent_again(kit: ChannelKit) -> None:
    asked = kit.quick()
    kit.proxy.plan = ["429"]
    with pytest.raises(ChannelRateLimitedError):
        await kit.charge(asked)
    assert (await kit.stored(asked.reference)).state is ChargeState.NOT_SENT
    kit.cards.failure = UnavailableError(target="member")
    with pytest.raises(ChannelUnavailableError):
        await kit.charge(asked)
    kit.cards.failure = None
    assert (await kit.charge(asked)).state is ChargeState.SUCCEEDED
    assert await kit.movements(asked.reference) == 1


async def test_what_was_never_sent_is_not_sent_again_once_somebody_has_asked(
    kit: ChannelKit,
) -> None:
    """Whoever asked was told that it failed; a repeat of the call that is late takes nothing."""
    asked = kit.quick()
    kit.proxy.plan = ["429"]
    with pytest.raises(ChannelRateLimitedError):
        await kit.charge(asked)
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (charge.state, is_unseen) == (ChargeState.FAILED, False)
    with pytest.raises(ChannelRateLimitedError):
        await kit.charge(asked)
    assert (await kit.stored(asked.reference)).state is ChargeState.FAILED
    assert await kit.movements(asked.reference) == 0


@pytest.mark.parametrize("misdeed", MISDEEDS_EXECUTED)
async def test_lost_answer_of_an_executed_charge_is_found_out(
    kit: ChannelKit, misdeed: str
) -> None:
    # Two answers are lost: that of the charge, and that of the adapter's own question after it.
    kit.parts.catalogue._settings = kit.settings.model_copy(update={"callback_url": ""})
    asked = kit.quick()
    kit.proxy.plan = [misdeed, misdeed]
    with pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)
    kit.proxy.plan = []
    assert (await kit.stored(asked.reference)).state is ChargeState.UNKNOWN
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state is ChargeState.SUCCEEDED
    assert not is_unseen
    assert await kit.events(asked.reference) == [2]
    assert (await kit.charge(asked)).state is ChargeState.SUCCEEDED
    assert await kit.movements(asked.reference) == 1


@pytest.mark.parametrize("misdeed", MISDEEDS_NOT_EXECUTED)
async def test_unknown_reference_is_a_failure_only_after_the_requests_life(
    kit: ChannelKit, misdeed: str
) -> None:
    asked = kit.quick()
    kit.proxy.plan = [misdeed]
    with pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (charge.state, is_unseen) == (ChargeState.UNKNOWN, True)
    with pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)  # a repeat asks, and never sends again
    kit.clock.ahead = timedelta(seconds=121)
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (charge.state, is_unseen) == (ChargeState.FAILED, False)
    assert await kit.movements(asked.reference) == 0
    with pytest.raises(ChannelUnavailableError):
        await kit.charge(asked)


async def test_crash_between_intent_and_call_is_found_out_by_asking(kit: ChannelKit) -> None:
    asked = kit.quick()
    now = kit.clock.now()
    draft = Charge(
        reference=asked.reference,
        owner=owner_of(PAYMENT),
        channel=asked.channel,
        payment_id=asked.payment_id,
        product=asked.product,
        card_id=asked.card_id,
        subject=asked.subject,
        amount=asked.amount,
        expires_at=None,
        created_at=now,
        updated_at=now,
    )
    assert (await kit.parts.writer.open_charge(draft)).is_new
    with pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (charge.state, is_unseen) == (ChargeState.UNKNOWN, True)
    assert await kit.movements(asked.reference) == 0


async def test_caller_that_gave_up_is_told_by_event(kit: ChannelKit) -> None:
    """The call goes on without its caller, and its outcome is stored and published."""
    asked = kit.quick()
    kit.proxy.plan = ["pass", "swallow"]  # the adapter's own question hangs for a while
    task = asyncio.create_task(kit.charge(asked))
    async with asyncio.timeout(5):
        while await kit.movements(asked.reference) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await kit.parts.charging.drain()
    charge, _ = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state is ChargeState.SUCCEEDED
    assert charge.version in await kit.events(asked.reference)


async def test_failing_question_leaves_the_charge_open(kit: ChannelKit) -> None:
    asked = kit.qr()
    await kit.charge(asked)
    kit.proxy.plan = ["429"]
    with pytest.raises(ChannelOutcomeUnknownError):
        await query_charge(kit.parts, asked.reference, PAYMENT)
    assert (await kit.stored(asked.reference)).state is ChargeState.PENDING


async def test_closing_an_unpaid_code_ends_it(kit: ChannelKit) -> None:
    asked = kit.qr()
    charge = await kit.charge(asked)
    assert charge.state is ChargeState.PENDING
    assert charge.qr_content
    charge, _ = await close_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state is ChargeState.CLOSED
    assert await kit.events(asked.reference) == [charge.version]
    assert (await close_charge(kit.parts, asked.reference, PAYMENT))[0] == charge


async def test_closing_a_paid_code_finds_the_payment(kit: ChannelKit) -> None:
    kit.parts.catalogue._settings = kit.settings.model_copy(update={"callback_url": ""})
    asked = kit.qr()
    charge = await kit.charge(asked)
    await kit.scan(charge.qr_content)
    charge, _ = await close_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state is ChargeState.SUCCEEDED
    assert charge.received == asked.amount


async def test_closing_where_the_channel_cannot_asks_instead(kit: ChannelKit) -> None:
    asked = kit.quick(behaviour=CardBehaviour.APPROVE_SLOWLY)
    charge = await kit.charge(asked)
    assert charge.state is ChargeState.PENDING
    async with asyncio.timeout(10):
        while charge.state is ChargeState.PENDING:
            charge, _ = await close_charge(kit.parts, asked.reference, PAYMENT)
            await asyncio.sleep(0.05)
    assert charge.state is ChargeState.SUCCEEDED


async def test_bad_requests_leave_no_row(kit: ChannelKit) -> None:
    cases = [
        (kit.quick(0), AmountOutOfRangeError),
        (kit.quick(-5), AmountOutOfRangeError),
        (kit.quick(amount=Money("ABC", 5)), CurrencyUnknownError),
        (kit.quick(amount=Money("GBP", 5)), ChannelInvalidError),
        (kit.quick(product="qr_pay"), ChannelInvalidError),
        (kit.quick(200_000_000), ChannelInvalidError),
        (kit.quick(channel="nothing"), ChannelUnknownError),
    ]
    for asked, error in cases:
        with pytest.raises(error):
            await kit.charge(asked)
        assert await kit.parts.store.find_charges([asked.reference]) == {}


async def test_charge_of_another_merchant_is_not_to_be_seen(kit: ChannelKit) -> None:
    asked = kit.quick()
    await kit.charge(asked)
    other = CallContext(
        principal=Principal(merchant_id="mer_2", actor_type=ActorType.MERCHANT, actor_id="key_2")
    )
    with pytest.raises(NotFoundError):
        await query_charge(kit.parts, asked.reference, other)
    with pytest.raises(NotFoundError):
        await query_charge(kit.parts, kit.new_reference(), PAYMENT)
