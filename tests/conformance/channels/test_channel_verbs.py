"""What every channel does with payments and refunds when nothing goes wrong on the way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from outside_parties import Channels, outcome_of, pay_request, question_of, refund_of, usd

from services.channel.guard import Guard
from services.channel.results import (
    Advice,
    ChannelInvalidError,
    ChannelResult,
    ChannelVerbUnsupportedError,
    DeclineCode,
    DeclinedError,
    ShowQrCode,
    State,
    Verb,
)
from services.sandbox.cards import CardBehaviour


async def test_paying_moves_the_money(channels: Channels, guard: Guard) -> None:
    request = pay_request(1999)
    await channels.pay_for_good(guard, request)
    found = await guard.query(question_of(request))
    assert found.state is State.SUCCEEDED
    assert found.reference == request.reference
    assert found.money == found.settlement == usd(1999)
    assert found.channel_transaction_no
    assert found.occurred_at is not None
    assert abs(found.occurred_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_declining_says_why(channels: Channels, guard: Guard) -> None:
    request = pay_request(behaviour=CardBehaviour.INSUFFICIENT_FUNDS)
    said = await outcome_of(guard.pay(request))
    if isinstance(said, DeclinedError):
        assert said.decline.code is DeclineCode.INSUFFICIENT_FUNDS
        assert said.decline.advice is Advice.OTHER_METHOD
        assert said.metadata["raw_code"] == "64"
        assert said.outcome == "NOT_EXECUTED"
        expected = State.FAILED
    else:
        assert isinstance(said, ChannelResult)
        assert isinstance(said.next_action, ShowQrCode)
        assert await channels.scan(said.next_action.content, "refuse") == 200
        expected = State.CLOSED
    found = await guard.query(question_of(request))
    assert found.state is expected
    assert found.decline is not None


async def test_asking_for_the_unknown_finds_nothing(guard: Guard) -> None:
    request = pay_request()
    assert (await guard.query(question_of(request))).state is State.NOT_FOUND
    refund = refund_of(request, 10, "1")
    assert (await guard.query_refund(refund)).state is State.NOT_FOUND


async def test_repeating_a_payment_has_no_second_effect(channels: Channels, guard: Guard) -> None:
    request = pay_request()
    first = await guard.pay(request)
    second = await guard.pay(request)
    assert replace(second, raw_code="", raw_message="") == replace(
        first, raw_code="", raw_message=""
    )
    number = await channels.pay_for_good(guard, request)
    again = await guard.pay(request)
    assert again.state is State.SUCCEEDED
    assert again.channel_transaction_no == number


async def test_repeating_a_decline_gives_the_same_decline(channels: Channels, guard: Guard) -> None:
    request = pay_request(behaviour=CardBehaviour.EXPIRED)
    codes = []
    for _ in range(2):
        try:
            result = await guard.pay(request)
        except DeclinedError as error:
            codes.append(error.metadata["code"])
        else:
            assert isinstance(result.next_action, ShowQrCode)
            await channels.scan(result.next_action.content, "refuse")
    assert len(set(codes)) <= 1


async def test_same_reference_with_another_amount_is_never_a_success(
    channels: Channels, guard: Guard
) -> None:
    request = pay_request(500)
    await channels.pay_for_good(guard, request)
    other = replace(request, money=usd(501))
    said = await outcome_of(guard.pay(other))
    if isinstance(said, ChannelResult):
        assert said.state is State.CONFLICT
        assert said.conflict == "money"
        assert said.money == usd(500)
    else:
        assert isinstance(said, ChannelInvalidError)
        assert said.outcome == "NOT_EXECUTED"
    asked = await guard.query(question_of(other))
    assert asked.state is State.CONFLICT


async def test_refunding_in_parts_ends_at_the_payment(channels: Channels, guard: Guard) -> None:
    request = pay_request(1000)
    number = await channels.pay_for_good(guard, request)
    for part in (300, 200, 500):
        refund = refund_of(request, part, number)
        assert (await guard.refund(refund)).state is State.SUCCEEDED
        found = await guard.query_refund(refund)
        assert found.state is State.SUCCEEDED
        assert found.money == usd(part)
    with pytest.raises(DeclinedError) as refused:
        await guard.refund(refund_of(request, 1, number))
    assert refused.value.outcome == "NOT_EXECUTED"
    # The payment itself stays what it was: money that came in, and went back by refunds.
    assert (await guard.query(question_of(request))).state is State.SUCCEEDED


async def test_refunding_whole_succeeds(channels: Channels, guard: Guard) -> None:
    request = pay_request(777)
    number = await channels.pay_for_good(guard, request)
    assert (await guard.refund(refund_of(request, 777, number))).state is State.SUCCEEDED


async def test_refunding_too_much_is_refused(channels: Channels, guard: Guard) -> None:
    request = pay_request(100)
    number = await channels.pay_for_good(guard, request)
    refund = refund_of(request, 101, number)
    with pytest.raises(DeclinedError) as refused:
        await guard.refund(refund)
    assert refused.value.decline.code is DeclineCode.AMOUNT_EXCEEDS_ORIGINAL
    assert (await guard.query_refund(refund)).state is State.NOT_FOUND


async def test_repeating_a_refund_has_no_second_effect(channels: Channels, guard: Guard) -> None:
    request = pay_request(100)
    number = await channels.pay_for_good(guard, request)
    refund = refund_of(request, 60, number)
    assert (await guard.refund(refund)).state is State.SUCCEEDED
    assert (await guard.refund(refund)).state is State.SUCCEEDED
    assert (await guard.refund(refund_of(request, 40, number))).state is State.SUCCEEDED


async def test_refunding_what_was_not_paid_is_refused(channels: Channels, guard: Guard) -> None:
    request = pay_request(100)
    with pytest.raises(DeclinedError):
        await guard.refund(refund_of(request, 100, "202601012200100000000000000"))


async def test_closing_makes_paying_impossible(channels: Channels, guard: Guard) -> None:
    request = pay_request()
    if Verb.CLOSE not in guard.capabilities:
        with pytest.raises(ChannelVerbUnsupportedError):
            await guard.close(question_of(request))
        return
    assert (await guard.close(question_of(request))).state is State.NOT_FOUND
    result = await guard.pay(request)
    assert isinstance(result.next_action, ShowQrCode)
    assert (await guard.close(question_of(request))).state is State.CLOSED
    assert await channels.scan(result.next_action.content) == 409
    assert (await guard.close(question_of(request))).state is State.CLOSED
    assert (await guard.query(question_of(request))).state is State.CLOSED
    with pytest.raises(DeclinedError):
        await guard.pay(request)


async def test_closing_what_was_paid_says_paid(channels: Channels, guard: Guard) -> None:
    if Verb.CLOSE not in guard.capabilities:
        return
    request = pay_request()
    await channels.pay_for_good(guard, request)
    result = await guard.close(question_of(request))
    assert result.state is State.SUCCEEDED
    assert result.money == request.money


async def test_expired_payment_cannot_be_paid(channels: Channels, guard: Guard) -> None:
    request = pay_request(expires_at=datetime.now(UTC) - timedelta(seconds=5))
    try:
        result = await guard.pay(request)
    except DeclinedError:
        assert (await guard.query(question_of(request))).state is State.NOT_FOUND
        return
    assert isinstance(result.next_action, ShowQrCode)
    assert await channels.scan(result.next_action.content) == 409
    assert (await guard.query(question_of(request))).state is State.CLOSED


async def test_voiding_takes_back_the_whole_payment(channels: Channels, guard: Guard) -> None:
    request = pay_request(250)
    void = refund_of(request, 250, "1")
    if Verb.VOID not in guard.capabilities:
        with pytest.raises(ChannelVerbUnsupportedError):
            await guard.void(void)
        return
    number = await channels.pay_for_good(guard, request)
    with pytest.raises(DeclinedError):
        await guard.void(refund_of(request, 200, number))
    void = refund_of(request, 250, number)
    assert (await guard.void(void)).state is State.SUCCEEDED
    assert (await guard.query_refund(void)).state is State.SUCCEEDED
    with pytest.raises(DeclinedError) as refused:
        await guard.refund(refund_of(request, 1, number))
    assert refused.value.decline.code is DeclineCode.ORIGINAL_STATE


async def test_every_channel_names_what_it_can(guard: Guard) -> None:
    needed = {Verb.PAY, Verb.QUERY, Verb.REFUND, Verb.QUERY_REFUND, Verb.PARSE_CALLBACK}
    assert needed <= guard.capabilities
