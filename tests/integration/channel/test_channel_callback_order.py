"""In whatever order callbacks come, early, late, twice or denied: the row ends as the party has it.

Every case is held against real rows: one change of state, one event of it, each callback kept once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import permutations

import pytest
from channel_kit import PAYMENT, ChannelKit
from played_party import CODE, notice

from common.money import Money
from services.channel.domain import Charge, ChargeState
from services.channel.errors import RefusedByChannelError
from services.channel.flows.close_charge import close_charge
from services.channel.flows.query_charge import query_charge
from services.channel.results import ChannelOutcomeUnknownError

RIGHT = Money("USD", 1000)
OTHER = Money("USD", 1001)
TOLD: dict[str, tuple[str, Money | None, str]] = {
    "success": ("SUCCEEDED", RIGHT, "first"),
    "copy": ("SUCCEEDED", RIGHT, "first"),
    "waiting": ("PENDING", RIGHT, ""),
    "closed": ("CLOSED", None, ""),
    "wrong": ("SUCCEEDED", OTHER, ""),
}


async def hear(kit: ChannelKit, reference: str, name: str) -> None:
    """Take one of the callbacks above."""
    state, money, copy = TOLD[name]
    raw = notice(reference, state, money, copy=copy)
    assert (await kit.call_back(CODE, raw)).body == b"thanks"


async def check_paid(kit: ChannelKit, reference: str, told: set[str]) -> Charge:
    """The charge is paid, as the party has it; what denies that is questioned, and no more."""
    charge = await kit.stored(reference)
    assert (charge.state, charge.received) == (ChargeState.SUCCEEDED, RIGHT)
    assert kit.party.ledger.charges[reference].executed == 1
    moves = await kit.rows(
        "SELECT to_state FROM history WHERE id = $1 AND to_state NOT IN ('UNKNOWN', 'PENDING')",
        reference,
    )
    assert [row["to_state"] for row in moves] == ["SUCCEEDED"]
    verdicts = await kit.verdicts(reference)
    assert len(verdicts) == len(told - {"copy"}) + ("copy" in told and "success" not in told)
    assert {one.told_state for one in await kit.questioned(reference)} <= {"CLOSED", "SUCCEEDED"}
    assert len(await kit.questioned(reference)) == len(told & {"closed", "wrong"})
    return charge


async def test_callbacks_in_any_order_end_in_the_same_rows(kit: ChannelKit) -> None:
    kit.party.waits_for_payer = True

    async def play(order: tuple[str, ...]) -> None:
        asked = kit.played()
        await kit.charge(asked)
        kit.party.payer_pays(asked.reference)
        for name in order:
            await hear(kit, asked.reference, name)
        charge = await check_paid(kit, asked.reference, set(order))
        assert await kit.events(asked.reference) == [charge.version]

    orders = list(permutations(TOLD))
    for begin in range(0, len(orders), 20):
        await asyncio.gather(*(play(order) for order in orders[begin : begin + 20]))


async def test_callbacks_at_once_end_in_the_same_rows(kit: ChannelKit) -> None:
    kit.party.waits_for_payer = True
    for _ in range(5):
        asked = kit.played()
        await kit.charge(asked)
        kit.party.payer_pays(asked.reference)
        await asyncio.gather(*(hear(kit, asked.reference, name) for name in [*TOLD, *TOLD]))
        charge = await check_paid(kit, asked.reference, set(TOLD))
        assert await kit.events(asked.reference) == [charge.version]


@pytest.mark.parametrize("answer", ["ok", "lost_after"])
@pytest.mark.parametrize("name", ["success", "waiting", "closed", "wrong"])
async def test_callback_before_the_answer_to_our_call_is_not_lost(
    kit: ChannelKit, name: str, answer: str
) -> None:
    asked = kit.played()
    kit.party.plan = [answer]

    async def early() -> None:
        await hear(kit, asked.reference, name)

    kit.party.on_pay = early
    with suppress(ChannelOutcomeUnknownError):
        assert (await kit.charge(asked)).state in (ChargeState.SUCCEEDED, ChargeState.PENDING)
    await query_charge(kit.parts, asked.reference, PAYMENT)
    charge = await check_paid(kit, asked.reference, {name})
    assert len(await kit.events(asked.reference)) <= 2
    # At most one event tells of the success; none when the caller itself was told.
    assert (await kit.events(asked.reference)).count(charge.version) <= 1


async def test_late_success_after_a_refusal_is_told(kit: ChannelKit) -> None:
    kit.party.declines = True
    asked = kit.played()
    with pytest.raises(RefusedByChannelError):
        await kit.charge(asked)
    assert (await kit.stored(asked.reference)).state is ChargeState.FAILED
    kit.party.payer_pays(asked.reference)
    await hear(kit, asked.reference, "success")
    charge = await kit.stored(asked.reference)
    assert (charge.state, charge.received) == (ChargeState.SUCCEEDED, RIGHT)
    assert await kit.events(asked.reference) == [charge.version]


@pytest.mark.parametrize("name", ["success", "wrong"])
async def test_late_news_after_closing_is_what_the_party_has(kit: ChannelKit, name: str) -> None:
    kit.party.waits_for_payer = True
    asked = kit.played()
    await kit.charge(asked)
    await close_charge(kit.parts, asked.reference, PAYMENT)
    kit.party.payer_pays(asked.reference)
    await hear(kit, asked.reference, name)
    charge = await kit.stored(asked.reference)
    assert (charge.state, charge.received) == (ChargeState.SUCCEEDED, RIGHT)
    assert await kit.events(asked.reference) == [charge.version - 1, charge.version]
    assert len(await kit.questioned(asked.reference)) == (name == "wrong")
