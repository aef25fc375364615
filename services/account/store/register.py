"""The journal register and the trial balance, read; and what took vouchers back.

Vouchers of archived periods are read like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from common.db.pool import Pool
from common.db.types import Connection, Record
from services.account.domain.accounts import Side
from services.account.domain.vouchers import Voucher, VoucherLine, VoucherSource
from services.account.store.vouchers import VOUCHER_QUERIES

_NEW_COLUMNS = (
    "id",
    "book",
    "business_date",
    "source",
    "source_id",
    "summary",
    "currency_code",
    "tenant_id",
    "mode",
    "rule",
    "rule_version",
    "value_on",
    "biz_trace_id",
    "actor",
)


@dataclass(frozen=True, slots=True)
class Reversal:
    """What took a voucher back."""

    voucher_id: str
    reversal_id: str
    replacement_id: str | None
    """The voucher that stands in its place; None for those that no rule made."""
    request_id: str
    reason: str
    actor: str


@dataclass(frozen=True, slots=True)
class RegisterQuery:
    """Which vouchers of one book and world are wanted."""

    book: int
    tenant_id: str
    mode: str
    from_on: date
    to_on: date
    after_number: int = 0
    """Those of the first day up to this number are left out."""
    source: str = ""
    """Only those from this source; empty for all."""
    subject_code: str = ""
    """Only those with a line on this subject; empty for all."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class SubjectSum:
    """Where a subject stands in one currency, in minor units."""

    currency_code: str
    subject_code: str
    subject_name: str
    normal_side: Side
    opening_minor: int
    """Debits less credits before the first day."""
    debits_minor: int
    credits_minor: int


@dataclass(frozen=True, slots=True)
class LatestTerms:
    """How the latest version of its rule would book a transfer."""

    rule: str
    version: int
    summary: str
    lines: tuple[VoucherLine, ...]


class RegisterStore:
    """Reads vouchers, sums of subjects and reversals; writes reversals."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(
        self, connection: Connection, book: int, ids: Sequence[str]
    ) -> dict[str, Voucher]:
        """Read vouchers of one book by id, of all worlds; unknown ids are left out."""
        rows = await connection.fetch(VOUCHER_QUERIES["find_vouchers"], book, list(ids))
        return {voucher.id: voucher for voucher in await self._with_lines(connection, rows)}

    async def list_page(self, query: RegisterQuery) -> list[Voucher]:
        """Read a page of the register, by day and number."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                VOUCHER_QUERIES["list_vouchers"],
                query.book,
                query.tenant_id,
                query.mode,
                query.from_on,
                query.to_on,
                query.after_number,
                query.source,
                query.subject_code,
                query.limit,
            )
            return await self._with_lines(connection, rows)

    async def sum_subjects(
        self, tenant_id: str, mode: str, from_on: date, to_on: date
    ) -> Sequence[SubjectSum]:
        """Sum the subjects of one world over days, by currency and subject."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                VOUCHER_QUERIES["sum_subjects"], tenant_id, mode, from_on, to_on
            )
        # Sums are numeric in SQL.
        return [
            SubjectSum(row[0], row[1], row[2], Side(row[3]), *map(int, tuple(row)[4:]))
            for row in rows
        ]

    async def find_reversal(
        self, connection: Connection, book: int, voucher_id: str
    ) -> Reversal | None:
        """Return what took a voucher back, or None."""
        row = await connection.fetchrow(VOUCHER_QUERIES["find_reversal"], book, voucher_id)
        return None if row is None else Reversal(*row)

    async def find_reversal_of_request(
        self, connection: Connection, tenant_id: str, mode: str, actor: str, request_id: str
    ) -> Reversal | None:
        """Return what a person's request took back, or None."""
        row = await connection.fetchrow(
            VOUCHER_QUERIES["find_reversal_of_request"], tenant_id, mode, actor, request_id
        )
        return None if row is None else Reversal(*row)

    async def insert_reversal(
        self, connection: Connection, voucher: Voucher, reversal: Reversal
    ) -> None:
        """Note that a voucher is taken back."""
        await connection.execute(
            VOUCHER_QUERIES["insert_reversal"],
            voucher.book,
            reversal.voucher_id,
            reversal.reversal_id,
            reversal.replacement_id,
            voucher.tenant_id,
            voucher.mode,
            reversal.request_id,
            reversal.reason,
            reversal.actor,
        )

    async def read_latest_terms(
        self, connection: Connection, book: int, transfer_id: str
    ) -> LatestTerms | None:
        """Return how the latest version of its rule would book a transfer; None without one."""
        rows = await connection.fetch(VOUCHER_QUERIES["read_latest_terms"], book, transfer_id)
        if not rows:
            return None
        first = rows[0]
        lines = tuple(
            VoucherLine(row["subject_code"], row["is_debit"], row["booked_minor"]) for row in rows
        )
        return LatestTerms(first["rule"], first["version"], first["summary"], lines)

    async def _with_lines(self, connection: Connection, rows: Sequence[Record]) -> list[Voucher]:
        """Return vouchers as they stand, each with its lines; all may be of different worlds."""
        vouchers = [_voucher(row) for row in rows]
        lines: dict[tuple[object, ...], list[VoucherLine]] = {}
        for world in {(one.book, one.tenant_id, one.mode) for one in vouchers}:
            of_world = [o for o in vouchers if (o.book, o.tenant_id, o.mode) == world]
            found = await connection.fetch(
                VOUCHER_QUERIES["list_lines"],
                *world,
                [one.business_date for one in of_world],
                [one.number for one in of_world],
            )
            for row in found:
                line = VoucherLine(row["subject_code"], row["is_debit"], row["amount_minor"])
                lines.setdefault((*world, row["business_date"], row["number"]), []).append(line)
        return [
            replace(
                one,
                lines=tuple(
                    lines[one.book, one.tenant_id, one.mode, one.business_date, one.number]
                ),
            )
            for one in vouchers
        ]


def _voucher(row: Record) -> Voucher:
    values = {name: row[name] for name in _NEW_COLUMNS}
    values["source"] = VoucherSource(values["source"])
    return Voucher(
        **values,
        lines=(),
        number=row["number"],
        recorded_at=row["recorded_at"],
        reversed_by_id=row["reversed_by_id"],
    )
