"""A callback is a hint until verified, and reaches its row once, in whatever order it comes."""

from __future__ import annotations

import asyncio

import pytest
from channel_kit import PAYMENT, ChannelKit, forged

from services.channel.domain import ChargeState
from services.channel.errors import ChannelUnknownError
from services.channel.flows.close_charge import close_charge
from services.channel.results import CallbackSignatureInvalidError, RawCallback


async def test_paying_by_code_is_told_by_callback_once(kit: ChannelKit) -> None:
    asked = kit.qr()
    charge = await kit.charge(asked)
    await kit.scan(charge.qr_content)
    charge = await kit.becomes(asked.reference, "SUCCEEDED")
    assert charge.received == asked.amount
    assert charge.paid_at is not None
    assert await kit.events(asked.reference) == [charge.version]
    assert kit.acknowledged[0].body == b"success"
    assert await kit.verdicts(asked.reference) == ["CHANGED"]


async def test_callback_before_the_answer_to_the_charge_answers_it(kit: ChannelKit) -> None:
    asked = kit.quick()
    kit.proxy.plan = ["swallow"]  # executed; its answer hangs while the callback arrives
    charge = await kit.charge(asked)
    assert charge.state is ChargeState.SUCCEEDED
    assert await kit.movements(asked.reference) == 1
    assert await kit.events(asked.reference) == [2]


async def test_callback_twice_changes_once(kit: ChannelKit) -> None:
    asked = kit.qr()
    await kit.charge(asked)
    raw = kit.alipay_notice(asked.reference, f"n1{asked.reference}")
    answers = await asyncio.gather(*(kit.call_back("alipay_a", raw) for _ in range(8)))
    assert {answer.body for answer in answers} == {b"success"}
    assert await kit.verdicts(asked.reference) == ["CHANGED"]
    assert await kit.events(asked.reference) == [3]


async def test_older_news_after_success_changes_nothing(kit: ChannelKit) -> None:
    asked = kit.qr()
    await kit.charge(asked)
    reference = asked.reference
    await kit.call_back("alipay_a", kit.alipay_notice(reference, f"b{reference}"))
    late = kit.alipay_notice(
        reference, f"a{reference}", trade_status="WAIT_BUYER_PAY", gmt_payment=""
    )
    await kit.call_back("alipay_a", late)
    assert (await kit.stored(reference)).state is ChargeState.SUCCEEDED
    assert sorted(await kit.verdicts(reference)) == ["CHANGED", "NOTHING_NEW"]


async def test_contradiction_never_takes_a_success_back(kit: ChannelKit) -> None:
    asked = kit.qr()
    await kit.charge(asked)
    reference = asked.reference
    await kit.call_back("alipay_a", kit.alipay_notice(reference, f"b{reference}"))
    before = await kit.stored(reference)
    closed = kit.alipay_notice(
        reference, f"c{reference}", trade_status="TRADE_CLOSED", gmt_payment=""
    )
    other = kit.alipay_notice(reference, f"d{reference}", total_amount="99.99")
    for raw in (closed, other):
        assert (await kit.call_back("alipay_a", raw)).body == b"success"
    assert await kit.stored(reference) == before
    assert sorted(await kit.verdicts(reference)) == ["CHANGED", "CONTRADICTED", "CONTRADICTED"]


async def test_late_success_wins_over_closed(kit: ChannelKit) -> None:
    asked = kit.qr()
    await kit.charge(asked)
    reference = asked.reference
    await close_charge(kit.parts, reference, PAYMENT)
    assert (await kit.stored(reference)).state is ChargeState.CLOSED
    await kit.call_back("alipay_a", kit.alipay_notice(reference, f"b{reference}"))
    charge = await kit.stored(reference)
    assert charge.state is ChargeState.SUCCEEDED
    assert await kit.events(reference) == [charge.version - 1, charge.version]


@pytest.mark.parametrize(
    "changes",
    [
        {"total_amount": "12.35"},
        {"total_amount": "0.01"},
        {"trans_currency": "EUR"},
        {"total_amount": ""},
        {"trade_status": "TRADE_CLOSED", "gmt_payment": ""},
    ],
)
async def test_callback_that_denies_what_was_asked_changes_nothing_by_itself(
    kit: ChannelKit, changes: dict[str, str]
) -> None:
    """Alipay, asked, says that nobody has paid: that is what holds."""
    asked = kit.qr()
    await kit.charge(asked)
    raw = kit.alipay_notice(asked.reference, f"n{asked.reference}", **changes)
    assert (await kit.call_back("alipay_a", raw)).body == b"success"
    charge = await kit.stored(asked.reference)
    assert charge.state is ChargeState.PENDING
    assert await kit.verdicts(asked.reference) == ["DOUBTED"]
    assert await kit.events(asked.reference) == [charge.version]
    await kit.call_back("alipay_a", kit.alipay_notice(asked.reference, f"m{asked.reference}"))
    assert (await kit.stored(asked.reference)).state is ChargeState.SUCCEEDED


async def test_wrong_signature_is_refused_and_leaves_nothing(kit: ChannelKit) -> None:
    asked = kit.qr()
    await kit.charge(asked)
    good = kit.alipay_notice(asked.reference, "n1")
    bad = [
        RawCallback(body=good.body.replace(b"12.34", b"12.35")),
        forged(good, total_amount="1.00"),
        RawCallback(body=b""),
        RawCallback(body=b"\xff\xfe{"),
    ]
    for raw in bad:
        with pytest.raises(CallbackSignatureInvalidError):
            await kit.call_back("alipay_a", raw)
    with pytest.raises(CallbackSignatureInvalidError):
        await kit.call_back("alipay_b", good)  # signed, but for another contract
    with pytest.raises(ChannelUnknownError):
        await kit.call_back("nothing", good)
    assert (await kit.stored(asked.reference)).state is ChargeState.PENDING
    assert await kit.verdicts(asked.reference) == []


async def test_signed_callback_that_cannot_be_read_is_to_come_again(kit: ChannelKit) -> None:
    raw = kit.alipay_notice("attsomething", "n", trade_status="TRADE_UNHEARD_OF")
    assert (await kit.call_back("alipay_a", raw)).body == b"fail"


async def test_success_without_an_order_is_kept_for_a_person(kit: ChannelKit) -> None:
    stray = kit.new_reference()
    raw = kit.alipay_notice(stray, f"n{stray}")
    assert (await kit.call_back("alipay_a", raw)).body == b"success"
    assert await kit.verdicts(stray) == ["ORPHAN"]
    # Our reference, but given to another channel: neither row is touched.
    asked = kit.quick()
    await kit.charge(asked)
    before = await kit.stored(asked.reference)
    await kit.call_back("alipay_a", kit.alipay_notice(asked.reference, f"n{asked.reference}"))
    assert await kit.stored(asked.reference) == before
    assert "ORPHAN" in await kit.verdicts(asked.reference)
