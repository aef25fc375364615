"""Carry out what is decided about an exception, by a checker or by its deadline.

Every action is intent → call → outcome under ids derived from the noun, so that checker, deadline
and a repeat after a crash do the same thing once. What becomes of the subject resolves the
exception in the transaction of the subject's own change (`store/exceptions.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from common.context import bound
from common.errors import PaymeshError
from services.payment.domain.exceptions import (
    Action,
    ExceptionKind,
    ExceptionState,
    PaymentException,
    is_settled_by,
    may_fail,
)
from services.payment.domain.payments import LET_FAIL, Payment, Refund
from services.payment.domain.states import PaymentState, RefundState
from services.payment.errors import LedgerRefusedError
from services.payment.flows.advance_payment import advance_payment
from services.payment.flows.collect_payment import fail
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.refund_payment import advance_refund_by_id, fail_refund
from services.payment.flows.return_payment import give_back, keep_unclaimed
from services.payment.flows.save_payment import reporting_refusals, save
from services.payment.store.exceptions import ExceptionChange
from services.payment.store.rows import Change, RefundChange

PLATFORM: Final = "SERVICE:payment"
"""Who decides when nobody does."""

_CALLBACKS: Final = frozenset(
    {ExceptionKind.CALLBACK_CONTRADICTION, ExceptionKind.CALLBACK_UNKNOWN_REFERENCE}
)

_BEFORE_IT_CAME: Final = frozenset(
    {PaymentState.PENDING, PaymentState.REQUIRES_ACTION, PaymentState.UNKNOWN}
)
_HELD: Final = frozenset({RefundState.HELD, RefundState.UNKNOWN})
_UNBOOKED_IN: Final[Mapping[str, frozenset[PaymentState] | frozenset[RefundState]]] = {
    "receive": _BEFORE_IT_CAME,
    "conflict": _BEFORE_IT_CAME,
    "settle": _BEFORE_IT_CAME | {PaymentState.RECEIVED},
    "return": frozenset({PaymentState.RETURNING}),
    "conflict_return": frozenset({PaymentState.RETURNING}),
    "unclaim": frozenset({PaymentState.RETURNING}),
    "hold": frozenset({RefundState.PENDING}),
    "post": _HELD,
    "void": _HELD | {RefundState.PENDING, RefundState.WAITING_FUNDS},
}
"""Step of a booking → states in which it has not been booked yet."""


async def carry_out(parts: Parts, exception_id: str) -> PaymentException | None:
    """Carry out what is decided, or what the deadline decides now; return the exception after it.

    One that waits for its deadline stays as it is. Raises PaymeshError when a peer cannot be
    reached: the exception stays APPROVED, and its job comes back.
    """
    exception = await parts.exceptions.find_exception(exception_id)
    if exception is None or exception.state is ExceptionState.RESOLVED:
        return exception
    with bound(call_of(exception)):
        if exception.state is not ExceptionState.APPROVED:
            if exception.due_at > parts.clock.now():
                return exception
            exception = await _decide_by_deadline(parts, exception)
        if exception.state is not ExceptionState.APPROVED or exception.action is None:
            return exception
        await _ACTIONS[exception.action](parts, exception)
        return await _conclude(parts, exception.id)


async def _decide_by_deadline(parts: Parts, exception: PaymentException) -> PaymentException:
    after = exception.moved(
        ExceptionState.APPROVED,
        parts.clock.now(),
        action=exception.default_action,
        maker=PLATFORM,
        maker_reason="the deadline passed",
        checker="",
        checker_reason="",
    )
    return await _move(parts, exception, after, f"{after.action}: the deadline passed")


async def _conclude(parts: Parts, exception_id: str) -> PaymentException | None:
    """An exception whose subject needs it no more is resolved, whoever brought that about."""
    exception = await parts.exceptions.find_exception(exception_id)
    if exception is None or exception.state is ExceptionState.RESOLVED:
        return exception
    subject = await find_subject(parts, exception)
    if subject is None or not is_settled_by(exception.kind, subject.state):
        return exception
    if _is_unbooked(exception, subject):
        return exception
    return await _resolve(parts, exception, f"{subject.id} is {subject.state}")


def _is_unbooked(exception: PaymentException, subject: Payment | Refund) -> bool:
    """Say whether what the ledger has refused to book is still to be booked."""
    if exception.kind is not ExceptionKind.LEDGER_REFUSED:
        return False
    step = exception.occasion.partition(".")[0]
    return subject.state in _UNBOOKED_IN.get(step, ())


async def _return(parts: Parts, exception: PaymentException) -> None:
    """What really came goes back to the payer."""
    payment = await parts.store.find_payment(exception.subject_id)
    if payment is None or payment.state not in (PaymentState.CONFLICTED, PaymentState.RETURNING):
        return
    async with reporting_refusals(parts, payment):
        await give_back(parts, payment)


async def _retry(parts: Parts, exception: PaymentException) -> None:
    if exception.kind is ExceptionKind.RETURN_REFUSED:
        await _retry_return(parts, exception)
    else:
        await _retry_booking(parts, exception)


async def _retry_return(parts: Parts, exception: PaymentException) -> None:
    """The channel is asked again, under a new reference: what it refused stays refused."""
    payment = await parts.store.find_payment(exception.subject_id)
    if payment is None or payment.state is not PaymentState.RETURNING:
        return
    if str(payment.return_attempt) != exception.occasion:
        await _resolve(parts, exception, f"attempt {payment.return_attempt} is under way")
        return
    if not await _is_still_refused(parts, payment):
        return
    attempt = payment.return_attempt + 1
    now = parts.clock.now()
    change = Change(
        payment,
        replace(payment, version=payment.version + 1, return_attempt=attempt),
        (),
        f"tried again as attempt {attempt}",
        call_of(payment),
        now,
        next_question_at=parts.first_question_at(now),
        resolves=(exception.id,),
    )
    payment = await save(parts, change)
    if payment.return_attempt == attempt:
        async with reporting_refusals(parts, payment):
            await give_back(parts, payment)


async def _is_still_refused(parts: Parts, payment: Payment) -> bool:
    """Ask about the refused attempt a last time: some money is given back after a refusal.

    Where nobody knows now, what is decided waits until somebody does. Where it is decided already
    what is booked, that is gone on with.
    """
    if payment.way_out is None:
        attempt = payment.return_attempt
        news = await parts.peers.query_refund(payment.id, payment.money_in, attempt)
        if news.state != "SUCCEEDED":
            return news.state in ("FAILED", "NOT_FOUND")
    async with reporting_refusals(parts, payment):
        await give_back(parts, payment)
    return False


async def _retry_booking(parts: Parts, exception: PaymentException) -> None:
    """First the same ids, whose answer proves whether they are burned; then the next ones."""
    try:
        await _advance(parts, exception)
    except LedgerRefusedError as error:
        await _try_next_ids(parts, exception, error.metadata["step"])
        return
    subject = await find_subject(parts, exception)
    if subject is not None and _is_unbooked(exception, subject):
        # It did not come to the booking: who has to be asked before it did not know.
        await _put_off(parts, exception.id, "tried again, and not known whether to book it yet")
        return
    await _resolve(parts, exception, "booked")


async def _try_next_ids(parts: Parts, exception: PaymentException, step: str) -> None:
    subject = await find_subject(parts, exception)
    if subject is None:
        return
    now = parts.clock.now()
    words = f"{step} is tried again under other ids"
    if exception.occasion != f"{step}.{subject.tries.get(step, 1)}":
        await _resolve(parts, exception, "another refusal took its place")
        return
    if isinstance(subject, Payment):
        again = subject.tried_again(step)
        await save(
            parts,
            Change(subject, again, (), words, call_of(subject), now, resolves=(exception.id,)),
        )
    else:
        # A refused hold has the number of its attempt in its ids.
        attempt = subject.attempt + (1 if step == "hold" else 0)
        tried = replace(subject.tried_again(step), attempt=attempt)
        await parts.refunds.save_refund(
            RefundChange(subject, tried, (), words, call_of(subject), now, resolves=(exception.id,))
        )
    try:
        await _advance(parts, exception)
    except LedgerRefusedError:
        return  # an exception of its own tells of it, with a longer deadline


async def _unclaim(parts: Parts, exception: PaymentException) -> None:
    """What the channel refuses to give back is kept for the payer."""
    payment = await parts.store.find_payment(exception.subject_id)
    if payment is None or str(payment.return_attempt) != exception.occasion:
        await _resolve(parts, exception, "another attempt took its place")
        return
    if not await _is_still_refused(parts, payment):
        return
    async with reporting_refusals(parts, payment):
        await keep_unclaimed(parts, payment)


async def _ask(parts: Parts, exception: PaymentException) -> None:
    if exception.kind in _CALLBACKS:
        await _examine(parts, exception)
        return
    try:
        await _advance(parts, exception)
    except PaymeshError as error:
        await _put_off(parts, exception.id, f"asked again: {error.message}")
        return
    await _put_off(parts, exception.id, "asked again, not known yet")


async def _examine(parts: Parts, exception: PaymentException) -> None:
    """Only the answer to our own question decides about what somebody told us."""
    finding, detail, subject_id = await parts.peers.examine_callback(exception.subject_id)
    if finding in ("REFUTED", "NOTHING_THERE"):
        await _resolve(parts, exception, f"{finding}: {detail}")
        return
    words = f"{finding}: {detail}"
    # A service of an older version names no subject.
    await _put_off(parts, exception.id, words, hastens=subject_id or exception.payment_id)


async def _fail(parts: Parts, exception: PaymentException) -> None:
    """Somebody has proof that nothing moved. A last question is asked all the same."""
    if exception.subject_id.startswith("rfd_"):
        await fail_refund(parts, exception.subject_id, LET_FAIL)
        return
    try:
        payment = await advance_payment(parts, exception.subject_id)
    except LedgerRefusedError:
        raise
    except PaymeshError:
        payment = await parts.store.find_payment(exception.subject_id)
    # What has moved on meanwhile is known; and of a balance the ledger itself says what became.
    if payment is None or payment.is_internal or not may_fail(payment.state):
        await _put_off(parts, exception.id, "it cannot be let fail any more")
        return
    await fail(parts, payment, LET_FAIL)


async def _dismiss(parts: Parts, exception: PaymentException) -> None:
    await _resolve(parts, exception, "dismissed")


async def _acknowledge(parts: Parts, exception: PaymentException) -> None:
    """What happened is booked already; somebody, or the deadline, has taken note."""
    await _resolve(parts, exception, "acknowledged")


_ACTIONS: Final[Mapping[Action, Callable[[Parts, PaymentException], Awaitable[None]]]] = {
    Action.RETURN: _return,
    Action.RETRY: _retry,
    Action.MOVE_TO_UNCLAIMED: _unclaim,
    Action.ASK: _ask,
    Action.FAIL: _fail,
    Action.DISMISS: _dismiss,
    Action.ACKNOWLEDGE: _acknowledge,
}


async def find_subject(parts: Parts, exception: PaymentException) -> Payment | Refund | None:
    """Return the payment or refund that an exception is about; None for a callback."""
    if exception.subject_id.startswith("rfd_"):
        return await parts.refunds.find_refund(exception.subject_id)
    if exception.subject_id.startswith("pay_"):
        return await parts.store.find_payment(exception.subject_id)
    return None


async def _advance(parts: Parts, exception: PaymentException) -> None:
    if exception.subject_id.startswith("rfd_"):
        await advance_refund_by_id(parts, exception.subject_id)
    else:
        await advance_payment(parts, exception.subject_id)


async def _resolve(parts: Parts, exception: PaymentException, words: str) -> PaymentException:
    return await _move(parts, exception, exception.resolved(words, parts.clock.now()), words)


async def _put_off(parts: Parts, exception_id: str, words: str, *, hastens: str = "") -> None:
    """Its action was in vain: it waits again, for longer, unless it is over meanwhile."""
    exception = await _conclude(parts, exception_id)
    if exception is None or exception.state is not ExceptionState.APPROVED:
        return
    now = parts.clock.now()
    due_at = parts.deadlines.due_at(now, exception.repeats + 1)
    after = exception.put_off(now, due_at, words)
    await _move(parts, exception, after, words, hastens=hastens)


async def _move(
    parts: Parts,
    before: PaymentException,
    after: PaymentException,
    words: str,
    *,
    hastens: str = "",
) -> PaymentException:
    call, at = call_of(before), after.updated_at
    change = ExceptionChange(before, after, words, call, at, hastens=hastens)
    if await parts.exceptions.save_exception(change):
        return after
    return await parts.exceptions.find_exception(before.id) or after
