"""Months of transfers: made ahead, beside readers that take their time and writers that cannot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from common.clock import SystemClock
from common.db.pool import SessionSettings, open_pool
from common.ids import IdFactory
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind, TransferStatus
from services.account.store.partitions import _LOCK_KEY, PartitionKeeper
from tests.integration.account.conftest import LedgerKit, NewKit

_TABLES = ("transfers", "entries", "resolutions")
_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
_INDEXES = """
SELECT count(*), (SELECT count(*) FROM pg_index WHERE indrelid = $2::text::regclass)
FROM pg_index WHERE indrelid = $1::text::regclass
"""
_CHECKS = """
SELECT (SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint
        WHERE conrelid = $1::text::regclass AND contype = 'c'),
       (SELECT array_agg(conname::text ORDER BY conname) FROM pg_constraint
        WHERE conrelid = $2::text::regclass AND contype = 'c')
"""


async def test_making_months_beside_a_long_reader_keeps_nobody_from_posting(
    new_kit: NewKit, kit: LedgerKit
) -> None:
    other, ids = await new_kit(), IdFactory(SystemClock())
    receivable, user = await kit.open(
        [
            AccountSpec(ids.new("acc"), "bank", "channel_receivable", "USD"),
            AccountSpec(ids.new("acc"), "user", "user_available", "USD"),
        ]
    )

    def order(kind: TransferKind = TransferKind.SINGLE) -> Transfer:
        return Transfer(
            ids.new("tfr"),
            kind,
            receivable.id,
            user.id,
            "USD",
            5,
            movement="test.move",
            reference_id="ref",
        )

    await other.ledger.post([order()])
    async with asyncio.timeout(60), kit.pool.acquire() as reader:
        await reader.execute("BEGIN")
        for table in _TABLES:
            await reader.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names
        # Months that are there already are left alone, others are made beside the reader.
        for keeper in (PartitionKeeper(kit.pool), PartitionKeeper(other.pool)):
            await keeper.prepare(SystemClock().now() + timedelta(days=62))
        hold = order(TransferKind.PENDING)
        end = Transfer(
            ids.new("tfr"),
            TransferKind.POST,
            pending_id=hold.id,
            movement="test.move",
            reference_id="ref",
        )
        results = await other.ledger.post([order(), hold, end])
        assert [r.status for r in results] == [TransferStatus.BOOKED] * 3
        await reader.execute("ROLLBACK")
    await kit.assert_books_fit()


async def test_making_a_month_that_another_made_while_this_waited_leaves_it_alone(
    kit: LedgerKit,
) -> None:
    at = datetime(2033, 5, 17, tzinfo=UTC)
    first = await open_pool(kit.url, SessionSettings("account"), connections_max=2)
    second = await open_pool(kit.url, SessionSettings("account"), connections_max=1)
    try:
        for table in _TABLES:  # what the session believes from now on
            async with second.acquire() as session:
                assert await session.fetchval("SELECT to_regclass($1)", f"{table}_2033_05") is None
        async with first.acquire() as holder:
            await holder.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
            tasks = []
            for number, pool in enumerate((first, second), 1):
                tasks.append(asyncio.create_task(PartitionKeeper(pool).prepare(at)))
                async with asyncio.timeout(30):
                    while await holder.fetchval(_WAITING) < number:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            await holder.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)
        await asyncio.gather(*tasks)
    finally:
        await first.close()
        await second.close()


async def test_a_month_has_all_that_its_table_has(kit: LedgerKit) -> None:
    await PartitionKeeper(kit.pool).prepare(datetime(2031, 5, 17, tzinfo=UTC))
    async with kit.pool.acquire() as connection:
        for table in _TABLES:
            for month in ("2031_05", "2031_06", "2031_07"):
                for query in (_INDEXES, _CHECKS):
                    [[own, shared]] = await connection.fetch(query, f"{table}_{month}", table)
                    assert own == shared
                    assert own
        default = await connection.fetchval(
            "SELECT column_default FROM information_schema.columns"
            " WHERE table_name = 'transfers_2031_05' AND column_name = 'written_in'"
            " AND table_schema = current_schema()"
        )
    assert default == "pg_current_xact_id()"
