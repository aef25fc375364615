"""Proofs: what is compared, in one snapshot, and what came of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, Final

from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from services.account.domain.days import BusinessDay
from services.account.domain.proofs import (
    IN_FLIGHT_SHOWN_MAX,
    DayDifference,
    Key,
    Line,
    Misfit,
    Occasion,
    Proof,
    Terms,
    UnfitAccount,
    UnfitEntry,
)
from services.account.store.days import DAY_QUERIES

PROOF_QUERIES: Final = load_queries("services.account", "proof_queries.sql")
"""Statements of the proof."""

# A proof may take as long as the tables are large.
_SESSION: Final = "SET LOCAL statement_timeout = 0"
# Whoever sums up whole tables joins them once; whoever looks for few rows in large tables finds
# them by key. That a table was never analysed must not make the planner do the other.
_BY_SUM: Final = (
    "SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on;"
    " SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = off"
)
_BY_KEY: Final = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
    " SET LOCAL enable_mergejoin = off; SET LOCAL enable_nestloop = on"
)
# In the order in which months are made and moved: otherwise whoever does that and a proof wait for
# each other.
_SHARE_TABLES: Final = (
    "LOCK TABLE vouchers, archived_vouchers, voucher_lines, archived_voucher_lines"
    " IN ACCESS SHARE MODE"
)
# One statement compares all days and some, and its parts for the others are planned away.
_PLANNED_ANEW: Final = "SET LOCAL plan_cache_mode = force_custom_plan"
DIFFERENCES_MAX: Final = 10_000
"""Differences that are looked at: beyond them later days are not known to fit."""


class Snapshot:
    """One view of the books, in which everything is compared."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read_moment(self) -> tuple[datetime, date]:
        """Return the clock and the furthest business date."""
        row = await self._connection.fetchrow(PROOF_QUERIES["read_moment"])
        if row is None or row[1] is None:
            raise RuntimeError("no book has a business date")
        return row[0], row[1]

    async def read_terms(self) -> list[Terms]:
        """Return what the lines of the proof are made of."""
        await self._connection.execute(_BY_SUM)
        sums = await self._connection.fetch(PROOF_QUERIES["sum_books"])
        await self._connection.execute(_BY_KEY)
        rows = await self._connection.fetch(PROOF_QUERIES["sum_in_flight"])
        in_flight = {Key(*tuple(row)[:4]): int(row["amount"]) for row in rows}
        terms = []
        for row in sums:
            key = Key(*tuple(row)[:4])
            outer, buffered, inner = (int(amount) for amount in tuple(row)[5:])
            terms.append(Terms(key, row[4], outer, buffered, inner, in_flight.get(key, 0)))
        return terms

    async def read_in_flight(self) -> tuple[int, tuple[str, ...]]:
        """Return how many transfers have no voucher yet, and the ids of the oldest."""
        await self._connection.execute(_BY_KEY)
        row = await self._connection.fetchrow(PROOF_QUERIES["list_in_flight"], IN_FLIGHT_SHOWN_MAX)
        return (0, ()) if row is None else (row[0], tuple(row[1]))

    async def list_with_vouchers_due(self, days: Sequence[BusinessDay]) -> set[tuple[int, date]]:
        """Return those of some cut days that have transfers without a voucher."""
        await self._connection.execute(_BY_KEY)
        rows = await self._connection.fetch(
            DAY_QUERIES["list_days_with_vouchers_due"],
            [day.book for day in days],
            [day.business_date for day in days],
        )
        return {(row[0], row[1]) for row in rows}

    async def compare_days(self) -> list[DayDifference]:
        """Return subjects whose sums of a day differ, of all days; reads everything there is."""
        return await self._compare(_BY_SUM, None, None, None, None)

    async def compare_cut_days(self, days: Sequence[BusinessDay]) -> list[DayDifference]:
        """Return subjects whose sums of a day differ, of some cut days."""
        return await self._compare(
            _BY_KEY,
            [day.book for day in days],
            [day.business_date for day in days],
            min(day.begun_in for day in days),
            max(day.watermark or 0 for day in days),
        )

    async def _compare(self, planning: str, *which: object) -> list[DayDifference]:
        await self._connection.execute(_SHARE_TABLES)
        await self._connection.execute(planning)
        await self._connection.execute(_PLANNED_ANEW)
        rows = await self._connection.fetch(PROOF_QUERIES["compare_days"], *which, DIFFERENCES_MAX)
        return [_difference(row) for row in rows]

    async def find_misfit(self, where: DayDifference) -> Misfit | None:
        """Return the first transfer, entry or voucher of a day and subject that does not fit."""
        key = where.key
        await self._connection.execute(_BY_SUM)
        row = await self._connection.fetchrow(
            PROOF_QUERIES["find_misfit"],
            where.book,
            where.business_date,
            key.tenant_id,
            key.mode,
            key.currency_code,
            key.subject_code,
        )
        return None if row is None else Misfit(*tuple(row)[:6], *map(int, tuple(row)[6:]))

    async def find_misfit_of_account(self, where: DayDifference) -> Misfit | None:
        """Return the first side of a transfer, or entry, of a day that does not fit on its account.

        For what cancels out within the subject.
        """
        key = where.key
        await self._connection.execute(_BY_SUM)
        row = await self._connection.fetchrow(
            PROOF_QUERIES["find_misfit_of_account"],
            where.book,
            where.business_date,
            key.tenant_id,
            key.mode,
            key.currency_code,
            key.subject_code,
        )
        if row is None:
            return None
        return Misfit(
            row["transfer_id"],
            row["account_id"],
            "",
            row["has_transfer"],
            row["has_entry"],
            False,
            int(row["moved"]),
            int(row["entered"]),
            0,
        )

    async def find_unbalanced_voucher(self, where: DayDifference) -> str | None:
        """Return the first voucher of a day whose lines do not add up to its total."""
        key = where.key
        found: str | None = await self._connection.fetchval(
            PROOF_QUERIES["find_unbalanced_voucher"],
            where.book,
            where.business_date,
            key.tenant_id,
            key.mode,
            key.currency_code,
        )
        return found

    async def find_unfit_account(self, key: Key) -> UnfitAccount | None:
        """Return the first account under a subject that is not the sum of its entries."""
        row = await self._connection.fetchrow(
            PROOF_QUERIES["find_unfit_account"],
            key.tenant_id,
            key.mode,
            key.currency_code,
            key.subject_code,
        )
        if row is None:
            return None
        book, account_id, *sums = row
        transfer_id = await self._connection.fetchval(
            PROOF_QUERIES["find_unfit_entry"], book, account_id
        )
        return UnfitAccount(account_id, transfer_id or "", *map(int, sums))


