"""Reading an account's past tells what its entries tell, whenever and however it is asked.

Random histories with drained credits that came late, transactions that committed late and days
that ended in between are compared with plain sums over all their lines.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from common.clock import SystemClock
from common.db.pool import Pool, SessionSettings, open_pool
from common.ids import IdFactory
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer
from services.account.flows.drain_buffers import drain_account
from services.account.flows.read_statements import (
    Reader,
    StatementPage,
    read_balance_at,
    read_statement,
)
from services.account.store.buffers import BufferStore
from services.account.store.partitions import PartitionKeeper
from services.account.store.rows import QUERIES
from services.account.store.statements import StatementStore
from tests.integration.account.conftest import LedgerKit
from tests.integration.account.written_history import (
    FIRST_DAY,
    ONE_DAY,
    History,
    Line,
    make_history,
    write_history,
)

READER = Reader("default", "TEST")
IDS = IdFactory(SystemClock())
WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def no_drain(_: str) -> None:
    """The histories are read as they were written."""


@pytest.fixture
async def pool(ledger_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(ledger_url, SessionSettings("account"), connections_max=2)
    await PartitionKeeper(pool).prepare(SystemClock().now())
    yield pool
    await pool.close()


def _sums(lines: list[Line]) -> tuple[int, int]:
    return (
        sum(line.amount_minor for line in lines if line.is_debit),
        sum(line.amount_minor for line in lines if not line.is_debit),
    )


async def _read_all(
    store: StatementStore, history: History, days: tuple[date, date], limit: int
) -> list[StatementPage]:
    pages: list[StatementPage] = []
    place = None
    while not pages or place is not None:
        page = await read_statement(
            store, no_drain, READER, history.account_id, days, place=place, limit=limit
        )
        place = page.next_place
        pages.append(page)
    return pages


@pytest.mark.parametrize("seed", range(25))
async def test_reading_a_balance_at_any_instant_gives_what_was_booked_until_then(
    pool: Pool, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    history = make_history(IDS.new("tst"), chance, chance.randint(0, 150))
    await write_history(pool, history)
    store = StatementStore(pool)
    instants = [line.at for line in history.known()] + [history.now]
    instants += [line.booked_at for line in history.lines if line.booked_at is not None]
    for _ in range(60):
        at = chance.choice(instants) + timedelta(
            microseconds=chance.choice((-1, 0, 0, 1, -3_000_000, 60_000_000, -(10**12), 10**12))
        )
        until = [line for line in history.known() if line.at <= at]
        account, sums = await read_balance_at(store, no_drain, READER, history.account_id, at)
        assert (sums.debits_minor, sums.credits_minor) == _sums(until), at
        assert sums.balance_minor(account.normal_side) == sum(line.minor for line in until)


@pytest.mark.parametrize("seed", range(25))
async def test_reading_a_statement_adds_up_and_pages_hold_each_entry_once(
    pool: Pool, seed: int
) -> None:
    chance = random.Random(1000 + seed)  # noqa: S311 - repeatable, not secret
    history = make_history(IDS.new("tst"), chance, chance.randint(0, 200))
    await write_history(pool, history)
    store = StatementStore(pool)
    last_day = (history.today - FIRST_DAY).days
    for _ in range(12):
        first, last = sorted(chance.choices(range(-2, last_day + 3), k=2))
        from_on, to_on = FIRST_DAY + first * ONE_DAY, FIRST_DAY + last * ONE_DAY
        pages = await _read_all(store, history, (from_on, to_on), chance.choice((1, 3, 1000)))
        wanted = [line for line in history.lines if from_on <= line.business_date <= to_on]
        before = [line for line in history.lines if line.business_date < from_on]
        told = [line for page in pages for line in page.lines]
        assert [(line.version, line.transfer_id) for line in told] == [
            (line.version, line.transfer_id) for line in wanted
        ]
        for head in (page.head for page in pages):
            opening, closing = head.opening, head.closing
            assert (opening.debits_minor, opening.credits_minor) == _sums(before)
            assert (closing.debits_minor, closing.credits_minor) == _sums(before + wanted)
            assert head.entries == len(wanted)


async def test_reading_a_balance_of_now_waits_for_a_credit_that_is_being_appended(
    pool: Pool,
) -> None:
    history = make_history(IDS.new("tst"), random.Random(7), 20)  # noqa: S311 - no secret
    await write_history(pool, history)
    store = StatementStore(pool)
    writer = await pool.connect()
    await writer.execute("BEGIN")
    await writer.fetch(
        "SELECT id FROM accounts WHERE book = 0 AND id = $1 FOR KEY SHARE", history.account_id
    )
    at = await writer.fetchval("SELECT clock_timestamp()")
    reading = asyncio.create_task(read_balance_at(store, no_drain, READER, history.account_id, at))
    async with asyncio.timeout(30):
        while not await writer.fetchval(WAITING):  # noqa: ASYNC110 - the server has the state
            await asyncio.sleep(0.01)
    assert not reading.done()
    await writer.execute(
        "INSERT INTO buffered_credits"
        " (book, business_date, amount_minor, booked_at, account_id, transfer_id)"
        " VALUES (0, $1, 1000, $2, $3, 'tfr_late')",
        FIRST_DAY,
        at,
        history.account_id,
    )
    await writer.execute("COMMIT")
    await writer.close()
    _, sums = await reading
    assert sums.credits_minor == _sums(history.known())[1] + 1000


async def test_a_credit_that_waited_for_its_turn_is_not_booked_at_an_instant_that_was_told(
    kit: LedgerKit,
) -> None:
    """Who changes the account comes between the locks of a batch that appends to its buffer."""
    specs = [
        AccountSpec(IDS.new("acc"), "channel", "channel_receivable", "USD"),
        AccountSpec(IDS.new("acc"), "shop", "merchant_pending", "USD", is_buffered=True),
    ]
    receivable, shop = await kit.open(specs)
    order = Transfer(
        IDS.new("tfr"),
        debit_account_id=receivable.id,
        credit_account_id=shop.id,
        currency_code="USD",
        amount_minor=10,
        movement="test.move",
        reference_id="ref",
    )
    await kit.ledger.post([order])  # from now on it knows that the shop is buffered
    store, buffers = StatementStore(kit.pool), BufferStore(kit.pool)
    reader = Reader("default", "LIVE")

    async def balance_at(at: datetime) -> int:
        _, sums = await read_balance_at(
            store, lambda one: drain_account(buffers, 0, one), reader, shop.id, at
        )
        return sums.credits_minor

    changing = await kit.pool.connect()
    await changing.execute("BEGIN")
    await changing.execute(QUERIES["queue_for_account"], shop.id)
    posting = asyncio.create_task(kit.ledger.post([replace(order, id=IDS.new("tfr"))]))
    async with asyncio.timeout(30):
        while not await changing.fetchval(WAITING):  # noqa: ASYNC110 - the server has the state
            await asyncio.sleep(0.01)
    at = await changing.fetchval("SELECT clock_timestamp()")
    told = await balance_at(at)
    await changing.execute("ROLLBACK")
    await changing.close()
    (later,) = await posting
    assert later.is_buffered
    assert later.booked_at is not None
    assert later.booked_at > at
    assert (told, await balance_at(at), await balance_at(later.booked_at)) == (10, 10, 20)
