"""Questions to the books as a whole: transfers, the journal, sums, what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.db.pool import Pool
from services.account.domain.transfers import Hold, StoredTransfer
from services.account.store.rows import QUERIES, hold_from, transfer_from

_FINDINGS = (
    ("find_unbalanced", "debits and credits differ"),
    ("find_entry_differences", "an account is not the sum of its entries"),
    ("find_running_differences", "an account's last entry has other sums"),
    ("find_hold_differences", "an account's pending sums are not its open holds"),
    ("find_transfer_differences", "a movement has not exactly its two entries"),
    ("find_stray_buffers", "credits wait in the buffer of an account that has none"),
)


# The checks read whole tables and join them once: rows of a table that was never analysed must not
# be looked up one by one. They may take as long as the tables are large.
_AUDIT_SESSION = "SET LOCAL enable_nestloop = off; SET LOCAL statement_timeout = 0"


@dataclass(frozen=True, slots=True)
class AccountTotal:
    """All accounts of one kind and currency, summed, in minor units."""

    currency_code: str
    kind: str
    normal_side: str
    accounts: int
    debits_posted_minor: int
    credits_posted_minor: int
    debits_pending_minor: int
    credits_pending_minor: int
    credits_buffered_minor: int
    """What waits in buffers."""


@dataclass(frozen=True, slots=True)
class BooksReport:
    """What a check of the books found."""

    accounts: int
    entries: int
    findings: tuple[str, ...]
    """In words, with ids and amounts; empty when all fits."""


class ReadingStore:
    """Reads; changes nothing."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read_transfers(self, book: int, ids: Sequence[str]) -> dict[str, StoredTransfer]:
        """Read what is kept under ids of one book; unknown ids are left out."""
        if not ids:
            return {}
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["read_transfers"], book, list(ids), min(ids), max(ids)
            )
        return {row["id"]: transfer_from(row) for row in rows}

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_transfers(
        self, book: int, *, after_id: str = "", limit: int = 1000
    ) -> list[StoredTransfer]:
        """Read transfers of a book in the order of their ids, behind one."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["list_transfers_by_id"], book, after_id, limit)
        return [transfer_from(row) for row in rows]

    async def list_due_holds(self, book: int, limit: int) -> list[Hold]:
        """Read holds whose time is over by the database's clock, the oldest first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["list_due_holds"], book, limit)
        return [hold_from(row) for row in rows]

    async def sum_accounts(self, tenant_id: str, mode: str) -> list[AccountTotal]:
        """Sum the accounts of one world by kind and currency, in one snapshot."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["sum_accounts"], tenant_id, mode)
        # Sums of bigint columns are numeric in SQL.
        return [AccountTotal(*tuple(row)[:3], *map(int, tuple(row)[3:])) for row in rows]

    async def check(self, findings_max: int = 100) -> BooksReport:
        """Compare accounts, entries, holds and transfers of all books, in one snapshot."""
        findings: list[str] = []
        async with self._pool.transaction(isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(_AUDIT_SESSION)
            for name, meaning in _FINDINGS:
                rows = await connection.fetch(QUERIES[name], findings_max)
                findings += [
                    f"{meaning}: " + ", ".join(f"{key}={value}" for key, value in row.items())
                    for row in rows
                ]
            counts = await connection.fetchrow(QUERIES["count_books"])
        accounts, entries = (0, 0) if counts is None else (counts[0], counts[1])
        return BooksReport(accounts, entries, tuple(findings[:findings_max]))
