"""Whether the simulation can fail at all: each safety taken away must be missed by some early seed.

Each case replaces one piece of the platform by what somebody might have written in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import Any
from unittest.mock import patch

import pytest

import services.channel.flows.charge_payer
import services.channel.flows.refund_payer
import services.payment.domain.postings
import services.payment.flows.advance_payment
from common.events.relay import Relay
from common.jobs.worker import Worker
from services.payment.domain.payments import Payment
from services.payment.domain.postings import Booked
from services.payment.peers import Peers
from tests.simulation.run import run_seed

pytestmark = pytest.mark.timeout(900)

SEEDS_MAX = 150
"""Among so many seeds one has to notice."""


async def _win(self: Peers, payment: Payment) -> bool:
    """A payment believes that it has won its order without asking."""
    return True


def claims_that_always_win() -> Any:
    return patch.object(Peers, "claim_order", _win)


def ids_made_anew_for_each_try() -> Any:
    """Transfers get another id each time, so a repeat is booked again."""

    def derive(prefix: str, parent: str, *_: object) -> str:
        tail = "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(14))
        return f"{prefix}_{parent[4:16]}{tail}"

    return patch.object(services.payment.domain.postings, "derive", derive)


def charges_sent_again_when_repeated() -> Any:
    """A repeated charge whose outcome is unknown goes to the bank once more."""
    flow = services.channel.flows.charge_payer
    return patch.object(flow, "_answer_repeat", flow._send)


def refunds_sent_again_when_repeated() -> Any:
    flow = services.channel.flows.refund_payer
    return patch.object(flow, "_answer_repeat", flow._send)


def refunds_without_a_hold() -> Any:
    """The ledger is not asked to hold anything: every hold is taken as booked."""
    post = Peers.post

    async def pretend(self: Peers, chain: Any, currency_code: str) -> Any:
        if any(posting.kind == "PENDING" for posting in chain):
            return Booked("2031-03-03")
        return await post(self, chain, currency_code)

    return patch.object(Peers, "post", pretend)


def a_relay_that_does_not_wait_for_confirms() -> Any:
    """An event that the broker never took is marked as told."""
    publish = Relay._publish

    async def hope(self: Relay, exchange: Any, envelope: Any) -> None:
        with contextlib.suppress(ConnectionError):
            await publish(self, exchange, envelope)

    return patch.object(Relay, "_publish", hope)


def a_platform_without_janitor() -> Any:
    """Nobody asks what became of it."""

    async def sleep_for_ever(self: Worker) -> None:
        await asyncio.get_running_loop().create_future()

    return patch.object(Worker, "run", sleep_for_ever)


def late_returns_that_nobody_books() -> Any:
    """What a bank gives back after a return had ended stays unknown."""

    async def nothing(parts: Any, payment: Payment) -> Payment:
        return payment

    return patch.object(services.payment.flows.advance_payment, "book_late_returns", nothing)


SAFETIES = (
    (claims_that_always_win, 4),
    (ids_made_anew_for_each_try, 2),
    (charges_sent_again_when_repeated, 16),
    (refunds_sent_again_when_repeated, 4),
    (refunds_without_a_hold, 2),
    (a_relay_that_does_not_wait_for_confirms, 15),
    (a_platform_without_janitor, 2),
    (late_returns_that_nobody_books, 5007),
)
"""What is taken away, and a seed that noticed it once: the others are tried after it."""


@pytest.mark.parametrize(
    ("take_away", "likely"), SAFETIES, ids=[one[0].__name__ for one in SAFETIES]
)
def test_a_missing_safety_is_noticed(take_away: Any, likely: int) -> None:
    with take_away():
        assert _find_failing(likely) is not None


def _find_failing(likely: int) -> str | None:
    for seed in (likely, *range(1, SEEDS_MAX + 1)):
        if violation := run_seed(seed).violation:
            return f"seed {seed}: {violation}"
    return None
