"""Fee plans and clearing entries in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from operator import attrgetter
from typing import Final

from common.audit import AuditEntry, add_audit, digest_of
from common.context import CallContext
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.errors import IdConflictError, VersionConflictError
from services.settlement.domain import ClearingEntry, ClearingKind, ClearingTotal, FeePlan
from services.settlement.errors import ClearingMismatchError

_SQL: Final = load_queries("services.settlement")
FACT_QUERIES: Final = {"clearing_entry": "list_entry_facts", "unfinished": "list_unfinished"}
"""Kinds of facts, and the queries that list them."""

_read_columns: Final = attrgetter(
    "id",
    "kind",
    "subject_id",
    "payment_id",
    "order_id",
    "tenant_id",
    "mode",
    "merchant_id",
    "currency_code",
    "gross_minor",
    "fee_minor",
    "net_minor",
    "business_date",
    "biz_trace_id",
    "created_at",
)


class SettlementStore:
    """Reads and writes of the schema `settlement`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find_fee_plan(self, tenant_id: str, mode: str, merchant_id: str) -> FeePlan | None:
        """Return a merchant's own plan; None when it has the default one."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_SQL["find_fee_plan"], tenant_id, mode, merchant_id)
        return None if row is None else _plan(row)

    async def put_fee_plan(
        self,
        merchant_id: str,
        plan: FeePlan,
        request_id: str,
        call: CallContext,
        role: str,
        at: datetime,
    ) -> FeePlan:
        """Change a merchant's plan, with its audit row; return the plan after it.

        `plan.version` is the version that the caller saw. A repeat gets what the first one made.

        Raises:
            IdConflictError: the request made another plan.
            VersionConflictError: the plan has changed since it was seen.
        """
        principal = call.principal
        key = (principal.tenant_id, str(principal.mode), merchant_id)
        async with self._pool.transaction() as connection:
            before = await connection.fetchrow(_SQL["lock_fee_plan"], *key)
            earlier = await connection.fetchrow(_SQL["find_change"], *key, request_id)
            if earlier is not None:
                return _check_repeat(request_id, plan, _plan(earlier))
            known = 0 if before is None else before["version"]
            after = FeePlan(plan.rate_ppm, plan.returned_on_refund, plan.version + 1)
            written = None
            if known == plan.version:
                written = await connection.fetchval(
                    _SQL["put_fee_plan"],
                    *key,
                    principal.actor,
                    after.rate_ppm,
                    after.returned_on_refund,
                    after.version,
                    at,
                )
            if written is None:
                raise VersionConflictError(version=known, expected=plan.version)
            await connection.execute(
                _SQL["add_change"],
                *key,
                request_id,
                principal.actor,
                after.rate_ppm,
                after.returned_on_refund,
                after.version,
                call.biz_trace_id,
                at,
            )
            entry = _audit_entry(merchant_id, before, after, request_id, call, role, at)
            await add_audit(connection, entry)
        return after

    async def insert_entries_in(
        self, connection: Connection, entries: Sequence[ClearingEntry]
    ) -> int:
        """Write entries in the caller's transaction; return how many are new.

        Raises:
            ClearingMismatchError: an entry is there already with other money or another owner.
        """
        columns = [list(column) for column in zip(*map(_read_columns, entries), strict=True)]
        rows = await connection.fetch(_SQL["insert_entries"], *columns)
        new_ids = {row["id"] for row in rows}
        repeats = [entry for entry in entries if entry.id not in new_ids]
        if repeats:
            await self._compare(connection, repeats)
        return len(new_ids)

    async def _compare(self, connection: Connection, repeats: Sequence[ClearingEntry]) -> None:
        rows = await connection.fetch(_SQL["find_entries"], [entry.id for entry in repeats])
        kept = {row["id"]: _entry(row) for row in rows}
        for entry in repeats:
            earlier = kept.get(entry.id)
            if earlier is None or _money_of(earlier) != _money_of(entry):
                raise ClearingMismatchError(
                    f"{entry.subject_id} was cleared before with other figures"
                )

    async def exempt_in(
        self, connection: Connection, payments: Sequence[tuple[str, str]], at: datetime
    ) -> None:
        """Note payments (id and order type) that make no entry, in the caller's transaction."""
        await connection.execute(
            _SQL["exempt_payments"], [one[0] for one in payments], [one[1] for one in payments], at
        )

    async def find_payments_in(
        self, connection: Connection, ids: Sequence[str]
    ) -> dict[str, tuple[bool, str]]:
        """Return, for each payment that was heard of: whether it is exempt, and its story."""
        rows = await connection.fetch(_SQL["find_payments"], list(ids))
        return {row["payment_id"]: (row["is_exempt"], row["biz_trace_id"]) for row in rows}

    async def list_totals(
        self, merchant_id: str, tenant_id: str, mode: str, from_on: date, until_on: date
    ) -> list[ClearingTotal]:
        """Return a merchant's entries, summed by business date and currency, in that order."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["list_totals"], merchant_id, tenant_id, mode, from_on, until_on
            )
        return [ClearingTotal(*row) for row in rows]

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_facts(
        self, kind: str, tenant_id: str, mode: str, after: str, limit: int
    ) -> Sequence[Record]:
        """Return facts whose keys come after one: key, facts."""
        async with self._pool.acquire() as connection:
            return await connection.fetch(_SQL[FACT_QUERIES[kind]], tenant_id, mode, after, limit)


def _plan(row: Record) -> FeePlan:
    return FeePlan(row["rate_ppm"], row["returned_on_refund"], row["version"])


def _audit_entry(
    merchant_id: str,
    before: Record | None,
    after: FeePlan,
    request_id: str,
    call: CallContext,
    role: str,
    at: datetime,
) -> AuditEntry:
    return AuditEntry(
        principal=call.principal,
        role=role,
        action="fee_plan.put",
        subject=f"merchant {merchant_id}",
        reason=request_id,
        at=at,
        before_digest=digest_of(None if before is None else dict(before.items())),
        after_digest=digest_of(
            {
                "rate_ppm": after.rate_ppm,
                "returned_on_refund": after.returned_on_refund,
                "version": after.version,
            }
        ),
        biz_trace_id=call.biz_trace_id,
    )


def _check_repeat(request_id: str, asked: FeePlan, made: FeePlan) -> FeePlan:
    for field in ("rate_ppm", "returned_on_refund"):
        if getattr(asked, field) != getattr(made, field):
            raise IdConflictError(id=request_id, field=f"plan.{field}")
    if asked.version + 1 != made.version:
        raise IdConflictError(id=request_id, field="plan.version")
    return made


def _entry(row: Record) -> ClearingEntry:
    values = list(row)
    values[1] = ClearingKind(values[1])
    return ClearingEntry(*values)


def _money_of(entry: ClearingEntry) -> tuple[str, str, str, int, int, int]:
    return (
        entry.payment_id,
        entry.merchant_id,
        entry.currency_code,
        entry.gross_minor,
        entry.fee_minor,
        entry.net_minor,
    )
