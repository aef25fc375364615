"""Reading a few vouchers looks at a few rows, however many there are and whatever was analysed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from common.db.queries import load_queries
from services.account.store.vouchers import VOUCHER_QUERIES
from tests.integration.account.books import Books, open_books
from tests.integration.account.conftest import close_kit, open_kit, prepare_ledger_schema

CHANNEL, TRANSIT = ("channel_receivable", "alipay"), ("payment_transit", "platform")
PER_MONTH, STORY = 1500, 5
MONTHS = (date(2026, 1, 3), date(2026, 2, 3), date(2026, 3, 3))
WORLD = (0, "default", "LIVE")
# Rows of the answer, of their lines and of what leads to them, with some to spare.
ROWS_MAX = 400

_STORY = load_queries("services.account", "story_queries.sql")["list_story"]


def _scanned(plan: dict[str, Any]) -> float:
    """The rows that the scans of a plan read, kept or not."""
    own = 0.0
    if "Relation Name" in plan:
        rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
        own = rows * plan["Actual Loops"]
    return own + sum(_scanned(one) for one in plan.get("Plans", []))


async def _rows_read(books: Books, query: str, *arguments: object) -> float:
    async with books.ledger.pool.acquire() as connection:
        told = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments)
    return _scanned((json.loads(told) if isinstance(told, str) else told)[0]["Plan"])


@pytest.mark.parametrize("is_analysed", [False, True])
async def test_reading_a_page_a_voucher_or_a_story_reads_no_whole_month(
    new_database: Callable[[], Awaitable[str]], is_analysed: bool
) -> None:
    kit = await open_kit(await prepare_ledger_schema(await new_database()))
    try:
        books = await open_books(kit)
        await books.open(CHANNEL, TRANSIT)
        for month in MONTHS:
            await books.advance(month)
            for start in range(0, PER_MONTH, 500):
                await books.book(
                    *(
                        books.transfer(
                            CHANNEL, TRANSIT, 1, biz_trace_id=f"{month}-{(start + n) // STORY}"
                        )
                        for n in range(500)
                    )
                )
        assert await books.make() == PER_MONTH * len(MONTHS)
        async with kit.pool.acquire() as connection:
            if is_analysed:
                await connection.execute("ANALYZE")
            one = await connection.fetchval("SELECT id FROM vouchers LIMIT 1")
        march, year = MONTHS[2], date(2026, 12, 31)
        statements: dict[str, tuple[object, ...]] = {
            "find_vouchers": (0, [one]),
            "list_vouchers": (*WORLD, march, year, PER_MONTH // 2, "", "", 100),
            "list_lines": (*WORLD, [march] * 100, list(range(1, 101))),
            "read_backlog": (0,),
        }
        for name, arguments in statements.items():
            assert await _rows_read(books, VOUCHER_QUERIES[name], *arguments) < ROWS_MAX, name
        begun = datetime(1970, 1, 1, tzinfo=UTC)
        assert await _rows_read(books, _STORY, f"{march}-7", begun, 1000) < ROWS_MAX
    finally:
        await close_kit(kit)
