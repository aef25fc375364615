"""Vouchers of the journal: each transfer gets exactly one, whoever dies, overtakes or helps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date

import asyncpg
import pytest
from hosted_services import until

from common.clock import SystemClock
from common.db.types import Connection, Record
from services.account.domain.accounts import AccountStatus, platform_account_id
from services.account.domain.transfers import Transfer, TransferKind
from services.account.flows.change_account import ChangeRequest, set_account_status
from services.account.flows.keep_vouchers import VoucherMaker
from services.account.flows.make_vouchers import make_vouchers
from services.account.store.charts import ChartStore
from services.account.store.vouchers import VoucherStore
from tests.integration.account.books import IDS, Books, account, open_books
from tests.integration.account.conftest import (
    LedgerKit,
    NewKit,
    close_kit,
    open_kit,
    prepare_ledger_schema,
)

CHANNEL = ("channel_receivable", "alipay")
TRANSIT = ("payment_transit", "platform")
MERCHANT = ("merchant_pending", "shop")
FEE = ("platform_fee", "platform")


@pytest.fixture
async def books(kit: LedgerKit) -> Books:
    """Empty inner books, with accounts to move money between."""
    books = await open_books(kit)
    await books.open(CHANNEL, TRANSIT, MERCHANT, FEE)
    await kit.ledger.prepare()
    await books.empty()
    return books


async def _rows(books: Books, query: str, *arguments: object) -> list[Record]:
    async with books.ledger.pool.acquire() as connection:
        return await connection.fetch(query, *arguments)


async def _vouchers(books: Books) -> list[Record]:
    return await _rows(
        books,
        "SELECT number, source_id, rule, rule_version, id, total_minor, business_date, mode,"
        " tenant_id, value_on FROM vouchers ORDER BY business_date, tenant_id, mode, number",
    )


async def _sums(books: Books) -> dict[str, tuple[int, int]]:
    rows = await _rows(
        books, "SELECT subject_code, debits_minor, credits_minor FROM subject_balances"
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in rows}


@asynccontextmanager
async def _another_session(books: Books) -> AsyncIterator[Connection]:
    connection = await books.ledger.pool.connect()
    try:
        yield connection
    finally:
        await connection.close()


async def _write_raw(connection: Connection, transfer: Transfer) -> None:
    """Write a journal row and nothing else: what another process does before it commits."""
    await connection.execute(
        "INSERT INTO transfers (book, amount_minor, booked_minor, debit_version, credit_version,"
        " booked_at, timeout_seconds, business_date, keep_rest, linked, forced, id, kind, status,"
        " debit_account_id, credit_account_id, currency_code, pending_id, movement, reference_id,"
        " biz_trace_id, tenant_id, mode, merchant_id, actor)"
        " SELECT 0, $2, $2, 1, 1, clock_timestamp(), 0, business_date, false, false, false, $1,"
        " 'SINGLE', 'BOOKED', $3, $4, $5, '', $6, 'ref', '', 'default', 'LIVE', '', ''"
        " FROM business_dates WHERE book = 0",
        transfer.id,
        transfer.amount_minor,
        transfer.debit_account_id,
        transfer.credit_account_id,
        transfer.currency_code,
        transfer.movement,
    )


async def test_making_vouchers_gives_each_movement_its_lines_by_rule(books: Books) -> None:
    received = books.transfer(CHANNEL, TRANSIT, 1000)
    settled = books.transfer(TRANSIT, MERCHANT, 940, movement="payment.settle", linked=True)
    fee = books.transfer(TRANSIT, FEE, 60, movement="test.unheard_of")
    await books.book(received)
    await books.book(settled, fee)

    assert await books.make() == 3
    vouchers = {row["source_id"]: row for row in await _vouchers(books)}
    assert {v["number"] for v in vouchers.values()} == {1, 2, 3}
    assert vouchers[received.id]["number"] == 1
    assert vouchers[received.id]["id"] == f"vch_{received.id[4:]}"
    assert vouchers[settled.id]["rule"] == "payment.settle"
    assert (vouchers[fee.id]["rule"], vouchers[fee.id]["rule_version"]) == ("*", 1)
    assert await _sums(books) == {
        "1122.01": (1000, 0),
        "2241.01": (1000, 1000),
        "2202.01": (0, 940),
        "6021.01": (0, 60),
    }
    assert await books.make() == 0


async def test_making_vouchers_of_holds_waits_for_their_posts(books: Books) -> None:
    """Pending amounts are memo: a hold, a void and an expiry make no voucher, a part-post one."""
    await books.book(books.transfer(CHANNEL, TRANSIT, 500))
    hold = books.transfer(TRANSIT, MERCHANT, 300, kind=TransferKind.PENDING)
    voided = books.transfer(TRANSIT, MERCHANT, 100, kind=TransferKind.PENDING)
    await books.book(hold, voided)
    assert await books.make() == 1
    post = Transfer(
        IDS.new("tfr"), TransferKind.POST, pending_id=hold.id, amount_minor=120,
        movement="refund.post", reference_id="ref",
    )  # fmt: skip
    void = Transfer(
        IDS.new("tfr"), TransferKind.VOID, pending_id=voided.id, movement="refund.void",
        reference_id="ref",
    )  # fmt: skip
    await books.book(post, void)
    assert await books.make() == 1
    made = (await _vouchers(books))[-1]
    assert (made["source_id"], made["total_minor"]) == (post.id, 120)


async def test_making_the_voucher_of_a_redirected_credit_says_who_really_got_it(
    books: Books,
) -> None:
    unclaimed = platform_account_id("unclaimed", "USD", tenant_id="default", mode="LIVE")
    await books.open_unclaimed(unclaimed)
    user = ("user_available", "gone")
    await books.open(user)
    pool, accounts = books.ledger.pool, books.ledger.accounts
    frozen = (await accounts.read(0, [account(*user)]))[account(*user)]
    request = ChangeRequest(
        frozen.id, IDS.new("req"), frozen.version, "gone", "OPERATOR:ada", "default"
    )
    await set_account_status(pool, accounts, request, AccountStatus.CREDIT_FROZEN)
    await books.book(books.transfer(CHANNEL, user, 70))
    assert await books.make() == 1
    assert await _sums(books) == {"1122.01": (70, 0), "2241.06": (0, 70)}


async def test_numbers_have_no_gaps_in_each_world_and_day(books: Books) -> None:
    other = await books.in_world("other", "TEST")
    await other.open(CHANNEL, TRANSIT)
    for _ in range(3):
        await books.book(books.transfer(CHANNEL, TRANSIT, 5), books.transfer(CHANNEL, TRANSIT, 5))
        await other.book(other.transfer(CHANNEL, TRANSIT, 7))
        await books.make()
    await books.advance(date(2026, 1, 2))
    await books.book(books.transfer(CHANNEL, TRANSIT, 5))
    await books.make()
    numbers: dict[tuple[object, ...], list[int]] = {}
    for row in await _vouchers(books):
        key = (row["business_date"].day, row["tenant_id"], row["mode"])
        numbers.setdefault(key, []).append(row["number"])
    assert numbers == {
        (1, "default", "LIVE"): [1, 2, 3, 4, 5, 6],
        (1, "other", "TEST"): [1, 2, 3],
        (2, "default", "LIVE"): [1],
    }


async def test_making_takes_whole_transactions_in_bounded_chunks(books: Books) -> None:
    for _ in range(4):
        await books.book(*[books.transfer(CHANNEL, TRANSIT, 1) for _ in range(5)])
    await books.past_others()
    made = []
    while True:
        progress = await make_vouchers(books.ledger.pool, books.vouchers, 0, chunk_transfers=7)
        made.append(progress.made)
        if not progress.has_more:
            break
    # The seventh row is in the second transaction, which is taken to its end.
    assert made[:2] == [10, 10]
    assert sum(made) == 20


async def test_making_beside_an_older_transaction_waits_for_it_and_misses_nothing(
    books: Books,
) -> None:
    """The younger transaction commits first; a cursor that passed the older would never see it."""
    late = books.transfer(CHANNEL, TRANSIT, 11)
    async with _another_session(books) as older:
        transaction = older.transaction()
        await transaction.start()  # type: ignore[attr-defined]
        await _write_raw(older, late)
        await books.book(books.transfer(CHANNEL, TRANSIT, 22))
        early = await make_vouchers(books.ledger.pool, books.vouchers, 0)
        assert early.made == 0
        written = (await _rows(books, "SELECT max(written_in)::text::bigint FROM transfers"))[0][0]
        waited = await make_vouchers(books.ledger.pool, books.vouchers, 0, up_to=written)
        assert (waited.made, waited.has_more) == (0, True)
        backlog = await books.vouchers.read_backlog(0)
        assert backlog is not None
        assert backlog.seconds >= 0
        await transaction.commit()  # type: ignore[attr-defined]
    assert await books.make() == 2
    assert (await _vouchers(books))[0]["source_id"] == late.id
    assert await books.vouchers.read_backlog(0) is None


async def test_making_waits_for_transactions_of_other_roles_too(
    books: Books, database_url: str
) -> None:
    """A person who puts something right in the journal writes under another role."""
    other = await asyncpg.connect(database_url, server_settings={"search_path": "account"})
    try:
        await other.execute("BEGIN")
        await _write_raw(other, books.transfer(CHANNEL, TRANSIT, 11))
        await books.book(books.transfer(CHANNEL, TRANSIT, 22))
        assert (await make_vouchers(books.ledger.pool, books.vouchers, 0)).made == 0
        await other.execute("COMMIT")
    finally:
        await other.close()
    assert await books.make() == 2


async def test_making_beside_an_older_transaction_that_is_undone_goes_on(books: Books) -> None:
    async with _another_session(books) as older:
        transaction = older.transaction()
        await transaction.start()  # type: ignore[attr-defined]
        await _write_raw(older, books.transfer(CHANNEL, TRANSIT, 11))
        await books.book(books.transfer(CHANNEL, TRANSIT, 22))
        await transaction.rollback()  # type: ignore[attr-defined]
    assert await books.make() == 1


async def test_being_killed_while_making_leaves_nothing_half_made(books: Books) -> None:
    await books.book(*[books.transfer(CHANNEL, TRANSIT, 1) for _ in range(20)])
    async with _another_session(books) as blocker:
        block = blocker.transaction()
        await block.start()  # type: ignore[attr-defined]
        # Vouchers and their numbers are written by then; the sums are what it waits for.
        await blocker.execute("LOCK TABLE subject_balances IN EXCLUSIVE MODE")
        await books.past_others()
        making = asyncio.create_task(make_vouchers(books.ledger.pool, books.vouchers, 0))
        pid = await _waiting_for(blocker, "subject_balances")
        await blocker.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await making
        await block.rollback()  # type: ignore[attr-defined]
    assert await _vouchers(books) == []
    assert await books.make() == 20
    assert [row["number"] for row in await _vouchers(books)] == list(range(1, 21))
    assert await _sums(books) == {"1122.01": (20, 0), "2241.01": (0, 20)}


async def _waiting_for(connection: Connection, table: str) -> int:
    """Return the session that waits for a lock of a table, once there is one."""
    query = (
        "SELECT l.pid FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database"
        " WHERE NOT l.granted AND l.relation = $1::text::regclass"
        " AND d.datname = current_database()"
    )
    pid: int = await until(lambda: connection.fetchval(query, table))
    return pid


async def test_two_makers_at_once_make_each_voucher_once(books: Books, new_kit: NewKit) -> None:
    rival = VoucherStore((await new_kit()).pool)
    wanted = 0
    stop = asyncio.Event()

    async def make_on(store: VoucherStore) -> None:
        while not stop.is_set():
            await make_vouchers(books.ledger.pool, store, 0, chunk_transfers=3)

    makers = [asyncio.create_task(make_on(store)) for store in (books.vouchers, rival)]
    for _ in range(15):
        await books.book(*[books.transfer(CHANNEL, TRANSIT, 1) for _ in range(4)])
        wanted += 4
    stop.set()
    await asyncio.gather(*makers)
    await books.make()
    vouchers = await _vouchers(books)
    assert [row["number"] for row in vouchers] == list(range(1, wanted + 1))
    assert len({row["source_id"] for row in vouchers}) == wanted
    assert await _sums(books) == {"1122.01": (wanted, 0), "2241.01": (0, wanted)}


async def test_waiting_for_a_transaction_waits_for_another_maker(books: Books) -> None:
    """A day cut does not leave its vouchers to somebody who may die."""
    await books.book(books.transfer(CHANNEL, TRANSIT, 1))
    await books.make()
    await books.book(books.transfer(CHANNEL, TRANSIT, 1))
    async with _another_session(books) as other:
        holding = other.transaction()
        await holding.start()  # type: ignore[attr-defined]
        await books.vouchers.lock_cursor(other, 0)
        # A maker in the background leaves the work to the other one.
        left = await make_vouchers(books.ledger.pool, books.vouchers, 0)
        assert (left.made, left.has_more) == (0, True)
        waiting = asyncio.create_task(books.make())
        await _waiting_for_row(books)
        await holding.rollback()  # type: ignore[attr-defined]
    assert await waiting == 1


async def _waiting_for_row(books: Books) -> None:
    """Wait until a session waits; looked at anew each time, as no open transaction would."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def is_waiting() -> bool:
        return bool((await _rows(books, query))[0][0])

    await until(is_waiting)


