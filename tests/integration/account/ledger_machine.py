"""A machine that does everything a ledger can be asked to, from several writers at once.

Each step that posts sends one batch from each of one to three writers. A flush is a transaction, so
what all were answered must be what the model answers in some order of the batches: that is tried,
and the model goes on from the order that fits. After each step every sum, version and line is
compared, and the rows are held against their invariants.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import secrets
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from common.clock import SystemClock
from common.errors import StateConflictError
from common.ids import IdFactory, derive
from services.account.domain.accounts import (
    Account,
    AccountSpec,
    AccountStatus,
    platform_account_id,
)
from services.account.domain.transfers import Transfer, TransferKind, TransferResult
from services.account.flows.drain_buffers import drain_account
from services.account.store.buffers import BufferStore
from tests.integration.account.conftest import DatabaseBooks, LedgerKit
from tests.integration.account.invariants import find_broken
from tests.integration.account.ledger_orders import (
    ACCOUNTS,
    BATCH,
    BATCHES,
    BUFFERS,
    IDS_MAX,
    STATUSES,
)
from tests.integration.account.plain_model import Answer, PlainLedger

T = TypeVar("T")
Plain = dict[str, Any]


class World:
    """The real ledger, seen by the machine's thread."""

    def __init__(self, writers: list[LedgerKit], loop: asyncio.AbstractEventLoop) -> None:
        self.writers = writers
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the test's own loop and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


