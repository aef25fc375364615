"""Write what became of a payment, and open what a person has to look at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from services.payment.domain.exceptions import (
    ExceptionKind,
    ExceptionState,
    exception_id,
    new_exception,
)
from services.payment.domain.payments import Payment, Refund
from services.payment.domain.postings import Booked, Chain, Refused
from services.payment.domain.states import PaymentState, RefundState
from services.payment.errors import LedgerRefusedError
from services.payment.flows.parts import Parts, call_of
from services.payment.store.rows import Change

# What is not known of these, the other side knows; a payer who has not paid yet is no mystery.
_NOBODY_KNOWS = frozenset(
    {
        PaymentState.PENDING,
        PaymentState.UNKNOWN,
        PaymentState.RECEIVED,
        PaymentState.RETURNING,
        RefundState.HELD,
    }
)


_OTHER = "other"
"""Occasion of what is not known because something else stands in its place."""


async def save(parts: Parts, change: Change) -> Payment:
    """Write a change; when somebody else was first, return the payment as it is now."""
    if await parts.writer.save_change(change):
        return change.after
    return await parts.store.find_payment(change.before.id) or change.after


def path_from(payment: Payment, end: PaymentState) -> tuple[PaymentState, ...]:
    """Return the moves of a payment whose money has come, from where it stands to an end."""
    if payment.state in (PaymentState.RECEIVED, PaymentState.CONFLICTED):
        return (end,)
    return (PaymentState.RECEIVED, end)


async def book(parts: Parts, chain: Chain, currency_code: str, step: str) -> Booked:
    """Book what must not fail.

    Raises:
        LedgerRefusedError: it did; nothing of the chain is booked, and its ids are burned.
        PaymeshError: the ledger cannot be asked; the same ids may be sent again.
    """
    answer = await parts.peers.post(chain, currency_code)
    if isinstance(answer, Refused):
        raise LedgerRefusedError(ledger_reason=answer.reason, step=step)
    return answer


@asynccontextmanager
async def reporting_refusals(parts: Parts, subject: Payment | Refund) -> AsyncIterator[None]:
    """Open an exception when the ledger refuses what has to be booked."""
    try:
        yield
    except LedgerRefusedError as error:
        step = error.metadata["step"]
        tries = subject.tries.get(step, 1)
        await _open(
            parts,
            subject,
            ExceptionKind.LEDGER_REFUSED,
            occasion=f"{step}.{tries}",
            detail=error.message,
            repeats=tries - 1,
        )
        raise


async def report_unknown(parts: Parts, subject: Payment | Refund) -> None:
    """Open an exception when nobody has known for long what became of something."""
    since = subject.updated_at or subject.created_at
    age = parts.clock.now() - since
    limit = timedelta(seconds=parts.settings.unknown_exception_seconds)
    if subject.state in _NOBODY_KNOWS and age > limit:
        if await _is_on_the_list(parts, subject):
            return
        await _open(
            parts,
            subject,
            ExceptionKind.OUTCOME_UNKNOWN,
            occasion=f"{since:%Y%m%dT%H%M%S}",
            detail=f"{subject.state} since {since:%Y-%m-%d %H:%M:%S} UTC",
        )


async def _is_on_the_list(parts: Parts, subject: Payment | Refund) -> bool:
    """Say whether a person knows already why it is not known, or that its return was refused."""
    known = [exception_id(ExceptionKind.OUTCOME_UNKNOWN, subject.id, _OTHER)]
    if isinstance(subject, Payment) and subject.state is PaymentState.RETURNING:
        occasion = str(subject.return_attempt)
        known.append(exception_id(ExceptionKind.RETURN_REFUSED, subject.id, occasion))
    found = [await parts.exceptions.find_exception(one) for one in known]
    return any(one is not None and one.state is not ExceptionState.RESOLVED for one in found)


async def report_other(parts: Parts, subject: Payment | Refund) -> None:
    """Open an exception: under our reference the channel service has another refund than ours.

    Nobody can say by asking what became of ours, so a person is told at once.
    """
    await _open(
        parts,
        subject,
        ExceptionKind.OUTCOME_UNKNOWN,
        occasion=_OTHER,
        detail="the channel service has another refund under this reference",
    )


async def report_return_refused(parts: Parts, payment: Payment, raw_code: str) -> None:
    """Open an exception: the channel refuses to give back what has to go back."""
    attempt = payment.return_attempt
    code = f" ({raw_code})" if raw_code else ""
    await _open(
        parts,
        payment,
        ExceptionKind.RETURN_REFUSED,
        occasion=str(attempt),
        detail=f"{payment.channel} refused attempt {attempt} to give the money back{code}",
        repeats=attempt - 1,
    )


async def _open(
    parts: Parts,
    subject: Payment | Refund,
    kind: ExceptionKind,
    *,
    occasion: str,
    detail: str,
    repeats: int = 0,
) -> None:
    now: datetime = parts.clock.now()
    exception = new_exception(
        kind,
        subject,
        parts.deadlines,
        now,
        occasion=occasion,
        detail=detail,
        amount=subject.money_in if isinstance(subject, Payment) else subject.amount,
        channel=subject.channel if isinstance(subject, Payment) else "",
        repeats=repeats,
    )
    await parts.exceptions.open_exceptions([exception], call_of(subject), now)
