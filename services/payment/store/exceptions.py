"""Exceptions: opened and ended with the change that they tell of, decided one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from common.audit import AuditEntry, add_audit
from common.context import CallContext
from common.db.history import add_history
from common.db.pool import Pool
from common.db.types import Connection, Record
from common.events.outbox import Outbox
from common.jobs.jobs import Jobs
from services.payment.domain.exceptions import (
    Action,
    ExceptionKind,
    ExceptionState,
    PaymentException,
    is_settled_by,
)
from services.payment.domain.payments import Owner
from services.payment.domain.states import PaymentState, RefundState
from services.payment.store.rows import (
    ADVANCE_PAYMENT,
    ADVANCE_REFUND,
    CARRY_OUT,
    QUERIES,
    Announcer,
    history_row,
    money_from,
    new_job,
)


@dataclass(frozen=True, slots=True)
class ExceptionChange:
    """An exception before and after one move."""

    before: PaymentException
    after: PaymentException
    reason: str
    call: CallContext
    at: datetime
    audit: AuditEntry | None = None
    """What a person did; None when nobody did."""
    hastens: str = ""
    """Id of the payment or refund that is to be asked about at once; empty for none."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A subject that has come to a state; what was open about it may be over."""

    subject_id: str
    state: PaymentState | RefundState
    exception_ids: tuple[str, ...]
    """Those that are over whatever the state is."""
    reason: str
    call: CallContext
    at: datetime


@dataclass(frozen=True, slots=True)
class ExceptionPage:
    """Which exceptions a list asks for."""

    tenant_id: str
    mode: str
    kind: str
    include_resolved: bool
    after: tuple[datetime, str]
    """Deadline and id of the last one before the page."""
    limit: int


class ExceptionStore:
    """Exceptions of the schema `payment`."""

    def __init__(self, pool: Pool, outbox: Outbox, jobs: Jobs, announcer: Announcer) -> None:
        self._pool = pool
        self._outbox = outbox
        self._jobs = jobs
        self._announcer = announcer

    async def open_exceptions(
        self, exceptions: Sequence[PaymentException], call: CallContext, at: datetime
    ) -> None:
        """Open exceptions; one that was opened before, perhaps long resolved, stays as it is."""
        async with self._pool.transaction() as connection:
            await self.open_in(connection, exceptions, call, at)
        self._outbox.notify()

    async def open_in(
        self,
        connection: Connection,
        exceptions: Sequence[PaymentException],
        call: CallContext,
        at: datetime,
    ) -> None:
        """Open exceptions in the caller's transaction, with their deadlines."""
        rows = await connection.fetch(QUERIES["insert_exceptions"], *_exception_columns(exceptions))
        new_ids = {row["id"] for row in rows}
        new = [exception for exception in exceptions if exception.id in new_ids]
        await add_history(
            connection,
            [history_row("exception", e, "", e.state, 1, e.detail, call, at) for e in new],
        )
        await self._outbox.add(
            connection, [self._announcer.exception_opened(one, call, at) for one in new]
        )
        await self._jobs.add(connection, [new_job(CARRY_OUT, e.id, e.due_at, call) for e in new])

    async def settle_in(self, connection: Connection, settled: Settled) -> None:
        """Resolve what is over with a subject's new state, in the caller's transaction."""
        rows = await connection.fetch(
            QUERIES["lock_open_exceptions"], [settled.subject_id], list(settled.exception_ids)
        )
        for row in rows:
            before = _exception_from(row)
            named = before.id in settled.exception_ids
            if not named and not is_settled_by(before.kind, settled.state):
                continue
            words = settled.reason if named else f"{settled.state}: {settled.reason}"
            if not named and before.state is not ExceptionState.APPROVED:
                words = f"ended by itself, {words}"
            after = before.resolved(words, settled.at)
            change = ExceptionChange(before, after, words, settled.call, settled.at)
            await self._save_in(connection, change)

    async def save_exception(self, change: ExceptionChange) -> bool:
        """Write a move; answer whether the exception was still as it was read."""
        async with self._pool.transaction() as connection:
            saved = await self._save_in(connection, change)
            if saved and change.hastens:
                await self._hasten(connection, change)
        if saved:
            self._outbox.notify()
            self._jobs.notify()
        return saved

    async def _save_in(self, connection: Connection, change: ExceptionChange) -> bool:
        before, after = change.before, change.after
        won = await connection.fetchval(
            QUERIES["update_exception"],
            before.id,
            before.version,
            after.state,
            after.version,
            after.detail,
            after.due_at,
            after.repeats,
            after.action or "",
            after.maker,
            after.maker_reason,
            after.checker,
            after.checker_reason,
            after.resolution,
            change.at,
        )
        if won is None:
            return False
        await add_history(
            connection,
            [
                history_row(
                    "exception",
                    after,
                    before.state,
                    after.state,
                    after.version,
                    change.reason,
                    change.call,
                    change.at,
                )
            ],
        )
        if change.audit is not None:
            await add_audit(connection, change.audit)
        if after.state is ExceptionState.RESOLVED:
            event = self._announcer.exception_resolved(after, change.call, change.at)
            await self._outbox.add(connection, [event])
            await self._jobs.cancel(connection, CARRY_OUT, [after.id])
        elif after.state is ExceptionState.APPROVED and change.audit is not None:
            # Whoever approved carries it out at once; the job goes on where that one dies.
            await self._jobs.hasten(connection, CARRY_OUT, [after.id])
        return True

    async def _hasten(self, connection: Connection, change: ExceptionChange) -> None:
        kind = ADVANCE_REFUND if change.hastens.startswith("rfd_") else ADVANCE_PAYMENT
        await self._jobs.hasten(connection, kind, [change.hastens])
        occasion = f"{change.after.id}.{change.after.version}"
        job = new_job(kind, change.hastens, change.at, change.call, occasion)
        await self._jobs.add(connection, [job])

    async def find_exception(self, exception_id: str) -> PaymentException | None:
        """Return one exception."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(QUERIES["find_exception"], exception_id)
        return _exception_from(row) if row else None

    async def list_exceptions(self, page: ExceptionPage) -> list[PaymentException]:
        """Return a page of exceptions, oldest deadline first."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["list_exceptions"],
                page.tenant_id,
                page.mode,
                page.kind,
                page.include_resolved,
                *page.after,
                page.limit,
            )
        return [_exception_from(row) for row in rows]


