"""Take a voucher back by another with the sides exchanged, on the current business date.

A voucher from the journal may not simply go, because its transfer stays: it is made anew in the
same transaction, by the latest version of its rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from common.audit import AuditEntry, add_audit, require_role
from common.context import CallContext
from common.db.types import Connection
from common.errors import IdConflictError, StateConflictError
from common.ids import book_of
from services.account.domain.vouchers import (
    NewVoucher,
    Voucher,
    VoucherSource,
    exchanged,
    replacement_voucher_id,
    reversal_voucher_id,
)
from services.account.errors import VoucherReversedError
from services.account.flows.book_voucher import ROLE, VoucherParts, check_text
from services.account.flows.read_vouchers import find_voucher
from services.account.store.register import Reversal

_FINAL: Final = frozenset({VoucherSource.REVERSAL, VoucherSource.CLOSING})


@dataclass(frozen=True, slots=True)
class ReversalOrder:
    """A voucher that a person wants to be taken back."""

    request_id: str
    voucher_id: str
    reason: str
    call: CallContext
    at: datetime
    """Now, by the service's clock."""


@dataclass(frozen=True, slots=True)
class Reversed:
    """What took a voucher back."""

    reversal: Voucher
    replacement: Voucher | None
    """What stands in its place, when it came from the journal."""


async def reverse_voucher(parts: VoucherParts, order: ReversalOrder) -> Reversed:
    """Take a voucher back; a repeat answers as the first time.

    Raises:
        RoleMissingError: the caller is no accountant.
        FieldInvalidError: no request id or reason that can be kept.
        NotFoundError: no such voucher in the caller's world.
        VoucherReversedError: another request did it before.
        StateConflictError: it is a reversal or a closing; or its rule has no later version.
        IdConflictError: the request took another voucher back, or for another reason.
    """
    book = book_of(order.voucher_id)
    principal = order.call.principal
    world = (principal.tenant_id, str(principal.mode))
    require_role(principal, ROLE)
    check_text("request_id", order.request_id)
    check_text("reason", order.reason)
    # Vouchers never go: nobody else is kept waiting for one that is not there, in whatever book.
    await find_voucher(parts, order.voucher_id, *world)
    async with parts.pool.transaction() as connection:
        today = await parts.vouchers.share_business_date(connection, book)
        await parts.vouchers.months.ensure(connection, [today])
        await parts.vouchers.lock_cursor(connection, book)
        voucher = (await parts.register.find(connection, book, [order.voucher_id]))[
            order.voucher_id
        ]
        earlier = await _find_earlier(parts, connection, order, voucher)
        if earlier is not None:
            return await _read_reversed(parts, connection, book, earlier)
        new = [_reversal_of(voucher, today, principal.actor)]
        if voucher.source is VoucherSource.JOURNAL:
            new.append(await _replacement_of(parts, connection, voucher, today, principal.actor))
        booked = await parts.vouchers.insert(connection, book, new)
        replacement = booked[1] if len(booked) > 1 else None
        await parts.register.insert_reversal(
            connection,
            voucher,
            Reversal(
                voucher_id=voucher.id,
                reversal_id=booked[0].id,
                replacement_id=None if replacement is None else replacement.id,
                request_id=order.request_id,
                reason=order.reason,
                actor=principal.actor,
            ),
        )
        await add_audit(connection, _audit_entry(order))
    return Reversed(booked[0], replacement)


async def _find_earlier(
    parts: VoucherParts, connection: Connection, order: ReversalOrder, voucher: Voucher
) -> Reversal | None:
    """Return what this request did before; raises when the voucher cannot be taken back."""
    principal = order.call.principal
    made = await parts.register.find_reversal_of_request(
        connection, principal.tenant_id, str(principal.mode), principal.actor, order.request_id
    )
    if made is not None:
        for name in ("voucher_id", "reason"):
            if getattr(made, name) != getattr(order, name):
                raise IdConflictError(id=order.request_id, field=name)
        return made
    if voucher.reversed_by_id:
        raise VoucherReversedError(voucher_id=voucher.id, reversed_by_id=voucher.reversed_by_id)
    if voucher.source in _FINAL:
        raise StateConflictError(resource="voucher", state=str(voucher.source))
    return None


async def _read_reversed(
    parts: VoucherParts, connection: Connection, book: int, made: Reversal
) -> Reversed:
    ids = [made.reversal_id, *([made.replacement_id] if made.replacement_id else [])]
    found = await parts.register.find(connection, book, ids)
    replacement = found[made.replacement_id] if made.replacement_id else None
    return Reversed(found[made.reversal_id], replacement)


def _reversal_of(voucher: Voucher, today: date, actor: str) -> NewVoucher:
    return NewVoucher(
        id=reversal_voucher_id(voucher.id),
        book=voucher.book,
        business_date=today,
        source=VoucherSource.REVERSAL,
        source_id=voucher.id,
        summary=voucher.summary,
        currency_code=voucher.currency_code,
        lines=exchanged(voucher.lines),
        tenant_id=voucher.tenant_id,
        mode=voucher.mode,
        value_on=_value_on(voucher, today),
        biz_trace_id=voucher.biz_trace_id,
        actor=actor,
    )


async def _replacement_of(
    parts: VoucherParts, connection: Connection, voucher: Voucher, today: date, actor: str
) -> NewVoucher:
    terms = await parts.register.read_latest_terms(connection, voucher.book, voucher.source_id)
    if terms is None:
        # The month of its transfer was set aside, and who had the money cannot be told any more.
        raise StateConflictError(resource="voucher", state="TRANSFER_SET_ASIDE")
    if (terms.rule, terms.version) == (voucher.rule, voucher.rule_version):
        raise StateConflictError(resource="voucher", state="BY_LATEST_RULE")
    return NewVoucher(
        id=replacement_voucher_id(voucher.source_id, terms.rule, terms.version),
        book=voucher.book,
        business_date=today,
        source=VoucherSource.JOURNAL,
        source_id=voucher.source_id,
        summary=terms.summary,
        currency_code=voucher.currency_code,
        lines=terms.lines,
        tenant_id=voucher.tenant_id,
        mode=voucher.mode,
        rule=terms.rule,
        rule_version=terms.version,
        value_on=_value_on(voucher, today),
        biz_trace_id=voucher.biz_trace_id,
        actor=actor,
    )


def _value_on(voucher: Voucher, today: date) -> date | None:
    """The day that the money belongs to, when that is not the day of the correction."""
    day = voucher.value_on or voucher.business_date
    return None if day == today else day


def _audit_entry(order: ReversalOrder) -> AuditEntry:
    return AuditEntry(
        principal=order.call.principal,
        role=ROLE,
        action="voucher.reverse",
        subject=f"voucher {order.voucher_id}",
        reason=order.reason,
        at=order.at,
        biz_trace_id=order.call.biz_trace_id,
    )
