"""Charges, refunds and callbacks are kept alike on PostgreSQL and on the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st

from common.money import Money
from services.channel.domain import Charge, ChargeState, RefundState, Verdict
from services.channel.store.channels import ChannelRow
from tests.conformance.stores.channel_cases import ChannelSide
from tests.conformance.stores.trade_cases import START
from tests.conformance.stores.twins import Side, Twins, outcome_of, try_examples

SCHEMA = "channel"


@pytest.fixture
def channel(side: Side) -> ChannelSide:
    """The channel service's stores on one side."""
    return ChannelSide(side)


async def succeeded(channel: ChannelSide, number: int = 1) -> Charge:
    charge = channel.charge(number)
    await channel.store.open_charges([charge])
    (heard,) = await channel.store.hear_charges([channel.told(charge, "SUCCEEDED")])
    assert heard.noun is not None
    return heard.noun


async def test_a_reference_is_stored_once(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    differing = replace(charge, amount=Money("USD", 1))
    opened = await channel.store.open_charges([charge, charge, differing, channel.charge(2)])
    assert [(one.is_new, one.differs) for one in opened] == [
        (True, ""),
        (False, ""),
        (False, "amount.amount_minor"),
        (True, ""),
    ]
    again = await channel.store.open_charges([differing, charge])
    assert [(one.noun, one.is_new, one.differs) for one in again] == [
        (charge, False, "amount.amount_minor"),
        (charge, False, ""),
    ]
    assert await channel.store.find_charges([charge.reference, "no"]) == {charge.reference: charge}


async def test_a_charge_that_was_never_sent_is_taken_up_once(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    await channel.store.open_charges([charge])
    await channel.store.hear_charges([channel.told(charge, "NOT_SENT")])
    opened = await channel.store.open_charges([charge, charge])
    assert [(one.is_new, one.noun.version, one.noun.state) for one in opened] == [
        (True, 3, ChargeState.UNKNOWN),
        (False, 3, ChargeState.UNKNOWN),
    ]
    history = (await channel.side.dump())["history"]
    assert sorted(row["to_state"] for row in history) == ["NOT_SENT", "UNKNOWN", "UNKNOWN"]


async def test_news_of_one_batch_are_heard_in_their_order(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    await channel.store.open_charges([charge])
    heard = await channel.store.hear_charges(
        [
            channel.told(charge, "PENDING"),
            channel.told(charge, "FAILED"),
            channel.told(charge, "SUCCEEDED"),
            channel.told(charge, "FAILED"),
            channel.told(channel.charge(2), "SUCCEEDED"),
        ]
    )
    assert [one.verdict for one in heard] == [
        Verdict.CHANGED,
        Verdict.CHANGED,
        Verdict.CHANGED,
        Verdict.CONTRADICTED,
        Verdict.ORPHAN,
    ]
    rows = await channel.side.dump()
    assert [(row["state"], row["version"], row["received_minor"]) for row in rows["charges"]] == [
        ("SUCCEEDED", 4, 1000)
    ]
    assert [row["aggregate_version"] for row in rows["outbox"]] == [2, 3, 4]


async def test_other_money_than_was_asked_for_is_a_conflict(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    await channel.store.open_charges([charge])
    told = channel.told(charge, "SUCCEEDED", money=Money("USD", 999), publish=False)
    (heard,) = await channel.store.hear_charges([told])
    assert heard.noun is not None
    assert (heard.noun.state, heard.noun.received) == (ChargeState.CONFLICTED, Money("USD", 999))
    assert (await channel.side.dump())["outbox"] == []


async def test_a_conclusion_about_an_older_version_changes_nothing(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    await channel.store.open_charges([charge])
    await channel.store.hear_charges([channel.told(charge, "PENDING")])
    told = channel.told(charge, "FAILED", of_version=1)
    (heard,) = await channel.store.hear_charges([told])
    assert heard.verdict is Verdict.NOTHING_NEW


async def test_a_callback_is_taken_once(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    await channel.store.open_charges([charge])
    told = channel.told(charge, "SUCCEEDED", money=charge.amount, notice=channel.notice(1))
    heard = await channel.store.hear_charges([told, told])
    heard += await channel.store.hear_charges([told])
    assert [one.verdict for one in heard] == [
        Verdict.CHANGED,
        Verdict.REPEATED,
        Verdict.REPEATED,
    ]
    rows = await channel.side.dump()
    assert [(row["verdict"], row["told_minor"]) for row in rows["callbacks"]] == [("CHANGED", 1000)]
    assert await channel.store.find_callback("cbk_1") is None


async def test_a_questioned_callback_is_kept_and_told(channel: ChannelSide) -> None:
    charge = await succeeded(channel)
    denied = channel.told(charge, "FAILED", notice=channel.notice(1))
    orphan = channel.told(channel.charge(9), "SUCCEEDED", notice=channel.notice(2))
    heard = await channel.store.hear_charges([denied, orphan])
    assert [one.verdict for one in heard] == [Verdict.CONTRADICTED, Verdict.ORPHAN]
    kept = await channel.store.find_callback("cbk_1")
    assert kept is not None
    assert (kept.verdict, kept.told_state, kept.money) == (Verdict.CONTRADICTED, "FAILED", None)
    rows = await channel.side.dump()
    assert [row["type"] for row in rows["outbox"]][1:] == ["channel.callback.questioned.v1"] * 2


async def test_a_doubted_callback_waits_until_the_channel_was_asked(channel: ChannelSide) -> None:
    charge = channel.charge(1)
    await channel.store.open_charges([charge])
    told = channel.told(charge, "FAILED", notice=channel.notice(1))
    (doubted,) = await channel.store.hear_charges([told])
    assert doubted.verdict is Verdict.DOUBTED
    assert (await channel.side.dump())["callbacks"] == []
    asked = replace(told, notice=channel.notice(1, is_checked=True))
    (kept,) = await channel.store.hear_charges([asked])
    assert (kept.verdict, kept.noun and kept.noun.version) == (Verdict.DOUBTED, 2)
    rows = await channel.side.dump()
    assert [row["verdict"] for row in rows["callbacks"]] == ["DOUBTED"]
    assert [row["type"] for row in rows["outbox"]] == ["channel.charge.changed.v1"]


async def test_refunds_together_never_exceed_what_was_received(channel: ChannelSide) -> None:
    await succeeded(channel)
    opened = await channel.store.open_refunds(
        [channel.refund(number, 1, amount=Money("USD", 400)) for number in (1, 2, 3, 1)]
    )
    assert [(one.is_new, one.refundable_minor) for one in opened] == [
        (True, None),
        (True, None),
        (False, 200),
        (False, None),
    ]
    await channel.store.hear_refunds([channel.told(opened[0].noun, "FAILED")])
    (later,) = await channel.store.open_refunds([channel.refund(4, 1, amount=Money("USD", 600))])
    assert later.is_new
    unknown = await channel.store.open_refunds([channel.refund(5, 7)])
    assert [(one.is_new, one.charge) for one in unknown] == [(False, None)]
    found = await channel.store.find_refunds([opened[0].noun.reference])
    assert [(one.state, one.channel) for one in found.values()] == [(RefundState.FAILED, "alipay")]


async def test_refunds_hear_news_once(channel: ChannelSide) -> None:
    await succeeded(channel)
    (opened,) = await channel.store.open_refunds([channel.refund(1, 1)])
    refund = opened.noun
    heard = await channel.store.hear_refunds(
        [
            channel.told(refund, "SUCCEEDED", money=Money("USD", 1)),
            channel.told(refund, "SUCCEEDED"),
            channel.told(refund, "FAILED"),
        ]
    )
    assert [one.verdict for one in heard] == [
        Verdict.CONTRADICTED,
        Verdict.CHANGED,
        Verdict.CONTRADICTED,
    ]


async def test_channels_grow_a_version_only_when_they_differ(channel: ChannelSide) -> None:
    row = ChannelRow(
        code="b",
        adapter="alipay",
        products=("qr_pay",),
        currency_codes=("USD", "CNY"),
        amount_min_minor=1,
        amount_max_minor=100,
        request_life_seconds=60,
        timeout_seconds=5.0,
        suspended=False,
        config={"url": "http://x", "limits": [1, 2]},
        credentials="b",
    )
    other = replace(row, code="a", suspended=True)
    await channel.channels.put([row, other], START)
    await channel.channels.put([row, replace(other, suspended=False)], START)
    assert await channel.channels.read() == [
        replace(other, suspended=False, version=2),
        replace(row, version=1),
    ]


async def test_facts_are_pages_in_the_order_of_references(channel: ChannelSide) -> None:
    await succeeded(channel)
    await channel.store.open_charges([channel.charge(2), channel.charge(3)])
    await channel.store.open_refunds([channel.refund(1, 1)])
    facts = await channel.store.list_facts("charge", "", 2)
    facts += await channel.store.list_facts("charge", facts[-1]["reference"], 9)
    assert [(row["reference"][-1], row["received_minor"]) for row in facts] == [
        ("1", 1000),
        ("2", 0),
        ("3", 0),
    ]
    assert [row["subject_id"] for row in await channel.store.list_facts("refund", "", 9)] == [
        "rfd_1"
    ]
    unfinished = await channel.store.list_facts("unfinished", "", 9)
    assert [row["noun"] for row in unfinished] == ["charge", "charge", "event", "refund"]


N = st.integers(1, 4)
MONEY = st.sampled_from([None, Money("USD", 1000), Money("USD", 999), Money("CNY", 1000)])
TOLD = st.tuples(
    N,
    st.sampled_from(["NOT_SENT", "PENDING", "SUCCEEDED", "SUCCEEDED", "FAILED", "CLOSED"]),
    MONEY,
    st.one_of(st.none(), st.integers(1, 9)),
    st.booleans(),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("charge"), st.lists(st.tuples(N, st.sampled_from([1000, 1000, 7])))),
        st.tuples(st.just("refund"), st.lists(st.tuples(N, N, st.integers(1, 700)), max_size=3)),
        st.tuples(st.just("hear_charges"), st.lists(TOLD, min_size=1, max_size=4)),
        st.tuples(st.just("hear_refunds"), st.lists(TOLD, min_size=1, max_size=4)),
        st.tuples(st.just("facts"), st.sampled_from(["charge", "refund"])),
    ),
    min_size=15,
    max_size=30,
)


class Actor:
    """Does the operations on one side."""

    def __init__(self, channel: ChannelSide) -> None:
        self.channel = channel

    async def do(self, name: str, given: Any) -> Any:
        """Do one; return what it answers."""
        self.channel.clock.forward(1)
        return await getattr(self, f"_{name}")(given)

    async def _charge(self, given: Sequence[tuple[int, int]]) -> Any:
        charges = [
            self.channel.charge(number, amount=Money("USD", amount)) for number, amount in given
        ]
        return await self.channel.store.open_charges(charges) if charges else None

    async def _refund(self, given: Sequence[tuple[int, int, int]]) -> Any:
        refunds = [
            self.channel.refund(number, charge, amount=Money("USD", amount))
            for number, charge, amount in given
        ]
        return await self.channel.store.open_refunds(refunds)

    def _told(self, given: Sequence[tuple[Any, ...]], *, of_refunds: bool) -> list[Any]:
        told = []
        for number, state, money, notice, flag in given:
            noun = self.channel.refund(number, 1) if of_refunds else self.channel.charge(number)
            if of_refunds and state == "CLOSED":
                state = "FAILED"
            particulars = None
            if notice is not None:
                sender = "alipay" if number < 4 else "wechat"
                particulars = self.channel.notice(notice, channel=sender, is_checked=flag)
            told.append(
                self.channel.told(noun, state, money=money, notice=particulars, publish=flag)
            )
        return told

    async def _hear_charges(self, given: Sequence[tuple[Any, ...]]) -> Any:
        return await self.channel.store.hear_charges(self._told(given, of_refunds=False))

    async def _hear_refunds(self, given: Sequence[tuple[Any, ...]]) -> Any:
        return await self.channel.store.hear_refunds(self._told(given, of_refunds=True))

    async def _facts(self, kind: str) -> Any:
        rows = await self.channel.store.list_facts(kind, "", 9)
        return [dict(row.items()) for row in rows]


async def test_any_operations_leave_the_same_answers_and_rows(twins: Twins) -> None:
    async def compare(operations: list[tuple[str, Any]]) -> None:
        await twins.clear()
        actors = [Actor(ChannelSide(side)) for side in twins.sides]
        # Something to work on from the beginning.
        paid = [(number, "SUCCEEDED", None, None, True) for number in (1, 2)]
        first: list[tuple[str, Any]] = [
            ("charge", [(1, 1000), (2, 1000)]),
            ("hear_charges", paid),
            ("refund", [(1, 1, 400), (2, 1, 400), (3, 2, 900)]),
        ]
        for name, given in [*first, *operations]:
            real, model = [await outcome_of(actor.do(name, given)) for actor in actors]
            assert real == model, name
        await twins.compare_rows()

    await try_examples(OPERATIONS, compare)