async def test_jumping_through_the_years_makes_their_months(books: Books) -> None:
    for on in (date(2027, 2, 28), date(2031, 12, 31)):
        await books.advance(on)
        await books.book(books.transfer(CHANNEL, TRANSIT, 1))
    assert await books.make() == 2
    assert [row["business_date"].year for row in await _vouchers(books)] == [2027, 2031]


async def test_making_a_month_waits_for_no_reader_and_keeps_none_out(books: Books) -> None:
    """A proof reads vouchers for minutes; a month that is made meanwhile is made at once."""
    months = books.vouchers.months
    async with _another_session(books) as reader, _another_session(books) as writer:
        await reader.execute("BEGIN")
        await reader.fetch("SELECT count(*) FROM all_vouchers")
        await reader.fetch("SELECT count(*) FROM all_voucher_lines")
        async with asyncio.timeout(30):
            await months.prepare(date(2041, 5, 31))
            await writer.execute("BEGIN")
            await months.ensure(writer, [date(2043, 1, 1)])
            # Who reads or writes vouchers is not kept out either, before it ends.
            assert await reader.fetchval("SELECT count(*) FROM all_vouchers") == 0
            for table in ("vouchers", "voucher_lines"):
                await reader.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE NOWAIT")
            await writer.execute("COMMIT")
        await reader.execute("COMMIT")
    for on in (date(2041, 7, 1), date(2043, 1, 31)):
        await books.advance(on)
        await books.book(books.transfer(CHANNEL, TRANSIT, 1))
    assert await books.make() == 2


