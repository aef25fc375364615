"""The posting path: one session that locks, reads and writes whole batches.

A lane has a connection of its own, so that it can be given settings for statements over arrays and
costs no round trip to be lent and returned. A transaction is: lock the book's day, the holds, the
accounts, and those that are only appended to, in this order and each in the order of their ids;
write everything set by set; commit.

Most batches share the day's lock. One that has to know what is *not* there (a repeat that may have
been refused, a hold that is not open) takes it alone, because rows that do not exist cannot be
locked: while it runs no other batch of the book does, so that its answers are those of some order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Final

from common.db.pool import Pool
from common.db.types import Connection
from services.account.domain.accounts import AccountState
from services.account.domain.batches import Decision
from services.account.domain.transfers import Fate, Hold, StoredTransfer
from services.account.store.columns import flags, numbers, separator_for
from services.account.store.movements import movement_columns
from services.account.store.rows import (
    QUERIES,
    hold_from,
    state_from,
    transfer_from,
)

# Every statement of the lane finds its rows by key, and a batch is small beside the tables. Planned
# while a table was empty, or for a batch of unknown size, a statement would read all accounts of
# the book for each batch; so the ways to do that are taken off. Planning anew for each batch costs
# more than running.
_SESSION: Final = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;"
    " SET enable_hashjoin = off; SET enable_mergejoin = off"
)

# Whoever may share the lock of the date's row does not queue for it, and with several processes at
# work there is nearly always one that holds it. For the table's lock all queue; a batch that hangs
# must not hold up the others behind it, so it is given up after a while, and tried again.
_LOCK_BOOK: Final = (
    "SET LOCAL lock_timeout = '1s'; LOCK TABLE business_dates IN EXCLUSIVE MODE;"
    " SET LOCAL lock_timeout TO DEFAULT"
)
_LOCK_HOLDS: Final = QUERIES["lock_holds"]
_LOCK_ACCOUNTS: Final = QUERIES["lock_accounts"]
_SHARE_ACCOUNTS: Final = QUERIES["share_accounts"]
_READ_TRANSFERS: Final = QUERIES["read_transfers"]
_READ_FATES: Final = QUERIES["read_fates"]
_WRITE_BATCH: Final = QUERIES["write_batch"]
_WRITE_MOVEMENT: Final = QUERIES["write_movement"]
_WRITE_HOLDS: Final = QUERIES["write_holds"]
_APPEND_CREDITS: Final = QUERIES["append_credits"]


class BookNotOpenError(Exception):
    """The book has no business date: `open_book` was not run."""


class Lane:
    """One session for the postings of one book; not to be used by two flushes at once."""

    def __init__(self, pool: Pool, book: int) -> None:
        self._pool = pool
        self._book = book
        self._connection: Connection | None = None

    async def begin(self) -> None:
        """Begin a transaction, connecting first where there is no session.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError: no session is to be had.
        """
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._pool.connect()
            await self._connection.execute(_SESSION)
        await self._connection.execute("BEGIN")

    async def commit(self) -> None:
        """Commit; when the connection is lost here, only the rows can tell what happened."""
        await self._session.execute("COMMIT")

    async def abandon(self) -> None:
        """Roll back, or drop a session in which that is not to be had any more."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not connection.is_closed():
            with suppress(Exception):
                await connection.execute("ROLLBACK")
                if not connection.is_in_transaction():
                    self._connection = connection
                    return
        connection.terminate()

    async def close(self) -> None:
        """End the session."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with suppress(Exception):
                await connection.close()

    async def lock_book(self) -> None:
        """Let no other batch run until this one has ended, of this book or any. Comes first.

        Raises:
            asyncpg.LockNotAvailableError: a batch took too long; others were kept waiting behind.
        """
        await self._session.execute(_LOCK_BOOK)

    async def lock_holds(self, pending_ids: Iterable[str]) -> dict[str, Hold]:
        """Lock open holds, in the order of their ids."""
        rows = await self._session.fetch(_LOCK_HOLDS, self._book, list(pending_ids))
        return {row["id"]: hold_from(row) for row in rows}

    async def lock_accounts(
        self, account_ids: Iterable[str]
    ) -> tuple[dict[str, AccountState], datetime, date]:
        """Lock accounts in the order of their ids; also return the clock and the business date.

        Raises:
            BookNotOpenError: the book has no business date.
        """
        rows = await self._session.fetch(_LOCK_ACCOUNTS, self._book, list(account_ids))
        if not rows:
            raise BookNotOpenError(f"book {self._book} has no business date")
        *locked, last = rows
        return {row[0]: state_from(row) for row in locked}, last["now"], last["business_date"]

    async def share_accounts(
        self, account_ids: Iterable[str]
    ) -> tuple[dict[str, AccountState], datetime]:
        """Lock accounts that are only appended to: other batches may do the same meanwhile.

        Their status, limits and buffering stay as they are; their sums do not. Also return the
        clock, which is to be that of the batch: nothing is booked on an account before its lock.
        """
        rows = await self._session.fetch(_SHARE_ACCOUNTS, self._book, list(account_ids))
        *shared, last = rows
        return {row["id"]: state_from(row) for row in shared}, last["now"]

    async def read_transfers(self, ids: Sequence[str]) -> dict[str, StoredTransfer]:
        """Read what is kept under ids."""
        if not ids:
            return {}
        rows = await self._session.fetch(_READ_TRANSFERS, self._book, ids, min(ids), max(ids))
        return {row["id"]: transfer_from(row) for row in rows}

    async def read_fates(self, pending_ids: Sequence[str]) -> dict[str, Fate]:
        """Read what became of pending transfers that hold nothing any more."""
        if not pending_ids:
            return {}
        rows = await self._session.fetch(
            _READ_FATES, self._book, pending_ids, min(pending_ids), max(pending_ids)
        )
        # A hold that ended is in both parts only when a resolution names it; that one wins.
        return {row["id"]: Fate(row["fate"]) for row in reversed(rows)}

    async def write(self, decision: Decision, now: datetime, business_date: date) -> bool:
        """Write all that a batch changes; return False when another writer took one of its ids."""
        movement = movement_columns(decision)
        if movement is None:
            inserted = await self._write_batch(decision, now, business_date)
        else:
            inserted = await self._session.fetchval(
                _WRITE_MOVEMENT, self._book, now, business_date, *movement
            )
        if inserted != len(decision.stored):
            return False
        if decision.holds_opened or decision.holds_changed or decision.resolutions:
            await self._write_holds(decision, now)
        if decision.appended:
            await self._append_credits(decision, now, business_date)
        return True

    async def _write_batch(self, decision: Decision, now: datetime, business_date: date) -> int:
        inserted = await self._session.fetchval(
            _WRITE_BATCH, self._book, now, business_date, *_columns_of(decision)
        )
        return int(inserted)

    async def _append_credits(self, decision: Decision, now: datetime, on: date) -> None:
        appended = decision.appended
        await self._session.execute(
            _APPEND_CREDITS,
            self._book,
            now,
            on,
            [c.account_id for c in appended],
            [c.transfer_id for c in appended],
            [c.amount_minor for c in appended],
        )

    async def _write_holds(self, decision: Decision, now: datetime) -> None:
        opened, changed = decision.holds_opened, decision.holds_changed
        resolutions = decision.resolutions
        await self._session.execute(
            _WRITE_HOLDS,
            self._book,
            now,
            [h.id for h in opened],
            [h.tenant_id for h in opened],
            [h.mode for h in opened],
            [h.debit_account_id for h in opened],
            [h.credit_account_id for h in opened],
            [h.currency_code for h in opened],
            [h.held_minor for h in opened],
            [h.posted_minor for h in opened],
            [h.expires_at for h in opened],
            [h.id for h in changed],
            [h.held_minor for h in changed],
            [h.posted_minor for h in changed],
            decision.holds_closed,
            [r.pending_id for r in resolutions],
            [r.fate for r in resolutions],
            [r.resolved_by for r in resolutions],
            [r.posted_minor for r in resolutions],
        )

    @property
    def _session(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("no transaction was begun")
        return self._connection


def _columns_of(decision: Decision) -> list[object]:
    """Return what a batch writes, as `write_batch` takes it: the separator, then the columns."""
    stored = decision.stored
    orders = [one.transfer for one in stored]
    entries, folds = decision.entries, decision.folds
    # Texts of the callers' own making; all others are made of letters, digits and `._:-`.
    references = [t.reference_id for t in orders]
    stories = [t.biz_trace_id for t in orders]
    tenants = [t.tenant_id for t in orders]
    merchants = [t.merchant_id for t in orders]
    actors = [t.actor for t in orders]
    separator = separator_for(references, stories, tenants, merchants, actors)
    join = separator.join
    refusals = [one.refusal for one in stored]
    is_any_refused = any(refusals)
    return [
        separator,
        join([t.id for t in orders]),
        join([t.kind for t in orders]),
        join([t.debit_account_id for t in orders]),
        join([t.credit_account_id for t in orders]),
        join([t.currency_code for t in orders]),
        numbers([t.amount_minor for t in orders]),
        join([t.pending_id for t in orders]),
        flags([t.keep_rest for t in orders]),
        numbers([t.timeout_seconds for t in orders]),
        flags([t.linked for t in orders]),
        flags([t.forced for t in orders]),
        flags([t.balancing_debit for t in orders]),
        flags([t.balancing_credit for t in orders]),
        join([t.movement for t in orders]),
        join(references),
        join(["" if t.value_on is None else t.value_on.isoformat() for t in orders]),
        join(stories),
        join(tenants),
        join([t.mode for t in orders]),
        join(merchants),
        join(actors),
        join([one.status for one in stored]),
        join(["" if one is None else one.reason for one in refusals]) if is_any_refused else "",
        [None if one is None else one.metadata for one in refusals] if is_any_refused else [],
        numbers([one.booked_minor for one in stored]),
        join([one.redirected_to or "" for one in stored]),
        numbers([one.debit_version for one in stored]),
        numbers([one.credit_version for one in stored]),
        flags([one.is_buffered for one in stored]),
        join([e.account_id for e in entries]),
        numbers([e.version for e in entries]),
        join([e.transfer_id for e in entries]),
        flags([e.is_debit for e in entries]),
        numbers([e.amount_minor for e in entries]),
        numbers([e.debits_posted_minor for e in entries]),
        numbers([e.credits_posted_minor for e in entries]),
        join([f.account.id for f in folds]),
        numbers([f.debits_posted for f in folds]),
        numbers([f.credits_posted for f in folds]),
        numbers([f.debits_pending for f in folds]),
        numbers([f.credits_pending for f in folds]),
        numbers([f.version for f in folds]),
    ]