class ProofStore:
    """The table `proofs`, and snapshots to make one in."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Open one view of the books; reads as long as it takes and changes nothing."""
        async with self._pool.transaction(isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(_SESSION)
            yield Snapshot(connection)

    async def read_mark(self) -> tuple[Any, ...]:
        """Return what is another as soon as the books have moved."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(PROOF_QUERIES["read_mark"])
        return tuple(tuple(row) for row in rows)

    async def insert(self, connection: Connection, proof: Proof) -> None:
        """Keep a proof."""
        await connection.execute(
            PROOF_QUERIES["insert_proof"],
            proof.id,
            proof.proved_at,
            proof.business_date,
            proof.holds,
            proof.in_flight_count,
            proof.occasion,
            list(proof.in_flight_ids),
            [_line_to_json(line) for line in proof.lines],
            [_unfit_to_json(unfit) for unfit in proof.unfit],
        )

    async def prune(self, connection: Connection, before: datetime) -> None:
        """Let proofs go that are behind a later one."""
        await connection.execute(PROOF_QUERIES["prune_proofs"], before)

    async def read_last(self) -> Proof | None:
        """Read the last proof; None before the first."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(PROOF_QUERIES["read_last_proof"])
        return None if row is None else _proof(row)

    async def read_of_days(self, dates: Iterable[date]) -> dict[date, Proof]:
        """Read the last proof of each of some days; those without one are left out."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(PROOF_QUERIES["read_proofs_of_days"], list(set(dates)))
        return {row["business_date"]: _proof(row) for row in rows}


def _difference(row: Record) -> DayDifference:
    return DayDifference(
        row["book"],
        row["business_date"],
        Key(row["tenant_id"], row["mode"], row["currency_code"], row["subject_code"]),
        row["is_controlled"],
        *(int(row[name]) for name in ("moved", "entered", "due", "told", "kept")),
    )


def _proof(row: Record) -> Proof:
    return Proof(
        id=row["id"],
        proved_at=row["proved_at"],
        occasion=Occasion(row["occasion"]),
        business_date=row["business_date"],
        lines=tuple(_line_from_json(line) for line in row["lines"]),
        in_flight_count=row["in_flight_count"],
        in_flight_ids=tuple(row["in_flight_ids"]),
        unfit=tuple(_unfit_from_json(unfit) for unfit in row["unfit"]),
        holds=row["holds"],
    )


def _line_to_json(line: Line) -> list[Any]:
    key = line.key
    return [
        [key.tenant_id, key.mode, key.currency_code, key.subject_code],
        [line.outer_minor, line.buffered_minor, line.inner_minor, line.in_flight_minor],
    ]


def _line_from_json(kept: list[Any]) -> Line:
    key, amounts = kept
    return Line(Key(*key), *amounts)


def _unfit_to_json(unfit: UnfitEntry) -> dict[str, str]:
    return {
        "transfer_id": unfit.transfer_id,
        "account_id": unfit.account_id,
        "voucher_id": unfit.voucher_id,
        "subject_code": unfit.subject_code,
        "finding": unfit.finding,
        "business_date": "" if unfit.business_date is None else unfit.business_date.isoformat(),
    }


def _unfit_from_json(kept: dict[str, str]) -> UnfitEntry:
    on = kept["business_date"]
    return UnfitEntry(
        kept["transfer_id"],
        kept["account_id"],
        kept["voucher_id"],
        kept["subject_code"],
        kept["finding"],
        date.fromisoformat(on) if on else None,
    )
