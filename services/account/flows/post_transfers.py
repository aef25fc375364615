"""Book transfers: check, queue, decide under locks, write, commit, answer.

Callers of one process meet in one lane per book. Correctness does not rest on that: any number of
processes may write, because everything is decided on locked rows and an id can be kept once only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from common.clock import Clock
from common.coalescer import Coalescer, CoalescerLimits
from common.db.failures import Failure, classify
from common.db.pool import Pool
from common.errors import InternalError, Outcome, PaymeshError
from common.ids import encode_time
from services.account.config import AccountSettings
from services.account.domain.accounts import AccountStatus
from services.account.domain.batches import Decision, Snapshot
from services.account.domain.bookings import unclaimed_account_id
from services.account.domain.decisions import decide
from services.account.domain.requests import RequestRules, book_of_chain
from services.account.domain.transfers import (
    Chain,
    Hold,
    Refusal,
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
    first_difference,
    split_chains,
)
from services.account.store.lane import BookNotOpenError, Lane
from services.account.store.partitions import PartitionKeeper

_log = logging.getLogger(__name__)

Answers = tuple[TransferResult, ...]

_BUFFERED_KNOWN_MAX: Final = 100_000
"""Most buffered accounts that are remembered, some 10 MB; then the memory begins anew."""

_BOOK_NOT_OPEN: Final = Refusal(
    "FIELD_INVALID", {"field": "id", "rule": "is in a book that is not open"}
)
_SHUT: Final = frozenset({AccountStatus.CREDIT_FROZEN, AccountStatus.CLOSED})


class IdContestedError(Exception):
    """An id was neither free nor kept, alone on the book: a writer that does not lock it."""


class Ledger:
    """Books transfers for all callers of one process."""

    def __init__(self, pool: Pool, clock: Clock, settings: AccountSettings | None = None) -> None:
        self._pool = pool
        self._clock = clock
        self._settings = settings or AccountSettings()
        self._partitions = PartitionKeeper(pool)
        self._books: dict[int, _BookPoster] = {}
        self.appended = asyncio.Event()
        """Set when something was appended to a buffer; the drain waits for it, and clears it."""
        self.booked = asyncio.Event()
        """Set when something was kept; the maker of vouchers waits for it, and clears it."""
        self._rules: dict[bool, RequestRules] = {}
        self._rules_made_at = -1.0

    async def prepare(self) -> None:
        """Make the months that ids of now fall into; run at the start and once a day."""
        await self._partitions.prepare(self._clock.now())

    async def post(
        self, transfers: Sequence[Transfer], *, may_force: bool = False
    ) -> list[TransferResult]:
        """Book transfers; return a result each, in their order, once all is committed.

        Transfers marked `linked` form a chain with the next one: all or none. `may_force` says
        that the caller was granted to take accounts below their limits.

        Raises:
            OverloadedError: too much is waiting; nothing was begun.
            UnavailableError: the database is away; the same ids may be sent again.
            InternalError: none of the transfers could be written, for a fault of ours.
        """
        chains, open_chain = split_chains(transfers)
        rules = self._rules_now(may_force=may_force)
        answers: list[Answers | None] = [self._refuse_invalid(rules, chain) for chain in chains]
        waiting = [place for place, answer in enumerate(answers) if answer is None]
        if len(waiting) == 1:  # a lonely call needs no list
            chain = chains[waiting[0]]
            answers[waiting[0]] = await self._book(book_of_chain(chain)).submit(chain)
        elif waiting:
            posted = await self._post_all([chains[place] for place in waiting])
            for place, answer in zip(waiting, posted, strict=True):
                answers[place] = answer
        results = [result for answer in answers if answer is not None for result in answer]
        return results + list(_refuse_open(open_chain))

    async def expire(self, expiries: Sequence[Transfer]) -> list[TransferResult]:
        """Book expiries of holds, made by `expiry_of`: the ledger's own, so not checked again."""
        if not expiries:
            return []
        posted = await self._post_all([(expiry,) for expiry in expiries])
        return [result for answer in posted for result in answer]

    async def drain(self) -> None:
        """Take nothing new, answer everything taken, end the sessions."""
        await asyncio.gather(*(book.close() for book in self._books.values()))

    def _rules_now(self, *, may_force: bool) -> RequestRules:
        """The rules for ids of now, made anew once a second: the window needs no more."""
        now = self._clock.monotonic()
        if now - self._rules_made_at >= 1:
            at, window = self._clock.now(), timedelta(days=self._settings.id_window_days)
            self._rules = {
                is_granted: RequestRules(at, window=window, may_force=is_granted)
                for is_granted in (False, True)
            }
            self._rules_made_at = now
        return self._rules[may_force]

    def _refuse_invalid(self, rules: RequestRules, chain: Chain) -> Answers | None:
        problem = rules.check_chain(chain)
        if problem is None and len(chain) > self._settings.chain_transfers_max:
            rule = f"chains have at most {self._settings.chain_transfers_max} transfers"
            problem = chain[-1], Refusal("FIELD_INVALID", {"field": "linked", "rule": rule})
        if problem is None:
            return None
        return _refuse_chain(chain, *problem)

    async def _post_all(self, chains: list[Chain]) -> list[Answers]:
        by_book: dict[int, list[int]] = {}
        for place, chain in enumerate(chains):
            by_book.setdefault(book_of_chain(chain), []).append(place)
        answered = await asyncio.gather(
            *(
                self._book(book).submit_all([chains[place] for place in places])
                for book, places in by_book.items()
            )
        )
        answers: list[Answers | PaymeshError] = [()] * len(chains)
        for places, of_book in zip(by_book.values(), answered, strict=True):
            for place, answer in zip(places, of_book, strict=True):
                answers[place] = answer
        return _settle_failures(chains, answers)

    def _book(self, book: int) -> _BookPoster:
        poster = self._books.get(book)
        if poster is None:
            settings = self._settings
            poster = self._books[book] = _BookPoster(
                Lane(self._pool, book),
                self.appended,
                self.booked,
                self._partitions,
                self._clock,
                timedelta(days=settings.id_window_days),
                CoalescerLimits(
                    batch_weight_max=settings.batch_transfers_max,
                    queue_weight_max=settings.queue_transfers_max,
                ),
                f"ledger book {book}",
            )
        return poster


