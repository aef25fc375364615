"""Whatever is booked: the trial balance is the sum of the accounts, by subject and currency."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.account.domain.transfers import Transfer, TransferKind
from services.account.store.register import RegisterStore
from tests.integration.account.books import IDS, Books, open_books
from tests.integration.account.conftest import LedgerKit
from tests.scenarios.account.language import BASE_DATE

_ACCOUNTS = (
    ("channel_receivable", "alipay"),
    ("channel_receivable", "unionpay"),
    ("payment_transit", "platform"),
    ("merchant_pending", "shop"),
    ("merchant_pending", "cafe"),
    ("user_available", "ann"),
    ("platform_fee", "platform"),
    ("coupon_cost", "platform"),
    ("loss", "platform"),
)
_CURRENCIES = ("USD", "CNY")
_MOVEMENTS = ("payment.receive", "payment.fee", "refund.pay", "test.unheard_of")


@dataclass(frozen=True)
class Move:
    """A movement that is tried; many are refused, for funds."""

    debit: int
    credit: int
    amount_minor: int
    currency: str
    movement: str
    hold: int
    """0: at once; 1: held and left; 2: held and voided; 3: held, posted; 4: posted in part."""


_MOVES = st.builds(
    Move,
    st.integers(0, len(_ACCOUNTS) - 1),
    st.integers(0, len(_ACCOUNTS) - 1),
    st.integers(1, 10**12),
    st.sampled_from(_CURRENCIES),
    st.sampled_from(_MOVEMENTS),
    st.integers(0, 4),
)


def _transfers(books: Books, move: Move) -> list[Transfer]:
    first = books.transfer(
        _ACCOUNTS[move.debit],
        _ACCOUNTS[move.credit],
        move.amount_minor,
        currency_code=move.currency,
        movement=move.movement,
        kind=TransferKind.PENDING if move.hold else TransferKind.SINGLE,
    )
    if move.hold < 2:
        return [first]
    later = Transfer(
        IDS.new("tfr"),
        TransferKind.VOID if move.hold == 2 else TransferKind.POST,
        pending_id=first.id,
        amount_minor=(move.amount_minor + 1) // 2 if move.hold == 4 else 0,
        movement=move.movement,
        reference_id="ref",
        tenant_id=books.tenant_id,
        mode=books.mode,
    )
    return [first, later]


async def test_the_trial_balance_is_the_sum_of_the_accounts(kit: LedgerKit) -> None:
    books = await open_books(kit)
    loop = asyncio.get_running_loop()
    register = RegisterStore(kit.pool)
    runs = Counter[str]()

    async def play(moves: list[Move], rounds: int) -> None:
        runs["worlds"] += 1
        world = await books.in_world(f"world-{runs['worlds']}", "TEST")
        for currency in _CURRENCIES:
            await world.open(*_ACCOUNTS, currency=currency)
        for start in range(0, len(moves), rounds):
            # The results do not matter: what is refused must leave nothing.
            part = moves[start : start + rounds]
            await kit.ledger.post([one for move in part for one in _transfers(world, move)])
            await world.make()
        told = {
            (one.currency_code, one.subject_code): one.debits_minor - one.credits_minor
            for one in await register.sum_subjects(world.tenant_id, "TEST", BASE_DATE, BASE_DATE)
            if one.debits_minor != one.credits_minor
        }
        assert told == await _sums_of_accounts(world)
        assert sum(told.values()) == 0
        runs["subjects"] += len(told)

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        print_blob=True,
    )
    @given(st.lists(_MOVES, min_size=1, max_size=25), st.integers(1, 9))
    def run(moves: list[Move], rounds: int) -> None:
        asyncio.run_coroutine_threadsafe(play(moves, rounds), loop).result(60)

    await asyncio.to_thread(run)
    assert runs["subjects"] > 25


async def _sums_of_accounts(books: Books) -> dict[tuple[str, str], int]:
    """Debits less credits of all accounts by the subject of their kind, without those at zero."""
    async with books.ledger.pool.acquire() as connection:
        rows = await connection.fetch(
            "SELECT kind, currency_code, debits_posted_minor - credits_posted_minor AS balance"
            " FROM accounts WHERE tenant_id = $1 AND mode = $2",
            books.tenant_id,
            books.mode,
        )
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        subject = books.chart.kinds[row["kind"]].subject_code
        sums[row["currency_code"], subject] += row["balance"]
    return {key: balance for key, balance in sums.items() if balance}
