"""Many writers on few accounts, and a reader that finds the books whole in every snapshot.

Each writer has sessions of its own, as a process would. They do everything at once: singles, holds,
posts, voids, expiry, balancing, chains, buffers filled and drained. Deadlocks and serialisation
failures are theirs to settle: whoever calls hears what became of each transfer, never of those.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from common.clock import SystemClock
from common.db.types import Connection
from common.errors import VersionConflictError
from common.ids import IdFactory, derive
from services.account.config import AccountSettings
from services.account.domain.accounts import (
    AccountSpec,
    AccountStatus,
    platform_account_id,
)
from services.account.domain.transfers import (
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
)
from services.account.flows.change_account import ChangeRequest, set_account_status
from services.account.flows.drain_buffers import drain_account, drain_buffers
from services.account.flows.expire_holds import expire_holds
from services.account.store.buffers import BufferStore
from tests.integration.account.conftest import DatabaseBooks, LedgerKit, NewKit
from tests.integration.account.invariants import find_broken

_KINDS = {
    "R": "channel_receivable",
    "A": "user_available",
    "B": "user_available",
    "M": "merchant_pending",
    "S": "merchant_settled",
    "D": "merchant_receivable",
    "U": "unclaimed",
}
_LOCK = "SELECT FROM accounts WHERE book = 0 AND id = $1 FOR NO KEY UPDATE"
_WRITERS = 4
_CALLERS = 6
"""Callers of each writer."""


@dataclass
class Melee:
    """A world in which everybody writes."""

    kits: list[LedgerKit]
    parent: str
    chance: random.Random
    ids: dict[str, str] = field(default_factory=dict)
    holds: list[str] = field(default_factory=list)
    sent: list[list[Transfer]] = field(default_factory=list)
    heard: dict[str, TransferResult] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    serial: int = 0

    @property
    def tenant(self) -> str:
        """A tenant of this test alone."""
        return self.parent

    async def open(self) -> None:
        """Open the accounts; everybody gets something."""
        self.ids = {name: derive("acc", self.parent, name) for name in _KINDS}
        self.ids["U"] = platform_account_id("unclaimed", "USD", tenant_id=self.tenant, mode="LIVE")
        await self.kits[0].open(
            [
                AccountSpec(
                    self.ids[name],
                    name,
                    kind,
                    "USD",
                    tenant_id=self.tenant,
                    is_buffered=name == "S",
                )
                for name, kind in _KINDS.items()
            ]
        )
        await self.kits[0].ledger.post([self._first("R", name, 500) for name in "ABM"])

    def _id(self) -> str:
        self.serial += 1
        return derive("tfr", self.parent, self.serial)

    def _first(self, debit: str, credit: str, amount: int, **changes: object) -> Transfer:
        fields: dict[str, object] = {
            "id": self._id(),
            "debit_account_id": self.ids[debit],
            "credit_account_id": self.ids[credit],
            "currency_code": "USD",
            "amount_minor": amount,
            "movement": "melee.move",
            "reference_id": "melee",
            "tenant_id": self.tenant,
        }
        return Transfer(**(fields | changes))  # type: ignore[arg-type]

    def _later(self, kind: TransferKind, pending_id: str, **changes: object) -> Transfer:
        fields: dict[str, object] = {
            "id": self._id(),
            "kind": kind,
            "pending_id": pending_id,
            "movement": "melee.move",
            "reference_id": "melee",
            "tenant_id": self.tenant,
        }
        return Transfer(**(fields | changes))  # type: ignore[arg-type]

    def call(self) -> list[Transfer]:
        """Think of something to send."""
        chance = self.chance
        if self.sent and chance.random() < 0.1:
            return chance.choice(self.sent)
        made = [self._one() for _ in range(chance.choice([1, 1, 1, 2, 4, 12]))]
        if len(made) > 1 and chance.random() < 0.5:
            # A chain has a word of its own, by which a reader finds one that is booked in part.
            word = f"chain-{len(made)}-{made[0].id}"
            made = [
                replace(one, linked=place < len(made) - 1, reference_id=word)
                for place, one in enumerate(made)
            ]
        self.sent.append(made)
        return made

    def _one(self) -> Transfer:
        chance = self.chance
        draw = chance.random()
        if self.holds and draw < 0.3:
            pending_id = chance.choice(self.holds[-30:])
            if chance.random() < 0.5:
                return self._later(TransferKind.VOID, pending_id)
            amount, keeps = chance.choice([0, 0, 1, 5]), chance.random() < 0.5
            return self._later(TransferKind.POST, pending_id, amount_minor=amount, keep_rest=keeps)
        debit, credit = chance.sample(list(_KINDS), 2)
        if chance.random() < 0.5:
            debit, credit = chance.choice(["RA", "RB", "RS", "AS", "BS", "AB", "BA", "SM"])
        amount = chance.randint(1, 60)
        if draw < 0.5:
            timeout = chance.choice([0, 0, 1])
            hold = self._first(
                debit, credit, amount, kind=TransferKind.PENDING, timeout_seconds=timeout
            )
            self.holds.append(hold.id)
            return hold
        if draw < 0.65:
            return self._first(debit, credit, amount, balancing_debit=True)
        if draw < 0.7:
            return self._first(debit, "D", amount, balancing_credit=True)
        return self._first(debit, credit, amount)

    async def write(self, kit: LedgerKit, calls: int) -> None:
        """Send calls, one after the other, and remember the answers."""
        for _ in range(calls):
            call = self.call()
            for result in await kit.ledger.post(call):
                self.counts[result.reason or "BOOKED"] += 1
                if result.status == TransferStatus.INVALID:
                    continue
                before = self.heard.setdefault(result.transfer_id, result)
                assert (before.reason, before.booked_minor) == (result.reason, result.booked_minor)

    async def keep_house(self) -> None:
        """Expire, drain, freeze and unfreeze, cut days, as processes and operators do meanwhile."""
        kit = self.kits[-1]
        books = DatabaseBooks(kit, self.tenant)
        today = await kit.days.read(0)
        assert today is not None
        for number in itertools.count():
            if number % 5 == 0:
                today += timedelta(days=1)
                await books.advance(today)
                self.counts["days"] += 1
            await expire_holds(kit.ledger, kit.reading, 0)
            await drain_buffers(BufferStore(kit.pool), 0)
            name = self.chance.choice("ABMS")
            with_status = self.chance.choice(list(AccountStatus)[:3])
            await _try_to_change(books, self.ids[name], with_status)
            await asyncio.sleep(0.01)

    async def watch(self) -> None:
        """Hold one snapshot after the other against the invariants."""
        pool = self.kits[0].pool
        while True:
            assert await find_broken(pool) == []
            self.counts["snapshots"] += 1
            await asyncio.sleep(0.01)


async def _try_to_change(books: DatabaseBooks, account_id: str, status: AccountStatus) -> None:
    """As an operator does: look, decide, and look again when it changed meanwhile."""
    for _ in range(5):
        try:
            await books.set_status(account_id, status)
            return
        except VersionConflictError:
            continue


async def _fight(new_kit: NewKit, *, calls: int, seed: int) -> Melee:
    # Small batches, so that writers meet often.
    kits = [await new_kit(AccountSettings(batch_transfers_max=24)) for _ in range(_WRITERS + 1)]
    melee = Melee(kits, IdFactory(SystemClock()).new("tst"), random.Random(seed))  # noqa: S311
    await melee.open()
    async with asyncio.TaskGroup() as group:
        beside = [group.create_task(melee.keep_house()), group.create_task(melee.watch())]
        writers = [
            group.create_task(melee.write(kit, calls)) for kit in kits[:-1] for _ in range(_CALLERS)
        ]
        await asyncio.wait(writers)
        for task in beside:
            task.cancel()
    return melee


async def _check(melee: Melee) -> None:
    kit = melee.kits[0]
    await drain_buffers(BufferStore(kit.pool), 0)
    assert await find_broken(kit.pool) == []
    await kit.assert_books_fit()
    kept = await kit.reading.read_transfers(0, list(melee.heard))
    assert kept.keys() == melee.heard.keys()
    for transfer_id, result in melee.heard.items():
        answer = kept[transfer_id].answer(replayed=result.replayed)
        assert replace(answer, refusal=None) == replace(result, refusal=None)
        assert answer.reason == result.reason
    # Something of everything happened, and the reader was there.
    for word in ("BOOKED", "INSUFFICIENT_FUNDS", "LINKED_TRANSFER_FAILED", "snapshots", "days"):
        assert melee.counts[word] > 0, melee.counts


async def test_writing_everything_from_many_sides_keeps_every_snapshot_whole(
    new_kit: NewKit,
) -> None:
    melee = await _fight(new_kit, calls=25, seed=random.randrange(2**32))  # noqa: S311
    await _check(melee)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
async def test_writing_everything_for_long_keeps_every_snapshot_whole(
    new_kit: NewKit, seed: int
) -> None:
    melee = await _fight(new_kit, calls=250, seed=seed)
    await _check(melee)


@pytest.mark.parametrize("what", ["change", "drain"])
async def test_standing_between_two_batches_in_a_deadlock_is_tried_again(
    kit: LedgerKit, what: str
) -> None:
    # One batch holds the shop and wants the payer, the other the reverse, as happens when a shut
    # account's credits go elsewhere. Who waits for the shop between them is as good a victim for
    # the server as they are, and shall not hear of it.
    ids = IdFactory(SystemClock())
    shop, payer = await kit.open(
        [
            AccountSpec(ids.new("acc"), "shop", "merchant_pending", "USD", is_buffered=True),
            AccountSpec(ids.new("acc"), "payer", "user_available", "USD"),
        ]
    )
    request = ChangeRequest(shop.id, ids.new("req"), shop.version, "asked for", "OPERATOR:jane")
    async with kit.pool.acquire() as one, kit.pool.acquire() as other:
        await one.execute("BEGIN")
        await one.execute(_LOCK, shop.id)
        work: asyncio.Task[object] = asyncio.create_task(
            set_account_status(kit.pool, kit.accounts, request, AccountStatus.DEBIT_FROZEN)
            if what == "change"
            else drain_account(BufferStore(kit.pool), 0, shop.id)
        )
        await _until_blocked(kit, 1)
        await other.execute("BEGIN")
        await other.execute(_LOCK, payer.id)
        crosswise = asyncio.create_task(_lock_and_leave(other, shop.id))
        await _until_blocked(kit, 2)
        # With whoever stood between gone, the two are still in each other's way.
        await asyncio.gather(_lock_and_leave(one, payer.id), crosswise)
    await work


async def _two_payments(kit: LedgerKit) -> list[Transfer]:
    """Return orders between two accounts that are open."""
    ids = IdFactory(SystemClock())
    receivable, user = await kit.open(
        [
            AccountSpec(ids.new("acc"), "bank", "channel_receivable", "USD"),
            AccountSpec(ids.new("acc"), "user", "user_available", "USD"),
        ]
    )
    return [
        Transfer(
            ids.new("tfr"),
            debit_account_id=receivable.id,
            credit_account_id=user.id,
            currency_code="USD",
            amount_minor=7,
            movement="test.move",
            reference_id="ref",
        )
        for _ in range(2)
    ]


async def test_repeating_gets_its_turn_between_the_batches_of_others(
    new_kit: NewKit, kit: LedgerKit
) -> None:
    # With several processes there is nearly always a batch under way, and a repeat has to be alone.
    other = await new_kit()
    once, later = await _two_payments(kit)
    await kit.ledger.post([once])
    async with kit.pool.acquire() as under_way:
        await under_way.execute("BEGIN")
        await under_way.execute("SELECT 1 FROM business_dates WHERE book = 0 FOR SHARE")
        repeat = asyncio.create_task(kit.ledger.post([once]))
        await _until_blocked(kit, 1)
        behind = asyncio.create_task(other.ledger.post([later]))
        await _until_blocked(kit, 2, unless=behind)
        assert not behind.done(), "a batch that came later went before the repeat"
        await under_way.execute("ROLLBACK")
    [[first], [second]] = await asyncio.gather(repeat, behind)
    assert (first.replayed, second.replayed) == (True, False)
    assert {first.status, second.status} == {TransferStatus.BOOKED}
    await kit.assert_books_fit()


async def test_repeating_while_a_batch_hangs_does_not_keep_the_others(
    new_kit: NewKit, kit: LedgerKit
) -> None:
    other = await new_kit()
    once, later = await _two_payments(kit)
    await kit.ledger.post([once])
    async with kit.pool.acquire() as hanging:
        await hanging.execute("BEGIN")
        await hanging.execute("SELECT 1 FROM business_dates WHERE book = 0 FOR SHARE")
        repeat = asyncio.create_task(kit.ledger.post([once]))
        await _until_blocked(kit, 1)
        [result] = await other.ledger.post([later])
        assert result.status == TransferStatus.BOOKED
        assert not repeat.done()
        await hanging.execute("ROLLBACK")
    [answer] = await repeat
    assert answer.replayed


async def _lock_and_leave(connection: Connection, account_id: str) -> None:
    """Lock an account, or hear that it ends in a deadlock; leave everything either way."""
    with suppress(asyncpg.DeadlockDetectedError):
        await connection.execute(_LOCK, account_id)
    await connection.execute("ROLLBACK")


async def _until_blocked(
    kit: LedgerKit, sessions: int, unless: asyncio.Task[Any] | None = None
) -> None:
    """Wait until so many sessions of the database wait for locks, or a task is done."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(20), kit.pool.acquire() as connection:
        while await connection.fetchval(query) < sessions:
            if unless is not None and unless.done():
                return
            await asyncio.sleep(0.01)
