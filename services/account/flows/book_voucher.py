"""Book a voucher by hand, on the current business date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final
from unicodedata import category

from common.audit import AuditEntry, add_audit, digest_of, require_role
from common.context import CallContext
from common.db.pool import Pool
from common.errors import (
    AmountOutOfRangeError,
    CurrencyUnknownError,
    FieldInvalidError,
    IdConflictError,
)
from common.money import AMOUNT_MINOR_MAX
from services.account.domain.chart import Chart
from services.account.domain.requests import is_currency
from services.account.domain.vouchers import (
    NewVoucher,
    Voucher,
    VoucherLine,
    VoucherSource,
    difference_minor,
    manual_voucher_id,
)
from services.account.errors import (
    SubjectControlledError,
    SubjectUnknownError,
    VoucherUnbalancedError,
)
from services.account.store.register import RegisterStore
from services.account.store.vouchers import VoucherStore

ROLE: Final = "accountant"
"""Whoever writes into the inner books by hand."""

_TEXT_MAX: Final = 200
_LINES_MAX: Final = 100
_COMPARED: Final = ("summary", "currency_code", "lines", "value_on")


@dataclass(frozen=True, slots=True)
class VoucherOrder:
    """A voucher that a person wants."""

    request_id: str
    summary: str
    currency_code: str
    lines: tuple[VoucherLine, ...]
    value_on: date | None
    call: CallContext
    at: datetime
    """Now, by the service's clock."""


@dataclass(frozen=True)
class VoucherParts:
    """What flows of vouchers are made of."""

    pool: Pool
    chart: Chart
    vouchers: VoucherStore
    register: RegisterStore
    book: int = field(default=0)
    """The book that vouchers without a transfer are in."""


async def book_voucher(parts: VoucherParts, order: VoucherOrder) -> Voucher:
    """Book a voucher; a repeat answers as the first time.

    Raises:
        RoleMissingError: the caller is no accountant.
        SubjectUnknownError, SubjectControlledError, VoucherUnbalancedError, CurrencyUnknownError,
        AmountOutOfRangeError, FieldInvalidError: an order that is never valid under this chart.
        IdConflictError: the request made another voucher.
    """
    principal = order.call.principal
    world = (principal.tenant_id, str(principal.mode))
    voucher_id = manual_voucher_id(parts.book, *world, principal.actor, order.request_id)
    require_role(principal, ROLE)
    check_text("request_id", order.request_id)
    check_terms(parts.chart, order.summary, order.currency_code, order.lines)
    async with parts.pool.transaction() as connection:
        today = await parts.vouchers.share_business_date(connection, parts.book)
        await parts.vouchers.months.ensure(connection, [today])
        await parts.vouchers.lock_cursor(connection, parts.book)
        earlier = await parts.register.find(connection, parts.book, [voucher_id])
        if earlier:
            return _check_repeat(order, earlier[voucher_id])
        if order.value_on is not None and order.value_on > today:
            raise FieldInvalidError(field="value_on", rule=f"must not be after {today}")
        new = NewVoucher(
            id=voucher_id,
            book=parts.book,
            business_date=today,
            source=VoucherSource.MANUAL,
            source_id=order.request_id,
            summary=order.summary,
            currency_code=order.currency_code,
            lines=order.lines,
            tenant_id=world[0],
            mode=world[1],
            value_on=order.value_on,
            biz_trace_id=order.call.biz_trace_id,
            actor=principal.actor,
        )
        (booked,) = await parts.vouchers.insert(connection, parts.book, [new])
        await add_audit(connection, _audit_entry(order, booked))
    return booked


def check_text(field: str, text: str) -> None:
    """Raise FieldInvalidError unless a text is one line of 1 to 200 characters.

    All spaces are taken, also the wide one of Chinese texts, which Python calls not printable.
    """
    is_line = all(one.isprintable() or category(one) == "Zs" for one in text)
    if not 0 < len(text) <= _TEXT_MAX or not is_line:
        raise FieldInvalidError(
            field=field, rule=f"must be 1 to {_TEXT_MAX} printable characters on one line"
        )


def check_terms(
    chart: Chart, summary: str, currency_code: str, lines: Sequence[VoucherLine]
) -> None:
    """Check what a voucher says that no rule makes.

    Raises:
        CurrencyUnknownError: no such currency.
        FieldInvalidError: no summary; a line without an amount, or on a subject with others below.
        SubjectUnknownError, SubjectControlledError, VoucherUnbalancedError, AmountOutOfRangeError:
            as they say.
    """
    check_text("summary", summary)
    if len(lines) > _LINES_MAX:
        raise FieldInvalidError(field="lines", rule=f"must be at most {_LINES_MAX}")
    if not is_currency(currency_code):
        raise CurrencyUnknownError(currency_code=currency_code, field="currency_code")
    for place, line in enumerate(lines):
        if line.subject_code not in chart.subjects:
            raise SubjectUnknownError(
                subject_code=line.subject_code, field=f"lines[{place}].subject_code"
            )
        if line.subject_code in chart.kinds_by_subject:
            raise SubjectControlledError(
                subject_code=line.subject_code, field=f"lines[{place}].subject_code"
            )
        if line.subject_code in chart.parents:
            raise FieldInvalidError(
                field=f"lines[{place}].subject_code",
                rule="has subjects below it; book on one of those",
            )
        if line.amount_minor > AMOUNT_MINOR_MAX:
            raise AmountOutOfRangeError(field=f"lines[{place}]")
        if line.amount_minor <= 0:
            raise FieldInvalidError(
                field=f"lines[{place}]", rule="must have an amount on exactly one side"
            )
    difference = difference_minor(lines)
    if difference or not lines:
        raise VoucherUnbalancedError(difference_minor=difference)


def _check_repeat(order: VoucherOrder, made: Voucher) -> Voucher:
    for name in _COMPARED:
        if getattr(order, name) != getattr(made, name):
            raise IdConflictError(id=order.request_id, field=name)
    return made


def _audit_entry(order: VoucherOrder, booked: Voucher) -> AuditEntry:
    return AuditEntry(
        principal=order.call.principal,
        role=ROLE,
        action="voucher.book",
        subject=f"voucher {booked.id}",
        reason=order.summary,
        at=order.at,
        after_digest=digest_of(
            [[line.subject_code, line.is_debit, line.amount_minor] for line in booked.lines]
        ),
        biz_trace_id=order.call.biz_trace_id,
    )