class _BookPoster:
    """The lane of one book: its queue, its session, its flush."""

    def __init__(
        self,
        lane: Lane,
        appended: asyncio.Event,
        booked: asyncio.Event,
        partitions: PartitionKeeper,
        clock: Clock,
        window: timedelta,
        limits: CoalescerLimits,
        name: str,
    ) -> None:
        self._lane = lane
        self._appended = appended
        self._booked = booked
        self._buffered: set[str] = set()
        """Accounts that were found to be buffered; only a guess of which locks will do."""
        self._partitions = partitions
        self._clock = clock
        self._window = window
        self._coalescer: Coalescer[Chain, Answers] = Coalescer(
            self._flush,
            classify=_classify,
            read_back=self._read_back,
            weigh=len,
            limits=limits,
            name=name,
        )
        self.submit = self._coalescer.submit
        self.submit_all = self._coalescer.submit_all

    async def close(self) -> None:
        await self._coalescer.drain()
        await self._lane.close()

    async def _flush(self, chains: Sequence[Chain]) -> Sequence[Answers]:
        """Decide and write one batch.

        Ids are not read first. A transfer that is kept already, booked or refused, meets its first
        copy when it is inserted, and a hold that is over is not among the open ones; then nothing
        is written, and the batch is decided again alone on the book, with all that is kept under
        its ids. So the usual batch, in which nothing is a repeat, is spared the reading.
        """
        await self._make_months(chains)
        lane = self._lane
        for is_alone in (False, True):
            try:
                await lane.begin()
                decided = await (self._decide_alone if is_alone else self._decide)(chains)
                if decided is not None:
                    decision, snapshot = decided
                    if not decision.stored or await lane.write(
                        decision, snapshot.now, snapshot.business_date
                    ):
                        await lane.commit()
                        self._booked.set()
                        if decision.appended:
                            self._appended.set()
                        return decision.answers
            except BookNotOpenError:
                # The ids say so, for all alike. A session a book is too many for those.
                await lane.close()
                return [_refuse_chain(chain, chain[0], _BOOK_NOT_OPEN) for chain in chains]
            except BaseException:
                await lane.abandon()
                raise
            await lane.abandon()
        raise IdContestedError

    async def _decide(self, chains: Sequence[Chain]) -> tuple[Decision, Snapshot] | None:
        """Lock and decide; None when what is not there has to be known."""
        orders = [transfer for chain in chains for transfer in chain]
        pending_ids = {t.pending_id for t in orders if t.pending_id}
        holds = await self._lane.lock_holds(pending_ids) if pending_ids else {}
        made_here = {t.id for t in orders if t.kind == TransferKind.PENDING}
        if pending_ids - holds.keys() - made_here:
            return None
        snapshot = await self._lock(orders, holds)
        decision = decide(chains, snapshot)
        return None if decision.needs_existing else (decision, snapshot)

    async def _decide_alone(self, chains: Sequence[Chain]) -> tuple[Decision, Snapshot]:
        """Decide with all that is kept under the ids, while no other batch of the book runs."""
        lane = self._lane
        await lane.lock_book()
        orders = [transfer for chain in chains for transfer in chain]
        pending_ids = {t.pending_id for t in orders if t.pending_id}
        holds = await lane.lock_holds(pending_ids) if pending_ids else {}
        snapshot = replace(
            await self._lock(orders, holds),
            fates=await lane.read_fates(list(pending_ids - holds.keys())),
            existing=await lane.read_transfers([t.id for t in orders]),
        )
        return decide(chains, snapshot), snapshot

    async def _lock(self, orders: list[Transfer], holds: Mapping[str, Hold]) -> Snapshot:
        account_ids = {t.debit_account_id for t in orders}
        account_ids.update(t.credit_account_id for t in orders)
        for hold in holds.values():
            account_ids.add(hold.debit_account_id)
            account_ids.add(hold.credit_account_id)
        account_ids.discard("")
        shared = self._only_appended(orders, holds) if self._buffered else set()
        lock = self._lane.lock_accounts
        accounts, now, business_date = await lock(account_ids - shared if shared else account_ids)
        if shared:
            appended_to, now = await self._lane.share_accounts(shared)
            accounts.update(appended_to)
        shut: set[str] = set()
        buffered: set[str] = set()
        for account in accounts.values():
            if account.is_buffered:
                buffered.add(account.id)
            if account.status in _SHUT:
                shut.add(unclaimed_account_id(account))
        # What is no longer buffered, and what may have to take the credits of a shut account.
        missing = (shut - account_ids) | (shared & shut) | (shared - buffered)
        if missing:
            # Out of the order of ids, so this may end in a deadlock, and then in another try.
            more, now, business_date = await lock(missing)
            accounts.update(more)
        self._note_buffered(buffered, shared - buffered)
        return Snapshot(
            accounts=accounts,
            holds=holds,
            fates={},
            existing={},
            now=now,
            business_date=business_date,
            tombstones_from=f"tfr_{encode_time(self._clock.now() - self._window)}",
            shared=frozenset(shared - missing),
        )

    def _only_appended(self, orders: list[Transfer], holds: Mapping[str, Hold]) -> set[str]:
        """Return accounts that need no lock of their own: of them, only buffers are touched."""
        single = TransferKind.SINGLE
        appended = self._buffered & {t.credit_account_id for t in orders if t.kind == single}
        if appended:
            appended -= {t.debit_account_id for t in orders}
            appended -= {t.credit_account_id for t in orders if t.kind != single}
            for hold in holds.values():
                appended -= {hold.debit_account_id, hold.credit_account_id}
        return appended

    def _note_buffered(self, buffered: set[str], not_any_more: set[str]) -> None:
        if not_any_more:
            self._buffered -= not_any_more
        if buffered and not buffered <= self._buffered:
            if len(self._buffered) > _BUFFERED_KNOWN_MAX:
                self._buffered.clear()
            self._buffered |= buffered

    async def _make_months(self, chains: Sequence[Chain]) -> None:
        ids = [t.id for chain in chains for t in chain]
        # What was held before the window lies in a month that is there, or nowhere.
        first = f"tfr_{encode_time(self._clock.now() - self._window)}"
        ids += [t.pending_id for chain in chains for t in chain if t.pending_id >= first]
        missing = self._partitions.missing(ids)
        if missing:
            await self._partitions.make(missing)

    async def _read_back(self, chains: Sequence[Chain]) -> Sequence[Answers | None]:
        """After a lost connection: answer the chains that are kept, from their rows."""
        lane = self._lane
        try:
            await lane.begin()
            stored = await lane.read_transfers([t.id for chain in chains for t in chain])
        finally:
            await lane.abandon()
        answers: list[Answers | None] = []
        for chain in chains:
            kept = [stored.get(t.id) for t in chain]
            is_ours = all(
                one is not None and first_difference(t, one.transfer) is None
                for t, one in zip(chain, kept, strict=True)
            )
            answers.append(
                tuple(one.answer(replayed=False) for one in kept if one is not None)
                if is_ours
                else None
            )
        return answers