async def test_a_month_that_many_make_at_once_is_made_once(books: Books, new_kit: NewKit) -> None:
    """Each looks before it waits for the others, and its session may believe the first look."""
    stores = [books.vouchers, *[VoucherStore((await new_kit()).pool) for _ in range(3)]]

    async def need(store: VoucherStore, on: date) -> None:
        async with books.ledger.pool.transaction() as connection:
            await store.months.ensure(connection, [on])

    for year in range(2050, 2060):
        on = date(year, 2, 1)
        await asyncio.gather(*(need(one, on) for one in stores for _ in range(2)))
        await asyncio.gather(*(one.months.make([on]) for one in stores))
    made = await _rows(
        books, "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'vouchers'::regclass AND inhrelid::regclass::text LIKE '%\\_205%'",
    )  # fmt: skip
    assert len(made) == 10


async def test_a_transfer_whose_accounts_cannot_be_told_stops_the_maker(books: Books) -> None:
    """It is not left out: the books would not fit, and nobody would know."""
    async with _another_session(books) as other:
        strange = books.transfer(("user_available", "nobody-has-opened-it"), TRANSIT, 5)
        await _write_raw(other, strange)
        with pytest.raises(asyncpg.NotNullViolationError):
            await books.make()
        await other.execute("DELETE FROM transfers WHERE id = $1", strange.id)
    assert await books.make() == 0


