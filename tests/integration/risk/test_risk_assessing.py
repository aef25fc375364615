"""Limits hold however many ask at once; a verdict stays; what did not happen is given back."""

from __future__ import annotations

import asyncio

import pytest
from paymesh.risk.v1 import VERDICT_BLOCK, VERDICT_PASS, ListFactsRequest, ListStoryRequest
from risk_kit import PAYMENT, RiskKit, new_id, until

from common import context
from common.context import ActorType, CallContext, Mode, Principal
from common.errors import AmountOutOfRangeError, IdConflictError, NotFoundError
from common.events.event import Event
from common.ids import IdFactory
from services.risk.events import PaymentNews
from services.risk.flows.resolve_reservations import keep_telling, tell_counters

OPERATOR = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("operator",))
)


async def test_actions_at_once_never_exceed_a_limit(kit: RiskKit, other: RiskKit) -> None:
    user = new_id("usr")
    answers = await asyncio.gather(
        *(one.assess(user_id=user) for one in (kit, other) for _ in range(20))
    )
    passed = [one for one in answers if one.verdict == VERDICT_PASS]
    assert len(passed) == 3
    for one in answers:
        if one.verdict == VERDICT_BLOCK:
            assert list(one.rules) == ["user_daily_count"]
            assert not one.degraded


async def test_sums_at_once_never_exceed_a_limit(kit: RiskKit) -> None:
    card = new_id("crd")
    amounts = [170, 330, 90, 410, 260, 500, 40, 300]
    answers = await asyncio.gather(*(kit.assess(minor, card_id=card) for minor in amounts))
    verdicts = zip(amounts, answers, strict=True)
    passed = sum(minor for minor, one in verdicts if one.verdict == VERDICT_PASS)
    assert 500 < passed <= 1000
    left = 1000 - passed
    if left:
        assert (await kit.assess(left, card_id=card)).verdict == VERDICT_PASS
    assert (await kit.assess(1, card_id=card)).verdict == VERDICT_BLOCK


async def test_repeat_gets_the_same_verdict_and_counts_once(kit: RiskKit, other: RiskKit) -> None:
    user, action_id = new_id("usr"), new_id()
    answers = await asyncio.gather(
        *(one.assess(action_id=action_id, user_id=user) for one in (kit, other) * 5)
    )
    assert {one.verdict for one in answers} == {VERDICT_PASS}
    for _ in range(2):
        assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS
    blocked = new_id()
    for _ in range(2):
        answer = await kit.assess(action_id=blocked, user_id=user)
        assert answer.verdict == VERDICT_BLOCK
    # Room that comes later does not change a verdict that was given.
    await kit.resolve(action_id, confirmed=False)
    assert (await kit.assess(action_id=blocked, user_id=user)).verdict == VERDICT_BLOCK
    assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS
    rows = await kit.rows("SELECT verdict FROM decisions WHERE action_id = $1", action_id)
    assert len(rows) == 1


async def test_same_id_for_another_action_is_refused(kit: RiskKit) -> None:
    action_id = new_id()
    await kit.assess(10, action_id=action_id)
    with pytest.raises(IdConflictError) as caught:
        await kit.assess(11, action_id=action_id)
    assert caught.value.field == "amount.amount_minor"
    stranger = CallContext(
        principal=Principal(merchant_id="mer_2", actor_type=ActorType.MERCHANT, actor_id="key_2")
    )
    with pytest.raises(IdConflictError):
        await kit.assess(10, stranger, action_id=action_id)


async def test_release_gives_back_and_confirmation_keeps(kit: RiskKit) -> None:
    user = new_id("usr")
    ids = [new_id() for _ in range(3)]
    for action_id in ids:
        await kit.assess(action_id=action_id, user_id=user)
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK
    for _ in range(2):
        await kit.resolve(ids[0], confirmed=False)
    await kit.resolve(ids[1], confirmed=True)
    await kit.resolve(ids[1], confirmed=False)  # late news: confirmed is final
    assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK


async def test_reservation_falls_away_and_counts_again_when_confirmed(kit: RiskKit) -> None:
    user = new_id("usr")
    ids = [new_id() for _ in range(3)]
    for action_id in ids:
        assert (await kit.assess(action_id=action_id, user_id=user)).verdict == VERDICT_PASS
    await kit.resolve(ids[0], confirmed=True)
    kit.clock.advance(seconds=61)
    # One is confirmed, two have fallen away.
    for _ in range(2):
        assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK
    kit.clock.advance(seconds=61)
    for _ in range(2):
        await kit.resolve(ids[1], confirmed=True)
        await kit.resolve(ids[2], confirmed=True)
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK


async def test_late_success_after_a_release_counts(kit: RiskKit) -> None:
    user = new_id("usr")
    ids = [new_id() for _ in range(3)]
    for action_id in ids:
        await kit.assess(action_id=action_id, user_id=user)
    await kit.resolve(ids[0], confirmed=False)
    await kit.resolve(ids[0], confirmed=True)
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK


async def test_next_business_day_begins_anew(kit: RiskKit) -> None:
    user = new_id("usr")
    for _ in range(3):
        action_id = new_id()
        await kit.assess(action_id=action_id, user_id=user)
        await kit.resolve(action_id, confirmed=True)
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK
    kit.clock.advance(hours=24)
    assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS


async def test_sliding_window_counts_attempts_that_failed(kit: RiskKit) -> None:
    address = new_id("ipa")
    ids = [new_id() for _ in range(3)]
    for action_id in ids:
        assert (await kit.assess(action_id=action_id, client_ip=address)).verdict == VERDICT_PASS
        await kit.resolve(action_id, confirmed=False)
    answer = await kit.assess(client_ip=address)
    assert list(answer.rules) == ["ip_minute_count"]
    kit.clock.advance(seconds=61)
    assert (await kit.assess(client_ip=address)).verdict == VERDICT_PASS


