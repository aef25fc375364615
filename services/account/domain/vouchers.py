"""Vouchers: movements in double entry. Never changed; what was wrong is taken back by another."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from common.ids import derive, derive_timeless


class VoucherSource(enum.StrEnum):
    """What a voucher was made from."""

    JOURNAL = "JOURNAL"
    """A transfer, by an accounting rule."""
    EVENT = "EVENT"
    """An event of another service."""
    MANUAL = "MANUAL"
    """A person's order."""
    REVERSAL = "REVERSAL"
    """Another voucher, which it takes back."""
    CLOSING = "CLOSING"
    """The close of a period, which carries profit and loss forward."""


@dataclass(frozen=True, slots=True)
class VoucherLine:
    """One line of a voucher."""

    subject_code: str
    is_debit: bool
    amount_minor: int
    """Above zero."""


@dataclass(frozen=True, slots=True)
class NewVoucher:
    """A voucher that is to be booked; it gets its number then."""

    id: str
    book: int
    business_date: date
    source: VoucherSource
    source_id: str
    """The transfer, event, request, reversed voucher or period."""
    summary: str
    currency_code: str
    lines: tuple[VoucherLine, ...]
    """Debits and credits are equal."""
    tenant_id: str
    mode: str
    rule: str = ""
    """Movement of the accounting rule, or `*`; empty where no rule made it."""
    rule_version: int = 0
    value_on: date | None = None
    """The day that the money belongs to, when it was learned late."""
    biz_trace_id: str = ""
    actor: str = ""

    @property
    def total_minor(self) -> int:
        """Sum of its debits, in minor units."""
        return sum(line.amount_minor for line in self.lines if line.is_debit)


@dataclass(frozen=True, slots=True)
class Voucher(NewVoucher):
    """A voucher as it stands in the register."""

    number: int = field(kw_only=True)
    """In the register of its book, day and world, from 1, without gaps."""
    recorded_at: datetime = field(kw_only=True)
    reversed_by_id: str = field(default="", kw_only=True)
    """Voucher that took it back; empty while it stands."""


def difference_minor(lines: Sequence[VoucherLine]) -> int:
    """Return debits less credits; zero when they balance."""
    return sum(line.amount_minor if line.is_debit else -line.amount_minor for line in lines)


def exchanged(lines: Sequence[VoucherLine]) -> tuple[VoucherLine, ...]:
    """Return the lines with the sides exchanged, debits first."""
    turned = [VoucherLine(o.subject_code, not o.is_debit, o.amount_minor) for o in lines]
    return tuple(sorted(turned, key=lambda line: not line.is_debit))


def journal_voucher_id(transfer_id: str) -> str:
    """Return the id of a transfer's first voucher (`make_vouchers` in SQL says the same)."""
    return f"vch_{transfer_id[4:]}"


def replacement_voucher_id(transfer_id: str, rule: str, rule_version: int) -> str:
    """Return the id of the voucher of a transfer by a later version of its rule."""
    return derive("vch", transfer_id, "replacement", rule, rule_version)


def reversal_voucher_id(voucher_id: str) -> str:
    """Return the id of the voucher that takes another back; there is at most one."""
    return derive("vch", voucher_id, "reversal")


def event_voucher_id(event_id: str) -> str:
    """Return the id of an event's voucher; raises MalformedIdError."""
    return derive("vch", event_id)


def manual_voucher_id(book: int, tenant_id: str, mode: str, actor: str, request_id: str) -> str:
    """Return the id of the voucher of a person's request, so that a repeat finds it."""
    return derive_timeless("vch", "manual", tenant_id, mode, actor, request_id, book=book)
