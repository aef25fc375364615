"""Payments in PostgreSQL: batches on the hot path, one transaction for a state and all it tells.

Single callers meet in coalescers above this (`writer.py`); here every write takes a batch and
answers for each item of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from common.context import CallContext
from common.db.history import HistoryRow, add_history
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.ids import channel_reference, derive
from common.jobs.job import NewJob
from common.jobs.jobs import Jobs
from common.money import Money
from services.payment.domain.payments import (
    Failure,
    NextAction,
    Owner,
    Payment,
    PaymentForm,
    Refund,
)
from services.payment.domain.states import (
    PAYMENT_ENDED,
    PAYMENT_OPEN,
    REFUND_ENDED,
    PaymentState,
    RefundState,
)

ADVANCE_PAYMENT: Final = "payment.advance"
"""Kind of the job that finds out what became of a payment; its key is the payment's id."""

ADVANCE_REFUND: Final = "refund.advance"
"""The same for a refund."""

_SQL: Final = load_queries("services.payment")


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


def new_job(
    kind: str, noun_id: str, run_at: datetime, call: CallContext, occasion: str | int = "born"
) -> NewJob:
    """Return the job that asks what became of a payment or refund; one is open at a time."""
    return NewJob(
        job_id=derive("job", noun_id, kind, occasion),
        kind=kind,
        key=noun_id,
        run_at=run_at,
        principal=call.principal,
        biz_trace_id=call.biz_trace_id,
        causation_id=call.causation_id,
    )


