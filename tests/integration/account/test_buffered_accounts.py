"""Buffered accounts: many writers, a drain beside them, and sums that fit at every instant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from common.clock import SystemClock
from common.errors import FieldInvalidError, StateConflictError, VersionConflictError
from common.ids import IdFactory
from services.account.domain.accounts import Account, AccountSpec, AccountStatus
from services.account.domain.bookings import unclaimed_account_id
from services.account.domain.transfers import Transfer, TransferKind, TransferStatus
from services.account.flows.change_account import (
    ChangeRequest,
    set_account_buffering,
    set_account_status,
)
from services.account.flows.drain_buffers import drain_account, drain_buffers
from services.account.store.buffers import BufferStore, drain_locked
from services.account.store.rows import QUERIES
from tests.integration.account.conftest import LedgerKit, NewKit

IDS = IdFactory(SystemClock())
_LOST = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_SUMS = """
SELECT (SELECT sum(debits_posted_minor) - sum(credits_posted_minor) FROM accounts),
       (SELECT coalesce(sum(amount_minor), 0) FROM buffered_credits),
       (SELECT credits_posted_minor FROM accounts WHERE id = $1),
       (SELECT coalesce(sum(amount_minor), 0) FROM buffered_credits WHERE account_id = $1),
       (SELECT coalesce(sum(booked_minor), 0) FROM transfers
        WHERE credit_account_id = $1 AND status = 'BOOKED' AND redirected_to IS NULL)
"""


@pytest.fixture
async def parties(kit: LedgerKit) -> tuple[Account, Account]:
    """A receivable that may go below zero, and a shop's buffered account."""
    specs = [
        AccountSpec(IDS.new("acc"), "channel", "channel_receivable", "USD"),
        AccountSpec(IDS.new("acc"), "shop", "merchant_pending", "USD", is_buffered=True),
    ]
    receivable, shop = await kit.open(specs)
    return receivable, shop


