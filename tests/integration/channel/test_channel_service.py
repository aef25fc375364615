"""The contract of the channel service, its facts and stories, and changes without a restart."""

from __future__ import annotations

import asyncio

import pytest
from channel_kit import PAYMENT, ChannelKit
from paymesh.channel.v1 import (
    CHARGE_STATE_PENDING,
    CHARGE_STATE_SUCCEEDED,
    ChargeRequest,
    CloseChargeRequest,
    HandleCallbackRequest,
    ListChannelsRequest,
    ListFactsRequest,
    ListStoryRequest,
    QueryChargeRequest,
)
from paymesh.type.v1 import Fact, Money
from played_party import CODE

from common import context
from common.context import ActorType, CallContext, Principal
from common.errors import FieldInvalidError, PageTokenInvalidError, PermissionDeniedError
from services.channel.catalogue import ChannelsFileError
from services.channel.results import ChannelUnavailableError

OPERATOR = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("operator",))
)


async def list_all(kit: ChannelKit, kind: str) -> dict[str, Fact]:
    """Read all pages of a kind of facts."""
    facts: dict[str, Fact] = {}
    token = ""
    while True:
        request = ListFactsRequest(kind=kind, page_size=3, page_token=token)
        page = await kit.servicer.ListFacts(request, None)  # type: ignore[arg-type]
        facts.update({fact.key: fact for fact in page.facts})
        token = page.next_page_token
        if not token:
            return facts


async def test_paying_by_code_over_the_contract(kit: ChannelKit) -> None:
    reference = kit.new_reference()
    request = ChargeRequest(
        reference=reference,
        channel="alipay_a",
        payment_id=kit.parts.ids.new("pay"),
        amount=Money(currency_code="USD", amount_minor=1234),
        product="qr_pay",
    )
    with context.bound(PAYMENT):
        charge = (await kit.servicer.Charge(request, None)).charge  # type: ignore[arg-type]
        assert charge.state == CHARGE_STATE_PENDING
        assert charge.qr_content
        raw = kit.alipay_notice(reference, f"n{reference}")
        callback = HandleCallbackRequest(channel="alipay_a", body=raw.body)
        answer = await kit.servicer.HandleCallback(callback, None)  # type: ignore[arg-type]
        assert (answer.http_status, answer.body) == (200, b"success")
        question = QueryChargeRequest(reference=reference)
        charge = (await kit.servicer.QueryCharge(question, None)).charge  # type: ignore[arg-type]
        assert charge.state == CHARGE_STATE_SUCCEEDED
        assert charge.received.amount_minor == 1234
        closing = CloseChargeRequest(reference=reference)
        closed = (await kit.servicer.CloseCharge(closing, None)).charge  # type: ignore[arg-type]
        assert closed == charge


async def test_facts_and_story_tell_what_happened(kit: ChannelKit) -> None:
    asked = kit.quick()
    stray = kit.new_reference()
    with context.bound(PAYMENT):
        await kit.charge(asked)
        open_one = await kit.charge(kit.qr())
    await kit.call_back("alipay_a", kit.alipay_notice(stray, f"n{stray}"))
    with context.bound(OPERATOR):
        charges = await list_all(kit, "charge")
        assert charges[asked.reference].values["state"] == "SUCCEEDED"
        assert charges[asked.reference].values["amount_minor"] == "1234"
        assert charges[asked.reference].values["channel"] == "unionpay_a"
        unfinished = await list_all(kit, "unfinished")
        assert unfinished[open_one.reference].values == {"noun": "charge", "state": "PENDING"}
        assert asked.reference not in unfinished
        # What a callback of nothing came to is payment's to find out; it only has to hear of it.
        assert {fact.values["noun"] for fact in unfinished.values()} <= {"charge", "event"}
        assert len(await kit.questioned(stray)) == 1
        for subject in (asked.reference, asked.payment_id):
            page = await kit.servicer.ListStory(
                ListStoryRequest(subject_id=subject),
                None,  # type: ignore[arg-type]
            )
            assert page.biz_trace_id == "biz_story"
            told = [
                item.summary
                for item in page.items
                if item.subject == f"charge {asked.reference}" and item.kind == "state"
            ]
            assert told == ["UNKNOWN", "UNKNOWN → SUCCEEDED"]
        with pytest.raises(FieldInvalidError):
            await list_all(kit, "nonsense")
        bad = ListFactsRequest(kind="charge", page_token="forged")
        with pytest.raises(PageTokenInvalidError):
            await kit.servicer.ListFacts(bad, None)  # type: ignore[arg-type]
    with context.bound(PAYMENT), pytest.raises(PermissionDeniedError):
        await list_all(kit, "charge")


async def test_listing_channels_says_what_they_can_do(kit: ChannelKit) -> None:
    answer = await kit.servicer.ListChannels(ListChannelsRequest(), None)  # type: ignore[arg-type]
    channels = {channel.code: channel for channel in answer.channels}
    assert set(channels) - {CODE} == {"alipay_a", "alipay_b", "unionpay_a", "unionpay_b"}
    assert list(channels["alipay_a"].products) == ["qr_pay"]
    assert "close" in channels["alipay_a"].verbs
    assert "close" not in channels["unionpay_a"].verbs
    assert "USD" in channels["unionpay_b"].currency_codes


async def test_suspending_a_channel_takes_effect_without_a_restart(kit: ChannelKit) -> None:
    asked = kit.quick()
    await kit.charge(asked)
    file = kit.settings.channels_file
    original = file.read_text()
    keeping = asyncio.create_task(kit.parts.catalogue.run())
    try:
        file.write_text(
            original.replace("[channels.unionpay_a]", "[channels.unionpay_a]\nsuspended = true")
        )
        async with asyncio.timeout(10):
            while not kit.parts.catalogue.find("unionpay_a").row.suspended:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(ChannelUnavailableError):
            await kit.charge(kit.quick())
        assert (await kit.charge(asked)).state == "SUCCEEDED"  # a repeat is answered all the same
        file.write_text("[channels.unionpay_a]\nadapter = 3")  # wrong: the old stays in force
        with pytest.raises(ChannelsFileError):
            await kit.parts.catalogue.load()
        assert kit.parts.catalogue.find("unionpay_a").row.suspended
        file.write_text(original)
        async with asyncio.timeout(10):
            while kit.parts.catalogue.find("unionpay_a").row.suspended:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        keeping.cancel()
    assert (await kit.charge(kit.quick())).state == "SUCCEEDED"


async def test_secrets_never_enter_the_table(kit: ChannelKit) -> None:
    rows = await kit.rows("SELECT row_to_json(channels)::text AS text FROM channels")
    assert len(rows) == 4
    assert not any("PRIVATE" in row["text"] or "private_key" in row["text"] for row in rows)
