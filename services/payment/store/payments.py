"""Payments: batches on the hot path, one transaction for a state and all it tells.

Single callers meet in coalescers above this (`writer.py`); here every write takes a batch and
answers for each item of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.db.history import add_history
from common.db.pool import Pool
from common.db.types import Connection
from common.events.outbox import Outbox
from common.ids import channel_reference
from common.jobs.jobs import Jobs
from services.payment.domain.payments import Payment
from services.payment.domain.states import PAYMENT_ENDED, PAYMENT_OPEN, PAYMENT_OVER
from services.payment.store.exceptions import ExceptionStore, Settled
from services.payment.store.rows import (
    ADVANCE_PAYMENT,
    QUERIES,
    Change,
    Intent,
    birth_row,
    change_columns,
    intent_columns,
    move_rows,
    new_job,
    payment_from,
)


class PaymentStore:
    """Payments of the schema `payment`."""

    def __init__(self, pool: Pool, outbox: Outbox, jobs: Jobs, exceptions: ExceptionStore) -> None:
        self._pool = pool
        self._outbox = outbox
        self._jobs = jobs
        self._exceptions = exceptions

    async def record_intents(self, intents: Sequence[Intent]) -> list[Payment | None]:
        """Write intents; answer None for a new one, or the payment that has its id already."""
        payments = [intent.payment for intent in intents]
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(QUERIES["insert_payments"], *intent_columns(payments))
            new_ids = {row["id"] for row in rows}
            seen: set[str] = set()
            new = []
            for intent in intents:
                # The second copy inside one batch gets the first one's answer.
                if intent.payment.id in new_ids and intent.payment.id not in seen:
                    seen.add(intent.payment.id)
                    new.append(intent)
            await self._insert_attempts(connection, [intent.payment for intent in new])
            await add_history(connection, [birth_row(intent) for intent in new])
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
            first: dict[tuple[str, int], Change] = {}
            for change in changes:
                first.setdefault((change.before.id, change.before.version), change)
            rows = await connection.fetch(
                QUERIES["update_payments"], *change_columns(list(first.values()))
            )
            won_keys = {(row["id"], row["expected_version"]) for row in rows}
            concerned = {row["id"] for row in rows if row["has_exceptions"]}
            won = [change for key, change in first.items() if key in won_keys]
            won_here = {id(change) for change in won}
            answers = [id(change) in won_here for change in changes]
            await self._insert_attempts(
                connection, [c.after for c in won if c.after.attempt != c.before.attempt]
            )
            await add_history(connection, [row for change in won for row in move_rows(change)])
            await self._outbox.add(connection, [e for change in won for e in change.events])
            # What is asked about one that was over before may be news that this change is not of.
            ended = [
                c.after.id
                for c in won
                if c.after.state in PAYMENT_ENDED and c.before.state not in PAYMENT_OVER
            ]
            if ended:
                await self._jobs.cancel(connection, ADVANCE_PAYMENT, ended)
            await self._jobs.add(
                connection,
                [
                    new_job(
                        ADVANCE_PAYMENT, c.after.id, c.next_question_at, c.call, c.after.version
                    )
                    for c in won
                    if c.next_question_at is not None
                ],
            )
            for change in won:
                if change.opens:
                    await self._exceptions.open_in(connection, change.opens, change.call, change.at)
                if change.resolves or change.before.id in concerned:
                    await self._exceptions.settle_in(connection, _settled(change))
        self._outbox.notify()
        return answers

    async def _insert_attempts(self, connection: Connection, payments: Sequence[Payment]) -> None:
        sent = [p for p in payments if p.channel and not p.is_internal]
        if sent:
            await connection.execute(
                QUERIES["insert_attempts"],
                [p.id for p in sent],
                [p.attempt for p in sent],
                [channel_reference(p.attempt_id) for p in sent],
                [p.channel for p in sent],
                [p.created_at for p in sent],
            )

    async def hasten(self, kind: str, noun_id: str) -> None:
        """Let the open job of a payment or refund be due now; nothing when there is none."""
        async with self._pool.acquire() as connection:
            hastened = await self._jobs.hasten(connection, kind, [noun_id])
        if hastened:
            self._jobs.notify()

    async def find_payments(self, ids: Sequence[str]) -> list[Payment]:
        """Return the payments that exist, in no order."""
        async with self._pool.acquire() as connection:
            return [
                payment_from(row)
                for row in await connection.fetch(QUERIES["find_payments"], list(ids))
            ]

    async def find_payment(self, payment_id: str) -> Payment | None:
        """Return one payment."""
        found = await self.find_payments([payment_id])
        return found[0] if found else None

    async def find_payments_of_order(self, order_id: str) -> list[Payment]:
        """Return the payments of an order, oldest first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(QUERIES["find_payments_of_order"], order_id)
        return [payment_from(row) for row in rows]

    async def find_payment_of_reference(
        self, connection: Connection, reference: str
    ) -> Payment | None:
        """Return the payment that a reference was made for, in the caller's transaction."""
        payment_id = await connection.fetchval(QUERIES["find_payment_of_reference"], reference)
        if payment_id is None:
            return None
        rows = await connection.fetch(QUERIES["find_payments"], [payment_id])
        return payment_from(rows[0])


def _settled(change: Change) -> Settled:
    return Settled(
        subject_id=change.after.id,
        state=change.after.state,
        exception_ids=change.resolves,
        reason=change.reason,
        call=change.call,
        at=change.at,
    )
