"""Rows of the schema `payment` and what they mean; what is written with a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from common.context import CallContext
from common.db.history import HistoryRow
from common.db.queries import load_queries
from common.db.types import Record
from common.events.event import NewEvent
from common.ids import derive
from common.jobs.job import NewJob
from common.money import Money
from services.payment.domain.exceptions import (
    PaymentException,
)
from services.payment.domain.payments import (
    Failure,
    NextAction,
    Owner,
    Payment,
    PaymentForm,
    Refund,
    Tries,
    WayOut,
)
from services.payment.domain.states import PaymentState, RefundState

ADVANCE_PAYMENT: Final = "payment.advance"
"""Kind of the job that finds out what became of a payment; its key is the payment's id."""

ADVANCE_REFUND: Final = "refund.advance"
"""The same for a refund."""

CARRY_OUT: Final = "payment.exception"
"""Kind of the job that carries out what is decided about an exception, or its default action."""

QUERIES: Final = load_queries("services.payment")


class Announcer(Protocol):
    """Makes the events of exceptions, so that the store need not know the contract."""

    def exception_opened(
        self, exception: PaymentException, call: CallContext, at: datetime
    ) -> NewEvent:
        """`payment.exception.opened.v1`."""
        ...

    def exception_resolved(
        self, exception: PaymentException, call: CallContext, at: datetime
    ) -> NewEvent:
        """`payment.exception.resolved.v1`."""
        ...


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment to be written before anything is called."""

    payment: Payment
    call: CallContext
    first_question_at: datetime
    """When the janitor asks, unless the payment has ended by then."""
    events: tuple[NewEvent, ...] = ()
    """Told when the payment is over as soon as it is written: blocked by risk."""


@dataclass(frozen=True, slots=True)
class Change:
    """A payment before and after a path of moves."""

    before: Payment
    after: Payment
    path: tuple[PaymentState, ...]
    reason: str
    call: CallContext
    at: datetime
    events: tuple[NewEvent, ...] = ()
    next_question_at: datetime | None = None
    """When the janitor asks, unless it has a job for the payment already; None for no job."""
    opens: tuple[PaymentException, ...] = ()
    """Exceptions that this change opens."""
    resolves: tuple[str, ...] = ()
    """Exceptions that are done with this change, whatever state it leads to."""


@dataclass(frozen=True, slots=True)
class RefundChange:
    """A refund before and after a path of moves."""

    before: Refund
    after: Refund
    path: tuple[RefundState, ...]
    reason: str
    call: CallContext
    at: datetime
    events: tuple[NewEvent, ...] = ()
    next_question_at: datetime | None = None
    """When the janitor asks, though the refund has ended; None for what its job does anyway."""
    opens: tuple[PaymentException, ...] = ()
    """Exceptions that this change opens."""
    resolves: tuple[str, ...] = ()
    """Exceptions that are done with this change."""


def new_job(
    kind: str, noun_id: str, run_at: datetime, call: CallContext, occasion: str | int = "born"
) -> NewJob:
    """Return the job that asks what became of a noun; one is open at a time."""
    return NewJob(
        job_id=derive("job", noun_id, kind, occasion),
        kind=kind,
        key=noun_id,
        run_at=run_at,
        principal=call.principal,
        biz_trace_id=call.biz_trace_id,
        causation_id=call.causation_id,
    )


def history_row(
    noun: str,
    row: Payment | Refund | PaymentException,
    before: str,
    after: str,
    version: int,
    reason: str,
    call: CallContext,
    at: datetime,
) -> HistoryRow:
    """Return the row that tells of one change."""
    return HistoryRow(
        noun=noun,
        id=row.id,
        version=version,
        from_state=before,
        to_state=after,
        actor=call.principal.actor,
        reason=reason,
        cause=call.causation_id,
        biz_trace_id=row.biz_trace_id,
        at=at,
    )


def birth_row(intent: Intent) -> HistoryRow:
    """Return the row that tells of a payment's intent."""
    payment = intent.payment
    reason = payment.failure.reason if payment.failure else payment.channel_reason
    return history_row(
        "payment", payment, "", payment.state, 1, reason, intent.call, payment.created_at
    )


def move_rows(change: Change | RefundChange) -> list[HistoryRow]:
    """Return a row for each move; one too for a change that leaves the state as it was."""
    noun = "payment" if isinstance(change, Change) else "refund"
    path = change.path or (change.before.state,)
    states = [str(change.before.state), *(str(state) for state in path)]
    return [
        history_row(
            noun,
            change.after,
            states[step],
            states[step + 1],
            change.before.version + step + 1,
            change.reason,
            change.call,
            change.at,
        )
        for step in range(len(path))
    ]


