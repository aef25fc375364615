"""Close an accounting period: nothing is written into it any more, its balances are kept.

At the end of a year profit and loss are carried forward: a voucher brings every income and expense
subject to zero against the profit of the year.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Final

from common.audit import AuditEntry, add_audit, require_role
from common.context import CallContext
from common.db.pool import Pool
from common.db.types import Connection
from common.ids import derive_timeless
from services.account.domain.periods import Month, Period, obstacle_to_closing
from services.account.domain.vouchers import NewVoucher, VoucherLine, VoucherSource
from services.account.errors import PeriodNotClosableError
from services.account.store.periods import PeriodStore, ProfitAndLoss
from services.account.store.vouchers import VoucherStore

ROLE: Final = "accountant"


@dataclass(frozen=True)
class PeriodParts:
    """What the flows of periods are made of."""

    pool: Pool
    periods: PeriodStore
    vouchers: VoucherStore
    profit_subject: str
    """Where profit and loss are carried forward to."""


async def close_period(parts: PeriodParts, month: Month, call: CallContext, at: datetime) -> Period:
    """Close a month; a repeat answers as the first time.

    Raises:
        PeriodNotClosableError: a day of it is not closed, an earlier period is open, or its trial
            balance does not balance.
        RoleMissingError: the caller is no accountant.
    """
    require_role(call.principal, ROLE)
    if month.ends_year:
        await parts.vouchers.months.make([month.last])
    async with parts.pool.transaction() as connection:
        # Whoever writes vouchers holds a cursor, and then asks for the period.
        for book in sorted(await parts.periods.list_current(connection)):
            await parts.vouchers.lock_cursor(connection, book)
        await parts.periods.lock(connection, month)
        period = await parts.periods.find(connection, month)
        if period is None:
            await _check(parts, connection, month)
            if month.ends_year:
                await _carry_forward(parts, connection, month, call.principal.actor)
            await _check_balance(parts, connection, month)
            period = await parts.periods.insert(connection, month, call.principal.actor)
            await add_audit(connection, audit_entry("period.close", month, call, at))
    return await with_balances(parts, period, call)


async def with_balances(parts: PeriodParts, period: Period, call: CallContext) -> Period:
    """Add the balances of the caller's world and the number of vouchers."""
    principal = call.principal
    counts = await parts.periods.count_vouchers([period.month])
    return replace(
        period,
        vouchers_count=counts[period.month],
        balances=await parts.periods.read_balances(
            period.month, principal.tenant_id, str(principal.mode)
        ),
    )


def audit_entry(action: str, month: Month, call: CallContext, at: datetime) -> AuditEntry:
    """Return the line of the audit log about a period."""
    return AuditEntry(
        principal=call.principal,
        role=ROLE,
        action=action,
        subject=f"period {month}",
        reason="",
        at=at,
        biz_trace_id=call.biz_trace_id,
    )


async def _check(parts: PeriodParts, connection: Connection, month: Month) -> None:
    obstacle = obstacle_to_closing(
        month,
        await parts.periods.list_current(connection),
        await parts.periods.list_not_closed(connection, month),
        await parts.periods.list_open_before(connection, month),
    )
    if obstacle is not None:
        raise PeriodNotClosableError(period=str(month), obstacle=obstacle)


async def _check_balance(parts: PeriodParts, connection: Connection, month: Month) -> None:
    for one in await parts.periods.list_unbalanced(connection, month):
        words = f"trial balance in {one.currency_code} is off by {one.difference_minor}"
        raise PeriodNotClosableError(period=str(month), obstacle=words)


async def _carry_forward(
    parts: PeriodParts, connection: Connection, month: Month, actor: str
) -> None:
    standing = await parts.periods.list_profit_and_loss(connection, month)
    for book, of_book in groupby(standing, key=lambda one: one.book):
        vouchers = [
            _closing_voucher(parts.profit_subject, month, list(of_world), actor)
            for _, of_world in groupby(
                of_book, key=lambda one: (one.tenant_id, one.mode, one.currency_code)
            )
        ]
        await parts.vouchers.insert(connection, book, vouchers)


def _closing_voucher(
    profit_subject: str, month: Month, standing: Sequence[ProfitAndLoss], actor: str
) -> NewVoucher:
    """Return the voucher that brings one world's income and expenses in one currency to zero."""
    first = standing[0]
    profit_minor = -sum(one.balance_minor for one in standing)
    lines = [
        VoucherLine(one.subject_code, one.balance_minor < 0, abs(one.balance_minor))
        for one in standing
    ]
    if profit_minor:
        lines.append(VoucherLine(profit_subject, profit_minor < 0, abs(profit_minor)))
    return NewVoucher(
        id=derive_timeless(
            "vch",
            "closing",
            str(month),
            first.tenant_id,
            first.mode,
            first.currency_code,
            book=first.book,
        ),
        book=first.book,
        business_date=month.last,
        source=VoucherSource.CLOSING,
        source_id=f"{month} {first.tenant_id} {first.mode} {first.currency_code}",
        summary=f"Profit and loss of {month.year} carried forward",
        currency_code=first.currency_code,
        lines=tuple(sorted(lines, key=lambda line: not line.is_debit)),
        tenant_id=first.tenant_id,
        mode=first.mode,
        actor=actor,
    )