async def test_the_maker_in_the_background_sees_what_its_process_and_others_book(
    books: Books, new_kit: NewKit
) -> None:
    other = await open_books(await new_kit())
    clock = SystemClock()
    booked = books.ledger.ledger.booked
    maker = VoucherMaker(books.ledger.pool, books.vouchers, books.ledger.days, booked, clock)

    async def all_made() -> bool:
        return await books.vouchers.read_backlog(0) is None

    async def shown() -> bool:
        return maker.behind_seconds == {0: 0.0}

    running = asyncio.create_task(maker.run())
    try:
        for writer in (books, other):
            await writer.book(writer.transfer(CHANNEL, TRANSIT, 1))
            await until(all_made)
        assert len(await _vouchers(books)) == 2
        await until(shown)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_the_maker_in_the_background_begins_with_the_first_transfer_of_a_book(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    kit = await open_kit(await prepare_ledger_schema(await new_database()))
    books = await open_books(kit)
    await books.open(CHANNEL, TRANSIT)
    await books.book(books.transfer(CHANNEL, TRANSIT, 1))
    maker = VoucherMaker(kit.pool, books.vouchers, kit.days, kit.ledger.booked, SystemClock())
    try:
        await until(maker.make_round)
        assert len(await _vouchers(books)) == 1
    finally:
        await close_kit(kit)


async def test_the_latest_version_of_a_rule_makes_vouchers_from_its_coming(
    books: Books,
) -> None:
    await books.book(books.transfer(CHANNEL, TRANSIT, 10))
    await books.make()
    await ChartStore(books.ledger.pool).put(books.with_memo_rule("payment.receive", 2))
    await books.book(books.transfer(CHANNEL, TRANSIT, 10))
    await books.make()
    versions = [(row["rule_version"], row["total_minor"]) for row in await _vouchers(books)]
    assert versions == [(1, 10), (2, 20)]
    assert (await _sums(books))["6602"] == (10, 0)
