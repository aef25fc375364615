"""A process that dies at any step of a channel call or callback leaves nothing half-done for good.

Each test runs a flow again and again, dying one step later each time, before the step's effect or
after it, until it runs through. After each death the caller repeats, the channel repeats its
callback, and a question is asked, by a new process. Then the money has moved exactly once at the
party, the row agrees with the party, each callback is kept once, and no event is lost.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from channel_kit import PAYMENT, ChannelKit
from dying_parts import Breaking, Crash, Fault
from played_party import CODE, notice

from common import context
from common.context import CallContext
from common.errors import PaymeshError
from common.money import Money
from services.channel.catalogue import Channel
from services.channel.domain import Charge, Refund
from services.channel.flows.charge_payer import NewCharge, charge_payer
from services.channel.flows.close_charge import close_charge
from services.channel.flows.parts import Parts, Sending
from services.channel.flows.query_charge import query_charge
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.channel.flows.take_callback import take_callback
from services.channel.results import RawCallback, State

STEPS_MAX = 20
RIGHT = Money("USD", 1000)
OTHER = Money("USD", 1001)
LIFE = timedelta(seconds=121)


class BreakingCatalogue:
    """Channels whose guards pass through a fault."""

    def __init__(self, inner: Any, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        """Return whatever it has."""
        return getattr(self._inner, name)

    def find(self, code: str) -> Channel:
        """Return a channel behind the fault."""
        channel: Channel = self._inner.find(code)
        return replace(channel, guard=Breaking(channel.guard, self._fault))


def dying(parts: Parts, fault: Fault) -> Parts:
    """Return the parts of a process that dies."""
    broken: Any = replace(
        parts,
        store=Breaking(parts.store, fault),
        writer=Breaking(parts.writer, fault),
        catalogue=BreakingCatalogue(parts.catalogue, fault),
        cards=Breaking(parts.cards, fault),
        charging=Sending(),
        refunding=Sending(),
    )
    return broken  # type: ignore[no-any-return]


Work = Callable[[Parts], Awaitable[object]]


async def die(kit: ChannelKit, fault: Fault, work: Work) -> None:
    """Run a flow in a process that dies where the fault says."""
    with suppress(Crash, PaymeshError):
        await work(dying(kit.parts, fault))


async def call_back(kit: ChannelKit, raw: RawCallback) -> None:
    """Let the channel repeat a callback; a process that lives acknowledges it."""
    assert (await kit.call_back(CODE, raw)).status == 200


def steps(least: int) -> Callable[[Any], Any]:
    """Repeat a test with a fault one step later each time; it has at least so many steps."""

    def wrap(test: Callable[..., Awaitable[None]]) -> Any:
        @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
        async def run(kit: ChannelKit, after: bool, **named: Any) -> None:
            for step in range(STEPS_MAX):
                fault = Fault(step, after)
                await test(kit, fault, **named)
                kit.clock.ahead = timedelta()
                if not fault.has_struck:
                    break
            else:
                pytest.fail(f"the flow never ran through in {STEPS_MAX} steps")
            assert step >= least

        parameters = list(inspect.signature(test).parameters.values())[2:]
        first = list(inspect.signature(run).parameters.values())[:2]
        run.__signature__ = inspect.Signature([*first, *parameters])  # type: ignore[attr-defined]
        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return wrap


async def check(kit: ChannelKit, noun: Charge | Refund, raws: list[RawCallback]) -> None:
    """Row and party agree, callbacks are kept once, and what nobody waited for was told."""
    is_charge = isinstance(noun, Charge)
    ledger = kit.party.ledger.charges if is_charge else kit.party.ledger.refunds
    there = ledger.get(noun.reference)
    executed = 0 if there is None else there.executed
    assert executed == (noun.state == "SUCCEEDED")
    if there is None:
        assert noun.state == ("FAILED" if is_charge else "NOT_SENT")
    else:
        assert noun.state == there.state.value
    assert len(await kit.verdicts(noun.reference)) == len({raw.body for raw in raws})
    moves = await kit.rows(
        "SELECT version, reason FROM history WHERE id = $1 ORDER BY version", noun.reference
    )
    told = await kit.events(noun.reference)
    # The answer to a call goes to whoever waits for it, and repeats get it; all else is an event.
    learnt = [row["version"] for row in moves if not row["reason"].startswith(("intent", "answer"))]
    assert set(learnt) <= set(told)
    assert len(told) == len(set(told))


async def settle_charge(kit: ChannelKit, asked: NewCharge, raws: list[RawCallback]) -> Charge:
    """Go on as the world does: the caller repeats, the channel repeats, the janitor asks."""
    with suppress(PaymeshError):
        await charge_payer(kit.parts, asked, PAYMENT)
    for raw in raws:
        await call_back(kit, raw)
    charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    if is_unseen:
        kit.clock.ahead = LIFE
        charge, is_unseen = await query_charge(kit.parts, asked.reference, PAYMENT)
    assert not is_unseen
    await check(kit, charge, raws)
    return charge


@pytest.mark.parametrize("has_callback", [False, True])
@pytest.mark.parametrize("answer", ["ok", "lost_before", "lost_after", "away"])
@steps(least=3)
async def test_dying_while_charging_takes_the_money_once(
    kit: ChannelKit, fault: Fault, answer: str, has_callback: bool
) -> None:
    asked = kit.played()
    kit.party.plan = [answer]
    await die(kit, fault, lambda parts: charge_payer(parts, asked, PAYMENT))
    kit.party.plan = []
    was_taken = asked.reference in kit.party.ledger.charges
    raws = [notice(asked.reference, money=RIGHT)] if has_callback and was_taken else []
    await settle_charge(kit, asked, raws)


async def unpaid(kit: ChannelKit, *, is_paid: bool) -> NewCharge:
    """Return a code that waits for its payer, as far as we know."""
    kit.party.waits_for_payer = True
    asked = kit.played()
    await kit.charge(asked)
    if is_paid:
        kit.party.payer_pays(asked.reference)
    return asked


@steps(least=3)
async def test_dying_while_asking_changes_nothing_of_the_answer(
    kit: ChannelKit, fault: Fault
) -> None:
    asked = await unpaid(kit, is_paid=True)
    await die(kit, fault, lambda parts: query_charge(parts, asked.reference, PAYMENT))
    await settle_charge(kit, asked, [])


@pytest.mark.parametrize("is_paid", [False, True])
@steps(least=3)
async def test_dying_while_closing_ends_as_the_party_has_it(
    kit: ChannelKit, fault: Fault, is_paid: bool
) -> None:
    asked = await unpaid(kit, is_paid=is_paid)
    await die(kit, fault, lambda parts: close_charge(parts, asked.reference, PAYMENT))
    charge, _ = await close_charge(kit.parts, asked.reference, PAYMENT)
    assert charge.state == ("SUCCEEDED" if is_paid else "CLOSED")
    await settle_charge(kit, asked, [])


CALLBACKS: dict[str, tuple[str, Money | None]] = {
    "good": ("SUCCEEDED", RIGHT),
    "wrong amount": ("SUCCEEDED", OTHER),
    "closed": ("CLOSED", None),
    "waiting": ("PENDING", RIGHT),
}


@pytest.mark.parametrize("name", list(CALLBACKS))
@steps(least=2)
async def test_dying_while_taking_a_callback_takes_it_once(
    kit: ChannelKit, fault: Fault, name: str
) -> None:
    asked = await unpaid(kit, is_paid=True)
    raw = notice(asked.reference, *CALLBACKS[name])

    async def take(parts: Parts) -> None:
        with context.bound(CallContext()):
            await take_callback(parts, CODE, raw)

    await die(kit, fault, take)
    charge = await settle_charge(kit, asked, [raw, raw])
    assert charge.received == RIGHT
    questioned = await kit.questioned(asked.reference)
    assert len(questioned) == (name in ("wrong amount", "closed"))


@pytest.mark.parametrize("kind", ["PAYMENT", "REFUND"])
@steps(least=2)
async def test_dying_while_taking_an_orphan_tells_of_it_once(
    kit: ChannelKit, fault: Fault, kind: str
) -> None:
    stray = kit.new_reference()
    raw = notice(stray, money=RIGHT, kind=kind)
    await die(kit, fault, lambda parts: take_callback(parts, CODE, raw))
    await call_back(kit, raw)
    assert await kit.verdicts(stray) == ["ORPHAN"]
    assert len(await kit.questioned(stray)) == 1


@pytest.mark.parametrize("name", ["wrong amount", "closed"])
@steps(least=5)
async def test_dying_while_a_doubted_callback_is_not_answered_loses_nothing(
    kit: ChannelKit, fault: Fault, name: str
) -> None:
    """The question fails, the process dies, and the channel repeats: the row is told of."""
    asked = await unpaid(kit, is_paid=True)
    raw = notice(asked.reference, *CALLBACKS[name])
    kit.party.always = "away"
    await die(kit, fault, lambda parts: take_callback(parts, CODE, raw))
    await call_back(kit, raw)
    kit.party.always = "ok"
    assert await kit.verdicts(asked.reference) == ["DOUBTED"]
    assert await kit.events(asked.reference) == [(await kit.stored(asked.reference)).version]
    await settle_charge(kit, asked, [raw])


async def new_refund(kit: ChannelKit) -> NewRefund:
    """Return a wish to give part of a new charge back."""
    kit.party.waits_for_payer = False
    charge = await kit.charge(kit.played())
    return NewRefund(
        reference=kit.new_reference("rch"),
        charge_reference=charge.reference,
        subject_id=kit.parts.ids.new("rfd"),
        words="",
        amount=Money("USD", 400),
    )


async def settle_refund(kit: ChannelKit, asked: NewRefund, raws: list[RawCallback]) -> Refund:
    """Go on as the world does, until the refund is through or was refused."""
    with suppress(PaymeshError):
        await refund_payer(kit.parts, asked, PAYMENT)
    for raw in raws:
        await call_back(kit, raw)
    refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
    if is_unseen:
        kit.clock.ahead = LIFE
        refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
        assert is_unseen
        refund = await refund_payer(kit.parts, asked, PAYMENT)
    await check(kit, refund, raws)
    return refund


@pytest.mark.parametrize("has_callback", [False, True])
@pytest.mark.parametrize("answer", ["ok", "lost_before", "lost_after", "away"])
@steps(least=3)
async def test_dying_while_giving_back_gives_once(
    kit: ChannelKit, fault: Fault, answer: str, has_callback: bool
) -> None:
    asked = await new_refund(kit)
    kit.party.plan = [answer]
    await die(kit, fault, lambda parts: refund_payer(parts, asked, PAYMENT))
    kit.party.plan = []
    was_given = asked.reference in kit.party.ledger.refunds
    raws = [notice(asked.reference, kind="REFUND")] if has_callback and was_given else []
    refund = await settle_refund(kit, asked, raws)
    assert refund.state == "SUCCEEDED"


@pytest.mark.parametrize("is_refused", [False, True])
@pytest.mark.parametrize("learn", ["query", "callback"])
@steps(least=4)
async def test_dying_while_a_refund_in_processing_ends_agrees_with_the_party(
    kit: ChannelKit, fault: Fault, learn: str, is_refused: bool
) -> None:
    kit.party.processes_refunds = True
    asked = await new_refund(kit)
    await refund_payer(kit.parts, asked, PAYMENT)
    kit.party.end_refund(asked.reference, is_refused=is_refused)
    # A callback that the answer to our question denies is questioned; here it is about a refusal.
    raw = notice(asked.reference, "FAILED", kind="REFUND")

    async def work(parts: Parts) -> None:
        if learn == "query":
            await query_refund(parts, asked.reference, PAYMENT)
        else:
            await take_callback(parts, CODE, raw)

    await die(kit, fault, work)
    refund = await settle_refund(kit, asked, [raw] if learn == "callback" else [])
    assert refund.state == ("FAILED" if is_refused else "SUCCEEDED")
    denied = learn == "callback" and not is_refused
    assert len(await kit.questioned(asked.reference)) == denied
    assert kit.party.ledger.refunds[asked.reference].state is State(refund.state)
