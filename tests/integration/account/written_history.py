"""Histories of one account, written straight into the tables with times of the test's choosing.

The database's clock cannot be set, so what happens around the end of a day, or to credits that
waited in a buffer for minutes, is written as the ledger would have written it at those times.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from common.db.pool import Pool
from common.db.types import Connection
from common.ids import derive

FIRST_DAY = date(2031, 3, 1)
BEGUN_AT = datetime(2025, 3, 1, tzinfo=UTC)
ONE_DAY = timedelta(days=1)

_PAUSES = (0.0, 0.000_001, 0.01, 2.0, 20.0, 700.0)
"""Seconds between two happenings: within, around and beyond the slack that reading allows."""
_COMMIT_SECONDS = (0.0, 0.0, 0.5, 5.0, 100.0)
"""How long a transaction lives after it read the clock."""


@dataclass
class Line:
    """An entry, or a credit that still waits in the buffer (version 0)."""

    transfer_id: str
    is_debit: bool
    amount_minor: int
    business_date: date
    at: datetime
    """When it was booked, or appended."""
    version: int = 0
    booked_at: datetime | None = None
    """When the entry was made."""
    is_appended: bool = False
    committed_at: datetime = BEGUN_AT
    debits_minor: int = 0
    credits_minor: int = 0

    @property
    def minor(self) -> int:
        """What it adds to the balance of an account that grows by credits."""
        return -self.amount_minor if self.is_debit else self.amount_minor


@dataclass
class History:
    """One account's life."""

    parent: str
    """The account's id is derived from it."""
    lines: list[Line] = field(default_factory=list)
    waiting: list[Line] = field(default_factory=list)
    days: list[tuple[date, datetime]] = field(default_factory=list)
    """Each day that began after the first, and when."""
    version: int = 1
    now: datetime = BEGUN_AT

    @property
    def account_id(self) -> str:
        """The account."""
        return derive("acc", self.parent, "account")

    @property
    def today(self) -> date:
        """The business date."""
        return self.days[-1][0] if self.days else FIRST_DAY

    def known(self) -> list[Line]:
        """Everything that was booked, drained or not."""
        return self.lines + self.waiting

    def _new_line(self, amount_minor: int, *, is_debit: bool) -> Line:
        number = len(self.lines) + len(self.waiting)
        return Line(
            derive("tfr", self.parent, number), is_debit, amount_minor, self.today, self.now
        )

    def _enter(self, line: Line) -> None:
        last = self.lines[-1] if self.lines else None
        debits, credited = (last.debits_minor, last.credits_minor) if last else (0, 0)
        self.version += 1
        line.version, line.booked_at = self.version, self.now
        line.debits_minor = debits + (line.amount_minor if line.is_debit else 0)
        line.credits_minor = credited + (0 if line.is_debit else line.amount_minor)
        self.lines.append(line)

    def book(self, amount_minor: int, *, is_debit: bool) -> None:
        """Book at once."""
        self._enter(self._new_line(amount_minor, is_debit=is_debit))

    def append(self, amount_minor: int, commit_seconds: float) -> None:
        """Append a credit, whose transaction commits a while later."""
        line = self._new_line(amount_minor, is_debit=False)
        line.is_appended = True
        line.committed_at = self.now + timedelta(seconds=commit_seconds)
        self.waiting.append(line)

    def drain(self) -> None:
        """Make entries of all appended credits that were committed."""
        for line in [line for line in self.waiting if line.committed_at <= self.now]:
            self.waiting.remove(line)
            self._enter(line)

    def touch(self) -> None:
        """Change the account without an entry, as a hold does."""
        self.version += 1

    def next_day(self, days: int) -> None:
        """Advance the date; nothing that was begun before is under way then."""
        under_way = [line.committed_at for line in self.waiting]
        self.now = max([self.now, *under_way]) + timedelta(microseconds=1)
        self.days.append((self.today + days * ONE_DAY, self.now))
        self.now += timedelta(microseconds=1)

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