class PaymentStore:
    """Reads and writes of the schema `payment`."""

    def __init__(self, pool: Pool, outbox: Outbox, jobs: Jobs) -> None:
        self._pool = pool
        self._outbox = outbox
        self._jobs = jobs

    async def record_intents(self, intents: Sequence[Intent]) -> list[Payment | None]:
        """Write intents; answer None for a new one, or the payment that has its id already."""
        payments = [intent.payment for intent in intents]
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(_SQL["insert_payments"], *_intent_columns(payments))
            new_ids = {row["id"] for row in rows}
            seen: set[str] = set()
            new = []
            for intent in intents:
                # The second copy inside one batch gets the first one's answer.
                if intent.payment.id in new_ids and intent.payment.id not in seen:
                    seen.add(intent.payment.id)
                    new.append(intent)
            await self._insert_attempts(connection, [intent.payment for intent in new])
            await add_history(connection, [_birth(intent) for intent in new])
            await self._outbox.add(connection, [e for intent in new for e in intent.events])
            await self._jobs.add(
                connection,
                [
                    new_job(ADVANCE_PAYMENT, i.payment.id, i.first_question_at, i.call)
                    for i in new
                    if i.payment.state in PAYMENT_OPEN
                ],
            )
        if any(intent.events for intent in new):
            self._outbox.notify()
        won = {id(intent) for intent in new}
        lost = [i.payment.id for i in intents if id(i) not in won]
        known = {p.id: p for p in await self.find_payments(lost)} if lost else {}
        return [None if id(intent) in won else known[intent.payment.id] for intent in intents]

    async def save_changes(self, changes: Sequence[Change]) -> list[bool]:
        """Write outcomes; answer for each whether its payment was still as it was read."""
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(_SQL["update_payments"], *_change_columns(changes))
            won_ids = {row["id"] for row in rows}
            answers = []
            won = []
            for change in changes:
                wins = change.before.id in won_ids
                answers.append(wins)
                if wins:
                    won_ids.discard(change.before.id)
                    won.append(change)
            await self._insert_attempts(
                connection, [c.after for c in won if c.after.attempt != c.before.attempt]
            )
            await add_history(connection, [row for change in won for row in _moves(change)])
            await self._outbox.add(connection, [e for change in won for e in change.events])
            ended = [c.after.id for c in won if c.after.state in PAYMENT_ENDED]
            if ended:
                await self._jobs.cancel(connection, ADVANCE_PAYMENT, ended)
            await self._jobs.add(
                connection,
                [_job_of(c, c.next_question_at) for c in won if c.next_question_at is not None],
            )
        self._outbox.notify()
        return answers

    async def _insert_attempts(self, connection: Connection, payments: Sequence[Payment]) -> None:
        sent = [p for p in payments if p.channel and not p.is_internal]
        if sent:
            await connection.execute(
                _SQL["insert_attempts"],
                [p.id for p in sent],
                [p.attempt for p in sent],
                [channel_reference(p.attempt_id) for p in sent],
                [p.channel for p in sent],
                [p.created_at for p in sent],
            )

    async def find_payments(self, ids: Sequence[str]) -> list[Payment]:
        """Return the payments that exist, in no order."""
        async with self._pool.acquire() as connection:
            return [
                _payment(row) for row in await connection.fetch(_SQL["find_payments"], list(ids))
            ]

    async def find_payment(self, payment_id: str) -> Payment | None:
        """Return one payment."""
        found = await self.find_payments([payment_id])
        return found[0] if found else None

    async def find_payments_of_order(self, order_id: str) -> list[Payment]:
        """Return the payments of an order, oldest first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["find_payments_of_order"], order_id)
        return [_payment(row) for row in rows]

    async def find_payment_of_reference(self, reference: str) -> str | None:
        """Return the id of the payment that a channel's reference was made for."""
        async with self._pool.acquire() as connection:
            found: str | None = await connection.fetchval(
                _SQL["find_payment_of_reference"], reference
            )
        return found

    async def open_refund(
        self, draft: Refund, call: CallContext, first_question_at: datetime
    ) -> tuple[Payment, Refund, bool] | None:
        """Take the cap and write the intent of a refund, with its fee computed under the lock.

        Answers the payment, the refund (the earlier one when the id exists) and whether it is new;
        None when there is no such payment. When too little is left, the refund comes back as it
        was given, not new, and is not written: the caller sees by `refundable_minor`.
        """
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(_SQL["lock_payment"], draft.payment_id)
            if row is None:
                return None
            payment = _payment(row)
            earlier = await connection.fetch(_SQL["find_refunds"], [draft.id])
            if earlier:
                return payment, _refund(earlier[0]), False
            return await self._insert_refund(connection, payment, draft, call, first_question_at)

    async def _insert_refund(
        self,
        connection: Connection,
        payment: Payment,
        draft: Refund,
        call: CallContext,
        first_question_at: datetime,
    ) -> tuple[Payment, Refund, bool]:
        amount = draft.amount.amount_minor
        if payment.state is not PaymentState.SUCCEEDED or amount > payment.refundable_minor:
            return payment, draft, False
        refund = draft.with_fee(payment.fee_for_refund(amount))
        taken = await connection.fetchval(
            _SQL["reserve_refund"], payment.id, amount, refund.fee_returned_minor, draft.created_at
        )
        if taken is None:
            return payment, draft, False
        await connection.execute(
            _SQL["insert_refund"],
            refund.id,
            refund.payment_id,
            payment.order_id,
            payment.owner.tenant_id,
            payment.owner.mode,
            payment.owner.merchant_id,
            refund.owner.actor,
            refund.state,
            refund.version,
            refund.amount.currency_code,
            amount,
            refund.fee_returned_minor,
            refund.reason,
            refund.attempt,
            refund.source_kind,
            refund.biz_trace_id,
            refund.created_at,
        )
        await add_history(
            connection,
            [_history("refund", refund, "", refund.state, 1, "asked for", call, draft.created_at)],
        )
        await self._jobs.add(
            connection, [new_job(ADVANCE_REFUND, refund.id, first_question_at, call)]
        )
        return payment, refund, True

    async def save_refund(self, change: RefundChange) -> bool:
        """Write the outcome of a refund; answer whether it was still as it was read."""
        before, after = change.before, change.after
        async with self._pool.transaction() as connection:
            won = await connection.fetchval(
                _SQL["update_refund"],
                before.id,
                before.version,
                after.state,
                after.version,
                after.attempt,
                after.source_kind,
                after.failure.reason if after.failure else "",
                after.failure.raw_code if after.failure else "",
                after.business_date,
                change.at,
            )
            if won is None:
                return False
            if after.state in (RefundState.SUCCEEDED, RefundState.FAILED):
                await connection.execute(
                    _SQL["finish_refund_reservation"],
                    after.payment_id,
                    after.amount.amount_minor,
                    after.state is RefundState.SUCCEEDED,
                    after.fee_returned_minor,
                    change.at,
                )
            await add_history(connection, list(_moves(change)))
            await self._outbox.add(connection, change.events)
            if after.state in REFUND_ENDED:
                await self._jobs.cancel(connection, ADVANCE_REFUND, [after.id])
        self._outbox.notify()
        return True

    async def find_refund(self, refund_id: str) -> Refund | None:
        """Return one refund."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["find_refunds"], [refund_id])
        return _refund(rows[0]) if rows else None

    async def list_rows(self, query: str, after: str, limit: int) -> list[Record]:
        """Return a page of one of the audit lists (`list_payment_facts` …) after a key."""
        async with self._pool.acquire() as connection:
            return list(await connection.fetch(_SQL[query], after, limit))

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool


def _job_of(change: Change, run_at: datetime) -> NewJob:
    after = change.after
    return new_job(ADVANCE_PAYMENT, after.id, run_at, change.call, after.version)


def _history(
    noun: str,
    row: Payment | Refund,
    before: str,
    after: str,
    version: int,
    reason: str,
    call: CallContext,
    at: datetime,
) -> HistoryRow:
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


def _birth(intent: Intent) -> HistoryRow:
    payment = intent.payment
    reason = payment.failure.reason if payment.failure else payment.channel_reason
    return _history(
        "payment", payment, "", payment.state, 1, reason, intent.call, payment.created_at
    )


def _moves(change: Change | RefundChange) -> list[HistoryRow]:
    noun = "payment" if isinstance(change, Change) else "refund"
    states = [str(change.before.state), *(str(state) for state in change.path)]
    return [
        _history(
            noun,
            change.after,
            states[step],
            states[step + 1],
            change.before.version + step + 1,
            change.reason,
            change.call,
            change.at,
        )
        for step in range(len(change.path))
    ]


def _intent_columns(payments: Sequence[Payment]) -> list[list[object]]:
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


def _change_columns(changes: Sequence[Change]) -> list[list[object]]:
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


def _payment(row: Record) -> Payment:
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
        subject=row["subject"],
        request_id=row["request_id"],
        client_ip=row["client_ip"],
        device_id=row["device_id"],
    )


def _refund(row: Record) -> Refund:
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
    )
