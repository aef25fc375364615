"""Reading an account of 200,000 entries looks at a few of them, by what the server's plans say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from common.clock import SystemClock
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.types import Connection
from common.ids import IdFactory, derive
from services.account.domain.accounts import Account
from services.account.store.partitions import PartitionKeeper
from services.account.store.statements import StatementStore, StatementView
from tests.integration.account.written_history import BEGUN_AT, FIRST_DAY, ONE_DAY

ENTRIES = 200_000
PER_DAY = 500
STEP = timedelta(seconds=60)
ACCOUNT_ID = derive("acc", IdFactory(SystemClock()).new("tst"), "large")

# Every second entry is a drained credit, appended nine seconds before.
_FILL = """
WITH line AS (
    SELECT n, ($1::text[])[n % 3 + 1] || to_char(n, 'FM00000000000000') AS transfer_id,
           $2::date + ((n - 1) / $3) AS business_date,
           $4::timestamptz + n * $5::interval AS booked_at
    FROM generate_series(1, $6::integer) n
), transfer AS (
    INSERT INTO transfers (book, amount_minor, booked_minor, debit_version, credit_version,
        booked_at, timeout_seconds, business_date, keep_rest, linked, forced, id, kind, status,
        debit_account_id, credit_account_id, currency_code, pending_id, movement, reference_id,
        biz_trace_id, tenant_id, mode, merchant_id, actor)
    SELECT 0, 1, 1, 0, n, booked_at, 0, business_date, false, false, false, transfer_id, 'SINGLE',
        'BOOKED', 'acc_other', $7, 'USD', '', 'test.move', 'ref', '', 'default', 'TEST', '', 'test'
    FROM line
), day AS (
    INSERT INTO business_date_changes (book, business_date, previous_date, advanced_at, actor)
    SELECT 0, $2::date + d, $2::date + d - 1,
        $4::timestamptz + (d * $3 + 0.5) * $5::interval, 'test'
    FROM generate_series(1, ($6 - 1) / $3) d
), account AS (
    INSERT INTO accounts (book, version, credits_posted_minor, credit_limit_minor, created_at,
        updated_at, may_go_negative, id, tenant_id, mode, owner_id, merchant_id, kind,
        currency_code, normal_side, status, is_buffered)
    VALUES (0, $6 + 1, $6, 0, $4, $4, false, $7, 'default', 'TEST', 'owner', '',
        'merchant_pending', 'USD', 'CREDIT', 'NORMAL', true)
)
INSERT INTO entries (book, is_debit, business_date, version, amount_minor, debits_posted_minor,
    credits_posted_minor, booked_at, account_id, transfer_id, appended_at)
SELECT 0, false, business_date, n + 1, 1, 0, n, booked_at, $7, transfer_id,
    CASE WHEN n % 2 = 0 THEN booked_at - interval '9 s' END
FROM line
"""


class CountingConnection:
    """Runs each query, and then asks for the plan by which it did: counts the rows it looked at."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.rows = 0.0

    async def fetch(self, query: str, *arguments: Any) -> Any:
        """Run a query."""
        plan = await self._connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments
        )
        read = plan if isinstance(plan, list) else json.loads(plan)
        self.rows += sum(_rows_of(one["Plan"]) for one in read)
        return await self._connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        """Run a query for its first row."""
        rows = await self.fetch(query, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """Run a query for one value."""
        row = await self.fetchrow(query, *arguments)
        return None if row is None else row[0]


def _rows_of(plan: dict[str, Any]) -> float:
    """Rows that a plan's scans looked at, also those that a filter threw away."""
    rows = sum(_rows_of(part) for part in plan.get("Plans", ()))
    if "Scan" in plan["Node Type"] and "Relation Name" in plan:
        seen = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        seen += plan.get("Rows Removed by Index Recheck", 0)
        rows += seen * plan["Actual Loops"]
    return float(rows)


@pytest.fixture(scope="module")
async def pool(ledger_url: str) -> AsyncIterator[Pool]:
    clock = SystemClock()
    pool = await open_pool(
        ledger_url, SessionSettings("account", statement_timeout_seconds=60), connections_max=2
    )
    await PartitionKeeper(pool).prepare(clock.now())
    heads = []
    for months in range(3):
        at = datetime.fromtimestamp(clock.now().timestamp(), UTC) + timedelta(days=28 * months)
        heads.append(IdFactory(_At(at)).new("tfr")[:16])
    async with pool.acquire() as connection:
        await connection.execute(
            _FILL, heads, FIRST_DAY, PER_DAY, BEGUN_AT, STEP, ENTRIES, ACCOUNT_ID
        )
        await connection.execute(
            "UPDATE business_dates SET business_date = $1",
            FIRST_DAY + (ENTRIES - 1) // PER_DAY * ONE_DAY,
        )
    yield pool
    await pool.close()


class _At(SystemClock):
    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at


Ask = Callable[[StatementView, Account], Awaitable[None]]


async def _ask_for_a_balance(view: StatementView, account: Account) -> None:
    sums = await view.sum_until(account, BEGUN_AT + 1000 * STEP)
    assert sums.credits_minor == 1000
    # The even one before is in by when it was appended.
    assert (await view.sum_until(account, BEGUN_AT + 77_777.9 * STEP)).credits_minor == 77_778
    assert (await view.sum_until(account, BEGUN_AT)).credits_minor == 0
    assert (await view.sum_until(account, datetime.now(UTC))).credits_minor == ENTRIES


async def _ask_for_a_statement(view: StatementView, account: Account) -> None:
    day = FIRST_DAY + 123 * ONE_DAY
    head = await view.read_head(account, day, day)
    assert (head.opening.credits_minor, head.closing.credits_minor) == (61_500, 62_000)
    assert head.entries == PER_DAY
    lines = await view.list_entries(
        ACCOUNT_ID,
        after_version=head.after_version,
        last_version=head.last_version,
        from_on=day,
        to_on=day,
        limit=100,
    )
    assert [line.credits_posted_minor for line in lines] == list(range(61_501, 61_601))


async def _ask_for_entries(view: StatementView, account: Account) -> None:
    lines = await view.list_entries(
        ACCOUNT_ID, after_version=150_000, last_version=account.version, limit=100
    )
    assert [line.version for line in lines] == list(range(150_001, 150_101))


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize(
    ("ask", "rows_max"),
    [(_ask_for_a_balance, 400), (_ask_for_a_statement, 1_500), (_ask_for_entries, 250)],
)
async def test_reading_a_large_account_looks_at_few_of_its_entries(
    pool: Pool, ask: Ask, rows_max: int, analysed: bool
) -> None:
    async with pool.acquire() as connection:
        if analysed:
            await connection.execute("ANALYZE entries, transfers")
    async with StatementStore(pool).view() as view:
        counting = CountingConnection(view._connection)
        asked = StatementView(cast("Connection", counting))
        account = await asked.read_account(ACCOUNT_ID)
        assert account is not None
        await ask(asked, account)
    assert counting.rows <= rows_max