def _move(debit: Account, credit: Account, amount: int = 10, **changes: object) -> Transfer:
    made = Transfer(
        IDS.new("tfr"),
        debit_account_id=debit.id,
        credit_account_id=credit.id,
        currency_code="USD",
        amount_minor=amount,
        movement="test.move",
        reference_id="ref",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


async def _read(kit: LedgerKit, account: Account) -> Account:
    return (await kit.accounts.read(0, [account.id]))[account.id]


def _change(account: Account, **changes: object) -> ChangeRequest:
    made = ChangeRequest(account.id, IDS.new("req"), account.version, "asked for", "OPERATOR:jane")
    return replace(made, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def _running(*loops: asyncio.Task[None]) -> AsyncIterator[None]:
    """Tasks that run until the block ends; what one of them raises is raised."""
    try:
        yield
    finally:
        for task in loops:
            task.cancel()
        ended = await asyncio.gather(*loops, return_exceptions=True)
    for one in ended:
        if isinstance(one, Exception):
            raise one


async def test_crediting_a_buffered_account_waits_in_its_buffer_until_drained(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, shop = parties
    results = await kit.ledger.post([_move(receivable, shop, amount) for amount in (1, 2, 3)])
    assert [(r.status, r.is_buffered) for r in results] == [(TransferStatus.BOOKED, True)] * 3
    before = await _read(kit, shop)
    assert (before.buffered_minor, before.available_minor, before.version) == (6, 0, 1)
    assert kit.ledger.appended.is_set()
    totals = {t.kind: t for t in await kit.reading.sum_accounts("default", "LIVE")}
    assert totals["merchant_pending"].credits_buffered_minor == 6
    await kit.assert_books_fit()
    assert await drain_account(BufferStore(kit.pool), 0, shop.id) == 3
    after = await _read(kit, shop)
    assert (after.buffered_minor, after.available_minor, after.version) == (0, 6, 4)
    async with kit.pool.acquire() as connection:
        rows = await connection.fetch(
            "SELECT version, amount_minor, credits_posted_minor, appended_at, booked_at,"
            " business_date FROM entries WHERE account_id = $1 ORDER BY version",
            shop.id,
        )
    assert [(r["version"], r["amount_minor"], r["credits_posted_minor"]) for r in rows] == [
        (2, 1, 1),
        (3, 2, 3),
        (4, 3, 6),
    ]
    assert {r["appended_at"] for r in rows} == {results[0].booked_at}
    assert all(r["booked_at"] > r["appended_at"] for r in rows)
    assert {r["business_date"] for r in rows} == {results[0].business_date}
    assert await drain_buffers(BufferStore(kit.pool), 0) == 0
    await kit.assert_books_fit()


@pytest.mark.parametrize("kind", ["channel_receivable", "unclaimed"])
async def test_buffering_an_account_that_grows_by_debits_or_is_asked_back_is_refused(
    kit: LedgerKit, kind: str
) -> None:
    spec = AccountSpec(IDS.new("acc"), "c", kind, "USD", is_buffered=True)
    with pytest.raises(FieldInvalidError) as refused:
        await kit.open([spec])
    assert refused.value.metadata["field"] == "accounts[0].is_buffered"
    [opened] = await kit.open([replace(spec, is_buffered=False)])
    with pytest.raises(FieldInvalidError) as refused:
        await set_account_buffering(kit.pool, kit.accounts, _change(opened), is_buffered=True)
    assert refused.value.metadata["field"] == "is_buffered"


async def test_crediting_from_two_writers_waits_for_neither_of_them_nor_for_the_drain(
    new_kit: NewKit, kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    """One writer and one drain are kept from ending; the other writer's credits are booked."""
    receivable, shop = parties
    other = await new_kit()
    [mine] = await kit.open([_another(receivable)])
    await other.ledger.post([_move(mine, shop)])  # from now on it knows that the shop is buffered
    async with kit.pool.transaction() as writing:
        await writing.fetch(QUERIES["share_accounts"], 0, [shop.id])
        async with kit.pool.transaction() as draining:
            await draining.execute(QUERIES["lock_buffer"], 0, shop.id)
            assert await drain_locked(draining, 0, shop.id) == 1
            async with asyncio.timeout(20):
                [result] = await other.ledger.post([_move(mine, shop)])
    assert result.is_buffered
    assert (await _read(kit, shop)).buffered_minor == 10


def _another(account: Account) -> AccountSpec:
    """Another account of the same kind."""
    return AccountSpec(IDS.new("acc"), "another", account.kind, account.currency_code)


async def test_reading_while_writers_and_the_drain_run_finds_no_money_missing(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    """Two writers, a drain beside each, debits in between: each snapshot adds up."""
    kits = [await new_kit() for _ in range(2)]
    receivable, shop = parties
    own = await kits[0].open([_another(receivable) for _ in range(4)])
    done = asyncio.Event()
    booked = 0

    async def write(kit: LedgerKit, payer: Account) -> None:
        nonlocal booked
        while not done.is_set():
            orders = [_move(payer, shop, amount) for amount in range(1, 6)]
            orders.append(_move(shop, payer, 7, balancing_debit=True))
            results = await kit.ledger.post(orders)
            booked += sum(r.booked_minor for r in results if r.is_buffered)

    async def drain(kit: LedgerKit) -> None:
        store = BufferStore(kit.pool)
        while not done.is_set():
            await drain_buffers(store, 0)
            await asyncio.sleep(0.002)

    writers = [asyncio.create_task(write(kits[i % 2], payer)) for i, payer in enumerate(own)]
    drains = [asyncio.create_task(drain(kit)) for kit in kits]
    seen_waiting = 0
    async with _running(*drains):
        for _ in range(150):
            async with kits[0].pool.transaction(isolation="repeatable_read") as connection:
                row = await connection.fetchrow(_SUMS, shop.id)
            assert row is not None
            difference, waiting, posted, own_waiting, credited = map(int, row)
            assert difference == waiting, "debits and credits differ"
            assert posted + own_waiting == credited, "a credit is missing or there twice"
            seen_waiting += waiting > 0
        done.set()
        await asyncio.gather(*writers)
    assert seen_waiting, "no snapshot saw a buffer with something in it"
    await drain_buffers(BufferStore(kits[0].pool), 0)
    after = await _read(kits[0], shop)
    assert (after.credits_posted_minor, after.buffered_minor) == (booked, 0)
    await kits[0].assert_books_fit()


async def test_crediting_the_same_from_many_writers_appends_it_once(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    """Copies of an order meet in different processes, some before and some after a drain."""
    kits = [await new_kit() for _ in range(3)]
    store = BufferStore(kits[0].pool)
    orders = [_move(*parties, 1) for _ in range(40)]
    draining = asyncio.create_task(drain_account(store, 0, parties[1].id))
    first = await asyncio.gather(*(kit.ledger.post(orders) for kit in kits))
    await draining
    await drain_account(store, 0, parties[1].id)
    again = await kits[2].ledger.post(orders)
    for place, order in enumerate(orders):
        told = [answer[place] for answer in (*first, again)]
        assert {(r.transfer_id, r.status, r.is_buffered, r.booked_at) for r in told} == {
            (order.id, TransferStatus.BOOKED, True, told[0].booked_at)
        }
        assert sum(not r.replayed for r in told) == 1
    assert (await _read(kits[0], parties[1])).available_minor == 40
    await kits[0].assert_books_fit()


async def test_draining_from_many_sides_posts_each_credit_once(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    """Drains that overlap with each other and with writers leave gapless running sums."""
    kits = [await new_kit() for _ in range(3)]
    receivable, shop = parties
    drained = 0
    for _ in range(6):
        orders = [_move(receivable, shop, amount) for amount in range(1, 21)]
        posting = asyncio.create_task(kits[0].ledger.post(orders))
        drains = [drain_account(BufferStore(kit.pool), 0, shop.id) for kit in kits * 2]
        drained += sum(await asyncio.gather(*drains))
        await posting
    drained += await drain_account(BufferStore(kits[0].pool), 0, shop.id)
    assert drained == 6 * 20
    assert (await _read(kits[0], shop)).available_minor == 6 * sum(range(1, 21))
    await kits[0].assert_books_fit()


class _FilledAgain(BufferStore):
    """A store whose buffers are never found empty: each is credited once it was drained."""

    def __init__(self, kit: LedgerKit, credit: Callable[[str], Transfer]) -> None:
        super().__init__(kit.pool)
        self._kit, self._credit = kit, credit
        self.drained: list[str] = []

    async def drain(self, book: int, account_id: str) -> int:
        moved = await super().drain(book, account_id)
        self.drained.append(account_id)
        await self._kit.ledger.post([self._credit(account_id)])
        return moved


async def test_draining_buffers_that_are_always_filled_again_ends_and_leaves_out_none(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, shop = parties
    shops = await kit.open([replace(_another(shop), is_buffered=True) for _ in range(5)])
    await drain_buffers(BufferStore(kit.pool), 0)

    def credit(account_id: str) -> Transfer:
        return _move(receivable, shop, 10, credit_account_id=account_id)

    await kit.ledger.post([credit(one.id) for one in shops])
    store = _FilledAgain(kit, credit)
    async with asyncio.timeout(30):
        assert await drain_buffers(store, 0, accounts_max=2) == len(shops)
    assert store.drained == sorted(one.id for one in shops)


async def test_losing_the_connection_in_mid_drain_leaves_the_buffer_as_it_was(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, shop = parties
    await kit.ledger.post([_move(receivable, shop) for _ in range(5)])
    connection = await kit.pool.connect()
    await connection.execute("BEGIN")
    await connection.execute(QUERIES["lock_buffer"], 0, shop.id)
    assert await drain_locked(connection, 0, shop.id) == 5
    async with kit.pool.acquire() as admin:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await admin.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(_LOST):
        await connection.execute("COMMIT")
    connection.terminate()
    assert (await _read(kit, shop)).buffered_minor == 50
    await kit.assert_books_fit()
    assert await drain_account(BufferStore(kit.pool), 0, shop.id) == 5
    assert (await _read(kit, shop)).available_minor == 50


async def test_losing_connections_while_crediting_and_draining_loses_no_credit(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    """Sessions are ended again and again; each order is answered once, and its money is there."""
    kit, other = await new_kit(), await new_kit()
    receivable, shop = parties
    store = BufferStore(other.pool)
    done = asyncio.Event()

    async def drain() -> None:
        while not done.is_set():
            try:
                await drain_buffers(store, 0)
            except _LOST:
                await asyncio.sleep(0.01)

    async def end_sessions() -> None:
        admin = await asyncpg.connect(kit.url)
        try:
            while not done.is_set():
                await admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    " AND query LIKE ANY (ARRAY['%buffered_credits%', 'COMMIT%'])"
                )
                await asyncio.sleep(0.02)
        finally:
            await admin.close()

    async def send(number: int) -> None:
        order = _move(receivable, shop, number)
        [first] = await kit.ledger.post([order])
        [again] = await kit.ledger.post([order])
        assert (first.status, again.status, again.booked_minor) == ("BOOKED", "BOOKED", number)

    beside = [asyncio.create_task(drain()), asyncio.create_task(end_sessions())]
    for start in range(1, 61, 20):
        await asyncio.gather(*(send(number) for number in range(start, start + 20)))
    done.set()
    await asyncio.gather(*beside)
    fresh = await new_kit()
    await drain_buffers(BufferStore(fresh.pool), 0)
    assert (await _read(fresh, shop)).available_minor == sum(range(1, 61))
    await fresh.assert_books_fit()


async def test_freezing_credits_while_writers_append_leaves_nothing_behind_in_the_buffer(
    new_kit: NewKit, kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    """What was appended before the freeze is posted with it; what comes after goes elsewhere."""
    writers = [await new_kit() for _ in range(2)]
    receivable, shop = parties
    unclaimed = AccountSpec(unclaimed_account_id(shop), "platform", "unclaimed", "USD")
    await kit.open([unclaimed])
    own = await kit.open([_another(receivable) for _ in range(2)])
    done = asyncio.Event()

    async def write(writer: LedgerKit, payer: Account) -> tuple[int, int]:
        buffered = redirected = 0
        while not done.is_set():
            for result in await writer.ledger.post([_move(payer, shop, 1) for _ in range(3)]):
                assert result.status == TransferStatus.BOOKED
                buffered += result.is_buffered
                redirected += result.redirected_to == unclaimed.id
        return buffered, redirected

    tasks = [asyncio.create_task(write(w, p)) for w, p in zip(writers, own, strict=True)]
    while (await _read(kit, shop)).buffered_minor < 20:  # noqa: ASYNC110 - a bound is the test's
        await asyncio.sleep(0.002)
    async with asyncio.timeout(30):
        frozen = await _until_changed(kit, shop, AccountStatus.CREDIT_FROZEN)
    assert frozen.buffered_minor == 0
    while not (await kit.accounts.read(0, [unclaimed.id]))[unclaimed.id].credits_posted_minor:  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    done.set()
    counts = await asyncio.gather(*tasks)
    after = await _read(kit, shop)
    assert (after.credits_posted_minor, after.buffered_minor) == (sum(b for b, _ in counts), 0)
    assert after.version == frozen.version
    [elsewhere] = (await kit.accounts.read(0, [unclaimed.id])).values()
    assert elsewhere.credits_posted_minor == sum(r for _, r in counts)
    await kit.assert_books_fit()


async def _until_changed(kit: LedgerKit, account: Account, status: AccountStatus) -> Account:
    while True:
        seen = await _read(kit, account)
        try:
            return await set_account_status(kit.pool, kit.accounts, _change(seen), status)
        except VersionConflictError:
            continue


async def test_turning_buffering_on_and_off_while_writers_append_keeps_the_books(
    new_kit: NewKit, kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    """Writers believe what they saw last; the lock shows them what is so."""
    writers = [await new_kit() for _ in range(2)]
    receivable, shop = parties
    own = await kit.open([_another(receivable) for _ in range(2)])
    done = asyncio.Event()

    async def write(writer: LedgerKit, payer: Account) -> dict[bool, int]:
        counts = {False: 0, True: 0}
        while not done.is_set():
            for result in await writer.ledger.post([_move(payer, shop, 1) for _ in range(3)]):
                counts[result.is_buffered] += result.booked_minor
            await asyncio.sleep(0.005)  # or the account is another at every look
        return counts

    tasks = [asyncio.create_task(write(w, p)) for w, p in zip(writers, own, strict=True)]
    async with asyncio.timeout(60):
        for turn in range(6):
            while True:
                seen = await _read(kit, shop)
                try:
                    await set_account_buffering(
                        kit.pool, kit.accounts, _change(seen), is_buffered=turn % 2 == 1
                    )
                except VersionConflictError:
                    continue
                break
            await asyncio.sleep(0.02)
    done.set()
    counts = await asyncio.gather(*tasks)
    await drain_buffers(BufferStore(kit.pool), 0)
    after = await _read(kit, shop)
    assert after.credits_posted_minor == sum(c[False] + c[True] for c in counts)
    assert all(c[False] and c[True] for c in counts)
    await kit.assert_books_fit()


async def test_freezing_credits_waits_for_what_is_being_appended(
    new_kit: NewKit, parties: tuple[Account, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that believed the account to be open is committed before the freeze is."""
    writer, operator = await new_kit(), await new_kit()
    receivable, shop = parties
    await writer.ledger.post([_move(receivable, shop, 1)])
    committing, may_commit = _gate_commits(writer, monkeypatch)
    posting = asyncio.create_task(writer.ledger.post([_move(receivable, shop, 10)]))
    await committing.wait()
    request = _change(await _read(operator, shop))
    freezing = asyncio.create_task(
        set_account_status(operator.pool, operator.accounts, request, AccountStatus.CREDIT_FROZEN)
    )
    await _until_blocked_or_done(operator, freezing)
    may_commit.set()
    await asyncio.gather(posting, freezing)
    after = await _read(operator, shop)
    assert (after.available_minor, after.buffered_minor) == (11, 0)
    assert after.version == freezing.result().version


async def test_freezing_credits_gets_its_turn_between_batches(
    new_kit: NewKit, parties: tuple[Account, Account], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that comes while a freeze waits for another batch waits too, and sees it done."""
    first, second, operator = await new_kit(), await new_kit(), await new_kit()
    receivable, shop = parties
    [mine] = await first.open([_another(receivable)])
    for kit in (first, second):
        await kit.ledger.post([_move(mine, shop, 1)])
    unclaimed = AccountSpec(unclaimed_account_id(shop), "platform", "unclaimed", "USD")
    await operator.open([unclaimed])
    committing, may_commit = _gate_commits(first, monkeypatch)
    before = asyncio.create_task(first.ledger.post([_move(mine, shop, 10)]))
    await committing.wait()
    request = _change(await _read(operator, shop))
    freezing = asyncio.create_task(
        set_account_status(operator.pool, operator.accounts, request, AccountStatus.CREDIT_FROZEN)
    )
    await _until_blocked_or_done(operator, freezing)
    after = asyncio.create_task(second.ledger.post([_move(receivable, shop, 100)]))
    await _until_blocked_or_done(operator, after, sessions=2)
    assert not freezing.done()
    may_commit.set()
    [[early], [late], frozen] = await asyncio.gather(before, after, freezing)
    assert (early.is_buffered, early.redirected_to) == (True, "")
    assert (late.is_buffered, late.redirected_to) == (False, unclaimed.id)
    assert (frozen.available_minor, frozen.buffered_minor) == (12, 0)
    assert await _read(operator, shop) == frozen


async def test_draining_waits_for_another_drain_and_goes_on_behind_it(
    new_kit: NewKit, kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, shop = parties
    other = await new_kit()
    await kit.ledger.post([_move(receivable, shop, amount) for amount in (1, 2)])
    async with kit.pool.transaction() as draining:
        await draining.execute(QUERIES["lock_buffer"], 0, shop.id)
        assert await drain_locked(draining, 0, shop.id) == 2
        await kit.ledger.post([_move(receivable, shop, 4)])
        second = asyncio.create_task(drain_account(BufferStore(other.pool), 0, shop.id))
        await _until_blocked_or_done(other, second)
    assert await second == 1
    after = await _read(kit, shop)
    assert (after.available_minor, after.version) == (7, 4)
    await kit.assert_books_fit()


def _gate_commits(
    kit: LedgerKit, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Event, asyncio.Event]:
    """Stop the writer before its next commits; return what it sets, and what it waits for."""
    lane = kit.ledger._book(0)._lane
    committing, may_commit, commit = asyncio.Event(), asyncio.Event(), lane.commit

    async def commit_late() -> None:
        committing.set()
        await may_commit.wait()
        await commit()

    monkeypatch.setattr(lane, "commit", commit_late)
    return committing, may_commit


async def _until_blocked_or_done(
    kit: LedgerKit, task: asyncio.Task[Any], sessions: int = 1
) -> None:
    """Wait until so many sessions of the database wait for locks, or nothing keeps the task."""
    blocked = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20), kit.pool.acquire() as connection:
        while not task.done() and await connection.fetchval(blocked) < sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_closing_a_buffered_account_posts_its_buffer_first(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, shop = parties
    await kit.ledger.post([_move(receivable, shop)])
    seen = await _read(kit, shop)
    with pytest.raises(StateConflictError):
        await set_account_status(kit.pool, kit.accounts, _change(seen), AccountStatus.CLOSED)
    assert (await _read(kit, shop)).buffered_minor == 10, "a refused change left something done"
    await drain_account(BufferStore(kit.pool), 0, shop.id)
    await kit.ledger.post([_move(shop, receivable)])
    request = _change(await _read(kit, shop))
    closed = await set_account_status(kit.pool, kit.accounts, request, AccountStatus.CLOSED)
    assert closed.status == AccountStatus.CLOSED
    again = await set_account_status(kit.pool, kit.accounts, request, AccountStatus.CLOSED)
    assert again == closed
    [late] = await kit.ledger.post([_move(receivable, shop)])
    assert late.reason == "ACCOUNT_CLOSED"


async def test_a_chain_with_buffered_credits_is_booked_as_a_whole_or_not_at_all(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, shop = parties
    chain = [_move(receivable, shop, 30, linked=True), _move(shop, receivable, 1)]
    refused = await kit.ledger.post(chain)
    assert [r.reason for r in refused] == ["LINKED_TRANSFER_FAILED", "INSUFFICIENT_FUNDS"]
    assert (await _read(kit, shop)).buffered_minor == 0
    hold = _move(receivable, shop, 5, kind=TransferKind.PENDING)
    booked = await kit.ledger.post([_move(receivable, shop, 30, linked=True), hold])
    assert [(r.status, r.is_buffered) for r in booked] == [("BOOKED", True), ("BOOKED", False)]
    after = await _read(kit, shop)
    assert (after.buffered_minor, after.credits_pending_minor) == (30, 5)
    await kit.assert_books_fit()
