"""Whoever waits has a deadline, and whoever gives up leaves no charge without its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from channel_kit import PAYMENT, ChannelKit
from paymesh.channel.v1 import HandleCallbackRequest
from played_party import CODE, notice, played_channel

from common import context
from common.breaker import BreakerState
from common.context import CallContext
from common.money import Money
from services.channel.breakers import Breakers
from services.channel.domain import ChargeState, RefundState
from services.channel.flows.query_charge import query_charge
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.channel.guard import Guard
from services.channel.results import ChannelOutcomeUnknownError, ChannelUnavailableError

# Far longer than any call of these tests, and all but two seconds reserved for the outcome: enough
# for a busy machine to get the request out.
PATIENCE_SECONDS = 30.0
RESERVE_SECONDS = 28.0


def reserving(kit: ChannelKit) -> None:
    """Let the played channel keep nearly all of a caller's time for the outcome."""
    channel = kit.parts.catalogue.find(CODE)
    guard = Guard(
        kit.party,
        clock=kit.clock,
        timeout_seconds=PATIENCE_SECONDS,
        reserve_seconds=RESERVE_SECONDS,
    )
    kit.parts.catalogue._channels[CODE] = replace(channel, guard=guard)


async def test_silence_is_told_while_the_caller_still_waits(kit: ChannelKit) -> None:
    reserving(kit)
    kit.party.plan = ["hang"]
    asked = kit.played()
    deadline_at = kit.clock.monotonic() + PATIENCE_SECONDS
    call = replace(PAYMENT, deadline_at=deadline_at)
    with context.bound(call), pytest.raises(ChannelOutcomeUnknownError):
        await kit.charge(asked)
    assert kit.clock.monotonic() < deadline_at
    assert (await kit.stored(asked.reference)).state is ChargeState.UNKNOWN


async def test_caller_without_time_is_told_that_nothing_was_sent(kit: ChannelKit) -> None:
    reserving(kit)
    asked = kit.played()
    deadline_at = kit.clock.monotonic() + RESERVE_SECONDS - 1
    call = replace(PAYMENT, deadline_at=deadline_at)
    with context.bound(call), pytest.raises(ChannelUnavailableError):
        await kit.charge(asked)
    assert kit.party.asked == []
    assert (await kit.stored(asked.reference)).state is ChargeState.NOT_SENT
    # Nothing was sent, so the same reference may be.
    assert (await kit.charge(asked)).state is ChargeState.SUCCEEDED


async def test_callback_without_time_for_a_question_is_kept(kit: ChannelKit) -> None:
    reserving(kit)
    kit.party.waits_for_payer = True
    asked = kit.played()
    await kit.charge(asked)
    kit.party.asked.clear()
    call = CallContext(deadline_at=kit.clock.monotonic() + RESERVE_SECONDS - 1)
    raw = notice(asked.reference, money=Money("USD", 7))
    with context.bound(call):
        request = HandleCallbackRequest(channel=CODE, body=raw.body)
        answer = await kit.servicer.HandleCallback(request, None)  # type: ignore[arg-type]
    assert answer.http_status == 200
    assert kit.party.asked == []
    assert await kit.verdicts(asked.reference) == ["DOUBTED"]


async def _meets(party_asked: list[str], verb: str) -> None:
    async with asyncio.timeout(10):
        while verb not in party_asked:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_caller_that_gives_up_leaves_no_charge_without_its_outcome(kit: ChannelKit) -> None:
    asked = kit.played()
    kit.party.plan = ["slow"]
    calling = asyncio.create_task(kit.charge(asked))
    await _meets(kit.party.asked, "pay")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    kit.party.release.set()
    charge = await kit.becomes(asked.reference, "SUCCEEDED")
    assert await kit.events(asked.reference) == [charge.version]
    assert kit.party.ledger.charges[asked.reference].executed == 1


@pytest.mark.parametrize("is_too_late", [False, True])
async def test_caller_that_gives_up_before_the_intent_is_stored_leaves_no_intent_unsent(
    kit: ChannelKit, is_too_late: bool
) -> None:
    """The database stalls, and the caller goes. What is then stored is sent, or surely was not."""
    asked = kit.played()
    if is_too_late:
        reserving(kit)  # when the intent is stored, there is no time left to send it
    call = replace(PAYMENT, deadline_at=kit.clock.monotonic() + RESERVE_SECONDS - 1)
    async with kit.pool.transaction() as stalled:
        await stalled.execute("LOCK TABLE charges IN EXCLUSIVE MODE")
        with context.bound(call):
            calling = asyncio.create_task(kit.charge(asked))
        await _is_locked_out(kit)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    await kit.parts.charging.drain()
    charge = await kit.stored(asked.reference)
    assert charge.state == ("NOT_SENT" if is_too_late else "SUCCEEDED")
    assert (kit.party.asked == []) == is_too_late
    assert await kit.events(asked.reference) == [charge.version]