def _exception_columns(exceptions: Sequence[PaymentException]) -> list[list[object]]:
    """Return the columns of `insert_exceptions`."""
    rows = [
        (
            e.id,
            e.kind,
            e.state,
            e.version,
            e.owner.tenant_id,
            e.owner.mode,
            e.owner.merchant_id,
            e.subject_id,
            e.payment_id,
            e.channel,
            e.amount.currency_code if e.amount else "",
            e.amount.amount_minor if e.amount else 0,
            e.detail,
            e.occasion,
            e.default_action,
            e.due_at,
            e.repeats,
            e.action or "",
            e.maker,
            e.maker_reason,
            e.checker,
            e.checker_reason,
            e.resolution,
            e.biz_trace_id,
            e.created_at,
            e.updated_at,
        )
        for e in exceptions
    ]
    return [list(column) for column in zip(*rows, strict=True)]


def _exception_from(row: Record) -> PaymentException:
    """Return the exception of a row."""
    return PaymentException(
        id=row["id"],
        kind=ExceptionKind(row["kind"]),
        state=ExceptionState(row["state"]),
        owner=Owner(row["tenant_id"], row["mode"], row["merchant_id"], ""),
        subject_id=row["subject_id"],
        payment_id=row["payment_id"],
        channel=row["channel"],
        amount=money_from(row["currency_code"], row["amount_minor"]),
        detail=row["detail"],
        occasion=row["occasion"],
        default_action=Action(row["default_action"]),
        due_at=row["due_at"],
        biz_trace_id=row["biz_trace_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        version=row["version"],
        repeats=row["repeats"],
        action=Action(row["action"]) if row["action"] else None,
        maker=row["maker"],
        maker_reason=row["maker_reason"],
        checker=row["checker"],
        checker_reason=row["checker_reason"],
        resolution=row["resolution"],
    )
