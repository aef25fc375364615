"""Domain ↔ contract of the inner books: subjects, vouchers, the trial balance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.account.v1 import (
    GetTrialBalanceResponse,
    NormalSide,
    SubjectBalance,
    SubjectClass,
)
from paymesh.account.v1 import Subject as SubjectMessage
from paymesh.account.v1 import Voucher as VoucherMessage
from paymesh.account.v1 import VoucherLine as VoucherLineMessage
from paymesh.account.v1 import VoucherSource as VoucherSourceMessage

from common.errors import FieldInvalidError
from services.account.domain.accounts import Side
from services.account.domain.chart import Chart, Subject
from services.account.domain.vouchers import Voucher, VoucherLine, VoucherSource
from services.account.store.register import SubjectSum

_SOURCE_PREFIX: Final = "VOUCHER_SOURCE_"


def date_from_text(text: str, field: str, default: date | None = None) -> date:
    """Read a date; `default` where the text is empty. Raises FieldInvalidError."""
    if not text and default is not None:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalidError(field=field, rule="must be a date, YYYY-MM-DD") from error


def days_from_text(from_on: str, to_on: str, default: date | None = None) -> tuple[date, date]:
    """Read the first and the last day of a range. Raises FieldInvalidError."""
    first = date_from_text(from_on, "from_on", default)
    last = date_from_text(to_on, "to_on", default)
    if last < first:
        raise FieldInvalidError(field="to_on", rule=f"must not be before {first}")
    return first, last


def lines_from_proto(messages: Iterable[VoucherLineMessage]) -> tuple[VoucherLine, ...]:
    """Read the lines of a voucher; raises FieldInvalidError for one with an amount on both sides.

    A line without any amount is read as one of zero, which no voucher takes.
    """
    lines = []
    for place, message in enumerate(messages):
        if message.debit_minor and message.credit_minor:
            raise FieldInvalidError(
                field=f"lines[{place}]", rule="must have an amount on exactly one side"
            )
        amount = message.debit_minor or message.credit_minor
        lines.append(VoucherLine(message.subject_code, message.debit_minor > 0, amount))
    return tuple(lines)


def source_from_proto(value: VoucherSourceMessage.ValueType) -> str:
    """Return the source that a filter names; empty for all."""
    name = VoucherSourceMessage.Name(value).removeprefix(_SOURCE_PREFIX)
    return "" if name == "UNSPECIFIED" else str(VoucherSource(name))


def voucher_to_proto(voucher: Voucher) -> VoucherMessage:
    """Return a voucher as it stands."""
    recorded_at = Timestamp()
    recorded_at.FromDatetime(voucher.recorded_at)
    return VoucherMessage(
        id=voucher.id,
        business_date=voucher.business_date.isoformat(),
        number=voucher.number,
        source=VoucherSourceMessage.Value(f"{_SOURCE_PREFIX}{voucher.source}"),
        source_id=voucher.source_id,
        rule=voucher.rule,
        rule_version=voucher.rule_version,
        summary=voucher.summary,
        currency_code=voucher.currency_code,
        lines=[
            VoucherLineMessage(
                subject_code=line.subject_code,
                debit_minor=line.amount_minor if line.is_debit else 0,
                credit_minor=0 if line.is_debit else line.amount_minor,
            )
            for line in voucher.lines
        ],
        value_on=voucher.value_on.isoformat() if voucher.value_on else "",
        reversed_by_id=voucher.reversed_by_id,
        biz_trace_id=voucher.biz_trace_id,
        actor=voucher.actor,
        recorded_at=recorded_at,
    )


def subject_to_proto(chart: Chart, subject: Subject) -> SubjectMessage:
    """Return a line of the chart."""
    return SubjectMessage(
        code=subject.code,
        name=subject.name,
        subject_class=SubjectClass.Value(f"SUBJECT_CLASS_{subject.subject_class}"),
        normal_side=NormalSide.Value(f"NORMAL_SIDE_{subject.normal_side}"),
        account_kinds=chart.kinds_by_subject.get(subject.code, ()),
        parent_code=subject.parent_code,
    )


def trial_balance_to_proto(sums: Sequence[SubjectSum]) -> GetTrialBalanceResponse:
    """Return the trial balance: sums of subjects on their normal sides."""
    difference: dict[str, int] = {}
    balances = []
    for one in sums:
        closing = one.opening_minor + one.debits_minor - one.credits_minor
        difference[one.currency_code] = difference.get(one.currency_code, 0) + closing
        sign = 1 if one.normal_side is Side.DEBIT else -1
        balances.append(
            SubjectBalance(
                subject_code=one.subject_code,
                currency_code=one.currency_code,
                opening_minor=sign * one.opening_minor,
                debits_minor=one.debits_minor,
                credits_minor=one.credits_minor,
                closing_minor=sign * closing,
                normal_side=NormalSide.Value(f"NORMAL_SIDE_{one.normal_side}"),
                subject_name=one.subject_name,
            )
        )
    return GetTrialBalanceResponse(balances=balances, difference_minor=difference)
