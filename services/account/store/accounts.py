"""Accounts outside of postings: opened, read, frozen, given other limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common.db.pool import Pool
from common.db.types import Connection
from services.account.domain.accounts import Account, AccountSpec
from services.account.domain.kinds import Kinds
from services.account.store.rows import QUERIES, account_from


@dataclass(frozen=True, slots=True)
class AccountChange:
    """One line of an account's history."""

    request_id: str
    verb: str
    """`status`, `limits` or `buffering`."""
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    actor: str
    reason: str
    biz_trace_id: str
    version: int = 0
    changed_at: datetime | None = None


class AccountStore:
    """The tables `accounts` and `account_changes`."""

    def __init__(self, pool: Pool, kinds: Kinds) -> None:
        self._pool = pool
        self.kinds = kinds
        """Kinds that accounts may have, by code."""

    async def insert(
        self, connection: Connection, book: int, specs: Sequence[AccountSpec]
    ) -> dict[str, Account]:
        """Open accounts that are not open, inside the caller's transaction; return all of them."""
        kinds = [self.kinds[spec.kind] for spec in specs]
        await connection.execute(
            QUERIES["insert_accounts"],
            book,
            [spec.id for spec in specs],
            [spec.tenant_id for spec in specs],
            [spec.mode for spec in specs],
            [spec.owner_id for spec in specs],
            [spec.merchant_id for spec in specs],
            [spec.kind for spec in specs],
            [spec.currency_code for spec in specs],
            [kind.normal_side for kind in kinds],
            [kind.may_go_negative for kind in kinds],
            [spec.credit_limit_minor for spec in specs],
            [spec.is_buffered for spec in specs],
        )
        # In a statement of its own: another process may have opened one just now.
        ids = [spec.id for spec in specs]
        rows = await connection.fetch(QUERIES["read_accounts"], book, ids)
        return {row["id"]: account_from(row) for row in rows}

    async def read(self, book: int, ids: Sequence[str]) -> dict[str, Account]:
        """Read accounts of one book; unknown ids are left out."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["read_accounts"], book, list(ids))
        return {row["id"]: account_from(row) for row in rows}

    async def list_of_owner(self, owner_id: str, tenant_id: str, mode: str) -> list[Account]:
        """Read the accounts of one owner in one world, ordered by kind and currency."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["list_accounts_of_owner"], owner_id, tenant_id, mode
            )
        return [account_from(row) for row in rows]

    async def lock(self, connection: Connection, book: int, account_id: str) -> Account | None:
        """Lock one account until the caller's transaction ends, also against appending."""
        await connection.execute(QUERIES["queue_for_account"], account_id)
        row = await connection.fetchrow(QUERIES["lock_account"], book, account_id)
        return None if row is None else account_from(row)

    async def update(
        self, connection: Connection, book: int, account: Account, change: AccountChange
    ) -> tuple[int, datetime]:
        """Write status, limits and buffering of a locked account, and the line of history.

        Returns the new version and when it came to be.
        """
        row = await connection.fetchrow(
            QUERIES["update_account"],
            book,
            account.id,
            account.status,
            account.credit_limit_minor,
            account.court_frozen_minor,
            account.is_buffered,
        )
        if row is None:
            raise RuntimeError(f"{account.id} was not locked")
        version, changed_at = row["version"], row["updated_at"]
        await connection.execute(
            QUERIES["insert_account_change"],
            book,
            account.id,
            change.request_id,
            version,
            changed_at,
            change.verb,
            dict(change.before),
            dict(change.after),
            change.actor,
            change.reason,
            change.biz_trace_id,
        )
        return version, changed_at

    async def find_change(
        self, connection: Connection, book: int, account_id: str, request_id: str
    ) -> tuple[str, Mapping[str, Any]] | None:
        """Return what a request changed before (verb, what it became), or None."""
        row = await connection.fetchrow(
            QUERIES["find_account_change"], book, account_id, request_id
        )
        return None if row is None else (row["verb"], row["after"])

    async def list_changes(self, book: int, account_id: str) -> list[AccountChange]:
        """Read the history of an account, oldest first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["list_account_changes"], book, account_id)
        return [
            AccountChange(
                request_id=row["request_id"],
                verb=row["verb"],
                before=row["before"],
                after=row["after"],
                actor=row["actor"],
                reason=row["reason"],
                biz_trace_id=row["biz_trace_id"],
                version=row["version"],
                changed_at=row["changed_at"],
            )
            for row in rows
        ]
