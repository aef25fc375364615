"""Every fault that the parties can commit, over their real protocols: rows and parties agree.

The caller repeats, the payer scans, the channel calls back, a question is asked, as they would.
Which callbacks are questioned, and what examining them finds, follows from the fault alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
from channel_kit import PAYMENT, ChannelKit
from outside_parties import fault, misbehave

from common.errors import PaymeshError
from common.money import Money
from services.channel.domain import Charge, Refund
from services.channel.flows.close_charge import close_charge
from services.channel.flows.examine_callback import examine_callback
from services.channel.flows.query_charge import query_charge
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import NewRefund, refund_payer
from services.sandbox.faults.plan import FaultKind
from services.sandbox.movements import list_movements

LIFE = timedelta(seconds=121)
DELAY_MS = 100
QUESTIONED = {
    FaultKind.CALLBACK_CONTRADICTORY: {("CONTRADICTED", "REFUTED")},
    FaultKind.CALLBACK_WRONG_AMOUNT: {("CONTRADICTED", "REFUTED")},
    FaultKind.CALLBACK_UNKNOWN_REFERENCE: {("ORPHAN", "NOTHING_THERE")},
}
"""What may be questioned, and what comes of it: always that we were right."""

BOTH = pytest.mark.parametrize("product", ["card", "code"])


@pytest.fixture
async def kit(kit: ChannelKit) -> AsyncIterator[ChannelKit]:
    """A service whose parties behave again at the end."""
    yield kit
    await misbehave(kit.sandbox)


async def charge_to_the_end(kit: ChannelKit, product: str) -> Charge:
    """Pay as caller and payer would, whatever goes wrong."""
    asked = kit.quick(1000) if product == "card" else kit.qr(1000)
    for _ in range(3):
        with suppress(PaymeshError):
            charge = await kit.charge(asked)
            if charge.qr_content and charge.state == "PENDING":
                await kit.scan(charge.qr_content)
            break
    return await ask_charge(kit, asked.reference)


async def ask_charge(kit: ChannelKit, reference: str) -> Charge:
    """Ask until an answer comes; what the channel does not know ends with its request's life."""
    await settled(kit)
    async with asyncio.timeout(10):
        while True:
            with suppress(PaymeshError):
                charge, is_unseen = await query_charge(kit.parts, reference, PAYMENT)
                if charge.state == "PENDING":
                    charge, is_unseen = await close_charge(kit.parts, reference, PAYMENT)
                if is_unseen:
                    kit.clock.ahead = LIFE
                elif charge.state not in ("UNKNOWN", "PENDING"):
                    return charge
            await asyncio.sleep(0.02)


async def refund_to_the_end(kit: ChannelKit, charge: Charge, amount: Money) -> Refund:
    """Give back as payment would, whatever goes wrong."""
    asked = NewRefund(
        reference=kit.new_reference("rch"),
        charge_reference=charge.reference,
        subject_id=kit.parts.ids.new("rfd"),
        words="",
        amount=amount,
    )
    async with asyncio.timeout(10):
        while True:
            with suppress(PaymeshError):
                await refund_payer(kit.parts, asked, PAYMENT)
            await settled(kit)
            with suppress(PaymeshError):
                refund, is_unseen = await query_refund(kit.parts, asked.reference, PAYMENT)
                if refund.state in ("SUCCEEDED", "FAILED"):
                    return refund
                if is_unseen:
                    kit.clock.ahead = LIFE
            await asyncio.sleep(0.02)


async def settled(kit: ChannelKit) -> None:
    """Wait until no callback is owed."""
    query = "SELECT count(*) FROM notices WHERE acknowledged_at IS NULL"
    async with asyncio.timeout(10):
        while (await kit.sandbox.store.run(lambda db: db.execute(query).fetchone()))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def moved(kit: ChannelKit, reference: str) -> list[Money]:
    """Return what the parties really moved under a reference."""
    found = await kit.sandbox.store.run(lambda db: list_movements(db, after=0, limit=100_000))
    return [one.money for one in found if one.reference == reference]


async def examine_all(kit: ChannelKit, since: int) -> set[tuple[str, str]]:
    """Examine what was questioned since; return verdicts and findings."""
    rows = await kit.rows(
        "SELECT aggregate_id FROM outbox WHERE type = 'channel.callback.questioned.v1'"
        " AND position > $1",
        since,
    )
    found = set()
    for row in rows:
        callback = await kit.parts.store.find_callback(row["aggregate_id"])
        assert callback is not None
        examined = await examine_callback(kit.parts, row["aggregate_id"], PAYMENT)
        found.add((callback.verdict.value, examined.finding.value))
    return found


async def position(kit: ChannelKit) -> int:
    """Return where the outbox stands."""
    rows = await kit.rows("SELECT coalesce(max(position), 0) AS last FROM outbox")
    return int(rows[0]["last"])


@BOTH
@pytest.mark.parametrize("kind", list(FaultKind))
async def test_charge_under_fault_ends_as_the_party_has_it(
    kit: ChannelKit, product: str, kind: FaultKind
) -> None:
    since = await position(kit)
    if kind is not FaultKind.REFUND_REFUSED:
        await misbehave(kit.sandbox, fault(kind, delay_ms=DELAY_MS, hits_max=2))
    charge = await charge_to_the_end(kit, product)
    await misbehave(kit.sandbox)
    there = await moved(kit, charge.reference)
    assert there == ([charge.received] if charge.received else [])
    if kind is FaultKind.WRONG_AMOUNT:
        assert charge.state == "CONFLICTED"
    elif kind is FaultKind.DECLINE:
        assert charge.state in ("FAILED", "CLOSED")
    elif not kind.value.startswith(("ANSWER_LOST", "OUTAGE")):
        assert charge.state == "SUCCEEDED"
    assert await examine_all(kit, since) == QUESTIONED.get(kind, set())
    assert await kit.stored(charge.reference) == charge


@BOTH
@pytest.mark.parametrize("kind", list(FaultKind))
async def test_refund_under_fault_ends_as_the_party_has_it(
    kit: ChannelKit, product: str, kind: FaultKind
) -> None:
    charge = await charge_to_the_end(kit, product)
    assert charge.state == "SUCCEEDED"
    await settled(kit)
    since = await position(kit)
    await misbehave(kit.sandbox, fault(kind, delay_ms=DELAY_MS, hits_max=2))
    refund = await refund_to_the_end(kit, charge, Money("USD", 400))
    await misbehave(kit.sandbox)
    there = await moved(kit, refund.reference)
    assert there == ([refund.amount] if refund.state == "SUCCEEDED" else [])
    assert (refund.state == "FAILED") == (kind is FaultKind.REFUND_REFUSED)
    assert await examine_all(kit, since) <= QUESTIONED.get(kind, set())
    assert await kit.stored(charge.reference) == charge


@BOTH
async def test_conflict_goes_back_as_what_was_received(kit: ChannelKit, product: str) -> None:
    await misbehave(kit.sandbox, fault(FaultKind.WRONG_AMOUNT))
    charge = await charge_to_the_end(kit, product)
    await misbehave(kit.sandbox)
    assert charge.state == "CONFLICTED"
    assert charge.received is not None
    assert charge.received != charge.amount
    refund = await refund_to_the_end(kit, charge, charge.received)
    assert refund.state == "SUCCEEDED"
    assert await moved(kit, refund.reference) == [charge.received]
