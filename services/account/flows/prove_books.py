"""The proof that the outer accounts add up to the general ledger.

Continuously only the lines are compared: sums over the accounts, which show that something is
wrong. Where they are, and at each cut and on demand, each day's transfers, entries, vouchers and
sums are compared as well, which shows what: the first entry that does not fit is named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

from common.db.pool import Pool
from common.db.types import Connection
from common.ids import IdFactory
from common.telemetry import metrics
from services.account.domain.days import BusinessDay, Day
from services.account.domain.proofs import (
    FINDINGS_TOLD_MAX,
    UNFIT_MAX,
    DayDifference,
    Line,
    Occasion,
    Proof,
    UnfitEntry,
    explain_account,
    explain_line,
    explain_misfit,
    explain_sums,
    explain_unbalanced,
    first_days,
    lines_of,
)
from services.account.store.proofs import DIFFERENCES_MAX, ProofStore, Snapshot

_MADE = metrics.counter("paymesh.proofs.made", "Proofs of the books, by whether they hold")

_log = logging.getLogger(__name__)

TellBroken = Callable[[Connection, Proof], Awaitable[None]]
"""Tells of a broken proof in the transaction that keeps it."""

# Books that nothing moved are proved all the same from time to time: somebody with a way into the
# database could have changed them.
_UNMOVED_MAX: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class DayProofs:
    """What came of proving cut days in one snapshot."""

    proofs: dict[date, Proof]
    """A proof for each date whose vouchers were complete."""
    broken: frozenset[Day]
    waiting: frozenset[Day]
    """Days whose vouchers were not complete: nothing was proved of them."""


class Prover:
    """Makes proofs and keeps them."""

    def __init__(
        self,
        pool: Pool,
        store: ProofStore,
        ids: IdFactory,
        tell: TellBroken,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._store = store
        self._ids = ids
        self._tell = tell
        self._told = told
        self._mark: object = None
        self._proved_at: datetime | None = None

    async def prove(self, occasion: Occasion = Occasion.ON_DEMAND) -> Proof:
        """Prove the books as they are; keep the proof and tell when it is broken anew."""
        last = await self._store.read_last()
        async with self._store.snapshot() as snapshot:
            days = None if occasion is Occasion.ON_DEMAND else ()
            proof, _ = await self._compare(snapshot, occasion, days, last)
        async with self._pool.transaction() as connection:
            await self.keep(connection, proof)
            await self._store.prune(connection, proof.proved_at)
            if not proof.holds and not _is_known(proof, last):
                await self._tell(connection, proof)
        self._told()
        report(proof)
        return proof

    async def run(self, interval_seconds: float) -> None:
        """Prove the books again and again, until cancelled."""
        while True:
            await asyncio.sleep(interval_seconds)
            await self.prove_if_moved(timedelta(seconds=interval_seconds / 2))

    async def prove_if_moved(self, age_min: timedelta = timedelta(0)) -> Proof | None:
        """Prove the books continuously; None when nothing moved since this process did.

        Also None when another process, or a cut, proved them less than `age_min` ago.
        """
        mark, now = await self._store.read_mark(), await self._pool.fetch_now()
        last = await self._store.read_last()
        # A proof of the future was made before the clock went back: it says nothing of now.
        if last is not None and _is_within(now - last.proved_at, age_min):
            return None
        proved_at = self._proved_at if mark == self._mark else None
        if proved_at is not None and _is_within(now - proved_at, _UNMOVED_MAX):
            return None
        proof = await self.prove(Occasion.CONTINUOUS)
        self._mark, self._proved_at = mark, proof.proved_at
        return proof

    async def prove_days(self, days: Sequence[BusinessDay]) -> DayProofs:
        """Prove cut days in one snapshot, those whose vouchers are complete in it.

        Nothing is kept: whoever moves the days keeps their proofs with the move.
        """
        last = await self._store.read_last()
        async with self._store.snapshot() as snapshot:
            waiting = frozenset(await snapshot.list_with_vouchers_due(days))
            complete = [day for day in days if day.day not in waiting]
            if not complete:
                return DayProofs({}, frozenset(), waiting)
            proof, differences = await self._compare(snapshot, Occasion.DAY_CUT, complete, last)
        is_whole = (
            not any(line.difference_minor for line in proof.lines)
            and len(differences) < DIFFERENCES_MAX
        )
        differing = {(one.book, one.business_date) for one in differences}
        proofs = {}
        for business_date in {day.business_date for day in complete}:
            unfit = tuple(
                one for one in proof.unfit if not is_whole or one.business_date == business_date
            )
            holds = is_whole and not any(on == business_date for _, on in differing)
            proofs[business_date] = replace(
                proof,
                id=self._ids.new("prf"),
                business_date=business_date,
                unfit=unfit,
                holds=holds,
            )
        broken = {day.day for day in complete if not is_whole or day.day in differing}
        return DayProofs(proofs, frozenset(broken), waiting)

    async def keep(self, connection: Connection, proof: Proof) -> None:
        """Keep a proof in the caller's transaction."""
        await self._store.insert(connection, proof)

    async def _compare(
        self,
        snapshot: Snapshot,
        occasion: Occasion,
        days: Sequence[BusinessDay] | None,
        last: Proof | None,
    ) -> tuple[Proof, list[DayDifference]]:
        """Compare the lines, then some days or (None) all of them; say what does not fit.

        Where the lines are off by what they were in the last proof, its findings stand: to look
        for them is to read everything there is.
        """
        now, business_date = await snapshot.read_moment()
        lines = lines_of(await snapshot.read_terms())
        count, ids = await snapshot.read_in_flight()
        broken = [line for line in lines if line.difference_minor]
        differences: list[DayDifference] = []
        unfit: tuple[UnfitEntry, ...] = ()
        if broken and days is not None and last is not None and _is_off_as(last, broken):
            unfit = last.unfit
        else:
            if broken or days is None:
                differences = await snapshot.compare_days()
            elif days:
                differences = await snapshot.compare_cut_days(days)
            unfit = tuple(await _find_unfit(snapshot, broken, differences))
        proof = Proof(
            id=self._ids.new("prf"),
            proved_at=now,
            occasion=occasion,
            business_date=business_date,
            lines=lines,
            in_flight_count=count,
            in_flight_ids=ids,
            unfit=unfit,
            holds=not broken and not unfit,
        )
        return proof, differences