def make_history(parent: str, chance: random.Random, steps: int) -> History:
    """Return a history of random happenings."""
    history = History(parent)
    acts: list[tuple[int, Callable[[], None]]] = [
        (6, lambda: history.append(chance.randint(1, 99), chance.choice(_COMMIT_SECONDS))),
        (4, lambda: history.book(chance.randint(1, 99), is_debit=chance.random() < 0.5)),
        (2, history.drain),
        (1, history.touch),
        (1, lambda: history.next_day(chance.choice((1, 1, 3)))),
    ]
    weights, choices = zip(*acts, strict=True)
    for _ in range(steps):
        chance.choices(choices, weights)[0]()
        history.pass_time(chance.choice(_PAUSES))
    return history


async def write_history(pool: Pool, history: History, *, book: int = 0) -> None:
    """Write a history into empty tables of a world of its own."""
    counter = derive("acc", history.parent, "counter")
    async with pool.transaction() as connection:
        await connection.execute("DELETE FROM business_dates")
        await connection.execute("DELETE FROM business_date_changes")
        await connection.execute(
            "INSERT INTO business_dates (book, business_date, advanced_at, actor)"
            " VALUES ($1, $2, $3, 'test')",
            book,
            history.today,
            history.now,
        )
        before = FIRST_DAY
        for day, began_at in history.days:
            await connection.execute(
                "INSERT INTO business_date_changes"
                " (book, business_date, previous_date, advanced_at, actor)"
                " VALUES ($1, $2, $3, $4, 'test')",
                book,
                day,
                before,
                began_at,
            )
            before = day
        last = history.lines[-1] if history.lines else Line("", False, 0, FIRST_DAY, BEGUN_AT)
        await connection.execute(
            "INSERT INTO accounts (book, version, debits_posted_minor, credits_posted_minor,"
            " credit_limit_minor, created_at, updated_at, may_go_negative, id, tenant_id, mode,"
            " owner_id, merchant_id, kind, currency_code, normal_side, status, is_buffered)"
            " VALUES ($1, $2, $3, $4, 0, $5, $5, false, $6, 'default', 'TEST', 'owner', '',"
            " 'merchant_pending', 'USD', 'CREDIT', 'NORMAL', true)",
            book,
            history.version,
            last.debits_minor,
            last.credits_minor,
            BEGUN_AT,
            history.account_id,
        )
        for line in history.known():
            await _write_transfer(connection, line, history.account_id, counter, book)
        await connection.executemany(
            "INSERT INTO entries (book, is_debit, business_date, version, amount_minor,"
            " debits_posted_minor, credits_posted_minor, booked_at, account_id, transfer_id,"
            " appended_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            [
                (
                    book,
                    line.is_debit,
                    line.business_date,
                    line.version,
                    line.amount_minor,
                    line.debits_minor,
                    line.credits_minor,
                    line.booked_at,
                    history.account_id,
                    line.transfer_id,
                    line.at if line.is_appended else None,
                )
                for line in history.lines
            ],
        )
        await connection.executemany(
            "INSERT INTO buffered_credits (book, business_date, amount_minor, booked_at,"
            " account_id, transfer_id) VALUES ($1, $2, $3, $4, $5, $6)",
            [
                (
                    book,
                    line.business_date,
                    line.amount_minor,
                    line.at,
                    history.account_id,
                    line.transfer_id,
                )
                for line in history.waiting
            ],
        )


async def _write_transfer(
    connection: Connection, line: Line, account_id: str, counter: str, book: int
) -> None:
    debit, credit = (account_id, counter) if line.is_debit else (counter, account_id)
    await connection.execute(
        "INSERT INTO transfers (book, amount_minor, booked_minor, debit_version, credit_version,"
        " booked_at, timeout_seconds, business_date, keep_rest, linked, forced, id, kind, status,"
        " debit_account_id, credit_account_id, currency_code, pending_id, movement, reference_id,"
        " biz_trace_id, tenant_id, mode, merchant_id, actor, is_buffered)"
        " VALUES ($1, $2, $2, 0, 0, $3, 0, $4, false, false, false, $5, 'SINGLE', 'BOOKED',"
        " $6, $7, 'USD', '', 'test.move', $8, '', 'default', 'TEST', '', 'test', $9)",
        book,
        line.amount_minor,
        line.at,
        line.business_date,
        line.transfer_id,
        debit,
        credit,
        f"ref-{line.amount_minor}",
        line.is_appended,
    )