async def test_a_clock_behind_that_of_redis_loses_no_count(kit: RiskKit) -> None:
    address = new_id("ipa")
    kit.clock.advance(seconds=-600)
    try:
        for _ in range(3):
            assert (await kit.assess(client_ip=address)).verdict == VERDICT_PASS
        assert list((await kit.assess(client_ip=address)).rules) == ["ip_minute_count"]
    finally:
        kit.clock.advance(seconds=600)


async def test_blocked_actions_use_nothing(kit: RiskKit) -> None:
    user, card = new_id("usr"), new_id("crd")
    for _ in range(5):
        assert (await kit.assess(1001, user_id=user)).verdict == VERDICT_BLOCK
        assert (await kit.assess(user_id=user, device_id="stolen phone")).rules == [
            "device_blocked"
        ]
    assert (await kit.assess(900, card_id=card)).verdict == VERDICT_PASS
    for _ in range(3):  # refused for the card: the user's count stays untouched
        assert (await kit.assess(200, card_id=card, user_id=user)).rules == ["card_daily_sum"]
    for _ in range(3):
        assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS


async def test_worlds_never_share_a_counter(kit: RiskKit) -> None:
    user = new_id("usr")
    test_mode = CallContext(principal=Principal(mode=Mode.TEST, merchant_id="mer_1"))
    for _ in range(3):
        await kit.assess(user_id=user)
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK
    assert (await kit.assess(10, test_mode, user_id=user)).verdict == VERDICT_PASS


async def test_personal_data_is_hashed_in_rows_and_keys(kit: RiskKit) -> None:
    address, device = "203.0.113.77", "phone-of-ann"
    action_id, user = new_id(), new_id("usr")
    await kit.assess(action_id=action_id, user_id=user, client_ip=address, device_id=device)
    rows = await kit.rows(
        "SELECT row_to_json(decisions)::text AS text FROM decisions WHERE action_id = $1",
        action_id,
    )
    keys = await kit.redis.execute("KEYS", kit.redis.key("*"))
    texts = [row["text"] for row in rows] + [key.decode() for key in keys]
    assert not any(address in text or device in text for text in texts)
    assert not any(user in key.decode() for key in keys)
    assert rows


async def test_bad_actions_leave_no_row(kit: RiskKit) -> None:
    action_id = new_id()
    for amount_minor in (0, -1):
        with pytest.raises(AmountOutOfRangeError):
            await kit.assess(amount_minor, action_id=action_id)
    with pytest.raises(NotFoundError):
        await kit.resolve(action_id, confirmed=True)
    assert await kit.parts.store.find_decisions([action_id]) == {}


async def test_ends_of_payments_resolve_their_reservations(kit: RiskKit) -> None:
    user = new_id("usr")
    ids = [new_id() for _ in range(3)]
    for action_id in ids:
        await kit.assess(action_id=action_id, user_id=user)
    maker = IdFactory(kit.clock)
    kinds = ("succeeded", "failed", "returned")
    events = [
        Event(
            event_id=maker.new("evt"),
            type=f"payment.payment.{kind}.v1",
            aggregate_id=action_id,
            aggregate_version=3,
            payload=b"",
            principal=PAYMENT.principal,
            occurred_at=kit.clock.now(),
            recorded_at=kit.clock.now(),
        )
        for kind, action_id in zip(kinds, ids, strict=True)
    ]
    news = PaymentNews(kit.parts)
    telling = asyncio.create_task(keep_telling(kit.parts, poll_seconds=60))
    try:
        for _ in range(2):  # a second copy changes nothing
            async with kit.pool.transaction() as connection:
                after = await news.handle(connection, events)
            for one in after:
                await one()

        async def told() -> bool:
            return await kit.parts.store.find_waiting(10) == []

        await until(told)
    finally:
        telling.cancel()
    for _ in range(2):
        assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS
    assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK
    assert await tell_counters(kit.parts) == 0


async def test_changed_file_becomes_a_new_version(kit: RiskKit, other: RiskKit) -> None:
    before = (await kit.assess()).rules_version
    kit.rules_file.write_text(kit.rules_file.read_text().replace("1_000", "5", 1))
    await kit.parts.rulebook.load()
    await other.parts.rulebook.load()
    for one in (kit, other):
        answer = await one.assess(6)
        assert answer.rules_version == before + 1
        assert list(answer.rules) == ["pay_amount"]


async def test_facts_and_story_tell_the_verdict(kit: RiskKit) -> None:
    action_id = new_id()
    await kit.assess(1001, action_id=action_id)
    with context.bound(OPERATOR):
        facts = {}
        token = ""
        while True:
            page = await kit.servicer.ListFacts(
                ListFactsRequest(kind="decision", page_size=7, page_token=token),
                None,  # type: ignore[arg-type]
            )
            facts.update({fact.key: fact for fact in page.facts})
            token = page.next_page_token
            if not token:
                break
        assert facts[action_id].values["verdict"] == "BLOCK"
        assert facts[action_id].values["rules"] == "pay_amount"
        unfinished = await kit.servicer.ListFacts(
            ListFactsRequest(kind="unfinished"),
            None,  # type: ignore[arg-type]
        )
        assert list(unfinished.facts) == []
        story = await kit.servicer.ListStory(
            ListStoryRequest(subject_id=action_id),
            None,  # type: ignore[arg-type]
        )
    assert story.biz_trace_id == "biz_story"
    assert f"action {action_id}" in {item.subject for item in story.items}
