"""Domain ↔ contract of business days, periods and proofs."""

from __future__ import annotations

from datetime import date, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.account.v1 import BusinessDay as BusinessDayMessage
from paymesh.account.v1 import (
    BusinessDayState,
    NormalSide,
    PeriodState,
    ProofOccasion,
    SubjectBalance,
)
from paymesh.account.v1 import Period as PeriodMessage
from paymesh.account.v1 import Proof as ProofMessage
from paymesh.account.v1 import ProofLine as ProofLineMessage
from paymesh.account.v1 import UnfitEntry as UnfitEntryMessage

from common.errors import FieldInvalidError
from services.account.domain.chart import Chart
from services.account.domain.days import DayReport
from services.account.domain.periods import Month, Period, PeriodBalance
from services.account.domain.proofs import Line, Proof


def business_date_from_text(text: str, field: str) -> date:
    """Read a business date; raises FieldInvalidError."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise FieldInvalidError(field=field, rule="must be a date, YYYY-MM-DD") from error


def month_from_text(text: str) -> Month:
    """Read a period; raises FieldInvalidError."""
    try:
        return Month.parse(text)
    except ValueError as error:
        raise FieldInvalidError(field="period", rule="must be a month, YYYY-MM") from error


def day_to_proto(
    report: DayReport, proof: Proof | None, *, with_lines: bool = True
) -> BusinessDayMessage:
    """Return a business day and its last proof."""
    day = report.day
    return BusinessDayMessage(
        business_date=day.business_date.isoformat(),
        book=day.book,
        state=BusinessDayState.Value(f"BUSINESS_DAY_STATE_{day.state}"),
        cut_at=_timestamp(day.cut_at),
        closed_at=_timestamp(day.closed_at),
        vouchers_count=report.vouchers_count,
        transfers_in_flight=report.transfers_in_flight,
        proof=None if proof is None else proof_to_proto(proof, with_lines=with_lines),
    )


def proof_to_proto(proof: Proof, *, with_lines: bool = True) -> ProofMessage:
    """Return a proof."""
    return ProofMessage(
        proved_at=_timestamp(proof.proved_at),
        occasion=ProofOccasion.Value(f"PROOF_OCCASION_{proof.occasion}"),
        business_date=proof.business_date.isoformat(),
        holds=proof.holds,
        lines=[_line_to_proto(line) for line in proof.lines] if with_lines else (),
        in_flight_count=proof.in_flight_count,
        in_flight_ids=proof.in_flight_ids,
        unfit=[
            UnfitEntryMessage(
                transfer_id=unfit.transfer_id,
                account_id=unfit.account_id,
                voucher_id=unfit.voucher_id,
                subject_code=unfit.subject_code,
                finding=unfit.finding,
            )
            for unfit in proof.unfit
        ],
    )


def period_to_proto(period: Period, chart: Chart) -> PeriodMessage:
    """Return a period with the balances that it carries."""
    return PeriodMessage(
        period=str(period.month),
        state=PeriodState.Value(f"PERIOD_STATE_{period.state}"),
        closed_at=_timestamp(period.closed_at),
        archived_at=_timestamp(period.archived_at),
        balances=[_balance_to_proto(balance, chart) for balance in period.balances],
        vouchers_count=period.vouchers_count,
    )


def _line_to_proto(line: Line) -> ProofLineMessage:
    return ProofLineMessage(
        tenant_id=line.key.tenant_id,
        mode=line.key.mode,
        subject_code=line.key.subject_code,
        currency_code=line.key.currency_code,
        outer_minor=line.outer_minor,
        buffered_minor=line.buffered_minor,
        inner_minor=line.inner_minor,
        in_flight_minor=line.in_flight_minor,
        difference_minor=line.difference_minor,
    )


def _balance_to_proto(balance: PeriodBalance, chart: Chart) -> SubjectBalance:
    subject = chart.subjects[balance.subject_code]
    return SubjectBalance(
        subject_code=balance.subject_code,
        currency_code=balance.currency_code,
        opening_minor=balance.opening_minor,
        debits_minor=balance.debits_minor,
        credits_minor=balance.credits_minor,
        closing_minor=balance.closing_minor,
        normal_side=NormalSide.Value(f"NORMAL_SIDE_{subject.normal_side}"),
        subject_name=subject.name,
    )


def _timestamp(at: datetime | None) -> Timestamp | None:
    if at is None:
        return None
    message = Timestamp()
    message.FromDatetime(at)
    return message
