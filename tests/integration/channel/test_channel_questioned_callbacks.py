"""Questioned callbacks are told of once, and what the channel says of them when it is asked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import pytest
from channel_kit import PAYMENT, ChannelKit
from paymesh.channel.v1 import (
    CALLBACK_FINDING_NOTHING_THERE,
    CALLBACK_FINDING_REFUTED,
    CALLBACK_FINDING_STANDS,
    CallbackFinding,
    ExamineCallbackRequest,
    ExamineCallbackResponse,
)
from played_party import CODE, Standing, notice

from common import context
from common.errors import NotFoundError
from common.money import Money
from services.channel.domain import ChargeState, RefundState
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.channel.results import ChannelOutcomeUnknownError, State

USD = Money("USD", 1000)
OTHER = Money("USD", 1001)


async def examine(kit: ChannelKit, callback_id: str) -> tuple[CallbackFinding, str]:
    """Examine as payment would."""
    answer = await examined_callback(kit, callback_id)
    return answer.finding, answer.detail


async def examined_callback(kit: ChannelKit, callback_id: str) -> ExamineCallbackResponse:
    """Return all that payment is answered."""
    with context.bound(PAYMENT):
        request = ExamineCallbackRequest(callback_id=callback_id)
        return await kit.servicer.ExamineCallback(request, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PAYMENT", "REFUND"])
async def test_orphan_is_told_of_once_whoever_takes_its_copies(new_kit: object, kind: str) -> None:
    one, other = await new_kit(), await new_kit()  # type: ignore[operator]
    stray = one.new_reference()
    raw = notice(stray, money=USD, kind=kind)
    calls = [kit.call_back(CODE, raw) for kit in (one, other) for _ in range(5)]
    assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
    (event,) = await one.questioned(stray)
    assert (event.verdict, event.channel, event.reference) == ("ORPHAN", CODE, stray)
    assert (event.subject_id, event.told_state, event.money.amount_minor) == ("", "SUCCEEDED", 1000)
    assert await one.verdicts(stray) == ["ORPHAN"]


async def test_orphan_of_a_refund_names_the_payment_that_it_belongs_to(kit: ChannelKit) -> None:
    """So that whoever looks into it knows whose it is: money went back that nobody asked for."""
    charge = await kit.charge(kit.played())
    stray = kit.new_reference("rch")
    raw = notice(stray, money=USD, kind="REFUND", payment_reference=charge.reference)
    await kit.call_back(CODE, raw)
    (event,) = await kit.questioned(stray)
    assert (event.verdict, event.payment_reference) == ("ORPHAN", charge.reference)


async def test_orphan_that_another_takes_at_this_moment_is_told_of_there(kit: ChannelKit) -> None:
    """There is no row that both could lock, so only the callback's own key tells them apart."""
    stray = kit.new_reference()
    raw = notice(stray, money=USD)
    waiting = (
        "SELECT count(*) AS waiting FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    before = await kit.rows("SELECT coalesce(max(position), 0) AS last FROM outbox")
    async with kit.pool.transaction() as connection:
        await connection.execute(
            "INSERT INTO callbacks (channel, notice_id, callback_id, kind, reference, told_state,"
            " raw_code, verdict, body_digest, biz_trace_id, received_at)"
            " VALUES ($1, $2, $3, 'PAYMENT', $4, 'SUCCEEDED', '', 'ORPHAN', '', '', now())",
            CODE,
            json.loads(raw.body)["notice_id"],
            kit.parts.ids.new("cbk"),
            stray,
        )
        taking = asyncio.create_task(kit.call_back(CODE, raw))
        async with asyncio.timeout(10):
            while not (await kit.rows(waiting))[0]["waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert (await taking).status == 200
    told = await kit.rows("SELECT 1 FROM outbox WHERE position > $1", before[0]["last"])
    assert told == []


async def test_orphan_of_which_the_channel_knows_nothing_tells_of_nothing(kit: ChannelKit) -> None:
    stray = kit.new_reference()
    await kit.call_back(CODE, notice(stray, money=USD))
    (event,) = await kit.questioned(stray)
    finding, detail = await examine(kit, event.callback_id)
    assert finding == CALLBACK_FINDING_NOTHING_THERE
    assert detail == (
        "the channel says NOT_FOUND; the callback SUCCEEDED 1000 USD; we hold nothing"
    )


@pytest.mark.parametrize(
    ("state", "finding"),
    [(State.SUCCEEDED, CALLBACK_FINDING_STANDS), (State.PENDING, CALLBACK_FINDING_REFUTED)],
)
async def test_orphan_stands_when_the_channel_has_moved_money(
    kit: ChannelKit, state: State, finding: CallbackFinding
) -> None:
    stray, refund = kit.new_reference(), kit.new_reference("rch")
    kit.party.ledger.charges[stray] = Standing(state, USD)
    kit.party.ledger.refunds[refund] = Standing(state, USD)
    await kit.call_back(CODE, notice(stray, money=USD))
    await kit.call_back(CODE, notice(refund, kind="REFUND", payment_reference=stray))
    for reference in (stray, refund):
        (event,) = await kit.questioned(reference)
        assert (await examine(kit, event.callback_id))[0] == finding


async def test_reference_of_another_channel_is_asked_at_the_one_that_told(kit: ChannelKit) -> None:
    asked = kit.quick()
    await kit.charge(asked)
    await kit.call_back(CODE, notice(asked.reference, money=USD))
    (event,) = await kit.questioned(asked.reference)
    assert event.subject_id == ""
    assert (await examine(kit, event.callback_id))[0] == CALLBACK_FINDING_NOTHING_THERE


@pytest.mark.parametrize(
    ("told", "money", "truth", "finding"),
    [
        ("CLOSED", None, Standing(State.SUCCEEDED, USD), CALLBACK_FINDING_REFUTED),
        ("SUCCEEDED", OTHER, Standing(State.SUCCEEDED, USD), CALLBACK_FINDING_REFUTED),
        ("CLOSED", None, Standing(State.CLOSED, USD), CALLBACK_FINDING_STANDS),
        ("SUCCEEDED", OTHER, Standing(State.SUCCEEDED, OTHER), CALLBACK_FINDING_STANDS),
        # Neither what we hold nor what the callback told: a person has to look.
        ("CLOSED", None, Standing(State.SUCCEEDED, OTHER), CALLBACK_FINDING_STANDS),
        ("CLOSED", None, None, CALLBACK_FINDING_STANDS),
    ],
)
async def test_contradiction_of_a_success_is_examined(
    kit: ChannelKit,
    told: str,
    money: Money | None,
    truth: Standing | None,
    finding: CallbackFinding,
) -> None:
    charge = await kit.charge(kit.played())
    assert charge.state is ChargeState.SUCCEEDED
    await kit.call_back(CODE, notice(charge.reference, told, money))
    (event,) = await kit.questioned(charge.reference)
    assert (event.verdict, event.subject_id) == ("CONTRADICTED", charge.payment_id)
    if truth is None:
        del kit.party.ledger.charges[charge.reference]
    else:
        kit.party.ledger.charges[charge.reference] = truth
    assert (await examine(kit, event.callback_id))[0] == finding
    # What a person has to look into changes no fact by itself.
    assert await kit.stored(charge.reference) == charge


@pytest.mark.parametrize("takes", [USD, OTHER])
async def test_examining_finds_late_money_and_tells_of_it(kit: ChannelKit, takes: Money) -> None:
    """Held as failed, told of by a callback with another amount while nobody answered."""
    kit.party.declines = True
    asked = kit.played()
    with pytest.raises(Exception, match="refused"):
        await kit.charge(asked)
    kit.party.always = "away"
    await kit.call_back(CODE, notice(asked.reference, money=OTHER))
    (event,) = await kit.questioned(asked.reference)
    with pytest.raises(ChannelOutcomeUnknownError):
        await examine(kit, event.callback_id)
    kit.party.always = "ok"
    kit.party.ledger.charges[asked.reference] = Standing(State.SUCCEEDED, takes)
    finding, _ = await examine(kit, event.callback_id)
    charge = await kit.stored(asked.reference)
    assert charge.received == takes
    if takes == USD:
        assert (finding, charge.state) == (CALLBACK_FINDING_REFUTED, "SUCCEEDED")
    else:
        assert (finding, charge.state) == (CALLBACK_FINDING_STANDS, "CONFLICTED")
    assert await kit.events(asked.reference) == [charge.version]
    # Asked again, the answer agrees with what we hold now.
    assert (await examine(kit, event.callback_id))[0] == CALLBACK_FINDING_REFUTED


@dataclass
class RefundCase:
    """A refund that we hold as PENDING, and what is told of it."""

    truth: Standing
    finding: CallbackFinding
    state: RefundState


@pytest.mark.parametrize(
    "case",
    [
        RefundCase(Standing(State.SUCCEEDED, USD), CALLBACK_FINDING_REFUTED, RefundState.SUCCEEDED),
        RefundCase(Standing(State.SUCCEEDED, OTHER), CALLBACK_FINDING_STANDS, RefundState.PENDING),
        RefundCase(Standing(State.PENDING, USD), CALLBACK_FINDING_REFUTED, RefundState.PENDING),
        RefundCase(Standing(State.FAILED, USD), CALLBACK_FINDING_REFUTED, RefundState.FAILED),
    ],
)
async def test_refund_of_another_amount_is_examined(kit: ChannelKit, case: RefundCase) -> None:
    charge = await kit.charge(kit.played(2000))
    kit.party.processes_refunds = True
    reference = kit.new_reference("rch")
    subject_id = kit.parts.ids.new("rfd")
    asked = NewRefund(
        reference=reference,
        charge_reference=charge.reference,
        subject_id=subject_id,
        words="",
        amount=USD,
    )
    assert (await refund_payer(kit.parts, asked, PAYMENT)).state is RefundState.PENDING
    await kit.call_back(CODE, notice(reference, money=OTHER, kind="REFUND"))
    (event,) = await kit.questioned(reference)
    assert (event.verdict, event.subject_id) == ("CONTRADICTED", subject_id)
    assert await kit.events(reference) == []  # it is as open as it was
    kit.party.ledger.refunds[reference] = case.truth
    examined = await examined_callback(kit, event.callback_id)
    assert (examined.finding, examined.subject_id) == (case.finding, subject_id)
    refund = (await kit.parts.store.find_refunds([reference]))[reference]
    assert refund.state is case.state
    # Not even our own question makes a refund of another amount a success.
    refund, _ = await query_refund(kit.parts, reference, PAYMENT)
    assert refund.state is case.state


async def test_examining_what_was_never_questioned_finds_nothing(kit: ChannelKit) -> None:
    charge = await kit.charge(kit.played())
    await kit.call_back(CODE, notice(charge.reference, money=USD))
    rows = await kit.rows(
        "SELECT callback_id FROM callbacks WHERE reference = $1", charge.reference
    )
    for callback_id in (rows[0]["callback_id"], kit.parts.ids.new("cbk")):
        with pytest.raises(NotFoundError):
            await examine(kit, callback_id)