class LedgerMachine(RuleBasedStateMachine):
    """One world of accounts; `world` is set by the test."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self._parent = IdFactory(SystemClock()).new("tst")
        self._tenant = secrets.token_hex(6)
        self._ids = {name: derive("acc", self._parent, name) for name in (*ACCOUNTS, "X")}
        self._ids["U"] = platform_account_id(
            "unclaimed", "USD", tenant_id=self._tenant, mode="LIVE"
        )
        self._names = {account_id: name for name, account_id in self._ids.items()}
        self._model = PlainLedger({n: copy.deepcopy(a) for n, (_, a) in ACCOUNTS.items()})
        self._fitting: list[PlainLedger] = []
        self._sent: list[list[Plain]] = []
        self._history: list[str] = []
        self._steps = 0
        self._books = DatabaseBooks(self.world.writers[0], self._tenant)
        specs = [
            AccountSpec(
                self._ids[name],
                f"o-{name}",
                kind,
                "USD",
                plain.limit or 0,
                tenant_id=self._tenant,
                is_buffered=plain.is_buffered,
            )
            for name, (kind, plain) in ACCOUNTS.items()
        ]
        self.world.run(self._books.open(specs))

    # Rules.

    @rule(batches=BATCHES)
    def post_new(self, batches: list[list[list[Plain]]]) -> None:
        """Each writer sends a batch of its own."""
        self._post([[self._plain(chain) for chain in batch] for batch in batches])

    @rule(data=st.data(), batch=BATCH)
    def post_with_repeats(self, data: st.DataObject, batch: list[list[Plain]]) -> None:
        """Every writer sends the same: each id is booked by one of them, all hear of it."""
        plain = [self._plain(chain) for chain in batch]
        if self._sent:
            repeats = data.draw(st.lists(st.sampled_from(self._sent), max_size=4))
            plain = [*repeats, *plain, *repeats[:1]]
        self._post([plain] * 2)

    @rule(data=st.data())
    def post_parts_of_earlier_chains(self, data: st.DataObject) -> None:
        """What was sent before comes again, in other chains."""
        if not self._sent:
            return
        chosen = data.draw(st.lists(st.sampled_from(self._sent), min_size=1, max_size=3))
        parts = [dict(one) for chain in chosen for one in chain]
        size = data.draw(st.integers(1, len(parts)))
        chain = parts[:size]
        for place, one in enumerate(chain):
            one["linked"] = place < len(chain) - 1
        self._post([[chain, *([dict(one, linked=False)] for one in parts[size:])]])

    @rule(name=st.sampled_from(sorted(ACCOUNTS)), status=STATUSES)
    def change_status(self, name: str, status: AccountStatus) -> None:
        """Freeze, unfreeze, close."""
        account = self._model.accounts[name]
        is_refused = account.status == "CLOSED" or (
            status == AccountStatus.CLOSED and not account.is_empty
        )
        if name != "Z" and status == AccountStatus.CLOSED and not is_refused:
            return  # one account that is closed for ever is enough
        try:
            self.world.run(self._books.set_status(self._ids[name], status))
        except StateConflictError:
            assert is_refused
        else:
            assert not is_refused
            account.change()
            account.status = str(status)
        self._compare()

    @rule(limit=st.integers(0, 100))
    def change_credit_limit(self, limit: int) -> None:
        """Another limit counts at once, and takes nothing back."""
        self.world.run(self._books.change_credit_limit(self._ids["C"], limit))
        self._model.accounts["C"].change()
        self._model.accounts["C"].limit = limit
        self._compare()

    @rule(name=st.sampled_from(["A", "B", "D"]), amount=st.sampled_from([0, 0, 20, 80]))
    def freeze_by_court(self, name: str, amount: int) -> None:
        """A court freezes an amount, or no longer does."""
        if self._model.accounts[name].status == "CLOSED":
            return
        self.world.run(self._books.freeze_by_court(self._ids[name], amount))
        self._model.accounts[name].change()
        self._model.accounts[name].court = amount
        self._compare()

    @rule(name=st.sampled_from(BUFFERS), is_buffered=st.booleans())
    def change_buffering(self, name: str, is_buffered: bool) -> None:
        """Single credits wait from now on, or no longer."""
        if self._model.accounts[name].status == "CLOSED":
            return
        self.world.run(self._books.set_buffering(self._ids[name], is_buffered=is_buffered))
        self._model.accounts[name].change()
        self._model.accounts[name].is_buffered = is_buffered
        self._compare()

    @rule(name=st.sampled_from(BUFFERS), from_two_sides=st.booleans())
    def drain(self, name: str, from_two_sides: bool) -> None:
        """What waits is posted, once."""
        drained = self.world.run(self._drain(name, 2 if from_two_sides else 1))
        assert drained == len(self._model.accounts[name].waiting)
        self._model.accounts[name].drain()
        self._compare()

    async def _drain(self, name: str, sides: int) -> int:
        drains = [
            drain_account(BufferStore(writer.pool), 0, self._ids[name])
            for writer in self.world.writers[:sides]
        ]
        return sum(await asyncio.gather(*drains))

    @rule(expires=st.booleans())
    def let_time_pass(self, expires: bool) -> None:
        """Holds with a time are over; the expiry comes, or comes late."""
        self.world.run(self._books.wait(3600))
        self._model.let_time_pass()
        if expires:
            self.world.run(self._books.expire())
            self._model.expire()
        self._compare()

    # Posting.

    def _plain(self, chain: list[Plain]) -> list[Plain]:
        made = []
        for place, one in enumerate(chain):
            debit, credit = one.get("pair", ("", ""))
            is_void = one["kind"] == "VOID"
            pending = one.get("pending")
            if pending == one["number"]:
                pending = (pending + 1) % (IDS_MAX + 1)
            flag = one.get("flag", "")
            movement = "correction.model" if flag == "forced" else one.get("movement", "model.move")
            is_timed = one["kind"] == "PENDING" and not movement.startswith("refund.")
            made.append(
                {
                    "id": self._transfer_id(one["number"]),
                    "kind": one["kind"],
                    "debit": debit,
                    "credit": credit,
                    "amount": 0 if is_void else one["amount"],
                    "pending": "" if pending is None else self._transfer_id(pending),
                    "keep_rest": not is_void and one.get("keep_rest", False),
                    "timeout": one.get("timeout", 0) if is_timed else 0,
                    "linked": place < len(chain) - 1,
                    "forced": flag == "forced",
                    "balancing_debit": flag in ("balancing_debit", "both"),
                    "balancing_credit": flag in ("balancing_credit", "both"),
                    "movement": movement,
                }
            )
        self._sent.append(made)
        return made

    def _transfer_id(self, number: int) -> str:
        return derive("tfr", self._parent, number)

    def _post(self, batches: list[list[list[Plain]]]) -> None:
        self.world.run(self._post_all(batches))
        self._compare()

    @rule(batches=BATCHES)
    def post_while_draining(self, batches: list[list[list[Plain]]]) -> None:
        """The drain runs beside; what it left is drained after."""
        plain = [[self._plain(chain) for chain in batch] for batch in batches]

        async def both() -> None:
            observed, _, _ = await asyncio.gather(
                self._call_all(plain), self._drain("S", 2), self._drain("B", 1)
            )
            # It may have come between any two batches: what could be spent depends on it.
            self._fitting = self._find_orders(plain, observed, may_drain=True)
            await self._drain("S", 1)
            await self._drain("B", 1)

        self.world.run(both())
        for model in self._fitting:
            for name in BUFFERS:
                model.accounts[name].drain()
        self._compare()

    async def _post_all(self, batches: list[list[list[Plain]]]) -> None:
        self._fitting = self._find_orders(batches, await self._call_all(batches))

    async def _call_all(self, batches: list[list[list[Plain]]]) -> list[list[Answer]]:
        calls = [
            writer.ledger.post(
                [self._transfer(one) for chain in batch for one in chain], may_force=True
            )
            for writer, batch in zip(self.world.writers, batches, strict=False)
        ]
        return [
            [self._answer(result) for result in results] for results in await asyncio.gather(*calls)
        ]

    def _answer(self, result: TransferResult) -> Answer:
        said = {} if result.refusal is None else result.refusal.metadata
        detail = said.get("culprit_id") or said.get("field") or ""
        return (
            result.reason or "BOOKED",
            detail or self._names.get(said.get("account_id", ""), ""),
            result.booked_minor,
            result.replayed,
            self._names.get(result.redirected_to, ""),
            result.is_buffered,
        )

    def _find_orders(
        self,
        batches: list[list[list[Plain]]],
        observed: list[list[Answer]],
        *,
        may_drain: bool = False,
    ) -> list[PlainLedger]:
        """The books after each order of the batches that gives these answers.

        Several may: which of them it was only the rows can tell.
        """
        told: list[str] = []
        fitting: list[PlainLedger] = []
        orders = itertools.permutations(range(len(batches)))
        # Which buffers are drained before which of the batches.
        choices = [("", "S", "B", "SB")] * len(batches) if may_drain else [("",)] * len(batches)
        for order, drains in itertools.product(orders, itertools.product(*choices)):
            model = copy.deepcopy(self._model)
            answers = {}
            for place, drained in zip(order, drains, strict=True):
                for name in drained:
                    model.accounts[name].drain()
                answers[place] = model.post(batches[place])
            if all(answers[place] == observed[place] for place in order):
                fitting.append(model)
            else:
                told += [f"order {order}:", *_differences(batches, observed, answers)]
        if not fitting:
            before = [line for line in self._history if any(line[:30] in one for one in told)]
            raise AssertionError("\n".join(["no order fits", *told, "before:", *before]))
        self._history += [
            f"{one['id']} step {self._steps} batch {place} {got}: {one}"
            for place, batch in enumerate(batches)
            for one, got in zip(_flat(batch), observed[place], strict=True)
        ]
        self._steps += 1
        return fitting

    def _transfer(self, one: Plain) -> Transfer:
        is_first = one["kind"] in ("SINGLE", "PENDING")
        return Transfer(
            id=one["id"],
            kind=TransferKind(one["kind"]),
            debit_account_id=self._ids.get(one["debit"], ""),
            credit_account_id=self._ids.get(one["credit"], ""),
            currency_code="USD" if is_first else "",
            amount_minor=one["amount"],
            pending_id=one["pending"],
            keep_rest=one["keep_rest"],
            timeout_seconds=one["timeout"],
            linked=one["linked"],
            forced=one["forced"],
            balancing_debit=one["balancing_debit"],
            balancing_credit=one["balancing_credit"],
            movement=one["movement"],
            reference_id="model",
            tenant_id=self._tenant,
        )

    # Comparing.

    def _compare(self) -> None:
        self.world.run(self._compare_all())

    async def _compare_all(self) -> None:
        """Find the books that the rows show among those that the answers allow."""
        kit = self.world.writers[0]
        assert await find_broken(kit.pool, limits_hold=False) == []
        accounts = await kit.accounts.read(0, [self._ids[name] for name in ACCOUNTS])
        real = {name: _state_of(accounts[self._ids[name]]) for name in self._model.accounts}
        lines = await self._read_lines()
        told: list[str] = []
        for model in self._fitting or [self._model]:
            off = _off(model, real, lines)
            if not off:
                self._model, self._fitting = model, []
                return
            told += ["books:", *off]
        raise AssertionError("\n".join(["no books fit the rows", *told]))

    async def _read_lines(self) -> dict[str, list[tuple[int, int, int]]]:
        """The lines of all accounts by name: version, change and balance."""
        async with self.world.writers[0].pool.acquire() as connection:
            rows = await connection.fetch(
                "SELECT account_id, version, is_debit, amount_minor, debits_posted_minor,"
                " credits_posted_minor FROM entries"
                " WHERE book = 0 AND account_id = ANY($1::text[]) ORDER BY version",
                list(self._ids.values()),
            )
        lines: dict[str, list[tuple[int, int, int]]] = {}
        for account_id, version, is_debit, amount, debits, credits_ in rows:
            name = self._names[account_id]
            sign = -1 if ACCOUNTS[name][1].grows_by_debit else 1
            change = -amount if is_debit else amount
            lines.setdefault(name, []).append((version, sign * change, sign * (credits_ - debits)))
        return lines


def _state_of(account: Account) -> tuple[object, ...]:
    return (
        account.debits_posted_minor,
        account.credits_posted_minor,
        account.debits_pending_minor,
        account.credits_pending_minor,
        account.available_minor,
        account.version,
        account.status,
        account.buffered_minor,
        account.is_buffered,
    )


def _off(
    model: PlainLedger,
    real: dict[str, tuple[object, ...]],
    lines: dict[str, list[tuple[int, int, int]]],
) -> list[str]:
    """What the rows show otherwise than the books do."""
    told = []
    for name, plain in model.accounts.items():
        wanted = (
            plain.debits,
            plain.credits,
            plain.held_debits,
            plain.held_credits,
            plain.left,
            plain.version,
            plain.status,
            sum(plain.waiting),
            plain.is_buffered,
        )
        if real[name] != wanted:
            told.append(f"  {name}: rows {real[name]}, books {wanted}")
        found = lines.get(name, [])
        if found != plain.lines and not (name in BUFFERS and _are_alike(found, plain.lines)):
            told.append(f"  lines of {name}: rows {found}, books {plain.lines}")
    return told


def _are_alike(lines: list[tuple[int, int, int]], plain: list[tuple[int, int, int]]) -> bool:
    """Whether lines are the model's, but that drained credits may stand in another order.

    Batches append to a buffer side by side. That each line follows from the one before, the
    invariants say.
    """
    return sorted(change for _, change, _ in lines) == sorted(change for _, change, _ in plain)


def _flat(batch: list[list[Plain]]) -> list[Plain]:
    return [one for chain in batch for one in chain]


def _differences(
    batches: list[list[list[Plain]]],
    observed: list[list[Answer]],
    told: dict[int, list[Answer]],
) -> list[str]:
    return [
        f"  batch {place} observed {got}, model {wanted}: {one}"
        for place, batch in enumerate(batches)
        for one, got, wanted in zip(_flat(batch), observed[place], told[place], strict=True)
        if got != wanted
    ]