async def _is_locked_out(kit: ChannelKit) -> None:
    async with asyncio.timeout(10):
        while not await kit.rows(  # noqa: ASYNC110
            "SELECT 1 FROM pg_locks WHERE relation = 'charges'::regclass AND NOT granted"
        ):
            await asyncio.sleep(0.005)


async def test_caller_that_gives_up_leaves_no_refund_without_its_outcome(kit: ChannelKit) -> None:
    charge = await kit.charge(kit.played())
    asked = NewRefund(
        reference=kit.new_reference("rch"),
        charge_reference=charge.reference,
        subject_id=kit.parts.ids.new("rfd"),
        words="",
        amount=Money("USD", 1),
    )
    kit.party.plan = ["slow"]
    calling = asyncio.create_task(refund_payer(kit.parts, asked, PAYMENT))
    await _meets(kit.party.asked, "refund")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    kit.party.release.set()
    await kit.parts.refunding.drain()
    refund = (await kit.parts.store.find_refunds([asked.reference]))[asked.reference]
    assert refund.state is RefundState.SUCCEEDED
    assert await kit.events(asked.reference) == [refund.version]


@pytest.mark.parametrize("has_given_up", [False, True])
async def test_stopping_waits_for_calls_under_way(
    new_kit: Callable[[], Awaitable[ChannelKit]], has_given_up: bool
) -> None:
    kit, later = await new_kit(), await new_kit()
    asked = kit.played()
    kit.party.plan = ["slow"]
    calling = asyncio.create_task(kit.charge(asked))
    await _meets(kit.party.asked, "pay")
    if has_given_up:
        calling.cancel()
    stopping = asyncio.create_task(kit.parts.drain())
    await asyncio.sleep(0)
    assert not stopping.done()
    kit.party.release.set()
    await stopping
    assert (await later.stored(asked.reference)).state is ChargeState.SUCCEEDED
    await asyncio.gather(calling, return_exceptions=True)


async def test_killed_process_leaves_a_row_that_a_question_resolves(
    new_kit: Callable[[], Awaitable[ChannelKit]],
) -> None:
    killed, later = await new_kit(), await new_kit()
    asked = killed.played()
    killed.party.plan = ["slow"]
    calling = asyncio.create_task(killed.charge(asked))
    await _meets(killed.party.asked, "pay")
    for task in (*killed.parts.charging._tasks.values(), calling):
        task.cancel()  # as nothing of a killed process goes on
    await asyncio.gather(calling, return_exceptions=True)
    assert (await later.stored(asked.reference)).state is ChargeState.UNKNOWN
    charge, _ = await query_charge(later.parts, asked.reference, PAYMENT)
    assert charge.state is ChargeState.SUCCEEDED
    assert await later.events(asked.reference) == [charge.version]
    assert (await later.charge(asked)) == charge
    assert later.party.ledger.charges[asked.reference].executed == 1


async def test_open_breaker_refuses_new_charges_and_lets_old_ones_end(kit: ChannelKit) -> None:
    breakers = Breakers(kit.clock, failures_max=2, open_seconds=PATIENCE_SECONDS)
    channel = played_channel(kit.party, kit.clock, (breakers,))
    kit.parts.catalogue._channels[CODE] = channel
    kit.party.plan = ["lost_after", "lost_after"]
    unknown = [kit.played(), kit.played()]
    for asked in unknown:
        with pytest.raises(ChannelOutcomeUnknownError):
            await kit.charge(asked)
    assert breakers.state_of(CODE) is BreakerState.OPEN
    kit.party.asked.clear()
    refused = kit.played()
    with pytest.raises(ChannelUnavailableError) as caught:
        await kit.charge(refused)
    assert caught.value.outcome == "NOT_EXECUTED"
    assert (await kit.stored(refused.reference)).state is ChargeState.NOT_SENT
    assert kit.party.asked == []
    for asked in unknown:
        charge, _ = await query_charge(kit.parts, asked.reference, PAYMENT)
        assert charge.state is ChargeState.SUCCEEDED
    assert breakers.state_of(CODE) is BreakerState.CLOSED
    assert (await kit.charge(refused)).state is ChargeState.SUCCEEDED
