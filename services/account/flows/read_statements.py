"""Reads what an account's entries tell, after its buffer was drained: a balance, a statement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime

from common.errors import FieldInvalidError
from common.ids import is_id
from services.account.domain.accounts import Account
from services.account.errors import AccountNotFoundError
from services.account.store.statements import (
    BOOKING_LIFE_MAX,
    StatementHead,
    StatementLine,
    StatementStore,
    StatementView,
    Sums,
)

Drain = Callable[[str], Awaitable[object]]
"""Drains the buffer of an account, when it has one."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: nobody sees the accounts of another world."""

    tenant_id: str
    mode: str


@dataclass(frozen=True, slots=True)
class StatementPlace:
    """Where the next page of a statement begins, and the head that all its pages share."""

    after_version: int
    head: StatementHead


@dataclass(frozen=True, slots=True)
class StatementPage:
    """A page of a statement."""

    account: Account
    """As it is now."""
    head: StatementHead
    lines: list[StatementLine]
    next_place: StatementPlace | None
    """None after the last page."""


async def find_account(view: StatementView, reader: Reader, account_id: str) -> Account:
    """Return an account of the reader's world; raises AccountNotFoundError."""
    account = await view.read_account(account_id) if is_id(account_id, "acc") else None
    if account is None or (account.tenant_id, account.mode) != (reader.tenant_id, reader.mode):
        raise AccountNotFoundError(account_id=account_id)
    return account


async def read_balance_at(
    store: StatementStore, drain: Drain, reader: Reader, account_id: str, at: datetime
) -> tuple[Account, Sums]:
    """Return what an account had at an instant: all that was booked or appended until then.

    The answer is the same whenever it is asked for: bookings that read the clock before the
    instant and have not committed yet are waited for.

    Raises:
        AccountNotFoundError: there is none in the reader's world.
        FieldInvalidError: the instant has not come.
    """
    async with store.view() as view:
        await find_account(view, reader, account_id)
        now = await view.read_now()
    if at > now:
        raise FieldInvalidError(field="at", rule="has not come yet")
    if now - at < BOOKING_LIFE_MAX:
        await store.wait_for_bookings(account_id)
    await drain(account_id)
    async with store.view() as view:
        account = await find_account(view, reader, account_id)
        return account, await view.sum_until(account, at)


async def read_statement(
    store: StatementStore,
    drain: Drain,
    reader: Reader,
    account_id: str,
    days: tuple[date, date],
    *,
    place: StatementPlace | None,
    limit: int,
) -> StatementPage:
    """Return a page of an account's statement over business days, the first and the last.

    All pages tell of the entries that there were when the first was read; those of a day that is
    not over come in the next statement of it.

    Raises:
        AccountNotFoundError: there is none in the reader's world.
        FieldInvalidError: the last day is before the first.
    """
    from_on, to_on = days
    if to_on < from_on:
        raise FieldInvalidError(field="to_on", rule="is before from_on")
    if place is None:
        async with store.view() as view:
            await find_account(view, reader, account_id)
        await drain(account_id)
    async with store.view() as view:
        account = await find_account(view, reader, account_id)
        if place is None:
            head = await view.read_head(account, from_on, to_on)
            place = StatementPlace(head.after_version, head)
        head = place.head
        lines = await view.list_entries(
            account_id,
            after_version=place.after_version,
            last_version=head.last_version,
            from_on=from_on,
            to_on=to_on,
            # One more tells whether there is a next page.
            limit=limit + 1,
        )
    next_place = None
    if len(lines) > limit:
        lines.pop()
        next_place = StatementPlace(lines[-1].version, head)
    return StatementPage(account, head, lines, next_place)