def _is_within(age: timedelta, limit: timedelta) -> bool:
    return timedelta(0) <= age < limit


def _is_off_as(last: Proof, broken: Iterable[Line]) -> bool:
    was = {line.key: line.difference_minor for line in last.lines if line.difference_minor}
    return bool(last.unfit) and was == {line.key: line.difference_minor for line in broken}


async def _find_unfit(
    snapshot: Snapshot, broken: Iterable[Line], differences: Sequence[DayDifference]
) -> list[UnfitEntry]:
    """Find the first entry that does not fit of each subject that differs on a day or in all."""
    first = first_days(differences)
    unfit = [await _find_on_day(snapshot, first[key]) for key in sorted(first)[:UNFIT_MAX]]
    for line in broken:
        if line.key in first or len(unfit) >= UNFIT_MAX:
            continue
        account = await snapshot.find_unfit_account(line.key)
        unfit.append(explain_line(line) if account is None else explain_account(line.key, account))
    return unfit


async def _find_on_day(snapshot: Snapshot, difference: DayDifference) -> UnfitEntry:
    if difference.is_controlled:
        misfit = await snapshot.find_misfit(difference)
        if misfit is None:
            misfit = await snapshot.find_misfit_of_account(difference)
        if misfit is not None:
            return explain_misfit(difference, misfit)
    voucher_id = await snapshot.find_unbalanced_voucher(difference)
    if voucher_id is not None:
        return explain_unbalanced(difference, voucher_id)
    return explain_sums(difference)


def _is_known(proof: Proof, last: Proof | None) -> bool:
    """Whether the last proof was broken by the same."""
    return last is not None and not last.holds and _places(proof) == _places(last)


def _places(proof: Proof) -> set[tuple[str, ...]]:
    return {(u.transfer_id, u.account_id, u.voucher_id, u.subject_code) for u in proof.unfit}


def report(proof: Proof) -> None:
    """Count a proof, and say in the log when it is broken: ids and amounts, nothing personal."""
    _MADE.add(1, {"occasion": proof.occasion, "holds": proof.holds})
    for finding in () if proof.holds else proof.findings[:FINDINGS_TOLD_MAX]:
        _log.error("the proof is broken (%s): %s", proof.occasion, finding)