def intent_columns(payments: Sequence[Payment]) -> list[list[object]]:
    """Return the columns of `insert_payments`."""
    rows = [
        (
            p.id,
            p.order_id,
            p.owner.tenant_id,
            p.owner.mode,
            p.owner.merchant_id,
            p.owner.actor,
            p.request_id,
            p.product,
            p.form,
            p.state,
            p.version,
            p.amount.currency_code,
            p.amount.amount_minor,
            p.user_id,
            p.card_id,
            p.bank_code,
            p.subject,
            p.order_type,
            p.channel,
            p.channel_reason,
            p.attempt,
            p.risk_verdict,
            ",".join(p.risk_rules),
            *_action_columns(p.next_action),
            *_failure_columns(p.failure),
            p.fee_minor,
            p.fee_returned_on_refund,
            p.business_date,
            p.biz_trace_id,
            p.client_ip,
            p.device_id,
            p.expires_at,
            p.created_at,
        )
        for p in payments
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def change_columns(changes: Sequence[Change]) -> list[list[object]]:
    """Return the columns of `update_payments`."""
    rows = [
        (
            c.before.id,
            c.before.version,
            c.after.state,
            c.after.version,
            c.after.channel,
            c.after.channel_reason,
            c.after.attempt,
            *_action_columns(c.after.next_action),
            *_failure_columns(c.after.failure),
            c.after.business_date,
            c.at,
            c.after.received.currency_code if c.after.received else "",
            c.after.received.amount_minor if c.after.received else 0,
            c.after.return_attempt,
            tries_text(c.after.tries),
            c.after.way_out or "",
            c.after.late_returns,
        )
        for c in changes
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _action_columns(action: NextAction | None) -> tuple[str, str]:
    return (action.kind, action.content) if action else ("", "")


def _failure_columns(failure: Failure | None) -> tuple[str, str, str, str]:
    if failure is None:
        return ("", "", "", "")
    return (failure.reason, failure.decline_code, failure.raw_code, failure.advice)


def _owner(row: Record) -> Owner:
    return Owner(row["tenant_id"], row["mode"], row["merchant_id"], row["actor"])


def _failure(row: Record) -> Failure | None:
    if not row["failure_reason"]:
        return None
    return Failure(row["failure_reason"], row["decline_code"], row["raw_code"], row["advice"])


def payment_from(row: Record) -> Payment:
    """Return the payment of a row."""
    action = NextAction(row["action_kind"], row["action_content"]) if row["action_kind"] else None
    return Payment(
        id=row["id"],
        order_id=row["order_id"],
        owner=_owner(row),
        product=row["product"],
        form=PaymentForm(row["form"]),
        state=PaymentState(row["state"]),
        amount=Money(row["currency_code"], row["amount_minor"]),
        user_id=row["user_id"],
        card_id=row["card_id"],
        bank_code=row["bank_code"],
        order_type=row["order_type"],
        biz_trace_id=row["biz_trace_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        version=row["version"],
        channel=row["channel"],
        channel_reason=row["channel_reason"],
        attempt=row["attempt"],
        risk_verdict=row["risk_verdict"],
        risk_rules=tuple(row["risk_rules"].split(",")) if row["risk_rules"] else (),
        next_action=action,
        failure=_failure(row),
        fee_minor=row["fee_minor"],
        fee_returned_on_refund=row["fee_returned_on_refund"],
        refunded_minor=row["refunded_minor"],
        refunding_minor=row["refunding_minor"],
        fee_given_back_minor=row["fee_given_back_minor"],
        business_date=row["business_date"],
        received=money_from(row["received_currency_code"], row["received_minor"]),
        return_attempt=row["return_attempt"],
        way_out=WayOut(row["way_out"]) if row["way_out"] else None,
        late_returns=row["late_returns"],
        tries=_tries(row["retried_steps"]),
        updated_at=row["updated_at"],
        subject=row["subject"],
        request_id=row["request_id"],
        client_ip=row["client_ip"],
        device_id=row["device_id"],
    )


def refund_from(row: Record) -> Refund:
    """Return the refund of a row."""
    failed = row["failure_reason"]
    return Refund(
        id=row["id"],
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        owner=_owner(row),
        state=RefundState(row["state"]),
        amount=Money(row["currency_code"], row["amount_minor"]),
        fee_returned_minor=row["fee_returned_minor"],
        biz_trace_id=row["biz_trace_id"],
        created_at=row["created_at"],
        version=row["version"],
        reason=row["reason"],
        attempt=row["attempt"],
        source_kind=row["source_kind"],
        failure=Failure(failed, raw_code=row["raw_code"]) if failed else None,
        business_date=row["business_date"],
        tries=_tries(row["retried_steps"]),
        updated_at=row["updated_at"],
    )


def tries_text(tries: Tries) -> str:
    """Return tries as a row keeps them: `settle=2,receive=3`."""
    return ",".join(f"{step}={number}" for step, number in tries.items())


def _tries(text: str) -> Tries:
    pairs = (one.split("=") for one in text.split(",")) if text else ()
    return {step: int(number) for step, number in pairs}


def money_from(currency_code: str, amount_minor: int) -> Money | None:
    """Return the money of two columns; None where there is no currency."""
    return Money(currency_code, amount_minor) if currency_code else None
