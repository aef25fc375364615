"""Make a voucher of each event that asks for one: what the ledger did not move itself.

It is booked on the event's business date, or on the current one with `value_on` where that day
takes no vouchers any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from common.db.types import Connection
from services.account.domain.vouchers import (
    NewVoucher,
    VoucherLine,
    VoucherSource,
    event_voucher_id,
)
from services.account.flows.book_voucher import VoucherParts, check_terms


@dataclass(frozen=True, slots=True)
class VoucherNews:
    """An event that asks for a voucher."""

    event_id: str
    business_date: date | None
    """None for the current one."""
    summary: str
    currency_code: str
    lines: tuple[VoucherLine, ...]
    tenant_id: str
    mode: str
    biz_trace_id: str
    actor: str


async def hear_vouchers(
    parts: VoucherParts, connection: Connection, news: Sequence[VoucherNews]
) -> None:
    """Book the vouchers of events inside the caller's transaction; those that are booked stay.

    Raises:
        PaymeshError: as `check_terms`; an event is wrong, and none is booked.
        MalformedIdError: an event's id has not the form of one.
    """
    for one in news:
        check_terms(parts.chart, one.summary, one.currency_code, one.lines)
    book = parts.book
    today = await parts.vouchers.share_business_date(connection, book)
    dates = {one.business_date for one in news if one.business_date is not None}
    taking = await parts.vouchers.share_days(connection, book, sorted(dates))
    await parts.vouchers.months.ensure(connection, {today, *taking})
    await parts.vouchers.lock_cursor(connection, book)
    ids = {event_voucher_id(one.event_id): one for one in news}
    booked = await parts.register.find(connection, book, list(ids))
    new = [
        _voucher_of(voucher_id, book, one, today, taking)
        for voucher_id, one in ids.items()
        if voucher_id not in booked
    ]
    if new:
        await parts.vouchers.insert(connection, book, new)


def _voucher_of(
    voucher_id: str, book: int, news: VoucherNews, today: date, taking: frozenset[date]
) -> NewVoucher:
    wanted = news.business_date or today
    # A day that this book never had takes nothing either.
    booked_on = wanted if wanted in taking else today
    return NewVoucher(
        id=voucher_id,
        book=book,
        business_date=booked_on,
        source=VoucherSource.EVENT,
        source_id=news.event_id,
        summary=news.summary,
        currency_code=news.currency_code,
        lines=news.lines,
        tenant_id=news.tenant_id,
        mode=news.mode,
        value_on=wanted if wanted < booked_on else None,
        biz_trace_id=news.biz_trace_id,
        actor=news.actor,
    )