def _classify(error: Exception) -> Failure | None:
    return Failure.RETRY_WHOLE if isinstance(error, IdContestedError) else classify(error)


def _refuse_chain(chain: Chain, culprit: Transfer, refusal: Refusal) -> Answers:
    others = Refusal(
        "LINKED_TRANSFER_FAILED", {"culprit_id": culprit.id, "culprit_reason": refusal.reason}
    )
    return tuple(
        TransferResult(t.id, TransferStatus.INVALID, refusal if t is culprit else others)
        for t in chain
    )


def _refuse_open(chain: Chain) -> Answers:
    return _refuse_chain(chain, chain[-1], Refusal("CHAIN_OPEN")) if chain else ()


def _settle_failures(chains: list[Chain], answers: list[Answers | PaymeshError]) -> list[Answers]:
    """Turn what was set aside into results.

    Raises when there is nothing but failures, or when an outcome is unknown: the same ids may then
    be sent again, and get what was decided.
    """
    failures = [answer for answer in answers if isinstance(answer, PaymeshError)]
    if len(failures) == len(answers) and failures:
        raise failures[0]
    settled: list[Answers] = []
    for chain, answer in zip(chains, answers, strict=True):
        if not isinstance(answer, PaymeshError):
            settled.append(answer)
        elif isinstance(answer, InternalError) and answer.outcome == Outcome.NOT_EXECUTED:
            settled.append(_refuse_chain(chain, chain[0], Refusal(answer.reason)))
        else:
            raise answer
    return settled
