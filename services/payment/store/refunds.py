"""Refunds: asked for one by one under their payment's cap."""

from __future__ import annotations

from datetime import datetime

from common.context import CallContext
from common.db.history import add_history
from common.db.pool import Pool
from common.db.types import Connection
from common.events.outbox import Outbox
from common.jobs.jobs import Jobs
from services.payment.domain.payments import Payment, Refund
from services.payment.domain.states import REFUND_ENDED, PaymentState, RefundState
from services.payment.store.exceptions import ExceptionStore, Settled
from services.payment.store.rows import (
    ADVANCE_REFUND,
    QUERIES,
    RefundChange,
    history_row,
    move_rows,
    new_job,
    payment_from,
    refund_from,
    tries_text,
)


class RefundStore:
    """Refunds of the schema `payment`."""

    def __init__(self, pool: Pool, outbox: Outbox, jobs: Jobs, exceptions: ExceptionStore) -> None:
        self._pool = pool
        self._outbox = outbox
        self._jobs = jobs
        self._exceptions = exceptions

    async def open_refund(
        self, draft: Refund, call: CallContext, first_question_at: datetime
    ) -> tuple[Payment, Refund, bool] | None:
        """Take the cap and write the intent of a refund, with its fee computed under the lock.

        Answers the payment, the refund (the earlier one when the id exists) and whether it is new;
        None when there is no such payment. When too little is left, the refund comes back as it
        was given, not new, and is not written: the caller sees by `refundable_minor`.
        """
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(QUERIES["lock_payment"], draft.payment_id)
            if row is None:
                return None
            payment = payment_from(row)
            earlier = await connection.fetch(QUERIES["find_refunds"], [draft.id])
            if earlier:
                return payment, refund_from(earlier[0]), False
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
            QUERIES["reserve_refund"],
            payment.id,
            amount,
            refund.fee_returned_minor,
            draft.created_at,
        )
        if taken is None:
            return payment, draft, False
        await connection.execute(
            QUERIES["insert_refund"],
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
            [
                history_row(
                    "refund", refund, "", refund.state, 1, "asked for", call, draft.created_at
                )
            ],
        )
        await self._jobs.add(
            connection, [new_job(ADVANCE_REFUND, refund.id, first_question_at, call)]
        )
        return payment, refund, True

    async def save_refund(self, change: RefundChange) -> bool:
        """Write the outcome of a refund; answer whether it was still as it was read."""
        before, after = change.before, change.after
        async with self._pool.transaction() as connection:
            won = await connection.fetchrow(
                QUERIES["update_refund"],
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
                tries_text(after.tries),
            )
            if won is None:
                return False
            # What is learned of a refund after its end moves no cap any more.
            has_ended = after.state in REFUND_ENDED and after.state is not before.state
            if has_ended:
                await connection.execute(
                    QUERIES["finish_refund_reservation"],
                    after.payment_id,
                    after.amount.amount_minor,
                    after.state is RefundState.SUCCEEDED,
                    after.fee_returned_minor,
                    change.at,
                )
            await add_history(connection, list(move_rows(change)))
            await self._outbox.add(connection, change.events)
            if has_ended:
                await self._jobs.cancel(connection, ADVANCE_REFUND, [after.id])
            if change.next_question_at is not None:
                again = new_job(
                    ADVANCE_REFUND, after.id, change.next_question_at, change.call, after.version
                )
                await self._jobs.add(connection, [again])
            if change.opens:
                await self._exceptions.open_in(connection, change.opens, change.call, change.at)
            if change.resolves or won["has_exceptions"]:
                await self._exceptions.settle_in(connection, _settled(change))
        self._outbox.notify()
        return True

    async def find_refund_in(self, connection: Connection, refund_id: str) -> Refund | None:
        """Return one refund, in the caller's transaction."""
        rows = await connection.fetch(QUERIES["find_refunds"], [refund_id])
        return refund_from(rows[0]) if rows else None

    async def find_refund(self, refund_id: str) -> Refund | None:
        """Return one refund."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["find_refunds"], [refund_id])
        return refund_from(rows[0]) if rows else None


def _settled(change: RefundChange) -> Settled:
    return Settled(
        subject_id=change.after.id,
        state=change.after.state,
        exception_ids=change.resolves,
        reason=change.reason,
        call=change.call,
        at=change.at,
    )
